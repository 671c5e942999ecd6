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
"""Each term of the log-probability is a sum over rows, or no scale makes a batch stand for all rows.

The check is on the graph of the log-probability, in which transforms, mixtures and the functions of a
`CustomDist` are written out. :func:`summed_rows` peels linear operations off its top (sums over rows,
sums of these, products with what all rows share) until what is left is row by row, which the rules of
:mod:`pymc.minibatch.provenance` prove.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import singledispatch

from pytensor.graph.basic import Apply, Constant, Variable, equal_computations
from pytensor.graph.op import Op
from pytensor.graph.traversal import ancestors, toposort
from pytensor.raise_op import CheckAndRaise
from pytensor.scalar import Add, Cast, Identity, Mul, Neg, Sub, Switch, TrueDiv
from pytensor.tensor.basic import Alloc, Join, ScalarFromTensor, TensorFromScalar
from pytensor.tensor.blockwise import Blockwise
from pytensor.tensor.elemwise import DimShuffle, Elemwise
from pytensor.tensor.math import Dot, Sum
from pytensor.tensor.reshape import JoinDims, SplitDims
from pytensor.tensor.shape import Reshape
from pytensor.tensor.subtensor import AdvancedSubtensor, indices_from_subtensor
from pytensor.xtensor.basic import TensorFromXTensor, XTensorFromTensor
from pytensor.xtensor.reduction import XReduce
from pytensor.xtensor.vectorization import XElemwise

from pymc.minibatch.lengths import Count, check_no_length, counts_of_rows
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

__all__ = ["summed_rows", "with_filled"]


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
    known = with_filled(term, known or {}, free)
    graph = _Graph(name, known, free, counts_of_rows([term], known))
    try:
        return graph.total(term).over
    except RowsLost as lost:
        return Lost(term.owner.op, lost.why, lost.certain)


def with_filled(
    term: Variable, known: Mapping[Variable, Axes | Lost], free: Collection[Variable] = ()
) -> dict[Variable, Axes | Lost]:
    """Add to what is known that ``pt.ones(x.shape[0])`` has rows: a sum over it counts them.

    Parameters
    ----------
    term : Variable
    known, free
        Passed on to :func:`~pymc.minibatch.provenance.trace`.
    """
    counts = counts_of_rows([term], known)
    found = dict(known)
    for node in toposort([term]):
        lengths = [counts.get(length) for length in node.inputs[1:]]
        if isinstance(node.op, Alloc) and any(lengths):
            axes = trace(node.outputs[0], found, free)
            if not isinstance(axes, Lost):
                axes = tuple(
                    count.rows if count is not None and count.is_multiple else axis
                    for axis, count in zip(axes, lengths)
                )
            found[node.outputs[0]] = axes
    return found


@dataclass(frozen=True)
class _Part:
    """A part of a log-probability: row by row along `axes`, and a sum over the rows in `over`.

    `alike` says that all terms of the sum are the same, as they are of a number of rows.
    """

    axes: Axes
    over: frozenset[Rows] = frozenset()
    alike: bool = False

    @property
    def rows(self) -> frozenset[Rows]:
        return self.over | frozenset(rows_of(self.axes))

    def summed(self, axes: Collection[int], by: object = "the term") -> _Part:
        """Sum over axes."""
        over = rows_of([self.axes[k] for k in axes])
        if len(set(over)) < len(over) or not self.over.isdisjoint(over):
            raise RowsLost(f"{by} sums over pairs of rows of a minibatch")
        left = tuple(a for k, a in enumerate(self.axes) if k not in axes)
        return _Part(left, self.over.union(over))


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
            parts = [self.total(part) for part in node.inputs]
            self.check_added(node.inputs, parts)
            return _Part((), frozenset().union(*(part.over for part in parts)))
        part = self.part(self._without_masks(var))
        return part.summed(range(len(part.axes)))

    def _without_masks(self, var: Variable) -> Variable:
        """Leave out the masks of values of which a sum is taken: those that they drop are zeros of it."""
        masked = [v for v in ancestors([var], [*self.known, *self.free]) if _mask(v) is not None]
        masks = [_mask(v) for v in masked]
        if not masked or not equal_computations(masks, masks[:1] * len(masks)):
            return var
        if not rows_of(self.part(masks[0]).axes):
            return var
        return rebuild([var], {v: v.owner.inputs[0] for v in masked})[0]

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
            raise RowsLost(axes.why, axes.certain)
        if counted is not None:
            raise RowsLost(f"{label(var)} is computed from the number of rows of a batch")
        if self.counts:
            check_no_length(self.name, [var], self.known)
        return _Part(axes)

    def check_added(self, variables: Sequence[Variable], parts: Sequence[_Part]) -> None:
        """Raise where parts are added that are not sums over the same rows."""
        first = next((part for part in parts if part.rows), _Part(()))
        for var, part in zip(variables, parts, strict=True):
            if part.over == first.over and (part.rows == first.rows or not first.over):
                continue
            if part.rows or not self._is_constant(var):
                raise RowsLost(
                    f"{label(var)} is added to a sum over the rows of a minibatch, and is not one itself: "
                    "put it into a pm.Potential of its own"
                )

    def _is_constant(self, var: Variable) -> bool:
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
    axes = [first.axes, *map(_any_axes, node.inputs[1:])]
    return _combined(node, axes, first.over, first.alike)


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
    over, alike = of_rows[0].over, of_rows[0].alike
    if isinstance(scalar_op, Add | Sub):
        graph.check_added(node.inputs, parts)
        alike = all(part.alike for part in parts)
    elif isinstance(scalar_op, Switch):
        graph.check_added(node.inputs[1:], parts[1:])
        alike = False
    elif isinstance(scalar_op, TrueDiv) and all(part.alike and part.over == over for part in parts):
        over, alike = frozenset(), False  # rows by rows
    elif isinstance(scalar_op, TrueDiv) and parts[0].rows and parts[1].alike:
        raise RowsLost(
            f"{op} divides by the number of rows of a batch: take their sum, not their mean"
        )
    elif len(of_rows) > 1 or (isinstance(scalar_op, TrueDiv) and not parts[0].rows):
        raise RowsLost(f"{op} computes with a sum over the rows of a minibatch")
    return _combined(node, [part.axes for part in parts], over, alike)


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
    if not isinstance(getattr(op, "core_op", op), Dot):
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


def _combined(node: Apply, axes: Sequence[Axes], over: frozenset[Rows], alike: bool) -> _Part:
    [found] = follow(node.op, node, axes)
    return _Part(found, over, alike)


def _mask(var: Variable) -> Variable | None:
    """Return the mask of ``x[mask]``; None for anything else."""
    node = var.owner
    if node is None or not isinstance(node.op, AdvancedSubtensor):
        return None
    entries = indices_from_subtensor(node.inputs[1:], node.op.idx_list)
    if len(entries) == 1 and isinstance(entries[0], Variable) and entries[0].type.dtype == "bool":
        return entries[0]
    return None


def _any_axes(var: Variable) -> Axes:
    return (OWN,) * getattr(var.type, "ndim", 0)
