# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Rules for tensor Ops: elementwise, reductions, products, and changes of shape."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pytensor.compile.builders import OpFromGraph
from pytensor.compile.ops import DeepCopyOp, ViewOp
from pytensor.graph.basic import Apply, Constant
from pytensor.graph.op import Op
from pytensor.raise_op import CheckAndRaise
from pytensor.tensor.basic import (
    Alloc,
    AllocEmpty,
    ARange,
    Join,
    MakeVector,
    ScalarFromTensor,
    Split,
    TensorFromScalar,
    get_scalar_constant_value,
)
from pytensor.tensor.blockwise import Blockwise
from pytensor.tensor.elemwise import CAReduce, DimShuffle, Elemwise
from pytensor.tensor.exceptions import NotScalarConstantError
from pytensor.tensor.extra_ops import CumOp, Repeat, SearchsortedOp, Unique
from pytensor.tensor.linalg.solvers.core import SolveBase
from pytensor.tensor.math import Argmax, Dot
from pytensor.tensor.reshape import JoinDims, SplitDims
from pytensor.tensor.shape import Reshape, Shape, Shape_i, SpecifyShape
from pytensor.tensor.sort import ArgSortOp, SortOp
from pytensor.tensor.subtensor import AdvancedSubtensor, Subtensor

from pymc.minibatch.graph_types import MarginalOfRows
from pymc.minibatch.lengths import rows_of_length
from pymc.minibatch.provenance import (
    OWN,
    SAME,
    Axes,
    Axis,
    Rows,
    RowsLost,
    follow,
    meet_all,
    refuse_rows,
    trace_inner,
)
from pymc.minibatch.rules.random import marginalized_axes


@follow.register(Elemwise)
def _(op: Elemwise, node: Apply, inputs: Sequence[Axes]) -> list[Axes]:
    return [meet_all(inputs, node.inputs, out.type.ndim) for out in node.outputs]


@follow.register(ViewOp)
@follow.register(DeepCopyOp)
@follow.register(SpecifyShape)
@follow.register(CheckAndRaise)
@follow.register(TensorFromScalar)
@follow.register(ScalarFromTensor)
def _(op: Op, node: Apply, inputs: Sequence[Axes]) -> list[Axes]:
    return [inputs[0]]


@follow.register(Shape)
@follow.register(Shape_i)
@follow.register(MakeVector)
def _(op: Op, node: Apply, inputs: Sequence[Axes]) -> list[Axes]:
    return [(OWN,) * out.type.ndim for out in node.outputs]


@follow.register(ARange)
def _(op: ARange, node: Apply, inputs: Sequence[Axes]) -> list[Axes]:
    """Only one that counts to 1 has a single value, as the logp of a Categorical has one."""
    try:
        start, stop, step = map(get_scalar_constant_value, node.inputs)
    except NotScalarConstantError:
        return [(OWN,)]
    return [(SAME if len(np.arange(start, stop, step)) == 1 else OWN,)]


@follow.register(DimShuffle)
def _(op: DimShuffle, node: Apply, inputs: Sequence[Axes]) -> list[Axes]:
    [axes] = inputs
    dropped = [a for k, a in enumerate(axes) if k not in op.new_order]
    refuse_rows(dropped, f"{op} drops the axis of a minibatch")
    return [tuple(SAME if k == "x" else axes[k] for k in op.new_order)]


@follow.register(Alloc)
def _(op: Alloc, node: Apply, inputs: Sequence[Axes]) -> list[Axes]:
    """What is filled for each row, as ``pt.ones(x.shape[0])``, has rows: a sum over it counts them."""
    value, *_ = inputs
    axes = (SAME,) * (node.outputs[0].type.ndim - len(value)) + value
    rows = map(rows_of_length, node.inputs[1:])
    return [tuple(row if row and axis is SAME else axis for axis, row in zip(axes, rows))]


@follow.register(AllocEmpty)
def _(op: AllocEmpty, node: Apply, inputs: Sequence[Axes]) -> list[Axes]:
    return [(SAME,) * node.outputs[0].type.ndim]  # what is written into it counts


# --- reductions and orders ---
@follow.register(CAReduce)
@follow.register(Argmax)
def _(op: CAReduce | Argmax, node: Apply, inputs: Sequence[Axes]) -> list[Axes]:
    [axes] = inputs
    over = range(len(axes)) if op.axis is None else op.axis
    refuse_rows([axes[k] for k in over], f"{op} mixes the rows of a minibatch (axis {list(over)})")
    left = tuple(a for k, a in enumerate(axes) if k not in over)
    return [left for _ in node.outputs]


@follow.register(Unique)
def _(op: Unique, node: Apply, inputs: Sequence[Axes]) -> list[Axes]:
    refuse_rows(inputs[0], f"{op} compares the rows of a minibatch")
    return [(OWN,) * out.type.ndim for out in node.outputs]


@follow.register(CumOp)
@follow.register(SortOp)
@follow.register(ArgSortOp)
@follow.register(Repeat)
def _(op: CumOp | SortOp | ArgSortOp | Repeat, node: Apply, inputs: Sequence[Axes]) -> list[Axes]:
    axes = inputs[0]
    axis = op.axis
    if axis is None and len(node.inputs) > 1 and isinstance(node.inputs[1], Constant):
        axis = int(node.inputs[1].data)  # sort takes its axis as an input
    touched = axes if axis is None else [axes[axis]]
    refuse_rows(touched, f"{op} mixes the rows of a minibatch")
    if axis is None:
        return [(OWN,) * node.outputs[0].type.ndim]
    axis %= len(axes)
    return [(*axes[:axis], OWN, *axes[axis + 1 :])]


@follow.register(SearchsortedOp)
def _(op: SearchsortedOp, node: Apply, inputs: Sequence[Axes]) -> list[Axes]:
    edges, values, *_ = inputs
    refuse_rows(edges, f"{op} looks values up among the rows of a minibatch")
    return [values]


# --- products ---
@follow.register(Dot)
def _(op: Dot, node: Apply, inputs: Sequence[Axes]) -> list[Axes]:
    x, y = inputs
    refuse_rows([x[-1], y[-2:][0]], f"{op} sums over the rows of a minibatch")
    return [(*x[:-1], *(y[1:] if len(y) > 1 else ()))]


@follow.register(Blockwise)
def _(op: Blockwise, node: Apply, inputs: Sequence[Axes]) -> list[Axes]:
    batch_ndim = op.batch_ndim(node)
    batch = meet_all(
        [axes[: len(axes) - len(core)] for axes, core in zip(inputs, op.inputs_sig)],
        node.inputs,
        batch_ndim,
    )
    if isinstance(op.core_op, Subtensor | AdvancedSubtensor):
        cores = [axes[len(axes) - len(core) :] for axes, core in zip(inputs, op.inputs_sig)]
        picked = follow(op.core_op, op._create_dummy_core_node(node.inputs), cores)
        return [(*batch, *core) for core in picked]
    kept: dict[str, Axis] = {}
    for axes, core in zip(inputs, op.inputs_sig):
        for axis, name in zip(axes[len(axes) - len(core) :], core):
            if isinstance(axis, Rows):
                _require_separate(op, name)
            if isinstance(axis, Rows) or (axis is SAME and _is_separate(op, name)):
                kept[name] = axis
    return [(*batch, *(kept.get(name, OWN) for name in core)) for core in op.outputs_sig]


def _require_separate(op: Blockwise, name: str) -> None:
    """Let rows through along a core axis that one input has and that comes out again."""
    has = sum(core.count(name) for core in op.inputs_sig)
    if has > 1 or not any(name in core for core in op.outputs_sig):
        raise RowsLost(f"{op} mixes the rows of a minibatch")
    if not _is_separate(op, name):
        raise RowsLost(f"{op} may mix the rows of a minibatch", certain=False)


def _is_separate(op: Blockwise, name: str) -> bool:
    has = sum(core.count(name) for core in op.inputs_sig)
    return has == 1 and isinstance(op.core_op, Dot | SolveBase)


# --- changes of shape ---
@follow.register(Join)
def _(op: Join, node: Apply, inputs: Sequence[Axes]) -> list[Axes]:
    axis = op.axis % node.outputs[0].type.ndim
    refuse_rows([i[axis] for i in inputs], f"{op} joins arrays along the rows of a minibatch")
    rest = meet_all(
        [(*i[:axis], SAME, *i[axis + 1 :]) for i in inputs], node.inputs, len(inputs[0])
    )
    return [(*rest[:axis], OWN, *rest[axis + 1 :])]


@follow.register(Split)
def _(op: Split, node: Apply, inputs: Sequence[Axes]) -> list[Axes]:
    axes, axis = inputs[0], op.axis % len(inputs[0])
    refuse_rows([axes[axis]], f"{op} splits the rows of a minibatch")
    return [(*axes[:axis], OWN, *axes[axis + 1 :])] * len(node.outputs)


@follow.register(Reshape)
def _(op: Reshape, node: Apply, inputs: Sequence[Axes]) -> list[Axes]:
    alike = all(axis is SAME for axis in inputs[0])
    axes: list[Axis] = [SAME if alike else OWN] * node.outputs[0].type.ndim
    for k, axis in enumerate(inputs[0]):
        if isinstance(axis, Rows):
            axes[_same_place(op, node, inputs[0], k)] = axis
    return [tuple(axes)]


def _same_place(op: Op, node: Apply, axes: Axes, k: int) -> int:
    """Find the axis of the new shape that the rows of axis `k` have become, elements in order."""
    old, new = node.inputs[0].type.shape, node.outputs[0].type.shape
    known = None not in (*old, *new)
    for j, length in enumerate(new):
        if not _same_product(old[:k], new[:j]):
            continue
        if old[k] is None and length is None:
            # Of any length, so that they may differ: as what is left over does
            same = _same_product(old[k + 1 :], new[j + 1 :]) or _is_length(node, axes, k, j)
            known = None not in (*old[k + 1 :], *new[j + 1 :])
        else:
            same = length == old[k]
        # Axes of length 1 in between do not matter: take the one after these
        if same and (length != 1 or k == j):
            return j
    may = "mixes" if known else "may mix"
    raise RowsLost(f"{op} {may} the rows of a minibatch with another axis", certain=known)


def _same_product(old: Sequence[int | None], new: Sequence[int | None]) -> bool:
    """Tell whether two parts of shapes surely have the same number of elements."""
    return None not in (*old, *new) and np.prod(old) == np.prod(new)  # type: ignore[arg-type]


def _is_length(node: Apply, axes: Axes, k: int, j: int) -> bool:
    """Tell whether entry `j` of the new shape is the length of axis `k`, as ``x.shape[k]``."""
    _x, shape = node.inputs
    if shape.owner is None or not isinstance(shape.owner.op, MakeVector):
        return False
    return rows_of_length(shape.owner.inputs[j]) == axes[k]


@follow.register(JoinDims)
def _(op: JoinDims, node: Apply, inputs: Sequence[Axes]) -> list[Axes]:
    axes = inputs[0]
    joined = [axes[k] for k in op.axis_range]
    if len(joined) > 1:
        refuse_rows(joined, f"{op} mixes the rows of a minibatch with another axis")
    new = joined[0] if len(joined) == 1 else OWN
    return [(*axes[: op.start_axis], new, *axes[op.start_axis + op.n_axes :])]


@follow.register(SplitDims)
def _(op: SplitDims, node: Apply, inputs: Sequence[Axes]) -> list[Axes]:
    axes = inputs[0]
    refuse_rows([axes[op.axis]], f"{op} splits the rows of a minibatch")
    more = node.outputs[0].type.ndim - len(axes) + 1
    return [(*axes[: op.axis], *(OWN,) * more, *axes[op.axis + 1 :])]


@follow.register(OpFromGraph)
def _(op: OpFromGraph, node: Apply, inputs: Sequence[Axes]) -> list[Axes]:
    if isinstance(op, MarginalOfRows):
        return marginalized_axes(op, node, inputs)
    return trace_inner(op, inputs)
