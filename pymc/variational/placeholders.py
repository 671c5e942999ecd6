# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Which variables of a model hold a batch of a loader, and whether the two agree."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pytensor.compile.sharedvalue import SharedVariable
from pytensor.graph.basic import Constant, Variable
from pytensor.graph.traversal import ancestors

from pymc.data_loading.base import Loader
from pymc.data_loading.sources.layout import Field
from pymc.minibatch.data_placeholder import held_rows
from pymc.minibatch.plates import local_axes
from pymc.minibatch.stream_index import feeds, field_of, is_fed, streams_in
from pymc.variational.minibatch_rv import unscaled_rv

if TYPE_CHECKING:
    from pymc.model.core import Model

__all__ = ["Target", "check_given_by_hand", "find_targets"]


@dataclass(frozen=True)
class Target:
    """A shared variable that is fed.

    Parameters
    ----------
    variable : SharedVariable
    place : int
        Which of the arrays of a chunk, its fields and then the row numbers, it has a batch of.
    """

    variable: SharedVariable
    place: int

    @property
    def dtype(self) -> np.dtype:
        """What the variable holds."""
        return np.dtype(self.variable.type.dtype)


def find_targets(model: Model, loader: Loader, data_name: str = "batch") -> list[Target]:
    """Find what a loader feeds of a model.

    Parameters
    ----------
    model : Model
    loader : Loader
    data_name : str

    Raises
    ------
    KeyError
        If the model has no `pm.Data` of that name, or of the names of a dict.
    ValueError
        If the number of rows in all differs between the two, or is not known to the model; if the
        rows of a batch have another shape or kind of numbers than the model's placeholder.
    """
    streamed = feeds(model)
    _check_fed(model, () if streamed is None else streamed.placeholders.values())
    if streamed is None:
        held = _by_name(model, loader, data_name)
        _check_totals(model, loader, held)
    else:
        held = _streamed(model, loader, data_name, streamed)
    fields = loader.layout.fields
    targets = []
    for place, field in enumerate(fields):
        for variable in (var for var, name in held.items() if name == field.name):
            _check_field(field, variable, loader)
            targets.append(Target(variable, place))
    return targets if streamed is None else [*targets, Target(streamed.rows, len(fields))]


def check_given_by_hand(model: Model) -> None:
    """Raise where a streamed model has no rows from the user, in a fit without a loader.

    Raises
    ------
    ValueError
        Its placeholders hold zeros, or the last batch of another fit.
    """
    for name, streamed in model.root._streams.items():
        if held_rows(model, streamed.owner.inputs[1]) is None:
            raise ValueError(
                f"pm.Data {name!r} of the model is made from a loader, and a fit without data= would see "
                "the same rows at each step, none of which pm.set_data has put there. Write "
                "pm.fit(n, data=loader), or pm.Trainer(dataloader=loader)"
            )


def _streamed(
    model: Model, loader: Loader, data_name: str, streamed: Any
) -> Mapping[SharedVariable, str]:
    """Return the placeholders that were made from a loader, and the field of each."""
    held = {var: field_of(var) for var in streamed.placeholders.values()}
    names = list(streamed.placeholders)
    if data_name != "batch" and data_name not in names:
        raise KeyError(
            f"data_name={data_name!r} is no pm.Data that was made from a loader: {_in_words(names)}"
        )
    known = [field.name for field in loader.layout.fields]
    missing = [name for name in held.values() if name not in known]
    if missing:
        raise ValueError(
            f"The model has pm.Data for the fields {_in_words(missing)} of a batch, and the loader's have "
            f"{_in_words(known)}: the model was made with another loader"
        )
    if streamed.total != loader.total_size:
        raise ValueError(
            f"The model was made for {streamed.total} rows in all, and the loader has "
            f"{loader.total_size}: the likelihood would be scaled to the wrong number. Make the model's "
            "pm.Data from this loader"
        )
    if streamed.batch_size != loader.batch_size and local_axes(model):
        raise ValueError(
            f"The model has variables of the rows of a batch of {streamed.batch_size}, and the loader's "
            f"have batch_size={loader.batch_size}. Make the model's pm.Data from this loader"
        )
    return held


def _check_fed(model: Model, held: Collection[SharedVariable]) -> None:
    """Check that terms depend on what is fed, and on no other rows of a stream."""
    values = [model.rvs_to_values[rv] for rv in model.observed_RVs]
    terms = [*model.basic_RVs, *values, *model.potentials]
    used = {var.owner.inputs[0] for var in streams_in(terms)}
    replaced = sorted(_name(var) for var in used if not is_fed(var))
    if replaced:
        raise ValueError(
            f"pm.do has replaced {_in_words(replaced)}, which held rows of the loader's batches, by rows "
            "that stay. Fit the model that pm.do was given, and use what it made for predictions"
        )
    others = sorted(_name(var) for var in used if var not in held)
    if others:
        raise ValueError(
            f"The model depends on {_in_words(others)}, a pm.Data of a loader that is not its own, so that "
            "no batch would reach it. Make the model's pm.Data in the model itself"
        )
    if held and used.isdisjoint(held):
        raise _no_term(held)


def _name(var: Variable) -> str:
    """Return the name of a variable, or of what it is made from: a shape may be specified of it."""
    named = (v.name for v in ancestors([var]) if v.name and not isinstance(v, Constant))
    return next(named, str(var))


def _no_term(held: Iterable[SharedVariable]) -> ValueError:
    return ValueError(
        f"No observed variable of the model depends on {_in_words(v.name for v in held)}, so that the "
        "batches of the loader would change nothing. Use it as observed= or in a parameter"
    )


def _by_name(model: Model, loader: Loader, data_name: str) -> Mapping[SharedVariable, str]:
    """Return the plain `pm.Data` that a loader feeds, and the field of each."""
    data = {v.name: v for v in model.data_vars if isinstance(v, SharedVariable)}
    if not data:
        raise KeyError(
            f"The model has no pm.Data to hold a batch of the loader. Write {data_name} = "
            f"pm.Data({data_name!r}, loader, dims=...) in it, and use that as observed="
        )
    if not loader.layout.named:
        if data_name not in data:
            raise KeyError(
                f"data_name={data_name!r} is no pm.Data of the model, which has {_in_words(data)}"
            )
        return {data[data_name]: ""}
    names = [field.name for field in loader.layout.fields]
    found = {data[name]: name for name in names if name in data}
    if not found:
        raise KeyError(
            f"The loader's batches have {_in_words(names)}, and the model's pm.Data are {_in_words(data)}: a "
            "batch goes to the pm.Data of its names"
        )
    return found


def _check_totals(model: Model, loader: Loader, placeholders: Iterable[SharedVariable]) -> None:
    """Check `total_size` of the terms that depend on placeholders that were not made from a loader."""
    held, total, n_terms = set(placeholders), loader.total_size, 0
    for rv in model.observed_RVs:
        bare, totals = unscaled_rv(rv)
        if not held.intersection(ancestors([bare, model.rvs_to_values[rv]])):
            continue
        n_terms += 1
        given = [int(t.data) for t in totals if isinstance(t, Constant)]
        if not any(t is not None for t in totals):
            raise ValueError(
                f"{rv.name!r} depends on a batch and has no total_size: its likelihood would count the "
                f"rows of a batch, for {total} in all. Write total_size=len(loader), or make the batch "
                "by pm.Data(name, loader)"
            )
        if given and total not in given:
            raise ValueError(
                f"{rv.name!r} has total_size={given[0]}, and the loader has {total} rows in all: write "
                "total_size=len(loader)"
            )
    if not n_terms and not any(held.intersection(ancestors([term])) for term in model.potentials):
        raise _no_term(held)


def _check_field(field: Field, placeholder: SharedVariable, loader: Loader) -> None:
    """Check that rows of a batch are what the placeholder had before."""
    value = placeholder.get_value(borrow=True)
    wanted = f"pm.Data {placeholder.name!r} of the model has rows of shape {value.shape[1:]}"
    if value.ndim != len(field.shape) + 1 or value.shape[1:] != field.shape:
        columns = f", the columns {_in_words(field.columns)}" if field.columns else ""
        raise ValueError(
            f"{wanted}, and the loader's are of shape {field.shape}{columns}. Make it by "
            f"pm.Data({placeholder.name!r}, loader), or as zeros of shape "
            f"{(loader.batch_size, *field.shape)}"
        )
    if not np.can_cast(field.dtype, value.dtype, casting="same_kind"):
        raise ValueError(
            f"{wanted} and dtype {value.dtype}, which cannot hold the loader's {field.dtype}. Make it "
            f"by pm.Data({placeholder.name!r}, loader), or of that dtype"
        )


def _in_words(names: Iterable[Any]) -> str:
    return ", ".join(map(repr, names)) or "none"
