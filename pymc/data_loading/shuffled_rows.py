# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""`pm.shuffle_buffer`: rows of a source in a new order in each pass."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from pymc.argument_checks import check_int
from pymc.data_loading.buffer import BatchPlan, read_one_pass
from pymc.data_loading.pass_rows import Order, open_pass
from pymc.data_loading.sources.dataset import IterableDataset, as_source
from pymc.data_loading.sources.layout import BlockSource

__all__ = [
    "RowsOfSource",
    "ShuffledRows",
    "iterates_by_itself",
    "make_seed",
    "open_rows",
    "shuffle_buffer",
]


class RowsOfSource:
    """Mixin of what yields each row of its `source` once a pass: the rows may be read from there."""

    source: BlockSource


class ShuffledRows(RowsOfSource, IterableDataset):
    """Shuffled rows of a source, as :func:`shuffle_buffer` returns them."""

    def __init__(self, source: BlockSource, buffer_size: int, batch_size: int, seed: int) -> None:
        super().__init__(n_rows=source.n_rows)
        self.source, self.seed = source, seed
        self.buffer_size, self.batch_size = buffer_size, batch_size
        self._epoch = 0

    def __repr__(self) -> str:
        """Describe the source and the order, without reading."""
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
        # A loader that reads this decides what to do with values that are not finite
        plan = BatchPlan(
            self.source, order, self.batch_size, "keep", partial(open_pass, self.source, order)
        )
        for chunk in read_one_pass(plan, epoch, drop_last=False):
            for k in range(chunk.n_batches):
                yield chunk.batch(self.source.layout, k)
            chunk.release()


def make_seed(seed: object, function: str) -> int:
    """Check a seed, or draw one for None: a checkpoint keeps it."""
    if seed is None:
        return int(np.random.SeedSequence().entropy)  # type: ignore[arg-type]
    return check_int(seed, "seed", function, at_least=0)


def open_rows(data: object, sample_shape: object = None) -> BlockSource:
    """Return the source of rows of data. Of a loader or of shuffled rows it is the source behind them.

    So rows keep their numbers, none are dropped, and shuffled rows are shuffled once.
    """
    if isinstance(data, RowsOfSource) and not iterates_by_itself(data):
        data = data.source
    return as_source(data, sample_shape=sample_shape)


def iterates_by_itself(data: RowsOfSource) -> bool:
    """Return whether a subclass of users' has an ``__iter__`` of its own, which may yield other rows."""
    owner = next(cls for cls in type(data).__mro__ if "__iter__" in vars(cls))
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
