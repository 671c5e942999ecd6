# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Arrays as data of a model: shared variables for them, and casts that lose no integer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytensor.tensor as pt

from pytensor.compile.mode import get_mode
from pytensor.graph.basic import Variable
from pytensor.graph.replace import graph_replace
from pytensor.graph.traversal import ancestors
from pytensor.tensor.sharedvar import TensorSharedVariable
from pytensor.tensor.type import TensorType

if TYPE_CHECKING:
    from pymc.model.core import Model

__all__ = [
    "RawData",
    "as_constants",
    "cast_rows",
    "check_exact",
    "check_integers",
    "compiles_to_jax",
    "numbers_of",
    "raw_data",
]


class RawData(TensorSharedVariable):
    """A shared variable that stands for an array of the user's."""


def raw_data(value: np.ndarray, name: str | None = None) -> RawData:
    """Make a shared variable of `value`, of its static shape."""
    type_ = TensorType(value.dtype, shape=value.shape)
    return RawData(type=type_, value=value, strict=False, name=name)


def numbers_of(data: Any) -> Any:
    """Make an array of numbers of what NumPy makes another one of; return all else as it is.

    Parameters
    ----------
    data : object
        Of a frame or column of pandas with several, or nullable, dtypes of numbers, NumPy makes one of
        objects. In the array a missing value is NaN. A masked array of which nothing is masked is one of
        values alone, and an array in another byte order one in the machine's.

    Examples
    --------
    >>> import pandas as pd
    >>> from pymc.minibatch.array_data import numbers_of
    >>> numbers_of(pd.DataFrame({"x": [0.5, 2.0], "yes": [True, False]}))
    array([[0.5, 1. ],
           [2. , 0. ]])
    """
    if isinstance(data, np.ndarray):
        if isinstance(data, np.ma.MaskedArray) and not np.ma.is_masked(data):
            data = data.filled()
        return data if data.dtype.isnative else data.astype(data.dtype.newbyteorder("="))
    if not isinstance(data, pd.DataFrame | pd.Series):
        return data
    dtypes = list(data.dtypes) if isinstance(data, pd.DataFrame) else [data.dtype]
    known = [numpy_dtype(dtype) for dtype in dtypes]
    plain = [dtype for dtype in known if dtype is not None and dtype.kind in "biuf"]
    if len(plain) < len(dtypes):
        return data
    of_one_kind = len({dtype.kind == "b" for dtype in plain}) == 1
    if plain == dtypes and of_one_kind and all(dtype.isnative for dtype in plain):
        return data
    dtype = np.result_type(*plain).newbyteorder("=")
    if data.isna().to_numpy().any():
        dtype = dtype if dtype.kind == "f" else np.dtype("float64")
        return data.to_numpy(dtype=dtype, na_value=np.nan)
    return data.to_numpy(dtype=dtype)


def compiles_to_jax(mode: Any) -> bool:
    """Tell whether `mode` is one of JAX, without loading JAX."""
    return type(get_mode(mode).linker).__name__ == "JAXLinker"


def as_constants(graphs: Sequence[Variable]) -> list[Variable]:
    """Put constants in the place of raw data."""
    found = {
        var: pt.constant(var.container.data)
        for var in ancestors(graphs)
        if isinstance(var, RawData)
    }
    return graph_replace(list(graphs), found, strict=False) if found else list(graphs)


def numpy_dtype(dtype: Any) -> np.dtype | None:
    """Return NumPy's dtype of a column of pandas: ``Int64`` and the like know theirs, others have none."""
    plain = getattr(dtype, "numpy_dtype", dtype)
    return plain if isinstance(plain, np.dtype) else None


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
