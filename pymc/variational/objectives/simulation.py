# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Data that a model simulates, in the place of what a guide sees of the observed values.

A guide is a graph. What it has of observed values is found in it and replaced by the simulated variable, so
that a column, a logarithm or a concatenation of it is simulated too; so is what the model itself computes
from observed values. Data that are not observed, as covariates are, stay.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pytensor
import pytensor.tensor as pt

from pytensor.compile.sharedvalue import SharedVariable
from pytensor.gradient import disconnected_grad
from pytensor.graph.basic import Apply, Variable, equal_computations
from pytensor.graph.replace import graph_replace
from pytensor.graph.traversal import ancestors, toposort
from pytensor.scalar import Cast, Second
from pytensor.tensor.elemwise import Elemwise
from pytensor.tensor.random.type import RandomGeneratorType
from pytensor.tensor.shape import Shape, Shape_i, SpecifyShape

from pymc.minibatch.provenance import indexes
from pymc.variational.guides.base import Guide
from pymc.variational.guides.model import ModelGuide
from pymc.variational.minibatch_rv import released, unscaled_rv
from pymc.variational.objectives.base import Draws, Setting, leads
from pymc.variational.vectorize import at_draws

if TYPE_CHECKING:
    from pymc.model.core import Model

__all__ = ["simulate"]

AWAKE = "stay awake with pm.ReweightedWakeSleep(insomnia=1)"


def simulate(setting: Setting, draws: Draws, guides: Sequence[Guide], name: str) -> Draws:
    """Draw the variables of amortized guides from the model, and what the guides then see.

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
        Blocks of `guides`, held; `given` has the simulated values of all that is observed.

    Raises
    ------
    ValueError
        If the model has a Potential of the rows or cannot be simulated in an order; or if a guide is
        not amortized, or not computed from observed values in a way that can be simulated.
    """
    phase = (
        f"objective {name!r} has a sleep phase, in which guides learn from simulated data in the place "
        "of observed ones"
    )
    rvs = [site.rv for guide in guides for site in guide.sites]
    held = {var: disconnected_grad(d) for var, d in draws.given.items() if var not in rvs}
    _check_potentials(setting, phase)
    observed = observed_values(setting.model)
    seen = _seen(guides, observed, held, phase)
    graphs = _simulated(rvs, observed, held, set(seen.values()), phase)
    n_lead = len(leads(setting)[0])
    drawn = {old: disconnected_grad(_with_lead(new, old, n_lead)) for old, new in graphs.items()}
    return Draws(
        {guide: guide.block_of(drawn) for guide in guides if isinstance(guide, ModelGuide)},
        held | {rv: drawn[rv] for rv in rvs} | {var: drawn[value] for var, value in seen.items()},
        dict.fromkeys(guides, n_lead),
    )


def _check_potentials(setting: Setting, phase: str) -> None:
    """Raise where a Potential says of the rows what no simulation follows."""
    local = {site.value for site in setting.sites if site.plate}
    potentials = {var.name for var in setting.model.potentials}
    for term in setting.terms:
        if term.name in potentials and (
            term.plate or term.mixed or not local.isdisjoint(ancestors([term.logp]))
        ):
            raise ValueError(
                f"{phase}, but a model with the pm.Potential {term.name!r} of the rows cannot be "
                "simulated: the guide would learn the posterior without it. Write it as a distribution, "
                f"or {AWAKE}"
            )


def _seen(
    guides: Sequence[Guide], observed: Collection[Variable], held: Collection[Variable], phase: str
) -> dict[Variable, Variable]:
    """Map what guides are computed from to the observed value that it is."""
    rvs = {site.rv for guide in guides for site in guide.sites}
    seen: dict[Variable, Variable] = {}
    for guide in guides:
        sites = ", ".join(repr(site.name) for site in guide.sites)
        if not isinstance(guide, ModelGuide):
            raise ValueError(
                f"{phase}, but the guide of {sites} is computed from no data: give it a pm.Amortized "
                f"guide, or {AWAKE}"
            )
        dists = guide.graphs
        found = reads(dists, observed, [*held, *rvs])
        if not found and rvs.isdisjoint(guide.reads()):
            raise ValueError(
                f"{phase}, but no input of the guide of {sites} is computed from what the model "
                f"observes: name the minibatch that is observed among its inputs, or {AWAKE}"
            )
        subject = f"{phase}, but the guide of {sites}"
        _check_data(dists, observed, [*held, *rvs, *found], subject)
        seen |= found
    return seen


def _check_data(
    graphs: Sequence[Variable],
    observed: Collection[Variable],
    known: Collection[Variable],
    subject: str,
) -> None:
    """Raise where graphs read the data of an observed value otherwise than by what is known."""
    data = data_of(graphs, known) & data_of(list(observed)) - set(known)
    if data:
        names = ", ".join(sorted(repr(var.name or str(var)) for var in data))
        raise ValueError(
            f"{subject} is computed from {names} in another way than what is observed of it. Compute "
            "it from what is observed, and keep covariates in a pm.Data of their own"
        )


def _simulated(
    rvs: Sequence[Variable],
    observed: Mapping[Variable, Variable],
    held: Mapping[Variable, Variable],
    wanted: Collection[Variable],
    phase: str,
) -> dict[Variable, Variable]:
    """Simulate variables, and observed ones, whose draws are also where the model reads their values.

    `observed` has the variable of each observed value, and `wanted` those values whose simulation is
    returned beside that of `rvs`; `held` has the draws of the other variables.
    """
    keys = [*rvs, *observed]
    drawn = (unscaled_rv(rv)[0].astype(value.type.dtype) for value, rv in observed.items())
    # In one go, here and below: apart, the variables would be of different simulations
    globals_ = {var: var.type() for var in held}
    graphs = list(graph_replace(plain([*rvs, *drawn]), globals_, strict=False))
    lengths = {var: var.type() for var in lengths_of(graphs, observed, rvs)}
    graphs = list(graph_replace(graphs, lengths, strict=False))
    marks = {value: value.type() for value in observed}
    found = {var: marks[value] for var, value in reads(graphs, observed).items()}
    graphs = in_turn(keys, list(graph_replace(graphs, found, strict=False)), marks)
    result = {key: g for key, g in zip(keys, graphs) if key in rvs or key in wanted}
    for key, graph in result.items():
        subject = f"{phase}, but in the model {observed.get(key, key).name!r}"
        if not set(marks.values()).isdisjoint(ancestors([graph])):
            raise ValueError(
                f"{subject} depends on observed values that depend on itself, so that none can be "
                "simulated first. Let one observed variable be given the other, and not both, or "
                f"{AWAKE}"
            )
        _check_data([graph], observed, (), subject)
    back = {mark: var for var, mark in lengths.items()}
    graphs = list(graph_replace(list(result.values()), back, strict=False))
    given = {mark: held[var] for var, mark in globals_.items()}
    return dict(zip(result, at_draws(drawn_anew(graphs), given)))


def in_turn(
    keys: Sequence[Variable], graphs: list[Variable], marks: Mapping[Variable, Variable]
) -> list[Variable]:
    """Put simulations in the place of the marks of observed values, once they have no mark themselves.

    `keys` says what each graph is of. Marks are left where values depend on each other.
    """
    place, waiting = {key: k for k, key in enumerate(keys)}, dict(marks)
    while waiting:
        left = set(waiting.values())
        ready = [v for v in waiting if left.isdisjoint(ancestors([graphs[place[v]]]))]
        if not ready:
            break
        # What depends on no mark stays the same variable in the graphs that are replaced
        swaps = {waiting.pop(value): graphs[place[value]] for value in ready}
        graphs = list(graph_replace(graphs, swaps, strict=False))
    return graphs


def observed_values(model: Model) -> dict[Variable, Variable]:
    """Map what each observed variable is observed as to the variable.

    A value that PyMC has cast to the type of its variable stands for the one before the cast.
    """
    result = {}
    for rv in model.observed_RVs:
        value = model.rvs_to_values[rv]
        while value.owner is not None and _keeps_values(value.owner.op):
            value = value.owner.inputs[0]
        result[value] = rv
    return result


def reads(
    graphs: Sequence[Variable], observed: Collection[Variable], blockers: Collection[Variable] = ()
) -> dict[Variable, Variable]:
    """Map what graphs have of observed values to these.

    Two reads of one batch are two variables that are alike.
    """
    return {
        var: value
        for var in ancestors(graphs, blockers)
        for value in observed
        if var is value or (var.owner is not None and equal_computations([var], [value]))
    }


def lengths_of(
    graphs: Sequence[Variable], observed: Collection[Variable], rvs: Collection[Variable]
) -> list[Variable]:
    """List the shapes of observed values in graphs: a simulation has the same ones."""
    shapes = [v for v in ancestors(graphs) if v.owner and isinstance(v.owner.op, Shape | Shape_i)]
    return [v for v in shapes if reads([v], observed) and set(rvs).isdisjoint(ancestors([v]))]


def data_of(graphs: Sequence[Variable], drawn: Collection[Variable] = ()) -> set[Variable]:
    """Find the data that values are read from; which rows are read, and shapes, are none."""
    shapes = (v for v in ancestors(graphs) if v.owner and isinstance(v.owner.op, Shape | Shape_i))
    blockers = {*indexes(graphs), *drawn, *shapes}
    return {var for var in ancestors(graphs, blockers) if isinstance(var, SharedVariable)}


def plain(graphs: Sequence[Variable]) -> list[Variable]:
    """Take the Ops that scale variables out of graphs, and values that are read for their shape only."""
    graphs = list(graphs)
    while swaps := [(node.outputs[0], new) for node in toposort(graphs) for new in _plain(node)]:
        graphs = list(graph_replace(graphs, dict(swaps[:1])))
    return graphs


def _plain(node: Apply) -> list[Variable]:
    if isinstance(node.op, released.MinibatchRandomVariable):
        return [node.inputs[0]]
    if not isinstance(node.op, Elemwise) or not isinstance(node.op.scalar_op, Second):
        return []
    like, value = node.inputs  # of pt.ones_like and the like
    lengths = [
        known or (value if like.type.broadcastable[k] else like).shape[k]
        for k, known in enumerate(node.outputs[0].type.shape)
    ]
    return [pt.alloc(value, *lengths)]


def drawn_anew(graphs: Sequence[Variable]) -> list[Variable]:
    """Give graphs generators of their own: the model's own variables may be in the loss by shape.

    The rows of the batch stay what they are.
    """
    rngs = [
        var
        for var in ancestors(graphs)
        if isinstance(var, SharedVariable) and isinstance(var.type, RandomGeneratorType)
    ]
    fresh = {rng: pytensor.shared(rng.get_value(), name=rng.name) for rng in rngs}
    # Else the index might be copied, as one that reads the length of data that the graphs read too
    same = {var: var for var in indexes(graphs, by_shape=True)}
    return list(graph_replace(graphs, {**fresh, **same}, strict=False))


def _keeps_values(op: Any) -> bool:
    is_cast = isinstance(op, Elemwise) and isinstance(op.scalar_op, Cast)
    return is_cast or isinstance(op, SpecifyShape)


def _with_lead(new: Variable, old: Variable, n_lead: int) -> Variable:
    """Give a draw that no global variable is in the leading axes of the others."""
    return pt.shape_padleft(new, n_lead - (new.type.ndim - old.type.ndim)) if n_lead else new
