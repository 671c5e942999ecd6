# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Shuffle windows: rows that are shuffled together, each written straight to its place in a buffer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from pymc.data_loading.pass_rows import Order, PassRows, Piece, Window
from pymc.data_loading.sources.layout import Layout

__all__ = ["OnNaN", "RowBuffer", "WrittenRows", "write_window"]

#: What to do with a row in which a value is not finite. "keep" is for `shuffle_buffer`.
OnNaN = Literal["raise", "skip", "keep"]

#: Rows that are moved at a time, so that a move needs little memory.
STEP = 4096


@dataclass(frozen=True, eq=False)
class RowBuffer:
    """Memory for rows."""

    values: tuple[np.ndarray, ...]  # for each field of the layout, shape (capacity, *field.shape)
    rows: np.ndarray  # row numbers, int64 of shape (capacity,)

    @classmethod
    def empty(cls, layout: Layout, capacity: int) -> RowBuffer:
        """Allocate memory for `capacity` rows."""
        return cls(layout.empty(capacity), np.empty(capacity, np.int64))

    def arrays(self) -> tuple[np.ndarray, ...]:
        """Return all arrays, that of the row numbers last."""
        return (*self.values, self.rows)


class WrittenRows(NamedTuple):
    """The rows that a window has put into a buffer."""

    n_used: range | np.ndarray  # for each row, how many rows of the pass are used up with it
    skipped: np.ndarray  # for each skipped row, how many rows of the pass come before it


def write_window(
    buffer: RowBuffer,
    start: int,
    rows: PassRows,
    order: Order,
    epoch: int,
    window: Window,
    on_nan: OnNaN,
    n_used: int = 0,
) -> WrittenRows:
    """Write the rows of a window to a buffer in their shuffled order, from the row `start` of it on.

    `rows` is at the start of the window. The `n_used` first rows of the pass are left out.

    Raises
    ------
    ValueError
        If a value is not finite and `on_nan` is "raise".
    """
    places = order.places(epoch, window)
    if places is not None:
        places += start
    bad: list[int] = []
    n_read = 0
    for piece in rows.take(window.n_rows):
        n_piece = piece.stop - piece.start
        where = start + n_read if places is None else places[n_read : n_read + n_piece]
        bad += _write_piece(buffer, piece, where, on_nan)
        n_read += n_piece
        del piece  # its block, before the next one is read
    if places is not None and n_read < window.n_rows:  # the pass has ended: close the gaps
        written = np.sort(places[:n_read])
        _move_together(buffer, start, written)
        bad = (start + np.searchsorted(written, bad)).tolist()
    skipped = np.sort(np.asarray(bad, np.int64)) - start
    if not bad and n_used <= window.start:
        return WrittenRows(range(window.start + 1, window.start + n_read + 1), skipped)
    kept = np.delete(np.arange(n_read), skipped)
    used_up = window.start + 1 + kept
    used_up[-1:] = window.start + n_read  # bad rows at the end are used up with the last good one
    new = used_up > n_used
    _move_together(buffer, start, start + kept[new])
    return WrittenRows(used_up[new], window.start + skipped)


def _write_piece(
    buffer: RowBuffer, piece: Piece, where: np.ndarray | int, on_nan: OnNaN
) -> list[int]:
    """Write rows of a block to their places. Return the places of those to skip."""
    n_rows = piece.stop - piece.start
    finite = piece.block.write(buffer.values, where, piece.start, piece.stop)
    numbers = np.arange(piece.first_row, piece.first_row + n_rows)
    buffer.rows[slice(where, where + n_rows) if isinstance(where, int) else where] = numbers
    return [] if finite else _bad_places(piece, where, on_nan)


def _bad_places(piece: Piece, where: np.ndarray | int, on_nan: OnNaN) -> list[int]:
    bad = piece.block.bad_rows(piece.start, piece.stop)
    if on_nan == "keep":  # a null of a column of integers has no number that could be kept
        bad = [value for value in bad if value.is_null]
    if bad and on_nan != "skip":
        others = f" (and {len(bad) - 1} more in these rows)" if len(bad) > 1 else ""
        raise ValueError(
            f"{piece.block.where}, {bad[0]}: a value is NaN or infinite{others}, so the loss would be "
            f"NaN for all parameters. Clean the data, or leave such rows out: DataLoader(..., on_nan='skip')"
        )
    offsets = sorted({value.row - piece.start for value in bad})
    return [where + i if isinstance(where, int) else int(where[i]) for i in offsets]


def _move_together(buffer: RowBuffer, start: int, places: Sequence[int] | np.ndarray) -> None:
    """Move the rows at ascending places next to each other, from `start` on."""
    for array in buffer.arrays():
        for i in range(0, len(places), STEP):
            some = places[i : i + STEP]
            array[start + i : start + i + len(some)] = array[some]
