# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Batches for the steps of a fit: many at hand, each step takes the next, and who reads knows which.

A fed input of a step is a shared variable, such as the placeholder of a stream, that has another value
at each step. A driver takes these values from arrays of many batches, without a copy.
"""

from __future__ import annotations

import threading

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple
from weakref import WeakSet

import numpy as np

from pytensor.compile.sharedvalue import SharedVariable

__all__ = ["BatchFeed", "FeedChunk", "FeedInUse", "PreparedBatches"]


class PreparedBatches(NamedTuple):
    """What a driver feeds to the next steps.

    Parameters
    ----------
    values : object
        As the driver's `hold` made it of the batches for its fed inputs, in their order.
    start : int
        Which of the batches is that of the first step.
    """

    values: Any
    start: int


@dataclass(frozen=True, eq=False)
class FeedChunk:
    """Batches that are at hand.

    Parameters
    ----------
    values : tuple of array
        For each variable that is fed, with an axis of n_batches in front, C-contiguous. Nobody writes
        into them. Of another dtype than the variable's they are converted, batch by batch.
    positions : sequence of length n_batches
        Where the source stands after each batch.
    release : callable
        Called when nobody reads `values` any more.
    """

    values: tuple[np.ndarray, ...]
    positions: Sequence[Any]
    release: Callable[[], None] = lambda: None

    def __len__(self) -> int:
        return len(self.positions)


#: (position, number of batches) -> the batches from there, no more than that number
Opened = Callable[[Any, int], Iterator[FeedChunk]]


class FeedInUse(RuntimeError):
    """Two fits at once would feed the same variables."""


_in_use: WeakSet[SharedVariable] = WeakSet()
_lock = threading.Lock()


class BatchFeed:
    """Takes batches from a source, and knows which were used.

    Parameters
    ----------
    variables : sequence of SharedVariable
        What has the values of a batch. Between steps they are those of the last one that was used.
    open : callable (position, n_batches) -> iterator of Batches
        Reads from a position on. It may end early; an error that it raises is the fit's.
    position : object
        Where to begin. It may be set between two fits.
    dtypes : sequence of dtype, optional
        Of the batches, where they are not those of the variables.
    after : callable
        Called when all that was wanted has been read, and the variables hold the last batch.
    n_rows, batch_size : int
        Rows of a pass, and of a batch.
    one_shot : bool
        Whether they can be read only once.

    Examples
    --------
    >>> import pytensor
    >>> from pymc.variational.engine.batch_feed import FeedChunk, BatchFeed
    >>> x = pytensor.shared(np.zeros(2), "x")
    >>> rows = np.arange(6.0).reshape(3, 2)
    >>> feed = BatchFeed(
    ...     [x], lambda start, n: iter([FeedChunk((rows[start:],), [1, 2, 3][start:])]), 0
    ... )
    >>> with feed.reading(2):
    ...     feed.at_hand(), feed.take(2)
    (2, None)
    >>> feed.position, x.get_value()
    (2, array([2., 3.]))
    """

    def __init__(
        self,
        variables: Sequence[SharedVariable],
        open: Opened,
        position: Any,
        dtypes: Sequence[np.dtype] | None = None,
        after: Callable[[], None] = lambda: None,
        n_rows: int = 0,
        batch_size: int = 1,
        one_shot: bool = False,
    ) -> None:
        self._after = after
        self.n_rows, self.batch_size, self.one_shot = n_rows, batch_size, one_shot
        self.variables = tuple(variables)
        self._dtypes = dtypes or [np.dtype(var.type.dtype) for var in variables]
        self.position = position
        #: Batches that were used, in all
        self.n_used = 0
        self._open = open
        self._chunks: Iterator[FeedChunk] = iter(())
        self._batches: FeedChunk | None = None
        self._at = 0
        self._wanted = 0
        self._held: tuple[Any, Any] | None = None

    @property
    def inputs(self) -> dict[SharedVariable, np.dtype]:
        """The variables, and the dtypes of their batches."""
        return dict(zip(self.variables, self._dtypes))

    @contextmanager
    def reading(self, n: int) -> Iterator[None]:
        """Have `n` batches read, and at the end show the last one that was used.

        Raises
        ------
        FeedInUse
            If another fit is feeding one of the variables.
        """
        with _lock:
            used = [var.name for var in self.variables if var in _in_use]
            if used:
                raise FeedInUse(
                    f"Another fit is feeding {', '.join(map(repr, used))} of this model now. Fit one after "
                    "the other, or make a model for each"
                )
            _in_use.update(self.variables)
        try:
            self._wanted, self._chunks = n, iter(())
            if n:
                self._chunks = self._open(self.position, n)
            yield
        finally:
            try:
                self._close()
                self._after()
            finally:
                with _lock:
                    _in_use.difference_update(self.variables)

    def at_hand(self, waiting: AbstractContextManager[Any] | None = None) -> int:
        """Count the batches that can be fed now; where none is, wait for the next ones.

        Parameters
        ----------
        waiting : context manager, optional
            Entered while it waits.

        Returns
        -------
        int
            0 where the source has ended.
        """
        while self._batches is None or self._at == len(self._batches):
            self._let_go()
            with waiting or nullcontext():
                batches = next(self._chunks, None)
            if batches is None:
                return 0
            self._batches = batches
        return min(len(self._batches) - self._at, self._wanted)

    def next(self, driver: Any, which: Sequence[int]) -> PreparedBatches:
        """What feeds the variables `which`, by their places, with the next batches."""
        batches = self._at_hand()
        if self._held is None or self._held[0] is not driver:
            values = tuple(batches.values[i] for i in which)
            self._held = driver, driver.prepare_batches(values)
        return PreparedBatches(self._held[1], self._at)

    def take(self, n: int) -> None:
        """Note that the next `n` batches were used."""
        if n:
            batches = self._at_hand()
            self._at += n
            self._wanted -= n
            self.n_used += n
            self.position = batches.positions[self._at - 1]

    def read(self, n: int) -> Generator[tuple[np.ndarray, ...]]:
        """Yield the values of the next `n` batches, of as many at a time as are at hand."""
        with self.reading(n):
            while k := self.at_hand():
                values = self._at_hand().values
                yield tuple(array[self._at : self._at + k] for array in values)
                self.take(k)

    def show(self) -> None:
        """Give the variables the values of the last batch that was used."""
        if self._batches is not None and self._at:
            for var, values in zip(self.variables, self._batches.values):
                value = np.array(
                    values[self._at - 1], dtype=var.type.dtype
                )  # the batches are let go
                var.set_value(value, borrow=True)

    def _at_hand(self) -> FeedChunk:
        if self._batches is None:
            raise RuntimeError("No batch is at hand: call at_hand() first.")
        return self._batches

    def _let_go(self) -> None:
        """Show the last batch that was used, and give the memory of all that are at hand back."""
        self.show()
        batches, self._batches, self._at, self._held = self._batches, None, 0, None
        if batches is not None:
            batches.release()

    def _close(self) -> None:
        self.show()
        chunks, self._chunks = self._chunks, iter(())
        if isinstance(chunks, Generator):
            chunks.close()
        self._let_go()
