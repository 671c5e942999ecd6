# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Fits by PyMC, with the patch or without."""

import time

from typing import Any

import numpy as np

import pymc as pm

from posteriordb.peer import N_DRAWS, FitModel, Fitted, flatten

QUIET: dict[str, Any] = {"progressbar": False}

#: Steps of a careful fit, and of one with more variables or rows than these.
STEPS, FEWER_STEPS, MANY_VARIABLES, MANY_ROWS = 60_000, 30_000, 15, 2000


class FirstStep:
    """A callback that takes the time of the first step, before which the step is compiled."""

    def __init__(self) -> None:
        self.time: float | None = None

    def __call__(self, approx: Any, losses: Any, step: int) -> None:
        if self.time is None:
            self.time = time.perf_counter()


def size(model: pm.Model) -> int:
    """Return how many numbers a point of the unconstrained space has."""
    return sum(np.size(value) for value in model.initial_point().values())


def careful(model: pm.Model) -> dict[str, Any]:
    """Return what makes a careful fit of ``pm.fit``: Adam with a rate that falls from 0.1 to 1e-4."""
    rows = max((rv.type.shape[0] or 0 for rv in model.observed_RVs if rv.type.ndim), default=0)
    n = FEWER_STEPS if size(model) > MANY_VARIABLES or rows > MANY_ROWS else STEPS
    falling = pm.variational.schedules.exponential_decay(0.1, decay_steps=n, decay_rate=1e-3)
    return {"n": n, "obj_optimizer": pm.adam(learning_rate=falling)}


def fit(model: pm.Model, seed: int, **arguments: Any) -> Fitted:
    """Fit by ``pm.fit`` with some arguments."""
    started = time.perf_counter()
    with model:
        approx = pm.fit(random_seed=seed, **QUIET, **arguments)
    seconds = time.perf_counter() - started
    report = approx.report
    doubt = f"not trusted: {report.verdict.reason}" if report.trusted is False else ""
    draws = flatten(approx.sample(N_DRAWS, random_seed=seed).posterior)
    return Fitted(draws, seconds, report.seconds, report.n_steps, doubt)


def fit_release(model: pm.Model, seed: int) -> Fitted:
    """Fit by the ``pm.fit`` of plain PyMC, which writes no report."""
    first, started = FirstStep(), time.perf_counter()
    with model:
        approx = pm.fit(random_seed=seed, callbacks=[first], **QUIET)
    ended = time.perf_counter()
    run = None if first.time is None else ended - first.time
    draws = flatten(approx.sample(N_DRAWS, random_seed=seed).posterior)
    return Fitted(draws, ended - started, run, len(approx.hist))


def fit_low_rank(model: pm.Model, seed: int) -> Fitted:
    rank = min(5, size(model) - 1)
    return fit(model, seed, guide=pm.LowRank(rank=rank), **careful(model))


def sample(model: pm.Model, seed: int) -> Fitted:
    """Sample by NUTS."""
    started = time.perf_counter()
    with model:
        found = pm.sample(
            1000, tune=1000, chains=2, random_seed=seed, discard_tuned_samples=False, **QUIET
        )
    seconds = time.perf_counter() - started
    leaps = sum(
        int(found[group].n_steps.sum()) for group in ("sample_stats", "warmup_sample_stats")
    )
    run = float(found.posterior.attrs["sampling_time"])
    return Fitted(flatten(found.posterior), seconds, run, leaps)


FITS: dict[str, FitModel] = {
    "auto": lambda model, seed: fit(model, seed, method="auto"),
    "default": fit,
    "release": fit_release,
    "tuned": lambda model, seed: fit(model, seed, obj_optimizer="tuned"),
    "adam": lambda model, seed: fit(
        model, seed, n=20_000, obj_optimizer=pm.adam(learning_rate=0.01)
    ),
    "mean_field": lambda model, seed: fit(model, seed, **careful(model)),
    "full_rank": lambda model, seed: fit(model, seed, method="fullrank_advi", **careful(model)),
    "low_rank": fit_low_rank,
    "nuts": sample,
}
