# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Arguments of a fit in JSON: those that are plain are made again, others have to be given again."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from pytensor.compile.sharedvalue import SharedVariable
from pytensor.graph.basic import Variable

from pymc.variational.checkpoints.graph_text import plain_text
from pymc.variational.checkpoints.recipes import (
    Unknown,
    find_function,
    make,
    qualified_name,
)
from pymc.variational.described import Described

__all__ = ["as_json", "from_json", "merged_arguments"]

#: The first parameters of an optimizer: no other function is called.
OPTIMIZER = ("loss_or_grads", "params")


class NotPlain(TypeError):
    """An argument that JSON has no form for."""


def as_json(value: Any) -> Any:
    """Describe an argument of a fit.

    Returns
    -------
    JSON
        Of what is not plain, such as a user's own optimizer: {"@again": a text}.

    Examples
    --------
    >>> from pymc.variational.checkpoints.arguments import as_json, from_json
    >>> as_json(pm.adam(learning_rate=0.1))["@optimizer"]
    'pymc.variational.updates:adam'
    >>> from_json(as_json(pm.adam(learning_rate=0.1))).keywords["learning_rate"]
    0.1
    """
    try:
        return _plain(value)
    except NotPlain:
        return {"@again": plain_text(value)}


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return float(value)
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {"@items": [[_plain(key), _plain(item)] for key, item in value.items()]}
    if isinstance(value, Variable) and value.name and not isinstance(value, SharedVariable):
        return {"@variable": value.name}
    if isinstance(value, partial) and not value.args:
        return {"@optimizer": _name(value.func, OPTIMIZER), "arguments": _plain(value.keywords)}
    if isinstance(value, Described) and (config := value.config()) is not None:
        return {"@made": qualified_name(type(value)), "arguments": _plain(config)}
    return {"@optimizer": _name(value, OPTIMIZER), "arguments": _plain({})}


def _name(function: Any, parameters: tuple[str, ...]) -> str:
    """Return the name by which a function is found again."""
    try:
        name = qualified_name(function)
        if find_function(name, parameters) is function:
            return name
    except (AttributeError, Unknown, ValueError):
        pass
    raise NotPlain


def from_json(value: Any) -> Any:
    """Make an argument again.

    Raises
    ------
    NotPlain
        If it has to be given.
    Unknown
        If its class or function is not loaded.
    ValueError, LookupError, TypeError
        If it is no argument.
    """
    if isinstance(value, list):
        return [from_json(item) for item in value]
    if not isinstance(value, Mapping):
        return value
    if "@items" in value:
        return {_key(key): from_json(item) for key, item in value["@items"]}
    if "@variable" in value:
        return value["@variable"]
    if "@again" in value:
        raise NotPlain(value["@again"])
    arguments = from_json(value["arguments"])
    if "@optimizer" in value:
        optimizer = find_function(value["@optimizer"], OPTIMIZER)
        return partial(optimizer, **arguments) if arguments else optimizer
    return make(value["@made"], arguments)


def _key(key: Any) -> Any:
    return tuple(_key(item) for item in key) if isinstance(key, list) else from_json(key)


def merged_arguments(
    saved: Mapping[str, Any], given: Mapping[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    """Put the arguments of a checkpoint and those that are given for it together.

    Parameters
    ----------
    saved : mapping of str to JSON
        As :func:`as_json` made it of each.
    given : mapping of str to object

    Returns
    -------
    arguments : dict of str to object
    problems : list of str
        A line for each argument that differs, or that has to be given again.
    """
    merged, problems = dict(given), []
    for name, value in saved.items():
        if name in given:
            now = as_json(given[name])
            if now != value:
                problems.append(f"{name}: {value!r} in the checkpoint, {now!r} now")
            continue
        try:
            merged[name] = from_json(value)
        except NotPlain as text:
            problems.append(
                f"{name}: {text} in the checkpoint, none now: give {name}= again, what it was"
            )
        except Unknown as error:
            problems.append(f"{name}: {error}, or give {name}= again, what it was")
    return merged, problems
