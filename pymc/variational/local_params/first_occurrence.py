# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""The first slot of a batch with the same row, for batches with a row more than once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytensor.tensor as pt

from pytensor.compile import optdb
from pytensor.graph.basic import Apply, Variable
from pytensor.graph.fg import FunctionGraph
from pytensor.graph.op import Op
from pytensor.graph.rewriting.basic import in2out, node_rewriter

__all__ = ["FirstOccurrence", "first_occurrence", "sum_of_rows"]


class FirstOccurrence(Op):
    """For each slot of a batch, the first slot with the same row.

    An Op of its own, since a hash table is faster than the sort that PyTensor's Ops would need.

    Examples
    --------
    >>> from pymc.variational.local_params.first_occurrence import first_occurrence
    >>> first_occurrence([7, 3, 7, 7, 3]).eval()
    array([0, 1, 0, 0, 1])
    """

    __props__ = ()

    def make_node(self, index: Any) -> Apply:
        index = pt.as_tensor_variable(index)
        if index.type.ndim != 1 or index.type.numpy_dtype.kind not in "iu":
            raise TypeError(
                f"The rows of a batch must be a vector of integers, got {index} of type {index.type}."
            )
        index = pt.cast(index, "int64")
        return Apply(self, [index], [index.type()])

    def perform(
        self, node: Apply, inputs: Sequence[np.ndarray], outputs: list[list[np.ndarray | None]]
    ) -> None:
        _, first, row = np.unique(inputs[0], return_index=True, return_inverse=True)
        outputs[0][0] = first[row].astype("int64")

    def infer_shape(self, node: Apply, shapes: list[Any]) -> list[Any]:
        return shapes


def first_occurrence(index: Any) -> Variable:
    """Return, for each slot of a batch, the first slot with the same row: int64, shape (B,)."""
    return FirstOccurrence()(index)


def sum_of_rows(values: Variable, index: Variable) -> Variable:
    """Return, for each slot, the sum of `values`, of shape (B, n), over all slots with the same row.

    It is equal bit for bit in all slots of a row, since each sum is computed once.

    Examples
    --------
    >>> import pytensor.tensor as pt
    >>> from pymc.variational.local_params.first_occurrence import sum_of_rows
    >>> sum_of_rows(pt.constant([[1.0], [2.0], [3.0]]), pt.constant([5, 8, 5])).eval().ravel()
    array([4., 2., 4.])
    """
    first = first_occurrence(index)
    return pt.inc_subtensor(pt.zeros_like(values)[first], values)[first]


@node_rewriter([FirstOccurrence])
def find_by_sorting(fgraph: FunctionGraph, node: Apply) -> list[Variable]:
    """Replace the Op by a stable sort, for JAX: the first slot of a row comes first among its slots."""
    [index] = node.inputs
    order = pt.argsort(index, kind="stable")
    rows = index[order]
    begins = pt.concatenate([pt.ones(1, dtype=bool), pt.neq(rows[1:], rows[:-1])])
    group = pt.cumsum(begins.astype("int64")) - 1
    zeros = pt.zeros_like(index)
    first = pt.inc_subtensor(zeros[group], pt.switch(begins, order, 0))[group]
    return [pt.set_subtensor(zeros[order], first)]


optdb.register("first_occurrence_by_sorting", in2out(find_by_sorting), "jax", position=0.01)
