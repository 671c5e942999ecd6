# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""When callbacks are called, what they record, and when they stop a fit."""

from __future__ import annotations

import inspect
import pickle

from typing import Any

import numpy as np
import pytensor
import pytest

import pymc as pm

from pymc.variational.callbacks import (
    Callback,
    CheckParametersConvergence,
    CheckStationarity,
    Tracker,
)
from pymc.variational.engine.callback_schedule import next_call
from tests.variational.engine import approx_of, called_at

NO_STEPS = [
    (0, ValueError, "every=0 of {} must be at least 1"),
    (-5, ValueError, "every=-5 of {}"),
    (True, TypeError, "every=True of {} must be a whole number; got a bool"),
    (10.0, TypeError, r"every=10\.0 of {} must be a whole number; got a float"),
    ("a", TypeError, "every='a' of {} must be a whole number; got a str"),
]


class TestCallTimes:
    def test_a_function_is_called_at_each_step(self):
        assert called_at(lambda approx, losses, i: None, 3) == [1, 2, 3]
        assert called_at(lambda approx, losses, i: None, 2, start=7) == [8, 9]

    def test_every_of_a_function(self):
        def callback(approx, losses, i):
            pass

        callback.every = np.int64(4)
        assert called_at(callback, 12) == [4, 8, 12]
        assert called_at(callback, 4, start=6) == [8]

    def test_every_of_a_class(self):
        class Mine(Callback):
            every = 5

        assert called_at(Mine(), 10) == [5, 10]
        assert called_at(Callback(), 2) == [1, 2]

    def test_at_start(self):
        check = CheckParametersConvergence(every=5)
        assert called_at(check, 10) == [1, 5, 10]
        assert called_at(check, 5, start=12) == [13, 15]
        assert called_at(CheckParametersConvergence(every=1), 3) == [1, 2, 3]

    @pytest.mark.parametrize("every, error, message", NO_STEPS)
    @pytest.mark.parametrize("make", [CheckParametersConvergence, CheckStationarity, Tracker])
    def test_bad_every(self, make, every, error, message):
        with pytest.raises(error, match=message.format(make.__name__)):
            make(every=every)

    @pytest.mark.parametrize("every, error, message", NO_STEPS)
    def test_bad_every_of_a_function(self, every, error, message):
        def mine(approx, losses, i):
            pass

        mine.every = every
        with pytest.raises(error, match=message.format("the callback mine")):
            next_call(mine, 0)


class TestCheckParametersConvergence:
    """The release's behaviour, called at the steps that `next_call` tells."""

    def stops_at(self, values: np.ndarray, **kwargs: Any) -> int | None:
        check = CheckParametersConvergence(**kwargs)
        for i in called_at(check, len(values)):
            try:
                check(approx_of(values[i - 1]), None, i)
            except StopIteration as stop:
                assert str(stop) == f"Convergence achieved at {i}"
                return i
        return None

    @pytest.mark.parametrize("diff", ["relative", "absolute"])
    @pytest.mark.parametrize("ord", [np.inf, 2])
    def test_as_called_at_each_step(self, diff, ord):
        values = 1 + np.exp(-np.arange(200) / 20)[:, None] * [1.0, -2.0]
        each_step = CheckParametersConvergence(every=20, tolerance=1e-2, diff=diff, ord=ord)
        expected = None
        for i, value in enumerate(values, 1):
            try:
                each_step(approx_of(value), None, i)
            except StopIteration:
                expected = i
                break
        assert expected is not None
        actual = self.stops_at(values, every=20, tolerance=1e-2, diff=diff, ord=ord)
        assert actual == expected

    def test_the_first_step_counts(self):
        """Between steps 1 and 10 nothing changes, so the first multiple of `every` stops."""
        assert self.stops_at(np.ones((30, 2)), every=10) == 10

    def test_unknown_diff(self):
        with pytest.raises(ValueError, match=r"diff of .* is 'abs': say 'relative'"):
            CheckParametersConvergence(diff="abs")


class TestTracker:
    def test_both_forms_of_a_statistic(self):
        tracker = Tracker(number=lambda: 3, step=lambda approx, losses, i: i)
        for i in called_at(tracker, 3):
            tracker(None, [0.0], i)
        assert tracker["number"] == [3, 3, 3]
        assert tracker["step"] == [1, 2, 3]
        tracker.clear()
        assert tracker["step"] == []

    def test_every(self):
        tracker = Tracker(every=4, step=lambda approx, losses, i: i)
        for i in called_at(tracker, 10):
            tracker(None, [0.0], i)
        assert dict(tracker.hist) == {"step": [4, 8]}

    def test_a_statistic_named_every(self):
        tracker = Tracker(every=lambda: 7, other=lambda: 8)
        tracker(None, [0.0], 1)
        assert tracker.every == 1
        assert dict(tracker.hist) == {"every": [7], "other": [8]}

    def test_not_callable(self):
        with pytest.raises(TypeError, match=r"but mean is int: 3\. Give it a function"):
            Tracker(mean=3)

    def test_pickle(self):
        tracker = pickle.loads(pickle.dumps(Tracker(every=3, cwd=inspect.currentframe)))
        assert type(tracker) is Tracker
        assert tracker.every == 3


class TestInAFit:
    """That the loop calls callbacks when `next_call` says, with what the contract says."""

    @pytest.fixture(autouse=True)
    def python_mode(self):
        with pytensor.config.change_flags(mode="FAST_COMPILE"):
            yield

    def test_steps_losses_and_the_end(self):
        calls: list[tuple[str, int, int]] = []

        def each_step(approx, losses, i):
            calls.append(("each", i, len(losses)))

        def sometimes(approx, losses, i):
            calls.append(("sometimes", i, len(losses)))
            if i == 30:
                raise StopIteration("enough")

        sometimes.every = 10
        tracker = Tracker(every=15, step=lambda approx, losses, i: i)
        with pm.Model():
            pm.Normal("x")
            advi = pm.ADVI(random_seed=1)
        approx = advi.fit(20, callbacks=[each_step, sometimes, tracker], progressbar=False)
        assert calls[-3:] == [("each", 19, 19), ("each", 20, 20), ("sometimes", 20, 20)]
        advi.refine(15, progressbar=False)
        # `losses` are those of this call, `i` counts on
        assert calls[-2:] == [("each", 30, 10), ("sometimes", 30, 10)]
        assert [i for name, i, _ in calls if name == "each"] == list(range(1, 31))
        assert tracker["step"] == [15]  # the callbacks before it ended the fit at 30
        assert approx.report.stopped == "enough"
        assert approx.report.n_steps == 30

    def test_parameters_are_those_after_the_step(self):
        """Whether or not the steps in between ran in one call."""
        kept: dict[int, list[Any]] = {1: [], 5: []}
        for every, values in kept.items():

            def keep(approx, losses, i, values=values):
                if i % 5 == 0:
                    values.append(np.concatenate([p.get_value() for p in approx.params]))

            keep.every = every
            with pm.Model():
                pm.Normal("x", 3, 1)
                pm.fit(20, random_seed=1, callbacks=[keep], progressbar=False)
        np.testing.assert_array_equal(kept[1], kept[5])
        assert len(kept[5]) == 4

    def test_stationary(self):
        check = CheckStationarity(every=1, tolerance=0.5)
        with pm.Model():
            pm.Normal("x", 0, 1)
            approx = pm.fit(
                5000,
                random_seed=1,
                callbacks=[check],
                obj_optimizer=pm.sgd(learning_rate=0.05),
                progressbar=False,
            )
        assert approx.report.stopped.startswith(f"Stationary at {check.steps[-1]}: ")
        assert approx.report.n_steps == check.steps[-1] < 5000
