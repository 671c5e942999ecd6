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
"""Rules for random variables: the parameters of a term say which of its axes are rows."""

from __future__ import annotations

from collections.abc import Sequence

from pytensor.graph.basic import Apply, Variable
from pytensor.graph.op import HasInnerGraph, Op
from pytensor.tensor.random.op import RandomVariable, RNGConsumerOp
from pytensor.tensor.random.type import RandomType

from pymc.minibatch.lengths import size_inputs
from pymc.minibatch.provenance import (
    OWN,
    SAME,
    Axes,
    RowsLost,
    follow,
    meet_all,
    refuse_rows,
    trace_inner,
)


@follow.register(RandomVariable)
def _(op: RandomVariable, node: Apply, inputs: Sequence[Axes]) -> list[Axes]:
    draw = _draw_axes(
        op, op.dist_params(node), inputs[2:], op.ndims_params, op.ndim_supp, node.outputs[1]
    )
    return [(), draw]


@follow.register(RNGConsumerOp)
def _(op: Op, node: Apply, inputs: Sequence[Axes]) -> list[Axes]:
    """Follow a `SymbolicRandomVariable`: by its signature, or else through its inner graph."""
    if getattr(op, "extended_signature", None) is None:
        return _without_signature(op, node, inputs)
    (_, _, params), (_, draws) = op.get_input_output_type_idxs(op.extended_signature)
    axes: list[Axes] = [(OWN,) * getattr(out.type, "ndim", 0) for out in node.outputs]
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
    return (*meet_all([(SAME,) * ndim, *batches], [draw, *params], ndim), *(OWN,) * ndim_supp)


def _without_signature(op: Op, node: Apply, inputs: Sequence[Axes]) -> list[Axes]:
    if not isinstance(op, HasInnerGraph):
        raise RowsLost(f"the rows of a minibatch cannot be followed through {op}", certain=False)
    univariate = getattr(op, "ndim_supp", None) == 0
    try:
        inner = trace_inner(op, inputs)
    except RowsLost as lost:
        if lost.certain or not univariate:
            raise
        return _broadcast_parameters(node, inputs)
    # A loop inside, as in rejection sampling, hides that draws are alike: the parameters tell
    if univariate and any(OWN in axes for axes in inner):
        return [
            tuple(b if a is OWN else a for a, b in zip(axes, broadcast, strict=True))
            for axes, broadcast in zip(inner, _broadcast_parameters(node, inputs), strict=True)
        ]
    return inner


def _broadcast_parameters(node: Apply, inputs: Sequence[Axes]) -> list[Axes]:
    """Each draw of a univariate term is of its own parameters, which broadcast together."""
    sizes = set(size_inputs(node.op, node))
    params = [
        k
        for k, var in enumerate(node.inputs)
        if k not in sizes and hasattr(var.type, "shape") and not isinstance(var.type, RandomType)
    ]
    return [
        ()
        if isinstance(out.type, RandomType)
        else meet_all(
            [(SAME,) * out.type.ndim, *(inputs[k] for k in params)],
            [out, *(node.inputs[k] for k in params)],
            out.type.ndim,
        )
        for out in node.outputs
    ]
