# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Draws from priors, compared with SciPy's distributions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from scipy import stats

import pymc as pm

from pymc.variational.auto.prior_draws import prior_draws

N = 4000

# The other distributions of half of the real line are made of these
PRIORS: dict[str, tuple[Callable[..., Any], Any]] = {
    "half_normal": (lambda: pm.HalfNormal("x", 2, shape=N), stats.halfnorm(0, 2)),
    "half_cauchy": (lambda: pm.HalfCauchy("x", 3, shape=N), stats.halfcauchy(0, 3)),
    "cauchy": (lambda: pm.Cauchy("x", -1, 2, shape=N), stats.cauchy(-1, 2)),
    "t": (lambda: pm.StudentT("x", 3, mu=1, sigma=2, shape=N), stats.t(3, 1, 2)),
    "t_of_vectors": (
        lambda: pm.StudentT("x", np.full(N, 5), mu=np.ones(N), sigma=2),
        stats.t(5, 1, 2),
    ),
    "normal": (lambda: pm.Normal("x", 1, 2, shape=N), stats.norm(1, 2)),
}


@pytest.mark.parametrize("name", PRIORS)
def test_distribution(name: str) -> None:
    """By the Kolmogorov-Smirnov test, with a false alarm in 10,000 for all of these."""
    build, expected = PRIORS[name]
    with pm.Model() as model:
        build()
    draw = prior_draws(model)
    assert draw is not None
    [(value, draws)] = draw(1).items()
    draws = np.exp(draws) if value.endswith("_log__") else draws
    assert draws.shape == (N,)
    assert stats.kstest(draws, expected.cdf).pvalue > 1e-4 / len(PRIORS)


def test_seeds_and_priors_of_priors() -> None:
    """A draw depends on its seed alone, and a scale is that of the same draw."""
    with pm.Model() as model:
        scale = pm.HalfCauchy("scale", 1)
        pm.StudentT("x", 1e6, sigma=1e-6 * scale, mu=scale)
        pm.Flat("flat", initval=3.0)
    draw = prior_draws(model)
    assert draw is not None
    points = [draw(seed) for seed in (1, 2, 1)]
    assert points[0] == points[2] != points[1]
    for point in points:
        np.testing.assert_allclose(point["x"], np.exp(point["scale_log__"]), rtol=1e-4)
        assert point["flat"] == 3


def test_flat_priors_have_no_draws() -> None:
    with pm.Model() as model:
        pm.Flat("a")
        pm.HalfFlat("b")
    assert prior_draws(model) is None
