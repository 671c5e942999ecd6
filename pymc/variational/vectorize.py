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
"""A graph at many draws of an approximation at once: with an axis for the particles, without a Scan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytensor.tensor as pt

from pytensor.graph.basic import Variable
from pytensor.graph.fg import FunctionGraph
from pytensor.graph.replace import graph_replace, vectorize_graph
from pytensor.graph.rewriting.basic import dfs_rewriter
from pytensor.graph.rewriting.utils import rewrite_graph
from pytensor.graph.traversal import ancestors, toposort
from pytensor.tensor.basic import Alloc, ARange, Nonzero
from pytensor.tensor.extra_ops import Repeat, Unique
from pytensor.tensor.random.op import RandomVariable
from pytensor.tensor.rewriting.basic import local_view_op
from pytensor.tensor.shape import Reshape, Shape, Shape_i
from pytensor.tensor.subtensor import AdvancedSubtensor, IncSubtensor, Subtensor
from pytensor.xtensor.type import XTensorVariable, as_xtensor

from pymc.minibatch.rebuild import rebuild

__all__ = ["as_tensor", "at_draws", "at_one_draw", "fits_in_memory", "over_particles"]

# What has entries for lengths after its first input
OPS_OF_LENGTH = (Alloc, Reshape, Subtensor, IncSubtensor)

without_views = dfs_rewriter(local_view_op)

# Entries of the largest variable of a model. Above it, a loop over the particles costs next to nothing
# beside what is in it, while all of them at once would no longer fit into a cache, or into memory.
LARGEST = 2**14


def over_particles(
    nodes: Sequence[Variable], inputs: Sequence[Variable], draws: Sequence[Variable]
) -> list[Variable]:
    """Compute nodes for each particle.

    Parameters
    ----------
    nodes : sequence of Variable
    inputs : sequence of Variable
        Vectors of shape (d,) that the nodes depend on: one draw of each group.
    draws : sequence of Variable
        As many matrices of shape (n_particles, d).

    Returns
    -------
    list of Variable
        Each with a leading axis of length n_particles.

    Raises
    ------
    NotImplementedError, TypeError, ValueError
        If an Op of the graph has no form for many values at once.
    """
    check_lengths(nodes, inputs)
    n_particles = draws[0].shape[0]
    replaced = vectorize_graph(list(nodes), dict(zip(inputs, draws)))
    return [
        new if new.type.ndim > old.type.ndim else pt.broadcast_to(new, (n_particles, *new.shape))
        for old, new in zip(nodes, replaced)
    ]


def check_lengths(
    nodes: Sequence[Variable], inputs: Sequence[Variable], largest: float = LARGEST
) -> None:
    """Refuse a graph whose lengths depend on the draw, or that has over `largest` entries for one.

    Raises
    ------
    NotImplementedError
    """
    depends = set(inputs)
    for node in toposort(nodes):
        found = [i for i, var in enumerate(node.inputs) if var in depends]
        if not found or isinstance(node.op, Shape | Shape_i):
            continue
        depends.update(node.outputs)
        by_length = isinstance(node.op, OPS_OF_LENGTH) and found[-1] > 0
        by_mask = isinstance(node.op, AdvancedSubtensor) and any(
            node.inputs[i].type.dtype == "bool" for i in found if i > 0
        )
        if by_length or by_mask or isinstance(node.op, Nonzero | Unique | ARange | Repeat):
            raise NotImplementedError(f"a length depends on the draw in {node}")
        for var in node.outputs:
            shape: Any = getattr(var.type, "shape", (None,))
            if None not in shape and np.prod(shape, dtype=float) > largest:
                raise NotImplementedError(f"{var} is large for each particle")


def fits_in_memory(model: Any) -> bool:
    """Tell whether the variables of a model are small enough to be held for each particle."""
    for rv in model.basic_RVs:
        shape = model.rvs_to_values[rv].type.shape
        if None in shape:
            shape = as_tensor(rv).shape.eval(mode="FAST_COMPILE")
        if np.prod(shape, dtype=float) > LARGEST:
            return False
    return True


def at_draws(graphs: Sequence[Variable], draws: Mapping[Variable, Variable]) -> list[Variable]:
    """Compute graphs at draws of variables: draws with more axes than the variable give these axes.

    Parameters
    ----------
    graphs : sequence of Variable
    draws : mapping of Variable to Variable
        What takes the place of each variable; of one with named dims, a tensor with its axes in their
        order. Those that have leading axes more than the variable all have the same number of them,
        and broadcast.

    Returns
    -------
    list of Variable
        A graph that depends on a draw with leading axes has these too. One with named dims becomes a
        tensor with its axes in their order.
    """
    graphs, draws = _by_position(graphs, draws)
    one = {old: new for old, new in draws.items() if new.type.ndim == old.type.ndim}
    many = {old: new for old, new in draws.items() if new.type.ndim > old.type.ndim}
    graphs = list(graphs)
    if one:
        graphs = list(graph_replace(graphs, one, strict=False))
    if not many:
        return graphs
    many = {old: new for old, new in many.items() if old in set(ancestors(graphs))}
    if not many:
        return graphs
    try:
        check_lengths(graphs, list(many), np.inf)
        return _vectorized(graphs, many)
    except (NotImplementedError, TypeError, ValueError):  # an Op without a form for many values
        return _one_by_one(graphs, many)


def at_one_draw(graphs: Sequence[Variable], draws: Mapping[Variable, Variable]) -> list[Variable]:
    """Compute graphs at one draw of variables, with any number of rows, and not that of a batch."""
    graphs, draws = _by_position(graphs, draws)
    return rebuild(graphs, draws)


def _vectorized(graphs: Sequence[Variable], many: Mapping[Variable, Variable]) -> list[Variable]:
    """Vectorize graphs, in which random variables keep the sizes that no draw changes.

    Where a size and a parameter are of the same data, `vectorize_graph` takes the size for a new one.
    """
    sizes: dict[Variable, Variable] = {}
    above = list(toposort(graphs, blockers=list(many)))
    moved = set(many)
    for node in above:
        if not moved.isdisjoint(node.inputs):
            moved.update(node.outputs)
        if isinstance(node.op, RandomVariable):
            size = node.op.size_param(node)
            if size not in moved and size.owner is not None:
                sizes[size] = size.type()
    held = rebuild(graphs, {**{var: var for var in many}, **sizes})
    found = list(vectorize_graph(held, many))
    back = {new: old for old, new in sizes.items()}
    return list(graph_replace(found, back, strict=False)) if back else found


def _by_position(
    graphs: Sequence[Variable], draws: Mapping[Variable, Variable]
) -> tuple[list[Variable], Mapping[Variable, Variable]]:
    """Write graphs of named dims as graphs of tensors: named dims of 1 and of n do not broadcast."""
    if not any(isinstance(var, XTensorVariable) for var in [*ancestors(graphs), *draws]):
        return list(graphs), draws
    # The keys may be within the graph, which is cloned below
    inputs = {old: as_tensor(old).type(old.name) for old in draws}
    named = {old: _like(old, var) for old, var in inputs.items()}
    graphs = [as_tensor(graph) for graph in graph_replace(list(graphs), named, strict=False)]
    fgraph = FunctionGraph(outputs=graphs, clone=True, copy_inputs=False)
    without_views.rewrite(fgraph)  # deterministics are views, which have no form without names
    rewrite_graph(fgraph, include=("lower_xtensor",))
    return list(fgraph.outputs), {inputs[old]: as_tensor(new) for old, new in draws.items()}


def as_tensor(var: Variable) -> Variable:
    """Leave out the names of dims, where there are some."""
    return var.values if isinstance(var, XTensorVariable) else var


def _like(old: Variable, var: Variable) -> Variable:
    return as_xtensor(var, dims=old.type.dims) if isinstance(old, XTensorVariable) else var


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
