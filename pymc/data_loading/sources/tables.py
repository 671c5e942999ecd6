# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Folders that are tables: a log says which of their files count, and the others were removed.

Their folders still hold the files of earlier versions, so that a reader of all files counts rows twice.
"""

from __future__ import annotations

import os
import posixpath

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pymc.data_loading.sources.filesystems import is_local

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["check_no_table", "delta_files", "is_delta_table"]


@dataclass(frozen=True)
class _TableFormat:
    """A kind of tables.

    Parameters
    ----------
    name : str
    advice : str
        How to read one, with ``{path!r}`` for its folder.
    """

    name: str
    advice: str


DELTA = _TableFormat(
    "table of Delta Lake",
    "give the folder of the table itself, pm.parquet_source({path!r}), where deltalake is installed "
    "(pip install deltalake); or the files of its log, pm.parquet_source(deltalake.DeltaTable({path!r})"
    ".file_uris())",
)
SPARK = _TableFormat(
    "folder of Spark's file sink",
    "give the files that its log, _spark_metadata, names, as a list; or let Spark write the rows anew, "
    "spark.read.parquet({path!r}).write.parquet(...)",
)
HUDI = _TableFormat(
    "table of Hudi",
    "install hudi (pip install hudi), and give what it reads: pm.arrow_source(lambda: "
    "hudi.HudiTableBuilder.from_base_uri({path!r}).build().read())",
)
ICEBERG = _TableFormat(
    "table of Iceberg",
    "install pyiceberg (pip install pyiceberg), and give what it reads: pm.arrow_source(lambda: pyiceberg"
    ".table.StaticTable.from_metadata({metadata!r}).scan().to_arrow_batch_reader())",
)
#: Names that only such folders have in them
MARKS = {
    "_delta_log": DELTA,
    "_spark_metadata": SPARK,
    ".hoodie": HUDI,
    ".hoodie_partition_metadata": HUDI,
}
METADATA = ".metadata.json"


def is_delta_table(folder: str, filesystem: Any) -> bool:
    """Return whether a folder has the log of a Delta table."""
    return _marked([folder], filesystem).get(folder) is DELTA


def delta_files(folder: str, filesystem: Any) -> list[tuple[str, dict[str, pa.Scalar]]]:
    """Return the files that the log of a Delta table names, sorted, each with its partition's columns.

    Raises
    ------
    ImportError
        If deltalake, which reads the log, is not installed.
    ValueError
        If the table is not on this machine, its log cannot be read, or it has files of which only some
        rows count.
    """
    if not is_local(filesystem):
        raise ValueError(
            f"{folder!r} is a {DELTA.name} on another machine, whose log deltalake has to open by itself: "
            f"pm.arrow_source(deltalake.DeltaTable(address, storage_options={{...}}).to_pyarrow_dataset())"
        )
    try:
        # Optional: only Delta tables need it
        from deltalake import DeltaTable
        from deltalake.exceptions import DeltaError, DeltaProtocolError
    except ImportError as error:
        raise ImportError(
            f"{folder!r} is a {DELTA.name}, with files of earlier versions that do not count: its log is "
            f"read by deltalake: pip install deltalake"
        ) from error
    from pyarrow import scalar
    from pyarrow.dataset import get_partition_keys
    from pyarrow.fs import SubTreeFileSystem

    inside = SubTreeFileSystem(os.path.abspath(folder), filesystem)
    try:
        dataset = DeltaTable(folder).to_pyarrow_dataset(filesystem=inside)
    except DeltaProtocolError as error:
        raise ValueError(
            f"{folder!r} is a {DELTA.name} whose files cannot be read one by one ({error}): give what "
            f"deltalake reads, pm.arrow_source(lambda: deltalake.DeltaTable({folder!r}).scan())"
        ) from error
    except DeltaError as error:  # TableNotFoundError for one; some messages go on with a backtrace
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"{folder!r} is a {DELTA.name} whose log, _delta_log, deltalake cannot read ({reason}): it may be "
            "empty, damaged or copied in part. Copy the whole table again, or give the files that count as a "
            "list: pm.parquet_source(['part-0.parquet', ...])"
        ) from error
    files = []
    for fragment in dataset.get_fragments():
        # What it says of other columns are bounds of their values
        keys = get_partition_keys(fragment.partition_expression)
        own = {name: scalar(value, dataset.schema.field(name).type) for name, value in keys.items()}
        files.append((posixpath.join(folder, fragment.path), own))
    return sorted(files, key=lambda file: file[0])


def check_no_table(folders: Iterable[str], below: Iterable[str], filesystem: Any) -> None:
    """Check that folders whose files would be read are of no table, nor hold one.

    Parameters
    ----------
    folders : iterable of str
    below : iterable of str
        Paths that are below them.
    filesystem : pyarrow.fs.FileSystem

    Raises
    ------
    ValueError
        It says how to read the table instead.
    """
    marks = {posixpath.dirname(path) for path in below if posixpath.basename(path) in MARKS}
    marks |= {
        posixpath.dirname(posixpath.dirname(path)) for path in below if path.endswith(METADATA)
    }
    above = {table for folder in folders for table in _could_be_of(folder)}
    for folder, table in _marked(sorted(above | marks), filesystem).items():
        newest = _newest_metadata(folder, filesystem) if table is ICEBERG else ""
        raise ValueError(
            f"{folder!r} is a {table.name}, with a log of which files count: those of earlier versions, or of "
            f"a write that failed, lie beside them, and their rows would count too. Instead, "
            + table.advice.format(path=folder, metadata=newest)
        )


def _newest_metadata(folder: str, filesystem: Any) -> str | None:
    """Return the file that says what an Iceberg table has now, as far as that is known without a catalog."""
    from pyarrow.fs import FileSelector

    place = FileSelector(posixpath.join(folder, "metadata"), allow_not_found=True)
    files = [file for file in filesystem.get_file_info(place) if file.path.endswith(METADATA)]
    return max(files, key=lambda file: (file.mtime_ns, file.path)).path if files else None


def _could_be_of(folder: str) -> list[str]:
    """Return a folder, and those above it that have it if they are tables: ``table/year=2013/``."""
    folders = [folder]
    while "=" in posixpath.basename(folder) or posixpath.basename(folder) == "data":
        folder = posixpath.dirname(folder)
        folders.append(folder)
    return folders


def _marked(folders: list[str], filesystem: Any) -> dict[str, _TableFormat]:
    """Return which of some folders are tables."""
    from pyarrow.fs import FileType

    places = [
        (folder, name, posixpath.join(folder, name))
        for folder in folders
        for name in (*MARKS, "metadata")
    ]
    infos = filesystem.get_file_info([path for _, _, path in places])
    found = {}
    for (folder, name, path), info in zip(places, infos, strict=True):
        if name in MARKS and info.type != FileType.NotFound:
            found[folder] = MARKS[name]
        elif info.type == FileType.Directory and _newest_metadata(folder, filesystem):
            found.setdefault(folder, ICEBERG)
    return found
