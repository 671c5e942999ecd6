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

__all__ = ["OneShotPass", "Order", "PassRows", "Piece", "open_pass"]


@dataclass(frozen=True)
class Order:
    """The order of the rows of all passes.

    A pass takes the parts of its source in a new order and cuts the rows, as they come, into windows. All of it
    follows from the seed, the number of the pass and the row at which a window starts. So a
    :class:`~pymc.data_loading.batch.Position` is enough to go on anywhere.

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

    def window_at(self, epoch: int, row: int) -> range:
        """Return the rows of a pass's order that are shuffled together with one of them."""
        if not self.shuffle:
            return range(row, row + self.window_rows)
        first = self.window_rows
        if not self.whole:
            # Apart from the generator of the parts: how many those are must not change it
            generator = self._generator(epoch, 0, 0)
            first = int(generator.integers(1, self.window_rows, endpoint=True))
        if row < first:
            return range(first)
        start = first + (row - first) // self.window_rows * self.window_rows
        return range(start, start + self.window_rows)

    def places(self, epoch: int, window: range) -> np.ndarray | None:
        """Return the place in its window of each row, int64 of shape (n_rows,); None without a shuffle."""
        if not self.shuffle:
            return None
        return self._generator(epoch, window.start).permutation(len(window))


class Piece(NamedTuple):
    """Rows `start` to `stop` of a block. The first of them has the row number `first_row`."""

    block: Block
    start: int
    stop: int
    first_row: int


class PassRows:
    """The rows of a pass that are still to come. It holds one block at a time.

    Parameters
    ----------
    blocks : iterator of (Block, int)
        Blocks in the order of the pass, each with the row number of its first row.
    n_taken : int
        Rows of the pass that came before. The attribute counts those that are taken too.
    n_rows : int, optional
        Rows of the whole pass, where that is known for certain.
    """

    def __init__(
        self, blocks: Iterator[tuple[Block, int]], n_taken: int = 0, n_rows: int | None = None
    ) -> None:
        self._blocks = blocks
        self._piece: Piece | None = None
        self.n_rows, self.n_taken = n_rows, n_taken

    def _rest_of_block(self) -> Piece | None:
        """Return the rest of the current block, or the next one that has rows; None at the end."""
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
        """Return whether no rows are left. Where `n_rows` is unknown, the next block is read for it."""
        if self.n_rows is not None:
            return self.n_taken >= self.n_rows
        return self._rest_of_block() is None

    def n_in_block(self) -> int:
        """Return how many rows of the current block, or of the next one, are left."""
        piece = self._rest_of_block()
        return 0 if piece is None else piece.stop - piece.start

    def take(self, n_rows: int) -> Iterator[Piece]:
        """Yield the next rows, as far as there are any.

        Let go of a piece before asking for the next one: its block is held with it.
        """
        while n_rows > 0 and not self.at_end():
            piece = self._cut(n_rows)
            n_rows -= piece.stop - piece.start
            yield piece
            del piece

    def _cut(self, n_rows: int) -> Piece:
        """Return the next rows, no more than the current block has."""
        piece = self._rest_of_block()
        if piece is None:
            raise ExhaustedSourceError(
                f"a source that declares {self.n_rows} rows ended after {self.n_taken}"
            )
        middle = min(piece.stop, piece.start + n_rows)
        n_taken = middle - piece.start
        self._piece = piece._replace(start=middle, first_row=piece.first_row + n_taken)
        self.n_taken += n_taken
        return piece._replace(stop=middle)


def open_pass(source: BlockSource, order: Order, epoch: int, row: int) -> PassRows:
    """Start a pass at a row of its order. Parts of the source that come before are not read.

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
    deque(rows.take(row - rows.n_taken), maxlen=0)  # holds no piece, unlike a loop
    if rows.n_taken < row:
        raise ExhaustedSourceError(
            f"the stream goes on at row {row} of pass {epoch}, but the source has only {rows.n_taken} "
            f"rows: resume with the data set that the fit began with"
        )
    return rows


class OneShotPass:
    """`open_pass` for an iterator: its rows are there once, so that everybody goes on with the next ones."""

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
