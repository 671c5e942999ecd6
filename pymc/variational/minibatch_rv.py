# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytensor.tensor as pt

from pytensor.graph.basic import Apply, Variable
from pytensor.tensor import NoneConst
from pytensor.xtensor.type import XTensorVariable

import pymc._layer as _layer

from pymc.minibatch.scaling import scale_factor


class _MinibatchRandomVariable:
    def make_node(self: Any, rv: Any, *total_size: Any) -> Apply:
        # Also from the inputs of another node
        rv = pt.as_tensor_variable(rv)
        if len(total_size) != rv.type.ndim:
            raise ValueError(f"{rv} has {rv.type.ndim} axes, got {len(total_size)} total sizes")
        totals = [
            NoneConst if size is None or NoneConst.equals(size) else pt.as_tensor(size, ndim=0)
            for size in total_size
        ]
        return Apply(self, [rv, *totals], [rv.type()])


released = _layer.run_release(
    globals(),
    MinibatchRandomVariable=_MinibatchRandomVariable,
)


def get_scaling(total_size: Sequence[Any], shape: Any) -> Variable:
    """Return the factor of the log-probability: the product of N / B over the axes.

    Parameters
    ----------
    total_size : sequence of scalar integer, None or NoneConst
    shape : vector of integers; or a sequence of one, as `constant_fold` returns it

    Returns
    -------
    scalar of floatX
    """
    if isinstance(shape, list | tuple) and len(shape) == 1 and np.ndim(shape[0]) == 1:
        [shape] = shape
    totals = [
        None if size is None or NoneConst.equals(size) else pt.as_tensor(size)
        for size in total_size
    ]
    # A value may have fewer axes than its term: it is broadcast along the leading ones
    n_axes = shape.type.shape[0] if isinstance(shape, Variable) else len(shape)
    n_missing = 0 if n_axes is None else max(len(totals) - n_axes, 0)
    lengths = [shape[k] for k in range(len(totals) - n_missing)]
    return scale_factor(totals, [1] * n_missing + lengths)


def scaled_rv(rv: Any, totals: Sequence[Any]) -> Variable:
    """Wrap `rv`, under the same name, so that its log-probability is scaled to `totals`."""
    name = rv.name
    out = released.minibatch_rv(rv.values if isinstance(rv, XTensorVariable) else rv, *totals)
    out.name = name
    return out


def unscaled_rv(rv: Any) -> tuple[Variable, list[Variable | None]]:
    """Return the variable that `scaled_rv` wrapped, and a total or None for each of its axes."""
    if rv.owner is None or not isinstance(rv.owner.op, released.MinibatchRandomVariable):
        return rv, [None] * rv.type.ndim
    rv, *totals = rv.owner.inputs
    return rv, [None if NoneConst.equals(total) else total for total in totals]


def imputed_totals(
    totals: Sequence[Any], mask: np.ndarray, ndim_supp: int
) -> list[Variable | None]:
    """Return the totals of the observed draws of a masked array, which lie on one axis: the leading one.

    Their total is their number times N / B, and need not be a whole number.

    Parameters
    ----------
    totals : sequence of scalar integer or None
        For each axis of the array.
    mask : array of bool
        True for a missing value. Draws are missing as a whole.
    ndim_supp : int
        Number of axes of one draw, the last ones of the array.
    """
    of_draws: Any = (..., *(0,) * max(mask.ndim - (len(totals) - ndim_supp), 0))
    missing = mask[of_draws]
    ratio = scale_factor(totals[: missing.ndim], missing.shape)
    return [ratio * int((~missing).sum()), *totals[missing.ndim :]]
