# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Rules for named dims (`pymc.dims`): axes are matched by name instead of by place."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from pytensor.graph.basic import Apply, Variable
from pytensor.xtensor.basic import Rename, TensorFromXTensor, XTensorFromTensor
from pytensor.xtensor.indexing import Index
from pytensor.xtensor.math import Dot
from pytensor.xtensor.reduction import XCumReduce, XReduce
from pytensor.xtensor.shape import Broadcast, Concat, ExpandDims, Squeeze, Transpose
from pytensor.xtensor.type import XTensorType
from pytensor.xtensor.vectorization import XRV, XBlockwise, XElemwise

from pymc.minibatch.provenance import (
    OWN,
    SAME,
    Axes,
    Axis,
    Rows,
    RowsLost,
    follow,
    label,
    meet,
    refuse_rows,
)
from pymc.minibatch.rules.indexing import BY_PLACE, is_full


@follow.register(XTensorFromTensor)
@follow.register(TensorFromXTensor)
@follow.register(Rename)
def _(op: Rename, node: Apply, inputs: Sequence[Axes]) -> list[Axes]:
    return [inputs[0]]


@follow.register(XElemwise)
@follow.register(XReduce)
@follow.register(Dot)
@follow.register(Transpose)
@follow.register(Squeeze)
@follow.register(ExpandDims)
@follow.register(Broadcast)
def _(op: XElemwise, node: Apply, inputs: Sequence[Axes]) -> list[Axes]:
    return [_by_name(node, inputs, out) for out in node.outputs]


@follow.register(XCumReduce)
def _(op: XCumReduce, node: Apply, inputs: Sequence[Axes]) -> list[Axes]:
    return [_by_name(node, inputs, out, op.dims) for out in node.outputs]


@follow.register(Concat)
def _(op: Concat, node: Apply, inputs: Sequence[Axes]) -> list[Axes]:
    return [_by_name(node, inputs, out, (op.dim,)) for out in node.outputs]


@follow.register(XBlockwise)
@follow.register(XRV)
def _(op: XBlockwise | XRV, node: Apply, inputs: Sequence[Axes]) -> list[Axes]:
    core = {dim for dims in op.core_dims[0] for dim in dims}
    return [
        _by_name(node, inputs, out, core) if isinstance(out.type, XTensorType) else ()
        for out in node.outputs
    ]


def _dims(var: Variable) -> tuple[str, ...]:
    """Return the names of the axes of an input; none of a slice, or a length."""
    return var.type.dims if isinstance(var.type, XTensorType) else ()


def _by_name(
    node: Apply, inputs: Sequence[Axes], out: Variable, mixed: Collection[str] = ()
) -> Axes:
    """Broadcast by name; the rows of dims that do not come out, or are in `mixed`, are mixed."""
    axes: dict[str, list[Axis]] = {dim: [] for dim in out.type.dims}
    own: dict[str, list[str]] = {}
    for var, var_axes in zip(node.inputs, inputs):
        for dim, axis in zip(_dims(var), var_axes):
            if dim not in axes or dim in mixed:
                refuse_rows([axis], f"{node.op} mixes the rows of a minibatch (dim {dim!r})")
            axes.setdefault(dim, []).append(axis)
            if axis is OWN:
                own.setdefault(dim, []).append(label(var))
    return tuple(
        OWN if dim in mixed else meet(axes[dim] or [SAME], own.get(dim, ()))
        for dim in out.type.dims
    )


@follow.register(Index)
def _(op: Index, node: Apply, inputs: Sequence[Axes]) -> list[Axes]:
    x, *entries = node.inputs
    kinds = {dim: [axis] for dim, axis in zip(x.type.dims, inputs[0])}
    own = {dim: [label(x)] for dim in x.type.dims}
    for dim, axis, entry in zip(x.type.dims, inputs[0], entries):
        if not isinstance(entry.type, XTensorType):  # a slice
            if isinstance(axis, Rows) and not is_full(entry):
                raise RowsLost(BY_PLACE.format(op=op), by_place=True)
            continue
        if isinstance(axis, Rows):
            raise RowsLost(BY_PLACE.format(op=op), by_place=True)
        kinds[dim], own[dim] = [], []
    for entry, entry_axes in zip(entries, inputs[1:]):
        for dim, axis in zip(_dims(entry), entry_axes):
            kinds.setdefault(dim, []).append(OWN if axis is SAME else axis)
            own.setdefault(dim, []).append(label(entry))
    return [tuple(meet(kinds[dim] or [OWN], own.get(dim, ())) for dim in node.outputs[0].type.dims)]
