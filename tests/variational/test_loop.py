# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""The loop of a fit: how many steps a call takes, callbacks, Ctrl-C, and what is kept."""

import io
import tracemalloc

from dataclasses import replace

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest

from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from pymc.variational.engine.callback_schedule import CallbackSchedule
from pymc.variational.engine.loop import ChunkSizer, LossHistory, NotFinite, run_loop
from pymc.variational.local_params.row_optimizer import guarded
from pymc.variational.progress import FitProgress
from tests.variational.engine import bare_step, halving, shared


class Counting:
    """A driver that notes how many steps each call takes."""

    def __init__(self, driver):
        self.driver, self.chunks = driver, []

    def __getattr__(self, name):
        return getattr(self.driver, name)

    def run(self, state, n_steps, batches=None):
        self.chunks.append(n_steps)
        return self.driver.run(state, n_steps, batches)


def counting(step):
    driver = Counting(step.driver)
    return replace(step, driver=driver), driver.chunks


def loop(step, n_steps, *callbacks, params=(), **kwargs):
    return run_loop(
        step,
        n_steps,
        approx="the approximation",
        params=params,
        callbacks=callbacks,
        progress=FitProgress(n_steps, show=False),
        **kwargs,
    )


def at(every, function, at_start=False):
    """A callback with a rate."""

    class Callback(CallbackSchedule):
        def __call__(self, approx, losses, i):
            function(approx, losses, i)

    callback = Callback()
    callback.every, callback.at_start = every, at_start
    return callback


class TestSteps:
    def test_losses_and_state(self):
        x, step = halving()
        end = loop(step, 20)
        assert end.n_steps == 20
        assert end.stopped == "finished"
        assert 0 < end.seconds < 10
        np.testing.assert_array_equal(end.losses, 0.25 ** np.arange(20))
        assert x.get_value() == 0.5**20

    def test_none(self):
        x, step = halving()
        end = loop(step, 0, lambda *_: pytest.fail("called"))
        assert (end.n_steps, end.losses.shape, x.get_value()) == (0, (0,), 1)

    def test_without_losses(self):
        x = shared(1.0)
        seen = []
        step = bare_step({x: 0.5 * x}, None)
        end = loop(step, 5, lambda approx, losses, i: seen.append((losses, i)))
        assert end.losses.shape == (0,)
        assert end.n_steps == 5
        assert seen == [(None, i) for i in range(1, 6)]
        assert x.get_value() == 0.5**5

    def test_calls_become_long(self):
        step, chunks = counting(halving()[1])
        loop(step, 20_000)
        assert sum(chunks) == 20_000
        assert len(chunks) < 20
        assert chunks[0] == 1  # which may compile

    def test_a_rate_leaves_calls_long(self):
        step, chunks = counting(halving()[1])
        loop(step, 5000, at(1000, lambda *_: None), at(500, lambda *_: None))
        assert chunks[-8:] == [500] * 8
        assert len(chunks) < 20

    def test_each_step(self):
        step, chunks = counting(halving()[1])
        loop(step, 30, lambda *_: None)
        assert chunks == [1] * 30


class TestChunkSizer:
    def test_finds_the_time_of_a_step(self):
        sizer, seconds_a_step = ChunkSizer(0.1), 1e-5
        for _ in range(8):
            sizer.update(sizer.n_steps, sizer.n_steps * seconds_a_step)
        assert sizer.n_steps == 10_000

    def test_a_call_that_seems_free(self):
        sizer = ChunkSizer(0.1)
        sizer.update(1, 0.0)
        assert sizer.n_steps == 8

    def test_a_slow_step(self):
        sizer = ChunkSizer(0.1)
        sizer.update(1, 3.0)
        assert sizer.n_steps == 1

    def test_short_calls_do_not_slow_it_down(self):
        """Calls cut short by callbacks say as much of the time of a step."""
        sizer = ChunkSizer(0.1)
        for _ in range(8):
            sizer.update(sizer.n_steps, sizer.n_steps * 1e-5)
        sizer.update(3, 3e-5)
        assert sizer.n_steps == 10_000


class TestCallbacks:
    def test_contract(self):
        x, step = halving()
        seen = []

        def callback(approx, losses, i):
            seen.append((approx, losses.copy(), i, float(x.get_value())))

        loop(step, 4, callback)
        approxes, losses, steps, values = zip(*seen)
        assert set(approxes) == {"the approximation"}
        assert steps == (1, 2, 3, 4)
        assert values == (0.5, 0.25, 0.125, 0.0625)
        for i, some in zip(steps, losses):
            np.testing.assert_array_equal(some, 0.25 ** np.arange(i))

    def test_steps_of_earlier_loops_count(self):
        _, step = halving()
        seen = []
        callback = at(10, lambda approx, losses, i: seen.append((i, len(losses))))
        loop(step, 20, callback, n_before=7)
        assert seen == [(10, 3), (20, 13)]

    def test_at_start(self):
        _, step = halving()
        seen = []
        callback = at(10, lambda approx, losses, i: seen.append(i), at_start=True)
        loop(step, 20, callback, n_before=13)
        assert seen == [14, 20, 30]

    def test_rates_of_several(self):
        _, step = halving()
        seen = []
        callbacks = [at(n, lambda _, __, i, n=n: seen.append((i, n))) for n in (2, 3)]
        loop(step, 7, *callbacks)
        assert seen == [(2, 2), (3, 3), (4, 2), (6, 2), (6, 3)]

    def test_the_state_of_each_call(self):
        """Callbacks with a rate see what they saw if each step was a call."""
        x, step = halving()
        seen = []
        loop(step, 10, at(4, lambda *_: seen.append(float(x.get_value()))))
        assert seen == [0.5**4, 0.5**8]

    def test_values_that_a_callback_sets_count(self):
        x, step = halving()

        def back(approx, losses, i):
            if i == 3:
                x.set_value(np.asarray(1.0))

        end = loop(step, 5, back)
        assert end.losses.tolist() == [1, 1 / 4, 1 / 16, 1, 1 / 4]

    def test_losses_do_not_change_later(self):
        _, step = halving()
        seen = []
        loop(step, 3000, at(1000, lambda approx, losses, i: seen.append((losses, losses.copy()))))
        for losses, copied in seen:
            np.testing.assert_array_equal(losses, copied)

    @pytest.mark.parametrize("message", ["enough", ""])
    def test_stop_iteration(self, message):
        x, step = halving()

        def stop(approx, losses, i):
            if i == 6:
                raise StopIteration(message) if message else StopIteration

        end = loop(step, 100, stop)
        assert end.n_steps == len(end.losses) == 6
        assert end.stopped == (message or "stopped by a callback")
        assert x.get_value() == 0.5**6

    def test_keyboard_interrupt(self):
        x, step = halving()

        def interrupt(approx, losses, i):
            if i == 6:
                raise KeyboardInterrupt

        end = loop(step, 100, interrupt)
        assert (end.n_steps, len(end.losses), end.stopped) == (6, 6, "interrupted")
        assert x.get_value() == 0.5**6

    @pytest.mark.parametrize("error", [RuntimeError, SystemExit, GeneratorExit])
    def test_another_error(self, error):
        x, step = halving()

        def fail(approx, losses, i):
            if i == 6:
                raise error("of the callback")

        end = loop(step, 100, fail)  # the caller raises it, when it has kept the steps
        assert str(end.error) == "of the callback"
        assert (end.n_steps, end.stopped) == (6, f"{error.__name__}: of the callback")
        assert x.get_value() == 0.5**6

    def test_values_that_it_sets_when_it_stops(self):
        """A callback may put the best parameters back, and end the fit."""
        x, step = halving()

        def stop(approx, losses, i):
            x.set_value(np.asarray(42.0))
            raise StopIteration

        loop(step, 100, stop)
        assert x.get_value() == 42


def test_a_fit_that_stops_early_takes_little_memory():
    _, step = halving()

    def stop(approx, losses, i):
        if i == 100:
            raise StopIteration

    tracemalloc.start()
    try:
        loop(step, 10**9, stop)
        assert tracemalloc.get_traced_memory()[1] < 1e6
    finally:
        tracemalloc.stop()


def test_progress_gets_each_call():
    updates = []

    class Recording(FitProgress):
        def update(self, n_done, history, *, last=False):
            updates.append((n_done, len(history), last))

    _, step = halving()
    console = Console(file=io.StringIO())
    run_loop(step, 2000, approx=None, params=(), progress=Recording(2000, console=console))
    steps, lengths, last = zip(*updates)
    assert list(steps) == sorted(set(steps))
    assert steps == lengths
    assert steps[-1] == 2000
    assert last == (False,) * (len(last) - 1) + (True,)


class TestGuarded:
    """Steps that change nothing if they fail."""

    def growing(self, first_bad):
        """A count, whose step would make a parameter nan."""
        x, n = shared(0.0, "x"), pytensor.shared(np.int64(0), "n")
        new = pt.switch(pt.eq(n + 1, first_bad), np.nan, x + 1)
        loss, updates = guarded(x, {n: n + 1, x: new})
        return x, n, bare_step(updates, loss, guarded=True)

    @pytest.mark.parametrize("first_bad", [1, 2, 50, 1234])
    def test_last_good_state(self, first_bad):
        x, n, step = self.growing(first_bad)
        with pytest.raises(NotFinite, match=f"step {first_bad}: loss nan") as caught:
            loop(step, 5000, params=[x])
        assert x.get_value() == n.get_value() == first_bad - 1
        np.testing.assert_array_equal(caught.value.end.losses, np.arange(first_bad - 1))

    def test_takes_no_copy(self):
        x, _, step = self.growing(40)
        step, chunks = counting(step)
        step.driver.copy = lambda state: pytest.fail("copied")
        assert loop(step, 30, params=[x]).n_steps == 30
        with pytest.raises(NotFinite, match="step 10: loss nan"):
            loop(step, 30, params=[x])
        assert sum(chunks) <= 60  # none is taken again


# --- the history of losses ---


@given(st.lists(st.integers(0, 3000), max_size=8))
def test_history_keeps_all(lengths):
    history, losses, start = LossHistory(), [], 0
    for n in lengths:
        losses.append(np.arange(start, start + n, dtype=float))
        start += n
        history.extend(losses[-1])
        assert len(history) == start
    np.testing.assert_array_equal(history.losses, np.concatenate([[], *losses]))
    assert history.losses.dtype == "float64"


def test_earlier_views_do_not_change():
    history, views = LossHistory(), []
    for k in range(40):
        history.extend(np.full(100, float(k)))
        views.append(history.losses)
    for k, view in enumerate(views):
        np.testing.assert_array_equal(view, np.repeat(np.arange(k + 1), 100))


def test_what_is_given_may_be_used_again():
    history, losses = LossHistory(), np.ones(3)
    history.extend(losses)
    losses[:] = 2
    assert history.losses.tolist() == [1, 1, 1]


def test_room_grows_with_the_losses():
    tracemalloc.start()
    try:
        history = LossHistory()
        for _ in range(1000):
            history.extend(np.zeros(100))
        # The losses, their room of at most twice that, and the room before
        assert tracemalloc.get_traced_memory()[1] < 3.5 * 8 * len(history)
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "losses, n, mean",
    [
        ([1.0, 2, 3], 2, 2.5),
        ([1.0, 2, 3], 9, 2.0),
        ([1.0, np.inf, 3, np.nan], 4, 2.0),
        ([1.0, np.nan], 1, np.nan),
        ([], 5, np.nan),
    ],
)
def test_recent_mean(losses, n, mean):
    history = LossHistory()
    history.extend(np.array(losses))
    np.testing.assert_equal(history.recent_mean(n), mean)


def test_recent_is_a_thousand():
    history = LossHistory()
    history.extend(np.arange(5000.0))
    assert history.recent_mean() == np.arange(4000, 5000).mean()
