# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Buffers of rows that are filled window by window and cut into chunks of batches."""

from __future__ import annotations

import math

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from pymc.data_loading.batch import Chunk, PassEnd, Position
from pymc.data_loading.pass_rows import Order, PassRows, Window
from pymc.data_loading.prefetch import Demand
from pymc.data_loading.shuffle_window import OnNaN, RowBuffer, write_window
from pymc.data_loading.sources.layout import BlockSource, ExhaustedSourceError

__all__ = ["BatchPlan", "read_chunks", "read_one_pass"]


@dataclass(frozen=True)
class BatchPlan:
    """All that the batches of a stream depend on."""

    source: BlockSource
    order: Order
    batch_size: int
    on_nan: OnNaN
    open_pass: Callable[[int, int], PassRows]  # (epoch, row of its order) -> rows


class BufferWriter:
    """Writes the rows of pass after pass into buffers and cuts these into chunks.

    A buffer has room for a window and the rows left over before it. That of a released chunk is used again.
    """

    def __init__(self, plan: BatchPlan, position: Position, *, one_pass: bool) -> None:
        self._plan, self._position, self._one_pass = plan, position, one_pass
        self._free: deque[RowBuffer] = deque()  # thread-safe: chunks are released in any thread
        self._buffer = RowBuffer.empty(plan.source.layout, 0)
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
        rest = tuple(array[n_cut : self.n_rows].copy() for array in self._buffer.arrays())
        end, end_row, told = self._pass_end, self._end_row, None
        # The end of a pass is told with its last row: in this chunk, unless the row is left for the next
        is_last = self.over and (drop_rest or self.n_rows == n_cut)
        if end is not None and (end_row <= n_cut or is_last):
            told = end._replace(n_batches=-(-min(end_row, n_cut) // size))
        chunk = self._chunk(n_batches, size, told)
        self._start_chunk()
        if end_row > n_cut:
            self._pass_end, self._end_row = end, end_row - n_cut
        self._buffer, self.n_rows = RowBuffer(rest[:-1], rest[-1]), self.n_rows - n_cut
        return chunk

    def cut_rest(self) -> Chunk:
        """Return the rows left over at the end of a pass as one small batch."""
        end = self._pass_end and self._pass_end._replace(n_batches=1)
        self._positions = [np.array([[self._position.epoch - 1, end.n_rows if end else 0]])]
        return self._chunk(1, self.n_rows, end)

    def _chunk(self, n_batches: int, batch_size: int, end: PassEnd | None) -> Chunk:
        n_rows, shape = n_batches * batch_size, (n_batches, batch_size)
        return Chunk(
            values=tuple(a[:n_rows].reshape(*shape, *a.shape[1:]) for a in self._buffer.values),
            rows=self._buffer.rows[:n_rows].reshape(shape),
            positions=_stacked(self._positions),
            skipped=_stacked(self._skipped),
            pass_end=end,
            release=partial(self._free.append, self._buffer),
        )

    def _with_room(self, rest: RowBuffer) -> RowBuffer:
        """Return a buffer with room for a window behind the rows that are left over."""
        if self._free:
            buffer = self._free.pop()
        else:
            capacity = self._plan.order.window_rows + self._plan.batch_size - 1
            buffer = RowBuffer.empty(self._plan.source.layout, capacity)
        for new, old in zip(buffer.arrays(), rest.arrays(), strict=True):
            new[: self.n_rows] = old
        return buffer

    def _open_pass(self) -> PassRows:
        epoch, row = self._position.epoch, self._position.row
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
        window = Window(rows.n_taken, int(stop) - rows.n_taken)
        n_used = self._position.row
        written = write_window(
            self._buffer, self.n_rows, rows, order, epoch, window, self._plan.on_nan, n_used
        )
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
