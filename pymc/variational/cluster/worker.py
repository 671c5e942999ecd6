# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""A worker process: it builds a program once, and runs tasks of it."""

from __future__ import annotations

import os
import platform
import socket

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NamedTuple, Protocol, TypeAlias

import cloudpickle
import pytensor

__all__ = ["About", "Program", "Task", "Worker", "package_versions"]

#: Packages whose versions have to agree on all workers: they compute, or define what is sent
PACKAGES = ("pymc-minibatch", "pymc", "pytensor", "numpy", "numba", "cloudpickle")


class Program(Protocol):
    """What workers compute with: it is sent to each worker once, and may keep what it builds there."""

    @property
    def keeps_state(self) -> bool:
        """Whether a worker has what no other has, so that its items are for it alone."""

    def build(self) -> None:
        """Build on a worker what tasks need, such as compiled functions."""

    @property
    def data(self) -> Mapping[str, Any]:
        """Facts, in JSON, by which the data are recognised on each worker."""


#: What a program computes for an item, such as a shard of the rows. It is sent to all workers, with its arguments
Task: TypeAlias = Callable[[Any, Any], Any]


class About(NamedTuple):
    """Where a worker runs, and with what."""

    node: str
    pid: int
    versions: Mapping[str, str]
    data: Mapping[str, Any]


def package_versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that compute."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


class Worker:
    """The process that Ray starts. Errors come from its methods: one in ``__init__`` would look like a lost worker."""

    def __init__(self) -> None:
        self._program: Any = None

    def where(self) -> tuple[str, int]:
        """Return the node and the process, also while a task runs."""
        return socket.gethostname(), os.getpid()

    def build(self, program: bytes, flags: Mapping[str, Any]) -> About:
        """Build the program, with flags of PyTensor."""
        with self._named_in_errors():
            for name, value in flags.items():
                setattr(pytensor.config, name, value)
            new = cloudpickle.loads(program)
            new.build()
            if self._program is not None:
                new.take_over(self._program)
            self._program = new
            return About(*self.where(), package_versions(), self._program.data)

    def run(self, task: bytes, items: Sequence[Any]) -> list[Any]:
        """Run a task on some items, one after the other."""
        with self._named_in_errors():
            of_item: Task = cloudpickle.loads(task)
            return [of_item(self._program, item) for item in items]

    @contextmanager
    def _named_in_errors(self) -> Iterator[None]:
        node, pid = self.where()
        try:
            yield
        except ModuleNotFoundError as error:
            error.add_note(
                f"Raised by a worker on node {node}: workers import what the model uses. Install the package on "
                "all nodes, or define the function in the script itself"
            )
            raise
        except Exception as error:
            error.add_note(f"Raised by a worker on node {node}, process {pid}")
            raise
