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
from pymc.minibatch.batch_logp import marked, minibatch_logp
from pymc.minibatch.data_placeholder import as_streamed, check_batches, set_batch
from pymc.minibatch.observed import check_observed, warn_of_unsigned
from pymc.minibatch.plates import (
    axes_of_dims,
    batch_initval,
    check_free_variable,
    check_local_prior,
    known_axes,
    local_axes,
    local_scale,
    local_shape,
    note_index,
    scaled_term,
    subsampled_dims,
)
from pymc.minibatch.potentials import potential_scale
from pymc.minibatch.total_size import (
    Term,
    check_not_fewer,
    check_not_on_plate,
    infer_totals,
    normalize_total_size,
)


class _BaseModel:
    def logp(
        self: Any,
        vars: Variable | Sequence[Variable] | None = None,
        jacobian: bool = True,
        sum: bool = True,
    ) -> Variable | list[Variable]:
        """As the release's, and the priors of local variables are scaled to all rows."""
        scales = {rv: local_scale(axes, marked(rv.name)) for rv, axes in local_axes(self).items()}
        if not scales:
            return super().logp(vars, jacobian=jacobian, sum=sum)  # type: ignore[misc]
        if vars is None:
            vars = [*self.free_RVs, *self.observed_RVs, *self.potentials]
        asked = list(vars) if isinstance(vars, list | tuple) else [vars]
        terms = super().logp(asked, jacobian=jacobian, sum=False)  # type: ignore[misc]
        for k, var in enumerate(asked):
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
        self: Any, name: str, values: Any, coords: dict[str, Sequence] | None = None
    ) -> None:
        """As the release's; the placeholder of a stream takes any number of rows."""
        if not set_batch(self, name, values, coords):
            check_integers(self, name, values)
            super().set_data(name, values, coords)  # type: ignore[misc]

    # What is asked here is meant of one batch
    @minibatch_logp()
    def point_logps(self: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """As the release's; of a batch, scaled to all rows."""
        return super().point_logps(*args, **kwargs)  # type: ignore[misc]

    @minibatch_logp()
    def debug(self: Any, *args: Any, **kwargs: Any) -> None:
        """As the release's; of a batch."""
        super().debug(*args, **kwargs)  # type: ignore[misc]

    @minibatch_logp()
    def profile(self: Any, *args: Any, **kwargs: Any) -> Any:
        """As the release's; of a batch."""
        return super().profile(*args, **kwargs)  # type: ignore[misc]


class _Model:
    @cached_property
    def _minibatch_indexes(self) -> list[Variable]:
        return []

    @cached_property
    def _streams(self) -> dict[str, Variable]:
        """The placeholders of loaders by name, as rows of a stream; a note as the indexes are."""
        return {}

    def register_rv(
        self: Any,
        rv_var: Variable,
        name: str,
        *,
        observed: Any = None,
        total_size: Any = None,
        dims: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> Variable:
        full_name = self.name_for(name)
        rv_var, observed = as_streamed(self, rv_var), as_streamed(self, observed)
        check_prior = None
        if observed is None:
            kwargs["initval"] = as_streamed(self, kwargs.get("initval"))
            for index in indexes([rv_var]):
                note_index(self, index)
            plates, known = subsampled_dims(self), known_axes(self)
            free = [*self.root.free_RVs]
            check_free_variable(rv_var, full_name, dims, plates, known, free)
            if any(rows := axes_of_dims(dims or (), plates)):
                check_prior = partial(check_local_prior, rows=rows, known=known, free=free)
                lengths = local_shape(self, dims or ())
                kwargs["initval"] = batch_initval(
                    kwargs.get("initval"), full_name, rows, lengths, known
                )
        else:
            total_size = self._observed_totals(rv_var, full_name, observed, total_size, dims)
        new = super().register_rv(  # type: ignore[misc]
            rv_var, name, observed=observed, total_size=total_size, dims=dims, **kwargs
        )
        if check_prior is not None:
            transform = self.rvs_to_transforms[new]
            check_prior(new, full_name, self.rvs_to_values[new], transform)
        return new

    def _observed_totals(
        self: Any,
        rv_var: Variable,
        name: str,
        observed: Any,
        total_size: Any,
        dims: Sequence[str] | None,
    ) -> list | None:
        """Tell the total of each axis of an observed variable; None where there are none."""
        symbolic = isinstance(observed, Variable)
        if symbolic:
            check_observed(observed)
        known, free = _provenance(self)
        found = indexes([rv_var, *([observed] if symbolic else [])], known=known)
        for index in found:
            note_index(self, index)
        plates = subsampled_dims(self)
        if found:
            value = observed if symbolic else as_tensor_variable(np.ma.getdata(observed))
            warn_of_unsigned([rv_var, value], name)
            term = Term(name, rv_var, value, dims, plates, self.dim_lengths, known, free)
            totals = infer_totals(term, total_size)
            for dim, total in zip(dims or (), totals):
                if dim not in self.dim_lengths and total is not None:
                    self.add_coord(dim, values=None, length=total)
        else:
            check_not_on_plate(repr(name), dims, plates)
            totals = normalize_total_size(total_size, np.ndim(observed), name)
            if not symbolic:
                check_not_fewer(name, totals, np.shape(observed))
        return None if all(total is None for total in totals) else totals

    def make_obs_var(
        self,
        rv_var: Variable,
        data: Any,
        dims: Sequence[str] | None,
        default_transform: Any,
        transform: Any,
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


def _provenance(model: Any) -> tuple[dict[Variable, Axes | Untracked], list[Variable]]:
    """Axes that are known of the variables of `model`, and its free variables."""
    return known_axes(model), model.root.free_RVs


@wraps(released.set_data)
def set_data(new_data: Mapping[str, Any], model: Any = None, *, coords: Any = None) -> None:
    model = released.modelcontext(model)
    numbers = check_batches(model, new_data)
    released.set_data(new_data, model, coords=coords)
    for rows, found in numbers.items():
        rows.state.set_value(found)  # type: ignore[attr-defined]


@wraps(released.Deterministic)
def Deterministic(name: str, var: Any, model: Any = None, dims: Any = None) -> Variable:
    model = released.modelcontext(model)
    return released.Deterministic(name, as_streamed(model, var), model=model, dims=dims)


def Potential(
    name: str,
    var: Any,
    model: Any = None,
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
    known, free = _provenance(model)
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
        free=free,
        is_handwritten=True,
    )
    return released.Potential(name, var if scale is None else var * scale, model=model, dims=dims)
