# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""In which order the rows of a source come: passes, windows that are shuffled, and places in them.

A pass takes the parts of its source in a new order and cuts the rows, as they come, into windows. The
rows of a window are shuffled together. All of this follows from a seed, the number of the pass and the
row at which a window starts: a `Position` is enough to go on anywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["Order", "Position", "Window"]


@dataclass(frozen=True, order=True)
class Position:
    """A place in the endless stream of passes.

    Parameters
    ----------
    epoch : int
        The number of the pass, from 0.
    row : int
        How many rows of the pass's order were used up.

    Examples
    --------
    >>> from pymc.data_loading.order import Position
    >>> Position(0, 512) < Position(1)
    True
    """

    epoch: int = 0
    row: int = 0


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
    >>> from pymc.data_loading.order import Order
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
