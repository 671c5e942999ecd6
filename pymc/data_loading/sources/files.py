# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Parquet files that a path stands for: a file, a folder, a pattern, an address, or a Delta table.

Folders with a log of their files, such as Delta tables, still hold the files of earlier versions: a reader
of all files would count rows twice.
"""

from __future__ import annotations

import glob
import os
import posixpath
import re
import stat

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from pymc.data_loading.sources.arrays import is_of

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.dataset as ds

    from fsspec import AbstractFileSystem
    from pyarrow.fs import FileSystem

Path = str | os.PathLike[str]
Partition = dict[str, "pa.Scalar"]

#: Names of Parquet files: ``a.parquet``, ``a.PARQUET``, ``a.parquet.gz``
PARQUET_NAME = re.compile(r"\.(parquet|parq|pq)(\.\w+)?$", re.IGNORECASE)
#: Parquet files begin with the first; encrypted ones end with the second
PARQUET_MAGIC = (b"PAR1", b"PARE")
#: Writers of data sets begin the names of their own files so: ``_SUCCESS``, ``_temporary``, ``.crc``
HIDDEN = (".", "_")


class File(NamedTuple):
    """A file to read."""

    name: str  #: the path in the folder that all files are in, for messages and checkpoints
    fragment: ds.ParquetFileFragment
    partition: Partition  #: the columns of folders such as ``year=2013/month=1/``


def is_local(filesystem: FileSystem) -> bool:
    """Return whether files are on this machine, where links are known."""
    return filesystem.type_name == "local"


def find_files(
    path: Path | Iterable[Path],
    filesystem: FileSystem | AbstractFileSystem | None,
    storage_options: Mapping[str, object] | None,
) -> list[File]:
    """Return the files that a path stands for, sorted by name; those of a list in its order."""
    if isinstance(path, str | os.PathLike):
        path = [path]
    requested = list(path) if isinstance(path, Iterable) else []
    if not requested or not all(isinstance(p, str | os.PathLike) for p in requested):
        raise TypeError(
            f"path={path!r} of parquet_source has to be a file, a folder, a pattern such as "
            '"flights/*.parquet", an address such as "s3://bucket/flights", or a list of at least one'
        )
    filesystem, roots = _connect([os.fspath(p) for p in requested], filesystem, storage_options)
    found: dict[str, Partition | None] = {}
    seen: dict[str, str] = {}
    for root in roots:
        for file, partition in _expand(root, filesystem).items():
            real = os.path.realpath(file) if is_local(filesystem) else file
            if real in seen:
                other = "" if seen[real] == file else f", also as {seen[real]!r}"
                raise ValueError(
                    f"path={roots!r} of parquet_source has {file!r} twice{other}: rows would count twice"
                )
            seen[real] = file
            found[file] = partition
    paths = [_posix(os.path.abspath(file)) if is_local(filesystem) else file for file in found]
    folder = _posix(os.path.commonpath([posixpath.dirname(p) for p in paths]))
    return [
        File(p[len(folder) :].lstrip("/"), fragment, of_folders if of_table is None else of_table)
        for p, of_table, (fragment, of_folders) in zip(
            paths, found.values(), _fragments(paths, filesystem), strict=True
        )
    ]


def _fragments(
    paths: list[str], filesystem: FileSystem
) -> list[tuple[ds.ParquetFileFragment, Partition]]:
    """Return files with the columns of folders such as ``year=2013``, of types inferred from all."""
    import pyarrow as pa
    import pyarrow.dataset as ds

    format_ = ds.ParquetFileFormat()
    plain: list[tuple[ds.ParquetFileFragment, Partition]]
    plain = [(format_.make_fragment(path, filesystem), {}) for path in paths]
    if not any("=" in posixpath.dirname(path) for path in paths):
        return plain
    options = ds.FileSystemFactoryOptions(partitioning=ds.HivePartitioning.discover())
    factory = ds.FileSystemDatasetFactory(filesystem, paths, format_, options)
    try:
        schema = factory.inspect(fragments=0)  # of the paths alone: no file is opened
    except pa.ArrowInvalid:  # a name that has no value in any path
        return plain
    return [(f, _partition(f, schema)) for f in factory.finish(schema).get_fragments()]


def _partition(fragment: ds.ParquetFileFragment, schema: pa.Schema) -> Partition:
    import pyarrow as pa

    from pyarrow.dataset import get_partition_keys

    keys = get_partition_keys(fragment.partition_expression)
    return {name: pa.scalar(value, schema.field(name).type) for name, value in keys.items()}


def _posix(path: str) -> str:
    """Return a path with the separator that pyarrow uses on all systems."""
    return path.replace(os.sep, "/")


def _connect(
    roots: list[str],
    filesystem: FileSystem | AbstractFileSystem | None,
    options: Mapping[str, object] | None,
) -> tuple[FileSystem, list[str]]:
    """Return the file system of pyarrow that has the paths or addresses, and the paths on it."""
    from pyarrow import fs

    if filesystem is None and any("://" in root for root in roots):
        filesystem, roots = _open_addresses(roots, options)
    if filesystem is None:
        filesystem, roots = fs.LocalFileSystem(), [os.path.expanduser(root) for root in roots]
    elif is_of("fsspec", filesystem, "AbstractFileSystem"):
        roots = [filesystem._strip_protocol(root) for root in roots]
        protocols = filesystem.protocol
        local = "file" in ((protocols,) if isinstance(protocols, str) else protocols)
        filesystem = (
            fs.LocalFileSystem() if local else fs.PyFileSystem(fs.FSSpecHandler(filesystem))
        )
    elif not isinstance(filesystem, fs.FileSystem):
        raise TypeError(
            f"filesystem={filesystem!r} of parquet_source has to be a file system of pyarrow "
            f"(pyarrow.fs.S3FileSystem()) or of fsspec, not of type {type(filesystem).__name__}"
        )
    return filesystem, [root.rstrip("/") or root for root in roots]


def _open_addresses(
    roots: list[str], options: Mapping[str, object] | None
) -> tuple[FileSystem | AbstractFileSystem, list[str]]:
    """Return the file system of addresses: that of fsspec, or else of pyarrow."""
    try:
        # Optional: only addresses need it
        from fsspec.core import url_to_fs

        connected = [url_to_fs(root, **(options or {})) for root in roots]
    except (ImportError, ValueError) as error:
        from pyarrow import ArrowInvalid, fs

        if options:
            raise
        try:
            connected = [fs.FileSystem.from_uri(root) for root in roots]
        except (ArrowInvalid, NotImplementedError) as other:
            raise ImportError(
                f"{roots[0]!r} is an address that neither fsspec ({error}) nor pyarrow ({other}) can open: "
                f"pip install fsspec, and what it needs for such addresses"
            ) from error
    filesystem = connected[0][0]
    if any(other != filesystem for other, _ in connected):
        raise ValueError(f"path={roots!r} of parquet_source are on different file systems")
    return filesystem, [root for _, root in connected]


def _expand(root: str, filesystem: FileSystem) -> Mapping[str, Partition | None]:
    """Return the files of one path, sorted, and the columns that the log of a Delta table adds."""
    from pyarrow.fs import FileType

    kind = filesystem.get_file_info(root).type
    if kind == FileType.File:
        return {root: None}
    if kind == FileType.Directory:
        if _exists(posixpath.join(root, "_delta_log"), filesystem):
            return _delta_files(root, filesystem)
        found, problem = _in_folder(root, filesystem), "the folder has no file of Parquet"
    elif glob.has_magic(root):
        matches = _matching(root, filesystem)
        infos = filesystem.get_file_info(matches) if matches else []
        found = [info.path for info in infos if info.type == FileType.File]
        for folder in {posixpath.dirname(file) for file in found}:
            _check_no_table(folder, [], filesystem)
        if not found:  # a pattern of folders, such as year=201*
            folders = [info.path for info in infos if info.type == FileType.Directory]
            found = [file for folder in folders for file in _in_folder(folder, filesystem)]
        problem = "no file matches"
    else:
        found, problem = [], "there is no such file or folder"
    if not found:
        raise FileNotFoundError(f"path={root!r} of parquet_source: {problem}")
    return dict.fromkeys(sorted(found))


def _in_folder(folder: str, filesystem: FileSystem) -> list[str]:
    """Return the Parquet files in a folder and the folders in it, without hidden ones."""
    entries = _list_local(folder) if is_local(filesystem) else _list_remote(folder, filesystem)
    _check_no_table(folder, entries, filesystem)
    return [
        path
        for path, is_file in entries.items()
        if is_file
        and not _hidden(path.removeprefix(folder).strip("/").split("/"))
        and _is_parquet(path, filesystem)
    ]


def _list_remote(folder: str, filesystem: FileSystem) -> dict[str, bool]:
    """Return all paths below a folder, and which of them are files."""
    from pyarrow.fs import FileSelector

    try:
        infos = filesystem.get_file_info(FileSelector(folder, recursive=True))
    except OSError as error:
        _cannot_list(error)
    return {info.path: info.is_file for info in infos}


def _list_local(folder: str) -> dict[str, bool]:
    """Return the paths below a folder and which of them are files, through links, but in no hidden folder.

    A link to a folder above is not entered, as that would never end.
    """
    entries: dict[str, bool] = {}
    real_folders = {folder: {os.path.realpath(folder)}}  # each with those above it
    for root, folders, names in os.walk(folder, onerror=_cannot_list, followlinks=True):
        above = real_folders.pop(root)
        entries |= {_posix(os.path.join(root, name)): False for name in folders}
        for name in list(folders):
            path = os.path.join(root, name)
            real = os.path.realpath(path)
            if _hidden([name, ""]) or real in above:
                folders.remove(name)
            else:
                real_folders[path] = above | {real}
        entries |= {_posix(path): _is_file(path) for path in (os.path.join(root, n) for n in names)}
    return entries


def _cannot_list(error: OSError) -> NoReturn:
    raise type(error)(
        f"a folder of path= of parquet_source cannot be listed, and its rows would be missing: {error}"
    ) from error


def _is_file(path: str) -> bool:
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except FileNotFoundError as error:
        name = os.path.basename(path)
        if _hidden([name, ""]) or not (PARQUET_NAME.search(name) or "." not in name):
            return False
        raise FileNotFoundError(
            f"{path!r} is a link to {os.readlink(path)!r}, which does not exist, and its rows would be "
            f"missing: remove the link, or mount what it leads to"
        ) from error
    except OSError:  # a link to itself
        return False


def _is_parquet(path: str, filesystem: FileSystem) -> bool:
    """Return whether a file is of Parquet, by its name or else by its first and last bytes."""
    if PARQUET_NAME.search(path):
        return True
    with filesystem.open_input_file(path) as file:
        size = file.size()
        ends = file.read(4), b"" if size < 4 else file.read_at(4, size - 4)
    return any(end in PARQUET_MAGIC for end in ends)


def _hidden(parts: Sequence[str], patterns: Iterable[str] = ()) -> bool:
    """Return whether a part of a path is hidden and no pattern asks for it. ``_year=2013`` is not hidden."""
    *folders, name = parts
    hidden = [f for f in folders if f.startswith(HIDDEN) and not (f[0] == "_" and "=" in f)]
    hidden += [name] if name.startswith(HIDDEN) else []
    return any(not any(fnmatchcase(part, pattern) for pattern in patterns) for part in hidden)


def _matching(pattern: str, filesystem: FileSystem) -> list[str]:
    """Return the files and folders that match a pattern."""
    if is_local(filesystem):
        found = [_posix(path) for path in glob.glob(pattern, recursive=True)]
    else:
        found = _match_remote(pattern, filesystem)
    parts = _posix(pattern).split("/")
    n_fixed = next(i for i, part in enumerate(parts) if glob.has_magic(part))
    hidden = [part for part in parts[n_fixed:] if part.startswith(HIDDEN)]
    return [file for file in found if not _hidden(file.split("/")[n_fixed:], hidden)]


def _match_remote(pattern: str, filesystem: FileSystem) -> list[str]:
    try:
        # Optional: only patterns on other machines need it
        from fsspec.implementations.arrow import ArrowFSWrapper
        from pyarrow import fs
    except ImportError as error:
        raise ImportError(
            f"the pattern {pattern!r} is matched by fsspec: pip install fsspec, or give a list of files"
        ) from error
    if isinstance(filesystem, fs.PyFileSystem) and isinstance(filesystem.handler, fs.FSSpecHandler):
        return filesystem.handler.fs.glob(pattern)
    return ArrowFSWrapper(filesystem).glob(pattern)


_HUDI = (
    "table of Hudi",
    "install hudi (pip install hudi), and give what it reads: pm.arrow_source(lambda: "
    "hudi.HudiTableBuilder.from_base_uri({path!r}).build().read())",
)
#: Folders with a log, by a name that only they have in them, and how to read them
LOGS = {
    "_delta_log": (
        "table of Delta Lake",
        "give the folder of the table itself, pm.parquet_source({path!r}), with deltalake installed (pip "
        "install deltalake); or its files, pm.parquet_source(deltalake.DeltaTable({path!r}).file_uris())",
    ),
    "_spark_metadata": (
        "folder of Spark's file sink",
        "give the files that its log, _spark_metadata, names, as a list; or let Spark write the rows anew, "
        "spark.read.parquet({path!r}).write.parquet(...)",
    ),
    ".hoodie": _HUDI,
    ".hoodie_partition_metadata": _HUDI,
}
ICEBERG = (
    "table of Iceberg",
    "install pyiceberg (pip install pyiceberg), and give what it reads: pm.arrow_source(lambda: pyiceberg"
    ".table.StaticTable.from_metadata({metadata!r}).scan().to_arrow_batch_reader())",
)
ICEBERG_LOG = ".metadata.json"


def _exists(path: str, filesystem: FileSystem) -> bool:
    from pyarrow.fs import FileType

    return filesystem.get_file_info(path).type != FileType.NotFound


def _check_no_table(folder: str, below: Iterable[str], filesystem: FileSystem) -> None:
    """Raise if a folder is a table with a log, or in one, or if a path below is of one."""
    tables = {posixpath.dirname(path) for path in below if posixpath.basename(path) in LOGS}
    tables |= {
        posixpath.dirname(posixpath.dirname(path)) for path in below if path.endswith(ICEBERG_LOG)
    }
    tables.add(folder)
    while "=" in posixpath.basename(folder) or posixpath.basename(folder) == "data":
        folder = posixpath.dirname(folder)
        tables.add(folder)
    for table in sorted(tables):
        newest = _newest_metadata(table, filesystem)
        logs = [LOGS[name] for name in LOGS if _exists(posixpath.join(table, name), filesystem)]
        for name, advice in logs + [ICEBERG] * (newest is not None):
            raise ValueError(
                f"{table!r} is a {name}, with a log of which files count, and files of earlier versions, "
                f"whose rows would count too. Instead, "
                + advice.format(path=table, metadata=newest)
            )


def _newest_metadata(folder: str, filesystem: FileSystem) -> str | None:
    """Return the file that describes an Iceberg table now, as far as that is known without a catalog."""
    from pyarrow.fs import FileSelector

    place = FileSelector(posixpath.join(folder, "metadata"), allow_not_found=True)
    files = [file for file in filesystem.get_file_info(place) if file.path.endswith(ICEBERG_LOG)]
    return max(files, key=lambda file: (file.mtime_ns, file.path)).path if files else None


def _delta_files(folder: str, filesystem: FileSystem) -> dict[str, Partition]:
    """Return the files that the log of a Delta table names, sorted, with the columns of their partitions."""
    if not is_local(filesystem):
        raise ValueError(
            f"{folder!r} is a table of Delta Lake on another machine, whose log deltalake has to open itself: "
            f"pm.arrow_source(deltalake.DeltaTable(address, storage_options={{...}}).to_pyarrow_dataset())"
        )
    try:
        # Optional: only Delta tables need it
        from deltalake import DeltaTable
        from deltalake.exceptions import DeltaError
    except ImportError as error:
        raise ImportError(
            f"{folder!r} is a table of Delta Lake, with files of earlier versions that do not count: its log "
            f"is read by deltalake: pip install deltalake"
        ) from error
    try:
        dataset = DeltaTable(folder).to_pyarrow_dataset()
    except DeltaError as error:  # some messages go on with a backtrace
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"{folder!r} is a table of Delta Lake, and deltalake cannot read its log, or its files one by one "
            f"({reason}). If it reads the rows, give pm.arrow_source(lambda: deltalake.DeltaTable({folder!r})"
            f".scan()). If the log is damaged, or copied in part, copy the whole table again"
        ) from error
    files = {
        posixpath.join(folder, fragment.path): _partition(fragment, dataset.schema)
        for fragment in dataset.get_fragments()
    }
    return dict(sorted(files.items()))
