# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Steps in one program of JAX: the same losses for any chunks, and nothing of JAX left behind."""

import copy

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest

from numpy.random import Generator
from pytensor.link.jax.dispatch import jax_typify

import pymc as pm

from pymc.minibatch.index import IndexState
from pymc.variational.engine.drivers.jax import MAX_STEPS, JaxDriver, with_key
from pymc.variational.engine.step import StepFunction, compile_step, step_graph

pytestmark = pytest.mark.filterwarnings("ignore:The RandomType SharedVariables:UserWarning")

N_ROWS, BATCH_SIZE = 40, 8


class Fit:
    """ADVI of a normal model on minibatches, and the step of it for JAX."""

    def __init__(self):
        rng = np.random.default_rng(2)
        with pm.Model() as self.model:
            x = pm.Data("x", rng.normal(2, 1, size=N_ROWS).astype(pytensor.config.floatX))
            mu = pm.Normal("mu")
            sigma = pm.HalfNormal("sigma")
            pm.Normal("y", mu, sigma, observed=pm.Minibatch(x, batch_size=BATCH_SIZE))
        self.inference = pm.ADVI(model=self.model, random_seed=1)
        updates, loss = self.inference.objective.updates(obj_optimizer=pm.adam(learning_rate=0.05))
        graph = step_graph(updates, loss, random_seed=3)
        self.step = compile_step(graph.with_new_variables(), mode="JAX")
        self.shared = [graph.shared[i] for i in self.step.order]
        self.driver = JaxDriver(self.step)
        self.values = [var.container.storage[0] for var in self.shared]

    def reset(self):
        for var, value in zip(self.shared, self.values):
            var.container.storage[0] = value


@pytest.fixture(scope="module")
def compiled():
    return Fit()


@pytest.fixture
def fit(compiled):
    yield compiled
    compiled.reset()


def chunked(fit, chunks):
    state = fit.driver.load(fit.shared)
    losses = []
    for n_steps in chunks:
        state, some = fit.driver.run(state, n_steps)
        losses.append(some)
    return state, np.concatenate(losses)


def function_of(jit_fn, n_inputs):
    """A step made of a JAX function, which PyTensor would have compiled: of its arguments, in order."""
    function = SimpleNamespace(vm=SimpleNamespace(jit_fn=jit_fn), input_storage=[None] * n_inputs)
    updates = {i: i + 1 for i in range(n_inputs)}
    return StepFunction(function, updates, has_loss=True, order=tuple(range(n_inputs)))


def test_losses_do_not_depend_on_chunks(fit):
    state, losses = chunked(fit, [30])
    for chunks in ([1] * 30, [7, 1, 22], [29, 1]):
        other_state, other = chunked(fit, chunks)
        np.testing.assert_array_equal(losses, other)
        jax.tree.map(np.testing.assert_array_equal, state, other_state)
    assert losses.shape == (30,)
    assert losses.dtype == "float64"
    assert np.isfinite(losses).all()


def test_losses_are_those_of_steps_called_one_by_one(fit):
    _, losses = chunked(fit, [10])
    values = list(fit.driver.load(fit.shared))
    single = []
    for _ in range(10):
        outputs = fit.step.function.vm.jit_fn(*values)
        single.append(float(outputs[0]))
        for i, output in fit.step.updates.items():
            values[i] = outputs[output]
    np.testing.assert_allclose(losses, single, rtol=1e-5)  # XLA may fuse, and round, another way


def test_stored_values_are_of_numpy(fit):
    dtypes = [getattr(value, "dtype", None) for value in fit.values]
    state, _ = chunked(fit, [5])
    fit.driver.store(state, fit.shared)
    for i, (var, dtype) in enumerate(zip(fit.shared, dtypes)):
        value = var.container.storage[0]
        changed = i in fit.step.updates
        assert (value is not fit.values[i]) == changed
        if not isinstance(value, Generator):
            assert type(value) is np.ndarray
            assert value.dtype == dtype
            assert value.flags.writeable
    assert any(isinstance(var.container.storage[0], Generator) for var in fit.shared)
    [index] = [var for var in fit.shared if isinstance(var, IndexState)]
    np.testing.assert_array_equal(index.container.storage[0][2:], [5 * BATCH_SIZE, 0])


def test_run_goes_on_from_stored_values(fit):
    _, losses = chunked(fit, [12])
    state, _ = chunked(fit, [5])
    fit.driver.store(state, fit.shared)
    _, others = chunked(fit, [7])
    np.testing.assert_array_equal(losses[5:], others)


def test_approximation_is_used_without_jax_after_a_fit(fit):
    state, _ = chunked(fit, [200])
    fit.driver.store(state, fit.shared)
    approx = fit.inference.approx
    with pytensor.config.change_flags(mode="FAST_COMPILE"):
        draws = approx.sample(50, random_seed=1, return_inferencedata=False)["mu"]
    assert np.isfinite(draws).all()


def test_state_outlives_the_next_run(fit):
    """A copy costs nothing, and a run changes no state that was given to it."""
    state = fit.driver.load(fit.shared)
    before = jax.tree.map(np.array, state)
    assert fit.driver.copy(state) is state
    fit.driver.run(state, 3)
    jax.tree.map(np.testing.assert_array_equal, state, before)


def test_new_data_are_seen(fit):
    _, old = chunked(fit, [4])
    with fit.model:
        pm.set_data({"x": np.full(N_ROWS, 100.0)})
    _, new = chunked(fit, [4])
    assert (new > 10 * old).all()
    with fit.model:
        pm.set_data({"x": np.full(BATCH_SIZE, 100.0)})  # of another length
    assert chunked(fit, [4])[1].shape == (4,)


def test_data_written_in_place_are_seen():
    """A batch fed by hand: the same array, with other values in it."""
    driver, x = JaxDriver(function_of(lambda x: (x.sum(), x), 1)), np.zeros(3)
    shared = [pytensor.shared(x, borrow=True)]
    first = driver.run(driver.load(shared), 1).losses
    x[:] = 2
    assert (first, driver.run(driver.load(shared), 1).losses) == (0, 6)


def counter(stop_at=np.inf, n_traces=None):
    """A step that counts, and whose loss is the count, until it is infinite."""

    def step(count):
        if n_traces is not None:
            n_traces.append(1)
        return jnp.where(count == stop_at, jnp.inf, count.astype(float)), count + 1

    return JaxDriver(function_of(step, 1)), (jnp.array(0),)


@pytest.mark.parametrize("n_steps", [1, MAX_STEPS - 1, MAX_STEPS, MAX_STEPS + 1, 3 * MAX_STEPS])
def test_runs_of_any_length_are_one_program(n_steps):
    n_traces = []
    driver, state = counter(n_traces=n_traces)
    driver.compile(state)
    assert len(n_traces) >= 1
    before = len(n_traces)
    (count,), losses = driver.run(state, n_steps)
    assert len(n_traces) == before
    assert count == n_steps
    np.testing.assert_array_equal(losses, np.arange(n_steps))


@pytest.mark.parametrize("stop_at", [0, 5, MAX_STEPS - 1, MAX_STEPS])
def test_run_ends_with_a_loss_that_is_not_finite(stop_at):
    driver, state = counter(stop_at)
    (count,), losses = driver.run(state, 2 * MAX_STEPS)
    assert count == stop_at + 1
    np.testing.assert_array_equal(losses, [*range(stop_at), np.inf])


def test_model_is_compiled_once(fit):
    fit.driver.compile(fit.driver.load(fit.shared))
    n_programs = fit.driver._program._cache_size()
    chunked(fit, [3, 1, 20])
    state, _ = chunked(fit, [2])
    fit.driver.store(state, fit.shared)
    chunked(fit, [9])
    assert fit.driver._program._cache_size() == n_programs


def test_step_without_a_loss():
    a = pytensor.shared(np.float64(0.0).astype(pytensor.config.floatX), name="a")
    step = compile_step(step_graph({a: a + 1}, None, 0).with_new_variables(), mode="JAX")
    driver = JaxDriver(step)
    state, losses = driver.run(driver.load([a]), 6)
    driver.store(state, [a])
    assert a.get_value() == 6
    assert losses.shape == (6,)
    assert np.isnan(losses).all()


def test_length_from_a_value_is_refused():
    """What `pm.fit` reads as: call the steps one by one."""
    n, a = pytensor.shared(3, name="n"), pytensor.shared(np.zeros(()), name="a")
    graph = step_graph({a: pt.cumsum(pt.alloc(a, n)).sum()}, None, 0).with_new_variables()
    step = compile_step(graph, mode="JAX")
    driver = JaxDriver(step)
    with pytest.raises(TypeError, match="Shapes must be 1D sequences of concrete values"):
        driver.compile(driver.load([(n, a)[i] for i in step.order]))


def test_key_in_a_generator():
    """PyTensor finds the key again, also one with zeros, and NumPy draws something else."""
    generator = np.random.default_rng(4)
    for key in ([1, 2], [0, 0], [2**32 - 1, 0], [0, 7]):
        new = with_key(generator, np.array(key, dtype="uint32"))
        np.testing.assert_array_equal(jax_typify(new)["jax_state"], key)
        assert new.normal() != np.random.default_rng(4).normal()
    assert generator.normal() == np.random.default_rng(4).normal()


class TestGuarded:
    """A step that nobody keeps a copy for writes into the memory of its values."""

    @pytest.fixture(scope="class")
    @classmethod
    def compiled(cls):
        x, rng = pytensor.shared(np.arange(4.0), "x"), pytensor.shared(np.random.default_rng(1))
        noise = pt.random.normal(size=4, rng=rng)
        graph = step_graph({x: x / 2 + noise}, x.sum(), random_seed=1, guarded=True)
        step = compile_step(graph.with_new_variables(), mode="JAX")
        return JaxDriver(step), [graph.shared[i] for i in step.order]

    @pytest.fixture
    def driver(self, compiled):
        _, shared = compiled
        values = [copy.deepcopy(var.container.storage[0]) for var in shared]
        yield compiled
        for var, value in zip(shared, values):
            var.container.storage[0] = value

    def test_uses_the_state_up(self, driver):
        driver, shared = driver
        before = driver.load(shared)
        copied = driver.copy(before)
        after, losses = driver.run(before, 5)
        assert all(leaf.is_deleted() for leaf in jax.tree.leaves(before))
        again, same = driver.run(copied, 5)
        np.testing.assert_array_equal(losses, same)
        for x, y in zip(jax.tree.leaves(after), jax.tree.leaves(again)):
            np.testing.assert_array_equal(x, y)

    def test_stores_where_the_value_is(self, driver):
        driver, shared = driver
        [x] = [var for var in shared if var.name == "x"]
        value = x.get_value(borrow=True)
        state, _ = driver.run(driver.load(shared), 5)
        expected = np.array(state[shared.index(x)])
        driver.store(state, shared)
        assert x.get_value(borrow=True) is value
        np.testing.assert_array_equal(value, expected)
        assert {type(var.container.storage[0]) for var in shared} == {np.ndarray, Generator}

    def test_what_a_failed_call_used_up(self, driver):
        """The loop stores a state in any case, and the error of the call is what counts."""
        driver, shared = driver
        state = driver.load(shared)
        driver.run(state, 1)
        driver.store(state, shared)
        [x] = [var for var in shared if var.name == "x"]
        np.testing.assert_array_equal(x.get_value(), np.arange(4.0))
