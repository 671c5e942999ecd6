# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Describe guides, objectives and optimizers by name and arguments, and make them again.

A class or function is named ``"module:qualname"``. Looking one up imports no module but PyMC's: a user's own
has to be loaded, be a subclass of Guide or Objective, or have the parameters of an optimizer. So a file
cannot name just any function to be called.
"""

from __future__ import annotations

import re
import sys

from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from inspect import signature
from types import FunctionType
from typing import Any

from pymc.variational.described import Described
from pymc.variational.guides.base import Guide

__all__ = [
    "Unknown",
    "find_class",
    "find_function",
    "guide_recipe",
    "make",
    "qualified_name",
]

_NAME = re.compile(r"(?P<module>\w+(\.\w+)*):(?P<qualname>[\w.<>]+)")


class Unknown(Exception):
    """A recipe of something that cannot be made here; the message says why."""


def qualified_name(value: Any) -> str:
    """Return ``"module:qualname"`` of a class or function.

    Examples
    --------
    >>> from pymc.variational.checkpoints.recipes import qualified_name
    >>> qualified_name(pm.LowRank)
    'pymc.variational.guides.low_rank:LowRank'
    """
    return f"{value.__module__}:{value.__qualname__}"


def guide_recipe(guide: Guide) -> dict[str, Any]:
    """Describe a bound guide: its class, its variables, and its arguments, None where only the user has them."""
    return {
        "class": qualified_name(type(guide)),
        "variables": [site.name for site in guide.sites],
        "config": guide.config(),
    }


def make(name: str, config: Mapping[str, Any] | None) -> Described:
    """Make a guide, objective or optimizer again.

    Parameters
    ----------
    name : str
        As of :func:`qualified_name`.
    config : mapping of str to JSON, or None
        Its arguments.

    Raises
    ------
    Unknown
        If its class is not loaded, or does not take these arguments, or there are none.
    ValueError
        If `name` is none of a class.

    Examples
    --------
    >>> from pymc.variational.checkpoints.recipes import make
    >>> make("pymc.variational.guides.low_rank:LowRank", {"rank": 3})
    LowRank(rank=3)
    """
    if config is None:
        raise Unknown(f"the config() of {name!r} is None")
    cls = find_class(name)
    try:
        return cls(**config)
    except Exception as error:
        raise Unknown(
            f"{cls.__name__}(**{dict(config)}), which its config() asks for, raises {error!r}"
        ) from error


def find_class(name: str) -> type[Described]:
    """Find a loaded class of guides, objectives or optimizers by its :func:`qualified_name`.

    Raises
    ------
    Unknown
        If none is loaded.
    ValueError
        If `name` is none of a class.
    """
    module, qualname = _split(name)
    known = list(_subclasses(Described))
    # The last one, as a cell of a notebook that is run again defines the class anew
    found = [c for c in known if (c.__module__, c.__qualname__) == (module, qualname)]
    if not found:
        raise Unknown(f"no guide, objective or optimizer {name!r} is loaded: import {module} first")
    return found[-1]


def find_function(name: str, parameters: Sequence[str]) -> Callable[..., Any]:
    """Find a function at the top of a loaded module by its :func:`qualified_name`.

    Parameters
    ----------
    name : str
    parameters : sequence of str
        Names that its parameters have to begin with.

    Raises
    ------
    Unknown
        If there is none.
    ValueError
        If `name` is none of a function.

    Examples
    --------
    >>> from pymc.variational.checkpoints.recipes import find_function
    >>> find_function("pymc.variational.updates:adam", ("loss_or_grads", "params")) is pm.adam
    True
    """
    module, qualname = _split(name)
    function = vars(sys.modules[module]).get(qualname) if module in sys.modules else None
    if isinstance(function, FunctionType):
        known = list(signature(function).parameters)
        if known[: len(parameters)] == list(parameters):
            return function
    raise Unknown(
        f"no function {name!r} with the parameters {', '.join(parameters)} is loaded: import {module} first"
    )


def _split(name: str) -> tuple[str, str]:
    """Return module and qualname, and import the module if it is one of PyMC."""
    parts = _NAME.fullmatch(name)
    if parts is None:
        raise ValueError(f"{name!r} is no 'module:qualname'")
    module, qualname = parts["module"], parts["qualname"]
    if module.startswith("pymc."):
        try:
            import_module(module)
        except ModuleNotFoundError as error:
            raise Unknown(f"this version of PyMC has no {name!r}") from error
    return module, qualname


def _subclasses(cls: type) -> Iterator[type]:
    below: list[type] = cls.__subclasses__()
    for sub in below:
        yield sub
        yield from _subclasses(sub)
