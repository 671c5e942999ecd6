# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Proof by enumeration: every batch that an index can draw, with its probability."""

from collections.abc import Callable, Iterable, Sequence
from itertools import combinations, product

import numpy as np
import pytensor
import pytensor.tensor as pt

from pytensor.compile.mode import Mode
from pytensor.graph.replace import graph_replace
from pytensor.graph.traversal import ancestors

import pymc as pm

from pymc.distributions.simulator import SimulatorRV
from pymc.minibatch.index import MinibatchIndexRV
from pymc.minibatch.plates import local_axes, model_indexes

PYTHON = Mode(linker="py", optimizer="fast_compile")


def batches(index_op: MinibatchIndexRV, n_rows: int) -> list[np.ndarray]:
    """List all batches, each as probable as the others; the order of rows does not matter to a sum."""
    size = index_op.batch_size
    if index_op.sampling == "with_replacement":
        return [np.array(rows) for rows in product(range(n_rows), repeat=size)]
    return [np.array(rows) for rows in combinations(range(n_rows), size)]


def logp_and_gradient(
    model: pm.Model, terms: Sequence | None = None, gradient: bool = True
) -> list:
    """Graphs of the log-probability and its gradient."""
    logp = model.logp(terms)
    if not gradient or any(
        isinstance(v.owner.op, SimulatorRV) for v in ancestors(model.observed_RVs) if v.owner
    ):
        return [logp]  # it has no gradient
    return [logp, model.dlogp()]


def mean_over_batches(
    model: pm.Model,
    point: dict | None = None,
    reduce: Callable | None = np.mean,
    terms: Sequence | None = None,
    gradient: bool = True,
) -> np.ndarray:
    """Average logp and gradient over all batches of all indexes of `model`; or give each of them.

    A local variable's entry in `point` has all rows: a batch takes its own, and its gradient is added
    to those of these rows.
    """
    point = model.initial_point() if point is None else point
    outputs = logp_and_gradient(model, terms, gradient)
    found = model_indexes(model)
    # Deriving a logp clones an index: replace each clone by one input
    inputs = {index.owner.inputs[0]: pt.lvector() for index in found}
    clones = {
        var: inputs[var.owner.inputs[0]]
        for var in ancestors(outputs)
        if var.owner is not None
        and isinstance(var.owner.op, MinibatchIndexRV)
        and var is var.owner.outputs[1]
    }
    replaced = graph_replace(
        outputs,
        {var: pt.specify_shape(new, var.type.shape) for var, new in clones.items()},
        strict=False,
    )
    fn = pytensor.function(
        [*inputs.values(), *model.value_vars], replaced, mode=PYTHON, on_unused_input="ignore"
    )
    local = {model.rvs_to_values[rv]: axes for rv, axes in local_axes(model).items()}
    totals = [int(pytensor.function([], index.owner.inputs[2], mode=PYTHON)()) for index in found]
    choices: Iterable = product(
        *(batches(index.owner.op, n) for index, n in zip(found, totals, strict=True))
    )
    results = []
    for rows in choices:
        places = {
            value: _places(np.shape(point[value.name]), axes, dict(zip(inputs, rows)))
            for value, axes in local.items()
        }
        values = [
            np.ravel(point[v.name])[places[v]] if v in places else point[v.name]
            for v in model.value_vars
        ]
        logp, *slopes = fn(*rows, *values)
        results.append(np.hstack([logp, *_of_all_rows(model, slopes, point, places)]))
    return np.array(results) if reduce is None else reduce(results, axis=0)


def _places(shape: tuple[int, ...], axes: Sequence, rows: dict) -> np.ndarray:
    """Positions, in all rows raveled, of what a batch takes of an array of all rows."""
    places = np.arange(np.prod(shape)).reshape(shape)
    for k, axis in enumerate(axes):
        if axis is not None:
            places = places.take(rows[axis.state], axis=k)
    return places


def _of_all_rows(model: pm.Model, gradient: list, point: dict, places: dict) -> list[np.ndarray]:
    if not places or not gradient:
        return [np.ravel(g) for g in gradient]
    result, [flat] = [], gradient
    for value in model.continuous_value_vars:
        taken = places.get(value, np.arange(np.size(point[value.name])))
        here, flat = np.split(flat, [taken.size])
        full = np.zeros(np.size(point[value.name]))
        np.add.at(full, taken.ravel(), here)
        result.append(full)
    return result


def full_logp_and_gradient(
    model: pm.Model, point: dict | None = None, gradient: bool = True
) -> np.ndarray:
    point = model.initial_point() if point is None else point
    fn = pytensor.function(
        model.value_vars,
        logp_and_gradient(model, gradient=gradient),
        mode=PYTHON,
        on_unused_input="ignore",
    )
    return np.hstack([np.ravel(o) for o in fn(*(point[v.name] for v in model.value_vars))])


def some_point(model: pm.Model, seed: int = 3) -> dict:
    """Make a point that no symmetry makes special."""
    rng = np.random.default_rng(seed)
    return {
        name: value + 0.3 * rng.normal(size=np.shape(value)).astype(np.asarray(value).dtype)
        if np.issubdtype(np.asarray(value).dtype, np.floating)
        else value
        for name, value in model.initial_point().items()
    }


def assert_mean_is_full(model: pm.Model, full: pm.Model) -> None:
    """Check that the mean over all batches is the log-probability of all rows, and its gradient."""
    point = some_point(model)
    np.testing.assert_allclose(
        mean_over_batches(model, point), full_logp_and_gradient(full, point), rtol=1e-10, atol=1e-10
    )
