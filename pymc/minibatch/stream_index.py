# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""The index of batches that a loader feeds, and what a graph knows of the loader."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import pytensor
import pytensor.tensor as pt

from pytensor.compile import optdb
from pytensor.compile.sharedvalue import SharedVariable
from pytensor.gradient import disconnected_type
from pytensor.graph.basic import Apply, Variable
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
    from pymc.model.core import Model

__all__ = [
    "NO_ROW",
    "UNKNOWN_ROW",
    "BatchField",
    "BatchLayout",
    "BatchStream",
    "Feeds",
    "LoaderRef",
    "StreamIndexRV",
    "StreamedRows",
    "columns_of",
    "feeds",
    "field_of",
    "gives_rows",
    "is_fed",
    "is_loader",
    "is_stream",
    "loader_of",
    "needs_rows",
    "refuse_loader",
    "stream_index",
    "streamed",
    "streams_in",
]


class BatchField(Protocol):
    """One array of a batch: name, shape and dtype of a row, and the names of its columns."""

    @property
    def name(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> np.dtype: ...
    @property
    def columns(self) -> tuple[str, ...] | None: ...


class BatchLayout(Protocol):
    """The fields of a batch, and whether it is a dict of them."""

    @property
    def fields(self) -> Sequence[BatchField]: ...
    @property
    def named(self) -> bool: ...


@runtime_checkable
class BatchStream(Protocol):
    """What a graph knows of a loader, such as :class:`pymc.Loader`: what its batches are like."""

    @property
    def layout(self) -> BatchLayout: ...
    @property
    def batch_size(self) -> int: ...
    @property
    def total_size(self) -> int: ...


@runtime_checkable
class _Rows(Protocol):
    """A source of rows, which has no batches."""

    layout: Any

    def blocks(self) -> Iterator[Any]: ...


def is_loader(value: Any) -> bool:
    """Return whether `value` is a loader: it gives batches, and says what they are like."""
    return isinstance(value, BatchStream)


def gives_rows(value: Any) -> bool:
    """Return whether `value` gives rows, or batches of them, and does not say what batches are like."""
    if is_loader(value) or hasattr(
        value, "__array__"
    ):  # a frame, whose columns may have such names
        return False
    batches = hasattr(value, "batch_size")
    return isinstance(value, _Rows) or (
        batches and (isinstance(value, Iterable) or hasattr(value, "dataset"))
    )


def refuse_loader(value: Any, what: str) -> None:
    """Raise where a loader stands in the place of data.

    Raises
    ------
    TypeError
        The message says what to write.
    """
    if is_loader(value):
        raise TypeError(
            f"{what} is a loader, which gives batches, and no data of the model. Write "
            'batch = pm.Data("batch", loader, dims=("obs", "column")) first, and use what it returns, such as '
            "observed=batch[:, 2]"
        )


class LoaderRef:
    """Reference to the loader of a stream: it stays with the graph, and not with copies in other processes."""

    def __init__(self, loader: BatchStream | None) -> None:
        self.loader = loader

    def __deepcopy__(self, memo: dict[int, Any]) -> LoaderRef:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return LoaderRef, (None,)


#: The number of a row that came without one.
UNKNOWN_ROW = -1

#: The number of rows that no user put there: of a placeholder at its start, and of what a fit left in it.
NO_ROW = -2


class StreamIndexRV(MinibatchIndexRV):
    """The numbers of the rows of a batch that is fed, out of as many rows as its input says.

    Nothing is drawn: whoever feeds a batch sets its row numbers with it. They are the state of this
    index, which clones share.

    Notes
    -----
    ``make_node(rows, None, n_rows)`` has the outputs ``(rows, index)``, vectors of int64 of any length:
    a batch that is fed by hand may be of another size than `batch_size`, that of the loader.
    """

    source = "stream"
    view_map = {0: [0], 1: [0]}

    def make_node(  # type: ignore[override]
        self, rng: Variable, size: Any, n_rows: Any
    ) -> Apply:
        rows = pt.as_tensor_variable(rng)
        if not lvector.is_super(rows.type):
            raise TypeError(f"the rows of a stream are a vector of int64, got {rows.type}")
        n_rows = pt.cast(pt.as_tensor_variable(n_rows, ndim=0), "int64")
        return Apply(self, [rows, NoneConst, n_rows], [lvector(), lvector()])

    def perform(self, node: Apply, inputs: Any, outputs: Any) -> None:
        outputs[0][0] = outputs[1][0] = inputs[0]

    def infer_shape(self, node: Apply, input_shapes: Any) -> list[Any]:
        return [input_shapes[0], input_shapes[0]]

    def update(self, node: Apply) -> dict[Variable, Variable]:
        return {}


class StreamedRows(Op):
    """A placeholder whose leading axis has the rows of a stream: ``(placeholder, index) -> rows``."""

    __props__ = ()
    view_map = {0: [0]}

    def make_node(self, placeholder: Any, index: Any) -> Apply:
        return Apply(self, [placeholder, index], [placeholder.type()])

    def perform(self, node: Apply, inputs: Any, outputs: Any) -> None:
        outputs[0][0] = inputs[0]

    def infer_shape(self, node: Apply, input_shapes: Any) -> list[Any]:
        return [input_shapes[0]]

    def connection_pattern(self, node: Apply) -> list[list[bool]]:
        return [[True], [False]]

    def pullback(self, inputs: Any, outputs: Any, cotangents: Any) -> list[Variable]:
        """Pass the gradient on to the placeholder: a Scan asks for that of all that is in it."""
        return [cotangents[0], disconnected_type()]

    def __str__(self) -> str:
        return "StreamedRows"


streamed_rows = StreamedRows()


@output_axes.register(StreamIndexRV)
def _(op: StreamIndexRV, node: Apply, inputs: Sequence[Axes]) -> list[Axes]:
    return [(OTHER,), (Rows(node.outputs[1]),)]


@output_axes.register(StreamedRows)
def _(op: StreamedRows, node: Apply, inputs: Sequence[Axes]) -> list[Axes]:
    placeholder, rows = inputs
    return [(*rows, *placeholder[1:])]


@register_specialize
@node_rewriter([StreamedRows, StreamIndexRV])
def local_stream_to_values(fgraph: Any, node: Apply) -> list[Variable]:
    """``StreamedRows(placeholder, index)`` -> ``placeholder``; ``StreamIndex(rows, N)`` -> ``rows``."""
    return [node.inputs[0]] * len(node.outputs)


# Before all else that rewrites, and for JIT linkers in every mode; but not among what derives a
# log-probability, whose rows are traced
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
    """Make the index of a stream, whose rows are not known yet.

    Parameters
    ----------
    total : int
        How many rows there are in all.
    batch_size : int
        Rows of a batch of the loader.
    dim : str, optional
        Name of the dim of the rows.
    name : str, optional
        Of the shared variable of the row numbers.

    Returns
    -------
    TensorVariable of int64, shape (n_rows,)
        ``index.owner.inputs`` are the row numbers, None, and `total`.

    Examples
    --------
    >>> from pymc.minibatch.stream_index import stream_index
    >>> index = stream_index(total=1000, batch_size=3, dim="obs")
    >>> index.eval()
    array([-2, -2, -2])
    """
    rows = pytensor.shared(np.full(batch_size, NO_ROW, dtype="int64"), name)
    op = StreamIndexRV(batch_size, dim, sampling="stream")
    index = op.make_node(rows, None, pt.constant(total, dtype="int64")).outputs[1]
    index.name = f"stream_{dim}" if dim else "stream_index"
    return index


def streamed(placeholder: Variable, index: Variable) -> TensorVariable:
    """Say that the leading axis of `placeholder` has the rows of a stream."""
    rows = streamed_rows(placeholder, index)
    rows.name = f"stream({placeholder.name})"
    return rows


def is_stream(rows: Rows | Variable) -> bool:
    """Tell whether rows, or an index, are those of a stream."""
    index = rows.index if isinstance(rows, Rows) else rows
    return index.owner is not None and isinstance(index.owner.op, StreamIndexRV)


def needs_rows(graph: Variable) -> bool:
    """Tell whether a graph depends on the rows of a stream, and not on their shape alone."""
    return any(map(is_stream, indexes([graph])))


def streams_in(variables: Iterable[Variable]) -> list[Variable]:
    """List what `variables` have of streams: each output of a `StreamedRows`."""
    return [
        var
        for var in ancestors(list(variables))
        if var.owner is not None and isinstance(var.owner.op, StreamedRows)
    ]


@dataclass(frozen=True, eq=False)
class Feeds:
    """What is fed to a streamed model at each step.

    Parameters
    ----------
    rows : SharedVariable
        The numbers of the rows of the batch: int64, shape (n_rows,). They are a row's place in the
        source's own order, and -1 for a row without one.
    placeholders : dict of str to SharedVariable
        By their names in the model: shape (n_rows, ...). :func:`field_of` tells whose values a
        placeholder holds; two may hold the same.
    dim : str or None
        Of the rows.
    total : int
        How many rows there are in all.
    batch_size : int
        Rows of a batch of the loader.
    """

    rows: SharedVariable
    placeholders: dict[str, SharedVariable]
    dim: str | None
    total: int
    batch_size: int


def feeds(model: Model) -> Feeds | None:
    """Tell what is fed to a model, or a clone of it.

    Parameters
    ----------
    model : Model

    Returns
    -------
    Feeds or None
        None where the model is not streamed.

    Raises
    ------
    ValueError
        If the model has streams of two loaders.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> from pymc.minibatch.stream_index import feeds
    >>> from pymc.data_loading.sources.layout import Field, Layout
    >>> layout = Layout((Field("", (3,), np.dtype("float64"), ("a", "b", "c")),))
    >>> loader = SimpleNamespace(layout=layout, batch_size=2, total_size=1000)
    >>> with pm.Model() as model:
    ...     batch = pm.Data("batch", loader, dims=("obs", "column"))
    ...     mu = pm.Normal("mu")
    ...     y = pm.Normal("y", mu, 1, observed=batch[:, 2], dims="obs")
    >>> fed = feeds(model)
    >>> fed.placeholders["batch"] is model["batch"], fed.dim, fed.total, fed.batch_size
    (True, 'obs', 1000, 2)
    """
    noted = [var for var in model.root._streams.values() if is_fed(var.owner.inputs[0])]
    found = list(dict.fromkeys(Rows(var.owner.inputs[1]) for var in noted))
    if not found:
        return None
    if len(found) > 1:
        raise ValueError(
            f"the model has streams of {len(found)} loaders, {' and '.join(map(str, found))}, but a "
            "fit is fed by one. Put the fields of both into the batches of one loader, a dict of arrays"
        )
    [rows] = found
    placeholders = {var.owner.inputs[0].name: var.owner.inputs[0] for var in noted}
    total = int(rows.total.data)  # type: ignore[attr-defined]
    return Feeds(rows.state, placeholders, rows.dim, total, rows.batch_size)


def is_fed(placeholder: Variable) -> bool:
    """Tell whether a placeholder is for batches, and not what `pm.do` has put in the place of one."""
    return isinstance(placeholder, SharedVariable) and "field" in vars(placeholder.tag)


def field_of(placeholder: Variable) -> str:
    """Return the name of the loader's field that a placeholder is for: ``""`` is the only one.

    It is noted on the placeholder, as ``tag.field``, when :func:`pymc.Data` makes it.
    """
    return vars(placeholder.tag).get("field", "")


def columns_of(placeholder: Variable) -> tuple[str, ...] | None:
    """Return the names of the columns of a placeholder's rows, noted as ``tag.columns``."""
    return vars(placeholder.tag).get("columns")


def loader_of(index: Variable) -> Any:
    """Return the loader of a stream's index, noted on its row numbers as ``tag.loader``; None of a copy."""
    held = vars(Rows(index).state.tag).get("loader")
    return None if held is None else held.loader
