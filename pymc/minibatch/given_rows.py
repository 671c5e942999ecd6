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
"""What `pm.set_data` puts into the placeholders of a stream: rows, and which of all they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pytensor.graph.basic import Variable
from pytensor.tensor.sharedvar import TensorSharedVariable

from pymc.exceptions import ShapeError
from pymc.minibatch.current_length import current_length
from pymc.minibatch.loaders import is_loader
from pymc.minibatch.plates import local_axes
from pymc.minibatch.provenance import Rows
from pymc.minibatch.raw_data import numbers_of
from pymc.minibatch.stream import UNKNOWN_ROW, columns_of, is_fed, is_stream

__all__ = [
    "Given",
    "cast_rows",
    "check_exact",
    "check_integers",
    "check_numbers",
    "check_rows_known",
    "give_rows",
    "given_rows",
    "keep_given",
    "set_batch",
]


@dataclass(frozen=True, eq=False)
class Given:
    """What `pm.set_data` put into a placeholder.

    Parameters
    ----------
    value : array
        The value itself: another one there means that a batch was fed since.
    rows : array of int64, shape (n_rows,)
    labels : tuple, optional
        Coords of the rows, where the user gave some.
    """

    value: np.ndarray
    rows: np.ndarray
    labels: tuple[Any, ...] | None = None

    @property
    def coords(self) -> tuple[Any, ...] | None:
        """What results call the rows: as the user did, or by their numbers where they are known."""
        if self.labels is None and (self.rows != UNKNOWN_ROW).all():
            return tuple(self.rows.tolist())
        return self.labels

    def agrees_with(self, other: Given) -> bool:
        """Tell whether two placeholders have been given the same rows."""
        return np.array_equal(self.rows, other.rows) and self.labels == other.labels


def set_batch(
    model: Any, name: str, values: Any, coords: Mapping[str, Sequence] | None = None
) -> bool:
    """Put a batch into a placeholder, as :func:`pymc.set_data` does; tell whether `name` is one.

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
    full_name = model.name_for(name) if name not in model.root._streams else name
    var = model.root._streams.get(full_name)
    if var is None:
        return False
    shared, index = var.owner.inputs
    array = _as_batch(name, values, shared)
    numbers = _row_numbers(name, values, len(array), Rows(index))
    labels = (coords or {}).get(Rows(index).dim or "")
    if labels is not None and len(labels) != len(array):
        raise ShapeError(
            f"coords of the dim {Rows(index).dim!r} do not fit to the rows of {name!r}.",
            actual=len(labels),
            expected=len(array),
        )
    shared.set_value(array, borrow=True)
    _note_given(model, shared, Rows(index), numbers, None if labels is None else tuple(labels))
    return True


def give_rows(model: Any, name: str) -> None:
    """Count what :func:`pymc.do` has put in the place of a placeholder as rows that the user gave.

    Parameters
    ----------
    model : Model
        What `do` has made.
    name : str
        Of a variable that was replaced; nothing is done where it is no placeholder.
    """
    var = model.root._streams.get(name)
    if var is not None and not is_fed(shared := var.owner.inputs[0]):
        n_rows = len(shared.get_value(borrow=True))
        _note_given(model, shared, Rows(var.owner.inputs[1]), np.full(n_rows, UNKNOWN_ROW), None)


def _note_given(
    model: Any, shared: Any, rows: Rows, numbers: np.ndarray, labels: tuple[Any, ...] | None
) -> None:
    given = Given(shared.get_value(borrow=True), numbers, labels)
    shared.tag.given = given
    others = [g for g in _given_by_name(model, rows).values() if g is not None]
    known = all(given.agrees_with(other) for other in others)
    rows.state.set_value(  # type: ignore[attr-defined]
        numbers if known else np.full(len(numbers), UNKNOWN_ROW)
    )


def _as_batch(name: str, values: Any, shared: Any) -> np.ndarray:
    if is_loader(values) or isinstance(values, Mapping):
        raise TypeError(
            f"pm.set_data got {type(values).__name__} for {name!r}, which holds one array of rows: give "
            'it a batch, as in pm.set_data({"batch": next(iter(loader))}), or where batches are dicts '
            "of fields, pm.set_data(batch)"
        )
    array, shape = np.asarray(values), shared.type.shape[1:]
    if array.ndim != shared.type.ndim or array.shape[1:] != shape:
        columns = columns_of(shared)
        of = f", the columns {list(columns)}" if columns else ""
        raise ShapeError(
            f"pm.set_data got values of shape {array.shape} for {name!r}, which holds rows of shape "
            f"{shape}{of}: (any number of rows, {', '.join(map(str, shape)) or 'nothing more'}).",
        )
    if not len(array):
        raise ValueError(f"pm.set_data got no rows for {name!r}: a batch has at least one")
    array = cast_rows(array, shared.type.numpy_dtype, f"pm.set_data of {name!r}")
    if array.dtype.kind == "f" and np.isnan(array).any():
        rows = np.flatnonzero(np.isnan(array).reshape(len(array), -1).any(axis=1))
        raise ValueError(
            f"pm.set_data got NaN for {name!r} in rows {rows[:5].tolist()} of the batch. Drop or fill "
            "these rows: the values of a stream cannot be imputed"
        )
    return array.copy() if np.may_share_memory(array, values) else array


def cast_rows(array: np.ndarray, dtype: np.dtype, what: str) -> np.ndarray:
    """Give the rows of a batch the dtype of their placeholder; no copy where they have it.

    Parameters
    ----------
    array : array
    dtype : dtype
    what : str
        What messages are about.

    Raises
    ------
    TypeError
        If floats would become integers, or values are no numbers.
    ValueError
        If an integer has no place in `dtype`.
    """
    if array.dtype == dtype:
        return array
    if array.dtype.kind not in "biuf" or (array.dtype.kind == "f" and dtype.kind != "f"):
        raise TypeError(
            f"{what} got values of {array.dtype}, but the placeholder holds {dtype}: convert them first"
        )
    check_exact(array, dtype, what)
    return array.astype(dtype)


def check_exact(array: np.ndarray, dtype: np.dtype, what: str) -> None:
    """Raise where `dtype` cannot hold an integer of `array`; floats are let through.

    Raises
    ------
    ValueError
    """
    if array.dtype.kind not in "iu" or not array.size:
        return
    (least, most), bounds = _exact(dtype), np.iinfo(array.dtype)
    if least <= bounds.min and bounds.max <= most:
        return
    found = int(array.min()), int(array.max())
    if found[0] < least or found[1] > most:
        raise ValueError(
            f"{what} got integers from {found[0]} to {found[1]}, not all of which {dtype} can hold "
            "exactly: shift or scale them, or read codes as smaller ones"
        )


def check_integers(model: Any, name: str, values: Any) -> None:
    """Raise where a `pm.Data` of integers would hold others than those that it is set to.

    Raises
    ------
    ValueError
    """
    shared = model.named_vars.get(name)
    if isinstance(shared, TensorSharedVariable) and not isinstance(values, Variable):
        dtype = shared.type.numpy_dtype
        if dtype.kind in "iu":
            check_exact(np.asanyarray(numbers_of(values)), dtype, f"pm.set_data of {name!r}")


def _exact(dtype: np.dtype) -> tuple[int, int]:
    """Tell between which bounds a dtype has all integers."""
    if dtype.kind == "f":
        most = 2 ** (np.finfo(dtype).nmant + 1)
        return -most, most
    if dtype.kind == "b":
        return 0, 1
    return int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)


def _row_numbers(name: str, values: Any, n: int, rows: Rows) -> np.ndarray:
    found = getattr(values, "rows", None)
    if found is None:
        return np.full(n, UNKNOWN_ROW, dtype="int64")
    numbers, total = np.array(found, dtype="int64"), current_length(rows.total) or 0
    if numbers.shape != (n,):
        return np.full(n, UNKNOWN_ROW, dtype="int64")  # of another array that this was taken from
    if numbers.min() < UNKNOWN_ROW or numbers.max() >= total:
        raise ValueError(
            f"pm.set_data got the row {numbers.max()} for {name!r}, but the loader of the model has "
            f"total_size={total}: rows are counted from 0. Is it a batch of another loader?"
        )
    return numbers


def _given_by_name(model: Any, rows: Rows) -> dict[str, Given | None]:
    """Tell what `pm.set_data` put into the placeholders of a stream, where it is still there."""
    found: dict[str, Given | None] = {}
    for name, var in model.root._streams.items():
        shared, index = var.owner.inputs
        if Rows(index) == rows:
            given = getattr(shared.tag, "given", None)
            there = given is not None and shared.container.value is given.value
            found[name] = given if there else None
    return found


def given_rows(model: Any, index: Variable) -> Given | None:
    """Tell which rows of a stream `pm.set_data` has put into `model`.

    Returns
    -------
    Given or None
        None where there are none, or batches of a fit have taken their place.

    Raises
    ------
    ValueError
        If only some of the placeholders have been given rows, or other ones.
    """
    by_name = _given_by_name(model, Rows(index))
    found = {name: given for name, given in by_name.items() if given is not None}
    first = next(iter(found.values()), None)
    if first is None:
        return None
    missing = [name for name in by_name if name not in found]
    if missing or not all(first.agrees_with(given) for given in found.values()):
        lengths = {name: len(given.rows) for name, given in found.items()}
        raise ValueError(
            f"pm.set_data gave rows to {lengths}"
            + (f" and none to {missing}" if missing else ", which are not the same rows")
            + f": the placeholders {list(by_name)} of one loader hold the same rows. Give all of them in "
            "one pm.set_data call; observed values that are not known may be zeros"
        )
    return first


def keep_given(old: Any, new: Any) -> None:
    """Let the copy of a placeholder hold what :func:`pymc.set_data` gave, if the placeholder does."""
    given = getattr(old.tag, "given", None)
    if given is not None and old.container.value is given.value:
        new.tag.given = replace(given, value=new.container.value)


def check_rows_known(model: Any) -> None:
    """Raise where a variable has a value for each row, and a stream holds rows that are nobody's.

    Parameters
    ----------
    model : Model

    Raises
    ------
    ValueError
        The message names the variable and says how batches come with the numbers of their rows.
    """
    for rv, axes in local_axes(model).items():
        for rows in axes:
            if rows is not None and is_stream(rows):
                check_numbers(rows, f"values of {rv.name!r}")


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
    if (numbers == UNKNOWN_ROW).any():
        raise ValueError(
            f"{name} have a value for each row of the dim {rows.dim!r}, but which rows the batch at hand "
            "holds is not known, so that other rows' values would change. Fit by pm.Trainer or "
            "pm.fit(data=loader), which know it; by hand, give pm.set_data the loader's own batches, "
            "which have their rows' numbers as the attribute rows"
        )
