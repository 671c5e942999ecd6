# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Means and standard deviations of a fit, its draws in nodes of the model, and terms that are not finite."""

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
from pymc.variational.posterior.draw import RowFunction, draw_guides, row_axes, row_params
from pymc.variational.posterior.select import RowSelection, select_rows
from pymc.variational.vectorize import at_draws, at_each_draw, at_one_draw

if TYPE_CHECKING:
    from pymc.model.core import Model
    from pymc.variational.approximation import GuideApproximation

__all__ = [
    "bad_terms",
    "flat_covariance",
    "flat_moments",
    "moments_data",
    "sampled_nodes",
    "state_of",
]

# An error message reports terms of at most so many rows
ROWS_OF_A_MESSAGE = 100_000


def flat_moments(approx: GuideApproximation) -> tuple[Variable, Variable]:
    """Return means and standard deviations of all rows on the unconstrained space, as symbolic vectors."""
    tables = approx.storage.tables
    params = {plate: table.all_rows() for plate, table in tables.items()}
    param_values = approx.storage.param_values(params)
    means, sds = zip(*(guide.moments(param_values) for guide in approx.guides))
    return _flat(means), _flat(sds)


def _flat(moments: Sequence[Variable]) -> Variable:
    if len(moments) == 1 and moments[0].type.ndim == 1:
        return moments[0]
    return pt.concatenate([moment.ravel() for moment in moments])


def flat_covariance(approx: GuideApproximation) -> Variable:
    """Return the covariance on the unconstrained space, as a symbolic matrix: zero between guides."""
    of_rows = [site.name for site in approx.sites if site.plate]
    if of_rows:
        raise NotImplementedError(
            f"approx.cov of all rows of {', '.join(map(repr, of_rows))} would be a matrix of rows by rows, of "
            "which the guide has the diagonal: take approx.std, or the covariance of draws"
        )
    found = [guide.covariance(approx.storage.param_values({})) for guide in approx.guides]
    return found[0] if len(found) == 1 else pt.linalg.block_diag(*found)


def moments_data(approx: GuideApproximation) -> tuple[xr.Dataset, xr.Dataset]:
    """Return means and standard deviations of all rows, by variable, with their coords."""
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
    by_guide = [(guide, guide.moments(param_values)) for guide in guides]
    graphs = [
        {
            site.value.name: site.into(value, 0, np.nan)
            for site, value in guide.values((moments[k],), 0).items()
        }
        for k in (0, 1)
        for guide, moments in by_guide
    ]
    arrays = _at_rows(approx, [value for each in graphs for value in each.values()], params)
    found = list(zip((name for each in graphs for name in each), arrays))
    half = len(found) // 2
    full = shape_only_model(approx.model)
    return _dataset(full, dict(found[:half])), _dataset(full, dict(found[half:]))


def _at_rows(
    approx: GuideApproximation,
    outputs: Sequence[Variable],
    params: Mapping[Plate, Variable],
    selection: RowSelection | None = None,
) -> list[np.ndarray]:
    """Compute graphs of parameters at rows, all by default."""
    rows = selection or select_rows(approx.model, row_axes(approx), None)
    return RowFunction(approx, outputs, pt.lscalar(), params, mode="FAST_COMPILE")(1, rows)


def _dataset(model: Model, arrays: Mapping[str, np.ndarray]) -> xr.Dataset:
    coords, dims = coords_and_dims_for_inferencedata(model)
    for rv in model.free_RVs:
        value = model.rvs_to_values[rv]
        array = arrays.get(value.name)
        if array is not None and rv.name in dims:
            # A transform may change the length of the last axes
            lengths = [len(coords[d]) if d in coords else None for d in dims[rv.name]]
            dims[value.name] = [
                dim if n in (None, n_values) else f"{value.name}_dim_{k}"
                for k, (dim, n, n_values) in enumerate(zip(dims[rv.name], lengths, array.shape))
            ]
    return dict_to_dataset(arrays, coords=coords, dims=dims, sample_dims=[])


def state_of(approx: GuideApproximation) -> VIState:
    """Map means and standard deviations to the variables' own spaces, as PyMC does."""
    model = shape_only_model(approx.model)
    constrained = []
    for dataset in moments_data(approx):
        if not dataset.data_vars:  # no guide has any
            constrained.append(dataset)
            continue
        # Variables without moments are nan, and so are those that depend on them
        value_names = {rv.name: model.rvs_to_values[rv].name for rv in model.free_RVs}
        unknown = {rv: value for rv, value in value_names.items() if value not in dataset}
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


def bad_terms(approx: GuideApproximation) -> list[tuple[str, float]]:
    """List terms of the model that are not finite at the mean of the guides, of up to 100,000 rows."""
    params = row_params(approx)
    try:
        draws = draw_guides(approx, params, (), drawn=_means(approx, params))
        logps = at_one_draw([term.logp for term in approx.terms], draws.values())
        whole = select_rows(approx.model, row_axes(approx), None)
        first = {rows: at[:ROWS_OF_A_MESSAGE] for rows, at in whole.positions.items()}
        selection = RowSelection(first, whole.totals)
        found = _at_rows(approx, [logp.sum() for logp in logps], params, selection)
    # The terms only add to a message about another error, so no error of theirs may hide it
    except Exception:
        return []
    pairs = zip(approx.terms, found)
    return [(term.name, float(value)) for term, value in pairs if not np.isfinite(value)]


def sampled_nodes(
    approx: GuideApproximation, nodes: list[Variable], size: Any, deterministic: bool | Variable
) -> list[Variable]:
    """Put draws into nodes; `size` and `deterministic` are those of :meth:`Approximation.sample_node`."""
    for table in approx.storage.tables.values():
        table.check_known()
    sample_shape = () if size is None else (size,)
    params = approx.storage.of_batch(with_groups=False)
    switch = deterministic if isinstance(deterministic, Variable) else None
    drawn = {}
    if switch is not None or deterministic:
        drawn = _means(approx, params, sample_shape, switch)
    values = draw_guides(approx, params, sample_shape, drawn=drawn).values()
    replaced = {**values, **own_space(approx.model, approx.model.free_RVs, values)}
    return at_each_draw(nodes, replaced, size) if sample_shape else at_draws(nodes, replaced)


def _means(
    approx: GuideApproximation,
    params: Mapping[Plate, Variable],
    sample_shape: tuple[Any, ...] = (),
    switch: Variable | None = None,
) -> dict[Guide, Latents]:
    """Return the means of guides, or their draws where the scalar `switch` is 0."""
    param_values = approx.storage.param_values(params)
    latents: dict[Guide, Latents] = {}
    for guide in approx.guides:
        mean = guide.moments(param_values)[0]
        if sample_shape:
            shape = (mean.shape[k] for k in range(mean.type.ndim))
            mean = pt.broadcast_to(mean, (*sample_shape, *shape))
        if switch is not None:
            mean = pt.switch(switch, mean, guide.draw(param_values, sample_shape, {})[0])
        latents[guide] = (mean,)
    return latents
