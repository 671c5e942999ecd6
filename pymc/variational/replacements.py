# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""What users put in the place of variables of a model: the argument `more_replacements`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pytensor.tensor as pt

from pytensor.graph.basic import Variable

if TYPE_CHECKING:
    from pymc.model.core import Model

__all__ = ["as_replacements"]


def as_replacements(model: Model, replacements: Any) -> dict[Variable, Variable]:
    """Read the argument `more_replacements`.

    Parameters
    ----------
    model : Model
        Whose variables may be called by name.
    replacements : mapping of Variable or str to Variable or array, or None

    Returns
    -------
    dict of Variable to Variable

    Raises
    ------
    ValueError
        If the model has no variable of a name, which would stay as it is without a word, or one is replaced
        twice.
    TypeError
        If it is no mapping of variables or names.

    Examples
    --------
    >>> from pymc.variational.replacements import as_replacements
    >>> with pm.Model() as model:
    ...     x = pm.Data("x", [1.0, 2.0])
    >>> list(as_replacements(model, {"x": np.zeros(3)})) == [x]
    True
    """
    if replacements is None:
        return {}
    if not isinstance(replacements, Mapping):
        raise TypeError(
            f"more_replacements={replacements!r} has to be a dict from variables, or their names in the model, to "
            "what takes their place, such as {'x': new_rows}"
        )
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
