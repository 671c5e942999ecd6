# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Axis rules for random variables: those of the parameters say which axes of a draw are rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pytensor.graph.basic import Apply, Variable
from pytensor.graph.op import HasInnerGraph, Op
from pytensor.graph.traversal import toposort
from pytensor.graph.type import HasShape
from pytensor.tensor.basic import MakeVector
from pytensor.tensor.random.op import RandomVariable, RNGConsumerOp
from pytensor.tensor.random.type import RandomType

from pymc.minibatch.axis_tracking import (
    BROADCAST,
    OTHER,
    Axes,
    Marginal,
    MarginalOfRows,
    Rows,
    Untracked,
    broadcast_axes,
    broadcast_axis,
    extended_signature,
    indexes,
    ndim_of,
    ndim_supp,
    output_axes,
    refuse_rows,
    require_tracked,
    rows_of,
    track_axes,
    track_inner,
)
from pymc.minibatch.index import MinibatchIndexRV
from pymc.minibatch.lengths import size_inputs


@output_axes.register(RandomVariable)
def _(op: RandomVariable, node: Apply, inputs: Sequence[Axes]) -> list[Axes]:
    return [(), _draw_axes(op, op.dist_params(node), inputs[2:], node.outputs[1])]


@output_axes.register(RNGConsumerOp)
def _(op: Op, node: Apply, inputs: Sequence[Axes]) -> list[Axes]:
    """Track a `SymbolicRandomVariable` by its signature, or else through its inner graph."""
    signature = extended_signature(op)
    if signature is None:
        return _axes_without_signature(op, node, inputs)
    (_, _, params), (_, draws) = op.get_input_output_type_idxs(signature)
    axes: list[Axes] = [(OTHER,) * ndim_of(out) for out in node.outputs]
    variables, params_axes = [node.inputs[p] for p in params], [inputs[p] for p in params]
    for k in draws:
        axes[k] = _draw_axes(op, variables, params_axes, node.outputs[k])
    return axes


def _draw_axes(op: Op, params: Sequence[Variable], axes: Sequence[Axes], draw: Variable) -> Axes:
    """Broadcast the batch axes of the parameters; the axes of one draw are `OTHER`."""
    batches = []
    for param_axes, ndim in zip(axes, op.ndims_params, strict=True):
        split = len(param_axes) - ndim
        refuse_rows(param_axes[split:], f"the rows of a minibatch are inside one draw of {op}")
        batches.append(param_axes[:split])
    ndim = draw.type.ndim - op.ndim_supp
    batch = broadcast_axes([(BROADCAST,) * ndim, *batches], [draw, *params], ndim)
    return (*batch, *(OTHER,) * op.ndim_supp)


def _axes_without_signature(op: Op, node: Apply, inputs: Sequence[Axes]) -> list[Axes]:
    if not isinstance(op, HasInnerGraph):
        raise Untracked(f"the rows of a minibatch cannot be followed through {op}", certain=False)
    is_univariate = ndim_supp(op, None) == 0
    try:
        inner = track_inner(op, inputs)
    except Untracked as untracked:
        if untracked.certain or not is_univariate:
            raise
        return _broadcast_parameters(node, inputs)
    # A loop inside, as in rejection sampling, hides that draws are alike: the parameters tell
    if is_univariate and any(OTHER in axes for axes in inner):
        return [
            tuple(by_params if axis is OTHER else axis for axis, by_params in zip(axes, broadcast))
            for axes, broadcast in zip(inner, _broadcast_parameters(node, inputs), strict=True)
        ]
    return inner


def _broadcast_parameters(node: Apply, inputs: Sequence[Axes]) -> list[Axes]:
    """Return the axes of univariate draws, each of which has parameters of its own."""
    sizes = set(size_inputs(node.op, node))
    params = [
        k for k, var in enumerate(node.inputs) if k not in sizes and isinstance(var.type, HasShape)
    ]
    return [
        ()
        if isinstance(out.type, RandomType)
        else broadcast_axes(
            [(BROADCAST,) * out.type.ndim, *(inputs[k] for k in params)],
            [out, *(node.inputs[k] for k in params)],
            out.type.ndim,
        )
        for out in node.outputs
    ]


# --- marginalized variables of pymc-extras ---
def marginalized_axes(op: Any, node: Apply, inputs: Sequence[Axes]) -> list[Axes]:
    """Return the axes of variables of which a discrete one that they depend on is marginalized.

    Their log-probability sums over its values for each of its elements, so they have rows along the
    axes on which it has rows too. The inner graph of `op` draws the marginalized variable and then its
    dependents; `dims_connections` maps each of their axes to one of its axes.
    """
    known: dict[Variable, Axes | Untracked] = dict(zip(op.inner_inputs, inputs, strict=True))
    sizes = {
        op.inner_inputs[k]: indexes([node.inputs[k]], by_shape=True) for k in size_inputs(op, node)
    }
    lengths = {inner: Rows(found[0]) for inner, found in sizes.items() if found}
    marginal, *dependents = op.inner_outputs
    axes: list[Axes] = [(OTHER,) * ndim_of(out) for out in node.outputs]
    axes[0] = _sized_axes(marginal, require_tracked(track_axes(marginal, known)), lengths)
    known[marginal] = axes[0]
    for k, (inner, connections) in enumerate(zip(dependents, op.dims_connections), 1):
        inner_axes = _sized_axes(inner, require_tracked(track_axes(inner, known)), lengths)
        is_shared = _is_shared(marginal, connections)
        axes[k] = tuple(OTHER if shared else axis for axis, shared in zip(inner_axes, is_shared))
    return axes


def _is_shared(marginal: Variable, connections: Sequence[int | None]) -> list[bool]:
    """Return along which axes elements share a value of the marginalized variable."""
    batch_ndim = marginal.type.ndim - ndim_supp(marginal.owner.op)
    return [axis is None or axis >= batch_ndim for axis in connections]


def _sized_axes(draw: Variable, axes: Axes, lengths: Mapping[Variable, Rows]) -> Axes:
    """Return the axes of a draw, some of which its size says are as long as a batch."""
    size = draw.owner.inputs[1].owner if isinstance(draw.owner.op, RandomVariable) else None
    entries = size.inputs if size is not None and isinstance(size.op, MakeVector) else []
    rows = [lengths.get(entry) for entry in entries]
    rows += [None] * (len(axes) - len(rows))
    return tuple(
        broadcast_axis([axis, row]) if row is not None else OTHER if axis is BROADCAST else axis
        for axis, row in zip(axes, rows, strict=True)
    )


def check_marginalized(name: str, rv: Variable, axes: Axes | Untracked) -> None:
    """Raise ValueError where pymc-extras marginalized a variable that rows of a batch share.

    `axes` are those of the observed value of `rv`.
    """
    op: Any = None if rv.owner is None else rv.owner.op
    if not isinstance(op, Marginal):
        return
    if any(isinstance(node.op, MinibatchIndexRV) for node in toposort(op.inner_outputs)):
        raise ValueError(
            f"{name!r} depends on {op.marginalized_name!r}, which was marginalized in a model of minibatches. "
            "Marginalize it in the model of all rows, and take minibatches of what you get: "
            "pm.minibatch_model(marginalize(pm.remove_minibatch(model), ...), batch_size=...)"
        )
    if isinstance(axes, Untracked) or not rows_of(axes):
        return
    if op.n_dependent_rvs > 1:
        raise ValueError(
            f"{name!r} and {op.n_dependent_rvs - 1} more variables depend on {op.marginalized_name!r}, which was "
            "marginalized: they have one log-probability together, which is not scaled to all rows. Observe "
            "them as columns of one variable, leave it in the model, or fit all rows"
        )
    marginal = op.inner_outputs[0]
    if isinstance(op, MarginalOfRows):
        shared = _is_shared(marginal, op.dims_connections[rv.owner.outputs.index(rv) - 1])
    else:
        shared = [ndim_supp(marginal.owner.op, 1) != 0] * rv.type.ndim
    if rows_of(axis for axis, is_shared in zip(axes, shared, strict=True) if is_shared):
        raise ValueError(
            f"{name!r} depends on {op.marginalized_name!r}, which was marginalized and which all rows of "
            "the data share, so that the log-probability is no sum over rows, and a batch says nothing of it. "
            "Give it a value for each row, leave it in the model, or fit all rows"
        )
