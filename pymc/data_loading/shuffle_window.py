# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Shuffled windows: the order of the rows of a pass, and how a window is written to memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from pymc.data_loading.pass_rows import Order, PassRows, Piece, Window
from pymc.data_loading.sources.layout import Layout

__all__ = ["OnNaN", "Slab", "Written", "drop_first", "write_window"]


#: What to do with a row in which a value is not finite. A loader does not keep it.
OnNaN = Literal["raise", "skip", "keep"]

#: How many rows are moved at a time, so that a move needs little memory of its own.
STEP = 4096


@dataclass(frozen=True, eq=False)
class Slab:
    """Memory for rows.

    Parameters
    ----------
    values : tuple of ndarray
        One a field of the layout, of shape ``(capacity, *field.shape)``.
    rows : array of int64, shape (capacity,)
        Row numbers.
    """

    values: tuple[np.ndarray, ...]
    rows: np.ndarray

    @classmethod
    def empty(cls, layout: Layout, capacity: int) -> Slab:
        """Return memory for so many rows of a layout."""
        return cls(layout.empty(capacity), np.empty(capacity, np.int64))

    def arrays(self) -> tuple[np.ndarray, ...]:
        """Return all arrays, with those of the row numbers."""
        return (*self.values, self.rows)


_NONE = np.empty(0, np.int64)


class Written(NamedTuple):
    """What a window put into a slab.

    Attributes
    ----------
    n_rows : int
        Rows there now.
    used : int or array of int64, shape (n_rows,)
        How many rows of the pass's order are used up with each of them: one more each time, from an int
        for the first; or for each.
    skipped : array of int64
        How many rows of the pass's order come before each that was left out since a value was not finite.
    """

    n_rows: int
    used: int | np.ndarray
    skipped: np.ndarray = _NONE

    def used_at(self, which: np.ndarray) -> np.ndarray:
        """Return how many rows of the pass are used up with some of the rows."""
        return self.used + which if isinstance(self.used, int) else self.used[which]


def write_window(
    slab: Slab, at: int, rows: PassRows, order: Order, epoch: int, window: Window, on_nan: OnNaN
) -> Written:
    """Write the rows of a window to a slab in their shuffled order.

    Parameters
    ----------
    slab : Slab
        With room for ``window.n_rows`` from `at`.
    at : int
        Where the window begins in it.
    rows : PassRows
        Which stands at the window's start. It may end within.
    order : Order
    epoch : int
    window : Window
    on_nan : {"raise", "skip", "keep"}

    Raises
    ------
    ValueError
        If a value is not finite, and `on_nan` is "raise".
    """
    places = order.places(epoch, window)
    if places is not None:
        places += at
    bad: list[int] = []
    n_read = 0
    for piece in rows.take(window.n_rows):
        n_piece = piece.stop - piece.start
        where = at + n_read if places is None else places[n_read : n_read + n_piece]
        finite = _write_piece(slab, piece, where)
        if not finite:
            bad.extend(_bad_places(piece, where, on_nan))
        n_read += n_piece
        del piece  # its block, before the next one is read
    if places is not None and n_read < window.n_rows:
        bad = _close_holes(slab, at, np.sort(places[:n_read]), bad)
    if not bad:
        return Written(n_read, window.start + 1)
    return _leave_out(slab, at, window.start, n_read, bad)


def _write_piece(slab: Slab, piece: Piece, where: np.ndarray | int) -> bool:
    n_rows = piece.stop - piece.start
    finite = piece.block.write(slab.values, where, piece.start, piece.stop)
    numbers = np.arange(piece.first_row, piece.first_row + n_rows)
    slab.rows[slice(where, where + n_rows) if isinstance(where, int) else where] = numbers
    return finite


def _bad_places(piece: Piece, where: np.ndarray | int, on_nan: OnNaN) -> list[int]:
    """Return where in the slab rows are to be left out, as a value is not finite; or raise.

    What has no number, such as a null of a column of integers, cannot be kept.
    """
    bad = piece.block.bad_rows(piece.start, piece.stop)
    if on_nan == "keep":
        bad = [value for value in bad if value.is_null]
    if bad and on_nan != "skip":
        others = f" (and {len(bad) - 1} more in these rows)" if len(bad) > 1 else ""
        raise ValueError(
            f"{piece.block.where}, {bad[0]}: a value is NaN or infinite{others}, so the loss would be "
            f"NaN for all parameters. Clean the data, or leave such rows out: DataLoader(..., on_nan='skip')"
        )
    offsets = sorted({value.row - piece.start for value in bad})
    return [where + i if isinstance(where, int) else int(where[i]) for i in offsets]


def _close_holes(slab: Slab, at: int, taken: np.ndarray, bad: Sequence[int]) -> list[int]:
    """Move rows together where a pass had fewer than the window; return where the bad ones are then."""
    _move(slab, at, taken)
    return (at + np.searchsorted(taken, bad)).tolist()


def _leave_out(slab: Slab, at: int, start: int, n_read: int, bad: Sequence[int]) -> Written:
    """Move rows together over the bad ones."""
    left_out = np.sort(np.asarray(bad)) - at
    kept = np.delete(np.arange(n_read), left_out)
    _move(slab, at, kept + at)
    used = start + 1 + kept
    used[-1:] = start + n_read  # bad rows at the end are used up with the last good one
    return Written(len(kept), used, start + left_out)


def _move(slab: Slab, at: int, taken: np.ndarray) -> None:
    """Move rows at ascending places, all of them from `at` on, next to each other."""
    for array in slab.arrays():
        for i in range(0, len(taken), STEP):
            part = taken[i : i + STEP]
            array[at + i : at + i + len(part)] = array[part]


def drop_first(slab: Slab, at: int, written: Written, n_rows: int) -> Written:
    """Drop the rows of a window that were used up before: those with which up to `n_rows` were.

    Parameters
    ----------
    slab : Slab
    at : int
        Where the window begins in it.
    written : Written
    n_rows : int
        How many rows of the pass's order were used.
    """
    used = written.used_at(np.arange(written.n_rows))
    left = np.flatnonzero(used > n_rows)
    skipped = written.skipped[written.skipped >= n_rows]
    if len(left) == written.n_rows:
        return written._replace(skipped=skipped)
    _move(slab, at, left + at)
    return Written(len(left), used[left], skipped)
