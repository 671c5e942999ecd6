# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Tables of the parameters of rows, whose lines stay with the workers that read the rows.

A step reads and writes the lines of a batch where they are: only what all rows share travels. The fit asks the workers
for the parameters of the rows that a result is of.
"""

from __future__ import annotations

import weakref

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NoReturn

import numpy as np
import pytensor

from pytensor.compile.sharedvalue import SharedVariable
from pytensor.graph.basic import Variable
from pytensor.tensor import constant, specify_shape

from pymc.data_loading.data_loader import shard_bounds
from pymc.minibatch.axis_tracking import Rows
from pymc.variational.cluster.pool import Pool, WorkersLostError
from pymc.variational.local_params.parts import Parts
from pymc.variational.local_params.table import (
    ParamTable,
    aligned_zeros,
    forget_averages,
    new_table,
    rows_in_all,
    swap_averages,
)

__all__ = [
    "NewLines",
    "OfLines",
    "Owners",
    "SetLines",
    "TableOfWorkers",
    "groups_of_shards",
    "tables_on_workers",
]


def groups_of_shards(n_shards: int, n_workers: int) -> list[range]:
    """Return the shards of each worker."""
    n = n_workers
    return [range(k * n_shards // n, (k + 1) * n_shards // n) for k in range(n)]


@dataclass(frozen=True, eq=False)
class NewLines:
    """How a step ended, by which workers write the new lines of its batch."""

    number: int  # of the batch
    factor: float  # of the gradients of rows
    #: Values that the optimizer of the rows reads, as they were in the step
    settings: Sequence[np.ndarray]


@dataclass(frozen=True, eq=False)
class SetLines:
    """Task: give a shard its lines, those of each table, or one line that all rows of it start from."""

    def __call__(self, program: Any, item: tuple[int, int, Sequence[np.ndarray]]) -> None:
        shard, n_rows, tables = item
        program.lines[shard] = []
        for values in tables:
            lines = aligned_zeros(n_rows, values.shape[1], values.dtype)
            lines[:] = values
            program.lines[shard].append(lines)


class _StartLines(Sequence):
    """The items of `SetLines`, of which one at a time is in memory."""

    def __init__(self, owners: Owners) -> None:
        self.owners = owners

    def __len__(self) -> int:
        return self.owners.n_shards

    def __getitem__(self, shard: Any) -> tuple[int, int, list[np.ndarray]]:
        tables = self.owners.tables
        return shard, tables[0].lengths[shard], [table.start_lines(shard) for table in tables]


@dataclass(frozen=True, eq=False)
class OfLines:
    """Task: write the lines of the last step, and then compute something of the lines of some shards."""

    last: NewLines | None
    function: Callable[[int, Sequence[np.ndarray]], Any]

    def __call__(self, program: Any, shards: range) -> list[Any]:
        for shard in shards:
            program.write_lines(shard, self.last)
        return [self.function(shard, program.lines[shard]) for shard in shards]


@dataclass(eq=False)
class Owners:
    """The workers that have the lines of all tables of a fit, from its first step on.

    Attributes
    ----------
    pool : Pool or None
        None until the first step, while the tables have the lines that rows start from.
    last : NewLines or None
        The last step, if workers have not yet written its lines.
    """

    tables: list[TableOfWorkers] = field(default_factory=list)
    n_shards: int = 0
    pool: Pool | None = None
    last: NewLines | None = None
    is_lost: bool = False
    #: Whether another optimizer has been prepared, whose columns the lines do not have yet
    is_new_step: bool = False
    _close: Callable[[], None] = lambda: None

    def __reduce__(self) -> tuple[Any, ...]:
        # A copy has no workers: it knows that it has no lines, and workers do not ask it for any
        return Owners, ([], 0, None, None, True)

    def open(self, pool: Pool) -> None:
        """Give the lines to workers."""
        pool.map(SetLines(), _StartLines(self))
        for table in self.tables:
            table.forget_start_lines()
        self.pool, self.is_new_step = pool, False

    def ends_with(self, stack: ExitStack) -> None:
        """Take over what ends the workers: they live as long as this object, unless `close` is called."""
        self._close = weakref.finalize(self, stack.close)

    def close(self) -> None:
        """End the workers, and with them the lines."""
        if self.pool is not None:
            self.pool, self.is_lost = None, True
            self._close()

    def check(self) -> None:
        """Raise if the lines are lost."""
        if self.is_lost:
            raise WorkersLostError(
                "The parameters of the rows were with workers that have ended: go on from a checkpoint, by pm.Trainer.load"
            )

    def map(self, function: Callable[[int, Sequence[np.ndarray]], Any]) -> list[Any]:
        """Compute a function of the number and the lines of each shard."""
        self.check()
        assert self.pool is not None
        try:
            groups = groups_of_shards(self.n_shards, self.pool.workers.n)
            found = self.pool.map(OfLines(self.last, function), groups)
        except WorkersLostError:
            self.close()
            raise
        self.last = None
        return [value for of_worker in found for value in of_worker]

    def take_over(self, program: Any) -> None:
        """Give workers another program, which keeps the parameters of rows."""
        self.map(_nothing)  # writes the lines of the last step
        assert self.pool is not None
        self.pool.rebuild(program)
        self.is_new_step = False


@dataclass(frozen=True, eq=False)
class TableOfWorkers(ParamTable):
    """A table whose lines are with workers once a fit has begun.

    `shared` has the lines that rows start from, one for all or one for each, or `saved` has them in parts. In the graph of
    a step it is the lines of a batch, and `rows` is the row of each.
    """

    owners: Owners
    rows: SharedVariable
    length: int
    saved: list[Parts] = field(default_factory=list)  # one, or none

    @classmethod
    def for_owners(
        cls, owners: Owners, plate: Sequence[Rows], start: np.ndarray, name: str
    ) -> TableOfWorkers:
        """Return the table of a plate, with lines that rows start from."""
        value = np.array(start, dtype=pytensor.config.floatX)
        shared = pytensor.shared(value, name, shape=(None, None), borrow=True)
        rows = pytensor.shared(np.zeros(1, "int64"), f"{name}_rows", shape=(None,))
        table = cls(tuple(plate), value.shape[1], shared, owners, rows, rows_in_all(plate))
        owners.tables.append(table)
        return table

    @property
    def n_rows(self) -> int:
        return self.length

    @property
    def has_all_rows(self) -> Variable:
        return constant(np.array(True))

    @property
    def index(self) -> Variable:
        return self.rows

    @property
    def bounds(self) -> list[tuple[int, int]]:
        """The first row of each shard, and of what follows it."""
        return shard_bounds(self.length, self.owners.n_shards)

    @property
    def lengths(self) -> list[int]:
        """The rows of each shard."""
        return [stop - first for first, stop in self.bounds]

    def with_params(self, lines: np.ndarray) -> np.ndarray:
        """Return lines with the present columns as at their start, and the parameters of others."""
        value = self._value
        new = aligned_zeros(len(lines), value.shape[1], value.dtype)
        new[:] = value[0]
        new[:, : self.n_params] = lines[:, : self.n_params]
        return new

    def add_optimizer_columns(self, states: np.ndarray) -> None:
        super().add_optimizer_columns(states)
        if self.owners.pool is not None or self.saved:
            self.owners.is_new_step = True

    def start_lines(self, shard: int) -> np.ndarray:
        """Return the lines that a shard starts from, one for each row or one for all."""
        if self.saved:
            lines = self.saved[0].part(shard)
            return self.with_params(lines) if self.owners.is_new_step else lines
        value = self._value
        return value if len(value) == 1 else value[slice(*self.bounds[shard])]

    def forget_start_lines(self) -> None:
        """Keep only a line of the start, for its columns, once workers have all."""
        self.saved.clear()
        self.shared.set_value(self._value[:1].copy(), borrow=True)

    def parts(self) -> Parts:
        """Return the lines of all rows, in parts: one for each shard."""
        self.owners.check()
        has_workers = self.owners.pool is not None

        def part(shard: int) -> np.ndarray:
            if has_workers:
                found = self._each(partial(_of_shard, wanted=shard))[shard]
                return self.with_params(found) if self.owners.is_new_step else found
            lines = self.start_lines(shard)
            return np.ascontiguousarray(
                np.broadcast_to(lines, (self.lengths[shard], lines.shape[1]))
            )

        return Parts(self.lengths, self._value.shape[1:], self._value.dtype, part)

    def set_parts(self, parts: Parts) -> None:
        """Start from lines that were saved."""
        self.saved[:] = [parts]

    def gather(self) -> tuple[Variable, Variable]:
        shape = (self.batch_size, self.n_params)
        return self.shared, specify_shape(self.shared[:, : self.n_params], shape)

    def all_rows(self) -> NoReturn:
        raise NotImplementedError(
            f"The parameters of {self.name!r} are with the workers of pm.Trainer, so that no graph has all of them: take "
            "approx.sample(), with rows= for some of the rows"
        )

    def check_known(self) -> None:
        self.all_rows()

    def copied(self, memo: dict[int, Any]) -> NoReturn:
        raise NotImplementedError(
            f"The parameters of {self.name!r} are with the workers of pm.Trainer, and are not copied: save the fit by "
            "approx.save(path)"
        )

    def forget_averages(self) -> None:
        if self.owners.pool is not None:
            self._each(partial(_forget, n_params=self.n_params))

    def swap_averages(self) -> None:
        self._each(partial(_swap, n_params=self.n_params))

    def parameters(self, rows: Any = None) -> np.ndarray:
        """Return the current parameters of all rows, or of some. Workers send them."""
        self.owners.check()
        if rows is None and self.owners.pool is not None:
            return np.concatenate(self._each(partial(_all_params, n_params=self.n_params)))
        wanted = self._numbers(rows)
        if self.owners.pool is None and not self.saved:
            value = np.broadcast_to(self._value, (self.n_rows, self._value.shape[1]))
            return value[wanted, : self.n_params]
        flat, firsts = np.ravel(wanted), np.array([first for first, _ in self.bounds])
        shard_of = np.searchsorted(firsts, flat, side="right") - 1
        order = np.argsort(shard_of, kind="stable")
        cuts = np.searchsorted(shard_of[order], np.arange(len(firsts) + 1))
        places = [flat[order[a:b]] - first for a, b, first in zip(cuts, cuts[1:], firsts)]
        of_shard = _Params(places, self.n_params)
        if self.owners.pool is None:
            parts = [of_shard(self.saved[0].part(k), k) for k in range(len(firsts))]
        else:
            parts = self._each(of_shard)
        params = np.empty((len(flat), self.n_params), self._value.dtype)
        params[order] = np.concatenate(parts)
        return params.reshape(*np.shape(wanted), self.n_params)

    def _numbers(self, rows: Any) -> np.ndarray:
        """Return the numbers of rows that an index of NumPy selects, without a number for each row."""
        n = self.n_rows
        if rows is None or isinstance(rows, slice):
            return np.arange(*(slice(None) if rows is None else rows).indices(n))
        numbers = np.asarray(rows)
        if numbers.dtype == bool:
            return np.flatnonzero(numbers)
        if numbers.size and not (-n <= numbers.min() and numbers.max() < n):
            raise IndexError(f"rows {rows!r} of {self.name!r}, which has {n:,}")
        return np.where(numbers < 0, numbers + n, numbers)

    def _each(self, function: Callable[[np.ndarray, int], Any]) -> list[Any]:
        """Compute a function of the lines and the number of each shard."""
        return self.owners.map(_OfTable(self.owners.tables.index(self), function))


@dataclass(frozen=True, eq=False)
class _OfTable:
    number: int
    function: Callable[[np.ndarray, int], Any]

    def __call__(self, shard: int, lines: Sequence[np.ndarray]) -> Any:
        return self.function(lines[self.number], shard)


@dataclass(frozen=True, eq=False)
class _Params:
    places: list[np.ndarray]
    n_params: int

    def __call__(self, lines: np.ndarray, shard: int) -> np.ndarray:
        return lines[self.places[shard], : self.n_params]


def _nothing(shard: int, lines: Sequence[np.ndarray]) -> None:
    """Compute nothing."""


def _all_params(lines: np.ndarray, shard: int, n_params: int) -> np.ndarray:
    return lines[:, :n_params]


def _of_shard(lines: np.ndarray, shard: int, wanted: int) -> np.ndarray | None:
    return lines if shard == wanted else None


def _forget(lines: np.ndarray, shard: int, n_params: int) -> None:
    forget_averages(lines, n_params)


def _swap(lines: np.ndarray, shard: int, n_params: int) -> None:
    swap_averages(lines, n_params)


@contextmanager
def tables_on_workers(owners: Owners) -> Iterator[None]:
    """Make the tables of guides that are made within the context for workers."""
    token = new_table.set(partial(TableOfWorkers.for_owners, owners))
    try:
        yield
    finally:
        new_table.reset(token)
