# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""``method="auto"`` on workers: its passes are sums over shards of the rows, which are added in their order."""

from __future__ import annotations

import logging

from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from pymc.data_loading.data_loader import DataLoader, shard_bounds
from pymc.variational.auto.inference import AutoInference
from pymc.variational.auto.log_posterior import (
    LoadedRows,
    LogPosterior,
    RowData,
    Sums,
    Values,
)
from pymc.variational.cluster.pool import Pool, open_pool
from pymc.variational.cluster.workers import Workers
from pymc.variational.guides.initial_values import InitialValues
from pymc.variational.placeholders import make_feed

if TYPE_CHECKING:
    from pymc.model.core import Model

__all__ = ["passes_by"]

_log = logging.getLogger("pymc.variational.inference")

#: Shards of the rows, whatever the number of workers
N_SHARDS = 64


@dataclass(eq=False)
class ShardedPosterior:
    """The program of workers: the log-posterior, and the shards of the rows as they are needed."""

    model: Model
    starts: InitialValues
    seed: int
    loader: DataLoader
    data_name: str
    cores: int
    options: dict[str, Any]
    _rows: dict[int, LoadedRows] = field(default_factory=dict, repr=False)

    keeps_state = False

    @property
    def data(self) -> Mapping[str, Any]:
        return self.loader.source.identity

    @property
    def n_shards(self) -> int:
        return min(N_SHARDS, self.loader.source.n_rows or 1)

    def build(self) -> None:
        _ = self.logp

    @cached_property
    def logp(self) -> LogPosterior:
        feed = make_feed(self.model, self.loader, self.data_name)
        logp = LogPosterior.of(self.model, self.starts, self.seed, feed, **self.options)
        logp.budget.cores = self.cores
        return logp

    def rows(self, shard: int) -> LoadedRows:
        """Return the rows of a shard."""
        if shard not in self._rows:
            # A pass shuffles them itself
            part = self.loader.shard(shard, self.n_shards, shuffle=False)
            feed = make_feed(self.model, self.loader, self.data_name, part)
            self._rows[shard] = LoadedRows(feed, _seed(self.seed, shard))
        return self._rows[shard]


def _seed(seed: int, shard: int) -> int:
    return int(np.random.SeedSequence(seed, spawn_key=(shard,)).generate_state(1)[0])


@dataclass(frozen=True, eq=False)
class _Sums:
    """Task: the sums of a pass over a shard, and what they cost."""

    of_rows: Callable[[LogPosterior, RowData, int], Sums]
    seed: int
    n_passes: int

    def __call__(self, program: ShardedPosterior, shard: int) -> tuple[Sums, float, int]:
        rows, budget = program.rows(shard), program.logp.budget
        rows.seek(_seed(self.seed, shard), self.n_passes)
        budget.n_gradients, budget.n_rows = 0.0, 0
        sums = self.of_rows(program.logp, rows, shard)
        return sums, budget.n_gradients, budget.n_rows


@dataclass(frozen=True, eq=False)
class _RowsAt:
    """Task: the rows of a shard at some places of its first pass."""

    places: list[np.ndarray]

    def __call__(self, program: ShardedPosterior, shard: int) -> Values:
        return program.rows(shard).at(self.places[shard])


class RowsOfWorkers(LoadedRows):
    """Rows that workers read: passes are computed there, and a sample of the rows is sent here."""

    #: The workers while a fit runs, and the number of shards
    pool: Pool
    n_shards: int
    check: Callable[[], None]

    def at(self, places: np.ndarray) -> Values:
        firsts = [start for start, _ in shard_bounds(self.n_all, self.n_shards)]
        cuts = np.searchsorted(places, [*firsts, self.n_all])
        of_shards = [places[a:b] - first for a, b, first in zip(cuts, cuts[1:], firsts)]
        parts = self.pool.map(_RowsAt(of_shards), range(self.n_shards), self.check)
        return tuple(map(np.concatenate, zip(*parts)))

    def blocks(self, length: int, at_once: int) -> Generator[Values]:
        raise NotImplementedError("rows of workers are read by `sums`")

    def sums(
        self, logp: LogPosterior, of_rows: Callable[[LogPosterior, RowData, int], Sums]
    ) -> Sums:
        task = _Sums(of_rows, self.seed, self.n_passes)
        parts = self.pool.map(task, range(self.n_shards), logp.budget.check)
        self.pass_ended()
        self.feed.n_used += -(-self.n_all // self.feed.batch_size)
        logp.budget.n_gradients += sum(n_gradients for _, n_gradients, _ in parts)
        logp.budget.n_rows += sum(n_rows for *_, n_rows in parts)
        return tuple(sum(sums) for sums in zip(*(sums for sums, *_ in parts)))


@contextmanager
def passes_by(
    workers: Workers, inference: AutoInference, loader: DataLoader, data_name: str
) -> Iterator[Pool | None]:
    """Let workers compute the passes of a prepared fit, within the context. Without passes there are none."""
    rows = inference.rows
    if rows is None:
        _log.info(
            "The data are small enough to be fitted at once: workers=%d are not used", workers.n
        )
        yield None
        return
    if not isinstance(rows, RowsOfWorkers):
        before, rows = rows, RowsOfWorkers(rows.feed, rows.seed)
        rows.seek(before.seed, before.n_passes)
        inference.rows = rows
    program = ShardedPosterior(
        inference.fitted_model,
        inference.starts,
        rows.seed,
        loader,
        data_name,
        workers.cpus,
        dict(inference.compile_options),
    )
    rows.n_shards, rows.check = program.n_shards, inference.check
    with open_pool(workers, program) as rows.pool:
        pool = rows.pool
        inference.more_settings = lambda: pool.settings
        try:
            yield pool
        finally:
            inference.more_settings = dict
