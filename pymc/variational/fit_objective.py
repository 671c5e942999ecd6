#   Copyright 2026 - present The PyMC Developers
#
#   Licensed under the Apache License, Version 2.0 (the "License");
#   you may not use this file except in compliance with the License.
#   You may obtain a copy of the License at
#
#       http://www.apache.org/licenses/LICENSE-2.0
#
#   Unless required by applicable law or agreed to in writing, software
#   distributed under the License is distributed on an "AS IS" BASIS,
#   WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
#   See the License for the specific language governing permissions and
#   limitations under the License.
"""Fits of guides: of models with rows of their own variables, and of bounds over particles.

What the release fits by a Group and an Operator is fitted here by guides and an objective, which know
rows from particles. The rest of a fit is the same: the steps, the loop, callbacks and results.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytensor
import pytensor.tensor as pt

from pytensor.compile.mode import Mode
from pytensor.compile.sharedvalue import SharedVariable
from pytensor.graph.basic import Variable
from pytensor.xtensor.type import XTensorVariable

from pymc.variational.approximation import GuidedApproximation
from pymc.variational.averaging import TailAverage
from pymc.variational.counts import check_count
from pymc.variational.guides.amortized import Amortized
from pymc.variational.guides.assembly import assemble, there_of_guide
from pymc.variational.guides.base import Here, Parameter, Plate, Site, sites_of
from pymc.variational.guides.encoded import AmortizedGuide
from pymc.variational.guides.encoders import model_parameters
from pymc.variational.guides.starts import Starts, check_used
from pymc.variational.objectives.base import Losses, Objective, Setting
from pymc.variational.objectives.checks import (
    check_plates,
    check_reparametrised,
    check_upper_bound,
)
from pymc.variational.objectives.loss_factor import check_reduction, loss_factor
from pymc.variational.optimizers import as_optimizer, chain, clip_by_global_norm
from pymc.variational.rows.updates import RowGradient, all_updates, guarded
from pymc.variational.updates import adagrad_window

__all__ = ["GuidedApproximation", "GuidedObjective", "guided_approximation"]


class GuidedObjective:
    """The loss of a guided approximation, and the updates of its parameters.

    Parameters
    ----------
    approx : GuidedApproximation
    objective : Objective
    n_particles : int
    reduction : str
    """

    #: A step that is not finite changes nothing, and says so by its loss.
    guarded = True

    def __init__(
        self, approx: Any, objective: Objective, n_particles: int = 1, reduction: str = "batch"
    ) -> None:
        self.approx = approx
        self.objective = objective
        self.n_particles = n_particles
        self.reduction = check_reduction(reduction)

    @property
    def guide_losses(self) -> tuple[str, ...]:
        """Names of the losses that are kept beside the history."""
        return self.objective.guide_losses

    def factor(self) -> float:
        """What the loss is multiplied by, with the data as they are."""
        factor = loss_factor(self.approx.model, self.reduction)
        python = Mode(linker="py", optimizer=None)  # to compile a division takes longer
        # Not pm.compile, which would seed the minibatch index anew and move it on
        return float(pytensor.function([], factor, mode=python)())

    def settings(self) -> dict[str, Any]:
        """What a report says of it."""
        return {
            "guide": str(self.approx),
            "objective": self.objective.name,
            "gradient": self.objective.gradient,
            "n_particles": self.n_particles,
            "bound": self.bound,
            "reduction": self.reduction,
        }

    @property
    def bound(self) -> str | None:
        """What the particles of a bound are of: each row, or all variables at once; None without any."""
        if not self.objective.of_particles or self.n_particles == 1:
            return None
        plates = self.setting({}).local_plates
        if not plates:
            return "jointly of all variables and rows"
        return "of each row of " + " x ".join(repr(rows.dim) for rows in plates[0])

    def check(self) -> None:
        """Raise where the objective cannot be that of the model."""
        check_reparametrised(self.approx.guides, self.objective)
        setting = self.setting({})
        check_plates(setting, self.objective)
        check_upper_bound(setting, self.objective)

    def setting(self, here: Here, n_outer: int = 1) -> Setting:
        """All that the objective is about, with what stands for each parameter."""
        approx = self.approx
        return Setting(
            approx.model,
            approx.terms,
            approx.guides,
            here,
            approx.model_parameters,
            n_outer,
            self.n_particles,
        )

    def losses(self, here: Here, n_outer: int = 1) -> Losses:
        """Build the losses in nats of all data, with what stands for each parameter."""
        return self.objective.losses(self.setting(here, n_outer))

    def updates(
        self,
        obj_n_mc: int | None = None,
        obj_optimizer: Any = adagrad_window,
        more_obj_params: Sequence[SharedVariable] | None = None,
        more_updates: Mapping[SharedVariable, Variable] | None = None,
        total_grad_norm_constraint: float | None = None,
        average: TailAverage | None = None,
        **unknown: Any,
    ) -> tuple[dict[SharedVariable, Variable], Variable]:
        """Build the next values of all parameters, and the loss of the step.

        Parameters
        ----------
        obj_n_mc : int, optional
            Draws that the objective is averaged over, 1 by default.
        obj_optimizer : callable (grads, params) -> updates, Optimizer, or optimizer of optax
        more_obj_params : list of SharedVariable, optional
            More parameters that the loss is minimised for.
        more_updates : dict, optional
        total_grad_norm_constraint : float, optional
            Bound of the norm of the gradient of the batch, of rows and of globals together.
        average : TailAverage, optional
            Averages of the parameters that are kept, those of rows in their tables.
        **unknown
            Refused, by what the user called.

        Returns
        -------
        updates : dict of SharedVariable to Variable
            Where the step would give a value that is not finite, the values before it.
        loss : scalar Variable, or vector
            Nan there. Of a vector the others are those of `guide_losses`.

        Raises
        ------
        TypeError, ValueError
            If an argument is unknown, `obj_n_mc` no number of draws, or an upper bound is asked for
            `more_obj_params`.
        """
        if unknown:
            raise TypeError(
                f"pm.fit got {', '.join(f'{name}={value!r}' for name, value in unknown.items())}, which "
                "a fit of guides does not use: it has no test function and no groups. Of its steps it "
                "takes obj_n_mc, obj_optimizer, more_obj_params, more_updates and "
                "total_grad_norm_constraint"
            )
        n_outer = check_count("obj_n_mc", 1 if obj_n_mc is None else obj_n_mc, "pm.fit")
        check_upper_bound(self.setting({}), self.objective, more_obj_params or ())
        storage = self.approx.storage
        gathered = {plate: table.gather() for plate, table in storage.tables.items()}
        params = {plate: rows for plate, (_, rows) in gathered.items()}
        losses = self.losses(storage.here(params), n_outer)
        factor = loss_factor(self.approx.model, self.reduction)
        dense = [*storage.dense.values(), *self.approx.model_parameters, *(more_obj_params or ())]
        gradients = self._gradients(losses, factor, params, dense)
        optimizer = as_optimizer(obj_optimizer)
        if total_grad_norm_constraint is not None:
            optimizer = chain(clip_by_global_norm(total_grad_norm_constraint), optimizer)
        updates, rows = all_updates(
            optimizer,
            dense,
            gradients[: len(dense)],
            [
                RowGradient(storage.tables[plate], gathered[plate], gradient)
                for plate, gradient in zip(params, gradients[len(dense) :])
            ],
            n_waiting=average and average.n_waiting,
        )
        if average is not None:
            updates = average.updates(updates)
        loss, updates = guarded(losses.reported * factor, {**updates, **(more_updates or {})}, rows)
        if losses.beside:
            loss = pt.stack([loss, *(value * factor for _, value in losses.beside)])
        return updates, loss

    def _gradients(
        self,
        losses: Losses,
        factor: Variable,
        params: Mapping[Plate, Variable],
        dense: Sequence[SharedVariable],
    ) -> list[Variable]:
        """Gradients of the dense parameters, and then of the rows of each plate."""
        storage = self.approx.storage
        loss_of = {p: loss for loss in losses.minimised for p in loss.parameters}
        wanted: dict[int, list[tuple[int, Variable]]] = {}
        variables: list[tuple[Any, Variable]] = [
            *((key, var) for key, var in storage.dense.items()),
            *((var, var) for var in dense[len(storage.dense) :]),
            *((self._first(plate), rows) for plate, rows in params.items()),
        ]
        result: list[Any] = [None] * len(variables)
        for k, (key, var) in enumerate(variables):
            loss = loss_of.get(key, losses.minimised[-1])
            wanted.setdefault(losses.minimised.index(loss), []).append((k, var))
        for place, mine in wanted.items():
            gradients = pytensor.grad(
                losses.minimised[place].value * factor,
                [var for _, var in mine],
                disconnected_inputs="ignore",
            )
            for (k, _), gradient in zip(mine, gradients):
                result[k] = gradient
        return result

    def _first(self, plate: Plate) -> Parameter:
        """A parameter of the rows of a plate; all of them are minimised by one loss."""
        return next(p for p in self.approx.storage.columns if p.plate == plate)


def _check_encoded(sites: Sequence[Site], guide: Any) -> None:
    """Refuse encoders of variables with named dims."""
    named = {site.name for site in sites if isinstance(site.rv, XTensorVariable)}
    families = guide.values() if isinstance(guide, Mapping) else guide
    for family in families if isinstance(guide, Mapping | list | tuple) else [guide]:
        encoded = family.encoders if isinstance(family, Amortized) else ()
        found = sorted(named.intersection(encoded))
        if found:
            raise NotImplementedError(
                f"pm.Amortized of pm.fit has {', '.join(map(repr, found))} of pymc.dims, but encoders are "
                "functions of tensors, and so are what they return. Write such a variable as one of pm, "
                f"such as pm.Normal({found[0]!r}, dims=...), or give it 'mean_field'"
            )


def guided_approximation(
    model: Any,
    guide: Any = None,
    *,
    others: str = "mean_field",
    params: Sequence[Any] = (),
    start: Mapping[str, Any] | None = None,
    start_sigma: Mapping[str, Any] | None = None,
    random_seed: int | None = None,
) -> GuidedApproximation:
    """Make the guides of all variables of a model, with parameters at their start.

    Parameters
    ----------
    model : Model
    guide : optional
        As of :func:`pymc.fit`.
    others : str
        The guide of global variables that `guide` does not name.
    params : sequence of SharedVariable
        Shared variables of the model that are trained.
    start, start_sigma : dict, optional
    random_seed : int, optional

    Raises
    ------
    ValueError, TypeError
        If there are no such guides, or starts of them.
    """
    starts = Starts.of(model, start, start_sigma, random_seed)
    sites = sites_of(model, there_of_guide(model, guide))
    _check_encoded(sites, guide)
    guides = assemble(model, sites, guide, starts, others)
    of_encoders = [s for made in guides if isinstance(made, AmortizedGuide) for s in made.sites]
    check_used(of_encoders, {"start": start, "start_sigma": start_sigma})
    trained = model_parameters(model, params)
    return GuidedApproximation(model, guides, trained, random_seed)
