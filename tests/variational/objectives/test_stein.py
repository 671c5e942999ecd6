# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Stein's direction, and what particles are made of, against the release and closed forms."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest

from pytensor.compile.mode import Mode
from pytensor.conditional import ifelse

import pymc as pm

from pymc.variational.fit_objective import FitObjective
from pymc.variational.objectives.stein import Stein
from pymc.variational.operators import KSD
from pymc.variational.test_functions import rbf

PYTHON = Mode(linker="py", optimizer=None)


@pytest.fixture(scope="module")
def model() -> pm.Model:
    with pm.Model() as model:
        s = pm.HalfNormal("s")
        mu = pm.Normal("mu", shape=2)
        y = np.random.default_rng(0).normal(1, 2, size=10)
        pm.Normal("y", mu.sum(), s, observed=y, total_size=100)
    return model


def gradients(objective: FitObjective) -> list[Any]:
    found: list[Any] = []

    def keep(grads: Any, params: Any) -> dict[Any, Any]:
        found[:] = grads
        return dict(zip(params, params))

    objective.updates(obj_optimizer=keep)
    return found


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_direction_is_that_of_the_release(model: pm.Model, temperature: float) -> None:
    """Of the same particles, scaled to the batch as the release does."""
    approx = pm.Empirical(size=7, model=model, random_seed=1)
    theirs = KSD(approx, temperature=temperature)(rbf)(None, more_obj_params=[])
    ours = gradients(FitObjective(approx, Stein(temperature=temperature)))
    found, expected = pytensor.function([], [*ours, *theirs], mode=PYTHON)()
    np.testing.assert_allclose(found, expected, rtol=1e-10)


@pytest.mark.parametrize("temperature", [0, -1.0, np.nan])
def test_temperatures(temperature: float) -> None:
    with pytest.raises(ValueError, match=r"temperature=.* of Stein"):
        Stein(temperature=temperature)


def test_rows_are_refused() -> None:
    with pm.Model(coords={"obs": range(4)}) as model:
        x = pm.Minibatch(pm.Data("x", np.zeros(4), dims="obs"), batch_size=2)
        z = pm.Normal("z", dims="obs")
        pm.Normal("y", z, 1, observed=x, dims="obs")
    message = r"Stein's direction is about all rows.* of 'z'"
    for make in (lambda: pm.ASVGD(pm.MeanField(model=model)), lambda: pm.ASVGD(model=model)):
        with pytest.warns(UserWarning, match="experimental"):
            with pytest.raises(ValueError, match=message):
                make()
    with pytest.raises(ValueError, match=r"'empirical' couples the rows of 'z'.*remove_minibatch"):
        pm.SVGD(model=model)


@pytest.mark.parametrize(
    ("jitter", "error"), [(np.nan, ValueError), (-1, ValueError), ("a", TypeError)]
)
def test_jitters(model: pm.Model, jitter: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"jitter=.* of particles must be .* the standard deviation"):
        pm.Empirical(size=3, jitter=jitter, model=model)


def test_nodes_at_each_particle(model: pm.Model) -> None:
    approx = pm.Empirical(size=3, model=model, random_seed=1)
    nodes = [model["mu"], pt.constant(2.0)]
    mu, two = pytensor.function([], approx.evaluate_over_trace(nodes), mode=PYTHON)()
    np.testing.assert_array_equal(mu, approx.histogram.get_value()[:, 1:])
    np.testing.assert_array_equal(two, [2, 2, 2])


def test_an_op_that_is_lazy_is_computed_draw_by_draw() -> None:
    """Blockwise has no form for it on the Python and C linkers."""
    with pm.Model() as model:
        mu = pm.Normal("mu")
        pm.Normal("y", ifelse(mu > 0, mu, 2 * mu), 1, observed=[1.0, 2.0])
    approx = pm.Empirical(size=3, model=model, random_seed=1)
    [found] = pytensor.function([], gradients(FitObjective(approx, Stein())), mode="FAST_COMPILE")()
    assert np.isfinite(found).all()
