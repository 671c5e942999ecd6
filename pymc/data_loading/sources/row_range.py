# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Consecutive rows of a source: the shards that the workers of a cluster read."""

from __future__ import annotations

import threading

from collections.abc import Mapping
from typing import Any

import numpy as np

from pymc.data_loading.sources.layout import Arrays, BadValue, Block, BlockSource, Layout

__all__ = ["KeptBlock", "RowRange"]


class RowRange(BlockSource):
    """Rows `start` to `stop` of a source with parts."""

    def __init__(self, kept: KeptBlock, start: int, stop: int) -> None:
        whole = kept.source
        assert whole.part_lengths is not None
        ends = np.cumsum(whole.part_lengths)
        first = ends - whole.part_lengths
        begin, end = np.maximum(first, start), np.minimum(ends, stop)
        #: The parts that have some of the rows, the first of them, and how many these are
        self._parts = [
            (part, int(begin[part] - first[part]), int(end[part] - begin[part]))
            for part in np.flatnonzero(end > begin).tolist()
        ]
        self._kept, self._start, self._stop = kept, start, stop

    def _repr_parts(self) -> list[str]:
        return [f"rows {self._start:,} to {self._stop:,} of {self._kept.source!r}"]

    @property
    def n_rows(self) -> int:
        return self._stop - self._start

    @property
    def layout(self) -> Layout:
        return self._kept.source.layout

    @property
    def identity(self) -> Mapping[str, Any]:
        return {**self._kept.source.identity, "rows": [self._start, self._stop]}

    @property
    def part_lengths(self) -> tuple[int, ...]:
        return tuple(n_rows for *_, n_rows in self._parts)

    def read(self, part: int) -> Block:
        number, start, n_rows = self._parts[part]
        return _PartOfBlock(self._kept.read(number), start, n_rows)


class _PartOfBlock(Block):
    """Some rows of a block."""

    def __init__(self, block: Block, start: int, n_rows: int) -> None:
        self._block, self._start, self.n_rows, self.where = block, start, n_rows, block.where

    def write(self, out: Arrays, places: np.ndarray | int, start: int, stop: int) -> bool:
        return self._block.write(out, places, self._start + start, self._start + stop)

    def bad_rows(self, start: int, stop: int) -> list[BadValue]:
        bad = self._block.bad_rows(self._start + start, self._start + stop)
        return [
            each._replace(row=each.row - self._start, first_row=each.first_row + self._start)
            for each in bad
        ]


class KeptBlock:
    """The block of a source that was read last: a row group has the rows of several shards."""

    def __init__(self, source: BlockSource) -> None:
        self.source, self._lock = source, threading.Lock()
        self._last: tuple[int, Block] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return KeptBlock, (self.source,)

    def read(self, part: int) -> Block:
        """Return the rows of a part, without reading the last one again."""
        with self._lock:
            if self._last is None or self._last[0] != part:
                self._last = None  # one block is held at a time
                self._last = part, self.source.read(part)
            return self._last[1]
