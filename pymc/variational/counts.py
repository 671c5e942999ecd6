# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0

"""Checks of whole numbers: of steps, draws, particles, rows."""

import operator

from typing import Any

import numpy as np

__all__ = ["check_count"]


def check_count(argument: str, value: Any, function: str, *, least: int = 1) -> int:
    """Check how many of something are asked for.

    Parameters
    ----------
    argument, function : str
        What the value was given as, and to what, for messages.
    value : int
        Or an integer of NumPy.
    least : int
        The smallest one that makes sense.

    Returns
    -------
    int

    Raises
    ------
    TypeError
        For what is no whole number: a bool, a float, an array.
    ValueError
        For one below `least`.

    Examples
    --------
    >>> from pymc.variational.counts import check_count
    >>> check_count("draws", np.int64(500), "sample")
    500
    """
    try:
        if isinstance(value, bool | np.bool_):
            raise TypeError
        count = operator.index(value)
    except TypeError:
        raise TypeError(
            f"{argument}={value!r} of {function} has to be a whole number, such as 500: it is of type "
            f"{type(value).__name__}"
        ) from None
    if count < least:
        raise ValueError(f"{argument}={count} of {function} has to be at least {least}")
    return count
