# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""A program for workers, and tasks that go wrong."""

from __future__ import annotations

import os
import signal
import time

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass
class Squares:
    """Knows nothing but a number that it has built."""

    number: int
    facts: Mapping[str, Any]
    wrong: str = ""

    def build(self) -> None:
        if self.wrong == "module":
            import only_on_the_driver  # type: ignore[import-not-found]  # noqa: F401
        if self.wrong == "file":
            raise FileNotFoundError(2, "No such file or directory", "rows.parquet")
        self.built = self.number

    keeps_state = False

    @property
    def data(self) -> Mapping[str, Any]:
        return self.facts


@dataclass(frozen=True)
class Square:
    """The square of an item, and the process that computed it."""

    seconds: float = 0.0

    def __call__(self, program: Squares, item: int) -> tuple[int, int]:
        time.sleep(self.seconds)
        return program.built + item**2, os.getpid()


@dataclass(frozen=True)
class Once:
    """The same, but the first process that meets an item gets a signal."""

    folder: Path
    item: int
    signal: signal.Signals

    def __call__(self, program: Squares, item: int) -> tuple[int, int]:
        if item == self.item:
            try:
                (self.folder / "seen").touch(exist_ok=False)
            except FileExistsError:
                pass
            else:
                os.kill(os.getpid(), self.signal)
                time.sleep(0.5)
        return Square(0.02)(program, item)


@dataclass(frozen=True)
class Fails:
    """Raises, or ends its process, each time."""

    exits: bool = False

    def __call__(self, program: Squares, item: int) -> None:
        if self.exits:
            os._exit(3)
        raise FloatingPointError(f"item {item} is not finite")
