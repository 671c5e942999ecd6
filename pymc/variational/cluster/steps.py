# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Steps whose gradients workers compute: the driver, which asks for them and takes the step here."""

from __future__ import annotations

import logging
import time

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from pytensor.compile.sharedvalue import SharedVariable

from pymc.variational.cluster.gradients import (
    Gradient,
    GradientProgram,
    GradientsOfWorkers,
    number_of_shards,
    why_no_rounds,
)
from pymc.variational.cluster.pool import Pool, WorkersLostError, open_pool
from pymc.variational.cluster.tables import NewLines, groups_of_shards
from pymc.variational.cluster.workers import Workers
from pymc.variational.engine.batch_feed import BatchFeed, PreparedBatches
from pymc.variational.engine.drivers import Driver, State
from pymc.variational.engine.drivers.base import Run
from pymc.variational.engine.interrupts import Interrupts
from pymc.variational.engine.step import host_value
from pymc.variational.engine.step_cache import Step
from pymc.variational.fitting import FitState
from pymc.variational.report import Setting

__all__ = ["StepsOnWorkers", "put_on_workers", "steps_by"]

_log = logging.getLogger("pymc.variational.inference")

#: Steps after which their time is compared with that of one process
TIMED_STEPS = 20


class StepsOnWorkers:
    """Driver of steps whose gradients come from workers, while there is a pool of them.

    Parameters
    ----------
    step : Step
        Takes a step with the gradients in `received`.
    objective : GradientsOfWorkers
    feed : BatchFeed
        Counts the batches.
    n_shards : int
    """

    name = "workers"

    def __init__(
        self,
        step: Step,
        objective: GradientsOfWorkers,
        feed: BatchFeed,
        n_shards: int,
    ) -> None:
        self._driver: Driver = step.driver
        self._received = step.shared.index(objective.received)
        self._seed = step.shared.index(objective.seed)
        self._dense = [step.shared.index(param) for param in objective.params]
        self._feed, self._n_shards = feed, n_shards
        self._objective, self._shared = objective, step.shared
        if objective.owners is not None:
            objective.owners.n_shards = n_shards
            self._factor = step.shared.index(objective.row_factor)
        self._watched = objective.watched
        self._rounds = "" if why_no_rounds(objective) else ", exchange=pm.Rounds(250)"
        self.note_sent()
        self.pool: Pool | None = None
        self.interrupts: Interrupts | None = None
        self._times: list[tuple[float, float]] = []

    @property
    def settings(self) -> dict[str, Setting]:
        """What a report says beside the workers."""
        return {}

    def load(self, shared: Sequence[SharedVariable]) -> State:
        return self._driver.load(shared)

    def store(self, state: State, shared: Sequence[SharedVariable]) -> None:
        self._driver.store(state, shared)

    def copy(self, state: State) -> State:
        return self._driver.copy(state)

    def compile(self, state: State) -> None:
        self._driver.compile(state)

    def prepare_batches(self, values: tuple[np.ndarray, ...]) -> Any:
        return self._driver.prepare_batches(values)

    def run(self, state: State, n_steps: int, batches: PreparedBatches | None = None) -> Run:
        """Take one step: the loop makes callbacks between any two, since messages take longer."""
        started, values = time.perf_counter(), list(state)
        dense = [np.ravel(values[i]) for i in self._dense]
        point = np.concatenate([np.zeros(0), *dense])
        number, owners = self._feed.n_used, self._objective.owners
        last = None if owners is None else owners.last
        task = Gradient(point, number, int(values[self._seed]), self._changed(), last)
        values[self._received], seconds = self._sum(task)
        settings = [] if owners is None else self._settings(values)
        # After an error, the fit is where it was before this step
        state, loss = self._driver.run(self._driver.copy(tuple(values)), 1)
        if owners is not None:
            factor = float(np.asarray(state[self._factor]))
            is_good = np.isfinite(loss.flat[0])
            owners.last = NewLines(number, factor, settings) if is_good else None
        self._compare(time.perf_counter() - started, seconds)
        return Run(state, loss)

    def _settings(self, values: Sequence[Any]) -> list[np.ndarray]:
        """Return what the optimizer of rows reads in a step."""
        shared = self._shared
        return [
            np.array(values[shared.index(var)] if var in shared else host_value(var))
            for var in self._objective.row_settings
        ]

    def note_sent(self) -> None:
        """Note that workers have the present values of what they compute with."""
        self._sent = [var.container.storage[0] for var in self._watched]

    def _changed(self) -> dict[int, Any]:
        """Return the values that a callback or the user has set since."""
        return {
            i: host_value(var)
            for i, (var, sent) in enumerate(zip(self._watched, self._sent, strict=True))
            if var.container.storage[0] is not sent
        }

    def _sum(self, task: Gradient) -> tuple[np.ndarray, float]:
        """Return the sum of the workers' gradients, and of their seconds."""
        if self._objective.owners is not None:
            self._objective.owners.check()
        if self.pool is None:
            raise RuntimeError(
                "The workers of a fit end with each call of it: write trainer.fit(n) for more steps"
            )
        groups = groups_of_shards(self._n_shards, self.pool.workers.n)
        parts = self.pool.map(task, groups, self._check)
        return np.sum([part for part, _ in parts], axis=0), sum(seconds for _, seconds in parts)

    def _check(self) -> None:
        if self.interrupts is not None and self.interrupts.pending:
            raise KeyboardInterrupt

    def _compare(self, seconds: float, in_one_process: float) -> None:
        """Warn, once, if workers make steps slower."""
        if len(self._times) > TIMED_STEPS or self.pool is None or self.pool.workers.n == 1:
            return
        self._times.append((seconds, in_one_process))
        if len(self._times) <= TIMED_STEPS:
            return
        step, alone = np.median(self._times[TIMED_STEPS // 4 :], axis=0)
        if alone < step:
            _log.warning(
                "A step takes %.3g ms with %d workers, and its gradient would take %.3g ms in one process: messages take "
                "longer than the work. Take larger batches%s, method='auto', or leave workers out",
                1e3 * step,
                self.pool.workers.n,
                1e3 * alone,
                self._rounds,
            )


def put_on_workers(state: FitState, objective: GradientsOfWorkers, batch_size: int) -> FitState:
    """Let the steps of a prepared fit take gradients of workers."""
    assert state.feed is not None
    driver = StepsOnWorkers(state.step, objective, state.feed, number_of_shards(batch_size))
    report = replace(state.report, driver=driver.name)
    return state._replace(step=replace(state.step, driver=driver), report=report)


@contextmanager
def steps_by(workers: Workers, state: FitState, program: GradientProgram) -> Iterator[Pool]:
    """Let workers compute the gradients of the steps of a fit, within the context.

    Those that have parameters of rows go on, until the fit is not needed any more.
    """
    driver = state.step.driver
    assert isinstance(driver, StepsOnWorkers)
    owners = program.objective.owners
    with ExitStack() as stack:
        if owners is not None and owners.pool is not None:
            if owners.is_new_step:
                owners.take_over(program)
                driver.note_sent()
            driver.pool = owners.pool
        else:
            if owners is not None:
                owners.check()
            driver.pool = stack.enter_context(open_pool(workers, program))
            driver.note_sent()
            if owners is not None:
                owners.open(driver.pool)
                owners.ends_with(stack.pop_all())
        try:
            yield driver.pool
        except WorkersLostError:
            if owners is not None:
                owners.close()
            raise
        finally:
            driver.pool = None
