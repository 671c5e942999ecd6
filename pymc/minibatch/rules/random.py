# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Rules for random variables: the parameters of a term say which of its axes are rows."""

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
    rows_of,
    track_axes,
    track_inner,
)
from pymc.minibatch.index import MinibatchIndexRV
from pymc.minibatch.lengths import size_inputs


@output_axes.register(RandomVariable)
def _(op: RandomVariable, node: Apply, inputs: Sequence[Axes]) -> list[Axes]:
    draw = _draw_axes(
        op, op.dist_params(node), inputs[2:], op.ndims_params, op.ndim_supp, node.outputs[1]
    )
    return [(), draw]


@output_axes.register(RNGConsumerOp)
def _(op: Op, node: Apply, inputs: Sequence[Axes]) -> list[Axes]:
    """Follow a `SymbolicRandomVariable`: by its signature, or else through its inner graph."""
    signature = extended_signature(op)
    if signature is None:
        return _without_signature(op, node, inputs)
    (_, _, params), (_, draws) = op.get_input_output_type_idxs(signature)
    axes: list[Axes] = [(OTHER,) * ndim_of(out) for out in node.outputs]
    for k in draws:
        axes[k] = _draw_axes(
            op,
            [node.inputs[p] for p in params],
            [inputs[p] for p in params],
            op.ndims_params,
            op.ndim_supp,
            node.outputs[k],
        )
    return axes


def _draw_axes(
    op: Op,
    params: Sequence[Variable],
    axes: Sequence[Axes],
    ndims_params: Sequence[int],
    ndim_supp: int,
    draw: Variable,
) -> Axes:
    """Broadcast the batch axes of the parameters; a draw's own axes are its own."""
    batches = []
    for param_axes, ndim in zip(axes, ndims_params, strict=True):
        split = len(param_axes) - ndim
        refuse_rows(param_axes[split:], f"the rows of a minibatch are inside one draw of {op}")
        batches.append(param_axes[:split])
    ndim = draw.type.ndim - ndim_supp
    return (
        *broadcast_axes([(BROADCAST,) * ndim, *batches], [draw, *params], ndim),
        *(OTHER,) * ndim_supp,
    )


def marginalized_axes(op: Any, node: Apply, inputs: Sequence[Axes]) -> list[Axes]:
    """Follow variables of which pymc-extras has marginalized a discrete one that they depend on.

    Their log-probability is a sum over its values for each of its elements. So they have rows along the
    axes on which it has rows too; along another axis they belong to one element.

    Parameters
    ----------
    op : MarginalFiniteDiscreteRV
        Its inner graph draws the marginalized variable, and then those that depend on it;
        `dims_connections` says which of its axes each of theirs is.
    node : Apply
    inputs : sequence of Axes
    """
    known: dict[Variable, Axes | Untracked] = dict(zip(op.inner_inputs, inputs, strict=True))
    sizes = {
        op.inner_inputs[k]: indexes([node.inputs[k]], by_shape=True) for k in size_inputs(op, node)
    }
    lengths = {inner: Rows(found[0]) for inner, found in sizes.items() if found}
    hidden, *rest = op.inner_outputs
    known[hidden] = _own_draw(hidden, _traced(hidden, known), lengths)
    axes: list[Axes] = [(OTHER,) * ndim_of(out) for out in node.outputs]
    axes[0] = _traced(hidden, known)
    for k, (inner, connections) in enumerate(zip(rest, op.dims_connections), 1):
        own = _own_draw(inner, _traced(inner, known), lengths)
        axes[k] = tuple(
            axis if apart else OTHER for axis, apart in zip(own, _apart(hidden, connections))
        )
    return axes


def _apart(hidden: Variable, connections: Sequence[int | None]) -> list[bool]:
    """Tell along which axes each element has its own of the marginalized variable."""
    batch_ndim = hidden.type.ndim - ndim_supp(hidden.owner.op)
    return [at is not None and at < batch_ndim for at in connections]


def check_marginalized(name: str, rv: Variable, axes: Axes | Untracked) -> None:
    """Raise where pymc-extras has marginalized a variable that rows of a minibatch share.

    Parameters
    ----------
    name : str
    rv : Variable
        What is observed.
    axes : Axes or Untracked
        Those of the observed value.

    Raises
    ------
    ValueError
        If the log-probability is no sum over rows or one of several variables together, or the batch is
        drawn inside.
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
    hidden = op.inner_outputs[0]
    if isinstance(op, MarginalOfRows):
        apart = _apart(hidden, op.dims_connections[rv.owner.outputs.index(rv) - 1])
    else:
        apart = [ndim_supp(hidden.owner.op, 1) == 0] * rv.type.ndim
    if any(isinstance(axis, Rows) and not own for axis, own in zip(axes, apart, strict=True)):
        raise ValueError(
            f"{name!r} depends on {op.marginalized_name!r}, which was marginalized and which all rows of "
            "the data share, so that the log-probability is no sum over rows, and a batch says nothing of it. "
            "Give it a value for each row, leave it in the model, or fit all rows"
        )


def _traced(var: Variable, known: Mapping[Variable, Axes | Untracked]) -> Axes:
    axes = track_axes(var, known)
    if isinstance(axes, Untracked):
        raise Untracked(axes.why, axes.certain)
    return axes


def _own_draw(draw: Variable, axes: Axes, lengths: Mapping[Variable, Rows]) -> Axes:
    """Tell the axes of a draw whose shape says which of them are as long as a batch."""
    size = draw.owner.inputs[1].owner if isinstance(draw.owner.op, RandomVariable) else None
    entries = size.inputs if size is not None and isinstance(size.op, MakeVector) else []
    rows = [lengths.get(entry) for entry in entries]
    rows += [None] * (len(axes) - len(rows))
    return tuple(
        broadcast_axis([axis, row]) if row is not None else OTHER if axis is BROADCAST else axis
        for axis, row in zip(axes, rows, strict=True)
    )


def _without_signature(op: Op, node: Apply, inputs: Sequence[Axes]) -> list[Axes]:
    if not isinstance(op, HasInnerGraph):
        raise Untracked(f"the rows of a minibatch cannot be followed through {op}", certain=False)
    univariate = ndim_supp(op, None) == 0
    try:
        inner = track_inner(op, inputs)
    except Untracked as lost:
        if lost.certain or not univariate:
            raise
        return _broadcast_parameters(node, inputs)
    # A loop inside, as in rejection sampling, hides that draws are alike: the parameters tell
    if univariate and any(OTHER in axes for axes in inner):
        return [
            tuple(b if a is OTHER else a for a, b in zip(axes, broadcast, strict=True))
            for axes, broadcast in zip(inner, _broadcast_parameters(node, inputs), strict=True)
        ]
    return inner


def _broadcast_parameters(node: Apply, inputs: Sequence[Axes]) -> list[Axes]:
    """Each draw of a univariate term is of its own parameters, which broadcast together."""
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
