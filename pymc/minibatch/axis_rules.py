# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Axis rules: what each Op makes of the axes of its inputs; see :func:`.output_axes`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from pytensor.compile.builders import OpFromGraph
from pytensor.compile.ops import DeepCopyOp, ViewOp
from pytensor.graph.basic import Apply, Constant, Variable
from pytensor.graph.op import HasInnerGraph, Op
from pytensor.graph.traversal import toposort
from pytensor.graph.type import HasShape
from pytensor.raise_op import CheckAndRaise
from pytensor.scan.op import Scan
from pytensor.tensor.basic import (
    Alloc,
    AllocEmpty,
    ARange,
    Join,
    MakeVector,
    ScalarFromTensor,
    Split,
    TensorFromScalar,
)
from pytensor.tensor.blockwise import Blockwise
from pytensor.tensor.elemwise import CAReduce, DimShuffle, Elemwise
from pytensor.tensor.extra_ops import CumOp, Repeat, SearchsortedOp, Unique
from pytensor.tensor.linalg.solvers.core import SolveBase
from pytensor.tensor.math import Argmax, Dot
from pytensor.tensor.random.op import RandomVariable, RNGConsumerOp
from pytensor.tensor.random.type import RandomType
from pytensor.tensor.reshape import JoinDims, SplitDims
from pytensor.tensor.shape import Reshape, Shape, Shape_i, SpecifyShape
from pytensor.tensor.sort import ArgSortOp, SortOp
from pytensor.tensor.subtensor import (
    AdvancedIncSubtensor,
    AdvancedSubtensor,
    IncSubtensor,
    Subtensor,
    indices_from_subtensor,
)
from pytensor.tensor.type_other import SliceType
from pytensor.xtensor.basic import Rename, TensorFromXTensor, XTensorFromTensor
from pytensor.xtensor.indexing import Index
from pytensor.xtensor.math import Dot as XDot
from pytensor.xtensor.reduction import XCumReduce, XReduce
from pytensor.xtensor.shape import Broadcast, Concat, ExpandDims, Squeeze, Transpose
from pytensor.xtensor.type import XTensorType
from pytensor.xtensor.vectorization import XRV, XBlockwise, XElemwise

from pymc.minibatch.axis_tracking import (
    BROADCAST,
    OTHER,
    Axes,
    Axis,
    Rows,
    Untracked,
    broadcast_axes,
    broadcast_axis,
    extended_signature,
    indexes,
    label,
    ndim_of,
    ndim_supp,
    output_axes,
    refuse_rows,
    require_tracked,
    rows_of,
    track_axes,
    track_inner,
)
from pymc.minibatch.index import MinibatchIndexRV
from pymc.minibatch.lengths import constant_int, counts_up, rows_of_length, scan_args, size_inputs

# --- the index, and everything written x[...] ---
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
    if not counts_up(entry):
        return None
    if isinstance(entry, Constant):
        return order if len(entry.data) == length else None
    stop = entry.owner.inputs[1]
    takes_all = rows_of_length(stop) == rows or constant_int(stop) == length is not None
    return order if takes_all else None


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


# --- element by element ---
@output_axes.register(Elemwise)
def _(op: Elemwise, node: Apply, inputs: Sequence[Axes]) -> list[Axes]:
    return [broadcast_axes(inputs, node.inputs, out.type.ndim) for out in node.outputs]


@output_axes.register(
    ViewOp
    | DeepCopyOp
    | SpecifyShape
    | CheckAndRaise
    | TensorFromScalar
    | ScalarFromTensor
    | XTensorFromTensor
    | TensorFromXTensor
    | Rename
)
def _(op: Op, node: Apply, inputs: Sequence[Axes]) -> list[Axes]:
    return [inputs[0]]


@output_axes.register(Shape | Shape_i | MakeVector)
def _(op: Op, node: Apply, inputs: Sequence[Axes]) -> list[Axes]:
    return [(OTHER,) * out.type.ndim for out in node.outputs]


@output_axes.register(ARange)
def _(op: ARange, node: Apply, inputs: Sequence[Axes]) -> list[Axes]:
    # The logp of a Categorical counts to 1, which is one value
    bounds = [constant_int(var) for var in node.inputs]
    has_one = None not in bounds and len(range(*bounds)) == 1  # type: ignore[arg-type]
    return [(BROADCAST if has_one else OTHER,)]


@output_axes.register(DimShuffle)
def _(op: DimShuffle, node: Apply, inputs: Sequence[Axes]) -> list[Axes]:
    [axes] = inputs
    dropped = [axis for k, axis in enumerate(axes) if k not in op.new_order]
    refuse_rows(dropped, f"{op} drops the axis of a minibatch")
    return [tuple(BROADCAST if k == "x" else axes[k] for k in op.new_order)]


@output_axes.register(Alloc)
def _(op: Alloc, node: Apply, inputs: Sequence[Axes]) -> list[Axes]:
    # A sum over pt.ones(x.shape[0]) counts rows, so its axis is rows
    value, *_ = inputs
    axes = (BROADCAST,) * (node.outputs[0].type.ndim - len(value)) + value
    rows = map(rows_of_length, node.inputs[1:])
    return [tuple(row if row and axis is BROADCAST else axis for axis, row in zip(axes, rows))]


@output_axes.register(AllocEmpty)
def _(op: AllocEmpty, node: Apply, inputs: Sequence[Axes]) -> list[Axes]:
    return [(BROADCAST,) * node.outputs[0].type.ndim]  # what is written into it counts


# --- reductions and orders ---
@output_axes.register(CAReduce | Argmax)
def _(op: CAReduce | Argmax, node: Apply, inputs: Sequence[Axes]) -> list[Axes]:
    [axes] = inputs
    over = range(len(axes)) if op.axis is None else op.axis
    refuse_rows([axes[k] for k in over], f"{op} mixes the rows of a minibatch (axis {list(over)})")
    left = tuple(axis for k, axis in enumerate(axes) if k not in over)
    return [left for _ in node.outputs]


@output_axes.register(Unique)
def _(op: Unique, node: Apply, inputs: Sequence[Axes]) -> list[Axes]:
    refuse_rows(inputs[0], f"{op} compares the rows of a minibatch")
    return [(OTHER,) * out.type.ndim for out in node.outputs]


def _mix_axis(axes: Axes, axis: int, why: str) -> Axes:
    """Make one axis `OTHER`, or raise `why` if it is rows."""
    refuse_rows([axes[axis]], why)
    return tuple(OTHER if k == axis % len(axes) else kept for k, kept in enumerate(axes))


@output_axes.register(CumOp | SortOp | ArgSortOp | Repeat)
def _(op: CumOp | SortOp | ArgSortOp | Repeat, node: Apply, inputs: Sequence[Axes]) -> list[Axes]:
    axes, axis = inputs[0], op.axis
    why = f"{op} mixes the rows of a minibatch"
    if axis is None and len(node.inputs) > 1 and isinstance(node.inputs[1], Constant):
        axis = int(node.inputs[1].data)  # sort takes its axis as an input
    if axis is None:  # of the flattened array
        refuse_rows(axes, why)
        return [(OTHER,) * node.outputs[0].type.ndim]
    return [_mix_axis(axes, axis, why)]


@output_axes.register(Split)
def _(op: Split, node: Apply, inputs: Sequence[Axes]) -> list[Axes]:
    part = _mix_axis(inputs[0], op.axis, f"{op} splits the rows of a minibatch")
    return [part] * len(node.outputs)


@output_axes.register(Join)
def _(op: Join, node: Apply, inputs: Sequence[Axes]) -> list[Axes]:
    why = f"{op} joins arrays along the rows of a minibatch"
    parts = [_mix_axis(axes, op.axis, why) for axes in inputs]
    return [broadcast_axes(parts, node.inputs, len(inputs[0]))]


@output_axes.register(SearchsortedOp)
def _(op: SearchsortedOp, node: Apply, inputs: Sequence[Axes]) -> list[Axes]:
    edges, values, *_ = inputs
    refuse_rows(edges, f"{op} looks values up among the rows of a minibatch")
    return [values]


# --- products ---
@output_axes.register(Dot)
def _(op: Dot, node: Apply, inputs: Sequence[Axes]) -> list[Axes]:
    x, y = inputs
    refuse_rows([x[-1], y[-2:][0]], f"{op} sums over the rows of a minibatch")
    return [(*x[:-1], *(y[1:] if len(y) > 1 else ()))]


@output_axes.register(Blockwise)
def _(op: Blockwise, node: Apply, inputs: Sequence[Axes]) -> list[Axes]:
    splits = [len(axes) - len(names) for axes, names in zip(inputs, op.inputs_sig)]
    leading = [axes[:split] for axes, split in zip(inputs, splits)]
    cores = [axes[split:] for axes, split in zip(inputs, splits)]
    batch = broadcast_axes(leading, node.inputs, op.batch_ndim(node))
    if isinstance(op.core_op, Subtensor | AdvancedSubtensor):
        picked = output_axes(op.core_op, op._create_dummy_core_node(node.inputs), cores)
        return [(*batch, *core) for core in picked]
    kept: dict[str, Axis] = {}
    for core, names in zip(cores, op.inputs_sig):
        for axis, name in zip(core, names):
            if isinstance(axis, Rows):
                _require_separate(op, name)
            if isinstance(axis, Rows) or (axis is BROADCAST and is_separate(op, name)):
                kept[name] = axis
    return [(*batch, *(kept.get(name, OTHER) for name in names)) for names in op.outputs_sig]


def _require_separate(op: Blockwise, name: str) -> None:
    """Let rows through along a core axis that one input has and that comes out again."""
    n_inputs = sum(names.count(name) for names in op.inputs_sig)
    if n_inputs > 1 or not any(name in names for names in op.outputs_sig):
        raise Untracked(f"{op} mixes the rows of a minibatch")
    if not is_separate(op, name):
        raise Untracked(f"{op} may mix the rows of a minibatch", certain=False)


def is_separate(op: Blockwise, name: str) -> bool:
    """Return True if a core axis of one input comes out again, entry by entry."""
    n_inputs = sum(names.count(name) for names in op.inputs_sig)
    return n_inputs == 1 and isinstance(op.core_op, Dot | SolveBase)


# --- changes of shape ---
@output_axes.register(Reshape)
def _(op: Reshape, node: Apply, inputs: Sequence[Axes]) -> list[Axes]:
    is_repeated = all(axis is BROADCAST for axis in inputs[0])
    axes: list[Axis] = [BROADCAST if is_repeated else OTHER] * node.outputs[0].type.ndim
    for k, axis in enumerate(inputs[0]):
        if isinstance(axis, Rows):
            axes[_reshaped_axis(op, node, axis, k)] = axis
    return [tuple(axes)]


def _reshaped_axis(op: Op, node: Apply, rows: Rows, k: int) -> int:
    """Return the axis of the new shape that axis `k` has become, with its elements in order."""
    old, new = node.inputs[0].type.shape, node.outputs[0].type.shape
    is_known = None not in (*old, *new)
    for j, length in enumerate(new):
        if not _has_same_size(old[:k], new[:j]):
            continue
        if old[k] is None and length is None:
            # The lengths are equal if the rest of the shape is, or by x.shape[k]
            is_same = _has_same_size(old[k + 1 :], new[j + 1 :]) or _is_length(node, rows, j)
            is_known = None not in (*old[k + 1 :], *new[j + 1 :])
        else:
            is_same = length == old[k]
        # Axes of length 1 in between do not matter: take the one after these
        if is_same and (length != 1 or k == j):
            return j
    may = "mixes" if is_known else "may mix"
    raise Untracked(f"{op} {may} the rows of a minibatch with another axis", certain=is_known)


def _has_same_size(old: Sequence[int | None], new: Sequence[int | None]) -> bool:
    """Return True if two parts of shapes surely have the same number of elements."""
    return None not in (*old, *new) and np.prod(old) == np.prod(new)  # type: ignore[arg-type]


def _is_length(node: Apply, rows: Rows, j: int) -> bool:
    """Return True if entry `j` of the new shape is the number of `rows`, as ``x.shape[k]``."""
    _x, shape = node.inputs
    if shape.owner is None or not isinstance(shape.owner.op, MakeVector):
        return False
    return rows_of_length(shape.owner.inputs[j]) == rows


@output_axes.register(JoinDims)
def _(op: JoinDims, node: Apply, inputs: Sequence[Axes]) -> list[Axes]:
    axes = inputs[0]
    joined = [axes[k] for k in op.axis_range]
    if len(joined) > 1:
        refuse_rows(joined, f"{op} mixes the rows of a minibatch with another axis")
    new = joined[0] if len(joined) == 1 else OTHER
    return [(*axes[: op.start_axis], new, *axes[op.start_axis + op.n_axes :])]


@output_axes.register(SplitDims)
def _(op: SplitDims, node: Apply, inputs: Sequence[Axes]) -> list[Axes]:
    axes = inputs[0]
    refuse_rows([axes[op.axis]], f"{op} splits the rows of a minibatch")
    n_new = node.outputs[0].type.ndim - len(axes) + 1
    return [(*axes[: op.axis], *(OTHER,) * n_new, *axes[op.axis + 1 :])]


@output_axes.register(OpFromGraph)
def _(op: OpFromGraph, node: Apply, inputs: Sequence[Axes]) -> list[Axes]:
    if isinstance(op, MarginalOfRows):
        return marginalized_axes(op, node, inputs)
    return track_inner(op, inputs)


# --- named dims: axes are matched by name ---
@output_axes.register(XElemwise | XReduce | XDot | Transpose | Squeeze | ExpandDims | Broadcast)
def _(op: Op, node: Apply, inputs: Sequence[Axes]) -> list[Axes]:
    return [_broadcast_dims(node, inputs, out) for out in node.outputs]


@output_axes.register(XCumReduce)
def _(op: XCumReduce, node: Apply, inputs: Sequence[Axes]) -> list[Axes]:
    return [_broadcast_dims(node, inputs, out, op.dims) for out in node.outputs]


@output_axes.register(Concat)
def _(op: Concat, node: Apply, inputs: Sequence[Axes]) -> list[Axes]:
    return [_broadcast_dims(node, inputs, out, (op.dim,)) for out in node.outputs]


@output_axes.register(XBlockwise | XRV)
def _(op: XBlockwise | XRV, node: Apply, inputs: Sequence[Axes]) -> list[Axes]:
    core = {dim for dims in op.core_dims[0] for dim in dims}
    return [
        _broadcast_dims(node, inputs, out, core) if isinstance(out.type, XTensorType) else ()
        for out in node.outputs
    ]


def _dims(var: Variable) -> tuple[str, ...]:
    """Return the names of the axes of an input; none of a slice or a length."""
    return var.type.dims if isinstance(var.type, XTensorType) else ()


def _broadcast_dims(
    node: Apply, inputs: Sequence[Axes], out: Variable, mixed: Collection[str] = ()
) -> Axes:
    """Broadcast by name; rows of dims in `mixed`, or that do not come out, are mixed."""
    axes: dict[str, list[Axis]] = {dim: [] for dim in out.type.dims}
    others: dict[str, list[str]] = {}
    for var, var_axes in zip(node.inputs, inputs):
        for dim, axis in zip(_dims(var), var_axes):
            if dim not in axes or dim in mixed:
                refuse_rows([axis], f"{node.op} mixes the rows of a minibatch (dim {dim!r})")
            axes.setdefault(dim, []).append(axis)
            if axis is OTHER:
                others.setdefault(dim, []).append(label(var))
    return tuple(
        OTHER if dim in mixed else broadcast_axis(axes[dim] or [BROADCAST], others.get(dim, ()))
        for dim in out.type.dims
    )


@output_axes.register(Index)
def _(op: Index, node: Apply, inputs: Sequence[Axes]) -> list[Axes]:
    x, *entries = node.inputs
    kinds = {dim: [axis] for dim, axis in zip(x.type.dims, inputs[0])}
    names = {dim: [label(x)] for dim in x.type.dims}
    for dim, axis, entry in zip(x.type.dims, inputs[0], entries):
        is_slice = not isinstance(entry.type, XTensorType)
        if isinstance(axis, Rows) and not (is_slice and is_full(entry)):
            raise Untracked(BY_PLACE.format(op=op), by_place=True)
        if not is_slice:
            kinds[dim], names[dim] = [], []
    for entry, entry_axes in zip(entries, inputs[1:]):
        for dim, axis in zip(_dims(entry), entry_axes):
            kinds.setdefault(dim, []).append(OTHER if axis is BROADCAST else axis)
            names.setdefault(dim, []).append(label(entry))
    return [
        tuple(
            broadcast_axis(kinds[dim] or [OTHER], names.get(dim, ()))
            for dim in node.outputs[0].type.dims
        )
    ]


@output_axes.register(RandomVariable)
def _(op: RandomVariable, node: Apply, inputs: Sequence[Axes]) -> list[Axes]:
    return [(), _draw_axes(op, op.dist_params(node), inputs[2:], node.outputs[1])]


@output_axes.register(RNGConsumerOp)
def _(op: Op, node: Apply, inputs: Sequence[Axes]) -> list[Axes]:
    """Track a `SymbolicRandomVariable` by its signature, or else through its inner graph."""
    signature = extended_signature(op)
    if signature is None:
        return _axes_without_signature(op, node, inputs)
    (_, _, params), (_, draws) = op.get_input_output_type_idxs(signature)
    axes: list[Axes] = [(OTHER,) * ndim_of(out) for out in node.outputs]
    variables, params_axes = [node.inputs[p] for p in params], [inputs[p] for p in params]
    for k in draws:
        axes[k] = _draw_axes(op, variables, params_axes, node.outputs[k])
    return axes


def _draw_axes(op: Op, params: Sequence[Variable], axes: Sequence[Axes], draw: Variable) -> Axes:
    """Broadcast the batch axes of the parameters; the axes of one draw are `OTHER`."""
    batches = []
    for param_axes, ndim in zip(axes, op.ndims_params, strict=True):
        split = len(param_axes) - ndim
        refuse_rows(param_axes[split:], f"the rows of a minibatch are inside one draw of {op}")
        batches.append(param_axes[:split])
    ndim = draw.type.ndim - op.ndim_supp
    batch = broadcast_axes([(BROADCAST,) * ndim, *batches], [draw, *params], ndim)
    return (*batch, *(OTHER,) * op.ndim_supp)


def _axes_without_signature(op: Op, node: Apply, inputs: Sequence[Axes]) -> list[Axes]:
    if not isinstance(op, HasInnerGraph):
        raise Untracked(f"the rows of a minibatch cannot be followed through {op}", certain=False)
    is_univariate = ndim_supp(op, None) == 0
    try:
        inner = track_inner(op, inputs)
    except Untracked as untracked:
        if untracked.certain or not is_univariate:
            raise
        return _broadcast_parameters(node, inputs)
    # A loop inside, as in rejection sampling, hides that draws are alike: the parameters tell
    if is_univariate and any(OTHER in axes for axes in inner):
        return [
            tuple(by_params if axis is OTHER else axis for axis, by_params in zip(axes, broadcast))
            for axes, broadcast in zip(inner, _broadcast_parameters(node, inputs), strict=True)
        ]
    return inner


def _broadcast_parameters(node: Apply, inputs: Sequence[Axes]) -> list[Axes]:
    """Return the axes of univariate draws, each of which has parameters of its own."""
    sizes = set(size_inputs(node))
    params = [
        k for k, var in enumerate(node.inputs) if k not in sizes and isinstance(var.type, HasShape)
    ]
    return [
        ()
        if isinstance(out.type, RandomType)
        else broadcast_axes(
            [(BROADCAST,) * out.type.ndim, *(inputs[k] for k in params)],
            [out, *(node.inputs[k] for k in params)],
            out.type.ndim,
        )
        for out in node.outputs
    ]


# --- marginalized variables of pymc-extras ---
@runtime_checkable
class Marginal(Protocol):
    """An Op of pymc-extras: variables of which one that they depend on was marginalized."""

    marginalized_name: str
    inner_outputs: Any
    n_dependent_rvs: Any


@runtime_checkable
class MarginalOfRows(Marginal, Protocol):
    """A `Marginal` whose marginalized variable may have a value for each row."""

    dims_connections: Any


def marginalized_axes(op: Any, node: Apply, inputs: Sequence[Axes]) -> list[Axes]:
    """Return the axes of variables of which a discrete one that they depend on is marginalized.

    Their log-probability sums over its values for each of its elements, so they have rows along the
    axes on which it has rows too. The inner graph of `op` draws the marginalized variable and then its
    dependents; `dims_connections` maps each of their axes to one of its axes.
    """
    known: dict[Variable, Axes | Untracked] = dict(zip(op.inner_inputs, inputs, strict=True))
    sizes = {
        op.inner_inputs[k]: indexes([node.inputs[k]], by_shape=True) for k in size_inputs(node)
    }
    lengths = {inner: Rows(found[0]) for inner, found in sizes.items() if found}
    marginal, *dependents = op.inner_outputs
    axes: list[Axes] = [(OTHER,) * ndim_of(out) for out in node.outputs]
    axes[0] = _sized_axes(marginal, require_tracked(track_axes(marginal, known)), lengths)
    known[marginal] = axes[0]
    for k, (inner, connections) in enumerate(zip(dependents, op.dims_connections), 1):
        inner_axes = _sized_axes(inner, require_tracked(track_axes(inner, known)), lengths)
        is_shared = _is_shared(marginal, connections)
        axes[k] = tuple(OTHER if shared else axis for axis, shared in zip(inner_axes, is_shared))
    return axes


def _is_shared(marginal: Variable, connections: Sequence[int | None]) -> list[bool]:
    """Return along which axes elements share a value of the marginalized variable."""
    batch_ndim = marginal.type.ndim - ndim_supp(marginal.owner.op)
    return [axis is None or axis >= batch_ndim for axis in connections]


def _sized_axes(draw: Variable, axes: Axes, lengths: Mapping[Variable, Rows]) -> Axes:
    """Return the axes of a draw, some of which its size says are as long as a batch."""
    size = draw.owner.inputs[1].owner if isinstance(draw.owner.op, RandomVariable) else None
    entries = size.inputs if size is not None and isinstance(size.op, MakeVector) else []
    rows = [lengths.get(entry) for entry in entries]
    rows += [None] * (len(axes) - len(rows))
    return tuple(
        broadcast_axis([axis, row]) if row is not None else OTHER if axis is BROADCAST else axis
        for axis, row in zip(axes, rows, strict=True)
    )


def check_marginalized(name: str, rv: Variable, axes: Axes | Untracked) -> None:
    """Raise ValueError where pymc-extras marginalized a variable that rows of a batch share.

    `axes` are those of the observed value of `rv`.
    """
    op: Any = None if rv.owner is None else rv.owner.op
    if not isinstance(op, Marginal):
        return
    if any(isinstance(node.op, MinibatchIndexRV) for node in toposort(op.inner_outputs)):
        raise ValueError(
            f"{name!r} depends on {op.marginalized_name!r}, which was marginalized in a model of minibatches. "
            "Marginalize it in the model of all rows, and take minibatches of what you get: "
            "pm.minibatch_model(marginalize(pm.remove_minibatch(model), ...), batch_size=...)"
        )
    if isinstance(axes, Untracked) or not rows_of(axes):
        return
    if op.n_dependent_rvs > 1:
        raise ValueError(
            f"{name!r} and {op.n_dependent_rvs - 1} more variables depend on {op.marginalized_name!r}, which was "
            "marginalized: they have one log-probability together, which is not scaled to all rows. Observe "
            "them as columns of one variable, leave it in the model, or fit all rows"
        )
    marginal = op.inner_outputs[0]
    if isinstance(op, MarginalOfRows):
        shared = _is_shared(marginal, op.dims_connections[rv.owner.outputs.index(rv) - 1])
    else:
        shared = [ndim_supp(marginal.owner.op, 1) != 0] * rv.type.ndim
    if rows_of(axis for axis, is_shared in zip(axes, shared, strict=True) if is_shared):
        raise ValueError(
            f"{name!r} depends on {op.marginalized_name!r}, which was marginalized and which all rows of "
            "the data share, so that the log-probability is no sum over rows, and a batch says nothing of it. "
            "Give it a value for each row, leave it in the model, or fit all rows"
        )
