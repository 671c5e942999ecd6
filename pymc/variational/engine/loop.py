# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""The loop of a fit: it runs many steps in one call, and all that needs Python between two calls.

The number of steps of a call follows from the callbacks that are due, and from a slice of wall time that is
short enough for Ctrl-C and a moving progress bar. It does not change what the fit computes.
"""

from __future__ import annotations

import time

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

from pytensor.compile.sharedvalue import SharedVariable

from pymc.variational.engine.batch_feed import BatchFeed, PreparedBatches
from pymc.variational.engine.callback_schedule import next_call
from pymc.variational.engine.drivers import State
from pymc.variational.engine.interrupts import Interrupts
from pymc.variational.engine.step_cache import Step
from pymc.variational.progress import FitProgress

if TYPE_CHECKING:
    from pymc.variational.approximation import GuideApproximation

__all__ = ["ENDED", "LoopEnd", "LossHistory", "NotFinite", "TakesEnd", "run_loop"]

#: Called as ``callback(approx, losses, i)``
Callback = Callable[["GuideApproximation", np.ndarray | None, int], None]

# Wall time of one compiled call, in seconds: Ctrl-C waits for its end
SLICE = 0.1

#: Why a loop stopped whose batches came to an end
ENDED = "the source has ended"


@dataclass(frozen=True)
class LoopEnd:
    """The result of a loop."""

    n_steps: int  # that completed
    losses: np.ndarray  # float64 of shape (n_steps,); empty for steps without a loss
    seconds: float  # from the first step to the last, with callbacks
    stopped: str  # "finished", "interrupted", or the message of a callback's `StopIteration`
    aux_losses: np.ndarray = field(default_factory=lambda: np.empty((0, 0)))  # (n_steps, n)
    #: Of a callback or of the source, SystemExit too. The caller raises it when all is stored
    error: BaseException | None = None


@runtime_checkable
class TakesEnd(Protocol):
    """A callback that needs the results of the loop so far, such as one that writes a checkpoint."""

    def tell(self, end: LoopEnd) -> None:
        """Take the results of the loop, before the call that is due."""


@runtime_checkable
class Interruptible(Protocol):
    """A driver that waits for others in `run`, which takes one step.

    If a signal is pending, it raises KeyboardInterrupt there.
    """

    interrupts: Interrupts | None


class Watches(Protocol):
    """Recorder of parts of the state of a fit, at multiples of `every` steps."""

    every: int

    def record(self, state: Sequence[object]) -> None:
        """Record what is needed of the state of a driver."""


class NotFinite(Exception):
    """A step gave a loss or parameters that are not finite.

    `end` is that of the good steps: the shared variables have the values after the last of them. The loss and
    the batch are those of the bad step.
    """

    def __init__(self, end: LoopEnd, loss: float, batches: PreparedBatches | None = None) -> None:
        super().__init__(f"step {end.n_steps + 1}: loss {loss}")
        self.end, self.loss, self.batches = end, loss, batches


class LossHistory:
    """The losses of a fit, in an array that doubles when it is full."""

    def __init__(self) -> None:
        self._array = np.empty(1024)
        self._n = 0

    def __len__(self) -> int:
        return self._n

    @property
    def losses(self) -> np.ndarray:
        """All losses, float64 of shape (n_steps,): a view, which later losses do not change."""
        return self._array[: self._n]

    def extend(self, losses: np.ndarray) -> None:
        """Add the losses of the last steps, shape (n,)."""
        needed = self._n + len(losses)
        if needed > len(self._array):
            larger = np.empty(max(needed, 2 * len(self._array)))
            larger[: self._n] = self.losses
            self._array = larger
        self._array[self._n : needed] = losses
        self._n = needed

    def recent_mean(self, n: int = 1000) -> float:
        """Return the mean of the finite ones among the last `n` losses, nan if there are none."""
        recent = self.losses[-n:]
        recent = recent[np.isfinite(recent)]
        return float(recent.mean()) if recent.size else np.nan


class ChunkSizer:
    """The number of steps that take a slice of wall time, from the steps that ran."""

    def __init__(self, seconds: float = SLICE) -> None:
        self.n_steps = 1
        self._slice = seconds

    def update(self, n_steps: int, seconds: float) -> None:
        """Learn from `n_steps` that took `seconds`, with care: a first call may be slow or fast."""
        fitting = int(n_steps * self._slice / max(seconds, 1e-9))
        self.n_steps = max(1, min(fitting, 8 * max(n_steps, self.n_steps)))


def run_loop(
    step: Step,
    n_steps: int,
    *,
    approx: GuideApproximation,
    params: Sequence[SharedVariable],
    callbacks: Sequence[Callback] = (),
    progress: FitProgress,
    n_before: int = 0,
    feed: BatchFeed | None = None,
    interrupts: Interrupts | None = None,
    check: Callable[[], None] = lambda: None,
    watch: Watches | None = None,
) -> LoopEnd:
    """Take `n_steps` steps.

    Parameters
    ----------
    step : Step
    n_steps : int
    approx : Approximation
        For callbacks. Whenever one runs, the shared variables have the values after its step.
    params : sequence of SharedVariable
        They have to stay finite. A guarded step sees to it itself.
    callbacks : sequence of callable
        Called as ``callback(approx, losses, i)``, with the losses of this loop so far (None for steps
        without one) and the number of steps in all, at the steps of
        :func:`~pymc.variational.engine.callback_schedule.next_call`.
    progress : FitProgress
    n_before : int
        Steps of earlier loops, which count for `i`.
    feed : BatchFeed, optional
        A batch for each step. Whenever a callback runs, its variables have the batch of that step.
    interrupts : Interrupts, optional
        Those of a caller that has more to do before a signal takes its course.
    check : callable
        Called after callbacks that changed the shape of data: it raises if no step can use these.
    watch : Watches, optional
        Records parts of the state at each multiple of its `every` steps of this loop.

    Returns
    -------
    LoopEnd
        Also where a callback or the source raised an error.

    Raises
    ------
    NotFinite
        The state and the losses are those of the good steps before.
    """
    indexes = [i for i, var in enumerate(step.shared) if var in set(params)]
    run = _Loop(step, n_steps, n_before, feed, approx, indexes, callbacks, progress, check, watch)
    reading = nullcontext() if feed is None else feed.reading(n_steps)
    delayed = Interrupts() if interrupts is None else nullcontext(interrupts)
    with progress, delayed as signals, reading:
        if isinstance(step.driver, Interruptible):
            step.driver.interrupts = signals
        try:
            run.go(signals)
            if signals.pending:
                run.stopped = "interrupted"
        except KeyboardInterrupt:
            run.stopped = "interrupted"
        except StopIteration as stop:
            run.stopped = str(stop) or "stopped by a callback"
        except NotFinite:
            raise
        except BaseException as error:
            run.stopped, run.error = f"{type(error).__name__}: {error}", error
        finally:
            step.store(run.state)
    return run.end()


@dataclass
class _Loop:
    """A loop in progress."""

    step: Step
    n_steps: int
    n_before: int
    feed: BatchFeed | None
    approx: GuideApproximation
    params: list[int]  # their places in the state
    callbacks: Sequence[Callback]
    progress: FitProgress
    check: Callable[[], None]
    watch: Watches | None

    def __post_init__(self) -> None:
        one_step = isinstance(self.step.driver, Interruptible)
        self.history, self.sizer = LossHistory(), ChunkSizer(0 if one_step else SLICE)
        self.aux_losses: list[np.ndarray] = []
        self.state, self.done, self.stopped = self.step.load(), 0, "finished"
        self.error: BaseException | None = None
        self.began = time.perf_counter()

    def end(self) -> LoopEnd:
        seconds = time.perf_counter() - self.began
        aux_losses = np.concatenate(self.aux_losses or [np.empty((0, 0))])
        return LoopEnd(
            self.done, self.history.losses, seconds, self.stopped, aux_losses, self.error
        )

    def go(self, interrupts: Interrupts) -> None:
        """Take steps until all are done, one is not finite, the batches end, or a signal is pending."""
        while self.done < self.n_steps and not interrupts.pending:
            i = self.n_before + self.done
            due_in = [next_call(callback, i, self.n_before) - i for callback in self.callbacks]
            every = self.n_steps if self.watch is None else self.watch.every
            next_record = every - self.done % every
            n_next = min(self.sizer.n_steps, next_record, *due_in)
            if self.step.at_once > 1:
                n_next = self.step.at_once
            n_next = min(self.n_steps - self.done, n_next)
            batches = None
            if self.feed is not None:
                n_next = min(n_next, self.feed.n_ready(interrupts.allowed()))
                if not n_next:
                    self.stopped = ENDED
                    return
                batches = self.feed.prepared(self.step.driver, self.step.batch_variables)
            self._advance(n_next, batches)
            if self.watch is not None and n_next >= next_record:
                self.watch.record(self.state)
            due = [callback for callback, n in zip(self.callbacks, due_in) if n <= n_next]
            if due:
                self._call(due, interrupts)

    def _advance(self, n_steps: int, batches: PreparedBatches | None) -> None:
        """Take steps, and keep their losses."""
        losses, bad_loss = self._take(n_steps, batches)
        n_taken = len(losses)
        self.done += n_taken
        if self.feed is not None:
            self.feed.advance(n_taken)
        if losses.ndim == 2:
            self.aux_losses.append(losses[:, 1:])
            losses = losses[:, 0]
        if self.step.has_loss:
            self.history.extend(losses)
        if bad_loss is not None:
            bad = batches and batches._replace(start=batches.start + len(losses))
            raise NotFinite(self.end(), bad_loss, bad)
        self.progress.update(self.done, self.history, last=self.done == self.n_steps)

    def _take(
        self, n_steps: int, batches: PreparedBatches | None
    ) -> tuple[np.ndarray, float | None]:
        """Take steps. Return the losses of the good ones, and that of a bad one."""
        step = self.step
        before = () if step.guarded else step.driver.copy(self.state)
        began = time.perf_counter()
        self.state, losses = step.driver.run(self.state, n_steps, batches)
        self.sizer.update(len(losses), time.perf_counter() - began)
        last = _last(losses)
        if step.guarded:
            return (losses, None) if np.isfinite(last) else (losses[:-1], last)
        if self._is_good(self.state, losses):
            return losses, None
        self.state, n_good = self._rewind(before, len(losses), batches)
        return losses[:n_good], last

    def _is_good(self, state: State, losses: np.ndarray) -> bool:
        if self.step.has_loss and not np.isfinite(_last(losses)):
            return False
        return all(np.isfinite(np.asarray(state[i])).all() for i in self.params)

    def _rewind(
        self, before: State, n_run: int, batches: PreparedBatches | None
    ) -> tuple[State, int]:
        """Find the last good state of `n_run` steps, by running them again from a copy of the first.

        A step that makes a parameter nan may have a good loss itself, and the next has the bad one.
        """
        driver = self.step.driver
        good, bad, state = 0, n_run, driver.copy(before)
        guesses = [n_run - 1, n_run - 2]
        while bad - good > 1:
            guess = guesses.pop(0) if guesses else (good + bad) // 2
            if not good < guess < bad:
                continue
            tried, losses = driver.run(driver.copy(before), guess, batches)
            if self._is_good(tried, losses):
                state, good = tried, guess
            else:
                bad = guess
        return state, good

    def _call(self, due: Sequence[Callback], interrupts: Interrupts) -> None:
        """Call callbacks in the state after the last step. The values that they set count."""
        self.step.store(self.state)
        if self.feed is not None:
            self.feed.store_last()
        shapes = self._shapes()
        try:
            with interrupts.allowed():
                for callback in due:
                    if isinstance(callback, TakesEnd):
                        callback.tell(self.end())
                    losses = self.history.losses if self.step.has_loss else None
                    callback(self.approx, losses, self.n_before + self.done)
            if self._shapes() != shapes:
                self.check()
        finally:  # also if it stops the fit
            self.state = self.step.load()

    def _shapes(self) -> list[tuple[int, ...]]:
        return [np.shape(var.container.storage[0]) for var in self.step.shared]


def _last(losses: np.ndarray) -> float:
    """Return the loss of the last step, without its auxiliary losses."""
    return float(losses[-1].flat[0])
