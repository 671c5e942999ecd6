# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Shuffle windows: rows written straight to their shuffled places in a buffer, and cut into batches."""

from __future__ import annotations

import math

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple

import numpy as np

from pymc.data_loading.batch import Chunk, PassEnd, Position
from pymc.data_loading.pass_rows import Order, PassRows, Piece
from pymc.data_loading.prefetch import Demand
from pymc.data_loading.sources.layout import Arrays, BlockSource, ExhaustedSourceError, Layout

__all__ = ["BatchPlan", "OnNaN", "read_chunks", "read_one_pass"]

#: What to do with a row in which a value is not finite. "keep" is for `shuffle_buffer`.
OnNaN = Literal["raise", "skip", "keep"]

#: Rows that are moved at a time, so that a move needs little memory.
STEP = 4096


@dataclass(frozen=True)
class BatchPlan:
    """All that the batches of a stream depend on."""

    source: BlockSource
    order: Order
    batch_size: int
    on_nan: OnNaN
    open_pass: Callable[[int, int], PassRows]  # (epoch, row of its order) -> rows


def read_chunks(plan: BatchPlan, position: Position, demand: Demand) -> Iterator[Chunk | None]:
    """Yield full batches of pass after pass, and None while the demand is met.

    The rest of a pass opens the first batch of the next. Of shuffled rows that can be read again, all of a
    window come. Of others no more are read than the demand needs.
    """
    writer = BufferWriter(plan, position, one_pass=plan.source.one_shot)
    reads_ahead = plan.order.shuffle and not plan.source.one_shot
    n_made = 0
    while True:
        if n_made >= demand.n_batches:
            yield None
            continue
        writer.fill(math.inf if reads_ahead else demand.n_batches - n_made)
        if writer.n_batches == 0:
            return
        n_made += writer.n_batches
        if n_made == demand.n_batches and writer.n_rows == writer.n_batches * plan.batch_size:
            writer.look_for_end()
        yield writer.cut()


def read_one_pass(plan: BatchPlan, epoch: int, *, drop_last: bool) -> Iterator[Chunk]:
    """Yield the batches of one pass.

    The last chunk may have no batch, and say only that the pass has ended. Without `drop_last` the rows left
    over come as a chunk of one smaller batch.
    """
    writer = BufferWriter(plan, Position(epoch), one_pass=True)
    while not writer.over:
        writer.fill()
        yield writer.cut(drop_rest=drop_last)
    if writer.n_rows and not drop_last:
        yield writer.cut_rest()


def empty_buffer(layout: Layout, capacity: int) -> Arrays:
    """Allocate memory for rows: an array for each field of the layout, and one of row numbers."""
    return (*layout.empty(capacity), np.empty(capacity, np.int64))


class BufferWriter:
    """Writes the rows of pass after pass into buffers and cuts these into chunks.

    A buffer has room for a window and the rows left over before it. That of a released chunk is used again.
    """

    def __init__(self, plan: BatchPlan, position: Position, *, one_pass: bool) -> None:
        self._plan, self._position, self._one_pass = plan, position, one_pass
        self._free: deque[Arrays] = deque()  # thread-safe: chunks are released in any thread
        self._buffer = empty_buffer(plan.source.layout, 0)
        self._rows: PassRows | None = None
        self._n_good = 0  # rows of the pass that were written
        self._n_skipped: int | None = 0  # None in a pass that was not read from its start
        self.n_rows = 0  # in the buffer
        self.over = False  # no more rows will come
        self._start_chunk()

    def _start_chunk(self) -> None:
        self._positions: list[np.ndarray] = []
        self._skipped: list[np.ndarray] = []
        self._pass_end: PassEnd | None = None
        self._end_row = 0  # rows in the buffer when that pass ended

    @property
    def n_batches(self) -> int:
        """Complete batches in the buffer."""
        return self.n_rows // self._plan.batch_size

    def fill(self, most: float = math.inf) -> None:
        """Write windows until there is a complete batch, of the rows that `most` batches need."""
        self._buffer = self._with_room(self._buffer)
        while self.n_batches == 0 and not self.over:
            rows = self._open_pass() if self._rows is None else self._rows
            if rows.at_end():
                self._end_pass(rows)
                continue
            self._write_window(rows, most * self._plan.batch_size - self.n_rows)
            if rows.n_taken == rows.n_rows:
                self._end_pass(rows)

    def look_for_end(self) -> None:
        """Note the end of a pass behind the last row written, though the next block is read for it."""
        if self._rows is not None and not self._plan.source.one_shot and self._rows.at_end():
            self._end_pass(self._rows)

    def cut(self, *, drop_rest: bool = True) -> Chunk:
        """Return the complete batches. Rows behind them go to the next buffer, or are dropped at the end."""
        size, n_batches = self._plan.batch_size, self.n_batches
        n_cut = n_batches * size
        rest = tuple(array[n_cut : self.n_rows].copy() for array in self._buffer)
        end, end_row, told = self._pass_end, self._end_row, None
        # The end of a pass is told with its last row: in this chunk, unless the row is left for the next
        is_last = self.over and (drop_rest or self.n_rows == n_cut)
        if end is not None and (end_row <= n_cut or is_last):
            told = end._replace(n_batches=-(-min(end_row, n_cut) // size))
        chunk = self._chunk(n_batches, size, told)
        self._start_chunk()
        if end_row > n_cut:
            self._pass_end, self._end_row = end, end_row - n_cut
        self._buffer, self.n_rows = rest, self.n_rows - n_cut
        return chunk

    def cut_rest(self) -> Chunk:
        """Return the rows left over at the end of a pass as one small batch."""
        end = self._pass_end and self._pass_end._replace(n_batches=1)
        self._positions = [np.array([[self._position.epoch - 1, end.n_rows if end else 0]])]
        return self._chunk(1, self.n_rows, end)

    def _chunk(self, n_batches: int, batch_size: int, end: PassEnd | None) -> Chunk:
        n_rows, shape = n_batches * batch_size, (n_batches, batch_size)
        *values, rows = (a[:n_rows].reshape(*shape, *a.shape[1:]) for a in self._buffer)
        return Chunk(
            values=tuple(values),
            rows=rows,
            positions=_stacked(self._positions),
            skipped=_stacked(self._skipped),
            pass_end=end,
            release=partial(self._free.append, self._buffer),
        )

    def _with_room(self, rest: Arrays) -> Arrays:
        """Return a buffer with room for a window behind the rows that are left over."""
        if self._free:
            buffer = self._free.pop()
        else:
            capacity = self._plan.order.window_rows + self._plan.batch_size - 1
            buffer = empty_buffer(self._plan.source.layout, capacity)
        for new, old in zip(buffer, rest, strict=True):
            new[: self.n_rows] = old
        return buffer

    def _open_pass(self) -> PassRows:
        epoch, row = self._position.epoch, self._position.row
        # A shuffle is of a whole window: the rows of it before the position are left out as it is written
        start = self._plan.order.window_at(epoch, row).start
        self._rows = self._plan.open_pass(epoch, start)
        whole = self._rows.n_taken == 0 or self._plan.on_nan != "skip"
        self._n_skipped = 0 if whole else None
        return self._rows

    def _write_window(self, rows: PassRows, most: float) -> None:
        """Write the next window, or `most` rows of it."""
        epoch, order, batch_size = self._position.epoch, self._plan.order, self._plan.batch_size
        stop = min(order.window_at(epoch, rows.n_taken).stop, rows.n_taken + most)
        if rows.n_rows is not None:
            stop = min(stop, rows.n_rows)
        if not order.shuffle:  # rows do not wait for the next block, which may be slow or broken
            stop = min(stop, rows.n_taken + rows.n_in_block())
        window, n_used = range(rows.n_taken, int(stop)), self._position.row
        written = write_window(self._plan, rows, epoch, window, self._buffer, self.n_rows, n_used)
        first = -(self.n_rows + 1) % batch_size  # the row that completes the next batch
        self._positions.append(_with_epoch(epoch, written.n_used[first::batch_size]))
        self._skipped.append(_with_epoch(epoch, written.skipped[written.skipped >= n_used]))
        self.n_rows += len(written.n_used)
        self._n_good += len(written.n_used)
        if self._n_skipped is not None:
            self._n_skipped += len(written.skipped)

    def _end_pass(self, rows: PassRows) -> None:
        self._check_pass(rows)
        if self._pass_end is None:  # the first of several counts
            n_kept = None if self._n_skipped is None else rows.n_taken - self._n_skipped
            self._pass_end, self._end_row = PassEnd(rows.n_taken, n_kept, 0), self.n_rows
        self.over = self._one_pass
        self._position = Position(self._position.epoch + 1)
        self._rows, self._n_good = None, 0

    def _check_pass(self, rows: PassRows) -> None:
        epoch, row = self._position.epoch, self._position.row
        if rows.n_taken == 0 and epoch == 0:
            raise ValueError(
                "the source of rows has none: a stream needs at least one row. Are all its files or "
                "blocks empty?"
            )
        if rows.n_taken == 0:
            raise ExhaustedSourceError(
                f"the source had no rows in pass {epoch}, after those of the pass before: each pass "
                f"reads it anew. Give DataLoader a function that makes a new iterator each time"
            )
        if rows.n_taken < row:
            raise ExhaustedSourceError(
                f"a stream should go on at row {row} of pass {epoch}, and the source has only "
                f"{rows.n_taken} rows: resume with the data that the fit began with"
            )
        if row == 0 and self._n_good == 0:
            raise ValueError(
                f"all {rows.n_taken} rows of a pass were skipped by on_nan='skip': each has a value "
                f"that is NaN or infinite. Drop the column that is never finite"
            )


def _with_epoch(epoch: int, rows: range | np.ndarray) -> np.ndarray:
    """Return positions as an array of int64, shape (n_rows, 2)."""
    if isinstance(rows, range):  # NumPy would go through it in Python
        rows = np.arange(rows.start, rows.stop, rows.step)
    return np.stack([np.full(len(rows), epoch), rows], axis=1)


def _stacked(positions: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.empty((0, 2), np.int64), *positions])


class WrittenRows(NamedTuple):
    """The rows that a window has put into a buffer."""

    n_used: range | np.ndarray  # for each row, how many rows of the pass are used up with it
    skipped: np.ndarray  # for each skipped row, how many rows of the pass come before it


def write_window(
    plan: BatchPlan,
    rows: PassRows,
    epoch: int,
    window: range,
    buffer: Arrays,
    start: int,
    n_used: int,
) -> WrittenRows:
    """Write the rows of a window to a buffer in their shuffled order, from the row `start` of it on.

    `rows` is at the start of the window. The `n_used` first rows of the pass are left out.

    Raises
    ------
    ValueError
        If a value is not finite and ``plan.on_nan`` is "raise".
    """
    places = plan.order.places(epoch, window)
    if places is not None:
        places += start
    bad: list[int] = []
    n_read = 0
    for piece in rows.take(len(window)):
        n_piece = piece.stop - piece.start
        where = start + n_read if places is None else places[n_read : n_read + n_piece]
        bad += _write_piece(buffer, piece, where, plan.on_nan)
        n_read += n_piece
        del piece  # its block, before the next one is read
    if places is not None and n_read < len(window):  # the pass has ended: close the gaps
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


def _write_piece(buffer: Arrays, piece: Piece, where: np.ndarray | int, on_nan: OnNaN) -> list[int]:
    """Write rows of a block to their places. Return the places of those to skip."""
    *values, rows = buffer
    n_rows = piece.stop - piece.start
    finite = piece.block.write(tuple(values), where, piece.start, piece.stop)
    numbers = np.arange(piece.first_row, piece.first_row + n_rows)
    rows[slice(where, where + n_rows) if isinstance(where, int) else where] = numbers
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


def _move_together(buffer: Arrays, start: int, places: Sequence[int] | np.ndarray) -> None:
    """Move the rows at ascending places next to each other, from `start` on."""
    for array in buffer:
        for i in range(0, len(places), STEP):
            some = places[i : i + STEP]
            array[start + i : start + i + len(some)] = array[some]
