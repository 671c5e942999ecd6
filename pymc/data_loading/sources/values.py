# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""What users give as arrays: numbers in rows along the first axis, checked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from pymc.data_loading.sources.layout import Field, Layout
from pymc.data_loading.sources.protocols import (
    ArrayLike,
    Indexable,
    NumPyArray,
    NumPyMemory,
    SharedMemory,
)
from pymc.data_loading.sources.series import is_series, series_numbers
from pymc.minibatch.array_data import check_exact

__all__ = [
    "SampleShape",
    "as_field",
    "as_numbers",
    "check_shapes",
    "equal_lengths",
    "field_of",
    "is_array",
    "is_stored",
    "named_shapes",
    "stored_or_numbers",
]

SampleShape = Sequence[int] | Mapping[str, Sequence[int]] | None
"""The shape of one row, or of one row of each field."""


def as_numbers(value: Any, where: str) -> np.ndarray:
    """Return what a user gave as an array of numbers, without a copy if it is one.

    Parameters
    ----------
    value : array_like
        An array, a tensor that NumPy can read, one column of pandas, polars or Arrow, or nested lists.
    where : str
        For messages.

    Raises
    ------
    TypeError
        If it cannot be an array, or is one of something else than numbers.
    ValueError
        If some of it is masked. What is missing in a column is NaN.
    """
    if np.ma.is_masked(value):
        raise ValueError(
            f"{where} has masked values, and a likelihood needs a number in each row: fill them, or "
            f"leave these rows out"
        )
    try:
        array = None if is_series(value) else np.asarray(value)
    except Exception as error:
        raise TypeError(
            f"{where}, of type {type(value).__name__}, cannot be read as an array of numbers: {error}"
        ) from error
    array = series_numbers(value, where, nan=True) if array is None else array
    _check_dtype(array.dtype, where)
    return array


def as_field(array: np.ndarray, dtype: np.dtype, where: str) -> np.ndarray | None:
    """Return an array of a later block in the dtype of the first one, where that holds it.

    Returns
    -------
    ndarray or None
        None for another dtype, unless it is one of integers where floats came before.

    Raises
    ------
    ValueError
        If an integer is too large for the floats.
    """
    if array.dtype.newbyteorder("=") == dtype:
        return array
    if not (array.dtype.kind in "biu" and dtype.kind == "f" and np.can_cast(array.dtype, dtype)):
        return None
    check_exact(array, dtype, where)
    return array.astype(dtype)


def is_array(value: Any) -> bool:
    """Return whether a value is an array, a tensor or one column: what NumPy can read as a whole.

    A user's data set may have a `shape` and a `dtype` too.
    """
    readable = NumPyArray | NumPyMemory | SharedMemory
    return is_series(value) or (isinstance(value, ArrayLike) and isinstance(value, readable))


def is_stored(value: Any) -> bool:
    """Return whether data are an array outside memory, of which slices are read: of h5py, zarr, dask.

    What shares its memory with other libraries is in memory.
    """
    in_memory = np.ndarray | NumPyMemory | SharedMemory
    if is_series(value) or not is_array(value) or isinstance(value, in_memory):
        return False
    known = isinstance(value.dtype, np.dtype) and isinstance(value.shape, tuple)
    return known and isinstance(value, Indexable)


def stored_or_numbers(value: Any, where: str) -> Any:
    """Return an array in memory, and what is stored elsewhere as it is.

    Raises
    ------
    TypeError, ValueError
        See :func:`as_numbers`.
    """
    if not is_stored(value):
        return as_numbers(value, where)
    _check_dtype(value.dtype, where)
    return value


def _check_dtype(dtype: np.dtype, where: str) -> None:
    if dtype.kind not in "biuf":
        raise TypeError(
            f"{where} has dtype {dtype}, and a model computes with numbers: store it as "
            f"integers or floats"
        )


def named_shapes(
    sample_shape: SampleShape, names: Iterable[str], where: str
) -> dict[str, tuple[int, ...] | None]:
    """Return the shape of a row for each array, None where it was not given.

    Raises
    ------
    ValueError
        If shapes are given for other arrays than there are.
    """
    names = list(names)
    if sample_shape is None:
        return dict.fromkeys(names)
    given = sample_shape if isinstance(sample_shape, Mapping) else {"": sample_shape}
    if set(given) != set(names):
        have, advice = "one array", "the shape of one row, such as (3,), or () for a number"
        if names != [""]:
            have = ", ".join(map(repr, names))
            advice = f"a dict of the shape of a row for each, such as {dict.fromkeys(names, (3,))}"
        raise ValueError(
            f"sample_shape={sample_shape!r} does not fit to {where}, which has {have}: write {advice}"
        )
    return {name: tuple(given[name]) for name in names}


def check_shapes(layout: Layout, sample_shape: SampleShape, where: str) -> None:
    """Check that rows, whose shapes are known, have those that a user says.

    Raises
    ------
    ValueError
        If they have others.
    """
    known = {field.name: field.shape for field in layout.fields}
    if named_shapes(sample_shape, known, where) != known:
        rows = known if layout.named else known[""]
        raise ValueError(
            f"sample_shape={sample_shape!r} contradicts {where}, whose rows have shape {rows}: write that, or "
            f"leave it out, as the shape of these rows is known"
        )


def field_of(name: str, array: np.ndarray, where: str) -> Field:
    """Return the field of rows along the first axis.

    Raises
    ------
    ValueError
        If a row holds nothing.
    """
    if 0 in array.shape[1:]:
        raise ValueError(f"{where} has shape {array.shape}: its rows are empty")
    return Field(name, array.shape[1:], array.dtype.newbyteorder("="))


def equal_lengths(arrays: Mapping[str, np.ndarray], where: str, advice: str = "") -> int:
    """Return how many rows arrays have.

    Parameters
    ----------
    arrays : mapping of str to array
    where, advice : str
        For messages; ``{}`` in the advice stands for the shapes.

    Raises
    ------
    ValueError
        If one has another number of rows than the others.
    """
    lengths = {name: array.shape[0] for name, array in arrays.items()}
    if len(set(lengths.values())) != 1:
        shapes = {name: tuple(array.shape) for name, array in arrays.items()}
        raise ValueError(
            f"the arrays of {where} have different numbers of rows: {lengths}"
            + advice.format(shapes)
        )
    return next(iter(lengths.values()))
