# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Learning rates that change from step to step.

Every optimizer takes a schedule as its `learning_rate`: a function of the step, which is 0 at the
first one. It is called once, when the graph of a step is built, with a symbolic integer, so one's
own is written with ``pytensor.tensor``. Those here can be called with numbers as well, to plot them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from pytensor.tensor.variable import TensorVariable

import pymc.variational.schedule_formulas as formulas

from pymc.variational.schedule_arguments import (
    check_count,
    check_fraction,
    check_list,
    check_rate,
    check_rate_or_schedule,
)
from pymc.variational.schedule_formulas import Formula, Schedule

__all__ = [
    "Schedule",
    "constant",
    "cosine_decay",
    "exponential_decay",
    "join",
    "linear_warmup",
    "piecewise_constant",
]


def constant(learning_rate: float) -> Formula:
    """Return the schedule of one learning rate at all steps.

    Parameters
    ----------
    learning_rate : float
        Positive.

    Returns
    -------
    Formula
        A schedule. Of an integer or an array of them it returns an array of that shape.

    Raises
    ------
    TypeError, ValueError
        If `learning_rate` is not a positive, finite number.

    Examples
    --------
    >>> from pymc.variational.schedules import constant
    >>> constant(0.1)([0, 1000]).tolist()
    [0.1, 0.1]
    """
    return _schedule(
        formulas.constant, learning_rate=check_rate("learning_rate of constant", learning_rate)
    )


def exponential_decay(
    initial_learning_rate: float, decay_steps: int, decay_rate: float, staircase: bool = False
) -> Formula:
    r"""Multiply the learning rate by `decay_rate` every `decay_steps` steps.

    At step :math:`t` it is :math:`\eta_0 \, \gamma^{t / T}`, or with `staircase`
    :math:`\eta_0 \, \gamma^{\lfloor t / T \rfloor}`.

    Parameters
    ----------
    initial_learning_rate : float
        :math:`\eta_0 > 0`.
    decay_steps : int
        :math:`T \ge 1`.
    decay_rate : float
        :math:`0 < \gamma \le 1`.
    staircase : bool
        Keep the rate for `decay_steps` steps, and change it at once.

    Returns
    -------
    Formula
        A schedule. Of an integer or an array of them it returns an array of that shape.

    Raises
    ------
    TypeError, ValueError
        If an argument is not a number of this range.

    Examples
    --------
    >>> from pymc.variational.schedules import exponential_decay
    >>> exponential_decay(0.1, decay_steps=1000, decay_rate=0.5)([0, 1000, 2000]).tolist()
    [0.1, 0.05, 0.025]
    """
    if not isinstance(staircase, bool | np.bool_):
        raise TypeError(f"staircase of exponential_decay is True or False, got {staircase!r}")
    return _schedule(
        formulas.exponential_decay,
        initial_learning_rate=check_rate(
            "initial_learning_rate of exponential_decay", initial_learning_rate
        ),
        decay_steps=check_count("decay_steps of exponential_decay", decay_steps),
        decay_rate=check_fraction("decay_rate of exponential_decay", decay_rate, zero=False),
        staircase=bool(staircase),
    )


def cosine_decay(
    initial_learning_rate: float, decay_steps: int, final_fraction: float = 0.0
) -> Formula:
    r"""Let the learning rate fall along half a cosine, and keep the last one.

    At step :math:`t \le T` it is :math:`\eta_0 (\alpha + (1 - \alpha)(1 + \cos(\pi t / T)) / 2)`,
    which is equation 5 of [1]_ without restarts.

    Parameters
    ----------
    initial_learning_rate : float
        :math:`\eta_0 > 0`.
    decay_steps : int
        :math:`T \ge 1`, as a rule the number of steps of the fit. A `refine` after them goes on at
        the last rate, so with 0 as the `final_fraction` it changes nothing.
    final_fraction : float
        :math:`0 \le \alpha \le 1`, the last rate as a fraction of the first.

    Returns
    -------
    Formula
        A schedule. Of an integer or an array of them it returns an array of that shape.

    Raises
    ------
    TypeError, ValueError
        If an argument is not a number of this range.

    References
    ----------
    .. [1] Loshchilov, I. & Hutter, F. (2017). SGDR: Stochastic Gradient Descent with Warm Restarts.
       ICLR.

    Examples
    --------
    >>> from pymc.variational.schedules import cosine_decay
    >>> cosine_decay(0.1, decay_steps=1000, final_fraction=0.1)([0, 1000, 2000]).round(3).tolist()
    [0.1, 0.01, 0.01]
    """
    return _schedule(
        formulas.cosine_decay,
        initial_learning_rate=check_rate(
            "initial_learning_rate of cosine_decay", initial_learning_rate
        ),
        decay_steps=check_count("decay_steps of cosine_decay", decay_steps),
        final_fraction=check_fraction("final_fraction of cosine_decay", final_fraction),
    )


def linear_warmup(
    learning_rate: float | Schedule, warmup_steps: int, initial_fraction: float = 0.0
) -> Formula:
    """Let the learning rate grow in a straight line to that of a schedule, which then begins.

    Parameters
    ----------
    learning_rate : float or schedule
        What follows. Its step 0 is step `warmup_steps` of the fit.
    warmup_steps : int
        At least 1.
    initial_fraction : float
        The rate at step 0 as a fraction of the first rate of what follows, between 0 and 1. At 0
        the first step changes no parameter.

    Returns
    -------
    Formula
        A schedule. Of an integer or an array of them it returns an array of that shape.

    Raises
    ------
    TypeError, ValueError
        If an argument is not a number of this range, or a schedule.

    Examples
    --------
    >>> from pymc.variational.schedules import exponential_decay, linear_warmup
    >>> warm = linear_warmup(exponential_decay(0.1, 100, 0.5), warmup_steps=10)
    >>> warm([0, 5, 10, 110]).tolist()
    [0.0, 0.05, 0.1, 0.05]
    """
    return _schedule(
        formulas.linear_warmup,
        learning_rate=check_rate_or_schedule("learning_rate of linear_warmup", learning_rate),
        warmup_steps=check_count("warmup_steps of linear_warmup", warmup_steps),
        initial_fraction=check_fraction("initial_fraction of linear_warmup", initial_fraction),
    )


def piecewise_constant(learning_rates: Sequence[float], boundaries: Sequence[int]) -> Formula:
    """Take one learning rate after the other.

    Parameters
    ----------
    learning_rates : sequence of float
        Positive.
    boundaries : sequence of int
        The step at which each rate but the first begins, rising.

    Returns
    -------
    Formula
        A schedule. Of an integer or an array of them it returns an array of that shape.

    Raises
    ------
    TypeError, ValueError
        If an argument is not a sequence of such numbers, or boundaries do not fit the rates.

    Examples
    --------
    >>> from pymc.variational.schedules import piecewise_constant
    >>> piecewise_constant([0.1, 0.01], boundaries=[1000])([0, 999, 1000]).tolist()
    [0.1, 0.1, 0.01]
    """
    name = "learning_rates of piecewise_constant"
    return join([check_rate(name, rate) for rate in check_list(name, learning_rates)], boundaries)


def join(schedules: Sequence[float | Schedule], boundaries: Sequence[int]) -> Formula:
    """Take one schedule after the other, each from its own step 0.

    Parameters
    ----------
    schedules : sequence of float or schedule
        In this order.
    boundaries : sequence of int
        The step of the fit at which each schedule but the first begins, rising.

    Returns
    -------
    Formula
        A schedule. Of an integer or an array of them it returns an array of that shape.

    Raises
    ------
    TypeError, ValueError
        If an argument is not a sequence of these, or boundaries do not fit the schedules.

    Examples
    --------
    >>> from pymc.variational.schedules import exponential_decay, join
    >>> join([0.1, exponential_decay(0.1, 100, 0.5)], boundaries=[1000])([0, 1000, 1100]).tolist()
    [0.1, 0.1, 0.05]
    """
    parts = [
        check_rate_or_schedule("schedules of join", x)
        for x in check_list("schedules of join", schedules)
    ]
    starts = [check_count("boundaries", start) for start in check_list("boundaries", boundaries)]
    if len(parts) != len(starts) + 1 or sorted({*starts}) != starts:
        raise ValueError(
            f"boundaries are the steps at which each learning rate but the first begins: {len(parts)} "
            f"of them need {len(parts) - 1} boundaries that rise, got {starts}"
        )
    return _schedule(formulas.join, schedules=tuple(parts), boundaries=tuple(starts))


def _schedule(formula: Callable[..., TensorVariable], **arguments: Any) -> Formula:
    return Formula(formula, tuple(arguments.items()))
