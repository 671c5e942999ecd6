# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Products of gathered rows: they are in the graph where they should be, with the values of NumPy."""

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest

from pytensor.compile.mode import Mode, get_mode
from pytensor.graph.rewriting.db import RewriteDatabaseQuery
from pytensor.link.numba.dispatch.basic import numba_funcify_and_cache_key
from pytensor.tensor.math import Dot

import pymc as pm

from pymc.variational.engine.kernels import numba_gather_dot
from pymc.variational.engine.kernels.gather_dot import GatherDot, GatherTDot
from pymc.variational.engine.kernels.numba_gather_dot import BLOCK
from pymc.variational.engine.rewrites import TAG, TAG_NUMBA
from tests.variational.engine import five_steps

STEP = get_mode("NUMBA").including(TAG, TAG_NUMBA)
# The rewrite, and no compilation
PYTHON = Mode(
    linker="py", optimizer=RewriteDatabaseQuery(include=["fast_run", TAG_NUMBA], exclude=["fusion"])
)
BATCHES = [0, 1, 3, 7, 64, 2 * BLOCK, 2 * BLOCK + 5]
ROWS, COLUMNS = 300, 9

# Of the sum of magnitudes: a few roundings of sums in another order
TOLERANCE = {"float64": 1e-14, "float32": 3e-7}


def count(function, *ops):
    """How often each Op is in a compiled function."""
    kinds = [type(node.op) for node in function.maker.fgraph.apply_nodes]
    return tuple(map(kinds.count, ops))


def variables(dtype="float64"):
    X, index = pt.tensor("X", dtype=dtype, shape=(None, COLUMNS)), pt.lvector("index")
    return X, index, pt.tensor("w", dtype=dtype, shape=(None,))


def forms(X, index, w):
    """All ways to write the two products."""
    rows = X[index]
    r = pt.arange(index.shape[0]).astype(X.dtype) - 3
    return [
        rows @ w,
        pt.dot(w, rows.T),
        pt.dot(rows, w[:, None]),
        pt.dot(w[None], rows.T),
        pt.dot(rows.T, r),
        pt.dot(r, rows),
        pt.dot(rows.T, r[:, None]),
        pt.dot(r[None], rows),
    ]


@pytest.fixture(scope="module", params=["float64", "float32"])
def compiled(request):
    dtype = request.param
    inputs = variables(dtype)
    function = pytensor.function(inputs, forms(*inputs), mode=STEP)
    n_dot, n_t_dot, n_other = count(function, GatherDot, GatherTDot, Dot)
    assert n_dot and n_t_dot and not n_other
    return dtype, function


def values(dtype, n_rows, order="C"):
    rng = np.random.default_rng(n_rows)
    X = np.asarray(rng.normal(size=(ROWS, COLUMNS)), dtype=dtype, order=order)
    return X, rng.integers(-ROWS, ROWS, size=n_rows), rng.normal(size=COLUMNS).astype(dtype)


def check_values(found, X, index, w):
    rows, w, r = X[index].astype("float64"), w.astype("float64"), np.arange(len(index)) - 3.0
    products = [rows @ w] * 4 + [r @ rows] * 4
    magnitudes = [abs(rows) @ abs(w)] * 4 + [abs(r) @ abs(rows)] * 4
    for got, product, magnitude in zip(found, products, magnitudes, strict=True):
        assert got.dtype == X.dtype and got.size == product.size
        error = abs(got.ravel() - product)
        assert np.all(error <= TOLERANCE[X.dtype.name] * magnitude)


@pytest.mark.parametrize("n_rows", BATCHES)
def test_values(n_rows, compiled):
    """Of positive and negative indexes, in batches that are no multiple of four."""
    dtype, function = compiled
    check_values(function(*values(dtype, n_rows)), *values(dtype, n_rows))


def test_many_rows_of_float32(compiled):
    """A sum of a million float32 numbers would be off by 3e-4."""
    dtype, function = compiled
    n_rows = 10**6
    X = np.ones((ROWS, COLUMNS), dtype)
    found = function(X, np.arange(n_rows) % ROWS, np.ones(COLUMNS, dtype))
    r = np.arange(n_rows, dtype=dtype).astype("float64") - 3
    for product in found[4:]:
        np.testing.assert_allclose(product.ravel(), r.sum(), rtol=1e-6)


def test_rows_that_are_no_block_of_memory():
    """Data in the order of Fortran, and a part of the columns of other data."""
    inputs = variables()
    function = pytensor.function(inputs, forms(*inputs), mode=STEP)
    X, index, w = values("float64", 7, order="F")
    check_values(function(X, index, w), X, index, w)
    wide = np.random.default_rng(1).normal(size=(ROWS, 2 * COLUMNS))
    check_values(function(wide[:, ::2], index, w), wide[:, ::2], index, w)


@pytest.mark.parametrize("outside", [ROWS, -ROWS - 1, 2**62])
def test_an_index_out_of_bounds(outside, compiled):
    """NumPy's error; PyTensor reads other memory on Numba."""
    dtype, function = compiled
    X, _, w = values(dtype, 1)
    with pytest.raises(IndexError, match="out of bounds"):
        function(X, np.array([0, outside, 1]), w)


def test_a_vector_of_another_length(compiled):
    dtype, function = compiled
    X, index, w = values(dtype, 3)
    with pytest.raises(ValueError, match="another length"):
        function(X, index, w[:-1])


@pytest.mark.parametrize(
    "product",
    [
        lambda rows, w: rows.T @ rows,
        lambda rows, w: rows @ pt.outer(w, w),
        lambda rows, w: rows @ w.astype("float32"),
        lambda rows, w: rows.sum() * (rows @ w),
        lambda rows, w: rows.T @ rows.sum(1),
        lambda rows, w: pt.concatenate([(rows @ w).ravel(), rows.ravel()]),
    ],
    ids=["of rows", "matrix", "dtypes", "also summed", "columns summed", "also an output"],
)
def test_other_graphs_stay(product):
    X, index, w = variables()
    outputs = product(X[index], w)
    function = pytensor.function([X, index, w], outputs, mode=PYTHON, on_unused_input="ignore")
    assert count(function, GatherDot, GatherTDot) == (0, 0)


@pytest.mark.parametrize(
    "rows",
    [
        lambda X, k: X[k[:, None]][:, 0],
        lambda X, k: X[k, :],
        lambda X, k: X[:, k],
        lambda X, k: X[pt.gt(k, 0)],
        lambda X, k: X.astype("int64")[k],
    ],
    ids=["matrix of rows", "all columns", "columns", "mask", "integers"],
)
def test_other_gathers_have_the_same_values(rows):
    X, k = pt.matrix("X"), pt.lvector("k")
    gathered = rows(X, k)
    output = gathered @ pt.arange(gathered.shape[1]).astype(X.dtype)
    value, index = np.arange(16.0).reshape(4, 4), np.array([1, 0, 2, 3])
    found = pytensor.function([X, k], output, mode=PYTHON)(value, index)
    expected = pytensor.function([X, k], output, mode="FAST_COMPILE")(value, index)
    np.testing.assert_allclose(found, expected)


def step_of_regression(mode):
    rng = np.random.default_rng(1)
    X, y = rng.normal(size=(40, 3)), rng.normal(size=40)
    floatX = pytensor.config.floatX
    with pm.Model() as model:
        rows, observed = pm.Minibatch(X.astype(floatX), y.astype(floatX), batch_size=7)
        pm.Normal("y", rows @ pm.Normal("w", shape=3), 1, observed=observed)
    return five_steps(model, mode)


def test_a_step_of_a_regression():
    """Both products are in the compiled loop, and nowhere on another backend."""
    python, _, expected = step_of_regression(Mode(linker="py"))
    function, driver, losses = step_of_regression("NUMBA")
    assert count(function, GatherDot, GatherTDot, Dot) == (1, 1, 0)
    assert count(python, GatherDot, GatherTDot) == (0, 0)
    assert driver == "numba"
    np.testing.assert_allclose(losses, expected, rtol=1e-12)


@pytest.mark.parametrize("op", [GatherDot, GatherTDot])
def test_the_cache_knows_the_code(op, monkeypatch):
    _, now = numba_funcify_and_cache_key(op())
    monkeypatch.setattr(numba_gather_dot, "CACHE_VERSION", 1)
    _, then = numba_funcify_and_cache_key(op())
    assert now is not None and now != then
