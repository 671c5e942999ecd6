# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""A pool of workers in this process, and a small model for them."""

from __future__ import annotations

import signal

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import cloudpickle
import numpy as np
import pytest

import pymc as pm

from pymc.variational.cluster.gradients import GradientProgram
from pymc.variational.cluster.worker import Task
from tests.variational.engine import PYTHON

QUIET: dict[str, Any] = {"compile_kwargs": {"mode": PYTHON}, "progressbar": False}

#: A number of rows that no number of shards divides
N, B = 203, 16
Y = np.random.default_rng(1).normal(1.0, 2.0, size=N)
X = np.random.default_rng(2).normal(size=(N, 2))


@dataclass
class InProcess:
    """Maps tasks in this process, on a copy of the program for each worker."""

    workers: pm.Workers
    programs: list[GradientProgram]
    settings: dict[str, Any]

    @property
    def processes(self) -> list[tuple[str, int]]:
        return [("here", k) for k in range(self.workers.n)]

    def rebuild(self, program: GradientProgram) -> None:
        sent = cloudpickle.dumps(program)
        for k, before in enumerate(self.programs):
            self.programs[k] = cloudpickle.loads(sent)
            self.programs[k].build()
            self.programs[k].take_over(before)
            close(before)

    def map(
        self, task: Task, items: Sequence[Any], check: Callable[[], None] = lambda: None
    ) -> list[Any]:
        n, n_items = self.workers.n, len(items)
        program = [k for k in range(n) for _ in range(k * n_items // n, (k + 1) * n_items // n)]
        found = [task(self.programs[program[i]], items[i]) for i in range(n_items)]
        check()
        return found


def close(program: GradientProgram) -> None:
    """End the threads that read, as the end of a worker does."""
    for rows in program._shards.values():
        if isinstance(rows._chunks, Generator):
            rows._chunks.close()


def loader_of(**options: Any) -> pm.DataLoader:
    return pm.DataLoader({"x": X, "y": Y}, B, **{"shuffle": True, "seed": 1} | options)


def regression(loader: pm.DataLoader) -> pm.Model:
    with pm.Model() as model:
        x = pm.Data("x", loader, dims=("obs", "column"))
        y = pm.Data("y", loader, dims="obs")
        b = pm.Normal("b", 0, 3, shape=2)
        s = pm.HalfNormal("s", 2)
        pm.Normal("like", x @ b, s, observed=y, dims="obs")
    return model


def trainer_of(
    workers: Any,
    method: str = "advi",
    make: Callable = regression,
    loader: pm.DataLoader | None = None,
    **options: Any,
) -> pm.Trainer:
    loader = loader_of() if loader is None else loader
    options = {"random_seed": 1, "obj_optimizer": pm.adam(learning_rate=0.02)} | QUIET | options
    return pm.Trainer(method, dataloader=loader, model=make(loader), workers=workers, **options)


def program_of(trainer: pm.Trainer) -> GradientProgram:
    """Return the program of a trainer's workers, built here."""
    trainer.prepare()
    program = GradientProgram(
        trainer.inference.objective,
        trainer.dataloader,
        "batch",
        compile_kwargs=QUIET["compile_kwargs"],
    )
    program.build()
    return program


def values_of(trainer: pm.Trainer) -> list[np.ndarray]:
    return [param.get_value() for param in trainer.approx.params]


def same(first: pm.Trainer, second: pm.Trainer, rtol: float = 1e-10) -> None:
    for value, other in zip(values_of(first), values_of(second), strict=True):
        np.testing.assert_allclose(value, other, rtol=rtol, atol=rtol)
    np.testing.assert_allclose(first.hist, second.hist, rtol=rtol)


def latent(loader: pm.DataLoader) -> pm.Model:
    with pm.Model() as model:
        y = pm.Data("y", loader, dims="obs")
        z = pm.Normal("z", pm.Normal("m", 0, 2), 1, dims="obs")
        pm.Normal("like", z, 1, observed=y, dims="obs")
    return model


@contextmanager
def interrupted_at(number: int) -> Iterator[None]:
    """Press Ctrl-C, once, while workers compute the gradient of a batch."""
    gradient, pressed = GradientProgram.gradient, list[int]()

    def press(self: Any, task: Any, shard: int) -> Any:
        if task.number == number and shard == 0 and not pressed:
            pressed.append(number)
            signal.raise_signal(signal.SIGINT)
        return gradient(self, task, shard)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(GradientProgram, "gradient", press)
            yield
    finally:
        signal.signal(signal.SIGINT, before)
