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
"""Rows in named columns, in blocks that are not copied before they are written."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pymc.variational.streaming.sources.copying import ColumnGroup, copy_columns, group_columns
from pymc.variational.streaming.sources.layout import Arrays, BadValue, Block, Field, Layout
from pymc.variational.streaming.sources.schema import listed

__all__ = ["ColumnBlock", "JoinedBlock"]

EXACT_INTEGERS = 2**53
"""A float64 holds every integer up to this one."""


@dataclass(frozen=True, eq=False)
class ColumnBlock(Block):
    """Rows in columns of numbers.

    Parameters
    ----------
    layout : Layout
    columns : tuple of tuple of ndarray, shape (n_rows,)
        For each field its columns, of any numeric dtype. They are not copied if they are contiguous.
    where : str
    first_row : int
        What messages call the first row: above 0 in a piece of a larger block.
    """

    layout: Layout
    columns: tuple[Arrays, ...]
    where: str
    first_row: int = 0

    @property
    def n_rows(self) -> int:  # type: ignore[override]
        """How many rows there are."""
        return len(self.columns[0][0])

    @cached_property
    def _groups(self) -> tuple[tuple[ColumnGroup, ...], ...]:
        return tuple(map(group_columns, self.columns))

    def write(self, out: Arrays, places: np.ndarray | int, start: int, stop: int) -> bool:
        """Write rows of all fields, see :meth:`.Block.write`."""
        finite = True
        for field, columns, groups, array in zip(
            self.layout.fields, self.columns, self._groups, out, strict=True
        ):
            self._check_integers(field, columns, start, stop)
            flat = array.reshape(len(array), len(columns))
            finite &= copy_columns(groups, flat, places, start, stop)
        return finite

    def _check_integers(self, field: Field, columns: Arrays, start: int, stop: int) -> None:
        """Raise if a float64 would be another integer than the one in a column."""
        if field.dtype.kind != "f":
            return
        for name, column in zip(field.columns or (), columns, strict=True):
            part = column[start:stop]
            if column.dtype.kind not in "iu" or column.dtype.itemsize < 8 or len(part) == 0:
                continue
            if part.max() > EXACT_INTEGERS or part.min() < -EXACT_INTEGERS:
                beyond = (part > EXACT_INTEGERS) | (part < -EXACT_INTEGERS)
                row = int(np.flatnonzero(beyond)[0])
                raise ValueError(
                    f"{self.where}, column {name!r}, row {self.first_row + start + row}: {part[row]} is beyond 2**53, "
                    f"and a {field.dtype}, the dtype of columns {listed(field.columns or ())} "
                    f"together, does not hold it. Give columns of integers a field of their own: "
                    f'columns={{"x": [...], "id": {name!r}}}'
                )

    def bad_rows(self, start: int, stop: int) -> list[BadValue]:
        """Return where floats are not finite."""
        found = [
            BadValue(int(row) + start, field.name, field.label((j,)), self.first_row)
            for field, columns in zip(self.layout.fields, self.columns, strict=True)
            for j, column in enumerate(columns)
            if column.dtype.kind == "f"
            for row in np.flatnonzero(~np.isfinite(column[start:stop]))
        ]
        return sorted(found, key=lambda bad: bad.row)


@dataclass(frozen=True, eq=False)
class JoinedBlock(Block):
    """Blocks one after another, as one.

    Parameters
    ----------
    pieces : tuple of Block
    where : str
    """

    pieces: tuple[Block, ...]
    where: str

    @cached_property
    def _starts(self) -> np.ndarray:
        return np.cumsum([0, *(piece.n_rows for piece in self.pieces)])

    @property
    def n_rows(self) -> int:  # type: ignore[override]
        """How many rows there are in all pieces."""
        return int(self._starts[-1])

    def _parts(self, start: int, stop: int) -> Iterator[tuple[Block, int, int, int]]:
        """Yield pieces with rows of theirs, and where the piece begins."""
        first = int(np.searchsorted(self._starts, start, side="right")) - 1
        for piece, at in zip(self.pieces[first:], self._starts[first:-1].tolist(), strict=True):
            if at >= stop:
                return
            yield piece, max(start - at, 0), min(stop - at, piece.n_rows), at

    def write(self, out: Arrays, places: np.ndarray | int, start: int, stop: int) -> bool:
        """Write rows of all pieces, see :meth:`.Block.write`."""
        finite = True
        for piece, low, high, at in self._parts(start, stop):
            done = at + low - start
            where = (
                places[done : done + high - low]
                if isinstance(places, np.ndarray)
                else places + done
            )
            finite &= piece.write(out, where, low, high)
        return finite

    def bad_rows(self, start: int, stop: int) -> list[BadValue]:
        """Return where floats are not finite, with the rows of the whole."""
        return [
            bad._replace(row=bad.row + at, first_row=0)
            for piece, low, high, at in self._parts(start, stop)
            for bad in piece.bad_rows(low, high)
        ]
