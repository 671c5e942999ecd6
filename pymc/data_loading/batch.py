# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Batches with their row numbers: one for users, or a chunk of many for a fit."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from pymc.data_loading.sources.layout import Layout

__all__ = ["Chunk", "PassEnd", "Position", "StreamBatch"]


@dataclass(frozen=True, order=True)
class Position:
    """A place in the endless stream of passes.

    Parameters
    ----------
    epoch : int
        The number of the pass, from 0.
    row : int
        How many rows of the pass's order were used up.
    """

    epoch: int = 0
    row: int = 0


class StreamBatch(np.ndarray):
    """An array of rows with their row numbers.

    Attributes
    ----------
    rows : array of int64, shape (n_rows,), or None
        The place of each row in the source's own, unshuffled order. Columns of a batch and some of its rows
        have them too; of any other result it is None, since it need not hold the same rows.

    Notes
    -----
    A batch is the user's, to be changed as well. Its values may be changed in place; that its rows were
    reordered in place, by ``batch.sort(axis=0)`` or ``rng.shuffle(batch)``, cannot be seen, and `rows` is
    then wrong. Reorder by an index, ``batch[order]``, which reorders `rows` too.

    Examples
    --------
    >>> from pymc.data_loading.batch import StreamBatch
    >>> batch = StreamBatch.of(np.array([[1.0, 2.0], [3.0, 4.0]]), rows=np.array([7, 5]))
    >>> batch[:, 0].rows, batch[..., 0].rows, batch[1:].rows, batch.T.rows
    (array([7, 5]), array([7, 5]), array([5]), None)
    """

    rows: np.ndarray | None

    @classmethod
    def of(cls, values: np.ndarray, rows: np.ndarray | None) -> StreamBatch:
        """Return a view of values of shape ``(n_rows, ...)`` that knows its rows."""
        batch = values.view(cls)
        batch.rows = rows
        return batch

    def __array_finalize__(self, source: Any) -> None:
        """Know no rows: NumPy calls this for all that comes of a batch."""
        self.rows = None

    def __getitem__(self, index: Any) -> Any:
        """Return what NumPy does, with the row numbers where the first axis is still of rows."""
        result = super().__getitem__(index)
        if self.rows is not None and isinstance(result, StreamBatch):
            result.rows = _rows_at(self.rows, index, self.ndim)
        return result

    def __reduce__(self) -> Any:
        """Pickle the row numbers too."""
        return StreamBatch.of, (np.asarray(self), self.rows)


def _rows_at(rows: np.ndarray, index: Any, ndim: int) -> np.ndarray | None:
    """Return the row numbers of ``batch[index]``; None where the first axis is not of rows any more."""
    first, *others = index if isinstance(index, tuple) and index else (index,)
    if isinstance(first, list | np.ndarray):
        return rows[np.asarray(first)] if not others and np.ndim(first) == 1 else None
    lists = [part for part in others if isinstance(part, list | tuple | np.ndarray)]
    numbers = [part for part in others if isinstance(part, int | np.integer)]
    if lists and len(lists) + len(numbers) > 1:
        return None  # NumPy makes one axis of these, which may come first
    if first is Ellipsis:
        first = slice(None) if _n_indexed(others) < ndim else None
    return rows[first] if isinstance(first, slice) else None


def _n_indexed(parts: Iterable[Any]) -> int:
    """Return how many axes an index selects from: a mask as many as it has itself."""
    arrays = (np.asarray(part) for part in parts if part is not None)
    return sum(array.ndim if array.dtype == bool else 1 for array in arrays)


class PassEnd(NamedTuple):
    """The end of a pass among the batches of a chunk."""

    n_rows: int  # of the pass, with those that were skipped
    n_kept: int | None  # without them; None if the pass was not read from its start
    n_batches: int  # of the chunk, up to the end of the pass


def leave_memory() -> None:
    """Leave the memory of a chunk to the garbage collector."""


@dataclass(frozen=True, eq=False)
class Chunk:
    """Many batches in one buffer.

    Parameters
    ----------
    values : tuple of ndarray
        One a field of the layout, of shape ``(n_batches, batch_size, *field.shape)``, C-contiguous.
    rows : array of int64, shape (n_batches, batch_size)
        Row numbers.
    positions : array of int64, shape (n_batches, 2)
        The position of the stream after each batch: the epoch, and the rows of it that were used.
    skipped : array of int64, shape (n_skipped, 2)
        Positions of the rows that were skipped on the way, because a value was not finite.
    pass_end : PassEnd, optional
        The end of a pass in this chunk: the first of several.
    release : callable
        Call it when nobody reads `values` and `rows` any more: a later chunk then uses their memory.
    """

    values: tuple[np.ndarray, ...]
    rows: np.ndarray
    positions: np.ndarray
    skipped: np.ndarray = field(default_factory=lambda: np.empty((0, 2), np.int64))
    pass_end: PassEnd | None = None
    release: Callable[[], None] = leave_memory

    @property
    def n_batches(self) -> int:
        """Number of batches."""
        return len(self.positions)

    def batch(
        self, layout: Layout, k: int, *, numbered: bool = True
    ) -> np.ndarray | dict[str, np.ndarray]:
        """Return a copy of batch `k` as users see it: an array or a dict of arrays, with row numbers."""
        rows = self.rows[k].copy() if numbered else None
        return layout.batch(tuple(StreamBatch.of(v[k].copy(), rows) for v in self.values))
