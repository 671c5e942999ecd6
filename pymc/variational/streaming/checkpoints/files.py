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
"""A checkpoint on the disk: a folder that is there whole, or not at all.

It is written beside the place where it goes, each file is on the disk before the folder gets its name,
and the name is on the disk before an older checkpoint goes. So a process may be killed, or a disk be full, at
any point: the last checkpoint that was whole still is.
"""

from __future__ import annotations

import json
import re
import stat

from collections.abc import Mapping
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pymc.variational.streaming.checkpoints.disk import (
    Disk,
    FileRecord,
    digest,
    remove_folder,
    write_file,
)
from pymc.variational.streaming.checkpoints.errors import (
    CheckpointMismatchError,
    CheckpointSaveError,
    DamagedCheckpointError,
)
from pymc.variational.streaming.checkpoints.tensors import read_tensors, tensor_bytes

__all__ = ["Contents", "checkpoints", "read_checkpoint", "read_newest", "step_folder", "write"]

TENSORS, VALUES, MANIFEST = "state.safetensors", "checkpoint.json", "manifest.json"

#: What the manifest begins with; the number is that of the form of the files.
FORMAT = "PyMC checkpoint 1"

#: Largest JSON that is read, in bytes: far above what a fit writes.
MOST_JSON = 1 << 26

_STEP = re.compile(r"step-(\d{9,18})")
_LEFT = re.compile(r"\.step-\d{9,18}\.(partial|old|replaced)")


class Contents(NamedTuple):
    """What a checkpoint holds.

    Parameters
    ----------
    tensors : dict of str to array
    values : dict of str to JSON
        Python's None, bool, int, float, str, and lists and dicts of them.
    """

    tensors: Mapping[str, np.ndarray]
    values: Mapping[str, Any]


def step_folder(folder: Path, step: int) -> Path:
    """Name the checkpoint of a step.

    Examples
    --------
    >>> from pymc.variational.streaming.checkpoints.files import step_folder
    >>> step_folder(Path("fits"), 12345).name
    'step-000012345'
    """
    return folder / f"step-{step:09d}"


def write(
    path: Path, contents: Contents, *, keep: int | None = None, disk: Disk | None = None
) -> Path:
    """Write a checkpoint, and remove those that are not kept.

    Parameters
    ----------
    path : Path
        A folder, which is replaced if it is there; the folder above it is made.
    contents : Contents
    keep : int, optional
        How many checkpoints of steps to keep in the folder above, this one included. Default: all.
    disk : Disk, optional
        What writes.

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
    partial = _beside(path, "partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _tidy(path.parent, disk)
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
        _drop_older(path, keep, disk)
    return path


def _fill(partial: Path, contents: Contents, disk: Disk) -> None:
    """Write the files, all of which are on the disk when it is done."""
    values = _canonical(contents.values)
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


def _drop_older(path: Path, keep: int, disk: Disk) -> None:
    """Remove all but the last checkpoints; one that cannot be removed stays."""
    for old in _before(path)[: 1 - keep or None]:
        gone = _beside(old, "old")
        with suppress(OSError):
            disk.rename(old, gone)  # so that none is there in part
            remove_folder(disk, gone)


def _tidy(folder: Path, disk: Disk) -> None:
    """Remove what a save that was killed left, and put back what it had only moved."""
    for path in sorted(folder.iterdir()):
        left = _LEFT.fullmatch(path.name)
        if left is None:
            continue
        final = path.with_name(path.name.removeprefix(".").rpartition(".")[0])
        if left[1] == "replaced" and not final.exists():
            disk.rename(path, final)
        else:
            remove_folder(disk, path)


def _beside(path: Path, kind: str) -> Path:
    return path.with_name(f".{path.name}.{kind}")


def _before(path: Path) -> list[Path]:
    """List the checkpoints of earlier steps beside one."""
    there = checkpoints(path.parent)
    return there[: there.index(path)] if path in there else []


def checkpoints(folder: Path) -> list[Path]:
    """List the checkpoints of steps in a folder, those of the last steps last.

    What a save that was killed left is none, but for a checkpoint that was to be replaced.
    """
    found: dict[int, Path] = {}
    for path in sorted(folder.iterdir()):  # hidden names come first, and give way to others
        name = path.name
        if name.startswith(".") and name.endswith(".replaced"):
            name = name.removeprefix(".").removesuffix(".replaced")
        if match := _STEP.fullmatch(name):
            found[int(match[1])] = path
    return [found[step] for step in sorted(found)]


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
    if _STEP.fullmatch(path.name) or (path / MANIFEST).exists():
        there, chosen = _before(path), path
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
        except DamagedCheckpointError:
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
    signed = {name: value for name, value in given.items() if name != "sha256"}
    if text != _signed(signed):
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
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DamagedCheckpointError(path, f"it is no JSON ({error})") from error
    if not isinstance(values, dict):
        raise DamagedCheckpointError(path, "it is no JSON object")
    return values


def _manifest(records: Mapping[str, FileRecord]) -> bytes:
    """Make the text of the manifest."""
    files = {name: {"size": r.size, "sha256": r.sha256} for name, r in records.items()}
    return _signed({"format": FORMAT, "files": files})


def _signed(values: Mapping[str, Any]) -> bytes:
    """Make a text with a SHA-256 of the rest of it."""
    return _canonical({**values, "sha256": sha256(_canonical(values)).hexdigest()})


def _canonical(values: Mapping[str, Any]) -> bytes:
    return json.dumps(values, indent=1, sort_keys=True, allow_nan=False).encode() + b"\n"
