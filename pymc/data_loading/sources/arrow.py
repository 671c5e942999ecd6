# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Rows from whatever gives Apache Arrow: CSV, IPC files, datasets, duckdb, polars."""

from __future__ import annotations

import itertools

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from pymc.argument_checks import check_int
from pymc.data_loading.sources.arrow_columns import (
    need_pyarrow,
    reading,
    schema_of,
    table_block,
)
from pymc.data_loading.sources.layout import Block, BlockSource, Layout
from pymc.data_loading.sources.passes import Passes
from pymc.data_loading.sources.protocols import (
    ArrowArray,
    ArrowDataset,
    ArrowReader,
    ArrowStream,
    IpcFile,
    is_of,
)
from pymc.data_loading.sources.schema import Columns, DTypes, Selection
from pymc.data_loading.sources.series import is_series

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["ArrowSource", "arrow_source", "check_not_lazy", "is_arrow"]

#: Rows of the batches into which a table in memory is cut, without a copy
TABLE_ROWS = 2**16


def arrow_source(
    batches: Any,
    columns: Columns = None,
    n_rows: int | None = None,
    *,
    dtypes: DTypes = None,
) -> ArrowSource:
    """Read rows from record batches of Apache Arrow, one batch at a time.

    Parameters
    ----------
    batches : object with ``__arrow_c_stream__``, pyarrow.dataset.Dataset, or callable
        What can be read again and again: a table or data frame (pyarrow, polars), a relation of
        duckdb, a dataset of pyarrow. Else a function without arguments, which opens the data anew for
        each pass and returns such an object, a reader, or an iterable of record batches.
    columns : list of str, str or dict, optional
        As for :func:`pymc.parquet_source`; by default all.
    n_rows : int, optional
        How many rows there are, where you know it. Tables know it themselves; for anything else the
        rows are counted once by :class:`pymc.DataLoader`.
    dtypes : dict of str to dtype, optional
        As for :func:`pymc.parquet_source`.

    Returns
    -------
    ArrowSource
        To be given to :class:`pymc.DataLoader`.

    Raises
    ------
    TypeError
        If `batches` is none of these, or can be read only once.
    SchemaError
        A ValueError. A column is not there or not numeric, or a later pass has other columns.
    ValueError
        When rows are read: for a number that does not fit the dtype, such as an integer beyond 2**53 that
        is to be a float, or of a later batch where the first has another dtype.
    OSError
        When rows cannot be read.
    ImportError
        If pyarrow is not installed.

    Examples
    --------
    >>> import pyarrow as pa
    >>> source = pm.arrow_source(pa.table({"x": [1.0, 2.0], "day": [3, 4]}), columns=["x"])
    >>> source.n_rows
    2

    A file of comma-separated values, and one of Arrow's own format, which are opened anew each pass:

    .. code-block:: python

        pm.arrow_source(lambda: pyarrow.csv.open_csv("flights.csv"), columns=["dep_delay"])
        pm.arrow_source(lambda: pyarrow.ipc.open_file("flights.arrow"))
    """
    need_pyarrow("arrow_source")
    if n_rows is not None:
        n_rows = check_int(n_rows, "n_rows", "arrow_source")
    if isinstance(batches, ArrowDataset):
        schema = schema_of(batches.schema)
        names = Selection.of(schema, columns, "the dataset", dtypes).names
        columns = names if columns is None else columns
        return ArrowSource(Passes(partial(_scan, batches, names)), columns, n_rows, dtypes=dtypes)
    if is_arrow(batches):
        _check_readable_again(batches)
        passes = Passes(partial(record_batches, batches))
        return ArrowSource(passes, columns, n_rows, batches, dtypes)
    if callable(batches):
        return ArrowSource(Passes(partial(_opened, batches)), columns, n_rows, dtypes=dtypes)
    check_not_lazy(batches)
    raise TypeError(
        f"batches of arrow_source, a {type(batches).__name__}, does not give Arrow record batches "
        f"(__arrow_c_stream__), and is no function without arguments that opens something which does"
    )


def check_not_lazy(data: Any) -> None:
    """Refuse a query of polars that has no rows before it is run.

    Raises
    ------
    TypeError
        It says how to run it anew for each pass.
    """
    if is_of("polars", data, "LazyFrame"):
        raise TypeError(
            f"a {type(data).__name__} of polars is a query, which has no rows before it is run: write "
            "`lambda: lf.collect()`, which runs it for each pass, or run it once, `lf.collect()`"
        )


def is_arrow(data: Any) -> bool:
    """Return whether data give record batches by themselves; one column gives none."""
    return not is_series(data) and isinstance(data, ArrowStream | ArrowDataset)


def _scan(dataset: pa.dataset.Dataset, columns: tuple[str, ...]) -> Iterator[pa.RecordBatch]:
    """Yield batches of some columns: the others are not even read."""
    yield from dataset.to_batches(columns=list(columns))


def _check_readable_again(batches: Any) -> None:
    if isinstance(batches, ArrowReader | Iterator):
        raise TypeError(
            f"batches of arrow_source, a {type(batches).__name__}, can be read only once, and a fit reads "
            f"its data many times: give a function that opens them, arrow_source(lambda: open(...))"
        )


def record_batches(data: Any) -> Iterator[pa.RecordBatch]:
    """Yield the record batches of anything that has some.

    Raises
    ------
    TypeError
        If it has none.
    """
    pyarrow = need_pyarrow("arrow_source")
    if isinstance(data, ArrowDataset):
        yield from data.to_batches()
    elif isinstance(data, IpcFile):
        yield from map(data.get_batch, range(data.num_record_batches))
    elif isinstance(data, ArrowStream):
        yield from pyarrow.RecordBatchReader.from_stream(data)
    elif isinstance(data, ArrowArray):
        yield pyarrow.record_batch(data)
    elif isinstance(data, Iterable):
        for part in data:
            yield from record_batches(part)
    else:
        check_not_lazy(data)
        raise TypeError(
            f"a {type(data).__name__} does not give Arrow record batches: what arrow_source opens has to "
            f"be a reader, a table, or an iterable of record batches"
        )


def _opened(factory: Callable[[], Any]) -> Iterator[pa.RecordBatch]:
    return record_batches(factory())


@dataclass(frozen=True, eq=False, repr=False)
class ArrowSource(BlockSource):
    """Rows of record batches. :func:`arrow_source` makes one.

    Parameters
    ----------
    passes : Passes
        Of record batches.
    columns : list of str, str or dict, optional
    given_rows : int, optional
    data : object, optional
        What the batches are of, if it is not opened anew: it may know its number of rows.
    dtypes : dict of str to dtype, optional
    """

    passes: Passes[pa.RecordBatch]
    columns: Columns = None
    given_rows: int | None = None
    data: Any = field(default=None, repr=False)
    dtypes: DTypes = None

    @cached_property
    def _slices(self) -> list[pa.RecordBatch] | None:
        """Slices of the data, if they are a table in memory."""
        pyarrow = need_pyarrow("arrow_source")
        tables = pyarrow.Table, pyarrow.RecordBatch
        if not (isinstance(self.data, tables) or is_of("polars", self.data, "DataFrame")):
            return None
        return pyarrow.table(self.data).to_batches(max_chunksize=TABLE_ROWS)

    @property
    def n_rows(self) -> int | None:
        """How many rows there are, if that was given, or the data are in memory."""
        if self.given_rows is not None:
            return self.given_rows
        return None if self.part_lengths is None else sum(self.part_lengths)

    @property
    def part_lengths(self) -> tuple[int, ...] | None:
        """Rows of slices of a table in memory; else batches come in order."""
        return None if self._slices is None else tuple(map(len, self._slices))

    @cached_property
    def selection(self) -> Selection:
        """The columns of fields. To know them, the first batch is read."""
        where = "the record batches"
        with self._reading(where):
            first = self.passes.peek()
        return Selection.of(schema_of(first.schema), self.columns, where, self.dtypes)

    def _reading(self, where: str) -> AbstractContextManager[None]:
        return reading(where, need_pyarrow("arrow_source").ArrowException, OSError)

    @property
    def layout(self) -> Layout:
        """The fields and their columns."""
        return self.selection.layout

    @property
    def identity(self) -> dict[str, Any]:
        """Rows and schema."""
        return {"kind": "arrow", "n_rows": self.n_rows, "schema": self.selection.identity}

    def read(self, part: int) -> Block:
        """Return a slice of a table in memory."""
        if self._slices is None:
            return super().read(part)
        return table_block(self._slices[part], self.selection, f"slice {part} of the table")

    def blocks(self) -> Iterator[Block]:
        """Yield the record batches of a pass that have rows.

        Raises
        ------
        ExhaustedSourceError
            If they can be read only once, and were; or if a later pass is empty.
        OSError
            If they cannot be read.
        SchemaError
            If their columns are others than at the first time.
        """
        if self._slices is not None:
            yield from super().blocks()
            return
        selection = self.selection
        items = self.passes.start()
        for number in itertools.count():
            where = f"record batch {number}"
            with self._reading(where):
                batch = next(items, None)
            if batch is None:
                return
            selection.check(schema_of(batch.schema), where)
            yield table_block(batch, selection, where)
