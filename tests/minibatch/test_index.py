# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
import copy
import pickle
import subprocess
import sys

import cloudpickle
import jax
import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest

from hypothesis import given, settings
from hypothesis import strategies as st
from pytensor.compile.mode import Mode
from pytensor.graph.replace import vectorize_graph
from pytensor.graph.traversal import ancestors
from scipy.stats import chi2

import pymc as pm

from pymc.minibatch.index import (
    BatchSizeError,
    IndexState,
    MinibatchIndexRV,
    index_state,
    index_state_type,
    minibatch_index,
)
from pymc.minibatch.shuffle import NARROW, SAMPLING, WIDE, pack_state
from pymc.pytensorf import (
    collect_default_updates,
    find_rng_nodes,
    replace_rng_nodes,
    reseed_rngs,
)

# The JAX linker says of every shared generator, and so of this state, that it works on a copy.
pytestmark = pytest.mark.filterwarnings("ignore:The RandomType SharedVariables:UserWarning")

PYTHON = Mode(linker="py", optimizer=None)
BACKENDS = {"numba": "NUMBA", "jax": "JAX", "c": "CVM", "python": PYTHON}
BATCH_SIZE = 7


def draws(sampling, batch_size, n_rows, n_draws, seed=0, position=0):
    """Draw without a graph: an array of shape (n_draws, batch_size)."""
    op = MinibatchIndexRV(batch_size, sampling=sampling)
    key, _ = index_state_type.filter(np.random.default_rng(seed)).reshape(2, 2).astype("uint64")
    key = key[:1] | key[1:] << np.uint64(32)
    state = pack_state(np, key, np.array([position % 2**64], dtype="uint64"))
    pair_hash = NARROW if n_rows <= NARROW.max_rows else WIDE
    out = []
    for _ in range(n_draws):
        state, rows = op.draw(np, state, n_rows, pair_hash)
        out.append(rows)
    return np.array(out, dtype="int64")


class TestSampling:
    @given(data=st.data(), n_rows=st.integers(1, 60), seed=st.integers(0, 2**32))
    @settings(max_examples=100)
    def test_epoch_has_every_row_once_a_pass(self, data, n_rows, seed):
        batch_size = data.draw(st.integers(1, n_rows))
        n_passes = 3
        n_draws = -(-n_passes * n_rows // batch_size)
        rows = draws("epoch", batch_size, n_rows, n_draws, seed).ravel()
        passes = np.sort(rows[: n_passes * n_rows].reshape(n_passes, n_rows), axis=1)
        np.testing.assert_array_equal(passes, np.tile(np.arange(n_rows), (n_passes, 1)))

    def test_epoch_has_a_fresh_order_each_pass(self):
        passes = draws("epoch", 20, 20, 50)
        assert len({tuple(order) for order in passes.tolist()}) == 50  # of 20! orders

    def test_epoch_is_reproducible(self):
        np.testing.assert_array_equal(draws("epoch", 5, 12, 9, 3), draws("epoch", 5, 12, 9, 3))
        assert not np.array_equal(draws("epoch", 5, 12, 9, 3), draws("epoch", 5, 12, 9, 4))

    def test_epoch_does_not_depend_on_the_batch_size(self):
        np.testing.assert_array_equal(
            draws("epoch", 5, 12, 12).ravel(), draws("epoch", 12, 12, 5).ravel()
        )

    def test_epoch_after_other_numbers_of_rows(self):
        """The pass at hand is cut, the rows in it stay distinct, and the next passes are whole."""
        rows = draws("epoch", 4, 10, 10, position=48).ravel()  # 48 drawn of data of another length
        first, whole = rows[:2], rows[2:32].reshape(3, 10)
        assert len(set(first)) == 2
        np.testing.assert_array_equal(np.sort(whole, axis=1), np.tile(np.arange(10), (3, 1)))

    @given(data=st.data(), n_rows=st.integers(1, 2**62), seed=st.integers(0, 2**32))
    def test_without_replacement_has_distinct_rows(self, data, n_rows, seed):
        batch_size = data.draw(st.integers(1, min(n_rows, 50)))
        for rows in draws("without_replacement", batch_size, n_rows, 3, seed):
            assert len(set(rows)) == batch_size
            assert 0 <= rows.min()
            assert rows.max() < n_rows

    def test_with_replacement_repeats_rows(self):
        rows = draws("with_replacement", 10, 10, 20)
        assert any(len(set(batch)) < 10 for batch in rows.tolist())

    @pytest.mark.parametrize("sampling", SAMPLING)
    def test_rows_and_places_are_uniform(self, sampling):
        """Each row equally often at each place of a batch.

        Chi-squared of the rows at one place, at a false-alarm rate of 1e-6 for all seven together.
        """
        rows = draws(sampling, 7, 20, 4000)
        for place in rows.T:
            counts = np.bincount(place, minlength=20)
            assert chi2.sf(((counts - 200) ** 2 / 200).sum(), 19) > 1e-6 / 7

    @pytest.mark.parametrize("sampling", SAMPLING)
    def test_one_row(self, sampling):
        np.testing.assert_array_equal(draws(sampling, 1, 1, 5), np.zeros((5, 1)))

    @pytest.mark.parametrize("sampling", SAMPLING)
    def test_last_position(self, sampling):
        """The count of drawn rows wraps around at 2**64."""
        rows = draws(sampling, 7, 1000, 3, position=-10)
        assert 0 <= rows.min()
        assert rows.max() < 1000


class TestState:
    def test_generator_becomes_a_fresh_state(self):
        generator = np.random.default_rng(1)
        state = index_state_type.filter(generator)
        assert state.dtype == "uint32"
        assert state[:2].any()
        np.testing.assert_array_equal(state[2:], 0)
        # the Generator is not used up
        np.testing.assert_array_equal(state, index_state_type.filter(generator))

    @pytest.mark.parametrize(
        "wrong", [None, 3, np.zeros(4), np.zeros(2, dtype="uint64"), np.zeros(3, dtype="uint32")]
    )
    def test_set_value_refuses_what_is_no_state(self, wrong):
        with pytest.raises(
            (TypeError, ValueError), match=r"state of a minibatch index|value or seed"
        ):
            index_state().set_value(wrong)

    def test_set_value_by_seed(self):
        a, b = index_state(3), index_state(4)
        assert not index_state_type.values_eq(a.get_value(), b.get_value())
        b.set_value(seed=3)
        assert index_state_type.values_eq(a.get_value(), b.get_value())

    def test_get_value_is_a_copy(self):
        state = index_state(3)
        state.get_value()[:] = 0
        assert state.get_value().any()

    def test_read_only_value_is_copied(self):
        value = np.zeros(4, dtype="uint32")
        value.flags.writeable = False
        assert index_state_type.filter(value).flags.writeable

    @pytest.mark.parametrize(
        "duplicate",
        [
            copy.copy,
            copy.deepcopy,
            lambda x: pickle.loads(pickle.dumps(x)),
            lambda x: cloudpickle.loads(cloudpickle.dumps(x)),
        ],
        ids=["copy", "deepcopy", "pickle", "cloudpickle"],
    )
    def test_duplicates(self, duplicate):
        state = index_state(3, name="state")
        other = duplicate(state)
        assert isinstance(other, IndexState)
        assert other.type == state.type
        np.testing.assert_array_equal(other.get_value(), state.get_value())

    def test_pymc_finds_and_reseeds_it(self):
        index = minibatch_index(10, 5)
        state = index.owner.inputs[0]
        assert find_rng_nodes([index]) == [state]
        assert collect_default_updates([index]) == {state: index.owner.outputs[0]}
        reseed_rngs([state], 1)
        first = state.get_value()
        state.set_value(np.array([*first[:2], 9, 0], dtype="uint32"))
        reseed_rngs([state], 1)
        np.testing.assert_array_equal(state.get_value(), first)

    def test_pymc_replaces_it(self):
        index = minibatch_index(10, 5)
        old_state = index.owner.inputs[0]
        [other] = replace_rng_nodes([index + 0])
        [state] = find_rng_nodes([other])
        assert isinstance(state, IndexState)
        assert not index_state_type.values_eq(state.get_value(), old_state.get_value())


class TestGraph:
    def test_node(self):
        rows = pt.lscalar("rows")
        index = minibatch_index(rows, 5, dim="obs")
        assert index.type.shape == (5,)
        assert index.type.dtype == "int64"
        assert index.name == "minibatch_obs"
        assert index.owner.inputs[2] is rows
        assert isinstance(index.owner.inputs[0], IndexState)
        assert index.owner.outputs[0].type == index_state_type
        assert str(index.owner.op) == "MinibatchIndex{obs: 5, epoch}"

    def test_default_sampling_is_by_epoch(self):
        assert minibatch_index(9, 3).owner.op == MinibatchIndexRV(3)

    def test_ops_differ_by_props(self):
        ops = [MinibatchIndexRV(b, d, s) for s in SAMPLING for b in (2, 3) for d in (None, "obs")]
        assert len(set(ops)) == len(ops) == 12

    def test_no_rewrite_splits_a_draw(self):
        index = minibatch_index(100, 6)
        f = pm.compile([], [index, index[:2], index[None], index[::-1]], mode="CVM")
        assert sum(isinstance(n.op, MinibatchIndexRV) for n in f.maker.fgraph.apply_nodes) == 1
        rows, head, row_vector, backwards = f()
        np.testing.assert_array_equal(head, rows[:2])
        np.testing.assert_array_equal(row_vector, rows[None])
        np.testing.assert_array_equal(backwards, rows[::-1])

    def test_clones_merge(self):
        index = minibatch_index(100, 6)
        clone = index.owner.clone().outputs[1]
        f = pytensor.function([], index - clone, mode="CVM")
        np.testing.assert_array_equal(f(), np.zeros(6))

    def test_draw_is_not_vectorized(self):
        x = pt.dvector()
        index = minibatch_index(100, 6)
        out = vectorize_graph(index + x[0], {x: pt.dmatrix()})
        indexes = {
            v.owner
            for v in ancestors([out])
            if v.owner and isinstance(v.owner.op, MinibatchIndexRV)
        }
        assert indexes == {index.owner}

    def test_shape_needs_no_draw(self):
        n_rows = pt.lscalar()
        shape = minibatch_index(n_rows, 6).shape
        f = pytensor.function([n_rows], shape, mode="CVM", on_unused_input="ignore")
        assert not any(isinstance(n.op, MinibatchIndexRV) for n in f.maker.fgraph.apply_nodes)
        assert f(100) == [6]

    def test_prints(self):
        index = minibatch_index(100, 6, "without_replacement", dim="obs")
        text = pytensor.dprint(index, file="str")
        assert "MinibatchIndex{obs: 6, without_replacement}" in text
        assert "IndexState" in text

    def test_pickle(self):
        index = minibatch_index(100, 6)
        other = pickle.loads(pickle.dumps(index))
        assert other.owner.op == index.owner.op
        expected, actual = (pytensor.function([], i, mode=PYTHON)() for i in (index, other))
        np.testing.assert_array_equal(actual, expected)


class TestErrors:
    @pytest.mark.parametrize("wrong", [0, -3])
    def test_batch_size_below_one(self, wrong):
        with pytest.raises(ValueError, match=f"batch_size={wrong} of .* must be at least 1"):
            minibatch_index(10, wrong)

    @pytest.mark.parametrize("wrong", [2.0, True, "2", None])
    def test_batch_size_that_is_no_integer(self, wrong):
        with pytest.raises(TypeError, match=f"batch_size={wrong!r} of .* must be a whole number"):
            minibatch_index(10, wrong)

    def test_numpy_batch_size(self):
        op = minibatch_index(10, np.int32(3)).owner.op
        assert type(op.batch_size) is int

    def test_unknown_sampling(self):
        with pytest.raises(ValueError, match=r"'bootstrap' of .* must be one of 'epoch'"):
            minibatch_index(10, 3, "bootstrap")

    @pytest.mark.parametrize("sampling", SAMPLING)
    @pytest.mark.parametrize("n_rows", [0, 4])
    def test_constant_number_of_rows(self, sampling, n_rows):
        with pytest.raises(
            BatchSizeError, match=f"batch_size is 5, but the data have {n_rows} rows"
        ):
            minibatch_index(n_rows, 5, sampling)

    @pytest.mark.parametrize("rows", [pt.dscalar(), pt.lvector()])
    def test_rows_that_are_no_integer_scalar(self, rows):
        with pytest.raises(TypeError, match="number of rows must be an integer scalar"):
            minibatch_index(rows, 5)

    def test_generator_as_state(self):
        with pytest.raises(TypeError, match="must be an IndexState"):
            MinibatchIndexRV(5)(10, rng=pt.random.shared_rng(seed=1), return_next_rng=True)

    def test_size(self):
        with pytest.raises(ValueError, match="takes no size"):
            MinibatchIndexRV(5)(10, rng=index_state(), size=(3,), return_next_rng=True)

    def test_error_survives_pickling(self):
        error = pickle.loads(pickle.dumps(BatchSizeError(5, 4)))
        assert str(error) == str(BatchSizeError(5, 4))


@pytest.fixture(scope="module", params=BACKENDS)
def backend(request):
    return request.param


@pytest.fixture(scope="module")
def compiled(backend):
    """Indexes of all samplings of as many rows as an input says, and the states of them."""
    n_rows = pt.lscalar("n_rows")
    indexes = [minibatch_index(n_rows, BATCH_SIZE, sampling) for sampling in SAMPLING]
    mode = BACKENDS[backend]
    f, updates = pm.compile([n_rows], indexes, mode=mode, random_seed=42, return_updates=True)
    return f, list(updates)


@pytest.fixture(scope="module")
def states_and_draws():
    """What all backends have to draw: (n_rows, seed) and the draws of the Python backend."""
    n_rows = pt.lscalar("n_rows")
    indexes = [minibatch_index(n_rows, BATCH_SIZE, sampling) for sampling in SAMPLING]
    f = pm.compile([n_rows], indexes, mode=PYTHON, random_seed=42)
    numbers = [1000, BATCH_SIZE, 8, 9, 31, 31, 31, 2**31 - 1, 2**31, 2**31 + 1, 2**40, 2**62, 1000]
    return [(n, f(n)) for n in numbers for _ in range(3)]


class TestBackends:
    def test_same_draws(self, compiled, states_and_draws, backend):
        f, states = compiled
        if backend != "jax":  # which works on a copy, still at its start
            reseed_rngs(states, 42)
        for n_rows, expected in states_and_draws:
            for actual, of_python in zip(f(n_rows), expected):
                np.testing.assert_array_equal(np.asarray(actual), of_python, strict=True)

    @pytest.mark.parametrize("n_rows", [0, BATCH_SIZE - 1])
    def test_batch_larger_than_traced_rows(self, compiled, backend, n_rows):
        f, states = compiled
        before = [state.get_value() for state in states]
        # an error of a callback is a ValueError or a RuntimeError, by the version of JAX
        error = (ValueError, RuntimeError) if backend == "jax" else BatchSizeError
        with pytest.raises(error, match=f"batch_size is 7, but the data have {n_rows} rows"):
            f(n_rows)
        for state, value in zip(states, before):
            np.testing.assert_array_equal(state.get_value(), value)

    def test_batch_larger_than_data(self, backend):
        data = pytensor.shared(np.arange(20.0))
        index = minibatch_index(data.shape[0], BATCH_SIZE)
        f = pm.compile([], [data[index], index], mode=BACKENDS[backend], random_seed=1)
        values, rows = f()
        np.testing.assert_array_equal(values, rows)
        data.set_value(np.arange(6.0))
        with pytest.raises(BatchSizeError, match="batch_size is 7, but the data have 6 rows"):
            f()
        data.set_value(np.arange(30.0))
        values, rows = f()
        np.testing.assert_array_equal(values, rows)

    def test_without_updates_the_state_stays(self, backend):
        index = minibatch_index(31, BATCH_SIZE)
        f = pytensor.function([], index, mode=BACKENDS[backend])
        np.testing.assert_array_equal(f(), f())

    def test_compile_restarts_the_epoch(self, backend):
        index = minibatch_index(31, BATCH_SIZE)
        runs = []
        for _ in range(2):
            f = pm.compile([], index, mode=BACKENDS[backend], random_seed=7)
            runs.append([np.asarray(f()) for _ in range(3)])
        np.testing.assert_array_equal(runs[0], runs[1])


def test_copy_of_a_function_has_a_state_of_its_own():
    index = minibatch_index(31, BATCH_SIZE)
    f = pm.compile([], index, mode=PYTHON, random_seed=7)
    other = copy.deepcopy(f)
    np.testing.assert_array_equal(f(), other())


@pytest.mark.parametrize("traced", [False, True])
def test_jax_without_x64(traced):
    """As under floatX = "float32": the same rows, as int32."""
    n_rows = pt.lscalar("n_rows")
    inputs, arguments = ([n_rows], [31]) if traced else ([], [])
    index = minibatch_index(n_rows if traced else 31, BATCH_SIZE)
    expected = pm.compile(inputs, index, mode=PYTHON, random_seed=7)
    f = pm.compile(inputs, index, mode="JAX", random_seed=7)
    with jax.enable_x64(False):
        for _ in range(10):
            rows = f(*arguments)
            assert rows.dtype == "int32"
            np.testing.assert_array_equal(np.asarray(rows), expected(*arguments))
        if traced:
            with pytest.raises((ValueError, RuntimeError), match="batch_size is 7, but the data"):
                f(6)


def test_backends_are_loaded_when_compiled_for():
    code = (
        "import sys, pymc\n"
        "backends = 'pymc.minibatch.dispatch.', 'pymc.variational.local_params.numba_dispatch'\n"
        "loaded = [m for m in sys.modules if m == 'jax' or m.startswith(backends)]\n"
        "assert not loaded, loaded"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
