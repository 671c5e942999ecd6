# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytensor
import pytensor.tensor as pt

from pytensor.compile.mode import Mode
from pytensor.graph.rewriting.db import RewriteDatabaseQuery
from pytensor.scalar.basic import Tanh
from pytensor.tensor.elemwise import Elemwise

from pymc.variational.engine.rewrites.reshapes import TAG

PLAIN = Mode(linker="py", optimizer=RewriteDatabaseQuery(include=["fast_run"], exclude=["fusion"]))
LEAN = PLAIN.including(TAG)


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
