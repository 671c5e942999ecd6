# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Rows of data frames of pandas."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np

from pymc.data_loading.sources.arrays import digest, evenly_spaced
from pymc.data_loading.sources.columns import ColumnBlock
from pymc.data_loading.sources.layout import Block, BlockSource, Layout, shown
from pymc.data_loading.sources.parts import Slices
from pymc.data_loading.sources.protocols import is_of
from pymc.data_loading.sources.schema import Schema, Selection
from pymc.data_loading.sources.series import series_numbers
from pymc.minibatch.array_data import numpy_dtype

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["FrameSource", "first_schema", "frame_block", "frame_schema", "is_frame"]

#: Bytes of the rows that are read at once: each slice of a frame has its price for each column
FRAME_BYTES = 2**22


def is_frame(data: Any) -> TypeGuard[pd.DataFrame]:
    """Return whether data are a ``pandas.DataFrame``. Who has one has imported pandas."""
    return is_of("pandas", data, "DataFrame")


def frame_schema(frame: pd.DataFrame) -> Schema:
    """Return names, and NumPy's dtypes, of the columns."""
    return Schema(
        names=tuple(map(str, frame.columns)),
        dtypes=tuple(map(_dtype, frame.dtypes)),
        types=tuple(map(str, frame.dtypes)),
    )


def first_schema(frame: pd.DataFrame) -> Schema:
    """Return the schema by which a frame is read: floats for integers of which some are missing."""
    schema = frame_schema(frame)
    dtypes = tuple(
        np.dtype("float64")
        if plain is not None and plain.kind in "biu" and column.hasnans
        else plain
        for plain, (_, column) in zip(schema.dtypes, frame.items(), strict=True)
    )
    return replace(schema, dtypes=dtypes)


def _dtype(dtype: Any) -> np.dtype | None:
    """Return the dtype of numbers; None for anything else. ``Int64`` and the like know theirs."""
    plain = numpy_dtype(dtype)
    if plain is None or plain.kind not in "biuf":
        return None
    return plain.newbyteorder("=")


def frame_block(
    frame: pd.DataFrame, selection: Selection, where: str, first_row: int = 0
) -> ColumnBlock:
    """Return the rows of a frame as a block.

    Raises
    ------
    ValueError
        If a value is missing (``pd.NA``) in a field of integers. In floats it is NaN.
    """
    position = {str(name): j for j, name in enumerate(frame.columns)}
    integers = {c for f in selection.layout.fields if f.dtype.kind != "f" for c in f.columns or ()}
    columns = {
        name: series_numbers(
            frame.iloc[:, position[name]],
            f"{where}, column {name!r}",
            first_row,
            nan=name not in integers,
        )
        for name in selection.names
    }
    return ColumnBlock(selection.layout, selection.arrays(columns), where, first_row)


@dataclass(frozen=True, eq=False, repr=False)
class FrameSource(BlockSource):
    """Rows of a data frame, as a matrix of all its columns.

    Parameters
    ----------
    frame : pandas.DataFrame
    selection : Selection
    """

    frame: pd.DataFrame
    selection: Selection

    @classmethod
    def of(cls, frame: pd.DataFrame) -> FrameSource:
        """Make the source of a frame.

        Raises
        ------
        SchemaError
            If a column is not numeric.
        ValueError
            If there are no rows.
        """
        if len(frame) == 0:
            raise ValueError("the DataFrame has no rows")
        return cls(frame, Selection.of(first_schema(frame), None, "the DataFrame"))

    @property
    def layout(self) -> Layout:
        """One field of all columns."""
        return self.selection.layout

    @property
    def n_rows(self) -> int:
        """How many rows the frame has."""
        return len(self.frame)

    def _told(self) -> list[str]:
        return [*super()._told(), f"columns {shown(self.selection.names)}"]

    @cached_property
    def _slices(self) -> Slices:
        return Slices.of_bytes(self.n_rows, self.layout.row_bytes, FRAME_BYTES)

    @cached_property
    def part_lengths(self) -> tuple[int, ...]:
        """Rows of slices of some megabytes."""
        return self._slices.lengths

    @property
    def identity(self) -> dict[str, Any]:
        """Columns, and a digest of some rows."""
        return {
            "kind": "frame",
            "n_rows": self.n_rows,
            "schema": self.layout.schema,
            "digests": [digest(column) for column in self._some_rows().columns[0]],
        }

    def _some_rows(self) -> ColumnBlock:
        some = self.frame.iloc[evenly_spaced(self.n_rows)]
        return frame_block(some, self.selection, "the DataFrame")

    def read(self, part: int) -> Block:
        """Return a slice of the frame.

        Raises
        ------
        ValueError
            If an integer beside a missing value is beyond 2**53.
        """
        rows = self._slices[part]
        return frame_block(self.frame.iloc[rows], self.selection, "the DataFrame", rows.start)
