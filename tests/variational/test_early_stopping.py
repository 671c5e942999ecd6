# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Early stopping: trajectories of the parameters, their errors, and checks of stationarity."""

from __future__ import annotations

import numpy as np
import pytensor
import pytest

from scipy.signal import lfilter
from scipy.stats import norm

import pymc as pm

from pymc.variational.callbacks import CheckStationarity
from pymc.variational.convergence import mean_error, trend
from pymc.variational.early_stopping import Trajectory, flat_scales
from tests.variational.engine import approx_of, called_at


class TestTrajectory:
    @pytest.mark.parametrize("n", [1, 7, 8, 9, 100, 129])
    def test_rows_are_means_of_equal_batches(self, n):
        values = np.random.default_rng(n).normal(size=(n, 3))
        trajectory = Trajectory(3, 8)
        for value in values:
            trajectory.append(value)
        batch = 1
        while -(-n // batch) > 8:
            batch *= 2
        full = n // batch * batch
        expected = values[:full].reshape(-1, batch, 3).mean(axis=1)
        np.testing.assert_allclose(trajectory.rows, expected, rtol=1e-12)

    def test_error_of_the_mean_of_an_autoregression(self):
        """It is s / (1 - r) / sqrt(n), and as many means are within it as a normal has within one sd.

        Of 2,000 walks the share has a standard error of 0.0104, and z is that of 1e-5, two-sided; the
        estimate of r leaves 0.03 below 0.683. Without autocorrelation, the share would be 0.3.
        """
        noise = np.random.default_rng(1).normal(size=(3200, 2000))
        walks = lfilter([1], [1, -0.95], noise, axis=0)[200:]
        errors = mean_error(walks)
        assert np.median(errors) == pytest.approx(1 / 0.05 / np.sqrt(3000), rel=0.1)
        within = (abs(walks.mean(axis=0)) < errors).mean()
        assert abs(within - 0.683) < 0.03 + norm.isf(1e-5 / 2) * 0.0104
        np.testing.assert_allclose(mean_error(1e-20 * walks), 1e-20 * errors)

    def test_constants(self):
        window = np.ones((100, 2)) * [0.1, 0.0]
        assert mean_error(window).max() < 1e-15
        assert trend(window).moved.tolist() == [0, 0]

    def test_a_trend_is_told_from_noise(self):
        noise = np.random.default_rng(1).normal(size=(400, 2))
        found = trend(noise + np.linspace(0, 10, 400)[:, None] * [1, 0])
        assert found.is_sure.tolist() == [True, False]
        # The ends of 8 means are 7/8 of the line apart, and time runs over them; a slope's error is 0.16
        assert found.moved == pytest.approx([8.75, 0], abs=0.16 * norm.isf(1e-5))


class TestScales:
    """An error divided by its scale is in standard deviations, or relative to them."""

    @pytest.fixture(params=["mean_field", "full_rank"])
    def approx(self, request):
        with pm.Model():
            pm.Normal("x", shape=3)
            approx = {"mean_field": pm.MeanField, "full_rank": pm.FullRank}[request.param]()
        rng = np.random.default_rng(2)
        for param in approx.params:
            param.set_value(rng.normal(size=param.get_value().shape).astype(param.dtype))
        return approx

    def test_a_small_step_changes_the_guide_as_the_scale_says(self, approx):
        with pytensor.config.change_flags(mode="FAST_COMPILE"):
            group = approx.groups[0]
            factor = group.L.eval() if "L_tril" in group.params_dict else np.diag(group.std.eval())
            sd = group.std.eval()
            steps, start = flat_scales(approx), 0
            for param in approx.params:
                old = param.get_value()
                scale = steps[start : start + old.size]
                start += old.size
                for k in range(old.size):
                    step = np.zeros(old.size)
                    step[k] = 1e-6 * scale[k]
                    param.set_value((old + step).astype(param.dtype))
                    if param.name == "globals_mu":
                        assert step[k] == pytest.approx(1e-6 * sd[k])
                        continue
                    now = (
                        group.L.eval()
                        if param.name == "globals_L_tril"
                        else np.diag(group.std.eval())
                    )
                    change = abs(now - factor).sum(axis=1) / sd
                    assert change.max() == pytest.approx(1e-6, rel=1e-3)
                    assert np.count_nonzero(change) == 1
                param.set_value(old)

    def test_of_other_guides(self):
        with pm.Model():
            pm.Normal("x", shape=2)
            approx = pm.Empirical(size=5)
        assert flat_scales(approx).tolist() == [1.0] * 10


def noisy_trajectory(n: int, rate: float, noise: float, seed: int, d: int = 4) -> np.ndarray:
    """Gradient steps down a parabola from 3: stationary sd noise / sqrt(rate (2 − rate))."""
    steps = noise * np.random.default_rng(seed).normal(size=(n, d))
    return 3 * (1 - rate) ** np.arange(n)[:, None] + lfilter([1], [1, rate - 1], steps, axis=0)


def run(check: CheckStationarity, values: np.ndarray) -> int | None:
    for i in called_at(check, len(values)):
        try:
            check(approx_of(values[i - 1]), None, i)
        except StopIteration as stop:
            assert str(stop).startswith(f"Stationary at {i}: ")
            return i
    return None


class TestCheckStationarity:
    def test_the_averages_are_as_good_as_it_says(self):
        """The means over the stretch, at the stop, are within the tolerance of 0, their limit.

        z is that of a false alarm in 1e-5 runs of this test, two-sided, split over 20 fits of 4
        parameters. Errors that leave out autocorrelation fail: the largest average is at 5.8 then.
        """
        z = norm.isf(1e-5 / (2 * 20 * 4))
        for seed in range(20):
            values = noisy_trajectory(60_000, rate=0.02, noise=0.02, seed=seed)
            check = CheckStationarity(every=10, tolerance=0.02)
            stopped = run(check, values)
            assert stopped is not None
            assert check.steps[-1] == stopped
            assert check.mcse[-1] <= 0.02
            assert check.moved[-1] <= 0.002
            average = values[check.stretch : stopped].mean(axis=0)
            assert check.stretch <= 2 / 3 * stopped + 10
            assert abs(average).max() < z * 0.02

    def test_a_drift_does_not_stop(self):
        drift = np.linspace(0, 50, 20_000)[:, None]
        values = drift + 0.1 * np.random.default_rng(3).normal(size=(20_000, 2))
        check = CheckStationarity(every=10, tolerance=np.float64(1))
        assert run(check, values) is None
        assert min(check.moved) > check.largest_move
        assert np.isfinite(check.mcse).all()

    def test_a_slow_drift_does_not_stop(self):
        """Each stretch goes by less than a fit that has ended may, and the drift goes on."""
        check = CheckStationarity(every=10)
        assert run(check, np.linspace(0, 2, 10_000)[:, None] * np.ones((1, 2))) is None
        assert 0.01 < min(check.moved) < 0.2

    def test_small_steps_stop(self):
        """An error far below the tolerance: R-hat of halves is over 2, as the steps hardly vary."""
        steps = noisy_trajectory(40_000, rate=0.001, noise=3e-4, seed=7)
        assert run(CheckStationarity(), steps) is not None

    def test_a_tolerance_out_of_reach_does_not_stop(self):
        values = noisy_trajectory(20_000, rate=0.1, noise=0.1, seed=4)
        check = CheckStationarity(every=5, tolerance=1e-4)
        assert run(check, values) is None
        assert np.nanmin(check.mcse) > 1e-4

    def test_share(self):
        """One parameter of four drifts: three quarters are stationary."""
        values = noisy_trajectory(60_000, rate=0.1, noise=0.02, seed=5)
        values[:, 0] += np.linspace(0, 50, len(values))
        assert run(CheckStationarity(), values) is None
        assert run(CheckStationarity(share=0.75), values) is not None

    def test_watches_at_most_so_many(self):
        check = CheckStationarity(max_parameters=3)
        for i in (10, 20):
            check(approx_of(np.arange(50.0)), None, i)
        assert check._trajectory.rows.shape == (2, 3)
        assert len(set(check._trajectory.rows[0])) == 3

    def test_begins_anew_in_another_fit(self):
        values = noisy_trajectory(3000, rate=0.1, noise=0.1, seed=6)
        check = CheckStationarity(every=5, tolerance=1e-6)
        run(check, values)
        first = check.steps, check.mcse
        run(check, values)
        assert (check.steps, check.mcse) == first

    def test_few_checks_in_many_steps(self):
        check = CheckStationarity(every=1000)
        drift = iter(range(1000))
        for i in range(1000, 10**6 + 1, 1000):
            check(approx_of([next(drift)]), None, i)
        assert len(check.steps) <= 1 + np.log(10) / np.log(1.2)
        assert len(check._trajectory.rows) <= 400

    @pytest.mark.parametrize(
        "kwargs, error, message",
        [
            ({"tolerance": 0}, ValueError, "tolerance=0 of .* must be above 0"),
            ({"tolerance": "1"}, TypeError, "tolerance='1' of .* must be a number"),
            ({"tolerance": np.nan}, ValueError, "tolerance=nan of .* must be finite"),
            ({"share": 1.5}, ValueError, "share=1.5 of .* must be above 0 and at most 1"),
            ({"share": True}, TypeError, "share=True of"),
            ({"max_parameters": 0}, ValueError, "max_parameters=0 of"),
        ],
    )
    def test_bad_arguments(self, kwargs, error, message):
        with pytest.raises(error, match=message):
            CheckStationarity(**kwargs)
