# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Draws of a step on JAX are computed once, and change nothing else."""

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest

from pytensor.compile.mode import Mode
from pytensor.graph.rewriting.db import RewriteDatabaseQuery

import pymc as pm

from pymc.minibatch.index import MinibatchIndexRV
from pymc.variational.engine import rewrites
from pymc.variational.engine.drivers.jax import JaxDriver
from pymc.variational.engine.step import compile_step, step_graph
from pymc.variational.engine.stored_draws import Stored, StoreDraws
from tests.variational.engine import JAX_COPIES

pytestmark = pytest.mark.filterwarnings(JAX_COPIES)


def readers_of_draws(function):
    """The Ops that read random draws of floats."""
    fgraph = function.maker.fgraph
    draws = [
        node.outputs[1]
        for node in fgraph.apply_nodes
        if isinstance(node.op, pt.random.op.RandomVariable)
        and not isinstance(node.op, MinibatchIndexRV)
    ]
    assert draws
    return [type(client.op) for draw in draws for client, _ in fgraph.clients[draw]]


def n_stored(function):
    return sum(isinstance(node.op, Stored) for node in function.maker.fgraph.apply_nodes)


def run(mode):
    """Take five steps of a fit with minibatches."""
    data = np.random.default_rng(1).normal(size=(40, 3)).astype(pytensor.config.floatX)
    with pm.Model() as model:
        mu = pm.Normal("mu", shape=3)
        pm.Normal("y", mu, 1, observed=pm.Minibatch(data, batch_size=8))
    inference = pm.ADVI(model=model, random_seed=1)
    updates, loss = inference.objective.updates(obj_optimizer=pm.adam(learning_rate=0.1))
    graph = step_graph(updates, loss, random_seed=3)
    step = compile_step(graph.with_new_variables(), mode=mode)
    driver = JaxDriver(step)
    _, losses = driver.run(driver.load([graph.shared[i] for i in step.order]), 5)
    return step.function, losses


def test_a_step_on_jax_stores_its_draws(monkeypatch):
    function, losses = run("JAX")
    assert set(readers_of_draws(function)) == {Stored}
    monkeypatch.setattr(rewrites, "OF_LINKERS", {})
    plain, expected = run("JAX")
    assert n_stored(plain) == 0
    # Sums in another order: the draws, and so all steps after the first, are the same
    np.testing.assert_allclose(losses, expected, rtol=1e-14)


@pytest.mark.parametrize("mode", ["JAX", "NUMBA", Mode(linker="py")])
def test_no_other_function_does(mode):
    """Only the linker of JAX gets the tag, and a function outside a fit has none."""
    mode = pytensor.compile.mode.get_mode(mode)
    is_jax = type(mode.linker).__name__ == "JAXLinker"
    assert (rewrites.TAG_JAX in rewrites.tags(mode)) == is_jax
    x = pt.random.normal(size=(3,), rng=pytensor.shared(np.random.default_rng(1)))
    plain = Mode(linker="py", optimizer=mode.provided_optimizer)
    assert n_stored(pytensor.function([], x.exp(), mode=plain)) == 0


def test_draws_that_are_outputs_or_integers():
    rng = pytensor.shared(np.random.default_rng(1))
    x = pt.random.normal(size=(3,), rng=rng)
    k = pt.random.integers(0, 9, size=(3,), rng=rng)
    fgraph = pytensor.graph.fg.FunctionGraph(outputs=[x, x + 1, k + 1], clone=True)
    StoreDraws().rewrite(fgraph)
    stored, later, integers = fgraph.outputs
    assert isinstance(stored.owner.op, Stored)
    assert stored in later.owner.inputs
    assert not any(isinstance(v.owner and v.owner.op, Stored) for v in integers.owner.inputs)
    function = pytensor.function([], [x, x + 1], mode=Mode("py", RewriteDatabaseQuery([])))
    np.testing.assert_array_equal(fgraph.outputs[0].eval(mode="FAST_COMPILE"), function()[0])
