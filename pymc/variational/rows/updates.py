#   Copyright 2026 - present The PyMC Developers
#
#   Licensed under the Apache License, Version 2.0 (the "License");
#   you may not use this file except in compliance with the License.
#   You may obtain a copy of the License at
#
#       http://www.apache.org/licenses/LICENSE-2.0
#
#   Unless required by applicable law or agreed to in writing, software
#   distributed under the License is distributed on an "AS IS" BASIS,
#   WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
#   See the License for the specific language governing permissions and
#   limitations under the License.
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

from pymc.variational.rows.first_slots import sum_of_rows
from pymc.variational.rows.optimizers import OneRow, Optimizer
from pymc.variational.rows.table import RowTable

__all__ = ["RowUpdate", "guarded", "row_updates"]


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


def row_updates(
    optimizer: Optimizer,
    table: RowTable,
    gathered: tuple[Variable, Variable],
    gradient: Variable,
    n_waiting: SharedVariable | None = None,
) -> RowUpdate:
    """Update the rows of a batch as an optimizer would each of them alone.

    Parameters
    ----------
    optimizer : callable (grads, params) -> updates
        Any of PyMC's, with its arguments, or your own. It is called once, on the parameters of one
        row. What it keeps of them becomes columns of the table, which starts anew. An integer scalar
        that it counts up without looking at the row counts steps, and is one for all rows.
    table : RowTable
        It gets room for what the optimizer keeps.
    gathered : tuple of Variable
        The lines and the parameters, from :meth:`RowTable.gather`.
    gradient : matrix, shape (batch_size, n_params)
        Of the loss, with respect to the parameters. Slots that have the same row are summed here.
    n_waiting : SharedVariable, optional
        Of a :class:`~pymc.variational.averaging.TailAverage` that has the table: each row keeps the
        average of its parameters over its visits since this was 0.

    Returns
    -------
    RowUpdate

    Raises
    ------
    TypeError
        If the optimizer keeps something that is not numbers, or does not update the parameters.

    Notes
    -----
    A start that an optimizer takes from the value of a parameter is that of the first row.

    Examples
    --------
    >>> import pymc as pm
    >>> from pymc.minibatch.index import minibatch_index
    >>> from pymc.minibatch.provenance import Rows
    >>> from pymc.variational.rows.table import RowTable
    >>> from pymc.variational.rows.updates import guarded, row_updates
    >>> table = RowTable.of((Rows(minibatch_index(6, 2)),), np.ones((1, 1)), "z")
    >>> lines, params = table.gather()
    >>> loss = (params**2).sum()
    >>> update = row_updates(pm.sgd(learning_rate=0.5), table, (lines, params), 2 * params)
    >>> loss, updates = guarded(loss, {}, [update])
    >>> step = pm.compile([], loss, updates=updates, random_seed=1)
    >>> float(step())
    2.0
    >>> float(table.parameters().sum())
    4.0
    """
    lines, params = gathered
    if table.has_duplicates:
        gradient = sum_of_rows(gradient, table.index)
    row = OneRow.of(optimizer, np.array(table.parameters(0)), table.name, n_waiting)
    table.widen(row.starts)
    n_columns = table.shared.get_value(borrow=True).shape[1]
    old = pt.specify_shape(lines, (table.batch_size, n_columns))
    return RowUpdate(table, old, row.take(old, params, gradient), row.counts)


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
