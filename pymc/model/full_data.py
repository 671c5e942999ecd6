# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Full-data models, for functions that cannot use a minibatch.

A streamed model, whose batches come from a loader, has no full data in memory. It becomes a model of
the rows that `pm.set_data` gave it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from inspect import signature
from typing import Any, ParamSpec, TypeVar

import numpy as np
import pytensor.tensor as pt
import xarray as xr

from pytensor.graph.basic import Variable
from pytensor.graph.fg import FunctionGraph

from pymc.minibatch.axis_tracking import Rows, indexes
from pymc.minibatch.data_placeholder import AvailableRows, require_rows
from pymc.minibatch.minibatch import axis_length
from pymc.minibatch.plates import local_axes, model_indexes
from pymc.minibatch.rebuild import FixedLengthError, rows_of_data
from pymc.minibatch.scaling import use_all_rows
from pymc.minibatch.stream_index import is_stream, needs_rows, streams_in
from pymc.model.core import Model, modelcontext
from pymc.model.fgraph import fgraph_from_model, sharing_data
from pymc.model.transform.minibatch import full_model, model_op, remove_minibatch
from pymc.pytensorf import current_length

P = ParamSpec("P")
R = TypeVar("R")


def is_streamed(model: Model) -> bool:
    """Return whether rows of `model` come from a loader."""
    return any(map(is_stream, model_indexes(model)))


def full_data_model(model: Model) -> Model:
    """Return `model` on all rows: itself where it has no minibatch.

    A streamed model becomes one of the rows that :func:`pymc.set_data` gave it.

    Raises
    ------
    ValueError
        If a streamed model was given no rows.
    """
    streams = [index for index in model_indexes(model) if is_stream(index)]
    if streams:
        return model_of_rows(model, {Rows(index): require_rows(model, index) for index in streams})
    return remove_minibatch(model) if model_indexes(model) else model


def shape_only_model(model: Model) -> Model:
    """Return `model` on all rows, for results that do not depend on data.

    The data of a stream, which are not in memory, are nan, or 0 where they are integers.
    """
    if not is_streamed(model):
        return full_data_model(model)
    fgraph = _graph_of(model)
    replacements: dict[Variable, Variable] = {}
    for index in indexes(fgraph.outputs, by_shape=True):
        if is_stream(index):
            rows = Rows(index)
            replacements[rows.state] = pt.arange(rows.total, dtype="int64")
    for var in streams_in(fgraph.outputs):
        total = Rows(var.owner.inputs[1]).total
        nothing = np.array(np.nan if var.type.dtype.startswith("float") else 0, var.type.dtype)
        lengths = [var.shape[k] for k in range(1, var.type.ndim)]
        replacements[var] = pt.alloc(nothing, total, *lengths)
    return full_model(fgraph, replacements=replacements)


def shown_model(model: Model) -> Model:
    """Return what to print of `model`: the model on all rows, or itself where there is none.

    A streamed model has the rows that its placeholders hold, whatever they are.
    """
    try:
        return full_model(_graph_of(model)) if is_streamed(model) else full_data_model(model)
    except FixedLengthError:
        return model


def model_of_rows(
    model: Model,
    held: Mapping[Rows, AvailableRows],
    swaps: Mapping[Variable, Variable] | None = None,
    coords: Mapping[str, Sequence[Any] | None] | None = None,
) -> Model:
    """Make a model of some rows, and of these alone, whose terms are not scaled.

    `held` has the rows of each dim that has others than all, `swaps` replacements for data of the model,
    and `coords` those of other dims, which have all of their rows. The values of data that stay are shared.
    """
    fgraph = _graph_of(model)
    fgraph._coords.update(coords or {})
    for rows, rows_held in held.items():
        if rows.dim is not None:
            fgraph._coords[rows.dim] = rows_held.coords
            fgraph._dim_lengths[rows.dim] = pt.constant(len(rows_held.numbers), dtype="int64")
    # The graph has copies of the row numbers, which are known by name
    lengths = {rows.state.name: len(rows_held.numbers) for rows, rows_held in held.items()}
    states = [Rows(i).state for i in indexes(fgraph.outputs, by_shape=True) if is_stream(i)]
    numbers = {state: pt.constant(np.arange(lengths[state.name])) for state in states}
    return full_model(fgraph, replacements={**(swaps or {}), **numbers})


def model_without_rows(model: Model) -> Model:
    """Make a model of the variables that do not depend on the data of a stream."""
    fgraph = _graph_of(model)
    kept = [
        output
        for output in fgraph.outputs
        if model_op(output).name not in fgraph._streams and not needs_rows(output)
    ]
    return full_model(fgraph, kept)


def _graph_of(model: Model) -> FunctionGraph:
    with sharing_data():
        fgraph, _ = fgraph_from_model(model)
    fgraph._coords = fgraph._coords.copy()  # those of some rows are not the model's
    for rows in map(Rows, filter(is_stream, model_indexes(model))):
        labels = fgraph._coords.get(rows.dim)
        if labels is not None and len(labels) != current_length(rows.total):
            fgraph._coords[rows.dim] = None  # of rows that pm.set_data gave
    return fgraph


def on_all_rows(function: Callable[P, R]) -> Callable[P, R]:
    """Give `function` the full-data model in place of a `model` with minibatches."""
    parameters = signature(function)

    @wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        bound = parameters.bind(*args, **kwargs)
        model = modelcontext(bound.arguments.get("model"))
        full = full_data_model(model)
        if full is model:
            return function(*args, **kwargs)
        bound.arguments["model"] = full
        if is_streamed(model):
            _check_rows_of_draws(model, full, bound.arguments)
        try:
            with sharing_data():
                return function(*bound.args, **bound.kwargs)
        except ValueError as error:
            _check_lengths(f"pm.{function.__name__}", model, error)
            raise

    return wrapper


def refuse_minibatch(name: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Make a function raise a ValueError for a `model` with minibatches.

    Such a function compares log-probabilities, and needs one throughout. `name` is its name for users.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        parameters = signature(function)

        @wraps(function)
        def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
            model = modelcontext(parameters.bind(*args, **kwargs).arguments.get("model"))
            for index in model_indexes(model):
                instead = use_all_rows(index, f"{name}(..., model=pm.remove_minibatch(model))")
                raise ValueError(
                    f"{name} compares log-probabilities at different points, but those of this model "
                    f"are of other rows at each evaluation ({Rows(index)}), so its result would be "
                    f"wrong. {instead}"
                )
            return function(*args, **kwargs)

        return wrapper

    return decorate


def _check_lengths(what: str, model: Model, cause: ValueError) -> None:
    """Raise a ValueError that names the data of one index whose lengths differ, if there are such."""
    lengths_by_index: dict[Rows, dict[Variable, int]] = {}
    terms = [*model.basic_RVs, *model.rvs_to_values.values(), *model.potentials]
    for data, axes in rows_of_data([*terms, *model.deterministics]).items():
        for axis, rows in axes.items():
            length = current_length(axis_length(data, axis))
            if length is not None and not is_stream(rows):
                lengths_by_index.setdefault(rows, {})[data] = length
    for lengths in lengths_by_index.values():
        if len(set(lengths.values())) > 1:
            names = {data: "an array" if data.name is None else repr(data.name) for data in lengths}
            listed = ", ".join(f"{names[data]} has {n}" for data, n in lengths.items())
            settable = [data.name for data in lengths if data in model.data_vars]
            values = ", ".join(f"{name!r}: ..." for name in settable)
            arrays = "" if len(settable) == len(lengths) else ", and put arrays into pm.Data for it"
            raise ValueError(
                f"{what} needs all rows, but data of the same rows differ in length: {listed}. Give all of "
                f"them one number of rows, by pm.set_data({{{values}}}){arrays}. Observed values that are "
                "not known, as in predictions, may be zeros"
            ) from cause


def _check_rows_of_draws(model: Model, given: Model, arguments: Mapping[str, Any]) -> None:
    """Raise a ValueError if draws of local variables are of other rows than those of `given`."""
    draws = next((arguments[k] for k in ("trace", "idata", "dataset") if k in arguments), None)
    posterior = draws.posterior if isinstance(draws, xr.DataTree) else draws
    drawn_vars = posterior.data_vars if isinstance(posterior, xr.Dataset | xr.DataTree) else {}
    for rv, axes in local_axes(model).items():
        drawn = drawn_vars.get(rv.name)
        for dim in (rows.dim for rows in axes if rows is not None and is_stream(rows)):
            if drawn is not None and dim is not None and dim in drawn.sizes:
                n_rows = int(given.dim_lengths[dim].eval())
                _check_rows_of_dim(rv.name, dim, drawn, n_rows, given.coords.get(dim))


def _check_rows_of_dim(
    name: str, dim: str, drawn: xr.DataArray, n_rows: int, labels: Sequence[Any] | None
) -> None:
    drawn_labels = drawn.coords[dim].values.tolist() if dim in drawn.coords else None
    same_labels = None in (drawn_labels, labels) or drawn_labels == list(labels or ())
    if drawn.sizes[dim] != n_rows or not same_labels:
        raise ValueError(
            f"the draws of {name!r} are of {drawn.sizes[dim]} rows of the dim {dim!r}, and not of the "
            f"{n_rows} that pm.set_data gave the model. Take draws of these rows, such as "
            f"approx.sample(rows=batch.rows) or draws.isel({dim}=batch.rows), in their order"
        )
    if labels is None and drawn_labels not in (None, list(range(n_rows))):
        some = ", ".join(map(repr, drawn_labels[:3])) + (", ..." if len(drawn_labels) > 3 else "")
        raise ValueError(
            f"the draws of {name!r} are of the rows {some} of the dim {dim!r}. The rows that pm.set_data "
            "gave the model have no numbers, so they may be other ones. Give it the loader's own batch, "
            f"or name the rows as the draws do: pm.set_data(..., coords={{{dim!r}: [...]}})"
        )
