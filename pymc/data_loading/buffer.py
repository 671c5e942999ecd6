# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Chunks of batches in buffers that are used again, filled with windows of pass after pass."""

from __future__ import annotations

import math

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from pymc.data_loading.batch import Chunk, PassEnd, Position, leave_memory
from pymc.data_loading.pass_rows import Order, PassRows, Window
from pymc.data_loading.prefetch import Demand
from pymc.data_loading.shuffle_window import OnNaN, Slab, Written, drop_first, write_window
from pymc.data_loading.sources.layout import BlockSource, ExhaustedSourceError, Layout

__all__ = ["Filling", "OpenPass", "Recipe", "Slabs", "read_chunks", "read_one_pass"]

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


#: Starts the pass of a number at a row of its order.
OpenPass = Callable[[int, int], PassRows]


@dataclass(frozen=True)
class Recipe:
    """What the batches of a stream are made of.

    Parameters
    ----------
    source : BlockSource
    order : Order
    batch_size : int
    on_nan : {"raise", "skip", "keep"}
        What to do with a row in which a value is not finite.
    open_pass : callable
        See `reader.open_pass`, which has more arguments.
    """

    source: BlockSource
    order: Order
    batch_size: int
    on_nan: OnNaN
    open_pass: OpenPass

    def slabs(self) -> Slabs:
        """Return memory for chunks: each has a window, and what was left over before it."""
        return Slabs(self.source.layout, self.order.window_rows + self.batch_size - 1)


class _PassWriter:
    """Writes passes one after the other, window by window."""

    def __init__(self, recipe: Recipe, position: Position, *, one: bool) -> None:
        self._recipe = recipe
        self._position = position
        self._one = one or recipe.source.one_shot
        self._rows: PassRows | None = None
        self._n_good = 0
        self._n_skipped: int | None = 0  # unknown in a pass that was not read from its start
        self.over = False

    def write_window(self, filling: Filling, most: int | None) -> None:
        """Write the next window behind what is there: nothing, if the pass has no more rows.

        Parameters
        ----------
        filling : Filling
        most : int, optional
            How many rows may be read, if not all of a window.
        """
        rows = self._open() if self._rows is None else self._rows
        if rows.at_end():
            self._end(rows, filling)
            return
        self._write(rows, filling, most)
        if rows.ends_here():
            self._end(rows, filling)

    def look_for_end(self, filling: Filling) -> None:
        """Note whether a pass has ended with what is there, though the next block is read for it.

        Otherwise that is seen when more rows are asked for: rows do not wait for others behind them.
        """
        if self._rows is not None and not self._recipe.source.one_shot and self._rows.at_end():
            self._end(self._rows, filling)

    def _open(self) -> PassRows:
        epoch, row = self._position.epoch, self._position.row
        start = self._recipe.order.window_at(epoch, row).start
        self._rows = self._recipe.open_pass(epoch, start)
        whole = self._rows.n_taken == 0 or self._recipe.on_nan != "skip"
        self._n_skipped = 0 if whole else None
        return self._rows

    def _write(self, rows: PassRows, filling: Filling, most: int | None) -> None:
        epoch, order = self._position.epoch, self._recipe.order
        limits = [order.window_at(epoch, rows.n_taken).stop]
        limits += [] if rows.n_rows is None else [rows.n_rows]
        limits += [] if most is None else [rows.n_taken + most]
        # What needs no shuffle does not wait for the next block, which may be slow, or broken
        limits += [] if order.shuffle else [rows.n_taken + rows.at_hand()]
        window = Window(rows.n_taken, min(limits) - rows.n_taken)
        slab, at = filling.slab, filling.n_rows
        written = write_window(slab, at, rows, order, epoch, window, self._recipe.on_nan)
        if self._n_skipped is not None:
            self._n_skipped += len(written.skipped)
        if self._position.row > window.start:
            written = drop_first(slab, at, written, self._position.row)
        filling.note(written, epoch)
        self._n_good += written.n_rows

    def _end(self, rows: PassRows, filling: Filling) -> None:
        self._check(rows)
        skipped = self._n_skipped
        filling.note_pass_end(rows.n_taken, None if skipped is None else rows.n_taken - skipped)
        self.over = self._one
        self._position = Position(self._position.epoch + 1)
        self._rows, self._n_good = None, 0

    def _check(self, rows: PassRows) -> None:
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


def read_chunks(recipe: Recipe, position: Position, demand: Demand) -> Iterator[Chunk]:
    """Yield full batches of pass after pass: the rest of one opens the first batch of the next.

    Parameters
    ----------
    recipe : Recipe
    position : Position
        How much of the stream was used before.
    demand : Demand
        How many are wanted. When there are enough, it waits. Of shuffled rows that can be read again, all
        of a window come, and else no more rows are read than that.

    Yields
    ------
    Chunk
        With at least one batch each.
    """
    writer, slabs = _PassWriter(recipe, position, one=False), recipe.slabs()
    exact = recipe.source.one_shot or not recipe.order.shuffle
    rest, n_made = Filling(Slab.empty(recipe.source.layout, 0), recipe.batch_size), 0
    while demand.wait_for_more(n_made):
        filling = rest.moved_to(slabs.take())
        while filling.n_batches == 0 and not writer.over:
            missing = (demand.n_batches - n_made) * recipe.batch_size - filling.n_rows
            writer.write_window(filling, int(missing) if exact and missing < math.inf else None)
        n_here = filling.n_batches
        if n_here == 0:
            return
        n_made += n_here
        if n_made == demand.n_batches and filling.n_rows == n_here * recipe.batch_size:
            writer.look_for_end(filling)
        rest = filling.rest(n_here)
        yield filling.chunk(
            n_here, last=writer.over, release=partial(slabs.give_back, filling.slab)
        )
        del filling


def read_one_pass(recipe: Recipe, epoch: int, *, drop_last: bool) -> Iterator[Chunk]:
    """Yield the batches of one pass.

    Parameters
    ----------
    recipe : Recipe
    epoch : int
    drop_last : bool
        If not, what is left at the end comes as a chunk of one smaller batch.

    Yields
    ------
    Chunk
        The last one may have no batch, and say only that the pass has ended.
    """
    passes, slabs = _PassWriter(recipe, Position(epoch), one=True), recipe.slabs()
    filling = Filling(slabs.take(), recipe.batch_size)
    while not passes.over:
        while filling.n_batches == 0 and not passes.over:
            passes.write_window(filling, None)
        n_here = filling.n_batches
        rest = filling.rest(n_here)
        is_last = passes.over and (drop_last or rest.n_rows == 0)
        yield filling.chunk(n_here, last=is_last, release=partial(slabs.give_back, filling.slab))
        filling = rest if passes.over else rest.moved_to(slabs.take())
    if filling.n_rows and not drop_last:
        yield filling.tail(epoch)
