# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""What an objective is: from log-weights to what is minimised, and for which parameters."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pytensor.tensor as pt

from pytensor.compile.sharedvalue import SharedVariable
from pytensor.gradient import disconnected_grad
from pytensor.graph.basic import Variable
from pytensor.graph.traversal import ancestors

from pymc.minibatch.current_value import current_length
from pymc.minibatch.plates import model_indexes
from pymc.variational.configurable import Configurable
from pymc.variational.guides.base import (
    Guide,
    Latents,
    Parameter,
    ParamValues,
    Plate,
    SampleShape,
    Site,
)
from pymc.variational.guides.unnumbered_rows import scaled_axes
from pymc.variational.objectives.terms import Term, plate_scale
from pymc.variational.stable_logs import stabilised
from pymc.variational.vectorize import at_draws, largest_at_once

if TYPE_CHECKING:
    from pymc.model.core import Model

#: From log-weights, and the axis that the particles are on, to a bound without that axis.
type Bound = Callable[[Variable, int], Variable]


class Loss(NamedTuple):
    """What is minimised, and the parameters that this is for.

    Parameters
    ----------
    name : str
    value : scalar Variable
        In nats of all data: a negative lower bound, an upper bound, or what has the gradient of it.
    parameters : tuple of Parameter or SharedVariable
    """

    name: str
    value: Variable
    parameters: tuple[Parameter | SharedVariable, ...]


class Losses(NamedTuple):
    """What an objective makes of one evaluation.

    Parameters
    ----------
    reported : scalar Variable or None
        The loss that the history has, in nats of all data: a negative lower bound, or an upper bound. None
        for an objective that returns no loss.
    minimised : tuple of Loss
        Each parameter is in one of them.
    beside : tuple of (str, scalar Variable)
        Names and losses that are kept beside the history, in nats of all data.
    """

    reported: Variable | None
    minimised: tuple[Loss, ...]
    aux_losses: tuple[tuple[str, Variable], ...] = ()


@dataclass(frozen=True)
class Setting:
    """All that an objective is about.

    Parameters
    ----------
    model : Model
    terms : tuple of Term
    guides : tuple of Guide
        In the order in which they are drawn.
    here : mapping
        What stands for each parameter of the guides.
    model_parameters : tuple of SharedVariable
        Shared variables of the model that are trained.
    n_outer : int
        Draws that are averaged over, `obj_n_mc`.
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
        return tuple(guide for guide in self.guides if guide.sites[0].plate)

    def parameters_of(self, guides: Sequence[Guide]) -> tuple[Parameter | SharedVariable, ...]:
        """Parameters of some guides, each once."""
        return tuple(dict.fromkeys(p for guide in guides for p in guide.parameters))


class Objective(Configurable, ABC):
    """What a fit minimises, from draws of the guides: subclass it to write your own.

    Attributes
    ----------
    name : str
        What messages and reports call it.
    gradient : str or None
        The estimator of its gradient, where there are several.
    of_particles : bool
        Whether it is about several particles of a row, and takes one plate only.
    needs_reparametrisation : bool
        Whether gradients have to pass through the draws of the guides of rows.
    is_upper : bool
        Whether its loss is an upper bound of log p(x).
    needs_logq : bool
        Whether the guides have to have a density.
    returns_loss : bool
        Whether its loss is a number that says how good a fit is, and is kept.
    guide_losses : tuple of str
        Names of losses that are kept beside the history.
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
        """Raise a ValueError where the objective cannot be that of a model and its guides."""


@dataclass(frozen=True)
class Draws:
    """A draw of every guide.

    Parameters
    ----------
    blocks : mapping of Guide to Block
    given : mapping of Variable to Variable
        Draws of the global variables, and of local ones that guides depend on, on their own spaces.
    n_lead : mapping of Guide to int
        How many leading axes each block has.
    """

    latents: Mapping[Guide, Latents]
    parents: Mapping[Variable, Variable]
    n_sample_dims: Mapping[Guide, int]

    @cached_property
    def _values(self) -> dict[Variable, Variable]:
        return {
            site.value: value
            for guide, latents in self.latents.items()
            for site, value in guide.values(latents, self.n_sample_dims[guide]).items()
        }

    def values(self) -> dict[Variable, Variable]:
        """Return the draw of each value variable: the same graphs at each call."""
        return dict(self._values)

    def stopped(self, guides: Sequence[Guide]) -> Draws:
        """Hold the draws of some guides: no gradient passes through them."""
        latents = {
            guide: tuple(map(disconnected_grad, latents)) if guide in guides else latents
            for guide, latents in self.latents.items()
        }
        return Draws(latents, self.parents, self.n_sample_dims)


def draw_all(setting: Setting) -> Draws:
    """Draw every guide: globals first, since what is local may depend on them."""
    global_shape, local_shape = sample_shapes(setting)

    def draw(guide: Guide, parents: Mapping[Variable, Variable]) -> tuple[Latents, int]:
        sample_shape = local_shape if guide.sites[0].plate else global_shape
        return guide.draw(setting.param_values, sample_shape, parents), len(sample_shape)

    return draw_in_order(setting.model, setting.guides, draw)


def draw_in_order(
    model: Model,
    guides: Sequence[Guide],
    draw: Callable[[Guide, Mapping[Variable, Variable]], tuple[Latents, int]],
) -> Draws:
    """Draw guides, globals first, and let each depend on what was drawn before it.

    Parameters
    ----------
    model : Model
    guides : sequence of Guide
        Local ones in an order in which each depends on those before it.
    draw : callable (guide, given) -> (block, number of leading axes)
    """
    local = {s.rv for guide in guides if guide.sites[0].plate for s in guide.sites}
    read = {rv for guide in guides for rv in local & guide.reads()}
    drawn = Draws({}, {}, {})
    values: dict[Variable, Variable] = {}
    for guide in sorted(guides, key=lambda guide: bool(guide.sites[0].plate)):
        latents, n_sample_dims = draw(guide, drawn.parents)
        rvs = [s.rv for s in guide.sites]
        needed = [rv for rv in rvs if rv not in local or rv in read]
        parents = drawn.parents
        if needed:
            values |= {site.value: v for site, v in guide.values(latents, n_sample_dims).items()}
            parents = {**parents, **own_space(model, needed, values)}
        drawn = Draws(
            {**drawn.latents, guide: latents},
            parents,
            {**drawn.n_sample_dims, guide: n_sample_dims},
        )
    return drawn


def sample_shapes(setting: Setting) -> tuple[SampleShape, SampleShape]:
    """Leading axes of global and of local draws: outer draws, then particles."""
    outer = (setting.n_outer,) if setting.n_outer > 1 else ()
    particles = (setting.n_particles,) if setting.n_particles > 1 else ()
    if not particles:
        return outer, outer
    if not setting.local_plates:
        return (*outer, *particles), ()
    # One draw of the globals for all particles of a row
    return ((*outer, 1) if outer else ()), (*outer, *particles)


def own_space(
    model: Model, rvs: Sequence[Variable], values: Mapping[Variable, Variable]
) -> dict[Variable, Variable]:
    """Compute variables of a model at draws of the value variables.

    Parameters
    ----------
    model : Model
    rvs : sequence of Variable
    values : mapping of Variable to Variable
        For each value variable its draw; a transform may depend on other variables.
    """
    return dict(zip(rvs, at_draws(model.replace_rvs_by_values(rvs), values)))


@dataclass(frozen=True)
class Weights:
    """Log-weights by plate, in nats.

    Parameters
    ----------
    glob : Variable
        Of what is on no plate: outer draws, and particles where nothing is local.
    rows : mapping of plate to Variable
        Outer draws, particles, and the rows of the batch, not scaled. A leading axis that nothing
        depends on is not there.
    """

    global_: Variable
    rows: Mapping[Plate, Variable]


def log_weights(setting: Setting, draws: Draws, param_values: ParamValues | None = None) -> Weights:
    """Sum up log p - log q on each plate.

    Parameters
    ----------
    setting : Setting
    draws : Draws
    here : mapping, optional
        What stands for the parameters in log q; those of the draws by default.
    """
    several = any(draws.n_sample_dims.values())
    largest = largest_at_once(setting.model) if several else np.inf
    # Before the draws are put in, whose parameters gradients are taken for: their graphs have to stay
    logps = stabilised([term.logp for term in setting.terms])
    logps = at_draws(logps, draws.values(), largest)
    sums: dict[Plate, Variable] = {}
    for term, logp in zip(setting.terms, logps):
        sums[term.plate] = sums[term.plate] + logp if term.plate in sums else logp
    for guide, latents in draws.latents.items():
        plate = guide.sites[0].plate
        if setting.logq_scale is None:
            continue
        logq = guide.logq(
            latents, param_values or setting.param_values, draws.n_sample_dims[guide], draws.parents
        )
        if isinstance(setting.logq_scale, Variable) or setting.logq_scale != 1:
            logq = setting.logq_scale * logq
        sums[plate] = sums[plate] - logq if plate in sums else -logq
    return Weights(sums.pop((), pt.constant(0.0)), sums)


def sum_over_rows(weights: Weights) -> Variable:
    """Return the log-weight of each draw, in nats of all data: rows are scaled, and summed."""
    result = weights.global_
    for plate, rows in weights.rows.items():
        result = result + plate_scale(plate) * rows.sum(axis=tuple(range(-len(plate), 0)))
    return result


def total(setting: Setting, weights: Weights, bound: Bound) -> Variable:
    """Sum what `bound` makes of the particles over rows, scaled to all rows, and average outer draws.

    Parameters
    ----------
    setting : Setting
    weights : Weights
    bound : callable (Variable, axis) -> Variable
        Takes the axis of the particles away.

    Returns
    -------
    scalar Variable
        In nats of all data.
    """
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


def check_plates(setting: Setting, objective: Objective) -> None:
    """Raise where a bound of particles cannot be taken row by row.

    Raises
    ------
    ValueError
        The message says why, and offers the ELBO.
    """
    if not objective.of_particles:
        return
    plates = setting.local_plates
    instead = "objective='elbo' with obj_n_mc draws is right for it"
    if not plates:
        if setting.n_particles > 1:
            _check_all_rows(setting, objective, instead)
        return
    if len(plates) > 1 or len(plates[0]) > 1:
        names = [" x ".join(str(rows.dim) for rows in plate) for plate in plates]
        raise ValueError(
            f"objective {objective.name!r} is a bound for each row of one plate, but latent variables "
            f"are on {', '.join(names)}: {instead}"
        )
    scaled = scaled_axes(setting.model)
    for term in setting.terms:
        if term.mixed:
            raise ValueError(
                f"objective {objective.name!r} is a bound for each row, but the rows of {term.name!r} "
                f"cannot be told apart: {term.mixed}. A model whose rows are coupled has no bound by "
                f"row; {instead}"
            )
        if term.plate != plates[0] and _depends_on_rows(setting, term):
            dims = ", ".join(str(rows.dim) for rows in term.plate)
            raise ValueError(
                f"objective {objective.name!r} is a bound for each row of {plates[0][0].dim!r}, but "
                f"{term.name!r}, which depends on the variables of these rows, is on the plate {dims}: "
                f"{instead}"
            )
        inside = any(one.name == term.name and one.axis in term.within for one in scaled)
        if inside and _depends_on_rows(setting, term):
            raise ValueError(
                f"objective {objective.name!r} is a bound for each row of {plates[0][0].dim!r}, but "
                f"{term.name!r} is scaled by total_size within these rows, which would stand inside of "
                f"the logsumexp over particles: {instead}"
            )


def _check_all_rows(setting: Setting, objective: Objective, instead: str) -> None:
    """Raise where globals alone would be weighed by a part of the rows."""
    scaled = scaled_axes(setting.model)
    if not scaled and not model_indexes(setting.model):
        return
    by_hand = (
        f" ({scaled[0].name!r} has total_size={current_length(scaled[0].total)})" if scaled else ""
    )
    raise ValueError(
        f"objective {objective.name!r} with n_particles={setting.n_particles} on minibatches{by_hand} "
        "needs latent variables of the rows: of globals alone the scale N/B would stand inside "
        f"of the logsumexp over particles, which is no bound. Use all rows, or {instead}"
    )


def _depends_on_rows(setting: Setting, term: Term) -> bool:
    local = {site.value for site in setting.sites if site.plate}
    return not local.isdisjoint(ancestors([term.logp]))


def check_upper_bound(
    setting: Setting, objective: Objective, trained: Sequence[SharedVariable] = ()
) -> None:
    """Raise where what is minimised would be no upper bound, or not one for the guides alone.

    Parameters
    ----------
    setting : Setting
    objective : Objective
    trained : sequence of SharedVariable
        What is minimised for besides the parameters of the guides.

    Raises
    ------
    ValueError
        The message says what to take instead.
    """
    if not objective.is_upper:
        return
    name = f"objective {objective.name!r} of pm.fit"
    if setting.n_particles == 1:
        raise ValueError(
            f"{name} with n_particles=1 is the ELBO, a lower bound, whose minimum is no posterior: an "
            "upper bound needs particles. Write n_particles=64, or more, or take objective='elbo'"
        )
    trained = [*setting.model_parameters, *trained]
    if trained:
        raise ValueError(
            f"{name} bounds log p(x) from above. Its minimum for parameters of the model, here "
            f"{', '.join(repr(var.name) for var in trained)}, makes the data as unlikely as it can: take "
            "a lower bound for them, such as objective='iwae'"
        )
    if setting.local_plates and len(setting.local_guides) < len(setting.guides):
        rvs = [site.name for site in setting.sites if not site.plate]
        raise ValueError(
            f"{name} bounds each row from above, but the part of the global variables "
            f"{', '.join(map(repr, rvs))} is a lower bound, so that the sum is neither: take "
            "objective='elbo', 'iwae', or pm.Renyi(alpha=0.5)"
        )


def check_reparametrised(guides: Sequence[Guide], objective: Objective) -> None:
    """Raise where an objective needs gradients through draws that have none.

    Raises
    ------
    ValueError
        The message names the variables, and an objective without that need.
    """
    needs = objective.needs_reparametrisation
    # The draws of globals are held only where nothing is of a row
    with_rows = any(guide.sites[0].plate for guide in guides)
    names = [
        site.name
        for guide in guides
        for site in guide.sites
        if not guide.reparametrised and (needs or (with_rows and not site.plate))
    ]
    if not names:
        return
    instead = "use objective='rws', which weighs draws" if needs else "sum it out of the model"
    raise ValueError(
        f"objective {objective.name!r} needs gradients through draws{'' if needs else ' of globals'}, but "
        f"the guide of {', '.join(map(repr, names))} draws from a distribution that has none, as those of "
        f"discrete variables are: {instead}, or a distribution that is a function of noise, such as "
        "pm.Normal or pm.LogNormal"
    )
