# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""The feed of a fit: match the batches of a loader to the placeholders of a model."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from pytensor.compile.sharedvalue import SharedVariable
from pytensor.graph.basic import Constant, Variable
from pytensor.graph.traversal import ancestors

from pymc.data_loading.base import Loader
from pymc.data_loading.batch import Position
from pymc.data_loading.sources.dataset import shuffles
from pymc.data_loading.sources.layout import Field
from pymc.minibatch.array_data import check_exact
from pymc.minibatch.axis_tracking import Rows
from pymc.minibatch.current_value import current_length
from pymc.minibatch.data_placeholder import available_rows, unset_rows
from pymc.minibatch.plates import local_axes
from pymc.minibatch.stream_index import is_placeholder, loader_placeholders, streams_in
from pymc.variational.engine.batch_feed import BatchFeed, FeedChunk, Opened
from pymc.variational.minibatch_rv import unscaled_rv

if TYPE_CHECKING:
    from pymc.model.core import Model

__all__ = ["Target", "as_loader", "check_given_by_hand", "feed_of", "find_targets"]


@dataclass(frozen=True)
class Target:
    """A shared variable that is fed.

    Parameters
    ----------
    variable : SharedVariable
    place : int
        Which of the arrays of a chunk, its fields and then the row numbers, it has a batch of.
    """

    variable: SharedVariable
    place: int

    @property
    def dtype(self) -> np.dtype:
        """What the variable holds."""
        return np.dtype(self.variable.type.dtype)


def find_targets(model: Model, loader: Loader, data_name: str = "batch") -> list[Target]:
    """Find what a loader feeds of a model.

    Parameters
    ----------
    model : Model
    loader : Loader
    data_name : str

    Raises
    ------
    KeyError
        If the model has no `pm.Data` of that name, or of the names of a dict.
    ValueError
        If the number of rows in all differs between the two, or is not known to the model; if the
        rows of a batch have another shape or kind of numbers than the model's placeholder.
    """
    stream = loader_placeholders(model)
    _check_fed(model, () if stream is None else stream[1].values())
    if stream is None:
        held = _by_name(model, loader, data_name)
        _check_totals(model, loader, held)
    else:
        held = _streamed(model, loader, data_name, *stream)
    fields = loader.layout.fields
    targets = []
    for place, field in enumerate(fields):
        for variable in (var for var, name in held.items() if name == field.name):
            _check_field(field, variable, loader)
            targets.append(Target(variable, place))
    return targets if stream is None else [*targets, Target(stream[0].state, len(fields))]


def check_given_by_hand(model: Model) -> None:
    """Raise where a streamed model has no rows from the user, in a fit without a loader.

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


def _streamed(
    model: Model,
    loader: Loader,
    data_name: str,
    rows: Rows,
    placeholders: Mapping[str, SharedVariable],
) -> Mapping[SharedVariable, str]:
    """Return the placeholders that were made from a loader, and the field of each."""
    held = {var: var.tag.field.name for var in placeholders.values()}
    names = list(placeholders)
    if data_name != "batch" and data_name not in names:
        raise KeyError(
            f"data_name={data_name!r} is no pm.Data that was made from a loader: {_in_words(names)}"
        )
    known = [field.name for field in loader.layout.fields]
    missing = [name for name in held.values() if name not in known]
    if missing:
        raise ValueError(
            f"The model has pm.Data for the fields {_in_words(missing)} of a batch, and the loader's have "
            f"{_in_words(known)}: the model was made with another loader"
        )
    total = current_length(rows.total)
    if total != loader.total_size:
        raise ValueError(
            f"The model was made for {total} rows in all, and the loader has "
            f"{loader.total_size}: the likelihood would be scaled to the wrong number. Make the model's "
            "pm.Data from this loader"
        )
    if rows.batch_size != loader.batch_size and local_axes(model):
        raise ValueError(
            f"The model has variables of the rows of a batch of {rows.batch_size}, and the loader's "
            f"have batch_size={loader.batch_size}. Make the model's pm.Data from this loader"
        )
    return held


def _check_fed(model: Model, held: Collection[SharedVariable]) -> None:
    """Check that terms depend on what is fed, and on no other rows of a stream."""
    values = [model.rvs_to_values[rv] for rv in model.observed_RVs]
    terms = [*model.basic_RVs, *values, *model.potentials]
    used = {var.owner.inputs[0] for var in streams_in(terms)}
    replaced = sorted(_name(var) for var in used if not is_placeholder(var))
    if replaced:
        raise ValueError(
            f"pm.do has replaced {_in_words(replaced)}, which held rows of the loader's batches, by rows "
            "that stay. Fit the model that pm.do was given, and use what it made for predictions"
        )
    others = sorted(_name(var) for var in used if var not in held)
    if others:
        raise ValueError(
            f"The model depends on {_in_words(others)}, a pm.Data of a loader that is not its own, so that "
            "no batch would reach it. Make the model's pm.Data in the model itself"
        )
    if held and used.isdisjoint(held):
        raise _no_term(held)


def _name(var: Variable) -> str:
    """Return the name of a variable, or of what it is made from: a shape may be specified of it."""
    named = (v.name for v in ancestors([var]) if v.name and not isinstance(v, Constant))
    return next(named, str(var))


def _no_term(held: Iterable[SharedVariable]) -> ValueError:
    return ValueError(
        f"No observed variable of the model depends on {_in_words(v.name for v in held)}, so that the "
        "batches of the loader would change nothing. Use it as observed= or in a parameter"
    )


def _by_name(model: Model, loader: Loader, data_name: str) -> Mapping[SharedVariable, str]:
    """Return the plain `pm.Data` that a loader feeds, and the field of each."""
    data = {v.name: v for v in model.data_vars if isinstance(v, SharedVariable)}
    if not data:
        raise KeyError(
            f"The model has no pm.Data to hold a batch of the loader. Write {data_name} = "
            f"pm.Data({data_name!r}, loader, dims=...) in it, and use that as observed="
        )
    if not loader.layout.named:
        if data_name not in data:
            raise KeyError(
                f"data_name={data_name!r} is no pm.Data of the model, which has {_in_words(data)}"
            )
        return {data[data_name]: ""}
    names = [field.name for field in loader.layout.fields]
    found = {data[name]: name for name in names if name in data}
    if not found:
        raise KeyError(
            f"The loader's batches have {_in_words(names)}, and the model's pm.Data are {_in_words(data)}: a "
            "batch goes to the pm.Data of its names"
        )
    return found


def _check_totals(model: Model, loader: Loader, placeholders: Iterable[SharedVariable]) -> None:
    """Check `total_size` of the terms that depend on placeholders that were not made from a loader."""
    held, total, n_terms = set(placeholders), loader.total_size, 0
    for rv in model.observed_RVs:
        bare, totals = unscaled_rv(rv)
        if not held.intersection(ancestors([bare, model.rvs_to_values[rv]])):
            continue
        n_terms += 1
        given = [int(t.data) for t in totals if isinstance(t, Constant)]
        if not any(t is not None for t in totals):
            raise ValueError(
                f"{rv.name!r} depends on a batch and has no total_size: its likelihood would count the "
                f"rows of a batch, for {total} in all. Write total_size=len(loader), or make the batch "
                "by pm.Data(name, loader)"
            )
        if given and total not in given:
            raise ValueError(
                f"{rv.name!r} has total_size={given[0]}, and the loader has {total} rows in all: write "
                "total_size=len(loader)"
            )
    if not n_terms and not any(held.intersection(ancestors([term])) for term in model.potentials):
        raise _no_term(held)


def _check_field(field: Field, placeholder: SharedVariable, loader: Loader) -> None:
    """Check that rows of a batch are what the placeholder had before."""
    value = placeholder.get_value(borrow=True)
    wanted = f"pm.Data {placeholder.name!r} of the model has rows of shape {value.shape[1:]}"
    if value.ndim != len(field.shape) + 1 or value.shape[1:] != field.shape:
        columns = f", the columns {_in_words(field.columns)}" if field.columns else ""
        raise ValueError(
            f"{wanted}, and the loader's are of shape {field.shape}{columns}. Make it by "
            f"pm.Data({placeholder.name!r}, loader), or as zeros of shape "
            f"{(loader.batch_size, *field.shape)}"
        )
    if not np.can_cast(field.dtype, value.dtype, casting="same_kind"):
        raise ValueError(
            f"{wanted} and dtype {value.dtype}, which cannot hold the loader's {field.dtype}. Make it "
            f"by pm.Data({placeholder.name!r}, loader), or of that dtype"
        )


def _in_words(names: Iterable[Any]) -> str:
    return ", ".join(map(repr, names)) or "none"


def as_loader(data: Any) -> Loader:
    """Return a :class:`Loader`; one of another library gives the rows of its data set to a `DataLoader`.

    Parameters
    ----------
    data : Loader, or a loader with the attribute `batch_size`
        One that has no `dataset`, such as that of pymc-extras, is iterated: its batches are a pass.

    Raises
    ------
    TypeError
        If it is neither, or a loader that chooses among the rows of its data set, or changes them.
    """
    # Numba kernels: when a stream is fitted
    from pymc.data_loading.loader import DataLoader
    from pymc.data_loading.shuffle import iterates_by_itself

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
    known = None if has_dataset else getattr(data, "total_size", None)
    total_size: Any = "auto" if known is None else known
    return DataLoader(data, batch_size, shuffle=shuffles(data), total_size=total_size)


def feed_of(model: Model, data: Any, data_name: str = "batch") -> BatchFeed:
    """Make the feed of a fit.

    Parameters
    ----------
    model : Model
        With placeholders made by ``pm.Data(name, loader)``, or by ``pm.Data(data_name, zeros)`` for
        observed variables with a `total_size`.
    data : Loader
    data_name : str
        Name of the placeholder. Batches that are dicts go to the `pm.Data` of their names.

    Returns
    -------
    BatchFeed
        Its variables are the placeholders, and the row numbers where the model has a place for them.

    Raises
    ------
    TypeError, ValueError, KeyError
        If the model has no such placeholders, or the batches do not fit into them.
    """
    loader = as_loader(data)
    has_rows = bool(local_axes(model))
    if has_rows and not loader.has_row_numbers:
        raise ValueError(f"The model has latent variables of rows, and {_no_numbers(loader)}")
    targets = find_targets(model, loader, data_name)
    variables = [target.variable for target in targets]
    given = [*(field.dtype for field in loader.layout.fields), np.dtype("int64")]
    dtypes = [given[target.place] for target in targets]
    total = loader.total_size if has_rows else None
    after = partial(unset_rows, model)
    read = opened(loader, targets, total)
    return BatchFeed(
        variables,
        read,
        Position(),
        dtypes,
        after,
        n_rows=loader.total_size,
        batch_size=loader.batch_size,
        one_shot=loader.one_shot,
    )


def _no_numbers(loader: Loader) -> str:
    """Say why a loader does not tell which rows a batch has."""
    from pymc.data_loading.loader import DataLoader

    if isinstance(loader, DataLoader):
        return (
            "on_nan='skip' of the loader would leave rows out, whose variables then never leave their initial "
            "values. Clean the data first, and leave on_nan out"
        )
    return (
        f"batches of {type(loader).__name__} do not say which rows they have: yield arrays with rows, such as "
        "those of a pm.DataLoader, and set has_row_numbers = True"
    )


def opened(loader: Loader, targets: list[Target], total: int | None = None) -> Opened:
    """Make the function that reads batches for `targets` from a position on.

    With a `total`, row numbers are below it.
    """
    # From one fit to the next: who sets another position has another one opened
    read_batches = loader.reader()

    def read(position: Position, n_batches: int) -> Iterator[FeedChunk]:
        with closing(read_batches(position, n_batches)) as chunks:
            for chunk in chunks:
                if total is not None:
                    _check_rows(chunk.rows, total)
                arrays = (*chunk.values, chunk.rows)
                yield FeedChunk(
                    tuple(_exact(arrays[target.place], target) for target in targets),
                    [Position(epoch, row) for epoch, row in chunk.positions.tolist()],
                    chunk.release,
                )

    return read


def _exact(values: np.ndarray, target: Target) -> np.ndarray:
    """Return the values of a chunk, if its placeholder can hold them."""
    check_exact(values, target.dtype, f"pm.Data {target.variable.name!r}")
    return values


def _check_rows(rows: np.ndarray, total: int) -> None:
    """Refuse rows that the tables of latent variables have no line for."""
    if (last := int(rows.max())) >= total:
        raise ValueError(
            f"The source has a row number {last}, and total_size={total} rows have latent variables, "
            f"numbers 0 to {total - 1}. Write the number of rows that there are as total_size of the "
            "loader, or leave it out"
        )
