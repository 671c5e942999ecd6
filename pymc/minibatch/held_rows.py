# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""The rows that the placeholders of a stream hold: `pm.set_data` of batches, and their numbers.

The state of the index says which rows these are: their numbers, :data:`UNKNOWN_ROW` for rows that came
without, and :data:`NO_ROW` where no user put any there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pytensor.graph.basic import Variable

from pymc.exceptions import ShapeError
from pymc.minibatch.casting import cast_rows
from pymc.minibatch.current_length import current_length
from pymc.minibatch.loaders import is_loader
from pymc.minibatch.provenance import Rows
from pymc.minibatch.stream import NO_ROW, UNKNOWN_ROW, columns_of, is_fed

if TYPE_CHECKING:
    from pymc.model.core import Model

__all__ = [
    "HeldRows",
    "as_batch",
    "check_batches",
    "check_numbers",
    "count_replaced",
    "forget_rows",
    "held_rows",
    "required_rows",
    "row_numbers",
    "set_batch",
]


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
