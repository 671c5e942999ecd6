# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""The loss of a fit of guides, and the updates of its parameters."""

from __future__ import annotations

import warnings

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from functools import reduce
from operator import mul
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytensor
import pytensor.tensor as pt

from pytensor.compile.sharedvalue import SharedVariable
from pytensor.graph.basic import Variable
from pytensor.graph.replace import graph_replace
from pytensor.graph.traversal import ancestors

from pymc.argument_checks import check_choice, check_int
from pymc.minibatch.axis_tracking import Rows, Untracked, track_axes
from pymc.minibatch.plates import model_indexes
from pymc.minibatch.scaling import scale_factor
from pymc.pytensorf import compile, current_length, current_value
from pymc.variational.approximation import GuideApproximation
from pymc.variational.averaging import TailAverage
from pymc.variational.guides.base import Guide, Parameter, ParamValues, Plate
from pymc.variational.guides.prior import new_groups
from pymc.variational.guides.unnumbered_rows import scaled_axes
from pymc.variational.local_params.row_optimizer import (
    RowGradient,
    RowUpdate,
    all_updates,
    guarded,
)
from pymc.variational.minibatch_rv import unscaled_rv
from pymc.variational.objectives.base import (
    Losses,
    Objective,
    Setting,
    plate_scale,
)
from pymc.variational.optimizers import Optimizer, as_optimizer, chain, clip_by_global_norm
from pymc.variational.opvi import (  # type: ignore[attr-defined]  # of the release
    ExplicitInferenceError,
)
from pymc.variational.replacements import as_replacements, check_replacements
from pymc.variational.updates import adagrad_window

if TYPE_CHECKING:
    from pymc.model.core import Model

__all__ = ["FitObjective", "loss_factor"]


#: Sizes of the loss: that of a batch, of all data, or of a row.
REDUCTIONS = ("batch", "sum", "mean")


class Gradients(NamedTuple):
    """The loss of a step and its gradients, as graphs."""

    loss: Variable | None  # None if the objective has no loss
    dense: list[Variable]
    rows: list[RowGradient]
    aux_losses: list[Variable]
    updates: Mapping[SharedVariable, Variable] = {}  # that come with each evaluation


class FitObjective:
    """The loss of an approximation, and the updates of its parameters.

    Parameters
    ----------
    approx : GuideApproximation
    objective : Objective
    n_particles : int
    reduction : {"batch", "sum", "mean"}, optional
        Default: "batch", or "sum" if `approx.scale_cost_to_minibatch` is off.

    Raises
    ------
    ValueError, TypeError
        If the objective does not fit to the model or to the guides.
    """

    #: The test function of PyMC's objectives, which is only one of operators
    tf: None = None

    def __init__(
        self,
        approx: GuideApproximation,
        objective: Objective,
        n_particles: int = 1,
        reduction: str | None = None,
    ) -> None:
        self.approx = approx
        self.objective = objective
        self.n_particles = check_int(n_particles, "n_particles", "pm.fit")
        if reduction is not None:
            reduction = check_choice(reduction, "reduction", "pm.fit", REDUCTIONS)
        self._reduction = reduction
        self.check()

    @property
    def op(self) -> Objective:
        """The objective, by PyMC's name for it."""
        return self.objective

    @property
    def test_params(self) -> list[SharedVariable]:
        """The parameters of the test function: none."""
        return []

    @property
    def obj_params(self) -> list[SharedVariable]:
        """The parameters of the fit, by PyMC's name for them."""
        return self.approx.params

    @property
    def reduction(self) -> str:
        """The size of the loss: of a batch, of all data, or of a row."""
        return self._reduction or ("batch" if self.approx.scale_cost_to_minibatch else "sum")

    @property
    def guarded(self) -> bool:
        """True if a non-finite step changes nothing, and its loss is not finite.

        Without tables of rows the loop repeats the steps up to it instead, which is cheaper.
        """
        return bool(self.approx.tables)

    @property
    def guide_losses(self) -> tuple[str, ...]:
        """Names of the losses that are kept besides the history."""
        return self.objective.guide_losses

    def factor(self) -> float:
        """Return the factor of the loss, with the data as they are."""
        # Not by pm.compile, which would seed the minibatch index anew and move it on
        return float(current_value(loss_factor(self.approx.model, self.reduction)))  # type: ignore[arg-type]

    def settings(self) -> dict[str, Any]:
        """Return the objective's entries in the report of a fit."""
        return {
            "guide": str(self.approx),
            "objective": self.objective.name,
            "gradient": self.objective.gradient,
            "n_particles": self.n_particles,
            "bound": self.bound,
            "reduction": self.reduction,
            "groups_with_rows": self.approx.fitted_groups,
        }

    @property
    def bound(self) -> str | None:
        """The scope of the bound over particles: each row, or all variables jointly; None without particles."""
        if not self.objective.of_particles or self.n_particles == 1:
            return None
        plates = self.setting({}).local_plates
        if not plates:
            return "jointly of all variables and rows"
        return "of each row of " + " x ".join(repr(rows.dim) for rows in plates[0])

    def check(self) -> None:
        """Raise if the objective does not fit to the model."""
        if self.objective.needs_logq and not self.approx.has_logq:
            raise ExplicitInferenceError(
                f"objective {self.objective.name!r} needs the log-density of the guide, and {self.approx} has "
                "none, since particles have no density: fit particles by method='svgd', or take another guide"
            )
        check_reparametrised(self.approx.guides, self.objective)
        by_batch = [batch.rv for guide in self.approx.guides for batch in guide.group_batches]
        if by_batch and self.objective.of_particles:
            names = ", ".join(repr(rv.name) for rv in by_batch)
            raise ValueError(
                f"groups of pm.fit has {names}, but the particles of objective={self.objective.name!r} weigh all "
                "rows of a group together, of which a batch has some. Take objective='elbo', or leave groups out"
            )
        setting = self.setting({})
        self.objective.check(setting)
        _check_plates(setting, self.objective)
        _check_upper_bound(setting, self.objective)

    def setting(self, param_values: ParamValues, n_outer: int = 1) -> Setting:
        """Return the inputs of the objective, with a graph of each parameter."""
        approx = self.approx
        return Setting(
            approx.model,
            approx.terms_of_batch,
            approx.guides_of_batch,
            param_values,
            approx.model_parameters,
            n_outer,
            self.n_particles,
        )

    def losses(
        self,
        param_values: ParamValues,
        n_outer: int = 1,
        more_replacements: Mapping[Variable | str, Any] | None = None,
    ) -> Losses:
        """Build the losses, in nats of all data."""
        setting = self.setting(param_values, n_outer)
        new = as_replacements(self.approx.model, more_replacements)
        if new:
            check_replacements(self.approx.model, new)
            for name, groups in new_groups(self.approx.model, self.approx.sites, new).items():
                raise ValueError(
                    f"more_replacements has rows of {len(groups):,} groups of {name!r} that have none in the data of "
                    "the model, so that the fit leaves them out. Set the data by pm.set_data before it"
                )
            # Guides keep their inputs: only the terms of the model are replaced
            logps = graph_replace([term.logp for term in setting.terms], new, strict=False)
            terms = (replace(term, logp=logp) for term, logp in zip(setting.terms, logps))
            setting = replace(setting, terms=tuple(terms))
        return self.objective.losses(setting)

    def __call__(self, nmc: int, **kwargs: Any) -> Variable:
        """Return the loss as a graph, of `nmc` draws."""
        storage = self.approx.storage
        param_values = storage.param_values(storage.of_batch())
        losses = self.losses(param_values, nmc, kwargs.get("more_replacements"))
        if losses.reported is None:
            raise NotImplementedError(f"objective {self.objective.name!r} has no loss")
        return losses.reported * loss_factor(self.approx.model, self.reduction)

    def updates_averaged(
        self, fraction: float | None, **kwargs: Any
    ) -> tuple[dict[SharedVariable, Variable], Variable | None, TailAverage | None]:
        """Return the next values of a step, its loss, and averages over the last part of a fit."""
        tail = None
        if fraction is not None:
            tail = TailAverage.of(self.approx.dense_params, fraction, list(self.approx.tables))
        return *self.updates(average=tail, **kwargs), tail

    def step_function(
        self, score: bool = False, compile_kwargs: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> Any:
        """Compile one step, as :meth:`pymc.Inference.run_profiling` takes it."""
        updates, loss = self.updates(**kwargs)
        outputs = loss if score and loss is not None else []
        seed = int(self.approx.rng.randint(2**30, dtype=np.int64))
        return compile([], outputs, updates=updates, random_seed=seed, **(compile_kwargs or {}))

    def updates(
        self,
        obj_n_mc: int | None = None,
        obj_optimizer: Any = adagrad_window,
        more_obj_params: Sequence[SharedVariable] | None = None,
        more_updates: Mapping[SharedVariable, Variable] | None = None,
        more_replacements: Mapping[Variable | str, Any] | None = None,
        total_grad_norm_constraint: float | None = None,
        average: TailAverage | None = None,
        tf_n_mc: int | None = None,
        test_optimizer: Any = None,
        more_tf_params: Any = None,
    ) -> tuple[dict[SharedVariable, Variable], Variable | None]:
        """Build the next values of all parameters, and the loss of the step.

        Parameters
        ----------
        obj_n_mc : int, optional
            Draws to average the objective over. Default: 1.
        obj_optimizer : callable (grads, params) -> updates, Optimizer, or optimizer of optax
        more_obj_params : list of SharedVariable, optional
            More parameters to minimise the loss for.
        more_updates : dict, optional
        more_replacements : mapping of Variable or str to Variable or array, optional
            Replacements for variables of the model, such as a minibatch.
        total_grad_norm_constraint : float, optional
            Bound of the norm of the gradient, of rows and globals together.
        average : TailAverage, optional
            Averages of the parameters to keep; those of rows are in their tables.
        tf_n_mc, test_optimizer, more_tf_params
            Not used, since there is no test function.

        Returns
        -------
        updates : dict of SharedVariable to Variable
            The old values, if the step would give a value that is not finite.
        loss : scalar Variable, or vector, or None
            Nan in that case. The other entries of a vector are the `guide_losses`. None if the objective has
            no loss.

        Raises
        ------
        TypeError, ValueError
            If `obj_n_mc` is no number of draws, or `more_obj_params` would be fitted by an upper bound.
        """
        given = {"tf_n_mc": tf_n_mc, "more_tf_params": more_tf_params}
        if unused := [name for name, value in given.items() if value is not None]:
            warnings.warn(
                f"{', '.join(unused)} of pm.fit is about a test function with parameters, and this objective "
                "has none: it is not used",
                stacklevel=3,
            )
        n_outer = check_int(1 if obj_n_mc is None else obj_n_mc, "obj_n_mc", "pm.fit")
        _check_upper_bound(self.setting({}), self.objective, more_obj_params or ())
        dense = self.dense(more_obj_params)
        gradients = self.gradients(dense, n_outer, more_replacements)
        optimizer = as_optimizer(obj_optimizer)
        # Of the gradients, as in PyMC: an optimizer may scale the step up again
        if total_grad_norm_constraint is not None:
            optimizer = chain(clip_by_global_norm(total_grad_norm_constraint), optimizer)
        updates, rows = self.all_updates(optimizer, dense, gradients, average)
        if average is not None:
            updates = average.updates(updates)
        updates |= {**gradients.updates, **(more_updates or {})}
        if gradients.loss is None:
            return updates, None
        loss = gradients.loss
        # A table is too large to be copied at each step, so a bad step must not be written
        if self.guarded:
            loss, updates = guarded(loss, updates, rows)
        if gradients.aux_losses:
            loss = pt.stack([loss, *gradients.aux_losses])
        return updates, loss

    def all_updates(
        self,
        optimizer: Optimizer,
        dense: Sequence[SharedVariable],
        gradients: Gradients,
        average: TailAverage | None,
    ) -> tuple[dict[SharedVariable, Variable], list[RowUpdate]]:
        """Pass the gradients through an optimizer; return the next values, and those of rows."""
        n_waiting = average and average.n_waiting
        return all_updates(optimizer, dense, gradients.dense, gradients.rows, n_waiting)

    def dense(self, trained: Sequence[SharedVariable] | None = None) -> list[SharedVariable]:
        """Return the parameters that are not of rows: of guides, of the model, and more that are trained."""
        storage = self.approx.storage
        return [*storage.dense.values(), *self.approx.model_parameters, *(trained or ())]

    def gradients(
        self,
        dense: Sequence[SharedVariable],
        n_outer: int = 1,
        more_replacements: Mapping[Variable | str, Any] | None = None,
    ) -> Gradients:
        """Build the loss of a step, and its gradients."""
        storage = self.approx.storage
        gathered = {plate: table.gather() for plate, table in storage.tables.items()}
        params = {plate: rows for plate, (_, rows) in gathered.items()}
        losses = self.losses(storage.param_values(params), n_outer, more_replacements)
        factor = loss_factor(self.approx.model, self.reduction)
        found = self._gradients(losses, factor, params, dense)
        return Gradients(
            None if losses.reported is None else losses.reported * factor,
            found[: len(dense)],
            [
                RowGradient(storage.tables[plate], gathered[plate], gradient)
                for plate, gradient in zip(params, found[len(dense) :])
            ],
            [value * factor for _, value in losses.aux_losses],
        )

    def _gradients(
        self,
        losses: Losses,
        factor: Variable,
        params: Mapping[Plate, Variable],
        dense: Sequence[SharedVariable],
    ) -> list[Variable]:
        """Return the gradients of the dense parameters, and then of the rows of each plate."""
        storage = self.approx.storage
        first_of: dict[Plate, Parameter] = {}
        for parameter in storage.columns:
            first_of.setdefault(parameter.plate, parameter)  # one loss minimises all of a plate
        loss_of = {p: loss for loss in losses.minimised for p in loss.parameters}
        keys = [*storage.dense, *dense[len(storage.dense) :], *map(first_of.get, params)]
        variables = [*dense, *params.values()]
        gradients: dict[Variable, Any] = {}
        for loss in losses.minimised:
            # More parameters of the user follow the last loss, which is that of the model
            wrt = [
                var
                for var, key in zip(variables, keys)
                if loss_of.get(key, losses.minimised[-1]) is loss
            ]
            if wrt:
                found = pytensor.grad(loss.value * factor, wrt, disconnected_inputs="ignore")
                gradients |= zip(wrt, found)
        return [gradients[var] for var in variables]


# --- checks of an objective ---
def _check_plates(setting: Setting, objective: Objective) -> None:
    """Raise if a bound of particles cannot be taken row by row."""
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
    local = {site.value for site in setting.sites if site.plate}
    subject = f"objective {objective.name!r} is a bound for each row of {plates[0][0].dim!r}, but"
    for term in setting.terms:
        if term.mixed:
            raise ValueError(
                f"{subject} the rows of {term.name!r} cannot be told apart: {term.mixed}. A model whose rows "
                f"are coupled has no bound by row; {instead}"
            )
        if local.isdisjoint(ancestors([term.logp])):
            continue
        if term.plate != plates[0]:
            dims = ", ".join(str(rows.dim) for rows in term.plate)
            raise ValueError(
                f"{subject} {term.name!r}, which depends on the variables of these rows, is on the plate "
                f"{dims}: {instead}"
            )
        if any(axis.name == term.name and axis.axis in term.within for axis in scaled):
            raise ValueError(
                f"{subject} {term.name!r} is scaled by total_size within these rows, which would stand "
                f"inside of the logsumexp over particles: {instead}"
            )


def _check_all_rows(setting: Setting, objective: Objective, instead: str) -> None:
    """Raise if a part of the rows would weigh particles of global variables."""
    scaled = scaled_axes(setting.model)
    if not scaled and not model_indexes(setting.model):
        return
    cause = ""
    if scaled:
        cause = f" ({scaled[0].name!r} has total_size={current_length(scaled[0].total)})"
    raise ValueError(
        f"objective {objective.name!r} with n_particles={setting.n_particles} on minibatches{cause} "
        "needs latent variables of the rows: of globals alone the scale N/B would stand inside "
        f"of the logsumexp over particles, which is no bound. Use all rows, or {instead}"
    )


def _check_upper_bound(
    setting: Setting, objective: Objective, trained: Sequence[SharedVariable] = ()
) -> None:
    """Raise if a loss would be no upper bound, or is minimised for more than the guides.

    `trained` are shared variables that are trained besides the parameters of `setting`.
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
    """Raise if an objective needs gradients through draws that have none."""
    needs = objective.needs_reparametrisation
    # Gradients pass through the draws of globals if there are rows, whatever the objective
    with_rows = any(guide.plate for guide in guides)
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


# --- the size of the loss ---
def loss_factor(model: Model, reduction: str) -> Variable:
    """Return the factor of the loss, which is in nats of all data.

    Parameters
    ----------
    model : Model
    reduction : {"batch", "sum", "mean"}
        "batch" divides by N/B, 1 for full data; "sum" leaves the loss as it is; "mean" divides by the
        number of rows. If observed variables are on several plates, "batch" takes the largest ratio, and
        "mean" the rows of all of them.

    Returns
    -------
    scalar of floatX
    """
    if reduction == "sum":
        return pt.constant(1.0)
    plates = _observed_plates(model)
    if reduction == "mean":
        counts = [plate.n_rows for plate in plates]
        n_rows = counts[0] if len(counts) == 1 else pt.add(*counts)
        return 1 / n_rows.astype("floatX")
    scales = [plate.scale for plate in plates]
    return 1 / (scales[0] if len(scales) == 1 else pt.max(pt.stack(scales)))


class PlateSize(NamedTuple):
    """The number of all rows, and N/B."""

    n_rows: Variable
    scale: Variable


def _observed_plates(model: Model) -> list[PlateSize]:
    """Return the sizes of the plates of observed variables, each once.

    Without any, they are those of the subsampled dims, or one row.
    """
    found: dict[Hashable, PlateSize] = {}
    for rv in model.observed_RVs:
        axes = track_axes(model.rvs_to_values[rv])
        rows = () if isinstance(axes, Untracked) else tuple(a for a in axes if isinstance(a, Rows))
        if rows:
            found[rows] = _size_of_rows(rows)
        else:
            dims = model.named_vars_to_dims.get(rv.name, ())
            found.setdefault(dims[0] if dims else rv.name, _size_without_index(model, rv))
    if not found:
        found = {index: _size_of_rows((Rows(index),)) for index in model_indexes(model)}
    return list(found.values()) or [PlateSize(pt.constant(1), pt.constant(1.0))]


def _size_of_rows(rows: Sequence[Rows]) -> PlateSize:
    n_rows = reduce(mul, [axis.total for axis in rows], pt.constant(1, dtype="int64"))
    return PlateSize(n_rows, plate_scale(rows))


def _size_without_index(model: Model, rv: Variable) -> PlateSize:
    """Return the size of full data, or of a batch with a `total_size`: rows are on the leading axis."""
    shape = list(model.rvs_to_values[rv].shape)
    totals = unscaled_rv(rv)[1]
    explicit = [total for total in totals if total is not None]
    if not explicit:
        return PlateSize(shape[0] if shape else pt.constant(1), pt.constant(1.0))
    return PlateSize(pt.as_tensor(reduce(mul, explicit)), scale_factor(totals, shape))
