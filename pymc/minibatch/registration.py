# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Checks of a variable that is registered with a model: the rows that it has, and its totals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any

import numpy as np

from pytensor.graph.basic import Variable
from pytensor.tensor import as_tensor, as_tensor_variable
from pytensor.tensor.math import variadic_add

from pymc.minibatch.axis_tracking import Axes, KnownAxes, Rows, Untracked, indexes
from pymc.minibatch.plates import (
    as_axes,
    axes_of_dims,
    batch_initval,
    check_free_variable,
    known_axes,
    local_axes,
    local_scale,
    local_shape,
    note_index,
    scaled_term,
    subsampled_dims,
    value_axes,
)
from pymc.minibatch.scaling import marked
from pymc.minibatch.sum_over_rows import check_log_probability
from pymc.minibatch.total_size import (
    Term,
    check_not_fewer,
    check_not_on_plate,
    check_observed,
    infer_totals,
    normalize_total_size,
    warn_of_unsigned,
)

if TYPE_CHECKING:
    from pymc.model.core import Model

__all__ = ["LocalVariable", "local_variable", "observed_totals", "scale_local_priors"]


def _axes_so_far(model: Model) -> Mapping[Variable, Axes | Untracked]:
    """Return :func:`known_axes` once a term has rows; before, looking only slows down large models."""
    return known_axes(model) if model.root._minibatch_indexes else {}


@dataclass(frozen=True)
class LocalVariable:
    """A free variable that is about to be registered, with its rows if it has some."""

    model: Model
    name: str
    rows: Sequence[Rows | None]  # of each dim
    shape: Sequence[Variable | int]
    known: KnownAxes  # of what its prior may depend on

    def initval(self, initval: Any) -> Any:
        """Return its initial value for a batch; see :func:`.batch_initval`."""
        if not any(self.rows):
            return initval
        return batch_initval(initval, self.name, self.rows, self.shape, self.known)

    def check(self, rv: Variable) -> None:
        """Raise a ValueError if the prior, with the Jacobian, is not a sum over the rows."""
        if any(self.rows):
            value = self.model.rvs_to_values[rv]
            axes = value_axes(as_axes(self.rows), value)
            transform = self.model.rvs_to_transforms[rv]
            check_log_probability(self.name, rv, value, axes, known=self.known, transform=transform)


def local_variable(
    model: Model, rv: Variable, name: str, dims: Sequence[str] | None
) -> LocalVariable:
    """Return the rows of a free variable.

    Raises
    ------
    ValueError
        If it depends on rows that `dims` do not name.
    """
    for index in indexes([rv]):
        note_index(model, index)
    plates, known = subsampled_dims(model), _axes_so_far(model)
    check_free_variable(rv, name, dims, plates, known)
    rows = axes_of_dims(dims or (), plates)
    shape = local_shape(model, dims or ()) if any(rows) else ()
    return LocalVariable(model, name, rows, shape, known)


def observed_totals(
    model: Model,
    rv: Variable,
    name: str,
    observed: Any,
    total_size: Any,
    dims: Sequence[str] | None,
) -> list | None:
    """Return the total of each axis of an observed variable; None if no axis has one."""
    if isinstance(observed, Variable):
        check_observed(observed)
    graphs = [var for var in (rv, observed) if isinstance(var, Variable)]
    for index in indexes(graphs):
        note_index(model, index)
    plates, known = subsampled_dims(model), _axes_so_far(model)
    if indexes(graphs, known=known):
        value = observed
        if not isinstance(observed, Variable):
            value = as_tensor_variable(np.ma.getdata(observed))
        warn_of_unsigned([rv, value], name)
        term = Term(name, rv, value, dims, plates, model.dim_lengths, known)
        totals = infer_totals(term, total_size)
        for dim, total in zip(dims or (), totals):
            if dim not in model.dim_lengths and total is not None:
                model.add_coord(dim, values=None, length=total)
    else:
        check_not_on_plate(repr(name), dims, plates)
        totals = normalize_total_size(total_size, np.ndim(observed), name)
        if not isinstance(observed, Variable):
            check_not_fewer(name, totals, np.shape(observed))
    return None if all(total is None for total in totals) else totals


def scale_local_priors(logp: Callable[..., Any]) -> Callable[..., Any]:
    """Let `Model.logp` scale the priors of local variables to all rows."""

    @wraps(logp)
    def scaled(
        model: Model,
        vars: Variable | Sequence[Variable] | None = None,
        jacobian: bool = True,
        sum: bool = True,
    ) -> Variable | list[Variable]:
        scales = {rv: local_scale(axes, marked(rv.name)) for rv, axes in local_axes(model).items()}
        if not scales:
            return logp(model, vars, jacobian=jacobian, sum=sum)
        if vars is None:
            vars = [*model.free_RVs, *model.observed_RVs, *model.potentials]
        variables = list(vars) if isinstance(vars, list | tuple) else [vars]
        terms = logp(model, variables, jacobian=jacobian, sum=False)
        for k, var in enumerate(variables):
            scale = scales.get(model.values_to_rvs.get(var, var))
            if scale is not None:
                terms[k] = scaled_term(terms[k], scale)
        if not sum:
            return terms
        total = variadic_add(*(as_tensor(t, allow_xtensor_conversion=True).sum() for t in terms))
        name = "__logp" if jacobian else "__logp_nojac"
        total.name = f"{name}_{model.name}" if model.name else name
        return total

    return scaled
