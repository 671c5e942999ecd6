# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Drivers: the losses of steps called one by one, state in place, and Python where a loop fails."""

import copy
import json
import os
import subprocess
import sys
import time

from functools import cache
from pathlib import Path
from threading import Event, Thread

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest

from numba.core import event
from numpy.random import Generator
from pytensor.compile.ops import wrap_py

import pymc as pm

from pymc.variational import schedules
from pymc.variational.engine.drivers import DRIVERS, choose_driver
from pymc.variational.engine.drivers.base import PythonDriver
from pymc.variational.engine.step import compile_step, step_graph
from tests.variational.engine import (
    BACKENDS,
    JAX_COPIES,
    PYTHON,
    assert_same,
    bare_step,
    counted_compilations,
    normal_model,
    quiet,
    shared,
)

pytestmark = pytest.mark.filterwarnings(JAX_COPIES)

MODES = {"numba": "NUMBA", "jax": "JAX", "c": "CVM", "python": PYTHON}
N_ROWS = 12


class Walk:
    """A step with noise, rows of a minibatch, a table of which it changes rows, and a count."""

    def __init__(self, backend):
        with pm.Model():
            rows = pm.Minibatch(np.arange(N_ROWS), batch_size=3)
        values = {"x": np.ones(2), "table": np.zeros((N_ROWS, 2)), "data": np.ones(500)}
        x, table, data = (shared(value, name) for name, value in values.items())
        n = pytensor.shared(np.int64(0), "n")
        noise = pt.random.normal(size=2, rng=pytensor.shared(np.random.default_rng(1)))
        updates = {
            x: 0.9 * x + noise,
            table: pt.set_subtensor(table[rows], x + table[rows]),
            n: n + 1,
        }
        loss = (x**2).sum() + data.sum() + table.sum() + n
        graph = step_graph(updates, loss, random_seed=3)
        self.step = compile_step(graph.with_new_variables(), MODES[backend])
        self.shared = [graph.shared[i] for i in self.step.order]
        self.driver = choose_driver(self.step, lambda driver: driver.load(self.shared))
        self.names = [var.name for var in self.shared]

    def run(self, *chunks, driver=None):
        """Run steps from the first values on; the losses and the state after."""
        driver = driver or self.driver
        state, losses = driver.copy(driver.load(self.shared)), []
        for n_steps in chunks:
            state, some = driver.run(state, n_steps)
            losses.append(some)
        return state, np.concatenate(losses)


@pytest.fixture(scope="module")
def walk_on():
    return cache(Walk)


@pytest.fixture(params=[*BACKENDS, "python"])
def walk(request, walk_on):
    return request.param, walk_on(request.param)


@pytest.fixture
def numba_walk(walk_on):
    return walk_on("numba")


def as_arrays(state):
    """The values of a state: those of a generator are its words."""
    return [
        np.array([v.bit_generator.state["state"]["state"]], dtype=object)
        if isinstance(v, Generator)
        else np.array(v["jax_state"] if isinstance(v, dict) else v)
        for v in state
    ]


class TestAnyBackend:
    def test_name(self, walk):
        backend, made = walk
        assert made.driver.name == {"c": "python"}.get(backend, backend)

    def test_chunks_do_not_show(self, walk):
        _, made = walk
        state, losses = made.run(12)
        assert losses.shape == (12,)
        assert len(set(losses)) == 12
        for chunks in ([1] * 12, [5, 1, 6], [11, 1]):
            other, same = made.run(*chunks)
            np.testing.assert_array_equal(losses, same)
            assert_same(as_arrays(state), as_arrays(other))

    def test_as_the_function_called_one_by_one(self, walk):
        backend, made = walk
        function, storages = made.step.function, made.step.function.input_storage
        values = made.driver.copy(made.driver.load(made.shared))
        for container, value in zip(storages, values):
            container.storage[0] = value
        single = [float(function()) for _ in range(12)]
        _, losses = made.run(12)
        if backend == "jax":  # XLA may fuse, and round, another way in a loop
            np.testing.assert_allclose(losses, single, rtol=1e-12)
        else:
            np.testing.assert_array_equal(losses, single)

    def test_users_variables_change_when_stored(self, walk):
        _, made = walk
        before = [var.container.storage[0] for var in made.shared]
        kept = copy.deepcopy(as_arrays(before))
        state, _ = made.run(3)
        assert_same(as_arrays(var.container.storage[0] for var in made.shared), kept)
        try:
            made.driver.store(state, made.shared)
            for i, (var, old) in enumerate(zip(made.shared, before)):
                new = var.container.storage[0]
                assert (new is old) == (i not in made.step.updates)
                assert isinstance(new, np.ndarray | Generator)
                assert getattr(new, "dtype", None) == getattr(old, "dtype", None)
            assert made.shared[made.names.index("n")].get_value() == 3
        finally:
            for var, old in zip(made.shared, before):
                var.container.storage[0] = old

    def test_a_copy_is_deep(self, walk):
        _, made = walk
        state = made.driver.copy(made.driver.load(made.shared))
        kept = made.driver.copy(state)
        values = copy.deepcopy(as_arrays(kept))
        first = made.driver.run(state, 4).losses
        assert_same(as_arrays(kept), values)
        assert_same(made.driver.run(kept, 4).losses, first)

    def test_no_steps(self, walk):
        _, made = walk
        before = copy.deepcopy(as_arrays(made.driver.load(made.shared)))
        state, losses = made.run(0)
        assert losses.shape == (0,)
        assert_same(as_arrays(state), before)


@pytest.fixture(scope="module", params=[*BACKENDS, "python"])
def growing(request):
    """A variable that doubles; its loss is infinite where its square is, at the 6th step."""
    x = shared(1e139)
    return bare_step({x: 1e3 * x}, x**2, MODES[request.param])


class TestNotFinite:
    def test_stops_at_the_loss(self, growing):
        state, losses = growing.driver.run(growing.driver.copy(growing.load()), 100)
        assert np.isfinite(losses[:-1]).all()
        assert losses[-1] == np.inf
        assert len(losses) == 7
        np.testing.assert_allclose(np.asarray(state[0]), 1e139 * 1e3**7)

    def test_at_the_edge_of_a_chunk(self, growing):
        state, losses = growing.driver.run(growing.driver.copy(growing.load()), 6)
        assert np.isfinite(losses).all()
        assert growing.driver.run(state, 6).losses.tolist() == [np.inf]


class TestWithoutLoss:
    @pytest.mark.parametrize("mode", ["NUMBA", "JAX", PYTHON])
    def test_all_steps_run(self, mode):
        x = shared(1.0)
        step = bare_step({x: pt.switch(x < 8, 2 * x, np.nan)}, None, mode)
        state, losses = step.driver.run(step.load(), 6)
        assert np.isnan(losses).all()
        assert len(losses) == 6
        assert np.isnan(state[0])


class TestNumbaState:
    def test_untouched_values_are_the_same_objects(self, numba_walk):
        state = numba_walk.driver.copy(numba_walk.driver.load(numba_walk.shared))
        after, _ = numba_walk.driver.run(state, 5)
        updates = numba_walk.step.updates
        untouched = [i for i in range(len(state)) if i not in updates]
        assert {numba_walk.names[i] for i in untouched} >= {"data"}
        assert all(after[i] is state[i] for i in untouched)

    def test_rows_change_in_place(self, numba_walk):
        state = numba_walk.driver.copy(numba_walk.driver.load(numba_walk.shared))
        table = numba_walk.names.index("table")
        after, _ = numba_walk.driver.run(state, 5)
        assert np.shares_memory(after[table], state[table])
        assert after[table].any()

    def test_a_copy_leaves_what_no_step_changes(self, numba_walk):
        state = numba_walk.driver.load(numba_walk.shared)
        copied = numba_walk.driver.copy(state)
        for i, (old, new) in enumerate(zip(state, copied)):
            assert (new is old) == (i not in numba_walk.step.updates)

    def test_other_threads_run(self, numba_walk):
        times, done = [], Event()

        def tick():
            while not done.wait(0.005):
                times.append(time.perf_counter())

        thread = Thread(target=tick)
        thread.start()
        began = time.perf_counter()
        numba_walk.run(200_000)
        ended = time.perf_counter()
        done.set()
        thread.join()
        tenth = (ended - began) / 10
        assert any(began + tenth < at < ended - tenth for at in times)


class TestFallback:
    def broken(self, step):
        raise NotImplementedError("no loop of this")

    def test_python_where_the_loop_does_not_compile(self, monkeypatch):
        monkeypatch.setitem(DRIVERS, "PerformLinker", lambda: (self.broken, PythonDriver))
        x = shared(1.0)
        step = bare_step({x: 0.5 * x}, x)
        assert isinstance(step.driver, PythonDriver)
        assert step.driver.run(step.load(), 3).losses.tolist() == [1, 0.5, 0.25]

    def test_an_error_when_it_compiles(self, monkeypatch):
        class Late(PythonDriver):
            def compile(self, state):
                raise RuntimeError("no loop of this")

        monkeypatch.setitem(DRIVERS, "PerformLinker", lambda: (Late, PythonDriver))
        x = shared(1.0)
        assert type(bare_step({x: 0.5 * x}, x).driver) is PythonDriver

    def test_the_report_says_so(self, monkeypatch):
        losses = []
        for driver in ("numba", "python"):
            with normal_model(), counted_compilations():  # nothing is compiled before
                approx = pm.fit(20, random_seed=1, backend="numba", progressbar=False)
            assert (approx.report.driver, approx.report.backend) == (driver, "numba")
            losses.append(approx.hist)
            monkeypatch.setitem(DRIVERS, "NumbaLinker", lambda: (self.broken, PythonDriver))
        assert_same(*losses)


def test_fallback_of_a_step_with_noise_on_jax(monkeypatch, walk_on):
    made = walk_on("jax")
    _, one_by_one = DRIVERS["JAXLinker"]()
    monkeypatch.setitem(DRIVERS, "JAXLinker", lambda: (TestFallback().broken, one_by_one))
    fallback = choose_driver(made.step, lambda driver: driver.load(made.shared))
    _, losses = made.run(5, driver=fallback)
    np.testing.assert_allclose(losses, made.run(5)[1], rtol=1e-12)


def test_python_gives_the_function_its_values_back():
    x = shared(1.0)
    step = bare_step({x: 0.5 * x}, x)
    storages = [container.storage for container in step.driver._step.function.input_storage]
    before = [storage[0] for storage in storages]
    step.driver.run(step.load(), 3)
    assert [storage[0] for storage in storages] == before


@wrap_py(itypes=[pt.dscalar], otypes=[pt.dscalar])
def slowly(x):
    """Let other threads run."""
    time.sleep(1e-3)
    return np.asarray(x)


def test_two_threads_in_one_function():
    """Fits of one model have one compiled step, and each its own values."""
    x = shared(0.0)
    step = bare_step({x: slowly(x) + 1}, x)
    losses = {}

    def run(start):
        state = (np.asarray(start),)
        losses[start] = step.driver.run(state, 20).losses

    threads = [Thread(target=run, args=[start]) for start in (0.0, 1000.0)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for start, values in losses.items():
        np.testing.assert_array_equal(values, start + np.arange(20))


@pytest.mark.parametrize("backend", [*BACKENDS, "python"])
def test_two_fits_with_one_seed_agree(backend):
    kwargs = quiet() if backend == "python" else {"backend": backend, "progressbar": False}
    fits = []
    for _ in range(2):
        with pm.minibatch_model(normal_model(), batch_size=2):
            approx = pm.fit(30, random_seed=5, obj_optimizer=pm.adam(), **kwargs)
        fits.append([approx.hist, *(param.get_value() for param in approx.params)])
    assert_same(*fits)
    assert len(set(fits[0][0])) == 30


SCRIPT = """
import json
import numba
import numpy as np
import pytensor
import pymc as pm
from numba.core import event
from pymc.variational.engine.step_cache import make_step

x = pytensor.shared(np.ones(3), "x")
model = pm.Model()
with event.install_recorder("numba:compile") as compilations:
    step = make_step({x: 0.5 * x}, (x**2).sum(), model=model, random_seed=1, mode="NUMBA")
    losses = step.driver.run(step.load(), 5).losses.tolist()
made = [record.data["dispatcher"].__name__ for _, record in compilations.buffer if record.is_start]
print(json.dumps({"losses": losses, "compiled": made}))
"""


def test_caches_carry_over_to_the_next_process(tmp_path):
    def run():
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT],
            env={**os.environ, "PYTENSOR_FLAGS": f"base_compiledir={tmp_path}"},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
        )
        files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.nb[ci]")}
        return json.loads(done.stdout), files

    (first, made), (second, kept) = run(), run()
    assert first["losses"] == second["losses"] == [3 / 4**k for k in range(5)]
    assert "run_steps" in first["compiled"]
    assert second["compiled"] == []
    assert made == kept
    assert any("run_steps" in Path(path).name for path in kept)


@pytest.mark.parametrize("guide", ["mean_field", None])
def test_another_rate_compiles_nothing(guide):
    """By the count of Numba's compilations, not only of ours."""
    model = normal_model()

    def fit(rate, n_steps):
        schedule = schedules.exponential_decay(rate, decay_steps=n_steps, decay_rate=0.1)
        options = {"guide": guide, "random_seed": 1, "progressbar": False, "backend": "numba"}
        return pm.fit(3, model=model, obj_optimizer=pm.adam(learning_rate=schedule), **options)

    fit(0.1, 100)
    with event.install_recorder("numba:compile") as compilations:
        approx = fit(0.5, 7)
    assert compilations.buffer == []
    assert "0.5" in str(approx.report.settings["obj_optimizer"])
