# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Rows of arrays: in memory, mapped from a file, or stored elsewhere and read in slices."""

from __future__ import annotations

import hashlib

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pandas as pd

from pymc.data_loading.sources.copying import ColumnBlock
from pymc.data_loading.sources.layout import BlockSource, Field, Layout, equal_parts, listed
from pymc.minibatch.array_data import check_exact, numpy_dtype

SampleShape = Sequence[int] | Mapping[str, Sequence[int]] | None
"""The shape of one row, or of one row of each field."""

#: Bytes of a part, which is read at once: small parts shuffle better
PART_BYTES = 2**20
#: Rows, evenly spaced, by which a checkpoint recognises an array
DIGEST_ROWS = 64


@runtime_checkable
class Shaped(Protocol):
    shape: Any


@runtime_checkable
class ArrayLike(Shaped, Protocol):
    dtype: Any


@runtime_checkable
class AsNumPy(Protocol):
    def __array__(self) -> np.ndarray: ...


@runtime_checkable
class SharedMemory(Protocol):
    def __dlpack__(self) -> object: ...


@runtime_checkable
class Indexable(Protocol):
    def __getitem__(self, index: Any, /) -> Any: ...


@runtime_checkable
class Chunked(Protocol):
    """Array of h5py, zarr or dask, of which ``chunks[0]`` rows are stored together."""

    chunks: Any


def is_of(library: str, data: object, *classes: str) -> bool:
    """Return whether data are of a class of a library, which need not be imported."""
    return any(
        cls.__name__ in classes and cls.__module__.partition(".")[0] == library
        for cls in type(data).__mro__
    )


def is_series(data: object) -> bool:
    """Return whether data are one column of pandas, polars or Arrow."""
    return (
        isinstance(data, pd.Series)
        or is_of("polars", data, "Series")
        or is_of("pyarrow", data, "Array", "ChunkedArray")
    )


def is_array(data: object) -> bool:
    """Return whether data are an array, a tensor, or one column: NumPy reads them as a whole."""
    readable = isinstance(data, ArrayLike) and isinstance(data, AsNumPy | SharedMemory)
    return is_series(data) or readable


def is_stored(data: object) -> bool:
    """Return whether data are an array outside of memory, such as one of h5py, zarr or dask."""
    in_memory = isinstance(data, np.ndarray | np.generic | SharedMemory) or is_series(data)
    if in_memory or not (is_array(data) and isinstance(data, ArrayLike)):
        return False
    known = isinstance(data.dtype, np.dtype) and isinstance(data.shape, tuple)
    return known and isinstance(data, Indexable)


def series_numbers(series: Any, where: str, first_row: int = 0, *, nan: bool = True) -> np.ndarray:
    """Return one column as an array. Missing values are NaN, or a ValueError unless `nan`."""
    if isinstance(series, pd.Series):
        if isinstance(series.dtype, np.dtype):
            return series.to_numpy()
        missing = series.isna().to_numpy()
        series = series.dropna() if missing.any() else series  # which copies
        present = series.to_numpy(dtype=numpy_dtype(series.dtype))
    elif is_of("polars", series, "Series"):
        present, missing = series.drop_nulls().to_numpy(), series.is_null().to_numpy()
    else:  # bits, which bools are in Arrow, have to be copied
        present = series.drop_null().to_numpy(zero_copy_only=False)
        missing = series.is_null().to_numpy(zero_copy_only=False)
    if not missing.any() or present.dtype.kind not in "biuf":
        return present
    if not nan:
        rows = np.flatnonzero(missing)
        raise ValueError(
            f"{where}, row {first_row + rows[0]}: the value is missing, as are {len(rows) - 1} more. A "
            f"likelihood needs a number in each row: fill such values, or leave these rows out"
        )
    dtype = present.dtype if present.dtype.kind == "f" else np.dtype("float64")
    check_exact(present, dtype, where)
    numbers = np.full(len(missing), np.nan, dtype)
    numbers[~missing] = present
    return numbers


def as_numbers(data: Any, where: str) -> np.ndarray:
    """Return an array, tensor, column or nested lists as an array of numbers, not copied if possible."""
    if np.ma.is_masked(data):
        raise ValueError(
            f"{where} has masked values, and a likelihood needs a number in each row: fill them"
        )
    try:
        array = None if is_series(data) else np.asarray(data)
    except Exception as error:
        raise TypeError(
            f"{where}, of type {type(data).__name__}, cannot be read as an array of numbers: {error}"
        ) from error
    array = series_numbers(data, where) if array is None else array
    _check_dtype(array.dtype, where)
    return array


def _check_dtype(dtype: np.dtype, where: str) -> None:
    if dtype.kind not in "biuf":
        raise TypeError(
            f"{where} has dtype {dtype}, and a model computes with numbers: store it as integers or floats"
        )


def as_field(array: np.ndarray, dtype: np.dtype, where: str) -> np.ndarray | None:
    """Return a later array in the dtype of the first: only integers become floats, else None."""
    if array.dtype.newbyteorder("=") == dtype:
        return array
    if not (array.dtype.kind in "biu" and dtype.kind == "f" and np.can_cast(array.dtype, dtype)):
        return None
    check_exact(array, dtype, where)
    return array.astype(dtype)


def field_of(name: str, array: np.ndarray, where: str) -> Field:
    """Return the field of an array of shape ``(n_rows, ...)``."""
    if 0 in array.shape[1:]:
        raise ValueError(f"{where} has shape {array.shape}: its rows are empty")
    return Field(name, array.shape[1:], array.dtype.newbyteorder("="))


def named_shapes(
    sample_shape: SampleShape, names: Iterable[str], where: str
) -> dict[str, tuple[int, ...] | None]:
    """Return the shape of a row for each name, None where users gave none."""
    names = list(names)
    if sample_shape is None:
        return dict.fromkeys(names)
    shapes = sample_shape if isinstance(sample_shape, Mapping) else {"": sample_shape}
    if set(shapes) != set(names):
        have, advice = "one array", "the shape of one row, such as (3,), or () for a number"
        if names != [""]:
            have = ", ".join(map(repr, names))
            advice = f"a dict of the shape of a row for each, such as {dict.fromkeys(names, (3,))}"
        raise ValueError(
            f"sample_shape={sample_shape!r} does not fit {where}, which has {have}: write {advice}"
        )
    return {name: tuple(shapes[name]) for name in names}


def check_shapes(layout: Layout, sample_shape: SampleShape, where: str) -> None:
    """Raise if rows, whose shapes are known, have others than `sample_shape` says."""
    known = {field.name: field.shape for field in layout.fields}
    if named_shapes(sample_shape, known, where) != known:
        rows = known if layout.named else known[""]
        raise ValueError(
            f"sample_shape={sample_shape!r} contradicts {where}, whose rows have shape {rows}: write that, "
            f"or leave it out, as the shape of these rows is known"
        )


def label_of(where: str, name: str) -> str:
    """Return the name of one of several arrays in messages."""
    return f"{where}[{name!r}]" if name else where


def equal_lengths(arrays: Mapping[str, np.ndarray], where: str, advice: str = "") -> int:
    """Return the number of rows of arrays, which all have to have the same."""
    lengths = {name: array.shape[0] for name, array in arrays.items()}
    if len(set(lengths.values())) != 1:
        shapes = {name: tuple(array.shape) for name, array in arrays.items()}
        raise ValueError(
            f"the arrays of {where} have different numbers of rows: {lengths}"
            + advice.format(shapes)
        )
    return next(iter(lengths.values()))


@dataclass(frozen=True, eq=False, repr=False)
class ArraySource(BlockSource):
    """Rows of arrays of shape ``(n_rows, ...)``, by field. Stored arrays are read in slices."""

    arrays: Mapping[str, np.ndarray]
    where: str

    @classmethod
    def of(cls, data: Any, where: str, sample_shape: SampleShape = None) -> ArraySource:
        """Check an array, or a dict of arrays, and return its source."""
        named = data if isinstance(data, Mapping) else {"": data}
        if not named:
            raise ValueError(f"{where} is empty: it has no arrays")
        shapes = named_shapes(sample_shape, named, where)
        arrays = {}
        for name, array in named.items():
            part = label_of(where, name)
            if is_stored(array):
                _check_dtype(array.dtype, part)
            else:
                array = as_numbers(array, part)
            if array.shape == ():
                raise ValueError(
                    f"{part} is {array!r}, a number: rows are along the first axis of an array"
                )
            field = field_of(name, array, part)
            if shapes[name] not in (None, field.shape):
                raise ValueError(
                    f"{part} has shape {array.shape}, so its rows have shape {field.shape}, and not "
                    f"sample_shape={shapes[name]}"
                )
            arrays[name] = array
        if equal_lengths(arrays, where) == 0:
            raise ValueError(f"{where} has no rows")
        return cls(arrays, where)

    @cached_property
    def layout(self) -> Layout:
        return Layout(tuple(field_of(n, array, self.where) for n, array in self.arrays.items()))

    def _repr_parts(self) -> list[str]:
        fields = self.layout.fields
        kinds = [f"{field.dtype} of shape {field.shape} each" for field in fields]
        names = f"fields {listed([field.name for field in fields], 4)}"
        return [*super()._repr_parts(), *([names] if self.layout.named else kinds)]

    @property
    def n_rows(self) -> int:
        return next(iter(self.arrays.values())).shape[0]

    @cached_property
    def _part_rows(self) -> int:
        """Rows of a part: about a megabyte, and whole chunks of arrays that are stored in chunks."""
        chunk = max(map(_chunk_rows, self.arrays.values()))
        n_rows = max(PART_BYTES // self.layout.row_bytes, 1)
        return -(-n_rows // chunk) * chunk

    @cached_property
    def part_lengths(self) -> tuple[int, ...]:
        return equal_parts(self.n_rows, self._part_rows)

    @property
    def identity(self) -> dict[str, Any]:
        return {
            "kind": "arrays",
            "n_rows": self.n_rows,
            "schema": self.layout.schema,
            "digests": [digest(array) for array in self.arrays.values()],
        }

    def read(self, part: int) -> ColumnBlock:
        start = part * self._part_rows
        rows = slice(start, start + self.part_lengths[part])
        columns = tuple((as_numbers(array[rows], self.where),) for array in self.arrays.values())
        return ColumnBlock(self.layout, columns, self.where, start)


def _chunk_rows(array: np.ndarray) -> int:
    """Return how many rows are stored, and therefore read, together."""
    chunks = array.chunks if isinstance(array, Chunked) else ()
    first = chunks[0] if isinstance(chunks, tuple) and chunks else 1
    return first if isinstance(first, int) else 1


def evenly_spaced(n_rows: int) -> np.ndarray:
    """Return some row numbers, the first and the last among them."""
    return np.unique(np.linspace(0, n_rows - 1, DIGEST_ROWS).astype(np.int64))


def digest(array: np.ndarray) -> str:
    """Return SHA-256 of some rows, which tells data sets apart and reads next to nothing."""
    rows = evenly_spaced(array.shape[0])
    if is_stored(array):  # such arrays can do slices, and not always lists of rows
        some = np.concatenate([np.asarray(array[i : i + 1]) for i in rows.tolist()])
    else:
        some = array[rows]
    return hashlib.sha256(np.ascontiguousarray(some).tobytes()).hexdigest()
