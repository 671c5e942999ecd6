# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""A Gaussian process has values of all rows at once, and none of a batch."""

import numpy as np
import pytest

import pymc as pm

N, B = 6, 2
X = np.linspace(0, 10, N)[:, None]


@pytest.mark.parametrize("kind", ["Latent", "TP"])
@pytest.mark.parametrize("of", ["rows", "batch"])
def test_a_prior_over_a_plate_is_refused(kind, of):
    cov = pm.gp.cov.ExpQuad(1, 2.0)
    gp = pm.gp.Latent(cov_func=cov) if kind == "Latent" else pm.gp.TP(scale_func=cov, nu=3)
    with pm.Model(coords={"obs": range(N)}):
        batch = pm.Minibatch(pm.Data("x", X, dims=("obs", None)), batch_size=B)
        with pytest.raises(ValueError, match=rf"{kind}\.prior of 'f' .*'obs' is sub.*pm\.gp\.HSGP"):
            gp.prior("f", X if of == "rows" else batch, dims="obs")


def test_a_kronecker_prior_over_a_plate_is_refused():
    gp = pm.gp.LatentKron(cov_funcs=[pm.gp.cov.ExpQuad(1, 2.0)] * 2)
    with pm.Model(coords={"obs": range(4)}):
        pm.Minibatch(pm.Data("x", np.zeros(4), dims="obs"), batch_size=B)
        with pytest.raises(ValueError, match=r"LatentKron\.prior of 'f' .*'obs' is subsampled"):
            gp.prior("f", [X[:2], X[:2]], dims="obs")


def test_a_prior_over_another_dim_stays():
    with pm.Model(coords={"obs": range(N), "place": range(3)}) as model:
        batch = pm.Minibatch(pm.Data("y", X[:, 0], dims="obs"), batch_size=B)
        f = pm.gp.Latent(cov_func=pm.gp.cov.ExpQuad(1, 2.0)).prior("f", X[:3], dims="place")
        pm.Normal("lik", f[0], 1, observed=batch)
    assert model.named_vars_to_dims["f"] == ("place",)
