# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""The size of a loss: one factor for the whole of it, and two ways of feeding that are one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytensor
import pytest

from scipy.stats import norm

import pymc as pm

from pymc.variational.approximation import guided_approximation
from pymc.variational.fit_objective import FitObjective, loss_factor
from pymc.variational.objectives import ELBO, IWAE
from tests.variational.objectives.exact import (
    PYTHON,
    all_batches,
    evaluate,
    rows_model,
)

RTOL = 1e-10
N, B = 100, 10


def a1(batch_size: int | None = B) -> pm.Model:
    """A1: x ~ N(mu, 1) and mu ~ N(0, 1)."""
    with pm.Model(coords={"obs": range(N)}) as model:
        x = pm.Data("data", np.random.default_rng(1).normal(size=N), dims="obs")
        if batch_size is not None:
            x = pm.Minibatch(x, batch_size=batch_size)
        pm.Normal("x", pm.Normal("mu"), 1, observed=x, dims="obs")
    return model


def curvature(reduction: str) -> float:
    """Return the growth of the step of SGD with the distance of mu's mean from the optimum, without noise."""
    approx = guided_approximation(a1())
    goal = FitObjective(approx, ELBO(), reduction=reduction)
    rate = 1e-3
    updates, _ = goal.updates(obj_optimizer=pm.sgd(learning_rate=rate))
    loc = next(var for var in approx.storage.dense.values() if var.name == "globals_mu")
    steps = []
    for value in (0.0, 1.0):
        loc.set_value(np.array([value]))
        with pytensor.config.change_flags(cxx=""):  # the seed gives both the same noise and batch
            function = pm.compile([], updates[loc], mode=PYTHON, random_seed=1)
        steps.append(float(function()[0]))
    return (1 - (steps[1] - steps[0])) / rate


def test_bound_of_a_step() -> None:
    """A17: SGD stays bounded below 2 / curvature, 0.0198 for the sum and 1.980 for the mean."""
    assert 2 / curvature("sum") == pytest.approx(2 / (N + 1), rel=1e-8)
    assert 2 / curvature("mean") == pytest.approx(2 * N / (N + 1), rel=1e-8)
    assert 2 / curvature("batch") == pytest.approx(2 * N / B / (N + 1), rel=1e-8)
    # The mean over the batch's term alone, with the prior as it is: 1 + 1
    assert 2 / curvature("mean") != pytest.approx(2 / 2, rel=0.5)


def crossed() -> pm.Model:
    """Two likelihoods: 8 rows in batches of 2, and 12 in batches of 6."""
    with pm.Model(coords={"a": range(8), "b": range(12)}) as model:
        mu = pm.Normal("mu")
        for dim, size in (("a", 2), ("b", 6)):
            data = pm.Data(f"data_{dim}", np.zeros(len(model.coords[dim])), dims=dim)
            pm.Normal(f"x_{dim}", mu, observed=pm.Minibatch(data, batch_size=size), dims=dim)
    return model


@pytest.mark.parametrize(
    "make, factors",
    [
        (a1, {"batch": B / N, "sum": 1.0, "mean": 1 / N}),
        (lambda: a1(None), {"batch": 1.0, "sum": 1.0, "mean": 1 / N}),
        (crossed, {"batch": 1 / 4, "sum": 1.0, "mean": 1 / 20}),
    ],
)
def test_factors(make: Any, factors: dict[str, float]) -> None:
    """The largest ratio of rows where there are several; their rows in all."""
    model = make()
    for reduction, factor in factors.items():
        value = loss_factor(model, reduction).eval(mode=PYTHON)
        assert float(value) == pytest.approx(factor, rel=1e-12)


@pytest.mark.parametrize("objective", [ELBO(), IWAE(), pm.ReweightedWakeSleep()])
def test_three_ways_of_feeding_have_one_mean(objective: Any) -> None:
    """Minibatches in the model, batches by `pm.set_data` with `total_size`, and all rows."""
    x = np.array([-1.0, 0.0, 2.0])
    scored: dict[str, Any] = {"start": {"mu": 0.2}, "gradients": True}

    def fed(batch_size: int | None, total_size: int | None = None, n: int = 3) -> pm.Model:
        with pm.Model() as model:
            data = pm.Data("data", x[:n])
            if batch_size is not None:
                data = pm.Minibatch(data, batch_size=batch_size)
            pm.Normal("x", pm.Normal("mu"), 1, observed=data, total_size=total_size)
        return model

    noise = {(1,): np.random.default_rng(2).normal(size=(4, 1))}
    exact = evaluate(fed(None), objective, **scored)(noise)
    inside = evaluate(fed(2), objective, **scored)
    by_hand = fed(None, total_size=3, n=2)
    outside = evaluate(by_hand, objective, **scored)
    found: dict[str, list[Any]] = {"inside": [], "outside": []}
    for batch in all_batches(3, 2):
        found["inside"].append(inside(noise, batch))
        with by_hand:
            pm.set_data({"data": x[list(batch)]})
        found["outside"].append(outside(noise))
    for way, values in found.items():
        for name, right in exact.items():
            mean = np.mean([value[name] for value in values], axis=0)
            np.testing.assert_allclose(mean, right, rtol=RTOL, err_msg=f"{way}: {name}")


def test_terms_scaled_by_hand() -> None:
    """N/B times the terms of rows, prior and logq among them, and the global's once, at each batch."""
    loss = evaluate(rows_model(batch_size=2, with_global=True), ELBO(), gradients=False)
    rng = np.random.default_rng(3)
    noise = {(1,): rng.normal(size=(4, 1)), (2, 1): rng.normal(size=(4, 2, 1))}
    x, sd = np.array([-1.0, 0.0, 2.0]), np.log(2.0)  # softplus(0), at which a guide starts
    for batch in all_batches(3, 2):
        mu, z = sd * noise[1,], sd * noise[2, 1][..., 0]
        rows = norm.logpdf(x[list(batch)], z) + norm.logpdf(z, mu) - norm.logpdf(z, 0, sd)
        global_ = (norm.logpdf(mu) - norm.logpdf(mu, 0, sd))[:, 0]
        right = -(global_ + 3 / 2 * rows.sum(axis=1))
        np.testing.assert_allclose(loss(noise, batch)["loss"], right, rtol=RTOL)
