# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Select the rows that a result is about: positions and numbers, from what users write."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
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
from pymc.minibatch.current_value import current_length
from pymc.minibatch.data_placeholder import HeldRows, as_batch, row_numbers
from pymc.minibatch.minibatch import axis_length
from pymc.minibatch.rebuild import rows_of_data
from pymc.minibatch.stream_index import is_stream
from pymc.variational.rows.table import rows_in_all

if TYPE_CHECKING:
    from pymc.model.core import Model

__all__ = [
    "NewData",
    "RowSelection",
    "read_data",
    "select_held",
    "select_new",
    "select_rows",
]


@dataclass(frozen=True, eq=False)
class NewData:
    """Data that a result is about, in the place of those of the model.

    Parameters
    ----------
    values : mapping of str to array
        By name of the `pm.Data`.
    held : mapping of Rows to HeldRows
        The rows of the values, of each axis of rows that they have.
    swaps : mapping of Variable to Variable
        What takes the place of data of the model, and of lengths of dims.
    coords : mapping of str to sequence or None
        Of dims that are not of `held`, and have another length.
    missing : mapping of Variable to str
        Data of the same rows without values, by what messages call them.
    """

    values: Mapping[str, np.ndarray] = field(default_factory=dict)
    held: Mapping[Rows, HeldRows] = field(default_factory=dict)
    swaps: Mapping[Variable, Variable] = field(default_factory=dict)
    coords: Mapping[str, Sequence[Any] | None] = field(default_factory=dict)
    missing: Mapping[Variable, str] = field(default_factory=dict)

    def lacks(self, graphs: Iterable[Variable]) -> list[str]:
        """List the data without values that some graphs depend on."""
        found = set(value_ancestors(graphs)) if self.missing else set()
        return [name for var, name in self.missing.items() if var in found]

    def check(self, graphs: Iterable[Variable], what: str) -> None:
        """Raise where graphs depend on data that were not given.

        Raises
        ------
        ValueError
        """
        lacking = self.lacks(graphs)
        if lacking:
            raise ValueError(
                f"{what} depends on {' and '.join(lacking)}, of whose rows data= has {list(self.values)} only: give "
                "the values of the same rows in data= too"
            )

    def of_old_lengths(self, model: Model, graphs: Iterable[Variable]) -> list[str]:
        """List other data above some graphs that have a length which the given ones had in the model."""
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
    data: Any,
    coords: Any,
    function: str,
) -> NewData:
    """Read the arguments `data` and `coords`.

    Parameters
    ----------
    model : Model
    axes : sequence of Rows
        The axes of rows that there are.
    reads : iterable of Variable
        What guides depend on.
    data, coords : mapping or None
        Of the user.
    function : str
        For messages.

    Raises
    ------
    ValueError, TypeError, ShapeError
        If there is no such `pm.Data`, or the values do not fit to it or to each other.
    """
    if data is None:
        if coords is not None:
            raise ValueError(
                f"coords={dict(coords)!r} of {function} are names of the rows of data=, which is not given"
            )
        return NewData()
    variables = _variables(model, data, function)
    placeholders = _placeholders(model)
    values = {
        name: _checked(name, data[name], var, var in placeholders, function)
        for name, var in variables.items()
    }
    on_rows = _data_on_rows(model, axes, reads)
    dims = {name: model.named_vars_to_dims.get(var.name) or () for name, var in variables.items()}
    held = _rows_held(variables, values, data, on_rows, coords or {}, function)
    lengths: dict[str, int] = {}
    for name, value in values.items():
        for dim, length in zip(dims[name], value.shape):
            if dim is not None and lengths.setdefault(dim, length) != length:
                raise ShapeError(
                    f"data of {function} have different lengths along the dim {dim!r}.",
                    actual=length,
                    expected=lengths[dim],
                )
    swaps: dict[Variable, Variable] = {
        var: _holding(var, values[name]) for name, var in variables.items()
    }
    changed = {dim: n for dim, n in lengths.items() if n != current_length(model.dim_lengths[dim])}
    missing: dict[Variable, str] = {}
    fixed = _fixed_values(model)
    for var in [*on_rows, *model.data_vars, *fixed]:
        new = {k: len(held[r].numbers) for k, r in on_rows.get(var, {}).items() if r in held}
        named = enumerate(model.named_vars_to_dims.get(fixed.get(var, var.name)) or ())
        new |= {k: changed[dim] for k, dim in named if dim in changed}
        if new and var not in swaps:
            missing[var] = "an array" if var.name is None else repr(var.name)
            if var in fixed:
                missing[var] = f"the observed values of {fixed[var]!r}, which are not in pm.Data"
            swaps[var] = _nothing(var, new)
    for dim, length in lengths.items():
        swaps[model.dim_lengths[dim]] = pt.constant(length, dtype="int64")
    of_rows = {rows.dim for rows in held}
    other = {
        dim: (coords or {}).get(dim, np.arange(length))
        for dim, length in lengths.items()
        if dim not in of_rows and (dim in (coords or {}) or dim in changed)
    }
    _check_coords(coords or {}, lengths, function)
    return NewData(values, held, swaps, other, missing)


def _variables(model: Model, data: Any, function: str) -> dict[str, SharedVariable]:
    """Find the `pm.Data` that are given, by name."""
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


def _fixed_values(model: Model) -> dict[Variable, str]:
    """Return observed values that are constants, and the variable that each is of."""
    values = {model.rvs_to_values[rv]: rv.name for rv in model.observed_RVs}
    return {value: name for value, name in values.items() if isinstance(value, Constant)}


def _placeholders(model: Model) -> Collection[Variable]:
    return {var.owner.inputs[0] for var in model.root._streams.values()}


def _checked(name: str, values: Any, var: Any, streamed: bool, function: str) -> np.ndarray:
    """Return values as an array that a `pm.Data` can hold."""
    what = f"data of {function}"
    if streamed:
        return as_batch(name, values, var, what)
    array = np.asarray(numbers_of(values))
    fits = array.ndim == var.type.ndim and all(
        n is None or n == m for n, m in zip(var.type.shape, array.shape)
    )
    if not fits:
        raise ShapeError(
            f"{what} has values of shape {array.shape} for {name!r}, whose shape is {var.type.shape}."
        )
    return cast_rows(array, var.type.numpy_dtype, f"{what}[{name!r}]")


def _data_on_rows(
    model: Model, axes: Sequence[Rows], reads: Iterable[Variable]
) -> dict[Variable, dict[int, Rows]]:
    """Return which data have rows, by axis: by the index that takes them, or by their dims."""
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
) -> dict[Rows, HeldRows]:
    """Return the rows that values are of, by axis."""
    held: dict[Rows, HeldRows] = {}
    names: dict[Rows, str] = {}
    for name, var in variables.items():
        for k, rows in on_rows.get(var, {}).items():
            n_rows = values[name].shape[k]
            batch = data[name] if is_stream(rows) and k == 0 else None
            one = HeldRows(row_numbers(name, batch, n_rows, rows), coords.get(rows.dim or ""))
            if rows in held and not np.array_equal(held[rows].numbers, one.numbers):
                raise ValueError(
                    f"data of {function} have {names[rows]!r} and {name!r}, which have the same rows in the "
                    f"model, of {len(held[rows].numbers)} and of {n_rows} rows that are not the same"
                )
            held[rows], names[rows] = one, name
    return held


def _nothing(var: Variable, new: Mapping[int, int]) -> Variable:
    """Make values of new lengths, which nothing may depend on."""
    lengths = [new.get(k, n or 0) for k, n in enumerate(_shape(var))]
    value = np.nan if var.type.dtype.startswith("float") else 0
    return _holding(var, np.full(lengths, value, var.type.dtype))


def _shape(var: Variable) -> list[int | None]:
    return [current_length(axis_length(var, k)) for k in range(var.type.ndim)]


def _holding(var: Variable, value: np.ndarray) -> Variable:
    """Make a variable like another one, with other values."""
    if isinstance(var, SharedVariable):
        type_ = var.type.clone(
            shape=tuple(n and (n if n == m else None) for n, m in zip(var.type.shape, value.shape))
        )
        return type(var)(type_, value, strict=False, name=var.name)
    return pt.constant(value)


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
            if not rows.has_row_ids
        }
        return replace(self, positions={**self.positions, **there})

    @property
    def taken_later(self) -> dict[str, np.ndarray]:
        """Positions to select after computing, by dim."""
        there = {rows.dim for rows in self.totals if not rows.has_row_ids}
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
    >>> from pymc.minibatch.axis_tracking import Rows
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
    return rows_in_all([axis]) if axis.has_row_ids else current_length(axis.n_available) or 0


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
