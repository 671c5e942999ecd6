# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""A checkpoint on the disk: a folder that is there whole, or not at all.

It is written beside the place where it goes, each file is on the disk before the folder gets its name,
and the name is on the disk before an older checkpoint goes. So a process may be killed, or a disk be full, at
any point: the last checkpoint that was whole still is.
"""

from __future__ import annotations

import json

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from pymc.variational.checkpoints.disk import (
    Disk,
    FileRecord,
    remove_folder,
    write_file,
)
from pymc.variational.checkpoints.errors import CheckpointSaveError
from pymc.variational.checkpoints.folders import (
    FORMAT,
    MANIFEST,
    TENSORS,
    VALUES,
    Contents,
    before,
    canonical,
    signed,
    step_of,
)
from pymc.variational.checkpoints.tensors import tensor_bytes

__all__ = ["write"]


def write(
    path: Path,
    contents: Contents,
    *,
    keep: int | None = None,
    disk: Disk | None = None,
    owner: str = "",
    after: int = -1,
) -> Path:
    """Write a checkpoint, and remove those that are not kept.

    Parameters
    ----------
    path : Path
        A folder, which is replaced if it is there; the folder above it is made.
    contents : Contents
    keep : int, optional
        How many checkpoints of the owner's steps to keep in the folder above, this one included. Default:
        all.
    disk : Disk, optional
        What writes.
    owner : str
        Which fit saves into the folder above: what others wrote stays, whole or not.
    after : int
        Checkpoints up to this step stay too.

    Returns
    -------
    Path
        The same.

    Raises
    ------
    CheckpointSaveError
        If it could not be written. Earlier checkpoints are untouched, this path included.
    """
    disk = disk or Disk()
    half = f"{owner}.partial" if owner else "partial"
    partial = _beside(path, half)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if step_of(path) is not None:
            _tidy(path.parent, half, disk)
        remove_folder(disk, partial)
        disk.make_folder(partial)
        _fill(partial, contents, disk)
        _put(partial, path, disk)
    except BaseException as error:  # Ctrl-C, for one
        remove_folder(disk, partial)
        if isinstance(error, OSError):
            raise CheckpointSaveError.of(path, error) from error
        raise
    if keep is not None:
        own = [
            old
            for old in before(path)
            if (step_of(old) or 0) > after and (not owner or _fit_of(old) == owner)
        ]
        _drop(own[: 1 - keep or None], disk)
    return path


def _fill(partial: Path, contents: Contents, disk: Disk) -> None:
    """Write the files, all of which are on the disk when it is done."""
    values = canonical(contents.values)
    records = {
        TENSORS: write_file(disk, partial / TENSORS, tensor_bytes(contents.tensors)),
        VALUES: write_file(disk, partial / VALUES, [values]),
    }
    write_file(disk, partial / MANIFEST, [_manifest(records)])
    disk.sync_folder(partial)


def _put(partial: Path, path: Path, disk: Disk) -> None:
    """Give a folder its name, in the place of another if it has to be."""
    replaced = _beside(path, "replaced")
    if path.exists():
        remove_folder(disk, replaced)
        disk.rename(path, replaced)
    try:
        disk.rename(partial, path)
    except OSError:
        if replaced.exists():
            disk.rename(replaced, path)
        raise
    disk.sync_folder(path.parent)
    remove_folder(disk, replaced)


def _fit_of(path: Path) -> str | None:
    """Read which fit wrote a checkpoint, None where that cannot be read."""
    try:
        return json.loads((path / VALUES).read_bytes())["fit"]
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None


def _drop(paths: list[Path], disk: Disk) -> None:
    """Remove checkpoints; one that cannot be removed stays."""
    for old in paths:
        gone = _beside(old, "old")
        with suppress(OSError):
            disk.rename(old, gone)  # so that none is there in part
            remove_folder(disk, gone)


def _tidy(folder: Path, half: str, disk: Disk) -> None:
    """Remove what an own save that was killed left, and put back what it had only moved.

    Parameters
    ----------
    folder : Path
    half : str
        How the names end of what the owner has written in part.
    disk : Disk
    """
    for path in sorted(folder.iterdir()):
        name, _, kind = path.name.removeprefix(".").partition(".")
        final = path.with_name(name)
        if step_of(final) is None or path != _beside(final, kind):
            continue
        if kind == "replaced" and not final.exists():
            disk.rename(path, final)
        elif kind in (half, "old", "replaced"):
            remove_folder(disk, path)


def _beside(path: Path, kind: str) -> Path:
    return path.with_name(f".{path.name}.{kind}")


def _manifest(records: Mapping[str, FileRecord]) -> bytes:
    """Make the text of the manifest."""
    files = {name: {"size": r.size, "sha256": r.sha256} for name, r in records.items()}
    return signed({"format": FORMAT, "files": files})
