# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""What the engine's tests share: small models, and steps on bare shared variables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import pytensor
import pytest

from pytensor.compile.mode import Mode
from pytensor.compile.sharedvalue import SharedVariable

import pymc as pm

from pymc.variational.engine import step_cache
from pymc.variational.engine.callback_schedule import next_call
from pymc.variational.engine.drivers import choose_driver
from pymc.variational.engine.step import compile_step, step_graph
from pymc.variational.engine.step_cache import Step, make_step

#: The optimizers of the release
OPTIMIZERS = [
    pm.sgd,
    pm.momentum,
    pm.nesterov_momentum,
    pm.adagrad,
    pm.adagrad_window,
    pm.rmsprop,
    pm.adadelta,
    pm.adam,
    pm.adamax,
]

# No backend, and next to nothing to compile: for all that does not depend on the driver
PYTHON = Mode(linker="py", optimizer="fast_compile")

BACKENDS = ["numba", "jax", pytest.param("c", marks=pytest.mark.cxx)]

# JAX's linker says of every shared generator that it works on a copy
JAX_COPIES = "ignore:The RandomType SharedVariables:UserWarning"


def normal_model(n_rows: int = 6) -> pm.Model:
    """A normal mean of which `n_rows` values of pm.Data are known."""
    data = np.random.default_rng(1).normal(2, 1, size=n_rows)
    with pm.Model() as model:
        x = pm.Data("x", data.astype(pytensor.config.floatX), dims="obs")
        mu = pm.Normal("mu", 0, 10)
        pm.Normal("y", mu, 1, observed=x, dims="obs")
    return model


def quiet(**kwargs: Any) -> dict[str, Any]:
    """Arguments of a fit in Python mode without a bar."""
    return {"compile_kwargs": {"mode": PYTHON}, "progressbar": False} | kwargs


def shared(value: Any, name: str = "x") -> SharedVariable:
    return pytensor.shared(np.asarray(value, dtype="float64"), name)


def bare_step(updates: Mapping[Any, Any], loss: Any, mode: Any = PYTHON, **kwargs: Any) -> Step:
    """A step for no model in particular."""
    return make_step(updates, loss, model=pm.Model(), random_seed=1, mode=mode, **kwargs)


def halving(value: Any = 1.0, mode: Any = PYTHON) -> tuple[SharedVariable, Step]:
    """A variable, and the step that halves it, whose loss is its square."""
    x = shared(value)
    return x, bare_step({x: 0.5 * x}, (x**2).sum(), mode)


def params_of(approx: Any) -> list[np.ndarray]:
    return [np.array(param.get_value()) for param in approx.params]


def assert_same(xs: Any, ys: Any) -> None:
    """Assert that two lists of arrays are equal bit for bit."""
    assert len(xs) == len(ys)
    for x, y in zip(xs, ys):
        np.testing.assert_array_equal(x, y)


@contextmanager
def counted_compilations(cold: bool = True) -> Iterator[list[Any]]:
    """Collect the graphs of the steps that are compiled; cold, nothing was compiled before."""
    graphs: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        if cold:
            patch.setattr(step_cache, "_compiled", WeakKeyDictionary())
        compile_step = step_cache.compile_step

        def count(graph: Any, *args: Any, **kwargs: Any) -> Any:
            graphs.append(graph)
            return compile_step(graph, *args, **kwargs)

        patch.setattr(step_cache, "compile_step", count)
        yield graphs


class Param:
    """As much of a shared variable as callbacks need; to make one takes longer."""

    def __init__(self, values: Any) -> None:
        self.values = np.asarray(values, dtype="float64")

    def get_value(self, borrow: bool = False) -> np.ndarray:
        return self.values


def approx_of(values: Any) -> Any:
    """An approximation as callbacks see it: with one parameter, without scales."""
    return SimpleNamespace(params=[Param(values)], groups=[])


def called_at(callback: Any, n_steps: int, start: int = 0) -> list[int]:
    """List the steps at which a loop calls a callback."""
    i, calls = start, []
    while (i := next_call(callback, i, start)) <= start + n_steps:
        calls.append(i)
    return calls


def five_steps(model: pm.Model, mode: Any) -> tuple[Any, str, np.ndarray]:
    """Take steps of ADVI; return the compiled function, the name of the driver, and the losses."""
    inference = pm.ADVI(model=model, random_seed=1)
    updates, loss = inference.objective.updates(obj_optimizer=pm.adam(learning_rate=0.1))
    graph = step_graph(updates, loss, random_seed=3)
    step = compile_step(graph.with_new_variables(), mode=mode)
    shared = [graph.shared[i] for i in step.order]
    driver = choose_driver(step, lambda driver: driver.load(shared))
    return step.function, driver.name, driver.run(driver.load(shared), 5).losses
