# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Rows of tables: whatever has the C stream of Arrow, such as polars and duckdb, and pandas."""

from __future__ import annotations

import itertools
import math

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
import pandas as pd

from pymc.argument_checks import check_int
from pymc.data_loading.sources.arrays import (
    digest,
    evenly_spaced,
    is_of,
    is_series,
    series_numbers,
)
from pymc.data_loading.sources.copying import ColumnBlock
from pymc.data_loading.sources.iterables import IterableSource
from pymc.data_loading.sources.layout import (
    JSON,
    Block,
    BlockSource,
    Column,
    Columns,
    DTypes,
    Layout,
    Schema,
    SchemaError,
    Selection,
    equal_parts,
    listed,
)
from pymc.minibatch.array_data import numpy_dtype

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["arrow_source"]

#: Rows of the parts of an Arrow table in memory
TABLE_ROWS = 2**16
#: Bytes of the parts of a data frame of pandas: slices have their price for each column
FRAME_BYTES = 2**22

Numbers: TypeAlias = tuple[np.ndarray, np.ndarray | None]
"""The values of a column, and which of them are missing, if any."""


@runtime_checkable
class ArrowStream(Protocol):
    def __arrow_c_stream__(self, requested_schema: Any = None) -> object: ...


@runtime_checkable
class ArrowArray(Protocol):
    def __arrow_c_array__(self, requested_schema: Any = None) -> object: ...


@runtime_checkable
class RecordBatch(ArrowArray, Protocol):
    schema: Any


@runtime_checkable
class ArrowReader(Protocol):
    """Reads record batches once."""

    def read_next_batch(self) -> object: ...


def arrow_source(
    batches: Any,
    columns: Columns = None,
    n_rows: int | None = None,
    *,
    dtypes: DTypes = None,
) -> TableSource | IterableSource:
    """Read rows from tables and record batches of Apache Arrow, one batch at a time.

    Parameters
    ----------
    batches : object with ``__arrow_c_stream__``, pyarrow.dataset.Dataset, or callable
        Data that can be read again and again: a table or data frame (pyarrow, polars), a relation of
        duckdb, a dataset of pyarrow. Or a function without arguments, which opens the data anew for each
        pass and returns such an object, a reader, or an iterable of record batches.
    columns : list of str, str or dict, optional
        As for :func:`pymc.parquet_source`; by default all.
    n_rows : int, optional
        The number of rows, if you know it. Tables know it themselves; other rows are counted once by
        :class:`pymc.DataLoader`.
    dtypes : dict of str to dtype, optional
        As for :func:`pymc.parquet_source`.

    Returns
    -------
    TableSource or IterableSource
        To be given to :class:`pymc.DataLoader`.

    Raises
    ------
    TypeError
        If `batches` is none of these, or can be read only once.
    SchemaError
        A ValueError. A column is missing or not numeric, or a later pass has other columns.
    ValueError
        When rows are read: for a number that does not fit the dtype, such as an integer beyond 2**53 in a
        float, or in a later batch where the first has another dtype.
    OSError
        If rows cannot be read.
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
    import pyarrow as pa

    if n_rows is not None:
        n_rows = check_int(n_rows, "n_rows", "arrow_source")
    if isinstance(batches, pa.Table | pa.RecordBatch) or is_of("polars", batches, "DataFrame"):
        return TableSource.of(pa.table(batches), columns, dtypes)
    if is_of("pyarrow", batches, "Dataset"):
        names = Selection.of(schema_of(batches), columns, "the dataset", dtypes).names
        columns = names if columns is None else columns
        batches = partial(_scan, batches, names)  # the other columns are not even read
    elif is_arrow(batches) and isinstance(batches, ArrowReader | Iterator):
        raise TypeError(
            f"batches of arrow_source, a {type(batches).__name__}, can be read only once, and a fit reads "
            f"its data many times: give a function that opens them, arrow_source(lambda: open(...))"
        )
    elif not (is_arrow(batches) or callable(batches)):
        check_not_lazy(batches)
        raise TypeError(
            f"batches of arrow_source, a {type(batches).__name__}, gives no Arrow record batches "
            f"(__arrow_c_stream__), and is not a function without arguments that opens something which does"
        )
    read_first = partial(TableReader.of, columns=columns, dtypes=dtypes)
    opened = partial(_read_batches, batches)
    return IterableSource(opened, read_first, n_rows, item="record batch", kind="arrow")


def check_not_lazy(data: object) -> None:
    """Raise TypeError for a query of polars, which has no rows before it is run."""
    if is_of("polars", data, "LazyFrame"):
        raise TypeError(
            f"a {type(data).__name__} of polars is a query, which has no rows before it is run: write "
            "`lambda: lf.collect()`, which runs it for each pass, or run it once, `lf.collect()`"
        )


def is_arrow(data: object) -> bool:
    """Return whether data give record batches. A single column gives none."""
    return not is_series(data) and (
        isinstance(data, ArrowStream) or is_of("pyarrow", data, "Dataset")
    )


def is_table(item: object) -> bool:
    """Return whether an item is a data frame of pandas, or a table or record batch of Arrow."""
    return isinstance(item, pd.DataFrame | RecordBatch) or is_arrow(item)


def _scan(dataset: pa.dataset.Dataset, names: tuple[str, ...]) -> Iterator[pa.RecordBatch]:
    return dataset.to_batches(columns=list(names))


def _read_batches(data: object) -> Iterator[pa.RecordBatch]:
    """Yield the record batches of data, or of what a function opens. Errors of reading name the batch."""
    import pyarrow as pa

    batches = _record_batches(data)
    for number in itertools.count():
        with reading(f"record batch {number}", pa.ArrowException, OSError):
            batch = next(batches, None)
        if batch is None:
            return
        yield batch
        del batch  # before the next one is read


def _record_batches(data: Any) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa

    if isinstance(data, pa.RecordBatch):
        yield data
    elif is_of("pyarrow", data, "Dataset"):
        yield from data.to_batches()
    elif is_of("pyarrow", data, "RecordBatchFileReader"):
        yield from map(data.get_batch, range(data.num_record_batches))
    elif isinstance(data, ArrowStream):
        yield from pa.RecordBatchReader.from_stream(data)
    elif isinstance(data, ArrowArray):
        yield pa.record_batch(data)
    elif callable(data):
        yield from _record_batches(data())
    elif isinstance(data, Iterable):
        for part in data:
            yield from _record_batches(part)
    else:
        check_not_lazy(data)
        raise TypeError(
            f"a {type(data).__name__} gives no Arrow record batches: what arrow_source opens has to be a "
            f"reader, a table, or an iterable of record batches"
        )


@dataclass(frozen=True)
class TableReader:
    """Turns tables into blocks: data frames of pandas, or tables of Arrow, like the first one."""

    selection: Selection
    frames: bool

    @classmethod
    def of(
        cls, item: Any, where: str, columns: Columns = None, dtypes: DTypes = None
    ) -> TableReader:
        """Return the reader of tables like this one."""
        table = _as_table(item)
        selection = Selection.of(_first_schema(table), columns, where, dtypes)
        return cls(selection, isinstance(table, pd.DataFrame))

    @property
    def layout(self) -> Layout:
        return self.selection.layout

    @property
    def identity(self) -> list[JSON]:
        return self.selection.identity

    def block(self, item: Any, where: str) -> Block:
        if not is_table(item) or isinstance(item, pd.DataFrame) != self.frames:
            kind = "data frames" if self.frames else "Arrow tables"
            raise TypeError(f"{where} is a {type(item).__name__}, and those before were {kind}")
        table = _as_table(item)
        self.selection.check(schema_of(table), where)
        return read_table(table, self.selection, where)


def _as_table(item: Any) -> pd.DataFrame | pa.Table | pa.RecordBatch:
    if isinstance(item, pd.DataFrame):
        return item
    need_pyarrow("a block of Arrow's")
    import pyarrow as pa

    return item if isinstance(item, pa.RecordBatch) else pa.table(item)


def schema_of(table: pd.DataFrame | pa.Table | pa.RecordBatch | pa.dataset.Dataset) -> Schema:
    """Return the columns of a table."""
    if not isinstance(table, pd.DataFrame):
        return arrow_schema(table.schema)
    columns = []
    for name, type_ in table.dtypes.items():
        dtype = numpy_dtype(type_)
        known = dtype is not None and dtype.kind in "biuf"
        columns.append((str(name), Column(str(type_), dtype if known else None)))
    return Schema.of(columns)


def _first_schema(table: pd.DataFrame | pa.Table | pa.RecordBatch) -> Schema:
    """Return the columns as they are read: integers of pandas with missing values become floats."""
    schema = schema_of(table)
    floats = {}
    if isinstance(table, pd.DataFrame):
        for name, column in table.items():
            dtype = schema.columns[str(name)].dtype
            if dtype is not None and dtype.kind in "biu" and column.hasnans:
                floats[str(name)] = np.dtype("float64")
    return schema.cast(floats)


def arrow_schema(schema: pa.Schema, of_path: Iterable[pa.Field] = ()) -> Schema:
    """Return the columns of a schema of Arrow, and those that the path of a file adds."""
    fields = [(field, False) for field in schema] + [(field, True) for field in of_path]
    columns = [(f.name, Column(str(f.type), *_arrow_dtype(f.type), added)) for f, added in fields]
    return Schema.of(columns, nullable=True)


def read_table(
    table: pd.DataFrame | pa.Table | pa.RecordBatch,
    selection: Selection,
    where: str,
    first_row: int = 0,
) -> ColumnBlock:
    """Return the rows of a table as a block, whose columns are not copied if possible."""
    if isinstance(table, pd.DataFrame):
        numbers = _frame_numbers(table, selection, where, first_row)
    else:
        numbers = _arrow_numbers(table, selection, where)
    fields = list(zip(selection.layout.fields, selection.sources, strict=True))
    return ColumnBlock(
        selection.layout,
        columns=tuple(tuple(numbers[name][0] for name in names) for _, names in fields),
        where=where,
        first_row=first_row,
        missing=tuple(
            (field.name, name, mask)
            for field, names in fields
            for name in names
            if (mask := numbers[name][1]) is not None
        ),
    )


def _frame_numbers(
    frame: pd.DataFrame, selection: Selection, where: str, first_row: int
) -> dict[str, Numbers]:
    position = {str(name): j for j, name in enumerate(frame.columns)}
    fields = zip(selection.layout.fields, selection.sources, strict=True)
    integers = {name for field, names in fields if field.dtype.kind != "f" for name in names}
    return {
        name: (
            series_numbers(
                frame.iloc[:, position[name]],
                f"{where}, column {name!r}",
                first_row,
                nan=name not in integers,
            ),
            None,
        )
        for name in selection.names
    }


def _arrow_numbers(
    table: pa.Table | pa.RecordBatch, selection: Selection, where: str
) -> dict[str, Numbers]:
    return {
        name: _column_numbers(
            table.column(name), selection.casts.get(name), f"{where}, column {name!r}"
        )
        for name in selection.names
    }


def _column_numbers(
    column: pa.Array | pa.ChunkedArray, cast: np.dtype | None, where: str
) -> Numbers:
    """Return the values of a column. Those of several chunks, which few tables have, are copied."""
    import pyarrow as pa

    if isinstance(column, pa.Array):
        return _numbers(column, cast, where)
    chunks = column.chunks or [pa.array([], column.type)]
    values, masks = zip(*(_numbers(chunk, cast, where) for chunk in chunks))
    if len(chunks) == 1:
        return values[0], masks[0]
    nulls = [np.zeros(len(v), bool) if m is None else m for v, m in zip(values, masks)]
    return np.concatenate(values), np.concatenate(nulls)


def _arrow_dtype(type_: pa.DataType) -> tuple[np.dtype | None, tuple[int, ...]]:
    """Return the dtype and shape of a value. The dtype is None for text, lists of any length and so on."""
    import pyarrow as pa

    types = pa.types
    if types.is_integer(type_) or types.is_floating(type_) or types.is_boolean(type_):
        return np.dtype(type_.to_pandas_dtype()), ()
    if types.is_null(type_):  # all values are missing; bools become any other dtype
        return np.dtype(bool), ()
    if isinstance(type_, pa.FixedShapeTensorType):
        dtype, _ = _arrow_dtype(type_.value_type)
        in_order = type_.permutation in (None, sorted(type_.permutation or ()))
        return (dtype if in_order else None), tuple(type_.shape)
    if types.is_fixed_size_list(type_):
        dtype, shape = _arrow_dtype(type_.value_type)
        return dtype, (type_.list_size, *shape)
    return None, ()


def _numbers(array: pa.Array, cast: np.dtype | None, where: str) -> Numbers:
    """Return the values of a column, of shape ``(n_rows, ...)``. Missing floats are NaN."""
    import pyarrow as pa

    dtype, shape = _arrow_dtype(array.type)
    nulls = array.is_null().to_numpy(zero_copy_only=False) if array.null_count else None
    if shape:
        while isinstance(array, pa.FixedSizeListArray | pa.ExtensionArray):
            if isinstance(array, pa.ExtensionArray):
                array = array.storage
            else:  # flatten() would leave out lists that are null
                size = array.type.list_size
                array = array.values.slice(array.offset * size, len(array) * size)
        values, mask = _numbers(array, cast, where)
        n_rows = len(values) // math.prod(shape)
        if mask is not None:
            mask = mask.reshape(n_rows, -1).any(axis=1)
            nulls = mask if nulls is None else mask | nulls
        return values.reshape(n_rows, *shape), nulls
    if pa.types.is_null(array.type):
        return np.zeros(len(array), bool), np.ones(len(array), bool)
    if cast is not None and (dtype is None or (dtype.kind == "f" and cast.kind == "f")):
        array, dtype = _cast(array, cast, where), cast
    if dtype is None or dtype.kind == "f":
        nulls = None
    elif nulls is not None:
        array = array.fill_null(dtype.type(0).item())
    return array.to_numpy(zero_copy_only=False), nulls  # bools are bits, which have to be copied


def _cast(array: pa.Array, dtype: np.dtype, where: str) -> pa.Array:
    """Convert a column: dates to days, times to their units, decimals and text to numbers."""
    import pyarrow as pa

    type_ = array.type
    try:
        if pa.types.is_temporal(type_):
            array = array.cast(pa.int32() if type_.bit_width == 32 else pa.int64())
        return array.cast(pa.from_numpy_dtype(dtype))
    except pa.ArrowException as error:
        raise ValueError(
            f"{where}: values of type {type_} cannot be converted to {dtype}, as dtypes= asks: {error}"
        ) from error


def need_pyarrow(function: str) -> None:
    """Raise ImportError, with what to install, if pyarrow is missing. It is optional."""
    try:
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise ImportError(f"{function} needs pyarrow: pip install pyarrow") from error


@contextmanager
def reading(where: str, *errors: type[Exception]) -> Iterator[None]:
    """Turn errors of reading into an OSError that names what was read.

    By default all errors count, as damaged files show in many ways. A value of a CSV file that is not of
    the type inferred from its first rows is a SchemaError.
    """
    try:
        yield
    except FileNotFoundError:
        raise
    except errors or Exception as error:
        if "CSV conversion error" in str(error):
            raise SchemaError(
                f"{where}: {error}. The types of a CSV file are inferred from its first rows. Set them, and "
                f"null_values=[...] for missing values: pyarrow.csv.open_csv(path, convert_options="
                f'pyarrow.csv.ConvertOptions(column_types={{"x": pyarrow.float64()}}))'
            ) from error
        raise OSError(
            f"{where} cannot be read; it may be damaged, cut short or not be of this format: "
            f"{type(error).__name__}: {error}"
        ) from error


@dataclass(frozen=True, eq=False, repr=False)
class TableSource(BlockSource):
    """Rows of a table in memory: a data frame of pandas, or a table of Arrow."""

    table: pd.DataFrame | pa.Table
    selection: Selection

    @classmethod
    def of(
        cls, table: pd.DataFrame | pa.Table, columns: Columns = None, dtypes: DTypes = None
    ) -> TableSource:
        """Select columns of a table, by default all."""
        where = "the DataFrame" if isinstance(table, pd.DataFrame) else "the table"
        selection = Selection.of(_first_schema(table), columns, where, dtypes)
        if len(table) == 0:
            raise ValueError(f"{where} has no rows")
        return cls(table, selection)

    def _repr_parts(self) -> list[str]:
        return [*super()._repr_parts(), f"columns {listed(self.selection.names, 4)}"]

    @property
    def layout(self) -> Layout:
        return self.selection.layout

    @property
    def n_rows(self) -> int:
        return len(self.table)

    @cached_property
    def part_lengths(self) -> tuple[int, ...]:
        """Rows of slices of a frame, each of some megabytes; of an Arrow table within its chunks."""
        if isinstance(self.table, pd.DataFrame):
            return equal_parts(self.n_rows, max(FRAME_BYTES // self.layout.row_bytes, 1))
        return tuple(map(len, self.table.to_batches(max_chunksize=TABLE_ROWS)))

    @cached_property
    def _starts(self) -> list[int]:
        return [0, *itertools.accumulate(self.part_lengths)]

    @property
    def identity(self) -> dict[str, Any]:
        kind = "frame" if isinstance(self.table, pd.DataFrame) else "arrow"
        known = {"kind": kind, "n_rows": self.n_rows, "schema": self.selection.identity}
        if isinstance(self.table, pd.DataFrame):
            some = self.table.iloc[evenly_spaced(self.n_rows)]
            numbers = _frame_numbers(some, self.selection, self.selection.where, 0)
            known["digests"] = [digest(numbers[name][0]) for name in self.selection.sources[0]]
        return known

    def read(self, part: int) -> Block:
        start, length = self._starts[part], self.part_lengths[part]
        is_frame = isinstance(self.table, pd.DataFrame)
        rows = (
            self.table.iloc[start : start + length] if is_frame else self.table.slice(start, length)
        )
        return read_table(rows, self.selection, self.selection.where, start)
