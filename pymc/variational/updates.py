# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
import re

from collections.abc import Callable
from functools import wraps
from inspect import signature
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np
import pytensor

from pytensor.graph.basic import Variable

import pymc._layer as _layer

from pymc.variational.schedules import Schedule, rate_at

released = _layer.run_release(globals())

if TYPE_CHECKING:
    # What our modules use of the release's
    def get_or_compute_grads(loss_or_grads: Any, params: Any) -> Any: ...


_LEARNING_RATE = re.compile(r"^( *)learning_rate ?: float.*\n(?:\1 +\S.*\n)+", re.MULTILINE)
_DOCUMENTED = """\
{0}learning_rate : float, symbolic scalar or schedule
{0}    The size of update steps. A schedule is a function of the step that returns it, one of
{0}    :mod:`pymc.variational.schedules` or your own: it is called once, with a symbolic int64
{0}    scalar, which is 0 at the first step and goes on in `refine`.
"""


def check_rate_of(optimizer: str, learning_rate: Any) -> None:
    """Raise a TypeError if a learning rate is no number, symbolic variable, array or schedule."""
    known = callable(learning_rate) or isinstance(learning_rate, Variable | np.ndarray | Real)
    if not known or isinstance(learning_rate, bool):  # with nan the first step fails, and says so
        raise TypeError(
            f"learning_rate of {optimizer} is a number, such as 0.1; got {learning_rate!r}"
        )


def _scheduled(optimizer: Callable[..., Any]) -> Callable[..., Any]:
    """Return an optimizer of the release that also takes a schedule."""
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


# In the release's namespace, so that its functions and partials use these
sgd = _scheduled(released.sgd)
momentum = _scheduled(released.momentum)
nesterov_momentum = _scheduled(released.nesterov_momentum)
adagrad = _scheduled(released.adagrad)
adagrad_window = _scheduled(released.adagrad_window)
rmsprop = _scheduled(released.rmsprop)
adadelta = _scheduled(released.adadelta)
adam = _scheduled(released.adam)
adamax = _scheduled(released.adamax)

#: The optimizers that have a learning rate.
SCHEDULED = (
    sgd,
    momentum,
    nesterov_momentum,
    adagrad,
    adagrad_window,
    rmsprop,
    adadelta,
    adam,
    adamax,
)
