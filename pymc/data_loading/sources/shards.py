# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Shards: what is known of each file from its footer, and which of them are open."""

from __future__ import annotations

import hashlib
import itertools
import os

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pymc.data_loading.sources.arrow_columns import need_pyarrow, reading
from pymc.data_loading.sources.paths import Files

__all__ = ["OpenFiles", "Shard", "open_parquet", "read_shard"]

#: The last bytes of a Parquet file: the footer's length, and b"PAR1"
TAIL = 8
#: Files that stay open, each with its footer: where row groups come in a random order
N_OPEN = 4
#: How much of a column is read at a time, of a file on this machine
READ_BYTES = 2**16


@dataclass(frozen=True)
class Shard:
    """What is known of a file of Parquet without reading its rows.

    Parameters
    ----------
    name : str
    n_bytes : int
    group_lengths : tuple of int
        Rows of each row group.
    footer : str
        SHA-256 of the footer, which says where all columns are: another file has another one.
    """

    name: str
    n_bytes: int
    group_lengths: tuple[int, ...]
    footer: str

    @property
    def n_rows(self) -> int:
        """How many rows there are in all row groups."""
        return sum(self.group_lengths)


def open_parquet(files: Files, i: int) -> Any:
    """Return shard `i` as a ``pyarrow.parquet.ParquetFile``, which checks pages that have checksums.

    Raises
    ------
    OSError
        If it cannot be read. The message names it.
    """
    need_pyarrow("parquet_source")
    # A part of pyarrow that is loaded by itself
    from pyarrow import parquet

    with reading(files.names[i]):
        # From afar, the columns of a row group are fetched together; else none is in memory before its turn
        return parquet.ParquetFile(
            files.open(i),
            pre_buffer=not files.local,
            buffer_size=READ_BYTES if files.local else 0,
            page_checksum_verification=True,
        )


def read_shard(files: Files, i: int, file: Any) -> Shard:
    """Return what the footer of a shard says, and check that it agrees with itself.

    Raises
    ------
    OSError
        If it does not, so the file is damaged.
    """
    name = files.names[i]
    with reading(name):
        metadata = file.metadata
        groups = [metadata.row_group(g) for g in range(metadata.num_row_groups)]
        lengths = tuple(group.num_rows for group in groups)
        if min(lengths, default=0) < 0 or sum(lengths) != metadata.num_rows:
            raise ValueError(
                f"its row groups have {lengths} rows, and all have {metadata.num_rows}"
            )
        with files.open(i) as raw:
            n_bytes = raw.seek(0, os.SEEK_END) or raw.tell()
            raw.seek(n_bytes - TAIL)
            length = int.from_bytes(raw.read(TAIL)[:4], "little")
            raw.seek(n_bytes - TAIL - length)
            footer = hashlib.sha256(raw.read(length)).hexdigest()
    return Shard(name, n_bytes, lengths, footer)


class OpenFiles:
    """The files that were read last, which stay open.

    A file is lent to one reader: another one, in another thread, opens its own. A process that was
    forked, or got the source in a pickle, opens its own too.
    """

    def __init__(self) -> None:
        self._files: dict[tuple[int, int], Any] = {}

    def __reduce__(self) -> tuple[type[OpenFiles], tuple[()]]:
        return OpenFiles, ()

    @contextmanager
    def borrow(self, files: Files, i: int, shard: Shard) -> Iterator[Any]:
        """Lend an open file; it is closed if an error comes of it."""
        key = os.getpid(), i
        file = self._files.pop(key, None)  # in one step, so that no two threads have it
        if file is None:
            file = open_parquet(files, i)
            now = read_shard(files, i, file)
            if now != shard:
                raise OSError(
                    f"{shard.name} changed since the source was made: it had {shard.n_rows} rows in "
                    f"{shard.n_bytes} bytes, and has {now.n_rows} in {now.n_bytes}"
                    + (", and its footer is another one" if now.footer != shard.footer else "")
                )
        yield file
        self._files[key] = file
        for old in list(itertools.islice(self._files, max(len(self._files) - N_OPEN, 0))):
            self._files.pop(old, None)
