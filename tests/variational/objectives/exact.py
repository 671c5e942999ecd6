# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Losses as functions of noise: what is random in a loss is replaced, and integrated exactly.

A loss is a function of the standard normal noise of its guides and of the rows of its batch. With nodes of
a quadrature in the place of the noise, and all batches one after another, its mean has no error of
sampling. The rows of a bound are independent, so that they may share the nodes.
"""

from __future__ import annotations

import itertools

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytensor
import pytensor.tensor as pt

from pytensor.compile.builders import OpFromGraph
from pytensor.compile.mode import Mode
from pytensor.compile.rewriting import inline_ofg_node
from pytensor.graph.basic import Variable
from pytensor.graph.fg import FunctionGraph
from pytensor.graph.replace import graph_replace, vectorize_graph
from pytensor.graph.traversal import ancestors
from pytensor.tensor.random.op import RandomVariable
from scipy.stats import norm

import pymc as pm

from pymc.minibatch.axis_tracking import Rows
from pymc.minibatch.index import MinibatchIndexRV
from pymc.minibatch.plates import model_indexes
from pymc.variational.approximation import guided_approximation
from pymc.variational.fit_objective import FitObjective

PYTHON = Mode(linker="py", optimizer=None)

FALSE_ALARMS = 1e-6
"""Probability that a right loss fails a comparison of a mean, two-sided."""

Z = norm.isf(FALSE_ALARMS / 2)

X = np.array([-1.0, 0.0, 2.0])


@dataclass(frozen=True)
class Evaluation:
    """A loss and gradients, compiled as a function of the noise and of the rows of a batch.

    Parameters
    ----------
    function : callable (rows, *noise) -> arrays
    shapes : list of tuple
        Of the noise of one evaluation.
    names : list of str
        Of what is computed: "loss", and the parameters that it is differentiated for.
    """

    function: Callable[..., list[np.ndarray]]
    shapes: list[tuple[int, ...]]
    names: list[str]

    def __call__(
        self, noise: Mapping[Any, np.ndarray], rows: Sequence[int] | None = None
    ) -> dict[str, np.ndarray]:
        """Evaluate at noise by its shape, each with a leading axis of evaluations, (R, *shape)."""
        given = [] if rows is None else [np.asarray(rows)]
        values = self.function(*given, *(noise[shape] for shape in self.shapes))
        return dict(zip(self.names, values))


def rows_model(
    x: Sequence[float] | np.ndarray = X,
    batch_size: int = 3,
    with_global: bool = False,
    loc: Any = 0.0,
) -> pm.Model:
    """A9 and A10: z ~ N(mu, 1) of each row and x ~ N(z, 1), with mu ~ N(0, 1) or given."""
    with pm.Model(coords={"obs": range(len(x))}) as model:
        data = pm.Data("data", np.asarray(x), dims="obs")
        batch = pm.Minibatch(data, batch_size=batch_size)
        mu = pm.Normal("mu") if with_global else loc
        z = pm.Normal("z", mu, 1, dims="obs")
        pm.Normal("x", z, 1, observed=batch, dims="obs")
    return model


def evaluate(
    model: pm.Model,
    objective: Any,
    n_particles: int = 1,
    *,
    n_outer: int = 1,
    reduction: str = "sum",
    gradients: bool = True,
    mode: Any = PYTHON,
    **kwargs: Any,
) -> Evaluation:
    """Compile the loss of an objective and the gradients of its parameters, by name.

    The parameters of rows are all of them, those that are not in the batch too. Further arguments are
    of `guided_approximation`.
    """
    approx = guided_approximation(model, **kwargs)
    goal = FitObjective(approx, objective, n_particles, reduction)
    goal.check()
    table = {p: pytensor.shared(t) for p, t in _all_rows(approx).items()}
    param_values = dict(approx.storage.dense)
    param_values |= {p: every[p.plate[0].index] for p, every in table.items()}
    losses = goal.losses(param_values, n_outer)
    wrt = {
        p: table.get(p, param_values.get(p, p))
        for loss in losses.minimised
        for p in loss.parameters
    }
    outputs = {"loss": losses.reported, **dict(losses.aux_losses)}
    for loss in losses.minimised if gradients else ():
        for p in loss.parameters:
            outputs[p.name] = pytensor.grad(loss.value, wrt[p], disconnected_inputs="ignore")
    return compiled(model, outputs, mode)


def compiled(model: pm.Model, outputs: Mapping[str, Any], mode: Any = PYTHON) -> Evaluation:
    """Compile graphs as functions of the rows and of their noise: in Python, of many values of it."""
    graphs = list(outputs.values())
    indexes = model_indexes(model)
    nodes = {var.owner for var in ancestors(graphs) if var.owner is not None}
    # An index may be there in copies
    copies = [node for node in nodes if isinstance(node.op, MinibatchIndexRV)]
    nodes = {node for node in nodes if isinstance(node.op, RandomVariable)} - set(copies)
    draws = sorted((node.outputs[1] for node in nodes), key=lambda var: var.type.shape)
    one = [var.type() for var in draws]
    rows = {Rows(index): pt.lvector("rows") for index in indexes}
    of_rows = {node.outputs[1]: rows[Rows(node.outputs[1])] for node in copies}
    graphs = graph_replace(graphs, {**dict(zip(draws, one)), **of_rows}, strict=False)
    many = one
    if mode is PYTHON:
        many = [pt.tensor(shape=(None, *var.type.shape), dtype=var.dtype) for var in one]
        graphs = vectorize_graph(without_inner_graphs(graphs), dict(zip(one, many)))
    function = pytensor.function(
        [*rows.values(), *many], graphs, mode=mode, on_unused_input="ignore"
    )
    return Evaluation(function, [var.type.shape for var in one], list(outputs))


def without_inner_graphs(graphs: Sequence[Variable]) -> list[Variable]:
    """Put inner graphs, as that of a logsumexp, in the place of their Ops, which Python calls for each draw."""
    fgraph = FunctionGraph(outputs=list(graphs), clone=False)
    while nodes := [node for node in fgraph.apply_nodes if isinstance(node.op, OpFromGraph)]:
        for node in nodes:
            fgraph.replace_all(zip(node.outputs, inline_ofg_node(node)), import_missing=True)
    return list(fgraph.outputs)


def _all_rows(approx: Any) -> dict[Any, np.ndarray]:
    """Parameters of rows, for all rows."""
    tables = approx.storage.tables
    return {
        p: tables[p.plate].parameters()[:, columns] for p, columns in approx.storage.columns.items()
    }


def hermite(n_nodes: int, n_axes: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Nodes, shape (G, n_axes), and weights, shape (G,), of means over independent normal noise."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(n_nodes)
    weights = weights / weights.sum()
    points = np.stack(np.meshgrid(*[nodes] * n_axes, indexing="ij"), axis=-1)
    mass = np.prod(np.stack(np.meshgrid(*[weights] * n_axes, indexing="ij")), axis=0)
    return points.reshape(-1, n_axes), mass.ravel()


def for_rows(points: np.ndarray, n_rows: int) -> np.ndarray:
    """Repeat nodes (G, K) for all rows: shape (G, K, n_rows, 1), without the axis of K = 1."""
    spread = np.broadcast_to(points[:, :, None, None], (*points.shape, n_rows, 1))
    return spread[:, 0] if points.shape[1] == 1 else spread


def all_batches(n_rows: int, batch_size: int) -> list[tuple[int, ...]]:
    """All batches, with replacement, which are equally likely."""
    return list(itertools.product(range(n_rows), repeat=batch_size))


def assert_mean(draws: np.ndarray, mean: Any) -> None:
    """Assert that draws, shape (R, ...), may have a mean."""
    error = draws.std(axis=0, ddof=1) / np.sqrt(len(draws))
    np.testing.assert_array_less(abs(draws.mean(axis=0) - mean), Z * error + 1e-12)
