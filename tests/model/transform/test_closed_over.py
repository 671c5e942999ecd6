# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0

"""What the functions of a `CustomDist` close over: subsampled with the rows of its term."""

from functools import partial

import numpy as np
import pytensor
import pytest

import pymc as pm

from pymc.model.transform.closed_over import ClosedOverRV, with_closed_over_rows
from tests.minibatch.enumeration import full_logp_and_gradient, mean_over_batches, some_point

N, B = 5, 2
rng = np.random.default_rng(1)
X, Y, W = rng.normal(size=N), rng.normal(size=N), rng.uniform(0.5, 2, N)
Y3 = rng.normal(size=(N, 3))


def weighted(value, mu, weights):
    return weights * pm.logp(pm.Normal.dist(mu, 1), value)


def normal(mu, size):
    return pm.Normal.dist(mu, 1, size=size)


LOGPS = {
    "partial": partial(weighted, weights=W),
    "alike": partial(weighted, weights=np.full(N, 0.5)),
    "sum": lambda value, mu: weighted(value, mu, W).sum(),
    "several": lambda value, mu: weighted(value, mu + X, W),
    "shared variable": partial(weighted, weights=pytensor.shared(W)),
    "share of all": lambda value, mu: weighted(value, mu, W / W.sum()),
    "scalar": partial(weighted, weights=2.0),
}


def assert_unbiased(full):
    batched = pm.minibatch_model(full, B)
    point = some_point(full)
    expected = full_logp_and_gradient(full, point)
    np.testing.assert_allclose(mean_over_batches(batched, point), expected, 1e-10)
    back = full_logp_and_gradient(pm.remove_minibatch(batched), point)
    np.testing.assert_allclose(back, expected, 1e-10)
    return batched


@pytest.mark.parametrize("name", LOGPS)
def test_logp(name):
    with pm.Model(coords={"obs": range(N)}) as full:
        mu = pm.Data("x", X, dims="obs") * pm.Normal("b")
        pm.CustomDist("y", mu, logp=LOGPS[name], observed=Y, dims="obs")
    assert_unbiased(full)


def test_logp_of_vectors():
    def logp(value, mu):
        return W * (pm.logp(pm.Normal.dist(mu + Y3, 1), value)).sum(-1)

    with pm.Model(coords={"obs": range(N), "column": range(3)}) as full:
        mu = pm.Normal("mu", dims="column")
        dims = ("obs", "column")
        pm.CustomDist("y", mu, logp=logp, signature="(n)->(n)", observed=2 * Y3, dims=dims)
    assert_unbiased(full)


def test_draws_close_over_rows_too():
    """With logp= derived from them."""
    with pm.Model(coords={"obs": range(N)}) as full:
        a = pm.Normal("a", shape=2)
        pm.CustomDist("y", a[0], dist=lambda mu, size: normal(mu * W, size), observed=Y, dims="obs")
    assert_unbiased(full)


@pytest.mark.parametrize("draws", [{"dist": normal}, {"random": rng.normal}])
def test_draws_are_those_of_the_distribution(draws):
    with pm.Model(coords={"obs": range(N)}) as full:
        logp = partial(weighted, weights=W)
        rv = pm.CustomDist("y", 1000 * X, logp=logp, **draws, observed=Y, dims="obs")
    opened = with_closed_over_rows(rv, 0, N)
    assert isinstance(opened.owner.op, ClosedOverRV)
    if "dist" in draws:
        drawn = pm.draw(opened, random_seed=1)
        np.testing.assert_allclose(drawn, 1000 * X, atol=6)  # 1e-9 to be further off than 6 sd
    assert full["y"] is rv


def test_what_is_no_rows_stays():
    with pm.Model(coords={"obs": range(N)}):
        logp = partial(weighted, weights=W[:1])
        rv = pm.CustomDist("y", pm.Normal("mu"), logp=logp, observed=Y, dims="obs")
        other = pm.Normal("z", 0, 1, observed=Y)
    assert with_closed_over_rows(rv, 0, N) is rv
    assert with_closed_over_rows(other, 0, N) is other
