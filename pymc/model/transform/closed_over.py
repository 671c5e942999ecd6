# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Make data in the closure of a `CustomDist` parameters of it, so that batches take rows of them.

``logp=partial(weighted, weights=w)`` has a weight for each row that is not in the graph of the model,
since the function is called when the log-probability is derived. Such data are found in the graph of the
log-probability, by the position of their rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pytensor.compile.sharedvalue import SharedVariable
from pytensor.graph.basic import Apply, Constant, Variable
from pytensor.raise_op import CheckAndRaise
from pytensor.tensor.math import Sum
from pytensor.tensor.random.op import RandomVariable
from pytensor.tensor.utils import safe_signature

from pymc.distributions.custom import CustomDistRV, CustomSymbolicDistRV
from pymc.logprob.abstract import _logprob
from pymc.minibatch.minibatch import axis_length
from pymc.minibatch.rebuild import rebuild
from pymc.minibatch.subsample import find_positional_rows
from pymc.pytensorf import current_length


class _Graph(NamedTuple):
    """A log-probability, and its inputs for the value and the parameters."""

    inputs: Sequence[Variable]
    logp: Variable


class ClosedOverRV(CustomSymbolicDistRV):
    """A `CustomDist` with the data that its functions closed over as its last parameters."""

    def __init__(self, *args: object, graph: _Graph | None, **kwargs: object) -> None:
        self.graph = graph
        self.inline_logprob = graph is None
        super().__init__(*args, **kwargs)

    def __eq__(self, other: object) -> bool:
        return super().__eq__(other) and self.graph is other.graph  # type: ignore[attr-defined]

    def __hash__(self) -> int:
        return super().__hash__()


@_logprob.register(ClosedOverRV)
def _closed_over_logprob(op: ClosedOverRV, values: Any, *inputs: Any, **kwargs: object) -> Variable:
    if op.graph is None:
        raise NotImplementedError(f"the logp of {op} is derived from its graph")
    _, _, params = op.get_input_output_type_idxs(op.extended_signature)[0]
    new = [*values, *(inputs[k] for k in params)]
    [logp] = rebuild([op.graph.logp], dict(zip(op.graph.inputs, new, strict=True)))
    return logp


class _Parts(NamedTuple):
    """The inputs of a `CustomDist`, and its graph of draws."""

    size: Variable
    params: list[Variable]
    rngs: list[Variable]
    inner_inputs: list[Variable]  # in the order of size, params, rngs
    inner_outputs: list[Variable]  # draws, and updates of generators


def with_closed_over_rows(rv: Variable, axis: int, n_rows: int) -> Variable:
    """Make parameters of the rows of data that the functions of a `CustomDist` close over.

    `axis` is that of the rows of `rv`, and `n_rows` their number. Without such data, `rv` is returned.
    """
    node = rv.owner
    if node is None or not isinstance(node.op, CustomDistRV | CustomSymbolicDistRV):
        return rv
    batch_ndim = rv.type.ndim - node.op.ndim_supp
    parts = _parts(node)
    graph = None
    if isinstance(node.op, CustomDistRV) or not node.op.inline_logprob:
        try:
            graph = _graph(node, parts, rv, n_rows)
        except NotImplementedError:  # it has draws only
            return rv
    term = parts.inner_outputs[0] if graph is None else _before_sum(graph.logp)
    if not axis < batch_ndim or not axis < term.type.ndim:
        return rv
    data, ndims = [], []
    for root, axes in find_positional_rows([(term, axis)], n_rows).data.items():
        # Aligned from the right, as in broadcasting: axes after those of the draws are of one draw
        ndim = root.type.ndim - (batch_ndim - axis + axes[0])
        is_data = isinstance(root, Constant | SharedVariable) and len(axes) == 1 and ndim >= 0
        if is_data and current_length(axis_length(root, axes[0])) == n_rows:
            data.append(root)
            ndims.append(ndim)
    new = [_with_any_length(var, n_rows) for var in data]
    return _with_parameters(node, parts, graph, dict(zip(data, new)), ndims) if data else rv


def _parts(node: Apply) -> _Parts:
    if isinstance(node.op, RandomVariable):
        rng, size, *params = node.inputs
        inner = [var if isinstance(var, Constant) else var.type() for var in (size, *params, rng)]
        update, draw = node.op.make_node(inner[-1], *inner[:-1]).outputs
        return _Parts(size, params, [rng], inner, [draw, update])
    (rngs, size, params), _ = node.op.get_input_output_type_idxs(node.op.extended_signature)
    order = [size, *params, *rngs]
    opened = node.op.fgraph.unfreeze()
    return _Parts(
        node.inputs[size],
        [node.inputs[k] for k in params],
        [node.inputs[k] for k in rngs],
        [opened.inputs[k] for k in order],
        list(opened.outputs),
    )


def _graph(node: Apply, parts: _Parts, rv: Variable, n_rows: int) -> _Graph:
    value, *params = [_with_any_length(var, n_rows) for var in (rv, *parts.params)]
    inputs = dict(zip(parts.params, params))
    logp = _logprob(node.op, [value], *(inputs.get(var, var) for var in node.inputs))
    return _Graph([value, *params], logp)


def _with_any_length(var: Any, n_rows: int) -> Variable:
    """Return an input like `var`, of any number of rows, so that no length is constant."""
    return var.type.clone(shape=tuple(None if n == n_rows else n for n in var.type.shape))()


def _before_sum(logp: Variable) -> Variable:
    """Return the log-probability of each row, of which a function may return the sum."""
    while logp.owner is not None and isinstance(logp.owner.op, Sum | CheckAndRaise):
        logp = logp.owner.inputs[0]
    return logp


def _with_parameters(
    node: Apply,
    parts: _Parts,
    graph: _Graph | None,
    data: Mapping[Variable, Variable],
    ndims: Sequence[int],
) -> Variable:
    new = list(data.values())
    draw, *updates = parts.inner_outputs
    if graph is None:
        draw, *updates = rebuild([draw, *updates], data)
    else:
        [logp] = rebuild([graph.logp], data)
        graph = _Graph([*graph.inputs, *new], logp)
    op = node.op
    params, draws = safe_signature([*op.ndims_params, *ndims], [op.ndim_supp]).split("->")
    rngs = ",[rng]" * len(parts.rngs)
    n_first = 1 + len(parts.params)
    new_op = ClosedOverRV(
        inputs=[*parts.inner_inputs[:n_first], *new, *parts.inner_inputs[n_first:]],
        outputs=[draw, *updates],
        extended_signature=f"[size],{params}{rngs}->{draws}{rngs}",
        graph=graph,
    )
    new_op._print_name = op._print_name
    rv = new_op.make_node(parts.size, *parts.params, *data, *parts.rngs).outputs[0]
    rv.name = node.outputs[0 if isinstance(op, CustomSymbolicDistRV) else 1].name
    return rv
