# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Prefetching: a bounded queue that a thread fills, and the stream of batches that a fit reads from it."""

from __future__ import annotations

import atexit
import math
import os
import queue
import threading
import weakref

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple, TypeVar

from pymc.data_loading.batch import Chunk, Position

T = TypeVar("T")

__all__ = ["BatchStream", "Demand", "ForkedError", "PrefetchQueue"]

#: Seconds that a stopped thread may take to end: it may be in the middle of a read.
PATIENCE = 2.0

_END: Final = object()


class ForkedError(RuntimeError):
    """A prefetch queue was read in a forked process, in which its thread does not exist."""


class _Failure(NamedTuple):
    error: BaseException


class PrefetchQueue(Iterator[T]):
    """Iterator over items that a thread takes from another iterator ahead of time.

    The thread starts when the first item is asked for. It ends with the items, when the queue is closed or
    collected, and with the process.

    Parameters
    ----------
    items : iterator
        Nobody else may use it.
    size : int
        How many items may be ready or being made, apart from the one returned last. With 0 there is no
        thread.
    timeout : float, optional
        Seconds to wait for an item.
    name : str
        Names the items in error messages.

    Raises
    ------
    TimeoutError
        If an item takes longer than `timeout`. It may be asked for again.
    ForkedError
        In a forked process, if the thread was started before the fork.
    BaseException
        Whatever `items` raises, with its traceback.
    """

    def __init__(self, items: Iterator[T], size: int, timeout: float | None, name: str) -> None:
        self._items, self._size, self._timeout, self._name = items, size, timeout, name
        self._room = threading.Semaphore(size)
        self._ready: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self._process = os.getpid()
        self._hangs = False
        self.finished = False  # the items have ended, or raised an error

    def __next__(self) -> T:
        """Return the next item."""
        if self._size == 0:
            self.finished = True  # unless there is an item
            item = next(self._items)
            self.finished = False
            return item
        if self.finished:
            raise StopIteration
        if self._thread is None:
            self._start()
        elif self.forked:
            raise ForkedError(
                f"{self._name} is read by a thread of the parent process, which this forked process does "
                "not have: start a new iteration"
            )
        try:
            result: Any = self._ready.get(timeout=self._timeout)
        except queue.Empty:
            self._hangs = True
            raise TimeoutError(
                f"{self._name} gave no rows for timeout={self._timeout} seconds. If that can happen, pass a "
                "longer timeout= to DataLoader; None waits for ever."
            ) from None
        self._hangs = False
        self.finished = result is _END or isinstance(result, _Failure)
        if isinstance(result, _Failure):
            raise result.error
        if self.finished:
            raise StopIteration
        self._room.release()
        return result

    @property
    def forked(self) -> bool:
        """True if the thread belongs to another process."""
        return self._thread is not None and os.getpid() != self._process

    def close(self) -> None:
        """Stop reading. Wait for the thread to end, unless it hangs."""
        if self._thread is None:
            if isinstance(self._items, Generator):
                self._items.close()
            return
        self.stop()
        self.join(0.0 if self._hangs else PATIENCE)

    def stop(self) -> None:
        """Let the thread end after the item that it is making."""
        if not self.forked:  # else the thread may have held a lock in the moment of the fork
            self._stopped.set()
            self._room.release()

    def join(self, seconds: float) -> None:
        """Wait for the thread to end."""
        # The garbage collector may close a queue in any thread
        if self._thread not in (None, threading.current_thread()) and not self.forked:
            self._thread.join(seconds)

    def __del__(self) -> None:
        self.stop()

    def _start(self) -> None:
        self._process = os.getpid()
        # The thread does not hold the queue, which would never be collected
        arguments = self._items, self._room, self._ready, self._stopped
        self._thread = threading.Thread(
            target=_fill, args=arguments, name="pymc-prefetch", daemon=True
        )
        _queues.add(self)
        self._thread.start()


def _fill(
    items: Iterator[Any],
    room: threading.Semaphore,
    ready: queue.SimpleQueue[Any],
    stopped: threading.Event,
) -> None:
    """Put items into a queue while there is room, then their end or the error that they raised."""
    try:
        while room.acquire() and not stopped.is_set():
            item = next(items, _END)
            ready.put(item)
            if item is _END:
                return
            del item  # or a buffer would be held until the next one is full
    except BaseException as error:  # Ctrl-C in a source too: it belongs to the consumer
        ready.put(_Failure(error))
    finally:
        if isinstance(items, Generator):
            items.close()


_queues: weakref.WeakSet[PrefetchQueue[Any]] = weakref.WeakSet()


@atexit.register
def _stop_all() -> None:
    """End all threads before the interpreter does: one inside of compiled code would crash it."""
    queues = list(_queues)
    for prefetched in queues:
        prefetched.stop()
    for prefetched in queues:
        prefetched.join(PATIENCE)


@dataclass
class Demand:
    """Total number of batches that a reader has to make; the consumer raises it while a thread reads."""

    n_batches: float = 0


#: Makes an iterator over chunks from a position on, which yields None while the demand is met.
ReadChunks = Callable[[Position, Demand], Iterator[Chunk | None]]


class BatchStream:
    """Chunks of batches, read ahead. It stays open, so that a fit goes on where the last one stopped.

    So the rest of a shuffle window is not read again, nor the rows before a position of a source that has to
    be read from its start. Rows that can be read only once (`one_shot`) go on wherever the position is.
    """

    def __init__(
        self,
        read: ReadChunks,
        one_shot: bool,
        prefetch: Callable[[Iterator[Chunk | None]], PrefetchQueue[Chunk | None]],
    ) -> None:
        self._read, self._one_shot, self._prefetch = read, one_shot, prefetch
        self._queue: PrefetchQueue[Chunk | None] | None = None

    def chunks(self, position: Position, n_batches: int | None) -> Iterator[Chunk]:
        """Yield `n_batches` batches from a position on, or all; a chunk is valid until the next one."""
        n_left = math.inf if n_batches is None else n_batches
        while n_left > 0:
            chunk = self._next_part(self._queue_at(position), n_left)
            if chunk is None:
                self.close()
                return
            n_left -= chunk.n_batches
            position = Position(*chunk.positions[-1].tolist())
            yield chunk
            del chunk

    def close(self) -> None:
        """Stop reading ahead."""
        prefetched, self._queue = self._queue, None
        if prefetched is not None:
            prefetched.close()

    def _queue_at(self, position: Position) -> PrefetchQueue[Chunk | None]:
        """Return the open queue if it is at this position, else open another one."""
        if self._queue is not None and not self._queue.forked and self._seek(position):
            return self._queue
        self.close()
        self._demand = Demand()
        self._start = position  # of the current chunk
        self._current: _SharedChunk | None = None
        self._n_used = 0  # batches of the current chunk that were handed on
        self._n_arrived = 0  # batches of all chunks
        self._queue = self._prefetch(self._read(position, self._demand))
        return self._queue

    def _seek(self, position: Position) -> bool:
        """Go to a position between the batches of the current chunk. Return False if it is not there."""
        ends = [] if self._current is None else self._current.chunk.positions.tolist()
        starts = [[self._start.epoch, self._start.row], *ends]
        try:
            self._n_used = starts.index([position.epoch, position.row])
        except ValueError:
            return self._one_shot
        return True

    def _next_part(self, prefetched: PrefetchQueue[Chunk | None], most: float) -> Chunk | None:
        """Return the next batches, all from one chunk; None at the end."""
        n_left = 0 if self._current is None else self._current.chunk.n_batches - self._n_used
        wanted = self._n_arrived - n_left + most
        self._demand.n_batches = max(self._demand.n_batches, wanted)
        if self._current is None or n_left == 0:
            self._let_go()
            self._current = self._receive(prefetched)
            if self._current is None:
                return None
            n_left = self._current.chunk.n_batches
            self._n_arrived += n_left
        start, self._n_used = self._n_used, self._n_used + int(min(n_left, most))
        return self._current.part(start, self._n_used)

    def _let_go(self) -> None:
        if self._current is not None:
            self._start = Position(*self._current.chunk.positions[-1].tolist())
            self._current.release()
        self._current, self._n_used = None, 0

    def _receive(self, prefetched: PrefetchQueue[Chunk | None]) -> _SharedChunk | None:
        try:
            for chunk in prefetched:
                if chunk is not None:  # else it was made before the demand was raised
                    return _SharedChunk(chunk)
        except BaseException as error:
            # Other data are read anew after a time limit; the next rows of an iterator are still to come
            hangs = isinstance(error, TimeoutError)
            if prefetched.finished or (hangs and not self._one_shot):
                self.close()
            raise
        return None


class _SharedChunk:
    """A chunk that is handed on in parts. Its memory is free when the stream and all parts are done."""

    def __init__(self, chunk: Chunk) -> None:
        self.chunk = chunk
        self._n_users = 1  # the stream

    def part(self, start: int, stop: int) -> Chunk:
        """Return the batches from `start` to `stop`."""
        chunk, end = self.chunk, self.chunk.pass_end
        if end is not None:
            inside = start < end.n_batches <= stop or start == end.n_batches == 0
            end = end._replace(n_batches=end.n_batches - start) if inside else None
        self._n_users += 1
        return replace(
            chunk,
            values=tuple(values[start:stop] for values in chunk.values),
            rows=chunk.rows[start:stop],
            positions=chunk.positions[start:stop],
            pass_end=end,
            release=self.release,
        )

    def release(self) -> None:
        """Note that the stream, or who holds a part, does not read it any more."""
        self._n_users -= 1
        if self._n_users == 0:
            self.chunk.release()
