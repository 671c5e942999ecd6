# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""The median as an Op, by selection: a sort of all numbers takes ten times as long on Numba."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytensor.tensor as pt

from pytensor.compile import optdb
from pytensor.graph.basic import Apply, Variable
from pytensor.graph.fg import FunctionGraph
from pytensor.graph.op import Op
from pytensor.graph.rewriting.basic import in2out, node_rewriter
from pytensor.tensor.variable import TensorVariable

__all__ = ["Median", "median"]


class Median(Op):
    """Median of all numbers of an array of floats; of an even number of them, the mean of the middle two.

    Nan counts as the largest number, as in a sort.
    """

    __props__ = ()

    def make_node(self, x: Variable) -> Apply:
        return Apply(self, [x], [pt.scalar(dtype=x.type.dtype)])

    def infer_shape(self, node: Apply, shapes: Sequence) -> list[tuple]:
        return [()]

    def perform(self, node: Apply, inputs: Sequence[np.ndarray], outputs: list[list]) -> None:
        [x] = inputs
        middle = x.size // 2
        pair = [middle] if x.size % 2 else [middle - 1, middle]
        outputs[0][0] = np.partition(x, pair, axis=None)[pair].mean()


def median(x: Variable) -> TensorVariable:
    """Return the median of all numbers of an array.

    Parameters
    ----------
    x : float array
        At least one number.

    Returns
    -------
    scalar of the dtype of `x`
        What a sort gives, bit for bit. It has no gradient.

    Examples
    --------
    >>> import pytensor.tensor as pt
    >>> from pymc.variational.objectives.median import median
    >>> float(median(pt.constant([[4.0, 1.0], [2.0, 9.0]])).eval())
    3.0
    """
    return Median()(x)


@node_rewriter([Median])
def find_by_sorting(fgraph: FunctionGraph, node: Apply) -> list[Variable]:
    """Sort for JAX, which has no selection: ``median(x) -> mean(sort(x)[middle])``."""
    [x] = node.inputs
    ranks, n = pt.sort(x.ravel()), x.size
    return [((ranks[(n - 1) // 2] + ranks[n // 2]) / 2).astype(x.dtype)]


optdb.register("median_by_sorting", in2out(find_by_sorting), "jax", position=0.01)
