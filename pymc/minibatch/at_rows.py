# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Graphs at some of their rows: an index of rows is brought to what a graph is computed from.

``exp(x + w)[index]`` is ``exp(x[index] + w[index])``, which computes no other rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pytensor.tensor as pt

from pytensor.compile.builders import OpFromGraph
from pytensor.graph.basic import Apply, Variable
from pytensor.raise_op import CheckAndRaise
from pytensor.tensor.basic import Alloc, Join
from pytensor.tensor.blockwise import Blockwise
from pytensor.tensor.elemwise import CAReduce, DimShuffle, Elemwise
from pytensor.tensor.extra_ops import CumOp
from pytensor.tensor.math import Dot
from pytensor.tensor.subtensor import (
    AdvancedSubtensor,
    IncSubtensor,
    Subtensor,
    indices_from_subtensor,
)
from pytensor.tensor.type_other import SliceType

from pymc.minibatch.axis_rules import is_full, is_separate
from pymc.minibatch.rebuild import rebuild

__all__ = ["PickedRows", "at_rows", "picked_rows"]


class PickedRows(NamedTuple):
    """What ``x[..., index, ...]`` is: ``x`` at the rows of an index along an axis, and then other entries."""

    index: Variable
    axis: int
    others: tuple[slice | Variable, ...]  # in the place of the index the full slice
    source: int
    destination: int

    @property
    def is_alone(self) -> bool:
        return all(map(is_full, self.others))

    def of(self, rows: Variable) -> Variable:
        """Take the other entries of ``x`` at the rows."""
        if self.is_alone:
            return rows
        return pt.moveaxis(rows[self.others], self.source, self.destination)


def picked_rows(node: Apply | None) -> PickedRows | None:
    """Return how a node picks rows by one index array; None if it does not."""
    if node is None or not isinstance(node.op, AdvancedSubtensor):
        return None
    entries = _entries(node.inputs[0], node.inputs[1:], node.op)
    # Beside an index array, NumPy takes integers for arrays
    arrays = [k for k, entry in enumerate(entries) if not isinstance(entry, slice)]
    by_row = [k for k in arrays if entries[k].type.ndim]
    if len(by_row) != 1 or any(isinstance(entries[k].type, SliceType) for k in arrays):
        return None
    [axis] = by_row
    index = entries[axis]
    if index.type.ndim != 1 or index.type.dtype == "bool":
        return None
    source = sum(isinstance(entry, slice) for entry in entries[:axis])
    is_split = arrays != list(range(arrays[0], arrays[-1] + 1))
    others = (*entries[:axis], slice(None), *entries[axis + 1 :])
    return PickedRows(index, axis, others, source, 0 if is_split else arrays[0])


def at_rows(var: Variable, index: Variable, axis: int = 0) -> Variable:
    """Return `var` at the rows of an index along an axis, with the index brought to what it is computed from.

    Examples
    --------
    >>> import pytensor.tensor as pt
    >>> from pymc.minibatch.at_rows import at_rows
    >>> x, index = pt.vector("x"), pt.lvector("index")
    >>> print(at_rows(pt.exp(x), index).owner.op)
    Exp
    """
    found: dict[tuple[Variable, int], Variable] = {}

    def pick(var: Variable, axis: int) -> Variable:
        if (var, axis) not in found:
            is_broadcast = var.type.ndim == 0 or var.type.shape[axis] == 1
            at_leaves = None if is_broadcast else _at_inputs(var, index, axis, pick)
            whole = (slice(None),) * axis
            found[var, axis] = (
                var if is_broadcast else var[(*whole, index)] if at_leaves is None else at_leaves
            )
        return found[var, axis]

    return pick(var, axis)


def _at_inputs(
    var: Variable, index: Variable, axis: int, pick: Callable[[Variable, int], Variable]
) -> Variable | None:
    """Compute `var` at the rows of an index from inputs at these; return None where this is not known."""
    if var.owner is None:
        return None
    node, op, (first, *rest) = var.owner, var.owner.op, var.owner.inputs
    if isinstance(op, Elemwise) or (isinstance(op, Blockwise) and axis < op.batch_ndim(node)):
        return op(*(pick(x, axis) for x in node.inputs))
    if isinstance(op, Blockwise):  # such as a product, of whose rows each is one of an input
        n = op.batch_ndim(node)
        name = op.outputs_sig[node.outputs.index(var)][axis - n]
        if not is_separate(op, name):
            return None
        return op(
            *(
                pick(x, n + names.index(name)) if name in names else x
                for x, names in zip(node.inputs, op.inputs_sig)
            )
        )
    if isinstance(op, Alloc):
        at = axis - (var.type.ndim - first.type.ndim)
        shape = [index.shape[0] if k == axis else n for k, n in enumerate(rest)]
        return op(first if at < 0 else pick(first, at), *shape)
    if isinstance(op, CheckAndRaise):
        return op(pick(first, axis), *rest)
    if isinstance(op, DimShuffle):
        return pick(first, op.new_order[axis]).dimshuffle(op.new_order)
    if isinstance(op, CAReduce) and op.axis is not None:
        kept = [k for k in range(first.type.ndim) if k not in op.axis]
        return op(pick(first, kept[axis]))
    if isinstance(op, Dot):
        if first.type.ndim > 1 and axis == 0:
            return op(pick(first, 0), *rest)
        return op(first, pick(rest[0], 1))
    if isinstance(op, Join) and op.axis != axis:
        return op(*(pick(x, axis) for x in node.inputs))
    if isinstance(op, OpFromGraph):
        inner = op.fgraph.unfreeze()
        [of_inner] = rebuild(
            [inner.outputs[node.outputs.index(var)]], dict(zip(inner.inputs, node.inputs))
        )
        return pick(of_inner, axis)
    if (picked := picked_rows(node)) is not None and picked.is_alone:
        if picked.axis == axis:
            return at_rows(first, picked.index[index], axis)
        return pick(first, axis)[(*picked.others[: picked.axis], picked.index)]
    if isinstance(op, CumOp) and op.axis not in (None, axis):
        return op(pick(first, axis))
    if isinstance(op, Subtensor):
        entries = _entries(first, rest, op)
        kept = [k for k, entry in enumerate(entries) if isinstance(entry, slice)]
        if is_full(entries[kept[axis]]):
            return pick(first, kept[axis])[tuple(entries)]
    if isinstance(op, IncSubtensor):
        written, *bounds = rest
        entries = _entries(first, bounds, op)
        kept = [k for k, entry in enumerate(entries) if isinstance(entry, slice)]
        if axis in kept and is_full(entries[axis]):
            at = kept.index(axis) - (len(kept) - written.type.ndim)
            return op(pick(first, axis), written if at < 0 else pick(written, at), *bounds)
    return None


def _entries(
    x: Variable, bounds: Sequence[Variable], op: Subtensor | AdvancedSubtensor | IncSubtensor
) -> list[Any]:
    """Return the entries of an indexing of `x`, one for each of its axes."""
    entries = list(indices_from_subtensor(bounds, op.idx_list))
    return entries + [slice(None)] * (x.type.ndim - len(entries))
