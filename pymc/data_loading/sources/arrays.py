# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Rows of arrays: in memory, or mapped from a file. They are never copied but into a batch."""

from __future__ import annotations

import hashlib

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from pymc.data_loading.sources.copying import copy_rows
from pymc.data_loading.sources.layout import (
    Arrays,
    BadValue,
    Block,
    BlockSource,
    Layout,
    shown,
)
from pymc.data_loading.sources.parts import Slices
from pymc.data_loading.sources.protocols import Chunked
from pymc.data_loading.sources.values import (
    as_numbers,
    equal_lengths,
    field_of,
    is_stored,
    named_shapes,
    stored_or_numbers,
)

__all__ = ["ArrayBlock", "ArraySource", "digest", "evenly_spaced"]

#: Bytes of the rows that are read at once: small parts shuffle better
SLICE_BYTES = 2**20
#: Rows, evenly spaced, by which a checkpoint recognises an array
DIGEST_ROWS = 64


@dataclass(frozen=True, eq=False)
class ArrayBlock(Block):
    """Rows of arrays.

    Parameters
    ----------
    layout : Layout
    arrays : tuple of ndarray, shape (n_rows, ...)
        Of any strides and byte order.
    where : str
    first_row : int
        What messages call the first row.
    """

    layout: Layout
    arrays: Arrays
    where: str
    first_row: int = 0

    @property
    def n_rows(self) -> int:  # type: ignore[override]
        """How many rows there are."""
        return len(self.arrays[0])

    def write(self, out: Arrays, places: np.ndarray | int, start: int, stop: int) -> bool:
        """Write rows of all fields, see :meth:`.Block.write`."""
        finite = True
        for array, to in zip(self.arrays, out, strict=True):
            finite &= copy_rows(array, to, places, start, stop)
        return finite

    def bad_rows(self, start: int, stop: int) -> list[BadValue]:
        """Return where floats are not finite."""
        found = [
            BadValue(int(row) + start, field.name, field.label(tuple(place)), self.first_row)
            for field, array in zip(self.layout.fields, self.arrays, strict=True)
            if array.dtype.kind == "f"
            for row, *place in np.argwhere(~np.isfinite(array[start:stop])).tolist()
        ]
        return sorted(found, key=lambda bad: bad.row)


@dataclass(frozen=True, eq=False, repr=False)
class ArraySource(BlockSource):
    """Rows of an array, or of several that belong together.

    Parameters
    ----------
    named : mapping of str to array, shape (n_rows, ...)
        By field. Of an array that is stored elsewhere, slices are read one by one.
    where : str
        What messages call them.

    Examples
    --------
    >>> from pymc.data_loading.sources.arrays import ArraySource
    >>> source = ArraySource.of({"X": np.ones((5, 2)), "y": np.arange(5)}, "data")
    >>> source.n_rows, source.layout.fields[0].shape
    (5, (2,))
    """

    named: Mapping[str, np.ndarray]
    where: str

    @classmethod
    def of(cls, data: Any, where: str, sample_shape: Any = None) -> ArraySource:
        """Make the source of an array, or of a dict of arrays.

        Raises
        ------
        TypeError
            If something is no array of numbers.
        ValueError
            For a number instead of an array, no rows, different numbers of rows, or rows of another
            shape than `sample_shape`.
        """
        named = data if isinstance(data, Mapping) else {"": data}
        if not named:
            raise ValueError(f"{where} is empty: it has no arrays")
        arrays = {
            n: stored_or_numbers(a, f"{where}[{n!r}]" if n else where) for n, a in named.items()
        }
        shapes = named_shapes(sample_shape, named, where)
        for name, array in arrays.items():
            _check_rows(array, shapes[name], f"{where}[{name!r}]" if name else where)
        if equal_lengths(arrays, where) == 0:
            raise ValueError(f"{where} has no rows")
        return cls(arrays, where)

    @cached_property
    def layout(self) -> Layout:
        """A field for each array."""
        return Layout(tuple(field_of(n, array, self.where) for n, array in self.named.items()))

    def _told(self) -> list[str]:
        fields = self.layout.fields
        names = [f"fields {shown([field.name for field in fields])}"] if self.layout.named else []
        kinds = [f"{field.dtype} of shape {field.shape} each" for field in fields[: not names]]
        return [*super()._told(), *names, *kinds]

    @property
    def n_rows(self) -> int:
        """How many rows the arrays have."""
        return next(iter(self.named.values())).shape[0]

    @cached_property
    def _slices(self) -> Slices:
        multiple = max(map(_chunk_rows, self.named.values()))
        return Slices.of_bytes(self.n_rows, self.layout.row_bytes, SLICE_BYTES, multiple)

    @cached_property
    def part_lengths(self) -> tuple[int, ...]:
        """Rows of slices of about a megabyte, or of a chunk of what is stored in chunks."""
        return self._slices.lengths

    @property
    def identity(self) -> dict[str, Any]:
        """Shapes, dtypes, and a digest of some rows."""
        return {
            "kind": "arrays",
            "n_rows": self.n_rows,
            "schema": self.layout.schema,
            "digests": [digest(array) for array in self.named.values()],
        }

    def read(self, part: int) -> Block:
        """Return a slice of the arrays."""
        rows = self._slices[part]
        some = tuple(as_numbers(array[rows], self.where) for array in self.named.values())
        return ArrayBlock(self.layout, some, self.where, rows.start)


def _chunk_rows(array: Any) -> int:
    """Return how many rows are stored together, which are read together."""
    if not isinstance(array, Chunked) or not isinstance(array.chunks, tuple):
        return 1
    first = array.chunks[0] if array.chunks else 1
    return first if isinstance(first, int) else 1


def _check_rows(array: np.ndarray, sample_shape: Sequence[int] | None, where: str) -> None:
    if array.shape == ():
        raise ValueError(
            f"{where} is {array!r}, a number: rows are along the first axis of an array"
        )
    if 0 in array.shape[1:]:
        raise ValueError(f"{where} has shape {array.shape}: its rows are empty")
    if sample_shape is not None and array.shape[1:] != tuple(sample_shape):
        raise ValueError(
            f"{where} has shape {array.shape}, so its rows have shape {array.shape[1:]}, and not "
            f"sample_shape={tuple(sample_shape)}"
        )


def evenly_spaced(n_rows: int) -> np.ndarray:
    """Return the numbers of some rows, the first and the last among them."""
    return np.unique(np.linspace(0, n_rows - 1, DIGEST_ROWS).astype(np.int64))


def digest(array: np.ndarray) -> str:
    """Return SHA-256 of some rows: it tells data sets apart, and reads next to nothing."""
    places = evenly_spaced(array.shape[0])
    if is_stored(array):  # which know slices best
        some = np.concatenate([np.asarray(array[i : i + 1]) for i in places.tolist()])
    else:
        some = array[places]
    return hashlib.sha256(np.ascontiguousarray(some).tobytes()).hexdigest()
