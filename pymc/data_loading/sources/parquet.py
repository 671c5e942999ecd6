# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Rows of Parquet files: a row group at a time, whatever the size of the files."""

from __future__ import annotations

import math

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pymc.argument_checks import check_int
from pymc.data_loading.sources.arrow_columns import (
    need_pyarrow,
    reading,
    schema_of,
    table_block,
)
from pymc.data_loading.sources.filesystems import Path
from pymc.data_loading.sources.layout import Block, BlockSource, Layout, shown
from pymc.data_loading.sources.paths import Files, find_files
from pymc.data_loading.sources.schema import (
    Columns,
    DTypes,
    Schema,
    SchemaError,
    Selection,
)
from pymc.data_loading.sources.shards import (
    OpenFiles,
    Shard,
    open_parquet,
    read_shard,
)

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["ParquetSource", "parquet_source"]

#: What a row group may take in memory unless the user allows more
MAX_ROW_GROUP_BYTES = 2**32


def parquet_source(
    path: Path | Iterable[Path],
    columns: Columns = None,
    *,
    dtypes: DTypes = None,
    filesystem: Any = None,
    storage_options: Mapping[str, Any] | None = None,
    max_row_group_bytes: int = MAX_ROW_GROUP_BYTES,
) -> ParquetSource:
    """Read rows from files of Parquet, one row group at a time.

    Only the footers are read here: they have the number of rows and the schema of each file (a shard).
    Columns are found by name, so that shards may have them in another order, and others beside them.
    Shards without rows are left out.

    Parameters
    ----------
    path : str, Path, or list of them
        A file; a folder, with the folders in it and those linked from it; a pattern such as
        ``"flights/2013-*.parquet"``; or an address that fsspec or pyarrow knows, such as
        ``"s3://bucket/flights/"``. Shards are read in the order of their names, those of a list in its
        order. In a folder, files of Parquet count by any name. There and in patterns, names that begin
        with ``_`` or ``.`` are left out, as writers use them for themselves (``_SUCCESS``,
        ``_temporary``), unless a pattern asks for them, or they are of a partition (``_year=2013``). Of
        a table of Delta Lake, the files count that its log names, which deltalake reads.
    columns : list of str, str or dict, optional
        A list of names gives batches of shape (batch_size, n_columns), of the dtype that NumPy gives to
        these columns together: float32 columns stay float32, and a bool counts as 0 or 1. One name
        gives batches of shape (batch_size,). A dict, ``{"X": ["distance", "dep_delay"], "y":
        "arr_delay"}``, gives dicts of both kinds. A column of lists of a fixed size k is k columns, one
        of tensors a field of their shape. Folders such as ``year=2013/`` are columns too, where they are
        named: integers, or by `dtypes` others, such as those of ``dose=1.5/``. By default all columns of
        the files, in the order of the first shard, without an index of pandas that has no name.
    dtypes : dict of str to dtype, optional
        Columns that are converted, by name: dates to days since 1970, times to their unit, decimals and
        text to numbers, such as ``{"day": "int32", "price": "float64"}``. By default a column has the
        dtype that holds its numbers in all shards.
    filesystem : pyarrow.fs.FileSystem or fsspec.AbstractFileSystem, optional
        Where `path` is, if it is not on this machine and no address says it.
    storage_options : dict, optional
        What fsspec needs to open an address, such as ``{"anon": True}``.
    max_row_group_bytes : int
        A row group that would take more memory than this is refused before it is read: a small file may
        hold a very large one.

    Returns
    -------
    ParquetSource
        To be given to :class:`pymc.DataLoader`.

    Raises
    ------
    FileNotFoundError
        If no file is there.
    OSError
        If a shard cannot be read: cut short, damaged, or no Parquet. Names the shard and row group.
        If a folder cannot be listed.
    SchemaError
        A ValueError. A column is not there in a shard, not numeric, or of values of another shape than in
        the first; or all columns are read, and a shard has others. Names the shard and the column.
    ValueError
        If all shards are empty, a file is there twice, a row group is too large, or a folder is of a
        table whose files of earlier versions would count (Iceberg, Hudi, Spark's file sink); when rows
        are read, for a number that the dtype does not hold, such as an integer beyond 2**53 that is to
        be a float. Names shard, row group, column, row and value.
    ImportError
        If pyarrow, fsspec for an address, or deltalake for its tables, is not installed.

    Notes
    -----
    A null is a missing value, as NaN is: an error when it is read, or a row that
    ``DataLoader(..., on_nan="skip")`` leaves out.

    A shard with checksums of its pages (``pyarrow.parquet.write_table(..., write_page_checksum=True)``)
    is checked by them. Without, no reader can tell a changed number from the right one.

    Examples
    --------
    >>> import tempfile
    >>> import pyarrow as pa
    >>> import pyarrow.parquet as pq
    >>> folder = tempfile.TemporaryDirectory()
    >>> for i in range(3):
    ...     shard = pa.table({"x": np.arange(4.0), "y": np.arange(4)})
    ...     pq.write_table(shard, f"{folder.name}/part-{i}.parquet")
    >>> source = pm.parquet_source(folder.name, columns={"X": ["x"], "y": "y"})
    >>> source.n_rows
    12
    >>> source.part_lengths
    (4, 4, 4)
    >>> source.layout.batch(source.layout.empty(2))["y"].dtype
    dtype('int64')
    >>> folder.cleanup()
    """
    need_pyarrow("parquet_source")
    limit = check_int(max_row_group_bytes, "max_row_group_bytes", "parquet_source")
    files = find_files(path, filesystem, storage_options)
    first, shards = None, []
    for i, name in enumerate(files.names):
        file = open_parquet(files, i)
        shard = read_shard(files, i, file)
        shards.append(shard)
        if shard.n_rows == 0:
            continue
        with reading(name):
            schema = _schema(file.schema_arrow, files.partitions[i])
        if first is None:
            first, joined = Selection.of(schema, columns, name, dtypes), schema
        else:
            first.check(schema, name)
            joined = joined.joined(schema)
        _check_size(shard, first, limit)
    if first is None:
        raise ValueError(
            f"path={path!r} of parquet_source: all files ({len(files.names)}) are empty, so there are no "
            f"rows to fit a model to"
        )
    # Of dtypes that hold the numbers of all shards, whichever comes first
    selection = Selection.of(joined, columns, first.where, dtypes)
    return ParquetSource(files, tuple(shards), selection, limit)


def _schema(schema: pa.Schema, partition: Mapping[str, pa.Scalar]) -> Schema:
    """Return the columns of a file, and those that its path says beside them."""
    beside = [name for name in partition if name not in schema.names]
    for name in beside:
        schema = schema.append(need_pyarrow("parquet_source").field(name, partition[name].type))
    return schema_of(schema, beside)


def _check_size(shard: Shard, selection: Selection, limit: int) -> None:
    """Refuse a row group whose numbers alone take too much memory."""
    schema = selection.schema
    width = sum(
        schema.dtype(n, shard.name).itemsize * math.prod(schema.shape(n, shard.name))
        for n in selection.names
    )
    largest = max(range(len(shard.group_lengths)), key=shard.group_lengths.__getitem__)
    n_bytes = shard.group_lengths[largest] * width
    _check_bytes(f"{shard.name}, row group {largest}: the columns to read", n_bytes, limit)


def _check_bytes(what: str, n_bytes: int, limit: int) -> None:
    if n_bytes > limit:
        raise ValueError(
            f"{what} take {n_bytes:,} bytes in memory, more than max_row_group_bytes={limit:,} of "
            f"parquet_source. Write the file with smaller row groups (row_group_size=100_000), or raise "
            f"the limit"
        )


@dataclass(frozen=True, eq=False, repr=False)
class ParquetSource(BlockSource):
    """Rows of Parquet files. :func:`parquet_source` makes one.

    Parameters
    ----------
    files : Files
    shards : tuple of Shard
        One a file.
    selection : Selection
    max_row_group_bytes : int
    """

    files: Files
    shards: tuple[Shard, ...]
    selection: Selection
    max_row_group_bytes: int = MAX_ROW_GROUP_BYTES
    _open: OpenFiles = field(default_factory=OpenFiles, repr=False)

    @property
    def layout(self) -> Layout:
        """The fields and their columns."""
        return self.selection.layout

    @cached_property
    def n_rows(self) -> int:
        """How many rows all shards have, from their footers."""
        return sum(shard.n_rows for shard in self.shards)

    def _told(self) -> list[str]:
        names = [shard.name for shard in self.shards]
        files = f"{names[0]!r}" if len(names) == 1 else f"{len(names)} files"
        return [files, *super()._told(), f"columns {shown(self.selection.names)}"]

    @cached_property
    def part_lengths(self) -> tuple[int, ...]:
        """Rows of each row group that has some, shard by shard."""
        return tuple(self.shards[i].group_lengths[group] for i, group in self._parts)

    @cached_property
    def _parts(self) -> tuple[tuple[int, int], ...]:
        """The shard, and the row group in it, of each part."""
        return tuple(
            (i, group)
            for i, shard in enumerate(self.shards)
            for group, n_rows in enumerate(shard.group_lengths)
            if n_rows > 0
        )

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Schema and shards, each with its size and a digest of its footer."""
        return {
            "kind": "parquet",
            "n_rows": self.n_rows,
            "schema": self.selection.identity,
            "shards": [
                {
                    "name": shard.name,
                    "bytes": shard.n_bytes,
                    "rows": shard.n_rows,
                    "row_groups": len(shard.group_lengths),
                    "footer": shard.footer,
                }
                for shard in self.shards
            ],
        }

    def read(self, part: int) -> Block:
        """Return the rows of a row group.

        Raises
        ------
        OSError
            If it cannot be read, or the shard is another one than when the source was made.
        ValueError
            If a value cannot be converted to the dtype that was asked for.
        """
        i, group = self._parts[part]
        shard = self.shards[i]
        where = f"{shard.name}, row group {group}"
        with self._open.borrow(self.files, i, shard) as file:
            with reading(where):
                n_bytes = file.metadata.row_group(group).total_byte_size
            _check_bytes(f"{where}: its pages, decompressed,", n_bytes, self.max_row_group_bytes)
            with reading(where):
                # Of names that the file does not have, those of its path, it reads nothing
                table = file.read_row_group(group, columns=list(self.selection.names))
                if table.num_rows != shard.group_lengths[group]:
                    raise ValueError(
                        f"it has {table.num_rows} rows, and its footer says "
                        f"{shard.group_lengths[group]}"
                    )
                _check_types(table, file.schema_arrow)
        return table_block(_with_partition(table, self.files.partitions[i]), self.selection, where)


def _check_types(table: pa.Table, schema: pa.Schema) -> None:
    for column in table.schema:
        expected = schema.field(column.name).type
        if column.type != expected:
            raise SchemaError(f"column {column.name!r} is {column.type}, not {expected}")


def _with_partition(table: pa.Table, partition: Mapping[str, pa.Scalar]) -> pa.Table:
    """Add the columns that the path of a file says, as far as the file has none of their names."""
    for name, value in partition.items():
        if name not in table.column_names:
            repeated = need_pyarrow("parquet_source").repeat(value, table.num_rows)
            table = table.append_column(name, repeated)
    return table
