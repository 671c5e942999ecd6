# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Importance ratios of guides whose distance from the posterior is known."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from io import StringIO
from typing import Any

import numpy as np
import pytensor
import pytest

from rich.console import Console
from scipy.stats import norm

import pymc as pm

from pymc.variational import diagnostics, progress
from pymc.variational.approximation import guided_approximation
from pymc.variational.diagnostics import Diagnosis, _weigh, diagnose
from pymc.variational.posterior import log_weights as weights_module
from pymc.variational.posterior.log_weights import SubsampledLogDensity
from tests.variational.guided.fits import X, local_model
from tests.variational.guided.fits import exact as exact_of_rows


@pytest.fixture(autouse=True, scope="module")
def python_mode() -> Iterator[None]:
    """Run graphs as Python: to compile one takes longer than these tests."""
    with pytensor.config.change_flags(mode="FAST_COMPILE"):
        yield


def unsoftplus(sd: Any) -> np.ndarray:
    return np.log(np.expm1(sd))


def set_mean_field(approx: Any, mean: Any, sd: Any) -> Any:
    params = approx.groups[0].shared_params
    for name, value in {"mu": mean, "rho": unsoftplus(sd)}.items():
        old = params[name].get_value()
        params[name].set_value(np.broadcast_to(value, old.shape).astype(old.dtype))
    return approx


def set_full_rank(approx: Any, mean: Any, cov: Any) -> Any:
    params = approx.groups[0].shared_params
    factor = np.linalg.cholesky(cov)
    np.fill_diagonal(factor, unsoftplus(np.diag(factor)))
    params["mu"].set_value(np.asarray(mean, params["mu"].dtype))
    entries = factor[np.tril_indices(len(factor))]
    params["L_tril"].set_value(entries.astype(params["L_tril"].dtype))
    return approx


def correlated(rho: float) -> np.ndarray:
    return np.array([[1, rho], [rho, 1]])


def optimal_mean_field(rho: float) -> Any:
    with pm.Model():
        pm.MvNormal("x", np.zeros(2), correlated(rho))
        return set_mean_field(pm.MeanField(), 0, np.sqrt(1 - rho**2))


@pytest.fixture(scope="module")
def of_mean_field() -> Diagnosis:
    return diagnose(optimal_mean_field(0.9), draws=20_000, random_seed=1)


class TestGaussian:
    """A14: the best mean-field guide of a Gaussian with correlation ρ has ratios of shape k = ρ."""

    def test_shape_of_the_tail(self, of_mean_field):
        """ArviZ fits 3 √S ratios, and the maximum-likelihood k has the standard error (1 + k) / √M.

        Its bias downwards is of the size of one of them here (-0.1 over 6 seeds).
        """
        se = 1.9 / np.sqrt(3 * np.sqrt(20_000))
        assert abs(of_mean_field.khat - 0.9) < 4 * se

    def test_gap(self, of_mean_field):
        """The ELBO is below the log-evidence of 0 by ½ log(1 / (1 − ρ²)) = 0.8304."""
        error = of_mean_field.elbo + 0.5 * np.log(1 / (1 - 0.81))
        assert abs(error) < 4 * of_mean_field.elbo_se

    def test_error_of_the_elbo(self, of_mean_field):
        """The log-ratio is const + ρ z₁ z₂ for standard normal z, of standard deviation ρ."""
        assert of_mean_field.elbo_se == pytest.approx(0.9 / np.sqrt(20_000), rel=0.1)

    def test_weights_repair_the_variance(self):
        """Weighted draws have the variance of the posterior, and the draws themselves do not.

        At k = 0.4 the weights still have a variance, so that there is a standard error.
        """
        rho = 0.4
        result = diagnose(optimal_mean_field(rho), draws=4_000, random_seed=2)
        x = result.points["x"][:, 0]
        weights = np.exp(result.smoothed_log_weights)
        assert weights.sum() == pytest.approx(1)
        assert x.var() == pytest.approx(1 - rho**2, rel=4 * np.sqrt(2 / 4_000))
        se = np.sqrt(np.sum(weights**2 * (x**2 - 1) ** 2))  # of a weighted mean
        assert abs(weights @ x**2 - 1) < 4 * se
        assert x.var() < 1 - 4 * se

    def test_exact_guide(self):
        mean, cov = np.array([1.0, -2.0]), correlated(0.9) * [[4, 2], [2, 1]]
        with pm.Model():
            pm.MvNormal("x", mean, cov)
            approx = set_full_rank(pm.FullRank(), mean, cov)
        result = diagnose(approx, draws=100, random_seed=3)
        assert result.khat == -np.inf
        assert result.verdict == "good"
        np.testing.assert_allclose(result.log_weights, 0, atol=1e-10)
        assert result.ess == pytest.approx(100)
        assert np.isfinite(result.elbo_se)

    def test_a_wide_guide_is_good(self):
        """Ratios are bounded where the guide is wider than the posterior."""
        with pm.Model():
            pm.Normal("x")
            approx = set_mean_field(pm.MeanField(), 0, 1.5)
        result = diagnose(approx, draws=1000, random_seed=4)
        assert result.khat < 0.5
        assert 500 < result.ess < 1000
        assert result.verdict == "good"


class TestTooWide:
    """A normal guide r times as wide as a normal posterior in D dimensions: ratios are bounded."""

    @pytest.mark.parametrize(
        "wider, n_dims, verdict, words",
        [
            # Weights are worth √(2r² - 1) / r² of the draws, to the power of D
            (3, 1, "usable", "standard deviations that are too large, about "),
            (3, 20, "unreliable", "wider than the posterior in all directions, about "),
            # No Pareto distribution: the tail underflows, or overflows in ArviZ's fit
            (
                100,
                2,
                "unreliable",
                "No Pareto k-hat from 1,000 draws, of which few have all the weight",
            ),
            (
                10,
                100,
                "unreliable",
                "No Pareto k-hat from 1,000 draws, of which few have all the weight",
            ),
        ],
    )
    def test_is_recognised(self, wider, n_dims, verdict, words):
        with pm.Model():
            pm.Normal("x", shape=n_dims)
            approx = set_mean_field(pm.MeanField(), 0, wider)
        result = diagnose(approx, draws=1000, random_seed=4)
        assert result.verdict == verdict
        assert words in str(result)
        assert "nan" not in str(result)
        assert "has mass where the approximation has little" not in str(result)
        # The squared distance and the log-ratio are in proportion, up to the sample's own mean and
        # variance, of relative standard error √(2/1000) by dimension
        assert result.wider == pytest.approx(wider, rel=4 * np.sqrt(2 / 1000))
        assert 1 <= result.ess < 500

    def test_others_are_not(self, of_mean_field):
        assert of_mean_field.wider is None
        with pm.Model():
            pm.Normal("x", shape=20)
            narrow = set_mean_field(pm.MeanField(), 0, 0.5)
        result = diagnose(narrow, draws=1000, random_seed=4)
        assert result.wider is None
        assert result.verdict == "unreliable"
        assert "has mass where the approximation has little" in str(result)

    def test_ratios_of_two_values(self):
        """Of a discrete guide, for one: ArviZ fits no tail to them."""
        near = _weigh(np.repeat([0.0, -0.1], 500), {})
        assert (near.khat, near.verdict) == (-np.inf, "good")
        far = _weigh(np.repeat([0.0, -50.0], [2, 998]), {})
        assert (far.khat, far.verdict) == (np.inf, "unreliable")
        assert far.ess == pytest.approx(2)


class TestRatios:
    def test_are_those_of_scipy(self):
        """With the Jacobian of the transform, and the evidence of the data."""
        with pm.Model():
            sd = pm.Exponential("sd", 2)
            pm.Normal("y", 0, sd, observed=[0.3, -1.2])
            approx = set_mean_field(pm.MeanField(), 0.1, 0.4)
        result = diagnose(approx, draws=100, random_seed=5)
        z = result.points["sd_log__"]
        s = np.exp(z)
        log_p = np.log(2) - 2 * s + z
        log_p += norm.logpdf(0.3, 0, s) + norm.logpdf(-1.2, 0, s)
        np.testing.assert_allclose(result.log_weights, log_p - norm.logpdf(z, 0.1, 0.4))
        assert result.elbo == pytest.approx(result.log_weights.mean())

    def test_of_several_guides(self):
        with pm.Model():
            x = pm.Normal("x", 1.0, 2.0)
            y = pm.Normal("y", -1.0, 3.0, shape=2)
            z = pm.Normal("z", 5.0, 6.0)
            approx = guided_approximation(
                pm.modelcontext(None),
                {y: "full_rank", (z, x): "mean_field"},
                start={"x": 1.0, "y": -1.0, "z": 5.0},
                start_sigma={"x": 2.0, "y": 3.0, "z": 6.0},
            )
        result = diagnose(approx, draws=100, random_seed=6)
        assert set(result.points) == {"x", "y", "z"}
        # PyMC takes the logarithms of constants such as 6.0 in single precision
        np.testing.assert_allclose(result.log_weights, 0, atol=1e-6)

    def test_seed(self):
        approx = optimal_mean_field(0.5)
        same = [diagnose(approx, draws=100, random_seed=7).khat for _ in range(2)]
        assert same[0] == same[1]
        assert diagnose(approx, draws=100, random_seed=8).khat != same[0]


class TestMinibatch:
    """A1: of 100 rows, in batches of 10, with the exact posterior as the guide."""

    data = np.random.default_rng(9).normal(size=100)

    def approx(self, model: pm.Model) -> Any:
        with model:
            return set_mean_field(pm.MeanField(), self.data.sum() / 101, 1 / np.sqrt(101))

    def log_evidence(self) -> float:
        x = self.data
        return norm.logpdf(x).sum() + 0.5 * (x.sum() ** 2 / 101 - np.log(101))

    def test_of_all_rows(self):
        with pm.Model() as model:
            batch = pm.Minibatch(self.data, batch_size=10)
            pm.Normal("y", pm.Normal("mu"), 1, observed=batch)
        result = diagnose(self.approx(model), draws=100, random_seed=10)
        np.testing.assert_allclose(result.log_weights, self.log_evidence(), rtol=1e-10)

    def test_total_size_of_all_rows(self):
        with pm.Model() as model:
            pm.Normal("y", pm.Normal("mu"), 1, observed=self.data, total_size=(100,))
        result = diagnose(self.approx(model), draws=100, random_seed=10)
        np.testing.assert_allclose(result.log_weights, self.log_evidence(), rtol=1e-10)

    def test_rows_fed_by_hand(self):
        with pm.Model() as model:
            rows = pm.Data("rows", self.data[:10])
            pm.Normal("y", pm.Normal("mu"), 1, observed=rows, total_size=100)
        approx = self.approx(model)
        with pytest.raises(ValueError, match=r"scales a log-probability by 10\. Put all rows"):
            diagnose(approx, draws=100)
        with model:
            pm.set_data({"rows": self.data})
        result = diagnose(approx, draws=100, random_seed=10)
        np.testing.assert_allclose(result.log_weights, self.log_evidence(), rtol=1e-10)


class TestSubsample:
    """A14 with rows: a regression whose slopes have correlation ρ, and its best mean-field guide."""

    rho, n_rows = 0.9, 4000

    @pytest.fixture(scope="class")
    @classmethod
    def approx(cls) -> Any:
        rng = np.random.default_rng(11)
        x = rng.multivariate_normal([0, 0], correlated(-cls.rho), size=cls.n_rows)
        y = x @ [1.0, -1.0] + rng.normal(size=cls.n_rows)
        with pm.Model():
            rows, seen = pm.Minibatch(x, y, batch_size=100)
            b = pm.Normal("b", 0, 100, shape=2)
            pm.Normal("y", rows @ b, 1, observed=seen)
            precision = x.T @ x + np.eye(2) / 100**2
            mean = np.linalg.solve(precision, x.T @ y)
            return set_mean_field(pm.MeanField(), mean, np.diag(precision) ** -0.5)

    def test_all_rows_up_to_a_budget(self, approx, monkeypatch):
        every = diagnose(approx, draws=100, random_seed=1)
        assert (every.n_rows, every.elbo_rows_se, every.log_weights_se) == (None, 0, 0)
        assert " rows" not in str(every)
        monkeypatch.setattr(diagnostics, "AFFORDABLE", 100 * self.n_rows - 1)
        monkeypatch.setattr(diagnostics, "N_ROWS", 1000)
        some = diagnose(approx, draws=100, random_seed=1)
        assert some.n_rows == 1000
        assert "from 100 draws and 1,000 rows: " in str(some)
        np.testing.assert_array_equal(some.points["b"], every.points["b"])
        asked = diagnose(approx, draws=100, random_seed=1, n_rows=self.n_rows)
        np.testing.assert_array_equal(asked.log_weights, every.log_weights)
        # More than half of the rows cost as much as all: 1,000 leave too large an error
        monkeypatch.setattr(diagnostics, "LARGEST_SE", 0.01)
        exact = diagnose(approx, draws=100, random_seed=1)
        np.testing.assert_array_equal(exact.log_weights, every.log_weights)

    def test_the_error_is_as_stated(self, approx):
        """Over 12 subsamples, in units of the standard errors, which have 15 degrees of freedom.

        The mean square of 12 such ratios is within a factor of 3 of its mean but for one set of
        subsamples in 10,000. Those of differences have 3 directions, those of the quadratic form.
        """
        exact = diagnose(approx, draws=100, random_seed=1)
        points = {"b": exact.points["b"][:30]}
        density = SubsampledLogDensity.of(approx.model, points, {})
        every = (exact.log_weights + self.log_q(approx, exact))[:30]
        common, between = [], []
        for seed in range(12):
            found = density.estimate(500, np.random.default_rng(seed))
            error = found.values - every
            common.append(error.mean() / found.se)
            between.append(error.std() / found.se_between)
        for ratios in (common, between):
            assert 1 / 3 < np.mean(np.square(ratios)) < 3

    @staticmethod
    def log_q(approx: Any, diagnosis: Diagnosis) -> np.ndarray:
        mean, sd = approx.mean.eval(), approx.std.eval()
        return norm.logpdf(diagnosis.points["b"], mean, sd).sum(axis=1)

    def test_k_of_some_rows(self, approx):
        """By a quarter of the rows, for the same draws: an error of e nats changes k by about e."""
        result = diagnose(approx, draws=400, random_seed=2, n_rows=1000)
        every = diagnose(approx, draws=400, random_seed=2)
        assert result.log_weights_se < 0.1
        assert abs(result.khat - every.khat) < 4 * result.log_weights_se
        assert abs(result.elbo - every.elbo) < 4 * result.elbo_rows_se
        assert f"± {result.elbo_rows_se:.2g} (rows) nats" in str(result)

    def test_large_numbers_are_whole(self, of_mean_field):
        large = {"n_rows": 500, "log_weights_se": 123.4, "elbo_rows_se": 1234.5, "elbo_se": 0.123}
        said = str(replace(of_mean_field, **large))
        assert "an error of 123 nats in the log-weights" in said
        assert "± 0.12 (draws) ± 1,234 (rows) nats" in said
        wide = replace(of_mean_field, wider=123.4, khat=2.0)
        assert "wider than the posterior in all directions, about 123 times" in str(wide)

    def test_rare_rows_that_are_all_missed(self, monkeypatch):
        """Three rows have all that is known of a coefficient: without them the remainder is 0."""
        x = np.zeros(2000)
        x[[100, 900, 1500]] = 1
        y = np.random.default_rng(1).normal(size=2000)
        with pm.Model() as model:
            rows, seen = pm.Minibatch(x, y, batch_size=100)
            b = pm.Normal("b", 0, 10)
            pm.Normal("y", rows * b, 1, observed=seen)
            approx = set_mean_field(pm.MeanField(), x @ y / 3, 3 / np.sqrt(3))
        every = diagnose(approx, draws=100, random_seed=1)
        found = [diagnose(approx, draws=100, random_seed=s, n_rows=200) for s in range(4)]
        assert all(one.verdict == "unknown" for one in found)
        exact = norm.logpdf(y[:, None], np.outer(x, every.points["b"]), 1).sum(axis=0)
        exact += norm.logpdf(every.points["b"], 0, 10)
        density = SubsampledLogDensity.of(model, {"b": every.points["b"]}, {})
        for seed in range(4):
            some = density.estimate(200, np.random.default_rng(seed))
            error = some.values - exact
            assert abs(error.mean()) < 4 * some.se
            assert error.std() < 4 * some.se_between
        monkeypatch.setattr(diagnostics, "AFFORDABLE", 0)
        monkeypatch.setattr(diagnostics, "N_ROWS", 200)
        more = diagnose(approx, draws=100, random_seed=1)
        np.testing.assert_array_equal(more.log_weights, every.log_weights)

    def test_no_verdict_from_too_few(self, approx, monkeypatch):
        monkeypatch.setattr(diagnostics, "LARGEST_SE", 0.001)
        result = diagnose(approx, draws=100, random_seed=1, n_rows=200)
        assert result.verdict == "unknown"
        assert "not known, since so few rows leave an error of" in str(result)
        assert "Take more rows, by n_rows=" in str(result)

    def test_of_guides(self, approx):
        """Without rows of their own, as those of groups."""
        guided = guided_approximation(
            approx.model,
            start={"b": approx.mean.eval()},
            start_sigma={"b": approx.std.eval()},
        )
        every = diagnose(guided, draws=100, random_seed=3)
        expected = diagnose(approx, draws=4000, random_seed=3)
        error = np.hypot(every.elbo_se, expected.elbo_se)
        assert abs(every.elbo - expected.elbo) < 4 * error
        some = diagnose(guided, draws=100, random_seed=3, n_rows=1000)
        np.testing.assert_array_equal(some.points["b"], every.points["b"])
        assert abs(some.elbo - every.elbo) < 4 * some.elbo_rows_se

    @pytest.mark.parametrize(
        "n_rows, error, match",
        [
            (10, ValueError, "n_rows=10 of diagnose is too few for an estimate"),
            (1.5, TypeError, "n_rows"),
            (0, ValueError, "n_rows"),
        ],
    )
    def test_refused(self, approx, n_rows, error, match):
        with pytest.raises(error, match=match):
            diagnose(approx, n_rows=n_rows)

    @pytest.mark.parametrize("batch_size", [None, 2])
    def test_where_rows_cannot_be_taken(self, batch_size):
        with pytest.raises(ValueError, match=r"rows can be taken one by one.* Leave n_rows out"):
            diagnose(exact_of_rows(local_model(batch_size=batch_size)), n_rows=1000)

    def test_rows_of_their_own_part_by_part(self, monkeypatch):
        """Draws that are too large to be kept: the log-weights are the log-evidence, draw by draw."""
        approx = exact_of_rows(local_model())
        every = diagnose(approx, 100, random_seed=1)
        monkeypatch.setattr(weights_module, "LARGE_DRAWS", 0)
        monkeypatch.setattr(weights_module, "FLOATS_AT_ONCE", 300)
        parts = diagnose(approx, 100, random_seed=1)
        np.testing.assert_allclose(parts.log_weights, every.log_weights)
        np.testing.assert_allclose(parts.log_weights, norm.logpdf(X, 0, 2**0.5).sum())
        assert set(every.points) == {"z"}
        assert not parts.points

    def test_what_rows_share_part_by_part(self, monkeypatch):
        with pm.Model() as model:
            seen = pm.Minibatch(pm.Data("data", X, dims="obs"), batch_size=2)
            mu = pm.Normal("mu")
            z = pm.Normal("z", mu, 1, dims="obs")
            pm.Normal("x", z, 1, observed=seen, dims="obs")
        approx = guided_approximation(model, start={"z": X / 2}, start_sigma={"mu": 0.3})
        every = diagnose(approx, 1000, random_seed=1)
        monkeypatch.setattr(weights_module, "LARGE_DRAWS", 0)
        parts = diagnose(approx, 1000, random_seed=2)
        assert set(parts.points) == {"mu"}
        assert parts.points["mu"].std() == pytest.approx(0.3, rel=4 / np.sqrt(2000))
        # With the prior and the entropy of mu in it; 4 standard errors
        assert abs(parts.elbo - every.elbo) < 4 * np.hypot(parts.elbo_se, every.elbo_se)
        assert parts.elbo_se == pytest.approx(every.elbo_se, rel=0.3)


class TestBar:
    def test_of_what_takes_long(self, monkeypatch):
        monkeypatch.setattr(progress, "WORTH_A_BAR", 0.0)
        monkeypatch.setattr(progress, "LINE", 0.0)
        out = StringIO()
        found = list(progress.with_bar([1, 2, 3], "Numbers", console=Console(file=out)))
        assert found == [1, 2, 3]
        assert "Numbers: 1 of 3" in out.getvalue()
        assert "100%" in out.getvalue()

    def test_none_of_what_does_not(self, capsys):
        assert list(progress.with_bar([1, 2], "Numbers")) == [1, 2]
        assert list(progress.with_bar([], "Numbers")) == []
        assert capsys.readouterr().out == ""


class TestSentences:
    @pytest.mark.parametrize(
        "khat, n_draws, verdict, words",
        [
            (0.49, 1000, "good", "0.49 from 1,000 draws: good"),
            (0.6, 1000, "usable", "0.60 from 1,000 draws: usable, if draws are weighted"),
            (0.69, 1000, "unreliable", "not to be trusted"),  # 1 - 1/3 for so few draws
            (0.69, 10_000, "usable", "usable"),
            (0.7, 10_000, "unreliable", "not to be trusted"),
            (np.nan, 1000, "unreliable", "not to be trusted"),
        ],
    )
    def test_thresholds(self, khat, n_draws, verdict, words):
        zeros = np.zeros(n_draws)
        result = Diagnosis(khat, 500.0, -12.345, 0.01, zeros, zeros, {})
        assert result.verdict == verdict
        assert words in str(result)
        assert "ELBO -12.35 ± 0.01 nats" in str(replace(result, elbo=-12.349))
        assert len(repr(result)) < 150


class TestRefused:
    def test_without_a_density(self):
        with pm.Model():
            pm.Normal("x")
            approx = pm.Empirical(size=5)
        with pytest.raises(ValueError, match=r"log-density .* which Empirical.* does not have"):
            diagnose(approx)

    @pytest.mark.parametrize("other", [None, "ADVI"])
    def test_no_approximation(self, other):
        with pytest.raises(TypeError, match=f"and got {type(other).__name__}; of a method"):
            diagnose(other)

    @pytest.mark.parametrize(
        "draws, error, message",
        [
            (1.5, TypeError, "a whole"),
            (True, TypeError, "a whole"),
            (99, ValueError, "at least 100"),
        ],
    )
    def test_draws(self, draws, error, message):
        with pytest.raises(error, match=f"draws={draws} of diagnose must be {message}"):
            diagnose(optimal_mean_field(0.5), draws=draws)

    def test_not_finite(self):
        with pm.Model():
            pm.Normal("x")
            pm.Potential("p", pm.math.log(pm.math.abs(0.0)))
            approx = pm.MeanField()
        with pytest.raises(FloatingPointError, match=r"100 of 100 draws .* a log-ratio of -inf"):
            diagnose(approx, draws=100)
