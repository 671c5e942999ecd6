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
"""Arguments of a fit: checked, sorted by whom they are for, and as its report keeps them."""

from __future__ import annotations

import inspect
import warnings

from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from functools import partial
from typing import Any

from pytensor.compile.mode import get_mode

from pymc.pytensorf import resolve_backend_compile_kwargs
from pymc.variational.report import Setting

__all__ = [
    "argument_names",
    "backend_name",
    "check_callbacks",
    "check_known",
    "settings_of",
    "take_compile_kwargs",
]

BACKENDS = {"NumbaLinker": "numba", "JAXLinker": "jax", "PerformLinker": "python"}

#: Arguments of all fits that :func:`take_compile_kwargs` takes.
OF_COMPILER = frozenset({"compile_kwargs", "fn_kwargs"})

KINDS = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def argument_names(cls: type, method: str) -> frozenset[str] | None:
    """Tell which arguments a method takes by name: its own, and those that it passes on to its bases.

    Returns
    -------
    frozenset of str
        None if the last one of them takes any name.

    Examples
    --------
    >>> from pymc.variational.fit_arguments import argument_names
    >>> class Base:
    ...     def updates(self, obj_n_mc=None): ...
    >>> class Own(Base):
    ...     def updates(self, power=1, **kwargs): ...
    >>> sorted(argument_names(Own, "updates"))
    ['obj_n_mc', 'power']
    """
    names: set[str] = set()
    for base in cls.__mro__:
        if method not in vars(base):
            continue
        parameters = inspect.signature(getattr(base, method)).parameters.values()
        names.update(p.name for p in parameters if p.kind in KINDS)
        if all(p.kind is not inspect.Parameter.VAR_KEYWORD for p in parameters):
            return frozenset(names - {"self"})
    return None


def check_known(where: str, given: Mapping[str, Any], names: Iterable[str]) -> None:
    """Refuse arguments that nothing takes.

    Parameters
    ----------
    where : str
        What the user called.
    given : mapping of str to object
    names : iterable of str
        Of the arguments that it takes.

    Raises
    ------
    TypeError
        With the names that are near, or else all.
    """
    known = sorted(set(names) - {"self"})
    unknown = [name for name in given if name not in known]
    if not unknown:
        return
    got = ", ".join(f"{name}={given[name]!r}" for name in unknown)
    near = [match for name in unknown for match in get_close_matches(name, known)]
    advice = f"Near it are {', '.join(near)}" if near else f"It takes {', '.join(known)}"
    raise TypeError(f"{where} got {got}, which nothing in a fit takes. {advice}")


def check_callbacks(callbacks: Any) -> tuple[Callable, ...]:
    """Check the argument `callbacks` of a fit.

    Raises
    ------
    TypeError
    """
    if callable(callbacks):
        raise TypeError(f"callbacks={callbacks!r} of a fit has to be a list: write callbacks=[...]")
    for callback in callbacks or ():
        if not callable(callback):
            raise TypeError(
                f"callbacks of a fit has {callback!r}, which cannot be called: each is a function "
                "of (approx, losses, i)"
            )
    return tuple(callbacks or ())


def take_compile_kwargs(backend: str | None, kwargs: dict[str, Any]) -> dict[str, Any]:
    """Take what is meant for the compiler out of the arguments of a fit."""
    given = kwargs.pop("compile_kwargs", None)
    if (old := kwargs.pop("fn_kwargs", None)) is not None:
        warnings.warn(
            "`fn_kwargs` is deprecated and will be removed in future versions. Use "
            "`compile_kwargs` instead.",
            DeprecationWarning,
        )
        given = old
    return resolve_backend_compile_kwargs(backend, given)


def backend_name(mode: Any) -> str:
    """Tell what a mode compiles for, as reports say it: "numba", "jax", "python" or "c"."""
    return BACKENDS.get(type(get_mode(mode).linker).__name__, "c")


def settings_of(kwargs: Mapping[str, Any]) -> dict[str, Setting]:
    """Put the arguments of a fit into a form that a file of results can hold."""
    settings: dict[str, Setting] = {}
    for name, value in kwargs.items():
        if value is None:
            continue
        if isinstance(value, str | int | float | bool):
            settings[name] = value
        elif isinstance(value, partial):  # an optimizer of pm's, with its arguments
            given = ", ".join(f"{k}={v!r}" for k, v in value.keywords.items())
            settings[name] = f"{value.func.__name__}({given})"
        else:
            settings[name] = getattr(value, "__name__", repr(value))
    return settings
