# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""`pm.Loader`: the base class of loaders, which feed a fit with batches, pass after pass."""

from __future__ import annotations

import itertools

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from pymc.data_loading.batch import Chunk, Position, StreamBatch
from pymc.data_loading.sources.dataset import read_first
from pymc.data_loading.sources.iterables import ItemReader
from pymc.data_loading.sources.layout import ExhaustedSourceError, Layout
from pymc.minibatch.stream_index import UNKNOWN_ROW

__all__ = ["Loader", "ReadBatches"]

#: (position, number of batches) -> the batches from there, no more than that number; None is without end
ReadBatches = Callable[[Position, int | None], Generator[Chunk]]

#: Batches of a chunk
CHUNK_BATCHES = 16


class Loader(ABC):
    """Base class of loaders, which feed a fit with batches of rows, pass after pass.

    A subclass has a `batch_size` and a `total_size`, and a method `batches`, which yields the batches of a
    pass. All else has a default. :class:`DataLoader` makes batches of rows that you have; write a loader
    where the batches themselves come from elsewhere, or are changed on the way.

    Attributes
    ----------
    batch_size : int
        Rows of a batch.
    total_size : int
        Number of rows of the data: the likelihood of a batch is scaled to it.
    has_row_numbers : bool
        Whether batches have row numbers, as those of a `DataLoader` do in ``batch.rows``. A model with latent
        variables of rows needs them.
    one_shot : bool
        Whether the rows can be read only once.

    Examples
    --------
    Batches of rows of a `DataLoader`, with noise that is another one in each pass:

    >>> class Noisy(pm.Loader):
    ...     def __init__(self, loader):
    ...         self.loader = loader
    ...         self.batch_size, self.total_size = loader.batch_size, loader.total_size
    ...
    ...     def batches(self, epoch):
    ...         rng = np.random.default_rng(epoch)
    ...         for batch in self.loader.batches(epoch):
    ...             yield batch + rng.normal(0, 0.1, size=batch.shape)
    >>> noisy = Noisy(pm.DataLoader(np.zeros((6, 2)), batch_size=3))
    >>> [batch.shape for batch in noisy.batches(0)], len(noisy)
    ([(3, 2), (3, 2)], 6)
    """

    batch_size: int
    total_size: int
    has_row_numbers: bool = False
    one_shot: bool = False

    @abstractmethod
    def batches(self, epoch: int) -> Iterator[Any]:
        """Yield the batches of a pass.

        Parameters
        ----------
        epoch : int
            The number of the pass, from 0. The same number gives the same batches: a fit that goes on from
            a checkpoint opens its pass anew.

        Yields
        ------
        array, dict of arrays, DataFrame or Arrow table
            Of `batch_size` rows each, and alike in all batches.
        """

    def __len__(self) -> int:
        """Return the number of rows, not of batches."""
        return self.total_size

    @property
    def layout(self) -> Layout:
        """Names, shapes and dtypes of the rows. The first batch is read for it."""
        return self._reader.layout

    @property
    def columns(self) -> tuple[str, ...] | dict[str, tuple[str, ...] | None] | None:
        """Names of the columns, for each key of batches that are dicts; None if they have none."""
        fields = self.layout.fields
        return {f.name: f.columns for f in fields} if self.layout.named else fields[0].columns

    @property
    def identity(self) -> Mapping[str, Any]:
        """Facts that distinguish this stream from others, in JSON: a checkpoint resumes only with the same."""
        return {
            "kind": type(self).__qualname__,
            "total_size": self.total_size,
            "batch_size": self.batch_size,
            "schema": self.layout.schema,
        }

    def reader(self) -> ReadBatches:
        """Return a function that reads chunks from a position on, for the calls of a fit."""
        return self.chunks

    def chunks(
        self, position: Position = Position(), n_batches: int | None = None
    ) -> Generator[Chunk]:
        """Yield many batches at once, in pass after pass.

        Parameters
        ----------
        position : Position
            How much of the stream was used before: the batches before it in its pass are read and left out.
        n_batches : int, optional
            How many batches in all.

        Yields
        ------
        Chunk
            At least one batch each.

        Raises
        ------
        ExhaustedSourceError
            If a pass has no batches.
        ValueError, TypeError
            If a batch has another number of rows than `batch_size`, is not like the first one, or has values
            that are not finite.
        """
        left = n_batches
        for epoch in itertools.count(position.epoch):
            before = position.row // self.batch_size if epoch == position.epoch else 0
            stop = None if left is None else before + left
            n_read = before
            batches = itertools.islice(self.batches(epoch), before, stop)
            for some in itertools.batched(batches, CHUNK_BATCHES):
                yield self._stack(some, epoch, n_read)
                n_read += len(some)
            if n_read == 0 and left != 0:
                raise ExhaustedSourceError(f"pass {epoch} of {self!r} has no batches")
            if left is not None:
                left -= n_read - before
                if left == 0:
                    return

    @cached_property
    def _reader(self) -> ItemReader:
        """Reader of batches that are like the first one."""
        for batch in self.batches(0):
            return read_first(batch, f"batch 0 of {type(self).__name__}")
        raise ExhaustedSourceError(f"pass 0 of {self!r} has no batches")

    def _stack(self, batches: Sequence[Any], epoch: int, n_before: int) -> Chunk:
        """Stack batches of a pass to a chunk."""
        values = self.layout.empty(len(batches), self.batch_size)
        rows = np.full((len(batches), self.batch_size), UNKNOWN_ROW)
        for k, batch in enumerate(batches):
            where = f"batch {n_before + k} of pass {epoch} of {type(self).__name__}"
            block = self._reader.block(batch, where)
            if block.n_rows != self.batch_size:
                raise ValueError(
                    f"{where} has {block.n_rows} rows, and batch_size is {self.batch_size}: all batches need "
                    "that many. Leave out the rest of a pass, or let it open the next one"
                )
            if not block.write(tuple(array[k] for array in values), 0, 0, self.batch_size):
                bad = block.bad_rows(0, self.batch_size)[0]
                raise ValueError(f"{where}, {bad}: the value is missing, NaN or infinite")
            if self.has_row_numbers:
                rows[k] = _row_numbers(batch, where)
        ends = (n_before + 1 + np.arange(len(batches))) * self.batch_size
        positions = np.stack([np.full(len(batches), epoch), ends], axis=1).astype("int64")
        return Chunk(values, rows, positions)


def _row_numbers(batch: Any, where: str) -> np.ndarray:
    """Return the row numbers that the arrays of a batch have."""
    arrays: Iterable[Any] = batch.values() if isinstance(batch, Mapping) else [batch]
    for array in arrays:
        if isinstance(array, StreamBatch) and array.rows is not None:
            return array.rows
    raise ValueError(
        f"{where} does not say which rows it has, and has_row_numbers is True: yield arrays with rows, as "
        "StreamBatch.of(values, rows) makes them, or leave has_row_numbers False"
    )
