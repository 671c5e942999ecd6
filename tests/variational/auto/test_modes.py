# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Other modes: found where there are some, and nowhere else."""

from __future__ import annotations

import numpy as np
import pytest

import pymc as pm

from pymc.variational.auto.modes import PAIRS, find_modes, spread_starts
from pymc.variational.auto.natural_gradient import climb
from pymc.variational.auto.normal import Dense
from tests.variational.auto.problems import (
    Regression,
    gamma,
    labels,
    log_posterior,
    spike_and_slab,
)


def square() -> pm.Model:
    """x and -x are as good."""
    with pm.Model() as model:
        x = pm.Normal("x", 0, 2)
        pm.Normal("y", x**2, 0.3, observed=4.0)
    return model


def factors() -> pm.Model:
    """The signs of two variables can be turned, of both at once."""
    with pm.Model() as model:
        f = pm.HalfNormal("scale") * pm.Normal("f", shape=2)
        pm.Normal("y", pm.Normal("l") * f, 0.2, observed=[1.0, -2.0])
    return model


def two(weight: float, gap: float) -> pm.Model:
    with pm.Model() as model:
        pm.NormalMixture("x", [1 - weight, weight], [0.0, gap], sigma=1.0)
    return model


@pytest.mark.parametrize(
    ("model", "several"),
    [
        (labels(), True),
        (square(), True),
        (factors(), True),
        (two(0.5, 20.0), True),
        (two(0.1, 8.0), True),
        (gamma(), False),
        (Regression().model(), False),
        (two(1e-9, 20.0), False),
    ],
)
@pytest.mark.parametrize("seed", [1, 2])
def test_modes(model: pm.Model, several: bool, seed: int) -> None:
    logp, rng = log_posterior(model), np.random.default_rng(seed)
    start = Dense.of_size(logp.size).around(logp.start, 1e-3)
    found = find_modes(logp, climb(logp, start, start.n_draws, rng), rng)
    assert bool(found.others) is several
    if several:
        assert found.farthest()[1] > 2


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_modes_of_one_mean(seed: int) -> None:
    """A spike and a slab are two modes, whose widths differ."""
    logp, rng = log_posterior(spike_and_slab()), np.random.default_rng(seed)
    start = Dense.of_size(logp.size).around(logp.start, 1e-3)
    found = find_modes(logp, climb(logp, start, start.n_draws, rng), rng)
    assert found.others
    assert found.farthest()[1] < 2
    np.testing.assert_allclose(found.widest()[1], 100, rtol=0.1)


def test_the_best_is_taken() -> None:
    """The first start ends at a mode with a part of 0.01 of the mass, the best is the other."""
    with pm.Model() as model:
        pm.NormalMixture("x", [0.01, 0.99], [0.0, 12.0], sigma=1.0, initval=0.0)
    logp, rng = log_posterior(model), np.random.default_rng(1)
    first = climb(logp, Dense.of_size(logp.size).around(logp.start, 1e-3), 16, rng)
    np.testing.assert_allclose(first.normal.mean, 0, atol=0.1)
    found = find_modes(logp, first, rng)
    if found.best is not first:
        np.testing.assert_allclose(found.best.normal.mean, 12, atol=0.1)
        assert found.others


def test_starts_are_finite() -> None:
    """Flat priors and those with initial values of the user's have no draws."""
    with pm.Model() as model:
        pm.Flat("a")
        pm.HalfFlat("b")
        pm.Normal("c", 0, 1e5)
        pm.Uniform("d", 0, 1, initval=0.3)
    starts = list(spread_starts(log_posterior(model), np.random.default_rng(1)))
    assert len(starts) == 2 * PAIRS[1]
    assert np.isfinite(starts).all()
    assert len({start[2] for start in starts}) == len(starts)
