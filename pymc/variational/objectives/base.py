# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Objectives: from the terms of a model and draws of its guides to log-weights, and to the losses of a fit.

The log-probability of a model is a sum of terms. A term on a plate has a value for each row and is summed
within a row only. Objectives take the sums over rows and over particles, in the order that each needs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np
import pytensor.tensor as pt

from pytensor.compile.sharedvalue import SharedVariable
from pytensor.gradient import disconnected_grad
from pytensor.graph.basic import Variable

from pymc.minibatch.axis_tracking import Axes, Rows, Untracked, track_axes
from pymc.minibatch.group_batches import GroupBatch, batch_terms, logps_of
from pymc.minibatch.group_reads import Groups
from pymc.minibatch.plates import as_axes
from pymc.minibatch.scaling import minibatch_logp, scale_factor
from pymc.variational.configurable import Configurable
from pymc.variational.guides.base import (
    Guide,
    Latents,
    Parameter,
    ParamValues,
    Parents,
    Plate,
    SampleShape,
    Site,
    add_values,
    detach,
    plate_shape,
)
from pymc.variational.guides.unnumbered_rows import (
    UnnumberedRows,
    explicit_totals,
    is_part,
    traced_axes,
)
from pymc.variational.stable_logs import stabilised
from pymc.variational.vectorize import as_tensor, at_draws, largest_at_once

if TYPE_CHECKING:
    from pymc.model.core import Model

#: From log-weights, and the axis of the particles, to a bound without that axis.
Bound: TypeAlias = Callable[[Variable, int], Variable]


# --- terms of a model ---
@dataclass(frozen=True)
class Term:
    """A term of the log-probability of a model, in nats.

    It has the axes of its plate, the rows of a batch, and is not scaled to all rows. A term whose rows cannot
    be told apart has no plate and is its share of the model's log-probability.
    """

    name: str
    plate: Plate
    logp: Variable
    mixed: str = ""  # why the rows cannot be told apart
    within: tuple[int, ...] = ()  # axes of the variable within a row, over which `logp` is summed


def terms_of(
    model: Model,
    rows: Iterable[Rows] = (),
    groups: Mapping[Variable, Groups] = {},
    variables: Sequence[Variable] = (),
    batches: Sequence[GroupBatch] = (),
) -> list[Term]:
    """Return a term for each free and observed variable, Jacobian included, and for each Potential.

    They are functions of the value variables. `rows` are those of guides, which may be of dims that the model
    does not subsample. The terms of some variables are only those of the `groups` of them. `variables` are those
    that have a term, by default all. `batches` have the groups that come by batch.
    """
    variables = variables or [*model.basic_RVs, *model.potentials]
    if batches:
        of_batch = batch_terms(logps_of(model), batches)
        logps = [of_batch[var] for var in variables]
    else:
        with minibatch_logp():
            logps = model.logp(vars=variables, sum=False)
    unnumbered = [axis for axis in dict.fromkeys(rows) if isinstance(axis, UnnumberedRows)]
    known = {
        **traced_axes(model, unnumbered),
        **{slots: as_axes(b.axes) for b in batches for slots in b.slots},
    }
    by_batch = {batch.rv: batch for batch in batches}
    parts = [axis for axis in unnumbered if is_part(axis.n_available, axis.total)]
    terms = []
    for var, logp in zip(variables, logps):
        if var in by_batch:  # which the model has not scaled
            within = tuple(range(1, logp.type.ndim))
            terms.append(
                Term(var.name, (by_batch[var].rows,), logp.sum(within) if within else logp)
            )
            continue
        if var in groups:
            logp = as_tensor(logp)[groups[var].index()]
        explicit = explicit_totals(model, var) if unnumbered else {}
        term = _term(var.name, logp, known, explicit)
        if term.mixed and parts and not explicit:
            raise ValueError(
                f"{term.name!r} depends on the rows of {parts[0]}, of which the model holds a batch "
                "(total_size=...), but has no value for each row, so that it cannot be scaled to all of "
                f"them: {term.mixed}. Give data of the rows dims={parts[0].dim!r}, and let the term have a "
                "value for each row"
            )
        terms.append(term)
    return terms


def _term(
    name: str,
    logp: Variable,
    known: Mapping[Variable, Axes | Untracked],
    explicit: Collection[int],
) -> Term:
    axes, logp = track_axes(logp, known), as_tensor(logp)
    # The model has scaled it as a whole, so that its sum is a share of the log-probability
    if isinstance(axes, Untracked):
        return Term(name, (), logp.sum(), axes.why)
    plate = tuple(axis for axis in axes if isinstance(axis, Rows))
    within = tuple(k for k, axis in enumerate(axes) if not isinstance(axis, Rows))
    # Undo the scale of the model, which has it for rows of an index and for explicit totals
    scaled = [
        axis
        for k, axis in enumerate(axes)
        if isinstance(axis, Rows) and (k in explicit or axis.has_row_ids)
    ]
    if scaled:
        logp = logp / plate_scale(scaled)
    return Term(name, plate, logp.sum(within) if within else logp, within=within)


def plate_scale(plate: Sequence[Rows]) -> Variable:
    """Return the number of all rows divided by that of the batch."""
    return scale_factor([rows.total for rows in plate], plate_shape(plate))


# --- objectives and their losses ---
class Loss(NamedTuple):
    """A loss to minimise, and the parameters that it is minimised for.

    Parameters
    ----------
    name : str
    value : scalar Variable
        In nats of all data: a negative lower bound, an upper bound, or a surrogate with its gradient.
    parameters : tuple of Parameter or SharedVariable
    """

    name: str
    value: Variable
    parameters: tuple[Parameter | SharedVariable, ...]


class Losses(NamedTuple):
    """The losses of one evaluation.

    Parameters
    ----------
    reported : scalar Variable or None
        The loss in the history, in nats of all data: a negative lower bound, or an upper bound. None
        for an objective that returns no loss.
    minimised : tuple of Loss
        Each parameter is in one of them.
    aux_losses : tuple of (str, scalar Variable)
        Names and auxiliary losses that are kept with the history, in nats of all data.
    """

    reported: Variable | None
    minimised: tuple[Loss, ...]
    aux_losses: tuple[tuple[str, Variable], ...] = ()


@dataclass(frozen=True)
class Setting:
    """The model, guides and parameter values that an objective is evaluated with.

    Parameters
    ----------
    model : Model
    terms : tuple of Term
    guides : tuple of Guide
        In an order in which they can be drawn.
    param_values : mapping
        The graph of each parameter of the guides.
    model_parameters : tuple of SharedVariable
        Shared variables of the model that are trained.
    n_outer : int
        Number of draws to average over, `obj_n_mc`.
    n_particles : int
        Particles of the bound, K.
    logq_scale : float or scalar variable, or None
        Scale of log q in a log-weight: `beta` of an ELBO, and None for log p alone.
    """

    model: Model
    terms: tuple[Term, ...]
    guides: tuple[Guide, ...]
    param_values: ParamValues
    model_parameters: tuple[SharedVariable, ...] = ()
    n_outer: int = 1
    n_particles: int = 1
    logq_scale: float | Variable | None = 1.0

    @property
    def sites(self) -> list[Site]:
        return [site for guide in self.guides for site in guide.sites]

    @property
    def local_plates(self) -> tuple[Plate, ...]:
        return tuple(dict.fromkeys(s.plate for s in self.sites if s.plate))

    @property
    def local_guides(self) -> tuple[Guide, ...]:
        return tuple(guide for guide in self.guides if guide.plate)

    @property
    def sample_shapes(self) -> tuple[SampleShape, SampleShape]:
        """Sample shapes of global and of local draws: outer draws, then particles."""
        outer = (self.n_outer,) if self.n_outer > 1 else ()
        particles = (self.n_particles,) if self.n_particles > 1 else ()
        if not particles:
            return outer, outer
        if not self.local_plates:
            return (*outer, *particles), ()
        # One draw of the global variables for all particles of a row
        return ((*outer, 1) if outer else ()), (*outer, *particles)

    def parameters_of(self, guides: Sequence[Guide]) -> tuple[Parameter | SharedVariable, ...]:
        """Return the parameters of some guides, each once."""
        return tuple(dict.fromkeys(p for guide in guides for p in guide.parameters))

    def shared_params(self, guides: Sequence[Guide]) -> tuple[SharedVariable, ...]:
        """Return the parameters of the model that guides depend on too."""
        read = {var for guide in guides for var in guide.reads()}
        return tuple(p for p in self.model_parameters if p in read)

    def model_only_params(self, guides: Sequence[Guide]) -> tuple[SharedVariable, ...]:
        """Return the parameters of the model that none of some guides depends on."""
        shared = self.shared_params(guides)
        return tuple(p for p in self.model_parameters if p not in shared)

    def detached_params(self, guides: Sequence[Guide]) -> ParamValues:
        """Stop the gradient through parameters of some guides, and of the model, which they may share."""
        of_guides = self.parameters_of(guides)
        detached = {p: var for p, var in self.param_values.items() if p in of_guides}
        detached |= {p: p for p in self.model_parameters}
        return {**self.param_values, **detach(detached)}


class Objective(Configurable, ABC):
    """An objective of a fit, computed from draws of the guides: subclass it to write your own.

    Attributes
    ----------
    name : str
        Its name in messages and reports.
    gradient : str or None
        The estimator of its gradient, if there are several.
    of_particles : bool
        Whether it is about several particles of a row. It takes one plate only then.
    needs_reparametrisation : bool
        Whether gradients have to pass through the draws of the guides of rows.
    is_upper : bool
        Whether its loss is an upper bound of log p(x).
    needs_logq : bool
        Whether the guides need a density.
    returns_loss : bool
        Whether its loss measures the quality of a fit, and is kept.
    guide_losses : tuple of str
        Names of auxiliary losses that are kept with the history.
    """

    name: str
    gradient: str | None = None
    of_particles: bool = False
    needs_reparametrisation: bool = True
    is_upper: bool = False
    needs_logq: bool = True
    returns_loss: bool = True
    guide_losses: tuple[str, ...] = ()

    @abstractmethod
    def losses(self, setting: Setting) -> Losses:
        """Return the losses as graphs, in nats of all data; all are minimised."""

    def check(self, setting: Setting) -> None:
        """Raise a ValueError if the objective does not fit a model and its guides."""


# --- draws of guides ---
@dataclass(frozen=True)
class Draws:
    """A draw of every guide."""

    latents: Mapping[Guide, Latents]
    parents: Parents  # global variables, and local ones that guides depend on
    n_sample_dims: Mapping[Guide, int]  # the number of leading axes of each draw

    @cached_property
    def _values(self) -> dict[Variable, Variable]:
        values: dict[Variable, Variable] = {}
        for guide, latents in self.latents.items():
            n_sample_dims = self.n_sample_dims[guide]
            add_values(values, guide.values(latents, n_sample_dims), n_sample_dims)
        return values

    def values(self) -> dict[Variable, Variable]:
        """Return the draw of each value variable: the same graphs at each call."""
        return dict(self._values)

    def stopped(self, guides: Sequence[Guide]) -> Draws:
        """Stop the gradient through the draws of some guides."""
        latents = {
            guide: tuple(map(disconnected_grad, drawn)) if guide in guides else drawn
            for guide, drawn in self.latents.items()
        }
        return replace(self, latents=latents)

    def detached(self, guides: Sequence[Guide]) -> Draws:
        """Stop the gradient through the draws of some guides, and through all parents."""
        parents = {var: disconnected_grad(draw) for var, draw in self.parents.items()}
        return replace(self.stopped(guides), parents=parents)


def draw_all(setting: Setting) -> Draws:
    """Draw every guide: global ones first, since local ones may depend on them."""
    global_shape, local_shape = setting.sample_shapes
    return draw_in_order(
        setting.model, setting.guides, setting.param_values, local_shape, global_shape
    )


def draw_in_order(
    model: Model,
    guides: Sequence[Guide],
    param_values: ParamValues,
    sample_shape: SampleShape,
    global_shape: SampleShape | None = None,
    drawn: Mapping[Guide, Latents] = {},
) -> Draws:
    """Draw guides, global ones first; each may depend on those before it.

    `global_shape` is the sample shape of global guides, by default that of all. Guides in `drawn` have their
    draws already.
    """
    local = {s.rv for guide in guides if guide.plate for s in guide.sites}
    read = {rv for guide in guides for rv in local & guide.reads()}
    draws = Draws({}, {}, {})
    values: dict[Variable, Variable] = {}
    for guide in sorted(guides, key=lambda guide: bool(guide.plate)):
        shape = sample_shape if guide.plate or global_shape is None else global_shape
        latents = drawn.get(guide) or guide.draw(param_values, shape, draws.parents)
        parents = draws.parents
        needed = [s.rv for s in guide.sites if s.rv not in local or s.rv in read]
        if needed:
            add_values(values, guide.values(latents, len(shape)), len(shape))
            parents = {**parents, **own_space(model, needed, values)}
        draws = Draws(
            {**draws.latents, guide: latents}, parents, {**draws.n_sample_dims, guide: len(shape)}
        )
    return draws


def own_space(
    model: Model, rvs: Sequence[Variable], values: Mapping[Variable, Variable]
) -> dict[Variable, Variable]:
    """Map draws of value variables to the variables' own spaces; transforms may depend on other variables."""
    return dict(zip(rvs, at_draws(model.replace_rvs_by_values(rvs), values)))


# --- log-weights ---
@dataclass(frozen=True)
class Weights:
    """Log-weights by plate, in nats.

    Parameters
    ----------
    global_ : Variable
        Of the terms on no plate: outer draws, and particles if no variable is local.
    rows : mapping of plate to Variable
        Outer draws, particles, and the rows of the batch, not scaled. A leading axis is missing if no
        term depends on it.
    """

    global_: Variable
    rows: Mapping[Plate, Variable]


def log_weights(setting: Setting, draws: Draws, param_values: ParamValues | None = None) -> Weights:
    """Sum log p - log q on each plate; `param_values` are for log q, by default those of `setting`."""
    several = any(draws.n_sample_dims.values())
    largest = largest_at_once(setting.model) if several else np.inf
    # Stabilise first: afterwards the graphs contain the draws, through which gradients are taken
    logps = stabilised([term.logp for term in setting.terms])
    logps = at_draws(logps, draws.values(), largest)
    sums: dict[Plate, Variable] = {}
    for term, logp in zip(setting.terms, logps):
        sums[term.plate] = sums[term.plate] + logp if term.plate in sums else logp
    scale = setting.logq_scale
    # Of log p alone, as particles without a density need it
    if scale is None:
        return Weights(sums.pop((), pt.constant(0.0)), sums)
    for guide, latents in draws.latents.items():
        if guide not in setting.guides:  # the prior, whose density would cancel
            continue
        n_sample_dims, plate = draws.n_sample_dims[guide], guide.plate
        values = param_values or setting.param_values
        logq = guide.logq(latents, values, n_sample_dims, draws.parents)
        if isinstance(scale, Variable) or scale != 1:
            logq = scale * logq
        sums[plate] = sums[plate] - logq if plate in sums else -logq
    return Weights(sums.pop((), pt.constant(0.0)), sums)


def sum_over_rows(weights: Weights) -> Variable:
    """Return the log-weight of each draw, in nats of all data: rows are scaled and summed."""
    result = weights.global_
    for plate, rows in weights.rows.items():
        result = result + plate_scale(plate) * rows.sum(axis=tuple(range(-len(plate), 0)))
    return result


def total(setting: Setting, weights: Weights, bound: Bound) -> Variable:
    """Sum the bound of each row, scaled to all rows, and average over outer draws.

    Parameters
    ----------
    setting : Setting
    weights : Weights
    bound : callable (Variable, axis) -> Variable
        Reduces the axis of the particles.

    Returns
    -------
    scalar Variable
        In nats of all data.
    """
    # The bound of each row is scaled and summed, never its weights: N/B inside of a logsumexp is no bound
    result = _mean_of_draws(setting, weights.global_, 0, bound)
    for plate, rows in weights.rows.items():
        each_row = _mean_of_draws(setting, rows, len(plate), bound)
        result = result + plate_scale(plate) * each_row.sum()
    return result


def _mean_of_draws(setting: Setting, weights: Variable, n_row_axes: int, bound: Bound) -> Variable:
    """Reduce the leading axes: particles by `bound`, outer draws by their mean."""
    if setting.n_particles > 1 and weights.type.ndim > n_row_axes:
        weights = bound(weights, weights.type.ndim - n_row_axes - 1)
    return weights.mean(axis=0) if weights.type.ndim > n_row_axes else weights
