# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Averages of the last iterates, against those kept by hand."""

import numpy as np
import pytensor.tensor as pt
import pytest

import pymc as pm

from pymc.minibatch.axis_tracking import Rows
from pymc.minibatch.index import minibatch_index
from pymc.variational.averaging import TailAverage, check_average
from pymc.variational.local_params.row_optimizer import RowGradient, all_updates, guarded
from pymc.variational.local_params.table import ParamTable
from pymc.variational.optimizers import as_optimizer
from tests.variational.engine import PYTHON, bare_step, normal_model, params_of, quiet, shared

N, RATE = 20, 0.3


def descent(fraction, n_steps, target=2.0):
    """Gradient descent on a quadratic; a parameter after each step is in closed form."""
    x = shared([0.0, 1.0])
    tail = TailAverage.of([x], fraction)
    step = bare_step(tail.updates({x: x - RATE * (x - target)}), ((x - target) ** 2).sum())
    tail.begin(n_steps)
    step.store(step.driver.run(step.load(), n_steps)[0])
    return x, tail, step


def iterates(n_steps, target=2.0):
    """After 1, 2, ... steps, shape (n_steps, 2)."""
    start = np.array([0.0, 1.0])
    return target + (1 - RATE) ** np.arange(1, n_steps + 1)[:, None] * (start - target)


@pytest.mark.parametrize(
    "fraction, n_steps, n_last",
    [(0.5, N, 10), (0.25, N, 5), (1.0, N, 20), (0.1, 3, 1), (0.5, 1, 1), (1.0, 1, 1), (0.5, 5, 2)],
)
def test_average_of_the_last(fraction, n_steps, n_last):
    x, tail, _ = descent(fraction, n_steps)
    expected = iterates(n_steps)
    np.testing.assert_allclose(x.get_value(), expected[-1], rtol=1e-12)
    assert tail.n_averaged.get_value() == n_last
    tail.swap()
    np.testing.assert_allclose(x.get_value(), expected[-n_last:].mean(axis=0), rtol=1e-12)
    tail.swap()
    np.testing.assert_allclose(x.get_value(), expected[-1], rtol=1e-12)


def test_no_steps():
    x, tail, _ = descent(0.5, 0)
    tail.swap()
    assert x.get_value().tolist() == [0.0, 1.0]


def test_begins_anew():
    x, tail, step = descent(0.5, N)
    tail.begin(N)
    step.store(step.driver.run(step.load(), N)[0])
    tail.swap()
    np.testing.assert_allclose(x.get_value(), iterates(2 * N)[-10:].mean(axis=0), rtol=1e-12)


def test_swap_leaves_arrays_apart():
    x, tail, _ = descent(0.5, N)
    tail.swap()
    assert not np.shares_memory(x.get_value(borrow=True), tail.means[0].get_value(borrow=True))


class TestFit:
    def parameters(self, average, *lengths):
        """The parameters after a fit and its refinements, and those after each step."""
        seen = []
        advi = pm.ADVI(model=normal_model(), random_seed=3)
        first, *more = lengths
        optimizer = pm.sgd(learning_rate=0.01)
        callbacks = [lambda approx, *_: seen.append(params_of(approx))]
        advi.fit(first, **quiet(average=average, callbacks=callbacks, obj_optimizer=optimizer))
        for n in more:
            advi.refine(n, progressbar=False)
        return params_of(advi.approx), seen

    @pytest.mark.parametrize("average, n_last", [(0.5, 10), (1.0, 20), (np.float32(0.5), 10)])
    def test_parameters_are_averages(self, average, n_last):
        actual, seen = self.parameters(average, N)
        for k, value in enumerate(actual):
            expected = np.mean([params[k] for params in seen[-n_last:]], axis=0)
            np.testing.assert_allclose(value, expected, rtol=1e-12)

    def test_refine_goes_on_from_the_last_iterate(self):
        averaged, seen = self.parameters(0.5, N, N)
        _, plain = self.parameters(None, 2 * N)
        np.testing.assert_allclose(np.ravel(seen), np.ravel(plain), rtol=1e-12)
        for k, value in enumerate(averaged):
            expected = np.mean([params[k] for params in plain[-10:]], axis=0)
            np.testing.assert_allclose(value, expected, rtol=1e-12)

    def test_callbacks_see_iterates(self):
        _, seen = self.parameters(0.5, N)
        _, plain = self.parameters(None, N)
        np.testing.assert_allclose(np.ravel(seen), np.ravel(plain), rtol=1e-12)

    def test_refining_by_nothing_keeps_the_average(self):
        kept, _ = self.parameters(0.5, N)
        again, _ = self.parameters(0.5, N, 0)
        for x, y in zip(kept, again):
            np.testing.assert_array_equal(x, y)

    def test_refine_after_an_error_goes_on_from_the_last_iterate(self):
        """An error in the averaged part leaves the parameters, and not half an average."""

        def fail(approx, losses, i):
            if i == 15:
                raise RuntimeError("a callback of the user's")

        optimizer = pm.sgd(learning_rate=0.01)
        with normal_model():
            advi = pm.ADVI(random_seed=3)
            advi.fit(10, **quiet(average=1.0, callbacks=[fail], obj_optimizer=optimizer))
            with pytest.raises(RuntimeError, match="a callback of the user's"):
                advi.refine(10, progressbar=False)
            last = params_of(advi.approx)
            advi.refine(0, progressbar=False)
        _, plain = self.parameters(None, 15)
        for x, y, z in zip(last, params_of(advi.approx), plain[-1]):
            np.testing.assert_array_equal(x, y)
            np.testing.assert_allclose(x, z, rtol=1e-12)

    def test_the_report_says_so(self):
        with normal_model():
            approx = pm.fit(5, random_seed=1, **quiet(average=0.5))
        assert approx.report.settings["average"] == 0.5

    def test_stopped_before_the_part(self):
        def stop(approx, losses, i):
            raise StopIteration

        with normal_model():
            approx = pm.fit(100, random_seed=1, **quiet(average=0.5, callbacks=[stop]))
        with normal_model():
            plain = pm.fit(1, random_seed=1, **quiet())
        for x, y in zip(params_of(approx), params_of(plain)):
            np.testing.assert_array_equal(x, y)


class TestArgument:
    @pytest.mark.parametrize("average", [0, 0.0, -0.5, 1.5, np.nan, np.inf, 2])
    def test_out_of_range(self, average):
        with pytest.raises(ValueError, match=r"average=.* above 0 and at most 1"):
            check_average(average)

    @pytest.mark.parametrize("average", [True, False, "0.5", [0.5], 0.5j])
    def test_no_number(self, average):
        with pytest.raises(TypeError, match=r"average=.* must be a number"):
            check_average(average)

    @pytest.mark.parametrize("average", [1, 0.5, np.float32(0.25), None])
    def test_good(self, average):
        assert check_average(average) == average

    def test_before_anything_is_compiled(self):
        with normal_model(), pytest.raises(ValueError, match="average=2 of a fit"):
            pm.fit(5, average=2, obj_optimizer=None)


class TestRows:
    """Parameters of rows: averages over the visits of each, in its line of the table."""

    @pytest.fixture
    def rows(self):
        """Six rows with a target each, two of which a step draws halfway to it."""
        start = np.zeros((6, 2))
        table = ParamTable.of((Rows(minibatch_index(6, 2, "with_replacement")),), start, "z")
        tail = TailAverage.of([], 0.5, [table])
        lines, params = table.gather()
        targets = pt.constant(np.arange(12.0).reshape(6, 2))[table.index]
        optimizer = as_optimizer(pm.sgd(learning_rate=0.5))
        rows = [RowGradient(table, (lines, params), params - targets)]
        updates, rows = all_updates(optimizer, [], [], rows, tail.n_waiting)
        loss, updates = guarded(pt.constant(0.0), updates, rows)
        compiled = pm.compile(
            [], [table.index, loss], updates=tail.updates(updates), mode=PYTHON, random_seed=1
        )
        return table, tail, compiled

    def test_over_the_last_visits(self, rows):
        table, tail, compiled = rows
        for n_steps in (20, 6):  # the second run starts its averages anew
            tail.begin(n_steps)
            visited = [[] for _ in range(6)]
            for k in range(n_steps):
                index, _ = compiled()
                if k >= n_steps // 2:
                    for row in set(index):
                        visited[row].append(table.parameters()[row].copy())
            last = table.parameters().copy()
            expected = [
                np.mean(some, axis=0) if some else last[k] for k, some in enumerate(visited)
            ]
            assert any(len(some) > 1 for some in visited)
            tail.swap()
            np.testing.assert_allclose(table.parameters(), expected, rtol=1e-12)
            tail.swap()
            np.testing.assert_array_equal(table.parameters(), last)
        assert not all(visited)

    def test_room_in_the_table(self, rows):
        table, *_ = rows
        assert table.shared.get_value().shape == (6, 8)  # 2 parameters, 2 means, a count
