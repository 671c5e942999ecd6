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
"""Data that a model simulates, in the place of what a guide sees of the observed values.

A guide's inputs are graphs. What they have of observed values is found in them and replaced by the
simulated variable, so that a column, a logarithm or a concatenation of it is simulated too. Inputs that
are not observed, as covariates are, stay.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytensor
import pytensor.tensor as pt

from pytensor.compile.sharedvalue import SharedVariable
from pytensor.gradient import disconnected_grad
from pytensor.graph.basic import Variable, equal_computations
from pytensor.graph.replace import graph_replace
from pytensor.graph.traversal import ancestors, toposort
from pytensor.scalar import Cast
from pytensor.tensor.elemwise import Elemwise
from pytensor.tensor.random.type import RandomGeneratorType
from pytensor.tensor.shape import Shape, Shape_i, SpecifyShape

from pymc.minibatch.provenance import indexes
from pymc.variational.guides.base import Guide
from pymc.variational.minibatch_rv import released, unscaled_rv
from pymc.variational.objectives.base import Draws, Setting, leads
from pymc.variational.objectives.terms import at_draws

__all__ = ["simulate"]


def simulate(setting: Setting, draws: Draws, guides: Sequence[Guide], name: str) -> Draws:
    """Draw the variables of amortized guides from the model, and what their inputs then are.

    Parameters
    ----------
    setting : Setting
    draws : Draws
        Of which those of other variables are held.
    guides : sequence of Guide
        All of one plate.
    name : str
        What messages call the objective.

    Returns
    -------
    Draws
        Blocks of `guides`, held; `given` has the simulated inputs.

    Raises
    ------
    ValueError
        If a guide is not amortized, has no input that is computed from observed values, or one that
        depends on them in a way that cannot be simulated.
    """
    rvs = [site.rv for guide in guides for site in guide.sites]
    held = {var: disconnected_grad(d) for var, d in draws.given.items() if var not in rvs}
    inputs: dict[Variable, Variable] = {}
    for guide in guides:
        inputs |= _Inputs(guide, setting.model, rvs, held, name).simulated()
    # In one go: in two, the variables and the inputs would be of different simulations
    graphs = at_draws(drawn_anew(without_scales([*rvs, *inputs.values()]), held), held)
    n_lead = len(leads(setting)[0])
    graphs = [
        disconnected_grad(_with_lead(new, old, n_lead))
        for old, new in zip([*rvs, *inputs], graphs, strict=True)
    ]
    drawn = dict(zip(rvs, graphs))
    return Draws(
        {guide: tuple(drawn[site.rv] for site in guide.sites) for guide in guides},
        held | drawn | dict(zip(inputs, graphs[len(rvs) :])),
        dict.fromkeys(guides, n_lead),
    )


@dataclass(frozen=True)
class _Inputs:
    """What a guide is computed from.

    Parameters
    ----------
    guide : Guide
    model : Model
    rvs : sequence of Variable
        Local variables, which are simulated.
    drawn : collection of Variable
        Global variables, which are not.
    name : str
        What messages call the objective.
    """

    guide: Any
    model: Any
    rvs: Sequence[Variable]
    drawn: Collection[Variable]
    name: str

    def simulated(self) -> dict[Variable, Variable]:
        """Put simulated variables into the inputs that are computed from observed values.

        Raises
        ------
        ValueError
        """
        inputs = getattr(self.guide, "inputs", None)
        if inputs is None:
            raise ValueError(
                f"{self._phase}, but the guide of {self._sites} is computed from no data: give it a "
                "pm.Amortized guide, or stay awake with pm.ReweightedWakeSleep(insomnia=1)"
            )
        observed = observed_values(self.model)
        replaced = {}
        # What a local variable depends on is simulated with it
        cuts = {rv: rv.type() for rv in self.rvs}
        for old in inputs:
            [cut] = graph_replace([old], cuts, strict=False)
            found = simulations(cut, observed)
            left = graph_replace([cut], {v: v.type() for v in found})[0] if found else cut
            self._check_data(left, old, observed)
            if found:
                [new] = graph_replace([cut], found)
                back = {mark: rv for rv, mark in cuts.items()}
                [replaced[old]] = graph_replace([new], back, strict=False)
        if not replaced:
            raise ValueError(
                f"{self._phase}, but no input of the guide of {self._sites} is computed from what the "
                "model observes: name the minibatch that is observed among its inputs, or stay awake "
                "with pm.ReweightedWakeSleep(insomnia=1)"
            )
        return replaced

    def _check_data(
        self, left: Variable, given: Variable, observed: Mapping[Variable, Variable]
    ) -> None:
        """Raise where an input still reads the data of an observed value."""
        data = data_of([left], self.drawn) & data_of(list(observed), self.drawn)
        if data:
            names = ", ".join(sorted(repr(var.name or str(var)) for var in data))
            raise ValueError(
                f"{self._phase}, but the input {given} of the guide of {self._sites} is computed from "
                f"{names} in another way than what is observed of it. Compute the input from what is "
                "observed, and keep covariates in a pm.Data of their own"
            )

    @property
    def _phase(self) -> str:
        return (
            f"objective {self.name!r} has a sleep phase, in which guides learn from simulated data in "
            "the place of observed ones"
        )

    @property
    def _sites(self) -> str:
        return ", ".join(repr(site.name) for site in self.guide.sites)


def observed_values(model: Any) -> dict[Variable, Variable]:
    """Map what each observed variable is observed as to its simulation, of the same type.

    A value that PyMC has cast to the type of its variable stands for the one before the cast.
    """
    result = {}
    for rv in model.observed_RVs:
        value = model.rvs_to_values[rv]
        while value.owner is not None and _keeps_values(value.owner.op):
            value = value.owner.inputs[0]
        drawn, _ = unscaled_rv(rv)
        result[value] = drawn.astype(value.type.dtype)
    return result


def simulations(graph: Variable, observed: Mapping[Variable, Variable]) -> dict[Variable, Variable]:
    """Map what a graph has of observed values to what simulates it.

    Two reads of one batch are two variables that are alike.
    """
    return {
        var: new
        for var in ancestors([graph])
        for old, new in observed.items()
        if var is old or (var.owner is not None and equal_computations([var], [old]))
    }


def data_of(graphs: Sequence[Variable], drawn: Collection[Variable] = ()) -> set[Variable]:
    """Find the data that values are read from; which rows are read, and shapes, are none."""
    blockers = {*indexes(graphs), *drawn}
    blockers |= {
        var
        for var in ancestors(graphs)
        if var.owner is not None and isinstance(var.owner.op, Shape | Shape_i)
    }
    return {var for var in ancestors(graphs, blockers) if isinstance(var, SharedVariable)}


def without_scales(graphs: Sequence[Variable]) -> list[Variable]:
    """Take the Ops that scale observed variables out of graphs, all at once."""
    graphs = list(graphs)
    while scaled := [
        node for node in toposort(graphs) if isinstance(node.op, released.MinibatchRandomVariable)
    ]:
        graphs = list(graph_replace(graphs, {scaled[0].outputs[0]: scaled[0].inputs[0]}))
    return graphs


def drawn_anew(graphs: Sequence[Variable], drawn: Collection[Variable]) -> list[Variable]:
    """Give graphs generators of their own: the model's own variables may be in the loss by shape.

    Variables that are `drawn` elsewhere stay what they are, and so do the rows of the batch.
    """
    rngs = [
        var
        for var in ancestors(graphs, drawn)
        if isinstance(var, SharedVariable) and isinstance(var.type, RandomGeneratorType)
    ]
    fresh = {rng: pytensor.shared(rng.get_value(), name=rng.name) for rng in rngs}
    # Else the index might be copied, as one that reads the length of data that the graphs read too
    same = {var: var for var in (*indexes(graphs, by_shape=True), *drawn)}
    return list(graph_replace(graphs, {**fresh, **same}, strict=False))


def _keeps_values(op: Any) -> bool:
    is_cast = isinstance(op, Elemwise) and isinstance(op.scalar_op, Cast)
    return is_cast or isinstance(op, SpecifyShape)


def _with_lead(new: Variable, old: Variable, n_lead: int) -> Variable:
    """Give a draw that no global variable is in the leading axes of the others."""
    return pt.shape_padleft(new, n_lead - (new.type.ndim - old.type.ndim)) if n_lead else new
