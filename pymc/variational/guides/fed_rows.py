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
"""Rows of batches that are fed by hand: what a `total_size` of the user's own says, and of which axes.

:func:`pymc.set_data` puts other rows into the data at each step, and nothing but `total_size` tells that
from full data. What has a slot for each row that is there would give it to other rows then.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from pytensor.graph.basic import Constant, Variable
from pytensor.graph.traversal import toposort
from pytensor.tensor.shape import Shape, Shape_i
from pytensor.tensor.subtensor import Subtensor, indices_from_subtensor

from pymc.minibatch.current_length import current_length
from pymc.minibatch.plates import known_axes
from pymc.minibatch.provenance import SAME, Axes, Lost, Rows, indexes, trace
from pymc.minibatch.scaling import ratios
from pymc.variational.minibatch_rv import unscaled_rv

__all__ = ["Fed", "aligned", "check_no_slots", "fed_axes", "hand_totals", "is_part"]


@dataclass(frozen=True, eq=False)
class Fed:
    """An axis of a term that is scaled by hand from the rows that are there to more of them.

    Parameters
    ----------
    name : str
    term : Variable
        The random variable, not scaled, or the Potential.
    axis : int
    length, total : scalar integer
        How many rows are there, and how many there are in all.
    """

    name: str
    term: Variable
    axis: int
    length: Any
    total: Any


@dataclass(frozen=True, eq=False)
class _Slots(Rows):
    """Slots of a variable, as if they were rows: `index` is the variable."""

    @property
    def state(self) -> Variable:
        return self.index

    @property
    def batch_size(self) -> int:
        return 0

    @property
    def dim(self) -> None:
        return None

    def __str__(self) -> str:
        return f"the slots of {self.index}"


def hand_totals(model: Any, var: Variable) -> dict[int, Variable]:
    """Tell on which axes of a term the user gave a `total_size`, and what it is.

    Parameters
    ----------
    model : Model
    var : Variable
        A variable or a Potential of `model`.
    """
    if var in model.observed_RVs:
        return _totals_of_observed(model, var)
    if var not in model.potentials:
        return {}
    found = [node.inputs for node in ratios(var)]
    by_hand = [pair for pair in found if not indexes(pair, by_shape=True)]
    places = [(_axis_measured(length), total) for total, length in by_hand]
    return {k: total for k, total in places if k is not None}


def _totals_of_observed(model: Any, var: Variable) -> dict[int, Variable]:
    bare, totals = unscaled_rv(var)
    value, known = model.rvs_to_values[var], known_axes(model)
    found = {k: total for k, total in enumerate(totals) if total is not None}
    if not found or not indexes([bare, value], known=known):
        return found
    for part in (bare, value):
        axes = trace(part, known, model.free_RVs)
        if isinstance(axes, Lost):
            return {}
        for k, axis in enumerate(axes, start=var.type.ndim - len(axes)):
            if isinstance(axis, Rows):
                found.pop(k, None)
    return found


def _axis_measured(length: Variable) -> int | None:
    """Tell which axis ``var.shape[k]`` is the length of."""
    node = length.owner
    if node is not None and isinstance(node.op, Shape_i):
        return node.op.i
    if node is None or not isinstance(node.op, Subtensor):
        return None
    shape = node.inputs[0].owner
    [entry] = indices_from_subtensor(node.inputs[1:], node.op.idx_list)
    is_axis = shape is not None and isinstance(shape.op, Shape) and isinstance(entry, Constant)
    return int(entry.data) if is_axis else None


def is_part(length: Any, total: Any) -> bool:
    """Tell whether there are other rows than those that are there now, or may be."""
    here, said = current_length(length), current_length(total)
    return here is None or here != said


def fed_axes(model: Any) -> list[Fed]:
    """List the axes of the terms of `model` that a `total_size` given by hand scales up."""
    found = []
    for var in [*model.observed_RVs, *model.potentials]:
        value = model.rvs_to_values.get(var, var)
        for k, total in hand_totals(model, var).items():
            at = k - (var.type.ndim - value.type.ndim)  # it is broadcast along leading axes
            length = 1 if at < 0 else value.shape[at]
            if is_part(length, total):
                found.append(Fed(var.name, unscaled_rv(var)[0], k, length, total))
    return found


def aligned(
    term: Variable, known: Mapping[Variable, Axes], others: Collection[Variable] = ()
) -> Axes | Lost:
    """Tell which axes of `term` have an entry for each one of an axis in `known`.

    Parameters
    ----------
    term : Variable
    known : mapping of Variable to axes
        What is followed. All that is not computed from it broadcasts.
    others : collection of Variable
        Variables that are not followed further up: the free ones of a model.
    """
    blockers = {*known, *others} - {term}
    around: dict[Variable, Axes | Lost] = {var: known[var] for var in known if var is not term}
    moved = set(around)
    for node in toposort([term], blockers=list(blockers)):
        if moved.isdisjoint(node.inputs):
            continue
        moved.update(node.outputs)
        for var in node.inputs:
            if var not in moved:
                around[var] = _alike(var)
    return trace(term, around) if term in moved else _alike(term)


def _alike(var: Variable) -> Axes:
    return (SAME,) * getattr(var.type, "ndim", 0)


def check_no_slots(
    model: Any, of_rows: Mapping[Variable, tuple[Rows | None, ...]] | None = None
) -> None:
    """Raise where a free variable has a slot for each row of a batch that is fed by hand.

    Parameters
    ----------
    model : Model
    of_rows : mapping of Variable to tuple of Rows or None, optional
        Free variables that have the distribution of any row, by axis.

    Raises
    ------
    ValueError
        The message names the variable and the term, and what keeps a value for each row.
    """
    fed, of_rows = fed_axes(model), of_rows or {}
    for rv, axes in of_rows.items():
        fed += [
            Fed(rv.name, rv, k, rows.index.shape[0], rows.total)
            for k, rows in enumerate(axes)
            if rows is not None and is_part(rows.index.shape[0], rows.total)
        ]
    for one in fed:
        for rv in model.free_RVs:
            own = of_rows.get(rv, ())
            for k, length in enumerate(rv.type.shape):
                if length == 1 or (k < len(own) and own[k] is not None) or rv is one.term:
                    continue
                if _is_along(one, rv, k, model):
                    raise ValueError(_reused(one, rv, k))


def _is_along(fed: Fed, rv: Variable, k: int, model: Any) -> bool:
    axes = tuple(_Slots(rv) if j == k else SAME for j in range(rv.type.ndim))
    found = aligned(fed.term, {rv: axes}, model.free_RVs)
    # Where a slot cannot be followed to one row, as of a group that rows point at, all rows share it
    return not isinstance(found, Lost) and isinstance(found[fed.axis], _Slots)


def _reused(fed: Fed, rv: Variable, k: int) -> str:
    here, total = current_length(fed.length), current_length(fed.total)
    return (
        f"{rv.name!r} has a value for each row along axis {k}, and {fed.name!r}, which depends on it row by "
        f"row, is scaled by total_size from the {here} rows that are there to {total}: other rows would "
        f"reuse these values, and the prior of {total} would be counted for {here}. Compute the "
        "distribution of a row from its data, by dims= and pm.fit(guide=pm.Amortized(...)); or give all "
        "rows to pm.Minibatch or pm.fit(batch_size=...), which keep parameters of each; if these are "
        "all rows, leave total_size out"
    )
