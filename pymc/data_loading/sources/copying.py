# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Blocks of rows, and the compiled loops that copy them into batches.

The loops hold no interpreter lock, so that they run beside a fit. They walk in runs of rows that stay in
the first cache, as each column writes one number per row. A sum of ``0 * value`` is 0 if all floats are
finite, which costs next to nothing. They take addresses instead of arrays: one kernel, compiled once per
pair of dtypes, reads any number of columns, even read-only ones. Their callers check the bounds.
"""

from __future__ import annotations

import math

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numba
import numpy as np

from numba import types
from numba.extending import intrinsic

from pymc.data_loading.sources.layout import Arrays, BadValue, Block, Field, Layout, listed
from pymc.minibatch.array_data import integer_bounds

# Rows that Python copies at a time if dtypes differ: they stay in the second cache
MIXED_ROWS = 4096
# Dtypes of the kernels. NumPy copies the others (float16, other byte orders)
NATIVE = frozenset(np.dtype(kind + size) for kind in "iu" for size in "1248") | {
    np.dtype("f4"),
    np.dtype("f8"),
}
# Rows that are interleaved at a time: 256 x 20 numbers of 4 bytes are 20 KB
CACHED_ROWS = 256


@intrinsic
def _pointer(typingctx: Any, address: Any) -> Any:
    """Return the ``void *`` of an integer, so that one kernel reads any number of columns."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], context.get_value_type(types.voidptr))

    return types.voidptr(types.int64), codegen


@numba.njit(nogil=True, cache=True)
def interleave(addresses, zero, start, stop, out, to):  # type: ignore[no-untyped-def]
    """Write rows of columns to the rows of `out`: column j to ``out[:, to[j]]``."""
    finite = True
    for low in range(start, stop, CACHED_ROWS):
        n = min(CACHED_ROWS, stop - low)
        rows = out[low - start : low - start + n]
        for j in range(addresses.shape[0]):
            column = numba.carray(_pointer(addresses[j] + low * zero.itemsize), n, zero.dtype)
            target = rows[:, to[j]]
            total = zero[0]
            for i in range(n):
                value = column[i]
                target[i] = value
                total += value * 0
            finite &= total == 0
    return finite


@numba.njit(nogil=True, cache=True)
def scatter(addresses, zero, start, stop, out, to, places):  # type: ignore[no-untyped-def]
    """Write rows of columns to rows `places` of `out`."""
    finite = True
    for low in range(start, stop, CACHED_ROWS):
        n = min(CACHED_ROWS, stop - low)
        rows = places[low - start : low - start + n]
        for j in range(addresses.shape[0]):
            column = numba.carray(_pointer(addresses[j] + low * zero.itemsize), n, zero.dtype)
            target = out[:, to[j]]
            total = zero[0]
            for i in range(n):
                value = column[i]
                target[np.uintp(rows[i])] = value  # unsigned: no test for places from the end
                total += value * 0
            finite &= total == 0
    return finite


# Sums in any order are vectorised; nothing else of floats is given up
@numba.njit(nogil=True, cache=True, fastmath={"reassoc"})
def place_rows(address, zero, n, out, places):  # type: ignore[no-untyped-def]
    """Write `n` rows, which lie one after another, to rows `places` of `out`."""
    width = out.shape[1]
    rows = numba.carray(_pointer(address), (n, width), zero.dtype)
    finite = True
    for i in range(n):
        target = out[places[i]]
        total = zero[0]
        for j in range(width):
            value = rows[i, j]
            target[j] = value
            total += value * 0
        finite &= total == 0
    return finite


@dataclass(frozen=True, eq=False)
class ColumnGroup:
    """Contiguous columns of one dtype, each of shape (n,)."""

    arrays: Arrays
    to: np.ndarray  #: their columns in the output
    addresses: np.ndarray
    zero: np.ndarray  #: of shape (1,), which tells the kernels the dtype


def group_columns(columns: Sequence[np.ndarray]) -> tuple[ColumnGroup, ...]:
    """Group columns of shape (n,) by dtype, for :func:`copy_columns`; copy those not contiguous."""
    by_dtype: dict[np.dtype, list[int]] = {}
    arrays = [_as_numbers(np.ascontiguousarray(column)) for column in columns]
    for j, array in enumerate(arrays):
        by_dtype.setdefault(array.dtype, []).append(j)
    return tuple(
        ColumnGroup(
            arrays=tuple(arrays[j] for j in members),
            to=np.array(members, np.int64),
            addresses=np.array([arrays[j].ctypes.data for j in members], np.int64),
            zero=np.zeros(1, dtype),
        )
        for dtype, members in by_dtype.items()
    )


def copy_columns(
    groups: Sequence[ColumnGroup],
    out: np.ndarray,
    places: np.ndarray | int,
    start: int,
    stop: int,
) -> bool:
    """Write rows of columns into rows of `out`, and return whether all floats are finite.

    Parameters
    ----------
    groups : sequence of ColumnGroup
        All columns of a row.
    out : ndarray, shape (n, n_columns)
        C-contiguous, of any numeric dtype.
    places : int or array of int64, shape (stop - start,)
        The first row of `out`, or the row of each.
    start, stop : int

    Raises
    ------
    IndexError
        If a place is outside of `out`, or a row outside of the columns.
    """
    n_rows = min((len(a) for group in groups for a in group.arrays), default=0)
    _check_bounds(n_rows, out, places, start, stop)
    out = _as_numbers(out)
    step = max(stop - start, 1) if len(groups) == 1 else MIXED_ROWS
    finite = True
    for low in range(start, stop, step):
        high = min(low + step, stop)
        some = _part(places, low - start, high - start)
        for group in groups:
            finite &= _copy_group(group, out, some, low, high)
    return bool(finite)


def _copy_group(
    group: ColumnGroup, out: np.ndarray, places: np.ndarray | int, start: int, stop: int
) -> bool:
    if group.zero.dtype in NATIVE and out.dtype in NATIVE:
        if isinstance(places, np.ndarray):
            return scatter(group.addresses, group.zero, start, stop, out, group.to, places)
        return interleave(group.addresses, group.zero, start, stop, out[places:], group.to)
    rows = _rows(places, stop - start)
    finite = True
    for j, column in zip(group.to, group.arrays, strict=True):
        out[rows, j] = column[start:stop]
        finite &= _all_finite(column[start:stop])
    return finite


def copy_rows(
    rows: np.ndarray, out: np.ndarray, places: np.ndarray | int, start: int, stop: int
) -> bool:
    """Write rows of an array of any strides, as :func:`copy_columns` does with columns."""
    _check_bounds(len(rows), out, places, start, stop)
    rows, out = _as_numbers(rows), _as_numbers(out)
    part, flat = rows[start:stop], out.reshape(len(out), -1)
    direct = part.flags.c_contiguous and part.dtype == out.dtype and part.dtype in NATIVE
    if direct and part.dtype.kind == "f":
        if not isinstance(places, np.ndarray):
            places = np.arange(places, places + len(part))
        zero = np.zeros(1, part.dtype)
        return bool(place_rows(part.ctypes.data, zero, len(part), flat, places))
    finite = True
    for low in range(0, len(part), MIXED_ROWS):
        some = part[low : low + MIXED_ROWS]
        out[_rows(_part(places, low, low + len(some)), len(some))] = some
        finite &= _all_finite(some)
    return finite


def _check_bounds(
    n_rows: int, out: np.ndarray, places: np.ndarray | int, start: int, stop: int
) -> None:
    """Raise before a kernel would read or write outside of the arrays."""
    n = stop - start
    if isinstance(places, np.ndarray):
        inside = len(places) == n and (n == 0 or (places.min() >= 0 and places.max() < len(out)))
    else:
        inside = 0 <= places <= len(out) - n
    if not (0 <= start <= stop <= n_rows and inside):
        raise IndexError(
            f"Rows {start} to {stop} of {n_rows} do not fit to places {places!r} of {len(out)}."
        )
    if not out.flags.c_contiguous:
        raise ValueError(f"The output, of shape {out.shape}, is not C-contiguous.")


def _as_numbers(array: np.ndarray) -> np.ndarray:
    """Return bools as integers of one byte."""
    return array.view(np.uint8) if array.dtype == np.bool_ else array


def _part(places: np.ndarray | int, low: int, high: int) -> np.ndarray | int:
    return places[low:high] if isinstance(places, np.ndarray) else places + low


def _rows(places: np.ndarray | int, n: int) -> np.ndarray | slice:
    return places if isinstance(places, np.ndarray) else slice(places, places + n)


def _all_finite(values: np.ndarray) -> bool:
    return values.dtype.kind != "f" or bool(np.isfinite(values).all())


@dataclass(frozen=True, eq=False)
class ColumnBlock(Block):
    """Rows in columns of numbers, which are copied only into batches if they are contiguous."""

    layout: Layout
    columns: tuple[
        Arrays, ...
    ]  #: of each field, of shape (n_rows,), or with further axes for several
    where: str
    first_row: int = 0  #: the number that messages give to the first row
    #: Field, column, and in which rows its values are missing, if its dtype has no NaN
    missing: tuple[tuple[str, str, np.ndarray], ...] = ()

    @property
    def n_rows(self) -> int:  # type: ignore[override]
        return len(self.columns[0][0])

    @cached_property
    def _groups(self) -> tuple[tuple[ColumnGroup, ...], ...]:
        return tuple(
            group_columns([one for column in columns for one in _matrix(column).T])
            for columns in self.columns
        )

    @cached_property
    def _fits(self) -> tuple[bool, ...]:
        """Return whether the dtype of each field holds all numbers of its columns."""
        return tuple(
            all(_holds(field.dtype, column.dtype) for column in columns)
            for field, columns in zip(self.layout.fields, self.columns, strict=True)
        )

    def write(self, out: Arrays, places: np.ndarray | int, start: int, stop: int) -> bool:
        finite = not any(mask[start:stop].any() for _, _, mask in self.missing)
        fields = zip(self.layout.fields, self.columns, out, strict=True)
        for i, (field, columns, array) in enumerate(fields):
            if not self._fits[i]:
                self._check_exact(field, columns, start, stop)
            if len(columns) == 1 and columns[0].shape[1:] == field.shape:  # a row lies together
                finite &= copy_rows(columns[0], array, places, start, stop)
            else:
                flat = array.reshape(len(array), math.prod(field.shape))
                finite &= copy_columns(self._groups[i], flat, places, start, stop)
        return finite

    def _check_exact(self, field: Field, columns: Arrays, start: int, stop: int) -> None:
        """Raise if a number of a column does not fit the dtype of the field."""
        for first, some in _matrices(columns, start, stop):
            if not _all_held(some, field.dtype):
                row, j = np.argwhere(_inexact(some, field.dtype))[0].tolist()
                name = _label(field, first + j)
                raise ValueError(
                    f"{self.where}, column {name}, row {self.first_row + start + row}: "
                    + _why_inexact(some[row, j], field, name)
                )

    def bad_rows(self, start: int, stop: int) -> list[BadValue]:
        found = [
            BadValue(start + row, field.name, _label(field, first + j), self.first_row)
            for field, columns in zip(self.layout.fields, self.columns, strict=True)
            for first, some in _matrices(columns, start, stop)
            if some.dtype.kind == "f"
            for row, j in np.argwhere(~np.isfinite(some)).tolist()
        ]
        found += [
            BadValue(start + row, field_name, repr(name), self.first_row, is_null=True)
            for field_name, name, mask in self.missing
            for row in np.flatnonzero(mask[start:stop]).tolist()
        ]
        return sorted(found, key=lambda bad: bad.row)


def _matrices(columns: Arrays, start: int, stop: int) -> Iterator[tuple[int, np.ndarray]]:
    """Yield rows of columns, each with the numbers of a row along one axis, and the first's place."""
    first = 0
    for column in columns:
        yield first, (some := _matrix(column[start:stop]))
        first += some.shape[1]


def _matrix(column: np.ndarray) -> np.ndarray:
    """Return a column with all numbers of a row along one axis."""
    return column.reshape(len(column), math.prod(column.shape[1:]))


def _label(field: Field, j: int) -> str:
    """Return the name that messages give to number `j` of a row."""
    return field.label(tuple(map(int, np.unravel_index(j, field.shape))) if field.shape else ())


def _holds(dtype: np.dtype, other: np.dtype) -> bool:
    """Return whether a dtype holds all numbers of another one."""
    if other.kind in "iu" and dtype.kind == "f":
        return other.itemsize * 8 <= np.finfo(dtype).nmant + 1
    return np.can_cast(other, dtype, "safe")


def _all_held(values: np.ndarray, dtype: np.dtype) -> bool:
    """Return whether a dtype holds these values."""
    if not values.size or _holds(dtype, values.dtype):
        return True
    if values.dtype.kind in "iu":  # in two passes, without an array of their size
        low, high = integer_bounds(dtype)
        return bool(low <= values.min() and values.max() <= high)
    return not _inexact(values, dtype).any()


def _inexact(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Return which values a dtype does not hold. NaN and infinity count as held."""
    if dtype.kind == "f" and values.dtype.kind == "f":
        with np.errstate(over="ignore"):
            return (values.astype(dtype) != values) & np.isfinite(values)
    low, high = integer_bounds(dtype)
    if values.dtype.kind != "f":
        return (values < low) | (values > high)
    # As floats: the upper end rounds to one above what integers of 64 bits hold
    outside = (values < float(low)) | (values >= float(high) + 1)
    return (outside | (values != np.trunc(values))) & np.isfinite(values)


def _why_inexact(value: np.generic, field: Field, name: str) -> str:
    if field.dtype.kind == "f" and value.dtype.kind in "iu":
        together = (
            f", the dtype of columns {listed(field.columns)} together," if field.columns else ""
        )
        return (
            f"{value} is beyond 2**{np.finfo(field.dtype).nmant + 1}, and a {field.dtype}{together} does "
            f'not hold it. Give such columns their own field: columns={{"x": [...], "id": {name}}}'
        )
    both = np.result_type(value.dtype, field.dtype).name
    return (
        f"{value} is no {field.dtype}, the dtype of this column in the first block or by dtypes=. "
        f"{both} holds both: write dtypes={{{name}: {both!r}}} in parquet_source or arrow_source, or convert "
        f"the data"
    )
