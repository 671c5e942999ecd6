# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Rows from a source in batches: one by one for users, and many at once for a trainer."""

from __future__ import annotations

import warnings

from collections.abc import Generator, Iterator
from contextlib import closing
from functools import cached_property, partial
from typing import Any, Literal

import numpy as np

from pymc.argument_checks import check_choice, check_flag, check_int
from pymc.data_loading.arguments import (
    check_timeout,
    check_total_size,
    leaves_out,
    make_seed,
)
from pymc.data_loading.base import Loader, ReadBatches
from pymc.data_loading.batch import Chunk, Position
from pymc.data_loading.buffer import (
    OpenPass,
    Recipe,
    read_chunks,
    read_one_pass,
)
from pymc.data_loading.pass_rows import OneShotPass, Order, open_pass
from pymc.data_loading.prefetch import Demand, Stream, read_ahead
from pymc.data_loading.shuffle import RowsOfSource, ShuffledRows, open_rows
from pymc.data_loading.shuffle_window import OnNaN
from pymc.data_loading.sources.layout import BlockSource, Layout

__all__ = ["DataLoader"]

#: Rows that are shuffled together, if nothing else is said.
BUFFER_ROWS = 100_000

#: Bytes of a window that is not shuffled, at most: enough that the work for each does not count, and few
#: enough to stay in a processor's cache until they are used.
WINDOW_BYTES = 4 * 2**20


class DataLoader(RowsOfSource, Loader):
    """Batches of rows from a source that may be larger than memory.

    Iterating gives the batches of one pass over the rows; each time it is the next pass, in another order if
    rows are shuffled. A `Trainer` and ``pm.fit(data=loader)`` take batches without end.

    Parameters
    ----------
    dataset : source of rows
        An array or memory-map of shape ``(n_rows, ...)``, a list of rows, a dict of arrays, an iterable of
        blocks of rows, a function without arguments that returns one, an :class:`IterableDataset`, what
        :func:`parquet_source`, :func:`arrow_source` and :func:`shuffle_buffer` return, or a loader of torch,
        whose rows are those of its attribute ``dataset``.
    batch_size : int
        Rows of a batch.
    shuffle : bool
        Whether each pass has the rows in a new order. Rows are shuffled within windows of `buffer_size`
        rows, and parts of the source, such as the row groups of Parquet files, among each other.
    buffer_size : int, optional
        With `shuffle`, how many rows are shuffled together: by default 100,000, or ten batches if that is
        more. Memory for twice as many is needed, since the next ones are read ahead. Without `shuffle` it
        has no effect.
    seed : int, optional
        The order of all passes follows from it. By default it is drawn, and kept as ``loader.seed``.
    total_size : int or "auto"
        How many rows there are: ``len(loader)``. With "auto" the source's ``n_rows``; if it knows none, the
        rows are counted now, by a pass over the source; so they are if `on_nan` is "skip" and there are
        floats or may be nulls, since rows that are left out do not count.
    drop_last : bool
        Whether iterating leaves out the last batch of a pass if it has fewer rows than `batch_size`. A
        trainer leaves out nothing: these rows open the first batch of the next pass.
    on_nan : {"raise", "skip"}
        What to do with a row in which a value is NaN, infinite or null: raise a ValueError that names it, or
        leave it out, as if it was not in the data. ``loader.n_skipped`` counts them.
    sample_shape : tuple of int, optional
        The shape of one row, where the source could be giving rows or blocks of them. Where the source
        knows it, it may be said and has to agree.
    timeout : float, optional
        How many seconds to wait for rows before a TimeoutError: those of a buffer, the first block, or the
        next one while rows are counted. By default, for ever.
    prefetch : int
        How many buffers are read ahead, by a thread; 0 for no thread. Each has `buffer_size` rows, or about
        4 MB if rows are not shuffled.

    Attributes
    ----------
    source : BlockSource
    batch_size : int
    total_size : int
        How many rows there are: what the ``total_size`` of a likelihood should be.
    seed : int
    n_skipped : int
        Rows left out so far since a value was not finite: each counts once a pass.

    Raises
    ------
    TypeError, ValueError
        For sizes that are no positive whole numbers, a batch larger than the data, `total_size` "auto" for
        an iterator, which can be read only once, and what is no source of rows.

    Warns
    -----
    UserWarning
        Once, at the end of a complete pass, if it did not have `total_size` rows, those left out not
        counted.

    Notes
    -----
    Pass ``e`` uses the generator of ``np.random.SeedSequence(seed, spawn_key=(e,))``. Rows of a shuffled
    window are written once, each to its place in a random permutation. The parts come in a new order and the
    first window of a pass has a random length, so that other rows meet in each pass. Every row comes
    exactly once a pass. `buffer_size` of at least ``len(loader)`` is a shuffle of all rows.

    Examples
    --------
    >>> data = np.arange(20.0).reshape(10, 2)
    >>> loader = pm.DataLoader(data, batch_size=4, shuffle=True, seed=1)
    >>> len(loader), loader.n_batches
    (10, 2)
    >>> for batch in loader:
    ...     print(batch.shape, bool((batch == data[batch.rows]).all()))
    (4, 2) True
    (4, 2) True
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int,
        *,
        shuffle: bool = False,
        buffer_size: int | None = None,
        seed: int | None = None,
        total_size: int | Literal["auto"] = "auto",
        drop_last: bool = True,
        on_nan: Literal["raise", "skip"] = "raise",
        sample_shape: tuple[int, ...] | None = None,
        timeout: float | None = None,
        prefetch: int = 1,
    ) -> None:
        name = type(self).__name__
        self.batch_size = check_int(batch_size, "batch_size", name)
        self.shuffle = check_flag(shuffle, "shuffle", name)
        self._asked_buffer = buffer_size
        if buffer_size is not None:
            self._asked_buffer = check_int(buffer_size, "buffer_size", name)
        if isinstance(dataset, ShuffledRows):
            self.shuffle, seed = True, dataset.seed if seed is None else seed
            self._asked_buffer = self._asked_buffer or dataset.buffer_size
        self.seed = make_seed(seed, name)
        self.drop_last = check_flag(drop_last, "drop_last", name)
        self.on_nan: OnNaN = check_choice(on_nan, "on_nan", name, ("raise", "skip"))
        self._prefetch = check_int(prefetch, "prefetch", name, at_least=0)
        self._timeout = check_timeout(timeout, self._prefetch)
        self.source: BlockSource = open_rows(dataset, sample_shape)
        self.n_skipped = 0
        self._sizes = check_total_size(
            total_size, self.source, self.on_nan, iter if self._timeout is None else self._ahead
        )
        self.total_size = self._sizes.total_size
        self._skipped_to: dict[int, int] = {}
        if self.batch_size > self.total_size:
            raise ValueError(
                f"batch_size={self.batch_size} of DataLoader is more than the {self.total_size} rows of the "
                f"data: write a smaller one, such as batch_size={max(1, self.total_size // 10)}"
            )
        self._epoch = 0
        self._compared = False
        self._stream: Stream | None = None

    def __repr__(self) -> str:
        """Say what it reads and how, and read nothing for it."""
        parts = [repr(self.source), f"batch_size={self.batch_size}"]
        if self.shuffle:
            buffer = "" if self._asked_buffer is None else f", buffer_size={self._asked_buffer}"
            parts.append(f"shuffle=True{buffer}, seed={self.seed}")
        if self.source.n_rows != self.total_size:
            parts.append(f"total_size={self.total_size}")
        return f"{type(self).__name__}({', '.join(parts)})"

    @cached_property
    def layout(self) -> Layout:
        """What a batch is like: names, shapes of rows, dtypes. The first block may be read for it."""
        if self._timeout is None:
            return self.source.layout
        with closing(self._ahead(source.layout for source in [self.source])) as looks:
            return next(looks)

    @property
    def n_rows(self) -> int:
        """How many rows there are."""
        return self.total_size

    @property
    def n_batches(self) -> int:
        """How many batches an iteration gives."""
        full, rest = divmod(self.total_size, self.batch_size)
        return full + (rest > 0 and not self.drop_last)

    @cached_property
    def buffer_size(self) -> int:
        """How many rows are shuffled together, or else read at a time."""
        if self.shuffle:
            rows = self._asked_buffer or max(BUFFER_ROWS, 10 * self.batch_size)
        else:
            rows = max(WINDOW_BYTES // max(1, self.layout.row_bytes), self.batch_size)
        return min(rows, self._sizes.n_read)

    @cached_property
    def leaves_out(self) -> bool:
        """Whether rows may be left out: row numbers of the source are not those of the data then."""
        return leaves_out(self.on_nan, self.layout)

    @property
    def has_row_numbers(self) -> bool:  # type: ignore[override]
        """Whether batches say which rows they hold: not if rows may be left out."""
        return not self.leaves_out

    @property
    def one_shot(self) -> bool:  # type: ignore[override]
        """Whether the rows can be read only once, as those of an iterator."""
        return self.source.one_shot

    def reader(self) -> ReadBatches:
        """Return what reads batches from a position on; what was read ahead is kept from call to call."""
        return partial(self.chunks, stream=self.stream())

    @property
    def identity(self) -> dict[str, Any]:
        """What tells this stream from another, in JSON: a checkpoint resumes only with the same."""
        return {
            **self.source.identity,
            "total_size": self.total_size,
            "batch_size": self.batch_size,
            "shuffle": self.shuffle,
            "on_nan": self.on_nan,
            # Without a shuffle the order is the source's, whatever these are
            "buffer_size": self.buffer_size if self.shuffle else None,
            "seed": self.seed if self.shuffle else None,
        }

    def __getstate__(self) -> dict[str, Any]:
        """Pickle all but the rows that are being read: another process reads its own."""
        return {k: v for k, v in self.__dict__.items() if k != "_recipe"} | {"_stream": None}

    def __iter__(self) -> Iterator[Any]:
        """Yield the batches of the next pass.

        Yields
        ------
        StreamBatch or dict of str to StreamBatch
            Arrays of shape ``(batch_size, ...)`` that own their memory, with the numbers of their rows
            as ``batch.rows``: None where rows may be left out, of which the data are without.
        """
        epoch, self._epoch = self._epoch, self._epoch + 1
        return self.batches(epoch)

    def batches(self, epoch: int) -> Iterator[Any]:
        """Yield the batches of a pass, as iterating does."""
        with closing(self._ahead(_read_pass(self, epoch))) as chunks:
            for chunk in chunks:
                self._count_skipped(chunk)
                for k in range(chunk.n_batches):
                    if chunk.pass_end is not None and chunk.pass_end.n_batches == k + 1:
                        self._compare_total(chunk)
                    yield chunk.batch(self.layout, k, numbered=not self.leaves_out)
                self._compare_total(chunk)
                chunk.release()
                del chunk

    def chunks(
        self,
        position: Position = Position(),
        n_batches: int | None = None,
        *,
        stream: Stream | None = None,
    ) -> Generator[Chunk]:
        """Yield many batches at once, all of `batch_size` rows, in pass after pass.

        Parameters
        ----------
        position : Position
            How much of the stream was used before.
        n_batches : int, optional
            How many batches in all. No more rows than these have are read from an iterator.
        stream : Stream, optional
            Of :meth:`stream`: it stays open, so that what is read ahead, and the rest of a window, are
            there for the next call from where this one stopped. That of an iterator always does.

        Yields
        ------
        Chunk
            At least one batch each. It is valid until its ``release()`` is called.

        Raises
        ------
        ExhaustedSourceError
            If the source can be read only once, or has fewer rows than `position`.

        Examples
        --------
        >>> from pymc.data_loading.batch import Position
        >>> loader = pm.DataLoader(np.arange(10), batch_size=4)
        >>> for chunk in loader.chunks(Position(0, 4), n_batches=2):
        ...     print(chunk.rows, chunk.positions.tolist())
        [[4 5 6 7]] [[0, 8]]
        [[8 9 0 1]] [[1, 2]]
        """
        closes = stream is None and not self.source.one_shot
        stream = self.stream() if stream is None else stream
        try:
            for chunk in stream.chunks(position, n_batches):
                self._count_skipped(chunk)
                self._compare_total(chunk)
                yield chunk
                del chunk
        finally:
            if closes:
                stream.close()

    def stream(self) -> Stream:
        """Return what can be read on later, where it was left: for ``chunks(..., stream=stream)``.

        That of an iterator is one and the same, for all who read it.
        """
        if self._stream is not None:
            return self._stream
        stream = Stream(
            partial(_read, self),
            one_shot=self.source.one_shot,
            n_ahead=self._prefetch,
            timeout=self._timeout,
            name=self._name,
        )
        if self.source.one_shot:
            self._stream = stream
        return stream

    @property
    def _name(self) -> str:
        return f"the data of DataLoader, {self.source!r},"

    def _ahead[T](self, items: Iterator[T]) -> Generator[T]:
        return read_ahead(items, n_ahead=self._prefetch, timeout=self._timeout, name=self._name)

    @cached_property
    def _recipe(self) -> Recipe:
        order = Order(
            self.seed, self.buffer_size, self.shuffle, self.buffer_size >= self._sizes.n_read
        )
        opens: OpenPass = partial(open_pass, self.source, order)
        if self.source.one_shot:
            opens = OneShotPass(self.source, order)
        return Recipe(self.source, order, self.batch_size, self.on_nan, opens)

    def _count_skipped(self, chunk: Chunk) -> None:
        """Count rows that were left out, if they were not met before, in a window that is read again."""
        for epoch in np.unique(chunk.skipped[:, 0]).tolist():
            places = chunk.skipped[chunk.skipped[:, 0] == epoch, 1]
            known = self._skipped_to.get(epoch, 0)
            self.n_skipped += int((places >= known).sum())
            self._skipped_to[epoch] = max(known, int(places.max()) + 1)

    def _compare_total(self, chunk: Chunk) -> None:
        """Warn, once, if the first complete pass had another number of rows than was said."""
        if chunk.pass_end is None or chunk.pass_end.n_kept is None or self._compared:
            return
        self._compared = True
        n_kept = chunk.pass_end.n_kept
        n_skipped = chunk.pass_end.n_rows - n_kept
        if n_kept != self.total_size:
            beside = f", beside {n_skipped} that were left out" if n_skipped else ""
            warnings.warn(
                f"total_size={self.total_size} was given to DataLoader, but a complete pass over the "
                f"source has seen {n_kept} rows{beside}. Likelihoods are scaled to total_size rows, "
                f"so the posterior is that of more or fewer data than there are: write "
                f"total_size={n_kept}, or 'auto'",
                UserWarning,
                stacklevel=3,
            )


# The next two run in the thread that reads ahead, with all that a source may take long for; they hold no
# loader meanwhile, or one that nobody else holds would never be collected


def _read_pass(loader: DataLoader, epoch: int) -> Iterator[Chunk]:
    recipe, drop_last = loader._recipe, loader.drop_last
    del loader
    yield from read_one_pass(recipe, epoch, drop_last=drop_last)


def _read(loader: DataLoader, position: Position, demand: Demand) -> Iterator[Chunk]:
    recipe = loader._recipe
    del loader
    yield from read_chunks(recipe, position, demand)
