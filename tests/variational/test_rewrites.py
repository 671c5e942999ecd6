# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Rewrites of a step: the same values from less work."""

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest

from pytensor.compile.mode import Mode
from pytensor.graph.rewriting.db import RewriteDatabaseQuery
from pytensor.graph.traversal import ancestors
from pytensor.scalar.basic import Pow, Tanh
from pytensor.tensor.elemwise import Elemwise
from pytensor.tensor.math import Sum

import pymc as pm

from pymc.variational.engine.rewrites import SHORT, TAG

PLAIN = Mode(linker="py", optimizer=RewriteDatabaseQuery(include=["fast_run"], exclude=["fusion"]))
LEAN = PLAIN.including(TAG)

ROWS, COLUMNS = 6, 3


@pytest.fixture(scope="module")
def values():
    rng = np.random.default_rng(1)
    return {
        "y": rng.normal(size=(ROWS, COLUMNS)),
        "mu": rng.normal(size=COLUMNS),
        "sd": rng.gamma(2, size=COLUMNS),
        "row": rng.normal(size=(ROWS, 1)),
        "ok": np.array(True),
    }


@pytest.fixture(scope="module")
def inputs(values):
    return {name: _like(name, value) for name, value in values.items()}


def _like(name, value):
    shape = tuple(1 if length == 1 else None for length in value.shape)
    return pt.tensor(name, dtype=value.dtype, shape=shape)


def normal(y, mu, sd, **_):
    return pm.logp(pm.Normal.dist(mu, sd), y)


FORMS = {
    "logp": lambda i: normal(**i).sum(),
    "logp by column": lambda i: normal(**i).sum(0),
    "logp by row": lambda i: normal(**i).sum(1),
    "logp of scalars": lambda i: normal(i["y"], i["mu"][0], i["sd"][0]).sum(),
    "gradient": lambda i: pt.concatenate(pt.grad(normal(**i).sum(), [i["mu"], i["sd"]])),
    "two factors": lambda i: (i["y"] * i["mu"] * i["row"]).sum(),
    "factors only": lambda i: (i["mu"] * i["row"]).sum(),
    "nested product": lambda i: ((i["y"] * i["mu"]) * (i["y"] * i["row"])).sum(0),
    "quotient": lambda i: (i["y"] / i["sd"]).sum(),
    "square of a product": lambda i: ((i["y"] * i["sd"]) ** 2).sum(1),
    "squares and a row": lambda i: (i["y"] ** 2 * i["sd"] - i["row"] + 3).sum(),
    "squares less squares": lambda i: (i["mu"] ** 2 - (i["y"] - i["mu"]) ** 2).sum(),
    "plain difference": lambda i: (i["y"] - i["mu"]).sum(0),
    "kept axes": lambda i: (i["y"] * i["sd"]).sum(0, keepdims=True),
    "student": lambda i: pm.logp(pm.StudentT.dist(nu=4, mu=i["mu"], sigma=i["sd"]), i["y"]).sum(),
    "check by hand": lambda i: pt.switch(i["ok"], i["y"] * i["sd"], -np.inf).sum(),
    "check by column": lambda i: pt.switch(i["sd"] > 0, i["y"] * i["sd"], -np.inf).sum(),
}


@pytest.mark.parametrize("form", FORMS)
def test_same_value(form, inputs, values):
    graph = FORMS[form](inputs)
    used = [name for name, var in inputs.items() if var in set(ancestors([graph]))]
    results = []
    for mode in (PLAIN, LEAN):
        function = pytensor.function([inputs[name] for name in used], graph, mode=mode)
        results.append(function(*(values[name] for name in used)))
    assert results[0].shape == results[1].shape
    np.testing.assert_allclose(results[1], results[0], rtol=1e-12)


def test_check_that_fails(inputs, values):
    graph = FORMS["logp"](inputs)
    names = ["y", "mu", "sd"]
    function = pytensor.function(
        [inputs[name] for name in names],
        graph,
        mode=LEAN.including("local_check_parameter_to_ninf_switch"),
    )
    assert function(values["y"], values["mu"], -values["sd"]) == -np.inf
    assert np.isfinite(function(values["y"], values["mu"], values["sd"]))


def matrix_nodes(function):
    """Elementwise operations on all rows and columns."""
    return [
        node
        for node in function.maker.fgraph.toposort()
        if isinstance(node.op, Elemwise) and node.outputs[0].type.broadcastable == (False, False)
    ]


def test_one_pass_with_three_operations(inputs):
    """Of the logp and its gradient, only y - mu and its square are left for each number."""
    names = ["y", "mu", "sd"]
    logp = normal(*(inputs[name] for name in names)).sum()
    outputs = [logp, *pt.grad(logp, [inputs["mu"], inputs["sd"]])]
    plain, lean = (
        pytensor.function(
            [inputs[name] for name in names],
            outputs,
            mode=mode.including("local_check_parameter_to_ninf_switch"),
        )
        for mode in (PLAIN, LEAN)
    )
    assert len(matrix_nodes(plain)) > 4
    assert sorted(str(node.op).lower() for node in matrix_nodes(lean)) == ["sqr", "sub"]


def test_a_sum_of_sums_of_rows(inputs):
    """The gradient reads the sums of rows, of whose sum the loss is: one pass all the same."""
    names = ["y", "mu", "sd"]
    rows = normal(*(inputs[name] for name in names)).sum(1)
    loss = rows.sum()
    function = pytensor.function(
        [inputs[name] for name in names],
        [loss, *pt.grad(loss, [inputs["mu"], inputs["sd"]])],
        mode=LEAN.including("local_check_parameter_to_ninf_switch"),
    )
    assert sorted(str(node.op).lower() for node in matrix_nodes(function)) == ["sqr", "sub"]


def test_differences_are_summed_as_they_are():
    """Large numbers that cancel: the sum of y and that of mu would each be rounded."""
    y, mu = pt.matrix("y"), pt.vector("mu")
    function = pytensor.function([y, mu], (y - mu).sum(0), mode=LEAN)
    offset = 2.0**50
    assert function(np.full((3, 1), offset + 0.25), [offset]) == 0.75


@pytest.mark.parametrize(
    "length, dtype", [(SHORT, "float32"), (SHORT + 1, "float64"), (None, "float64")]
)
def test_short_sums_of_float32(length, dtype):
    x = pt.tensor("x", dtype="float32", shape=(length,))
    function = pytensor.function([x], x.sum(), mode=LEAN)
    [node] = [node for node in function.maker.fgraph.toposort() if isinstance(node.op, Sum)]
    assert node.op.acc_dtype == dtype


@pytest.mark.parametrize("dtype", ["int8", "float32"])
def test_small_types_are_not_multiplied_by_themselves(dtype):
    x, b = pt.tensor("x", dtype=dtype, shape=(None,)), pt.dscalar("b")
    large = np.full(12, 100 if dtype == "int8" else 1e25, dtype=dtype)
    outputs = [pt.sqr(x * b).sum(), (b * x * x).sum()]
    plain, lean = (pytensor.function([x, b], outputs, mode=mode) for mode in (PLAIN, LEAN))
    np.testing.assert_allclose(lean(large, 1.0), plain(large, 1.0), rtol=1e-12)


def test_a_type_that_was_asked_for_is_kept():
    x = pt.tensor("x", dtype="float32", shape=(3,))
    total = pytensor.function([x], x.sum(dtype="float64"), mode=LEAN)
    assert total(np.array([1e8, 1, -1e8], dtype="float32")) == 1


def n_powers(function):
    nodes = function.maker.fgraph.apply_nodes
    return sum(isinstance(n.op, Elemwise) and isinstance(n.op.scalar_op, Pow) for n in nodes)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("base", [0.9, 0.999, 3.0])
def test_powers_of_rows_are_exponentials(base, dtype):
    visits = pt.tensor("visits", dtype=dtype, shape=(None, 1))
    base = np.asarray(base, dtype)
    plain = pytensor.function([visits], base**visits, mode=PLAIN)
    lean = pytensor.function([visits], base**visits, mode=LEAN)
    assert (n_powers(plain), n_powers(lean)) == (1, 0)
    t = np.arange(1, 60, dtype=dtype)[:, None]
    # Rounding t * log(b) and then the exponential: an ulp of the result for each, the first by its size
    ulps = np.finfo(dtype).eps * (2 + 2 * abs(t * np.log(base)))
    assert np.all(abs(lean(t) / plain(t) - 1) <= ulps)


@pytest.mark.parametrize(
    "power",
    [
        lambda x: 0.9 ** x[0],
        lambda x: (-2.0) ** x,
        lambda x: 0.0**x,
        lambda x: x**x,
        lambda x: 2.0 ** x.astype("int64"),
    ],
    ids=["one number", "negative", "zero", "no constant", "integers"],
)
def test_other_powers_stay(power):
    x = pt.vector("x")
    functions = [pytensor.function([x], power(x), mode=mode) for mode in (PLAIN, LEAN)]
    assert n_powers(functions[0]) == n_powers(functions[1])
    one, other = (f(np.array([1.0, 2.0])) for f in functions)
    np.testing.assert_array_equal(one, other)


def n_tanh(function):
    nodes = function.maker.fgraph.apply_nodes
    return sum(isinstance(n.op, Elemwise) and isinstance(n.op.scalar_op, Tanh) for n in nodes)


def test_a_layer_and_its_gradient_share_what_they_compute():
    x, w = pt.tensor3("x"), pt.matrix("w")
    hidden = pt.tanh(x)
    loss = ((hidden.reshape((-1, 3)) @ w) ** 2).sum()
    outputs = [loss, *pt.grad(loss, [x, w])]
    plain, lean = (pytensor.function([x, w], outputs, mode=mode) for mode in (PLAIN, LEAN))
    assert (n_tanh(plain), n_tanh(lean)) == (2, 1)
    rng = np.random.default_rng(1)
    values = rng.normal(size=(2, 4, 3)), rng.normal(size=(3, 5))
    for one, other in zip(plain(*values), lean(*values), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12)


def test_what_is_known_in_one_shape_only_stays():
    x = pt.matrix("x")
    lean = pytensor.function([x], pt.tanh(x.reshape((-1,))), mode=LEAN)
    assert n_tanh(lean) == 1
    np.testing.assert_allclose(lean(np.eye(2)), np.tanh([1.0, 0, 0, 1]))
