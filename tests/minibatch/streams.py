# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""A loader that feeds nothing: what a model asks of one, and batches to feed by hand."""

from dataclasses import dataclass

import numpy as np

import pymc as pm

from pymc.data_loading.sources.layout import Field, Layout


@dataclass(frozen=True, eq=False)
class StandIn:
    """What a model asks of a loader."""

    layout: Layout
    batch_size: int
    total_size: int


class Batch(np.ndarray):
    """Rows that know their numbers, as those of a loader do."""

    rows: np.ndarray


def loader_of(data, batch_size: int) -> StandIn:
    """Stand in for a loader of an array, or of a dict of them."""
    named = data if isinstance(data, dict) else {"": data}
    fields = tuple(
        Field(name, array.shape[1:], array.dtype, _columns(array)) for name, array in named.items()
    )
    [n_rows] = {len(array) for array in named.values()}
    return StandIn(Layout(fields), batch_size, n_rows)


def _columns(array: np.ndarray) -> tuple[str, ...] | None:
    return tuple("abcdefgh"[: array.shape[1]]) if array.ndim == 2 else None


def batch_of(array: np.ndarray, rows) -> Batch:
    """Take some rows, which come with their numbers."""
    batch = array[np.asarray(rows)].view(Batch)
    batch.rows = np.asarray(rows)
    return batch


def feed(model: pm.Model, data, rows) -> None:
    """Put some rows of the data into a model."""
    named = data if isinstance(data, dict) else {"batch": data}
    pm.set_data({name: batch_of(array, rows) for name, array in named.items()}, model=model)
