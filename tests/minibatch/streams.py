#   Copyright 2026 - present The PyMC Developers
#
#   Licensed under the Apache License, Version 2.0 (the "License");
#   you may not use this file except in compliance with the License.
#   You may obtain a copy of the License at
#
#       http://www.apache.org/licenses/LICENSE-2.0
#
#   Unless required by applicable law or agreed to in writing, software
#   distributed under the License is distributed on an "AS IS" BASIS,
#   WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
#   See the License for the specific language governing permissions and
#   limitations under the License.
"""A loader that feeds nothing: what a model asks of one, and batches to feed by hand."""

from dataclasses import dataclass

import numpy as np

import pymc as pm

from pymc.variational.streaming.sources.layout import Field, Layout


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
