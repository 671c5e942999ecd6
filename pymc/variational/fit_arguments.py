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

import warnings

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from pytensor.compile.mode import get_mode

from pymc.pytensorf import resolve_backend_compile_kwargs
from pymc.variational.report import Setting

__all__ = ["backend_name", "check_callbacks", "settings_of", "take_compile_kwargs"]

BACKENDS = {"NumbaLinker": "numba", "JAXLinker": "jax", "PerformLinker": "python"}


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
