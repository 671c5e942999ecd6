# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""The steps at which a fit calls a callback."""

from __future__ import annotations

from collections.abc import Callable

from pymc.argument_checks import check_int

__all__ = ["CallbackSchedule", "next_call"]


class CallbackSchedule:
    """Base class of callbacks, with the attributes that say when they are called.

    A callback is any callable that takes `(approx, losses, i)`: the approximation with the
    parameters after step `i`, which counts from 1, and the losses of this call of `fit` up to
    then, or None in a fit without a score. It ends the fit by raising `StopIteration`. Three
    attributes, of a class, of an instance or of a function, say when it is called:

    Attributes
    ----------
    every : int
        At the steps that are multiples of it. A callback without it is called at each step, and
        then steps cannot run many at a time.
    at_start : bool
        Also at the first step of each call of `fit` and `refine`.
    at_end : bool
        Also when such a call has ended, in whatever way and before it raises an error: the losses
        are in `approx.hist` then. A signal that asked the process to terminate waits for it.
    """

    every = 1
    at_start = False
    at_end = False


def next_call(callback: Callable, i: int, start: int = 0) -> int:
    """Return the first step after step `i` at which a callback is called, in a fit that began at `start`.

    Raises
    ------
    TypeError, ValueError
        If the callback's `every` is not a positive integer.
    """
    name = getattr(callback, "__name__", type(callback).__name__)
    every = check_int(getattr(callback, "every", 1), "every", f"the callback {name}")
    if i == start and getattr(callback, "at_start", False):
        return i + 1
    return (i // every + 1) * every
