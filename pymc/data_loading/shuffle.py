# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""`shuffle_buffer`: rows of a source in a new order each time."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from pymc.argument_checks import check_int
from pymc.data_loading.arguments import make_seed
from pymc.data_loading.buffer import Recipe, read_one_pass
from pymc.data_loading.pass_rows import Order, open_pass
from pymc.data_loading.sources.dataset import IterableDataset, as_source
from pymc.data_loading.sources.layout import BlockSource

__all__ = ["RowsOfSource", "ShuffledRows", "iterates_by_itself", "open_rows", "shuffle_buffer"]


class RowsOfSource:
    """What gives the rows of its `source`, each once a pass: who wants the rows may read that."""

    source: BlockSource


class ShuffledRows(RowsOfSource, IterableDataset):
    """Rows of a source, shuffled: what `shuffle_buffer` returns.

    Parameters
    ----------
    source : BlockSource
    buffer_size, batch_size, seed : int
        As of `shuffle_buffer`.
    """

    def __init__(self, source: BlockSource, buffer_size: int, batch_size: int, seed: int) -> None:
        super().__init__(n_rows=source.n_rows)
        self.source = source
        self.buffer_size = buffer_size
        self.batch_size = batch_size
        self.seed = seed
        self._epoch = 0

    def __repr__(self) -> str:
        """Say what it reads and how, and read nothing for it."""
        return (
            f"shuffle_buffer({self.source!r}, buffer_size={self.buffer_size}, "
            f"batch_size={self.batch_size}, seed={self.seed})"
        )

    def __iter__(self) -> Iterator[Any]:
        """Yield batches of the next pass; the last one may be smaller."""
        epoch, self._epoch = self._epoch, self._epoch + 1
        return self._batches(epoch)

    def _batches(self, epoch: int) -> Iterator[Any]:
        whole = self.n_rows is not None and self.n_rows <= self.buffer_size
        order = Order(self.seed, self.buffer_size, shuffle=True, whole=whole)
        opened = partial(open_pass, self.source, order)
        # Whether a value may be NaN is for the loader to say, if there is one
        recipe = Recipe(self.source, order, self.batch_size, "keep", opened)
        for chunk in read_one_pass(recipe, epoch, drop_last=False):
            for k in range(chunk.n_batches):
                yield chunk.batch(self.source.layout, k)
            chunk.release()


def open_rows(data: Any, sample_shape: Any = None) -> BlockSource:
    """Return the source of rows: of a loader, or of shuffled rows, the one behind it.

    So rows keep their numbers, no rest is dropped, and what is shuffled already is not read in order.
    """
    behind = isinstance(data, RowsOfSource) and not iterates_by_itself(data)
    return as_source(data.source if behind else data, sample_shape=sample_shape)


def iterates_by_itself(data: RowsOfSource) -> bool:
    """Tell whether users derived a class with an ``__iter__`` of its own, which may give other rows."""
    [owner, *_] = [cls for cls in type(data).__mro__ if "__iter__" in vars(cls)]
    return RowsOfSource not in owner.__bases__


def shuffle_buffer(
    source: Any, buffer_size: int, batch_size: int, seed: int | None = None
) -> ShuffledRows:
    """Shuffle rows of a source within a buffer.

    Parameters
    ----------
    source : source of rows
        What `DataLoader` takes.
    buffer_size : int
        How many rows are shuffled together. It holds at most ``buffer_size + batch_size`` rows, beside a
        block of the source.
    batch_size : int
        Rows of a batch. The last one of a pass may have fewer: no row is lost.
    seed : int, optional
        The order of all passes follows from it. By default it is drawn.

    Returns
    -------
    ShuffledRows
        An `IterableDataset` with the source's ``n_rows``. Each iteration is a new pass in another order. A
        `DataLoader` may read it: that shuffles once, in this buffer.

    Raises
    ------
    TypeError, ValueError
        For sizes that are no positive whole numbers, and what is no source of rows.

    Examples
    --------
    >>> rows = pm.shuffle_buffer(np.arange(10), buffer_size=4, batch_size=3, seed=1)
    >>> rows.n_rows, [len(batch) for batch in rows]
    (10, [3, 3, 3, 1])
    """
    return ShuffledRows(
        open_rows(source),
        check_int(buffer_size, "buffer_size", "shuffle_buffer"),
        check_int(batch_size, "batch_size", "shuffle_buffer"),
        make_seed(seed, "shuffle_buffer"),
    )
