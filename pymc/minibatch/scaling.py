# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""N/B scaling: the factor that makes the log-probability of a batch stand for that of all rows.

N/B times the sum of B log-probabilities is an unbiased estimate of the sum of N, if each row is drawn with
the same probability (Hoffman et al. 2013, "Stochastic Variational Inference", section 2.4). For blocks of
several subsampled axes the factors multiply.
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
from pytensor.graph.fg import FunctionGraph
from pytensor.graph.op import Op
from pytensor.graph.replace import _vectorize_node
from pytensor.graph.rewriting.basic import dfs_rewriter, node_rewriter
from pytensor.tensor.elemwise import DimShuffle, Elemwise
from pytensor.tensor.rewriting.basic import register_specialize
from pytensor.tensor.variable import TensorVariable
from pytensor.xtensor.basic import XTensorFromTensor
from pytensor.xtensor.vectorization import XElemwise


def _quotient(total: Variable, batch: Variable) -> TensorVariable:
    # Cast first: rewrites take the factors of a product apart, and int64 times float32 is float64
    return pt.cast(total, config.floatX) / pt.cast(batch, config.floatX)


class RowRatio(Op):
    """The ratio N/B of one axis, as a float.

    A division that can be found in a graph, so that no term is scaled twice and the log-probability of
    a minibatch is recognised when it is compiled. A rewrite removes it before a backend sees it.

    Parameters
    ----------
    axis : int, optional
        Axis of a Potential whose `total_size` a user has stated, which holds in each model made of this
        one. None where the data tell N.
    variable : str, optional
        Name of the local variable whose prior is scaled.
    """

    __props__ = ("axis", "variable")

    def __init__(self, axis: int | None = None, variable: str | None = None) -> None:
        self.axis, self.variable = axis, variable

    def make_node(self, total: Variable | float, batch: Variable | float) -> Apply:
        inputs = [pt.as_tensor_variable(length) for length in (total, batch)]
        return Apply(self, inputs, [_quotient(*inputs).type()])

    def perform(self, node: Apply, inputs: Sequence[np.ndarray], outputs: Any) -> None:
        total, batch = inputs
        outputs[0][0] = np.asarray(total / batch, dtype=node.outputs[0].type.dtype)

    def do_constant_folding(self, fgraph: FunctionGraph, node: Apply) -> bool:
        return False


@register_specialize
@node_rewriter([RowRatio])
def local_row_ratio(fgraph: FunctionGraph, node: Apply) -> list[Variable]:
    """``RowRatio(total, batch)`` -> ``cast(total, floatX) / cast(batch, floatX)``."""
    return [_quotient(*node.inputs)]


@_vectorize_node.register(RowRatio)
def vectorize_row_ratio(op: RowRatio, node: Apply, total: Variable, batch: Variable) -> Apply:
    """Keep the Op findable where lengths differ by particle: a Blockwise would hide it."""
    return op.make_node(total, batch)


# Not in canonicalization: a graph that is canonicalized may be compiled or scaled later
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
    stated: Collection[int] = (),
    variable: str | None = None,
) -> TensorVariable:
    """Return the factor of a log-probability: the product of N/B over all axes, a scalar of floatX.

    `totals` has N along each axis, None where it is not subsampled; `shape` is that of the batch. Axes in
    `stated` have the `total_size` of a user. `variable` names the local variable whose prior is scaled.
    """
    factors = [
        RowRatio(k if k in stated else None, variable)(total, length)
        for k, (total, length) in enumerate(zip(totals, shape, strict=True))
        if total is not None
    ]
    if not factors:
        return pt.constant(1.0, dtype=config.floatX)
    return pt.mul(*factors) if len(factors) > 1 else factors[0]


def ratios(var: Variable) -> list[Apply]:
    """Return the `RowRatio` nodes that are factors of `var`."""
    if var.owner is None:
        return []
    op = var.owner.op
    if isinstance(op, RowRatio):
        return [var.owner]
    is_product = isinstance(op, Elemwise | XElemwise) and op.scalar_op == ps.mul
    if is_product or isinstance(op, DimShuffle | XTensorFromTensor):
        return [ratio for factor in var.owner.inputs for ratio in ratios(factor)]
    return []
