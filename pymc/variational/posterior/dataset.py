# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Make ArviZ's datasets of draws: `sample`, `sample_chunks` and `sample_posterior_predictive` of a fit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from pymc.backends.arviz import (
    coords_and_dims_for_inferencedata,
    dict_to_dataset,
    find_constants,
    find_observations,
    to_inference_data,
)
from pymc.backends.base import MultiTrace
from pymc.backends.ndarray import NDArray
from pymc.sampling.deterministic import compute_deterministics
from pymc.variational.posterior.plan import Plan, Request, chosen
from pymc.variational.posterior.select import RowSelection
from pymc.variational.posterior.variables import (
    Output,
    latent_outputs,
    likelihood_outputs,
    observed_outputs,
)
from pymc.variational.results import add_fit

__all__ = ["posterior_chunks", "posterior_draws", "predictive_draws"]


def posterior_draws(
    approx: Any,
    draws: int,
    request: Request,
    *,
    return_inferencedata: bool = True,
    include_transformed: bool = False,
    include_data: bool | None = None,
    log_likelihood: bool | str | Sequence[str] = False,
    **kwargs: Any,
) -> Any:
    """Draw from an approximation; the arguments are those of `Approximation.sample`."""
    function = "approx.sample"
    chosen_parts = (request.rows, request.data, request.var_names)
    if kwargs and any(part is not None for part in chosen_parts):
        raise TypeError(
            f"{function} with rows=, data= or var_names= takes no {', '.join(kwargs)}, which are of "
            "pm.to_inference_data and need all rows and variables: leave them out, or take all"
        )
    known = latent_outputs(approx.model, include_transformed or not return_inferencedata)
    likelihoods = _likelihoods(approx, log_likelihood, function)
    plan = Plan.of(approx, draws, known, request, function, likelihoods=likelihoods)
    if request.var_names is None:
        plan = plan.without_large()
    likelihoods = plan.with_lengths(likelihoods)
    plan.check_memory(likelihoods)
    # What is computed over all rows needs all variables
    needed = [o for o in (known if plan.mixed else plan.outputs) if not o.mixed]
    arrays = plan.arrays([*needed, *likelihoods])
    dataset = _dataset(plan, {o.name: arrays[o.name] for o in needed})
    if plan.mixed:
        names = [output.name for output in plan.mixed]
        more = compute_deterministics(
            dataset, var_names=names, model=plan.full_model, progressbar=False
        )
        dataset = dataset.merge(more)
    dataset = dataset[[output.name for output in plan.outputs]]
    if not return_inferencedata:
        return _multi_trace(plan, dataset)
    groups = {"posterior": dataset}
    if likelihoods:
        groups["log_likelihood"] = _dataset(plan, {o.name: arrays[o.name] for o in likelihoods})
    if plan.has_data(include_data):
        groups |= _data_groups(plan)
    groups |= _other_groups(plan, dataset, kwargs)
    return add_fit(xr.DataTree.from_dict(groups), approx)


def posterior_chunks(approx: Any, draws: int, request: Request) -> Iterator[xr.Dataset]:
    """Draw, part by part; the arguments are those of `Approximation.sample_chunks`."""
    known = latent_outputs(approx.model)
    plan = Plan.of(approx, draws, known, request, "approx.sample_chunks", in_parts=True)
    return (_dataset(plan, arrays, rows) for _, rows, arrays in plan.parts(plan.outputs))


def predictive_draws(
    approx: Any, draws: int, request: Request, *, include_data: bool | None = None
) -> xr.DataTree:
    """Draw new data; the arguments are those of `Approximation.sample_posterior_predictive`."""
    function = "approx.sample_posterior_predictive"
    known = observed_outputs(approx.model)
    plan = Plan.of(approx, draws, known, request, function, in_parts=True, predictive=True)
    plan.check_memory()
    groups = {"posterior_predictive": _dataset(plan, plan.arrays(plan.outputs))}
    if plan.has_data(include_data):
        groups |= _data_groups(plan)
    return xr.DataTree.from_dict(groups)


def _likelihoods(
    approx: Any, log_likelihood: bool | str | Sequence[str], function: str
) -> list[Output]:
    """List the log-likelihoods that are asked for."""
    what = f"log_likelihood= of {function}"
    names: str | Sequence[str] | None
    if isinstance(log_likelihood, bool | np.bool_):
        if not log_likelihood:
            return []
        names = None
    elif isinstance(log_likelihood, str | Sequence):
        names = log_likelihood
    else:
        raise TypeError(
            f"{what} is {log_likelihood!r}, but has to be True, for those of all observed variables, False, "
            'or names of them, such as log_likelihood=["y"]'
        )
    found = chosen(likelihood_outputs(approx.model), names, what)
    for output in found:
        if output.mixed:
            raise ValueError(
                f"{what} is of each row, and those of {output.name!r} cannot be told "
                f"apart: {output.mixed}. Take pm.compute_log_likelihood of draws of all rows"
            )
    return found


def _other_groups(plan: Plan, dataset: xr.Dataset, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Make the groups that arguments of :func:`pymc.to_inference_data` ask for."""
    if not kwargs:
        return {}
    tree = to_inference_data(_multi_trace(plan, dataset), model=plan.full_model, **kwargs)
    ours = ("posterior", "observed_data", "constant_data")
    return {name: group.to_dataset() for name, group in tree.children.items() if name not in ours}


def _dataset(
    plan: Plan, arrays: Mapping[str, np.ndarray], rows: RowSelection | None = None
) -> xr.Dataset:
    """Give arrays of shape (draws, ...) a chain, dims and coords."""
    named = {name: array[None] for name, array in arrays.items()}
    coords, dims = coords_and_dims_for_inferencedata(plan.approx.model)
    coords |= plan.selection.data.coords
    rows = rows or plan.selection.computed
    for axis in rows.positions:
        if axis.dim is not None:
            coords[axis.dim] = rows.labels(axis, coords.get(axis.dim))
    return _at(dict_to_dataset(named, coords=coords, dims=dims), plan.selection.taken_later)


def _data_groups(plan: Plan) -> dict[str, xr.Dataset]:
    """Make the groups of observed and constant data of the rows that are selected."""
    model, missing = plan.data_model, plan.selection.data.missing
    observed, constant = find_observations(model), find_constants(model)
    if missing:  # without values
        own = plan.approx.model
        known = {rv.name: own.rvs_to_values[rv] for rv in own.observed_RVs}
        lacks = plan.selection.data.lacks
        observed = {name: x for name, x in observed.items() if not lacks([known[name]])}
        constant = {name: x for name, x in constant.items() if not lacks([own[name]])}
    coords, dims = coords_and_dims_for_inferencedata(model)
    groups = {}
    for group, data in (("observed_data", observed), ("constant_data", constant)):
        if data:
            found = dict_to_dataset(data, coords=coords, dims=dims, sample_dims=[])
            groups[group] = _at(found, plan.selection.by_dim)
    return groups


def _at(dataset: xr.Dataset, positions: Mapping[str, np.ndarray]) -> xr.Dataset:
    return dataset.isel({dim: at for dim, at in positions.items() if dim in dataset.sizes})


def _multi_trace(plan: Plan, dataset: xr.Dataset) -> MultiTrace:
    """Put draws into the form that PyMC had before ArviZ's."""
    arrays = {str(name): array.values[0] for name, array in dataset.items()}
    kept = [var for var in plan.full_model.unobserved_value_vars if var.name in arrays]
    trace = NDArray(
        model=plan.full_model,
        vars=kept,
        fn=lambda *values: values,
        var_shapes={var.name: arrays[var.name].shape[1:] for var in kept},
        var_dtypes={var.name: arrays[var.name].dtype for var in kept},
    )
    n_draws = dataset.sizes["draw"]
    trace.setup(n_draws, chain=0)
    trace.samples = {var.name: arrays[var.name] for var in kept}
    trace.draw_idx = n_draws
    trace.close()
    return MultiTrace([trace])
