# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Which files a path stands for: a file, a folder, a pattern, an address."""

from __future__ import annotations

import glob
import os
import posixpath
import re

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from pymc.data_loading.sources.filesystems import Path, connect, is_local, match
from pymc.data_loading.sources.tables import check_no_table, delta_files, is_delta_table

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Files", "find_files"]

type Partition = Mapping[str, pa.Scalar]


MAGIC = re.compile(r"[*?\[]")
#: How names of Parquet files end: ``.parquet``, ``.PARQUET``, ``.parquet.gz``
PARQUET_NAME = re.compile(r"\.(parquet|parq|pq)(\.\w+)?$", re.IGNORECASE)
#: With what files of Parquet begin; encrypted ones end with the other
PARQUET_MAGIC = (b"PAR1", b"PARE")
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
    filesystem : pyarrow.fs.FileSystem
        Where they are.
    partitions : tuple of dict of str to pyarrow.Scalar
        For each file, the columns that its path gives, ``year=2013/month=1/`` for one.
    """

    paths: tuple[str, ...]
    names: tuple[str, ...]
    filesystem: Any
    partitions: tuple[Partition, ...]

    @property
    def local(self) -> bool:
        """Whether they are on this machine."""
        return is_local(self.filesystem)

    def open(self, i: int) -> Any:
        """Return file `i`, to be read by Arrow."""
        return self.filesystem.open_input_file(self.paths[i])


def find_files(
    path: Path | Iterable[Path], filesystem: Any, storage_options: Mapping[str, Any] | None
) -> Files:
    """Return the files that a path stands for, sorted by name; those of a list in its order.

    Parameters
    ----------
    path : str, Path, or iterable of them
        A file, a folder with all its folders, a pattern with ``*``, ``?`` or ``[...]``, or an address.
        In folders and patterns, names that begin with ``_`` or ``.`` are left out, unless the pattern
        names them so, and but for partitions such as ``_year=2013``; links are followed.
    filesystem : pyarrow.fs.FileSystem or fsspec.AbstractFileSystem, optional
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
        If a file is there twice, by whatever names; if a folder is a table with a log of its files that
        cannot be read here.
    """
    if isinstance(path, str | os.PathLike):
        path = [path]
    given = list(path) if isinstance(path, Iterable) else []
    if not given or not all(isinstance(p, str | os.PathLike) for p in given):
        raise TypeError(
            f"path={path!r} of parquet_source has to be a path, or a list of at least one: a file, a "
            'folder, a pattern such as "flights/*.parquet", or an address such as "s3://bucket/flights"'
        )
    filesystem, roots = connect([os.fspath(p) for p in given], filesystem, storage_options)
    found = [file for root in roots for file in _expand(root, filesystem)]
    paths = [file for file, _ in found]
    _check_once(paths, roots, filesystem)
    partitions = _partitions(paths, filesystem)
    return Files(
        tuple(paths),
        _names(paths, filesystem),
        filesystem,
        tuple(hive if own is None else own for (_, own), hive in zip(found, partitions)),
    )


def _check_once(paths: list[str], roots: list[str], filesystem: Any) -> None:
    local = is_local(filesystem)
    seen: dict[str, str] = {}
    for path in paths:
        real = os.path.realpath(path) if local else path
        if real in seen:
            other = "" if seen[real] == path else f", also as {seen[real]!r}"
            raise ValueError(
                f"path={roots!r} of parquet_source has {path!r} twice{other}: rows would count twice"
            )
        seen[real] = path


def _expand(root: str, filesystem: Any) -> Sequence[tuple[str, Partition | None]]:
    """Return the files of one path, and the columns of each that a table's log gives."""
    from pyarrow.fs import FileType  # a part of pyarrow that is loaded by itself

    kind = filesystem.get_file_info(root).type
    if kind == FileType.File:
        return [(root, None)]
    if kind == FileType.Directory:
        if is_delta_table(root, filesystem):
            return delta_files(root, filesystem)
        found = _in_folders([root], filesystem)
        wanted = "the folder has no file of Parquet"
    elif MAGIC.search(root):
        matches = _matching(root, filesystem)
        infos = filesystem.get_file_info(matches) if matches else []
        found = [info.path for info in infos if info.type == FileType.File]
        check_no_table({posixpath.dirname(file) for file in found}, [], filesystem)
        if not found:  # such as year=201*: the folders themselves
            folders = [info.path for info in infos if info.type == FileType.Directory]
            found = _in_folders(folders, filesystem)
        wanted = "no file matches"
    else:
        found, wanted = [], "there is no such file or folder"
    if not found:
        raise FileNotFoundError(f"path={root!r} of parquet_source: {wanted}")
    return [(file, None) for file in sorted(found)]


def _in_folders(folders: list[str], filesystem: Any) -> list[str]:
    """Return the files of Parquet in folders and the folders in them, without hidden ones."""
    found = []
    for folder in folders:
        seen = list(_walk(folder, filesystem))
        check_no_table([folder], [info.path for info in seen], filesystem)
        found += [
            info.path
            for info in seen
            if info.is_file
            and not _hidden(info.path.removeprefix(folder).strip("/").split("/"))
            and _is_parquet(info.path, filesystem)
        ]
    return found


def _walk(folder: str, filesystem: Any, above: frozenset[str] = frozenset()) -> Iterator[Any]:
    """Yield what is below a folder, through links too, but into none that is hidden here.

    On this machine each folder is listed by itself, as a link to a folder above would never end.
    """
    from pyarrow.fs import FileSelector, FileType

    local = is_local(filesystem)
    try:
        infos = filesystem.get_file_info(FileSelector(folder, recursive=not local))
    except OSError as error:
        raise type(error)(
            f"path={folder!r} of parquet_source: the folder cannot be listed, and its rows would be "
            f"missing: {error}"
        ) from error
    yield from infos
    if not local:
        return
    _check_links(folder, {info.base_name for info in infos})
    above |= {os.path.realpath(folder)}
    for info in infos:
        if info.type == FileType.Directory and not _hidden([info.base_name, ""]):
            if os.path.realpath(info.path) not in above:
                yield from _walk(info.path, filesystem, above)


def _check_links(folder: str, listed: set[str]) -> None:
    """Raise if a link in a folder, which pyarrow does not list, leads to a file or folder that is gone."""
    for name in set(os.listdir(folder)) - listed:
        if _hidden([name, ""]) or not (PARQUET_NAME.search(name) or "." not in name):
            continue
        path = os.path.join(folder, name)
        try:
            os.stat(path)
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f"{path!r} is a link to {os.readlink(path)!r}, which is not there, and its rows would be "
                f"missing: remove the link, or mount what it leads to"
            ) from error
        except OSError:  # a link to itself
            continue


def _is_parquet(path: str, filesystem: Any) -> bool:
    """Return whether a file is of Parquet, by its name or else by how it begins and ends."""
    if PARQUET_NAME.search(path):
        return True
    with filesystem.open_input_file(path) as file:
        size = file.size()
        ends = file.read(4), b"" if size < 4 else file.read_at(4, size - 4)
    return any(end in PARQUET_MAGIC for end in ends)


def _hidden(parts: Iterable[str], asked: Iterable[str] = ()) -> bool:
    """Return whether some part of a path is a writer's own, and no pattern that is so named asks for it.

    A folder ``_year=2013`` is one of a partition.
    """
    *folders, name = parts
    own = [f for f in folders if f.startswith(HIDDEN) and not (f[0] == "_" and "=" in f)]
    own += [name] if name.startswith(HIDDEN) else []
    return any(not any(fnmatchcase(part, pattern) for pattern in asked) for part in own)


def _matching(pattern: str, filesystem: Any) -> list[str]:
    """Return what matches a pattern, in no order."""
    found = (
        glob.glob(pattern, recursive=True) if is_local(filesystem) else match(pattern, filesystem)
    )
    found = [_plain(path) for path in found]
    parts = _plain(pattern).split("/")
    n_fixed = next(i for i, part in enumerate(parts) if MAGIC.search(part))
    asked = [part for part in parts[n_fixed:] if part.startswith(HIDDEN)]
    return [file for file in found if not _hidden(file.split("/")[n_fixed:], asked)]


def _plain(path: str) -> str:
    """Return a path with the separator that pyarrow has on all systems."""
    return path.replace(os.sep, "/")


def _names(paths: list[str], filesystem: Any) -> tuple[str, ...]:
    """Return what differs in paths: relative to the folder they all are in."""
    full = _absolute(paths, filesystem)
    folder = os.path.commonpath([posixpath.dirname(p) for p in full]).replace(os.sep, "/")
    return tuple(p[len(folder) :].lstrip("/") for p in full)


def _absolute(paths: list[str], filesystem: Any) -> list[str]:
    return [_plain(os.path.abspath(p)) for p in paths] if is_local(filesystem) else paths


def _partitions(paths: list[str], filesystem: Any) -> list[Partition]:
    """Return what folders such as ``year=2013`` say, of the types that pyarrow infers from all."""
    full = _absolute(paths, filesystem)
    if not any("=" in posixpath.dirname(path) for path in full):
        return [{} for _ in paths]
    import pyarrow
    import pyarrow.dataset as ds

    factory = ds.FileSystemDatasetFactory(
        filesystem,
        full,
        ds.ParquetFileFormat(),
        ds.FileSystemFactoryOptions(partitioning=ds.HivePartitioning.discover()),
    )
    try:
        schema = factory.inspect(fragments=0)  # of the paths alone: no file is opened
    except pyarrow.ArrowInvalid:  # a name that has no value in any path
        return [{} for _ in paths]
    keys = [
        ds.get_partition_keys(fragment.partition_expression)
        for fragment in factory.finish(schema).get_fragments()
    ]
    return [
        {name: pyarrow.scalar(value, schema.field(name).type) for name, value in of.items()}
        for of in keys
    ]
