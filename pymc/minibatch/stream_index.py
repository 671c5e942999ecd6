# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""The index of batches that a loader feeds, and the protocol of a loader.

A stream has no data to take rows from, as `pm.Minibatch` has: a placeholder holds the batch, and a vector
the numbers of its rows. :class:`StreamIndexRV` is the index of that batch, and :class:`StreamedRows` marks a
placeholder whose rows are those of the index. Both return an input unchanged, and rewrites remove them
before a graph is compiled.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import pytensor
import pytensor.tensor as pt

from pytensor.compile import optdb
from pytensor.compile.sharedvalue import SharedVariable
from pytensor.gradient import disconnected_type
from pytensor.graph.basic import Apply, Variable
from pytensor.graph.fg import FunctionGraph
from pytensor.graph.op import Op
from pytensor.graph.rewriting.basic import dfs_rewriter, node_rewriter
from pytensor.graph.traversal import ancestors
from pytensor.tensor.rewriting.basic import register_specialize
from pytensor.tensor.type import lvector
from pytensor.tensor.type_other import NoneConst
from pytensor.tensor.variable import TensorVariable

from pymc.minibatch.axis_tracking import OTHER, Axes, Rows, indexes, output_axes
from pymc.minibatch.index import MinibatchIndexRV

if TYPE_CHECKING:
    from pymc.data_loading.sources.layout import Layout
    from pymc.model.core import Model

#: The number of a row whose place in the data is unknown.
UNKNOWN_ROW = -1

#: The number of rows that no user has set: those of a new placeholder, and those that a fit left in it.
UNSET_ROW = -2


@runtime_checkable
class LoaderLike(Protocol):
    """A loader, such as :class:`pymc.Loader`, as a graph knows it: the layout of its batches."""

    @property
    def layout(self) -> Layout: ...
    @property
    def batch_size(self) -> int: ...
    @property
    def total_size(self) -> int: ...


@runtime_checkable
class ReadableLoader(LoaderLike, Protocol):
    """A loader whose rows can be read apart from its batches."""

    one_shot: bool

    def read_fields(self, names: Sequence[str]) -> Iterator[Mapping[str, np.ndarray]]:
        """Yield some fields of all rows, part by part."""


@runtime_checkable
class _SourceLike(Protocol):
    """A source of rows, which has no batches."""

    layout: Any

    def blocks(self) -> Iterator[Any]: ...


def is_loader(value: object) -> bool:
    """Return whether `value` is a loader, which has batches of a known layout."""
    return isinstance(value, LoaderLike)


def gives_rows(value: object) -> bool:
    """Return whether `value` is a source of rows, or a loader that has no layout of its batches."""
    if is_loader(value) or hasattr(value, "__array__"):  # a frame may have columns of such names
        return False
    batches = hasattr(value, "batch_size")
    return isinstance(value, _SourceLike) or (
        batches and (isinstance(value, Iterable) or hasattr(value, "dataset"))
    )


def refuse_loader(value: object, what: str) -> None:
    """Raise a TypeError if `value`, which is used as data, is a loader."""
    if is_loader(value):
        raise TypeError(
            f"{what} is a loader, and a loader is no data of a model. Write "
            'batch = pm.Data("batch", loader, dims=("obs", "column")) first, and use what it returns, such as '
            "observed=batch[:, 2]"
        )


class StreamIndexRV(MinibatchIndexRV):
    """The numbers of the rows of a batch from a loader, out of as many rows as its input says.

    Nothing is drawn. The row numbers are the state of this index, which clones share, and are set
    together with the batch.

    Notes
    -----
    ``make_node(rows, None, n_rows)`` has the outputs ``(rows, index)``, vectors of int64 of any length:
    a batch from `pm.set_data` may have another size than `batch_size`, which is that of the loader.
    """

    source = "stream"
    view_map = {0: [0], 1: [0]}

    def make_node(  # type: ignore[override]
        self, rng: Variable, size: Variable | None, n_rows: Variable | int
    ) -> Apply:
        rows = pt.as_tensor_variable(rng)
        if not lvector.is_super(rows.type):
            raise TypeError(f"the rows of a stream are a vector of int64, got {rows.type}")
        n_rows = pt.cast(pt.as_tensor_variable(n_rows, ndim=0), "int64")
        return Apply(self, [rows, NoneConst, n_rows], [lvector(), lvector()])

    def perform(self, node: Apply, inputs: Sequence[np.ndarray], outputs: list[list]) -> None:
        outputs[0][0] = outputs[1][0] = inputs[0]

    def infer_shape(self, node: Apply, input_shapes: Sequence[tuple]) -> list[tuple]:
        return [input_shapes[0], input_shapes[0]]

    def update(self, node: Apply) -> dict[Variable, Variable]:
        return {}


class StreamedRows(Op):
    """A placeholder whose leading axis has the rows of a stream: ``(placeholder, index) -> rows``."""

    __props__ = ()
    view_map = {0: [0]}

    def make_node(self, placeholder: Variable, index: Variable) -> Apply:
        return Apply(self, [placeholder, index], [placeholder.type()])

    def perform(self, node: Apply, inputs: Sequence[np.ndarray], outputs: list[list]) -> None:
        outputs[0][0] = inputs[0]

    def infer_shape(self, node: Apply, input_shapes: Sequence[tuple]) -> list[tuple]:
        return [input_shapes[0]]

    def connection_pattern(self, node: Apply) -> list[list[bool]]:
        return [[True], [False]]

    # A Scan takes the gradient of all variables in it
    def pullback(self, inputs: Any, outputs: Any, cotangents: Any) -> list[Variable]:
        return [cotangents[0], disconnected_type()]

    def __str__(self) -> str:
        return "StreamedRows"


_streamed_rows = StreamedRows()


@output_axes.register(StreamIndexRV)
def _(op: StreamIndexRV, node: Apply, inputs: Sequence[Axes]) -> list[Axes]:
    return [(OTHER,), (Rows(node.outputs[1]),)]


@output_axes.register(StreamedRows)
def _(op: StreamedRows, node: Apply, inputs: Sequence[Axes]) -> list[Axes]:
    placeholder, rows = inputs
    return [(*rows, *placeholder[1:])]


@register_specialize
@node_rewriter([StreamedRows, StreamIndexRV])
def local_stream_to_values(fgraph: FunctionGraph, node: Apply) -> list[Variable]:
    """``StreamedRows(placeholder, index)`` -> ``placeholder``; ``StreamIndex(rows, N)`` -> ``rows``."""
    return [node.inputs[0]] * len(node.outputs)


# First of all rewrites, and in every mode of JIT linkers; but not among those that derive a
# log-probability, whose rows are tracked
optdb.register(
    "streams_to_values",
    dfs_rewriter(local_stream_to_values),
    "fast_run",
    "fast_compile",
    "numba",
    "jax",
    position=0.02,
)


def stream_index(
    total: int, batch_size: int, dim: str | None = None, name: str | None = None
) -> TensorVariable:
    """Make the index of a stream of `total` rows, whose row numbers are not set yet.

    ``index.owner.inputs`` are the row numbers, a shared variable of this `name`, None, and `total`.
    """
    rows = pytensor.shared(np.full(batch_size, UNSET_ROW, dtype="int64"), name)
    op = StreamIndexRV(batch_size, dim, sampling="stream")
    index = op.make_node(rows, None, pt.constant(total, dtype="int64")).outputs[1]
    index.name = f"stream_{dim}" if dim else "stream_index"
    return index


def streamed(placeholder: Variable, index: Variable) -> TensorVariable:
    """Mark the leading axis of `placeholder` as the rows of a stream."""
    rows = _streamed_rows(placeholder, index)
    rows.name = f"stream({placeholder.name})"
    return rows


def is_stream(rows: Rows | Variable) -> bool:
    """Return whether rows, or an index, are those of a stream."""
    index = rows.index if isinstance(rows, Rows) else rows
    return index.owner is not None and isinstance(index.owner.op, StreamIndexRV)


def needs_rows(graph: Variable) -> bool:
    """Return whether a graph depends on the rows of a stream, and not on their shape alone."""
    return any(map(is_stream, indexes([graph])))


def streams_in(variables: Iterable[Variable]) -> list[Variable]:
    """Return each output of a `StreamedRows` that `variables` depend on."""
    return [
        var
        for var in ancestors(list(variables))
        if var.owner is not None and isinstance(var.owner.op, StreamedRows)
    ]


def is_placeholder(var: Variable) -> bool:
    """Return whether a variable is for batches, and not data that `pm.do` has put in place of one."""
    return isinstance(var, SharedVariable) and "field" in vars(var.tag)


def loader_placeholders(model: Model) -> tuple[Rows, dict[str, SharedVariable]] | None:
    """Return the rows of a streamed model, and its placeholders by name; None if it is not streamed.

    ``rows.state`` is the shared variable of the row numbers: int64, shape (n_rows,). They are the places of
    rows in the source, :data:`UNKNOWN_ROW` or :data:`UNSET_ROW`. A placeholder has shape (n_rows, ...), and
    its ``tag.field`` is the loader's field for it.
    """
    streams = [var for var in model.root._streams.values() if is_placeholder(var.owner.inputs[0])]
    found = list(dict.fromkeys(Rows(var.owner.inputs[1]) for var in streams))
    if not found:
        return None
    if len(found) > 1:
        raise ValueError(
            f"the model has streams of {len(found)} loaders, {' and '.join(map(str, found))}, but a "
            "fit has one loader. Put the fields of both into the batches of one loader, a dict of arrays"
        )
    return found[0], {var.owner.inputs[0].name: var.owner.inputs[0] for var in streams}
