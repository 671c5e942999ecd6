# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""The steps at which a fit calls a callback."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from pymc.argument_checks import check_int

__all__ = ["CallbackSchedule", "Schedule", "next_call", "schedule_of"]


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


class Schedule(NamedTuple):
    """The attributes of :class:`CallbackSchedule` of a callback."""

    every: object
    at_start: bool
    at_end: bool


def schedule_of(callback: object) -> Schedule:
    """Return when a callback is called, from those of the attributes that it has."""
    defaults = vars(CallbackSchedule)
    return Schedule(*(getattr(callback, name, defaults[name]) for name in Schedule._fields))


def next_call(callback: Callable, i: int, start: int = 0) -> int:
    """Return the first step after step `i` at which a callback is called, in a fit that began at `start`.

    Raises
    ------
    TypeError, ValueError
        If the callback's `every` is not a positive integer.
    """
    schedule = schedule_of(callback)
    name = getattr(callback, "__name__", type(callback).__name__)
    every = check_int(schedule.every, "every", f"the callback {name}")
    if i == start and schedule.at_start:
        return i + 1
    return (i // every + 1) * every
