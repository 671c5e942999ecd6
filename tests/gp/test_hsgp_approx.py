# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""The basis of an HSGP is fixed once: it has to be that of all rows, not of the first batch."""

import numpy as np
import pytest

import pymc as pm

from tests.minibatch.enumeration import (
    PYTHON,
    full_logp_and_gradient,
    mean_over_batches,
    some_point,
)
from tests.minibatch.streams import feed, loader_of

N, B = 6, 2
X, Y = np.linspace(0, 10, N)[:, None], np.sin(np.linspace(0, 10, N))


def hsgp(x, y):
    gp = pm.gp.HSGP(m=[4], c=1.5, cov_func=pm.gp.cov.ExpQuad(1, 2.0))
    pm.Normal("lik", gp.prior("f", X=x), 1, observed=y)
    return gp


def periodic(x, y):
    gp = pm.gp.HSGPPeriodic(m=3, cov_func=pm.gp.cov.Periodic(1, period=3.0, ls=1.0))
    pm.Normal("lik", gp.prior("f", X=x), 1, observed=y)
    return gp


@pytest.mark.parametrize("build", [hsgp, periodic])
def test_basis_of_all_rows(build):
    with pm.Model() as model:
        gp = build(*pm.Minibatch(X, Y, batch_size=B, sampling="without_replacement"))
    with pm.Model() as full:
        expected = build(X, Y)
    np.testing.assert_array_equal(gp._X_center, expected._X_center)
    point = some_point(model)
    np.testing.assert_allclose(
        mean_over_batches(model, point), full_logp_and_gradient(full, point), rtol=1e-10
    )


def streamed(gp, by_name):
    """A model of batches of 10 to 20, which no zeros are among."""
    loader = loader_of({"x": X + 10, "y": Y}, B)
    with pm.Model() as model:
        x, y = pm.Data("x", loader, dims=("obs", "column")), pm.Data("y", loader, dims="obs")
        f = gp.prior("f", X=model["x"] if by_name else x)
        pm.Normal("lik", f, 1, observed=y)
    return model


def gps():
    cov = pm.gp.cov.ExpQuad(1, 2.0)
    yield "L", lambda: pm.gp.HSGP(m=[4], L=[8.0], cov_func=cov)
    yield "c", lambda: pm.gp.HSGP(m=[4], c=1.5, cov_func=cov)
    periodic = pm.gp.cov.Periodic(1, period=3.0, ls=1.0)
    yield "periodic", lambda: pm.gp.HSGPPeriodic(m=3, cov_func=periodic)


@pytest.mark.parametrize("make", [f for _, f in gps()], ids=[name for name, _ in gps()])
class TestStream:
    @pytest.mark.parametrize("by_name", [False, True])
    def test_the_centre_is_said_first(self, make, by_name):
        """The zeros of a placeholder are not the rows that will come."""
        with pytest.raises(
            ValueError, match="are those of all rows of X, but these come in batches"
        ):
            streamed(make(), by_name)

    def test_with_a_centre(self, make):
        ranged, seen = make(), make()
        ranged.prior_linearized(np.array([[10.0], [20.0]]))
        model = streamed(ranged, by_name=False)
        with pm.Model() as full:
            pm.Normal("lik", seen.prior("f", X=X + 10), 1, observed=Y)
        np.testing.assert_array_equal(ranged._X_center, seen._X_center)
        point = some_point(full)
        with pm.minibatch_logp():
            evaluate = model.compile_fn(model.logp(), mode=PYTHON)
        found = []
        for rows in ([0, 1], [2, 3], [4, 5]):
            feed(model, {"x": X + 10, "y": Y}, rows)
            found.append(evaluate(point))
        expected = full.compile_fn(full.logp(), mode=PYTHON)(point)
        np.testing.assert_allclose(np.mean(found), expected, rtol=1e-10)
