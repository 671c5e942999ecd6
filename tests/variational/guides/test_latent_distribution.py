# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Draws as functions of noise."""

from __future__ import annotations

import numpy as np
import pytensor.tensor as pt
import pytest
import scipy.stats as st

import pymc as pm

from pymc.variational.guides.latent_distribution import reparametrize
from pymc.variational.vectorize import at_draws
from tests.variational.guides.amortized_models import (
    PLAIN,
    weights,
)

LOCS = np.array([0.0, 1.0])
DISTRIBUTIONS = {
    "normal": (lambda: pm.Normal.dist(LOCS, 2.0), st.norm(LOCS, 2.0)),
    "lognormal": (lambda: pm.LogNormal.dist(LOCS, 0.5), st.lognorm(0.5, scale=np.exp(LOCS))),
    "halfnormal": (lambda: pm.HalfNormal.dist(LOCS + 1), st.halfnorm(0, LOCS + 1)),
    "student": (lambda: pm.StudentT.dist(nu=3, mu=LOCS, sigma=2.0), st.t(3, LOCS, 2.0)),
    "laplace": (lambda: pm.Laplace.dist(LOCS, 2.0), st.laplace(LOCS, 2.0)),
}


@pytest.mark.parametrize("kind", DISTRIBUTIONS)
def test_reparametrised_draws_have_the_distribution(kind: str) -> None:
    """By Kolmogorov's test at 1e-6 for each of 10 comparisons: a false alarm in 100,000 seeds."""
    dist, exact = DISTRIBUTIONS[kind]
    reparam = reparametrize(dist())
    assert reparam is not None
    graph = at_draws([reparam.draw], {reparam.noise: reparam.draw_noise((2000, 2))})
    [draws] = pm.compile([], graph, mode=PLAIN, random_seed=3)()
    for column in exact.cdf(draws).T:
        assert st.kstest(column, "uniform").pvalue > 1e-6


def test_covariance_within_rows_is_that_of_its_factor() -> None:
    reparam = reparametrize(pm.MvNormal.dist([1.0, 2.0], [[2.0, 0.5], [0.5, 1.0]]))
    assert reparam is not None
    [draw] = at_draws([reparam.draw], {reparam.noise: pt.eye(2)})
    factor = draw.eval(mode=PLAIN) - [1.0, 2.0]
    np.testing.assert_allclose(factor.T @ factor, [[2.0, 0.5], [0.5, 1.0]])


def test_degrees_of_freedom_that_are_fitted_are_not_reparametrized() -> None:
    nu = weights("nu", 3.0)
    assert reparametrize(pm.StudentT.dist(nu=nu, mu=0, sigma=1)) is None
    assert reparametrize(pm.StudentT.dist(nu=2 * nu, mu=0, sigma=1)) is None
