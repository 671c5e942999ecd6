# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""What an optimizer does with the parameters of one row, and with those of many at once."""

from __future__ import annotations

import itertools

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
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

from pymc.variational.optimizers import FunctionOptimizer, Optimizer
from pymc.variational.updates import adagrad_window

__all__ = ["OneRow", "as_columns", "n_slots"]


@dataclass(frozen=True)
class OneRow:
    """What a link of an optimizer makes of the gradient of one row, to be computed for many.

    Parameters
    ----------
    param : SharedVariable
        A vector, in the place of a row's parameters.
    gradient : Variable
        Like it.
    change : Variable
        Like it.
    updates : mapping of SharedVariable to Variable
        Of what the link keeps of a row.
    counts : mapping of SharedVariable to Variable
        Of what it counts for all rows.
    """

    param: SharedVariable
    gradient: Variable
    change: Variable
    updates: Mapping[SharedVariable, Variable]
    counts: Mapping[SharedVariable, Variable]

    @classmethod
    def of(cls, link: Optimizer, start: np.ndarray, name: str, step: Variable) -> OneRow:
        """Call a link on the parameters of one row.

        Parameters
        ----------
        link : Optimizer
        start : array of floats, shape (n_params,)
        name : str
        step : TensorVariable of shape () and dtype int64

        Raises
        ------
        TypeError
            If the link keeps something that is not numbers, or does not update the parameters.
        """
        param = pytensor.shared(start, name, shape=start.shape)
        gradient = param.type(f"{name}_gradient")
        [change], updates = _row_form(link).changes([gradient], [param], step)
        _check(link, param, change, updates)
        own_to_row = {param, gradient, *(s for s in updates if not _is_count(s))}
        counts = {
            state: value
            for state, value in updates.items()
            if _is_count(state) and own_to_row.isdisjoint(ancestors([value]))
        }
        own = {state: value for state, value in updates.items() if state not in counts}
        return cls(param, gradient, change, own, counts)

    @property
    def sizes(self) -> list[int]:
        """How many columns each thing has that is kept of a row."""
        return [np.size(state.get_value(borrow=True)) for state in self.updates]

    @property
    def starts(self) -> np.ndarray:
        """The first values of what is kept of a row, flat."""
        values = [state.get_value(borrow=True) for state in self.updates]
        return np.concatenate([np.zeros(0), *(np.ravel(value) for value in values)])

    def take(
        self, kept: Variable, params: Variable, gradient: Variable
    ) -> tuple[Variable, list[Variable]]:
        """Compute what is added to the parameters of the rows of a batch, and what is kept next.

        Parameters
        ----------
        kept : matrix, shape (batch_size, n_kept)
            Columns of what is kept; the number of rows is static but for those of a stream.
        params : matrix, shape (batch_size, n_params)
        gradient : matrix, shape (batch_size, n_params)

        Returns
        -------
        changes : matrix, shape (batch_size, n_params)
        kept : list of matrix, shape (batch_size, n)
        """
        bounds = np.cumsum([0, *self.sizes])
        here = {self.param: params, self.gradient: gradient}
        for state, (first, last) in zip(self.updates, itertools.pairwise(bounds)):
            shape = state.get_value(borrow=True).shape
            columns = kept[:, first]
            if shape:
                columns = kept[:, first:last].reshape((n_slots(kept), *shape))
            here[state] = columns.astype(state.type.dtype)
        change, *new = vectorize_graph([self.change, *self.updates.values()], here)
        return change, [
            as_columns(after, np.shape(key.get_value(borrow=True)), kept)
            for key, after in zip(self.updates, new)
        ]


def as_columns(new: Variable, shape: Sequence[int], lines: Variable) -> Variable:
    r"""Write values of the rows of a batch as columns of `lines`; they may be the same for all rows.

    Parameters
    ----------
    new : TensorVariable, shape (batch_size, \*shape), or one that broadcasts to it
    shape : sequence of int
        Of the values of one row.
    lines : matrix, shape (batch_size, n_columns)
        It says how many rows there are, and of which dtype.
    """
    n = n_slots(lines)
    new = pt.broadcast_to(new, (n, *shape))
    return new.reshape((n, int(np.prod(shape)))).astype(lines.type.dtype)


def n_slots(lines: Variable) -> Any:
    """Tell how many rows a batch has: a number, but for those that are fed, which may be any."""
    static = lines.type.shape[0]
    return lines.shape[0] if static is None else static


def _check(
    link: Optimizer,
    param: SharedVariable,
    change: Variable,
    updates: Mapping[SharedVariable, Variable],
) -> None:
    if change.owner is not None and change.owner.inputs == [param, param]:
        raise TypeError(
            f"The optimizer {link!r} has to return updates of the parameters that it "
            f"is given, a dict with {param} among its keys; it has {list(updates)}."
        )
    for state in updates:
        if not isinstance(state.type, TensorType) or state.type.numpy_dtype.kind not in "biuf":
            raise TypeError(
                f"The optimizer {link!r} keeps {state} of type {state.type}, of which "
                "each row cannot have its own: rows keep numbers only. Use one of PyMC's, such "
                "as pm.adam, for a model with latent variables on a subsampled dim."
            )


def _row_form(link: Optimizer) -> Optimizer:
    """Return a link that can be computed for many rows at once: for PyMC's default, another."""
    if not isinstance(link, FunctionOptimizer):
        return link
    function: Any = link.function
    arguments = function.keywords if isinstance(function, partial) else {}
    if (function.func if isinstance(function, partial) else function) is not adagrad_window:
        return link
    return replace(link, function=partial(_adagrad_window, **arguments))


def _adagrad_window(
    grads: Sequence[Variable],
    params: Sequence[SharedVariable],
    learning_rate: float | Variable = 0.001,
    epsilon: float = 0.1,
    n_win: int = 10,
) -> dict[SharedVariable, Variable]:
    """Compute :func:`pymc.adagrad_window`, with the window's entry chosen by comparison.

    The release's sets one entry, which for rows at different entries would be a loop over rows.
    """
    updates: dict[SharedVariable, Variable] = {}
    for param, grad in zip(params, grads, strict=True):
        start = param.get_value(borrow=True)
        window = pytensor.shared(
            np.zeros((*start.shape, n_win), start.dtype), shape=(*start.shape, n_win)
        )
        place = pytensor.shared(np.zeros((), start.dtype))
        new = pt.switch(pt.eq(pt.arange(n_win), place), grad[..., None] ** 2, window)
        updates[window] = new
        updates[place] = pt.switch(place + 1 < n_win, place + 1, 0)
        updates[param] = param - learning_rate * grad / pt.sqrt(new.sum(axis=-1) + epsilon)
    return updates


def _is_count(state: SharedVariable) -> bool:
    return state.type.ndim == 0 and state.type.numpy_dtype.kind in "iu"
