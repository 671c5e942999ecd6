# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Minibatches of models of which pymc-extras has marginalized a variable."""

import numpy as np
import pytest

import pymc as pm

from tests.minibatch.enumeration import full_logp_and_gradient, mean_over_batches, some_point

# Before it, marginalize has no log-probability on the PyTensor that PyMC 6.4 asks for
pmx = pytest.importorskip("pymc_extras", minversion="0.15")

N, B = 6, 2
Y = np.random.default_rng(0).normal(size=N)
COLUMNS = np.stack([Y, Y**2, -Y], axis=1)


def mixture(y):
    mu = pm.Normal("mu", [-1, 1], 1, shape=2)
    z = pm.Categorical("z", pm.Dirichlet("w", [1.0, 1.0]), dims="row")
    pm.Normal("lik", mu[z], 1, observed=y, dims="row")


def switch(y):
    z = pm.Bernoulli("z", pm.Beta("w", 2, 2), dims="row")
    pm.Normal("lik", pm.math.switch(z, pm.Normal("mu"), 0.0), 1, observed=y, dims="row")


def columns(y):
    z = pm.Bernoulli("z", 0.3, dims="row")
    pm.Normal("lik", pm.Normal("mu", shape=(2, 3))[z], 1, observed=y, dims=("row", "column"))


def conjugate(y):
    z = pm.Normal("z", pm.Normal("mu"), 1, dims="row")
    pm.Normal("lik", 2 * z, 1, observed=y, dims="row")


def shared(y):
    z = pm.Bernoulli("z", 0.3)
    pm.Normal("lik", pm.Normal("mu") * z, 1, observed=y, dims="row")


def two_likelihoods(y):
    z = pm.Bernoulli("z", 0.3, dims="row")
    pm.Normal("lik", pm.Normal("mu") * z, 1, observed=y, dims="row")
    pm.Normal("other", z, 2, observed=y, dims="row")


def built(form, batch=False):
    with pm.Model(coords={"row": range(N), "column": range(3)}) as model:
        of_columns = form is columns
        dims = ("row", "column") if of_columns else "row"
        y = pm.Data("y", COLUMNS if of_columns else Y, dims=dims)
        form(pm.Minibatch(y, batch_size=B) if batch else y)
    return model


def derived(model):
    return pm.minibatch_model(model, B, sampling="without_replacement")


@pytest.mark.parametrize("form", [mixture, switch, columns, conjugate])
def test_exact(form):
    full = pmx.marginalize(built(form), ["z"])
    point = some_point(full)
    expected = full_logp_and_gradient(full, point)
    batched = derived(full)
    np.testing.assert_allclose(mean_over_batches(batched, point), expected)
    back = pm.remove_minibatch(batched)
    np.testing.assert_allclose(full_logp_and_gradient(back, point), expected)


@pytest.mark.parametrize(
    ("form", "message"),
    [(shared, "which all rows of the data share"), (two_likelihoods, "1 more variables depend on")],
)
def test_refuses_what_is_no_sum_over_rows(form, message):
    full = pmx.marginalize(built(form), ["z"])
    with pytest.raises(ValueError, match=message):
        derived(full)


def test_in_a_model_of_minibatches_it_says_what_works():
    model = built(switch, batch=True)
    with pytest.raises(ValueError, match=r"Marginalize it in the model of all rows.*remove_minib"):
        pmx.marginalize(model, ["z"])
    assert derived(pmx.marginalize(pm.remove_minibatch(model), ["z"]))["lik"].type.ndim == 1
