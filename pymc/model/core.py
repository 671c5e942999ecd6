# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
from collections.abc import Mapping, Sequence
from functools import cached_property, wraps
from typing import TYPE_CHECKING, Any, TypeAlias

from pytensor.graph.basic import Variable
from pytensor.xtensor.type import XTensorVariable

import pymc._layer as _layer

from pymc._docstrings import extends_docstring
from pymc.minibatch.array_data import check_integers
from pymc.minibatch.axis_tracking import indexes
from pymc.minibatch.data_placeholder import as_streamed, check_batches, set_batch
from pymc.minibatch.plates import known_axes, note_index
from pymc.minibatch.potentials import potential_scale
from pymc.minibatch.registration import local_variable, observed_totals, scale_local_priors
from pymc.minibatch.scaling import minibatch_logp
from pymc.minibatch.total_size import warn_of_unsigned


class _BaseModel:
    @scale_local_priors
    def logp(
        self: "Model",
        vars: Variable | Sequence[Variable] | None = None,
        jacobian: bool = True,
        sum: bool = True,
    ) -> Variable | list[Variable]:
        return super().logp(vars, jacobian=jacobian, sum=sum)  # type: ignore[misc]

    def set_data(
        self: "Model", name: str, values: object, coords: dict[str, Sequence] | None = None
    ) -> None:
        if set_batch(self, name, values, coords):
            return
        check_integers(self, name, values)
        super().set_data(name, values, coords)  # type: ignore[misc]

    @minibatch_logp()
    def point_logps(self: "Model", *args: object, **kwargs: object) -> dict[str, Any]:
        return super().point_logps(*args, **kwargs)  # type: ignore[misc]

    @minibatch_logp()
    def debug(self: "Model", *args: object, **kwargs: object) -> Any:
        return super().debug(*args, **kwargs)  # type: ignore[misc]

    @minibatch_logp()
    def profile(self: "Model", *args: object, **kwargs: object) -> Any:
        return super().profile(*args, **kwargs)  # type: ignore[misc]


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
        **kwargs: Any,
    ) -> Variable:
        rv_var, observed = as_streamed(self, rv_var), as_streamed(self, observed)
        full_name, local = self.name_for(name), None
        if observed is not None:
            total_size = observed_totals(self, rv_var, full_name, observed, total_size, dims)
        else:
            local = local_variable(self, rv_var, full_name, dims)
            kwargs["initval"] = local.initval(as_streamed(self, kwargs.get("initval")))
        rv_var = super().register_rv(  # type: ignore[misc]
            rv_var, name, observed=observed, total_size=total_size, dims=dims, **kwargs
        )
        if local is not None:
            local.check(rv_var)
        return rv_var

    def make_obs_var(
        self,
        rv_var: Variable,
        data: Any,
        dims: Sequence[str] | None,
        default_transform: object,
        transform: object,
        total_size: list | None,
    ) -> Variable:
        # Of missing values, too: the observed ones are scaled, and not the imputed ones
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
    Model: TypeAlias = Any

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


@extends_docstring(released.Potential)
def Potential(
    name: str,
    var: Variable,
    model: "Model | None" = None,
    dims: str | Sequence[str] | None = None,
    total_size: Any = None,
) -> Variable:
    """A term of a minibatch is a sum over rows, by `dims` or `total_size`, and is scaled to all of them.

    Parameters
    ----------
    var : tensor_like
        In nats. Of a minibatch: a value for each row, or with `total_size` their sum over the batch.
    dims : str or tuple of str, optional
        With an axis of rows of a minibatch, they say that the term is a sum over rows.
    total_size : int, or sequence of int, None or Ellipsis, optional
        How many rows there are in all, along the leading axis or along each one; for a scalar, the
        rows that it is a sum over. Only needed where `dims` cannot say it. Both multiply the term by
        N/B, which has no place in `var` then.

    Raises
    ------
    ValueError
        If `var` depends on a minibatch and neither `dims` nor `total_size` are given, its rows are
        mixed, it is multiplied by N/B already, or `total_size` contradicts the data.

    Examples
    --------
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
    if scale is not None:
        var = var * scale
    return released.Potential(name, var, model=model, dims=dims)
