# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Rules for indexing: the index itself, taking rows by it, and everything written ``x[...]``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pytensor.graph.basic import Apply, Constant, Variable
from pytensor.scan.op import Scan
from pytensor.scan.utils import ScanArgs
from pytensor.tensor.basic import ARange, get_scalar_constant_value
from pytensor.tensor.elemwise import DimShuffle
from pytensor.tensor.exceptions import NotScalarConstantError
from pytensor.tensor.shape import Reshape
from pytensor.tensor.subtensor import (
    AdvancedIncSubtensor,
    AdvancedSubtensor,
    IncSubtensor,
    Subtensor,
    indices_from_subtensor,
)
from pytensor.tensor.type_other import SliceType

from pymc.minibatch.axis_tracking import (
    BROADCAST,
    OTHER,
    Axes,
    Axis,
    Rows,
    Untracked,
    broadcast_axes,
    broadcast_axis,
    label,
    ndim_of,
    output_axes,
    rows_of,
    track_axes,
)
from pymc.minibatch.index import MinibatchIndexRV
from pymc.minibatch.lengths import rows_of_length

BY_PLACE = (
    "{op} picks rows of a minibatch by their place in the batch, so that the batch is no longer "
    "the one that x and y share"
)


@output_axes.register(MinibatchIndexRV)
def _(op: MinibatchIndexRV, node: Apply, inputs: Sequence[Axes]) -> list[Axes]:
    return [(), (Rows(node.outputs[1]),)]


def is_full(entry: slice | Variable) -> bool:
    """Tell whether an entry of an indexing takes an axis as it is; slices may be symbolic."""
    if isinstance(entry, Constant):
        entry = entry.data
    elif isinstance(entry, Variable) and isinstance(entry.type, SliceType) and entry.owner:
        bounds = entry.owner.inputs
        if all(isinstance(bound, Constant) for bound in bounds):
            entry = slice(*(bound.data for bound in bounds))
    return isinstance(entry, slice) and entry == slice(None)


def _takes_all(entry: object, axis: Axis, length: int | None) -> bool:
    """Tell whether an entry is a slice of the whole axis, as those that scan makes are."""
    if not isinstance(entry, slice) or is_full(entry):
        return is_full(entry)
    start, step = (
        default if bound is None else _number(bound)
        for bound, default in ((entry.start, 0), (entry.step, 1))
    )
    if (start, step) != (0, 1) or entry.stop is None:
        return (start, step) == (0, 1)
    stop = _number(entry.stop)
    known = length is not None and stop is not None and stop >= length
    return known or (isinstance(axis, Rows) and rows_of_length(entry.stop) == axis)


@output_axes.register(Subtensor)
@output_axes.register(AdvancedSubtensor)
def _(op: Subtensor | AdvancedSubtensor, node: Apply, inputs: Sequence[Axes]) -> list[Axes]:
    return [_view_axes(op, node.inputs[0], inputs[0], node.inputs[1:], inputs[1:])]


@output_axes.register(IncSubtensor)
@output_axes.register(AdvancedIncSubtensor)
def _(op: IncSubtensor, node: Apply, inputs: Sequence[Axes]) -> list[Axes]:
    """Writing into an array gives it the rows of what is written, along axes taken in full."""
    into, written = inputs[:2]
    entries = _entries(op, node.inputs[2:], len(into))
    view = _view_axes(op, node.inputs[0], into, node.inputs[2:], inputs[2:])
    together = broadcast_axes([view, written], [node.inputs[0], node.inputs[1]], len(view))
    result: list[Axis] = [axis if is_full(e) else OTHER for axis, e in zip(into, entries)]
    if all(isinstance(e, slice) or e.type.ndim == 0 for e in entries):
        kept = [k for k, e in enumerate(entries) if isinstance(e, slice)]
        for k, axis in zip(kept, together, strict=True):
            if is_full(entries[k]):
                result[k] = broadcast_axis([into[k], axis])
            elif isinstance(axis, Rows):
                raise Untracked(f"{op} writes the rows of a minibatch to a part of an axis")
    elif rows_of(together) and together != into:
        raise Untracked(f"{op} may write the rows of a minibatch out of order", certain=False)
    return [tuple(result)]


def _each_place(entry: Any, rows: Rows, length: int | None) -> Sequence[int | str] | None:
    """Read ``arange(length)``, which takes all rows in order beside other arrays of indexes.

    Returns 0 for the axis of `entry` along which it counts, and "x" for each other one.
    """
    order: Sequence[int | str] = (0,)
    if isinstance(entry, slice):
        return None
    if entry.owner is not None and isinstance(entry.owner.op, DimShuffle | Reshape):
        # A column of it, as beside indexes of two axes
        order = tuple("x" if n == 1 else 0 for n in entry.type.shape)
        entry = entry.owner.inputs[0]
        if order.count(0) != 1 or entry.type.ndim != 1:
            return None
    if isinstance(entry, Constant):
        return order if np.array_equal(entry.data, np.arange(length or 0)) else None
    if entry.owner is None or not isinstance(entry.owner.op, ARange):
        return None
    start, stop, step = entry.owner.inputs
    ends = rows_of_length(stop) == rows or _number(stop) == length is not None
    return order if (_number(start), _number(step)) == (0, 1) and ends else None


def _number(var: Variable) -> int | None:
    """Read a whole number that a graph fixes."""
    try:
        return int(get_scalar_constant_value(var))
    except NotScalarConstantError:
        return None


def _entries(op: Subtensor, index_vars: Sequence[Variable], ndim: int) -> list[slice | Variable]:
    entries = list(indices_from_subtensor(index_vars, op.idx_list))
    return entries + [slice(None)] * (ndim - len(entries))


def _view_axes(
    op: Subtensor,
    x: Variable,
    axes: Axes,
    index_vars: Sequence[Variable],
    index_axes: Sequence[Axes],
) -> Axes:
    """Tell the axes of ``x[...]``: those taken in full stay, those of arrays of integers come in."""
    kinds = dict(zip(index_vars, index_axes))
    out: list[Axis] = []
    arrays: list[tuple[Variable, Axes]] = []
    place = None  # where the axes of the index arrays go
    apart = False  # a slice stands between two of them: NumPy puts their axes first
    entries = _entries(op, index_vars, len(axes))
    for axis, entry, length in zip(axes, entries, x.type.shape):
        each = None
        if isinstance(axis, Rows) and not _takes_all(entry, axis, length):
            each = _each_place(entry, axis, length)
            if each is None:
                raise Untracked(BY_PLACE.format(op=op), by_place=True)
        if isinstance(entry, slice):
            out.append(axis)
            apart = apart or place is not None
        elif entry.type.ndim == 0 and isinstance(op, Subtensor | IncSubtensor):
            continue  # one element: the axis is gone
        else:
            if entry.type.dtype == "bool" and entry.type.ndim > 1:
                raise Untracked(f"{op} picks elements by a mask of several axes", certain=False)
            if place is None:
                place, apart = len(out), False
            elif apart:
                place = 0
            along = None if each is None else tuple(axis if k == 0 else BROADCAST for k in each)
            arrays.append((entry, kinds[entry] if along is None else along))
    if arrays:
        ndim = max(entry.type.ndim for entry, _ in arrays)
        new = broadcast_axes([along for _, along in arrays], [entry for entry, _ in arrays], ndim)
        out[place:place] = new
    return tuple(out)


@output_axes.register(Scan)
def _(op: Scan, node: Apply, inputs: Sequence[Axes]) -> list[Axes]:
    """A loop over rows keeps them if its steps are independent; one over something else, if each step does.

    A state that is carried has the axes of its first value and those that a step makes of them, found
    by induction: steps are followed until the axes of all states stay what they are.
    """
    outer = dict(zip(node.inputs, inputs, strict=True))
    args = ScanArgs(node.inputs, node.outputs, op.inner_inputs, op.inner_outputs, op.info)
    looped = [outer[var] for var in args.outer_in_seqs]
    along = broadcast_axis(
        [axes[0] for axes in looped],
        [label(v) for v, axes in zip(args.outer_in_seqs, looped) if axes[0] is OTHER],
    )
    states = _states(args, outer)
    if states or args.outer_in_mit_mot:
        if isinstance(along, Rows):
            why = f"{op} carries a state from one row of a minibatch to the next"
            raise Untracked(why, by_place=True)
    if (args.outer_in_mit_mot or op.info.as_while) and any(rows_of(axes) for axes in inputs):
        raise Untracked(f"the rows of a minibatch cannot be followed through {op}", certain=False)
    known: dict[Variable, Axes | Untracked] = {
        **{var: axes[1:] for var, axes in zip(args.inner_in_seqs, looped)},
        **dict(zip(args.inner_in_non_seqs, (outer[var] for var in args.outer_in_non_seqs))),
    }
    try:
        _follow_states(states, known)
        found = {
            out: _stacked(along, track_axes(inner, known))
            for inner, out in zip(args.inner_out_nit_sot, args.outer_out_nit_sot, strict=True)
        }
    except Untracked as lost:  # what is lost at one step may be taken up at the next
        raise Untracked(lost.why, lost.certain and not states, lost.by_place) from lost
    found |= {state.stacked: (OTHER, *state.axes) for state in states}
    return [found.get(out, (OTHER,) * ndim_of(out)) for out in node.outputs]


@dataclass
class _State:
    """A state that a loop carries: its variables at each tap, its next value, all of its values."""

    taps: Sequence[Variable]
    next: Variable
    stacked: Variable
    axes: Axes


def _states(args: ScanArgs, outer: Mapping[Variable, Axes]) -> list[_State]:
    taps = [*([tap] for tap in args.inner_in_sit_sot), *args.inner_in_mit_sot]
    return [
        _State(at, new, stacked, outer[start][1:])
        for at, new, stacked, start in zip(
            taps,
            [*args.inner_out_sit_sot, *args.inner_out_mit_sot],
            [*args.outer_out_sit_sot, *args.outer_out_mit_sot],
            [*args.outer_in_sit_sot, *args.outer_in_mit_sot],
            strict=True,
        )
    ]


def _follow_states(states: Sequence[_State], known: dict[Variable, Axes | Untracked]) -> None:
    """Find the axes of states, and add those of their taps to what is known."""
    moved = True
    while moved:
        known.update({tap: state.axes for state in states for tap in state.taps})
        moved = False
        for state in states:
            axes = track_axes(state.next, known)
            if isinstance(axes, Untracked):
                raise Untracked(axes.why, axes.certain, axes.by_place)
            new = tuple(broadcast_axis(pair) for pair in zip(state.axes, axes, strict=True))
            moved, state.axes = moved or new != state.axes, new


def _stacked(along: Axis, step: Axes | Untracked) -> Axes:
    if isinstance(step, Untracked):
        raise Untracked(step.why, step.certain, step.by_place)
    return (OTHER if along is BROADCAST else along, *step)
