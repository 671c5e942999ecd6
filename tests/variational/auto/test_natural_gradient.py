# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Natural gradients, against posteriors that are known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import pymc as pm

from pymc.variational.auto.full_data_passes import first_pass, next_pass
from pymc.variational.auto.natural_gradient import (
    CONVERGED,
    MOST_DRAWS,
    ROUGH,
    WIDTH,
    Climb,
    climb,
    settle,
)
from pymc.variational.auto.normal import Dense
from tests.variational.auto.problems import Regression, funnel, gamma, log_posterior


def test_noise_is_matched() -> None:
    noise = Dense.of_size(4).around(np.zeros(4), 1.0).noise(12, np.random.default_rng(1))
    np.testing.assert_allclose(noise.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(noise.T @ noise / 12, np.eye(4), atol=1e-12)


@pytest.mark.parametrize("seed", [1, 2])
def test_a_normal_posterior_is_exact(seed: int) -> None:
    """From a start 1e4 sds away, on raw scales, and the draws do not matter."""
    problem, rng = Regression(), np.random.default_rng(seed)
    logp = log_posterior(problem.model())
    found = climb(logp, Dense.of_size(logp.size).around(logp.start, 1e-3), 16, rng)
    assert found.converged and found.n_steps < 30
    np.testing.assert_allclose((found.normal.mean - problem.mean) / problem.sd, 0, atol=1e-3)
    cov = found.normal.factor @ found.normal.factor.T
    np.testing.assert_allclose(
        cov / np.outer(problem.sd, problem.sd),
        problem.cov / np.outer(problem.sd, problem.sd),
        atol=0.08,
    )


def test_the_slope_of_a_normal_posterior() -> None:
    """It says where the optimum is, from any normal."""
    problem, rng = Regression(), np.random.default_rng(1)
    normal = Dense(problem.mean + 3 * problem.sd, np.diag(0.5 * problem.sd))
    noise = normal.noise(40, rng)
    gradients = -np.linalg.solve(problem.cov, (normal.points(noise) - problem.mean).T).T
    moved = normal.moved(normal.slope(noise, gradients), 1.0)
    np.testing.assert_allclose(moved.mean, problem.mean, atol=1e-8)
    np.testing.assert_allclose(moved.factor @ moved.factor.T, problem.cov, rtol=1e-8)


def test_more_draws_of_a_skewed_posterior() -> None:
    """The optimum for log g, g ~ Gamma(3, 2): e^(m + s²/2) = 3/2 and s² = 1/3, from the bound's derivatives."""
    logp, rng = log_posterior(gamma()), np.random.default_rng(1)
    first = climb(logp, Dense.of_size(logp.size).around(logp.start, 1e-3), 16, rng)
    found = settle(logp, first, rng)
    assert found.converged and found.n_draws > 16
    np.testing.assert_allclose(found.normal.sd[0], 3**-0.5, rtol=0.03)
    np.testing.assert_allclose(found.normal.mean[0], np.log(1.5) - 1 / 6, atol=0.03)


def test_a_fit_that_goes_on_takes_no_more_draws() -> None:
    """Four times as many with each call would soon spend its budget on a step, and then memory."""
    logp, rng = log_posterior(funnel()), np.random.default_rng(1)
    first = climb(logp, Dense.of_size(logp.size).around(logp.start, 1e-3), 16, rng)
    found = settle(logp, first, rng)
    for _ in range(2):
        found = settle(logp, found, rng)
    assert found.n_draws <= MOST_DRAWS


def test_passes_over_all_rows() -> None:
    """From a normal 10 sds away, as a subsample's fit is, with rows that are no multiple of a block's."""
    problem, rng = Regression(2003), np.random.default_rng(1)
    logp = log_posterior(problem.model(batch_size=50))
    some = logp.of_part(100, rng)
    first = climb(some, Dense.of_size(logp.size).around(logp.start, 1e-3), 16, rng)
    assert np.abs((first.normal.mean - problem.mean) / problem.sd).max() > 1
    seen = logp.budget.n_rows
    found = passed(logp, first, 5, rng)
    # The last step is below CONVERGED in sds of the normal, and these are up to 6 % off
    atol = 1.06 * CONVERGED
    np.testing.assert_allclose((found.normal.mean - problem.mean) / problem.sd, 0, atol=atol)
    np.testing.assert_allclose(found.normal.sd / problem.sd, 1, atol=0.06)
    assert logp.budget.n_rows - seen < 3 * 5 * 2003


def test_a_start_that_is_too_wide() -> None:
    """Incomes of 36,000 make a thousandth of a coefficient 36 log-odds: the density has a slope there, and no curvature."""
    rng, n = np.random.default_rng(1), 2000
    x = np.column_stack([rng.normal(40, 12, size=n), rng.lognormal(10.5, 0.6, size=n)])
    bought = rng.random(n) < 1 / (1 + np.exp(2.5 - x @ [0.02, 8e-6]))
    with pm.Model() as model:
        a, b = pm.Normal("a", 0, 10), pm.Normal("b", 0, 1, shape=2)
        each = pm.logp(pm.Bernoulli.dist(logit_p=a + pm.math.dot(x, b)), bought.astype(int))
        pm.Potential("y", 1000 * each.sum())
    logp = log_posterior(model)
    start = Dense.of_size(3).around(logp.start, WIDTH)
    found = climb(logp, start, start.n_draws, rng, tolerance=ROUGH)
    assert found.converged and found.slope < ROUGH
    gradient = logp(found.normal.mean[None])[1][0]
    assert np.abs(gradient * found.normal.sd).max() < 0.1


def passed(logp: Any, first: Climb, most: int, rng: np.random.Generator) -> Climb:
    passes = first_pass(logp, first, rng)
    while not passes.now.converged and passes.n_passes < most:
        passes = next_pass(logp, passes, rng)
    assert passes.now.converged
    return passes.now


def test_passes_with_a_rare_category() -> None:
    """Four rows have it, in four blocks, whose draws say little of its curvature."""
    problem, rng = Regression(2003), np.random.default_rng(1)
    problem.X[:, 1] = 0
    problem.X[[3, 500, 1001, 1700], 1] = 1
    precision = problem.X.T @ problem.X / 4
    mean = np.linalg.solve(precision, problem.X.T @ problem.y / 4)
    sd = np.sqrt(np.diag(np.linalg.inv(precision)))
    logp = log_posterior(problem.model(batch_size=50))
    first = Climb(Dense(mean + sd, np.diag(1.5 * sd)), 0.0, 1.0, True, 1, 16)
    found = passed(logp, first, 10, rng)
    np.testing.assert_allclose((found.normal.mean - mean) / sd, 0, atol=0.02)
    np.testing.assert_allclose(found.normal.sd / sd, 1, rtol=1e-3)
