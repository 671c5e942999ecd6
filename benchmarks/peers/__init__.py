# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Who is measured: each fits the same problem in a process of its own, and answers requests.

A peer's settings name its module (``"peer"``), its ``"problem"`` with its ``"sizes"``, the ``"dtype"``
and the ``"seconds"`` of a round. Its steps per round are chosen so that a round takes that long.
"""

import contextlib
import importlib
import os
import subprocess
import time

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np

from _common import peak_memory, send, serve
from _problems import PROBLEMS, Posterior, Problem

LEARNING_RATE = 1e-3
#: For the accuracy, after what was timed: rates, and the steps with each. The high ones bring down a
#: guide that starts a hundred times too wide, the low ones average over batches.
ANNEALING = [(rate, 10_000) for rate in (0.03, 0.01, 3e-3, 1e-3, 3e-4)]
ANNEALING += [(rate, 3_000) for rate in (5e-5, 1e-5)]
MODULES = ("pymc_fit", "by_hand", "numpyro_svi")
SHORT = 20  # steps, where a call compiles


class Steps(Protocol):
    """Steps that can be continued.

    Parameters
    ----------
    compiles_each_call : bool
        Whether `run` compiles again, so that steps are timed as the difference of two lengths.
    """

    compiles_each_call: bool

    def run(self, n_steps: int, progressbar: bool = False) -> np.ndarray:
        """Take Adam steps with :data:`LEARNING_RATE`, and return the loss of each."""


class Fit(Steps, Protocol):
    """A fit that can be brought to its end."""

    def anneal(self) -> None:
        """Take the steps of :data:`ANNEALING`."""

    def posterior(self) -> Posterior:
        """Return the guide's means and standard deviations."""


def be_peer(settings: dict[str, Any]) -> None:
    """Do what the settings say, from within the process of a peer."""
    if settings["peer"] not in MODULES:
        raise ValueError(f"unknown peer {settings['peer']!r}, there are {MODULES}")
    module = importlib.import_module(f"peers.{settings['peer']}")  # of what only that peer has
    data = PROBLEMS[settings["problem"]](**settings["sizes"])
    before = peak_memory()
    if settings["kind"] == "first":
        send(module.first_fit(data, settings) | {"memory": peak_memory() - before})
        return
    fit = module.start(data, settings)
    n_steps = steps_per_round(fit, settings["seconds"])
    send({"n_steps": n_steps, "memory": peak_memory() - before})
    serve_fit(fit, data, n_steps)


def serve_fit(fit: Fit, data: Problem, n_steps: int) -> None:
    """Answer requests for the time of a step in microseconds, and for the accuracy."""

    def answer(what: str, progressbar: bool = False) -> dict[str, Any]:
        if what == "time":
            with terminal() if progressbar else contextlib.nullcontext():
                return {"time": seconds(fit, n_steps, progressbar) / n_steps * 1e6}
        fit.anneal()
        found = fit.posterior()
        errors = [found.errors(right) for right in data.reference()]
        nearest = min(errors, key=lambda error: error["mean_error"], default={})
        return {"mean": found.mean.tolist(), "sd": found.sd.tolist(), **nearest}

    serve(answer)


def seconds(fit: Steps, n_steps: int, progressbar: bool = False) -> float:
    """Return how long `n_steps` steps take, without compilation."""
    if not fit.compiles_each_call:
        return seconds_of_call(fit, n_steps, progressbar)
    return seconds_of_call(fit, SHORT + n_steps) - seconds_of_call(fit, SHORT)


def seconds_of_call(fit: Steps, n_steps: int, progressbar: bool = False) -> float:
    """Return how long a call takes that is asked for `n_steps` steps.

    Raises
    ------
    RuntimeError
        If it took fewer steps, or lost its way: such a call would seem fast.
    """
    start = time.perf_counter()
    losses = fit.run(n_steps, progressbar)
    elapsed = time.perf_counter() - start
    if len(losses) != n_steps or not np.isfinite(losses).all():
        finite = int(np.isfinite(losses).sum())
        raise RuntimeError(f"{n_steps} steps asked for, {len(losses)} taken, {finite} finite")
    return elapsed


def steps_per_round(fit: Steps, round_seconds: float, block: int = 1_000) -> int:
    """Choose how many steps to take, from steps that warm up and compile.

    A multiple of `block`, a thousand because some peers take their steps in blocks of that many.
    """
    seconds_of_call(fit, SHORT)
    n_steps, elapsed = block // 2, 0.0
    while elapsed < round_seconds / 5:
        n_steps *= 2
        elapsed = seconds(fit, n_steps)
    return max(1, round(n_steps * round_seconds / elapsed / block)) * block


@contextlib.contextmanager
def terminal() -> Iterator[None]:
    """Put a terminal in the place of standard output: progress bars draw only on one."""
    import pty  # not on Windows

    nowhere = subprocess.DEVNULL
    reader, writer = pty.openpty()
    with subprocess.Popen(["cat"], stdin=reader, stdout=nowhere, stderr=nowhere) as drain:
        os.close(reader)
        with open(writer, "w") as screen, contextlib.redirect_stdout(screen):
            yield
        drain.terminate()
