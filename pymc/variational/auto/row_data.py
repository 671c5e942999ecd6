# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""All rows of a model, in blocks and in random parts: by their numbers, or as a loader reads them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from pymc.variational.engine.feeds import Feed

__all__ = ["LoadedRows", "NumberedRows", "RowData", "Values"]

#: The values of rows, an array for each fed input: shape (n_rows, ...), and in blocks (n_blocks, n_rows, ...).
type Values = tuple[np.ndarray, ...]

#: Bytes of rows of a loader that become blocks at once, and of a random part at most.
BYTES_AT_ONCE, LARGEST_PART = 2**24, 2**28

#: The fewest rows of a random part that are read from a loader, so that no other pass is needed soon.
FEWEST_READ = 20_000


class RowData(ABC):
    """All rows of a model.

    Parameters
    ----------
    n_all : int
        How many there are.
    """

    n_all: int

    @property
    def most(self) -> int:
        """How many rows a random part has at most."""
        return self.n_all

    @abstractmethod
    def part(self, n: int, rng: np.random.Generator) -> Values:
        """Draw `n` of all rows at random, without replacement."""

    @abstractmethod
    def blocks(self, length: int, at_once: int) -> Generator[Values]:
        """Yield all rows once: up to `at_once` blocks of `length` rows at a time, and one of the rest at the end."""


class NumberedRows(RowData):
    """Rows in memory: their values are their numbers.

    Parameters
    ----------
    n_all : int
    seed : int
        For the order in blocks, so that each is a random part.
    """

    def __init__(self, n_all: int, seed: int) -> None:
        self.n_all, self._seed = n_all, seed

    @cached_property
    def _order(self) -> np.ndarray:
        return np.random.default_rng(self._seed).permutation(self.n_all)

    def part(self, n: int, rng: np.random.Generator) -> Values:
        return (rng.choice(self.n_all, n, replace=False),)

    def blocks(self, length: int, at_once: int) -> Generator[Values]:
        yield from _cut((self._order,), length, at_once)


class LoadedRows(RowData):
    """Rows of a loader: a random part is held in memory, and all are read anew in each pass.

    Parameters
    ----------
    feed : Feed
        Of the loader.
    seed : int
        For the random part, and the order of the rows that are read at once.

    Attributes
    ----------
    seed : int
    n_passes : int
        Complete passes in blocks; the next begins where the loader's pass of this number does.
    """

    def __init__(self, feed: Feed, seed: int) -> None:
        self.n_all, self.seed, self.n_passes = feed.n_rows, seed, 0
        self._feed = feed
        self._held: Values = ()

    def go_on(self, seed: int, n_passes: int) -> None:
        """Go on as another that had this seed and so many passes; the random part is that of the seed."""
        self.seed, self.n_passes, self._held = seed, n_passes, ()

    @property
    def most(self) -> int:
        of_row = sum(array[:1].nbytes for array in self._some(1))
        return min(self.n_all, LARGEST_PART // max(1, of_row))

    @property
    def fit(self) -> bool:
        """Whether all rows can be held in memory."""
        return self.most == self.n_all

    def part(self, n: int, rng: np.random.Generator) -> Values:
        held = self._some(n)
        some = rng.choice(len(held[0]), n, replace=False)
        return tuple(array[some] for array in held)

    def _some(self, n: int) -> Values:
        """Return `n` random rows or more, read in one pass from all parts of the loader's data."""
        if not self._held or len(self._held[0]) < n:
            n = min(self.n_all, max(n, FEWEST_READ))
            rng = np.random.default_rng((self.seed, n))
            places = np.sort(rng.choice(self.n_all, n, replace=False))
            position, n_used = self._feed.position, self._feed.n_used
            self._held = _joined([_taken(*found, places) for found in self._read(0)])
            self._feed.position, self._feed.n_used = position, n_used
        return self._held

    def blocks(self, length: int, at_once: int) -> Generator[Values]:
        rng = np.random.default_rng((self.seed, self.n_all, self.n_passes))
        waiting: list[Values] = []
        with closing(self._read(self.n_passes)) as parts:
            for _, some in parts:
                order = rng.permutation(len(some[0]))  # neighbours in the data may be alike
                waiting.append(tuple(array[order] for array in some))
                n_rows = sum(len(values[0]) for values in waiting)
                if n_rows < at_once * length and _n_bytes(waiting) < BYTES_AT_ONCE:
                    continue
                rows, end = _joined(waiting), n_rows - n_rows % length
                yield from _cut(tuple(array[:end] for array in rows), length, at_once)
                waiting = [tuple(array[end:] for array in rows)]
        yield from _cut(_joined(waiting), length, at_once)
        self.n_passes += 1
        self._feed.position = self._start(self.n_passes)

    def _start(self, epoch: int) -> Any:
        return replace(self._feed.position, epoch=epoch, row=0)

    def _read(self, epoch: int) -> Generator[tuple[int, Values]]:
        """Read a pass: yield how many rows came before, and rows in the loader's order."""
        feed, n_before = self._feed, 0
        feed.position = self._start(epoch)
        with closing(feed.read(-(-self.n_all // feed.batch_size))) as parts:
            for batches in parts:
                some = tuple(array.reshape(-1, *array.shape[2:]) for array in batches)
                some = tuple(array[: self.n_all - n_before] for array in some)
                yield n_before, some
                n_before += len(some[0])


def _taken(n_before: int, some: Values, places: np.ndarray) -> Values:
    """Copy those of some rows whose places in a pass are asked for."""
    first, last = np.searchsorted(places, [n_before, n_before + len(some[0])])
    return tuple(array[places[first:last] - n_before] for array in some)


def _joined(parts: list[Values]) -> Values:
    return tuple(map(np.concatenate, zip(*parts)))


def _n_bytes(parts: list[Values]) -> int:
    return sum(array.nbytes for values in parts for array in values)


def _cut(rows: Values, length: int, at_once: int) -> Iterator[Values]:
    """Cut rows into blocks."""
    n_blocks = len(rows[0]) // length
    end = n_blocks * length
    blocks = [array[:end].reshape(n_blocks, length, *array.shape[1:]) for array in rows]
    for k in range(0, n_blocks, at_once):
        yield tuple(array[k : k + at_once] for array in blocks)
    if end < len(rows[0]):
        yield tuple(array[None, end:] for array in rows)
