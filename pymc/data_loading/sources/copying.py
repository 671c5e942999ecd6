# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""The one copy of a row: columns, or rows, of numbers into the row-major arrays of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pymc.data_loading.sources.kernels import interleave, place_rows, scatter

__all__ = ["ColumnGroup", "copy_columns", "copy_rows", "group_columns"]

# Rows that Python handles at a time where dtypes differ: they stay in the second cache
MIXED_BLOCK = 4096
# What the kernels read and write; NumPy copies the rest (float16, other byte orders)
NATIVE = frozenset(np.dtype(kind + size) for kind in "iu" for size in "1248") | {
    np.dtype("f4"),
    np.dtype("f8"),
}


@dataclass(frozen=True, eq=False)
class ColumnGroup:
    """Columns of one dtype, and which columns of a row they are.

    Parameters
    ----------
    arrays : tuple of ndarray, shape (n,)
        All contiguous and of one dtype.
    to : array of int64, shape (len(arrays),)
        Their columns in the output.
    """

    arrays: tuple[np.ndarray, ...]
    to: np.ndarray
    addresses: np.ndarray
    zero: np.ndarray

    @property
    def native(self) -> bool:
        """Whether the kernels read this dtype."""
        return self.zero.dtype in NATIVE


def group_columns(columns: Sequence[np.ndarray]) -> tuple[ColumnGroup, ...]:
    """Group columns by dtype, for :func:`copy_columns`.

    Parameters
    ----------
    columns : sequence of ndarray, shape (n,)
        Bool, integers or floats. One that is not contiguous is copied here.
    """
    by_dtype: dict[np.dtype, list[int]] = {}
    plain = [_as_numbers(np.ascontiguousarray(column)) for column in columns]
    for j, column in enumerate(plain):
        by_dtype.setdefault(column.dtype, []).append(j)
    return tuple(
        ColumnGroup(
            arrays=tuple(plain[j] for j in members),
            to=np.array(members, np.int64),
            addresses=np.array([plain[j].ctypes.data for j in members], np.int64),
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
    """Write rows of columns into row-major rows, converted to their dtype.

    Parameters
    ----------
    groups : sequence of ColumnGroup
        All columns of a row.
    out : ndarray, shape (n, n_columns)
        C-contiguous.
    places : int or array of int64, shape (stop - start,)
        The first row of `out`, or the row of each.
    start, stop : int

    Returns
    -------
    bool
        Whether all floats are finite.

    Raises
    ------
    IndexError
        If a place is outside of `out`, or rows outside of the columns are asked for.

    Examples
    --------
    >>> from pymc.data_loading.sources.copying import copy_columns, group_columns
    >>> groups = group_columns([np.arange(3.0), np.array([True, False, True])])
    >>> out = np.zeros((3, 2))
    >>> copy_columns(groups, out, np.array([2, 0, 1]), 0, 3)
    True
    >>> out
    array([[1., 0.],
           [2., 1.],
           [0., 1.]])
    """
    n_rows = min((len(a) for group in groups for a in group.arrays), default=0)
    _check_bounds(n_rows, out, places, start, stop)
    out = _as_numbers(out)
    step = max(stop - start, 1) if len(groups) == 1 else MIXED_BLOCK
    finite = True
    for low in range(start, stop, step):
        high = min(low + step, stop)
        where = _part(places, low - start, high - start)
        for group in groups:
            finite &= _copy_group(group, out, where, low, high)
    return bool(finite)


def _copy_group(
    group: ColumnGroup, out: np.ndarray, places: np.ndarray | int, start: int, stop: int
) -> bool:
    if not (group.native and out.dtype in NATIVE):
        return _copy_group_plainly(group, out, places, start, stop)
    if isinstance(places, np.ndarray):
        return scatter(group.addresses, group.zero, start, stop, out, group.to, places)
    return interleave(group.addresses, group.zero, start, stop, out[places:], group.to)


def _copy_group_plainly(
    group: ColumnGroup, out: np.ndarray, places: np.ndarray | int, start: int, stop: int
) -> bool:
    rows = _rows(places, stop - start)
    finite = True
    for j, column in zip(group.to, group.arrays, strict=True):
        out[rows, j] = column[start:stop]
        finite &= _all_finite(column[start:stop])
    return finite


def copy_rows(
    rows: np.ndarray, out: np.ndarray, places: np.ndarray | int, start: int, stop: int
) -> bool:
    """Write rows of an array into rows of another; as :func:`copy_columns`, for what lies in rows.

    Parameters
    ----------
    rows : ndarray, shape (n_rows, ...)
        Of any strides, and mapped from a file if so.
    out : ndarray, shape (n, ...)
        C-contiguous.
    places : int or array of int64, shape (stop - start,)
    start, stop : int

    Returns
    -------
    bool
        Whether all floats are finite.

    Raises
    ------
    IndexError
        If a place is outside of `out`, or rows outside of `rows` are asked for.
    """
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
    for low in range(0, len(part), MIXED_BLOCK):
        some = part[low : low + MIXED_BLOCK]
        out[_rows(_part(places, low, low + len(some)), len(some))] = some
        finite &= _all_finite(some)
    return finite


def _check_bounds(
    n_rows: int, out: np.ndarray, places: np.ndarray | int, start: int, stop: int
) -> None:
    """Raise before a kernel would write, or read, where nothing of ours is."""
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
    """Return bools as numbers of a byte, 0 or 1."""
    return array.view(np.uint8) if array.dtype == np.bool_ else array


def _part(places: np.ndarray | int, low: int, high: int) -> np.ndarray | int:
    return places[low:high] if isinstance(places, np.ndarray) else places + low


def _rows(places: np.ndarray | int, n: int) -> np.ndarray | slice:
    return places if isinstance(places, np.ndarray) else slice(places, places + n)


def _all_finite(values: np.ndarray) -> bool:
    return values.dtype.kind != "f" or bool(np.isfinite(values).all())
