# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Reading a checkpoint: every byte of it is checked before any is used."""

from __future__ import annotations

import json
import stat

from math import isfinite
from pathlib import Path
from typing import Any

from pymc.variational.checkpoints.disk import FileRecord, digest
from pymc.variational.checkpoints.errors import (
    CheckpointMismatchError,
    DamagedCheckpointError,
)
from pymc.variational.checkpoints.folders import (
    FORMAT,
    MANIFEST,
    TENSORS,
    VALUES,
    Contents,
    before,
    checkpoints,
    is_one,
    signed,
)
from pymc.variational.checkpoints.tensors import read_tensors

__all__ = ["read_checkpoint", "read_newest"]

#: Largest JSON that is read, in bytes: far above what a fit writes.
MOST_JSON = 1 << 26


def read_newest(path: Path) -> tuple[Path, Contents]:
    """Read a checkpoint, or the last one of a folder of checkpoints.

    Parameters
    ----------
    path : Path

    Returns
    -------
    path : Path
        Of the checkpoint.
    contents : Contents

    Raises
    ------
    DamagedCheckpointError
        If that one is damaged. It names the last one before it that is whole, which is not taken by
        itself: steps would be lost, and nobody told.
    FileNotFoundError
        If there is none.
    """
    if not path.is_dir():
        raise FileNotFoundError(f"There is no checkpoint {str(path)!r}: it is no folder.")
    if is_one(path):
        there, chosen = before(path), path
    else:
        there = checkpoints(path)
        if not there:
            raise FileNotFoundError(
                f"There is no checkpoint in {str(path)!r}: none of its folders is called step-000000001 "
                "or the like."
            )
        chosen = there.pop()
    try:
        return chosen, read_checkpoint(chosen)
    except DamagedCheckpointError as error:
        raise error.offering(_last_whole(there)) from error


def _last_whole(paths: list[Path]) -> Path | None:
    for path in reversed(paths):
        try:
            read_checkpoint(path)
        except (CheckpointMismatchError, DamagedCheckpointError):
            continue
        return path
    return None


def read_checkpoint(path: Path) -> Contents:
    """Read a checkpoint, of which every byte is checked first.

    Raises
    ------
    CheckpointMismatchError
        If it is in the form of another version.
    DamagedCheckpointError
        If a file is missing, of another length, of other contents, or leads out of the folder.
    """
    if path.is_symlink():
        raise DamagedCheckpointError(path, "it is a link, and may lead out of the folder")
    for name, record in _read_manifest(path / MANIFEST).items():
        _check_file(path / name, record)
    values = _parse(path / VALUES, _read_text(path / VALUES))
    return Contents(read_tensors(path / TENSORS), values)


def _read_manifest(path: Path) -> dict[str, FileRecord]:
    """Read what the files have to be.

    Raises
    ------
    CheckpointMismatchError
        If the files are in the form of another version.
    DamagedCheckpointError
    """
    text = _read_text(path)
    given = _parse(path, text)
    rest = {name: value for name, value in given.items() if name != "sha256"}
    try:
        whole = text == signed(rest)
    except RecursionError:  # it can be read deeper than it can be written
        whole = False
    if not whole:
        raise DamagedCheckpointError(path, "its own SHA-256 is another than when it was written")
    if given.get("format") != FORMAT:
        line = f"format: {given.get('format')!r} in the checkpoint, {FORMAT!r} in this version"
        raise CheckpointMismatchError(path.parent, [line])
    try:
        return {
            name: FileRecord(int(given["files"][name]["size"]), str(given["files"][name]["sha256"]))
            for name in (TENSORS, VALUES)
        }
    except (KeyError, TypeError, ValueError) as error:
        problem = f"it has no size and SHA-256 of {TENSORS} and {VALUES}"
        raise DamagedCheckpointError(path, problem) from error


def _check_file(path: Path, record: FileRecord) -> None:
    size = _size(path)
    if size != record.size:
        raise DamagedCheckpointError(path, f"it has {size:,} bytes, and had {record.size:,}")
    if digest(path) != record:
        raise DamagedCheckpointError(path, "its SHA-256 is another than when it was written")


def _size(path: Path) -> int:
    """Tell the size of a file of the folder.

    Raises
    ------
    DamagedCheckpointError
        If it is not there, or is a link or anything else.
    """
    try:
        status = path.lstat()
    except OSError as error:
        raise DamagedCheckpointError(path, f"it cannot be read ({error.strerror})") from error
    if not stat.S_ISREG(status.st_mode):
        raise DamagedCheckpointError(path, "it is no plain file, and may lead out of the folder")
    return status.st_size


def _read_text(path: Path) -> bytes:
    if (size := _size(path)) > MOST_JSON:
        raise DamagedCheckpointError(path, f"it has {size:,} bytes, more than JSON of a fit has")
    return path.read_bytes()


def _parse(path: Path, text: bytes) -> dict[str, Any]:
    try:
        values = json.loads(text, parse_constant=_no_number, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise DamagedCheckpointError(path, f"it is no JSON ({error})") from error
    if not isinstance(values, dict):
        raise DamagedCheckpointError(path, "it is no JSON object")
    return values


def _no_number(text: str) -> float:
    """Refuse what JSON has no form for, and Python's reader takes all the same."""
    raise ValueError(f"{text} is no number of JSON")


def _finite(text: str) -> float:
    return value if isfinite(value := float(text)) else _no_number(text)
