# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Graphs at many draws: with an axis for the draws, or a Scan where an Op has no such form."""

from __future__ import annotations

import warnings

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pytensor
import pytensor.tensor as pt

from pytensor.conditional.op import IfElse
from pytensor.graph.basic import Variable
from pytensor.graph.fg import FunctionGraph
from pytensor.graph.replace import graph_replace, vectorize_graph
from pytensor.graph.rewriting.basic import dfs_rewriter
from pytensor.graph.rewriting.utils import rewrite_graph
from pytensor.graph.traversal import ancestors, toposort
from pytensor.tensor.basic import Alloc, ARange, Nonzero
from pytensor.tensor.extra_ops import Repeat, Unique
from pytensor.tensor.random.op import RandomVariable, RNGConsumerOp
from pytensor.tensor.rewriting.basic import local_view_op
from pytensor.tensor.shape import Reshape, Shape, Shape_i
from pytensor.tensor.subtensor import AdvancedSubtensor, IncSubtensor, Subtensor
from pytensor.xtensor.type import XTensorVariable, as_xtensor

from pymc.minibatch.index import MinibatchIndexRV
from pymc.minibatch.rebuild import rebuild
from pymc.minibatch.stream_index import StreamedRows
from pymc.pytensorf import collect_default_updates

if TYPE_CHECKING:
    from pymc.model.core import Model

__all__ = [
    "as_tensor",
    "at_draws",
    "at_each_draw",
    "at_one_draw",
    "draw_anew",
    "largest_at_once",
    "without_names",
]

# What has entries for lengths after its first input
OPS_OF_LENGTH = (Alloc, Reshape, Subtensor, IncSubtensor)

without_views = dfs_rewriter(local_view_op)

# Entries of the largest variable of a model. Above it, a loop over the particles costs next to nothing
# beside what is in it, while all of them at once would no longer fit into a cache, or into memory.
LARGEST = 2**14


def check_lengths(nodes: Sequence[Variable], inputs: Sequence[Variable], largest: float) -> None:
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
        if isinstance(node.op, IfElse):  # Blockwise has no form for a lazy Op
            raise NotImplementedError(f"{node.op} has no form for many draws")
        if by_length or by_mask or isinstance(node.op, Nonzero | Unique | ARange | Repeat):
            raise NotImplementedError(f"a length depends on the draw in {node}")
        for var in node.outputs:
            shape: Any = getattr(var.type, "shape", (None,))
            if None not in shape and np.prod(shape, dtype=float) > largest:
                raise NotImplementedError(f"{var} is large for each draw")


def largest_at_once(model: Model) -> float:
    """Return the `largest` of :func:`at_draws` for particles of a model, 0 where its variables are large."""
    for rv in model.basic_RVs:
        shape = model.rvs_to_values[rv].type.shape
        if None in shape:
            shape = as_tensor(rv).shape.eval(mode="FAST_COMPILE")
        if np.prod(shape, dtype=float) > LARGEST:
            return 0
    return LARGEST


def at_draws(
    graphs: Sequence[Variable], draws: Mapping[Variable, Variable], largest: float = np.inf
) -> list[Variable]:
    """Compute graphs at draws of variables: draws with more axes than the variable give these axes.

    Parameters
    ----------
    graphs : sequence of Variable
    draws : mapping of Variable to Variable
        What takes the place of each variable; of one with named dims, a tensor with its axes in their
        order. Those that have leading axes more than the variable all have the same number of them,
        and broadcast.
    largest : float
        Entries of a variable of one draw above which draws are computed one after the other, by a Scan. So
        they are where an Op has no form for many values at once.

    Returns
    -------
    list of Variable
        A graph that depends on a draw with leading axes has these too. One with named dims becomes a
        tensor with its axes in their order.

    Raises
    ------
    NotImplementedError
        If random variables in the graphs would have to be drawn by a Scan.
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
        check_lengths(graphs, list(many), largest)
        return _vectorized(graphs, many)
    except (NotImplementedError, TypeError, ValueError):  # an Op without a form for many values
        return _scanned(graphs, many)


def at_each_draw(
    graphs: Sequence[Variable],
    draws: Mapping[Variable, Variable],
    n_draws: Any,
    largest: float = np.inf,
) -> list[Variable]:
    """Compute graphs as :func:`at_draws` does; those that depend on no draw have the leading axis too."""
    return [
        new if new.type.ndim > old.type.ndim else pt.broadcast_to(new, (n_draws, *new.shape))
        for old, new in zip(graphs, at_draws(graphs, draws, largest))
    ]


def at_one_draw(graphs: Sequence[Variable], draws: Mapping[Variable, Variable]) -> list[Variable]:
    """Compute graphs at one draw of variables, with any number of rows, and not that of a batch."""
    graphs, draws = _by_position(graphs, draws)
    return rebuild(graphs, draws)


def _vectorized(graphs: Sequence[Variable], many: Mapping[Variable, Variable]) -> list[Variable]:
    """Vectorize graphs, in which random variables keep the sizes that no draw changes.

    Where a size and a parameter are of the same data, `vectorize_graph` takes the size for a new one.
    """
    sizes: dict[Variable, Variable] = {}
    moved = _dependent(graphs, many)
    for node in toposort(graphs, blockers=list(many)):
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
    without_names(fgraph)
    return list(fgraph.outputs), {inputs[old]: as_tensor(new) for old, new in draws.items()}


def without_names(fgraph: FunctionGraph) -> None:
    """Write what is computed with named dims by Ops of tensors, in place."""
    without_views.rewrite(fgraph)  # deterministics are views, which have no form without names
    rewrite_graph(fgraph, include=("lower_xtensor",))


def as_tensor(var: Variable) -> Variable:
    """Leave out the names of dims, where there are some."""
    return var.values if isinstance(var, XTensorVariable) else var


def _like(old: Variable, var: Variable) -> Variable:
    return as_xtensor(var, dims=old.type.dims) if isinstance(old, XTensorVariable) else var


def _scanned(graphs: Sequence[Variable], draws: Mapping[Variable, Variable]) -> list[Variable]:
    """Compute graphs at each draw by a Scan; those that depend on none stay as they are."""
    depends = _dependent(graphs, draws)
    moving = [graph for graph in graphs if graph in depends]
    drawn = [var for var in ancestors(moving) if var in depends and _is_drawn(var)]
    if drawn:
        raise NotImplementedError(f"{drawn[0].owner.op} cannot be drawn for many values at once")
    n_lead = next(new.type.ndim - old.type.ndim for old, new in draws.items())
    lead = [pt.max([new.shape[k] for new in draws.values()]) for k in range(n_lead)]
    flat = []
    for new in draws.values():
        rest = [new.shape[k] for k in range(n_lead, new.type.ndim)]
        flat.append(pt.broadcast_to(new, (*lead, *rest)).reshape((-1, *rest)))
    held, outward = _hold_batch(moving)

    def at_one(*values: Variable) -> list[Variable]:
        return list(graph_replace(held, dict(zip(draws, values)), strict=False))

    found = pytensor.scan(at_one, flat, return_updates=False)
    found = graph_replace(found if isinstance(found, list) else [found], outward, strict=False)
    shaped = {
        graph: new.reshape((*lead, *(new.shape[k] for k in range(1, new.type.ndim))))
        for graph, new in zip(moving, found)
    }
    return [shaped.get(graph, graph) for graph in graphs]


def _dependent(graphs: Sequence[Variable], inputs: Iterable[Variable]) -> set[Variable]:
    """Return all variables of graphs that depend on `inputs`, and these."""
    found = set(inputs)
    for node in toposort(graphs, blockers=list(found)):
        if not found.isdisjoint(node.inputs):
            found.update(node.outputs)
    return found


def _is_drawn(var: Variable) -> bool:
    return var.owner is not None and isinstance(var.owner.op, RNGConsumerOp)


def _hold_batch(graphs: Sequence[Variable]) -> tuple[list[Variable], dict[Variable, Variable]]:
    """Put placeholders for the rows of a batch into graphs, so that a Scan does not draw them anew.

    Returns
    -------
    graphs : list of Variable
    outward : dict of Variable to Variable
        For each placeholder what it stands for.
    """
    # Deriving a log-probability clones an index; clones have one state, and stand for one draw. Those of
    # the rows of a stream have one placeholder
    clones: dict[Variable, list[Variable]] = {}
    for var in ancestors(list(graphs)):
        if _is_of_the_batch(var):
            clones.setdefault(var.owner.inputs[0], []).append(var)
    if not clones:
        return list(graphs), {}
    held = {state: alike[0].type() for state, alike in clones.items()}
    inward = {var: held[state] for state, alike in clones.items() for var in alike}
    outward = {held[state]: max(alike, key=_n_checked) for state, alike in clones.items()}
    return list(graph_replace(list(graphs), inward, strict=False)), outward


def _is_of_the_batch(var: Variable) -> bool:
    """Return whether a variable is the index of a batch, or the rows of a stream."""
    if var.owner is None:
        return False
    is_index = isinstance(var.owner.op, MinibatchIndexRV) and var.index == 1
    return is_index or isinstance(var.owner.op, StreamedRows)


def _n_checked(var: Variable) -> int:
    """Count what the number of rows depends on: one that is checked against more data is the better."""
    return len(set(ancestors(var.owner.inputs[1:])))


def draw_anew(nodes: Sequence[Variable], given: Sequence[Variable]) -> None:
    """Let each evaluation of `nodes` move their generators on: without, ``eval()`` repeats one draw.

    Parameters
    ----------
    nodes : sequence of Variable
    given : sequence of Variable
        What they were made from. Its own generators belong to the model, and stay as they are.
    """
    kept = collect_default_updates(list(given))
    for rng, moved_on in collect_default_updates(list(nodes)).items():
        if rng not in kept:
            with (
                warnings.catch_warnings()
            ):  # of PyTensor's plan to ask for updates at each compilation
                warnings.simplefilter("ignore", DeprecationWarning)
                rng.default_update = moved_on
