# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Posteriors that are known, and how near each guide comes; ``benchmarks/bench_guides.py`` writes the table.

The gap is log p(y) - ELBO, the Kullback-Leibler divergence of the guide from the posterior, in nats.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytensor
import pytensor.tensor as pt
import scipy.stats as st

from pytensor.graph.basic import Variable

import pymc as pm

from pymc.variational.objectives.base import Setting, draw_all, log_weights

N_DRAWS = 4000
#: Rows y of the hierarchical normal, whose mean and spread change nothing about the spread of `mu`.
ROWS = np.random.default_rng(1).normal(1.0, 3.0, size=20)


def weights(name: str, value: Any) -> Any:
    return pytensor.shared(np.asarray(value, dtype=pytensor.config.floatX), name=name)


def correlated() -> pm.Model:
    """Two normals with sd 1 and correlation 0.9."""
    with pm.Model() as model:
        a = pm.Normal("a")
        pm.Normal("b", 0.9 * a, np.sqrt(0.19))
    return model


def correlated_guide(model: pm.Model) -> None:
    b = pm.Normal("b", weights("m", 0.0), pt.softplus(weights("s", 0.0)))
    pm.Normal("a", weights("slope", 0.0) * b, pt.softplus(weights("r", 0.0)))


def funnel() -> pm.Model:
    """v ~ N(0, 3), and two x ~ N(0, exp(v / 2))."""
    with pm.Model() as model:
        v = pm.Normal("v", 0, 3)
        pm.Normal("x", 0, pt.exp(v / 2), shape=2)
    return model


def funnel_guide(model: pm.Model) -> None:
    v = pm.Normal("v", weights("m", 0.0), pt.softplus(weights("s", 0.0)))
    log_sd = weights("slope", 0.0) * v + weights("intercept", 0.0)
    pm.Normal("x", 0, pt.exp(log_sd), shape=2)


def hierarchy() -> pm.Model:
    """z ~ N(mu, sqrt 5), y ~ N(z, sqrt 5): the sd of mu is 1 / sqrt 3, and that of mean-field 1 / sqrt 5."""
    with pm.Model(coords={"obs": range(20)}) as model:
        batch = pm.Minibatch(pm.Data("data", ROWS, dims="obs"), batch_size=10)
        mu = pm.Normal("mu")
        z = pm.Normal("z", mu, np.sqrt(5.0), dims="obs")
        pm.Normal("y", z, np.sqrt(5.0), observed=batch, dims="obs")
    return model


def hierarchy_guide(model: pm.Model) -> None:
    mu = pm.Normal("mu", weights("m", 0.0), pt.softplus(weights("s", 0.0)))
    mean = weights("slope", 0.0) * model["data"] + weights("share", 0.0) * mu
    pm.Normal("z", mean, pt.softplus(weights("r", 0.0)), dims="obs")


@dataclass(frozen=True)
class Problem:
    """A posterior, the guides for it, and what it is.

    Parameters
    ----------
    model : callable () -> Model
    guides : dict of str to guide
    name : str
        A variable.
    sd : float
        Its sd.
    log_evidence : float
    """

    model: Callable[[], pm.Model]
    guides: dict[str, Any]
    name: str
    sd: float
    log_evidence: float


FLOW = pm.NormalizingFlow(n_layers=2, n_hidden=8)
OF_ROWS = {"z": pm.Structured(["mu"]), None: "mean_field"}
PROBLEMS = {
    "correlated normals": Problem(
        correlated,
        {"mean_field": "mean_field", "pm.NormalizingFlow": FLOW, "pm.Model": correlated_guide},
        "a",
        1.0,
        0.0,
    ),
    "funnel": Problem(
        funnel,
        {"mean_field": "mean_field", "full_rank": "full_rank", "pm.NormalizingFlow": pm.NormalizingFlow(), "pm.Model": funnel_guide},
        "v",
        3.0,
        0.0,
    ),
    "20 rows": Problem(
        hierarchy,
        {"mean_field": "mean_field", "pm.Structured": OF_ROWS, "pm.Model": hierarchy_guide},
        "mu",
        3**-0.5,
        float(st.multivariate_normal.logpdf(ROWS, np.zeros(20), 10 * np.eye(20) + 1)),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Found:
    """Distance of a guide from the posterior: gap in nats and its standard error, and the sd of a variable."""

    gap: float
    error: float
    sd: float


def fitted(problem: Problem, guide: Any, n_steps: int = 4000, **options: Any) -> Found:
    """Fit a guide, and compare it with the posterior.

    The rate falls: at a constant one the gap of a flow differs ten times between seeds.
    """
    model = problem.model()
    rate = pm.variational.schedules.exponential_decay(0.02, decay_steps=n_steps, decay_rate=0.05)
    approx = pm.fit(
        n_steps,
        model=model,
        guide=guide,
        gradient="stl",
        obj_n_mc=16,
        obj_optimizer=pm.adam(learning_rate=rate),
        average=0.2,
        progressbar=False,
        random_seed=1,
        **options,
    )
    return compared(problem, model, approx)


def compared(problem: Problem, model: pm.Model, approx: Any) -> Found:
    """Draw from a guide, and take log p(y) less the mean of log p - log q; two batches are all rows."""
    rows = {plate: table.gather()[1] for plate, table in approx.storage.tables.items()}
    setting = Setting(
        model, approx.terms, approx.guides, approx.storage.param_values(rows), (), n_outer=N_DRAWS
    )
    draws = draw_all(setting)
    found = log_weights(setting, draws)
    total: Variable = found.global_
    for of_rows in found.rows.values():
        total = total + len(ROWS) * of_rows.mean(axis=-1)
    with pm.minibatch_logp():
        call = pm.compile(
            [],
            [total, draws.parents[model[problem.name]]],
            mode="FAST_COMPILE",
            random_seed=2,
        )
    weight, drawn = np.stack([call() for _ in range(2 if found.rows else 1)], axis=1)
    gap = problem.log_evidence - weight.mean()
    error = np.sqrt(weight.var(axis=1).mean() / weight.size)  # within batches
    return Found(float(gap), float(error), float(drawn.std()))


def table(**options: Any) -> Iterator[str]:
    """Fit all, and yield the lines of a table."""
    yield "| posterior | guide | gap (nats) | sd | exact sd |"
    yield "|---|---|---|---|---|"
    for title, problem in PROBLEMS.items():
        for name, guide in problem.guides.items():
            found = fitted(problem, guide, **options)
            yield (
                f"| {title}, `{problem.name}` | `{name}` | {found.gap:.3f} ± {found.error:.3f} | "
                f"{found.sd:.3f} | {problem.sd:.3f} |"
            )
