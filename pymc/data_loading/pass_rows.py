# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""The rows of a pass: their order, and reading them block by block from any position."""

from __future__ import annotations

import itertools

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from pymc.data_loading.sources.layout import Block, BlockSource, ExhaustedSourceError

__all__ = ["OneShotPass", "Order", "PassRows", "Piece", "Window", "open_pass"]


@dataclass(frozen=True)
class Window:
    """Rows of a pass that are shuffled together.

    Parameters
    ----------
    start : int
        How many rows of the pass come before it.
    n_rows : int
        How many rows it has, unless the pass ends earlier.
    """

    start: int
    n_rows: int

    @property
    def stop(self) -> int:
        """How many rows of the pass come before what is behind it."""
        return self.start + self.n_rows


@dataclass(frozen=True)
class Order:
    """The order of the rows of all passes.

    Parameters
    ----------
    seed : int
        Pass ``e`` uses ``np.random.SeedSequence(seed, spawn_key=(e,))``, and its window that starts at row
        ``r`` the child ``(e, r)``.
    window_rows : int
        Rows of a window.
    shuffle : bool
        If not, rows come as they are in the source, and windows only say how many are read at a time.
    whole : bool
        Whether a window has room for all rows. If not, the first window of a pass has a random length,
        so that windows begin elsewhere in each pass.

    Examples
    --------
    >>> from pymc.data_loading.pass_rows import Order
    >>> order = Order(seed=1, window_rows=4, shuffle=False)
    >>> order.window_at(epoch=0, row=6)
    Window(start=6, n_rows=4)
    """

    seed: int
    window_rows: int
    shuffle: bool
    whole: bool = False

    def _generator(self, *key: int) -> np.random.Generator:
        return np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=key))

    def parts(self, epoch: int, n_parts: int) -> Sequence[int]:
        """Return the order of the parts of a source in a pass."""
        if not self.shuffle:
            return range(n_parts)
        return self._generator(epoch).permutation(n_parts).tolist()

    def window_at(self, epoch: int, row: int) -> Window:
        """Return the window that holds a row of the pass's order."""
        if not self.shuffle:
            return Window(row, self.window_rows)
        first = self._first_rows(epoch)
        if row < first:
            return Window(0, first)
        start = first + (row - first) // self.window_rows * self.window_rows
        return Window(start, self.window_rows)

    def _first_rows(self, epoch: int) -> int:
        if self.whole:
            return self.window_rows
        # Apart from the generator of the parts: how many those are must not change it
        length = self._generator(epoch, 0, 0).integers(1, self.window_rows, endpoint=True)
        return int(length)

    def places(self, epoch: int, window: Window) -> np.ndarray | None:
        """Return to which place of its window each row goes, as it comes: None if to its own.

        Returns
        -------
        array of int64, shape (window.n_rows,), or None
        """
        if not self.shuffle:
            return None
        return self._generator(epoch, window.start).permutation(window.n_rows)


class Piece(NamedTuple):
    """Some rows of a block, one after another.

    Attributes
    ----------
    block : Block
    start, stop : int
        Which rows of the block.
    first_row : int
        The row number of the first of them.
    """

    block: Block
    start: int
    stop: int
    first_row: int


class PassRows:
    """The rows of a pass that are still to come.

    Parameters
    ----------
    blocks : iterator of (Block, int)
        Blocks in the order of the pass, each with the row number of its first row.
    n_taken : int
        How many rows of the pass came before.
    n_rows : int, optional
        How many rows the whole pass has, where that is known for certain.

    Attributes
    ----------
    n_taken : int
        How many rows were taken or skipped, with those before.
    """

    def __init__(
        self, blocks: Iterator[tuple[Block, int]], n_taken: int = 0, n_rows: int | None = None
    ) -> None:
        self._blocks = blocks
        self.n_rows = n_rows
        self._piece: Piece | None = None
        self.n_taken = n_taken

    def _rest_of_block(self) -> Piece | None:
        """Return what is left of the block at hand, or the next one that has rows; None at the end."""
        while self._piece is None or self._piece.start == self._piece.stop:
            before = "" if self._piece is None else f", after {self._piece.block.where}"
            self._piece = None  # before the next block is read: no more than one is held
            try:
                block, first_row = next(self._blocks)
            except StopIteration:
                return None
            except Exception as error:
                error.add_note(
                    f"The source of rows raised it{before}: {self.n_taken} rows of this pass had come."
                )
                raise
            self._piece = Piece(block, 0, block.n_rows, first_row)
        return self._piece

    def at_end(self) -> bool:
        """Return whether there are no more rows. To know it, the next block may have to be read."""
        if self.n_rows is not None:
            return self.n_taken >= self.n_rows
        return self._rest_of_block() is None

    def ends_here(self) -> bool:
        """Return whether it is known, without reading, that there are no more rows."""
        return self.n_rows is not None and self.n_taken >= self.n_rows

    def at_hand(self) -> int:
        """Return how many rows of one block come next."""
        piece = self._rest_of_block()
        return 0 if piece is None else piece.stop - piece.start

    def take(self, n_rows: int) -> Iterator[Piece]:
        """Yield the next rows, or as many as there are.

        To hold one block only, let go of a piece before the next one is asked for.
        """
        while n_rows > 0 and not self.at_end():
            piece = self._cut(n_rows)
            n_rows -= piece.stop - piece.start
            yield piece
            del piece

    def _cut(self, n_rows: int) -> Piece:
        """Return the next rows of the block at hand, as many as it has."""
        piece = self._rest_of_block()
        if piece is None:
            raise ExhaustedSourceError(
                f"a source that has {self.n_rows} rows by its own word ended after {self.n_taken}"
            )
        middle = min(piece.stop, piece.start + n_rows)
        n_taken = middle - piece.start
        self._piece = piece._replace(start=middle, first_row=piece.first_row + n_taken)
        self.n_taken += n_taken
        return piece._replace(stop=middle)

    def skip(self, n_rows: int) -> None:
        """Pass over rows: their blocks are read, and nothing is copied."""
        deque(self.take(n_rows), maxlen=0)


def open_pass(source: BlockSource, order: Order, epoch: int, row: int) -> PassRows:
    """Start a pass at a row of its order.

    Parameters
    ----------
    source : BlockSource
    order : Order
    epoch : int
    row : int
        How many rows come before. Parts of the source that hold nothing else are not read.

    Raises
    ------
    ExhaustedSourceError
        If the pass has fewer rows than that.
    """
    lengths = source.part_lengths
    if lengths is None:
        rows = PassRows(_in_order(source))
    else:
        rows = _from_part(source, lengths, order.parts(epoch, len(lengths)), row)
    rows.skip(row - rows.n_taken)
    if rows.n_taken < row:
        raise ExhaustedSourceError(
            f"the stream goes on at row {row} of pass {epoch}, but the source has only {rows.n_taken} "
            f"rows: resume with the data set that the fit began with"
        )
    return rows


class OneShotPass:
    """The pass of an iterator, as `open_pass`: what it gave is there once, so that all go on with it."""

    def __init__(self, source: BlockSource, order: Order) -> None:
        self._source, self._order = source, order
        self._rows: PassRows | None = None

    def __call__(self, epoch: int, row: int) -> PassRows:
        """Return the rows that are still to come."""
        if self._rows is None or epoch > 0:
            self._rows = open_pass(self._source, self._order, epoch, row)
        return self._rows


def _in_order(source: BlockSource) -> Iterator[tuple[Block, int]]:
    first_row = 0
    for block in source.blocks():
        n_rows = block.n_rows
        yield block, first_row
        del block  # before the next one is read
        first_row += n_rows


def _from_part(
    source: BlockSource, lengths: Sequence[int], parts: Sequence[int], row: int
) -> PassRows:
    """Start at the part that holds a row of the pass's order, or at the end."""
    n_before, n_rows = 0, sum(lengths)
    for skipped, part in enumerate(parts):
        if n_before + lengths[part] > row:
            return PassRows(_read_parts(source, lengths, parts[skipped:]), n_before, n_rows)
        n_before += lengths[part]
    return PassRows(iter(()), n_before, n_rows)


def _read_parts(
    source: BlockSource, lengths: Sequence[int], parts: Sequence[int]
) -> Iterator[tuple[Block, int]]:
    first_rows = [0, *itertools.accumulate(lengths)]
    for part in parts:
        if lengths[part] == 0:
            continue
        block = source.read(part)
        if block.n_rows != lengths[part]:
            raise ValueError(
                f"{block.where} has {block.n_rows} rows, and {lengths[part]} when the source was opened: "
                f"data must not change while they are streamed"
            )
        yield block, first_rows[part]
        del block  # before the next one is read
