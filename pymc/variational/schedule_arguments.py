# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""What the arguments of optimizers and learning-rate schedules have to be.

``name`` is what an error calls the argument, as "decay_steps of cosine_decay".
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from numbers import Real
from typing import Any

import numpy as np

from pymc.variational.schedule_formulas import Schedule

__all__ = [
    "check_count",
    "check_fraction",
    "check_list",
    "check_number",
    "check_rate",
    "check_rate_or_schedule",
]

_MAX_STEP = int(np.iinfo(np.int64).max)


def check_number(name: str, value: Any) -> float:
    """Return a finite number as a Python float, which takes the precision of what it meets in a graph."""
    if not isinstance(value, Real) or isinstance(value, bool):
        raise TypeError(f"{name} is a number, such as 0.1; got {value!r}")
    if not isfinite(value):
        raise ValueError(f"{name} has to be finite, got {value!r}")
    return float(value)


def check_rate(name: str, value: Any) -> float:
    """Return a learning rate as a float, or raise a TypeError or ValueError that names it."""
    if check_number(name, value) <= 0:
        raise ValueError(
            f"{name} has to be above 0, got {value!r}: optimizers subtract the gradient times the "
            "learning rate, and would climb with a negative one. Try 0.01"
        )
    return float(value)


def check_rate_or_schedule(name: str, value: Any) -> float | Schedule:
    """Return a schedule as it is, and anything else as `check_rate` does."""
    return value if callable(value) else check_rate(name, value)


def check_fraction(name: str, value: Any, zero: bool = True) -> float:
    """Return a number from 0 to 1 as a float, or raise a TypeError or ValueError."""
    if not 0 <= check_number(name, value) <= 1 or (value == 0 and not zero):
        raise ValueError(
            f"{name} is a fraction of a learning rate, {'from' if zero else 'above'} 0 and up to 1; "
            f"got {value!r}"
        )
    return float(value)


def check_count(name: str, value: Any) -> int:
    """Return a number of steps as an int, or raise a TypeError or ValueError."""
    if not isinstance(value, int | np.integer) or isinstance(value, bool):
        raise TypeError(f"{name} counts steps, in whole numbers; got {value!r}")
    if not 1 <= value <= _MAX_STEP:
        raise ValueError(f"{name} counts steps, from 1 to {_MAX_STEP}; got {value!r}")
    return int(value)


def check_list(name: str, value: Any) -> list[Any]:
    """Return what is a sequence as a list, or raise a TypeError."""
    if not isinstance(value, Sequence | np.ndarray) or isinstance(value, str):
        raise TypeError(f"{name} is a list, got {value!r}")
    return list(value)
