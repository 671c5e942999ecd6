# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""The batch feed of a fit: each step takes the next batch, and the feed knows which were used.

A batch input of a step is a shared variable, such as the placeholder of a stream, that has another value at
each step. A driver takes these values from arrays of many batches, without a copy.
"""

from __future__ import annotations

import threading

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakSet

import numpy as np

from pytensor.compile.sharedvalue import SharedVariable

if TYPE_CHECKING:
    from pymc.data_loading.batch import Position
    from pymc.variational.engine.drivers.base import Driver

__all__ = ["BatchFeed", "FeedChunk", "FeedInUse", "PreparedBatches"]


class PreparedBatches(NamedTuple):
    """Batches as the `prepare_batches` of a driver returns them; the next step takes that at `start`."""

    values: Any
    start: int


@dataclass(frozen=True, eq=False)
class FeedChunk:
    """Batches that were read."""

    #: For each variable of the feed, with an axis of n_batches in front, C-contiguous. Nobody writes into them
    values: tuple[np.ndarray, ...]
    positions: Sequence[Position]  # of the stream after each batch
    release: Callable[[], None] = lambda: None  # called when nobody reads `values` any more

    def __len__(self) -> int:
        return len(self.positions)


#: (position, n_batches) -> chunks from there, of no more than that number of batches; None is without end
ReadChunks = Callable[[Any, int | None], Iterator[FeedChunk]]


class FeedInUse(RuntimeError):
    """Raised when two fits at once would feed the same variables."""


_in_use: WeakSet[SharedVariable] = WeakSet()
_lock = threading.Lock()


class BatchFeed:
    """Feeds the steps of a fit with batches.

    Parameters
    ----------
    variables : sequence of SharedVariable
        They hold a batch. Between steps it is the last one that was used.
    read : callable (position, n_batches) -> iterator of FeedChunk
        Reads from a position on. It may end early. The fit raises its errors.
    position : Position
        Where to begin. It may be set between two fits.
    dtypes : sequence of dtype, optional
        Of the batches, if they are not those of the variables.
    after : callable
        Called at the end of each fit, when the variables hold the last batch.
    n_rows, batch_size : int
        Rows of a pass, and of a batch.
    one_shot : bool
        Whether the rows can be read only once.

    Attributes
    ----------
    n_used : int
        Batches that were used, in all fits.

    Examples
    --------
    >>> import pytensor
    >>> from pymc.variational.engine.batch_feed import BatchFeed, FeedChunk
    >>> x = pytensor.shared(np.zeros(2), "x")
    >>> rows = np.arange(6.0).reshape(3, 2)
    >>> read = lambda start, n: iter([FeedChunk((rows[start:],), [1, 2, 3][start:])])
    >>> feed = BatchFeed([x], read, 0)
    >>> with feed.reading(2):
    ...     feed.n_ready(), feed.advance(2)
    (2, None)
    >>> feed.position, x.get_value()
    (2, array([2., 3.]))
    """

    def __init__(
        self,
        variables: Sequence[SharedVariable],
        read: ReadChunks,
        position: Any,
        dtypes: Sequence[np.dtype] | None = None,
        after: Callable[[], None] = lambda: None,
        n_rows: int = 0,
        batch_size: int = 1,
        one_shot: bool = False,
    ) -> None:
        self.variables, self.position, self.n_used = tuple(variables), position, 0
        self.n_rows, self.batch_size, self.one_shot = n_rows, batch_size, one_shot
        self._dtypes = dtypes or [np.dtype(var.type.dtype) for var in variables]
        self.read, self._after = read, after
        self._chunks: Iterator[FeedChunk] = iter(())
        self._chunk = FeedChunk((), ())
        self._next = 0  # index of the next batch in the chunk
        self._n_wanted = 0
        self._prepared: tuple[Driver, Any] | None = None

    @property
    def batch_dtypes(self) -> dict[SharedVariable, np.dtype]:
        """The variables, and the dtypes of their batches."""
        return dict(zip(self.variables, self._dtypes))

    @contextmanager
    def reading(self, n: int) -> Iterator[None]:
        """Read `n` batches. At the end the variables get the last one that was used."""
        with _lock:
            if used := [var.name for var in self.variables if var in _in_use]:
                raise FeedInUse(
                    f"Another fit is feeding {', '.join(map(repr, used))} of this model now. Fit one after "
                    "the other, or make a model for each"
                )
            _in_use.update(self.variables)
        try:
            self._n_wanted = n
            self._chunks = self.read(self.position, n) if n else iter(())
            yield
        finally:
            try:
                self.store_last()
                if isinstance(self._chunks, Generator):
                    self._chunks.close()
                self._release_chunk()
                self._after()
            finally:
                with _lock:
                    _in_use.difference_update(self.variables)

    def n_ready(self, waiting: AbstractContextManager[Any] | None = None) -> int:
        """Return how many batches the next steps can take: 0 if the source has ended.

        If none is ready, wait for the next chunk, within the context manager `waiting`.
        """
        while self._next == len(self._chunk):
            self._release_chunk()
            with waiting or nullcontext():
                chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._chunk = chunk
        return min(len(self._chunk) - self._next, self._n_wanted)

    def prepared(self, driver: Driver, which: Sequence[int]) -> PreparedBatches:
        """Return the next batches of some of the variables, by index, as a driver takes them."""
        if self._prepared is None or self._prepared[0] is not driver:
            values = tuple(self._chunk.values[i] for i in which)
            self._prepared = driver, driver.prepare_batches(values)
        return PreparedBatches(self._prepared[1], self._next)

    def advance(self, n: int) -> None:
        """Note that steps have used the next `n` batches."""
        if n:
            self._next += n
            self._n_wanted -= n
            self.n_used += n
            self.position = self._chunk.positions[self._next - 1]

    def values(self, n: int) -> Generator[tuple[np.ndarray, ...]]:
        """Yield the values of the next `n` batches, as many at a time as are ready."""
        with self.reading(n):
            while k := self.n_ready():
                yield tuple(array[self._next : self._next + k] for array in self._chunk.values)
                self.advance(k)

    def store_last(self) -> None:
        """Give the variables the values of the last batch that was used."""
        if self._next:
            for var, values in zip(self.variables, self._chunk.values):
                # A copy: the memory of the chunk is used again
                batch = np.array(values[self._next - 1], dtype=var.type.dtype)
                var.set_value(batch, borrow=True)

    def _release_chunk(self) -> None:
        self.store_last()
        chunk, self._chunk = self._chunk, FeedChunk((), ())
        self._next, self._prepared = 0, None
        chunk.release()
