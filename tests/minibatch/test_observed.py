# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Checks of observed data: missing values of every kind of array, and unsigned differences."""

import warnings

import numpy as np
import pandas as pd
import pytensor
import pytensor.tensor as pt
import pytest

import pymc as pm
import pymc.dims as pmd

from tests.minibatch.enumeration import full_logp_and_gradient, mean_over_batches, some_point
from tests.minibatch.streams import loader_of

N, B = 6, 2
Y = np.array([0.3, np.nan, 1.2, -0.4, np.nan, 0.8])


def of_jax(array):
    return pytest.importorskip("jax.numpy").asarray(array)


def of_polars(array):
    return pytest.importorskip("polars").Series([None if np.isnan(v) else v for v in array])


KINDS = {
    "array": np.array,
    "float32": lambda y: y.astype("float32"),
    "list": list,
    "masked array": np.ma.masked_invalid,
    "pandas": pd.Series,
    "nullable pandas": lambda y: pd.Series(y).astype("Float64"),
    "polars": of_polars,
    "JAX": of_jax,
    "shared variable": pytensor.shared,
    "constant": pt.constant,
    "expression": lambda y: 2 * pytensor.shared(y),
    "named dims": lambda y: pmd.as_xtensor(y, dims=("obs",)).values,
}


@pytest.mark.parametrize("kind", KINDS)
def test_observed_nan_is_refused_for_every_kind_of_array(kind):
    batch = pm.Minibatch(KINDS[kind](Y), batch_size=B)
    with pm.Model():
        mu = pm.Normal("mu")
        with pytest.raises(NotImplementedError, match=r"'y' observes .* 2 missing values \(NaN\)"):
            pm.Normal("y", mu, 1, observed=batch)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_without_nan_are_observed(kind):
    with pm.Model() as model:
        batch = pm.Minibatch(KINDS[kind](Y[~np.isnan(Y)]), batch_size=B)
        pm.Normal("y", pm.Normal("mu"), 1, observed=batch)
    assert len(model.observed_RVs) == 1


def test_nan_is_refused_where_a_transformation_observes_it():
    with pm.Model() as model:
        pm.Normal("y", pm.Normal("mu"), 1, shape=B)
    with pytest.raises(NotImplementedError, match=r"'y' observes .* 2 missing values"):
        pm.observe(model, {"y": pm.Minibatch(Y, batch_size=B)})


def test_what_is_filled_is_not_missing():
    batch = pm.Minibatch(Y, batch_size=B)
    with pm.Model() as model:
        pm.Normal("y", pm.Normal("mu"), 1, observed=pt.switch(pt.isnan(batch), 0.0, batch))
    assert_unbiased(model)


def assert_unbiased(model):
    full = pm.remove_minibatch(model)
    point = some_point(full)
    expected = full_logp_and_gradient(full, point)
    assert np.isfinite(expected).all()
    np.testing.assert_allclose(mean_over_batches(model, point), expected, 1e-10)


def covariate(x, y, dims=None):
    mu = pt.switch(pt.isnan(x), pm.Normal("if_missing"), pm.Normal("b") * x)
    pm.Normal("lik", mu, 1, observed=y, dims=dims)


def logp_that_leaves_out(value, mu):
    left = pm.logp(pm.Normal.dist(mu, 1), pt.switch(pt.isnan(value), 0, value))
    return pt.switch(pt.isnan(value), 0, left)


def test_covariates_with_nan_are_the_model_s_affair():
    with pm.Model() as model:
        covariate(*pm.Minibatch(Y, np.arange(6.0), batch_size=B))
    assert_unbiased(model)
    with pm.Model(coords={"obs": range(N)}) as full:
        covariate(pt.constant(Y), np.arange(6.0), dims="obs")
    assert_unbiased(pm.minibatch_model(full, B))


def test_a_custom_dist_may_leave_nan_out():
    with pm.Model() as model:
        batch = pm.Minibatch(Y, batch_size=B)
        pm.CustomDist("y", pm.Normal("mu"), logp=logp_that_leaves_out, observed=batch)
    assert_unbiased(model)


def test_a_custom_dist_without_a_logp_may_not():
    with pm.Model(), pytest.raises(NotImplementedError, match="2 missing values"):
        pm.CustomDist(
            "y",
            pm.Normal("mu"),
            dist=lambda mu, size: pm.Normal.dist(mu, 1, size=size),
            observed=pm.Minibatch(Y, batch_size=B),
        )


PIXELS = np.arange(60, dtype="u1").reshape(20, 3)
BATCHES = {
    "Minibatch": lambda dtype: pm.Minibatch(PIXELS.astype(dtype), batch_size=5),
    "stream": lambda dtype: pm.Data(
        "batch", loader_of(PIXELS.astype(dtype), 5), dims=("obs", None)
    ),
}
WRAPPING = {
    "difference": lambda x: x[:, 0] - x[:, 1],
    "negative": lambda x: -x[:, 0],
    "later a float": lambda x: (x[:, 0] - x[:, 1]).astype("float64") / 255,
}
SIGNED = {
    "floats": lambda x: x[:, 0].astype("float64") - x[:, 1],
    "constant": lambda x: x[:, 0] - 128,
    "scaled": lambda x: x[:, 0] / 255 - 0.5,
    "sum": lambda x: x[:, 0] + x[:, 1],
}


@pytest.mark.parametrize("kind", BATCHES)
@pytest.mark.parametrize("expression", WRAPPING)
@pytest.mark.parametrize(["dtype", "wrapped"], [("uint8", 254), ("uint16", 65534)])
def test_unsigned_differences_are_told(kind, expression, dtype, wrapped):
    with pm.Model():
        batch = BATCHES[kind](dtype)
        x = WRAPPING[expression](batch)
        beta = pm.Normal("beta")
        with pytest.warns(UserWarning, match=f"'y' depends on a difference of {dtype}.* {wrapped}"):
            pm.Normal("y", beta * x, 1, observed=batch[:, 2])
        with pytest.warns(UserWarning, match="'p' depends on a difference of"):
            pm.Potential("p", beta * x, total_size=20)


@pytest.mark.parametrize("kind", BATCHES)
@pytest.mark.parametrize("expression", SIGNED)
def test_what_has_a_sign_is_not(kind, expression):
    with warnings.catch_warnings(), pm.Model():
        warnings.simplefilter("error")
        batch = BATCHES[kind]("uint8")
        x = SIGNED[expression](batch)
        pm.Normal("y", pm.Normal("beta") * x, 1, observed=batch[:, 2])


def test_differences_of_all_rows_are_of_the_release():
    with warnings.catch_warnings(), pm.Model() as model:
        warnings.simplefilter("error")
        x = pm.Data("x", PIXELS, dims=("obs", None))
        pm.Normal("y", x[:, 0] - x[:, 1], 1, observed=np.zeros(20), dims="obs")
    with pytest.warns(UserWarning, match="'y' depends on a difference of uint8 of a minibatch"):
        pm.minibatch_model(model, batch_size=5)
