# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Weighted draws, against posteriors that are known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pymc.variational.auto.full_data_passes import weigh_by_rows
from pymc.variational.auto.importance_sampling import Proposal, importance_sample
from pymc.variational.auto.normal import Dense
from pymc.variational.pareto_smoothing import smoothed
from pymc.variational.posterior.log_weights import SubsampledLogDensity, random_groups
from tests.variational.auto.problems import Regression, funnel, gamma, log_posterior


def test_draws_of_a_skewed_posterior() -> None:
    """Moments of a gamma distribution, from a normal of its logarithm that is off."""
    normal = Dense(np.array([1.0]), np.array([[1.0]]))
    draws = importance_sample(log_posterior(gamma()), normal, np.random.default_rng(1))
    g = np.exp(np.minimum(draws.points[:, 0], 50))  # beyond, weights are 0
    mean = draws.probabilities @ g
    se = np.sqrt(3) / 2 / np.sqrt(draws.weights.ess)
    assert abs(mean - 1.5) < 4 * se
    np.testing.assert_allclose(
        np.sqrt(draws.probabilities @ (g - mean) ** 2), np.sqrt(3) / 2, rtol=0.1
    )
    assert draws.weights.khat < 0.5
    again = draws.resampled(2000, np.random.default_rng(2))
    assert abs(np.exp(again).mean() - mean) < 4 * np.sqrt(3) / 2 / np.sqrt(2000)


def test_a_funnel_has_a_heavy_tail() -> None:
    logp = log_posterior(funnel())
    draws = importance_sample(logp, Dense(np.zeros(4), np.eye(4)), np.random.default_rng(1))
    assert draws.weights.khat > 0.5


def test_proposals_are_normalised() -> None:
    """In one dimension by a sum, in three by the mean ratio to another density, within 5 standard errors."""
    one = Proposal(Dense(np.array([1.0]), np.array([[2.0]])), 7.0, np.ones(1))
    x = np.linspace(-1e5, 1e5, 2_000_001)[:, None]
    np.testing.assert_allclose(np.trapezoid(np.exp(one.log_density(x)), x[:, 0]), 1, rtol=1e-5)
    factor = np.array([[1.0, 0, 0], [0.5, 2, 0], [0, -1, 0.3]])
    normal, rng = Dense(np.arange(3.0), factor), np.random.default_rng(1)
    here, other = (Proposal(normal, 7.0, np.array(s)) for s in ([0.3, 0.6, 0.1], [0.5, 0.0, 0.5]))
    drawn = here.draw(20_000, rng)
    ratios = np.exp(other.log_density(drawn) - here.log_density(drawn))
    assert abs(ratios.mean() - 1) < 5 * ratios.std() / np.sqrt(20_000)


def test_a_few_large_weights_are_no_equal_ones() -> None:
    """They come from a mode that a few draws have met."""
    ratios = np.random.default_rng(1).normal(0, 0.01, size=4000)
    assert smoothed(ratios).about_equal
    ratios[:5] = 3.5
    assert smoothed(ratios).ess > 0.9 * 4000
    assert not smoothed(ratios).about_equal


def test_by_rows() -> None:
    """Of a normal posterior all weights are equal, whatever part of the rows they are from."""
    problem = Regression(600)
    logp = log_posterior(problem.model(batch_size=50))
    normal = Dense(problem.mean, np.linalg.cholesky(problem.cov))
    draws = weigh_by_rows(logp, normal, np.random.default_rng(1))
    assert draws.weights.about_equal
    assert draws.error.se < 0.1


@pytest.mark.parametrize(("scale", "as_good"), [(1.02, True), (1.2, False)])
def test_draws_by_rows_are_corrected(scale: float, as_good: bool) -> None:
    """An sd that is a fifth too large leaves weights about equal, and is mended by them."""
    problem = Regression(600)
    logp = log_posterior(problem.model(batch_size=50))
    factor = np.linalg.cholesky(problem.cov)
    factor[:, 2] *= scale
    draws = weigh_by_rows(logp, Dense(problem.mean, factor), np.random.default_rng(1))
    assert draws.weights.about_equal
    assert draws.needs_no_correction is as_good
    sd = draws.resampled(4000, np.random.default_rng(2)).std(axis=0)
    np.testing.assert_allclose(sd / problem.sd, 1, atol=4 / np.sqrt(2 * draws.weights.ess))


@pytest.mark.parametrize("equal", [0.0, 1e-12])
def test_weights_that_are_equal(equal: float) -> None:
    """No Pareto distribution fits a tail of one value; weights of 0 are no hindrance."""
    ratios = np.concatenate([np.zeros(900), np.full(100, equal)])
    assert smoothed(ratios).khat == -np.inf
    assert smoothed(ratios).about_equal
    ratios[:300] = -np.inf
    assert 600 < smoothed(ratios).ess <= 700 + 1e-6


def test_one_draw_with_all_the_weight() -> None:
    ratios = np.random.default_rng(1).normal(size=1000)
    ratios[0] = 2000.0
    assert smoothed(ratios).khat == np.inf
    assert smoothed(ratios).ess < 2


def test_a_draw_that_a_row_forbids() -> None:
    """Rows at random do not have the one at which the density is 0: their differences say that there is no error."""
    rng = np.random.default_rng(1)
    x = np.append(rng.normal(size=4999), 30.0)
    draws = rng.normal(0, 0.01, size=(20, 1))
    draws[3] = -0.1

    def values(points: Any, rows: np.ndarray | None) -> np.ndarray:
        [z] = points.values()
        some = x if rows is None else x[rows]
        allowed = (1 + z * some > -1).all(axis=1)
        return np.where(allowed, -0.5 * (z[:, 0] * 100) ** 2, -np.inf)

    def expand(point: Any, rows: Any) -> Any:
        return values({"z": point[0][None]}, rows)[0], [-(100**2) * point[0]]

    def part(share: float, rng: np.random.Generator) -> Any:
        return random_groups(4999, share, rng)

    found = SubsampledLogDensity({"z": draws}, (5000,), values, expand, part).estimate(1000, rng)
    assert np.isfinite(found.values).all()
    assert found.se_between == np.inf
