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
"""What is returned of a model by rows: its variables, and along which axes each has them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from pytensor.graph.basic import Variable
from pytensor.graph.traversal import ancestors

from pymc.minibatch.plates import known_axes, local_axes, rows_by_axis
from pymc.minibatch.provenance import Lost, Rows, indexes, trace
from pymc.minibatch.rebuild import rebuild
from pymc.variational.minibatch_rv import (  # type: ignore[attr-defined]  # of the release
    MinibatchRandomVariable,
    unscaled_rv,
)

__all__ = ["Output", "chosen", "latent_outputs", "observed_outputs"]


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
    """

    name: str
    graph: Variable
    axes: tuple[Rows | None, ...]
    mixed: str = ""


def latent_outputs(model: Any, include_transformed: bool = False) -> list[Output]:
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


def _deterministic(model: Any, var: Variable, graph: Variable) -> Output:
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


def observed_outputs(model: Any) -> list[Output]:
    """List observed variables, not scaled, as functions of the free variables: draws of new data."""
    bare = [unscaled_rv(rv)[0] for rv in model.observed_RVs]
    graphs = rebuild(bare, {}, bypass=lambda node: isinstance(node.op, MinibatchRandomVariable))
    return [
        Output(rv.name, graph, rows_by_axis(model, rv.name))
        for rv, graph in zip(model.observed_RVs, graphs)
    ]


def chosen(
    outputs: Sequence[Output], var_names: Sequence[str] | str | None, function: str
) -> list[Output]:
    """Take the outputs that a user names, all by default.

    Raises
    ------
    ValueError
        If there is none of a name.
    """
    if var_names is None:
        return list(outputs)
    names = [var_names] if isinstance(var_names, str) else list(var_names)
    known = {output.name: output for output in outputs}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(
            f"var_names of {function} has {', '.join(map(repr, unknown))}, but the variables that it "
            f"can return are {list(known)}"
        )
    return [known[name] for name in names]
