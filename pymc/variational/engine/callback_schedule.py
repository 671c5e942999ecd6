# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""At which steps of a fit a callback is called."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from pymc.argument_checks import check_int

__all__ = ["CallTimes", "Times", "next_call", "times_of"]


class CallTimes:
    """What is called in the course of a fit, with the approximation, the losses and the step.

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


class Times(NamedTuple):
    """The attributes of :class:`CallTimes` of a callback."""

    every: Any
    at_start: bool
    at_end: bool


def times_of(callback: Any) -> Times:
    """Return when a callback is called: of a function, or any object, by what it has of the attributes.

    Examples
    --------
    >>> from pymc.variational.engine.callback_schedule import times_of
    >>> times_of(print)
    Times(every=1, at_start=False, at_end=False)
    """
    return Times(*(getattr(callback, name, vars(CallTimes)[name]) for name in Times._fields))


def next_call(callback: Callable, i: int, start: int = 0) -> int:
    """Tell the first step after step `i` at which a callback is to be called.

    Parameters
    ----------
    callback : callable
        With or without the attributes of :class:`Callback`.
    i : int
        Steps done so far, those before `start` included.
    start : int
        Steps done before this call of `fit` or `refine`.

    Returns
    -------
    int
        More than `i`.

    Raises
    ------
    TypeError, ValueError
        If the callback's `every` is no number of steps.

    Examples
    --------
    >>> import pymc as pm
    >>> from pymc.variational.engine.callback_schedule import next_call
    >>> check = pm.variational.callbacks.CheckParametersConvergence(every=100)
    >>> [next_call(check, 0), next_call(check, 1), next_call(check, 100)]
    [1, 100, 200]
    """
    times = times_of(callback)
    name = getattr(callback, "__name__", type(callback).__name__)
    every = check_int(times.every, "every", f"the callback {name}")
    if i == start and times.at_start:
        return i + 1
    return (i // every + 1) * every
