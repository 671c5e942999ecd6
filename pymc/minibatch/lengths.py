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
"""The number of rows of a batch as a number: B where all rows are meant, which are N.

``w / x.shape[0]`` is another model on a batch than on all rows, and no scale mends it. Where a length
gives something its size, as in ``pt.zeros(x.shape[0])``, it is right to follow the batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import singledispatch

from pytensor.compile.builders import OpFromGraph
from pytensor.graph.basic import Apply, Constant, Variable
from pytensor.graph.op import Op
from pytensor.graph.traversal import toposort
from pytensor.raise_op import CheckAndRaise
from pytensor.scalar.basic import Cast
from pytensor.scan.op import Scan
from pytensor.scan.utils import ScanArgs
from pytensor.tensor.basic import (
    Alloc,
    AllocEmpty,
    Join,
    MakeVector,
    ScalarFromTensor,
    TensorFromScalar,
)
from pytensor.tensor.elemwise import CAReduce, DimShuffle, Elemwise
from pytensor.tensor.random.op import RandomVariable, RNGConsumerOp
from pytensor.tensor.reshape import SplitDims
from pytensor.tensor.shape import Reshape, Shape, Shape_i, SpecifyShape
from pytensor.tensor.subtensor import Subtensor, indices_from_subtensor
from pytensor.tensor.type import integer_dtypes
from pytensor.xtensor.shape import ExpandDims
from pytensor.xtensor.vectorization import XRV

from pymc.minibatch.provenance import Axes, Lost, Rows, indexes, label, trace

__all__ = ["axis_of_length", "check_no_length", "size_inputs"]


@singledispatch
def size_inputs(op: Op, node: Apply) -> Iterable[int]:
    """Tell which inputs of `node` say how long its outputs are, and nothing else."""
    return ()


@size_inputs.register(AllocEmpty)
def _(op: Op, node: Apply) -> Iterable[int]:
    return range(len(node.inputs))


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
    if getattr(op, "extended_signature", None) is not None:
        (_, size, _), _ = op.get_input_output_type_idxs(op.extended_signature)
        return () if size is None else (size,)
    return [k for k, var in enumerate(node.inputs) if _is_size(var)]


def _is_size(var: Variable) -> bool:
    if getattr(var.type, "ndim", None) != 1 or var.type.dtype != "int64":
        return False
    return isinstance(var, Constant) or (
        var.owner is not None and isinstance(var.owner.op, MakeVector | Shape)
    )


def check_no_length(
    name: str, outputs: Sequence[Variable], known: Mapping[Variable, Axes | Lost] | None = None
) -> None:
    """Raise where a term computes with the number of rows of its batch.

    Parameters
    ----------
    name : str
        What the term is called, for the message.
    outputs : sequence of Variable
        Graphs of the term.
    known : mapping, optional
        Passed on to :func:`~pymc.minibatch.provenance.trace`.

    Raises
    ------
    ValueError
        The message names the variable whose length it is, and what to write.
    """
    if not known and not indexes(outputs, by_shape=True):
        return
    lengths: dict[Variable, Rows] = {}
    shapes: dict[Variable, Axes] = {}  # vectors of lengths, one for each axis
    for node in toposort(outputs):
        if isinstance(node.op, Shape | Shape_i):
            axes = trace(node.inputs[0], known)
            if isinstance(axes, Lost):
                continue
            if isinstance(node.op, Shape):
                shapes[node.outputs[0]] = axes
            elif isinstance(axes[node.op.i], Rows):
                lengths[node.outputs[0]] = axes[node.op.i]
        elif node.inputs and node.inputs[0] in shapes and _is_cast(node):
            shapes[node.outputs[0]] = shapes[node.inputs[0]]
        elif node.inputs and node.inputs[0] in shapes and isinstance(node.op, Subtensor):
            rows = _picked(node, shapes[node.inputs[0]])
            if rows is not None:
                lengths[node.outputs[0]] = rows
        else:
            used = _used_as_number(node, lengths)
            if used is not None and isinstance(node.op, Elemwise | RandomVariable):
                if not _is_cast(node) and node.outputs[-1].type.dtype not in integer_dtypes:
                    raise ValueError(_message(name, used, node.outputs[-1]))
            if used is not None and isinstance(node.op, _HAND_ON):
                lengths[node.outputs[0]] = used


_HAND_ON = (
    Elemwise,
    DimShuffle,
    CAReduce,
    MakeVector,
    Join,
    ScalarFromTensor,
    TensorFromScalar,
    CheckAndRaise,
)


def _is_cast(node: Apply) -> bool:
    return isinstance(node.op, Elemwise) and isinstance(node.op.scalar_op, Cast)


def _used_as_number(node: Apply, lengths: Mapping[Variable, Rows]) -> Rows | None:
    sizes = set(size_inputs(node.op, node))
    used = [lengths[v] for k, v in enumerate(node.inputs) if v in lengths and k not in sizes]
    return used[0] if used else None


def _picked(node: Apply, axes: Axes) -> Rows | None:
    """Tell of which rows an entry of a shape is the number."""
    entry = _entry(node)
    axis = None if entry is None else axes[entry]
    return axis if isinstance(axis, Rows) else None


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
    if shape is None or not isinstance(shape.op, Shape):
        return None
    entry = _entry(node)
    return None if entry is None else (shape.inputs[0], entry)


def _message(name: str, rows: Rows, var: Variable) -> str:
    return (
        f"{name} computes with the number of rows of a batch, {rows.batch_size} ({label(var)}). On "
        "all rows that number is another one, so the model would be another one too. For the number "
        "of all rows, take it from the full data, such as X_data.shape[0], or write it as a number"
    )
