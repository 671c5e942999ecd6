# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Results of approximations of both kinds: the same arguments, and memory that has to suffice."""

from __future__ import annotations

import logging

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytensor
import pytest

import pymc as pm

from pymc.variational import memory
from pymc.variational.approximation import guided_approximation
from pymc.variational.posterior import sample

X = np.linspace(-1, 1, 40)


@pytest.fixture(autouse=True, scope="module")
def python_mode() -> Iterator[None]:
    """Run graphs as Python: to compile one takes longer than these tests."""
    with pytensor.config.change_flags(mode="FAST_COMPILE"):
        yield


def regression(batch_size: int | None) -> pm.Model:
    with pm.Model() as model:
        x, y = pm.Data("data", X, dims="obs"), pm.Data("seen", 2 * X, dims="obs")
        if batch_size is not None:
            x, y = pm.Minibatch(x, y, batch_size=batch_size)
        slope, sd = pm.Normal("slope"), pm.HalfNormal("sd")
        mu = pm.Deterministic("mu", slope * x, dims="obs")
        pm.Deterministic("centred", mu - mu.mean(), dims="obs")
        pm.Deterministic("square", slope**2)
        pm.Deterministic("table", slope * np.ones((50, 50)))
        pm.Normal("y", mu, sd, observed=y, dims="obs")
    return model


def made_of(kind: str, batch_size: int | None = 4) -> Any:
    model = regression(batch_size)
    if kind == "guided":
        return guided_approximation(model)
    with model:
        return pm.MeanField(random_seed=1)


@pytest.fixture(scope="module", params=["groups", "guided"])
def approx(request: pytest.FixtureRequest) -> Any:
    return made_of(request.param)


@pytest.fixture(scope="module", params=["groups", "guided"])
def of_full_data(request: pytest.FixtureRequest) -> Any:
    return made_of(request.param, None)


class TestSameArguments:
    def test_rows_and_variables(self, approx: Any) -> None:
        every = approx.sample(5, random_seed=1).posterior
        some = approx.sample(5, rows=[3, 1], var_names=["mu", "slope"], random_seed=1)
        assert list(some.posterior.data_vars) == ["mu", "slope"]
        assert some.posterior["obs"].values.tolist() == [3, 1]
        np.testing.assert_allclose(some.posterior["mu"], every["mu"][..., [3, 1]])
        np.testing.assert_array_equal(some.posterior["slope"], every["slope"])
        np.testing.assert_array_equal(some.constant_data["data"], X[[3, 1]])
        np.testing.assert_array_equal(some.observed_data["y"], 2 * X[[3, 1]])

    def test_variables_of_all_rows(self, approx: Any) -> None:
        draws = approx.sample(5, var_names=["sd_log__", "centred"], include_transformed=True)
        assert list(draws.posterior.data_vars) == ["sd_log__", "centred"]
        assert draws.posterior["centred"].shape == (1, 5, 40)
        np.testing.assert_allclose(draws.posterior["centred"].mean("obs"), 0, atol=1e-12)
        assert list(approx.sample(5, var_names="sd").posterior.data_vars) == ["sd"]

    def test_multitrace(self, approx: Any) -> None:
        trace = approx.sample(5, var_names=["sd", "square"], return_inferencedata=False)
        assert trace.varnames == ["sd", "square"]
        assert trace["sd"].shape == (5,)
        every = approx.sample(5, return_inferencedata=False).varnames
        assert {"sd_log__", "sd", "mu", "centred"} < set(every)

    def test_parts(self, approx: Any) -> None:
        names, seed = ["mu", "sd"], 2
        every = approx.sample(5, var_names=names, random_seed=seed).posterior
        first, second = approx.sample_chunks(5, var_names=names, chunk=25, random_seed=seed)
        np.testing.assert_array_equal(first["sd"], every["sd"])
        assert list(second.data_vars) == ["mu"]
        both = np.concatenate([first["mu"], second["mu"]], axis=-1)
        np.testing.assert_allclose(both, every["mu"])

    def test_new_data(self, approx: Any) -> None:
        new = approx.sample_posterior_predictive(200, rows=slice(0, 2), random_seed=3)
        assert new.posterior_predictive["y"].shape == (1, 200, 2)
        draws = approx.sample(
            200, var_names=["mu", "sd"], rows=slice(0, 2), random_seed=3
        ).posterior
        scaled = (new.posterior_predictive["y"] - draws["mu"]) / draws["sd"]
        # Standard normal: 4 standard errors of 400 draws, one false alarm in 8,000
        assert abs(float(scaled.mean())) < 4 / np.sqrt(400)
        assert abs(float((scaled**2).mean()) - 1) < 4 * np.sqrt(2 / 400)

    @pytest.mark.parametrize(
        "arguments, error, match",
        [
            ({"var_names": "nu"}, ValueError, "var_names of approx.sample has 'nu'"),
            ({"rows": {"k": [0]}}, ValueError, "has 'k', but the subsampled dims are .'obs'."),
            ({"rows": [40]}, IndexError, "has a row that is not there"),
            ({"rows": [0], "var_names": ["centred"]}, ValueError, "row by row here, and 'centred'"),
            ({"chunk": 0}, ValueError, "chunk"),
        ],
    )
    def test_refused(self, approx: Any, arguments: Any, error: type[Exception], match: str) -> None:
        with pytest.raises(error, match=match):
            approx.sample(5, **arguments)

    def test_what_is_of_all_rows_is_left_out_of_some(self, approx: Any) -> None:
        with pytest.warns(UserWarning, match="'centred'.*It is left out"):
            draws = approx.sample(5, rows=slice(0, 3))
        assert "centred" not in draws.posterior

    def test_no_rows_at_all(self, of_full_data: Any) -> None:
        with pytest.raises(ValueError, match=r"nothing says what a row is. Leave rows out.*\.isel"):
            of_full_data.sample(5, rows=[1])
        draws = of_full_data.sample(5, var_names=["mu"])
        assert draws.posterior["mu"].isel(obs=[1]).shape == (1, 5, 1)
        [whole] = of_full_data.sample_chunks(5)
        assert whole["mu"].shape == (1, 5, 40)

    @pytest.mark.parametrize("kind", ["groups", "guided"])
    def test_data_out_of_step(self, kind: str) -> None:
        """Which have no number of rows: new data of none would be drawn in silence."""
        approx = made_of(kind)
        with approx.model:
            pm.set_data({"data": X[:3]})
        for draw in (approx.sample_posterior_predictive, lambda n: approx.sample(n, rows=[0])):
            with pytest.raises(ValueError, match=r"different numbers of rows.*by one pm\.set_data"):
                draw(5)
        with approx.model:
            pm.set_data({"seen": X[:3]})
        assert approx.sample_posterior_predictive(5).posterior_predictive["y"].shape == (1, 5, 3)

    def test_what_needs_all_rows_of_some(self) -> None:
        with pytest.raises(TypeError, match=r"rows=.* takes no log_prior"):
            made_of("groups").sample(5, rows=[1], log_prior=True)
        assert "log_prior" in made_of("groups", None).sample(5, log_prior=True)


class TestSizes:
    @pytest.fixture
    def small(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Make draws large that take more than those of one row."""
        monkeypatch.setattr(sample, "LARGE_DETERMINISTIC", 5 * 8)

    def test_large_deterministics_of_rows(self, approx: Any, small: None) -> None:
        """And of no others: a table is no rows."""
        match = (
            r"leaves out 'mu' \(1.6 kB\), 'centred' \(1.6 kB\): .* var_names=.*rows=slice.*chunks"
        )
        with pytest.warns(UserWarning, match=match) as caught:
            draws = approx.sample(5)
        assert caught[0].filename == __file__
        assert set(draws.posterior.data_vars) == {"slope", "sd", "square", "table"}

    def test_what_the_message_says(self, approx: Any, small: None) -> None:
        assert approx.sample(5, var_names=["mu"]).posterior["mu"].shape == (1, 5, 40)
        assert next(approx.sample_chunks(5, chunk=30, var_names=["mu"]))["mu"].shape == (1, 5, 30)
        one = approx.sample(5, rows=slice(0, 1), var_names=["mu"])
        assert one.posterior["mu"].shape == (1, 5, 1)

    def test_of_full_data(self, of_full_data: Any, small: None) -> None:
        """Rows are what has the dim of an observed variable; no form by rows is named."""
        with pytest.warns(UserWarning, match=r"leaves out 'mu' .*var_names=\['mu'\]$"):
            draws = of_full_data.sample(5)
        assert set(draws.posterior.data_vars) == {"slope", "sd", "square", "table"}

    def test_rows_without_dims(self, small: None) -> None:
        with pm.Model():
            mu = pm.Deterministic("mu", pm.Normal("slope") * X)
            pm.Normal("y", mu, observed=2 * X)
            approx = pm.MeanField()
        with pytest.warns(UserWarning, match="leaves out 'mu'"):
            assert list(approx.sample(5).posterior.data_vars) == ["slope"]

    def test_draws_that_would_not_fit(self, approx: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """The error comes before anything is drawn."""
        monkeypatch.setattr(memory, "available_memory", lambda: 10_000_000)
        match = "sample of 100,000 draws needs .*, and 10.0 MB are .*'mu', with 32.0 MB.*chunks"
        with pytest.raises(MemoryError, match=match):
            approx.sample(100_000, var_names=["mu", "sd"])
        with pytest.raises(MemoryError, match=r"'y', with 32.0 MB.*rows=slice\(0, 1000\)$"):
            approx.sample_posterior_predictive(100_000)
        assert approx.sample(20_000, var_names=["sd"]).posterior["sd"].size == 20_000
        some = approx.sample(10_000, var_names=["mu"], rows=slice(0, 10)).posterior
        assert some["mu"].size == 100_000

    def test_lengths_that_only_data_know(self) -> None:
        with pm.Model() as model:
            x, y = pm.Minibatch(pm.Data("x", np.ones((6, 3))), pm.Data("y", X[:6]), batch_size=2)
            b = pm.Normal("b", shape=pm.Data("groups", np.zeros(7)).shape[0])
            pm.Deterministic("both", x[:, :, None] * b)
            pm.Normal("seen", x.sum(1) * b[0], observed=y)
            approx = pm.MeanField()
        for one in (approx, guided_approximation(model)):
            with pytest.raises(MemoryError, match=f"'both', with {6 * 3 * 7 * 8:,}.0 TB of draws"):
                one.sample(10**12, var_names=["both"])


class TestData:
    def test_large_data_are_left_out(
        self, approx: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        size = 2 * X.nbytes
        monkeypatch.setattr(sample, "LARGE_DATA", size)
        with caplog.at_level(logging.INFO, "pymc"):
            assert {"observed_data", "constant_data"} < set(approx.sample(5).children)
            assert not caplog.messages
            monkeypatch.setattr(sample, "LARGE_DATA", size - 1)
            small = set(approx.sample(5).children)
            assert not small & {"observed_data", "constant_data"}
            [line] = caplog.messages
            assert "no observed_data and constant_data, which are 640 bytes" in line
            assert "include_data=True" in line
            new = approx.sample_posterior_predictive(5)
            assert list(new.children) == ["posterior_predictive"]
            assert "approx.sample_posterior_predictive returns no" in caplog.messages[1]

    def test_as_asked_for(self, approx: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sample, "LARGE_DATA", 0)
        draws = approx.sample(5, include_data=True)
        np.testing.assert_array_equal(draws.constant_data["data"], X)
        np.testing.assert_array_equal(draws.observed_data["y"], 2 * X)
        assert "observed_data" in approx.sample(5, rows=[1], var_names="mu").children
        assert "observed_data" not in approx.sample(5, rows=[1], var_names="mu", include_data=False)
        new = approx.sample_posterior_predictive(5, include_data=True)
        np.testing.assert_array_equal(new.observed_data["y"], 2 * X)
