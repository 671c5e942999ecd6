# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Steps whose loops are in PyTensor's cache of Numba functions, by their keys.

A small file beside the loop says under which key the loop lies, and in which order it takes the inputs of
the graph. A file that cannot be read or written is as none.
"""

from __future__ import annotations

import json
import os
import uuid

from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pytensor

__all__ = ["SavedStep"]


class SavedStep(NamedTuple):
    """What is needed to load the loop of a step."""

    loop_key: str
    order: tuple[int, ...]  # of the inputs of the graph
    updates: dict[int, int]  # index of an input -> index of the output that is its next value

    @classmethod
    def read(cls, key: str) -> SavedStep | None:
        """Return what was saved under the key of a step, if anything was."""
        try:
            loop_key, order, updates = json.loads(_file(key).read_text())
            return cls(str(loop_key), tuple(map(int, order)), {int(i): int(j) for i, j in updates})
        except (OSError, ValueError, TypeError):
            return None

    def write(self, key: str) -> None:
        """Save it, in one go: other processes may read."""
        file = _file(key)
        text = json.dumps([self.loop_key, self.order, list(self.updates.items())])
        new = file.with_suffix(f".{uuid.uuid4().hex}")
        try:
            new.write_text(text)
            os.replace(new, file)
        except OSError:
            with suppress(OSError):
                new.unlink(missing_ok=True)  # half of it, on a disk that is full


def _file(key: str) -> Path:
    return Path(pytensor.config.base_compiledir) / "numba" / f"pymc_step-{key}.json"
