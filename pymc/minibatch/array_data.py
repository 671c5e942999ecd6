# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Arrays as data of a model: shared variables for them, and casts that lose no integer.

Arrays are shared variables, since a constant of over 1 MB makes a compiled function uncacheable. JAX has
no such cache, but copies each shared array at each call: there they are constants.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytensor.tensor as pt

from pytensor import config
from pytensor.compile.io import Out
from pytensor.compile.mode import Mode, get_mode
from pytensor.graph.basic import Variable
from pytensor.graph.replace import graph_replace
from pytensor.graph.traversal import ancestors
from pytensor.graph.type import HasDataType
from pytensor.tensor.sharedvar import TensorSharedVariable
from pytensor.tensor.type import TensorType

if TYPE_CHECKING:
    from pymc.model.core import Model


class RawData(TensorSharedVariable):
    """A shared variable for an array, which nobody can set to another one."""


def raw_data(value: np.ndarray, name: str | None = None) -> RawData:
    """Make a shared variable of `value`, of its static shape."""
    type_ = TensorType(value.dtype, shape=value.shape)
    return RawData(type=type_, value=value, strict=False, name=name)


def compiles_to_jax(mode: Mode | str | None) -> bool:
    """Return whether `mode` is one of JAX, without loading JAX."""
    return type(get_mode(mode).linker).__name__ == "JAXLinker"


def as_constants(graphs: Sequence[Variable]) -> list[Variable]:
    """Replace raw data in graphs by constants."""
    constants = {
        var: pt.constant(var.container.data)
        for var in ancestors(graphs)
        if isinstance(var, RawData)
    }
    return graph_replace(list(graphs), constants, strict=False) if constants else list(graphs)


def outputs_as_constants(outputs: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Replace raw data by the same constants in outputs of a function and in its argument `updates`."""
    several = isinstance(outputs, list | tuple)
    wrapped = list(outputs) if several else [outputs]
    graphs = [out.variable if isinstance(out, Out) else out for out in wrapped]
    updates = dict(kwargs.get("updates") or {})
    if not all(isinstance(graph, Variable) for graph in [*graphs, *updates.values()]):
        return outputs, kwargs
    new = as_constants([*graphs, *updates.values()])
    if "updates" in kwargs:
        kwargs = kwargs | {"updates": dict(zip(updates, new[len(graphs) :]))}
    new_outputs = [
        Out(graph, borrow=out.borrow) if isinstance(out, Out) else graph
        for out, graph in zip(wrapped, new)
    ]
    return new_outputs if several else new_outputs[0], kwargs


def keeps_integers(convert_data: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Let `convert_data` keep the dtype of integers that may not fit into one of 32 bits, 16 with floats of 32.

    Dtypes of pandas are converted by :func:`numbers_of`.
    """

    @wraps(convert_data)
    def wrapper(data: Any) -> Any:
        if isinstance(data, Variable):
            of_integers = isinstance(data.type, HasDataType) and data.type.dtype.startswith("int")
            return data if of_integers else convert_data(data)
        numbers = numbers_of(data)
        converted = convert_data(numbers)
        if isinstance(data, pd.DataFrame) and isinstance(numbers, np.ndarray):
            return converted.astype(config.floatX)  # as of all frames
        if isinstance(converted, np.ndarray) and converted.dtype.kind == "i":
            original = np.asanyarray(numbers)
            bounds, values = np.iinfo(converted.dtype), np.ma.compressed(original)
            if values.size and (values.min() < bounds.min or values.max() > bounds.max):
                return original.copy()
        return converted

    return wrapper


def numbers_of(data: Any) -> Any:
    """Convert data that NumPy would not make an array of numbers of; return all else as it is.

    A frame or column of pandas may have several, or nullable, dtypes of numbers; a missing value becomes
    NaN. A masked array without masked values becomes a plain one, and another byte order that of the
    machine.
    """
    if isinstance(data, np.ndarray):
        if isinstance(data, np.ma.MaskedArray) and not np.ma.is_masked(data):
            data = data.filled()
        return data if data.dtype.isnative else data.astype(data.dtype.newbyteorder("="))
    if not isinstance(data, pd.DataFrame | pd.Series):
        return data
    dtypes = list(data.dtypes) if isinstance(data, pd.DataFrame) else [data.dtype]
    numeric = [d for d in map(numpy_dtype, dtypes) if d is not None and d.kind in "biuf"]
    if len(numeric) < len(dtypes):
        return data
    of_one_kind = len({dtype.kind == "b" for dtype in numeric}) == 1
    if numeric == dtypes and of_one_kind and all(dtype.isnative for dtype in numeric):
        return data
    dtype = np.result_type(*numeric).newbyteorder("=")
    if data.isna().to_numpy().any():
        dtype = dtype if dtype.kind == "f" else np.dtype("float64")
        return data.to_numpy(dtype=dtype, na_value=np.nan)
    return data.to_numpy(dtype=dtype)


def numpy_dtype(dtype: Any) -> np.dtype | None:
    """Return NumPy's dtype of a column of pandas; None if it has none. ``Int64`` and the like have one."""
    plain = getattr(dtype, "numpy_dtype", dtype)
    return plain if isinstance(plain, np.dtype) else None


def cast_rows(array: np.ndarray, dtype: np.dtype, what: str) -> np.ndarray:
    """Cast the rows of a batch to the dtype of their placeholder; `what` is for messages.

    Floats do not become integers, and integers have to have a place in `dtype`.
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
    """Raise a ValueError if `dtype` cannot hold an integer of `array`; floats are not checked."""
    if array.dtype.kind not in "iu" or not array.size:
        return
    (least, most), bounds = integer_bounds(dtype), np.iinfo(array.dtype)
    if least <= bounds.min and bounds.max <= most:
        return
    smallest, largest = int(array.min()), int(array.max())
    if smallest < least or largest > most:
        raise ValueError(
            f"{what} got integers from {smallest} to {largest}, not all of which {dtype} can hold "
            "exactly: shift or scale them, or read codes as smaller ones"
        )


def check_integers(model: Model, name: str, values: Any) -> None:
    """Raise a ValueError if a `pm.Data` of integers cannot hold new `values` exactly."""
    shared = model.named_vars.get(name)
    if isinstance(shared, TensorSharedVariable) and not isinstance(values, Variable):
        dtype = shared.type.numpy_dtype
        if dtype.kind in "iu":
            check_exact(np.asanyarray(numbers_of(values)), dtype, f"pm.set_data of {name!r}")


def integer_bounds(dtype: np.dtype) -> tuple[int, int]:
    """Return the smallest and largest integer up to which a dtype holds every one."""
    if dtype.kind == "f":
        most = 2 ** (np.finfo(dtype).nmant + 1)
        return -most, most
    if dtype.kind == "b":
        return 0, 1
    return int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
