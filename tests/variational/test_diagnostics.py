#   Copyright 2026 - present The PyMC Developers
#
#   Licensed under the Apache License, Version 2.0 (the "License");
#   you may not use this file except in compliance with the License.
#   You may obtain a copy of the License at
#
#       http://www.apache.org/licenses/LICENSE-2.0
#
#   Unless required by applicable law or agreed to in writing, software
#   distributed under the License is distributed on an "AS IS" BASIS,
#   WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
#   See the License for the specific language governing permissions and
#   limitations under the License.
"""Importance ratios of guides whose distance from the posterior is known."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytensor
import pytest

from scipy.stats import norm

import pymc as pm

from pymc.variational.diagnostics import Diagnosis, diagnose


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
        assert 0 < result.ess < 1000


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

    def test_of_several_groups(self):
        with pm.Model():
            x = pm.Normal("x", 1.0, 2.0)
            y = pm.Normal("y", -1.0, 3.0, shape=2)
            z = pm.Normal("z", 5.0, 6.0)
            groups = [pm.Group([y], vfam="fr"), pm.Group([z, x], vfam="mf")]
            approx = pm.variational.opvi.Approximation(groups)
        set_full_rank(approx, [-1, -1], 9 * np.eye(2))
        params = approx.groups[1].shared_params
        params["mu"].set_value(np.array([5.0, 1.0]))
        params["rho"].set_value(unsoftplus([6.0, 2.0]))
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
        assert len(repr(result)) < 100


class TestRefused:
    def test_without_a_density(self):
        with pm.Model():
            pm.Normal("x")
            approx = pm.Empirical(size=5)
        with pytest.raises(ValueError, match=r"log-density .* which EmpiricalGroup does not have"):
            diagnose(approx)

    @pytest.mark.parametrize("other", [None, "ADVI"])
    def test_no_approximation(self, other):
        with pytest.raises(TypeError, match=f"and got {type(other).__name__}; of a method"):
            diagnose(other)

    @pytest.mark.parametrize(
        "draws, error, message",
        [(1.5, TypeError, "is 1.5"), (True, TypeError, "is True"), (99, ValueError, "is 99: that")],
    )
    def test_draws(self, draws, error, message):
        with pytest.raises(error, match=f"draws of diagnose {message}"):
            diagnose(optimal_mean_field(0.5), draws=draws)

    def test_not_finite(self):
        with pm.Model():
            pm.Normal("x")
            pm.Potential("p", pm.math.log(pm.math.abs(0.0)))
            approx = pm.MeanField()
        with pytest.raises(FloatingPointError, match=r"100 of 100 draws .* a log-ratio of -inf"):
            diagnose(approx, draws=100)
