#   Copyright 2026 - present The PyMC Developers
#
#   Licensed under the Apache License, Version 2.0 (the "License");
#   you may not use this file except in compliance with the License.
#   You may obtain a copy of the License at
#
#       http://www.apache.org/licenses/LICENSE-2.0
#
#   Unless required by applicable law or agreed to in writing, software
#   distributed under the License is distributed on an "AS IS" BASIS,
#   WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
#   See the License for the specific language governing permissions and
#   limitations under the License.
"""The loop of a fit: it runs steps many at a time, and between two runs does all that needs Python.

How many, follows from the callbacks that are due, from a slice of wall time short enough for Ctrl-C and
a bar that moves, and from how many are left. It shows in nothing that the fit computes.
"""

from __future__ import annotations

import time

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pytensor.compile.sharedvalue import SharedVariable

from pymc.variational.calls import next_call
from pymc.variational.compiled import Step
from pymc.variational.drivers import State
from pymc.variational.history import LossHistory
from pymc.variational.interrupts import Interrupts
from pymc.variational.progress import FitProgress

__all__ = ["LoopEnd", "NotFinite", "run_loop"]

Callback = Callable[[Any, np.ndarray | None, int], None]

# Wall time of one compiled call, in seconds: Ctrl-C waits for its end
SLICE = 0.1


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
    """

    n_steps: int
    losses: np.ndarray
    seconds: float
    stopped: str
    beside: np.ndarray = field(default_factory=lambda: np.empty((0, 0)))


class NotFinite(Exception):
    """A step gave a loss or parameters that are not finite.

    Parameters
    ----------
    end : LoopEnd
        Of the good steps; the shared variables have the values after the last of them.
    loss : float
        Of the step that followed.
    """

    def __init__(self, end: LoopEnd, loss: float) -> None:
        super().__init__(f"step {end.n_steps + 1}: loss {loss}")
        self.end = end
        self.loss = loss


class Pace:
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
        :func:`~pymc.variational.calls.next_call` tells.
    progress : FitProgress
    n_before : int
        Steps of earlier loops, which count for `i`.

    Returns
    -------
    LoopEnd

    Raises
    ------
    NotFinite
        The state and the losses are those of the good steps before.
    """
    history, beside, pace = LossHistory(), [np.empty((0, 0))], Pace()
    watched = [i for i, var in enumerate(step.shared) if var in set(params)]
    state, done, stopped = step.load(), 0, "finished"
    start = time.perf_counter()

    def end() -> LoopEnd:
        seconds = time.perf_counter() - start
        return LoopEnd(done, history.losses, seconds, stopped, np.concatenate(beside[1:] or beside))

    with progress, Interrupts() as interrupts:
        try:
            while done < n_steps and not interrupts.pending:
                i = n_before + done
                due_in = [next_call(callback, i, n_before) - i for callback in callbacks]
                n_next = min(n_steps - done, pace.n_steps, *due_in)
                state, losses, bad_loss = _take(step, state, n_next, watched, pace)
                done += len(losses)
                if losses.ndim == 2:
                    beside.append(losses[:, 1:])
                    losses = losses[:, 0]
                if step.has_loss:
                    history.extend(losses)
                if bad_loss is not None:
                    raise NotFinite(end(), bad_loss)
                progress.update(done, history, last=done == n_steps)
                due = [callback for callback, n in zip(callbacks, due_in) if n == n_next]
                if due:
                    step.store(state)
                    try:
                        with interrupts.allowed():
                            _call(due, approx, history if step.has_loss else None, n_before + done)
                    finally:  # what a callback sets counts, if it stops the fit too
                        state = step.load()
            if interrupts.pending:
                stopped = "interrupted"
        except KeyboardInterrupt:
            stopped = "interrupted"
        except StopIteration as stop:
            stopped = str(stop) or "stopped by a callback"
        finally:
            step.store(state)
    return end()


def _take(
    step: Step, state: State, n_steps: int, watched: Sequence[int], pace: Pace
) -> tuple[State, np.ndarray, float | None]:
    """Take steps; return the state and losses up to the last good one, and the loss of a bad one."""
    before = () if step.guarded else step.driver.copy(state)
    began = time.perf_counter()
    state, losses = step.driver.run(state, n_steps)
    pace.took(len(losses), time.perf_counter() - began)
    if step.guarded:
        last = float(losses[-1].flat[0])
        return (state, losses, None) if np.isfinite(last) else (state, losses[:-1], last)
    if _is_good(step, state, losses, watched):
        return state, losses, None
    state, n_good = _rewind(step, before, len(losses), watched)
    return state, losses[:n_good], float(losses[-1])


def _call(callbacks: Sequence[Callback], approx: Any, history: LossHistory | None, i: int) -> None:
    for callback in callbacks:
        callback(approx, None if history is None else history.losses, i)


def _is_good(step: Step, state: State, losses: np.ndarray, watched: Sequence[int]) -> bool:
    return (not step.has_loss or bool(np.isfinite(losses[-1]))) and all(
        np.isfinite(np.asarray(state[i])).all() for i in watched
    )


def _rewind(step: Step, before: State, n_run: int, watched: Sequence[int]) -> tuple[State, int]:
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
        tried, losses = step.driver.run(step.driver.copy(before), guess)
        if _is_good(step, tried, losses, watched):
            state, good = tried, guess
        else:
            bad = guess
    return state, good
