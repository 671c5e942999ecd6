# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Smoothed importance weights, compared with those of ArviZ."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from arviz_stats.base import array_stats

from pymc.variational.pareto_smoothing import pareto_fit, smoothed

RATIOS: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "normal": lambda rng, n: rng.normal(size=n),
    "cauchy": lambda rng, n: rng.standard_cauchy(size=n),
    "heavy": lambda rng, n: 3 * rng.exponential(size=n),
    "light": lambda rng, n: -rng.exponential(size=n),
    "zeros": lambda rng, n: np.where(rng.random(n) < 0.3, -np.inf, rng.normal(size=n)),
}


@pytest.mark.parametrize("n", [25, 225, 226, 4000])
@pytest.mark.parametrize("kind", RATIOS)
def test_weights_of_arviz(kind: str, n: int) -> None:
    ratios = RATIOS[kind](np.random.default_rng(1), n)
    with np.errstate(all="ignore"):
        log_weights, khat = array_stats.psislw(-np.maximum(ratios - ratios.max(), -700))
    found = smoothed(ratios)
    if np.isfinite(khat):
        np.testing.assert_allclose(found.khat, khat, rtol=1e-10)
        np.testing.assert_allclose(np.exp(found.log_weights), np.exp(log_weights), atol=1e-12)
    else:
        assert np.isinf(found.khat)


def test_weights_sum_to_one_and_keep_their_order() -> None:
    ratios = np.random.default_rng(1).exponential(size=1000)
    found = smoothed(ratios)
    np.testing.assert_allclose(np.exp(found.log_weights).sum(), 1)
    assert (np.argsort(found.log_weights) == np.argsort(ratios)).all()


@pytest.mark.parametrize("n", [1, 5, 24])
def test_too_few_draws_are_not_smoothed(n: int) -> None:
    found = smoothed(np.arange(n) / 10)
    assert np.isinf(found.khat)
    np.testing.assert_allclose(np.diff(found.log_weights), 0.1)


def test_fit_of_quantiles_of_a_pareto_distribution() -> None:
    """The shape is (n * shape + 5) / (n + 10) of the one without the prior, up to the error of the grid."""
    n, shape, scale = 4000, 0.4, 2.0
    p = (np.arange(n) + 0.5) / n
    excess = scale / shape * ((1 - p) ** -shape - 1)
    found = pareto_fit(excess)
    np.testing.assert_allclose(found, [(n * shape + 5) / (n + 10), scale], rtol=0.01)


def test_equal_values_have_no_shape() -> None:
    assert np.isnan(pareto_fit(np.ones(10))[0])
