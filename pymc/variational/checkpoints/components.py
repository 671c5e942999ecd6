# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Arguments of a fit as JSON: guides, objectives, optimizers and schedules by name and arguments.

A class or function is named ``"module:qualname"``. Looking one up imports no module but PyMC's, and finds only
subclasses of Configurable and functions with the parameters of an optimizer. So a file cannot name an
arbitrary function to be called.
"""

from __future__ import annotations

import re
import sys

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from importlib import import_module
from inspect import signature
from types import FunctionType
from typing import Any

from pytensor.compile.mode import Mode
from pytensor.compile.sharedvalue import SharedVariable
from pytensor.graph.basic import Variable

from pymc.variational.configurable import Configurable

__all__ = [
    "CannotRebuild",
    "argument_from_json",
    "argument_to_json",
    "find_optimizer",
    "merge_arguments",
]

#: The first parameters of an optimizer: no other function is called.
OPTIMIZER = ["loss_or_grads", "params"]

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


class CannotRebuild(Exception):
    """An argument that has to be given again; the message says why."""


def merge_arguments(
    saved: Mapping[str, Any], given: Mapping[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    """Merge the arguments of a checkpoint, as JSON, with those of `Trainer.load`.

    Returns
    -------
    arguments : dict of str to object
    problems : list of str
        A line for each argument that differs, or that has to be given again.
    """
    merged, problems = dict(given), []
    for name, value in saved.items():
        if name in given:
            now = argument_to_json(given[name])
            if now != value:
                problems.append(f"{name}: {value!r} in the checkpoint, {now!r} now")
            continue
        try:
            merged[name] = argument_from_json(value)
        except CannotRebuild as error:
            problems.append(f"{name}: {error}: give {name}= again as it was")
    return merged, problems


def argument_to_json(value: object) -> Any:
    """Return an argument of a fit as JSON, ``{"@again": text}`` for what only the user has, such as a lambda.

    Examples
    --------
    >>> from pymc.variational.checkpoints.components import argument_from_json, argument_to_json
    >>> argument_to_json(pm.adam(learning_rate=0.1))["@optimizer"]
    'pymc.variational.updates:adam'
    >>> argument_from_json(argument_to_json(pm.adam(learning_rate=0.1))).keywords["learning_rate"]
    0.1
    """
    try:
        return _to_json(value)
    except CannotRebuild:
        return {"@again": _text(value)}


def _to_json(value: object) -> Any:
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return float(value)
    if isinstance(value, list | tuple):
        return [_to_json(item) for item in value]
    if isinstance(value, Mapping):  # with keys that may be tuples
        return {"@items": [[_to_json(key), _to_json(item)] for key, item in value.items()]}
    if isinstance(value, Variable) and value.name and not isinstance(value, SharedVariable):
        return {"@variable": value.name}
    if isinstance(value, Configurable) and (config := value.config()) is not None:
        return {"@class": _qualified_name(type(value)), "arguments": _to_json(config)}
    function, keywords = value, {}  # of an optimizer of PyMC, or of the user's own
    if isinstance(value, partial) and not value.args:
        function, keywords = value.func, value.keywords
    if not isinstance(function, FunctionType):
        raise CannotRebuild
    name = _qualified_name(function)
    if (
        find_optimizer(name) is not function
    ):  # one that was defined in a function, or replaced since
        raise CannotRebuild
    return {"@optimizer": name, "arguments": _to_json(keywords)}


def _text(value: object) -> str:
    """Describe an argument without what differs between processes."""
    if isinstance(value, Mode):
        query = value.provided_optimizer
        rewrites = {part: sorted(map(str, vars(query)[part])) for part in ("include", "exclude")}
        return f"Mode(linker={value.provided_linker!r}, rewrites={rewrites})"
    return _ADDRESS.sub("", repr(value))


def argument_from_json(value: object) -> Any:
    """Make an argument again from JSON; raise `CannotRebuild` if the user has to give it."""
    if isinstance(value, list):
        return [argument_from_json(item) for item in value]
    if not isinstance(value, Mapping):
        return value
    if "@items" in value:
        return {_to_tuple(key): argument_from_json(item) for key, item in value["@items"]}
    if "@variable" in value:
        return value["@variable"]
    if "@again" in value:
        raise CannotRebuild(f"{value['@again']} in the checkpoint, none now")
    arguments = argument_from_json(value["arguments"])
    if "@optimizer" in value:
        optimizer = find_optimizer(value["@optimizer"])
        return partial(optimizer, **arguments) if arguments else optimizer
    return _rebuild(value["@class"], arguments)


def _to_tuple(value: object) -> Any:
    return tuple(map(_to_tuple, value)) if isinstance(value, list) else value


def _rebuild(name: str, config: Mapping[str, Any]) -> Configurable:
    """Make a guide, objective, optimizer or schedule again from the name of its class and its arguments."""
    module, qualname = _import_if_pymc(name)
    # The last one, as a cell of a notebook that is run again defines the class anew
    found = [
        c for c in _subclasses(Configurable) if (c.__module__, c.__qualname__) == (module, qualname)
    ]
    if not found:
        raise CannotRebuild(
            f"no guide, objective or optimizer {name!r} is loaded (import {module} first)"
        )
    cls = found[-1]
    try:
        return cls(**config)
    except Exception as error:
        raise CannotRebuild(
            f"{cls.__name__}(**{dict(config)}), which its config() asks for, raises {error!r}"
        ) from error


def find_optimizer(name: str) -> Callable[..., Any]:
    """Return an optimizer that is a function at the top of a loaded module.

    Examples
    --------
    >>> from pymc.variational.checkpoints.components import find_optimizer
    >>> find_optimizer("pymc.variational.updates:adam") is pm.adam
    True
    """
    module, qualname = _import_if_pymc(name)
    function = vars(sys.modules[module]).get(qualname) if module in sys.modules else None
    if isinstance(function, FunctionType):
        if list(signature(function).parameters)[:2] == OPTIMIZER:
            return function
    raise CannotRebuild(
        f"no function {name!r} with the parameters {', '.join(OPTIMIZER)} is loaded (import {module} first)"
    )


def _qualified_name(value: type | FunctionType) -> str:
    return f"{value.__module__}:{value.__qualname__}"


def _import_if_pymc(name: str) -> tuple[str, str]:
    """Return module and qualname, and import the module if it is one of PyMC."""
    module, _, qualname = name.partition(":")
    if module.startswith("pymc."):
        try:
            import_module(module)
        except ModuleNotFoundError as error:
            raise CannotRebuild(f"this version of PyMC has no {name!r}") from error
    return module, qualname


def _subclasses(cls: type) -> Iterator[type]:
    subclasses: list[type] = cls.__subclasses__()
    for sub in subclasses:
        yield sub
        yield from _subclasses(sub)
