# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""The argument `more_replacements`: other variables in the graph of a fit or of its results."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import pytensor.tensor as pt

from pytensor.graph.basic import Variable
from pytensor.graph.replace import graph_replace

from pymc.minibatch.axis_tracking import Rows, indexes
from pymc.minibatch.plates import known_axes
from pymc.minibatch.total_size import Term, infer_totals
from pymc.variational.minibatch_rv import unscaled_rv

if TYPE_CHECKING:
    from pymc.model.core import Model

__all__ = ["as_replacements", "check_replacements"]


def as_replacements(model: Model, replacements: object) -> dict[Variable, Variable]:
    """Read the argument `more_replacements`: a dict from variables, or names in `model`, to variables or arrays.

    Raises
    ------
    ValueError
        If the model has no variable of a name, or if one is replaced twice.
    TypeError
        If it is no mapping of variables or names.
    """
    if replacements is None:
        return {}
    if not isinstance(replacements, Mapping):
        raise TypeError(
            f"more_replacements={replacements!r} has to be a dict from variables, or their names in the model, to "
            "what takes their place, such as {'x': new_rows}"
        )
    # Within a named model, both "x" and "model::x"
    named = {model.name_of(name): var for name, var in model.named_vars.items()}
    named |= model.named_vars
    found: dict[Variable, Variable] = {}
    for key, value in replacements.items():
        if isinstance(key, str) and key not in named:
            raise ValueError(
                f"more_replacements has {key!r}, but the variables of the model are {list(model.named_vars)}. A "
                "variable that has no name there, such as a minibatch, is its own key: {x: new_rows}"
            )
        if not isinstance(key, str | Variable):
            raise TypeError(
                f"more_replacements has the key {key!r} of type {type(key).__name__}: write a variable, or its "
                "name in the model"
            )
        old = named[key] if isinstance(key, str) else key
        if old in found:
            raise ValueError(
                f"more_replacements has {old.name!r} twice, by its name and as a variable, and one can take its "
                "place. Give one of them"
            )
        found[old] = value if isinstance(value, Variable) else pt.as_tensor(value)
    return found


def check_replacements(model: Model, replacements: Mapping[Variable, Variable]) -> None:
    """Raise a ValueError if a minibatch replaces full data whose terms have no scale for it.

    An observed variable needs a `total_size` for an axis that becomes one of a minibatch, and no Potential may
    depend on it.
    """
    if not indexes(replacements.values()):
        return
    advice = (
        "Take pm.minibatch_model(model, batch_size=...) of a model of full data, or give the "
        "observed variables pm.Minibatch when the model is made"
    )
    for rv in model.observed_RVs:
        bare, given = unscaled_rv(rv)
        old = [bare, model.rvs_to_values[rv]]
        bare, value = graph_replace(old, replacements, strict=False)
        if _rows([bare, value]) == _rows(old):
            continue
        total_size = None if all(total is None for total in given) else given
        totals = infer_totals(Term(rv.name, bare, value, known=known_axes(model)), total_size)
        for k, (total, given_total) in enumerate(zip(totals, given)):
            if total is not None and given_total is None:
                raise ValueError(
                    f"more_replacements puts a minibatch on axis {k} of {rv.name!r}, which was "
                    "made without total_size, so that its log-probability would count for the batch "
                    f"instead of all rows. {advice}"
                )
    for term in model.potentials:
        if _rows(graph_replace([term], replacements, strict=False)) != _rows([term]):
            raise ValueError(
                f"more_replacements puts a minibatch into the Potential {term.name!r}, which is "
                f"not scaled to all rows. {advice}"
            )


def _rows(graphs: Iterable[Variable]) -> set[Rows]:
    """Return the minibatch rows that graphs depend on."""
    return set(map(Rows, indexes(graphs)))
