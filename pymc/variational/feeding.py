# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""From a loader and a model to what feeds a fit: chunks of batches for the model's placeholders."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from pymc.data_loading.base import Loader
from pymc.data_loading.order import Position
from pymc.data_loading.sources.torch_loaders import shuffles
from pymc.minibatch.array_data import check_exact
from pymc.minibatch.data_placeholder import forget_rows
from pymc.minibatch.plates import local_axes
from pymc.variational.engine.feeds import Batches, Feed, Opened
from pymc.variational.placeholders import Target, find_targets

if TYPE_CHECKING:
    from pymc.model.core import Model

__all__ = ["as_loader", "feed_of"]


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


def feed_of(model: Model, data: Any, data_name: str = "batch") -> Feed:
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
    Feed
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
    after = partial(forget_rows, model)
    read = opened(loader, targets, total)
    return Feed(
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

    def read(position: Position, n_batches: int) -> Iterator[Batches]:
        with closing(read_batches(position, n_batches)) as chunks:
            for chunk in chunks:
                if total is not None:
                    _check_rows(chunk.rows, total)
                arrays = (*chunk.values, chunk.rows)
                yield Batches(
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
