# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Rows in named columns, in blocks that are not copied before they are written."""

from __future__ import annotations

import math

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from pymc.data_loading.sources.copying import (
    ColumnGroup,
    copy_columns,
    copy_rows,
    group_columns,
)
from pymc.data_loading.sources.layout import Arrays, BadValue, Block, Field, Layout
from pymc.data_loading.sources.schema import listed

__all__ = ["ColumnBlock", "JoinedBlock"]


@dataclass(frozen=True, eq=False)
class ColumnBlock(Block):
    """Rows in columns of numbers.

    Parameters
    ----------
    layout : Layout
    columns : tuple of tuple of ndarray, shape (n_rows,) or (n_rows, ...)
        For each field its columns, of any numeric dtype. They are not copied if they are contiguous.
        One with further axes is several columns of the field.
    where : str
    first_row : int
        What messages call the first row: above 0 in a piece of a larger block.
    missing : tuple of (str, str, ndarray of bool, shape (n_rows,))
        Field and column in which values are missing, and where: what is there instead of them is no
        value. NaN of floats need no such entry.
    """

    layout: Layout
    columns: tuple[Arrays, ...]
    where: str
    first_row: int = 0
    missing: tuple[tuple[str, str, np.ndarray], ...] = ()

    @property
    def n_rows(self) -> int:  # type: ignore[override]
        """How many rows there are."""
        return len(self.columns[0][0])

    @cached_property
    def _groups(self) -> tuple[tuple[ColumnGroup, ...], ...]:
        return tuple(map(group_columns, map(_single, self.columns)))

    @cached_property
    def _inexact(self) -> tuple[bool, ...]:
        """Whether a field might not hold a number of its columns."""
        return tuple(
            not all(_holds(field.dtype, column.dtype) for column in columns)
            for field, columns in zip(self.layout.fields, self.columns, strict=True)
        )

    def write(self, out: Arrays, places: np.ndarray | int, start: int, stop: int) -> bool:
        """Write rows of all fields, see :meth:`.Block.write`."""
        finite = not any(mask[start:stop].any() for _, _, mask in self.missing)
        for i, (field, columns, array) in enumerate(
            zip(self.layout.fields, self.columns, out, strict=True)
        ):
            if self._inexact[i]:
                self._check_exact(field, columns, start, stop)
            if len(columns) == 1 and columns[0].ndim > 1:  # its values lie in rows already
                finite &= copy_rows(columns[0], array, places, start, stop)
            else:
                flat = array.reshape(len(array), math.prod(field.shape))
                finite &= copy_columns(self._groups[i], flat, places, start, stop)
        return finite

    def _check_exact(self, field: Field, columns: Arrays, start: int, stop: int) -> None:
        """Raise if the dtype of the field does not hold a number of a column."""
        parts = tuple(column[start:stop] for column in columns)
        if start == stop or all(_all_held(part, field.dtype) for part in parts):
            return
        for name, part in _labelled(field, parts):
            rows = np.flatnonzero(_inexact(part, field.dtype))
            if len(rows):
                raise ValueError(
                    f"{self.where}, column {name}, row {self.first_row + start + int(rows[0])}: "
                    + _why_inexact(part[rows[0]], field, name)
                )

    def bad_rows(self, start: int, stop: int) -> list[BadValue]:
        """Return where values are missing, or floats not finite."""
        found = [
            BadValue(int(row) + start, field.name, name, self.first_row)
            for field, columns in zip(self.layout.fields, self.columns, strict=True)
            if any(column.dtype.kind == "f" for column in columns)
            for name, column in _labelled(field, columns)
            if column.dtype.kind == "f"
            for row in np.flatnonzero(~np.isfinite(column[start:stop]))
        ]
        found += [
            BadValue(int(row) + start, field_name, repr(name), self.first_row, is_null=True)
            for field_name, name, mask in self.missing
            for row in np.flatnonzero(mask[start:stop])
        ]
        return sorted(found, key=lambda bad: bad.row)


def _single(columns: Arrays) -> list[np.ndarray]:
    """Return all columns as arrays of one axis."""
    return [part for column in columns for part in (column.T if column.ndim == 2 else (column,))]


def _labelled(field: Field, columns: Arrays) -> Iterator[tuple[str, np.ndarray]]:
    """Yield each number of a row, of shape (n_rows,), with what messages call it."""
    for j, part in enumerate(p for c in columns for p in c.reshape(len(c), -1).T):
        yield field.label(tuple(map(int, np.unravel_index(j, field.shape or (1,))))), part


def _holds(dtype: np.dtype, other: np.dtype) -> bool:
    """Return whether a dtype holds all numbers of another one."""
    if other.kind in "iu" and dtype.kind == "f":
        return other.itemsize * 8 <= np.finfo(dtype).nmant + 1
    return np.can_cast(other, dtype, "safe")


def _all_held(values: np.ndarray, dtype: np.dtype) -> bool:
    """Return whether a dtype holds some numbers."""
    if _holds(dtype, values.dtype):
        return True
    if values.dtype.kind in "iu":  # in two passes, without an array of their size
        low, high = _ends(dtype)
        return bool(low <= values.min() and values.max() <= high)
    return not _inexact(values, dtype).any()


def _inexact(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Return which values a dtype does not hold; NaN and infinite ones are no matter of dtypes."""
    if _holds(dtype, values.dtype):
        return np.zeros(values.shape, bool)
    if dtype.kind == "f" and values.dtype.kind == "f":
        with np.errstate(over="ignore"):
            return (values.astype(dtype) != values) & np.isfinite(values)
    low, high = _ends(dtype)
    if values.dtype.kind != "f":
        return (values < low) | (values > high)
    # As floats: the upper end rounds to one above what integers of 64 bits hold
    outside = (values < float(low)) | (values >= float(high) + 1)
    return (outside | (values != np.trunc(values))) & np.isfinite(values)


def _ends(dtype: np.dtype) -> tuple[int, int]:
    """Return between which integers a dtype holds each one."""
    if dtype.kind == "f":
        largest = 2 ** (np.finfo(dtype).nmant + 1)
        return -largest, largest
    return (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)


def _why_inexact(value: Any, field: Field, name: str) -> str:
    if field.dtype.kind == "f" and value.dtype.kind in "iu":
        together = f", the dtype of columns {listed(field.columns or ())} together," * bool(
            field.columns
        )
        return (
            f"{value} is beyond 2**{np.finfo(field.dtype).nmant + 1}, and a {field.dtype}{together} does not "
            f'hold it. Give columns of integers a field of their own: columns={{"x": [...], "id": {name}}}'
        )
    both = np.result_type(value.dtype, field.dtype).name
    return (
        f"{value} is no {field.dtype}, which is the dtype of this column by what was read first, or by "
        f"dtypes=. One that holds both: dtypes={{{name}: {both!r}}} of parquet_source and arrow_source, or "
        f"convert the data"
    )


@dataclass(frozen=True, eq=False)
class JoinedBlock(Block):
    """Blocks one after another, as one.

    Parameters
    ----------
    pieces : tuple of Block
    where : str
    """

    pieces: tuple[Block, ...]
    where: str

    @cached_property
    def _starts(self) -> np.ndarray:
        return np.cumsum([0, *(piece.n_rows for piece in self.pieces)])

    @property
    def n_rows(self) -> int:  # type: ignore[override]
        """How many rows there are in all pieces."""
        return int(self._starts[-1])

    def _parts(self, start: int, stop: int) -> Iterator[tuple[Block, int, int, int]]:
        """Yield pieces with rows of theirs, and where the piece begins."""
        first = int(np.searchsorted(self._starts, start, side="right")) - 1
        for piece, at in zip(self.pieces[first:], self._starts[first:-1].tolist(), strict=True):
            if at >= stop:
                return
            yield piece, max(start - at, 0), min(stop - at, piece.n_rows), at

    def write(self, out: Arrays, places: np.ndarray | int, start: int, stop: int) -> bool:
        """Write rows of all pieces, see :meth:`.Block.write`."""
        finite = True
        for piece, low, high, at in self._parts(start, stop):
            done = at + low - start
            where = (
                places[done : done + high - low]
                if isinstance(places, np.ndarray)
                else places + done
            )
            finite &= piece.write(out, where, low, high)
        return finite

    def bad_rows(self, start: int, stop: int) -> list[BadValue]:
        """Return where floats are not finite, with the rows of the whole."""
        return [
            bad._replace(row=bad.row + at, first_row=0)
            for piece, low, high, at in self._parts(start, stop)
            for bad in piece.bad_rows(low, high)
        ]
