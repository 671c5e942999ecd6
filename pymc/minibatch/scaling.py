# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""What a term of a minibatch is multiplied by: all rows by the rows of the batch, N/B.

The sum of N log-probabilities has an unbiased estimate from B of them, drawn alike: N/B times their
sum (Hoffman et al. 2013, "Stochastic Variational Inference", section 2.4). For blocks of several
subsampled axes the factors multiply.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import pytensor.scalar as ps
import pytensor.tensor as pt

from pytensor import config
from pytensor.compile import optdb
from pytensor.graph.basic import Apply, Variable
from pytensor.graph.op import Op
from pytensor.graph.replace import _vectorize_node
from pytensor.graph.rewriting.basic import dfs_rewriter, node_rewriter
from pytensor.tensor.elemwise import DimShuffle, Elemwise
from pytensor.tensor.rewriting.basic import register_specialize
from pytensor.tensor.variable import TensorVariable
from pytensor.xtensor.basic import XTensorFromTensor
from pytensor.xtensor.vectorization import XElemwise

from pymc.minibatch.lengths import size_inputs


def _quotient(total: Variable, batch: Variable) -> TensorVariable:
    # Cast first: rewrites take the factors of a product apart, and int64 times float32 is float64
    return pt.cast(total, config.floatX) / pt.cast(batch, config.floatX)


class RowRatio(Op):
    """All rows by the rows of the batch, as a float.

    Only a division, but one that can be found in a graph, so that no term is scaled twice, and a
    log-probability of a minibatch is known when it is compiled. It is gone before a backend sees it.

    Parameters
    ----------
    axis : int, optional
        Of which axis of a Potential a user has given the number of all rows: what that vouches for holds
        in each model that is made of this one. None where the data say it.
    variable : str, optional
        Of the prior of which local variable, whose values are of the batch's rows, it is the ratio.
    """

    __props__ = ("axis", "variable")

    def __init__(self, axis: int | None = None, variable: str | None = None) -> None:
        self.axis, self.variable = axis, variable

    def make_node(self, total: Any, batch: Any) -> Apply:
        inputs = [pt.as_tensor_variable(length) for length in (total, batch)]
        return Apply(self, inputs, [_quotient(*inputs).type()])

    def perform(self, node: Apply, inputs: Sequence[Any], outputs: Any) -> None:
        total, batch = inputs
        outputs[0][0] = np.asarray(total / batch, dtype=node.outputs[0].type.dtype)

    def do_constant_folding(self, fgraph: Any, node: Apply) -> bool:
        return False


@size_inputs.register(RowRatio)
def _(op: Op, node: Apply) -> range:
    """The scale of a term is no number of the model."""
    return range(len(node.inputs))


@register_specialize
@node_rewriter([RowRatio])
def local_row_ratio(fgraph: Any, node: Apply) -> list[Variable]:
    """``RowRatio(total, batch)`` -> ``cast(total, floatX) / cast(batch, floatX)``."""
    return [_quotient(*node.inputs)]


@_vectorize_node.register(RowRatio)
def vectorize_row_ratio(op: RowRatio, node: Apply, total: Variable, batch: Variable) -> Apply:
    """Keep the Op, for lengths of each particle too, where a Blockwise would hide it."""
    return op.make_node(total, batch)


# Not by canonicalization, in which others rewrite what they go on to compile
optdb.register(
    "row_ratios_to_divisions",
    dfs_rewriter(local_row_ratio),
    "fast_run",
    "fast_compile",
    "numba",
    "jax",
    position=0.02,
)


def scale_factor(
    totals: Sequence[Variable | float | None],
    shape: Sequence[Variable | int],
    given: Collection[int] = (),
    variable: str | None = None,
) -> TensorVariable:
    """Multiply the ratios of all axes.

    Parameters
    ----------
    totals : sequence of scalar integer or None
        How many rows there are in all along each axis; None where an axis is not subsampled.
    shape : sequence of scalar integer
        The shape of the batch.
    given : collection of int
        Axes whose total a user has given.
    variable : str, optional
        The local variable whose prior is scaled.

    Returns
    -------
    scalar of floatX
        The factor of the log-probability.
    """
    factors = [
        RowRatio(k if k in given else None, variable)(total, length)
        for k, (total, length) in enumerate(zip(totals, shape, strict=True))
        if total is not None
    ]
    if not factors:
        return pt.constant(1.0, dtype=config.floatX)
    return pt.mul(*factors) if len(factors) > 1 else factors[0]


def ratios(var: Variable) -> list[Apply]:
    """Find the ratios of rows that `var` is a product with."""
    if var.owner is None:
        return []
    op = var.owner.op
    if isinstance(op, RowRatio):
        return [var.owner]
    is_product = isinstance(op, Elemwise | XElemwise) and op.scalar_op == ps.mul
    if is_product or isinstance(op, DimShuffle | XTensorFromTensor):
        return [ratio for factor in var.owner.inputs for ratio in ratios(factor)]
    return []
