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
"""What a term of a minibatch is multiplied by: all rows by the rows of the batch, N/B.

The sum of N log-probabilities has an unbiased estimate from B of them, drawn alike: N/B times their
sum (Hoffman et al. 2013, "Stochastic Variational Inference", section 2.4). For blocks of several
subsampled axes the factors multiply.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytensor.scalar as ps
import pytensor.tensor as pt

from pytensor import config
from pytensor.graph.basic import Apply, Variable
from pytensor.graph.op import Op
from pytensor.graph.rewriting.basic import node_rewriter
from pytensor.tensor.elemwise import DimShuffle, Elemwise
from pytensor.tensor.rewriting.basic import register_canonicalize, register_specialize
from pytensor.tensor.variable import TensorVariable
from pytensor.xtensor.basic import XTensorFromTensor
from pytensor.xtensor.vectorization import XElemwise

__all__ = ["ratios", "row_ratio", "scale_factor"]


class RowRatio(Op):
    """All rows by the rows of the batch, as a float.

    Only a division, but one that can be found in a graph, so that no term is scaled twice. It is
    gone before a backend sees it.
    """

    __props__ = ()

    def make_node(self, total: Any, batch: Any) -> Apply:
        inputs = [pt.as_tensor_variable(length, ndim=0) for length in (total, batch)]
        return Apply(self, inputs, [pt.scalar(dtype=config.floatX)])

    def perform(self, node: Apply, inputs: Sequence[Any], outputs: Any) -> None:
        total, batch = inputs
        outputs[0][0] = np.asarray(total / batch, dtype=node.outputs[0].type.dtype)


row_ratio = RowRatio()


# Specialization is for modes that leave canonicalization out
@register_canonicalize
@register_specialize
@node_rewriter([RowRatio])
def local_row_ratio(fgraph: Any, node: Apply) -> list[Variable]:
    """``RowRatio(total, batch)`` -> ``cast(total, floatX) / cast(batch, floatX)``."""
    # Cast first: rewrites take the factors of a product apart, and int64 times float32 is float64
    total, batch = (pt.cast(length, node.outputs[0].type.dtype) for length in node.inputs)
    return [total / batch]


def scale_factor(
    totals: Sequence[Variable | float | None], shape: Sequence[Variable | int]
) -> TensorVariable:
    """Multiply the ratios of all axes.

    Parameters
    ----------
    totals : sequence of scalar integer or None
        How many rows there are in all along each axis; None where an axis is not subsampled.
    shape : sequence of scalar integer
        The shape of the batch.

    Returns
    -------
    scalar of floatX
        The factor of the log-probability.
    """
    factors = [
        row_ratio(total, length)
        for total, length in zip(totals, shape, strict=True)
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
