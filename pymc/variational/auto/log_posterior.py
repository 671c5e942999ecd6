# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""The log-posterior on the unconstrained space and its gradient, at many points in one call, of all or some rows."""

from __future__ import annotations

import os

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import numpy as np
import pytensor
import pytensor.tensor as pt

from pytensor.gradient import grad
from pytensor.graph.basic import Variable

from pymc.minibatch.axis_tracking import Rows, index_variables
from pymc.minibatch.group_reads import Groups
from pymc.minibatch.plates import model_indexes
from pymc.minibatch.rebuild import rebuild
from pymc.variational.engine.batch_feed import BatchFeed, PreparedBatches
from pymc.variational.engine.step_cache import Step, make_step
from pymc.variational.guides.base import Layout, add_values, sites_of
from pymc.variational.guides.initial_values import InitialValues
from pymc.variational.local_params.table import rows_in_all
from pymc.variational.stable_logs import stabilised
from pymc.variational.vectorize import at_one_draw

if TYPE_CHECKING:
    from pymc.model.core import Model

T = TypeVar("T")

__all__ = [
    "Budget",
    "LoadedRows",
    "LogPosterior",
    "NumberedRows",
    "RowData",
    "Stopped",
    "Values",
    "n_cores",
]


#: Points, points times rows, and bytes of rows in one call of compiled code; a fit can stop between two calls.
POINTS_AT_ONCE, ROWS_AT_ONCE, BYTES_AT_ONCE = 256, 2**20, 2**25

#: Rows of a block, and numbers of the points of many blocks, in a pass over all rows.
BLOCK, NUMBERS_AT_ONCE = 4096, 2**22

#: Size of a point above which calls use threads; calls on rows always do.
LARGE = 1000


class Stopped(Exception):
    """Raised by a log-posterior when a fit is interrupted or its budget is spent; its text is the reason."""


def n_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2


@dataclass(eq=False)
class Budget:
    """Count of a fit's computations, and the check that stops it."""

    check: Callable[[], None] = lambda: None  # raises `Stopped` between two compiled calls
    n_gradients: float = 0.0  # evaluations; on a block of rows, the block's share of all rows
    n_rows: int = 0  # points times rows
    cores: int = field(default_factory=n_cores)  # threads of calls on rows


@dataclass(frozen=True, eq=False)
class LogPosterior:
    """The log-posterior of a model, up to a constant, as a compiled function of points."""

    model: Model  # a model of all rows, or of minibatches of one dim
    layout: Layout  # slices of the variables in a point
    start: np.ndarray  # (size,): the initial point
    step: Step  # compiled function of a point and rows: 0, the log-density and the gradient
    data: RowData | None = None  # all rows of a model of minibatches
    rows: Values | None = None  # values of the rows to use, scaled up to all rows
    budget: Budget = field(default_factory=Budget)

    @classmethod
    def of(
        cls,
        model: Model,
        starts: InitialValues,
        seed: int = 0,
        feed: BatchFeed | None = None,
        groups: Mapping[str, Groups] = {},
        **compile_kwargs: Any,
    ) -> LogPosterior:
        """Compile the log-posterior of a model, or reuse its compiled function.

        `seed` is that of the order of rows, and `feed` has those of a loader. Of some variables, by name, it is that
        of the `groups` of them.
        """
        sites = [replace(site, groups=groups.get(site.name)) for site in sites_of(model)]
        layout = Layout.of(sites, starts.point)
        start = layout.flatten(starts.point).astype("float64")
        dtype = pytensor.config.floatX
        point = pytensor.shared(start.astype(dtype), "point", shape=(layout.size,))
        batch_dtypes, graphs = {point: np.dtype(dtype)}, [_logp(model, groups)]
        data: RowData | None = None
        if feed is not None:
            batch_dtypes, data = batch_dtypes | feed.batch_dtypes, LoadedRows(feed, seed)
        elif model_indexes(model):
            rows = pytensor.shared(np.zeros(1, "int64"), "rows", shape=(None,))
            batch_dtypes[rows] = np.dtype("int64")
            found = index_variables(graphs)
            data = NumberedRows(rows_in_all([Rows(found[0])]), seed)
            graphs = rebuild(graphs, dict.fromkeys(found, rows))
        values: dict[Variable, Variable] = {}
        add_values(values, layout.split(point, 0), 0)
        [logp] = stabilised(at_one_draw(graphs, values))
        # Drivers take the first entry for the loss: a constant, so that they continue where the others are not finite
        outputs = pt.concatenate(
            [pt.zeros(1), pt.atleast_1d(logp), grad(logp, point, disconnected_inputs="ignore")]
        )
        outputs = pt.specify_shape(outputs.astype(dtype), (layout.size + 2,))
        step = make_step(
            {}, outputs, model=model, random_seed=0, batch_dtypes=batch_dtypes, **compile_kwargs
        )
        return cls(model, layout, start, step, data)

    @property
    def size(self) -> int:
        """Numbers of a point."""
        return self.layout.size

    @property
    def n_all(self) -> int:
        """Number of rows; 0 for a model without minibatches."""
        return 0 if self.data is None else self.data.n_all

    def of_rows(self, rows: Values) -> LogPosterior:
        """Return the log-posterior of some rows, scaled up to all."""
        return replace(self, rows=tuple(map(np.ascontiguousarray, rows)))

    def of_part(self, n: int, rng: np.random.Generator) -> LogPosterior:
        """Return the log-posterior of a subsample of `n` rows, scaled up to all."""
        assert self.data is not None
        return self.of_rows(self.data.part(min(n, self.data.most), rng))

    def __call__(
        self, points: np.ndarray, blocks: Values | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Compute log-densities and gradients: of `blocks`, :attr:`rows`, or all rows.

        Parameters
        ----------
        points : array of floats, shape (n_points, size)
        blocks : tuple of array, shape (n_blocks, n_rows, ...), optional
            Rows for the points, n_points / n_blocks consecutive ones for each block.

        Returns
        -------
        values : array of float64, shape (n_points,)
            -inf in place of nan and inf, as from terms that overflow.
        gradients : array of float64, shape (n_points, size)
        """
        if blocks is not None:
            return self._of_blocks(points, blocks, blocks[0].shape[1] / self.n_all)
        if self.rows is not None:
            return self._of_blocks(points, tuple(array[None] for array in self.rows))
        if self.data is None:
            return self._of_blocks(points, ())
        n_rows, values, gradients = self.data.sums(self, AtPoints(points))
        return values / n_rows, gradients / n_rows

    def _of_blocks(
        self, points: np.ndarray, blocks: Values, share: float = 1.0
    ) -> tuple[np.ndarray, np.ndarray]:
        n_points, points = len(points), np.ascontiguousarray(points, pytensor.config.floatX)
        n_blocks, n_rows = blocks[0].shape[:2] if blocks else (1, 1)
        of_block = sum(array[0].nbytes for array in blocks)
        at_once = ROWS_AT_ONCE // max(n_rows, self.size)
        at_once = max(1, min(POINTS_AT_ONCE, at_once, BYTES_AT_ONCE // max(1, of_block)))
        starts = range(0, n_points, at_once)
        found = np.empty((n_points, self.size + 2))

        def compute(k: int) -> None:
            some = np.arange(k, min(n_points, k + at_once))
            inputs = [points[some], *(array[some * n_blocks // n_points] for array in blocks)]
            values = tuple(np.ascontiguousarray(inputs[i]) for i in self.step.batch_variables)
            batches = PreparedBatches(self.step.driver.prepare_batches(values), 0)
            found[some] = self.step.driver.run(self.step.load(), len(some), batches).losses

        # Numba's compiled loops release the GIL
        threaded = (bool(blocks) or self.size > LARGE) and self.step.driver.name == "numba"
        n_threads = min(self.budget.cores, len(starts)) if threaded else 1
        with np.errstate(all="ignore"), closing(map_in_order(compute, starts, n_threads)) as calls:
            for k in starts:
                self.budget.check()
                next(calls)
                n_done = min(n_points, k + at_once) - k
                self.budget.n_gradients += n_done * share
                self.budget.n_rows += n_done * n_rows
        values = np.where(found[:, 1] < np.inf, found[:, 1], -np.inf)
        return values, found[:, 2:]


def _logp(model: Model, groups: Mapping[str, Groups]) -> Variable:
    """Return the log-probability of a model without the terms of other groups of some variables."""
    if not groups:
        return model.logp()
    variables = [*model.basic_RVs, *model.potentials]
    logps = dict(zip(variables, model.logp(vars=variables, sum=False)))
    of_groups = (
        logp[groups[var.name].index()] if var.name in groups else logp
        for var, logp in logps.items()
    )
    return pt.add(*(logp.sum() for logp in of_groups))


@dataclass(frozen=True, eq=False)
class AtPoints:
    """Sums of a pass: the number of rows, and log-densities and gradients times the rows of their blocks."""

    points: np.ndarray  # (n_points, size)

    def __call__(self, logp: LogPosterior, rows: RowData, shard: int) -> Sums:
        n_points, n_done = len(self.points), 0
        values, gradients = np.zeros(n_points), np.zeros(self.points.shape)
        at_once = max(1, NUMBERS_AT_ONCE // self.points.size)
        with closing(rows.blocks(BLOCK, at_once)) as parts:
            for blocks in parts:
                n_blocks, n_rows = blocks[0].shape[:2]
                found, slopes = logp(np.tile(self.points, (n_blocks, 1)), blocks)
                values += n_rows * found.reshape(n_blocks, n_points).sum(axis=0)
                gradients += n_rows * slopes.reshape(n_blocks, n_points, -1).sum(axis=0)
                n_done += n_blocks * n_rows
        return np.array(n_done), values, gradients


def map_in_order(
    function: Callable[[T], None], values: Sequence[T], n_threads: int
) -> Generator[None]:
    """Call a function for each value, and yield after each of the calls, in the order of the values.

    With threads other calls run ahead; closing the generator drops those that have not begun.
    """
    if n_threads == 1:
        yield from map(function, values)
        return
    pool = ThreadPoolExecutor(n_threads)
    try:
        yield from pool.map(function, values)
    finally:
        pool.shutdown(cancel_futures=True)


#: Values of rows, an array for each input: shape (n_rows, ...), or (n_blocks, n_rows, ...) in blocks.
Values: TypeAlias = tuple[np.ndarray, ...]

#: Sums over rows, which add up over parts of the rows.
Sums: TypeAlias = tuple[np.ndarray, ...]

#: Bytes of a loader's rows that become blocks at once, and the most bytes of a subsample.
BYTES_OF_BLOCKS, LARGEST_PART = 2**24, 2**28

#: The fewest rows of a subsample that is read from a loader, to save further passes.
FEWEST_READ = 20_000


class RowData(ABC):
    """All rows of a model: read in blocks, and in random subsamples."""

    n_all: int

    @property
    def most(self) -> int:
        """The most rows of a subsample."""
        return self.n_all

    @abstractmethod
    def part(self, n: int, rng: np.random.Generator) -> Values:
        """Draw a subsample of `n` rows without replacement."""

    @abstractmethod
    def blocks(self, length: int, at_once: int) -> Generator[Values]:
        """Yield all rows once, up to `at_once` blocks of `length` rows at a time, and the rest as a shorter block."""

    def sums(
        self, logp: LogPosterior, of_rows: Callable[[LogPosterior, RowData, int], Sums]
    ) -> Sums:
        """Take a pass over all rows: call `of_rows` with the log-posterior, rows, and the number of their shard."""
        return of_rows(logp, self, 0)


class NumberedRows(RowData):
    """Rows in memory, by their numbers."""

    def __init__(self, n_all: int, seed: int) -> None:
        self.n_all, self._seed = n_all, seed

    @cached_property
    def _order(self) -> np.ndarray:
        # Each block is a random subsample, whatever the order of the data
        return np.random.default_rng(self._seed).permutation(self.n_all)

    def part(self, n: int, rng: np.random.Generator) -> Values:
        return (rng.choice(self.n_all, n, replace=False),)

    def blocks(self, length: int, at_once: int) -> Generator[Values]:
        yield from _cut((self._order,), length, at_once)


class LoadedRows(RowData):
    """Rows of a loader: one random sample stays in memory, and each pass reads all rows anew.

    `seed` is that of the sample, and of the order of rows that are read together. The next pass reads the loader's
    epoch `n_passes`, the number of complete ones.
    """

    def __init__(self, feed: BatchFeed, seed: int) -> None:
        self.n_all, self.seed, self.n_passes = feed.n_rows, seed, 0
        self.feed = feed
        self._sample: Values = ()

    def seek(self, seed: int, n_passes: int) -> None:
        """Continue with a seed after a number of passes; the sample is drawn anew by the seed."""
        self.seed, self.n_passes, self._sample = seed, n_passes, ()

    @property
    def most(self) -> int:
        of_row = sum(array[:1].nbytes for array in self._sample_of(1))
        return min(self.n_all, LARGEST_PART // max(1, of_row))

    @property
    def fit(self) -> bool:
        """True if all rows can be held in memory."""
        return self.most == self.n_all

    def part(self, n: int, rng: np.random.Generator) -> Values:
        sample = self._sample_of(n)
        some = rng.choice(len(sample[0]), n, replace=False)
        return tuple(array[some] for array in sample)

    def _sample_of(self, n: int) -> Values:
        """Return at least `n` random rows, read in one pass over the loader's data."""
        if not self._sample or len(self._sample[0]) < n:
            n = min(self.n_all, max(n, FEWEST_READ))
            rng = np.random.default_rng((self.seed, n))
            self._sample = self.at(np.sort(rng.choice(self.n_all, n, replace=False)))
        return self._sample

    def at(self, places: np.ndarray) -> Values:
        """Read the rows at sorted places of the first pass."""
        position, n_used = self.feed.position, self.feed.n_used
        some = _joined([_rows_at(places, *part) for part in self._read(0)])
        self.feed.position, self.feed.n_used = position, n_used
        return some

    def blocks(self, length: int, at_once: int) -> Generator[Values]:
        rng = np.random.default_rng((self.seed, self.n_all, self.n_passes))
        pending: list[Values] = []
        with closing(self._read(self.n_passes)) as parts:
            for _, some in parts:
                order = rng.permutation(len(some[0]))  # neighbours in the data may be correlated
                pending.append(tuple(array[order] for array in some))
                n_rows = sum(len(values[0]) for values in pending)
                n_bytes = sum(array.nbytes for values in pending for array in values)
                if n_rows < at_once * length and n_bytes < BYTES_OF_BLOCKS:
                    continue
                rows, end = _joined(pending), n_rows - n_rows % length
                yield from _cut(tuple(array[:end] for array in rows), length, at_once)
                pending = [tuple(array[end:] for array in rows)]
        yield from _cut(_joined(pending), length, at_once)
        self.pass_ended()

    def pass_ended(self) -> None:
        """Count a pass, and move the loader to the next."""
        self.n_passes += 1
        self.feed.position = self._start(self.n_passes)

    def _start(self, epoch: int) -> Any:
        return replace(self.feed.position, epoch=epoch, row=0)

    def _read(self, epoch: int) -> Generator[tuple[int, Values]]:
        """Read a pass: yield the number of rows before, and rows in the loader's order."""
        feed, n_before = self.feed, 0
        feed.position = self._start(epoch)
        with closing(feed.values(-(-self.n_all // feed.batch_size))) as parts:
            for batches in parts:
                some = tuple(array.reshape(-1, *array.shape[2:]) for array in batches)
                some = tuple(array[: self.n_all - n_before] for array in some)
                yield n_before, some
                n_before += len(some[0])


def _rows_at(places: np.ndarray, n_before: int, some: Values) -> Values:
    """Copy the rows at sorted places of a pass from a part of it that follows `n_before` rows."""
    first, last = np.searchsorted(places, [n_before, n_before + len(some[0])])
    return tuple(array[places[first:last] - n_before] for array in some)


def _joined(parts: list[Values]) -> Values:
    return tuple(map(np.concatenate, zip(*parts)))


def _cut(rows: Values, length: int, at_once: int) -> Iterator[Values]:
    """Cut rows into blocks."""
    n_blocks = len(rows[0]) // length
    end = n_blocks * length
    blocks = [array[:end].reshape(n_blocks, length, *array.shape[1:]) for array in rows]
    for k in range(0, n_blocks, at_once):
        yield tuple(array[k : k + at_once] for array in blocks)
    if end < len(rows[0]):
        yield tuple(array[None, end:] for array in rows)
