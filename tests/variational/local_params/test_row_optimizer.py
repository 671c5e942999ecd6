# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Optimizers of rows: each row as if it were alone, and steps that change nothing if they fail."""

import gc
import inspect
import weakref

from functools import cache

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest

from hypothesis import given
from hypothesis import strategies as st

import pymc as pm

from pymc.minibatch.axis_tracking import Rows
from pymc.minibatch.index import minibatch_index
from pymc.variational.engine.step_cache import make_step
from pymc.variational.local_params.row_optimizer import (
    FirstOccurrence,
    RowGradient,
    _adagrad_window,
    all_updates,
    first_occurrence,
    guarded,
    sum_of_rows,
)
from pymc.variational.local_params.table import ParamTable
from pymc.variational.optimizers import as_optimizer
from tests.variational.engine import (
    BACKENDS,
    JAX_COPIES,
    OPTIMIZERS,
    PYTHON,
    counted_compilations,
    shared,
)

# Of each slot, so that the slots of a row have different gradients
WEIGHTS = np.array([1.0, 0.3, 2.0, 0.7, 1.1])


class Squares:
    """Each row is drawn to its target: the loss is the sum over a batch of squared distances.

    The first five rows of a batch have `WEIGHTS`.
    """

    def __init__(
        self, optimizer, n_rows=7, batch_size=5, sampling="with_replacement", seed=1, n_params=2
    ):
        rng = np.random.default_rng(seed)
        self.start = rng.normal(size=(n_rows, n_params))
        self.targets = shared(rng.normal(size=(n_rows, n_params)), "targets")
        n = self.targets.shape[0]
        self.table = ParamTable.of(
            (Rows(minibatch_index(n, batch_size, sampling)),), self.start, "z"
        )
        self.scale = shared(1.0, "scale")
        lines, params = self.table.gather()
        apart = params - self.targets[self.table.index]
        loss = (WEIGHTS[:batch_size, None] * self.scale * apart**2).sum()
        gradient = pt.grad(loss, params)
        rows = RowGradient(self.table, (lines, params), gradient)
        self.counts, [self.update] = all_updates(as_optimizer(optimizer), [], [], [rows])
        self.loss, self.updates = guarded(loss, self.counts, [self.update])

    def compile(self, *outputs):
        return pm.compile(
            [], [self.loss, *outputs], updates=self.updates, mode=PYTHON, random_seed=3
        )

    def step(self, mode=PYTHON, model=None):
        return make_step(
            self.updates,
            self.loss,
            model=model or pm.Model(),
            random_seed=3,
            mode=mode,
            guarded=True,
        )

    def slopes(self, params, index):
        """Gradients of the rows of a batch, by row."""
        slopes = {}
        for weight, row in zip(WEIGHTS, index):
            slope = 2 * weight * (params[row] - self.targets.get_value()[row])
            slopes[row] = slopes.get(row, 0) + slope
        return slopes


def falling(step):
    return 0.1 / (1 + step)


@pytest.mark.parametrize("rate", [0.1, falling], ids=["constant", "schedule"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda optimizer: optimizer.__name__)
def test_all_rows_in_a_batch(optimizer, rate):
    """What the optimizer itself does with the parameters of all rows."""
    optimizer = optimizer(learning_rate=rate)
    squares = Squares(optimizer, n_rows=5, sampling="without_replacement")
    index = squares.table.index
    compiled = squares.compile(index)
    dense, at = shared(squares.start), pt.lvector("index")
    apart = dense[at] - squares.targets[at]
    loss = (WEIGHTS[:, None] * apart**2).sum()
    updates = optimizer([pt.grad(loss, dense)], [dense])
    expected = pytensor.function([at], loss, updates=updates, mode=PYTHON)
    for _ in range(25):  # twice as many as a window has
        got, order = compiled()
        np.testing.assert_allclose(got, expected(order), rtol=1e-10)
    np.testing.assert_allclose(squares.table.parameters(), dense.get_value(), rtol=1e-10)


class Adam:
    """Of one row, in NumPy."""

    def __init__(self, n_params):
        self.m, self.v, self.t = np.zeros(n_params), np.zeros(n_params), 0

    def change(self, slope, rate):
        self.t += 1
        self.m = 0.9 * self.m + 0.1 * slope
        self.v = 0.999 * self.v + 0.001 * slope**2
        rate *= np.sqrt(1 - 0.999**self.t) / (1 - 0.9**self.t)
        return -rate * self.m / (np.sqrt(self.v) + 1e-8)


class AdagradWindow:
    """Of one row, in NumPy."""

    def __init__(self, n_params):
        self.window = []

    def change(self, slope, rate):
        self.window = [*self.window, slope**2][-3:]
        return -rate * slope / np.sqrt(np.sum(self.window, axis=0) + 0.1)


class TestLazy:
    """Rows that are visited now and then, some twice in a batch."""

    @pytest.mark.parametrize("rate", [0.1, falling], ids=["constant", "schedule"])
    @pytest.mark.parametrize(
        ("optimizer", "reference"),
        [
            (lambda rate: pm.adam(learning_rate=rate), Adam),
            (lambda rate: pm.adagrad_window(learning_rate=rate, n_win=3), AdagradWindow),
        ],
        ids=["adam", "adagrad_window"],
    )
    def test_as_an_optimizer_for_each_row(self, optimizer, reference, rate):
        squares = Squares(optimizer(rate))
        compiled = squares.compile(squares.table.index)
        params = squares.start.copy()
        alone = [reference(2) for _ in params]
        n_visits, repeated = np.zeros(7, dtype=int), 0
        for k in range(40):
            _, index = compiled()
            repeated += len(set(index)) < len(index)
            for row, slope in squares.slopes(params, index).items():
                n_visits[row] += 1
                params[row] += alone[row].change(slope, rate if rate == 0.1 else falling(k))
            np.testing.assert_allclose(squares.table.parameters(), params, rtol=1e-9, atol=1e-12)
        assert repeated > 5
        assert 10 < n_visits.min() < n_visits.max() < 40

    def test_a_schedule_counts_steps(self):
        """Of the fit, and not a row's visits: one number for all rows."""
        falls = Squares(pm.sgd(learning_rate=falling))
        assert [(var.name, var.get_value()) for var in falls.counts] == [("step", 0)]
        assert not falls.update.counts
        assert not Squares(pm.sgd(learning_rate=0.1)).counts

    def test_a_function_counts_steps(self):
        """By an integer that depends on no row."""
        assert [var.get_value() for var in Squares(slowing).update.counts] == [0]

    def test_unvisited_rows_stay(self):
        squares = Squares(pm.adam, n_rows=7, batch_size=2)
        before = squares.table.shared.get_value()
        _, index = squares.compile(squares.table.index)()
        changed = (squares.table.shared.get_value() != before).any(axis=1)
        np.testing.assert_array_equal(np.flatnonzero(changed), np.unique(index))


class TestWindow:
    def test_defaults_of_the_release(self):
        parameters = [
            list(inspect.signature(function).parameters.values())[2:]
            for function in (pm.adagrad_window, _adagrad_window)
        ]
        assert [[(p.name, p.default) for p in own] for own in parameters[:1]] == [
            [(p.name, p.default) for p in own] for own in parameters[1:]
        ]

    def test_no_call(self):
        """The function itself is an optimizer too, with its defaults."""
        squares, expected = Squares(pm.adagrad_window), Squares(pm.adagrad_window())
        for made in (squares, expected):
            compiled = made.compile()
            for _ in range(12):
                compiled()
        np.testing.assert_array_equal(squares.table.parameters(), expected.table.parameters())
        assert squares.table.shared.get_value().shape == (7, 24)


def counting(grads, params):
    """A step of length 1 over the visits; a row counts itself, by an integer of its own."""
    updates = {}
    for param, grad in zip(params, grads):
        n = pytensor.shared(np.int64(1))
        updates[n] = n + pt.any(pt.neq(grad, 0)).astype("int64")
        updates[param] = param - pt.sign(grad) / n
    return updates


def slowing(grads, params):
    """Count steps for all rows."""
    n = pytensor.shared(np.int64(0))
    return {n: n + 1} | {p: p - g / (n + 1) for p, g in zip(params, grads)}


def remembering(grads, params):
    """Keep the last three gradients, as a matrix of a row."""
    updates = {}
    for param, grad in zip(params, grads):
        last = pytensor.shared(np.full((param.get_value().size, 3), 0.5))
        updates[last] = pt.concatenate([last[:, 1:], grad[:, None]], axis=1)
        updates[param] = param - last.mean(axis=1)
    return updates


def noisy(grads, params):
    rng = pytensor.shared(np.random.default_rng(1), "noise")
    next_rng, noise = pt.random.normal(rng=rng).owner.outputs
    return {params[0]: params[0] - grads[0] + noise, rng: next_rng}


class TestOwnOptimizers:
    def test_an_integer_of_a_row(self):
        squares = Squares(counting, n_rows=30)
        compiled = squares.compile(squares.table.index)
        visits = np.ones(30)
        for _ in range(4):
            visits[np.unique(compiled()[1])] += 1
        np.testing.assert_array_equal(squares.table.shared.get_value()[:, 2], visits)

    def test_a_matrix_of_a_row(self):
        squares = Squares(remembering, n_rows=30)
        compiled = squares.compile(squares.table.index)
        _, index = compiled()
        slopes = squares.slopes(squares.start, index)
        kept = squares.table.shared.get_value()[:, 2:8].reshape(30, 2, 3)
        for row in range(30):
            expected = np.full((2, 3), 0.5)
            expected[:, 2] = slopes.get(row, 0.5)
            np.testing.assert_allclose(kept[row], expected)
        np.testing.assert_allclose(
            squares.table.parameters(), squares.start - 0.5 * np.isin(range(30), index)[:, None]
        )

    def test_what_is_no_number(self):
        with pytest.raises(
            TypeError, match=r"optimizer noisy keeps noise of type Random.*pm\.adam"
        ):
            Squares(noisy)

    def test_no_update(self):
        with pytest.raises(TypeError, match="optimizer forgetful must return updates"):
            Squares(forgetful)


def forgetful(grads, params):
    return {}


class TestGuard:
    def assert_nothing_changes(self, squares, loss):
        compiled = squares.compile()
        before = squares.table.shared.get_value()
        np.testing.assert_equal(float(compiled()[0]), loss)
        np.testing.assert_array_equal(squares.table.shared.get_value(), before)

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_loss(self, value):
        squares = Squares(pm.adam, n_rows=5, sampling="without_replacement")
        squares.scale.set_value(value)
        self.assert_nothing_changes(squares, value)

    def test_lines(self):
        """The loss is finite, but a gradient squared is not."""
        squares = Squares(pm.adam, n_rows=5, sampling="without_replacement")
        squares.scale.set_value(1e200)
        self.assert_nothing_changes(squares, np.nan)

    def test_more_rows_than_the_table_has(self):
        squares = Squares(pm.adam)
        squares.targets.set_value(np.zeros((20, 2)))
        self.assert_nothing_changes(squares, np.nan)

    @pytest.mark.parametrize("bad", [np.nan, np.inf, 1.0])
    def test_dense(self, bad):
        x, y, n = shared(3.0, "x"), shared(2.0, "y"), pytensor.shared(np.int64(0))
        loss, updates = guarded(x + y, {x: x * bad, y: y + 1, n: n + 1})
        [loss] = pytensor.function([], [loss], updates=updates, mode=PYTHON)()
        good = bad == 1.0
        np.testing.assert_equal(float(loss), 5.0 if good else np.nan)
        assert (x.get_value(), y.get_value(), n.get_value()) == (3.0, 2.0 + good, good)

    def test_dtypes_stay(self):
        x = pytensor.shared(np.float32(3.0))
        loss, updates = guarded(x**2, {x: x / 2})
        assert (loss.type.dtype, updates[x].type) == ("float32", x.type)


@cache
def ran(backend):
    squares = Squares(pm.adam(learning_rate=0.1), n_rows=7)
    step = squares.step({"numba": "NUMBA", "jax": "JAX", "python": PYTHON}[backend])
    place = step.shared.index(squares.table.shared)
    value = squares.table.shared.get_value(borrow=True)
    before = step.load()
    where = address(before[place])
    state, losses = step.driver.run(before, 30)
    same_memory = address(state[place]) == where
    step.store(state)
    return squares, step, losses, value, same_memory


def address(array):
    return array.ctypes.data if isinstance(array, np.ndarray) else array.unsafe_buffer_pointer()


@pytest.mark.filterwarnings(JAX_COPIES)
@pytest.mark.parametrize("backend", ["numba", "jax"])
class TestBackends:
    def test_as_in_python(self, backend):
        squares, step, losses, *_ = ran(backend)
        expected, _, right, *_ = ran("python")
        assert step.driver.name == backend
        np.testing.assert_allclose(losses, right, rtol=1e-10)
        got, want = (made.table.shared.get_value() for made in (squares, expected))
        np.testing.assert_allclose(got, want, rtol=1e-9)

    def test_in_place(self, backend):
        """The table is neither copied by a step nor by a call, and stays where it is."""
        squares, *_, value, same_memory = ran(backend)
        assert same_memory
        assert squares.table.shared.get_value(borrow=True).ctypes.data == value.ctypes.data


def test_in_place_by_the_graph():
    squares, step, *_ = ran("numba")
    function = step.driver._step.function
    fgraph = function.maker.fgraph
    place = step.shared.index(squares.table.shared)
    table, new = fgraph.inputs[place], fgraph.outputs[step.driver._step.updates[place]]
    node = new.owner
    [destroyed] = node.op.destroy_map[node.outputs.index(new)]
    assert node.inputs[destroyed] is table
    # Nothing else makes an array of the table's length
    readers = [client for client, _ in fgraph.clients[table] if client is not node]
    kinds = {type(client.op).__name__ for client in readers}
    assert kinds <= {"AdvancedSubtensor", "Shape_i"}


class TestCompiledOnce:
    def test_for_any_number_of_rows(self):
        model = pm.Model()
        with counted_compilations() as graphs:
            for n_rows, seed in ((7, 1), (30, 2)):
                squares = Squares(pm.adam, n_rows, seed=seed)
                step = squares.step(model=model)
                _, losses = step.driver.run(step.load(), 10)
                assert np.isfinite(losses).all()
        assert len(graphs) == 1

    def test_keeps_no_table(self):
        model = pm.Model()
        squares = Squares(pm.adam)
        step = squares.step(model=model)
        value = weakref.ref(squares.table.shared.get_value(borrow=True))
        assert value() is not None
        del squares, step
        gc.collect()
        assert value() is None

    def test_guarded_is_not_unguarded(self):
        model, x = pm.Model(), shared(1.0)
        updates = {x: x / 2}
        steps = [
            make_step(updates, x, model=model, random_seed=1, mode=PYTHON, guarded=guard)
            for guard in (False, True, True)
        ]
        assert [step.guarded for step in steps] == [False, True, True]
        assert steps[1].driver is steps[2].driver
        assert steps[0].driver is not steps[1].driver

    def test_guarded_by_what(self):
        x = shared(1.0)
        with pytest.raises(ValueError, match=r"guarded step says by its loss.*loss=None"):
            make_step({x: x}, None, model=pm.Model(), random_seed=1, guarded=True)


# For first occurrences
MODES = {"numba": "NUMBA", "jax": "JAX", "c": "CVM"}
BATCHES = [
    [5, 1, 5, 5, 0, 1, 7, 7],
    [3, 2, 1, 0, 4, 5, 6, 7],
    [9] * 8,
    [2**62, 0, 2**31, 2**62, 2**33, 2**31, 0, 1],  # further apart than a hash table is long
]


def by_search(index):
    index = list(index)
    return [index.index(row) for row in index]


@pytest.fixture(scope="module", params=[*BACKENDS, "python"])
def compiled(request):
    index = pt.vector("index", dtype="int64", shape=(8,))
    mode = MODES.get(request.param, PYTHON)
    return pytensor.function([index], first_occurrence(index), mode=mode, trust_input=True)


@pytest.mark.parametrize("batch", BATCHES)
def test_on_backends(compiled, batch):
    found = np.asarray(compiled(np.array(batch, dtype="int64")))
    np.testing.assert_array_equal(found, by_search(batch))


@given(st.lists(st.integers(0, 20), max_size=40))
def test_any_batch(batch):
    cell = [None]
    FirstOccurrence().perform(None, [np.array(batch, dtype="int64")], [cell])
    assert cell[0].dtype == "int64"
    np.testing.assert_array_equal(cell[0], by_search(batch))


def test_sum_of_rows():
    values, index = np.arange(8.0).reshape(4, 2), np.array([6, 2, 6, 6])
    found = sum_of_rows(pt.constant(values), pt.constant(index)).eval(mode=PYTHON)
    all_of_6 = values[[0, 2, 3]].sum(axis=0)
    np.testing.assert_array_equal(found, [all_of_6, values[1], all_of_6, all_of_6])


@pytest.mark.parametrize("index", [pt.vector("w"), pt.matrix("w", dtype="int64")])
def test_refuses_what_is_no_index(index):
    with pytest.raises(TypeError, match="a vector of integers, got w of type"):
        first_occurrence(index)
