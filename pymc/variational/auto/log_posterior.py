# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""The log-posterior of a model on the unconstrained space, with its gradient, at many points in one call."""

from __future__ import annotations

import os

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pytensor
import pytensor.tensor as pt

from pytensor.gradient import grad

from pymc.minibatch.axis_tracking import Rows
from pymc.minibatch.plates import model_indexes
from pymc.minibatch.rebuild import rebuild
from pymc.variational.engine.batch_feed import BatchFeed, PreparedBatches
from pymc.variational.engine.step_cache import Step, make_step
from pymc.variational.guides.base import Layout, sites_of
from pymc.variational.guides.initial_values import InitialValues
from pymc.variational.posterior.draw import index_variables
from pymc.variational.rows.table import rows_in_all
from pymc.variational.stable_logs import stabilised
from pymc.variational.vectorize import at_one_draw

if TYPE_CHECKING:
    from pymc.model.core import Model

__all__ = ["Budget", "LoadedRows", "LogPosterior", "NumberedRows", "RowData", "Stopped", "Values"]


#: Points, points times rows, and bytes of rows of one call of compiled code, between which a fit may be stopped.
POINTS_AT_ONCE, ROWS_AT_ONCE, BYTES_AT_ONCE = 256, 2**20, 2**25

#: Rows of a block, and numbers of points for many blocks, in a pass over all rows.
BLOCK, NUMBERS_AT_ONCE = 4096, 2**22

#: Numbers of a point from which calls are by threads; those of rows always are.
LARGE = 1000


class Stopped(Exception):
    """A fit was interrupted, or its budget is spent; `str` says which."""


@dataclass(eq=False)
class Budget:
    """What a fit has computed, and whether it may go on.

    Parameters
    ----------
    check : callable () -> None
        Called between two calls of compiled code; it raises :class:`Stopped` to end the fit.
    n_gradients : float
        Points at which the log-posterior was computed; a block of rows counts as its part of all rows.
    n_rows : int
        Points times rows.
    """

    check: Callable[[], None] = lambda: None
    n_gradients: float = 0.0
    n_rows: int = 0


@dataclass(frozen=True, eq=False)
class LogPosterior:
    """The log-posterior of a model, up to a constant, as a compiled function of points.

    Parameters
    ----------
    model : Model
        Of all rows, or of minibatches of one dim.
    layout : Layout
        Where each variable is in a point.
    start : array of float64, shape (size,)
        The initial point.
    step : Step
        Its fed inputs are a point, and rows; it computes 0, the log-density and the gradient.
    data : RowData, optional
        All rows, of a model of minibatches.
    rows : tuple of array, optional
        The values of the rows that it is of, scaled up to all.
    budget : Budget
    """

    model: Model
    layout: Layout
    start: np.ndarray
    step: Step
    data: RowData | None = None
    rows: Values | None = None
    budget: Budget = field(default_factory=Budget)

    @classmethod
    def of(
        cls,
        model: Model,
        starts: InitialValues,
        seed: int = 0,
        feed: BatchFeed | None = None,
        **compile_kwargs: Any,
    ) -> LogPosterior:
        """Compile it, unless that was done before for this model.

        Parameters
        ----------
        model : Model
            Of all rows, or of minibatches of one dim: of these it is a function of the rows, too.
        starts : Starts
        seed : int
            For random parts and the order of the rows.
        feed : BatchFeed, optional
            Of a loader, which has the rows.
        **compile_kwargs
            Of :func:`pytensor.function`.
        """
        layout = Layout.of(sites_of(model), starts.point)
        start = layout.flatten(starts.point).astype("float64")
        dtype = pytensor.config.floatX
        point = pytensor.shared(start.astype(dtype), "point", shape=(layout.size,))
        fed, graphs = {point: np.dtype(dtype)}, [model.logp()]
        data: RowData | None = None
        if feed is not None:
            fed, data = fed | feed.inputs, LoadedRows(feed, seed)
        elif model_indexes(model):
            rows = pytensor.shared(np.zeros(1, "int64"), "rows", shape=(None,))
            fed[rows] = np.dtype("int64")
            found = index_variables(graphs)
            data = NumberedRows(rows_in_all([Rows(found[0])]), seed)
            graphs = rebuild(graphs, dict.fromkeys(found, rows))
        values = {site.value: value for site, value in layout.split(point, 0).items()}
        [logp] = stabilised(at_one_draw(graphs, values))
        # The entry in front is what a driver takes for the loss: it goes on where the others are not finite
        outputs = pt.concatenate(
            [pt.zeros(1), pt.atleast_1d(logp), grad(logp, point, disconnected_inputs="ignore")]
        )
        outputs = pt.specify_shape(outputs.astype(dtype), (layout.size + 2,))
        step = make_step({}, outputs, model=model, random_seed=0, fed=fed, **compile_kwargs)
        return cls(model, layout, start, step, data)

    @property
    def size(self) -> int:
        """How many numbers a point has."""
        return self.layout.size

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(pytensor.config.floatX)

    @property
    def n_all(self) -> int:
        """How many rows there are; 0 for a model without minibatches."""
        return 0 if self.data is None else self.data.n_all

    def of_rows(self, rows: Values) -> LogPosterior:
        """Return that of some rows, scaled up to all."""
        return replace(self, rows=tuple(map(np.ascontiguousarray, rows)))

    def of_part(self, n: int, rng: np.random.Generator) -> LogPosterior:
        """Return that of `n` rows at random, scaled up to all."""
        assert self.data is not None
        return self.of_rows(self.data.part(min(n, self.data.most), rng))

    def __call__(
        self, points: np.ndarray, blocks: Values | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Compute log-densities and gradients.

        Parameters
        ----------
        points : array of floats, shape (n_points, size)
        blocks : tuple of array, shape (n_blocks, n_rows, ...), optional
            The rows of the points, as many of which follow each other for each block. Default: the rows that it is
            of.

        Returns
        -------
        values : array of float64, shape (n_points,)
            -inf where it is nan or inf, as where terms overflow.
        gradients : array of float64, shape (n_points, size)

        Raises
        ------
        Stopped
        """
        n_points, share = len(points), 1.0
        points = np.ascontiguousarray(points, pytensor.config.floatX)
        if blocks is None:
            blocks = () if self.rows is None else tuple(array[None] for array in self.rows)
        else:
            share = blocks[0].shape[1] / self.n_all
        n_blocks, n_rows = blocks[0].shape[:2] if blocks else (1, 1)
        of_block = sum(array[0].nbytes for array in blocks)
        at_once = ROWS_AT_ONCE // max(n_rows, self.size)
        at_once = max(1, min(POINTS_AT_ONCE, at_once, BYTES_AT_ONCE // max(1, of_block)))
        starts = range(0, n_points, at_once)
        found = np.empty((n_points, self.size + 2))

        def compute(k: int) -> None:
            some = np.arange(k, min(n_points, k + at_once))
            given = [points[some], *(array[some * n_blocks // n_points] for array in blocks)]
            values = tuple(np.ascontiguousarray(given[i]) for i in self.step.fed)
            driver = self.step.driver
            run = driver.run(
                self.step.load(), len(some), PreparedBatches(driver.prepare_batches(values), 0)
            )
            found[some] = run.losses

        # Threads: the compiled loops of Numba let others run
        threaded = (bool(blocks) or self.size > LARGE) and self.step.driver.name == "numba"
        n_threads = _n_cores() if threaded and len(starts) > 1 else 1
        with np.errstate(all="ignore"), ThreadPoolExecutor(n_threads) as pool:
            for k in range(0, len(starts), n_threads):
                self.budget.check()
                some = starts[k : k + n_threads]
                for _ in pool.map(compute, some) if n_threads > 1 else map(compute, some):
                    pass
                n_done = min(n_points, some[-1] + at_once) - some[0]
                self.budget.n_gradients += n_done * share
                self.budget.n_rows += n_done * n_rows
        values = np.where(found[:, 1] < np.inf, found[:, 1], -np.inf)
        return values, found[:, 2:]

    def of_all(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Compute log-densities and gradients of all rows, in one pass over them.

        Parameters
        ----------
        points : array of floats, shape (n_points, size)

        Returns
        -------
        values : array of float64, shape (n_points,)
        gradients : array of float64, shape (n_points, size)

        Raises
        ------
        Stopped
        """
        assert self.data is not None
        n_points, n_done = len(points), 0
        values, gradients = np.zeros(n_points), np.zeros((n_points, self.size))
        at_once = max(1, NUMBERS_AT_ONCE // points.size)
        with closing(self.data.blocks(BLOCK, at_once)) as parts:
            for blocks in parts:
                n_blocks, n_rows = blocks[0].shape[:2]
                found, slopes = self(np.tile(points, (n_blocks, 1)), blocks)
                values += n_rows * found.reshape(n_blocks, n_points).sum(axis=0)
                gradients += n_rows * slopes.reshape(n_blocks, n_points, -1).sum(axis=0)
                n_done += n_blocks * n_rows
        return values / n_done, gradients / n_done


def _n_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2


# MERGED: """All rows of a model, in blocks and in random parts: by their numbers, or as a loader reads them."""


#: The values of rows, an array for each fed input: shape (n_rows, ...), and in blocks (n_blocks, n_rows, ...).
type Values = tuple[np.ndarray, ...]

#: Bytes of rows of a loader that become blocks at once, and of a random part at most.
BYTES_OF_BLOCKS, LARGEST_PART = 2**24, 2**28

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
    feed : BatchFeed
        Of the loader.
    seed : int
        For the random part, and the order of the rows that are read at once.

    Attributes
    ----------
    seed : int
    n_passes : int
        Complete passes in blocks; the next begins where the loader's pass of this number does.
    """

    def __init__(self, feed: BatchFeed, seed: int) -> None:
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
                if n_rows < at_once * length and _n_bytes(waiting) < BYTES_OF_BLOCKS:
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
