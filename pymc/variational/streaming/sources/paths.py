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
"""Which files a path stands for: a file, a folder, a pattern, an address."""

from __future__ import annotations

import glob
import os
import re

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import PurePath, PurePosixPath
from typing import Any, NoReturn

from pymc.variational.streaming.sources.arrow_columns import need_pyarrow

__all__ = ["Files", "Path", "find_files"]

Path = str | os.PathLike[str]

MAGIC = re.compile(r"[*?\[]")
SUFFIXES = (".parquet", ".parq", ".pq")
#: How names begin that writers of data sets use for themselves: ``_SUCCESS``, ``_temporary``, ``.crc``
HIDDEN = (".", "_")


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
        that fsspec knows, such as ``"s3://bucket/flights/"``. In folders and patterns, names that
        begin with ``_`` or ``.`` are left out, unless the pattern names them so; links are followed.
    filesystem : fsspec filesystem, optional
    storage_options : mapping, optional
        For fsspec.

    Raises
    ------
    FileNotFoundError
        If there is none.
    OSError
        If a folder cannot be listed.
    TypeError
        If `path` is no path.
    ValueError
        If a file is there twice, by whatever names.
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
    if filesystem is not None:
        # As the file system itself writes them, whose answers are compared with them
        roots = [filesystem._strip_protocol(root) for root in roots]
        if _is_local(filesystem):
            filesystem = None
    paths = [file for root in roots for file in _expand(root, filesystem)]
    _check_once(paths, roots, filesystem)
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


def _is_local(filesystem: Any) -> bool:
    """Return whether files are on this machine, where links and rights are known."""
    protocol = filesystem.protocol
    return "file" in ((protocol,) if isinstance(protocol, str) else protocol)


def _check_once(paths: list[str], roots: list[str], filesystem: Any) -> None:
    seen: dict[str, str] = {}
    for path in paths:
        real = os.path.realpath(path) if filesystem is None else path
        if real in seen:
            other = "" if seen[real] == path else f", also as {seen[real]!r}"
            raise ValueError(
                f"path={roots!r} of parquet_source has {path!r} twice{other}: rows would count twice"
            )
        seen[real] = path


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
    """Return the files in a folder and its folders, without hidden ones."""
    if filesystem is None:
        return list(_walk(folder))
    files = filesystem.find(folder)
    return [f for f in files if not _hidden(f.removeprefix(folder).strip("/").split("/"))]


def _walk(folder: str) -> Iterator[str]:
    """Yield the files below a folder of this machine, through links too, each folder's once."""

    def fail(error: OSError) -> NoReturn:
        raise type(error)(
            f"path={folder!r} of parquet_source: the folder {error.filename!r} cannot be listed, and "
            f"its rows would be missing: {error.strerror}"
        ) from error

    above = {
        folder: frozenset([os.path.realpath(folder)])
    }  # of each folder to come: itself, and those above
    for top, folders, names in os.walk(folder, onerror=fail, followlinks=True):
        here, inner = above.pop(top), []
        for name in folders:
            real = os.path.realpath(os.path.join(top, name))
            if not _hidden([name]) and real not in here:  # a link to where it is would never end
                inner.append(name)
                above[os.path.join(top, name)] = here | {real}
        folders[:] = inner
        yield from (os.path.join(top, name) for name in names if not _hidden([name]))


def _hidden(parts: Iterable[str], asked: Iterable[str] = ()) -> bool:
    """Return whether some part of a path is a writer's own, and no pattern that is so named asks for it."""
    return any(
        part.startswith(HIDDEN) and not any(fnmatchcase(part, pattern) for pattern in asked)
        for part in parts
    )


def _matching(pattern: str, filesystem: Any) -> list[str]:
    found = filesystem.glob(pattern) if filesystem else glob.glob(pattern, recursive=True)
    pure = PurePosixPath if filesystem else PurePath
    parts = pure(pattern).parts
    n_fixed = next(i for i, part in enumerate(parts) if MAGIC.search(part))
    asked = [part for part in parts[n_fixed:] if part.startswith(HIDDEN)]
    return [file for file in found if not _hidden(pure(file).parts[n_fixed:], asked)]


def _names(paths: list[str], filesystem: Any) -> tuple[str, ...]:
    """Return what differs in paths: relative to the folder they all are in."""
    full = paths if filesystem is not None else [os.path.abspath(p) for p in paths]
    plain = [p.replace(os.sep, "/") for p in full]
    folder = os.path.commonpath([os.path.dirname(p) for p in plain])
    return tuple(p[len(folder) :].lstrip("/") for p in plain)
