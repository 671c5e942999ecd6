# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""The number of rows of a batch as a number: B where all rows are meant, which are N.

``w / x.shape[0]`` is another model on a batch than on all rows, and no scale mends it. Where a length
gives something its size, as in ``pt.zeros(x.shape[0])``, it is right to follow the batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import singledispatch
from typing import Any

import numpy as np

from pytensor.compile.builders import OpFromGraph
from pytensor.graph.basic import Apply, Constant, Variable
from pytensor.graph.op import Op
from pytensor.graph.traversal import toposort
from pytensor.raise_op import CheckAndRaise
from pytensor.scalar.basic import Cast, Mul
from pytensor.scan.op import Scan
from pytensor.scan.utils import ScanArgs
from pytensor.tensor.basic import (
    Alloc,
    AllocEmpty,
    MakeVector,
    ScalarFromTensor,
    TensorFromScalar,
    get_scalar_constant_value,
)
from pytensor.tensor.elemwise import CAReduce, DimShuffle, Elemwise
from pytensor.tensor.exceptions import NotScalarConstantError
from pytensor.tensor.extra_ops import Repeat
from pytensor.tensor.random.op import RandomVariable, RNGConsumerOp
from pytensor.tensor.reshape import SplitDims
from pytensor.tensor.shape import Reshape, Shape, Shape_i, SpecifyShape
from pytensor.tensor.subtensor import (
    AdvancedIncSubtensor,
    AdvancedSubtensor,
    IncSubtensor,
    Subtensor,
    indices_from_subtensor,
)
from pytensor.tensor.type import integer_dtypes
from pytensor.xtensor.basic import TensorFromXTensor, XTensorFromTensor
from pytensor.xtensor.shape import ExpandDims
from pytensor.xtensor.vectorization import XRV, XElemwise

from pymc.minibatch.axis_tracking import (
    Axes,
    Rows,
    Untracked,
    axes_so_far,
    extended_signature,
    indexes,
    label,
    ndim_of,
    track_axes,
)


@singledispatch
def size_inputs(op: Op, node: Apply) -> Iterable[int]:
    """Tell which inputs of `node` say how long its outputs are, and nothing else."""
    return ()


@size_inputs.register(AllocEmpty)
def _(op: Op, node: Apply) -> Iterable[int]:
    return range(len(node.inputs))


@size_inputs.register(Repeat)
@size_inputs.register(Alloc)
@size_inputs.register(Reshape)
@size_inputs.register(SplitDims)
@size_inputs.register(SpecifyShape)
@size_inputs.register(ExpandDims)
def _(op: Op, node: Apply) -> Iterable[int]:
    return range(1, len(node.inputs))


@size_inputs.register(Subtensor)
def _(op: Subtensor, node: Apply) -> Iterable[int]:
    """Bounds of slices: what `scan` makes of its sequences goes to their end."""
    slices = [entry for entry in op.idx_list if isinstance(entry, slice)]
    bounds = [bound for entry in slices for bound in (entry.start, entry.stop, entry.step)]
    return [1 + bound for bound in bounds if bound is not None]


@size_inputs.register(Scan)
def _(op: Scan, node: Apply) -> Iterable[int]:
    args = ScanArgs(node.inputs, node.outputs, op.inner_inputs, op.inner_outputs, op.info)
    lengths = {args.n_steps, *args.outer_in_nit_sot}
    return [k for k, var in enumerate(node.inputs) if var in lengths]


@size_inputs.register(OpFromGraph)
def _(op: OpFromGraph, node: Apply) -> Iterable[int]:
    """What is a size, and nothing else, in the inner graph."""
    values = set(op.inner_outputs)
    for inner in reversed(list(toposort(op.inner_outputs))):
        if isinstance(inner.op, MakeVector) and values.isdisjoint(inner.outputs):
            continue
        sizes = set(size_inputs(inner.op, inner))
        values.update(var for k, var in enumerate(inner.inputs) if k not in sizes)
    return [k for k, var in enumerate(op.inner_inputs) if var not in values]


@size_inputs.register(RandomVariable)
def _(op: Op, node: Apply) -> Iterable[int]:
    return (1,)


@size_inputs.register(XRV)
def _(op: XRV, node: Apply) -> Iterable[int]:
    return range(1, 1 + len(op.extra_dims))


@size_inputs.register(RNGConsumerOp)
def _(op: Op, node: Apply) -> Iterable[int]:
    """Of a `SymbolicRandomVariable`: by its signature, or else a vector made of lengths."""
    if (signature := extended_signature(op)) is not None:
        (_, size, _), _ = op.get_input_output_type_idxs(signature)
        return () if size is None else (size,)
    return [k for k, var in enumerate(node.inputs) if _is_size(var)]


def _is_size(var: Variable) -> bool:
    if ndim_of(var) != 1 or var.type.dtype != "int64":
        return False
    return isinstance(var, Constant) or (
        var.owner is not None and isinstance(var.owner.op, MakeVector | Shape)
    )


def check_no_row_count(
    name: str, outputs: Sequence[Variable], known: Mapping[Variable, Axes | Untracked] | None = None
) -> None:
    """Raise where a term computes with the number of rows of its batch.

    Parameters
    ----------
    name : str
        What the term is called, for the message.
    outputs : sequence of Variable
        Graphs of the term.
    known : mapping, optional
        Passed on to :func:`~pymc.minibatch.axis_tracking.track_axes`.

    Raises
    ------
    ValueError
        The message names the variable whose length it is, and what to write.
    """
    for var, count in row_counts(outputs, known).items():
        node = var.owner
        if isinstance(node.op, Elemwise | XElemwise | RandomVariable) and not _is_cast(node):
            if var.type.dtype not in integer_dtypes:
                raise ValueError(_message(name, count.rows, var))


@dataclass(frozen=True)
class RowCount:
    """A number that is computed from the number of rows of a batch.

    Parameters
    ----------
    rows : Rows
        Of which rows.
    is_multiple : bool
        Whether it is the number itself, or a product with other lengths, such as ``x.size``.
    """

    rows: Rows
    is_multiple: bool


def row_counts(
    outputs: Sequence[Variable], known: Mapping[Variable, Axes | Untracked] | None = None
) -> dict[Variable, RowCount]:
    """Find the numbers that are computed from the number of rows of a batch.

    Parameters
    ----------
    outputs : sequence of Variable
    known : mapping, optional
        Passed on to :func:`~pymc.minibatch.axis_tracking.track_axes`.

    Returns
    -------
    dict of Variable to RowCount
        In the order in which they are computed. A length that only gives something its size is none.
    """
    counts: dict[Variable, RowCount] = {}
    if not known and not indexes(outputs, by_shape=True):
        return counts
    shapes: dict[Variable, _Lengths] = {}  # vectors of lengths, one for each axis
    for node in toposort(outputs):
        op, [out, *_] = node.op, node.outputs
        shape = shapes.get(node.inputs[0]) if node.inputs else None
        if isinstance(op, Shape | Shape_i):
            lengths = _lengths_of(node.inputs[0], known, counts)
        if isinstance(op, Shape):
            shapes[out] = lengths
        elif isinstance(op, Shape_i):
            length = lengths[op.i]
            counts |= {} if length is None else {out: length}
        elif shape is not None and (_is_cast(node) or _leaves_rows(node, shape)):
            shapes[out] = shape
        elif shape is not None and isinstance(op, Subtensor):
            picked = _picked(node, shape)
            if isinstance(picked, tuple):
                shapes[out] = picked
            elif picked is not None:
                counts[out] = picked
        else:
            used = _used_as_number(node, counts, shapes, known)
            if used is not None:
                counts |= dict.fromkeys(node.outputs, used)
    return counts


type _Lengths = tuple[RowCount | None, ...]


def _lengths_of(
    var: Variable,
    known: Mapping[Variable, Axes | Untracked] | None,
    counts: Mapping[Variable, RowCount],
) -> _Lengths:
    """Tell which lengths of `var` are numbers of rows, or depend on the rows of a batch."""
    if var in counts:  # such as pt.arange(n)
        return (RowCount(counts[var].rows, False),) * var.type.ndim
    axes = track_axes(var, known)
    if not isinstance(axes, Untracked):
        return tuple(RowCount(axis, True) if isinstance(axis, Rows) else None for axis in axes)
    [index, *_] = indexes([var], by_shape=True, known=known)
    return (RowCount(Rows(index), False),) * var.type.ndim


def _leaves_rows(node: Apply, shape: _Lengths) -> bool:
    """Tell whether lengths are written into a shape, and not to those of rows."""
    if not isinstance(node.op, IncSubtensor):
        return False
    entries = indices_from_subtensor(node.inputs[2:], node.op.idx_list)
    try:
        written = np.arange(len(shape))[tuple(_fixed(entry) for entry in entries)]
    except NotScalarConstantError:
        return False
    return all(shape[k] is None for k in np.atleast_1d(written))


def _fixed(entry: slice | Variable | None) -> Any:
    """Write an entry of an indexing in numbers."""
    if isinstance(entry, slice):
        return slice(*map(_fixed, (entry.start, entry.stop, entry.step)))
    return None if entry is None else int(get_scalar_constant_value(entry))


_SAME_NUMBER = (
    DimShuffle,
    ScalarFromTensor,
    TensorFromScalar,
    CheckAndRaise,
    TensorFromXTensor,
    XTensorFromTensor,
)


def _is_cast(node: Apply) -> bool:
    return isinstance(node.op, Elemwise | XElemwise) and isinstance(node.op.scalar_op, Cast)


def _used_as_number(
    node: Apply,
    counts: Mapping[Variable, RowCount],
    shapes: Mapping[Variable, _Lengths],
    known: Mapping[Variable, Axes | Untracked] | None,
) -> RowCount | None:
    """Tell what number of rows is in the values of the outputs of `node`."""
    values = [var for k, var in enumerate(node.inputs) if k not in _no_values(node)]
    lengths = [c for var in values for c in shapes.get(var, ()) if c is not None]
    used = [counts[var] for var in values if var in counts] + lengths
    if isinstance(node.op, Scan):
        args = ScanArgs(
            node.inputs, node.outputs, node.op.inner_inputs, node.op.inner_outputs, node.op.info
        )
        if args.n_steps in counts and (args.outer_in_sit_sot or args.outer_in_mit_sot):
            used.append(counts[args.n_steps])  # a state that goes on for as many steps
    if isinstance(node.op, OpFromGraph):
        axes = {
            inner: track_axes(var, known) for inner, var in zip(node.op.inner_inputs, node.inputs)
        }
        inside = row_counts(node.op.inner_outputs, axes)
        used += [inside[out] for out in node.op.inner_outputs if out in inside]
    if not used:
        return None
    is_product = isinstance(node.op, CAReduce) and isinstance(node.op.scalar_op, Mul)
    same = _is_cast(node) or isinstance(node.op, _SAME_NUMBER) or (is_product and len(lengths) == 1)
    return RowCount(used[0].rows, used[0].is_multiple and same)


def _no_values(node: Apply) -> set[int]:
    """Tell which inputs of `node` are not in the values that it returns: sizes, places, conditions."""
    if isinstance(node.op, CheckAndRaise):
        return set(range(1, len(node.inputs)))
    if isinstance(node.op, Subtensor | AdvancedSubtensor):
        return set(range(1, len(node.inputs)))
    if isinstance(node.op, IncSubtensor | AdvancedIncSubtensor):
        return set(range(2, len(node.inputs)))
    return set(size_inputs(node.op, node))


def _picked(node: Apply, shape: _Lengths) -> _Lengths | RowCount | None:
    """Tell what an indexing picks of lengths."""
    [entry] = indices_from_subtensor(node.inputs[1:], node.op.idx_list)
    try:
        place = _fixed(entry)
    except NotScalarConstantError:
        return next((length for length in shape if length is not None), None)
    return shape[place]


def _entry(node: Apply) -> int | None:
    """Tell which entry of a vector an indexing takes; None where it is a slice, or not known."""
    [entry] = indices_from_subtensor(node.inputs[1:], node.op.idx_list)
    return int(entry.data) if isinstance(entry, Constant) else None


def axis_of_length(length: Variable) -> tuple[Variable, int] | None:
    """Tell of which variable, along which axis, a number is the length.

    Parameters
    ----------
    length : Variable

    Returns
    -------
    variable, axis
        None for what is not ``variable.shape[axis]``, with a known axis.

    Examples
    --------
    >>> import pytensor.tensor as pt
    >>> from pymc.minibatch.lengths import axis_of_length
    >>> x = pt.matrix("x")
    >>> axis_of_length(x.shape[1])
    (x, 1)
    """
    node = length.owner
    if node is None:
        return None
    if isinstance(node.op, Shape_i):
        return node.inputs[0], node.op.i
    shape = node.inputs[0].owner if isinstance(node.op, Subtensor) else None
    if shape is not None and _is_cast(shape):  # as pt.mean has it
        shape = shape.inputs[0].owner
    if shape is None or not isinstance(shape.op, Shape):
        return None
    entry = _entry(node)
    return None if entry is None else (shape.inputs[0], entry)


def rows_of_length(length: Variable) -> Rows | None:
    """Tell a rule of :func:`~pymc.minibatch.axis_tracking.output_axes` of which rows a number is the length."""
    while length.owner is not None and (
        _is_cast(length.owner) or isinstance(length.owner.op, ScalarFromTensor | TensorFromScalar)
    ):
        [length] = length.owner.inputs
    of = axis_of_length(length)
    axes = None if of is None else axes_so_far(of[0])
    if of is None or axes is None or isinstance(axes, Untracked):
        return None
    axis = axes[of[1]]
    return axis if isinstance(axis, Rows) else None


def _message(name: str, rows: Rows, var: Variable) -> str:
    return (
        f"{name} computes with the number of rows of a batch, {rows.batch_size} ({label(var)}). On "
        "all rows that number is another one, so the model would be another one too. For the number "
        "of all rows, take it from the full data, such as X_data.shape[0], or write it as a number"
    )
