# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Exponentials and logarithms of many numbers: in the graph where they should be, vectorised, and right to the last place."""

import re

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest

from pytensor.compile.mode import Mode, get_mode
from pytensor.link.numba.dispatch.basic import numba_funcify_and_cache_key, numba_njit
from pytensor.tensor.elemwise import CAReduce

import pymc as pm

from pymc.variational.engine import rewrites
from pymc.variational.engine.kernels import numba_vector_math, vector_math
from pymc.variational.engine.kernels.numba_vector_math import FUNCTIONS
from pymc.variational.engine.kernels.vector_math import FEWEST, VectorMath, has_wide_vectors
from pymc.variational.engine.rewrites import TAG, TAG_NUMBA
from tests.variational.engine import five_steps

# All rewrites and no compilation: Numba's, with the linker that runs a graph in Python
NUMBA = get_mode("NUMBA").including(TAG, TAG_NUMBA)
PYTHON = Mode(linker="py", optimizer=NUMBA.provided_optimizer)

SYMBOLIC = {
    "exp": pt.exp,
    "log": pt.log,
    "log1p": pt.log1p,
    "sigmoid": pt.sigmoid,
    "softplus": pt.softplus,
}

# In the long doubles of NumPy, which have 11 bits more where there are any
EXACT = {
    "exp": np.exp,
    "log": np.log,
    "log1p": np.log1p,
    "sigmoid": lambda x: np.where(x < 0, np.exp(x), 1) / (1 + np.exp(-abs(x))),
    "softplus": lambda x: np.maximum(x, 0) + np.log1p(np.exp(-abs(x))),
}

# Of the last place of float64. The softplus adds two functions; float32 is rounded from float64
ERRORS = {"exp": 1.0, "log": 1.0, "log1p": 1.0, "sigmoid": 2.5, "softplus": 2.5}

SPECIAL = [
    0,
    np.inf,
    -np.inf,
    np.nan,
    -1,
    -2,
    1,
    5e-324,
    2.2250738585072014e-308,
    1.7976931348623157e308,
]
SPECIAL += [709.78, 709.79, 800, -708.4, -745.13, -745.14, -800, -1e300, 88.72, 88.73, -103.97]


@pytest.fixture(autouse=True)
def wide_vectors(monkeypatch):
    monkeypatch.setattr(vector_math, "has_wide_vectors", lambda: True)


def vector_maths(function):
    return [node for node in function.maker.fgraph.apply_nodes if isinstance(node.op, VectorMath)]


def arguments(name):
    rng = np.random.default_rng(1)
    near_zero = rng.choice([-1, 1], size=20_000) * 10.0 ** rng.uniform(-20, -0.001, size=20_000)
    all_magnitudes = 10.0 ** rng.uniform(-323, 308, size=20_000)
    if name == "log":
        return np.concatenate([all_magnitudes, 1 + near_zero, SPECIAL])
    if name == "log1p":
        return np.concatenate([all_magnitudes, near_zero, SPECIAL])
    return np.concatenate([rng.uniform(-760, 720, size=20_000), 10 * near_zero, SPECIAL])


def loop(name):
    function = FUNCTIONS[name]

    @numba_njit(final_function=True, boundscheck=False)
    def all_values(x, out):
        for i in range(x.shape[0]):
            out[i] = function(x[i])

    return all_values


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("name", FUNCTIONS)
def test_values(name):
    """From the smallest subnormal number to the largest one, and what is none."""
    function = loop(name)
    for dtype, error in (("float64", ERRORS[name]), ("float32", 0.501)):
        x = arguments(name).astype(dtype)
        found = np.empty_like(x)
        function(x, found)
        right = EXACT[name](x.astype("longdouble"))
        rounded = right.astype(dtype)
        finite = np.isfinite(rounded)
        np.testing.assert_array_equal(found[~finite], rounded[~finite])
        last_place = np.spacing(abs(rounded[finite])).astype("longdouble")
        assert np.max(abs(found[finite] - right[finite]) / last_place) <= error


@pytest.mark.skipif(not has_wide_vectors(), reason="the processor has no AVX2")
@pytest.mark.parametrize("name", FUNCTIONS)
def test_llvm_vectorises_it(name):
    function = loop(name)
    function(np.ones(8), np.ones(8))
    [code] = function.inspect_llvm().values()
    assert re.search(r"fmul[a-z ]* <\d+ x double>", code)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_in_a_graph(dtype):
    """Of a vector, of the transpose of a matrix, and of a row that is broadcast."""
    x, X = pt.tensor("x", dtype=dtype, shape=(None,)), pt.tensor("X", dtype=dtype, shape=(None, 3))
    outputs = [f(y) for f in SYMBOLIC.values() for y in (x, X.T, x[None] + X[:, :1])]
    function = pytensor.function([x, X], outputs, mode=NUMBA)
    assert len(vector_maths(function)) == len(outputs)
    rng = np.random.default_rng(1)
    x_, X_ = rng.gamma(1, size=70).astype(dtype), rng.gamma(1, size=(70, 3)).astype(dtype)
    right = [f(y) for f in EXACT.values() for y in (x_, X_.T, x_[None] + X_[:, :1])]
    for found, expected in zip(function(x_, X_), right, strict=True):
        assert found.dtype == dtype
        np.testing.assert_allclose(found, expected, rtol=1e-14 if dtype == "float64" else 1e-6)


@pytest.mark.parametrize(
    "other",
    [
        lambda x: pt.exp(x[0]),
        lambda x: pt.exp(x[: FEWEST - 1]),
        lambda x: pt.tanh(x),
        lambda x: pt.log(x.astype("int64")),
        lambda x: pt.exp(x[:1][None]),
        lambda x: pt.exp(x.reshape((50, 2))),
    ],
    ids=["scalar", "few", "another function", "integers", "one number", "short rows"],
)
def test_other_graphs_stay(other):
    x = pt.tensor("x", shape=(100,))
    assert vector_maths(pytensor.function([x], other(x), mode=PYTHON)) == []


def test_other_processors(monkeypatch):
    monkeypatch.setattr(vector_math, "has_wide_vectors", lambda: False)
    x = pt.tensor("x", shape=(100,))
    assert vector_maths(pytensor.function([x], pt.exp(x), mode=PYTHON)) == []


def test_sums_are_fused():
    """Sums over rows of what something else reads too, as in a gradient."""
    X = pt.tensor("X", shape=(None, 100))
    values = pt.exp(X)
    function = pytensor.function([X], [values.sum(0), pt.log1p(X).sum(), values], mode=PYTHON)
    nodes = function.maker.fgraph.apply_nodes
    assert len(vector_maths(function)) == 2
    assert not any(isinstance(node.op, CAReduce) for node in nodes)


def test_on_python_too():
    x = pt.tensor("x", shape=(100,))
    function = pytensor.function([x], [f(x) for f in SYMBOLIC.values()], mode=PYTHON)
    assert len(vector_maths(function)) == len(SYMBOLIC)
    value = np.linspace(0.1, 5, 100)
    for found, right in zip(function(value), EXACT.values(), strict=True):
        np.testing.assert_allclose(found, right(value))


def step_of_logistic_regression(mode):
    rng = np.random.default_rng(1)
    X, y = rng.normal(size=(200, 3)), rng.integers(2, size=200)
    with pm.Model() as model:
        rows, observed = pm.Minibatch(X.astype(pytensor.config.floatX), y, batch_size=70)
        pm.Bernoulli("y", logit_p=rows @ pm.Normal("w", shape=3), observed=observed)
    return five_steps(model, mode)


def test_a_step_of_a_logistic_regression(monkeypatch):
    function, driver, losses = step_of_logistic_regression("NUMBA")
    monkeypatch.setattr(rewrites, "tags", lambda mode: [])
    plain, _, expected = step_of_logistic_regression(Mode(linker="py"))
    assert {node.op.name for node in vector_maths(function)} == {"sigmoid", "softplus"}
    assert vector_maths(plain) == []
    assert driver == "numba"
    np.testing.assert_allclose(losses, expected, rtol=1e-12)


def test_the_cache_knows_the_code(monkeypatch):
    keys = {numba_funcify_and_cache_key(VectorMath(name))[1] for name in FUNCTIONS}
    assert len(keys) == len(FUNCTIONS) and None not in keys
    monkeypatch.setattr(numba_vector_math, "CACHE_VERSION", 1)
    assert keys.isdisjoint(numba_funcify_and_cache_key(VectorMath(n))[1] for n in FUNCTIONS)
