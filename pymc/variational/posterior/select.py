# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Select the rows of a result, and read new data for it: the arguments `rows`, `data` and `coords`.

New data replace those of the model in graphs; the model stays as it is. Data of the same rows that are not
given have no values, so that it is an error if something depends on them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytensor.tensor as pt

from pytensor.compile.sharedvalue import SharedVariable
from pytensor.graph.basic import Constant, Variable
from pytensor.graph.traversal import ancestors

from pymc.exceptions import ShapeError
from pymc.minibatch.array_data import cast_rows, numbers_of
from pymc.minibatch.axis_tracking import Rows, value_ancestors
from pymc.minibatch.data_placeholder import AvailableRows, batch_values, row_numbers
from pymc.minibatch.minibatch import axis_length
from pymc.minibatch.rebuild import rows_of_data
from pymc.minibatch.stream_index import is_stream
from pymc.pytensorf import current_length
from pymc.variational.local_params.table import rows_in_all

if TYPE_CHECKING:
    from pymc.model.core import Model

__all__ = [
    "NewData",
    "RowSelection",
    "all_of",
    "read_data",
    "select_rows",
]


@dataclass(frozen=True, eq=False)
class NewData:
    """The argument `data` of a result, read."""

    #: Arrays by the name of their `pm.Data`
    values: Mapping[str, np.ndarray] = field(default_factory=dict)
    #: The rows of the values, for each of their axes of rows
    held: Mapping[Rows, AvailableRows] = field(default_factory=dict)
    #: Replacements for data of the model and lengths of dims
    swaps: Mapping[Variable, Variable] = field(default_factory=dict)
    #: Coords of dims that are not in `held` and have another length
    coords: Mapping[str, Sequence[Any] | None] = field(default_factory=dict)
    #: Data of the same rows without values, and their names in messages
    missing: Mapping[Variable, str] = field(default_factory=dict)

    def lacks(self, graphs: Iterable[Variable]) -> list[str]:
        """List the data without values that some graphs depend on."""
        found = set(value_ancestors(graphs)) if self.missing else set()
        return [name for var, name in self.missing.items() if var in found]

    def check(self, graphs: Iterable[Variable], what: str) -> None:
        """Raise a ValueError if graphs depend on data that were not given."""
        if lacking := self.lacks(graphs):
            raise ValueError(
                f"{what} depends on {' and '.join(lacking)}, of whose rows data= has {list(self.values)} only: give "
                "the values of the same rows in data= too"
            )

    def of_old_lengths(self, model: Model, graphs: Iterable[Variable]) -> list[str]:
        """List other data above some graphs with a length that the given ones had in the model."""
        old = {
            now
            for var, new in self.swaps.items()
            if isinstance(var, SharedVariable) and isinstance(new, SharedVariable)
            for now, length in zip(_shape(var), _shape(new))
            if now != length
        }
        above = set(ancestors(list(graphs)))
        names = {var: repr(var.name) for var in model.data_vars}
        names |= {var: f"the observed values of {n!r}" for var, n in _fixed_values(model).items()}
        return [
            name
            for var, name in names.items()
            if var in above and var not in self.swaps and not old.isdisjoint(_shape(var))
        ]


def read_data(
    model: Model,
    axes: Sequence[Rows],
    reads: Iterable[Variable],
    data: Mapping[str, Any] | None,
    coords: Mapping[str, Sequence[Any]] | None,
    function: str,
) -> NewData:
    """Read the arguments `data` and `coords` of a function.

    `axes` are all axes of rows, and `reads` the variables that guides depend on. Values that do not fit to
    the model or to each other raise a ValueError, TypeError or ShapeError.
    """
    if data is None:
        if coords is not None:
            raise ValueError(
                f"coords={dict(coords)!r} of {function} are names of the rows of data=, which is not given"
            )
        return NewData()
    coords = coords or {}
    variables = _variables(model, data, function)
    streamed = {var.owner.inputs[0] for var in model.root._streams.values()}
    values = {
        name: _checked(name, data[name], var, var in streamed, function)
        for name, var in variables.items()
    }
    on_rows = _data_on_rows(model, axes, reads)
    held = _rows_held(variables, values, data, on_rows, coords, function)
    lengths: dict[str, int] = {}
    for name, value in values.items():
        for dim, length in zip(
            model.named_vars_to_dims.get(variables[name].name) or (), value.shape
        ):
            if dim is not None and lengths.setdefault(dim, length) != length:
                raise ShapeError(
                    f"data of {function} have different lengths along the dim {dim!r}.",
                    actual=length,
                    expected=lengths[dim],
                )
    _check_coords(coords, lengths, function)
    changed = {dim: n for dim, n in lengths.items() if n != current_length(model.dim_lengths[dim])}
    swaps: dict[Variable, Variable] = {
        var: _like_with_value(var, values[name]) for name, var in variables.items()
    }
    missing: dict[Variable, str] = {}
    fixed = _fixed_values(model)
    for var in [*on_rows, *model.data_vars, *fixed]:
        new_lengths = {
            k: len(held[rows].numbers) for k, rows in on_rows.get(var, {}).items() if rows in held
        }
        for k, dim in enumerate(model.named_vars_to_dims.get(fixed.get(var, var.name)) or ()):
            if dim in changed:
                new_lengths[k] = changed[dim]
        if new_lengths and var not in swaps:
            missing[var] = "an array" if var.name is None else repr(var.name)
            if var in fixed:
                missing[var] = f"the observed values of {fixed[var]!r}, which are not in pm.Data"
            swaps[var] = _without_values(var, new_lengths)
    for dim, length in lengths.items():
        swaps[model.dim_lengths[dim]] = pt.constant(length, dtype="int64")
    row_dims = {rows.dim for rows in held}
    other_coords: dict[str, Any] = {
        dim: coords.get(dim, np.arange(length))
        for dim, length in lengths.items()
        if dim not in row_dims and (dim in coords or dim in changed)
    }
    return NewData(values, held, swaps, other_coords, missing)


def _variables(model: Model, data: Any, function: str) -> dict[str, SharedVariable]:
    """Find the `pm.Data` of the argument `data`, by name."""
    if not isinstance(data, Mapping):
        raise TypeError(
            f"data={type(data).__name__} of {function} has to be a dict of values by the name of their pm.Data, "
            'such as data={"X": new}'
        )
    known = {var.name: var for var in model.data_vars if isinstance(var, SharedVariable)}
    names = {name: name if name in known else model.name_for(name) for name in data}
    unknown = [name for name, full in names.items() if full not in known]
    if unknown:
        raise ValueError(
            f"data of {function} has {', '.join(map(repr, unknown))}, but the pm.Data of the model are "
            f"{list(known)}. What is to be replaced has to be in pm.Data"
        )
    return {name: known[full] for name, full in names.items()}


def _checked(
    name: str, values: Any, var: SharedVariable, streamed: bool, function: str
) -> np.ndarray:
    """Return values as an array that a `pm.Data` can hold."""
    what = f"data of {function}"
    if streamed:
        return batch_values(name, values, var, what)
    array = np.asarray(numbers_of(values))
    fits = array.ndim == var.type.ndim and all(
        n is None or n == m for n, m in zip(var.type.shape, array.shape)
    )
    if not fits:
        raise ShapeError(
            f"{what} has values of shape {array.shape} for {name!r}, whose shape is {var.type.shape}."
        )
    return cast_rows(array, var.type.numpy_dtype, f"{what}[{name!r}]")


def _check_coords(
    coords: Mapping[str, Sequence[Any]], lengths: Mapping[str, int], function: str
) -> None:
    for dim, labels in coords.items():
        if dim not in lengths:
            raise ValueError(
                f"coords of {function} has {dim!r}, but the dims of data= are {list(lengths)}"
            )
        if len(labels) != lengths[dim]:
            raise ShapeError(
                f"coords of {function} do not fit to data= along the dim {dim!r}.",
                actual=len(labels),
                expected=lengths[dim],
            )


def _fixed_values(model: Model) -> dict[Variable, str]:
    """Return observed values that are constants, with the name of their variable."""
    values = {model.rvs_to_values[rv]: rv.name for rv in model.observed_RVs}
    return {value: name for value, name in values.items() if isinstance(value, Constant)}


def _data_on_rows(
    model: Model, axes: Sequence[Rows], reads: Iterable[Variable]
) -> dict[Variable, dict[int, Rows]]:
    """Return the rows along each axis of data, by the index that takes them or by their dims."""
    terms = [*model.basic_RVs, *model.rvs_to_values.values(), *model.potentials]
    found = rows_of_data([*terms, *model.deterministics, *reads])
    by_dim = {rows.dim: rows for rows in axes if rows.dim is not None}
    for var in model.data_vars:
        for k, dim in enumerate(model.named_vars_to_dims.get(var.name) or ()):
            if dim in by_dim:
                found.setdefault(var, {})[k] = by_dim[dim]
    return found


def _rows_held(
    variables: Mapping[str, Variable],
    values: Mapping[str, np.ndarray],
    data: Mapping[str, Any],
    on_rows: Mapping[Variable, Mapping[int, Rows]],
    coords: Mapping[str, Sequence[Any]],
    function: str,
) -> dict[Rows, AvailableRows]:
    """Return the rows of values, by axis."""
    held: dict[Rows, AvailableRows] = {}
    names: dict[Rows, str] = {}
    for name, var in variables.items():
        for k, rows in on_rows.get(var, {}).items():
            n_rows = values[name].shape[k]
            batch = data[name] if is_stream(rows) and k == 0 else None
            one = AvailableRows(row_numbers(name, batch, n_rows, rows), coords.get(rows.dim or ""))
            if rows in held and not np.array_equal(held[rows].numbers, one.numbers):
                raise ValueError(
                    f"data of {function} have {names[rows]!r} and {name!r}, which have the same rows in the "
                    f"model, of {len(held[rows].numbers)} and of {n_rows} rows that are not the same"
                )
            held[rows], names[rows] = one, name
    return held


def _without_values(var: Variable, new_lengths: Mapping[int, int]) -> Variable:
    """Return a variable of new lengths that nothing may depend on."""
    lengths = [new_lengths.get(k, n or 0) for k, n in enumerate(_shape(var))]
    value = np.nan if var.type.dtype.startswith("float") else 0
    return _like_with_value(var, np.full(lengths, value, var.type.dtype))


def _shape(var: Variable) -> list[int | None]:
    return [current_length(axis_length(var, k)) for k in range(var.type.ndim)]


def _like_with_value(var: Variable, value: np.ndarray) -> Variable:
    if not isinstance(var, SharedVariable):
        return pt.constant(value)
    shape = tuple(n and (n if n == m else None) for n, m in zip(var.type.shape, value.shape))
    return type(var)(var.type.clone(shape=shape), value, strict=False, name=var.name)


@dataclass(frozen=True, eq=False)
class RowSelection:
    """The rows of a result, for each axis of rows of a model."""

    #: Arrays of int64, shape (n_selected,)
    positions: Mapping[Rows, np.ndarray]
    #: The number of rows to choose from
    totals: Mapping[Rows, int]
    #: Of axes whose positions are among the rows of a stream's placeholders or of `data`
    held: Mapping[Rows, AvailableRows] = field(default_factory=dict)
    data: NewData = field(default_factory=NewData)

    @property
    def is_all(self) -> bool:
        """True if these are all rows of the fit, in order."""
        return self.is_whole and not self.held and not self.data.values

    @property
    def is_whole(self) -> bool:
        """True if these are all available rows, in order."""
        return not any(self._is_part(rows) for rows in self.totals)

    def _is_part(self, rows: Rows) -> bool:
        return not np.array_equal(self.positions[rows], np.arange(self.totals[rows]))

    @property
    def by_dim(self) -> dict[str, np.ndarray]:
        """Positions by dim, where they are not all rows."""
        return {
            rows.dim: self.positions[rows]
            for rows in self.totals
            if rows.dim is not None and self._is_part(rows)
        }

    @property
    def computed(self) -> RowSelection:
        """The rows to compute: rows without an index are computed together."""
        together = {
            rows: np.arange(n, dtype="int64")
            for rows, n in self.totals.items()
            if not rows.has_row_ids
        }
        return replace(self, positions={**self.positions, **together})

    @property
    def taken_later(self) -> dict[str, np.ndarray]:
        """Positions to select after computing, by dim."""
        together = {rows.dim for rows in self.totals if not rows.has_row_ids}
        return {dim: positions for dim, positions in self.by_dim.items() if dim in together}

    def labels(self, rows: Rows, coords: Sequence[Any] | np.ndarray | None) -> np.ndarray:
        """Return the coords of the rows of an axis in a result; `coords` are those of all rows."""
        at = self.positions[rows]
        if rows in self.held:
            coords = self.held[rows].coords
        elif coords is not None and len(coords) != self.totals[rows]:
            return at
        return at if coords is None else np.asarray(coords)[at]

    def in_table(self, plate: Sequence[Rows]) -> np.ndarray:
        """Return the rows of a plate in C order over its axes, as in its table: shape (n_rows,)."""
        # As np.ravel_multi_index, for each combination of rows
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
        """Cut it into parts along one axis: yield the place of each part in the result, and its rows."""
        if along is None:
            yield slice(None), self
            return
        chosen = self.positions[along]
        for start in range(0, max(len(chosen), 1), size):  # no rows are one part without rows
            part = slice(start, min(start + size, len(chosen)))
            yield part, replace(self, positions={**self.positions, along: chosen[part]})


def select_rows(
    model: Model,
    axes: Sequence[Rows],
    rows: Any,
    function: str = "approx.sample",
    data: NewData = NewData(),
) -> RowSelection:
    """Read the argument `rows` of a function.

    None selects all rows. A slice, or a sequence of int or bool, selects positions in the data; a dict has by
    dim the coords of rows, or a slice of positions. Other rows raise a ValueError, KeyError, IndexError or
    TypeError. Of axes of new `data` all rows are selected, and `rows` are those of the fit that they belong to.
    """
    named = _read_rows(model, all_of(axes, {}), rows, function)
    dims = set(map(str, rows)) if isinstance(rows, Mapping) else None
    held = dict(data.held)
    for axis, one in data.held.items():
        if rows is None or (dims is not None and str(axis.dim) not in dims):
            continue
        numbers = named.positions[axis]
        if len(numbers) != len(one.numbers):
            raise ValueError(
                f"rows of {function} are {len(numbers)} rows of {axis.dim!r}, and data= has {len(one.numbers)}: "
                "with data=, rows says which rows of the fit these are, in their order"
            )
        coords = model.coords.get(axis.dim)
        labels = one.labels if one.labels is not None else named.labels(axis, coords).tolist()
        held[axis] = AvailableRows(numbers, labels)
    found = all_of(axes, held)
    others = {axis: at for axis, at in named.positions.items() if axis not in held}
    return replace(found, positions={**found.positions, **others}, data=data)


def _read_rows(model: Model, whole: RowSelection, rows: Any, function: str) -> RowSelection:
    """Select `rows` of the fit among the `whole` ones."""
    totals = whole.totals
    if rows is None:
        return whole
    if isinstance(rows, Mapping):
        known = {axis.dim: axis for axis in totals}
        unknown = [dim for dim in rows if dim not in known]
        if unknown:
            raise ValueError(
                f"rows of {function} has {', '.join(map(repr, unknown))}, but the subsampled dims are "
                f"{sorted(str(dim) for dim in known)}. Leave it out, and select from the result, by .sel"
            )
        named = {
            known[dim]: _labelled(model, dim, chosen, totals[known[dim]], function)
            for dim, chosen in rows.items()
        }
        return replace(whole, positions={**whole.positions, **named})
    if not totals:
        raise ValueError(
            f"rows={rows!r} of {function} selects rows, but no dim of the model is subsampled, so that "
            "nothing says what a row is. Leave rows out, and select from the result, by .isel; "
            "var_names= leaves out variables that you do not need"
        )
    if len(totals) > 1:
        raise ValueError(
            f"rows={rows!r} of {function} are positions along one subsampled dim, but the model has "
            f"{[axis.dim for axis in totals]}: write a dict, rows={{dim: coords}}"
        )
    [(axis, n_rows)] = totals.items()
    return replace(whole, positions={axis: _positions(rows, n_rows, axis.dim, function)})


def all_of(axes: Sequence[Rows], held: Mapping[Rows, AvailableRows]) -> RowSelection:
    """Select all rows: those of `held` on its axes, and those of the fit on others."""
    totals = {axis: len(held[axis].numbers) if axis in held else _total(axis) for axis in axes}
    positions = {axis: np.arange(n, dtype="int64") for axis, n in totals.items()}
    return RowSelection(positions, totals, held)


def _total(axis: Rows) -> int:
    """Return the number of rows of an axis, as it is now."""
    return rows_in_all([axis]) if axis.has_row_ids else current_length(axis.n_available) or 0


def _labelled(model: Model, dim: str, chosen: Any, n_rows: int, function: str) -> np.ndarray:
    """Return the positions of rows by their coords, or by number where there are none."""
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
