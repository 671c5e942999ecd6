# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Data that were given to `pm.Minibatch` as arrays, and that nobody can set to others.

They are shared variables, since a constant of over 1 MB makes a compiled function uncacheable. JAX
has no such cache, but takes a copy of each shared array at each call: there they are constants.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytensor.tensor as pt

from pytensor.compile.mode import get_mode
from pytensor.graph.basic import Variable
from pytensor.graph.replace import graph_replace
from pytensor.graph.traversal import ancestors
from pytensor.tensor.sharedvar import TensorSharedVariable
from pytensor.tensor.type import TensorType

__all__ = ["RawData", "as_constants", "compiles_to_jax", "numbers_of", "raw_data"]


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
    >>> from pymc.minibatch.raw_data import numbers_of
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
