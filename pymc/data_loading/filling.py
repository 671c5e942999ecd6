# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Slabs of memory, filled with windows of rows until they hold batches."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import numpy as np

from pymc.data_loading.batch import Chunk, PassEnd, leave_memory
from pymc.data_loading.sources.layout import Layout
from pymc.data_loading.windows import Slab, Written

__all__ = ["Filling", "Slabs"]

_NO_POSITIONS = np.empty((0, 2), np.int64)


class Slabs:
    """Memory for the chunks of a stream: that of chunks which were released is used again.

    Parameters
    ----------
    layout : Layout
    capacity : int
        Rows of each.
    """

    def __init__(self, layout: Layout, capacity: int) -> None:
        self._layout = layout
        self._capacity = capacity
        self._free: deque[Slab] = (
            deque()
        )  # its methods are atomic: chunks are released in any thread

    def take(self) -> Slab:
        """Return memory that nobody holds."""
        try:
            return self._free.pop()
        except IndexError:
            return Slab.empty(self._layout, self._capacity)

    def give_back(self, slab: Slab) -> None:
        """Let a slab be taken again."""
        self._free.append(slab)


class Filling:
    """A slab, and what was written to it so far.

    Parameters
    ----------
    slab : Slab
    batch_size : int

    Attributes
    ----------
    n_rows : int
        Rows that are there.
    """

    def __init__(self, slab: Slab, batch_size: int) -> None:
        self.slab = slab
        self.batch_size = batch_size
        self.n_rows = 0
        self._skipped = [_NO_POSITIONS]
        self._positions = [_NO_POSITIONS]
        # Rows of a pass, those that were kept, and rows here when it ended
        self._pass_end: tuple[int, int | None, int] | None = None

    @property
    def n_batches(self) -> int:
        """Batches that are there, without the rest."""
        return self.n_rows // self.batch_size

    def note(self, written: Written, epoch: int) -> None:
        """Take note of a window that was written behind what is here."""
        first = -(self.n_rows + 1) % self.batch_size  # which of its rows completes the next batch
        last_rows = written.used_at(np.arange(first, written.n_rows, self.batch_size))
        self._positions.append(np.stack([np.full_like(last_rows, epoch), last_rows], axis=1))
        self.n_rows += written.n_rows
        skipped = written.skipped
        self._skipped.append(np.stack([np.full_like(skipped, epoch), skipped], axis=1))

    def note_pass_end(self, pass_rows: int, n_kept: int | None) -> None:
        """Take note that a pass of so many rows ended with what is here; the first counts."""
        if self._pass_end is None:
            self._pass_end = (pass_rows, n_kept, self.n_rows)

    def rest(self, n_batches: int) -> Filling:
        """Return a copy of the rows behind some batches."""
        start = n_batches * self.batch_size
        copies = tuple(a[start : self.n_rows].copy() for a in self.slab.arrays())
        rest = Filling(Slab(copies[:-1], copies[-1]), self.batch_size)
        rest.n_rows = self.n_rows - start
        if self._pass_end is not None and self._pass_end[2] > start:
            rest._pass_end = (*self._pass_end[:2], self._pass_end[2] - start)
        return rest

    def moved_to(self, slab: Slab) -> Filling:
        """Return the same rows in a slab with room for more."""
        for new, old in zip(slab.arrays(), self.slab.arrays(), strict=True):
            new[: self.n_rows] = old[: self.n_rows]
        moved = Filling(slab, self.batch_size)
        moved.n_rows, moved._pass_end = self.n_rows, self._pass_end
        return moved

    def chunk(self, n_batches: int, *, last: bool, release: Callable[[], None]) -> Chunk:
        """Return the first batches; `last` says that nothing will come of the rows behind them."""
        n_rows = n_batches * self.batch_size
        return self._chunk(n_batches, self.batch_size, self._end_within(n_rows, last), release)

    def tail(self, epoch: int) -> Chunk:
        """Return all rows as one batch, smaller than others, with which a pass ends."""
        pass_rows, n_kept = (self._pass_end or (self.n_rows, None))[:2]
        self._positions = [np.array([[epoch, pass_rows]])]
        return self._chunk(1, self.n_rows, PassEnd(pass_rows, n_kept, 1), leave_memory)

    def _chunk(
        self, n_batches: int, size: int, end: PassEnd | None, release: Callable[[], None]
    ) -> Chunk:
        n_rows, shape = n_batches * size, (n_batches, size)
        return Chunk(
            values=tuple(a[:n_rows].reshape(*shape, *a.shape[1:]) for a in self.slab.values),
            rows=self.slab.rows[:n_rows].reshape(shape),
            positions=np.concatenate(self._positions)[:n_batches],
            skipped=np.concatenate(self._skipped),
            pass_end=end,
            release=release,
        )

    def _end_within(self, n_rows: int, last: bool) -> PassEnd | None:
        if self._pass_end is None:
            return None
        pass_rows, n_kept, end = self._pass_end
        if end > n_rows and not last:
            return None
        return PassEnd(pass_rows, n_kept, -(-min(end, n_rows) // self.batch_size))
