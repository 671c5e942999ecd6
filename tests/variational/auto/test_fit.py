# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""``pm.fit(method="auto")`` as users call it."""

from __future__ import annotations

import logging
import pickle
import signal

from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pymc as pm

from pymc.variational.auto import AutoInference, inference
from tests.variational.auto.problems import (
    Regression,
    cauchy_among,
    funnel,
    gamma,
    labels,
    spike_and_slab,
)
from tests.variational.engine import PYTHON

QUIET: dict[str, Any] = {
    "compile_kwargs": {"mode": PYTHON},
    "progressbar": False,
    "random_seed": 1,
}


def fitted(model: pm.Model, **options: Any) -> Any:
    return pm.fit(method="auto", model=model, **QUIET | options)


@pytest.fixture(scope="module")
def regression() -> Any:
    problem = Regression()
    return problem, fitted(problem.model())


def test_a_regression_on_raw_scales(regression: Any) -> None:
    problem, approx = regression
    draws = approx.sample(4000, random_seed=1).posterior["b"].values[0]
    np.testing.assert_allclose((draws.mean(axis=0) - problem.mean) / problem.sd, 0, atol=0.1)
    np.testing.assert_allclose(draws.std(axis=0) / problem.sd, 1, atol=0.06)
    assert approx.report.trusted and approx.report.converged


def test_without_the_correction(regression: Any) -> None:
    problem, approx = regression
    np.testing.assert_allclose(
        approx.normal.mean.eval(), problem.mean, atol=0.05 * problem.sd.max()
    )
    np.testing.assert_allclose(approx.normal.std.eval() / problem.sd, 1, rtol=0.02)
    tree = approx.sample(50, correct=False, random_seed=1)
    assert tree.posterior["b"].shape == (1, 50, 3)
    assert tree.fit.attrs["trusted"] == 1


@pytest.mark.parametrize(
    ("model", "says"), [(funnel(), "x["), (labels(), "mu"), (spike_and_slab(), "x[")]
)
def test_no_trust(model: pm.Model, says: str, caplog: pytest.LogCaptureFixture) -> None:
    """The verdict names a variable, and is a warning of the logger, in the repr and in results."""
    with caplog.at_level(logging.WARNING, "pymc.variational.inference"):
        approx = fitted(model)
    assert approx.report.trusted is False
    verdict = approx.report.verdict
    assert f"'{says}" in verdict.reason and verdict.advice
    [record] = caplog.records
    assert str(verdict) in record.message
    assert verdict.reason in repr(approx)
    attrs = approx.sample(10).fit.attrs
    assert (attrs["trusted"], attrs["reason"]) == (0, verdict.reason)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_heavy_tail_among_many_numbers(seed: int) -> None:
    """Weights are even, since few draws are in the tail, but those have all of the variance."""
    approx = fitted(cauchy_among(20), random_seed=seed)
    assert approx.report.trusted is False
    assert "'x'" in approx.report.verdict.reason


def test_a_heavy_tail_above_a_bound() -> None:
    """Its value is the logarithm of x - 1, of which the weights are even, and the variance of x is infinite."""
    with pm.Model() as model:
        pm.Pareto("x", 1.5, 1)
    approx = fitted(model)
    assert approx.report.trusted is False
    assert "the sd of 'x' is not known" in approx.report.verdict.reason


def test_a_skewed_posterior_is_corrected() -> None:
    """The normal's mean of g is off, and that of the draws is not."""
    approx = fitted(gamma())
    mean = approx.sample(4000, random_seed=1).posterior["g"].values.mean()
    assert abs(mean - 1.5) < 0.06
    assert approx.report.trusted


def test_one_seed_is_one_fit() -> None:
    one, same, other = (fitted(gamma(), random_seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.mean.eval(), same.mean.eval())
    assert one.mean.eval() != other.mean.eval()


def test_minibatches(monkeypatch: pytest.MonkeyPatch) -> None:
    """A part of the rows first, then all, by passes."""
    monkeypatch.setattr(inference, "MANY_ROWS", 1000)
    monkeypatch.setattr(inference, "SUBSAMPLES", (100, 300))
    problem = Regression(2000)
    approx = fitted(problem.model(batch_size=50))
    draws = approx.sample(4000, random_seed=1).posterior["b"].values[0]
    np.testing.assert_allclose((draws.mean(axis=0) - problem.mean) / problem.sd, 0, atol=0.08)
    np.testing.assert_allclose(draws.std(axis=0) / problem.sd, 1, atol=0.08)
    assert approx.report.trusted


@pytest.mark.parametrize("n_rare", [12, 60])
def test_a_flat_prior_of_a_rare_category(n_rare: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of the rows may have none of it, and then say nothing of its mean."""
    monkeypatch.setattr(inference, "MANY_ROWS", 1000)
    monkeypatch.setattr(inference, "SUBSAMPLES", (50, 100))
    rng = np.random.default_rng(2)
    which = rng.permutation(np.arange(4000) < n_rare).astype(int)
    y = rng.normal(1 + which, 2)
    with pm.Model() as model:
        each, observed = pm.Minibatch(which, y, batch_size=50)
        mu = pm.Flat("mu", shape=2)
        pm.Normal("y", mu[each], 2, observed=observed)
    approx = fitted(model)
    assert approx.report.trusted
    means = np.array([y[which == k].mean() for k in range(2)])
    sds = 2 / np.sqrt([4000 - n_rare, n_rare])
    np.testing.assert_allclose((approx.normal.mean.eval() - means) / sds, 0, atol=0.05)
    np.testing.assert_allclose(approx.normal.std.eval() / sds, 1, atol=0.1)


def test_full_data_with_dims_is_subsampled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference, "MANY_ROWS", 1000)
    monkeypatch.setattr(inference, "SUBSAMPLES", (100, 300))
    y = np.random.default_rng(1).normal(2, 3, size=2000)
    with pm.Model(coords={"obs": range(2000)}) as model:
        mu, log_sd = pm.Flat("mu"), pm.Flat("log_sd")
        pm.Normal("y", mu, pm.math.exp(log_sd), observed=y, dims="obs")
    made = AutoInference(model, random_seed=1)
    approx = made.fit(compile_kwargs={"mode": PYTHON}, progressbar=False)
    assert made._logp is not None and made._logp.n_all == 2000
    means = approx.normal.mean.eval()
    assert abs(means[0] - y.mean()) < 0.02 * y.std() / 2000**0.5 + 1e-3
    assert abs(means[1] - np.log(y.std())) < 0.1 / 4000**0.5
    assert approx.report.trusted


def test_a_budget() -> None:
    """A fit that is stopped has draws, no trust, and goes on."""
    made = AutoInference(Regression().model(), random_seed=1)
    approx = made.fit(max_gradients=20, compile_kwargs={"mode": PYTHON}, progressbar=False)
    assert approx.report.stopped == "max_gradients=20 were taken"
    assert (approx.report.trusted, approx.report.converged) == (False, False)
    assert np.isfinite(approx.sample(10).posterior["b"].values).all()
    made.refine(progressbar=False)
    assert approx.report.trusted and approx.report.stopped == "finished"


def test_seconds() -> None:
    approx = fitted(Regression().model(), max_seconds=0)
    assert "max_seconds=0" in approx.report.verdict.reason


def test_ctrl_c(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is there is kept."""
    find_modes = inference.find_modes

    def interrupted(*args: Any) -> Any:
        signal.raise_signal(signal.SIGINT)
        return find_modes(*args)

    monkeypatch.setattr(inference, "find_modes", interrupted)
    problem = Regression()
    approx = fitted(problem.model())
    assert approx.report.stopped == "interrupted"
    np.testing.assert_allclose(approx.normal.mean.eval(), problem.mean, atol=problem.sd.max())


def test_refine_needs_a_fit() -> None:
    with pytest.raises(TypeError, match=r"Need to call `\.fit` first"):
        AutoInference(gamma()).refine()


def test_discrete_variables() -> None:
    with pm.Model() as model:
        pm.Bernoulli("z", 0.3)
        pm.Normal("x")
    with pytest.raises(TypeError, match=r"'z' are discrete\. Marginalise"):
        fitted(model)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"n": 100}, "n=100: it needs no settings"),
        ({"guide": "low_rank"}, "guide='low_rank'"),
        ({"obj_optimizer": pm.adam()}, "obj_optimizer"),
        ({"learning_rate": 0.1}, "learning_rate"),
        ({"max_gradients": 0}, "max_gradients"),
        ({"cores": 0}, "cores"),
    ],
)
def test_arguments(given: dict[str, Any], says: str) -> None:
    with pytest.raises((TypeError, ValueError), match=says):
        fitted(gamma(), **given)


def test_other_methods_take_one_thread() -> None:
    with gamma(), pytest.raises(TypeError, match=r"method='auto', cores=2"):
        pm.fit(cores=2)


def test_no_finite_start() -> None:
    with pm.Model() as model:
        x = pm.Normal("x")
        pm.Potential("never", x * np.nan)
    with pytest.raises(FloatingPointError, match="nor around other starts"):
        fitted(model)


def test_copies_and_files(regression: Any, tmp_path: Path) -> None:
    """A copy, a pickle and a saved approximation draw the same, and know the verdict."""
    _, approx = regression
    saved = approx.save(tmp_path / "fit")
    loaded = pm.load_approximation(saved, model=approx.model)
    again = pickle.loads(pickle.dumps(approx))
    right = approx.sample(20, random_seed=3).posterior["b"].values
    for other in (deepcopy(approx), again, loaded):
        np.testing.assert_array_equal(other.sample(20, random_seed=3).posterior["b"].values, right)
        np.testing.assert_array_equal(other.normal.mean.eval(), approx.normal.mean.eval())
        assert other.report.verdict == approx.report.verdict


def test_a_fit_that_was_stopped_is_saved(tmp_path: Path) -> None:
    """Its k-hat is nan."""
    approx = fitted(Regression().model(), max_seconds=0)
    loaded = pm.load_approximation(approx.save(tmp_path / "fit"), model=approx.model)
    assert str(loaded.report) == str(approx.report)


def test_predictions(regression: Any) -> None:
    _, approx = regression
    tree = approx.sample_posterior_predictive(20, random_seed=1)
    assert tree.posterior_predictive["y"].shape == (1, 20, 60)
