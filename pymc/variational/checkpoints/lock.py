# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Lock of a checkpoint folder: one fit at a time writes there, and the folder keeps its id."""

from __future__ import annotations

import errno
import os

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pymc.variational.checkpoints.store import (
    CheckpointSaveError,
    earlier_checkpoints,
    import_optional,
    list_checkpoints,
    read_meta,
    step_folder,
    step_of,
    write_file,
)

__all__ = [
    "OWNER",
    "FolderOwner",
    "check_own_folder",
    "check_writable",
    "folder_owner",
    "lock_folder",
    "own_checkpoints",
]

#: Hidden files of a folder: the lock of the fit that runs, and the fit whose checkpoints are there.
LOCK, OWNER = ".fit.lock", ".fit.json"


@dataclass(frozen=True)
class FolderOwner:
    """The fit that writes into a folder."""

    fit: str  # its id, which it keeps when it is loaded
    after: int  # the last step that was there before: what the fit may remove is later


@contextmanager
def lock_folder(folder: Path, fit: str, step: int) -> Iterator[None]:
    """Lock a folder, which is made if need be, for a fit at a step.

    Raises
    ------
    ValueError, OSError
        If another fit has the lock, or the next checkpoint would not be the last one of the folder.
    """
    filelock = import_optional("filelock")
    check_writable(folder)
    lock = filelock.FileLock(folder / LOCK, thread_local=False)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except filelock.Timeout as error:
        raise ValueError(
            f"The folder {str(folder)!r} is in use by another fit, which saves checkpoints there and still "
            "runs. Give another folder, or end that fit"
        ) from error
    except OSError as error:
        raise CheckpointSaveError.of(folder, error) from error
    try:
        check_folder(folder, fit, step)
        _set_owner(folder, fit)
        yield
    finally:
        lock.release()


def check_folder(folder: Path, fit: str, step: int) -> None:
    """Refuse a folder with checkpoints of another fit, or of later steps."""
    existing = list_checkpoints(folder) if folder.is_dir() else []
    if not existing:
        return
    last, advice = existing[-1], "Give another folder, or go on with pm.Trainer.load(...)"
    if last > step_folder(folder, step):
        raise ValueError(
            f"The folder {str(folder)!r} has the checkpoint {last.name}, and this fit is at step {step}: "
            f"what it saves would not be the last. {advice}, or remove the later checkpoints"
        )
    if read_meta(last).contents.get("fit") != fit:
        raise ValueError(
            f"The folder {str(folder)!r} has checkpoints of another fit, such as {last.name}. {advice}"
        )


def check_own_folder(folder: Path, fit: str, step: int) -> None:
    """Refuse a folder that a fit cannot go on in, or that nobody said it may remove checkpoints from.

    Raises
    ------
    ValueError, OSError
    """
    check_writable(folder)
    check_folder(folder, fit, step)
    owner = folder_owner(folder)
    if (owner is None or owner.fit != fit) and folder.is_dir() and list_checkpoints(folder):
        raise ValueError(
            f"The folder {str(folder)!r} has checkpoints, but no file {OWNER} of this fit, so it may be an "
            "archive of copies. To write into it, give it as checkpoint=: what is in it now stays"
        )


def check_writable(folder: Path) -> None:
    """Refuse a folder that cannot be made or written."""
    path = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    if not path.is_dir():
        raise NotADirectoryError(
            errno.ENOTDIR,
            f"The folder of checkpoints {str(folder)!r} cannot be made, since {str(path)!r} is not a "
            "folder. Give another",
        )
    if not os.access(path, os.W_OK | os.X_OK):
        raise PermissionError(
            errno.EACCES,
            f"The folder of checkpoints {str(folder)!r} cannot be written, since {str(path)!r} belongs to "
            "another user. Give another folder, or have it made writable",
        )


def folder_owner(folder: Path) -> FolderOwner | None:
    """Return the fit that writes into a folder, None if the folder does not say it."""
    decode = import_optional("msgspec.json").decode
    try:
        return decode((folder / OWNER).read_bytes(), type=FolderOwner)
    except (OSError, ValueError):
        return None


def _set_owner(folder: Path, fit: str) -> None:
    """Write which fit writes into a folder, if that is new."""
    owner = folder_owner(folder)
    if owner is not None and owner.fit == fit:
        return
    after = max((step_of(path) or 0 for path in list_checkpoints(folder)), default=-1)
    partial = folder / f"{OWNER}.partial"
    try:
        write_file(partial, import_optional("msgspec.json").encode(FolderOwner(fit, after)))
        os.replace(partial, folder / OWNER)
    except OSError as error:
        raise CheckpointSaveError.of(folder, error) from error


def own_checkpoints(path: Path) -> list[Path]:
    """Return the earlier checkpoints that the fit of a checkpoint wrote into its folder."""
    owner = folder_owner(path.parent)
    return [] if owner is None else [p for p in earlier_checkpoints(path) if _is_own(p, owner)]


def _is_own(path: Path, owner: FolderOwner) -> bool:
    try:
        return (step_of(path) or 0) > owner.after and read_meta(path).contents["fit"] == owner.fit
    except (ValueError, KeyError):  # it is damaged, or none of a fit
        return False
