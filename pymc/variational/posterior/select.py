# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Select the rows that a result is about: positions and numbers, from what users write."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from pytensor.graph.basic import Variable

from pymc.minibatch.current_length import current_length
from pymc.minibatch.held_rows import HeldRows
from pymc.minibatch.provenance import Rows
from pymc.variational.posterior.new_data import NewData
from pymc.variational.rows.table import rows_in_all

if TYPE_CHECKING:
    from pymc.model.core import Model

__all__ = ["RowSelection", "select_held", "select_new", "select_rows"]


@dataclass(frozen=True, eq=False)
class RowSelection:
    """Positions in the data, for each subsampled axis of a model.

    Parameters
    ----------
    positions : mapping of Rows to array of int64, shape (n_selected,)
    totals : mapping of Rows to int
        How many rows there are.
    held : mapping of Rows to HeldRows
        Of axes whose data are those of a stream's placeholders, or of `data`: positions are among these.
    data : NewData
    """

    positions: Mapping[Rows, np.ndarray]
    totals: Mapping[Rows, int]
    held: Mapping[Rows, HeldRows] = field(default_factory=dict)
    data: NewData = field(default_factory=NewData)

    @property
    def is_all(self) -> bool:
        """Whether it is all rows, in their order."""
        return self.is_whole and not self.held and not self.data.values

    @property
    def is_whole(self) -> bool:
        """Whether it is all rows that there are: of the fit, or those whose data were given."""
        return all(_is_all(self.positions[rows], n) for rows, n in self.totals.items())

    @property
    def swaps(self) -> Mapping[Variable, Variable]:
        """What takes the place of data of the model."""
        return self.data.swaps

    def labels(self, rows: Rows, coords: Any) -> np.ndarray:
        """Tell what results call the rows of an axis.

        Parameters
        ----------
        rows : Rows
        coords : sequence or None
            Of all rows.
        """
        at = self.positions[rows]
        if rows in self.held:
            coords = self.held[rows].coords
            return at if coords is None else np.asarray(coords)[at]
        known = coords is not None and len(coords) == self.totals[rows]
        return np.asarray(coords)[at] if known else at

    @property
    def by_dim(self) -> dict[str, np.ndarray]:
        """Positions by dim, of those that are not all rows."""
        return {
            rows.dim: self.positions[rows]
            for rows, n in self.totals.items()
            if rows.dim is not None and not _is_all(self.positions[rows], n)
        }

    @property
    def computed(self) -> RowSelection:
        """The rows to compute; unnumbered rows are computed together."""
        there: dict[Rows, np.ndarray] = {
            rows: np.arange(n, dtype="int64")
            for rows, n in self.totals.items()
            if not rows.knows_numbers
        }
        return replace(self, positions={**self.positions, **there})

    @property
    def taken_later(self) -> dict[str, np.ndarray]:
        """Positions to select after computing, by dim."""
        there = {rows.dim for rows in self.totals if not rows.knows_numbers}
        return {dim: positions for dim, positions in self.by_dim.items() if dim in there}

    def in_table(self, plate: Sequence[Rows]) -> np.ndarray:
        """Rows of a plate in C order over its axes, as in its table: shape (n_rows,).

        Raises
        ------
        ValueError
            If rows are not known by number.
        """
        flat = self._numbers(plate[0])
        for rows in plate[1:]:
            total = rows_in_all([rows]) if rows in self.held else self.totals[rows]
            flat = (flat[:, None] * total + self._numbers(rows)).ravel()
        return flat

    def _numbers(self, rows: Rows) -> np.ndarray:
        at = self.positions[rows]
        if rows not in self.held:
            return at
        numbers = self.held[rows].numbers[at]
        if (numbers < 0).any():
            raise ValueError(
                f"variables of the dim {rows.dim!r} have a value for each row, and which rows of the fit the data "
                "are of is not known: a row that the fit has not seen has no values, and others are known "
                "by number. Batches of a loader have their numbers as the attribute rows; for other data "
                "say it by rows=, as in approx.sample(data=..., rows=[7, 12]), or give new rows an encoder, "
                "by pm.Amortized"
            )
        return numbers

    def chunks(self, along: Rows | None, size: int) -> Iterator[tuple[slice, RowSelection]]:
        """Cut it into parts along one axis: where each part is in the result, and its rows."""
        if along is None:
            yield slice(None), self
            return
        chosen = self.positions[along]
        for start in range(0, max(len(chosen), 1), size):  # no rows are one part without rows
            part = slice(start, min(start + size, len(chosen)))
            yield part, replace(self, positions={**self.positions, along: chosen[part]})


def _is_all(positions: np.ndarray, n_rows: int) -> bool:
    return len(positions) == n_rows and bool((positions == np.arange(n_rows)).all())


def select_rows(
    model: Model, axes: Sequence[Rows], rows: Any, function: str = "approx.sample"
) -> RowSelection:
    """Read the argument `rows` of what returns results of rows.

    Parameters
    ----------
    model : Model
        It has the coords.
    axes : sequence of Rows
        The subsampled axes that there are.
    rows : None, slice, sequence of int or bool, or dict
        All rows; positions in the data; or by dim, the coords of rows, or a slice of positions.
    function : str
        For messages.

    Returns
    -------
    RowSelection

    Raises
    ------
    ValueError, KeyError, IndexError, TypeError
        If a dim is not subsampled, or a row is not there.

    Examples
    --------
    >>> import pymc as pm
    >>> from pymc.minibatch.index import minibatch_index
    >>> from pymc.minibatch.provenance import Rows
    >>> from pymc.variational.posterior.select import select_rows
    >>> obs = Rows(minibatch_index(rows=4, batch_size=2, dim="obs"))
    >>> model = pm.Model(coords={"obs": ["a", "b", "c", "d"]})
    >>> select_rows(model, [obs], {"obs": ["d", "b"]}).positions[obs]
    array([3, 1])
    """
    totals = {axis: axis_total(axis) for axis in axes}
    positions = {axis: np.arange(n, dtype="int64") for axis, n in totals.items()}
    if rows is None:
        return RowSelection(positions, totals)
    if isinstance(rows, Mapping):
        return RowSelection(positions | _by_dim(model, totals, rows, function), totals)
    if len(totals) != 1:
        dims = [axis.dim for axis in totals]
        raise ValueError(
            f"rows={rows!r} of {function} are positions along one subsampled dim, but the model has "
            f"{dims or 'none'}: write a dict, rows={{dim: coords}}"
            if dims
            else f"rows={rows!r} of {function} selects rows, but no dim of the model is subsampled, so that "
            "nothing says what a row is. Leave rows out, and select from the result, by .isel; "
            "var_names= leaves out variables that you do not need"
        )
    [(axis, n_rows)] = totals.items()
    return RowSelection({axis: _positions(rows, n_rows, axis.dim, function)}, totals)


def select_held(
    axes: Sequence[Rows], held: Mapping[Rows, HeldRows], rows: Any, function: str
) -> RowSelection:
    """Select the rows of streams whose data a model holds, and all of other axes.

    Parameters
    ----------
    axes : sequence of Rows
        The subsampled axes that there are.
    held : mapping of Rows to HeldRows
    rows : None
        The argument `rows` of the user.
    function : str
        For messages.

    Raises
    ------
    ValueError
        If rows are chosen in another way too.
    """
    if rows is not None:
        raise ValueError(
            f"rows={rows!r} of {function} are chosen among all rows, but what is asked for needs data, and "
            "the model holds those that pm.set_data gave it: leave rows out, or write data={...} with the "
            "data of these rows"
        )
    return _all_of(axes, held)


def select_new(
    model: Model, axes: Sequence[Rows], data: NewData, rows: Any, function: str
) -> RowSelection:
    """Select the rows of `data`, and of other axes as :func:`select_rows` does.

    Of axes that the data have, `rows` says which rows of the fit they are.

    Raises
    ------
    ValueError, KeyError, IndexError, TypeError
        As :func:`select_rows`; or if there are not as many rows as the data have.
    """
    named = select_rows(model, axes, rows, function)
    chosen = set(map(str, rows)) if isinstance(rows, Mapping) else None
    held = dict(data.held)
    for axis, one in data.held.items():
        if rows is None or (chosen is not None and str(axis.dim) not in chosen):
            continue
        numbers = named.positions[axis]
        if len(numbers) != len(one.numbers):
            raise ValueError(
                f"rows of {function} are {len(numbers)} rows of {axis.dim!r}, and data= has {len(one.numbers)}: "
                "with data=, rows says which rows of the fit these are, in their order"
            )
        coords = model.coords.get(axis.dim)
        labels = one.labels if one.labels is not None else named.labels(axis, coords).tolist()
        held[axis] = HeldRows(numbers, labels)
    others = {axis: at for axis, at in named.positions.items() if axis not in held}
    found = _all_of(axes, held)
    return replace(found, positions={**found.positions, **others}, data=data)


def _all_of(axes: Sequence[Rows], held: Mapping[Rows, HeldRows]) -> RowSelection:
    totals = {axis: len(held[axis].numbers) if axis in held else axis_total(axis) for axis in axes}
    positions = {axis: np.arange(n, dtype="int64") for axis, n in totals.items()}
    return RowSelection(positions, totals, held)


def axis_total(axis: Rows) -> int:
    """Count the rows of an axis, as they are now."""
    return rows_in_all([axis]) if axis.knows_numbers else current_length(axis.at_hand) or 0


def _by_dim(
    model: Model, totals: Mapping[Rows, int], rows: Mapping[str, Any], function: str
) -> dict[Rows, np.ndarray]:
    known = {axis.dim: axis for axis in totals}
    unknown = [dim for dim in rows if dim not in known]
    if unknown:
        raise ValueError(
            f"rows of {function} has {', '.join(map(repr, unknown))}, but the subsampled dims are "
            f"{sorted(str(dim) for dim in known)}. Leave it out, and select from the result, by .sel"
        )
    return {
        known[dim]: _labelled(model, dim, chosen, totals[known[dim]], function)
        for dim, chosen in rows.items()
    }


def _labelled(model: Model, dim: str, chosen: Any, n_rows: int, function: str) -> np.ndarray:
    """Positions of rows that are given by their coords, or by number where there are none."""
    coords = model.coords.get(dim)
    if coords is None or isinstance(chosen, slice) or len(coords) != n_rows:
        return _positions(chosen, n_rows, dim, function)
    import pandas as pd  # PyMC runs without it until a label is looked up

    labels = np.atleast_1d(np.asarray(chosen))
    places = pd.Index(np.asarray(coords)).get_indexer(labels)
    if (places < 0).any():
        missing = labels[places < 0].tolist()
        raise KeyError(
            f"rows of {function} has {missing[:5]} of the dim {dim!r}, which are not among its "
            f"{len(coords)} coords. For rows by number write a slice, or leave the dict out: "
            "rows=[0, 1]"
        )
    return places.astype("int64")


def _positions(chosen: Any, n_rows: int, dim: str | None, function: str) -> np.ndarray:
    if not isinstance(chosen, slice):
        chosen = np.atleast_1d(np.asarray(chosen))
        if chosen.size == 0:
            chosen = chosen.astype("int64")
        if chosen.ndim != 1 or chosen.dtype.kind not in "iub":
            raise TypeError(
                f"rows={chosen.tolist()!r} of {function} has to be a slice, positions, or a mask of "
                f"the {n_rows} rows of {dim!r}; for coords write rows={{{dim!r}: coords}}"
            )
    try:
        return np.arange(n_rows, dtype="int64")[chosen]
    except IndexError as error:
        raise IndexError(
            f"rows of {function} has a row that is not there, or a mask of another length: {dim!r} has "
            f"{n_rows} rows ({error})"
        ) from None
