# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Fits say whether they have converged."""

from __future__ import annotations

import logging

from typing import Any

import numpy as np
import pytest

import pymc as pm

from pymc.variational.convergence import ConvergenceMonitor, sure_errors
from tests.variational.engine import normal_model, quiet, shared

cosine_decay = pm.variational.schedules.cosine_decay


def fitted(n: int = 2000, **options: Any) -> Any:
    return pm.fit(n, model=normal_model(60), random_seed=1, **quiet(**options))


@pytest.mark.parametrize("options", [{"average": 0.2}, {}])
def test_a_fit_that_has_converged(
    options: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    rate = pm.adam(learning_rate=cosine_decay(0.1, 2000))
    with caplog.at_level(logging.WARNING, "pymc"):
        approx = fitted(obj_optimizer=rate, obj_n_mc=10, **options)
    assert approx.report.converged is True
    assert approx.report.trusted is None
    assert not caplog.records
    assert "; converged: " in str(approx.report)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "still moved by"),  # the release's default rate
        ({"obj_optimizer": pm.sgd(learning_rate=1e-5)}, "still"),
        ({"obj_optimizer": pm.adam(learning_rate=0.3)}, "off by about"),
    ],
)
def test_a_fit_that_has_not(
    options: dict[str, Any], says: str, caplog: pytest.LogCaptureFixture
) -> None:
    """One line says what, by how much, and what to write instead."""
    with caplog.at_level(logging.WARNING, "pymc"):
        approx = fitted(**options)
    assert approx.report.converged is False
    [record] = caplog.records
    assert record.name.startswith("pymc")
    assert says in record.message and "method='auto'" in record.message
    assert approx.sample(5).fit.attrs["converged"] == 0


def test_it_is_said_of_refine_anew() -> None:
    inference = pm.ADVI(model=normal_model(60), random_seed=1)
    inference.fit(200, obj_optimizer=pm.adam(learning_rate=0.01), **quiet())
    assert inference.approx.report.converged is False
    inference.refine(4000, progressbar=False)
    assert inference.approx.report.converged is True


def test_a_refine_at_a_rate_of_zero(caplog: pytest.LogCaptureFixture) -> None:
    inference = pm.ADVI(model=normal_model(60), random_seed=1)
    inference.fit(300, obj_optimizer="tuned", **quiet())
    with caplog.at_level(logging.WARNING, "pymc"):
        inference.refine(300, progressbar=False)
    assert inference.approx.report.converged is False
    assert "no step has changed a parameter" in caplog.records[-1].message


def test_a_short_fit_says_nothing() -> None:
    assert fitted(100).report.converged is None


def test_steps_are_the_same() -> None:
    """Looks change no bit: 64 of them in one fit, and a callback at each step in the other."""
    approx, other = fitted(300), fitted(300, callbacks=[lambda *args: None])
    np.testing.assert_array_equal(approx.hist, other.hist)


class Recorded:
    """A watch over a walk that is given, of a mean with a standard deviation of 1."""

    def __init__(self, walk: np.ndarray, *more: Any, rates: Any = np.ones_like) -> None:
        approx = pm.MeanField(model=normal_model(6))
        approx.model_parameters = more
        mu, rho = (approx.shared_params[name] for name in ("mu", "rho"))
        rho.set_value(np.full(1, np.log(np.expm1(1.0))))
        self.watch = ConvergenceMonitor(approx, [mu, rho], len(walk), rates)
        for value in walk[:: self.watch.every]:
            self.watch.record([np.array([value]), rho.get_value()])

    def converged(self, averaged: bool = False, losses: Any = ()) -> bool:
        verdict = self.watch.verdict(np.asarray(losses, "float64"), None, averaged)
        assert verdict is not None
        return verdict.converged


def test_drift_noise_and_rest() -> None:
    time = np.arange(64 * 10)
    noise = np.random.default_rng(1).normal(size=len(time))
    assert Recorded(1e-9 * noise).converged()
    assert not Recorded(0.0 * time).converged()
    assert Recorded(0.1 * noise).converged()
    assert not Recorded(0.1 * noise + 0.004 * time).converged()  # 0.6 sd in the last quarter
    assert not Recorded(0.002 * time).converged(averaged=True)
    assert not Recorded(0.5 * noise).converged()
    assert Recorded(0.4 * noise).converged(averaged=True)
    assert not Recorded(np.cumsum(noise)).converged()


def test_a_slow_way_that_is_far() -> None:
    """It moves by 0.1 sds in a quarter of the steps, at first and at last; or at first only."""
    time = np.arange(64 * 10)
    noise = 0.01 * np.random.default_rng(1).normal(size=len(time))
    assert not Recorded(noise + 0.1 * time / 160).converged()
    assert Recorded(noise + np.exp(-time / 100)).converged()
    assert Recorded(noise + 2 * np.exp(-time / 150)).converged()
    assert Recorded(noise + 0.01 * time / 160).converged()


def test_a_way_that_a_falling_rate_ends() -> None:
    """The same walk stands still since its steps are small, or since it has arrived."""
    n = 64 * 10
    time = np.arange(n)
    fall = lambda steps: 1 + np.cos(np.pi * np.minimum(steps / n, 1))  # noqa: E731
    noise = 0.001 * np.random.default_rng(1).normal(size=n)
    far = noise + 1.3 * np.cumsum(fall(time)) / n  # it has moved by 1.3, and would go on
    assert Recorded(far).converged()
    assert not Recorded(far, rates=fall).converged()
    arrived = noise + np.exp(-np.cumsum(fall(time)) / 50)
    assert Recorded(arrived, rates=fall).converged()
    assert Recorded(noise, rates=fall).converged()


def test_a_fit_whose_rate_falls_too_early() -> None:
    """Parameters hardly move in the last quarter of the steps, and have not arrived."""
    rate = pm.adam(learning_rate=cosine_decay(0.0005, 2000))
    inference = pm.ADVI(model=normal_model(60), random_seed=1)
    inference.fit(2000, **quiet(obj_optimizer=rate, obj_n_mc=10))
    assert inference.approx.report.converged is False
    assert "hardly slower than before" in str(inference.approx.report.verdict)
    # Steps are counted from the first one on, also by `refine`
    state = inference.state
    assert state.rates(np.array([0, 1000]))[1] == pytest.approx(2.5e-4)
    assert (state.i, state.first) == (2000, 0)


@pytest.mark.parametrize(
    "optimizer",
    [
        pm.adam(learning_rate=cosine_decay(0.002, 1000)),  # at 0 from half of the steps on
        pm.adagrad(learning_rate=1e-3),
        pm.adam(learning_rate=1e-6),
    ],
)
def test_fits_that_stand_still_far_from_their_optimum(optimizer: Any) -> None:
    approx = fitted(obj_optimizer=optimizer, obj_n_mc=10)
    assert approx.std.eval()[0] > 2 / 60**0.5 or abs(approx.mean.eval()[0]) < 0.1
    assert approx.report.converged is False


def test_chance_of_a_sure_slope() -> None:
    """By Student's t with 6 degrees of freedom, in a table: 5.959 for a chance of 0.001."""
    assert sure_errors(1) == pytest.approx(5.959, abs=2e-3)
    errors = [sure_errors(n) for n in (1, 10, 100, 1000)]
    assert errors == sorted(errors) and errors[2] == pytest.approx(13.56, abs=0.3)


def test_few_steps_at_a_slow_rate() -> None:
    """The sds of a mean-field fit to many rows begin at a hundred times theirs, and shrink by a few percent."""
    rng = np.random.default_rng(1)
    X = rng.normal(size=(20_000, 5))
    y = X @ np.linspace(-1, 1, 5) + rng.normal(size=len(X))
    with pm.Model() as model:
        x, observed = pm.Minibatch(X, y, batch_size=200)
        pm.Normal("y", x @ pm.Normal("b", 0, 10, shape=5), 1, observed=observed)
    adam = pm.adam(learning_rate=0.01)
    approx = pm.fit(200, model=model, random_seed=1, **quiet(obj_optimizer=adam))
    assert approx.std.eval().max() > 0.3
    assert approx.report.converged is False
    assert "hardly slower than before" in str(approx.report.verdict)


def test_a_bound_that_rises() -> None:
    """It is asked of where there are parameters whose scale is not known."""
    rest = Recorded(1e-9 * np.arange(640), shared(1.0))
    noise = np.random.default_rng(1).normal(size=640)
    assert rest.converged(losses=noise)
    assert rest.converged(losses=noise - 0.0005 * np.arange(640))
    assert not rest.converged(losses=noise - 0.05 * np.arange(640))


def test_false_alarms_by_noise_alone() -> None:
    """Walks that only vary about their mean, by an autoregression, and 200 of them."""
    rng, alarms = np.random.default_rng(1), 0
    for _ in range(200):
        walk = np.zeros(640)
        for k in range(1, 640):
            walk[k] = 0.95 * walk[k - 1] + 0.03 * rng.normal()  # sd 0.1
        alarms += not Recorded(walk).converged()
    assert alarms <= 2


def test_standard_deviations_that_went_astray() -> None:
    approx = pm.FullRank(model=normal_model(6))
    mu, tril = (approx.shared_params[name] for name in ("mu", "L_tril"))
    tril.set_value(np.full(1, 1e12))
    watch = ConvergenceMonitor(approx, [mu, tril], 640)
    for _ in range(64):
        watch.record([np.zeros(1), tril.get_value()])
    verdict = watch.verdict(np.empty(0), None, False)
    assert verdict is not None and not verdict.converged
    assert "deviation of 'mu' is 1e+12" in verdict.reason
