# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Means and standard deviations of a guided approximation, and what goes wrong at its mean."""

from __future__ import annotations

import warnings

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pytensor.tensor as pt
import xarray as xr

from pytensor.graph.basic import Variable

from pymc.backends.arviz import coords_and_dims_for_inferencedata, dict_to_dataset
from pymc.model.full_data import shape_only_model
from pymc.model.transform_values import constrain_values
from pymc.variational.guides.base import Guide, Latents, Plate
from pymc.variational.objectives.base import own_space
from pymc.variational.opvi import VIState  # type: ignore[attr-defined]  # the release's
from pymc.variational.posterior.draw import (
    RowFunction,
    draw_guides,
    row_axes,
    row_params,
)
from pymc.variational.posterior.select import RowSelection, select_rows
from pymc.variational.vectorize import at_draws, at_each_draw, at_one_draw

if TYPE_CHECKING:
    from pymc.model.core import Model

__all__ = [
    "bad_terms",
    "flat_covariance",
    "flat_moments",
    "moments_data",
    "sampled_nodes",
    "state_of",
]

# A message says what it finds in so many rows
_ROWS_OF_A_MESSAGE = 100_000


def flat_moments(approx: Any) -> tuple[Variable, Variable]:
    """Means and standard deviations of all rows on the unconstrained space, as symbolic vectors.

    Raises
    ------
    NotImplementedError
        If a guide has none that are known.
    """
    param_values = approx.storage.param_values(
        {plate: t.shared[:, : t.n_params] for plate, t in approx.storage.tables.items()}
    )
    means, sds = zip(*(guide.moments(param_values) for guide in approx.guides))
    return tuple(
        each[0]
        if len(each) == 1 and each[0].type.ndim == 1
        else pt.concatenate([x.ravel() for x in each])
        for each in (means, sds)
    )


def flat_covariance(approx: Any) -> Variable:
    """Covariance on the unconstrained space, as a symbolic matrix: zero between guides.

    Raises
    ------
    NotImplementedError
        If a guide has none that is known, or there are variables of rows.
    """
    of_rows = [site.name for site in approx.sites if site.plate]
    if of_rows:
        raise NotImplementedError(
            f"approx.cov of all rows of {', '.join(map(repr, of_rows))} would be a matrix of rows by rows, of "
            "which the guide has the diagonal: take approx.std, or the covariance of draws"
        )
    found = [guide.covariance(approx.storage.param_values({})) for guide in approx.guides]
    return found[0] if len(found) == 1 else pt.linalg.block_diag(*found)


def moments_data(approx: Any) -> tuple[xr.Dataset, xr.Dataset]:
    """Means and standard deviations of all rows, by variable, with their coords."""
    guides = [guide for guide in approx.guides if guide.has_moments]
    left_out = [site.name for guide in approx.guides if guide not in guides for site in guide.sites]
    if left_out:
        warnings.warn(
            f"The guide of {', '.join(map(repr, left_out))} has no mean in closed form: it is left out here. "
            f"Take that of draws, approx.sample(var_names={left_out})",
            stacklevel=3,
        )
    params = row_params(approx)
    param_values = approx.storage.param_values(params)
    parts = [
        guide.values((part,), 0)
        for which in (0, 1)
        for guide in guides
        for part in [guide.moments(param_values)[which]]
    ]
    outputs = [value for values in parts for value in values.values()]
    names = [site.value.name for values in parts for site in values]
    found = list(zip(names, at_rows(approx, outputs, params)))
    half = len(found) // 2
    full = shape_only_model(approx.model)
    return _dataset(full, dict(found[:half])), _dataset(full, dict(found[half:]))


def at_rows(
    approx: Any,
    outputs: Sequence[Variable],
    params: Mapping[Plate, Variable],
    selection: RowSelection | None = None,
) -> list[np.ndarray]:
    """Compute graphs of parameters at rows, all by default."""
    rows = selection or select_rows(approx.model, row_axes(approx), None)
    function = RowFunction.of(approx, outputs, pt.lscalar(), params, mode="FAST_COMPILE")
    return function(1, rows)


def _dataset(model: Model, arrays: Mapping[str, np.ndarray]) -> xr.Dataset:
    coords, dims = coords_and_dims_for_inferencedata(model)
    for rv in model.free_RVs:
        value = model.rvs_to_values[rv]
        array = arrays.get(value.name)
        if array is not None and rv.name in dims:
            # A transform may change the length of the last axes
            lengths = [len(coords[d]) if d in coords else None for d in dims[rv.name]]
            dims[value.name] = [
                dim if n in (None, have) else f"{value.name}_dim_{k}"
                for k, (dim, n, have) in enumerate(zip(dims[rv.name], lengths, array.shape))
            ]
    return dict_to_dataset(arrays, coords=coords, dims=dims, sample_dims=[])


def state_of(approx: Any) -> Any:
    """Map means and standard deviations to the variables' own spaces, as PyMC does."""
    model = shape_only_model(approx.model)
    unconstrained = moments_data(approx)
    constrained = []
    for dataset in unconstrained:
        if not dataset.data_vars:  # no guide has any
            constrained.append(dataset)
            continue
        # Values of guides without moments are unknown, and what depends on them is
        unknown = {
            rv.name: model.rvs_to_values[rv].name
            for rv in model.free_RVs
            if model.rvs_to_values[rv].name not in dataset
        }
        point = model.initial_point() if unknown else {}
        filled = dataset.assign(
            {
                name: (
                    [f"{name}_dim_{k}" for k in range(np.ndim(point[name]))],
                    point[name] * np.nan,
                )
                for name in unknown.values()
            }
        )
        own = constrain_values(
            filled.expand_dims("__sample__"),
            model=model,
            sample_dims=("__sample__",),
            compile_kwargs={"mode": "FAST_COMPILE"},
        ).squeeze("__sample__", drop=True)
        own = own[[name for name in own.data_vars if name not in unknown]]
        if approx.include_transformed:
            own = own.merge(dataset, compat="override")
        constrained.append(own)
    return VIState(mean=constrained[0], std=constrained[1])


def bad_terms(approx: Any) -> list[tuple[str, float]]:
    """List terms of the model that are not finite at the mean of the guides, of up to 100,000 rows."""
    params = row_params(approx)
    try:
        draws = draw_guides(approx, params, (), means_of(approx, params))
        logps = at_one_draw([term.logp for term in approx.terms], draws.values())
        whole = select_rows(approx.model, row_axes(approx), None)
        first = {rows: at[:_ROWS_OF_A_MESSAGE] for rows, at in whole.positions.items()}
        selection = RowSelection(first, whole.totals)
        found = at_rows(approx, [x.sum() for x in logps], params, selection)
    # Something else may be wrong with a model that gives no number, and this is a message only
    except Exception:
        return []
    pairs = zip(approx.terms, found)
    return [(term.name, float(value)) for term, value in pairs if not np.isfinite(value)]


def sampled_nodes(approx: Any, nodes: list[Variable], size: Any, deterministic: Any) -> list[Any]:
    """Put draws into nodes; `size` and `deterministic` are those of :meth:`Approximation.sample_node`."""
    for table in approx.storage.tables.values():
        table.check_known()
    sample_shape = () if size is None else (size,)
    params = approx.storage.of_batch()
    if isinstance(deterministic, Variable):
        fed = means_of(approx, params, sample_shape, deterministic)
    else:
        fed = means_of(approx, params, sample_shape) if deterministic else {}
    values = draw_guides(approx, params, sample_shape, fed).values()
    free = approx.model.free_RVs
    replaced = {**values, **own_space(approx.model, free, values)}
    return at_each_draw(nodes, replaced, size) if sample_shape else at_draws(nodes, replaced)


def means_of(
    approx: Any,
    params: Mapping[Any, Variable],
    sample_shape: tuple[Any, ...] = (),
    deterministic: Variable | None = None,
) -> dict[Guide, Latents]:
    """Return the means of guides, or draws where the scalar `deterministic` is 0.

    Raises
    ------
    NotImplementedError
        If a guide has no mean that is known.
    """
    param_values = approx.storage.param_values(params)
    latents = {}
    for guide in approx.guides:
        mean = guide.moments(param_values)[0]
        if sample_shape:
            shape = (mean.shape[k] for k in range(mean.type.ndim))
            mean = pt.broadcast_to(mean, (*sample_shape, *shape))
        if deterministic is not None:
            mean = pt.switch(deterministic, mean, guide.draw(param_values, sample_shape, {})[0])
        latents[guide] = (mean,)
    return latents
