# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Log-weights of rows: of exact guides they are log p(x), whatever is drawn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from scipy import stats

import pymc as pm

from pymc.variational import log_evidence, log_weights, memory
from pymc.variational.approximation import guided_approximation
from pymc.variational.posterior import log_weights as weights_module
from tests.variational.guided.fits import NAMES, X, crossed_model, exact, local_model

# Of two-sided z-scores over the rows of one comparison: a false alarm in 10^5 runs
Z = 5.0


def model_with_global(batch_size: int | None) -> tuple[pm.Model, Any]:
    """A10: z_i ~ N(mu, 1), x_i ~ N(z_i, 1), with the guide q(mu) = N(.2, .4), q(z | mu) = N(mu, 1)."""
    with pm.Model(coords={"obs": NAMES}) as model:
        data = pm.Data("data", X, dims="obs")
        seen = data if batch_size is None else pm.Minibatch(data, batch_size=batch_size)
        mu = pm.Normal("mu")
        z = pm.Normal("z", mu, 1, dims="obs")
        pm.Normal("x", z, 1, observed=seen, dims="obs")
    encode = {"z": lambda x, mu: pm.Normal.dist(mu + 0 * x, 1)}
    guide = pm.Amortized(encode, inputs=[seen, mu], dim="obs")
    approx = guided_approximation(model, guide, start={"mu": 0.2}, start_sigma={"mu": np.sqrt(0.4)})
    return model, approx


@pytest.mark.parametrize("batch_size", [2, 6])
def test_exact_guides_have_equal_weights(batch_size: int) -> None:
    approx = exact(local_model(batch_size=batch_size))
    expected = stats.norm(0, np.sqrt(2)).logpdf(X)
    weights = log_weights(approx, 3, random_seed=1)
    assert weights.dims == ("particle", "obs")
    np.testing.assert_allclose(weights, np.tile(expected, (3, 1)), rtol=1e-8)
    found = log_evidence(approx, 3, rows={"obs": ["d", "a"]}, random_seed=1)
    np.testing.assert_allclose(found["log_evidence"], expected[[3, 0]], rtol=1e-8)
    np.testing.assert_allclose(found["se"], 0, atol=1e-6)
    assert found["obs"].values.tolist() == ["d", "a"]


@pytest.mark.parametrize("batch_size", [2, None])
def test_global_variables_are_averaged_over(batch_size: int | None) -> None:
    _, approx = model_with_global(batch_size)
    found = log_evidence(approx, 20_000, random_seed=1)
    exact = stats.norm(0.2, np.sqrt(2.4)).logpdf(X)
    assert (found["se"] > 0).all()
    np.testing.assert_array_less(abs(found["log_evidence"] - exact), Z * found["se"])
    # What one draw of mu gives: log N(x | mu, 2) for one mu, which two rows agree on
    one = log_evidence(approx, 20_000, same_globals=True, random_seed=1)
    mu = np.linspace(-3, 3, 2001)
    misfit = abs(one["log_evidence"].values - stats.norm(mu[:, None], np.sqrt(2)).logpdf(X))
    z_scores = (misfit / one["se"].values).max(axis=1)
    assert z_scores.min() < Z


def test_the_spread_of_estimates_is_the_standard_error() -> None:
    _, approx = model_with_global(2)
    weights = log_weights(approx, 40 * 400, random_seed=1).values.reshape(40, 400, 6)
    spread = np.logaddexp.reduce(weights, axis=1).std(axis=0, ddof=1)
    told = log_evidence(approx, 400, random_seed=2)["se"]
    # A standard deviation of 40 values has a standard error of 11 %: five of these
    np.testing.assert_allclose(spread, told, rtol=0.55)


@pytest.mark.parametrize("batch_size", [2, None])
def test_parts_are_put_where_they_belong(
    batch_size: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, approx = model_with_global(batch_size)
    monkeypatch.setattr(weights_module, "FLOATS_AT_ONCE", 12)
    weights = log_weights(approx, 50, rows=[4, 2, 0], random_seed=1)
    assert weights.shape == (50, 3)
    assert np.isfinite(weights).all()
    found = log_evidence(approx, 4000, rows=[4, 2, 0], random_seed=1)
    exact = stats.norm(0.2, np.sqrt(2.4)).logpdf(X[[4, 2, 0]])
    np.testing.assert_array_less(abs(found["log_evidence"] - exact), Z * found["se"])


def test_rows_that_were_not_fitted() -> None:
    model, approx = model_with_global(2)
    new = np.array([3.0, -2.0, 0.1, 0.4])
    with model:
        pm.set_data({"data": new}, coords={"obs": range(4)})
    found = log_evidence(approx, 20_000, random_seed=1)
    exact = stats.norm(0.2, np.sqrt(2.4)).logpdf(new)
    np.testing.assert_array_less(abs(found["log_evidence"] - exact), Z * found["se"])


def test_discrete_rows_have_the_probability_of_a_mixture() -> None:
    with pm.Model(coords={"obs": NAMES}) as model:
        batch = pm.Minibatch(pm.Data("data", X, dims="obs"), batch_size=2)
        z = pm.Bernoulli("z", 0.3, dims="obs")
        pm.Normal("x", 2 * z, 1, observed=batch, dims="obs")
    encode = {"z": lambda x: pm.Bernoulli.dist(logit_p=x)}
    approx = guided_approximation(model, pm.Amortized(encode, inputs=[batch], dim="obs"))
    found = log_evidence(approx, 4000, random_seed=1)
    mixture = 0.7 * stats.norm(0, 1).pdf(X) + 0.3 * stats.norm(2, 1).pdf(X)
    np.testing.assert_array_less(abs(found["log_evidence"] - np.log(mixture)), Z * found["se"])
    assert approx.sample(2)["posterior/z"].dtype == np.int64


def test_rows_of_a_model_of_globals_have_their_likelihood() -> None:
    with pm.Model(coords={"obs": NAMES}) as model:
        batch = pm.Minibatch(pm.Data("data", X, dims="obs"), batch_size=2)
        pm.Normal("x", pm.Normal("mu"), 1, observed=batch, dims="obs")
    approx = guided_approximation(model, start={"mu": 0.5}, start_sigma={"mu": 1e-9})
    expected = stats.norm(0.5, 1).logpdf(X)
    np.testing.assert_allclose(log_evidence(approx, 3)["log_evidence"], expected, atol=1e-7)


def test_weights_that_would_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sum over particles needs no array of them."""
    monkeypatch.setattr(memory, "available_memory", lambda: 8 * 6 * 100 - 1)
    approx = exact(local_model())
    match = (
        r"log_weights of 100 particles of 6 rows needs 4.8 kB of memory.*rows=slice.*log_evidence"
    )
    with pytest.raises(MemoryError, match=match):
        log_weights(approx, 100)
    assert log_weights(approx, 100, rows=[0], progressbar=False).shape == (100, 1)
    assert log_evidence(approx, 100).sizes["obs"] == 6


def test_refusals() -> None:
    with pytest.raises(ValueError, match="one plate, but the model has user, obs, user x obs"):
        log_weights(guided_approximation(crossed_model()), 2)
    with pm.Model() as model:
        pm.Normal("x", pm.Normal("mu"), 1, observed=X)
    with pytest.raises(ValueError, match="nothing says what a row is"):
        log_evidence(guided_approximation(model), 2)
    with pytest.raises(TypeError, match=r"takes what pm.fit returns, and got 3"):
        log_evidence(3, 2)
    with pytest.raises(ValueError, match=r"n_particles=0 of pm\.variational\.log_weights"):
        log_weights(exact(local_model()), 0)
