# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Disks that fail at a chosen call, and checkpoints that were changed."""

from __future__ import annotations

import errno
import os
import shutil
import signal

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pymc.variational.checkpoints import store
from pymc.variational.checkpoints.store import (
    Checkpoint,
    earlier_checkpoints,
    read_newest,
    remove_checkpoints,
    write,
)

#: The long tests run with SOAK=1, in `make soak`.
SOAK = os.environ.get("SOAK") == "1"

OS_CALLS = ("mkdir", "open", "fsync", "close", "rename", "unlink")


class Faulty:
    """Functions of which the k-th call, from 0 on, meets a fault; writes are half done by then."""

    def __init__(self, k: int, fault: Callable[[], None], later_too: bool = False) -> None:
        self.k, self.fault, self.n, self.later_too = k, fault, 0, later_too

    def call(self, function: Callable[..., Any], before: Callable[..., Any] | None = None) -> Any:
        def counted(*args: Any) -> Any:
            self.n += 1
            if self.n - 1 == self.k or (self.later_too and self.n > self.k):
                if before is not None:
                    before(*args)
                self.fault()
            return function(*args)

        return counted


class Proxy:
    """A module of which some functions are others."""

    def __init__(self, module: Any, **functions: Any) -> None:
        self.module = module
        self.__dict__.update(functions)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.module, name)


@contextmanager
def faulty_disk(k: int, fault: Callable[[], None], later_too: bool = False) -> Iterator[Faulty]:
    """Let the k-th call of saves to the operating system fail, and later ones too if so asked."""
    faulty = Faulty(k, fault, later_too)
    calls = {name: faulty.call(getattr(os, name)) for name in OS_CALLS}
    calls["close"] = faulty.call(os.close, before=os.close)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "os", Proxy(os, **calls))
        patch.setattr(
            store, "shutil", Proxy(shutil, rmtree=faulty.call(shutil.rmtree, half_removed))
        )
        for name in ("_write_tensors", "write_file"):
            patch.setattr(store, name, faulty.call(getattr(store, name), half_written))
        yield faulty


def half_written(path: Path, data: Any) -> None:
    path.write_bytes(b"half")


def half_removed(path: Path) -> None:
    """Remove the first file of a folder."""
    if path.is_dir():
        min(path.iterdir()).unlink()


def failing(number: int) -> Callable[[], None]:
    def fail() -> None:
        raise OSError(number, os.strerror(number))

    return fail


def killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


FAULTS = {"ENOSPC": failing(errno.ENOSPC), "EIO": failing(errno.EIO)}


def contents(k: int) -> Checkpoint:
    """What the k-th checkpoint holds."""
    rng = np.random.default_rng(k)
    tensors = {"mu": rng.normal(size=7), "n": np.array(k), "table": rng.normal(size=(40, 4))}
    return Checkpoint({"k": k, "rng": None}, tensors)


def same(left: Checkpoint, right: Checkpoint) -> bool:
    return left.contents == right.contents and all(
        left.values[name].tobytes() == right.values[name].tobytes()  # type: ignore[union-attr]
        for name in right.values
    )


def write_and_keep(path: Path, checkpoint: Checkpoint, keep: int | None = None) -> Path:
    """Write a checkpoint, and remove all but the last `keep`."""
    write(path, checkpoint)
    if keep is not None:
        remove_checkpoints(earlier_checkpoints(path)[: 1 - keep or None])
    return path


def killed_saves(folder: Path, saved: int, next_path: Path, keep: int | None) -> list[int]:
    """Kill a save at each of its calls, and read after each; return what was the newest then."""
    found = []
    for k in range(1000):
        child = os.fork()
        if child == 0:
            try:
                with faulty_disk(k, killed):
                    write_and_keep(next_path, contents(saved + 1), keep)
            finally:
                os._exit(0)
        _, status = os.waitpid(child, 0)
        _, newest = read_newest(folder)
        assert any(same(newest, contents(j)) for j in (saved, saved + 1)), k
        found.append(int(newest.contents["k"]))
        if not os.WIFSIGNALED(status):
            return found
    raise AssertionError("it never ended")
