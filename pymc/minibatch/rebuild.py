# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Graphs with other data in them: minibatches for full data, and back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import attrgetter

import pytensor.tensor as pt

from pytensor.compile.builders import OpFromGraph
from pytensor.graph.basic import Apply, Variable
from pytensor.graph.fg import FunctionGraph
from pytensor.graph.traversal import toposort
from pytensor.graph.type import Type
from pytensor.scan.op import Scan
from pytensor.tensor.basic import Alloc
from pytensor.tensor.shape import Shape, shape_i
from pytensor.tensor.subtensor import AdvancedSubtensor, indices_from_subtensor
from pytensor.tensor.type import TensorType
from pytensor.xtensor.basic import XTensorFromTensor
from pytensor.xtensor.indexing import Index

from pymc.minibatch.axis_rules import is_full
from pymc.minibatch.axis_tracking import Rows, indexes
from pymc.minibatch.index import MinibatchIndexRV
from pymc.minibatch.scaling import RowRatio
from pymc.minibatch.stream_index import StreamedRows, StreamIndexRV


class FixedLengthError(ValueError):
    """A variable has the length of a batch, fixed, so that there is no model of all rows."""


def rebuild(
    outputs: Sequence[Variable],
    replacements: Mapping[Variable, Variable],
    bypass: Callable[[Apply], bool] = lambda node: False,
) -> list[Variable]:
    """Replace variables by others, which may have another static shape or depend on the old ones.

    Nodes are rebuilt where their inputs change, so that static shapes follow, in inner graphs too;
    `clone_replace` would keep the old ones there. A node for which `bypass` is true is replaced by its
    first input.
    """
    memo = dict(replacements)
    for node in toposort(outputs, blockers=list(memo)):
        inputs = [memo.get(i, i) for i in node.inputs]
        if bypass(node):
            memo[node.outputs[0]] = inputs[0]
        elif any(new is not old for new, old in zip(inputs, node.inputs)):
            for old, new in zip(node.outputs, with_inputs(node, inputs).outputs, strict=True):
                new.name = new.name or old.name
                memo.setdefault(old, new)
    return [memo.get(output, output) for output in outputs]


def with_inputs(node: Apply, inputs: Sequence[Variable]) -> Apply:
    """Rebuild `node`, and its inner graph, whose static shapes may be those of the old inputs."""
    op = node.op
    if isinstance(op, OpFromGraph):
        inner, outputs = _rebuilt_inner(op, [var.type for var in inputs])
        op = op.clone_with_inner_graph(FunctionGraph(inner, outputs, clone=False))
        return OpFromGraph.make_node(op, *inputs)
    if isinstance(op, Scan):
        inner, outputs = _rebuilt_inner(op, [_any_length(var.type) for var in op.inner_inputs])
        options = dict(zip(_SCAN_OPTIONS, attrgetter(*_SCAN_OPTIONS)(op)))
        return Scan(inner, outputs, op.info, **options).make_node(*inputs)
    if isinstance(op, Alloc):
        inputs = [inputs[0], *_filled_lengths(node, inputs)]
    # Always by the Op: a length that is an input has the same type for a batch as for all rows
    return op.make_node(*inputs)


def _filled_lengths(node: Apply, inputs: Sequence[Variable]) -> list[Variable]:
    """Return the lengths of an `Alloc`, along axes of its value those of the value.

    `pm.logp` may have folded these.
    """
    old, new, lengths = node.inputs[0], inputs[0], list(inputs[1:])
    for k in range(1, new.type.ndim + 1):
        if old.type.shape[-k] not in (1, None):
            lengths[-k] = shape_i(new, new.type.ndim - k)
    return lengths


_SCAN_OPTIONS = ("mode", "truncate_gradient", "name", "profile", "allow_gc", "strict")


def _rebuilt_inner(
    op: OpFromGraph | Scan, types: Sequence[Type]
) -> tuple[list[Variable], list[Variable]]:
    old = op.fgraph.unfreeze()
    inner = [
        var.clone() if var.type == new else new()
        for var, new in zip(old.inputs, types, strict=True)
    ]
    return inner, rebuild(old.outputs, dict(zip(old.inputs, inner)))


def _any_length(type_: Type) -> Type:
    if not isinstance(type_, TensorType):
        return type_
    return type_.clone(shape=tuple(1 if length == 1 else None for length in type_.shape))


def all_rows(
    outputs: Iterable[Variable], lengths: Mapping[str, Variable] | None = None
) -> list[Variable]:
    """Rewrite graphs of minibatches to graphs of the full data; others stay as they are.

    ``data[index]`` becomes ``data``, the ratio of rows 1, and an index in any other use
    ``arange(n_rows)``. All rows of a stream are those in its placeholders. `lengths` are those of dims;
    they replace the lengths of data, since predictions for new inputs have no new observed values.
    """
    outputs = list(outputs)
    replacements: dict[Variable, Variable] = {}
    totals = set()
    for node in toposort(outputs):
        if isinstance(node.op, MinibatchIndexRV):
            index = node.outputs[1]
            replacements[index] = pt.arange(_length(index, lengths), dtype=index.type.dtype)
            totals.add(node.inputs[2])
        elif isinstance(node.op, Shape) and _is_index(node.inputs[0]):
            # The shape of a variable on the dim: a length that `subsample` finds again
            length = _length(node.inputs[0], lengths)
            replacements[node.outputs[0]] = pt.stack([length.astype("int64")])
    if not replacements:
        return outputs
    for node in toposort(outputs):
        if isinstance(node.op, RowRatio) and node.inputs[0] in totals:
            total, ratio = node.inputs[0], node.outputs[0]
            is_stated = node.op.axis is not None  # which holds of all rows too
            replacements[ratio] = (
                node.op(total, total) if is_stated else pt.constant(1, dtype=ratio.type.dtype)
            )
    return rebuild(outputs, replacements, bypass=lambda node: taken_axis(node) is not None)


def _length(index: Variable, lengths: Mapping[str, Variable] | None) -> Variable:
    rows, _, n_rows = index.owner.inputs
    if isinstance(index.owner.op, StreamIndexRV):
        return shape_i(rows, 0)
    return (lengths or {}).get(index.owner.op.dim or "", n_rows)


def taken_axis(node: Apply) -> int | None:
    """Return the axis along which `node` takes, or marks, the rows of an index; None if it does not."""
    if isinstance(node.op, StreamedRows):
        return 0
    if not isinstance(node.op, AdvancedSubtensor | Index):
        return None
    if isinstance(node.op, Index):
        entries = list(node.inputs[1:])
    else:
        entries = list(indices_from_subtensor(node.inputs[1:], node.op.idx_list))
    picks = [k for k, entry in enumerate(entries) if not is_full(entry)]
    return picks[0] if len(picks) == 1 and _is_index(entries[picks[0]]) else None


def rows_of_data(outputs: Iterable[Variable]) -> dict[Variable, dict[int, Rows]]:
    """Return the rows of each data variable, by axis."""
    found: dict[Variable, dict[int, Rows]] = {}
    for node in toposort(outputs):
        axis = taken_axis(node)
        if axis is not None:
            data, [index] = node.inputs[0], indexes(node.inputs[1:])
            while data.owner is not None and (
                isinstance(data.owner.op, XTensorFromTensor) or taken_axis(data.owner) is not None
            ):
                data = data.owner.inputs[0]  # of named dims, or with rows of another axis
            found.setdefault(data, {})[axis] = Rows(index)
    return found


def _is_index(entry: object) -> bool:
    node = entry.owner if isinstance(entry, Variable) else None
    if node is not None and isinstance(node.op, XTensorFromTensor):
        node = node.inputs[0].owner
    return node is not None and isinstance(node.op, MinibatchIndexRV)
