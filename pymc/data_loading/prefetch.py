# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Prefetching: a thread reads ahead, and a stream that stays open between two fits."""

from __future__ import annotations

import atexit
import math
import os
import queue
import threading
import weakref

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field, replace
from threading import Condition
from typing import Any, Final

from pymc.data_loading.batch import Chunk, Position

__all__ = [
    "Demand",
    "Failure",
    "ForkedError",
    "Line",
    "Stream",
    "next_item",
    "read_ahead",
    "start_line",
]


class Demand:
    """How many batches are wanted in all. It grows while they are read, in another thread.

    Parameters
    ----------
    n_batches : float
        May be infinite.

    Examples
    --------
    >>> from pymc.data_loading.prefetch import Demand
    >>> demand = Demand()
    >>> demand.raise_to(3)
    >>> demand.wait_for_more(2), demand.n_batches
    (True, 3)
    """

    def __init__(self, n_batches: float = 0) -> None:
        self.n_batches = n_batches
        self._closed = False
        self._changed = Condition()

    def raise_to(self, n_batches: float) -> None:
        """Want so many, if it is more than before."""
        with self._changed:
            self.n_batches = max(self.n_batches, n_batches)
            self._changed.notify_all()

    def close(self) -> None:
        """Want no more, for good."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def wait_for_more(self, n_made: int) -> bool:
        """Wait until more than `n_made` are wanted; return False when none ever will be."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self.n_batches > n_made)
            return not self._closed


#: How long a thread may take to end that was told to, in seconds: it may be in the middle of a read.
PATIENCE = 2.0

_END: Final = object()


class ForkedError(RuntimeError):
    """An iterator was used in a process that was forked after it began: its thread is not there."""


@dataclass(frozen=True)
class Failure:
    """An error in place of an item."""

    error: BaseException


@dataclass(frozen=True, eq=False)
class Line:
    """What the two threads share. Neither holds the other's frames, so that each can end alone."""

    room: threading.Semaphore
    ready: queue.SimpleQueue[Any] = field(default_factory=queue.SimpleQueue)
    stopped: threading.Event = field(default_factory=threading.Event)
    threads: list[threading.Thread] = field(default_factory=list)
    wake: Callable[[], None] = lambda: None  # what else the thread may wait for

    def stop(self) -> None:
        """Let the thread end, as soon as what it reads at the moment is there."""
        self.stopped.set()
        self.wake()
        self.room.release()

    def join(self, seconds: float) -> None:
        """Wait so long for the thread to end."""
        for thread in self.threads:
            if thread is not threading.current_thread():  # the garbage collector may run in any
                thread.join(seconds)


_LINES: weakref.WeakSet[Line] = weakref.WeakSet()


@atexit.register
def _stop_all() -> None:
    """End the threads before the interpreter goes: one inside of compiled code would crash it."""
    lines = list(_LINES)
    for line in lines:
        line.stop()
    for line in lines:
        line.join(PATIENCE)


def _work(items: Iterator[Any], line: Line) -> None:
    """Put items on a line while there is room, then its end or what was raised."""
    try:
        while line.room.acquire() and not line.stopped.is_set():
            item = next(items, _END)
            line.ready.put(item)
            if item is _END:
                return
            del item  # or a buffer would be held until the next one is full
    except (
        BaseException
    ) as error:  # all of it, Ctrl-C in a source too, belongs to who reads the line
        line.ready.put(Failure(error))
    finally:
        if isinstance(items, Generator):
            items.close()


def read_ahead[T](
    items: Iterator[T], *, n_ahead: int, timeout: float | None, name: str
) -> Generator[T]:
    """Yield items that a thread of their own takes from an iterator.

    The thread starts with the first one asked for. It ends with the items, when this generator is
    closed or collected, and with the process.

    Parameters
    ----------
    items : iterator
        Nobody else may use it.
    n_ahead : int
        How many items may be ready or in the making, beside the one that was yielded. With 0 there is no
        thread.
    timeout : float, optional
        How long to wait for one, in seconds.
    name : str
        What the items come from, for messages.

    Raises
    ------
    TimeoutError
        If an item takes longer than that.
    ForkedError
        In a forked process, if the generator began before the fork.
    BaseException
        Whatever `items` raises, with its traceback.

    Examples
    --------
    >>> from pymc.data_loading.prefetch import read_ahead
    >>> list(read_ahead(iter("abc"), n_ahead=1, timeout=None, name="letters"))
    ['a', 'b', 'c']
    """
    if n_ahead == 0:
        yield from items
        return
    process = os.getpid()
    line = start_line(items, n_ahead)
    patience = PATIENCE
    try:
        while (item := _next(line, timeout, name)) is not _END:
            line.room.release()
            yield item
            del item
            if os.getpid() != process:
                raise ForkedError(
                    f"{name} is read by a thread of the process that began it, and this one was forked "
                    f"from it: begin to iterate anew"
                )
    except TimeoutError:
        patience = 0.0  # it hangs
        raise
    finally:
        if os.getpid() == process:  # else its locks may be held by a thread that is not there
            line.stop()
            line.join(patience)


def start_line(items: Iterator[Any], n_ahead: int, wake: Callable[[], None] = lambda: None) -> Line:
    """Start a thread that takes items ahead; `wake` is called where it has to end."""
    line = Line(threading.Semaphore(n_ahead), wake=wake)
    thread = threading.Thread(target=_work, args=(items, line), name="pymc-read-ahead", daemon=True)
    line.threads.append(thread)
    _LINES.add(line)
    thread.start()
    return line


def _next(line: Line, timeout: float | None, name: str) -> Any:
    item = next_item(line, timeout, name)
    if isinstance(item, Failure):
        raise item.error
    return item


def next_item(line: Line, timeout: float | None, name: str) -> Any:
    """Return the next item, or a `Failure`; something else at the end.

    Raises
    ------
    TimeoutError
        Nothing is lost: it may be asked again.
    """
    try:
        return line.ready.get(timeout=timeout)
    except queue.Empty:
        raise TimeoutError(
            f"{name} gave no rows for timeout={timeout} seconds. If that can happen, pass a longer "
            f"timeout= to DataLoader; None waits for ever."
        ) from None


#: Reads chunks from a position on, as many batches as are wanted.
Read = Callable[[Position, Demand], Iterator[Chunk]]


class Stream:
    """Chunks of a loader, which one reader after another takes, each from where the last one stopped.

    Parameters
    ----------
    read : callable (position, demand) -> iterator of Chunk
    one_shot : bool
        Whether the rows can be read once only. Then it goes on with those that are there, whatever the
        position.
    n_ahead : int
    timeout : float, optional
    name : str
        As of :func:`~pymc.data_loading.prefetch.read_ahead`.
    """

    def __init__(
        self, read: Read, *, one_shot: bool, n_ahead: int, timeout: float | None, name: str
    ) -> None:
        self._read, self._one_shot = read, one_shot
        self._n_ahead, self._timeout, self._name = n_ahead, timeout, name
        self._reader: _Reader | None = None

    def chunks(self, position: Position, n_batches: int | None) -> Iterator[Chunk]:
        """Yield batches from a position on. A chunk is used up when the next one is asked for.

        Parameters
        ----------
        position : Position
        n_batches : int, optional
            How many in all; None for as many as there are.
        """
        left: float = math.inf if n_batches is None else n_batches
        while left > 0:
            reader = self._reader_at(position)
            try:
                chunk = reader.take(left)
            except ForkedError:
                self._reader = None  # go on here, with a thread of this process
                continue
            except BaseException as error:
                hangs = isinstance(error, TimeoutError)
                if reader.over or (hangs and not self._one_shot):
                    self.close(0.0 if hangs else PATIENCE)
                raise
            if chunk is None:
                self.close()
                return
            left -= chunk.n_batches
            position = Position(*chunk.positions[-1].tolist())
            yield chunk
            del chunk

    def close(self, patience: float = PATIENCE) -> None:
        """Stop reading, and wait so many seconds for the thread to end."""
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.close(patience)

    def _reader_at(self, position: Position) -> _Reader:
        if self._reader is not None and not (self._reader.seek(position) or self._one_shot):
            self.close()
        if self._reader is None:
            demand = Demand()
            chunks = self._read(position, demand)
            self._reader = _Reader(
                chunks, demand, position, self._n_ahead, self._timeout, self._name
            )
        return self._reader


class _Reader:
    """Chunks that are being read, and how much of the last one was handed on."""

    def __init__(
        self,
        chunks: Iterator[Chunk],
        demand: Demand,
        position: Position,
        n_ahead: int,
        timeout: float | None,
        name: str,
    ) -> None:
        self._chunks, self._demand = chunks, demand
        self._n_ahead, self._timeout, self._name = n_ahead, timeout, name
        self._line: Line | None = None
        self._process = os.getpid()
        self._start = position  # of the chunk
        self._lent: _Lent | None = None
        self._at = 0  # batches of it that were handed on
        self._n_arrived = 0
        self.over = False

    def seek(self, position: Position) -> bool:
        """Go to a position between the batches at hand; return whether it is there."""
        places = [] if self._lent is None else self._lent.chunk.positions.tolist()
        try:
            at = [list(_pair(self._start)), *places].index(list(_pair(position)))
        except ValueError:
            return False
        self._at = at
        return True

    def take(self, most: float) -> Chunk | None:
        """Return the next batches, in one buffer; None at the end."""
        if os.getpid() != self._process and self._line is not None:
            raise ForkedError(f"{self._name} is read by a thread of another process")
        lent = self._lent
        here = 0 if lent is None else lent.chunk.n_batches - self._at
        self._demand.raise_to(self._n_arrived - here + most)
        if lent is None or here == 0:
            self._let_go()
            chunk = self._next()
            if chunk is None:
                return None
            lent = self._lent = _Lent(chunk)
            here = chunk.n_batches
            self._n_arrived += here
        start, self._at = self._at, self._at + int(min(here, most))
        return lent.part(start, self._at)

    def close(self, patience: float) -> None:
        """Stop reading."""
        self._demand.close()
        if os.getpid() != self._process:
            return  # locks may be held by a thread that is not there
        if self._line is not None:
            self._line.stop()
            self._line.join(patience)
        elif isinstance(self._chunks, Generator):
            self._chunks.close()

    def _let_go(self) -> None:
        if self._lent is not None:
            self._start = Position(*self._lent.chunk.positions[-1].tolist())
            lent, self._lent, self._at = self._lent, None, 0
            lent.finish()

    def _next(self) -> Chunk | None:
        if self._n_ahead == 0:
            self.over = True  # unless it gives a chunk
            chunk = next(self._chunks, None)
            self.over = chunk is None
            return chunk
        if self._line is None:
            self._line = start_line(self._chunks, self._n_ahead, self._demand.close)
            weakref.finalize(self, self._line.stop).atexit = False  # lines end by themselves
        item = next_item(self._line, self._timeout, self._name)
        if isinstance(item, Chunk):
            self._line.room.release()
            return item
        self.over = True
        if isinstance(item, Failure):
            raise item.error
        return None


class _Lent:
    """A chunk of which parts are handed on; its memory is free when nobody holds one."""

    def __init__(self, chunk: Chunk) -> None:
        self.chunk = chunk
        self._n_out, self._finished = 0, False

    def part(self, start: int, stop: int) -> Chunk:
        """Return the batches from `start` to `stop`."""
        chunk, end = self.chunk, self.chunk.pass_end
        if end is not None and not (start < end.n_batches <= stop or start == end.n_batches == 0):
            end = None
        self._n_out += 1
        return replace(
            chunk,
            values=tuple(values[start:stop] for values in chunk.values),
            rows=chunk.rows[start:stop],
            positions=chunk.positions[start:stop],
            pass_end=end and end._replace(n_batches=end.n_batches - start),
            release=self._release,
        )

    def finish(self) -> None:
        """Note that no more parts are asked for."""
        self._finished = True
        if self._n_out == 0:
            self.chunk.release()

    def _release(self) -> None:
        self._n_out -= 1
        if self._finished and self._n_out == 0:
            self.chunk.release()


def _pair(position: Position) -> tuple[int, int]:
    return position.epoch, position.row
