# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""New data for results: the argument `data` of `approx.sample` and its siblings.

Graphs are computed with other values in the place of those of the model, which stays as it is. Data of
the same rows that are not given have no values, so that what depends on them is an error.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pytensor.tensor as pt

from pytensor.compile.sharedvalue import SharedVariable
from pytensor.graph.basic import Constant, Variable
from pytensor.graph.traversal import ancestors

from pymc.exceptions import ShapeError
from pymc.minibatch.casting import cast_rows
from pymc.minibatch.current_length import current_length
from pymc.minibatch.held_rows import HeldRows, as_batch, row_numbers
from pymc.minibatch.provenance import Rows, value_ancestors
from pymc.minibatch.raw_data import numbers_of
from pymc.minibatch.rebuild import rows_of_data
from pymc.minibatch.slicing import axis_length
from pymc.minibatch.stream import is_stream

if TYPE_CHECKING:
    from pymc.model.core import Model

__all__ = ["NewData", "read_data"]


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
