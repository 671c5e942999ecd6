# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""What a learning-rate schedule is, and the formulas of those in ``schedules``.

Steps are compared and subtracted as integers, and only what is left becomes a float: float32 cannot
tell steps apart from 2^24 on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from typing import Any, Protocol

import numpy as np
import pytensor
import pytensor.tensor as pt

from pytensor.compile.mode import Mode
from pytensor.graph.basic import Variable
from pytensor.tensor.variable import TensorVariable

from pymc.variational.number_inputs import as_input, lift_numbers

__all__ = ["Formula", "Schedule", "rate_at", "with_number_inputs"]

# A schedule is a handful of scalar operations: to compile them takes longer than to run them
_PYTHON = Mode(linker="py", optimizer=None)


class Schedule(Protocol):
    """A learning rate as a function of the step."""

    def __call__(self, step: TensorVariable, /) -> TensorVariable | float:
        """Return the learning rate at `step`, a symbolic int64 scalar: 0, 1, 2, ..."""


@dataclass(frozen=True, repr=False)
class Formula:
    """A schedule given by a formula of the step, and by arguments that have been checked.

    A value rather than a closure: it can be compared, pickled, and read in the settings of a fit.
    """

    formula: Callable[..., TensorVariable]
    arguments: tuple[tuple[str, Any], ...]

    def __call__(self, step: Any, /) -> Any:
        if isinstance(step, Variable):
            return self.formula(step, **dict(self.arguments))
        steps = _check_steps(step)
        rates = rate_at(self, pt.constant(steps)).eval(mode=_PYTHON)
        return np.broadcast_to(rates, steps.shape).copy()

    def __repr__(self) -> str:
        arguments = ", ".join(f"{name}={value!r}" for name, value in self.arguments)
        return f"{self.formula.__name__}({arguments})"


def rate_at(learning_rate: float | Variable | Schedule, step: TensorVariable) -> TensorVariable:
    """Return the learning rate at a symbolic step, as the optimizers use it.

    Parameters
    ----------
    learning_rate : float, symbolic scalar or schedule
        A schedule is called once.
    step : TensorVariable of shape () and dtype int64
        The number of steps before this one.

    Returns
    -------
    TensorVariable
        Of shape () and dtype ``floatX``.

    Raises
    ------
    ValueError
        If what the schedule returns has axes that `step` has not.
    TypeError
        If it is not real. An error of the schedule itself has a note that says what it was given.

    Examples
    --------
    >>> import pytensor.tensor as pt
    >>> from pymc.variational.schedule_formulas import rate_at
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


def with_number_inputs(learning_rate: Any) -> Any:
    """Put shared scalars in the place of the numbers of a learning rate or schedule.

    So they are inputs of a compiled step, and others compile nothing: floats and whole numbers of the
    schedules in ``schedules``, and the floats of your own.

    Parameters
    ----------
    learning_rate : float, symbolic scalar or schedule
        Symbolic scalars stay.

    Examples
    --------
    >>> from pymc.variational.schedule_formulas import with_number_inputs
    >>> from pymc.variational.schedules import cosine_decay
    >>> with_number_inputs(0.1).get_value()
    array(0.1)
    >>> falling = with_number_inputs(cosine_decay(0.1, decay_steps=100))
    >>> dict(falling.arguments)["decay_steps"].get_value()
    array(100)
    """
    if isinstance(learning_rate, Real):
        return as_input(float(learning_rate), "learning_rate")
    if isinstance(learning_rate, Formula):
        pairs = [(name, _with_inputs(value, name)) for name, value in learning_rate.arguments]
        return Formula(learning_rate.formula, tuple(pairs))
    return _WithInputs(learning_rate) if callable(learning_rate) else learning_rate


def _with_inputs(value: Any, name: str) -> Any:
    """Do the same for an argument of a schedule: whole numbers count steps, and stay integers."""
    if isinstance(value, tuple):
        return tuple(_with_inputs(item, name) for item in value)
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


def constant(step: TensorVariable, learning_rate: float) -> TensorVariable:
    return rate_at(learning_rate, step)


def exponential_decay(
    step: TensorVariable,
    initial_learning_rate: float,
    decay_steps: int,
    decay_rate: float,
    staircase: bool,
) -> TensorVariable:
    exponent = _real(step // decay_steps) if staircase else _real(step) / _real(decay_steps)
    return initial_learning_rate * decay_rate**exponent


def cosine_decay(
    step: TensorVariable, initial_learning_rate: float, decay_steps: int, final_fraction: float
) -> TensorVariable:
    # (1 + cos(pi x)) / 2 is sin(pi (1 - x) / 2)^2, which keeps its digits where it comes to 0
    decay = pt.sin(np.pi / 2 * _left(step, decay_steps)) ** 2
    return initial_learning_rate * (final_fraction + (1 - final_fraction) * decay)


def linear_warmup(
    step: TensorVariable,
    learning_rate: float | Schedule,
    warmup_steps: int,
    initial_fraction: float,
) -> TensorVariable:
    reached = rate_at(learning_rate, pt.maximum(step - warmup_steps, 0))
    return reached * (1 - (1 - initial_fraction) * _left(step, warmup_steps))


def join(
    step: TensorVariable, schedules: tuple[float | Schedule, ...], boundaries: tuple[int, ...]
) -> TensorVariable:
    rate = rate_at(schedules[0], step)
    for schedule, start in zip(schedules[1:], boundaries):
        rate = pt.switch(step < start, rate, rate_at(schedule, pt.maximum(step - start, 0)))
    return rate


def _left(step: TensorVariable, n_steps: int) -> TensorVariable:
    """Return what is left of the first `n_steps` steps: 1 at step 0, and 0 from `n_steps` on."""
    return _real(pt.maximum(n_steps - step, 0)) / _real(n_steps)


def _real(count: TensorVariable | int) -> TensorVariable:
    return pt.as_tensor(count).astype(pytensor.config.floatX)


def _check_steps(step: Any) -> np.ndarray:
    steps = np.asarray(step)
    if steps.dtype.kind not in "iu" or (steps < 0).any():
        raise ValueError(
            f"a schedule is a function of the step, an integer of at least 0 or an array of these, as "
            f"np.arange(1000); got {step!r}"
        )
    return steps.astype(np.int64)
