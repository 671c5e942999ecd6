# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Draws of guided fits: of all rows or of some, part by part, with everything else where it belongs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytensor
import pytest
import xarray as xr

import pymc as pm
import pymc.dims as pmd

from pymc.variational.approximation import guided_approximation
from pymc.variational.report import FitReport
from tests.variational.guided.fits import NAMES, X, crossed_model, exact, local_model, set_rows

PLACES = np.arange(24.0).reshape(24, 1)
# Two-sided false-alarm rate of 1e-6 over all entries of a comparison
Z = 6.0


@pytest.fixture(scope="module")
def crossed() -> Any:
    """An approximation in which z of a row is the row's place, and u and v have a spread."""
    approx = guided_approximation(crossed_model(), start_sigma={"u": 1.0, "v": 0.5})
    set_rows(approx, "z", PLACES)
    return approx


@pytest.fixture(scope="module")
def draws(crossed: Any) -> xr.DataTree:
    return crossed.sample(7, random_seed=1)


@pytest.fixture(scope="module")
def local() -> Any:
    return exact(local_model())


def expected_both(posterior: xr.Dataset) -> xr.DataArray:
    both = posterior["z"] + posterior["u"] + posterior["v"].isel(k=0) + posterior["mu"]
    return both.transpose(*posterior["both"].dims)


def test_all_rows_have_their_draws_and_coords(draws: xr.DataTree) -> None:
    posterior = draws["posterior"].to_dataset()
    names = ["mu", "scale", "u", "v", "z", "both", "square", "mean", "twice"]
    assert list(posterior) == names
    assert posterior["z"].dims == ("chain", "draw", "user", "obs")
    assert posterior["obs"].values.tolist() == NAMES
    np.testing.assert_allclose(posterior["z"][0, 0], PLACES.reshape(4, 6), atol=1e-12)
    assert (posterior["v"] > 0).all()


def test_deterministics_are_of_the_same_draws(draws: xr.DataTree) -> None:
    posterior = draws["posterior"].to_dataset()
    np.testing.assert_allclose(posterior["both"], expected_both(posterior), rtol=1e-12)
    np.testing.assert_allclose(posterior["square"], posterior["mu"] ** 2, rtol=1e-12)
    np.testing.assert_allclose(posterior["mean"], posterior["z"].mean(("user", "obs")), rtol=1e-12)
    twice = np.broadcast_to(2 * np.arange(24.0).reshape(4, 6), (1, 7, 4, 6))
    np.testing.assert_array_equal(posterior["twice"], twice)


def test_data_come_along(draws: xr.DataTree) -> None:
    np.testing.assert_array_equal(draws["observed_data/x"], np.arange(24.0).reshape(4, 6))
    assert draws["constant_data/data"].dims == ("user", "obs")
    assert "fit" not in draws.children


def test_parts_share_what_is_not_of_their_rows(crossed: Any) -> None:
    names = ["mu", "u", "v", "z", "both"]
    posterior = crossed.sample(7, chunk=4, var_names=names)["posterior"].to_dataset()
    assert posterior.sizes["obs"] == 6
    np.testing.assert_allclose(posterior["both"], expected_both(posterior), rtol=1e-12)
    np.testing.assert_allclose(posterior["z"][0, 0], PLACES.reshape(4, 6), atol=1e-12)


def test_parts_one_by_one(crossed: Any) -> None:
    parts = list(crossed.sample_chunks(5, chunk=4, var_names=["mu", "z"], random_seed=1))
    assert [part["obs"].values.tolist() for part in parts] == [NAMES[:4], NAMES[4:]]
    assert ["mu" in part for part in parts] == [True, False]
    joined = xr.concat([part["z"] for part in parts], "obs")
    np.testing.assert_allclose(joined[0, 0], PLACES.reshape(4, 6), atol=1e-12)


@pytest.mark.parametrize(
    ("rows", "users", "obs"),
    [
        ({"obs": ["f", "b"]}, [0, 1, 2, 3], [5, 1]),
        ({"obs": slice(1, 3), "user": [3]}, [3], [1, 2]),
        ({"user": [2, 0], "obs": ["a"]}, [2, 0], [0]),
    ],
)
def test_selected_rows(crossed: Any, rows: Any, users: list[int], obs: list[int]) -> None:
    tree = crossed.sample(3, rows=rows, var_names=["z", "twice"], chunk=1)
    z = tree["posterior/z"]
    np.testing.assert_allclose(z[0, 0], PLACES.reshape(4, 6)[np.ix_(users, obs)], atol=1e-12)
    assert z["obs"].values.tolist() == [NAMES[k] for k in obs]
    assert z["user"].values.tolist() == users
    np.testing.assert_array_equal(tree["posterior/twice"][0, 0], 2 * tree["observed_data/x"])


def test_globals_are_the_same_for_any_rows(local: Any) -> None:
    with pm.Model(coords={"obs": NAMES}) as model:
        batch = pm.Minibatch(pm.Data("data", X, dims="obs"), batch_size=2)
        mu = pm.Normal("mu")
        z = pm.Normal("z", mu, 1, dims="obs")
        pm.Normal("x", z, 1, observed=batch, dims="obs")
    approx = guided_approximation(model)
    all_rows = approx.sample(4, random_seed=3)["posterior"]
    some = approx.sample(4, random_seed=3, rows=[5, 1], chunk=1)["posterior"]
    np.testing.assert_array_equal(all_rows["mu"], some["mu"])
    again = approx.sample(4, random_seed=3)["posterior"]
    np.testing.assert_array_equal(all_rows["z"], again["z"])
    assert not np.array_equal(all_rows["z"], approx.sample(4, random_seed=4)["posterior/z"])


def test_draws_have_the_moments_of_the_guide(local: Any) -> None:
    n = 4000
    z = local.sample(n, random_seed=1, chunk=4)["posterior/z"][0].values
    np.testing.assert_allclose(z.mean(0), X / 2, atol=Z * np.sqrt(0.5 / n))
    np.testing.assert_allclose(z.std(0), np.sqrt(0.5), atol=Z * np.sqrt(0.5 / (2 * n)))
    correlations = np.corrcoef(z.T)[np.triu_indices(6, 1)]
    np.testing.assert_allclose(correlations, 0, atol=Z / np.sqrt(n))


def test_what_is_of_all_rows_is_left_out_of_some(crossed: Any) -> None:
    with pytest.warns(UserWarning, match="'mean'.*It is left out"):
        tree = crossed.sample(2, rows={"obs": ["a"]})
    assert "mean" not in tree["posterior"]
    with pytest.raises(ValueError, match=r"'mean'.*of all rows has it"):
        crossed.sample(2, rows={"obs": ["a"]}, var_names=["mean"])
    alone = crossed.sample(2, var_names=["mean"])["posterior"]
    assert list(alone.data_vars) == ["mean"]


def test_unconstrained_values_and_multitraces(crossed: Any) -> None:
    tree = crossed.sample(3, include_transformed=True, random_seed=1)
    np.testing.assert_allclose(np.exp(tree["posterior/v_log__"]), tree["posterior/v"], rtol=1e-12)
    trace = crossed.sample(3, return_inferencedata=False, random_seed=1)
    assert len(trace) == 3
    np.testing.assert_array_equal(trace["v"], tree["posterior/v"][0])
    np.testing.assert_allclose(trace.point(1)["z"], PLACES.reshape(4, 6), atol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"var_names": ["w"]}, ValueError, "var_names of approx.sample has 'w'"),
        ({"draws": 0}, ValueError, "draws=0 of approx.sample"),
        ({"draws": 2.5}, TypeError, "draws=2.5 of approx.sample"),
        ({"chunk": True}, TypeError, "chunk=True of approx.sample"),
        ({"rows": [0]}, ValueError, "write a dict"),
        ({"rows": {"k": [0]}}, ValueError, "the subsampled dims are"),
        ({"rows": {"obs": ["q"]}}, KeyError, "has \\['q'\\] of the dim 'obs'"),
    ],
)
def test_refusals(crossed: Any, arguments: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        crossed.sample(**arguments)


def test_new_data_of_all_rows_and_of_some(local: Any) -> None:
    n = 4000
    some = local.sample_posterior_predictive(n, rows={"obs": ["c", "a"]}, random_seed=1)
    x = some["posterior_predictive/x"][0]
    assert x["obs"].values.tolist() == ["c", "a"]
    np.testing.assert_allclose(x.mean("draw"), X[[2, 0]] / 2, atol=Z * np.sqrt(1.5 / n))
    np.testing.assert_allclose(x.var("draw"), 1.5, atol=Z * 1.5 * np.sqrt(2 / n))
    np.testing.assert_array_equal(some["observed_data/x"], X[[2, 0]])
    draws = local.sample(5, random_seed=1)
    model = local.model
    every = pm.sample_posterior_predictive(draws, model=model, progressbar=False, random_seed=1)
    assert every["posterior_predictive/x"].shape == (1, 5, 6)


def test_what_has_no_form_for_many_draws_is_named() -> None:
    with pm.Model(coords={"obs": NAMES}) as model:
        batch = pm.Minibatch(pm.Data("data", X, dims="obs"), batch_size=2)
        mu = pm.Normal("mu")

        def dist(mu: Any, size: Any) -> Any:
            return pm.Normal.dist(mu, 1, size=size)

        pm.CustomDist("x", mu, dist=dist, observed=batch, dims="obs")
    approx = guided_approximation(model)
    assert approx.sample(2)["posterior/mu"].shape == (1, 2)
    with pytest.raises(NotImplementedError, match=r"one of \['x'\] has no form for many draws"):
        approx.sample_posterior_predictive(2, rows=[0])


def test_variables_with_named_dims() -> None:
    with pm.Model(coords={"obs": NAMES}) as model:
        data = pmd.Data("data", X, dims="obs")
        batch = pm.Minibatch(data, batch_size=2)
        z = pmd.Normal("z", 0, 1, dims="obs")
        pmd.Normal("x", z, 1, observed=batch)
    approx = guided_approximation(model, start={"z": X}, start_sigma={"z": 1e-9})
    some = approx.sample(3, rows={"obs": ["d", "b"]})["posterior/z"]
    np.testing.assert_allclose(some[0, 0], X[[3, 1]], atol=1e-6)


def test_moments_of_all_rows(crossed: Any) -> None:
    means, sds = crossed.mean_data, crossed.std_data
    np.testing.assert_array_equal(means["z"], PLACES.reshape(4, 6))
    assert means["z"]["obs"].values.tolist() == NAMES
    assert means["v_log__"].dims == ("k", "obs")
    np.testing.assert_allclose(sds["v_log__"], 0.5, rtol=1e-6)
    state = crossed.state
    np.testing.assert_allclose(state.mean["v"], np.exp(means["v_log__"]), rtol=1e-12)
    flat = crossed.mean.eval(mode="FAST_COMPILE")
    assert flat.shape == (crossed.ndim,) == (1 + 3 + 4 + 18 + 24,)
    np.testing.assert_array_equal(flat[-24:], PLACES[:, 0])
    assert crossed.std.eval(mode="FAST_COMPILE").shape == flat.shape


def test_nodes_have_draws_of_a_batch(crossed: Any) -> None:
    model = crossed.model
    z, mu = crossed.sample_node([model["z"], model["mu"]], size=3)
    rows, draws = pm.compile([], [z, mu], mode="FAST_COMPILE", random_seed=1)()
    assert rows.shape == (3, 2, 3)
    assert draws.shape == (3,)
    # z of a row is its place: the rows of a batch are those of the users and of the observations
    steps = np.diff(np.sort(np.unique(np.round(rows) % 6)))
    assert steps.size == 2
    mean = crossed.sample_node(model["both"], deterministic=True)
    assert mean.eval(mode="FAST_COMPILE").shape == (2, 3)


def test_terms_that_are_not_finite_are_named() -> None:
    approx = exact(local_model())
    assert approx.bad_terms() == []
    approx = guided_approximation(crossed_model())
    set_rows(approx, "z", np.full((24, 1), np.inf))
    assert [name for name, _ in approx.bad_terms()] == ["z", "x"]


@pytest.mark.parametrize("batch_size", [2, None])
def test_new_rows_of_an_encoder_need_no_fit(batch_size: int | None) -> None:
    slope = pytensor.shared(0.5, name="slope")
    model = local_model(batch_size=batch_size)
    [data] = model.data_vars
    seen = model.rvs_to_values[model["x"]]

    def encode(x: Any) -> Any:
        return pm.Normal.dist(slope * x, 1e-6)

    guide = pm.Amortized({"z": encode}, inputs=[data if batch_size is None else seen], dim="obs")
    approx = guided_approximation(model, guide)
    np.testing.assert_allclose(approx.sample(2)["posterior/z"][0, 0], X / 2, atol=1e-4)
    some = approx.sample(2, rows={"obs": ["e", "b"]})["posterior/z"]
    np.testing.assert_allclose(some[0, 0], X[[4, 1]] / 2, atol=1e-4)
    with pytest.warns(UserWarning, match="'z' has no mean in closed form.*left out"):
        assert list(approx.mean_data) == []
    with pytest.raises(NotImplementedError, match="has no closed form"):
        approx.mean.eval()
    new = np.linspace(-1, 1, 9)
    with model:
        pm.set_data({"data": new}, coords={"obs": range(9)})
    np.testing.assert_allclose(approx.sample(2)["posterior/z"][0, 0], new / 2, atol=1e-4)


def test_new_rows_have_no_parameters_of_their_own() -> None:
    approx = exact(local_model())
    with approx.model:
        pm.set_data({"data": np.zeros(9)}, coords={"obs": range(9)})
    with pytest.raises(ValueError, match="have 9 rows, and 'obs' has parameters of 6"):
        approx.sample(2)


def test_the_fit_is_beside_the_draws() -> None:
    approx = exact(local_model())
    approx.hist = np.array([3.0, 2.0])
    approx.report = FitReport("ADVI", "c", "c", 2, 0.1, 0.1, "finished", {}, loss_factor=0.5)
    fit = approx.sample(2)["fit"]
    assert fit.attrs["loss_factor"] == 0.5
    np.testing.assert_array_equal(fit["loss"], [3, 2])
