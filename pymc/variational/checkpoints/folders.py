# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""What a checkpoint is called, and what its files are called."""

from __future__ import annotations

import json
import re

from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

__all__ = [
    "FORMAT",
    "MANIFEST",
    "REPLACED",
    "TENSORS",
    "VALUES",
    "Contents",
    "before",
    "canonical",
    "checkpoints",
    "is_one",
    "signed",
    "step_folder",
    "step_of",
]

TENSORS, VALUES, MANIFEST = "state.safetensors", "checkpoint.json", "manifest.json"

#: What the manifest begins with; the number is that of the form of the files.
FORMAT = "PyMC checkpoint 2"

_STEP = re.compile(r"step-(\d{9,18})")

#: How the hidden name of a checkpoint ends that is being replaced.
REPLACED = ".replaced"


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
    >>> from pathlib import Path
    >>> from pymc.variational.checkpoints.folders import step_folder
    >>> step_folder(Path("fits"), 12345).name
    'step-000012345'
    """
    return folder / f"step-{step:09d}"


def step_of(path: Path) -> int | None:
    """Tell which step a checkpoint is called after, if it is called as that of a step.

    Examples
    --------
    >>> from pathlib import Path
    >>> from pymc.variational.checkpoints.folders import step_of
    >>> step_of(Path("fits/step-000012345")), step_of(Path("fits/best"))
    (12345, None)
    """
    name = path.name
    if name.startswith(".") and name.endswith(REPLACED):
        name = name.removeprefix(".").removesuffix(REPLACED)
    match = _STEP.fullmatch(name)
    return None if match is None else int(match[1])


def is_one(path: Path) -> bool:
    """Tell whether a folder is a checkpoint, if perhaps a damaged one, and no folder of checkpoints.

    A folder of checkpoints may be called like one of them, so the name alone does not tell.
    """
    if (path / MANIFEST).exists():
        return True
    return step_of(path) is not None and not _has_manifests(path)


def _has_manifests(path: Path) -> bool:
    return path.is_dir() and any((inner / MANIFEST).exists() for inner in path.glob("*step-*"))


def checkpoints(folder: Path) -> list[Path]:
    """List the checkpoints of steps in a folder, those of the last steps last.

    What a save that was killed left is none, but for a checkpoint that was to be replaced.
    """
    found: dict[int, Path] = {}
    for path in sorted(folder.iterdir()):  # hidden names come first, and give way to others
        step = step_of(path)
        if step is not None and is_one(path):
            found[step] = path
    return [found[step] for step in sorted(found)]


def before(path: Path) -> list[Path]:
    """List the checkpoints of earlier steps beside one."""
    there = checkpoints(path.parent)
    return there[: there.index(path)] if path in there else []


def signed(values: Mapping[str, Any]) -> bytes:
    """Make a text of JSON values with a SHA-256 of them."""
    return canonical({**values, "sha256": sha256(canonical(values)).hexdigest()})


def canonical(values: Mapping[str, Any]) -> bytes:
    """Make the one text that JSON values have here."""
    return json.dumps(values, indent=1, sort_keys=True, allow_nan=False).encode() + b"\n"
