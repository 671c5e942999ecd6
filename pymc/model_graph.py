# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
from collections.abc import Iterable
from typing import Any

import pymc._layer as _layer

from pymc.minibatch.axis_tracking import Rows
from pymc.minibatch.plates import rows_by_axis, subsampled_dims
from pymc.model.core import Model
from pymc.model.full_data import shown_model
from pymc.model.shown_model import batch_length


class _ModelGraph:
    model: Model

    def __init__(self, model: Model):
        self._minibatched = model
        super().__init__(shown_model(model))  # type: ignore[call-arg]

    def get_plates(self, var_names: Iterable[str] | None = None) -> list:
        plates = super().get_plates(var_names)  # type: ignore[misc]
        if self.model is not self._minibatched:
            for plate in plates:
                plate.dim_info.lengths = tuple(
                    length if rows is None else batch_length(length, rows)
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


released = _layer.run_release(globals(), ModelGraph=_ModelGraph)
