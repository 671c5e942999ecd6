# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""What functions that take a model do with one that has minibatches: use all rows, or refuse.

The model's modules import the ones that these functions are in, so they are imported when called.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from inspect import signature
from typing import TYPE_CHECKING, Any

import xarray as xr

from pytensor.graph.basic import Variable

from pymc.minibatch.batch_logp import use_all_rows
from pymc.minibatch.current_length import current_length
from pymc.minibatch.plates import local_axes, model_indexes
from pymc.minibatch.provenance import Rows
from pymc.minibatch.rebuild import FixedLengthError, rows_of_data
from pymc.minibatch.slicing import axis_length
from pymc.minibatch.stream import is_stream

if TYPE_CHECKING:
    from pymc.model.core import Model

__all__ = [
    "every_row",
    "full_data_model",
    "is_streamed",
    "on_all_rows",
    "refuse_minibatch",
    "shown_model",
]


def full_data_model(model: Model) -> Any:
    """Return `model` on all rows: itself where it has no minibatch.

    A streamed model becomes one of the rows that :func:`pymc.set_data` gave it.

    Raises
    ------
    ValueError
        If it gave none.
    """
    from pymc.model.transform.minibatch import remove_minibatch
    from pymc.model.transform.stream import given_model

    if is_streamed(model):
        return given_model(model)
    return remove_minibatch(model) if model_indexes(model) else model


def every_row(model: Model) -> Any:
    """Return `model` on all rows, for what does not depend on their data: a stream has none at hand."""
    from pymc.model.transform.stream import every_row_model

    return every_row_model(model) if is_streamed(model) else full_data_model(model)


def is_streamed(model: Model) -> bool:
    """Tell whether rows of `model` come from a loader."""
    return any(map(is_stream, model_indexes(model)))


def shown_model(model: Model) -> Any:
    """Return what to print of `model`: the model on all rows, or itself where there is none."""
    from pymc.model.transform.stream import held_model

    try:
        return held_model(model) if is_streamed(model) else full_data_model(model)
    except FixedLengthError:
        return model


def on_all_rows[**P, R](function: Callable[P, R]) -> Callable[P, R]:
    """Give `function` the full-data model in place of a `model` with minibatches."""
    parameters = signature(function)

    @wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        from pymc.model.core import modelcontext
        from pymc.model.fgraph import sharing_data

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
            if told := _of_lengths(f"pm.{function.__name__}", model):
                raise told from error
            raise

    return wrapper


def _of_lengths(what: str, model: Model) -> ValueError | None:
    """Say which data of `model` differ in length, where a computation on all rows has failed."""
    for lengths in _lengths_by_index(model).values():
        if len(set(lengths.values())) > 1:
            listed = ", ".join(f"{_named(data)} has {n}" for data, n in lengths.items())
            names = [data.name for data in lengths if data in model.data_vars]
            values = ", ".join(f"{name!r}: ..." for name in names)
            fixed = "" if len(names) == len(lengths) else ", and put arrays into pm.Data for it"
            return ValueError(
                f"{what} needs all rows, but data of the same rows differ in length: {listed}. Give all of "
                f"them one number of rows, by pm.set_data({{{values}}}){fixed}; observed values that are "
                "not known, as in predictions, may be zeros"
            )
    return None


def _named(data: Variable) -> str:
    return "an array" if data.name is None else repr(data.name)


def _lengths_by_index(model: Model) -> dict[Rows, dict[Variable, int]]:
    """Return the lengths of the data that each minibatch index takes rows of."""
    found: dict[Rows, dict[Variable, int]] = {}
    terms = [*model.basic_RVs, *model.rvs_to_values.values(), *model.potentials]
    for data, axes in rows_of_data([*terms, *model.deterministics]).items():
        for axis, rows in axes.items():
            length = current_length(axis_length(data, axis))
            if length is not None and not is_stream(rows):
                found.setdefault(rows, {})[data] = length
    return found


def _check_rows_of_draws(model: Model, given: Any, arguments: Mapping[str, Any]) -> None:
    """Raise where draws that a function takes are of other rows than those that the model was given.

    Raises
    ------
    ValueError
        The message names the variable, and says how to select its rows.
    """
    draws = next((arguments[name] for name in _DRAWS if name in arguments), None)
    posterior = draws.posterior if isinstance(draws, xr.DataTree) else draws
    drawn_of = posterior.data_vars if isinstance(posterior, xr.Dataset | xr.DataTree) else {}
    for rv, axes in local_axes(model).items():
        found = drawn_of.get(rv.name)
        for dim in (rows.dim for rows in axes if rows is not None and is_stream(rows)):
            if found is None or dim not in found.sizes:
                continue
            labels, n_rows = given.coords.get(dim), int(given.dim_lengths[dim].eval())
            alike, drawn = found.sizes[dim] == n_rows, None
            if alike and dim in found.coords:
                drawn = found.coords[dim].values.tolist()
                alike = labels is None or drawn == list(labels)
            if alike and labels is None and drawn not in (None, list(range(n_rows))):
                raise ValueError(
                    f"the draws of {rv.name!r} are of the rows {_some(drawn)} of the dim {dim!r}, and those "
                    "that pm.set_data gave the model came without their numbers, so that they may be "
                    "others. Give it the loader's own batch, or say which rows they are, as the draws do: "
                    f"pm.set_data(..., coords={{{dim!r}: [...]}})"
                )
            if not alike:
                raise ValueError(
                    f"the draws of {rv.name!r} are of {found.sizes[dim]} rows of the dim {dim!r}, and not of the "
                    f"{n_rows} that pm.set_data gave the model, for which this is. Take draws of these rows, "
                    f"such as approx.sample(rows=batch.rows) or draws.isel({dim}=batch.rows), in their order"
                )


def _some(labels: Sequence[Any] | None) -> str:
    first = ", ".join(map(repr, (labels or ())[:3]))
    return first if len(labels or ()) <= 3 else f"{first}, ..."


#: What functions of a model call the draws that they take.
_DRAWS = ("trace", "idata", "dataset")


def refuse_minibatch[**P, R](function: Callable[P, R], name: str | None = None) -> Callable[P, R]:
    """Make `function` refuse a `model` with minibatches: it needs one log-probability throughout.

    The function raises a ValueError that names the index and what to do; `name` is what users call it,
    by default ``pm`` and its name.
    """
    name = name or f"pm.{function.__name__}"
    parameters = signature(function)

    @wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        from pymc.model.core import modelcontext

        model = modelcontext(parameters.bind(*args, **kwargs).arguments.get("model"))
        found = model_indexes(model)
        if found:
            instead = use_all_rows(found[0], f"{name}(..., model=pm.remove_minibatch(model))")
            raise ValueError(
                f"{name} compares log-probabilities at different points, but those of this model "
                f"are of other rows at each evaluation ({Rows(found[0])}), so its result would be "
                f"wrong. {instead}"
            )
        return function(*args, **kwargs)

    return wrapper
