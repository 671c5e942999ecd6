# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Learning-rate schedules: learning rates that are functions of the step.

Every optimizer takes a schedule as its `learning_rate`. The first step is 0. A schedule is called once,
when the graph of a step is built, with a symbolic integer, so write your own with ``pytensor.tensor``.
Call those in this module with an integer or an array of them to plot them.
"""

from __future__ import annotations

import re

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, field, fields
from functools import wraps
from inspect import signature
from numbers import Real
from typing import Any, Protocol

import numpy as np
import pytensor
import pytensor.tensor as pt

from pytensor.compile.mode import Mode
from pytensor.graph.basic import Variable
from pytensor.graph.replace import vectorize_graph
from pytensor.tensor.variable import TensorVariable

from pymc.argument_checks import check_fields, check_flag, check_int, check_number
from pymc.variational.configurable import Configurable
from pymc.variational.number_inputs import as_input, lift_numbers

__all__ = [
    "Schedule",
    "constant",
    "cosine_decay",
    "exponential_decay",
    "join",
    "linear_warmup",
    "piecewise_constant",
]

_MAX_STEP = int(np.iinfo(np.int64).max)

# A schedule is a handful of scalar operations, which take longer to compile than to run
_PYTHON = Mode(linker="py", optimizer=None)
_LEARNING_RATE = re.compile(r"^( *)learning_rate ?: float.*\n(?:\1 +\S.*\n)+", re.MULTILINE)
_DOCUMENTED = """\
{0}learning_rate : float, symbolic scalar or schedule
{0}    The size of update steps. A schedule is a function of the step that returns it, one of
{0}    :mod:`pymc.variational.schedules` or your own: it is called once, with a symbolic int64
{0}    scalar, which is 0 at the first step and goes on in `refine`.
"""


class Schedule(Protocol):
    """A learning rate as a function of the step."""

    def __call__(self, step: TensorVariable, /) -> TensorVariable | float:
        """Return the learning rate at `step`, a symbolic int64 scalar: 0, 1, 2, ..."""


def rate_at(learning_rate: float | Variable | Schedule, step: TensorVariable) -> TensorVariable:
    """Return the learning rate at a symbolic step, as a scalar of ``floatX`` for the optimizers.

    A schedule is called once.

    Raises
    ------
    ValueError
        If the schedule returns a variable with more axes than `step`.
    TypeError
        If the rate is not real. An error in the schedule itself gets a note about symbolic steps.

    Examples
    --------
    >>> import pytensor.tensor as pt
    >>> from pymc.variational.schedules import rate_at
    >>> rate = rate_at(lambda step: 1 / (1 + step), pt.constant(3, dtype="int64"))
    >>> float(rate.eval())
    0.25
    """
    if isinstance(learning_rate, Variable):
        return pt.as_tensor(learning_rate).astype(pytensor.config.floatX)
    if not callable(learning_rate):
        return pt.constant(learning_rate, dtype=pytensor.config.floatX)
    try:
        rate = pt.as_tensor(learning_rate(step))
    except Exception as error:
        error.add_note(
            f"The schedule {learning_rate!r} was called with a symbolic step, once for all steps, and "
            "has to return one symbolic number: write pt.exp, pt.minimum and pt.switch of "
            "pytensor.tensor instead of math.exp, min and if"
        )
        raise
    if rate.type.ndim > step.type.ndim:
        raise ValueError(
            f"the schedule {learning_rate!r} returned {rate} of type {rate.type}, but all parameters "
            "share one learning rate: return a scalar"
        )
    if np.dtype(rate.type.dtype).kind not in "iuf":
        raise TypeError(
            f"the schedule {learning_rate!r} returned {rate} of dtype {rate.type.dtype}, but a "
            "learning rate is a real number: return a float"
        )
    return rate.astype(pytensor.config.floatX)


def rates_at(learning_rate: Any, steps: np.ndarray) -> np.ndarray:
    """Return the learning rates at some steps, int64 of shape (n,); ones if it is no schedule.

    Examples
    --------
    >>> from pymc.variational.schedules import rates_at
    >>> rates_at(lambda step: 1 / (1 + step), np.array([0, 1, 3]))
    array([1.  , 0.5 , 0.25])
    """
    if not callable(learning_rate):
        return np.ones(len(steps))
    step = pt.lscalar("step")
    rates = vectorize_graph(rate_at(learning_rate, step), {step: pt.constant(steps)})
    return np.broadcast_to(rates.eval(mode=_PYTHON), steps.shape).astype("float64")


def check_rate_of(optimizer: str, learning_rate: Any) -> None:
    """Raise a TypeError if a learning rate is no number, symbolic variable, array or schedule."""
    known = callable(learning_rate) or isinstance(learning_rate, Variable | np.ndarray | Real)
    if not known or isinstance(learning_rate, bool):  # with nan the first step fails, and says so
        raise TypeError(
            f"learning_rate of {optimizer} is a number, such as 0.1; got {learning_rate!r}"
        )


def takes_schedules(optimizer: Callable[..., Any]) -> Callable[..., Any]:
    """Let a function that returns updates take a schedule as its `learning_rate`."""
    default = signature(optimizer).parameters["learning_rate"].default

    @wraps(optimizer)
    def scheduled(
        loss_or_grads: Any = None,
        params: Any = None,
        learning_rate: float | Any | Schedule = default,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        check_rate_of(optimizer.__name__, learning_rate)
        if loss_or_grads is None or params is None or not callable(learning_rate):
            return optimizer(loss_or_grads, params, learning_rate, *args, **kwargs)
        step = pytensor.shared(np.array(0, dtype="int64"), name="step")
        updates = optimizer(loss_or_grads, params, rate_at(learning_rate, step), *args, **kwargs)
        updates[step] = step + 1
        return updates

    if optimizer.__doc__ is not None:  # it is stripped under python -OO
        scheduled.__doc__ = _LEARNING_RATE.sub(
            lambda found: _DOCUMENTED.format(found[1]), optimizer.__doc__
        )
    return scheduled


def with_number_inputs(learning_rate: Any) -> Any:
    """Replace the numbers of a learning rate or schedule by shared scalars.

    They become inputs of a compiled step, so that other numbers do not compile another one. In a schedule of
    this module floats and integers are replaced, in a user's own schedule floats.

    Examples
    --------
    >>> from pymc.variational.schedules import cosine_decay, with_number_inputs
    >>> with_number_inputs(0.1).get_value()
    array(0.1)
    >>> with_number_inputs(cosine_decay(0.1, decay_steps=100)).decay_steps.get_value()
    array(100)
    """
    if isinstance(learning_rate, Real):
        return as_input(float(learning_rate), "learning_rate")
    if isinstance(learning_rate, _Formula):
        schedule = copy(learning_rate)
        for f in fields(schedule):  # type: ignore[arg-type]  # subclasses are dataclasses
            value = _argument_with_inputs(getattr(schedule, f.name), f.name)
            object.__setattr__(schedule, f.name, value)
        return schedule
    return _WithInputs(learning_rate) if callable(learning_rate) else learning_rate


def _argument_with_inputs(value: Any, name: str) -> Any:
    if isinstance(value, tuple):
        return tuple(_argument_with_inputs(item, name) for item in value)
    return with_number_inputs(value) if callable(value) else as_input(value, name)


@dataclass(frozen=True, repr=False)
class _WithInputs:
    """A user's own schedule, with its floats as inputs."""

    schedule: Schedule

    def __call__(self, step: TensorVariable, /) -> TensorVariable:
        [rate] = lift_numbers([pt.as_tensor(self.schedule(step))], [step])
        return rate

    def __repr__(self) -> str:
        return repr(self.schedule)


class _Formula(Configurable):
    """Base class of the schedules in this module: dataclasses whose fields have checks."""

    def __post_init__(self) -> None:
        check_fields(self)

    def __call__(self, step: Any, /) -> Any:
        if isinstance(step, Variable):
            return self.rate(step)
        steps = np.asarray(step)
        if steps.dtype.kind not in "iu" or (steps < 0).any():
            raise ValueError(
                "a schedule is a function of the step, an integer of at least 0 or an array of these, "
                f"such as np.arange(1000); got {step!r}"
            )
        rates = rate_at(self, pt.constant(steps.astype(np.int64))).eval(mode=_PYTHON)
        return np.broadcast_to(rates, steps.shape).copy()

    def rate(self, step: TensorVariable) -> TensorVariable:
        # Steps are compared and subtracted as integers, and only the result becomes a float: float32
        # cannot tell steps apart from 2^24 on
        raise NotImplementedError


def _check_rate(value: object, name: str, where: str) -> float:
    hint = "Optimizers subtract the gradient times the learning rate. Try 0.01"
    return check_number(value, name, where, above=0, hint=hint)


def _check_rate_or_schedule(value: Any, name: str, where: str) -> float | Schedule:
    return value if callable(value) else _check_rate(value, name, where)


def _check_steps(value: object, name: str, where: str) -> int:
    return check_int(value, name, where, at_most=_MAX_STEP, hint="It is a number of steps")


def _check_fraction(value: object, name: str, where: str) -> float:
    hint = "It is a fraction of a learning rate"
    return check_number(value, name, where, at_least=0, at_most=1, hint=hint)


def _check_decay_rate(value: object, name: str, where: str) -> float:
    return check_number(value, name, where, above=0, at_most=1)


def _check_each(check: Callable) -> Callable:
    """Return a check of a sequence, which becomes a tuple, by a check of its items."""

    def checked(value: Any, name: str, where: str) -> tuple:
        if not isinstance(value, Sequence | np.ndarray) or isinstance(value, str):
            raise TypeError(f"{name}={value!r} of {where} must be a list")
        return tuple(check(item, name, where) for item in value)

    return checked


def _real(count: TensorVariable | int) -> TensorVariable:
    return pt.as_tensor(count).astype(pytensor.config.floatX)


def _fraction_left(step: TensorVariable, n_steps: int) -> TensorVariable:
    """Return the part of the first `n_steps` steps that is left: 1 at step 0, 0 from `n_steps` on."""
    return _real(pt.maximum(n_steps - step, 0)) / _real(n_steps)


# The classes of schedules are called like functions, and have names of functions


@dataclass(frozen=True)
class constant(_Formula):
    """The same learning rate at all steps.

    Parameters
    ----------
    learning_rate : float
        Positive.

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

    learning_rate: float = field(metadata={"check": _check_rate})

    def rate(self, step: TensorVariable) -> TensorVariable:
        return rate_at(self.learning_rate, step)


@dataclass(frozen=True)
class exponential_decay(_Formula):
    r"""Learning rate that is multiplied by `decay_rate` every `decay_steps` steps.

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

    initial_learning_rate: float = field(metadata={"check": _check_rate})
    decay_steps: int = field(metadata={"check": _check_steps})
    decay_rate: float = field(metadata={"check": _check_decay_rate})
    staircase: bool = field(default=False, metadata={"check": check_flag})

    def rate(self, step: TensorVariable) -> TensorVariable:
        exponent = (
            _real(step // self.decay_steps)
            if self.staircase
            else _real(step) / _real(self.decay_steps)
        )
        return self.initial_learning_rate * self.decay_rate**exponent


@dataclass(frozen=True)
class cosine_decay(_Formula):
    r"""Learning rate that falls along half a cosine, and then stays.

    At step :math:`t \le T` it is :math:`\eta_0 (\alpha + (1 - \alpha)(1 + \cos(\pi t / T)) / 2)`,
    which is equation 5 of [1]_ without restarts.

    Parameters
    ----------
    initial_learning_rate : float
        :math:`\eta_0 > 0`.
    decay_steps : int
        :math:`T \ge 1`, usually the number of steps of the fit. A later `refine` goes on at the last
        rate: with a `final_fraction` of 0 it changes nothing.
    final_fraction : float
        :math:`0 \le \alpha \le 1`, the last rate as a fraction of the first.

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

    initial_learning_rate: float = field(metadata={"check": _check_rate})
    decay_steps: int = field(metadata={"check": _check_steps})
    final_fraction: float = field(default=0.0, metadata={"check": _check_fraction})

    def rate(self, step: TensorVariable) -> TensorVariable:
        # (1 + cos(pi x)) / 2 is sin(pi (1 - x) / 2)^2, which keeps its digits where it comes to 0
        decay = pt.sin(np.pi / 2 * _fraction_left(step, self.decay_steps)) ** 2
        return self.initial_learning_rate * (
            self.final_fraction + (1 - self.final_fraction) * decay
        )


@dataclass(frozen=True)
class linear_warmup(_Formula):
    """Learning rate that grows in a straight line to the first rate of a schedule, which then begins.

    Parameters
    ----------
    learning_rate : float or schedule
        The rate after the warm-up. Its step 0 is step `warmup_steps` of the fit.
    warmup_steps : int
        At least 1.
    initial_fraction : float
        The rate at step 0 as a fraction of the first rate of `learning_rate`, between 0 and 1. At 0
        the first step changes no parameter.

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

    learning_rate: float | Schedule = field(metadata={"check": _check_rate_or_schedule})
    warmup_steps: int = field(metadata={"check": _check_steps})
    initial_fraction: float = field(default=0.0, metadata={"check": _check_fraction})

    def rate(self, step: TensorVariable) -> TensorVariable:
        reached = rate_at(self.learning_rate, pt.maximum(step - self.warmup_steps, 0))
        missing = (1 - self.initial_fraction) * _fraction_left(step, self.warmup_steps)
        return reached * (1 - missing)


@dataclass(frozen=True)
class join(_Formula):
    """Schedules that follow one another, each from its own step 0.

    Parameters
    ----------
    schedules : sequence of float or schedule
        In this order.
    boundaries : sequence of int
        The step of the fit at which each schedule but the first begins, rising.

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

    schedules: Sequence[float | Schedule] = field(
        metadata={"check": _check_each(_check_rate_or_schedule)}
    )
    boundaries: Sequence[int] = field(metadata={"check": _check_each(_check_steps)})

    def __post_init__(self) -> None:
        super().__post_init__()
        starts, n = list(self.boundaries), len(self.schedules)
        if n != len(starts) + 1 or sorted({*starts}) != starts:
            raise ValueError(
                f"boundaries are the steps at which each learning rate but the first begins: {n} of them "
                f"need {n - 1} boundaries that rise, got {starts}"
            )

    def rate(self, step: TensorVariable) -> TensorVariable:
        rate = rate_at(self.schedules[0], step)
        for schedule, start in zip(self.schedules[1:], self.boundaries):
            rate = pt.switch(step < start, rate, rate_at(schedule, pt.maximum(step - start, 0)))
        return rate


def piecewise_constant(learning_rates: Sequence[float], boundaries: Sequence[int]) -> join:
    """Return a schedule of learning rates that follow one another.

    Parameters
    ----------
    learning_rates : sequence of float
        Positive.
    boundaries : sequence of int
        The step at which each rate but the first begins, rising.

    Returns
    -------
    join

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
    rates = _check_each(_check_rate)(learning_rates, "learning_rates", "piecewise_constant")
    return join(rates, boundaries)
