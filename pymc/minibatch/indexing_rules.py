# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Axis rules for the minibatch index, for everything written ``x[...]``, and for loops over rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pytensor.graph.basic import Apply, Constant, Variable
from pytensor.scan.op import Scan
from pytensor.tensor.basic import ARange
from pytensor.tensor.elemwise import DimShuffle
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
    require_tracked,
    rows_of,
    track_axes,
)
from pymc.minibatch.index import MinibatchIndexRV
from pymc.minibatch.lengths import constant_int, rows_of_length, scan_args

BY_PLACE = (
    "{op} picks rows of a minibatch by their place in the batch, so that the batch is no longer "
    "the one that x and y share"
)


@output_axes.register(MinibatchIndexRV)
def _(op: MinibatchIndexRV, node: Apply, inputs: Sequence[Axes]) -> list[Axes]:
    return [(), (Rows(node.outputs[1]),)]


def is_full(entry: slice | Variable) -> bool:
    """Return True if an entry of an indexing is the slice ``:``, symbolic or not."""
    if isinstance(entry, Constant):
        entry = entry.data
    elif isinstance(entry, Variable) and isinstance(entry.type, SliceType) and entry.owner:
        bounds = entry.owner.inputs
        if all(isinstance(bound, Constant) for bound in bounds):
            entry = slice(*(bound.data for bound in bounds))
    return isinstance(entry, slice) and entry == slice(None)


@output_axes.register(Subtensor | AdvancedSubtensor)
def _(op: Subtensor | AdvancedSubtensor, node: Apply, inputs: Sequence[Axes]) -> list[Axes]:
    return [_indexed_axes(op, node.inputs[0], inputs[0], node.inputs[1:], inputs[1:])]


@output_axes.register(IncSubtensor | AdvancedIncSubtensor)
def _(op: IncSubtensor, node: Apply, inputs: Sequence[Axes]) -> list[Axes]:
    """Writing into an array gives it the rows of what is written, along axes taken in full."""
    target, written = inputs[:2]
    entries = _entries(op, node.inputs[2:], len(target))
    view = _indexed_axes(op, node.inputs[0], target, node.inputs[2:], inputs[2:])
    together = broadcast_axes([view, written], [node.inputs[0], node.inputs[1]], len(view))
    result: list[Axis] = [axis if is_full(entry) else OTHER for axis, entry in zip(target, entries)]
    if all(isinstance(entry, slice) or entry.type.ndim == 0 for entry in entries):
        kept = [k for k, entry in enumerate(entries) if isinstance(entry, slice)]
        for k, axis in zip(kept, together, strict=True):
            if is_full(entries[k]):
                result[k] = broadcast_axis([target[k], axis])
            elif isinstance(axis, Rows):
                raise Untracked(f"{op} writes the rows of a minibatch to a part of an axis")
    elif rows_of(together) and together != target:
        raise Untracked(f"{op} may write the rows of a minibatch out of order", certain=False)
    return [tuple(result)]


def _entries(op: Subtensor, index_vars: Sequence[Variable], ndim: int) -> list[slice | Variable]:
    entries = list(indices_from_subtensor(index_vars, op.idx_list))
    return entries + [slice(None)] * (ndim - len(entries))


def _indexed_axes(
    op: Subtensor,
    x: Variable,
    axes: Axes,
    index_vars: Sequence[Variable],
    index_axes: Sequence[Axes],
) -> Axes:
    """Return the axes of ``x[...]``: axes taken in full stay, those of index arrays come in."""
    axes_of = dict(zip(index_vars, index_axes))
    result: list[Axis] = []
    arrays: list[tuple[Variable, Axes]] = []
    place = None  # where the axes of the index arrays go
    is_split = False  # by a slice between two of them: NumPy puts their axes first
    entries = _entries(op, index_vars, len(axes))
    for axis, entry, length in zip(axes, entries, x.type.shape):
        order = None
        if isinstance(axis, Rows) and not _takes_all(entry, axis, length):
            order = _counted_axes(entry, axis, length)
            if order is None:
                raise Untracked(BY_PLACE.format(op=op), by_place=True)
        if isinstance(entry, slice):
            result.append(axis)
            is_split = is_split or place is not None
        elif entry.type.ndim == 0 and isinstance(op, Subtensor | IncSubtensor):
            continue  # one element: the axis is gone
        else:
            if entry.type.dtype == "bool" and entry.type.ndim > 1:
                raise Untracked(f"{op} picks elements by a mask of several axes", certain=False)
            if place is None:
                place, is_split = len(result), False
            elif is_split:
                place = 0
            counted = None if order is None else tuple(axis if k == 0 else BROADCAST for k in order)
            arrays.append((entry, axes_of[entry] if counted is None else counted))
    if arrays:
        variables, along = zip(*arrays)
        ndim = max(entry.type.ndim for entry in variables)
        result[place:place] = broadcast_axes(along, variables, ndim)
    return tuple(result)


def _takes_all(entry: slice | Variable, axis: Rows, length: int | None) -> bool:
    """Return True if an entry is a slice of the whole axis, such as those that scan makes."""
    if not isinstance(entry, slice) or is_full(entry):
        return is_full(entry)
    start = 0 if entry.start is None else constant_int(entry.start)
    step = 1 if entry.step is None else constant_int(entry.step)
    if (start, step) != (0, 1) or entry.stop is None:
        return (start, step) == (0, 1)
    stop = constant_int(entry.stop)
    is_whole = length is not None and stop is not None and stop >= length
    return is_whole or rows_of_length(entry.stop) == axis


def _counted_axes(
    entry: slice | Variable, rows: Rows, length: int | None
) -> Sequence[int | str] | None:
    """Read ``arange(length)``, which takes all rows in order beside other index arrays.

    Return 0 for the axis of `entry` along which it counts, and "x" for each other one.
    """
    order: Sequence[int | str] = (0,)
    if isinstance(entry, slice):
        return None
    if entry.owner is not None and isinstance(entry.owner.op, DimShuffle | Reshape):
        # A column of it, beside index arrays of two axes
        order = tuple("x" if n == 1 else 0 for n in entry.type.shape)
        entry = entry.owner.inputs[0]
        if order.count(0) != 1 or entry.type.ndim != 1:
            return None
    if isinstance(entry, Constant):
        return order if np.array_equal(entry.data, np.arange(length or 0)) else None
    if entry.owner is None or not isinstance(entry.owner.op, ARange):
        return None
    start, stop, step = entry.owner.inputs
    takes_all = rows_of_length(stop) == rows or constant_int(stop) == length is not None
    return order if (constant_int(start), constant_int(step)) == (0, 1) and takes_all else None


# --- loops ---
@output_axes.register(Scan)
def _(op: Scan, node: Apply, inputs: Sequence[Axes]) -> list[Axes]:
    """Keep rows through a loop over them with independent steps, or over something else.

    A carried state has the axes of its first value and those that a step gives it, found by
    induction: steps are tracked until the axes of all states stay what they are.
    """
    outer = dict(zip(node.inputs, inputs, strict=True))
    args = scan_args(node)
    sequences = [outer[var] for var in args.outer_in_seqs]
    along = broadcast_axis(
        [axes[0] for axes in sequences],
        [label(var) for var, axes in zip(args.outer_in_seqs, sequences) if axes[0] is OTHER],
    )
    taps = [*([tap] for tap in args.inner_in_sit_sot), *args.inner_in_mit_sot]
    steps = [*args.inner_out_sit_sot, *args.inner_out_mit_sot]
    states = [outer[var][1:] for var in (*args.outer_in_sit_sot, *args.outer_in_mit_sot)]
    if isinstance(along, Rows) and (states or args.outer_in_mit_mot):
        why = f"{op} carries a state from one row of a minibatch to the next"
        raise Untracked(why, by_place=True)
    if (args.outer_in_mit_mot or op.info.as_while) and any(map(rows_of, inputs)):
        raise Untracked(f"the rows of a minibatch cannot be followed through {op}", certain=False)
    known: dict[Variable, Axes | Untracked] = {
        **{var: axes[1:] for var, axes in zip(args.inner_in_seqs, sequences)},
        **dict(zip(args.inner_in_non_seqs, (outer[var] for var in args.outer_in_non_seqs))),
    }
    try:
        states = _track_states(taps, steps, states, known)
        results = [require_tracked(track_axes(var, known)) for var in args.inner_out_nit_sot]
    except Untracked as lost:  # what is lost at one step may be taken up at the next
        raise Untracked(lost.why, lost.certain and not states, lost.by_place) from lost
    step_axis = OTHER if along is BROADCAST else along
    found = dict(zip(args.outer_out_nit_sot, ((step_axis, *axes) for axes in results), strict=True))
    carried = [*args.outer_out_sit_sot, *args.outer_out_mit_sot]
    found.update(zip(carried, ((OTHER, *axes) for axes in states), strict=True))
    return [found.get(out, (OTHER,) * ndim_of(out)) for out in node.outputs]


def _track_states(
    taps: Sequence[Sequence[Variable]],
    steps: Sequence[Variable],
    states: list[Axes],
    known: dict[Variable, Axes | Untracked],
) -> list[Axes]:
    """Return the axes of carried states, and add those of their taps to `known`."""
    while True:
        known.update({tap: axes for group, axes in zip(taps, states, strict=True) for tap in group})
        next_axes = [require_tracked(track_axes(step, known)) for step in steps]
        new = [
            tuple(map(broadcast_axis, zip(axes, after, strict=True)))
            for axes, after in zip(states, next_axes, strict=True)
        ]
        if new == states:
            return states
        states = new
