# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""The graph of a step: what it reads and writes, when it is another's, and what is compiled of it."""

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest

from numpy.random import Generator

import pymc as pm

from pymc.minibatch.array_data import RawData
from pymc.minibatch.index import IndexState
from pymc.variational.engine.step import compile_step, step_graph
from tests.variational.engine import PYTHON, shared


def noisy(scale=1.0, dtype="float64", n=2, with_loss=True):
    """A step with noise on a parameter, which reads data that it does not change."""
    x = pytensor.shared(np.zeros(n, dtype=dtype), "x")
    data = pytensor.shared(np.ones(n, dtype=dtype), "data")
    noise = pt.random.normal(size=n, rng=pytensor.shared(np.random.default_rng(1)), dtype=dtype)
    updates = {x: x + scale * noise.astype(dtype) * data}
    return step_graph(updates, ((x - data) ** 2).sum() if with_loss else None, random_seed=7)


def minibatch(values, batch_size=2, **kwargs):
    """A step on rows of an array; a step for each call."""
    with pm.Model():
        batch = pm.Minibatch(values, batch_size=batch_size)
    x = shared(0.0)
    return step_graph({x: x + batch.sum()}, x, random_seed=7, **kwargs)


class TestStepGraph:
    def test_reads_and_writes(self):
        graph = noisy()
        names = {var.name for var in graph.shared}
        assert {"x", "data"} < names
        written = [graph.shared[i] for i in graph.updated]
        assert {var.name for var in written} == {"x", None}  # the generator has no name
        assert len(graph.outputs) == 1 + len(written)
        assert graph.has_loss
        for var, value in zip(written, graph.outputs[1:]):
            assert var.type.is_super(value.type)

    def test_without_loss(self):
        graph = noisy(with_loss=False)
        assert not graph.has_loss
        assert len(graph.outputs) == len(graph.updated) == 2

    def test_a_variable_that_is_only_written(self):
        x = shared(1.0)
        graph = step_graph({x: pt.constant(2.0, dtype="float64")}, None, random_seed=1)
        assert graph.shared == (x,)
        assert graph.updated == (0,)

    def test_generators_and_indexes_are_seeded(self):
        def seeded(seed):
            with pm.Model():
                batch = pm.Minibatch(np.arange(5.0), batch_size=2)
            x = shared(0.0)
            noise = pt.random.normal(rng=pytensor.shared(np.random.default_rng()))
            graph = step_graph({x: x + noise + batch.sum()}, None, random_seed=seed)
            values = [var.get_value() for var in graph.shared]
            [state] = [v for var, v in zip(graph.shared, values) if isinstance(var, IndexState)]
            [rng] = [v for v in values if isinstance(v, Generator)]
            return [*state.tolist(), rng.bit_generator.state["state"]["state"]]

        assert seeded(3) == seeded(3)
        assert seeded(3) != seeded(4)

    def test_a_value_of_another_type(self):
        x = shared(np.zeros(2))
        with pytest.raises(TypeError, match="Cannot convert"):
            step_graph({x: pt.zeros((2, 2))}, None, random_seed=1)


class TestSameAs:
    def test_equal_graphs_of_other_variables(self):
        assert noisy().same_as(noisy())

    @pytest.mark.parametrize(
        "other",
        [{"scale": 2.0}, {"dtype": "float32"}, {"with_loss": False}],
        ids=["constant", "type", "loss"],
    )
    def test_another_computation(self, other):
        assert not noisy().same_as(noisy(**other))

    def test_lengths_are_no_part_of_a_type(self):
        # The shapes of shared variables are not known, but size=n of the noise is a constant
        x, y = shared(np.zeros(2)), shared(np.zeros(3))
        graphs = [step_graph({var: 0.5 * var}, None, random_seed=1) for var in (x, y)]
        assert graphs[0].same_as(graphs[1])
        assert not noisy(n=2).same_as(noisy(n=3))

    def test_two_variables_exchanged(self):
        x, y = shared(1.0, "x"), shared(1.0, "y")
        graphs = [
            step_graph({a: a + 2 * b, b: b}, a * 1 + b, random_seed=1) for a, b in [(x, y), (y, x)]
        ]
        assert graphs[0].same_as(graphs[1])

    def test_values_exchanged(self):
        """The same outputs, each for the other variable."""
        x, y = shared(1.0, "x"), shared(1.0, "y")
        graph = step_graph({x: x + y, y: x * y}, x - y, random_seed=1)
        crossed = step_graph({y: x + y, x: x * y}, x - y, random_seed=1)
        assert graph.shared == crossed.shared
        assert not graph.same_as(crossed)

    def test_raw_data_of_any_number_of_rows(self):
        values = np.arange(6.0)
        graph = minibatch(values)
        [data] = [var for var in graph.shared if isinstance(var, RawData)]
        assert data.type.shape == (None,)
        assert graph.same_as(minibatch(np.arange(9.0)))
        assert not graph.same_as(minibatch(values, batch_size=3))
        assert not graph.same_as(minibatch(values[:, None]))

    def test_raw_data_that_become_constants(self):
        values = np.arange(6.0)
        graph = minibatch(values, constant_data=True)
        assert graph.same_as(graph)
        assert not graph.same_as(minibatch(values + 1, constant_data=True))


class TestOwnVariables:
    def test_equal_and_apart(self):
        graph = noisy()
        own = graph.with_new_variables()
        assert own.same_as(graph)
        assert not set(own.shared) & set(graph.shared)

    def test_constant_data_stay(self):
        graph = minibatch(np.arange(6.0), constant_data=True)
        own = graph.with_new_variables()
        assert own.same_as(graph)
        common = set(own.shared) & set(graph.shared)
        assert common
        assert all(isinstance(var, RawData) for var in common)

    @pytest.mark.parametrize("constant", [False, True])
    def test_values_are_forgotten_and_the_users_stay(self, constant):
        graph = minibatch(np.arange(6.0), constant_data=constant)
        before = [var.container.storage[0] for var in graph.shared]
        own = graph.with_new_variables()
        own.drop_values()
        for var in own.shared:
            kept = constant and isinstance(var, RawData)
            assert (var.container.storage[0] is None) != kept
        assert all(var.container.storage[0] is v for var, v in zip(graph.shared, before))


class TestCompileStep:
    def test_places(self):
        """`order` and `updates` tell of each input of the function which variable it is."""
        a, b, c = (shared(value, name) for value, name in [(1.0, "a"), (2.0, "b"), (3.0, "c")])
        graph = step_graph({c: a + c, a: b * a}, a - c, random_seed=1)
        own = graph.with_new_variables()
        step = compile_step(own, PYTHON)
        values = {var.name: var.get_value() for var in graph.shared}
        expected = {"c": 4.0, "a": 2.0}
        for container, i in zip(step.function.input_storage, step.order):
            assert container.storage[0] == values[graph.shared[i].name]
        assert {graph.shared[step.order[i]].name for i in step.updates} == set(expected)
        assert step.function() == -2.0
        for container, i in zip(step.function.input_storage, step.order):
            name = graph.shared[i].name
            assert container.storage[0] == expected.get(name, values[name])
        assert [var.get_value() for var in (a, b, c)] == [1.0, 2.0, 3.0]

    def test_arguments_reach_the_compiler(self):
        x = shared(1.0)
        step = compile_step(step_graph({x: 0.5 * x}, x, random_seed=1), PYTHON, name="a step")
        assert step.function.name == "a step"


def test_values_that_jax_left_behind():
    """Of a function compiled apart, as `run_profiling` compiles one."""
    jnp = pytest.importorskip("jax.numpy")
    x = pytensor.shared(np.arange(3.0), "x")
    x.container.storage[0] = jnp.arange(3.0)
    own = step_graph({x: 0.5 * x}, x.sum(), 1).with_new_variables()
    assert type(own.shared[0].get_value(borrow=True)) is np.ndarray
