# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Rows of Parquet files: a row group at a time, whatever the size of the files."""

from __future__ import annotations

import hashlib
import itertools
import math
import os

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pymc.argument_checks import check_int
from pymc.data_loading.sources.arrow import arrow_schema, need_pyarrow, read_table, reading
from pymc.data_loading.sources.files import File, Path, find_files, is_local
from pymc.data_loading.sources.layout import (
    Block,
    BlockSource,
    Columns,
    DTypes,
    Layout,
    SchemaError,
    Selection,
    listed,
)

if TYPE_CHECKING:
    import pyarrow.parquet as pq

    from fsspec import AbstractFileSystem
    from pyarrow.fs import FileSystem

__all__ = ["parquet_source"]

#: Memory that a row group may take unless users allow more
MAX_ROW_GROUP_BYTES = 2**32
#: The last bytes of a Parquet file: the footer's length, and b"PAR1"
TAIL = 8
#: Files that stay open, each with its footer, while row groups are read in a random order
N_OPEN = 4
#: Bytes of a column that are read at a time from a local file
READ_BYTES = 2**16


def parquet_source(
    path: Path | Iterable[Path],
    columns: Columns = None,
    *,
    dtypes: DTypes = None,
    filesystem: FileSystem | AbstractFileSystem | None = None,
    storage_options: Mapping[str, Any] | None = None,
    max_row_group_bytes: int = MAX_ROW_GROUP_BYTES,
) -> ParquetSource:
    """Read rows from Parquet files, one row group at a time.

    This reads only the footers, which have the number of rows and the schema of each file (a shard). Columns
    are found by name, so that shards may have them in another order. Shards without rows are left out.

    Parameters
    ----------
    path : str, Path, or list of them
        A file; a folder, with the folders in it and those linked from it; a pattern such as
        ``"flights/2013-*.parquet"``; or an address that fsspec or pyarrow knows, such as
        ``"s3://bucket/flights/"``. Shards are read in the order of their names, those of a list in its
        order. In a folder, Parquet files count by any name. Names that begin with ``_`` or ``.`` are left
        out, as writers use them for themselves (``_SUCCESS``, ``_temporary``), unless a pattern asks for
        them, or they are partitions (``_year=2013``). Of a Delta table, the files that its log names are
        read; this needs deltalake.
    columns : list of str, str or dict, optional
        A list of names gives batches of shape (batch_size, n_columns), of the dtype that NumPy gives to
        these columns together: float32 columns stay float32, and a bool counts as 0 or 1. One name
        gives batches of shape (batch_size,). A dict, ``{"X": ["distance", "dep_delay"], "y":
        "arr_delay"}``, gives dicts of both kinds. A column of lists of a fixed size k is k columns, one
        of tensors a field of their shape. Folders such as ``year=2013/`` are columns too if they are named:
        integers, or others by `dtypes`, such as those of ``dose=1.5/``. By default all columns of the files,
        in the order of the first shard, without a nameless index of pandas.
    dtypes : dict of str to dtype, optional
        Dtypes to convert columns to: dates to days since 1970, times to their unit, decimals and text to
        numbers, such as ``{"day": "int32", "price": "float64"}``. By default a column has the dtype that
        holds its numbers in all shards.
    filesystem : pyarrow.fs.FileSystem or fsspec.AbstractFileSystem, optional
        The file system of `path`, if it is not this machine's or that of an address.
    storage_options : dict, optional
        Options of fsspec for an address, such as ``{"anon": True}``.
    max_row_group_bytes : int
        The most memory that a row group may take. A larger one is refused before it is read: a small file
        may hold a very large one.

    Returns
    -------
    ParquetSource
        To be given to :class:`pymc.DataLoader`.

    Raises
    ------
    FileNotFoundError
        If there is no file.
    OSError
        If a shard is cut short, damaged or not Parquet, or if a folder cannot be listed.
    SchemaError
        A ValueError. A column is missing in a shard, is not numeric or has values of another shape than in
        the first; or all columns are read, and a shard has others.
    ValueError
        If all shards are empty, a file is there twice, a row group is too large, or a folder is a table
        with files of earlier versions (Iceberg, Hudi, Spark's file sink). When rows are read: for a number
        that does not fit the dtype, such as an integer beyond 2**53 in a float.
    ImportError
        If pyarrow, fsspec for an address, or deltalake for a Delta table is not installed.

    Notes
    -----
    A null is a missing value, as NaN is: an error when it is read, or a row that
    ``DataLoader(..., on_nan="skip")`` leaves out.

    Shards are checked by the checksums of their pages, if they have them
    (``pyarrow.parquet.write_table(..., write_page_checksum=True)``).

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
    import pyarrow as pa

    limit = check_int(max_row_group_bytes, "max_row_group_bytes", "parquet_source")
    first, shards = None, []
    for file in find_files(path, filesystem, storage_options):
        opened = _open(file)
        shard = _read_footer(file, opened)
        shards.append(shard)
        if shard.n_rows == 0:
            continue
        with reading(file.name):
            in_file = opened.schema_arrow
            of_path = [pa.field(n, value.type) for n, value in file.partition.items()]
            schema = arrow_schema(in_file, [f for f in of_path if f.name not in in_file.names])
        if first is None:
            first, joined = Selection.of(schema, columns, file.name, dtypes), schema
        else:
            first.check(schema, file.name)
            joined = joined.joined(schema)
        _check_size(shard, first, limit)
    if first is None:
        raise ValueError(
            f"path={path!r} of parquet_source has no rows: all files ({len(shards)}) are empty"
        )
    # With dtypes that hold the numbers of all shards, whichever comes first
    selection = Selection.of(joined, columns, first.where, dtypes)
    return ParquetSource(tuple(shards), selection, limit)


def _check_size(shard: Shard, selection: Selection, limit: int) -> None:
    """Raise if the numbers of a row group alone take too much memory."""
    columns = [selection.schema.find(name, shard.name) for name in selection.names]
    width = sum(c.dtype.itemsize * math.prod(c.shape) for c in columns if c.dtype is not None)
    largest = max(shard.group_lengths)
    where = f"{shard.name}, row group {shard.group_lengths.index(largest)}"
    _check_bytes(f"{where}: the columns to read", largest * width, limit)


def _check_bytes(what: str, n_bytes: int, limit: int) -> None:
    if n_bytes > limit:
        raise ValueError(
            f"{what} take {n_bytes:,} bytes in memory, more than max_row_group_bytes={limit:,} of "
            f"parquet_source. Write the file with smaller row groups (row_group_size=100_000), or raise "
            f"the limit"
        )


@dataclass(frozen=True)
class Shard:
    """A file of Parquet, and what its footer says."""

    file: File = field(compare=False)
    n_bytes: int
    group_lengths: tuple[int, ...]  #: rows of each row group
    footer: str  #: SHA-256 of the footer, which says where all columns are

    @property
    def name(self) -> str:
        return self.file.name

    @property
    def n_rows(self) -> int:
        return sum(self.group_lengths)


def _open(file: File) -> pq.ParquetFile:
    """Return an open file, which checks pages that have checksums."""
    import pyarrow.parquet as pq

    local = is_local(file.fragment.filesystem)
    with reading(file.name):
        # A remote file fetches the columns of a row group together; a local one reads piece by piece
        return pq.ParquetFile(
            file.fragment.open(),
            pre_buffer=not local,
            buffer_size=READ_BYTES if local else 0,
            page_checksum_verification=True,
        )


def _read_footer(file: File, opened: pq.ParquetFile) -> Shard:
    """Return what the footer of a file says; raise OSError if it contradicts itself."""
    with reading(file.name):
        metadata = opened.metadata
        groups = [metadata.row_group(g) for g in range(metadata.num_row_groups)]
        lengths = tuple(group.num_rows for group in groups)
        if min(lengths, default=0) < 0 or sum(lengths) != metadata.num_rows:
            raise ValueError(
                f"its row groups have {lengths} rows, and all have {metadata.num_rows}"
            )
        with file.fragment.open() as raw:
            n_bytes = raw.size()
            length = int.from_bytes(raw.read_at(TAIL, n_bytes - TAIL)[:4], "little")
            footer = hashlib.sha256(raw.read_at(length, n_bytes - TAIL - length)).hexdigest()
    return Shard(file, n_bytes, lengths, footer)


class OpenFiles:
    """The files that were read last, which stay open.

    A file is lent to one reader, so that another thread opens its own. So does another process, forked or
    with the source in a pickle.
    """

    def __init__(self) -> None:
        self._files: dict[tuple[int, int], pq.ParquetFile] = {}

    def __reduce__(self) -> tuple[type[OpenFiles], tuple[()]]:
        return OpenFiles, ()

    @contextmanager
    def borrow(self, i: int, shard: Shard) -> Iterator[pq.ParquetFile]:
        """Lend an open file. It is closed if reading it fails."""
        key = os.getpid(), i
        file = self._files.pop(key, None)  # in one step, so that no two threads have it
        if file is None:
            file = _open(shard.file)
            now = _read_footer(shard.file, file)
            if now != shard:
                raise OSError(
                    f"{shard.name} changed since the source was made: it had {shard.n_rows} rows in "
                    f"{shard.n_bytes} bytes, and has {now.n_rows} in {now.n_bytes}, and another footer"
                )
        yield file
        self._files[key] = file
        for old in list(itertools.islice(self._files, max(len(self._files) - N_OPEN, 0))):
            self._files.pop(old, None)


@dataclass(frozen=True, eq=False, repr=False)
class ParquetSource(BlockSource):
    """Rows of Parquet files. :func:`parquet_source` makes one."""

    shards: tuple[Shard, ...]
    selection: Selection
    max_row_group_bytes: int = MAX_ROW_GROUP_BYTES
    _files: OpenFiles = field(default_factory=OpenFiles, repr=False)

    @property
    def layout(self) -> Layout:
        return self.selection.layout

    @cached_property
    def n_rows(self) -> int:
        return sum(shard.n_rows for shard in self.shards)

    def _repr_parts(self) -> list[str]:
        names = [shard.name for shard in self.shards]
        files = f"{names[0]!r}" if len(names) == 1 else f"{len(names)} files"
        return [files, *super()._repr_parts(), f"columns {listed(self.selection.names, 4)}"]

    @cached_property
    def part_lengths(self) -> tuple[int, ...]:
        return tuple(self.shards[i].group_lengths[group] for i, group in self._parts)

    @cached_property
    def _parts(self) -> tuple[tuple[int, int], ...]:
        """The shard of each part, and the row group in it, if it has rows."""
        return tuple(
            (i, group)
            for i, shard in enumerate(self.shards)
            for group, n_rows in enumerate(shard.group_lengths)
            if n_rows > 0
        )

    @cached_property
    def identity(self) -> dict[str, Any]:
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

    def of_fields(self, names: Collection[str]) -> ParquetSource:
        return replace(self, selection=self.selection.of_fields(names))

    def read(self, part: int) -> Block:
        import pyarrow as pa

        i, group = self._parts[part]
        shard = self.shards[i]
        where = f"{shard.name}, row group {group}"
        with self._files.borrow(i, shard) as file:
            with reading(where):
                n_bytes = file.metadata.row_group(group).total_byte_size
            _check_bytes(f"{where}: its pages, decompressed,", n_bytes, self.max_row_group_bytes)
            with reading(where):
                # It skips names that the file does not have, those of its path
                table = file.read_row_group(group, columns=list(self.selection.names))
                if table.num_rows != shard.group_lengths[group]:
                    raise ValueError(
                        f"it has {table.num_rows} rows, and its footer says "
                        f"{shard.group_lengths[group]}"
                    )
                for column in table.schema:
                    expected = file.schema_arrow.field(column.name).type
                    if column.type != expected:
                        raise SchemaError(
                            f"column {column.name!r} is {column.type}, not {expected}"
                        )
        for name, value in shard.file.partition.items():
            if name not in table.column_names:
                table = table.append_column(name, pa.repeat(value, table.num_rows))
        return read_table(table, self.selection, where)
