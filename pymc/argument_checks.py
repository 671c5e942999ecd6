# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Checks of the numbers, flags and words that users pass as arguments."""

import math
import operator

from collections.abc import Mapping, Sequence
from dataclasses import fields
from numbers import Real
from typing import Any, TypeVar

import numpy as np

Choice = TypeVar("Choice", bound=str)

__all__ = ["check_choice", "check_fields", "check_flag", "check_int", "check_number"]


_HOLDS = {
    "above": operator.gt,
    "at least": operator.ge,
    "below": operator.lt,
    "at most": operator.le,
}


def check_int(
    value: object,
    name: str,
    where: str,
    *,
    at_least: int = 1,
    at_most: int | None = None,
    hint: str = "",
) -> int:
    """Return an integer argument as a Python int.

    Parameters
    ----------
    value : int
        Or an integer of NumPy. A bool is no integer.
    name, where : str
        The argument, and the function or class that takes it.
    at_least, at_most : int
        The range of the argument.
    hint : str
        A sentence about what the argument means or what to write, for the message.

    Raises
    ------
    TypeError
        If `value` is not an integer.
    ValueError
        If it is out of range.

    Examples
    --------
    >>> from pymc.argument_checks import check_int
    >>> check_int(np.int64(500), "draws", "sample")
    500
    >>> check_int(0, "draws", "sample")
    Traceback (most recent call last):
    ...
    ValueError: draws=0 of sample must be at least 1
    """
    subject = f"{name}={value!r} of {where}"
    try:
        if isinstance(value, bool | np.bool_):
            raise TypeError
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        message = f"{subject} must be a whole number; got a {type(value).__name__}"
        raise TypeError(_with_hint(message, hint)) from None
    _check_range(number, {"at least": at_least, "at most": at_most}, subject, hint)
    return number


def check_number(
    value: object,
    name: str,
    where: str,
    *,
    above: float | None = None,
    at_least: float | None = None,
    below: float | None = None,
    at_most: float | None = None,
    hint: str = "",
) -> float:
    """Return a real, finite argument as a Python float.

    Parameters
    ----------
    value : float
        Or another real number, such as one of NumPy, or an array without axes. A bool is no number.
    name, where : str
        The argument, and the function or class that takes it.
    above, at_least, below, at_most : float, optional
        The range of the argument.
    hint : str
        A sentence about what the argument means or what to write, for the message.

    Raises
    ------
    TypeError
        If `value` is not a real number.
    ValueError
        If it is infinite, NaN, or out of range.

    Examples
    --------
    >>> from pymc.argument_checks import check_number
    >>> check_number(1, "average", "a fit", above=0, at_most=1)
    1.0
    """
    subject = f"{name}={value!r} of {where}"
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value[()]
    if isinstance(value, bool) or not isinstance(value, Real):
        message = f"{subject} must be a number; got a {type(value).__name__}"
        raise TypeError(_with_hint(message, hint))
    number = float(value)
    bounds = {"above": above, "at least": at_least, "below": below, "at most": at_most}
    _check_range(number, bounds, subject, hint)
    return number


def check_flag(value: object, name: str, where: str) -> bool:
    """Return a True or False as a Python bool, or raise a TypeError."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(
            f"{name}={value!r} of {where} must be True or False; got a {type(value).__name__}"
        )
    return bool(value)


def check_choice(value: object, name: str, where: str, choices: Sequence[Choice]) -> Choice:
    """Return the choice that is equal to a word, or raise a ValueError."""
    for choice in choices:
        if isinstance(value, str) and value == choice:
            return choice
    raise ValueError(f"{name}={value!r} of {where} must be one of {', '.join(map(repr, choices))}")


def check_fields(instance: Any) -> None:
    """Check the fields of a frozen dataclass, in its ``__post_init__``.

    A field with ``metadata={"check": check}`` becomes the result of ``check(value, name, where)``.
    """
    for field in fields(instance):
        if check := field.metadata.get("check"):
            value = check(getattr(instance, field.name), field.name, type(instance).__name__)
            object.__setattr__(instance, field.name, value)


def _check_range(
    number: float, bounds: Mapping[str, float | None], subject: str, hint: str
) -> None:
    limits = {word: limit for word, limit in bounds.items() if limit is not None}
    # An int may be too large for a float
    is_finite = isinstance(number, int) or math.isfinite(number)
    if is_finite and all(_HOLDS[w](number, limit) for w, limit in limits.items()):
        return
    needs = [] if is_finite else ["finite"]
    needs += [f"{word} {limit}" for word, limit in limits.items()]
    raise ValueError(_with_hint(f"{subject} must be {' and '.join(needs)}", hint))


def _with_hint(message: str, hint: str) -> str:
    return f"{message}. {hint}" if hint else message
