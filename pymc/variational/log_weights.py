#   Copyright 2026 - present The PyMC Developers
#
#   Licensed under the Apache License, Version 2.0 (the "License");
#   you may not use this file except in compliance with the License.
#   You may obtain a copy of the License at
#
#       http://www.apache.org/licenses/LICENSE-2.0
#
#   Unless required by applicable law or agreed to in writing, software
#   distributed under the License is distributed on an "AS IS" BASIS,
#   WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
#   See the License for the specific language governing permissions and
#   limitations under the License.
"""Log-weights of draws: log p - log q with the axes of particles and of rows kept.

A model's log-probability is a sum of terms. A term on a plate has a value for each row, so what is summed
here is within a row only; sums over rows and over particles are left to objectives, which differ in
their order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytensor.tensor as pt

from pytensor.graph.basic import Variable
from pytensor.graph.replace import graph_replace, vectorize_graph
from pytensor.graph.traversal import ancestors

from pymc.minibatch.plates import known_axes
from pymc.minibatch.provenance import Lost, Rows, trace
from pymc.minibatch.scaling import scale_factor
from pymc.variational.guides.base import Plate, plate_shape
from pymc.variational.particles import check_lengths

__all__ = ["Term", "at_draws", "plate_scale", "terms_of"]


@dataclass(frozen=True)
class Term:
    """A part of the log-probability of a model.

    Parameters
    ----------
    name : str
    plate : tuple of Rows
        The rows that it has a value for; empty for a global one.
    logp : Variable
        In nats, with the axes of the plate in their order. A term of a plate is that of the rows of a
        batch, and not scaled to all rows.
    mixed : str
        Why its rows cannot be told apart, empty where they can. Its `logp` is then what the term
        adds to that of the model, and it has no plate.
    """

    name: str
    plate: Plate
    logp: Variable
    mixed: str = ""


def terms_of(model: Any) -> list[Term]:
    """Take the log-probability of a model apart, as functions of its value variables.

    Parameters
    ----------
    model : Model

    Returns
    -------
    list of Term
        One for each free and observed variable, Jacobian included, and for each Potential.
    """
    variables = [*model.basic_RVs, *model.potentials]
    known = known_axes(model)
    return [
        _term(var.name, logp, known)
        for var, logp in zip(variables, model.logp(vars=variables, sum=False))
    ]


def _term(name: str, logp: Variable, known: Mapping[Variable, Any]) -> Term:
    axes = trace(logp, known)
    if isinstance(axes, Lost):
        return Term(name, (), logp.sum(), axes.why)
    plate = tuple(axis for axis in axes if isinstance(axis, Rows))
    if plate:
        logp = logp / plate_scale(plate)
    within = [k for k, axis in enumerate(axes) if not isinstance(axis, Rows)]
    return Term(name, plate, logp.sum(within) if within else logp)


def plate_scale(plate: Sequence[Rows]) -> Variable:
    """Rows in all by rows of the batch."""
    return scale_factor([rows.total for rows in plate], plate_shape(plate))


def at_draws(graphs: Sequence[Variable], draws: Mapping[Variable, Variable]) -> list[Variable]:
    """Compute graphs at draws of variables: draws with more axes than the variable give these axes.

    Parameters
    ----------
    graphs : sequence of Variable
    draws : mapping of Variable to Variable
        What takes the place of each variable. Those that have leading axes more than the variable all
        have the same number of them, and broadcast.

    Returns
    -------
    list of Variable
        A graph that depends on a draw with leading axes has these too.
    """
    one = {old: new for old, new in draws.items() if new.type.ndim == old.type.ndim}
    many = {old: new for old, new in draws.items() if new.type.ndim > old.type.ndim}
    graphs = list(graphs)
    if one:
        graphs = graph_replace(graphs, one, strict=False)
    if not many:
        return graphs
    many = {old: new for old, new in many.items() if old in set(ancestors(graphs))}
    if not many:
        return graphs
    try:
        check_lengths(graphs, list(many))
        return vectorize_graph(graphs, many)
    except (NotImplementedError, TypeError, ValueError):  # an Op without a form for many values
        return _one_by_one(graphs, many)


def _one_by_one(graphs: Sequence[Variable], draws: Mapping[Variable, Variable]) -> list[Variable]:
    """Compute graphs at each draw by a copy of their own."""
    n_lead = next(new.type.ndim - old.type.ndim for old, new in draws.items())
    shapes = [new.type.shape[:n_lead] for new in draws.values()]
    if any(n is None for shape in shapes for n in shape):
        raise NotImplementedError("the number of draws has to be known for this model")
    lead = np.broadcast_shapes(*shapes)  # type: ignore[arg-type]
    copies = []
    for place in np.ndindex(lead):
        one = {
            old: new[tuple(min(k, n - 1) for k, n in zip(place, new.type.shape))]
            for old, new in draws.items()
        }
        copies.append(graph_replace(list(graphs), one, strict=False))
    stacked = [pt.stack(each) for each in zip(*copies)]
    return [
        each.reshape((*lead, *(each.shape[k] for k in range(1, each.type.ndim))))
        for each in stacked
    ]
