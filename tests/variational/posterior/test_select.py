# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Rows by position, by mask and by coords."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytensor
import pytest

from scipy import stats

import pymc as pm
import pymc.dims as pmd

from pymc.exceptions import ShapeError
from pymc.minibatch.axis_tracking import Rows
from pymc.minibatch.index import minibatch_index
from pymc.variational import log_evidence, log_weights
from pymc.variational.approximation import guided_approximation
from pymc.variational.posterior.select import select_rows
from tests.minibatch.streams import batch_of, loader_of

OBS = Rows(minibatch_index(rows=4, batch_size=2, dim="obs"))
USER = Rows(minibatch_index(rows=3, batch_size=2, dim="user"))
MODEL = pm.Model(coords={"obs": ["a", "b", "c", "d"]})


@pytest.mark.parametrize(
    ("rows", "positions"),
    [
        (None, [0, 1, 2, 3]),
        (slice(2, None), [2, 3]),
        ([3, 0], [3, 0]),
        (-1, [3]),
        ([], []),
        ([True, False, False, True], [0, 3]),
        (np.array([1], dtype="int8"), [1]),
        ({"obs": ["d", "a"]}, [3, 0]),
        ({"obs": "b"}, [1]),
        ({"obs": slice(0, 2)}, [0, 1]),
        ({}, [0, 1, 2, 3]),
    ],
)
def test_positions(rows: Any, positions: list[int]) -> None:
    selection = select_rows(MODEL, [OBS], rows)
    assert selection.positions[OBS].tolist() == positions
    assert selection.positions[OBS].dtype == np.int64
    assert selection.is_all == (positions == [0, 1, 2, 3])


def test_rows_of_two_axes_in_a_table() -> None:
    selection = select_rows(MODEL, [USER, OBS], {"obs": ["d", "b"], "user": [2, 0]})
    assert selection.in_table((USER, OBS)).tolist() == [11, 9, 3, 1]
    assert selection.in_table((OBS,)).tolist() == [3, 1]
    assert set(selection.by_dim) == {"obs", "user"}


def test_parts_along_one_axis() -> None:
    selection = select_rows(MODEL, [USER, OBS], {"obs": ["d", "b", "a"]})
    parts = [(part, rows.in_table((OBS,)).tolist()) for part, rows in selection.chunks(OBS, 2)]
    assert parts == [(slice(0, 2), [3, 1]), (slice(2, 3), [0])]
    assert all(len(rows.positions[USER]) == 3 for _, rows in selection.chunks(OBS, 2))


@pytest.mark.parametrize(
    ("rows", "error", "match"),
    [
        ([4], IndexError, "has a row that is not there.*'obs' has 4 rows"),
        ([True], IndexError, "a mask of another length"),
        ([0.5], TypeError, r"rows=\[0.5\] of f has to be a slice, positions, or a mask"),
        ({"obs": ["e"]}, KeyError, r"rows of f has \['e'\] of the dim 'obs'"),
        (
            {"group": [1]},
            ValueError,
            r"rows of f has 'group', but the subsampled dims are \['obs'\]",
        ),
    ],
)
def test_refusals(rows: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        select_rows(MODEL, [OBS], rows, "f")


def test_positions_need_one_axis() -> None:
    with pytest.raises(ValueError, match=r"are positions along one subsampled dim.*write a dict"):
        select_rows(MODEL, [OBS, USER], [0], "f")
    with pytest.raises(ValueError, match="no dim of the model is subsampled"):
        select_rows(MODEL, [], [0], "f")


N, B = 8, 3
X = np.linspace(-1, 1, N)
Y = 2 * X
NEW = np.array([3.0, -4.0, 5.0])
SEEN = np.array([0.5, 0.0, -0.5])
NAMES = list("abcdefgh")


@pytest.fixture(autouse=True, scope="module")
def python_mode() -> Iterator[None]:
    """Run graphs as Python: to compile one takes longer than these tests."""
    with pytensor.config.change_flags(mode="FAST_COMPILE"):
        yield


def _minibatch() -> tuple[Any, Any]:
    return pm.Minibatch(pm.Data("X", X, dims="obs"), pm.Data("Y", Y, dims="obs"), batch_size=B)


def _full() -> tuple[Any, Any]:
    return pm.Data("X", X, dims="obs"), pm.Data("Y", Y, dims="obs")


def _streamed() -> tuple[Any, Any]:
    loader = loader_of({"X": X, "Y": Y}, B)
    return pm.Data("X", loader, dims="obs"), pm.Data("Y", loader, dims="obs")


FEEDS: dict[str, Callable[[], tuple[Any, Any]]] = {
    "minibatch": _minibatch,
    "full": _full,
    "streamed": _streamed,
}


def regression(how: str, **kwargs: Any) -> Any:
    with pm.Model(**kwargs) as model:
        x, y = FEEDS[how]()
        slope = pm.Normal("slope")
        mu = pm.Deterministic("mu", slope * x, dims="obs")
        pm.Normal("y", mu, 1, observed=y, dims="obs")
    return guided_approximation(model, start={"slope": 0.5}, start_sigma={"slope": 0.1})


def levels(how: str, **kwargs: Any) -> Any:
    """Each row has a level, whose draws are all the number of the row."""
    with pm.Model(**kwargs) as model:
        x, y = FEEDS[how]()
        z = pm.Normal("z", 0, 1, dims="obs")
        mu = pm.Deterministic("mu", z + x, dims="obs")
        pm.Normal("y", mu, 1, observed=y, dims="obs")
    start = np.arange(float(N))
    return guided_approximation(model, start={"z": start}, start_sigma={"z": 1e-9})


@pytest.fixture(params=FEEDS)
def how(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=["minibatch", "streamed"])
def in_batches(request: pytest.FixtureRequest) -> str:
    return request.param


class TestPredictions:
    def test_deterministics_and_coords(self, how: str) -> None:
        approx = regression(how)
        before = [var.get_value().copy() for var in approx.model.data_vars]
        coords = {"obs": ["u", "v", "w"]}
        found = approx.sample(5, data={"X": NEW}, coords=coords, var_names=["slope", "mu"])
        posterior = found.posterior
        np.testing.assert_allclose(
            posterior["mu"], posterior["slope"].values[..., None] * NEW, rtol=1e-12
        )
        assert posterior["obs"].values.tolist() == ["u", "v", "w"]
        np.testing.assert_array_equal(found.constant_data["X"], NEW)
        assert found.constant_data["obs"].values.tolist() == ["u", "v", "w"]
        assert "Y" not in found.constant_data
        assert "observed_data" not in found.children
        for var, value in zip(approx.model.data_vars, before):
            np.testing.assert_array_equal(var.get_value(), value)

    def test_one_seed_gives_the_same_globals(self, how: str) -> None:
        approx = regression(how)
        new = approx.sample(5, data={"X": NEW}, random_seed=1).posterior
        rest = approx.sample(5, var_names="slope", random_seed=1).posterior
        np.testing.assert_array_equal(new["slope"], rest["slope"])

    def test_new_observations(self, how: str) -> None:
        approx = regression(how)
        n = 4000
        found = approx.sample_posterior_predictive(n, data={"X": NEW}, random_seed=1)
        y = found.posterior_predictive["y"][0]
        sd = np.sqrt(1 + (0.1 * NEW) ** 2)
        # Two-sided false-alarm rate of 1e-6 over the rows
        np.testing.assert_array_less(abs(y.mean("draw") - 0.5 * NEW), 5.2 * sd / np.sqrt(n))
        np.testing.assert_allclose(y.std("draw"), sd, rtol=5.2 / np.sqrt(2 * n))

    def test_parts(self, how: str) -> None:
        approx = regression(how)
        data = {"X": NEW, "Y": SEEN}
        parts = list(approx.sample_chunks(4, data=data, chunk=2, random_seed=1))
        whole = approx.sample(4, data=data, random_seed=1).posterior
        joined = np.concatenate([part["mu"] for part in parts if "mu" in part], axis=-1)
        np.testing.assert_allclose(joined, whole["mu"], rtol=1e-12)

    def test_log_likelihoods(self, how: str) -> None:
        approx = regression(how)
        data = {"X": NEW, "Y": SEEN}
        found = approx.sample(5, data=data, log_likelihood=True, random_seed=1)
        slope = found.posterior["slope"].values[..., None]
        expected = stats.norm(slope * NEW, 1).logpdf(SEEN)
        np.testing.assert_allclose(found.log_likelihood["y"], expected, rtol=1e-10)
        np.testing.assert_array_equal(found.observed_data["y"], SEEN)

    def test_log_likelihoods_of_all_rows_are_those_of_pymc(self) -> None:
        for how in ("minibatch", "full"):
            approx = regression(how)
            found = approx.sample(5, log_likelihood="y", random_seed=1)
            draws = approx.sample(5, random_seed=1)
            pm.compute_log_likelihood(draws, model=approx.model, progressbar=False)
            np.testing.assert_allclose(
                found.log_likelihood["y"], draws.log_likelihood["y"], rtol=1e-10
            )

    def test_evidence(self, in_batches: str) -> None:
        approx = regression(in_batches)
        found = log_evidence(
            approx, 20_000, data={"X": NEW, "Y": SEEN}, coords={"obs": [1, 2, 3]}, random_seed=1
        )
        exact = stats.norm(0.5 * NEW, np.sqrt(1 + (0.1 * NEW) ** 2)).logpdf(SEEN)
        # One false alarm in 10^5 runs
        np.testing.assert_array_less(abs(found["log_evidence"] - exact), 5 * found["se"])
        assert found["obs"].values.tolist() == [1, 2, 3]


class TestRowsOfTheFit:
    def test_said_by_rows(self, in_batches: str) -> None:
        approx = levels(in_batches)
        found = approx.sample(2, data={"X": NEW}, rows=[6, 0, 6], var_names=["z", "mu"]).posterior
        np.testing.assert_allclose(found["z"][0, 0], [6, 0, 6], atol=1e-6)
        np.testing.assert_allclose(found["mu"][0, 0], NEW + np.array([6, 0, 6]), atol=1e-6)
        assert found["obs"].values.tolist() == [6, 0, 6]

    def test_said_by_their_names(self, in_batches: str) -> None:
        approx = levels(in_batches, coords={"obs": NAMES})
        rows = {"obs": ["g", "a", "c"]}
        found = approx.sample(2, data={"X": NEW}, rows=rows, var_names=["mu"]).posterior
        np.testing.assert_allclose(found["mu"][0, 0], NEW + np.array([6, 0, 2]), atol=1e-6)
        assert found["obs"].values.tolist() == ["g", "a", "c"]

    def test_said_by_a_batch_of_the_loader(self) -> None:
        approx = levels("streamed")
        batch = {"X": batch_of(X, [5, 1]), "Y": batch_of(Y, [5, 1])}
        found = approx.sample(2, data=batch).posterior
        np.testing.assert_allclose(found["mu"][0, 0], [5, 1] + X[[5, 1]], atol=1e-6)
        assert found["obs"].values.tolist() == [5, 1]
        weights = log_weights(approx, 2, data=batch, random_seed=1)
        assert weights["obs"].values.tolist() == [5, 1]

    def test_rows_that_the_fit_has_not_seen(self, in_batches: str) -> None:
        approx = levels(in_batches)
        with pytest.raises(
            ValueError, match=r"which rows of the fit .* is not known.*rows=\[7, 12\]"
        ):
            approx.sample(2, data={"X": NEW}, var_names=["mu"])

    def test_another_number_of_rows(self, in_batches: str) -> None:
        with pytest.raises(ValueError, match=r"rows of approx.sample are 2 rows .* data= has 3"):
            levels(in_batches).sample(2, data={"X": NEW}, rows=[0, 1], var_names=["mu"])

    @pytest.mark.parametrize("full", [False, True])
    def test_an_encoder_knows_any_row(self, full: bool) -> None:
        with pm.Model() as model:
            x, y = FEEDS["full" if full else "minibatch"]()
            z = pm.Normal("z", 0, 1, dims="obs")
            pm.Normal("y", z + x, 1, observed=y, dims="obs")
        guide = pm.Amortized({"z": lambda y: pm.Normal.dist(10 * y, 1e-9)}, inputs=[y], dim="obs")
        approx = guided_approximation(model, guide)
        found = approx.sample(2, data={"Y": SEEN}, coords={"obs": list("uvw")}).posterior
        np.testing.assert_allclose(found["z"][0, 0], 10 * SEEN, atol=1e-6)
        assert found["obs"].values.tolist() == list("uvw")
        with pytest.raises(
            ValueError, match=r"'z' of approx.sample depends on 'Y', .*\['X'\] only"
        ):
            approx.sample(2, data={"X": NEW})


def test_of_two_axes() -> None:
    """Rows of the axis that the data are not of are chosen as ever."""
    with pm.Model(coords={"user": range(4), "obs": range(5)}) as model:
        x = pm.Data("x", np.zeros((4, 5)), dims=("user", "obs"))
        w = pm.Data("w", np.zeros(4), dims="user")
        batch = pm.Minibatch(x, batch_size={"user": 2, "obs": 3})
        [of_user] = [pm.Minibatch(w, batch_size={"user": 2})]
        u = pm.Normal("u", 0, 1, dims="user")
        v = pm.Normal("v", 0, 1, dims="obs")
        pm.Deterministic("both", u[:, None] + v + of_user[:, None], dims=("user", "obs"))
        pm.Normal("y", u[:, None] + v, 1, observed=batch, dims=("user", "obs"))
    start = {"u": 10.0 * np.arange(4), "v": np.arange(5.0)}
    approx = guided_approximation(model, start=start, start_sigma={"u": 1e-9, "v": 1e-9})
    rows = {"user": [3, 1], "obs": [4, 0]}
    found = approx.sample(2, data={"w": [100.0, 200.0]}, rows=rows, var_names="both").posterior
    expected = np.array([130.0, 210.0])[:, None] + [4, 0]
    np.testing.assert_allclose(found["both"][0, 0], expected, atol=1e-6)


def test_named_dims() -> None:
    with pm.Model(coords={"obs": NAMES}) as model:
        x = pmd.Data("x", X, dims="obs")
        batch = pm.Minibatch(x, batch_size=B)
        pmd.Deterministic("twice", 2 * batch + pmd.Normal("mu"), dims="obs")
        pmd.Normal("y", 0, 1, observed=batch)
    found = guided_approximation(model).sample(3, data={"x": NEW}).posterior
    expected = found["mu"].values[..., None] + 2 * NEW
    np.testing.assert_allclose(found["twice"].transpose("chain", "draw", "obs"), expected)


def test_what_is_computed_over_all_rows_is_of_these(how: str) -> None:
    with pm.Model() as model:
        x, y = FEEDS[how]()
        mu = pm.Deterministic("mu", pm.Normal("slope") * x, dims="obs")
        pm.Normal("y", mu, 1, observed=y, dims="obs")
        pm.Deterministic("centred", mu - mu.mean(), dims="obs")
    found = guided_approximation(model).sample(2, data={"X": NEW}).posterior
    np.testing.assert_allclose(found["centred"].mean("obs"), 0, atol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        (
            {"data": {"Z": NEW}},
            ValueError,
            r"has 'Z', but the pm.Data of the model are \['X', 'Y'\]",
        ),
        ({"data": NEW}, TypeError, "has to be a dict of values by the name of their pm.Data"),
        ({"data": {"X": NEW[:, None]}}, ShapeError, r"shape \(3, 1\) for 'X'"),
        ({"data": {"X": NEW, "Y": SEEN[:2]}}, ValueError, r"'X' and 'Y', .* 3 and of 2 rows"),
        ({"data": {"X": NEW}, "coords": {"k": [1]}}, ValueError, "coords .* has 'k', but the dims"),
        ({"data": {"X": NEW}, "coords": {"obs": [1]}}, ShapeError, "do not fit to data="),
        ({"coords": {"obs": [1]}}, ValueError, "names of the rows of data=, which is not given"),
        ({"data": {"X": NEW.astype(str)}}, TypeError, "holds float64"),
        (
            {"data": {"X": NEW}, "log_likelihood": True},
            ValueError,
            r"log_likelihood= of approx.sample depends on 'Y'",
        ),
        ({"log_likelihood": "mu"}, ValueError, r"has 'mu', but the variables .* \['y'\]"),
    ],
)
def test_refused_data(arguments: dict[str, Any], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        regression("minibatch").sample(2, **arguments)


def test_data_that_are_not_there_are_named() -> None:
    with pytest.raises(ValueError, match=r"'y' of .* depends on 'X', .* \['Y'\] only"):
        regression("minibatch").sample_posterior_predictive(2, data={"Y": SEEN})
    with pytest.warns(
        UserWarning, match="leaves out 'mu', computed from data of rows that are not"
    ):
        found = regression("minibatch").sample(2, data={"Y": SEEN})
    assert list(found.posterior.data_vars) == ["slope"]


class TestObservedConstants:
    """A model of full data whose observed values are not in `pm.Data`."""

    def approx(self, dims: str | None = "obs") -> Any:
        with pm.Model(coords={"obs": range(N)}) as model:
            x = pm.Data("X", X, dims=dims)
            mu = pm.Deterministic("mu", pm.Normal("slope") * x, dims=dims)
            pm.Normal("y", mu, 1, observed=np.ones(N), dims=dims)
        return guided_approximation(model)

    def test_predictions_need_none(self) -> None:
        approx = self.approx()
        new = approx.sample_posterior_predictive(3, data={"X": NEW[:2]})
        assert new.posterior_predictive["y"].shape == (1, 3, 2)
        assert "observed_data" not in new.children
        draws = approx.sample(3, data={"X": NEW[:2]})
        expected = draws.posterior["slope"].values[..., None] * NEW[:2]
        np.testing.assert_allclose(draws.posterior["mu"], expected)

    def test_likelihoods_do(self) -> None:
        with pytest.raises(ValueError, match="the observed values of 'y', which are not in"):
            self.approx().sample(3, data={"X": NEW}, log_likelihood=True)

    def test_without_dims(self) -> None:
        with pytest.raises(ValueError, match="the observed values of 'y' still have the old one"):
            self.approx(None).sample(3, data={"X": NEW}, log_likelihood=True)


def test_data_without_dims_that_are_not_there() -> None:
    with pm.Model() as model:
        x, y = pm.Data("X", X), pm.Data("Y", Y)
        pm.Normal("y", pm.Normal("slope") * x, 1, observed=y)
    with pytest.raises(
        ValueError, match="the values of 'Y' still have the old one: give them in data="
    ):
        guided_approximation(model).sample_posterior_predictive(3, data={"X": NEW})


def test_what_mixes_rows_is_computed_over_those_given(how: str) -> None:
    with pm.Model() as model:
        x, y = FEEDS[how]()
        slope = pm.Normal("slope")
        pm.Deterministic("total", (slope * x).sum())
        pm.Normal("y", slope * x, 1, observed=y, dims="obs")
    draws = guided_approximation(model).sample(3, data={"X": NEW}, var_names=["slope", "total"])
    np.testing.assert_allclose(draws.posterior["total"], draws.posterior["slope"] * NEW.sum())


@pytest.mark.parametrize("value", [None, 0, 1])
def test_likelihoods_are_named_or_all_or_none(value: Any) -> None:
    with pytest.raises(TypeError, match="has to be True, for those of all observed variables"):
        regression("full").sample(2, log_likelihood=value)
    assert "log_likelihood" not in regression("full").sample(2, log_likelihood=np.False_).children
