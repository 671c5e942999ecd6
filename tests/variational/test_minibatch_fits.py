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
"""`pm.fit` on minibatches comes to the exact posterior: the cases A1, A3 and A6."""

import numpy as np
import pytest

import pymc as pm

from pymc.minibatch.index import SAMPLING
from tests.variational.fitting import AveragedFit, assert_posterior, standard_errors

pytestmark = [
    pytest.mark.slow,
    # The JAX linker says of every shared generator, and so of this state, that it works on a copy
    pytest.mark.filterwarnings("ignore:The RandomType SharedVariables:UserWarning"),
]


class TestMean:
    """A1: x ~ N(μ, 1), μ ~ N(0, 1), N = 100, B = 10: mean Σx / (N + 1), sd 1 / √(N + 1)."""

    N, B = 100, 10
    x = np.random.default_rng(1).normal(0.7, 1, size=N)

    def errors(self, n_averaged):
        return standard_errors(self.N + 1, self.N**2 / self.B * self.x.var(), n_averaged)

    def check(self, actual, n_averaged):
        h = self.N + 1
        assert_posterior(actual, self.x.sum() / h, h**-0.5, self.errors(n_averaged))

    def model(self, sampling, data):
        with pm.Model(coords={"obs": range(self.N)}) as model:
            x = pm.Data("x", self.x, dims="obs") if data == "dims" else self.x
            batch = pm.Minibatch(x, batch_size=self.B, sampling=sampling)
            mu = pm.Normal("mu", 0, 1)
            pm.Normal("lik", mu, 1, observed=batch, dims="obs" if data == "dims" else None)
        return model

    @pytest.mark.parametrize(
        "sampling, data, backend",
        [
            ("epoch", "array", "numba"),
            ("without_replacement", "dims", "numba"),
            ("with_replacement", "array", "numba"),
            ("epoch", "dims", "jax"),
            pytest.param("epoch", "dims", "c", marks=pytest.mark.cxx),
        ],
    )
    def test_posterior(self, sampling, data, backend):
        fit = AveragedFit()
        actual = fit.run(self.model(sampling, data), seed=1, backend=backend)
        self.check(actual, fit.n_averaged)

    @pytest.mark.parametrize("wrong", ["not scaled", "scaled twice"])
    def test_wrong_scale_fails(self, wrong):
        scale = {"not scaled": self.B / self.N, "scaled twice": self.N / self.B}[wrong]
        with pm.Model() as model:
            batch = pm.Minibatch(self.x, batch_size=self.B)
            mu = pm.Normal("mu", 0, 1)
            term = scale * pm.logp(pm.Normal.dist(mu, 1), batch)
            pm.Potential("lik", term, total_size=self.N)
        fit = AveragedFit()
        actual = fit.run(model, seed=1, backend="numba")
        with pytest.raises(AssertionError, match="not strictly ordered"):
            self.check(actual, fit.n_averaged)


@pytest.mark.parametrize("sampling", SAMPLING)
def test_two_likelihoods(sampling):
    """A3: N = 1000 and 200, B = 50 and 20, each with an index of its own: sd 0.028855.

    20 particles a step make the error of the sd so small that it differs from that of one scale for
    both terms.
    """
    rng = np.random.default_rng(2)
    sizes = {1000: 50, 200: 20}
    data = {n: rng.normal(0.3, 1, size=n) for n in sizes}
    with pm.Model() as model:
        mu = pm.Normal("mu", 0, 1)
        for n, batch_size in sizes.items():
            batch = pm.Minibatch(data[n], batch_size=batch_size, sampling=sampling)
            pm.Normal(f"lik_{n}", mu, 1, observed=batch)
    precision = sum(sizes) + 1
    variance = sum(n**2 / b * data[n].var() for n, b in sizes.items())
    fit = AveragedFit()
    actual = fit.run(model, seed=1, backend="numba", obj_n_mc=20)
    errors = standard_errors(precision, variance, fit.n_averaged, n_particles=20)
    mean = sum(x.sum() for x in data.values()) / precision
    assert_posterior(actual, mean, precision**-0.5, errors)
    np.testing.assert_allclose(precision**-0.5, 0.028855, atol=1e-6)
    with pytest.raises(AssertionError, match="not strictly ordered"):  # one scale for both
        assert_posterior(actual, mean, 0.026717, errors)


@pytest.mark.parametrize("sampling", SAMPLING)
def test_regression(sampling):
    """A6: y = 1 + 2x + 0.5ε, N = 1000: out of step, x and y have the slope 0."""
    n, batch_size, sigma = 1000, 50, 0.5
    rng = np.random.default_rng(3)
    x = rng.normal(size=n)
    x = (x - x.mean()) / x.std()  # so that the parameters are independent, as the guide has them
    y = 1 + 2 * x + sigma * rng.normal(size=n)
    design = np.stack([np.ones(n), x], axis=1)
    with pm.Model() as model:
        x_batch, y_batch = pm.Minibatch(x, y, batch_size=batch_size, sampling=sampling)
        b = pm.Normal("b", 0, 1, shape=2)
        pm.Normal("lik", b[0] + b[1] * x_batch, sigma, observed=y_batch)
    precision = (design**2).sum(0) / sigma**2 + 1
    means = design.T @ y / sigma**2 / precision
    gradients = design * (y - design @ means)[:, None] / sigma**2
    variance = n**2 / batch_size * gradients.var(0)
    fit = AveragedFit()
    actual = fit.run(model, seed=1, backend="numba")
    errors = standard_errors(precision, variance, fit.n_averaged)
    assert_posterior(actual, means, precision**-0.5, errors)
    np.testing.assert_allclose(actual[0, 1], 2, atol=4 * sigma / np.sqrt(n))
