# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
from collections.abc import Mapping, Sequence
from functools import cached_property, partial, wraps
from typing import TYPE_CHECKING, Any

import numpy as np

from pytensor.graph.basic import Variable
from pytensor.tensor import as_tensor, as_tensor_variable
from pytensor.xtensor.type import XTensorVariable

import pymc._layer as _layer

from pymc.minibatch.array_data import check_integers
from pymc.minibatch.axis_tracking import Axes, Untracked, indexes
from pymc.minibatch.data_placeholder import as_streamed, check_batches, set_batch
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
from pymc.minibatch.potentials import potential_scale
from pymc.minibatch.scaling import marked, minibatch_logp
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


class _BaseModel:
    def logp(
        self: "Model",
        vars: Variable | Sequence[Variable] | None = None,
        jacobian: bool = True,
        sum: bool = True,
    ) -> Variable | list[Variable]:
        """Like the release's; the priors of local variables are scaled to all rows."""
        scales = {rv: local_scale(axes, marked(rv.name)) for rv, axes in local_axes(self).items()}
        if not scales:
            return super().logp(vars, jacobian=jacobian, sum=sum)  # type: ignore[misc]
        if vars is None:
            vars = [*self.free_RVs, *self.observed_RVs, *self.potentials]
        variables = list(vars) if isinstance(vars, list | tuple) else [vars]
        terms = super().logp(variables, jacobian=jacobian, sum=False)  # type: ignore[misc]
        for k, var in enumerate(variables):
            scale = scales.get(self.values_to_rvs.get(var, var))
            if scale is not None:
                terms[k] = scaled_term(terms[k], scale)
        if not sum:
            return terms
        total = released.variadic_add(
            *(as_tensor(term, allow_xtensor_conversion=True).sum() for term in terms)
        )
        total.name = "_".join(
            ["__logp" if jacobian else "__logp_nojac", *filter(None, [self.name])]
        )
        return total

    def set_data(
        self: "Model", name: str, values: object, coords: dict[str, Sequence] | None = None
    ) -> None:
        """Like the release's; the placeholder of a loader takes any number of rows."""
        if not set_batch(self, name, values, coords):
            check_integers(self, name, values)
            super().set_data(name, values, coords)  # type: ignore[misc]

    @minibatch_logp()
    def point_logps(self: "Model", *args: object, **kwargs: object) -> dict[str, Any]:
        """Like the release's; of one batch, scaled to all rows."""
        return super().point_logps(*args, **kwargs)  # type: ignore[misc]

    @minibatch_logp()
    def debug(self: "Model", *args: object, **kwargs: object) -> None:
        """Like the release's; of one batch."""
        super().debug(*args, **kwargs)  # type: ignore[misc]

    @minibatch_logp()
    def profile(self: "Model", *args: object, **kwargs: object) -> Any:
        """Like the release's; of one batch."""
        return super().profile(*args, **kwargs)  # type: ignore[misc]


def _axes_so_far(model: "Model") -> Mapping[Variable, Axes | Untracked]:
    """Return :func:`known_axes` once a term has rows; before, looking only slows down large models."""
    return known_axes(model) if model.root._minibatch_indexes else {}


class _Model:
    # Notes of what the graphs of a model say; `model_from_fgraph` fills them anew for each clone

    @cached_property
    def _minibatch_indexes(self) -> list[Variable]:
        return []

    @cached_property
    def _streams(self) -> dict[str, Variable]:  # streamed rows by name of their placeholder
        return {}

    def register_rv(
        self: "Model",
        rv_var: Variable,
        name: str,
        *,
        observed: Any = None,
        total_size: Any = None,
        dims: Sequence[str] | None = None,
        **kwargs: object,
    ) -> Variable:
        rv_var, observed = as_streamed(self, rv_var), as_streamed(self, observed)
        register = partial(super().register_rv, name=name, dims=dims)  # type: ignore[misc]
        full_name = self.name_for(name)
        if observed is not None:
            totals = self._observed_totals(rv_var, full_name, observed, total_size, dims)
            return register(rv_var, observed=observed, total_size=totals, **kwargs)
        kwargs["initval"] = as_streamed(self, kwargs.get("initval"))
        for index in indexes([rv_var]):
            note_index(self, index)
        plates, known = subsampled_dims(self), _axes_so_far(self)
        check_free_variable(rv_var, full_name, dims, plates, known)
        rows = axes_of_dims(dims or (), plates)
        if not any(rows):
            return register(rv_var, total_size=total_size, **kwargs)
        shape = local_shape(self, dims or ())
        kwargs["initval"] = batch_initval(kwargs["initval"], full_name, rows, shape, known)
        new = register(rv_var, total_size=total_size, **kwargs)
        value, transform = self.rvs_to_values[new], self.rvs_to_transforms[new]
        axes = value_axes(as_axes(rows), value)
        check_log_probability(full_name, new, value, axes, known=known, transform=transform)
        return new

    def _observed_totals(
        self: "Model",
        rv_var: Variable,
        name: str,
        observed: Any,
        total_size: Any,
        dims: Sequence[str] | None,
    ) -> list | None:
        """Return the total of each axis of an observed variable; None if no axis has one."""
        if isinstance(observed, Variable):
            check_observed(observed)
        graphs = [var for var in (rv_var, observed) if isinstance(var, Variable)]
        for index in indexes(graphs):
            note_index(self, index)
        plates, known = subsampled_dims(self), _axes_so_far(self)
        found = indexes(graphs, known=known)
        if found:
            value = observed
            if not isinstance(observed, Variable):
                value = as_tensor_variable(np.ma.getdata(observed))
            warn_of_unsigned([rv_var, value], name)
            term = Term(name, rv_var, value, dims, plates, self.dim_lengths, known)
            totals = infer_totals(term, total_size)
            for dim, total in zip(dims or (), totals):
                if dim not in self.dim_lengths and total is not None:
                    self.add_coord(dim, values=None, length=total)
        else:
            check_not_on_plate(repr(name), dims, plates)
            totals = normalize_total_size(total_size, np.ndim(observed), name)
            if not isinstance(observed, Variable):
                check_not_fewer(name, totals, np.shape(observed))
        return None if all(total is None for total in totals) else totals

    def make_obs_var(
        self,
        rv_var: Variable,
        data: Any,
        dims: Sequence[str] | None,
        default_transform: object,
        transform: object,
        total_size: list | None,
    ) -> Variable:
        # Scaled here and not in the release's branch, which has none for imputed values
        if total_size is not None:
            from pymc.variational.minibatch_rv import scaled_rv

            rv_var = scaled_rv(rv_var, total_size)
            if isinstance(data, XTensorVariable):
                data = data.values
        return super().make_obs_var(  # type: ignore[misc]
            rv_var, data, dims, default_transform, transform, None
        )


released = _layer.run_release(globals(), BaseModel=_BaseModel, Model=_Model)

if TYPE_CHECKING:
    # What our modules use of the release's
    type Model = Any

    def modelcontext(model: Any) -> Any: ...


@wraps(released.set_data)
def set_data(
    new_data: Mapping[str, Any],
    model: "Model | None" = None,
    *,
    coords: dict[str, Sequence] | None = None,
) -> None:
    model = released.modelcontext(model)
    numbers = check_batches(model, new_data)
    released.set_data(new_data, model, coords=coords)
    for rows, found in numbers.items():
        rows.state.set_value(found)  # type: ignore[attr-defined]


@wraps(released.Deterministic)
def Deterministic(
    name: str, var: Variable, model: "Model | None" = None, dims: str | Sequence[str] | None = None
) -> Variable:
    model = released.modelcontext(model)
    return released.Deterministic(name, as_streamed(model, var), model=model, dims=dims)


def Potential(
    name: str,
    var: Variable,
    model: "Model | None" = None,
    dims: str | Sequence[str] | None = None,
    total_size: Any = None,
) -> Variable:
    """Add an arbitrary term to the model log-probability.

    Parameters
    ----------
    name : str
        Name of the potential variable to be registered in the model.
    var : tensor_like
        Expression to be added to the model's log-probability, in nats. Of a minibatch: a value for
        each row, or with `total_size` their sum over the batch.
    model : Model, optional
        The model to which the potential is added; by default the one of the context.
    dims : str or tuple of str, optional
        Dimension names for the variable. With an axis of rows of a minibatch, they say that the term
        is a sum over rows, so that it is scaled to all rows.
    total_size : int, or sequence of int, None or Ellipsis, optional
        How many rows there are in all, along the leading axis or along each one; for a scalar, the
        rows that it is a sum over. Only needed where `dims` cannot say it. Both multiply the term by
        N/B, which has no place in `var` then.

    Returns
    -------
    tensor_like
        The registered, named model variable: `var`, scaled to all rows.

    Raises
    ------
    ValueError
        If `var` depends on a minibatch and neither `dims` nor `total_size` are given, its rows are
        mixed, it is multiplied by N/B already, or `total_size` contradicts the data.

    Warnings
    --------
    Potential terms influence logp-based inference only, and not forward sampling like
    ``pm.sample_prior_predictive`` or ``pm.sample_posterior_predictive``.

    Examples
    --------
    A constraint:

    >>> import numpy as np
    >>> import pymc as pm
    >>> with pm.Model():
    ...     x = pm.Normal("x")
    ...     positive = pm.Potential("positive", pm.math.switch(x > 0, 0.0, -np.inf))

    A term of a minibatch:

    >>> data = np.random.default_rng(1).normal(size=1000)
    >>> with pm.Model(coords={"obs": range(1000)}) as model:
    ...     batch = pm.Minibatch(data, batch_size=10)
    ...     mu = pm.Normal("mu")
    ...     loss = pm.Potential("loss", -abs(batch - mu), dims="obs")
    """
    model = released.modelcontext(model)
    var = as_streamed(model, var)
    known = known_axes(model)
    found = indexes([var], known=known)
    for index in found:
        note_index(model, index)
    if found:
        warn_of_unsigned([var], model.name_for(name))
    scale = potential_scale(
        var,
        total_size,
        name=model.name_for(name),
        dims=[dims] if isinstance(dims, str) else dims,
        known=known,
        is_handwritten=True,
    )
    return released.Potential(name, var if scale is None else var * scale, model=model, dims=dims)
