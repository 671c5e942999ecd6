# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Disks that fail at a chosen call, and checkpoints that were changed."""

from __future__ import annotations

import errno
import os
import signal

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pymc.variational.checkpoints.disk import Disk
from pymc.variational.checkpoints.files import write
from pymc.variational.checkpoints.folders import Contents
from pymc.variational.checkpoints.reading import read_newest

#: The long tests run with SOAK=1, in `make soak`.
SOAK = os.environ.get("SOAK") == "1"

CALLS = ("make_folder", "create", "write", "sync", "close", "sync_folder", "rename", "remove")


class Counting(Disk):
    """Does something before its k-th call, from 0 on; a write is half done by then."""

    def __init__(self, k: int, fault: Callable[[], None]) -> None:
        self.k, self.fault, self.n = k, fault, 0


def _counted(name: str) -> Callable[..., Any]:
    def call(self: Counting, *args: Any) -> Any:
        self.n += 1
        if self.n - 1 == self.k:
            if name == "write":
                os.write(args[0], args[1][: len(args[1]) // 2])
            if name == "close":
                os.close(args[0])
            self.fault()
        return getattr(Disk, name)(self, *args)

    return call


for _name in (*CALLS, "remove_folder"):
    setattr(Counting, _name, _counted(_name))


def failing(number: int) -> Callable[[], None]:
    def fail() -> None:
        raise OSError(number, os.strerror(number))

    return fail


def killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


FAULTS = {"ENOSPC": failing(errno.ENOSPC), "EIO": failing(errno.EIO)}


def contents(k: int) -> Contents:
    """What the k-th checkpoint holds."""
    rng = np.random.default_rng(k)
    tensors = {"mu": rng.normal(size=7), "n": np.array(k), "table": rng.normal(size=(40, 4))}
    return Contents(tensors, {"k": k, "mu": {"$array": "mu"}, "rng": None})


def same(left: Contents, right: Contents) -> bool:
    return left.values == right.values and all(
        left.tensors[name].tobytes() == right.tensors[name].tobytes() for name in right.tensors
    )


def killed_saves(folder: Path, saved: int, next_path: Path, keep: int | None) -> list[int]:
    """Kill a save at each of its calls, and read after each; return what was the newest then."""
    found = []
    for k in range(1000):
        child = os.fork()
        if child == 0:
            try:
                write(next_path, contents(saved + 1), keep=keep, disk=Counting(k, killed))
            finally:
                os._exit(0)
        _, status = os.waitpid(child, 0)
        _, newest = read_newest(folder)
        assert any(same(newest, contents(j)) for j in (saved, saved + 1)), k
        found.append(int(newest.values["k"]))
        if not os.WIFSIGNALED(status):
            return found
    raise AssertionError("it never ended")
