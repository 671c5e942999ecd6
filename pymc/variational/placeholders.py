# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""From a loader to a batch feed: match its batches to the placeholders of a model."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pytensor.compile.sharedvalue import SharedVariable
from pytensor.graph.basic import Constant, Variable
from pytensor.graph.traversal import ancestors

from pymc.data_loading.batch import Position
from pymc.data_loading.data_loader import DataLoader, iterates_by_itself
from pymc.data_loading.loader import Loader, ReadBatches
from pymc.data_loading.sources.dataset import shuffles
from pymc.data_loading.sources.layout import Field
from pymc.minibatch.array_data import check_exact
from pymc.minibatch.axis_tracking import Rows
from pymc.minibatch.data_placeholder import available_rows, note_feed, unset_rows
from pymc.minibatch.plates import local_axes
from pymc.minibatch.stream_index import is_placeholder, loader_placeholders, streams_in
from pymc.pytensorf import current_length
from pymc.variational.engine.batch_feed import BatchFeed, FeedChunk
from pymc.variational.minibatch_rv import unscaled_rv

if TYPE_CHECKING:
    from pymc.model.core import Model

__all__ = ["as_loader", "check_rows_set", "find_placeholders", "make_feed"]


class Placeholder(NamedTuple):
    """A shared variable that holds a batch: of a field of the loader, or the row numbers behind all fields."""

    variable: SharedVariable
    field_index: int


def as_loader(data: Any) -> Loader:
    """Return a loader. One of another library gives the rows of its data set to a `DataLoader`.

    Parameters
    ----------
    data : Loader, or a loader with the attribute `batch_size`
        One that has no `dataset`, such as that of pymc-extras, is iterated: its batches are a pass.

    Raises
    ------
    TypeError
        If it is neither, or a loader that chooses among the rows of its data set, or changes them.
    """
    if isinstance(data, DataLoader):
        if iterates_by_itself(data):
            raise TypeError(
                f"data={data!r} of a fit is a {type(data).__name__} with an __iter__ of its own, which a fit "
                "does not call: it reads the rows themselves. Write a function that yields blocks of the "
                "rows as they should be, and pm.DataLoader(function, batch_size=...)"
            )
        return data
    if isinstance(data, Loader):
        return data
    has_dataset = hasattr(data, "dataset")
    batch_size = getattr(data, "batch_size", None)
    if batch_size is None or not (has_dataset or isinstance(data, Iterable)):
        raise TypeError(
            f"data={data!r} of a fit has to be a pm.DataLoader, or a loader of another library with the "
            "attribute `batch_size` and either a `dataset` or batches to iterate over, and it is of type "
            f"{type(data).__name__}. Write pm.DataLoader(data, batch_size=...)"
        )
    total_size = None if has_dataset else getattr(data, "total_size", None)
    return DataLoader(
        data,
        batch_size,
        shuffle=shuffles(data),
        total_size="auto" if total_size is None else total_size,
    )


def make_feed(
    model: Model, data: Any, data_name: str = "batch", rows: Loader | None = None
) -> BatchFeed:
    """Return the feed of a fit. Its variables are the placeholders of the model.

    Parameters
    ----------
    model : Model
        With placeholders made by ``pm.Data(name, loader)``, or by ``pm.Data(data_name, zeros)`` for
        observed variables with a `total_size`.
    data : Loader
    data_name : str
        Name of the placeholder. Batches that are dicts go to the `pm.Data` of their names.
    rows : Loader, optional
        A shard of `data`, to read only its rows.

    Raises
    ------
    TypeError, ValueError, KeyError
        If the model has no such placeholders, or the batches do not fit into them.
    """
    loader = as_loader(data)
    has_local_variables = bool(local_axes(model))
    if has_local_variables and not loader.has_row_numbers:
        raise ValueError(f"The model has latent variables of rows, and {_why_no_numbers(loader)}")
    placeholders = find_placeholders(model, loader, data_name)
    stream = loader_placeholders(model)
    if stream is not None:
        note_feed(stream[0], loader)
    dtypes = [*(field.dtype for field in loader.layout.fields), np.dtype("int64")]
    rows = loader if rows is None else rows
    read: ReadBatches = rows.reader()  # one for all fits: what is read ahead is kept between them

    def read_placeholders(position: Position, n_batches: int | None) -> Iterator[FeedChunk]:
        with closing(read(position, n_batches)) as chunks:
            for chunk in chunks:
                if has_local_variables:
                    _check_rows(chunk.rows, loader.total_size)
                arrays = (*chunk.values, chunk.rows)
                values = tuple(arrays[i] for _, i in placeholders)
                for (variable, _), array in zip(placeholders, values):
                    dtype = np.dtype(variable.type.dtype)
                    check_exact(array, dtype, f"pm.Data {variable.name!r}")
                positions = [Position(epoch, row) for epoch, row in chunk.positions.tolist()]
                yield FeedChunk(values, positions, chunk.release)

    return BatchFeed(
        [variable for variable, _ in placeholders],
        read_placeholders,
        Position(),
        [dtypes[i] for _, i in placeholders],
        after=partial(unset_rows, model),
        n_rows=rows.total_size,
        batch_size=rows.batch_size,
        one_shot=rows.one_shot,
    )


def _why_no_numbers(loader: Loader) -> str:
    """Return why the batches of a loader have no row numbers, for a message."""
    if isinstance(loader, DataLoader):
        return (
            "on_nan='skip' of the loader would leave rows out, whose variables then never leave their initial "
            "values. Clean the data first, and leave on_nan out"
        )
    return (
        f"batches of {type(loader).__name__} do not say which rows they have: yield arrays with rows, such as "
        "those of a pm.DataLoader, and set has_row_numbers = True"
    )


def _check_rows(rows: np.ndarray, total: int) -> None:
    """Raise for row numbers that the tables of latent variables have no line for."""
    if (last := int(rows.max())) >= total:
        raise ValueError(
            f"The source has a row number {last}, and total_size={total} rows have latent variables, "
            f"numbers 0 to {total - 1}. Write the number of rows that there are as total_size of the "
            "loader, or leave it out"
        )


def find_placeholders(model: Model, loader: Loader, data_name: str = "batch") -> list[Placeholder]:
    """Return the shared variables of a model that hold a batch of a loader.

    Raises
    ------
    KeyError
        If the model has no `pm.Data` of that name, or of the names of a dict.
    ValueError
        If the model does not know the number of rows in all, or has another one than the loader; if the
        rows of a batch have another shape or kind of numbers than the model's placeholder.
    """
    stream = loader_placeholders(model)
    _check_terms(model, () if stream is None else stream[1].values())
    if stream is None:
        field_names = _plain_data(model, loader, data_name)
        _check_totals(model, loader, field_names)
    else:
        field_names = _streamed_data(model, loader, data_name, *stream)
    fields = loader.layout.fields
    placeholders = []
    for i, field in enumerate(fields):
        for variable in (var for var, name in field_names.items() if name == field.name):
            _check_field(field, variable, loader)
            placeholders.append(Placeholder(variable, i))
    if stream is not None:  # row numbers come behind the fields
        placeholders.append(Placeholder(stream[0].state, len(fields)))
    return placeholders


def check_rows_set(model: Model) -> None:
    """Raise if a fit without a loader would see a placeholder that has no rows from `pm.set_data`.

    Raises
    ------
    ValueError
        Its placeholders hold zeros, or the last batch of another fit.
    """
    for name, streamed in model.root._streams.items():
        if available_rows(model, streamed.owner.inputs[1]) is None:
            raise ValueError(
                f"pm.Data {name!r} of the model is made from a loader, and a fit without data= would see "
                "the same rows at each step, none of which pm.set_data has put there. Write "
                "pm.fit(n, data=loader), or pm.Trainer(dataloader=loader)"
            )


def _streamed_data(
    model: Model,
    loader: Loader,
    data_name: str,
    rows: Rows,
    placeholders: Mapping[str, SharedVariable],
) -> Mapping[SharedVariable, str]:
    """Return the `pm.Data` that were made from a loader, each with its field."""
    field_names = {var: var.tag.field.name for var in placeholders.values()}
    if data_name != "batch" and data_name not in placeholders:
        raise KeyError(
            f"data_name={data_name!r} is no pm.Data that was made from a loader: "
            f"{_quoted(placeholders)}"
        )
    known = [field.name for field in loader.layout.fields]
    missing = [name for name in field_names.values() if name not in known]
    if missing:
        raise ValueError(
            f"The model has pm.Data for the fields {_quoted(missing)} of a batch, and the loader's have "
            f"{_quoted(known)}: the model was made with another loader"
        )
    total = current_length(rows.total)
    if total != loader.total_size:
        raise ValueError(
            f"The model was made for {total} rows in all, and the loader has "
            f"{loader.total_size}: the likelihood would be scaled to the wrong number. Make the model's "
            "pm.Data from this loader"
        )
    # Batches of any size fit a placeholder, but the shape of such a variable has the size in it
    if rows.batch_size != loader.batch_size and local_axes(model):
        raise ValueError(
            f"The model has variables of the rows of a batch of {rows.batch_size}, and the loader's "
            f"have batch_size={loader.batch_size}. Make the model's pm.Data from this loader"
        )
    return field_names


def _check_terms(model: Model, placeholders: Collection[SharedVariable]) -> None:
    """Check that the terms of a model depend on these placeholders, and on no other stream."""
    values = [model.rvs_to_values[rv] for rv in model.observed_RVs]
    terms = [*model.basic_RVs, *values, *model.potentials]
    used = {var.owner.inputs[0] for var in streams_in(terms)}
    # pm.do puts constants or other data where a placeholder was, and keeps the mark of streamed rows
    replaced = sorted(_name(var) for var in used if not is_placeholder(var))
    if replaced:
        raise ValueError(
            f"pm.do has replaced {_quoted(replaced)}, which held rows of the loader's batches, by rows "
            "that stay. Fit the model that pm.do was given, and use what it made for predictions"
        )
    others = sorted(_name(var) for var in used if var not in placeholders)
    if others:
        raise ValueError(
            f"The model depends on {_quoted(others)}, a pm.Data of a loader that is not its own, so that "
            "no batch would reach it. Make the model's pm.Data in the model itself"
        )
    if placeholders and used.isdisjoint(placeholders):
        raise _no_term(placeholders)


def _name(var: Variable) -> str:
    """Return the name of a variable, or of the one that it is a function of, such as a specified shape."""
    names = (v.name for v in ancestors([var]) if v.name and not isinstance(v, Constant))
    return next(names, str(var))


def _no_term(placeholders: Iterable[SharedVariable]) -> ValueError:
    return ValueError(
        f"No observed variable of the model depends on {_quoted(v.name for v in placeholders)}, so that the "
        "batches of the loader would change nothing. Use it as observed= or in a parameter"
    )


def _plain_data(model: Model, loader: Loader, data_name: str) -> Mapping[SharedVariable, str]:
    """Return the `pm.Data` of arrays that hold a batch, each with its field."""
    data = {v.name: v for v in model.data_vars if isinstance(v, SharedVariable)}
    if not data:
        raise KeyError(
            f"The model has no pm.Data to hold a batch of the loader. Write {data_name} = "
            f"pm.Data({data_name!r}, loader, dims=...) in it, and use that as observed="
        )
    if not loader.layout.named:
        if data_name not in data:
            raise KeyError(
                f"data_name={data_name!r} is no pm.Data of the model, which has {_quoted(data)}"
            )
        return {data[data_name]: ""}
    names = [field.name for field in loader.layout.fields]
    found = {data[name]: name for name in names if name in data}
    if not found:
        raise KeyError(
            f"The loader's batches have {_quoted(names)}, and the model's pm.Data are {_quoted(data)}: a "
            "batch goes to the pm.Data of its names"
        )
    return found


def _check_totals(model: Model, loader: Loader, placeholders: Collection[SharedVariable]) -> None:
    """Check `total_size` of the terms that depend on placeholders that were not made from a loader."""
    variables, total, n_terms = set(placeholders), loader.total_size, 0
    for rv in model.observed_RVs:
        bare, totals = unscaled_rv(rv)
        if not variables.intersection(ancestors([bare, model.rvs_to_values[rv]])):
            continue
        n_terms += 1
        # A total that is computed, such as the length of a dim, is not known before a fit
        known = [int(t.data) for t in totals if isinstance(t, Constant)]
        if not any(t is not None for t in totals):
            raise ValueError(
                f"{rv.name!r} depends on a batch and has no total_size: its likelihood would count the "
                f"rows of a batch, for {total} in all. Write total_size=len(loader), or make the batch "
                "by pm.Data(name, loader)"
            )
        if known and total not in known:
            raise ValueError(
                f"{rv.name!r} has total_size={known[0]}, and the loader has {total} rows in all: write "
                "total_size=len(loader)"
            )
    if not n_terms and variables.isdisjoint(ancestors(model.potentials)):
        raise _no_term(variables)


def _check_field(field: Field, placeholder: SharedVariable, loader: Loader) -> None:
    """Check that a placeholder can hold rows of the loader."""
    value = placeholder.get_value(borrow=True)
    rows = f"pm.Data {placeholder.name!r} of the model has rows of shape {value.shape[1:]}"
    if value.ndim != len(field.shape) + 1 or value.shape[1:] != field.shape:
        columns = f", the columns {_quoted(field.columns)}" if field.columns else ""
        raise ValueError(
            f"{rows}, and the loader's are of shape {field.shape}{columns}. Make it by "
            f"pm.Data({placeholder.name!r}, loader), or as zeros of shape "
            f"{(loader.batch_size, *field.shape)}"
        )
    # Integers may be fed to floats: whether those hold them exactly is checked batch by batch
    if not np.can_cast(field.dtype, value.dtype, casting="same_kind"):
        raise ValueError(
            f"{rows} and dtype {value.dtype}, which cannot hold the loader's {field.dtype}. Make it "
            f"by pm.Data({placeholder.name!r}, loader), or of that dtype"
        )


def _quoted(names: Iterable[str | None]) -> str:
    return ", ".join(map(repr, names)) or "none"
