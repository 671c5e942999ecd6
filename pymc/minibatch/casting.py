# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Casts of data to the dtype of a placeholder, where it can hold all values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pytensor.graph.basic import Variable
from pytensor.tensor.sharedvar import TensorSharedVariable

from pymc.minibatch.raw_data import numbers_of

if TYPE_CHECKING:
    from pymc.model.core import Model

__all__ = ["cast_rows", "check_exact", "check_integers"]


def cast_rows(array: np.ndarray, dtype: np.dtype, what: str) -> np.ndarray:
    """Give the rows of a batch the dtype of their placeholder; no copy where they have it.

    Parameters
    ----------
    array : array
    dtype : dtype
    what : str
        What messages are about.

    Raises
    ------
    TypeError
        If floats would become integers, or values are no numbers.
    ValueError
        If an integer has no place in `dtype`.
    """
    if array.dtype == dtype:
        return array
    if array.dtype.kind not in "biuf" or (array.dtype.kind == "f" and dtype.kind != "f"):
        raise TypeError(
            f"{what} got values of {array.dtype}, but the placeholder holds {dtype}: convert them first"
        )
    check_exact(array, dtype, what)
    return array.astype(dtype)


def check_exact(array: np.ndarray, dtype: np.dtype, what: str) -> None:
    """Raise where `dtype` cannot hold an integer of `array`; floats are let through.

    Raises
    ------
    ValueError
    """
    if array.dtype.kind not in "iu" or not array.size:
        return
    (least, most), bounds = _exact(dtype), np.iinfo(array.dtype)
    if least <= bounds.min and bounds.max <= most:
        return
    found = int(array.min()), int(array.max())
    if found[0] < least or found[1] > most:
        raise ValueError(
            f"{what} got integers from {found[0]} to {found[1]}, not all of which {dtype} can hold "
            "exactly: shift or scale them, or read codes as smaller ones"
        )


def check_integers(model: Model, name: str, values: Any) -> None:
    """Raise where a `pm.Data` of integers would hold others than those that it is set to.

    Raises
    ------
    ValueError
    """
    shared = model.named_vars.get(name)
    if isinstance(shared, TensorSharedVariable) and not isinstance(values, Variable):
        dtype = shared.type.numpy_dtype
        if dtype.kind in "iu":
            check_exact(np.asanyarray(numbers_of(values)), dtype, f"pm.set_data of {name!r}")


def _exact(dtype: np.dtype) -> tuple[int, int]:
    """Tell between which bounds a dtype has all integers."""
    if dtype.kind == "f":
        most = 2 ** (np.finfo(dtype).nmant + 1)
        return -most, most
    if dtype.kind == "b":
        return 0, 1
    return int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
