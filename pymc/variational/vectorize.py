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
from pytensor.tensor.type_other import NoneTypeT
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

# Ops whose inputs after the first one are lengths
OPS_OF_LENGTH = (Alloc, Reshape, Subtensor, IncSubtensor)

without_views = dfs_rewriter(local_view_op)

# Entries of the largest variable of a model for which all particles are computed at once. Above it, a loop over
# the particles costs next to nothing, while all of them together would not fit into a cache or into memory.
LARGEST = 2**14


def check_lengths(nodes: Sequence[Variable], inputs: Sequence[Variable], largest: float) -> None:
    """Raise a NotImplementedError if a length depends on the draw, or if one draw has over `largest` entries."""
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
    """Compute graphs at draws of variables; extra leading axes of draws become axes of the results.

    Parameters
    ----------
    graphs : sequence of Variable
    draws : mapping of Variable to Variable
        The draw of each variable; for one with named dims, a tensor with its axes in their order. Draws with
        extra leading axes all have the same number of them, and broadcast.
    largest : float
        If a variable of one draw has more entries, the draws are computed one after the other by a Scan, as
        they are if an Op cannot be vectorized.

    Returns
    -------
    list of Variable
        Graphs with named dims become tensors with their axes in their order.

    Raises
    ------
    NotImplementedError
        If a Scan would have to draw random variables in the graphs.
    """
    graphs, draws = _by_position(graphs, draws)
    one = {old: new for old, new in draws.items() if new.type.ndim == old.type.ndim}
    many = {old: new for old, new in draws.items() if new.type.ndim > old.type.ndim}
    if one:
        graphs = list(graph_replace(graphs, one, strict=False))
    above = set(ancestors(graphs)) if many else set()
    many = {old: new for old, new in many.items() if old in above}
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
    """Compute graphs as :func:`at_draws` does, but give all of them the leading axis."""
    return [
        new if new.type.ndim > old.type.ndim else pt.broadcast_to(new, (n_draws, *new.shape))
        for old, new in zip(graphs, at_draws(graphs, draws, largest))
    ]


def at_one_draw(graphs: Sequence[Variable], draws: Mapping[Variable, Variable]) -> list[Variable]:
    """Compute graphs at one draw of variables, of any number of rows."""
    graphs, draws = _by_position(graphs, draws)
    return rebuild(graphs, draws)


def _vectorized(graphs: Sequence[Variable], many: Mapping[Variable, Variable]) -> list[Variable]:
    """Vectorize graphs; random variables keep the sizes that no draw changes."""
    graphs = _with_moving_first_parameters(graphs, many)
    # If a size and a parameter depend on the same data, vectorize_graph would take the size for a batched one
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


def _with_moving_first_parameters(
    graphs: Sequence[Variable], many: Mapping[Variable, Variable]
) -> list[Variable]:
    """Broadcast the first parameter of random variables against one that draws change.

    PyTensor extends the size by the axes that draws add to the first parameter, and to no other: the fixed nu of
    a Student-t would leave it as it is.
    """
    moved = _dependent(graphs, many)
    for node in toposort(graphs, blockers=list(many)):
        if not isinstance(node.op, RandomVariable) or isinstance(node.inputs[1].type, NoneTypeT):
            continue
        first, *others = node.op.dist_params(node)
        ndim_of_first, *ndims = node.op.ndims_params
        moving = [(var, ndim) for var, ndim in zip(others, ndims) if var in moved]
        if moving and first not in moved:
            var, ndim = moving[0]
            zeros = pt.zeros_like(var[(..., *[0] * ndim)], dtype=first.dtype)
            first = first + pt.shape_padright(zeros, ndim_of_first)
            new = node.op.make_node(*node.inputs[:2], first, *others).outputs
            replaced = graph_replace(list(graphs), dict(zip(node.outputs, new)), strict=False)
            return _with_moving_first_parameters(replaced, many)  # later nodes are new ones
    return list(graphs)


def _by_position(
    graphs: Sequence[Variable], draws: Mapping[Variable, Variable]
) -> tuple[list[Variable], Mapping[Variable, Variable]]:
    """Lower graphs of named dims to graphs of tensors, since named dims of 1 and of n do not broadcast."""
    if not any(isinstance(var, XTensorVariable) for var in [*ancestors(graphs), *draws]):
        return list(graphs), draws
    # The keys may be within the graph, which is cloned below
    inputs = {old: as_tensor(old).type(old.name) for old in draws}
    named = {
        old: as_xtensor(var, dims=old.type.dims) if isinstance(old, XTensorVariable) else var
        for old, var in inputs.items()
    }
    graphs = [as_tensor(graph) for graph in graph_replace(list(graphs), named, strict=False)]
    fgraph = FunctionGraph(outputs=graphs, clone=True, copy_inputs=False)
    without_names(fgraph)
    return list(fgraph.outputs), {inputs[old]: as_tensor(new) for old, new in draws.items()}


def without_names(fgraph: FunctionGraph) -> None:
    """Lower Ops of named dims to those of tensors, in place."""
    without_views.rewrite(fgraph)  # deterministics are views, which cannot be lowered
    rewrite_graph(fgraph, include=("lower_xtensor",))


def as_tensor(var: Variable) -> Variable:
    """Return a variable without the names of its dims."""
    return var.values if isinstance(var, XTensorVariable) else var


def _scanned(graphs: Sequence[Variable], draws: Mapping[Variable, Variable]) -> list[Variable]:
    """Compute graphs at each draw by a Scan; those that depend on none stay as they are."""
    depends = _dependent(graphs, draws)
    moving = [graph for graph in graphs if graph in depends]
    for var in ancestors(moving):
        if var in depends and var.owner is not None and isinstance(var.owner.op, RNGConsumerOp):
            raise NotImplementedError(f"{var.owner.op} cannot be drawn for many values at once")
    n_dims = next(new.type.ndim - old.type.ndim for old, new in draws.items())
    sample_shape = [pt.max([new.shape[k] for new in draws.values()]) for k in range(n_dims)]
    sequences = []
    for new in draws.values():
        rest = [new.shape[k] for k in range(n_dims, new.type.ndim)]
        sequences.append(pt.broadcast_to(new, (*sample_shape, *rest)).reshape((-1, *rest)))
    one_draw, batch_rows = _without_batch(moving)

    def step(*values: Variable) -> list[Variable]:
        return list(graph_replace(one_draw, dict(zip(draws, values)), strict=False))

    found = pytensor.scan(step, sequences, return_updates=False)
    found = graph_replace(found if isinstance(found, list) else [found], batch_rows, strict=False)
    shaped = {
        graph: new.reshape((*sample_shape, *(new.shape[k] for k in range(1, new.type.ndim))))
        for graph, new in zip(moving, found)
    }
    return [shaped.get(graph, graph) for graph in graphs]


def _dependent(graphs: Sequence[Variable], inputs: Iterable[Variable]) -> set[Variable]:
    """Return `inputs` and all variables of graphs that depend on them."""
    found = set(inputs)
    for node in toposort(graphs, blockers=list(found)):
        if not found.isdisjoint(node.inputs):
            found.update(node.outputs)
    return found


def _without_batch(graphs: Sequence[Variable]) -> tuple[list[Variable], dict[Variable, Variable]]:
    """Put placeholders for the rows of a batch into graphs, so that a Scan does not draw them anew.

    Returns the graphs, and the rows by their placeholder.
    """
    # Deriving a log-probability clones an index. Clones have one state, and are one draw
    clones: dict[Variable, list[Variable]] = {}
    for var in ancestors(list(graphs)):
        op = None if var.owner is None else var.owner.op
        if isinstance(op, StreamedRows) or (isinstance(op, MinibatchIndexRV) and var.index == 1):
            clones.setdefault(var.owner.inputs[0], []).append(var)
    if not clones:
        return list(graphs), {}
    placeholders = {state: alike[0].type() for state, alike in clones.items()}
    replaced = {var: placeholders[state] for state, alike in clones.items() for var in alike}
    rows = {placeholders[state]: max(alike, key=_n_checks) for state, alike in clones.items()}
    return list(graph_replace(list(graphs), replaced, strict=False)), rows


def _n_checks(var: Variable) -> int:
    """Count the variables that the number of rows depends on: the more data it is checked against, the better."""
    return len(set(ancestors(var.owner.inputs[1:])))


def draw_anew(nodes: Sequence[Variable], given: Sequence[Variable]) -> None:
    """Let each evaluation of `nodes` be a new draw; without this, ``eval()`` repeats one.

    `given` are the graphs that the nodes were made from. Generators in them belong to the model, and stay as
    they are.
    """
    kept = collect_default_updates(list(given))
    for rng, next_rng in collect_default_updates(list(nodes)).items():
        if rng not in kept:
            # PyTensor plans to ask for updates at each compilation
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                rng.default_update = next_rng
