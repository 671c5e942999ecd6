# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""The loop of a fit: it runs steps many at a time, and between two runs does all that needs Python.

How many, follows from the callbacks that are due, from a slice of wall time short enough for Ctrl-C and
a bar that moves, and from how many are left. It shows in nothing that the fit computes.
"""

from __future__ import annotations

import time

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np

from pytensor.compile.sharedvalue import SharedVariable

from pymc.variational.engine.batch_feed import BatchFeed, PreparedBatches
from pymc.variational.engine.callback_schedule import next_call
from pymc.variational.engine.drivers import State
from pymc.variational.engine.history import LossHistory
from pymc.variational.engine.interrupts import Interrupts
from pymc.variational.engine.step_cache import Step
from pymc.variational.progress import FitProgress

__all__ = ["ENDED", "LoopEnd", "NotFinite", "TakesEnd", "run_loop"]

Callback = Callable[[Any, np.ndarray | None, int], None]

# Wall time of one compiled call, in seconds: Ctrl-C waits for its end
SLICE = 0.1

#: What a loop says whose batches came to an end
ENDED = "the source has ended"


@dataclass(frozen=True)
class LoopEnd:
    """How a loop ended.

    Parameters
    ----------
    n_steps : int
        Steps that completed.
    losses : array of float64, shape (n_steps,)
        Empty for steps without a loss.
    seconds : float
        From the first step to the last, with callbacks.
    stopped : str
        "finished", "interrupted", or the message of a callback's `StopIteration`.
    beside : array of float64, shape (n_steps, n)
        Losses that the steps have beside theirs.
    error : BaseException, optional
        Of a callback, or of the source of batches, SystemExit too: the caller raises it when all is kept.
    """

    n_steps: int
    losses: np.ndarray
    seconds: float
    stopped: str
    beside: np.ndarray = field(default_factory=lambda: np.empty((0, 0)))
    error: BaseException | None = None


@runtime_checkable
class TakesEnd(Protocol):
    """A callback that needs all that there is of a fit, such as one that writes a checkpoint."""

    def tell(self, end: LoopEnd) -> None:
        """Take what the loop has, before the call that is due."""


class Watches(Protocol):
    """Recorder of parts of the state of a fit, now and then."""

    every: int

    def record(self, state: Sequence[Any]) -> None:
        """Take what it needs from the state of a driver."""


class NotFinite(Exception):
    """A step gave a loss or parameters that are not finite.

    Parameters
    ----------
    end : LoopEnd
        Of the good steps; the shared variables have the values after the last of them.
    loss : float
        Of the step that followed.
    fed : PreparedBatches, optional
        The batch of that step.
    """

    def __init__(self, end: LoopEnd, loss: float, fed: PreparedBatches | None = None) -> None:
        super().__init__(f"step {end.n_steps + 1}: loss {loss}")
        self.end = end
        self.loss = loss
        self.fed = fed


class ChunkSizer:
    """How many steps take a slice of wall time, found from those that ran."""

    def __init__(self, seconds: float = SLICE) -> None:
        self.n_steps = 1
        self._slice = seconds

    def took(self, n_steps: int, seconds: float) -> None:
        """Learn from `n_steps` that took `seconds`, with care: a first call may be slow or fast."""
        fitting = int(n_steps * self._slice / max(seconds, 1e-9))
        self.n_steps = max(1, min(fitting, 8 * max(n_steps, self.n_steps)))


def run_loop(
    step: Step,
    n_steps: int,
    *,
    approx: Any,
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
        What callbacks get. Whenever one runs, the shared variables hold the state of its step.
    params : sequence of SharedVariable
        What has to stay finite; a guarded step sees to it itself.
    callbacks : sequence of callable
        Called as ``callback(approx, losses, i)``, with the losses of this loop up to now (None for
        steps without one) and the number of steps in all, 1 after the first, at the steps that
        :func:`~pymc.variational.engine.callback_schedule.next_call` tells.
    progress : FitProgress
    n_before : int
        Steps of earlier loops, which count for `i`.
    feed : BatchFeed, optional
        A batch for each step. Whenever a callback runs, its variables have the batch of that step.
    interrupts : Interrupts, optional
        Those of a caller that has more to do before a signal takes its course.
    check : callable
        Called after callbacks that gave the model data of another length: it raises where no step can
        go on with these.
    watch : Watches, optional
        Looks at the state at each multiple of its `every` steps of this loop.

    Returns
    -------
    LoopEnd
        Also where a callback or the source raised an error.

    Raises
    ------
    NotFinite
        The state and the losses are those of the good steps before.
    """
    run = _Loop(step, n_steps, n_before, feed, approx, tuple(callbacks), progress, check, watch)
    watched = [i for i, var in enumerate(step.shared) if var in set(params)]
    reading = nullcontext() if feed is None else feed.reading(n_steps)
    held_back = Interrupts() if interrupts is None else nullcontext(interrupts)
    with progress, held_back as noted, reading:
        try:
            run.go(watched, noted)
            if noted.pending:
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


class _Loop:
    """A loop on its way: what its steps gave up to now."""

    def __init__(
        self,
        step: Step,
        n_steps: int,
        n_before: int,
        feed: BatchFeed | None,
        approx: Any,
        callbacks: tuple[Callback, ...],
        progress: FitProgress,
        check: Callable[[], None],
        watch: Watches | None,
    ) -> None:
        self.step, self.n_steps, self.n_before, self.feed = step, n_steps, n_before, feed
        self.approx, self.callbacks, self.progress = approx, callbacks, progress
        self.check, self.watch = check, watch
        self.history, self.beside, self.pace = LossHistory(), [np.empty((0, 0))], ChunkSizer()
        self.state, self.done, self.stopped = step.load(), 0, "finished"
        self.error: BaseException | None = None
        self._start = time.perf_counter()

    def end(self) -> LoopEnd:
        seconds = time.perf_counter() - self._start
        beside = np.concatenate(self.beside[1:] or self.beside)
        return LoopEnd(self.done, self.history.losses, seconds, self.stopped, beside, self.error)

    def go(self, watched: Sequence[int], interrupts: Interrupts) -> None:
        """Take steps until all are done, one is not finite, the batches end, or Ctrl-C is noted."""
        while self.done < self.n_steps and not interrupts.pending:
            i = self.n_before + self.done
            due_in = [next_call(callback, i, self.n_before) - i for callback in self.callbacks]
            every = self.n_steps if self.watch is None else self.watch.every
            next_record = every - self.done % every
            n_next = min(self.n_steps - self.done, self.pace.n_steps, next_record, *due_in)
            fed = None
            if self.feed is not None:
                n_next = min(n_next, self.feed.at_hand(interrupts.allowed()))
                if not n_next:
                    self.stopped = ENDED
                    return
                fed = self.feed.next(self.step.driver, self.step.fed)
            self._advance(n_next, watched, fed)
            if self.watch is not None and n_next == next_record:
                self.watch.record(self.state)
            due = [callback for callback, n in zip(self.callbacks, due_in) if n == n_next]
            if due:
                self._call(due, interrupts)

    def _advance(self, n_steps: int, watched: Sequence[int], fed: PreparedBatches | None) -> None:
        """Take steps, and keep their losses."""
        self.state, losses, bad_loss = _take(
            self.step, self.state, n_steps, watched, self.pace, fed
        )
        self.done += len(losses)
        if self.feed is not None:
            self.feed.take(len(losses))
        if losses.ndim == 2:
            self.beside.append(losses[:, 1:])
            losses = losses[:, 0]
        if self.step.has_loss:
            self.history.extend(losses)
        if bad_loss is not None:
            bad = fed and fed._replace(start=fed.start + len(losses))
            raise NotFinite(self.end(), bad_loss, bad)
        self.progress.update(self.done, self.history, last=self.done == self.n_steps)

    def _call(self, due: Sequence[Callback], interrupts: Interrupts) -> None:
        """Call callbacks, in the state after the last step; what they set counts."""
        self.step.store(self.state)
        if self.feed is not None:
            self.feed.show()
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
        finally:  # if it stops the fit too
            self.state = self.step.load()

    def _shapes(self) -> list[tuple[int, ...]]:
        return [np.shape(var.container.storage[0]) for var in self.step.shared]


def _take(
    step: Step,
    state: State,
    n_steps: int,
    watched: Sequence[int],
    pace: ChunkSizer,
    fed: PreparedBatches | None,
) -> tuple[State, np.ndarray, float | None]:
    """Take steps; return the state and losses up to the last good one, and the loss of a bad one."""
    before = () if step.guarded else step.driver.copy(state)
    began = time.perf_counter()
    state, losses = step.driver.run(state, n_steps, fed)
    pace.took(len(losses), time.perf_counter() - began)
    if step.guarded:
        last = _last(losses)
        return (state, losses, None) if np.isfinite(last) else (state, losses[:-1], last)
    if _is_good(step, state, losses, watched):
        return state, losses, None
    state, n_good = _rewind(step, before, len(losses), watched, fed)
    return state, losses[:n_good], _last(losses)


def _last(losses: np.ndarray) -> float:
    """Return the loss of the last step: the first number, where losses of the guide stand beside it."""
    return float(losses[-1].flat[0])


def _is_good(step: Step, state: State, losses: np.ndarray, watched: Sequence[int]) -> bool:
    return (not step.has_loss or bool(np.isfinite(_last(losses)))) and all(
        np.isfinite(np.asarray(state[i])).all() for i in watched
    )


def _rewind(
    step: Step, before: State, n_run: int, watched: Sequence[int], fed: PreparedBatches | None
) -> tuple[State, int]:
    """Find the last good state of `n_run` steps, by taking them again from a copy of the first.

    A step that makes a parameter nan may have a good loss itself, and the next has the bad one.
    """
    good, bad = 0, n_run
    state = step.driver.copy(before)
    guesses = [n_run - 1, n_run - 2]
    while bad - good > 1:
        guess = guesses.pop(0) if guesses else (good + bad) // 2
        if not good < guess < bad:
            continue
        tried, losses = step.driver.run(step.driver.copy(before), guess, fed)
        if _is_good(step, tried, losses, watched):
            state, good = tried, guess
        else:
            bad = guess
    return state, good
