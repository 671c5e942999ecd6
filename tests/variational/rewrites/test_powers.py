# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest

from pytensor.compile.mode import Mode
from pytensor.graph.rewriting.db import RewriteDatabaseQuery
from pytensor.scalar.basic import Pow
from pytensor.tensor.elemwise import Elemwise

from pymc.variational.engine.rewrites.powers import TAG

PLAIN = Mode(linker="py", optimizer=RewriteDatabaseQuery(include=["fast_run"], exclude=["fusion"]))
LEAN = PLAIN.including(TAG)


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
