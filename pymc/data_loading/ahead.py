# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""A thread that reads ahead of whoever uses what was read."""

from __future__ import annotations

import atexit
import os
import queue
import threading
import weakref

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

__all__ = ["Failure", "ForkedError", "Line", "next_item", "read_ahead", "start_line"]

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
    >>> from pymc.data_loading.ahead import read_ahead
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
