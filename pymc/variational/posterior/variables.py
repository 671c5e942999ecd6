# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""List the variables that a result may have, and the axes of rows of each."""

from __future__ import annotations

import math

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytensor

from pytensor.compile.mode import Mode
from pytensor.graph.basic import Variable
from pytensor.graph.rewriting.db import RewriteDatabaseQuery
from pytensor.graph.traversal import ancestors
from pytensor.graph.utils import MissingInputError

from pymc.minibatch.batch_logp import minibatch_logp
from pymc.minibatch.plates import known_axes, local_axes, rows_by_axis
from pymc.minibatch.provenance import Lost, Rows, indexes, trace
from pymc.minibatch.rebuild import rebuild
from pymc.variational.minibatch_rv import (  # type: ignore[attr-defined]  # of the release
    MinibatchRandomVariable,
    get_scaling,
    unscaled_rv,
)
from pymc.variational.vectorize import as_tensor

if TYPE_CHECKING:
    from pymc.model.core import Model

__all__ = [
    "Output",
    "latent_outputs",
    "likelihood_outputs",
    "n_bytes",
    "observed_outputs",
    "of_rows",
    "with_lengths",
]

# The lengths of a graph, without the values that they are of
_OF_SHAPES = Mode("py", RewriteDatabaseQuery(include=["ShapeOpt", "canonicalize"]))


class Output(NamedTuple):
    """A variable of a model of minibatches.

    Parameters
    ----------
    name : str
    graph : Variable
        As a function of value variables, or of the free variables.
    axes : tuple of Rows or None
        For each axis, the rows that it holds; None for any other axis.
    mixed : str
        Why its rows cannot be computed part by part; empty where they can.
    lengths : tuple of int
        Of all axes, for all rows; empty before :func:`with_lengths` has found them.
    """

    name: str
    graph: Variable
    axes: tuple[Rows | None, ...]
    mixed: str = ""
    lengths: tuple[int, ...] = ()

    def size(self, positions: Mapping[Rows, np.ndarray]) -> int:
        """Count the numbers of one draw, of the rows at some positions."""
        lengths = self.lengths or tuple(length or 1 for length in self.graph.type.shape)
        return math.prod(
            length if axis is None else len(positions[axis])
            for axis, length in zip(self.axes, lengths)
        )

    def n_bytes(self, positions: Mapping[Rows, np.ndarray], n_draws: int) -> int:
        """Count the bytes of some draws, of the rows at some positions."""
        return n_draws * self.size(positions) * np.dtype(self.graph.type.dtype).itemsize


def latent_outputs(model: Model, include_transformed: bool = False) -> list[Output]:
    """List free variables and deterministics, as functions of the value variables.

    Parameters
    ----------
    model : Model
    include_transformed : bool
        Whether variables that are transformed have their unconstrained values there too.
    """
    local = local_axes(model)
    variables = [*model.free_RVs, *model.deterministics]
    graphs = model.replace_rvs_by_values(variables) if variables else []
    n_free = len(model.free_RVs)
    outputs = [
        Output(rv.name, graph, local.get(rv) or (None,) * rv.type.ndim)
        for rv, graph in zip(model.free_RVs, graphs)
    ]
    if include_transformed:
        for rv in model.free_RVs:
            value, axes = model.rvs_to_values[rv], local.get(rv, ())
            if value.name != rv.name:
                padded = (*axes, *(None,) * value.type.ndim)[: value.type.ndim]
                outputs.append(Output(value.name, value, padded))
    for var, graph in zip(model.deterministics, graphs[n_free:]):
        outputs.append(_deterministic(model, var, graph))
    return outputs


def _deterministic(model: Model, var: Variable, graph: Variable) -> Output:
    known = known_axes(model)
    axes = trace(var, known)
    if isinstance(axes, Lost):
        return Output(var.name, graph, (None,) * var.type.ndim, axes.why)
    rows = tuple(axis if isinstance(axis, Rows) else None for axis in axes)
    local = local_axes(model)
    above = set(ancestors([var]))
    needed = {Rows(index) for index in indexes([var])}
    needed |= {axis for rv, own in local.items() if rv in above for axis in own if axis is not None}
    gone = needed - set(rows)
    why = (
        f"it is computed over all rows of {' and '.join(str(r.dim) for r in gone)}" if gone else ""
    )
    return Output(var.name, graph, rows, why)


def observed_outputs(model: Model) -> list[Output]:
    """List observed variables, not scaled, as functions of the free variables: draws of new data."""
    bare = [unscaled_rv(rv)[0] for rv in model.observed_RVs]
    graphs = rebuild(bare, {}, bypass=lambda node: isinstance(node.op, MinibatchRandomVariable))
    return [
        Output(rv.name, graph, rows_by_axis(model, rv.name))
        for rv, graph in zip(model.observed_RVs, graphs)
    ]


def likelihood_outputs(model: Model) -> list[Output]:
    """List the log-probabilities of observed variables, not scaled, as functions of the value variables."""
    known = known_axes(model)
    with minibatch_logp():
        logps = model.logp(vars=model.observed_RVs, sum=False) if model.observed_RVs else []
    outputs = []
    for rv, logp in zip(model.observed_RVs, logps):
        axes, logp = trace(logp, known), as_tensor(logp)
        totals, value = unscaled_rv(rv)[1], model.rvs_to_values[rv]
        if any(total is not None for total in totals):
            logp = logp / get_scaling(totals, as_tensor(value).shape)
        why = axes.why if isinstance(axes, Lost) else ""
        rows = (None,) * logp.type.ndim if isinstance(axes, Lost) else axes
        kept = tuple(axis if isinstance(axis, Rows) else None for axis in rows)
        outputs.append(Output(rv.name, logp, kept, why))
    return outputs


def with_lengths(outputs: Sequence[Output], full_model: Callable[[], Any]) -> list[Output]:
    """Find the lengths of all axes, for all rows.

    Parameters
    ----------
    outputs : sequence of Output
    full_model : callable () -> Model
        Makes the model on all rows; called where a length is not known without.
    """
    # What is computed over all rows has the length of a batch in the graph
    static = {o.name: (None,) * len(o.axes) if o.mixed else o.graph.type.shape for o in outputs}
    unknown = [
        o.name
        for o in outputs
        if any(n is None and axis is None for n, axis in zip(static[o.name], o.axes))
    ]
    found: dict[str, Sequence[int]] = {}
    if unknown:
        named = full_model().named_vars
        names = [name for name in unknown if name in named]
        found = dict(zip(names, _shapes([named[name] for name in names])))
    return [
        o._replace(lengths=tuple(int(n or 1) for n in found.get(o.name, static[o.name])))
        for o in outputs
    ]


def of_rows(outputs: Iterable[Output], model: Model) -> list[Output]:
    """Take the outputs that have a value for each row of the data.

    Parameters
    ----------
    outputs : iterable of Output
        With lengths.
    model : Model
        On all rows. What has a dim or a length of an observed variable counts as of rows: a model of full
        data has no other sign of them.
    """
    observed = model.observed_RVs
    dims = {dim for rv in observed for dim in model.named_vars_to_dims.get(rv.name, ())}
    shapes = _shapes([model.rvs_to_values[rv] for rv in observed])
    lengths = {int(n) for shape in shapes for n in shape if n > 1}
    return [
        o
        for o in outputs
        if not dims.isdisjoint(model.named_vars_to_dims.get(o.name, ()))
        or not lengths.isdisjoint(o.lengths)
    ]


def n_bytes(variables: Iterable[Variable]) -> int:
    """Count the bytes of the values of some variables."""
    found = list(dict.fromkeys(variables))
    return sum(
        math.prod(map(int, shape)) * np.dtype(var.type.dtype).itemsize
        for var, shape in zip(found, _shapes(found))
    )


def _shapes(variables: Sequence[Variable]) -> list[Sequence[int]]:
    """Compute the shapes of variables; lengths that cannot be computed without an input are 1."""
    shapes = [as_tensor(var).shape for var in variables]
    try:
        return pytensor.function([], shapes, mode=_OF_SHAPES)() if shapes else []
    except (NotImplementedError, MissingInputError):
        return [[n or 1 for n in as_tensor(var).type.shape] for var in variables]
