# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Sums over four rows at a time: they are in the graph where they should be, with the values of NumPy."""

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest

from pytensor.compile.mode import Mode, get_mode
from pytensor.link.numba.dispatch.basic import numba_funcify_and_cache_key

import pymc as pm

from pymc.variational.engine import rewrites
from pymc.variational.engine.kernels import numba_row_sums
from pymc.variational.engine.kernels.row_sums import MIN_COLUMNS, RowSums
from pymc.variational.engine.rewrites import TAG, TAG_NUMBA
from tests.variational.engine import five_steps

BATCHES = [0, 1, 3, 7, 64]
ROWS, COLUMNS = 300, 9

# Of the sum of magnitudes: a few roundings of sums in another order
TOLERANCE = {"float64": 1e-14, "float32": 3e-7}

# All rewrites and no compilation: Numba's, with the linker that runs a graph in Python
NUMBA = get_mode("NUMBA").including(TAG, TAG_NUMBA)
PYTHON = Mode(linker="py", optimizer=NUMBA.provided_optimizer)


def row_sums(function):
    return [node for node in function.maker.fgraph.apply_nodes if isinstance(node.op, RowSums)]


def variables(dtype="float64"):
    X, mu = (pt.tensor(shape=(None, COLUMNS), dtype=dtype), pt.tensor(shape=(None,), dtype=dtype))
    return X, pt.lvector(), mu, pt.tensor(shape=(None,), dtype=dtype), pt.scalar(dtype=dtype)


def outputs(X, index, mu, y, c):
    """Sums of one loop over a batch, and of one over all rows."""
    apart = X[index] - mu
    return [
        apart.sum(0),
        pt.sqr(apart).sum(0),
        (X[index] * y[index][:, None] * c).sum(0),
        pt.exp(-pt.sqr(X * c)).sum(0),
    ]


@pytest.fixture(scope="module", params=["float64", "float32"])
def compiled(request):
    inputs = variables(request.param)
    function = pytensor.function(inputs, outputs(*inputs), mode=NUMBA)
    assert sorted(len(node.outputs) for node in row_sums(function)) == [1, 3]
    return request.param, function


def values(dtype, n_rows):
    rng = np.random.default_rng(n_rows)
    X, y = rng.normal(size=(ROWS, COLUMNS)), rng.normal(size=ROWS)
    mu, index = rng.normal(size=COLUMNS), rng.integers(-ROWS, ROWS, size=n_rows)
    X, mu, y = (each.astype(dtype) for each in (X, mu, y))
    return X, index, mu, y, np.asarray(0.75, dtype)


def check_values(found, X, index, mu, y, c):
    dtype = X.dtype.name
    X, mu, y = (each.astype("float64") for each in (X, mu, y))
    terms = [X[index] - mu, (X[index] - mu) ** 2, X[index] * y[index][:, None] * c]
    terms.append(np.exp(-((X * c) ** 2)))
    for got, each in zip(found, terms, strict=True):
        assert got.dtype == dtype and got.shape == (COLUMNS,)
        assert np.all(abs(got - each.sum(0)) <= TOLERANCE[dtype] * (abs(each).sum(0)))


@pytest.mark.parametrize("n_rows", BATCHES)
def test_values(n_rows, compiled):
    """Of positive and negative indexes, in batches that are no multiple of four."""
    dtype, function = compiled
    check_values(function(*values(dtype, n_rows)), *values(dtype, n_rows))


def test_data_in_the_order_of_fortran():
    inputs = variables()
    function = pytensor.function(inputs, outputs(*inputs), mode=NUMBA)
    X, *others = values("float64", 7)
    check_values(function(np.asfortranarray(X), *others), X, *others)
    wide = np.repeat(X, 2, axis=1)
    check_values(function(wide[:, ::2], *others), X, *others)


@pytest.mark.parametrize("outside", [ROWS, -ROWS - 1, 2**62])
def test_an_index_out_of_bounds(outside, compiled):
    """NumPy's error; PyTensor reads other memory on Numba."""
    dtype, function = compiled
    X, _, *others = values(dtype, 1)
    with pytest.raises(IndexError, match="out of bounds"):
        function(X, np.array([0, outside, 1]), *others)


def test_operands_of_other_lengths(compiled):
    dtype, function = compiled
    X, index, mu, *others = values(dtype, 3)
    with pytest.raises(ValueError, match="shapes of the operands differ"):
        function(X, index, mu[:-1], *others)


OTHERS = {
    "by column": lambda X, i, v: pt.sqr(X[i] - 1).sum(1),
    "all": lambda X, i, v: pt.sqr(X[i] - 1).sum(),
    "largest": lambda X, i, v: pt.sqr(X[i] - 1).max(0),
    "product": lambda X, i, v: pt.sqr(X[i] - 1).prod(0),
    "vector": lambda X, i, v: pt.sqr(v[i] - 1).sum(0),
    "kept too": lambda X, i, v: pt.concatenate([pt.exp(X[i]).sum(0)[None], pt.exp(X[i])]),
    "written": lambda X, i, v: pt.zeros_like(X)[i].inc(pt.sqr(X[i])),
    "columns gathered": lambda X, i, v: pt.sqr(X[:, i] - 1).sum(0),
    "twice": lambda X, i, v: pt.sqr(X[i, i] - v[:2]).sum(0),
    "integers": lambda X, i, v: pt.sqr(X.astype("int64")[i] - 1).sum(0),
    "one row": lambda X, i, v: (X[i[0][None]] + X[:2]).sum(0),
    "matrix of rows": lambda X, i, v: pt.sqr(X[i[:, None]] - 1).sum(0).ravel(),
}


@pytest.mark.parametrize("other", OTHERS)
def test_other_loops_stay(other):
    X, i, v = pt.matrix("X"), pt.lvector("i"), pt.vector("v")
    graph = OTHERS[other](X, i, v)
    function = pytensor.function([X, i, v], graph, mode=PYTHON, on_unused_input="ignore")
    assert row_sums(function) == []
    X_, i_, v_ = np.arange(1.0, 17).reshape(4, 4), np.array([1, 2]), np.arange(4.0)
    plain = pytensor.function([X, i, v], graph, mode="FAST_COMPILE", on_unused_input="ignore")
    np.testing.assert_allclose(function(X_, i_, v_), plain(X_, i_, v_))


@pytest.mark.parametrize("n_columns", [MIN_COLUMNS - 1, MIN_COLUMNS])
def test_narrow_rows_stay(n_columns):
    X, i = pt.tensor("X", shape=(None, n_columns)), pt.lvector("i")
    function = pytensor.function([X, i], pt.sqr(X[i]).sum(0), mode=PYTHON)
    assert len(row_sums(function)) == (n_columns == MIN_COLUMNS)


def test_on_python_too():
    inputs = variables()
    function = pytensor.function(inputs, outputs(*inputs), mode=PYTHON)
    assert row_sums(function)
    check_values(function(*values("float64", 7)), *values("float64", 7))


def step_of_normals(mode):
    data = np.random.default_rng(1).normal(size=(40, COLUMNS)).astype(pytensor.config.floatX)
    with pm.Model() as model:
        mu, sigma = pm.Normal("mu", shape=COLUMNS), pm.HalfNormal("sigma", shape=COLUMNS)
        pm.Normal("y", mu, sigma, observed=pm.Minibatch(data, batch_size=7))
    return five_steps(model, mode)


def test_a_step_of_normals(monkeypatch):
    """One loop over the rows in the compiled step, with the sums of y - mu and of its square."""
    function, driver, losses = step_of_normals("NUMBA")
    monkeypatch.setattr(rewrites, "tags", lambda mode: [])
    _, _, expected = step_of_normals(Mode(linker="py"))
    [node] = row_sums(function)
    assert len(node.outputs) == 2
    assert driver == "numba"
    np.testing.assert_allclose(losses, expected, rtol=1e-12)


def test_the_cache_knows_the_code(monkeypatch):
    inputs = variables()
    function = pytensor.function(inputs, outputs(*inputs), mode=PYTHON)
    nodes = row_sums(function)
    keys = {numba_funcify_and_cache_key(node.op, node=node)[1] for node in nodes}
    assert len(keys) == len(nodes) and None not in keys
    monkeypatch.setattr(numba_row_sums, "CACHE_VERSION", 1)
    assert keys.isdisjoint(numba_funcify_and_cache_key(n.op, node=n)[1] for n in nodes)
