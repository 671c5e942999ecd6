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
"""What an optimizer does with the parameters of one row, and with those of many at once."""

from __future__ import annotations

import itertools

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pytensor
import pytensor.tensor as pt

from pytensor.compile.sharedvalue import SharedVariable
from pytensor.graph.basic import Variable
from pytensor.graph.replace import vectorize_graph
from pytensor.graph.traversal import ancestors
from pytensor.tensor.type import TensorType

from pymc.variational.schedule_formulas import Schedule, rate_at
from pymc.variational.updates import adagrad_window

__all__ = ["OneRow", "Optimizer"]

#: (gradients, parameters) -> next values of the parameters, and of what the optimizer keeps.
Optimizer = Callable[
    [Sequence[Variable], Sequence[SharedVariable]], Mapping[SharedVariable, Variable]
]


@dataclass(frozen=True)
class OneRow:
    """What an optimizer makes of the parameters of one row, to be computed for many.

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
    def of(
        cls,
        optimizer: Optimizer,
        start: np.ndarray,
        name: str,
        n_waiting: SharedVariable | None = None,
    ) -> OneRow:
        """Call an optimizer on the parameters of one row.

        Parameters
        ----------
        optimizer : callable (grads, params) -> updates
        start : array of floats, shape (n_params,)
        name : str
        n_waiting : SharedVariable, optional
            If given, the first things kept are the average of the parameters over the visits since
            it was 0, and the number of those visits.

        Raises
        ------
        TypeError
            If the optimizer keeps something that is not numbers, or does not update the parameters.
        """
        param = pytensor.shared(start, name, shape=start.shape)
        gradient = param.type(f"{name}_gradient")
        updates = dict(_row_form(optimizer)([gradient], [param]))
        _check(optimizer, param, updates)
        own = {param: updates.pop(param)}
        if n_waiting is not None:
            own |= _average(param, own[param], n_waiting)
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
        """Compute the next lines of a batch.

        Parameters
        ----------
        old : matrix, shape (batch_size, n_columns), static but for the rows of a stream
        params : matrix, shape (batch_size, n_params)
            Its first columns.
        gradient : matrix, shape (batch_size, n_params)
        """
        sizes = [np.size(state.get_value(borrow=True)) for state in self.states]
        bounds = np.cumsum([self.param.get_value(borrow=True).size, *sizes])
        here = {self.param: params, self.gradient: gradient}
        for state, (first, last) in zip(self.states, itertools.pairwise(bounds)):
            shape = state.get_value(borrow=True).shape
            columns = old[:, first]
            if shape:
                columns = old[:, first:last].reshape((_n_slots(old), *shape))
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
        n_slots, shape = _n_slots(old), key.get_value(borrow=True).shape
        new = pt.broadcast_to(new, (n_slots, *shape))
        return new.reshape((n_slots, int(np.prod(shape)))).astype(old.type.dtype)


def _n_slots(lines: Variable) -> Any:
    """Tell how many rows a batch has: a number, but for those that are fed, which may be any."""
    static = lines.type.shape[0]
    return lines.shape[0] if static is None else static


def _average(
    param: SharedVariable, new: Variable, n_waiting: SharedVariable
) -> dict[SharedVariable, Variable]:
    mean = pytensor.shared(np.zeros_like(param.get_value()), "mean", shape=param.type.shape)
    n = pytensor.shared(np.zeros((), param.type.dtype), "n_averaged")
    counts = pt.eq(n_waiting, 0).astype(param.type.dtype)
    n_next = n + counts
    return {mean: mean + counts / pt.maximum(n_next, 1) * (new - mean), n: n_next}


def _check(
    optimizer: Any, param: SharedVariable, updates: Mapping[SharedVariable, Variable]
) -> None:
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
