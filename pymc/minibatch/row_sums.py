# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Each term of the log-probability is a sum over rows, or no scale makes a batch stand for all rows.

The check is on the graph of the log-probability, in which transforms, mixtures and the functions of a
`CustomDist` are written out. :func:`summed_rows` peels linear operations off its top (sums over rows,
sums of these, products with what all rows share) until what is left is row by row, which the rules of
:mod:`pymc.minibatch.provenance` prove.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import singledispatch
from typing import Any

import numpy as np

from pytensor.conditional.op import IfElse
from pytensor.graph.basic import Apply, Constant, Variable, equal_computations
from pytensor.graph.op import Op
from pytensor.graph.traversal import ancestors
from pytensor.raise_op import CheckAndRaise
from pytensor.scalar import Add, Cast, Identity, Mul, Neg, Sub, Switch, TrueDiv
from pytensor.tensor.basic import Join, ScalarFromTensor, TensorFromScalar
from pytensor.tensor.blockwise import Blockwise
from pytensor.tensor.elemwise import DimShuffle, Elemwise
from pytensor.tensor.math import Dot, Sum
from pytensor.tensor.reshape import JoinDims, SplitDims
from pytensor.tensor.shape import Reshape
from pytensor.tensor.subtensor import AdvancedSubtensor, indices_from_subtensor
from pytensor.xtensor.basic import TensorFromXTensor, XTensorFromTensor
from pytensor.xtensor.reduction import XReduce
from pytensor.xtensor.vectorization import XElemwise

from pymc.minibatch.graph_types import ndim_of
from pymc.minibatch.lengths import Count, axis_of_length, check_no_length, counts_of_rows
from pymc.minibatch.provenance import (
    OWN,
    SAME,
    Axes,
    Lost,
    Rows,
    RowsLost,
    follow,
    label,
    meet,
    rows_of,
    trace,
)
from pymc.minibatch.rebuild import rebuild

__all__ = ["summed_rows"]


def summed_rows(
    name: str,
    term: Variable,
    known: Mapping[Variable, Axes | Lost] | None = None,
    free: Collection[Variable] = (),
) -> frozenset[Rows] | Lost:
    """Prove that a term of the log-probability is a sum over rows.

    Parameters
    ----------
    name : str
        What the term is called, for messages.
    term : Variable
        Its log-probability: an entry for each row, or sums of these.
    known, free
        Passed on to :func:`~pymc.minibatch.provenance.trace`. Value variables are among those known.

    Returns
    -------
    frozenset of Rows, or Lost
        Of which rows the sum of all entries of `term` is one, each entry of one row alone; where
        that is not so, or not known, the Op and the reason.

    Raises
    ------
    ValueError
        If it computes with the number of rows of the batch.
    """
    known = known or {}
    graph = _Graph(name, known, free, counts_of_rows([term], known))
    try:
        return graph.total(term).over
    except RowsLost as lost:
        return Lost(term.owner.op, lost.why, lost.certain, lost.by_place)


@dataclass(frozen=True)
class _Part:
    """A part of a log-probability: row by row along `axes`, and a sum over the rows in `over`.

    `alike` says that all terms of the sum are the same, as they are of a number of rows; `shifted`, that
    a constant is added to it, which moves no posterior as long as nothing multiplies it.
    """

    axes: Axes
    over: frozenset[Rows] = frozenset()
    alike: bool = False
    shifted: bool = False

    @property
    def rows(self) -> frozenset[Rows]:
        return self.over | frozenset(rows_of(self.axes))

    def summed(self, axes: Collection[int], by: object = "the term") -> _Part:
        """Sum over axes."""
        over = rows_of([self.axes[k] for k in axes])
        if len(set(over)) < len(over) or not self.over.isdisjoint(over):
            raise RowsLost(f"{by} sums over pairs of rows of a minibatch")
        left = tuple(a for k, a in enumerate(self.axes) if k not in axes)
        return _Part(left, self.over.union(over), shifted=self.shifted)


@dataclass(frozen=True)
class _Graph:
    """The graph of a log-probability, and what is known of its variables."""

    name: str
    known: Mapping[Variable, Axes | Lost]
    free: Collection[Variable]
    counts: Mapping[Variable, Count]
    parts: dict[Variable, _Part] = field(default_factory=dict)

    def total(self, var: Variable) -> _Part:
        """Tell what the sum of all entries of `var` is; it does not matter how they are arranged."""
        node = var.owner
        if node is not None and isinstance(node.op, Reshape | JoinDims | SplitDims):
            return self.total(node.inputs[0])
        if node is not None and isinstance(node.op, Join):
            return self.added(node.inputs, [self.total(part) for part in node.inputs])
        bare = self._without_masks(var)
        if bare is not var:
            return _Graph(
                self.name, self.known, self.free, counts_of_rows([bare], self.known)
            ).total(bare)
        part = self.part(var)
        return part.summed(range(len(part.axes)))

    def _without_masks(self, var: Variable) -> Variable:
        """Leave out the masks of values of which a sum is taken: those that they drop are zeros of it."""
        inner = list(ancestors([var], [*self.known, *self.free]))
        masked = [v for v in inner if _mask(v) is not None]
        masks: list[Any] = [_mask(v) for v in masked]
        if not masked or not equal_computations(masks, masks[:1] * len(masks)):
            return var
        [mask, *_] = masks
        if not rows_of(self.part(mask).axes):
            return var
        # How many there are is a sum over rows too, of the mask
        lengths = {v: mask.sum().astype(v.type.dtype) for v in inner if _is_length(v, masked)}
        return rebuild([var], {**{v: v.owner.inputs[0] for v in masked}, **lengths})[0]

    def part(self, var: Variable) -> _Part:
        """Tell what `var` is. Raises `RowsLost` where it is neither row by row nor a sum over rows."""
        if var not in self.parts:
            self.parts[var] = self._part(var)
        return self.parts[var]

    def _part(self, var: Variable) -> _Part:
        counted = self.counts.get(var)
        if counted is not None and counted.is_multiple:  # a sum of ones
            return _Part((SAME,) * var.type.ndim, frozenset([counted.rows]), alike=True)
        axes = trace(var, self.known, self.free)
        found = None
        if (isinstance(axes, Lost) or counted is not None) and var.owner is not None:
            found = peel(var.owner.op, var.owner, self)
        if found is not None:
            return found
        if isinstance(axes, Lost):
            raise RowsLost(axes.why, axes.certain, axes.by_place)
        if counted is not None:
            raise RowsLost(f"{label(var)} is computed from the number of rows of a batch")
        if self.counts:
            check_no_length(self.name, [var], self.known)
        return _Part(axes)

    def added(self, variables: Sequence[Variable], parts: Sequence[_Part]) -> _Part:
        """Tell of what rows the sum of parts is one; they have to be sums over the same rows."""
        first = next((part for part in parts if part.rows), _Part(()))
        shifted = any(part.shifted for part in parts)
        for var, part in zip(variables, parts, strict=True):
            if part.over == first.over and (part.rows == first.rows or not first.over):
                continue
            if part.rows or not self.is_constant(var):
                raise RowsLost(
                    f"{label(var)} is added to a sum over the rows of a minibatch, and is not one itself: "
                    "put it into a pm.Potential of its own"
                )
            shifted = True
        return _Part((), first.over, all(part.alike for part in parts), shifted)

    def is_constant(self, var: Variable) -> bool:
        """Tell whether neither parameters nor data are in `var`, so that it moves no posterior."""
        roots = (v for v in ancestors([var], self.free) if v.owner is None or v in self.free)
        return all(isinstance(root, Constant) for root in roots)


@singledispatch
def peel(op: Op, node: Apply, graph: _Graph) -> _Part | None:
    """Tell what a linear operation makes of sums over rows.

    Parameters
    ----------
    op : Op
        The Op of `node`, which is dispatched on.
    node : Apply
    graph : _Graph

    Returns
    -------
    _Part or None
        None for Ops that are not linear.

    Raises
    ------
    RowsLost
        Where what comes out is no sum over rows.
    """
    return None


@peel.register(CheckAndRaise)
@peel.register(DimShuffle)
@peel.register(TensorFromScalar)
@peel.register(ScalarFromTensor)
@peel.register(TensorFromXTensor)
@peel.register(XTensorFromTensor)
def _(op: Op, node: Apply, graph: _Graph) -> _Part:
    first = graph.part(node.inputs[0])
    return _combined(node, [first.axes, *map(_any_axes, node.inputs[1:])], first)


@peel.register(Elemwise)
@peel.register(XElemwise)
def _(op: Elemwise | XElemwise, node: Apply, graph: _Graph) -> _Part | None:
    scalar_op = op.scalar_op
    if not isinstance(scalar_op, Cast | Identity | Neg | Add | Sub | Mul | TrueDiv | Switch):
        return None
    parts = [graph.part(var) for var in node.inputs]
    of_rows = [part for part in parts if part.rows]
    if isinstance(scalar_op, Switch) and parts[0].rows:
        return None
    if not of_rows:  # a number of rows that is not one, such as its root
        return None
    axes = [part.axes for part in parts]
    if isinstance(scalar_op, Add | Sub):
        return _combined(node, axes, graph.added(node.inputs, parts))
    if isinstance(scalar_op, Switch):
        return _combined(node, axes, _branches(node.inputs[1:], parts[1:], graph))
    [first, *others] = of_rows
    if (
        isinstance(scalar_op, TrueDiv)
        and others
        and all(part.alike and part.over == first.over for part in parts)
    ):
        return _combined(node, axes, _Part(()))  # rows by rows
    if isinstance(scalar_op, TrueDiv) and parts[0].rows and parts[1].alike:
        raise RowsLost(
            f"{op} divides by the number of rows of a batch: take their sum, not their mean",
            by_place=True,
        )
    if others or (isinstance(scalar_op, TrueDiv) and not parts[0].rows):
        raise RowsLost(f"{op} computes with a sum over the rows of a minibatch", by_place=True)
    factors = [var for var, part in zip(node.inputs, parts) if part is not first]
    if first.shifted and not all(map(graph.is_constant, factors)):
        raise RowsLost(
            f"{op} multiplies a constant beside a sum over the rows of a minibatch, which is no part of "
            "any row"
        )
    return _combined(node, axes, first)


@peel.register(IfElse)
def _(op: IfElse, node: Apply, graph: _Graph) -> _Part | None:
    condition, *branches = node.inputs
    if len(branches) != 2 or graph.part(condition).rows:
        return None
    parts = [graph.part(var) for var in branches]
    if not any(part.rows for part in parts):
        return None
    found = _branches(branches, parts, graph)
    return replace(found, axes=parts[0].axes)


def _branches(variables: Sequence[Variable], parts: Sequence[_Part], graph: _Graph) -> _Part:
    """Tell what one of two parts is, by a condition: a constant is one only where it is no number or 0."""
    found = graph.added(variables, parts)
    for var, part in zip(variables, parts):
        values = var
        while values.owner is not None and isinstance(values.owner.op, DimShuffle):
            [values] = values.owner.inputs
        if not part.rows and found.over:
            data = values.data if isinstance(values, Constant) else 1.0
            if not (np.isinf(data) | np.equal(data, 0)).all():
                raise RowsLost(
                    f"{label(var)} stands for a sum over the rows of a minibatch, and is not one"
                )
    return replace(found, alike=False, shifted=any(part.shifted for part in parts))


@peel.register(Sum)
def _(op: Sum, node: Apply, graph: _Graph) -> _Part:
    [var] = node.inputs
    if op.axis is None:
        return graph.total(var)
    return graph.part(var).summed(op.axis, op)


@peel.register(XReduce)
def _(op: XReduce, node: Apply, graph: _Graph) -> _Part | None:
    [var] = node.inputs
    if not isinstance(op.binary_op, Add):
        return None
    return graph.part(var).summed([var.type.dims.index(dim) for dim in op.dims], op)


@peel.register(Dot)
@peel.register(Blockwise)
def _(op: Dot | Blockwise, node: Apply, graph: _Graph) -> _Part | None:
    """A product of two vectors of rows is a sum over them."""
    if not isinstance(op.core_op if isinstance(op, Blockwise) else op, Dot):
        return None
    x, y = (graph.part(var) for var in node.inputs)
    if x.over or y.over:
        return None
    last = max(len(y.axes) - 2, 0)
    together = meet([x.axes[-1], y.axes[last]], map(label, node.inputs))
    if not isinstance(together, Rows):
        return None
    axes = [(*x.axes[:-1], SAME), (*y.axes[:last], SAME, *y.axes[last + 1 :])]
    [kept] = follow(op, node, axes)
    return _Part((together, *kept)).summed([0], op)


def _combined(node: Apply, axes: Sequence[Axes], part: _Part) -> _Part:
    [found] = follow(node.op, node, axes)
    return replace(part, axes=found)


def _mask(var: Variable) -> Variable | None:
    """Return the mask of ``x[mask]``; None for anything else."""
    node = var.owner
    if node is None or not isinstance(node.op, AdvancedSubtensor):
        return None
    entries = indices_from_subtensor(node.inputs[1:], node.op.idx_list)
    if len(entries) == 1 and isinstance(entries[0], Variable) and entries[0].type.dtype == "bool":
        return entries[0]
    return None


def _is_length(var: Variable, of: Collection[Variable]) -> bool:
    found = axis_of_length(var)
    return found is not None and found[1] == 0 and found[0] in of


def _any_axes(var: Variable) -> Axes:
    return (OWN,) * ndim_of(var)
