# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
from collections.abc import Iterable
from typing import Any

import pymc._layer as _layer

from pymc.minibatch.axis_tracking import Rows
from pymc.minibatch.plates import rows_by_axis, subsampled_dims
from pymc.minibatch.stream_index import is_stream
from pymc.model.core import Model
from pymc.model.full_data import shown_model
from pymc.pytensorf import current_length


class BatchLength(int):
    """A number of rows, shown with the size of a batch: ``500 of 40000``."""

    batch_size: int

    def __new__(cls, total: int, batch_size: int) -> "BatchLength":
        length = super().__new__(cls, total)
        length.batch_size = batch_size
        return length

    def __str__(self) -> str:
        return f"{self.batch_size} of {int(self)}"


class _ModelGraph:
    """The graph of the model on all rows, with the batch size in the labels of its plates."""

    model: Model

    def __init__(self, model: Model):
        super().__init__(shown_model(model))  # type: ignore[call-arg]
        self._minibatched = model

    def get_plates(self, var_names: Iterable[str] | None = None) -> list:
        plates = super().get_plates(var_names)  # type: ignore[misc]
        if self.model is not self._minibatched:
            for plate in plates:
                plate.dim_info.lengths = tuple(
                    length if rows is None else _labelled(length, rows)
                    for length, rows in zip(plate.dim_info.lengths, self._rows(plate))
                )
        return plates

    def _rows(self, plate: Any) -> list[Rows | None]:
        """Return the rows of each dim of a plate, by its name or by those of its variables."""
        named = subsampled_dims(self._minibatched)
        by_axis = [rows_by_axis(self._minibatched, info.var.name) for info in plate.variables]
        found: list[Rows | None] = []
        for dim, *axis in zip(plate.dim_info.names, *by_axis):
            rows = [Rows(named[dim])] if dim in named else [r for r in axis if r is not None]
            found.append(rows[0] if rows else None)
        return found


def _labelled(length: int, rows: Rows) -> BatchLength:
    total = current_length(rows.total) if is_stream(rows) else length
    return BatchLength(total or length, rows.batch_size)


released = _layer.run_release(globals(), ModelGraph=_ModelGraph)
