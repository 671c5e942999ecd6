# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Slots of a batch that hold the same row: which of them is the first."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytensor.tensor as pt

from pytensor.graph.basic import Apply, Variable
from pytensor.graph.op import Op

__all__ = ["FirstSlots", "first_slots", "sum_of_rows"]


class FirstSlots(Op):
    """For each slot of a batch, the first slot that has the same row.

    Notes
    -----
    ``make_node(index)`` takes a vector of int64 of shape (B,), and has one output like it.

    Examples
    --------
    >>> from pymc.variational.rows.first_slots import first_slots
    >>> first_slots([7, 3, 7, 7, 3]).eval()
    array([0, 1, 0, 0, 1])
    """

    __props__ = ()

    def make_node(self, index: Any) -> Apply:
        index = pt.as_tensor_variable(index)
        if index.type.ndim != 1 or index.type.numpy_dtype.kind not in "iu":
            raise TypeError(
                f"The rows of a batch have to be a vector of integers, got {index} of type "
                f"{index.type}."
            )
        index = pt.cast(index, "int64")
        return Apply(self, [index], [index.type()])

    def perform(self, node: Apply, inputs: Any, outputs: Any) -> None:
        _, first, row = np.unique(inputs[0], return_index=True, return_inverse=True)
        outputs[0][0] = first[row].astype("int64")

    def infer_shape(self, node: Apply, shapes: Any) -> Any:
        return shapes


def first_slots(index: Any) -> Variable:
    """Find, for each slot of a batch, the first slot that has the same row.

    Parameters
    ----------
    index : vector of integers, shape (B,)
        The row of each slot.

    Returns
    -------
    TensorVariable of int64, shape (B,)
    """
    return FirstSlots()(index)


def sum_of_rows(values: Variable, index: Variable) -> Variable:
    """Give each slot the sum of `values` over all slots that have its row.

    Parameters
    ----------
    values : matrix, shape (B, n)
    index : vector of int64, shape (B,)
        The row of each slot.

    Returns
    -------
    TensorVariable, shape (B, n)
        Alike in all slots of a row, bit for bit: it is summed once.

    Examples
    --------
    >>> import pytensor.tensor as pt
    >>> from pymc.variational.rows.first_slots import sum_of_rows
    >>> sum_of_rows(pt.constant([[1.0], [2.0], [3.0]]), pt.constant([5, 8, 5])).eval().ravel()
    array([4., 2., 4.])
    """
    first = first_slots(index)
    return pt.inc_subtensor(pt.zeros_like(values)[first], values)[first]
