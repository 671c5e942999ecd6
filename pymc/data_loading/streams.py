# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""A stream that stays open: what was read ahead of one fit is there for the next."""

from __future__ import annotations

import math
import os
import weakref

from collections.abc import Callable, Generator, Iterator
from dataclasses import replace

from pymc.data_loading.ahead import (
    PATIENCE,
    Failure,
    ForkedError,
    Line,
    next_item,
    start_line,
)
from pymc.data_loading.batch import Chunk
from pymc.data_loading.demand import Demand
from pymc.data_loading.order import Position

__all__ = ["Stream"]

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
        As of :func:`~pymc.data_loading.ahead.read_ahead`.
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
