# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Placeholders for a loader's batches: `pm.Data` of a loader, and `pm.set_data` of rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pytensor
import pytensor.tensor as pt

from pytensor.graph.basic import Variable
from pytensor.graph.traversal import walk
from pytensor.tensor.variable import TensorVariable

from pymc.exceptions import ShapeError
from pymc.minibatch.axis_tracking import Rows
from pymc.minibatch.current_value import current_length
from pymc.minibatch.plates import note_index
from pymc.minibatch.rebuild import rebuild
from pymc.minibatch.stream_index import (
    BatchField,
    BatchLayout,
    BatchStream,
    LoaderRef,
    StreamedRows,
    loader_of,
    stream_index,
    streamed,
)
from pymc.pytensorf import convert_data

if TYPE_CHECKING:
    from pymc.model.core import Model

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pymc.minibatch.array_data import cast_rows
from pymc.minibatch.stream_index import NO_ROW, UNKNOWN_ROW, columns_of, is_fed, is_loader

if TYPE_CHECKING:
    from pymc.model.core import Model

__all__ = [
    "HeldRows",
    "as_batch",
    "as_streamed",
    "check_batches",
    "check_numbers",
    "count_replaced",
    "forget_rows",
    "held_rows",
    "required_rows",
    "row_numbers",
    "set_batch",
    "stream_data",
]


def stream_data(
    name: str,
    loader: BatchStream,
    model: Model,
    dims: Any = None,
    coords: Mapping[str, Any] | None = None,
    **kwargs: Any,
) -> TensorVariable:
    """Register a placeholder for the batches of a loader, or for one field of them.

    Parameters
    ----------
    name : str
        Of the placeholder, and of the field where a batch is a dict.
    loader : DataLoader
        It has a `layout`, a `batch_size` and a `total_size`.
    model : Model
    dims : str or sequence of str or None, optional
        The first is that of the rows, whose length is ``loader.total_size``.
    coords : dict, optional
        Of other dims; by default the names of the columns, where the loader knows them.
    **kwargs
        Of :func:`pytensor.shared`.

    Returns
    -------
    TensorVariable
        The rows of a batch: shape (batch_size, ...) now.

    Raises
    ------
    ValueError, ShapeError
        If the loader has no such field, `dims` do not fit to a row, or the dim has another length
        or is subsampled already.
    """
    field = _field(loader.layout, name)
    names = _check_dims(name, dims, field, loader)
    index = _shared_index(name, loader, names[0], model)
    note_index(model, index)
    zeros = convert_data(np.zeros((loader.batch_size, *field.shape), field.dtype))
    full_name = model.name_for(name)
    shared = pytensor.shared(zeros, full_name, **{"shape": (None, *field.shape), **kwargs})
    shared.tag.field, shared.tag.columns = field.name, field.columns
    _register_dims(model, names, shared, loader, field, coords or {})
    model.register_data_var(shared, dims=names if any(names) else None)
    model.root._streams[full_name] = streamed(shared, index)
    return model.root._streams[full_name]


def _field(layout: BatchLayout, name: str) -> BatchField:
    """Find the field of a placeholder: that of its name, or the only one."""
    if not layout.named:
        return layout.fields[0]
    for field in layout.fields:
        if field.name == name:
            return field
    known = ", ".join(repr(field.name) for field in layout.fields)
    raise ValueError(
        f"pm.Data({name!r}, loader): the loader's batches are dicts of {known}, and none of these is "
        f"{name!r}. Write a pm.Data for each field that the model needs, such as "
        f"pm.Data({layout.fields[0].name!r}, loader)"
    )


def _check_dims(
    name: str, dims: Any, field: BatchField, loader: BatchStream
) -> tuple[str | None, ...]:
    """Name each axis of a placeholder."""
    ndim = 1 + len(field.shape)
    if dims is None:
        return (None,) * ndim
    names = (dims,) if isinstance(dims, str) else tuple(dims)
    if len(names) != ndim:
        raise ShapeError(
            f"dims of pm.Data({name!r}, loader) are {names}, but its batches have {ndim} axes: the "
            f"{loader.batch_size} rows of a batch, and {field.shape} for each row.",
            actual=len(names),
            expected=ndim,
        )
    return names


def _shared_index(name: str, loader: BatchStream, dim: str | None, model: Model) -> Variable:
    """One index for all placeholders of a loader: a new one, or that of its other fields."""
    for other, var in model.root._streams.items():
        index = var.owner.inputs[1]
        if loader_of(index) is not loader:
            continue
        if Rows(index).dim != dim:
            raise ValueError(
                f"pm.Data({name!r}, loader) has the dim {dim!r} for its rows, but {other!r}, of the same "
                f"loader, has {Rows(index).dim!r}: the rows of both are the same, so give both one dim"
            )
        return index
    total = int(loader.total_size)
    if dim is not None and dim in model.dim_lengths:
        length = current_length(model.dim_lengths[dim])
        if length != total:
            raise ValueError(
                f"pm.Data({name!r}, loader): the dim {dim!r} has length {length} in the model, but the "
                f"loader has {total} rows (total_size). Give the rows a dim of their own, or no coords: "
                "the loader says how many there are"
            )
    index = stream_index(total, int(loader.batch_size), dim, f"rows({model.name_for(name)})")
    Rows(index).state.tag.loader = LoaderRef(loader)
    return index


def _register_dims(
    model: Model,
    names: Sequence[str | None],
    shared: Any,
    loader: BatchStream,
    field: BatchField,
    coords: Mapping[str, Any],
) -> None:
    """Register new dims: the rows by their number alone, the last axis by the names of its columns."""
    for k, dim in enumerate(names):
        if dim is None or dim in model.dim_lengths:
            continue
        values, length = coords.get(dim), pt.constant(int(loader.total_size), dtype="int64")
        if k > 0:
            fixed = shared.type.shape[k]
            length = shared.shape[k] if fixed is None else pt.constant(fixed, dtype="int64")
            if values is None and field.columns is not None and k == len(names) - 1:
                values = field.columns
        model.add_coord(dim, values, length=length)


def as_streamed(model: Model, graph: Any) -> Any:
    """Let a graph that uses the placeholders of `model` say that they have the rows of a stream.

    ``model["batch"]`` is the placeholder alone, and does not say it.
    """
    notes = model.root._streams
    if not notes or not isinstance(graph, Variable):
        return graph
    bare = {var.owner.inputs[0]: var for var in notes.values()}
    kept: dict[Variable, Variable] = {}

    def above(var: Variable) -> list[Variable]:
        if var.owner is None:
            return []
        if isinstance(var.owner.op, StreamedRows):
            kept[var] = var
            return []
        return var.owner.inputs

    if bare.keys().isdisjoint(walk([graph], above, False)):
        return graph
    return rebuild([graph], {**bare, **kept})[0]


@dataclass(frozen=True, eq=False)
class HeldRows:
    """Rows whose data are at hand.

    Parameters
    ----------
    numbers : array of int64, shape (n_rows,)
        The place of each among all rows of the fit; -1 where it is not known.
    labels : sequence, optional
        What results call them: by default their numbers, where all are known.
    """

    numbers: np.ndarray
    labels: Sequence[Any] | None = None

    @property
    def coords(self) -> tuple[Any, ...] | None:
        """Return what results call the rows."""
        if self.labels is None and self.all_known:
            return tuple(self.numbers.tolist())
        return None if self.labels is None else tuple(self.labels)

    @property
    def all_known(self) -> bool:
        """Whether all of them have a number."""
        return bool((self.numbers >= 0).all())


def held_rows(model: Model, index: Variable) -> HeldRows | None:
    """Return the rows that the placeholders of a stream hold, where a user put them there.

    Raises
    ------
    ValueError
        If the placeholders hold different numbers of rows.
    """
    rows = Rows(index)
    numbers = rows.state.get_value(borrow=True)  # type: ignore[attr-defined]
    if (numbers == NO_ROW).any():
        return None
    held = {var.owner.inputs[0].name: var.owner.inputs[0] for var in _placeholders(model, rows)}
    lengths = {name: current_length(var.shape[0]) for name, var in held.items()}
    if set(lengths.values()) - {len(numbers)}:
        raise ValueError(
            f"the placeholders of one loader hold the same rows, and they have {lengths} rows. Give all of "
            "them in one pm.set_data call; observed values that are not known may be zeros"
        )
    labels = model.coords.get(rows.dim or "")
    if labels is not None and len(labels) == current_length(rows.total) and (numbers >= 0).all():
        labels = [labels[k] for k in numbers]
    if labels is not None and len(labels) != len(numbers):
        labels = None
    return HeldRows(numbers, labels)


def required_rows(model: Model, index: Variable, what: str = "this") -> HeldRows:
    """Return the rows that a stream holds.

    Raises
    ------
    ValueError
        If no user put any there; `what` says who needs them.
    """
    found = held_rows(model, index)
    if found is None:
        names = ", ".join(f"{name!r}: ..." for name in model.root._streams)
        raise ValueError(
            f"{what} needs data, but those of {Rows(index)} come in batches from a loader, and what the "
            f"model holds is none that you chose. Give it rows, any number of them: pm.set_data({{{names}}}) "
            f"before, or data={{{names}}} of a method of the approximation. The result is about these rows"
        )
    return found


def _placeholders(model: Model, rows: Rows) -> list[Variable]:
    streams = model.root._streams.values()
    return [var for var in streams if Rows(var.owner.inputs[1]) == rows]


def set_batch(
    model: Model, name: str, values: Any, coords: Mapping[str, Sequence] | None = None
) -> bool:
    """Put a batch into a placeholder, as `Model.set_data` does; return whether `name` is one.

    Parameters
    ----------
    model : Model
    name : str
    values : array_like, shape (n_rows, ...)
        Any number of rows. Their numbers are its attribute `rows`, which batches of a loader have; a
        variable with a value for each row cannot be fitted to rows without.
    coords : dict, optional
        Of the rows, for the results about them.

    Raises
    ------
    TypeError, ValueError, ShapeError
        If the values are no batch of this placeholder.
    """
    var = _stream_named(model, name)
    if var is None:
        return False
    shared, rows = var.owner.inputs[0], Rows(var.owner.inputs[1])
    array = as_batch(name, values, shared, "pm.set_data")
    numbers, dim = row_numbers(name, values, len(array), rows), rows.dim or ""
    labels, total = (coords or {}).get(dim), current_length(rows.total)
    if labels is not None and len(labels) != len(array):
        raise ShapeError(
            f"coords of the dim {dim!r} do not fit to the rows of {name!r}.",
            actual=len(labels),
            expected=len(array),
        )
    shared.set_value(array, borrow=True)
    state: Any = rows.state
    others = [one for one in _placeholders(model, rows) if one is not var and _is_fed(one)]
    if others and not np.array_equal(state.get_value(borrow=True), numbers):
        numbers = np.full(
            len(numbers), UNKNOWN_ROW
        )  # pm.set_data of all of them says which they are
    state.set_value(numbers)
    before = model.root._coords.get(dim)
    if labels is not None:
        model.root._coords[dim] = tuple(labels)
    elif before is not None and len(before) != total:  # of other rows that were set
        model.root._coords[dim] = None
    return True


def check_batches(model: Model, new_data: Mapping[str, Any]) -> dict[Rows, np.ndarray]:
    """Check that batches of one loader, which :func:`pymc.set_data` is given, are of the same rows.

    Returns
    -------
    dict of Rows to array of int64
        The numbers of the rows of each stream.

    Raises
    ------
    ValueError
        If a placeholder of these rows is left out, or has other rows.
    """
    found: dict[Rows, dict[str, np.ndarray]] = {}
    for name, values in new_data.items():
        var = _stream_named(model, name)
        if var is not None and np.ndim(values):
            rows = Rows(var.owner.inputs[1])
            numbers = row_numbers(name, values, len(np.asarray(values)), rows)
            found.setdefault(rows, {})[var.owner.inputs[0].name] = numbers
    for rows, by_name in found.items():
        known = [var.owner.inputs[0].name for var in _placeholders(model, rows) if _is_fed(var)]
        missing = [name for name in known if name not in by_name]
        first = next(iter(by_name.values()))
        if missing or not all(np.array_equal(first, other) for other in by_name.values()):
            lengths = {name: len(numbers) for name, numbers in by_name.items()}
            raise ValueError(
                f"pm.set_data gave rows to {lengths}"
                + (f" and none to {missing}" if missing else ", which are not the same rows")
                + f": the placeholders {known} of one loader hold the same rows. Give all of them in "
                "one pm.set_data call; observed values that are not known may be zeros"
            )
    return {rows: next(iter(by_name.values())) for rows, by_name in found.items()}


def forget_rows(model: Model) -> None:
    """Note that what the placeholders hold, as the last batch of a fit, was not put there by a user."""
    for var in model.root._streams.values():
        state: Any = Rows(var.owner.inputs[1]).state
        state.set_value(np.full(len(state.get_value(borrow=True)), NO_ROW))


def count_replaced(model: Model, name: str) -> None:
    """Note how many rows :func:`pymc.do` has put in the place of a placeholder.

    Parameters
    ----------
    model : Model
        What `do` has made.
    name : str
        Of a variable that was replaced; nothing is done where it is no placeholder.
    """
    var = model.root._streams.get(name)
    if var is not None and not _is_fed(var):
        n_rows = len(var.owner.inputs[0].get_value(borrow=True))
        Rows(var.owner.inputs[1]).state.set_value(  # type: ignore[attr-defined]
            np.full(n_rows, UNKNOWN_ROW)
        )


def _stream_named(model: Model, name: str) -> Variable | None:
    streams = model.root._streams
    return streams.get(name, streams.get(model.name_for(name)))


def _is_fed(var: Variable) -> bool:
    return is_fed(var.owner.inputs[0])


def as_batch(name: str, values: Any, shared: Any, function: str) -> np.ndarray:
    """Return values as rows that a placeholder can hold.

    Raises
    ------
    TypeError, ValueError, ShapeError
    """
    if is_loader(values) or isinstance(values, Mapping):
        raise TypeError(
            f"{function} got {type(values).__name__} for {name!r}, which holds one array of rows: give "
            'it a batch, as in pm.set_data({"batch": next(iter(loader))}), or where batches are dicts '
            "of fields, pm.set_data(batch)"
        )
    array, shape = np.asarray(values), shared.type.shape[1:]
    if array.ndim != shared.type.ndim or array.shape[1:] != shape:
        columns = columns_of(shared)
        of = f", the columns {list(columns)}" if columns else ""
        raise ShapeError(
            f"{function} got values of shape {array.shape} for {name!r}, which holds rows of shape "
            f"{shape}{of}: (any number of rows, {', '.join(map(str, shape)) or 'nothing more'}).",
        )
    if not len(array):
        raise ValueError(f"{function} got no rows for {name!r}: a batch has at least one")
    array = cast_rows(array, shared.type.numpy_dtype, f"{function} of {name!r}")
    if array.dtype.kind == "f" and np.isnan(array).any():
        rows = np.flatnonzero(np.isnan(array).reshape(len(array), -1).any(axis=1))
        raise ValueError(
            f"{function} got NaN for {name!r} in rows {rows[:5].tolist()} of the batch. Drop or fill "
            "these rows: the values of a stream cannot be imputed"
        )
    return array.copy() if np.may_share_memory(array, values) else array


def row_numbers(name: str, values: Any, n_rows: int, rows: Rows) -> np.ndarray:
    """Return the numbers of rows, which batches of a loader have as their attribute `rows`.

    Raises
    ------
    ValueError
        If there are not so many rows in all.
    """
    found = getattr(values, "rows", None)
    if found is None:
        return np.full(n_rows, UNKNOWN_ROW, dtype="int64")
    numbers, total = np.array(found, dtype="int64"), current_length(rows.total) or 0
    if numbers.shape != (n_rows,):
        return np.full(n_rows, UNKNOWN_ROW, dtype="int64")  # of another array
    if numbers.min() < UNKNOWN_ROW or numbers.max() >= total:
        raise ValueError(
            f"the batch for {name!r} has the row {numbers.max()}, but the loader of the model has "
            f"total_size={total}: rows are counted from 0. Is it a batch of another loader?"
        )
    return numbers


def check_numbers(rows: Rows, name: str) -> None:
    """Raise where the batch of a stream has rows without a number.

    Parameters
    ----------
    rows : Rows
        Of a stream.
    name : str
        What has a value for each row.
    """
    numbers = rows.state.get_value(borrow=True)  # type: ignore[attr-defined]
    if (numbers < 0).any():
        raise ValueError(
            f"{name} have a value for each row of the dim {rows.dim!r}, but which rows the batch at hand "
            "holds is not known, so that those of other rows would be taken, or change in a fit. Fit by pm.Trainer or "
            "pm.fit(data=loader), which know it; by hand, give pm.set_data the loader's own batches, "
            "which have their rows' numbers as the attribute rows"
        )
