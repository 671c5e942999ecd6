# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""The table of a fit, and its results in files."""

from __future__ import annotations

import numpy as np
import pytensor
import pytest
import xarray as xr

import pymc as pm

from pymc.variational.approximation import guided_approximation


@pytest.fixture(autouse=True)
def python_mode():
    with pytensor.config.change_flags(mode="FAST_COMPILE"):
        yield


@pytest.fixture
def approx():
    with pm.Model(coords={"obs": range(50), "k": ["a", "b"]}) as model:
        y = pm.Minibatch(pm.Data("y_data", np.zeros(50), dims="obs"), batch_size=5)
        mu = pm.Normal("mu", 0, 1, dims="k")
        level = pm.Normal("level", 0, 1, dims="obs")
        pm.Deterministic("shifted", level + mu[0], dims="obs")
        pm.Deterministic("sum", mu.sum())
        pm.Normal("y", level + mu[0], 1, observed=y, dims="obs")
    start = {"mu": [100.0, 0.001]}
    return guided_approximation(model, start=start, start_sigma={"mu": np.array([2.0, 1e-4])})


def test_no_column_is_nan(approx):
    table = approx.summary(500, random_seed=1)
    assert list(table.columns) == ["mean", "sd", "eti89_lb", "eti89_ub"]
    assert list(table.index) == ["mu[a]", "mu[b]", "sum"]
    assert not table.isna().any(axis=None)


def test_numbers_have_the_digits_of_their_sd(approx):
    table = approx.summary(500, random_seed=1)
    draws = approx.sample(500, var_names=["mu", "sum"], random_seed=1).posterior["mu"][0]
    assert table.loc["mu[a]", "mean"] == round(float(draws[:, 0].mean()), 1)
    assert table.loc["mu[b]", "mean"] == round(float(draws[:, 1].mean()), 5)
    assert table.loc["mu[b]", "sd"] > 0


def test_rows_by_name_and_arguments_of_arviz(approx):
    table = approx.summary(100, "level", ci_prob=0.5)
    assert len(table) == 50
    assert "eti50_lb" in table
    assert "r_hat" in approx.summary(100, "mu", kind="diagnostics")


def test_a_model_without_minibatches():
    x = np.arange(20.0)
    with pm.Model() as model:
        slope = pm.Normal("slope", 0, 1)
        pm.Normal("y", pm.Deterministic("mu", slope * x), 1, observed=x)
    assert list(guided_approximation(model).summary(50).index) == ["slope"]


@pytest.mark.parametrize("form", ["netcdf", "zarr"])
@pytest.mark.parametrize("method", ["advi", "auto"])
def test_results_in_files(tmp_path, form, method):
    pytest.importorskip("h5netcdf" if form == "netcdf" else "zarr")
    with pm.Model():
        pm.Normal("y", pm.Normal("mu"), 1, observed=np.ones(5))
        options = {} if method == "auto" else {"n": 200}
        tree = pm.fit(method=method, random_seed=1, progressbar=False, **options).sample(20)
    path = tmp_path / "fit"
    if form == "netcdf":
        tree.to_netcdf(path, engine="h5netcdf")
        back = xr.open_datatree(path, engine="h5netcdf")
    else:
        tree.to_zarr(path, consolidated=False)
        back = xr.open_datatree(path, engine="zarr", consolidated=False)
    with back:
        assert set(back.children) == set(tree.children)
        xr.testing.assert_equal(back["posterior"].to_dataset(), tree["posterior"].to_dataset())
        assert {k: str(v) for k, v in back["fit"].attrs.items()} == {
            k: str(v) for k, v in tree["fit"].attrs.items()
        }
