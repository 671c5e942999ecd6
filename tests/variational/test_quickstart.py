# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""The variational quickstart: what `docs/tutorials/quickstart.md` shows, and what PyMC's showed."""

import importlib.util

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import arviz as az
import matplotlib as mpl
import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest

from pytensor.compile.mode import Mode
from pytensor.graph.replace import clone_replace
from scipy.optimize import minimize
from scipy.special import gammaln
from scipy.stats import norm, t

import pymc as pm

ROOT = Path(__file__).parents[2]
GAMMA_DATA = np.random.default_rng(42).gamma(2, 0.5, size=200)
PYTHON = Mode(linker="py", optimizer=None)
PYTHON_FLAGS = {"mode": "FAST_COMPILE", "linker": "py"}
LENGTHS = (10, 20, 30, 40, 50)


@pytest.fixture(scope="module")
def quickstart() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("quickstart", ROOT / "examples/quickstart.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with mpl.rc_context({"backend": "agg"}):
        spec.loader.exec_module(module)
        yield module


@pytest.fixture(scope="module")
def mixture(quickstart):
    return quickstart.mixture_model()


@pytest.fixture(scope="module")
def tracked(quickstart, mixture):
    return quickstart.track_mixture(mixture, n=1000, more=2000)


@pytest.fixture(scope="module")
def particles(quickstart, mixture):
    """200 particles: with 1,000, each step sorts a million distances, in 0.1 s."""
    with pytensor.config.change_flags(**PYTHON_FLAGS):
        return quickstart.fit_particles(mixture, n=600, n_particles=200)


def gamma_logp(log_alpha, log_beta):
    """Tell the log-density of the gamma model, with the Jacobian of the two logs."""
    alpha, beta = np.exp(log_alpha), np.exp(log_beta)
    rows = len(GAMMA_DATA) * (alpha * log_beta - gammaln(alpha))
    rows = rows + (alpha - 1) * np.log(GAMMA_DATA).sum() - beta * GAMMA_DATA.sum()
    return rows - 0.1 * (alpha + beta) + log_alpha + log_beta


def best_mean_field():
    """Tell the means and sds, shape (2, 2), of the mean-field optimum, by Gauss-Hermite quadrature."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(24)
    weights = np.outer(weights, weights) / (2 * np.pi)

    def loss(params):
        mean, log_sd = params[:2], params[2:]
        a, b = (m + np.exp(s) * nodes for m, s in zip(mean, log_sd))
        return -(weights * gamma_logp(a[:, None], b)).sum() - log_sd.sum()

    found = minimize(loss, [0.7, 0.7, -3, -3], method="BFGS", options={"gtol": 1e-4})
    return np.array([found.x[:2], np.exp(found.x[2:])])


def exact_means():
    """Tell the posterior means of log(alpha) and log(beta) on a grid."""
    axis = np.linspace(-0.2, 1.8, 600)
    logp = gamma_logp(axis[:, None], axis)
    p = np.exp(logp - logp.max())
    return np.array([axis @ p.sum(1), axis @ p.sum(0)]) / p.sum()


@pytest.mark.slow
def test_gamma_by_advi_against_nuts(quickstart):
    """Means differ from those of NUTS by the bias of a mean-field guide, and sds are its own.

    The standard error of the fits is read from eight of them, so the quantiles are Student's; eight
    comparisons, a false alarm in 10,000.
    """
    model = quickstart.gamma_model(GAMMA_DATA)
    fits = [quickstart.fit_gamma(model, seed=seed) for seed in range(8)]
    actual = np.array([[fit.mean.eval(), fit.std.eval()] for fit in fits])
    error = actual.std(axis=0, ddof=1) / np.sqrt(len(fits))
    z = t.isf(1e-4 / 16, df=len(fits) - 1)
    best = best_mean_field()
    np.testing.assert_array_less(abs(actual.mean(axis=0) - best), z * error)

    with model:
        trace = pm.sample(chains=2, cores=1, tune=500, random_seed=1, progressbar=False)
    logs = np.log(trace["posterior"].to_dataset()[["alpha", "beta"]])
    nuts = logs.mean().to_array().to_numpy()
    nuts_error = az.mcse(logs, method="mean").to_array().to_numpy()
    bias = best[0] - exact_means()
    both = np.hypot(error[0], nuts_error)
    np.testing.assert_array_less(abs(actual.mean(axis=0)[0] - nuts - bias), z * both)
    # alpha and beta are correlated: each sd is that of one at a fixed value of the other
    sds = logs.std().to_array().to_numpy()
    assert (actual.mean(axis=0)[1] < 0.7 * sds).all()


@pytest.mark.slow
def test_advi_finds_one_mode_of_the_mixture(mixture):
    with mixture:
        fit = pm.fit(
            4000,
            method="advi",
            obj_optimizer=pm.adam(learning_rate=pm.variational.schedules.cosine_decay(0.05, 4000)),
            random_seed=1,
            progressbar=False,
        )
    # Steps of at most 0.05 that fall to none leave less than a tenth of an sd
    np.testing.assert_allclose([*fit.mean.eval(), *fit.std.eval()], [0.5, 0.1], atol=0.01)


def test_particles_find_both_modes(particles):
    """A15, by quantiles: a few particles come slowly from far off, where the gradient is small."""
    x = particles.histogram.eval().ravel()
    assert x.shape == (200,)
    for mode, centre in [(x[x < 0.1], -0.3), (x[x >= 0.1], 0.5)]:
        assert len(mode) > 20
        # Particles repel one another, so that they are more even than draws: a draw's error bounds it
        error = 0.1 / np.sqrt(len(mode))
        low, middle, high = np.quantile(mode, norm.cdf([-1, 0, 1]))
        assert abs(middle - centre) < 4 * 1.2533 * error
        assert abs((high - low) / 2 - 0.1) < 4 * error


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"diff": "absolute", "tolerance": 0.05}])
def test_check_of_convergence(quickstart, mixture, options):
    approx = quickstart.fit_until_still(mixture, **options)
    n = approx.report.n_steps
    assert len(approx.hist) == n
    assert n == 10_000 or (n % 100 == 0 and "Convergence achieved" in approx.report.stopped)
    if options:
        assert n < 10_000


def test_shared_params(mixture):
    with mixture:
        advi = pm.ADVI()
    assert set(advi.approx.shared_params) == {"mu", "rho"}
    np.testing.assert_allclose(advi.approx.std.eval(), np.log(2))  # softplus(0)
    advi.approx.shared_params["mu"].set_value(np.array([3.0]))
    assert advi.approx.mean.eval() == [3.0]


@pytest.mark.slow
def test_tracker_and_refine(tracked):
    advi, tracker = tracked
    assert len(tracker["mean"]) == len(tracker["std"]) == len(advi.hist) == 3000
    assert advi.approx.report.n_steps == 3000
    np.testing.assert_array_equal(tracker["mean"][-1], advi.approx.mean.eval())
    np.testing.assert_array_equal(tracker["std"][-1], advi.approx.std.eval())


def test_draws_of_nodes(quickstart, mixture, particles):
    with pytensor.config.change_flags(**PYTHON_FLAGS):
        result = quickstart.squares(particles, mixture)
    assert len(set(result["one draw at a time"])) > 1
    assert result["shapes"] == [(100,), (10_000,)]
    squares = particles.histogram.eval().ravel() ** 2
    # z = 5 for each of two comparisons, false alarms one in 800,000
    mean, variance = result["mean and variance"]
    assert abs(mean - squares.mean()) < 5 * squares.std() / np.sqrt(1000)
    deviations = (squares - squares.mean()) ** 2
    assert abs(variance - squares.var()) < 5 * deviations.std() / np.sqrt(1000)


@pytest.mark.slow
def test_iris(quickstart):
    iris = quickstart.read_iris()
    with pytensor.config.change_flags(**PYTHON_FLAGS):
        inference, tracker = quickstart.iris_inference(iris, n_particles=100)
        quickstart.fit_iris(inference, tracker, slow=10, fast=150)
    tests = np.array(tracker["test_accuracy"])
    assert tests.shape == (160, 100)
    assert np.shape(tracker["train_accuracy"]) == (160,)
    # A guess is right for a third of 38 flowers: 0.8 is more than 6 standard errors above
    assert tests[-10:].mean() > 0.8
    assert tests[-10:].mean() > tests[:10].mean()


@pytest.fixture(scope="module")
def small(quickstart):
    return quickstart.large_data(rows=400, columns=3)


def test_callback_stops_a_slow_fit(quickstart, small):
    with pytensor.config.change_flags(**PYTHON_FLAGS):
        approx = quickstart.fit_all_rows(small)
    assert approx.report.n_steps == len(approx.hist) == 10
    assert approx.report.stopped == "I was slow, sorry"


@pytest.mark.slow
def test_minibatches_come_to_the_means_of_all_rows(quickstart):
    data = quickstart.large_data()
    approx = quickstart.fit_minibatches(data)
    assert approx.hist.shape == (20_000,)
    mean, sd = approx.mean.eval()[:100], approx.std.eval()[:100]
    of_rows = data.std(axis=0) / np.sqrt(len(data))
    # What epochs and a falling rate leave is less than the posterior's own sd; 100 means at z = 5
    assert (abs(mean - data.mean(axis=0)) < 5 * of_rows).all()
    np.testing.assert_allclose(sd, of_rows, rtol=1.0)  # unscaled, they are 9 times as large


class TestOtherRows:
    new = np.random.default_rng(3).normal(size=(7, 3))

    def test_sample_node(self, quickstart, small):
        X = pm.Minibatch(small, batch_size=50)
        model = quickstart.normal_model(X, total_size=small.shape)
        approx = pm.MeanField(model=model)
        centred = X - model["mu"]
        for rows in (self.new, small):
            one = approx.sample_node(centred, deterministic=True, more_replacements={X: rows})
            many = approx.sample_node(centred, size=4, more_replacements={X: rows})
            with pytensor.config.change_flags(**PYTHON_FLAGS):
                expected = rows - approx.mean.eval()[:3]
                np.testing.assert_allclose(one.eval(), expected)
                assert many.eval().shape == (4, *rows.shape)

    @pytest.mark.parametrize("symbolic", [False, True])
    def test_clone_replace(self, small, symbolic):
        X = pm.Minibatch(small, batch_size=50)
        rows = pt.as_tensor(self.new) if symbolic else pytensor.shared(self.new)
        node = clone_replace(X**2, {X: rows}, rebuild_strict=False)
        np.testing.assert_allclose(node.eval(mode=PYTHON), self.new**2)

    def test_all_rows(self, quickstart, small):
        model = quickstart.normal_model(pm.Minibatch(small, batch_size=50))
        full = pm.remove_minibatch(model)
        observed = full.rvs_to_values[full["likelihood"]]
        np.testing.assert_array_equal(observed.eval(mode=PYTHON), small)


class TestSwappedData:
    def test_shared(self, small):
        data = pytensor.shared(small)
        X = pm.Minibatch(data, batch_size=5)
        draw = pytensor.function([], X, mode=PYTHON)
        data.set_value(np.full((9, 3), 7.0))
        np.testing.assert_array_equal(draw(), np.full((5, 3), 7.0))

    def test_set_data(self, small):
        with pm.Model() as model:
            X = pm.Minibatch(pm.Data("X", small), batch_size=5)
            pm.Normal("lik", pm.Normal("mu", shape=3), 1, observed=X)
        with pm.minibatch_logp():
            logp = model.compile_logp(mode=PYTHON)
        pm.set_data({"X": np.zeros((9, 3))}, model=model)
        prior_and_rows = 3 * (1 + 9) * norm.logpdf(0)  # 9 rows: the scale follows, 9 / 5
        np.testing.assert_allclose(logp({"mu": np.zeros(3)}), prior_and_rows)


@pytest.mark.parametrize(
    "batch_size, total_size, shape",
    [
        ([2, ..., 10], [10, ..., 50], (2, 20, 30, 40, 10)),
        ([2, None, 20], [10, None, 30], (2, 20, 20, 40, 50)),
        ([2, None, 20, ..., 10], [10, None, 30, ..., 50], (2, 20, 20, 40, 10)),
    ],
)
def test_blocks_of_five_axes(batch_size, total_size, shape):
    data = np.random.default_rng(5).random(LENGTHS)
    X = pm.Minibatch(data, batch_size=batch_size)
    assert X.type.shape == shape
    with pm.Model() as model:
        pm.Normal("lik", pm.Normal("mu"), 1, observed=X, total_size=total_size)
    with pm.minibatch_logp():
        logp = model.compile_logp(vars=[model["lik"]], mode=PYTHON)
    draw = pytensor.function([], X, mode=PYTHON)
    # Of uniform numbers, so blocks of any rows have nearly the same sum: 5 standard errors
    each = -0.5 * (data**2 + np.log(2 * np.pi))
    of_all, error = each.sum(), each.std() / np.sqrt(np.prod(shape)) * data.size
    assert abs(logp({"mu": 0.0}) - of_all) < 5 * error
    assert draw().shape == shape


def test_pictures(quickstart, tmp_path):
    values = np.random.default_rng(1).normal(size=100)
    quickstart.plot_densities({"a": values}, tmp_path / "a.png", "a", quickstart.mixture_density)
    quickstart.plot_lines({"b": {"c": values, "d": values}}, tmp_path / "b.png")
    for picture in ("a.png", "b.png"):
        assert (tmp_path / picture).read_bytes().startswith(b"\x89PNG")
