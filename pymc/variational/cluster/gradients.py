# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
r"""Gradients on workers: each computes the gradient of its shards of a batch, and this process takes the step.

The rows are cut into K shards, and a batch of B rows has B/K of each. With :math:`n_k` rows of N in shard k, the
gradient is :math:`\sum_k (n_k / N) g_k`, where :math:`g_k` is that of the shard's rows scaled to all: the
rows of each count N/B times on average, and the prior and the entropy once. Each shard has draws of its own, which
follow from the seed, the step and the shard. So a gradient depends on none but these and the parameters, and not on the
worker that computes it; and the average over draws of K shards has less noise than one draw.

Latent variables of rows have their parameters with the worker of their shard. It keeps the gradient of a batch's rows
until the next message says how the step ended, and writes their new lines then.
"""

from __future__ import annotations

import time

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import takewhile
from math import gcd
from typing import Any, NamedTuple

import numpy as np
import pytensor
import pytensor.tensor as pt

from pytensor.compile.sharedvalue import SharedVariable
from pytensor.graph.basic import Variable
from pytensor.graph.replace import graph_replace
from pytensor.graph.traversal import graph_inputs
from pytensor.tensor.random.type import RandomGeneratorType
from pytensor.tensor.type import TensorType

from pymc.data_loading.batch import Position
from pymc.data_loading.data_loader import DataLoader
from pymc.minibatch.plates import model_indexes
from pymc.minibatch.stream_index import is_stream, loader_placeholders
from pymc.variational.averaging import TailAverage
from pymc.variational.cluster.tables import NewLines, Owners, TableOfWorkers
from pymc.variational.cluster.workers import Workers
from pymc.variational.engine.batch_feed import BatchFeed, FeedChunk, PreparedBatches
from pymc.variational.engine.step_cache import make_step
from pymc.variational.fit_objective import FitObjective, Gradients
from pymc.variational.fit_options import take_compile_kwargs
from pymc.variational.guides.base import NormalGuide
from pymc.variational.local_params.row_optimizer import (
    RowGradient,
    RowUpdate,
    all_updates,
    squared_norm,
)
from pymc.variational.objectives.elbo import ELBO
from pymc.variational.optimizer_base import step_counter, with_step
from pymc.variational.optimizers import ClipByGlobalNorm, Optimizer, chain
from pymc.variational.placeholders import make_feed

__all__ = [
    "Gradient",
    "GradientProgram",
    "GradientsOfWorkers",
    "check_shards",
    "number_of_shards",
    "positions_feed",
    "why_no_rounds",
]

#: The most shards of a batch, whatever the number of workers. More cost more, and messages to more workers take longer than
#: the work that they save
N_SHARDS = 16

#: Positions that a chunk of a feed has
POSITIONS = 1024


def number_of_shards(batch_size: int) -> int:
    """Return the number of equal shards of a batch."""
    return gcd(batch_size, N_SHARDS)


def check_shards(workers: Workers, loader: DataLoader) -> None:
    """Raise if a batch cannot be cut into a shard for each worker."""
    if workers.n > N_SHARDS:
        raise ValueError(
            f"workers={workers.n} of pm.Trainer are more than the {N_SHARDS} that a step can use: method='auto' uses "
            "any number, whose messages are few"
        )
    n_shards = number_of_shards(loader.batch_size)
    if workers.n > n_shards:
        raise ValueError(
            f"batch_size={loader.batch_size} of the loader is cut into {n_shards} equal shards at most, which are "
            f"too few for workers={workers.n} of pm.Trainer: write a multiple of {N_SHARDS}, such as "
            f"batch_size={-(-loader.batch_size // N_SHARDS) * N_SHARDS}"
        )


def positions_feed(loader: DataLoader, n_parts: int = 1, at_once: int = 1) -> BatchFeed:
    """Return a feed that knows the position after each step, and reads nothing: workers do.

    Each step takes a batch of `n_parts` parts of the rows. Steps are ready in multiples of `at_once`.
    """
    n_rows, batch_size = loader.total_size, n_parts * loader.batch_size
    length = -(-POSITIONS // at_once) * at_once

    def read(start: Position, n_batches: int | None) -> Iterator[FeedChunk]:
        row = start.epoch * n_rows + start.row
        left = n_batches
        while left is None or left > 0:
            n = length if left is None else min(left, length)
            ends = row + batch_size * np.arange(1, n + 1)
            yield FeedChunk((), [Position(*divmod(end, n_rows)) for end in ends.tolist()])
            row, left = row + n * batch_size, None if left is None else left - n

    return BatchFeed([], read, Position(), n_rows=n_rows, batch_size=batch_size)


def why_no_rounds(objective: FitObjective) -> str:
    """Return why a fit cannot be one of `pm.Rounds`, for a message; empty if it can."""
    approx, kind = objective.approx, objective.objective
    for guide in approx.guides:
        if not isinstance(guide, NormalGuide) or guide.plate or guide.group_batches:
            names = ", ".join(repr(site.name) for site in guide.sites)
            return (
                f"and the guide {guide.name!r} of {names} is none of global variables: averages of its parameters "
                "would be wrong where the parts of the rows differ. Take guide='mean_field' or 'full_rank'"
            )
    if not isinstance(kind, ELBO) or isinstance(kind.beta, Variable) or kind.beta != 1:
        return (
            f"whose sum is the optimum of the ELBO, and the objective is {kind.name!r}"
            f"{' with another beta than 1' if isinstance(kind, ELBO) else ''}. Take objective='elbo'"
        )
    if approx.model_parameters:
        names = ", ".join(repr(var.name) for var in approx.model_parameters)
        return (
            f"and params={names} of the model have none: averages of them would be wrong where the parts of the rows "
            "differ. Give them a prior"
        )
    return ""


class GradientsOfWorkers(FitObjective):
    """The objective of a fit whose gradients workers compute: in the graph of a step they are an input.

    Attributes
    ----------
    received : SharedVariable
        The losses and the gradients of :meth:`dense`, as one vector, in nats of all data.
    seed : SharedVariable
        That of the draws of a step, another one in each: a checkpoint has it.
    """

    received: SharedVariable
    seed: SharedVariable
    #: The parameters
    params: list[SharedVariable]
    #: The losses and the gradients that workers compute, as graphs in nats of all data, and the values that these read
    #: beside the parameters
    graph: list[Variable]
    watched: list[SharedVariable]
    #: Of each table, the gradient of a batch's rows, and the next lines, given one
    rows: list[RowGradient]
    row_updates: list[RowUpdate]
    #: The factor of the gradients of rows in a step, and the values that `row_updates` read
    row_factor: SharedVariable
    row_settings: list[SharedVariable]
    #: The gradients that `row_updates` are given
    pending: list[Variable]

    @property
    def tables(self) -> list[TableOfWorkers]:
        """The tables, whose lines are with workers."""
        return [table for table in self.approx.tables if isinstance(table, TableOfWorkers)]

    @property
    def owners(self) -> Owners | None:
        """The workers that have the lines of the tables; None without tables."""
        tables = self.tables
        return tables[0].owners if tables else None

    @classmethod
    def of(cls, other: Any) -> GradientsOfWorkers:
        """Return the objective for the same fit."""
        if not isinstance(other, FitObjective):
            raise NotImplementedError(
                "workers of pm.Trainer compute the gradients of guides and objectives, and an operator or a group of "
                "your own has none: write a pm.variational.Objective and a Guide, or leave workers out"
            )
        approx = other.approx
        stream = loader_placeholders(approx.model)
        if stream is None:
            raise NotImplementedError(
                "workers of pm.Trainer need to know which terms of the model are sums over rows of the loader: make its "
                "data by pm.Data(name, loader, dims=...)"
            )
        if by_batch := [batch.rv.name for guide in approx.guides for batch in guide.group_batches]:
            raise NotImplementedError(
                f"workers of pm.Trainer: groups= has {', '.join(map(repr, by_batch))}, whose parameters would have to "
                "stay with their groups. Leave groups out"
            )
        if any(not is_stream(index) for index in model_indexes(approx.model)):
            raise NotImplementedError(
                "workers of pm.Trainer read batches of the loader, and the model has a pm.Minibatch beside them: leave "
                "it out, or give the loader all data"
            )
        return cls(approx, other.objective, other.n_particles, other.reduction)

    def gradients(
        self,
        dense: Sequence[SharedVariable],
        n_outer: int = 1,
        more_replacements: Mapping[Variable | str, Any] | None = None,
    ) -> Gradients:
        of_rows = FitObjective(self.approx, self.objective, self.n_particles, "sum")
        found = of_rows.gradients(dense, n_outer, more_replacements)
        computed = [] if found.loss is None else [found.loss, *found.aux_losses]
        self.params, self.rows, n_losses = list(dense), found.rows, len(computed)
        self.row_updates, self.row_settings, self.pending = [], [], []
        squares = [squared_norm(row) for row in found.rows]
        self.graph = [*computed, *found.dense, *squares]
        stream = loader_placeholders(self.approx.model)
        assert stream is not None
        of_tables = {var for table in self.tables for var in (table.shared, table.rows)}
        known = {*dense, stream[0].state, *stream[1].values(), *of_tables}
        self.watched = [
            var
            for var in graph_inputs([*self.graph, *(row.gradient for row in found.rows)])
            if isinstance(var, SharedVariable)
            and isinstance(var.type, TensorType)
            and var not in known
        ]
        sizes = [param.get_value(borrow=True).size for param in dense]
        n_received = n_losses + sum(sizes) + len(squares)
        self.received = pytensor.shared(np.zeros(n_received), "received", shape=(n_received,))
        scaled = self.received * self.factor()
        ends = n_losses + np.cumsum(sizes)
        gradients = [
            scaled[end - size : end].reshape(param.get_value(borrow=True).shape).astype(param.dtype)
            for param, size, end in zip(dense, sizes, ends.tolist())
        ]
        losses = [scaled[k].astype(pytensor.config.floatX) for k in range(n_losses)]
        seed = self.approx.rng.randint(2**30, dtype="int64")  # JAX may have integers of 32 bits
        self.seed = pytensor.shared(np.array(seed), "seed")
        loss = losses[0] if losses else None
        return Gradients(loss, gradients, [], losses[1:], {self.seed: self.seed + 1})

    def all_updates(
        self,
        optimizer: Optimizer,
        dense: Sequence[SharedVariable],
        gradients: Gradients,
        average: TailAverage | None,
    ) -> tuple[dict[SharedVariable, Variable], list[RowUpdate]]:
        if not self.rows:
            return super().all_updates(optimizer, dense, gradients, average)
        clips = list(takewhile(lambda link: isinstance(link, ClipByGlobalNorm), optimizer.links))
        others = optimizer.links[len(clips) :]
        if any(link.joint for link in others):
            raise NotImplementedError(
                f"obj_optimizer={optimizer!r} of pm.Trainer with workers: of the gradients of all rows only the norm is known, "
                "and before the optimizer. Bound it first, as chain(clip_by_global_norm(10.0), pm.adam()), or by "
                "total_grad_norm_constraint=10.0"
            )
        # One number stands for the gradients of all rows: it has the norm of them
        squares = self.received[-len(self.rows) :].sum()
        norm = (pt.sqrt(squares) * self.factor()).astype(pytensor.config.floatX)
        of_rows, step = pytensor.shared(np.zeros(()), "norm_of_rows"), step_counter()
        changes, states = [*gradients.dense, norm], dict[SharedVariable, Variable]()
        for link in clips:
            changes, state = link.changes(changes, [*dense, of_rows], step)
            states |= state
        *changes, clipped = changes
        self.row_factor = pytensor.shared(np.ones(()), "row_factor")
        factor = self.factor() * pt.switch(norm > 0, clipped / norm, 1).astype("float64")
        factor = pt.switch(pt.isfinite(squares), factor, np.nan)  # then the step is not taken
        rows = [
            RowGradient(row.table, row.gathered, row.gradient.type(f"{row.table.name}_gradient"))
            for row in self.rows
        ]
        n_waiting = average and average.n_waiting
        updates, self.row_updates = all_updates(chain(*others), dense, changes, rows, n_waiting)
        self.pending = [row.gradient for row in rows]
        lines = [update.lines for update in self.row_updates]
        of_tables = {var for table in self.tables for var in (table.shared, table.rows)}
        self.row_settings = [
            var
            for var in graph_inputs(lines)
            if isinstance(var, SharedVariable) and var not in of_tables
        ]
        for update in self.row_updates:
            updates |= update.counts
        updates |= {**with_step(states, step), self.row_factor: factor}
        return updates, []


@dataclass(eq=False)
class _ShardRows:
    """The batches of a shard, by the number of the step."""

    feed: BatchFeed
    _number: int = -1
    _chunks: Iterator[FeedChunk] = field(default_factory=lambda: iter(()))
    _chunk: FeedChunk = field(default_factory=lambda: FeedChunk((), ()))
    _next: int = 0

    def batch(self, number: int) -> tuple[np.ndarray, ...]:
        """Return the batch of a step, with an axis of one batch in front. It is valid until the next call."""
        if number != self._number:
            row = number * self.feed.batch_size
            self._chunks = self.feed.read(Position(*divmod(row, self.feed.n_rows)), None)
            self._chunk, self._next = FeedChunk((), ()), 0
        while self._next == len(self._chunk):
            self._chunk.release()
            self._chunk, self._next = next(self._chunks), 0
        self._number, self._next = number + 1, self._next + 1
        return tuple(values[self._next - 1 : self._next] for values in self._chunk.values)


class _Pending(NamedTuple):
    """The gradient of the rows of a batch, which the step has not been taken with."""

    number: int  # of the batch
    rows: np.ndarray  # of its slots, in the shard
    gradients: list[np.ndarray]  # of each table


@dataclass(eq=False)
class GradientProgram:
    """The program of workers: the gradient of a batch's rows of a shard, in nats of all data."""

    objective: GradientsOfWorkers
    loader: DataLoader
    data_name: str
    backend: str | None = None
    compile_kwargs: Mapping[str, Any] | None = None

    @property
    def data(self) -> Mapping[str, Any]:
        return self.loader.source.identity

    @property
    def keeps_state(self) -> bool:
        """Whether a worker has what no other has: the lines of tables."""
        return bool(self.objective.tables)

    def build(self) -> None:
        # Drivers end at a first entry that is not finite: the process that takes the step does so
        parts = [pt.zeros(1), *(each.ravel().astype("float64") for each in self.objective.graph)]
        size = 1 + self.objective.received.get_value(borrow=True).size
        objective = self.objective
        #: The gradients of a batch's rows, which a step leaves in its state
        found = [
            pytensor.shared(
                np.zeros((0, row.table.n_params), row.gradient.dtype), shape=(None, None)
            )
            for row in objective.rows
        ]
        self.compile(
            {var: row.gradient for var, row in zip(found, objective.rows)},
            pt.specify_shape(pt.concatenate(parts), (size,)),
        )
        self._found = [self._step.shared.index(var) for var in found]
        self._shards: dict[int, _ShardRows] = {}
        self.n_shards = number_of_shards(self.loader.batch_size)
        #: The lines of each shard, and the batch whose rows have a gradient and no new lines yet
        self.lines: dict[int, list[np.ndarray]] = {}
        self._pending: dict[int, _Pending] = {}

    def compile(self, updates: Mapping[SharedVariable, Variable], loss: Variable) -> None:
        """Compile a step, and find the variables that tasks set."""
        objective = self.objective
        model, params = objective.approx.model, objective.params
        feed = make_feed(model, self.loader, self.data_name)
        self._step = make_step(
            updates,
            loss,
            model=model,
            random_seed=0,
            batch_dtypes=feed.batch_dtypes,
            **take_compile_kwargs(self.backend, {"compile_kwargs": self.compile_kwargs}),
        )
        self._start = self._step.load()
        shared = self._step.shared
        #: The place in the state of each parameter, of each value that may change, and of each generator
        tables = objective.tables
        self._params, self._watched, self._lines, self._rows = (
            [shared.index(var) if var in shared else None for var in some]
            for some in (
                params,
                objective.watched,
                [table.shared for table in tables],
                [table.rows for table in tables],
            )
        )
        self._rngs = [x for x in self._step.inputs if isinstance(x.type, RandomGeneratorType)]
        for var in self._rngs:
            var.container.storage[0] = np.random.default_rng(0)
        self._ends = np.cumsum([p.get_value(borrow=True).size for p in params]).tolist()

    def state(
        self, point: np.ndarray, changed: Mapping[int, Any], seed: int, shard: int
    ) -> list[Any]:
        """Return the state of the step with these parameters, values that have changed, and draws of a shard."""
        state, start = list(self._start), 0
        for place, end in zip(self._params, self._ends):
            if place is not None:
                old = self._start[place]
                state[place] = point[start:end].astype(old.dtype).reshape(old.shape)
            start = end
        for i, value in changed.items():
            self._put(state, self._watched[i], self.objective.watched[i], value)
        for k, var in enumerate(self._rngs):
            sequence = np.random.SeedSequence(seed, spawn_key=(shard, k))
            # Numba takes long for a generator that it has not seen yet
            generator = var.container.storage[0]
            generator.bit_generator.state = np.random.PCG64(sequence).state
            state[self._step.shared.index(var)] = self._loaded(var, generator)
        return state

    @cached_property
    def _next_lines(self) -> Callable[..., list[np.ndarray]]:
        """The next lines of a batch, as a compiled function of what the optimizer reads, lines, rows and gradients."""
        objective, new = self.objective, self.objective.row_updates
        given = [*objective.row_settings, *(t.shared for t in objective.tables)]
        given += [table.rows for table in objective.tables]
        inputs = [var.type(var.name) for var in given]
        lines = graph_replace([update.lines for update in new], dict(zip(given, inputs)))
        options = take_compile_kwargs(self.backend, {"compile_kwargs": self.compile_kwargs})
        return pytensor.function(
            [*inputs, *objective.pending], lines, on_unused_input="ignore", **options
        )

    def write_lines(self, shard: int, last: NewLines | None) -> None:
        """Write the lines of the rows of the last step, if they are not written yet."""
        pending = self._pending.get(shard)
        if pending is None or last is None or pending.number != last.number:
            return
        tables = self.lines[shard]
        lines = [table[pending.rows] for table in tables]
        gradients = [
            (gradient * last.factor).astype(gradient.dtype) for gradient in pending.gradients
        ]
        rows = [pending.rows] * len(tables)
        found = self._next_lines(*last.settings, *lines, *rows, *gradients)
        if not all(np.isfinite(new).all() for new in found):
            raise FloatingPointError(
                f"Step {last.number + 1} gave parameters of rows that are not finite: go on from a checkpoint, with a smaller "
                "learning rate, or total_grad_norm_constraint=, which keeps steps short"
            )
        for table, new in zip(tables, found):
            table[pending.rows] = new
        del self._pending[shard]

    def take_over(self, before: GradientProgram) -> None:
        """Take the parameters of rows of the program before, in lines of the present columns."""
        tables = self.objective.tables
        for shard, old in before.lines.items():
            self.lines[shard] = [table.with_params(lines) for table, lines in zip(tables, old)]

    def gradient(self, task: Gradient, shard: int) -> np.ndarray:
        """Return the losses and the gradients of a shard, weighted by its part of all rows."""
        if task.last is not None:
            self.write_lines(shard, task.last)
        if shard not in self._shards:
            batch_size = self.loader.batch_size // self.n_shards
            part = self.loader.shard(shard, self.n_shards, batch_size)
            feed = make_feed(self.objective.approx.model, self.loader, self.data_name, part)
            self._shards[shard] = _ShardRows(feed)
        rows, state = self._shards[shard], self.state(task.point, task.changed, task.seed, shard)
        batch, driver = rows.batch(task.number), self._step.driver
        values = tuple(np.ascontiguousarray(batch[i]) for i in self._step.batch_variables)
        weight = rows.feed.n_rows / self.loader.total_size
        if self.lines:
            of_slots = self._row_numbers(rows.feed, batch)
            for k, (table, lines) in enumerate(zip(self.objective.tables, self.lines[shard])):
                self._put(state, self._lines[k], table.shared, lines[of_slots])
                self._put(state, self._rows[k], table.rows, of_slots)
        prepared = PreparedBatches(driver.prepare_batches(values), 0)
        after, losses = driver.run(tuple(state), 1, prepared)
        if self.lines:
            gradients = [np.array(after[i]) * weight for i in self._found]
            self._pending[shard] = _Pending(task.number, of_slots, gradients)
            losses[0, -len(gradients) :] *= weight  # a square
        return losses[0, 1:] * weight

    def _row_numbers(self, feed: BatchFeed, batch: Sequence[np.ndarray]) -> np.ndarray:
        """Return the rows of a batch, in its shard."""
        stream = loader_placeholders(self.objective.approx.model)
        assert stream is not None
        return np.array(batch[feed.variables.index(stream[0].state)][0])

    def _put(self, state: list[Any], place: int | None, var: SharedVariable, value: Any) -> None:
        if place is not None:
            state[place] = self._loaded(var, value)

    def _loaded(self, var: SharedVariable, value: Any) -> Any:
        """Return a value as the driver has it in its state."""
        var.container.storage[0] = value
        [loaded] = self._step.driver.load([var])
        return loaded


@dataclass(frozen=True, eq=False)
class Gradient:
    """Task: the gradient of some shards, and the seconds that it took."""

    point: np.ndarray  # of the parameters
    number: int  # of the batch
    seed: int
    #: Values that have changed since the program was sent, by their place among those watched
    changed: Mapping[int, Any]
    #: The end of the step before
    last: NewLines | None = None

    def __call__(self, program: GradientProgram, shards: range) -> tuple[np.ndarray, float]:
        started = time.perf_counter()
        parts = [program.gradient(self, shard) for shard in shards]
        return np.sum(parts, axis=0), time.perf_counter() - started
