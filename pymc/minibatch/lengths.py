# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Lengths in a graph, and the row count of a batch used as a number.

``w / x.shape[0]`` is another model on a batch, where it is B, than on all N rows: no scale mends it. A length
that gives something its size, as in ``pt.zeros(x.shape[0])``, may follow the batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from pytensor.compile.builders import OpFromGraph
from pytensor.graph.basic import Apply, Constant, Variable
from pytensor.graph.traversal import toposort
from pytensor.raise_op import CheckAndRaise
from pytensor.scalar.basic import Cast, Mul
from pytensor.scan.op import Scan
from pytensor.scan.utils import ScanArgs
from pytensor.tensor.basic import (
    Alloc,
    AllocEmpty,
    ARange,
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
    KnownAxes,
    Rows,
    Untracked,
    axes_so_far,
    extended_signature,
    indexes,
    label,
    ndim_of,
    track_axes,
)
from pymc.minibatch.scaling import RowRatio


def size_inputs(node: Apply) -> Sequence[int]:
    """Return which inputs of `node` are lengths of its outputs and are not in their values."""
    op, positions = node.op, range(len(node.inputs))
    match op:
        case AllocEmpty() | RowRatio():  # the scale of a term is no number of the model
            return positions
        case Repeat() | Alloc() | Reshape() | SplitDims() | SpecifyShape() | ExpandDims():
            return positions[1:]
        case Subtensor():  # slices, such as those that scan takes of its sequences
            slices = [entry for entry in op.idx_list if isinstance(entry, slice)]
            bounds = [bound for entry in slices for bound in (entry.start, entry.stop, entry.step)]
            return [1 + bound for bound in bounds if bound is not None]
        case Scan():
            args = scan_args(node)
            lengths = {args.n_steps, *args.outer_in_nit_sot}
            return [k for k in positions if node.inputs[k] in lengths]
        case RandomVariable():
            return (1,)
        case XRV():
            return positions[1 : 1 + len(op.extra_dims)]
        case RNGConsumerOp():  # a SymbolicRandomVariable
            signature = extended_signature(op)
            if signature is None:
                return [k for k in positions if _is_size(node.inputs[k])]
            (_, size, _), _ = op.get_input_output_type_idxs(signature)
            return () if size is None else (size,)
        case OpFromGraph():
            return _inner_size_inputs(op)
    return ()


def scan_args(node: Apply) -> ScanArgs:
    """Return the inputs and outputs of a Scan, inner and outer, by kind."""
    op = node.op
    return ScanArgs(node.inputs, node.outputs, op.inner_inputs, op.inner_outputs, op.info)


def _is_size(var: Variable) -> bool:
    """Return True if a variable is a vector made of lengths."""
    if ndim_of(var) != 1 or var.type.dtype != "int64":
        return False
    return isinstance(var, Constant) or (
        var.owner is not None and isinstance(var.owner.op, MakeVector | Shape)
    )


def _inner_size_inputs(op: OpFromGraph) -> Sequence[int]:
    """Return which inner inputs are sizes and nothing else."""
    values = set(op.inner_outputs)
    for inner in reversed(list(toposort(op.inner_outputs))):
        if isinstance(inner.op, MakeVector) and values.isdisjoint(inner.outputs):
            continue
        sizes = set(size_inputs(inner))
        values.update(var for k, var in enumerate(inner.inputs) if k not in sizes)
    return [k for k, var in enumerate(op.inner_inputs) if var not in values]


# --- row counts used as numbers ---
@dataclass(frozen=True)
class RowCount:
    """A number that is computed from the row count of a batch.

    `is_multiple` says that it is the count itself, or its product with other lengths (``x.size``).
    """

    rows: Rows
    is_multiple: bool


# For a vector of lengths, an entry for each axis
_Lengths: TypeAlias = tuple[RowCount | None, ...]


def check_no_row_count(
    name: str,
    outputs: Sequence[Variable],
    known: KnownAxes | None = None,
) -> None:
    """Raise ValueError where a term computes with the row count of its batch.

    `name` is that of the term; `known` is passed on to :func:`.track_axes`.
    """
    for var, count in row_counts(outputs, known).items():
        node = var.owner
        is_computed = isinstance(node.op, Elemwise | XElemwise | RandomVariable)
        if is_computed and not _is_cast(node) and var.type.dtype not in integer_dtypes:
            raise ValueError(
                f"{name} computes with the number of rows of a batch, {count.rows.batch_size} "
                f"({label(var)}). On all rows that number is another one, so the model would be another "
                "one too. For the number of all rows, take it from the full data, such as "
                "X_data.shape[0], or write it as a number"
            )


def row_counts(
    outputs: Sequence[Variable], known: KnownAxes | None = None
) -> dict[Variable, RowCount]:
    """Return the numbers that are computed from the row count of a batch, in graph order.

    A length that only gives something its size is none. `known` is passed on to :func:`.track_axes`.
    """
    counts: dict[Variable, RowCount] = {}
    if not known and not indexes(outputs, by_shape=True):
        return counts
    shapes: dict[Variable, _Lengths] = {}
    for node in toposort(outputs):
        op, [out, *_] = node.op, node.outputs
        shape = shapes.get(node.inputs[0]) if node.inputs else None
        found: _Lengths | RowCount | None
        if isinstance(op, Shape | Shape_i):
            lengths = _row_lengths(node.inputs[0], known, counts)
            found = lengths if isinstance(op, Shape) else lengths[op.i]
        elif shape is not None and (_is_cast(node) or _writes_other_lengths(node, shape)):
            found = shape
        elif shape is not None and isinstance(op, Subtensor):
            found = _picked_lengths(node, shape)
        else:
            found = _count_in_values(node, counts, shapes, known)
        if isinstance(found, tuple):
            shapes[out] = found
        elif found is not None:
            counts |= dict.fromkeys(node.outputs, found)
    return counts


def _row_lengths(
    var: Variable,
    known: KnownAxes | None,
    counts: Mapping[Variable, RowCount],
) -> _Lengths:
    """Return which lengths of `var` are row counts, or depend on the rows of a batch."""
    if var in counts:  # such as pt.arange(n)
        return (RowCount(counts[var].rows, False),) * var.type.ndim
    axes = track_axes(var, known)
    if not isinstance(axes, Untracked):
        return tuple(RowCount(axis, True) if isinstance(axis, Rows) else None for axis in axes)
    [index, *_] = indexes([var], by_shape=True, known=known)
    return (RowCount(Rows(index), False),) * var.type.ndim


def _writes_other_lengths(node: Apply, shape: _Lengths) -> bool:
    """Return True if lengths are written into a shape, and not to those of rows."""
    if not isinstance(node.op, IncSubtensor):
        return False
    entries = indices_from_subtensor(node.inputs[2:], node.op.idx_list)
    try:
        written = np.arange(len(shape))[tuple(_constant_entry(entry) for entry in entries)]
    except NotScalarConstantError:
        return False
    return all(shape[k] is None for k in np.atleast_1d(written))


def _picked_lengths(node: Apply, shape: _Lengths) -> _Lengths | RowCount | None:
    [entry] = indices_from_subtensor(node.inputs[1:], node.op.idx_list)
    try:
        return shape[_constant_entry(entry)]
    except NotScalarConstantError:
        return next((length for length in shape if length is not None), None)


def _constant_entry(entry: slice | Variable | None) -> Any:
    """Return an entry of an indexing in numbers; NotScalarConstantError if it is symbolic."""
    if isinstance(entry, slice):
        return slice(*map(_constant_entry, (entry.start, entry.stop, entry.step)))
    return None if entry is None else int(get_scalar_constant_value(entry))


#: Ops whose output has the numbers of the first input; a reshape may mix axes, and is not among them
SAME_NUMBERS = (
    DimShuffle
    | ScalarFromTensor
    | TensorFromScalar
    | CheckAndRaise
    | TensorFromXTensor
    | XTensorFromTensor
)


def _count_in_values(
    node: Apply,
    counts: Mapping[Variable, RowCount],
    shapes: Mapping[Variable, _Lengths],
    known: KnownAxes | None,
) -> RowCount | None:
    """Return the row count that the values of the outputs of `node` are computed from."""
    not_values = _inputs_without_values(node)
    values = [var for k, var in enumerate(node.inputs) if k not in not_values]
    lengths = [count for var in values for count in shapes.get(var, ()) if count is not None]
    used = [counts[var] for var in values if var in counts] + lengths
    if isinstance(node.op, Scan):
        args = scan_args(node)
        if args.n_steps in counts and (args.outer_in_sit_sot or args.outer_in_mit_sot):
            used.append(counts[args.n_steps])  # a state is carried for as many steps
    if isinstance(node.op, OpFromGraph):
        axes = {
            inner: track_axes(var, known) for inner, var in zip(node.op.inner_inputs, node.inputs)
        }
        inside = row_counts(node.op.inner_outputs, axes)
        used += [inside[out] for out in node.op.inner_outputs if out in inside]
    if not used:
        return None
    is_product = isinstance(node.op, CAReduce) and isinstance(node.op.scalar_op, Mul)
    is_same = (
        _is_cast(node)
        or isinstance(node.op, SAME_NUMBERS)
        or (is_product and len(lengths) == 1)  # x.size
    )
    return RowCount(used[0].rows, used[0].is_multiple and is_same)


def _inputs_without_values(node: Apply) -> set[int]:
    """Return which inputs are not in the values of the outputs: sizes, places, conditions."""
    if isinstance(node.op, CheckAndRaise | Subtensor | AdvancedSubtensor):
        return set(range(1, len(node.inputs)))
    if isinstance(node.op, IncSubtensor | AdvancedIncSubtensor):
        return set(range(2, len(node.inputs)))
    return set(size_inputs(node))


def _is_cast(node: Apply) -> bool:
    return isinstance(node.op, Elemwise | XElemwise) and isinstance(node.op.scalar_op, Cast)


# --- reading lengths ---
def constant_int(number: Variable | int) -> int | None:
    """Return a whole number that a graph fixes, None for any other."""
    try:
        value = get_scalar_constant_value(number)
    except NotScalarConstantError:
        return None
    return int(value) if float(value).is_integer() else None


def counts_up(var: Variable) -> bool:
    """Return True for ``arange(n)``, as a constant or not."""
    if isinstance(var, Constant):
        data = np.asarray(var.data)
        return data.ndim == 1 and data.dtype.kind in "iu" and np.array_equal(data, range(len(data)))
    if var.owner is None or not isinstance(var.owner.op, ARange):
        return False
    start, _, step = var.owner.inputs
    return (constant_int(start), constant_int(step)) == (0, 1)


def axis_of_length(length: Variable) -> tuple[Variable, int] | None:
    """Return ``(x, k)`` for ``x.shape[k]``, None for anything else.

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
    if shape is not None and _is_cast(shape):  # pt.mean has one
        shape = shape.inputs[0].owner
    if shape is None or not isinstance(shape.op, Shape):
        return None
    [entry] = indices_from_subtensor(node.inputs[1:], node.op.idx_list)
    axis = None if isinstance(entry, slice) else constant_int(entry)
    return None if axis is None else (shape.inputs[0], axis)


def rows_of_length(length: Variable) -> Rows | None:
    """Return the rows whose number `length` is, to a rule of :func:`.output_axes`."""
    while length.owner is not None and (
        _is_cast(length.owner) or isinstance(length.owner.op, ScalarFromTensor | TensorFromScalar)
    ):
        [length] = length.owner.inputs
    found = axis_of_length(length)
    axes = None if found is None else axes_so_far(found[0])
    if found is None or axes is None or isinstance(axes, Untracked):
        return None
    axis = axes[found[1]]
    return axis if isinstance(axis, Rows) else None
