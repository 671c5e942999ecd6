# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Batches that are fed: every driver takes the one of its step, and the loop knows which were used."""

import os
import signal
import sys

from functools import cache, partial
from threading import Timer

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest

import pymc as pm

from pymc.variational.engine.batch_feed import BatchFeed, FeedChunk, FeedInUse, PreparedBatches
from pymc.variational.engine.callback_schedule import CallbackSchedule
from pymc.variational.engine.drivers.jax import JaxStepDriver
from pymc.variational.engine.loop import NotFinite, run_loop
from pymc.variational.engine.step_cache import make_step
from pymc.variational.local_params.row_optimizer import guarded
from pymc.variational.progress import FitProgress
from pymc.variational.report import describe_failed_step
from tests.variational.engine import (
    JAX_COPIES,
    PYTHON,
    assert_same,
    bare_step,
    counted_compilations,
    shared,
)

pytestmark = pytest.mark.filterwarnings(JAX_COPIES)

N, B = 150, 4
VALUES = np.random.default_rng(1).normal(size=(N, B, 3)).astype("float32")
ROWS = np.arange(N * B).reshape(N, B)
MODES = {"numba": "NUMBA", "jax": "JAX", "python": PYTHON}


def expected(n_steps):
    """The losses of steps, and the parameter after them."""
    x, losses = np.zeros(3), []
    for values, rows in zip(VALUES[:n_steps].astype("float64"), ROWS):
        losses.append((x**2).sum() + values[0, 0])
        x = 0.9 * x + (values * (1 + 1e-3 * rows[:, None])).sum(axis=0)
    return x, np.array(losses)


class Fitted:
    """A step with a batch and its row numbers, float32 batches in a placeholder of float64."""

    def __init__(self, mode=PYTHON, with_loss=True, first_bad=None):
        self.batch, self.x = shared(np.zeros((B, 3)), "batch"), shared(np.zeros(3), "x")
        self.rows = pytensor.shared(np.full(B, -1), "rows")
        self.other = shared(1.0, "other")
        after = 0.9 * self.x + (self.batch * (1 + 1e-3 * self.rows[:, None])).sum(axis=0)
        loss = (self.x**2).sum() + self.batch[0, 0]
        if first_bad is not None:
            bad = pt.eq(self.rows[0], ROWS[first_bad - 1, 0])
            after, loss = pt.switch(bad, np.nan, after), pt.switch(bad, np.nan, loss)
        fed = {self.batch: VALUES.dtype, self.other: np.dtype(float), self.rows: ROWS.dtype}
        self.step = bare_step({self.x: after}, loss if with_loss else None, mode, batch_dtypes=fed)
        self.driver = self.step.driver

    def held(self, n=N):
        return self.driver.prepare_batches((VALUES[:n], ROWS[:n]))

    def feed(self, *lengths, **kwargs):
        """Batches in chunks of some lengths."""
        variables = [self.batch, self.other, self.rows]
        dtypes = [VALUES.dtype, np.dtype(float), ROWS.dtype]
        return BatchFeed(variables, Source(lengths or (N,), **kwargs), 0, dtypes)


class Source:
    """Chunks of the batches above, in turn; it notes what is asked of it."""

    def __init__(self, lengths, error_after=None):
        self.lengths, self.error_after = lengths, error_after
        self.asked, self.released, self.closed = [], 0, 0

    def __call__(self, position, n_batches):
        self.asked.append((position, n_batches))
        return self.read(position)

    def read(self, start):
        try:
            for length in self.lengths:
                stop = min(start + length, N)
                if start == N:
                    return
                values = (VALUES[start:stop], np.ones(stop - start), ROWS[start:stop])
                yield FeedChunk(values, range(start + 1, stop + 1), self.release)
                start = stop
            if self.error_after is not None:
                raise self.error_after
        finally:
            self.closed += 1

    def release(self):
        self.released += 1


def loop(fitted, feed, n_steps, *callbacks, params=()):
    progress = FitProgress(n_steps, show=False)
    return run_loop(
        fitted.step,
        n_steps,
        approx=None,
        params=params,
        callbacks=callbacks,
        progress=progress,
        feed=feed,
    )


@pytest.fixture(scope="module")
def made():
    return cache(lambda backend, with_loss: Fitted(MODES[backend], with_loss))


@pytest.fixture(params=MODES)
def backend(request):
    return request.param


class TestDrivers:
    @pytest.mark.parametrize("with_loss", [True, False])
    def test_each_step_has_its_batch(self, made, backend, with_loss):
        fitted = made(backend, with_loss)
        assert fitted.driver.name == backend
        state, held = fitted.driver.load(fitted.step.shared), fitted.held()
        losses = []
        for start, stop in [(0, 1), (1, 1), (1, 70), (70, 149), (149, 150)]:
            state, some = fitted.driver.run(state, stop - start, PreparedBatches(held, start))
            losses.append(some)
        x, wanted = expected(N)
        after = np.asarray(state[fitted.step.shared.index(fitted.x)])
        np.testing.assert_allclose(after, x, rtol=1e-12)
        if with_loss:
            np.testing.assert_allclose(np.concatenate(losses), wanted, rtol=1e-12)

    def test_chunks_do_not_show(self, made, backend):
        """Bit for bit the same from buffers of any length."""
        fitted = made(backend, True)
        outcomes = []
        for lengths in [(N,), (7, 64, 1, 78), (1,) * N]:
            fitted.x.set_value(np.zeros(3))
            end = loop(fitted, fitted.feed(*lengths), N)
            outcomes.append([end.losses, fitted.x.get_value()])
        fitted.x.set_value(np.zeros(3))
        assert_same(outcomes[0], outcomes[1])
        assert_same(outcomes[0], outcomes[2])

    def test_a_batch_is_needed(self, made, backend):
        fitted = made(backend, True)
        with pytest.raises(
            ValueError, match=r"has batch inputs: run\(state, n_steps, batches\) needs"
        ):
            fitted.driver.run(fitted.step.load(), 1)

    def test_jax_compiles_for_one_length(self, made):
        fitted = made("jax", True)
        before = fitted.driver._program._cache_size()
        for n in (N, 64, 65, 3, 1):
            fitted.driver.run(fitted.step.load(), n, PreparedBatches(fitted.held(n), 0))
        assert fitted.driver._program._cache_size() == before

    def test_jax_one_by_one(self, made):
        """The driver of steps that cannot be put into a loop."""
        fitted = made("jax", True)
        driver = JaxStepDriver(fitted.driver._step)
        state, losses = driver.run(
            driver.load(fitted.step.shared), 100, PreparedBatches(fitted.held(), 0)
        )
        state, more = driver.run(state, 50, PreparedBatches(fitted.held(), 100))
        np.testing.assert_allclose(np.r_[losses, more], expected(N)[1], rtol=1e-12)

    def test_numba_compiles_for_the_batches_before_they_come(self, made):
        fitted = made("numba", False)
        fitted.driver.run(fitted.step.load(), 5, PreparedBatches(fitted.held(), 0))
        assert len(fitted.driver._loop.signatures) == 1

    def test_numba_lets_go_of_batches(self, made):
        """What is fed is held by nobody afterwards: the memory is used again."""
        fitted, values = made("numba", True), VALUES.astype("float64")
        before = sys.getrefcount(values)
        state, _ = fitted.driver.run(fitted.step.load(), 100, PreparedBatches((values, ROWS), 3))
        del state
        assert sys.getrefcount(values) == before


class TestStep:
    def test_what_is_not_read_is_left_out(self):
        assert Fitted().step.batch_variables == (0, 2)

    def test_compiled_once(self):
        x, model = shared(1.0), pm.Model()
        batches = [shared(0.0, "batch") for _ in range(3)]
        f8, f4 = np.dtype("float64"), np.dtype("float32")
        make = partial(make_step, model=model, random_seed=1, mode=PYTHON)
        with counted_compilations() as graphs:
            first, second = (make({x: x + b}, x, batch_dtypes={b: f8}) for b in batches[:2])
            assert first.driver is second.driver
            assert len(graphs) == 1
            make({x: x + batches[2]}, x)  # not fed
            make({x: x + batches[2]}, x, batch_dtypes={batches[2]: f4})
            assert len(graphs) == 3

    def test_what_is_fed_has_no_update(self):
        x = shared(1.0)
        with pytest.raises(ValueError, match=r"\['x'\] get their values from a stream"):
            bare_step({x: x + 1}, x, batch_dtypes={x: np.dtype("float64")})


class TestFeed:
    def test_ready(self):
        fitted = Fitted()
        feed = fitted.feed(3, 5)
        with feed.reading(6):
            assert feed.n_ready() == 3
            feed.advance(2)
            assert (feed.n_ready(), feed.position, feed.n_used) == (1, 2, 2)
            feed.advance(1)
            assert feed.n_ready() == 3  # of five, since no more are wanted
            feed.advance(3)
        assert feed.position == 6
        assert_same([fitted.batch.get_value(), fitted.rows.get_value()], [VALUES[5], ROWS[5]])

    def test_going_on(self):
        feed = Fitted().feed(3, 5)
        for n in (2, 4):
            with feed.reading(n):
                while feed.n_ready():
                    feed.advance(1)
        source = feed.read
        assert source.asked == [(0, 2), (2, 4)]
        assert (source.released, source.closed) == (3, 2)

    def test_memory_is_released_in_time(self):
        """No more than the batches at hand are held when others are waited for."""
        feed = Fitted().feed(3, 5)
        with feed.reading(8):
            feed.n_ready()
            feed.advance(3)
            feed.n_ready()
            assert feed.read.released == 1

    def test_two_fits_at_once(self):
        fitted = Fitted()
        one, other = fitted.feed(), fitted.feed()
        with one.reading(1):
            with pytest.raises(FeedInUse, match="Another fit is feeding 'batch', 'other', 'rows'"):
                with other.reading(1):
                    pass
        with other.reading(1):  # now it may
            assert other.n_ready() == 1


class TestLoop:
    def test_callbacks_see_the_batch_of_their_step(self):
        fitted, seen = Fitted(), []

        def look(approx, losses, i):
            assert_same(
                [fitted.batch.get_value(), fitted.rows.get_value()], [VALUES[i - 1], ROWS[i - 1]]
            )
            seen.append(i)

        look.every = 7
        loop(fitted, fitted.feed(5, 50, 95), 100, look)
        assert seen == [*range(7, 100, 7)]
        assert_same([fitted.batch.get_value()], [VALUES[99]])

    def test_a_callback_may_change_the_placeholder(self):
        """The next step has its own batch all the same."""
        fitted = Fitted()
        end = loop(fitted, fitted.feed(), 20, lambda *_: fitted.batch.set_value(np.ones((B, 3))))
        np.testing.assert_allclose(end.losses, expected(20)[1])

    def test_a_source_that_ends(self):
        fitted = Fitted()
        feed = fitted.feed(10, 15)
        end = loop(fitted, feed, 100)
        assert (end.n_steps, end.stopped, end.error) == (25, "the source has ended", None)
        np.testing.assert_allclose(fitted.x.get_value(), expected(25)[0])
        assert feed.position == feed.n_used == 25

    def test_a_source_that_fails(self):
        fitted = Fitted()
        error = OSError("part-3.parquet, row group 2: cannot be read")
        feed = fitted.feed(10, 15, error_after=error)
        end = loop(fitted, feed, 100)
        assert end.error is error
        assert (end.n_steps, len(end.losses), feed.position) == (25, 25, 25)
        np.testing.assert_allclose(fitted.x.get_value(), expected(25)[0])
        assert_same([fitted.batch.get_value()], [VALUES[24]])

    def test_a_callback_that_fails(self):
        fitted = Fitted()
        feed = fitted.feed()

        def fail(approx, losses, i):
            if i == 12:
                raise RuntimeError("of the callback")

        end = loop(fitted, feed, 100, fail)
        assert str(end.error) == "of the callback"
        assert (end.n_steps, feed.position, feed.read.closed) == (12, 12, 1)

    @pytest.mark.parametrize("guard", [False, True])
    @pytest.mark.parametrize("first_bad", [1, 2, 30, 31, 77])
    def test_back_to_the_last_good_step(self, first_bad, guard):
        """At the edge of a buffer as in its middle; the batch is that of the last good step."""
        fitted = Fitted(first_bad=first_bad)
        if guard:
            fitted = Guarded(first_bad)
        feed = fitted.feed(30, 120)
        with pytest.raises(NotFinite, match=f"step {first_bad}: loss nan") as caught:
            loop(fitted, feed, N, params=[fitted.x])
        assert caught.value.end.n_steps == feed.position == first_bad - 1
        np.testing.assert_allclose(fitted.x.get_value(), expected(first_bad - 1)[0])
        if first_bad > 1 and first_bad != 31:
            assert_same([fitted.rows.get_value()], [ROWS[first_bad - 2]])
        error = caught.value
        message = describe_failed_step(
            NoTerms(), fitted.step, first_bad - 1, error.loss, error.batches
        )
        assert f"Step {first_bad} is not finite: its loss" in message

    def test_ctrl_c_while_it_waits(self):
        fitted = Fitted()

        def read(position, n):
            yield FeedChunk((VALUES[:5], np.ones(5), ROWS[:5]), range(1, 6))
            Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
            signal.pause()  # a source that hangs
            raise AssertionError("Ctrl-C did not get through")

        feed = BatchFeed(
            [fitted.batch, fitted.other, fitted.rows], read, 0, [VALUES.dtype, None, None]
        )
        end = loop(fitted, feed, 100)
        assert (end.n_steps, end.stopped, feed.position) == (5, "interrupted", 5)

    def test_ctrl_c_between_calls_and_going_on(self):
        """Steps and batches stay in step: the losses are those of one loop."""
        fitted, seen = Fitted(), []

        class Interrupt(CallbackSchedule):
            every = 40

            def __call__(self, approx, losses, i):
                seen.append(i)
                raise KeyboardInterrupt

        feed = fitted.feed(30, 120)
        first = loop(fitted, feed, N, Interrupt())
        second = loop(fitted, feed, N - 40)
        assert seen == [40]
        assert (first.n_steps, second.n_steps, feed.position) == (40, N - 40, N)
        np.testing.assert_allclose(np.r_[first.losses, second.losses], expected(N)[1])


class NoTerms:
    """An approximation of which nothing is known."""

    def bad_terms(self):
        return []

    def bad_parameters(self, values):
        return []


class Guarded(Fitted):
    """The same as a guarded step, which changes nothing where it is not finite."""

    def __init__(self, first_bad):
        super().__init__(first_bad=first_bad)
        bad = pt.eq(self.rows[0], ROWS[first_bad - 1, 0])
        after = 0.9 * self.x + (self.batch * (1 + 1e-3 * self.rows[:, None])).sum(axis=0)
        loss, updates = guarded(pt.switch(bad, np.nan, (self.x**2).sum()), {self.x: after}, [])
        fed = {self.batch: VALUES.dtype, self.other: np.dtype(float), self.rows: ROWS.dtype}
        self.step = bare_step(updates, loss, PYTHON, guarded=True, batch_dtypes=fed)
        self.driver = self.step.driver
