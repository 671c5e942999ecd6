# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Sources of rows for tests: blocks of any size, in order or as parts, that count what is read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from pymc.data_loading.sources.layout import (
    Arrays,
    BadValue,
    Block,
    BlockSource,
    ExhaustedSourceError,
    Field,
    Layout,
)


class Rows(Block):
    """Rows of an array of one or two axes."""

    def __init__(self, values: np.ndarray, where: str) -> None:
        self.values, self.n_rows, self.where = values, len(values), where

    def write(self, out: Arrays, places: np.ndarray | int, start: int, stop: int) -> bool:
        some = self.values[start:stop]
        out[0][slice(places, places + len(some)) if isinstance(places, int) else places] = some
        return bool(np.isfinite(some).all())

    def bad_rows(self, start: int, stop: int) -> list[BadValue]:
        some = self.values[start:stop].reshape(stop - start, -1)
        return [
            BadValue(start + i, "", str(j)) for i, j in np.argwhere(~np.isfinite(some)).tolist()
        ]


class Blocks(BlockSource):
    """Arrays, a block each.

    Parameters
    ----------
    arrays : sequence of ndarray
    as_parts : bool
        Whether blocks can be read in any order.
    n_rows : int, optional
        What the source says of itself.
    one_shot : bool
        Whether it can be read once only.
    """

    def __init__(
        self,
        arrays: Sequence[np.ndarray],
        *,
        as_parts: bool = False,
        n_rows: int | None = None,
        one_shot: bool = False,
    ) -> None:
        self.arrays = arrays
        self.as_parts = as_parts
        self.one_shot = one_shot
        self.reads: list[int] = []
        self.n_passes = 0
        self._n_rows = sum(map(len, arrays)) if as_parts else n_rows

    @property
    def n_rows(self) -> int | None:
        return self._n_rows

    @property
    def layout(self) -> Layout:
        return Layout((Field("", self.arrays[0].shape[1:], self.arrays[0].dtype),))

    @property
    def identity(self) -> dict[str, Any]:
        return {"kind": "blocks"}

    @property
    def part_lengths(self) -> tuple[int, ...] | None:
        return tuple(map(len, self.arrays)) if self.as_parts else None

    @property
    def rows_read(self) -> int:
        return sum(len(self.arrays[i]) for i in self.reads)

    def read(self, part: int) -> Block:
        self.reads.append(part)
        return Rows(self.arrays[part], f"block {part}")

    def blocks(self) -> Iterator[Block]:
        if self.one_shot and self.n_passes:
            raise ExhaustedSourceError("an iterator was read before")
        self.n_passes += 1
        return map(self.read, range(len(self.arrays)))


def numbers(*lengths: int, **kwargs: Any) -> Blocks:
    """Return a source of blocks of such lengths, in which each row is its own number."""
    ends = np.cumsum(lengths)
    return Blocks([np.arange(end - n, end) for n, end in zip(lengths, ends, strict=True)], **kwargs)
