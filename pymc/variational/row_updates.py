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

import itertools

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial, reduce
from typing import Any

import numpy as np
import pytensor
import pytensor.tensor as pt

from pytensor.compile.sharedvalue import SharedVariable
from pytensor.graph.basic import Variable
from pytensor.graph.replace import vectorize_graph
from pytensor.graph.traversal import ancestors
from pytensor.tensor.type import TensorType

from pymc.variational.first_slots import sum_of_rows
from pymc.variational.row_table import RowTable
from pymc.variational.schedule_formulas import Schedule, rate_at
from pymc.variational.updates import adagrad_window

__all__ = ["Optimizer", "RowUpdate", "guarded", "row_updates"]

#: (gradients, parameters) -> next values of the parameters, and of what the optimizer keeps.
Optimizer = Callable[
    [Sequence[Variable], Sequence[SharedVariable]], Mapping[SharedVariable, Variable]
]


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
    >>> from pymc.variational.row_table import RowTable
    >>> from pymc.variational.row_updates import guarded, row_updates
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
    row = _OneRow.of(optimizer, table)
    table.widen(row.starts)
    n_columns = table.shared.get_value(borrow=True).shape[1]
    old = pt.specify_shape(lines, (table.batch_size, n_columns))
    return RowUpdate(table, old, row.take(old, params, gradient), row.counts)


@dataclass(frozen=True)
class _OneRow:
    """What an optimizer makes of the parameters of one row.

    Parameters
    ----------
    param : SharedVariable
        A vector, in the place of a row's parameters.
    gradient : Variable
        Like it.
    updates : mapping of SharedVariable to Variable
        Of `param`, and then of what the optimizer keeps of a row.
    counts : mapping of SharedVariable to Variable
        Of what it counts for all rows.
    """

    param: SharedVariable
    gradient: Variable
    updates: Mapping[SharedVariable, Variable]
    counts: Mapping[SharedVariable, Variable]

    @classmethod
    def of(cls, optimizer: Optimizer, table: RowTable) -> _OneRow:
        start = np.array(table.parameters(slice(1))[0])
        param = pytensor.shared(start, table.name, shape=start.shape)
        gradient = param.type(f"{table.name}_gradient")
        updates = dict(_row_form(optimizer)([gradient], [param]))
        if param not in updates:
            raise TypeError(
                f"The optimizer {_name(optimizer)} has to return updates of the parameters that it "
                f"is given, a dict with {param} among its keys; it has {list(updates)}."
            )
        for state in updates:
            if not isinstance(state.type, TensorType) or state.type.numpy_dtype.kind not in "biuf":
                raise TypeError(
                    f"The optimizer {_name(optimizer)} keeps {state} of type {state.type}, of which "
                    "each row cannot have its own: rows keep numbers only. Use one of PyMC's, such "
                    "as pm.adam, for a model with latent variables on a subsampled dim."
                )
        own = {param: updates.pop(param)}
        own_to_row = {param, gradient, *(s for s in updates if not _is_count(s))}
        counts = {
            state: value
            for state, value in updates.items()
            if _is_count(state) and own_to_row.isdisjoint(ancestors([value]))
        }
        own |= {state: value for state, value in updates.items() if state not in counts}
        return cls(param, gradient, own, counts)

    @property
    def states(self) -> list[SharedVariable]:
        return [state for state in self.updates if state is not self.param]

    @property
    def starts(self) -> np.ndarray:
        """The first values of what is kept of a row, flat."""
        values = [state.get_value(borrow=True) for state in self.states]
        return np.concatenate([np.zeros(0), *(np.ravel(value) for value in values)])

    def take(self, old: Variable, params: Variable, gradient: Variable) -> Variable:
        """Put lines and gradients in the place of the one row's; return the next lines."""
        sizes = [np.size(state.get_value(borrow=True)) for state in self.states]
        bounds = np.cumsum([self.param.get_value(borrow=True).size, *sizes])
        here = {self.param: params, self.gradient: gradient}
        for state, (first, last) in zip(self.states, itertools.pairwise(bounds)):
            shape = (old.type.shape[0], *state.get_value(borrow=True).shape)
            columns = old[:, first] if shape[1:] == () else old[:, first:last].reshape(shape)
            here[state] = columns.astype(state.type.dtype)
        parts = [
            self._columns(new, key, old)
            for key, new in zip(self.updates, vectorize_graph(list(self.updates.values()), here))
        ]
        if bounds[-1] < old.type.shape[1]:
            parts.append(old[:, bounds[-1] :])
        return pt.concatenate(parts, axis=1) if len(parts) > 1 else parts[0]

    def _columns(self, new: Variable, key: SharedVariable, old: Variable) -> Variable:
        """Write the next values of `key` as columns; they may be the same for all rows."""
        n_slots, shape = old.type.shape[0], key.get_value(borrow=True).shape
        new = pt.broadcast_to(new, (n_slots, *shape))
        return new.reshape((n_slots, int(np.prod(shape)))).astype(old.type.dtype)


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


def _row_form(optimizer: Any) -> Any:
    """Return an optimizer that can be computed for many rows at once: for PyMC's default, another."""
    if getattr(optimizer, "func", optimizer) is not adagrad_window:
        return optimizer
    args, kwargs = getattr(optimizer, "args", ()), getattr(optimizer, "keywords", {})
    return partial(_adagrad_window, *args, **kwargs)


def _adagrad_window(
    grads: Sequence[Variable],
    params: Sequence[SharedVariable],
    learning_rate: float | Variable | Schedule = 0.001,
    epsilon: float = 0.1,
    n_win: int = 10,
) -> dict[SharedVariable, Variable]:
    """Compute :func:`pymc.adagrad_window`, with the window's entry chosen by comparison.

    The release's sets one entry, which for rows at different entries would be a loop over rows.
    """
    updates: dict[SharedVariable, Variable] = {}
    rate: Any = learning_rate
    if callable(learning_rate):
        step = pytensor.shared(np.array(0, dtype="int64"), name="step")
        rate, updates[step] = rate_at(learning_rate, step), step + 1
    for param, grad in zip(params, grads, strict=True):
        start = param.get_value(borrow=True)
        window = pytensor.shared(
            np.zeros((*start.shape, n_win), start.dtype), shape=(*start.shape, n_win)
        )
        place = pytensor.shared(np.zeros((), start.dtype))
        new = pt.switch(pt.eq(pt.arange(n_win), place), grad[..., None] ** 2, window)
        updates[window] = new
        updates[place] = pt.switch(place + 1 < n_win, place + 1, 0)
        updates[param] = param - rate * grad / pt.sqrt(new.sum(axis=-1) + epsilon)
    return updates


def _is_count(state: SharedVariable) -> bool:
    return state.type.ndim == 0 and state.type.numpy_dtype.kind in "iu"


def _name(optimizer: Any) -> str:
    function = getattr(optimizer, "func", optimizer)
    return getattr(function, "__name__", repr(function))
