# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Objectives of variational fits."""

from __future__ import annotations

from collections.abc import Callable

from pytensor.compile import optdb

from pymc.minibatch.dispatch import LoadDispatch
from pymc.variational.objectives.base import (
    Loss,
    Losses,
    Objective,
    draw_all,
    log_weights,
    total,
)
from pymc.variational.objectives.elbo import ELBO
from pymc.variational.objectives.importance_weighted import IWAE, Renyi
from pymc.variational.objectives.stein import Stein
from pymc.variational.objectives.wake_sleep import ReweightedWakeSleep

__all__ = [
    "ELBO",
    "IWAE",
    "OBJECTIVES",
    "Loss",
    "Losses",
    "Objective",
    "Renyi",
    "ReweightedWakeSleep",
    "Stein",
    "draw_all",
    "log_weights",
    "objective_of",
    "total",
]

optdb.register(
    "load_median_numba",
    LoadDispatch("pymc.variational.objectives.numba_dispatch"),
    "numba",
    position=0.01,
)

#: Objectives by name.
OBJECTIVES: dict[str, Callable[..., Objective]] = {
    "elbo": ELBO,
    "iwae": IWAE,
    "rws": ReweightedWakeSleep,
}


def objective_of(objective: object, gradient: str | None = None) -> Objective:
    """Read the arguments `objective` and `gradient` of :func:`pymc.fit`."""
    known = ", ".join(map(repr, OBJECTIVES))
    if isinstance(objective, str):
        if objective not in OBJECTIVES:
            raise ValueError(
                f"objective={objective!r} of pm.fit is none of {known}, or an object such as "
                "pm.Renyi(alpha=0.5)"
            )
        default = OBJECTIVES[objective]()
        if gradient is None:
            return default
        if default.gradient is None:
            raise ValueError(
                f"gradient={gradient!r} of pm.fit is a choice of bounds such as 'elbo' and 'iwae'; "
                f"objective={objective!r} has gradients of its own: leave it out"
            )
        return OBJECTIVES[objective](gradient=gradient)
    if isinstance(objective, type) and issubclass(objective, Objective):
        name = objective.__name__
        raise TypeError(
            f"objective={name} of pm.fit is a class: call it, and write objective=pm.{name}()"
        )
    if not isinstance(objective, Objective):
        raise TypeError(
            f"objective={objective!r} of pm.fit has to be one of {known}, "
            "or an instance of a subclass of Objective, such as pm.Renyi(alpha=0.5)"
        )
    if gradient is not None and objective.gradient != gradient:
        raise ValueError(
            f"gradient={gradient!r} of pm.fit contradicts objective={objective!r}: give the objective "
            "its gradient, as in pm.Renyi(alpha=0.5, gradient='dreg')"
        )
    return objective
