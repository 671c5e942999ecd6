# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""`pm.DataLoader` and `pm.shuffle_buffer`: batches of rows from a source, for users and for a fit."""

from __future__ import annotations

import warnings

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from functools import cached_property, partial
from typing import Any, Literal, TypeVar

import numpy as np

from pymc.argument_checks import check_choice, check_flag, check_int, check_number
from pymc.data_loading.batch import Chunk, Position
from pymc.data_loading.loader import Loader, ReadBatches
from pymc.data_loading.pass_rows import OneShotPass, Order, PassRows, open_pass
from pymc.data_loading.prefetch import BatchStream, Demand, PrefetchQueue
from pymc.data_loading.shuffle_window import BatchPlan, OnNaN, read_chunks, read_one_pass
from pymc.data_loading.sources.dataset import IterableDataset, as_source
from pymc.data_loading.sources.layout import Block, BlockSource, ExhaustedSourceError, Layout
from pymc.data_loading.sources.row_range import KeptBlock, RowRange

T = TypeVar("T")

__all__ = ["DataLoader", "ShuffledRows", "iterates_by_itself", "open_rows", "shuffle_buffer"]

#: Rows that are shuffled together by default.
BUFFER_ROWS = 100_000

#: Bytes that are read at a time without a shuffle: enough that the work for each read does not count, and few
#: enough to stay in a processor's cache until they are used.
WINDOW_BYTES = 4 * 2**20

#: Rows that are looked at together to count those that are finite.
COUNTED_ROWS = 65_536


class DataLoader(Loader):
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
        The number of rows: ``len(loader)``. With "auto" it is the ``n_rows`` of the source. If that is unknown,
        the rows are counted now, by a pass over the source. So they are if `on_nan` is "skip" and a row may
        have to be skipped, since skipped rows do not count.
    drop_last : bool
        Whether iterating leaves out the last batch of a pass if it has fewer rows than `batch_size`. A
        trainer leaves out nothing: these rows open the first batch of the next pass.
    on_nan : {"raise", "skip"}
        What to do with a row in which a value is NaN, infinite or null: raise a ValueError that names it, or
        skip it, as if it was not in the data. ``loader.n_skipped`` counts them.
    sample_shape : tuple of int, optional
        The shape of one row, where the source may yield rows or blocks of rows. Where the source knows it, it
        has to agree.
    timeout : float, optional
        Seconds to wait for rows before a TimeoutError: for those of a buffer, for the first block, or for the
        next one while rows are counted. By default there is no limit.
    prefetch : int
        How many buffers a thread reads ahead; 0 for no thread. Each has `buffer_size` rows, or about 4 MB if
        rows are not shuffled.

    Attributes
    ----------
    source : BlockSource
    batch_size : int
    total_size : int
        Number of rows: the ``total_size`` that a likelihood needs.
    seed : int
    n_skipped : int
        Rows skipped so far because a value was not finite. Each counts once a pass.

    Raises
    ------
    TypeError, ValueError
        If a size is not a positive whole number, a batch is larger than the data, `total_size` is "auto" for
        an iterator, which can be read only once, or `dataset` is not a source of rows.

    Warns
    -----
    UserWarning
        Once, at the end of a complete pass that did not have `total_size` rows, skipped ones not counted.

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
        self._shuffle_rows = buffer_size
        if buffer_size is not None:
            self._shuffle_rows = check_int(buffer_size, "buffer_size", name)
        if isinstance(dataset, ShuffledRows):
            self.shuffle, seed = True, dataset.seed if seed is None else seed
            self._shuffle_rows = self._shuffle_rows or dataset.buffer_size
        self.seed = _make_seed(seed, name)
        self.drop_last = check_flag(drop_last, "drop_last", name)
        self.on_nan: OnNaN = check_choice(on_nan, "on_nan", name, ("raise", "skip"))
        self._prefetch = check_int(prefetch, "prefetch", name, at_least=0)
        self._timeout = _check_timeout(timeout, self._prefetch)
        self.source: BlockSource = open_rows(dataset, sample_shape)
        self.total_size, self._pass_rows = self._count_rows(total_size)
        if self.batch_size > self.total_size:
            raise ValueError(
                f"batch_size={self.batch_size} of DataLoader is more than the {self.total_size} rows of the "
                f"data: write a smaller one, such as batch_size={max(1, self.total_size // 10)}"
            )
        self.n_skipped = 0
        self._skipped_to: dict[int, int] = {}  # by epoch
        self._epoch = 0
        self._total_compared = False
        self._stream: BatchStream | None = None

    def __repr__(self) -> str:
        """Describe the source and the order, without reading."""
        parts = [repr(self.source), f"batch_size={self.batch_size}"]
        if self.shuffle:
            buffer = "" if self._shuffle_rows is None else f", buffer_size={self._shuffle_rows}"
            parts.append(f"shuffle=True{buffer}, seed={self.seed}")
        if self.source.n_rows != self.total_size:
            parts.append(f"total_size={self.total_size}")
        return f"{type(self).__name__}({', '.join(parts)})"

    @cached_property
    def layout(self) -> Layout:
        """Names, shapes and dtypes of the rows. The first block may be read for it."""
        return next(self._with_timeout(source.layout for source in [self.source]))

    @property
    def n_rows(self) -> int:
        """The number of rows."""
        return self.total_size

    @property
    def n_batches(self) -> int:
        """The number of batches of one iteration."""
        full, rest = divmod(self.total_size, self.batch_size)
        return full + (rest > 0 and not self.drop_last)

    @cached_property
    def buffer_size(self) -> int:
        """Number of rows that are shuffled together, or read at a time without a shuffle."""
        if self.shuffle:
            rows = self._shuffle_rows or max(BUFFER_ROWS, 10 * self.batch_size)
        else:
            rows = max(WINDOW_BYTES // max(1, self.layout.row_bytes), self.batch_size)
        return min(rows, self._pass_rows)

    @cached_property
    def skips_rows(self) -> bool:
        """True if rows may be skipped: `on_nan` is "skip", and the data have floats or may have nulls."""
        return self.on_nan == "skip" and any(
            field.dtype.kind == "f" or field.nullable for field in self.layout.fields
        )

    @property
    def has_row_numbers(self) -> bool:  # type: ignore[override]
        """True if batches have row numbers; skipped rows leave the others without numbers."""
        return not self.skips_rows

    @property
    def one_shot(self) -> bool:  # type: ignore[override]
        """True if the rows can be read only once, as from an iterator."""
        return self.source.one_shot

    @property
    def identity(self) -> dict[str, Any]:
        """Facts that distinguish this stream from others, in JSON: a checkpoint resumes only with the same."""
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
        own = ("_plan", "_kept_block")
        return {k: v for k, v in self.__dict__.items() if k not in own} | {"_stream": None}

    def shard(
        self, k: int, n: int, batch_size: int | None = None, shuffle: bool | None = None
    ) -> DataLoader:
        """Return a loader of a part of the rows, for one of several processes.

        Parameters
        ----------
        k, n : int
            Which of how many parts. They have consecutive rows of the source, and their lengths differ by
            one at most.
        batch_size : int, optional
            Rows of a batch. Default: as of this loader, or all rows of the part if these are fewer.
        shuffle : bool, optional
            Whether each pass has the rows in a new order. Default: as of this loader.

        Returns
        -------
        DataLoader
            Its `total_size` and row numbers are those of the part, and its order is another one for each.

        Raises
        ------
        ValueError
            If the source gives its rows in order only.

        Examples
        --------
        >>> loader = pm.DataLoader(np.arange(10), batch_size=2)
        >>> [loader.shard(k, 3).total_size for k in range(3)]
        [3, 3, 4]
        """
        n = check_int(n, "n", "DataLoader.shard")
        k = check_int(k, "k", "DataLoader.shard", at_least=0, at_most=n - 1)
        n_rows = check_parts(self.source)
        rows = RowRange(self._kept_block, *shard_bounds(n_rows, n)[k])
        sequence = np.random.SeedSequence(self.seed, spawn_key=(n, k))
        buffer_rows = -(-self.buffer_size // n) if self.shuffle else None
        return DataLoader(
            rows,
            batch_size or max(1, min(self.batch_size, rows.n_rows)),
            shuffle=self.shuffle if shuffle is None else shuffle,
            buffer_size=buffer_rows,
            seed=int(sequence.generate_state(1, "uint64")[0]),
            drop_last=self.drop_last,
            on_nan="skip" if self.on_nan == "skip" else "raise",
            timeout=self._timeout,
            prefetch=self._prefetch,
        )

    @cached_property
    def _kept_block(self) -> KeptBlock:
        return KeptBlock(self.source)

    def __iter__(self) -> Iterator[Any]:
        """Yield the batches of the next pass.

        Yields
        ------
        StreamBatch or dict of str to StreamBatch
            Arrays of shape ``(batch_size, ...)`` that own their memory, with the row numbers
            ``batch.rows``. These are None where rows may be skipped.
        """
        epoch, self._epoch = self._epoch, self._epoch + 1
        return self.batches(epoch)

    def batches(self, epoch: int) -> Iterator[Any]:
        """Yield the batches of a pass, as iterating does."""
        with closing(self._prefetched(_make_pass(self, epoch))) as chunks:
            for chunk in chunks:
                self._count_skipped(chunk)
                for k in range(chunk.n_batches):
                    if chunk.pass_end is not None and chunk.pass_end.n_batches == k + 1:
                        self._compare_total(chunk)
                    yield chunk.batch(self.layout, k, numbered=not self.skips_rows)
                self._compare_total(chunk)
                chunk.release()
                del chunk

    def chunks(
        self, position: Position = Position(), n_batches: int | None = None
    ) -> Generator[Chunk]:
        """Yield many batches at once, all of `batch_size` rows, in pass after pass.

        Parameters
        ----------
        position : Position
            How much of the stream was used before.
        n_batches : int, optional
            How many batches in all. No more rows than these have are read from an iterator.

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
        stream = self._open_stream()
        try:
            yield from self._read(stream, position, n_batches)
        finally:
            if not self.source.one_shot:
                stream.close()

    def read_fields(self, names: Sequence[str]) -> Iterator[Mapping[str, np.ndarray]]:
        """Yield some fields of all rows in the order of the source, part by part.

        Parameters
        ----------
        names : sequence of str
            Fields of the layout. Columns of others are not read if the source can leave them out.

        Yields
        ------
        dict of str to array
            Of at least these fields, without the rows that are skipped.

        Raises
        ------
        ValueError
            If a value is missing or not finite, and `on_nan` is "raise".

        Examples
        --------
        >>> loader = pm.DataLoader({"x": np.zeros(5), "user": np.arange(5) % 2}, batch_size=2)
        >>> [part["user"] for part in loader.read_fields(["user"])]
        [array([0, 1, 0, 1, 0])]
        """
        # A row may be skipped for a value of any field
        source = self.source if self.skips_rows else self.source.of_fields(names)
        for block in self._with_timeout(source.blocks()):
            arrays = source.layout.empty(block.n_rows)
            if not block.write(arrays, 0, 0, block.n_rows):
                bad = block.bad_rows(0, block.n_rows)
                if bad and self.on_nan == "raise":
                    raise ValueError(
                        f"{block.where}, {bad[0]}: the value is missing, NaN or infinite"
                    )
                arrays = tuple(np.delete(x, [value.row for value in bad], axis=0) for x in arrays)
            yield dict(zip((field.name for field in source.layout.fields), arrays))

    def reader(self) -> ReadBatches:
        """Return `chunks` with a stream that stays open, for the next call to go on with."""
        return partial(self._read, self._open_stream())

    def _open_stream(self) -> BatchStream:
        """Return a new stream. All readers of an iterator share one."""
        if self._stream is not None:
            return self._stream
        stream = BatchStream(partial(_make_chunks, self), self.source.one_shot, self._prefetched)
        if self.source.one_shot:
            self._stream = stream
        return stream

    def _read(
        self, stream: BatchStream, position: Position, n_batches: int | None
    ) -> Generator[Chunk]:
        for chunk in stream.chunks(position, n_batches):
            self._count_skipped(chunk)
            self._compare_total(chunk)
            yield chunk
            del chunk

    def _prefetched(self, items: Iterator[T]) -> PrefetchQueue[T]:
        name = f"the data of DataLoader, {self.source!r},"
        return PrefetchQueue(items, self._prefetch, self._timeout, name)

    def _with_timeout(self, items: Iterator[T]) -> Iterator[T]:
        return items if self._timeout is None else self._prefetched(items)

    @cached_property
    def _plan(self) -> BatchPlan:
        whole = self.buffer_size >= self._pass_rows
        order = Order(self.seed, self.buffer_size, self.shuffle, whole)
        opens: Callable[[int, int], PassRows] = partial(open_pass, self.source, order)
        if self.source.one_shot:
            opens = OneShotPass(self.source, order)
        return BatchPlan(self.source, order, self.batch_size, self.on_nan, opens)

    def _count_rows(self, total_size: object) -> tuple[int, int]:
        """Return the number of rows of the data, and of a pass, in which rows may be skipped."""
        if isinstance(total_size, str) and total_size == "auto":
            n_rows, n_bad = self.source.n_rows, 0
            if n_rows is None or self.skips_rows:
                n_rows, n_bad = self._read_and_count()
            if n_rows == 0:
                raise ValueError(
                    "the source of rows that DataLoader was given has none: it is empty"
                )
            if n_rows == n_bad:
                raise ValueError(
                    f"on_nan='skip' of DataLoader would leave out all {n_rows} rows: each has a value "
                    f"that is NaN or infinite. Drop the column that is never finite"
                )
            return n_rows - n_bad, n_rows
        if total_size is None or isinstance(total_size, str):
            raise TypeError(
                f"total_size={total_size!r} of DataLoader has to be the number of rows of the data, or "
                "'auto'. Without it a likelihood is not scaled from a batch to all rows, and the posterior "
                "is too wide"
            )
        n_total = check_int(total_size, "total_size", "DataLoader")
        return n_total, self.source.n_rows or n_total

    def _read_and_count(self) -> tuple[int, int]:
        """Count the rows, and those to skip, by a pass. Check that the source can be read again."""
        once = (
            "total_size='auto' of DataLoader has to count the rows, and this source can be read only once, "
            "so that none would be left. Write total_size=N, or give a function that makes a new iterator "
            "for each pass, as lambda: read_blocks() does and lambda: blocks does not"
        )
        if self.source.one_shot:
            raise ValueError(once)
        n_rows, n_bad = 0, 0
        for block in self._with_timeout(self.source.blocks()):
            n_rows += block.n_rows
            n_bad += _count_bad(block) if self.skips_rows else 0
            del block  # before the next one is read
        try:
            blocks = self._with_timeout(self.source.blocks())
            again = n_rows == 0 or any(block.n_rows for block in blocks)
        except ExhaustedSourceError as error:
            raise ValueError(once) from error
        if not again:
            raise ValueError(once)
        return n_rows, n_bad

    def _count_skipped(self, chunk: Chunk) -> None:
        """Count skipped rows, but those of a window that is read again only once."""
        for epoch in np.unique(chunk.skipped[:, 0]).tolist():
            places = chunk.skipped[chunk.skipped[:, 0] == epoch, 1]
            known = self._skipped_to.get(epoch, 0)
            self.n_skipped += int((places >= known).sum())
            self._skipped_to[epoch] = max(known, int(places.max()) + 1)

    def _compare_total(self, chunk: Chunk) -> None:
        """Warn, once, if the first complete pass did not have `total_size` rows."""
        if chunk.pass_end is None or chunk.pass_end.n_kept is None or self._total_compared:
            return
        self._total_compared = True
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


def shard_bounds(n_rows: int, n: int) -> list[tuple[int, int]]:
    """Return the first row of each of `n` shards, and of what follows it."""
    return [(k * n_rows // n, (k + 1) * n_rows // n) for k in range(n)]


def check_parts(source: BlockSource) -> int:
    """Return the number of rows of a source with parts, and raise for others."""
    if source.part_lengths is None or source.n_rows is None:
        raise ValueError(
            f"{source!r} gives its rows in order only, so that processes cannot read a part of them "
            "each: give pm.DataLoader arrays, Parquet files, or a pm.Source, which has parts"
        )
    return source.n_rows


def _check_timeout(timeout: object, prefetch: int) -> float | None:
    if timeout is None:
        return None
    hint = "It is a number of seconds, such as 60. None waits without a limit"
    seconds = check_number(timeout, "timeout", "DataLoader", above=0, hint=hint)
    if prefetch == 0:
        raise ValueError(
            f"timeout={timeout!r} of DataLoader needs the thread that reads ahead: write prefetch=1"
        )
    return seconds


def _count_bad(block: Block) -> int:
    """Count the rows of a block in which a value is not finite."""
    starts = range(0, block.n_rows, COUNTED_ROWS)
    return sum(
        len({bad.row for bad in block.bad_rows(start, min(start + COUNTED_ROWS, block.n_rows))})
        for start in starts
    )


# These run in the thread that reads ahead, since a source may take long for the layout too. They do not hold
# the loader meanwhile: it would never be collected


def _make_pass(loader: DataLoader, epoch: int) -> Iterator[Chunk]:
    plan, drop_last = loader._plan, loader.drop_last
    del loader
    yield from read_one_pass(plan, epoch, drop_last=drop_last)


def _make_chunks(loader: DataLoader, position: Position, demand: Demand) -> Iterator[Chunk | None]:
    plan = loader._plan
    del loader
    yield from read_chunks(plan, position, demand)


class ShuffledRows(IterableDataset):
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


def _make_seed(seed: object, function: str) -> int:
    """Check a seed, or draw one for None: a checkpoint keeps it."""
    if seed is None:
        return int(np.random.SeedSequence().entropy)  # type: ignore[arg-type]
    return check_int(seed, "seed", function, at_least=0)


def open_rows(data: object, sample_shape: object = None) -> BlockSource:
    """Return the source of rows of data. Of a loader or of shuffled rows it is the source behind them.

    So rows keep their numbers, none are dropped, and shuffled rows are shuffled once.
    """
    if isinstance(data, DataLoader | ShuffledRows) and not iterates_by_itself(data):
        data = data.source
    return as_source(data, sample_shape=sample_shape)


def iterates_by_itself(data: DataLoader | ShuffledRows) -> bool:
    """Return whether a subclass of users' has an ``__iter__`` of its own, which may yield other rows."""
    return type(data).__iter__ not in (DataLoader.__iter__, ShuffledRows.__iter__)


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
        _make_seed(seed, "shuffle_buffer"),
    )
