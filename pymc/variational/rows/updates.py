# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""An optimizer lifted to the rows of a plate, and steps that leave everything as it was if they fail.

Only the rows of a batch change, and only they count for what an optimizer keeps: its moments are lazy.
A moving average does not fade while a row is not visited, and Adam corrects the bias by a row's own
visits. A row that is in a batch twice is visited once, with the sum of its gradients.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce

import numpy as np
import pytensor.tensor as pt

from pytensor.compile.sharedvalue import SharedVariable
from pytensor.graph.basic import Variable

from pymc.variational.optimizer_base import Optimizer, next_value, step_counter, with_step
from pymc.variational.rows.first_slots import first_slots, sum_of_rows
from pymc.variational.rows.optimizers import OneRow, as_columns
from pymc.variational.rows.table import RowTable

__all__ = ["RowGradient", "RowUpdate", "all_updates", "guarded"]


@dataclass(frozen=True)
class RowUpdate:
    """The next lines of the rows of a batch.

    Parameters
    ----------
    table : RowTable
    old : matrix, shape (batch_size, n_columns)
        The lines before.
    lines : matrix, shape (batch_size, n_columns)
        The lines after; alike for slots that have the same row.
    counts : mapping of SharedVariable to Variable
        Updates of what is not a row's own: the step that a schedule counts.
    """

    table: RowTable
    old: Variable
    lines: Variable
    counts: Mapping[SharedVariable, Variable] = field(default_factory=dict)


@dataclass(frozen=True)
class RowGradient:
    """The gradient of the parameters of a batch's rows.

    Parameters
    ----------
    table : RowTable
        It gets room for what an optimizer keeps of a row, which starts anew.
    gathered : tuple of Variable
        The lines and the parameters, from :meth:`RowTable.gather`.
    gradient : matrix, shape (batch_size, n_params)
        Of the loss. Slots that have the same row are summed by :func:`all_updates`.
    """

    table: RowTable
    gathered: tuple[Variable, Variable]
    gradient: Variable


def all_updates(
    optimizer: Optimizer,
    dense: Sequence[SharedVariable],
    gradients: Sequence[Variable],
    rows: Sequence[RowGradient] = (),
    n_waiting: SharedVariable | None = None,
) -> tuple[dict[SharedVariable, Variable], list[RowUpdate]]:
    """Let the gradients of all parameters go through an optimizer, link by link.

    Parameters
    ----------
    optimizer : Optimizer
        It is called once on the dense parameters, and once on the parameters of one row of each table,
        unless it is `joint`. An integer scalar that it counts up without looking at the row counts
        steps, and is one for all rows.
    dense : sequence of SharedVariable
        Parameters of no row.
    gradients : sequence of Variable
        Like these.
    rows : sequence of RowGradient
        One for each table.
    n_waiting : SharedVariable, optional
        Of a :class:`~pymc.variational.averaging.TailAverage` that has the tables: each row keeps the
        average of its parameters over its visits since this was 0.

    Returns
    -------
    updates : dict of SharedVariable to Variable
        Of `dense`, of what the optimizer keeps of them, and of the step where it counts.
    rows : list of RowUpdate

    Raises
    ------
    TypeError
        If the optimizer keeps something of a row that is not numbers, or does not update the parameters.
    ValueError
        If it has an argument about a parameter that there is not.

    Notes
    -----
    A start that an optimizer takes from the value of a parameter is that of the first row.

    Examples
    --------
    >>> import pymc as pm
    >>> from pymc.minibatch.index import minibatch_index
    >>> from pymc.minibatch.axis_tracking import Rows
    >>> from pymc.variational.rows.table import RowTable
    >>> from pymc.variational.optimizers import as_optimizer
    >>> from pymc.variational.rows.updates import RowGradient, all_updates, guarded
    >>> table = RowTable.of((Rows(minibatch_index(6, 2)),), np.ones((1, 1)), "z")
    >>> lines, params = table.gather()
    >>> loss = (params**2).sum()
    >>> rows = RowGradient(table, (lines, params), 2 * params)
    >>> updates, rows = all_updates(as_optimizer(pm.sgd(learning_rate=0.5)), [], [], [rows])
    >>> loss, updates = guarded(loss, updates, rows)
    >>> step = pm.compile([], loss, updates=updates, random_seed=1)
    >>> float(step())
    2.0
    >>> float(table.parameters().sum())
    4.0
    """
    optimizer.check([*(var.name for var in dense), *(row.table.name for row in rows)])
    step, links = step_counter(), optimizer.links
    batches = [_Batch(row, links, step, n_waiting) for row in rows]
    changes, kept = list(gradients), dict[SharedVariable, Variable]()
    for k, link in enumerate(links):
        if link.joint:
            of_all = [*changes, *(batch.each_row_once() for batch in batches)]
            params = [*dense, *(batch.params for batch in batches)]
            of_all, updates = link.changes(of_all, params, step)
            kept |= updates
            changes = of_all[: len(dense)]
            for batch, change in zip(batches, of_all[len(dense) :]):
                batch.put(change)
            continue
        if dense:
            changes, updates = link.changes(changes, dense, step)
            kept |= updates
        for batch in batches:
            batch.go_through(k)
    new = {var: next_value(var, change) for var, change in zip(dense, changes)}
    updated = [batch.update(n_waiting) for batch in batches]
    return with_step(new | kept, step, [row.lines for row in updated]), updated


class _Batch:
    """What becomes of the gradients of a batch's rows, link by link.

    Parameters
    ----------
    row : RowGradient
    links : sequence of Optimizer
    step : TensorVariable of shape () and dtype int64
    n_waiting : SharedVariable, optional
    """

    def __init__(
        self,
        row: RowGradient,
        links: Sequence[Optimizer],
        step: Variable,
        n_waiting: SharedVariable | None,
    ) -> None:
        self.table = table = row.table
        lines, self.params = row.gathered
        self.change = row.gradient
        if table.has_duplicates:
            self.change = sum_of_rows(row.gradient, table.index)
        start = np.array(table.parameters(0))
        self.forms = {
            k: OneRow.of(link, start, table.name, step)
            for k, link in enumerate(links)
            if not link.joint
        }
        self.n_averaged = 0 if n_waiting is None else table.n_params + 1
        table.widen(
            np.concatenate(
                [np.zeros(self.n_averaged), *(form.starts for form in self.forms.values())]
            )
        )
        n_columns = table.shared.get_value(borrow=True).shape[1]
        self.old = pt.specify_shape(lines, (table.batch_size, n_columns))
        self.kept: list[Variable] = []
        self.n_used = table.n_params + self.n_averaged

    def each_row_once(self) -> Variable:
        """Return the changes with zeros in the second place of a row that is in the batch twice."""
        if not self.table.has_duplicates:
            return self.change
        first = first_slots(self.table.index)
        once = pt.eq(first, pt.arange(first.shape[0]))
        return pt.switch(once[:, None], self.change, 0)

    def put(self, change: Variable) -> None:
        """Take what a joint link has made of :meth:`each_row_once`."""
        if self.table.has_duplicates:
            change = change[first_slots(self.table.index)]
        self.change = change

    def go_through(self, k: int) -> None:
        """Let the changes of each row go through a link that is not joint."""
        form = self.forms[k]
        n = len(form.starts)
        kept = self.old[:, self.n_used : self.n_used + n]
        self.change, new = form.take(kept, self.params, self.change)
        self.kept += new
        self.n_used += n

    def update(self, n_waiting: SharedVariable | None) -> RowUpdate:
        """Put the next lines together."""
        new = next_value(self.params, self.change)
        new = as_columns(new, (self.table.n_params,), self.old)
        parts = [new]
        if n_waiting is not None:
            parts += self._average(new, n_waiting)
        parts += self.kept
        if self.n_used < self.old.type.shape[1]:
            parts.append(self.old[:, self.n_used :])
        counts = {var: new for form in self.forms.values() for var, new in form.counts.items()}
        lines = pt.concatenate(parts, axis=1) if len(parts) > 1 else parts[0]
        return RowUpdate(self.table, self.old, lines, counts)

    def _average(self, new: Variable, n_waiting: SharedVariable) -> list[Variable]:
        """Compute the next average of the parameters over visits, and the number of these."""
        n_params, dtype = self.table.n_params, self.old.type.dtype
        mean = self.old[:, n_params : 2 * n_params]
        n = self.old[:, 2 * n_params : 2 * n_params + 1]
        counts = pt.eq(n_waiting, 0).astype(dtype)
        n_next = n + counts
        return [mean + counts / pt.maximum(n_next, 1) * (new - mean), n_next]


def guarded(
    loss: Variable, dense_updates: Mapping[SharedVariable, Variable], rows: Sequence[RowUpdate] = ()
) -> tuple[Variable, dict[SharedVariable, Variable]]:
    """Let a step that gives a value that is not finite change nothing.

    So nobody needs a copy of the state to go back to, which for a table is one of all rows.

    Parameters
    ----------
    loss : scalar variable
    dense_updates : mapping of SharedVariable to Variable
        Of parameters, and what an optimizer keeps of them. Floats have to be finite.
    rows : sequence of RowUpdate
        One for each table.

    Returns
    -------
    loss : scalar variable
        Nan where an update is not finite, or a table lacks rows that the data have.
    updates : dict of SharedVariable to Variable
        Of the tables too. Where the loss is not finite, their old values. Generators and minibatch
        indexes, which are not among them, move on.
    """
    updates = reduce(lambda known, row: known | dict(row.counts), rows, dict(dense_updates))
    new = [value for value in updates.values() if value.type.dtype.startswith("float")]
    checks = [pt.all(pt.isfinite(value)) for value in (*new, *(row.lines for row in rows))]
    checks += [row.table.has_all_rows for row in rows]
    all_finite = reduce(pt.and_, checks, pt.constant(np.array(True)))
    # A loss that is infinite itself is reported as it is
    nan = pt.constant(np.nan, dtype=loss.type.dtype)
    loss = pt.switch(pt.and_(pt.isfinite(loss), pt.invert(all_finite)), nan, loss)
    good = pt.isfinite(loss)
    updates = {var: pt.switch(good, value, var) for var, value in updates.items()}
    for row in rows:
        lines = pt.switch(good, row.lines, row.old)
        # All slots of a row write the same, so that they may come in any order
        updates[row.table.shared] = pt.set_subtensor(row.table.shared[row.table.index], lines)
    return loss, updates
