# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Whose a folder of checkpoints is: a file in it that one fit makes before its first step.

Two fits that save into one folder would take each other's checkpoints for theirs. So a fit claims its
folder, by a file that only one can make, and looks at each save whether it still is its own.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import uuid

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from pymc.variational.checkpoints.disk import Disk, write_file
from pymc.variational.checkpoints.errors import CheckpointSaveError
from pymc.variational.checkpoints.folders import checkpoints, step_folder, step_of
from pymc.variational.checkpoints.reading import read_checkpoint

__all__ = [
    "CLAIM",
    "Claim",
    "check_claim",
    "check_folder",
    "check_own",
    "check_place",
    "claim",
    "hold",
]

#: The file in a folder of checkpoints that says which fit saves there.
CLAIM = ".fit.json"


@dataclass(frozen=True)
class Claim:
    """Who saves into a folder.

    Parameters
    ----------
    fit : str
        The fit, also after it was loaded.
    run : str
        The trainer: two that go on from one checkpoint are one fit.
    host : str
    pid : int
    after : int
        The last step that the folder had a checkpoint of before it was this fit's: `keep` removes only
        later ones.
    """

    fit: str
    run: str = field(default_factory=lambda: uuid.uuid4().hex)
    host: str = field(default_factory=socket.gethostname)
    pid: int = field(default_factory=os.getpid)
    after: int = field(default=-1, compare=False)


def check_folder(trainer: Any, folder: Path) -> None:
    """Refuse a folder in which a fit cannot save, or in which the next checkpoints would not be the last.

    Raises
    ------
    ValueError, OSError
    """
    check_place(folder)
    there = checkpoints(folder) if folder.is_dir() else []
    if there:
        _check_last(trainer, folder, there[-1])
    check_claim(folder, trainer._fit_id)


def check_own(trainer: Any, folder: Path) -> None:
    """Refuse a folder of which nobody said that this fit may remove older checkpoints there.

    An archive of single checkpoints is such a folder: it has no file of whose it is.

    Raises
    ------
    ValueError, OSError
    """
    check_folder(trainer, folder)
    owner = _owner(folder / CLAIM)
    if (owner is None or owner.fit != trainer._fit_id) and folder.is_dir() and checkpoints(folder):
        raise ValueError(
            f"The folder {str(folder)!r} has checkpoints, but no file {CLAIM} of this fit, so it may be an "
            "archive of copies. Given as checkpoint= it is written to, and what is in it now stays"
        )


def _check_last(trainer: Any, folder: Path, last: Path) -> None:
    """Refuse a folder by its last checkpoint."""
    advice = "Give another folder, or go on with pm.Trainer.load(...)"
    if last > step_folder(folder, trainer.batches_seen):
        raise ValueError(
            f"The folder {str(folder)!r} has the checkpoint {last.name}, and this fit is at step "
            f"{trainer.batches_seen}: what it saves would not be the last. {advice}, or remove what is later"
        )
    saved = read_checkpoint(last).values.get("fit")
    if saved != trainer._fit_id:
        raise ValueError(
            f"The folder {str(folder)!r} has checkpoints of another fit, such as {last.name}. {advice}"
        )


def check_place(folder: Path) -> None:
    """See that a folder is one, or can be made, before a fit that is to save there.

    Raises
    ------
    NotADirectoryError, PermissionError
    """
    there = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    if not there.is_dir():
        raise NotADirectoryError(
            errno.ENOTDIR,
            f"The folder of checkpoints {str(folder)!r} cannot be made, since {str(there)!r} is no folder. "
            "Give another",
        )
    if not os.access(there, os.W_OK | os.X_OK):
        raise PermissionError(
            errno.EACCES,
            f"The folder of checkpoints {str(folder)!r} cannot be written, since {str(there)!r} is of "
            "somebody else. Give another, or have it made writable",
        )


def check_claim(folder: Path, fit: str) -> None:
    """See that a folder is no other fit's.

    Parameters
    ----------
    folder : Path
        Whose checkpoints, if it has any, are of this fit.
    fit : str

    Raises
    ------
    ValueError
        If another fit made it its own, and is not known to have ended.
    """
    file = folder / CLAIM
    if not os.path.lexists(file):
        return
    owner = _owner(file)
    if owner is not None and (owner.fit == fit or _has_ended(owner, folder)):
        return
    who = "" if owner is None else f" (process {owner.pid} on {owner.host!r})"
    raise ValueError(
        f"The folder {str(folder)!r} is that of another fit{who}, by the file {file.name}. Give another "
        f"folder. If that fit no longer runs and you do not need what it saved, remove {str(file)!r}"
    )


def claim(folder: Path, mine: Claim, disk: Disk | None = None) -> None:
    """Make a folder that of a fit.

    Parameters
    ----------
    folder : Path
        It is made, if it is not there.
    mine : Claim
    disk : Disk, optional

    Raises
    ------
    ValueError
        If it is another fit's.
    CheckpointSaveError
        If nothing can be written there.
    """
    disk, file = disk or Disk(), folder / CLAIM
    check_claim(folder, mine.fit)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        owner = _owner(file)
        if owner != mine:
            _write(file, replace(mine, after=_after(folder, owner, mine)), disk)
    except FileExistsError:  # another was faster
        check_claim(folder, mine.fit)
    except OSError as error:
        raise CheckpointSaveError.of(folder, error) from error
    hold(folder, mine)


def _after(folder: Path, owner: Claim | None, mine: Claim) -> int:
    """Return the last step in a folder that was there before the fit first made it its own."""
    if owner is not None and owner.fit == mine.fit:
        return owner.after
    return max((step_of(path) or 0 for path in checkpoints(folder)), default=-1)


def hold(folder: Path, mine: Claim) -> Claim:
    """See that a folder still is that of a fit, and return what its file says.

    Raises
    ------
    CheckpointSaveError
    """
    owner = _owner(folder / CLAIM)
    if owner is None or owner != mine:
        who = "nobody" if owner is None else f"process {owner.pid} on {owner.host!r}"
        same = owner is not None and owner.fit == mine.fit
        raise CheckpointSaveError.of(
            folder,
            OSError(
                errno.EBUSY,
                f"the folder is now that of {who}, which {'goes on with this fit' if same else 'has it'}",
            ),
        )
    return owner


def _write(file: Path, mine: Claim, disk: Disk) -> None:
    """Write the file, in the place of an older one of this fit, or of one that has ended."""
    text = json.dumps(asdict(mine)).encode() + b"\n"
    if os.path.lexists(file):
        mine_first = file.with_name(f"{CLAIM}.{mine.run}")
        write_file(disk, mine_first, [text])
        os.replace(mine_first, file)
    else:
        write_file(disk, file, [text])
    disk.sync_folder(file.parent)


def _owner(file: Path) -> Claim | None:
    """Read who made a folder its own, None where that cannot be read."""
    try:
        values = json.loads(file.read_bytes())
        fit, run, host, pid = (values[name] for name in ("fit", "run", "host", "pid"))
        return Claim(str(fit), str(run), str(host), int(pid), int(values.get("after", -1)))
    except (OSError, ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None


def _has_ended(owner: Claim, folder: Path) -> bool:
    """Tell whether a fit has ended for sure, and saved nothing that another could take for its own."""
    if checkpoints(folder) or os.name != "posix" or owner.host != socket.gethostname():
        return False
    if owner.pid <= 0:
        return False
    try:
        os.kill(owner.pid, 0)  # signal 0 asks only whether there is such a process
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False
