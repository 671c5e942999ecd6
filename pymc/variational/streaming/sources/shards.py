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
"""Shards: which files a path stands for, and what is known of each from its footer."""

from __future__ import annotations

import glob
import hashlib
import itertools
import os
import re

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pymc.variational.streaming.sources.arrow_columns import need_pyarrow, reading

__all__ = ["Files", "OpenFiles", "Shard", "find_files", "open_parquet", "read_shard"]

Path = str | os.PathLike[str]

MAGIC = re.compile(r"[*?\[]")
SUFFIXES = (".parquet", ".parq", ".pq")
#: The last bytes of a Parquet file: the footer's length, and b"PAR1"
TAIL = 8
#: Files that stay open, each with its footer: where row groups come in a random order
N_OPEN = 4
#: How much of a column is read at a time, of a file on this machine
READ_BYTES = 2**16


@dataclass(frozen=True)
class Files:
    """Files to read, in a fixed order.

    Parameters
    ----------
    paths : tuple of str
    names : tuple of str
        What messages and checkpoints call them: without the folder they all are in.
    filesystem : fsspec filesystem, optional
        Where they are, if not on this machine.
    """

    paths: tuple[str, ...]
    names: tuple[str, ...]
    filesystem: Any = None

    def open(self, i: int) -> Any:
        """Return file `i`, to be read by Arrow."""
        if self.filesystem is None:
            return need_pyarrow("parquet_source").OSFile(self.paths[i])
        return self.filesystem.open(self.paths[i], "rb")


def find_files(
    path: Path | Iterable[Path], filesystem: Any, storage_options: Mapping[str, Any] | None
) -> Files:
    """Return the files that a path stands for, sorted by name; those of a list in its order.

    Parameters
    ----------
    path : str, Path, or iterable of them
        A file, a folder with all its folders, a pattern with ``*``, ``?`` or ``[...]``, or an address
        that fsspec knows, such as ``"s3://bucket/flights/"``.
    filesystem : fsspec filesystem, optional
    storage_options : mapping, optional
        For fsspec.

    Raises
    ------
    FileNotFoundError
        If there is none.
    TypeError
        If `path` is no path.
    ValueError
        If a file is there twice.
    """
    if isinstance(path, str | os.PathLike):
        path = [path]
    given = list(path) if isinstance(path, Iterable) else []
    if not given or not all(isinstance(p, str | os.PathLike) for p in given):
        raise TypeError(
            f"path={path!r} of parquet_source has to be a path, or a list of at least one: a file, a "
            'folder, a pattern such as "flights/*.parquet", or an address such as "s3://bucket/flights"'
        )
    roots = [os.fspath(p) for p in given]
    if filesystem is None and any("://" in root for root in roots):
        filesystem, roots = _connect(roots, storage_options)
    paths = [file for root in roots for file in _expand(root, filesystem)]
    if len(set(paths)) < len(paths):
        twice = next(p for i, p in enumerate(paths) if p in paths[:i])
        raise ValueError(
            f"path={roots!r} of parquet_source has {twice!r} twice: rows would count twice"
        )
    return Files(tuple(paths), _names(paths, filesystem), filesystem)


def _connect(roots: list[str], options: Mapping[str, Any] | None) -> tuple[Any, list[str]]:
    try:
        # Optional: only addresses need it
        from fsspec.core import url_to_fs
    except ImportError as error:
        raise ImportError(
            f'{roots[0]!r} is opened by fsspec: pip install "pymc-minibatch[stream]"'
        ) from error
    connected = [url_to_fs(root, **(options or {})) for root in roots]
    filesystem = connected[0][0]
    if any(other != filesystem for other, _ in connected):
        raise ValueError(f"path={roots!r} of parquet_source are on different file systems")
    return filesystem, [root for _, root in connected]


def _expand(root: str, filesystem: Any) -> list[str]:
    """Return the files of one path."""
    if filesystem is not None:
        is_folder, is_file = filesystem.isdir, filesystem.isfile
    else:
        is_folder, is_file = os.path.isdir, os.path.isfile
    if is_file(root):
        return [root]
    if is_folder(root):
        found = [f for f in _below(root, filesystem) if f.lower().endswith(SUFFIXES)]
        wanted = f"no file ends in {', '.join(SUFFIXES)}"
    else:
        pattern = MAGIC.search(root) is not None
        matches = _matching(root, filesystem) if pattern else []
        found = [f for f in matches if is_file(f)]
        wanted = "no file matches" if pattern else "there is no such file or folder"
    if not found:
        raise FileNotFoundError(f"path={root!r} of parquet_source: {wanted}")
    return sorted(found)


def _below(folder: str, filesystem: Any) -> list[str]:
    """Return the files in a folder and its folders, without those of writers (``_SUCCESS``, ``.crc``)."""
    if filesystem is not None:
        files = filesystem.find(folder)
    else:
        files = [os.path.join(top, f) for top, _, names in os.walk(folder) for f in names]
    inside = [(f, f[len(folder) :].strip("/" + os.sep)) for f in files]
    return [f for f, rest in inside if not re.search(r"(^|[/\\])[._]", rest)]


def _matching(pattern: str, filesystem: Any) -> list[str]:
    if filesystem is not None:
        return list(filesystem.glob(pattern))
    return glob.glob(pattern, recursive=True)


def _names(paths: list[str], filesystem: Any) -> tuple[str, ...]:
    """Return what differs in paths: relative to the folder they all are in."""
    full = paths if filesystem is not None else [os.path.abspath(p) for p in paths]
    plain = [p.replace(os.sep, "/") for p in full]
    folder = os.path.commonpath([os.path.dirname(p) for p in plain])
    return tuple(p[len(folder) :].lstrip("/") for p in plain)


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
        local = files.filesystem is None
        return parquet.ParquetFile(
            files.open(i),
            pre_buffer=not local,
            buffer_size=READ_BYTES if local else 0,
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
