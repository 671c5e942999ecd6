# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Placeholders for a loader's batches: `pm.Data` of a loader, and `pm.set_data` of rows.

The state of a stream's index has the numbers of the rows in the placeholders: :data:`UNKNOWN_ROW` for rows
that came without, and :data:`UNSET_ROW` if no user has set the rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any

import numpy as np
import pytensor
import pytensor.tensor as pt

from pytensor.compile.sharedvalue import SharedVariable
from pytensor.graph.basic import Variable
from pytensor.graph.traversal import ancestors, walk
from pytensor.tensor.variable import TensorVariable

from pymc.exceptions import ShapeError
from pymc.minibatch.array_data import cast_rows
from pymc.minibatch.axis_tracking import Rows, indexes
from pymc.minibatch.plates import note_index
from pymc.minibatch.rebuild import rebuild
from pymc.minibatch.stream_index import (
    UNKNOWN_ROW,
    UNSET_ROW,
    LoaderLike,
    StreamedRows,
    is_loader,
    is_placeholder,
    stream_index,
    streamed,
)
from pymc.pytensorf import convert_data, current_length

if TYPE_CHECKING:
    from pymc.data_loading.sources.layout import Field
    from pymc.model.core import Model


def stream_data(
    name: str,
    loader: LoaderLike,
    model: Model,
    dims: str | Sequence[str | None] | None = None,
    coords: Mapping[str, Any] | None = None,
    **kwargs: object,
) -> TensorVariable:
    """Register a placeholder for the batches of a loader, or for one field of them; see :func:`pymc.Data`.

    It is the field called `name` where batches are dicts. The first of `dims` is that of the rows, whose
    length is ``loader.total_size``.
    """
    field = _find_field(loader, name)
    ndim = 1 + len(field.shape)
    if dims is None:
        dims = (None,) * ndim
    names = (dims,) if isinstance(dims, str) else tuple(dims)
    if len(names) != ndim:
        raise ShapeError(
            f"dims of pm.Data({name!r}, loader) are {names}, but its batches have {ndim} axes: the "
            f"{loader.batch_size} rows of a batch, and {field.shape} for each row.",
            actual=len(names),
            expected=ndim,
        )
    index = _shared_index(name, loader, names[0], model)
    note_index(model, index)
    zeros = convert_data(np.zeros((loader.batch_size, *field.shape), field.dtype))
    full_name = model.name_for(name)
    shared = pytensor.shared(zeros, full_name, **{"shape": (None, *field.shape), **kwargs})
    shared.tag.field = field
    _register_dims(model, names, shared, loader, coords or {})
    model.register_data_var(shared, dims=names if any(names) else None)
    model.root._streams[full_name] = streamed(shared, index)
    return model.root._streams[full_name]


def _find_field(loader: LoaderLike, name: str) -> Field:
    """Return the field of the placeholder's name, or the only one."""
    if not loader.layout.named:
        return loader.layout.fields[0]
    fields = {field.name: field for field in loader.layout.fields}
    if name not in fields:
        known = ", ".join(map(repr, fields))
        raise ValueError(
            f"pm.Data({name!r}, loader): the loader's batches are dicts of {known}, and none of these is "
            f"{name!r}. Write a pm.Data for each field that the model needs, such as "
            f"pm.Data({loader.layout.fields[0].name!r}, loader)"
        )
    return fields[name]


class _LoaderRef:
    """A loader, for comparison by identity: it goes to copies of a graph, but not to other processes."""

    def __init__(self, loader: LoaderLike | None) -> None:
        self.loader = loader

    def __deepcopy__(self, memo: dict[int, Any]) -> _LoaderRef:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return _LoaderRef, (None,)


def _shared_index(name: str, loader: LoaderLike, dim: str | None, model: Model) -> Variable:
    """Return one index for all placeholders of a loader: a new one, or that of its other fields."""
    for other, var in model.root._streams.items():
        index = var.owner.inputs[1]
        reference = vars(Rows(index).state.tag).get("loader")
        if reference is None or reference.loader is not loader:
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
                f"loader has {total} rows (total_size). Use another dim for the rows, or leave out the coords "
                "of this one, whose length comes from the loader"
            )
    index = stream_index(total, int(loader.batch_size), dim, f"rows({model.name_for(name)})")
    Rows(index).state.tag.loader = _LoaderRef(loader)
    return index


def note_feed(rows: Rows, loader: LoaderLike) -> None:
    """Note the loader whose batches a fit takes, which may be another than that of the model."""
    rows.state.tag.fed_by = _LoaderRef(loader)


def loader_of(rows: Rows) -> LoaderLike | None:
    """Return the loader of a stream's rows: that of the last fit, or of the model; None if it is not known."""
    tags = vars(rows.state.tag)
    found = [tags[name].loader for name in ("fed_by", "loader") if name in tags]
    return next((loader for loader in found if loader is not None), None)


def _register_dims(
    model: Model,
    names: Sequence[str | None],
    shared: TensorVariable,
    loader: LoaderLike,
    coords: Mapping[str, Any],
) -> None:
    """Register new dims: that of the rows without coords, the last axis by the names of its columns."""
    for k, dim in enumerate(names):
        if dim is None or dim in model.dim_lengths:
            continue
        values = coords.get(dim)
        length = int(loader.total_size) if k == 0 else shared.type.shape[k]
        if values is None and k > 0 and k == len(names) - 1:
            values = shared.tag.field.columns
        fixed = shared.shape[k] if length is None else pt.constant(length, dtype="int64")
        model.add_coord(dim, values, length=fixed)


def as_streamed(model: Model, graph: Any) -> Any:
    """Replace the placeholders of `model` in a graph by their streamed rows.

    ``model["batch"]`` is the placeholder alone, which has no index.
    """
    streams = model.root._streams
    if not streams or not isinstance(graph, Variable):
        return graph
    bare = {var.owner.inputs[0]: var for var in streams.values()}
    kept: dict[Variable, Variable] = {}

    def parents(var: Variable) -> list[Variable]:
        if var.owner is None:
            return []
        if isinstance(var.owner.op, StreamedRows):
            kept[var] = var
            return []
        return var.owner.inputs

    if bare.keys().isdisjoint(walk([graph], parents, False)):
        return graph
    return rebuild([graph], {**bare, **kept})[0]


@dataclass(frozen=True, eq=False)
class AvailableRows:
    """Rows whose data are in memory.

    `numbers` are their places in the full data: int64, shape (n_rows,), -1 where unknown. `labels` are
    their coords in results, by default the numbers if all are known.
    """

    numbers: np.ndarray
    labels: Sequence[Any] | None = None

    @property
    def coords(self) -> tuple[Any, ...] | None:
        """Coords of the rows in results."""
        if self.labels is None and self.all_known:
            return tuple(self.numbers.tolist())
        return None if self.labels is None else tuple(self.labels)

    @property
    def all_known(self) -> bool:
        """True if all rows have a number."""
        return bool((self.numbers >= 0).all())


def available_rows(model: Model, index: Variable) -> AvailableRows | None:
    """Return the rows that a user has put into the placeholders of a stream; None if nobody has."""
    rows = Rows(index)
    numbers = _get_numbers(rows)
    if (numbers == UNSET_ROW).any():
        return None
    placeholders = [var.owner.inputs[0] for var in _streams_on(model, rows)]
    lengths = {var.name: current_length(var.shape[0]) for var in placeholders}
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
    return AvailableRows(numbers, labels)


def require_rows(model: Model, index: Variable, what: str = "this") -> AvailableRows:
    """Return the rows that a user has put into the placeholders of a stream, for the function `what`."""
    found = available_rows(model, index)
    if found is None:
        names = ", ".join(f"{name!r}: ..." for name in model.root._streams)
        raise ValueError(
            f"{what} needs data, but those of {Rows(index)} come in batches from a loader, and you have set no "
            f"rows in the model. Set rows, any number of them, by pm.set_data({{{names}}}) "
            f"before, or data={{{names}}} of a method of the approximation. The result is about these rows"
        )
    return found


def set_batch(
    model: Model, name: str, values: Any, coords: Mapping[str, Sequence] | None = None
) -> bool:
    """Put a batch into a placeholder, as `Model.set_data` does; return False if `name` is none.

    A batch has any number of rows. Those of a loader have the row numbers as their attribute `rows`.
    """
    var = _find_stream(model, name)
    if var is None:
        return False
    placeholder, rows = var.owner.inputs[0], Rows(var.owner.inputs[1])
    array = batch_values(name, values, placeholder, "pm.set_data")
    numbers, dim = row_numbers(name, values, len(array), rows), rows.dim or ""
    labels = (coords or {}).get(dim)
    if labels is not None and len(labels) != len(array):
        raise ShapeError(
            f"coords of the dim {dim!r} do not fit to the rows of {name!r}.",
            actual=len(labels),
            expected=len(array),
        )
    placeholder.set_value(array, borrow=True)
    others = [v.owner.inputs[0] for v in _streams_on(model, rows) if v is not var]
    if any(map(is_placeholder, others)) and not np.array_equal(_get_numbers(rows), numbers):
        # The others may hold other rows; pm.set_data of all of them sets the numbers afterwards
        numbers = np.full(len(numbers), UNKNOWN_ROW)
    _set_numbers(rows, numbers)
    old_labels = model.root._coords.get(dim)
    if labels is not None:
        model.root._coords[dim] = tuple(labels)
    elif old_labels is not None and len(old_labels) != current_length(rows.total):
        model.root._coords[dim] = None  # they are of the rows that were set before
    return True


def check_batches(model: Model, new_data: Mapping[str, Any]) -> dict[Rows, np.ndarray]:
    """Return the row numbers of each stream for which :func:`pymc.set_data` has batches.

    All placeholders of a loader have to be set, to the same rows.
    """
    found: dict[Rows, dict[str, np.ndarray]] = {}
    for name, values in new_data.items():
        var = _find_stream(model, name)
        if var is not None and np.ndim(values):
            rows = Rows(var.owner.inputs[1])
            numbers = row_numbers(name, values, len(np.asarray(values)), rows)
            found.setdefault(rows, {})[var.owner.inputs[0].name] = numbers
    for rows, by_name in found.items():
        placeholders = [var.owner.inputs[0] for var in _streams_on(model, rows)]
        names = [var.name for var in placeholders if is_placeholder(var)]
        missing = [name for name in names if name not in by_name]
        first = next(iter(by_name.values()))
        if missing or not all(np.array_equal(first, other) for other in by_name.values()):
            lengths = {name: len(numbers) for name, numbers in by_name.items()}
            raise ValueError(
                f"pm.set_data gave rows to {lengths}"
                + (f" and none to {missing}" if missing else ", which are not the same rows")
                + f": the placeholders {names} of one loader hold the same rows. Give all of them in "
                "one pm.set_data call; observed values that are not known may be zeros"
            )
    return {rows: next(iter(by_name.values())) for rows, by_name in found.items()}


def unset_rows(model: Model) -> None:
    """Mark the rows in the placeholders, such as the last batch of a fit, as not set by a user."""
    for var in model.root._streams.values():
        rows = Rows(var.owner.inputs[1])
        _set_numbers(rows, np.full(len(_get_numbers(rows)), UNSET_ROW))


def replaces_placeholders(do: Callable[..., Model]) -> Callable[..., Model]:
    """Let `pm.do` replace the rows of a loader, and refuse a minibatch of the data that it replaces."""

    @wraps(do)
    def wrapper(model: Model, vars_to_interventions: Mapping[Any, Any], **kwargs: object) -> Model:
        interventions = {_placeholder(var): new for var, new in vars_to_interventions.items()}
        old = {model[var] if isinstance(var, str) else var for var in interventions}
        for var, new in interventions.items():
            if (
                isinstance(new, Variable)
                and indexes([new])
                and not old.isdisjoint(ancestors([new]))
            ):
                raise ValueError(
                    f"pm.do replaces {var} by {new.name or new}, a minibatch of data that it replaces as "
                    "well. Use pm.minibatch_model(model, batch_size=...) to have a model take rows of its "
                    "own data, or give pm.do a minibatch of other data"
                )
        result = do(model, interventions, **kwargs)
        for var in old:
            stream = result.root._streams.get(var.name)
            if stream is not None and not is_placeholder(stream.owner.inputs[0]):
                n_rows = len(stream.owner.inputs[0].get_value(borrow=True))
                _set_numbers(Rows(stream.owner.inputs[1]), np.full(n_rows, UNKNOWN_ROW))
        return result

    return wrapper


def _placeholder(var: Variable | str) -> Variable | str:
    """Return the placeholder of streamed rows; other variables as they are."""
    if isinstance(var, Variable) and var.owner and isinstance(var.owner.op, StreamedRows):
        return var.owner.inputs[0]
    return var


def _get_numbers(rows: Rows) -> np.ndarray:
    return rows.state.get_value(borrow=True)  # type: ignore[attr-defined]


def _set_numbers(rows: Rows, numbers: np.ndarray) -> None:
    rows.state.set_value(numbers)  # type: ignore[attr-defined]


def _streams_on(model: Model, rows: Rows) -> Iterator[Variable]:
    return (v for v in model.root._streams.values() if Rows(v.owner.inputs[1]) == rows)


def _find_stream(model: Model, name: str) -> Variable | None:
    streams = model.root._streams
    return streams.get(name, streams.get(model.name_for(name)))


def batch_values(name: str, values: Any, placeholder: SharedVariable, function: str) -> np.ndarray:
    """Return values as an array of rows for a placeholder, or raise."""
    if is_loader(values) or isinstance(values, Mapping):
        raise TypeError(
            f"{function} got {type(values).__name__} for {name!r}, which holds one array of rows: give "
            'it a batch, as in pm.set_data({"batch": next(iter(loader))}), or where batches are dicts '
            "of fields, pm.set_data(batch)"
        )
    array, shape = np.asarray(values), placeholder.type.shape[1:]
    if array.ndim != placeholder.type.ndim or array.shape[1:] != shape:
        columns = placeholder.tag.field.columns if is_placeholder(placeholder) else None
        of = f", the columns {list(columns)}" if columns else ""
        raise ShapeError(
            f"{function} got values of shape {array.shape} for {name!r}, which holds rows of shape "
            f"{shape}{of}: (any number of rows, {', '.join(map(str, shape)) or 'nothing more'}).",
        )
    if not len(array):
        raise ValueError(f"{function} got no rows for {name!r}: a batch has at least one")
    array = cast_rows(array, placeholder.type.numpy_dtype, f"{function} of {name!r}")
    if array.dtype.kind == "f" and np.isnan(array).any():
        rows = np.flatnonzero(np.isnan(array).reshape(len(array), -1).any(axis=1))
        raise ValueError(
            f"{function} got NaN for {name!r} in rows {rows[:5].tolist()} of the batch. Drop or fill "
            "these rows: the values of a stream cannot be imputed"
        )
    return array.copy() if np.may_share_memory(array, values) else array


def row_numbers(name: str, values: Any, n_rows: int, rows: Rows) -> np.ndarray:
    """Return the numbers of rows, which batches of a loader have as their attribute `rows`."""
    numbers = np.array(getattr(values, "rows", UNKNOWN_ROW), dtype="int64")
    if numbers.shape != (n_rows,):  # none, or those of another array
        return np.full(n_rows, UNKNOWN_ROW, dtype="int64")
    total = current_length(rows.total) or 0
    if numbers.min() < UNKNOWN_ROW or numbers.max() >= total:
        raise ValueError(
            f"the batch for {name!r} has the row {numbers.max()}, but the loader of the model has "
            f"total_size={total}: rows are counted from 0. Is it a batch of another loader?"
        )
    return numbers


def check_row_numbers(rows: Rows, name: str) -> None:
    """Raise a ValueError if rows of a stream have no number, which `name` needs."""
    if (_get_numbers(rows) < 0).any():
        raise ValueError(
            f"{name} have a value for each row of the dim {rows.dim!r}, but the row numbers of the current "
            "batch are unknown, so that the values of other rows would be used, or changed by a fit. Fit by "
            "pm.Trainer or pm.fit(data=loader), which know them; by hand, give pm.set_data the loader's own "
            "batches, which have the row numbers as the attribute rows"
        )
