# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Objectives: what a fit optimises."""

from __future__ import annotations

import numbers

from collections.abc import Callable
from typing import Any

from pymc.variational.objectives.base import (
    Loss,
    Losses,
    Objective,
    draw_all,
    log_weights,
    total,
)
from pymc.variational.objectives.importance_weighted import ELBO, IWAE, Renyi
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

#: By what the user writes.
OBJECTIVES: dict[str, Callable[..., Objective]] = {
    "elbo": ELBO,
    "iwae": IWAE,
    "rws": ReweightedWakeSleep,
}


def objective_of(objective: Any, gradient: str | None = None) -> Objective:
    """Read the arguments `objective` and `gradient` of :func:`pymc.fit`.

    Raises
    ------
    ValueError, TypeError
    """
    if isinstance(objective, str):
        if objective not in OBJECTIVES:
            raise ValueError(
                f"objective={objective!r} of pm.fit is none of {', '.join(map(repr, OBJECTIVES))}, or "
                "an object such as pm.Renyi(alpha=0.5)"
            )
        made = OBJECTIVES[objective]
        if gradient is None:
            return made()
        if made().gradient is None:
            raise ValueError(
                f"gradient={gradient!r} of pm.fit is a choice of bounds such as 'elbo' and 'iwae'; "
                f"objective={objective!r} has gradients of its own: leave it out"
            )
        return made(gradient=gradient)
    if isinstance(objective, type) and issubclass(objective, Objective):
        name = objective.__name__
        raise TypeError(
            f"objective={name} of pm.fit is a class, and no objective has been made of it: write "
            f"objective=pm.{name}()"
        )
    if not isinstance(objective, Objective):
        raise TypeError(
            f"objective={objective!r} of pm.fit has to be one of {', '.join(map(repr, OBJECTIVES))}, "
            "or an instance of a subclass of Objective, such as pm.Renyi(alpha=0.5)"
        )
    if gradient is not None and objective.gradient != gradient:
        raise ValueError(
            f"gradient={gradient!r} of pm.fit contradicts objective={objective!r}: give the objective "
            "its gradient, as in pm.Renyi(alpha=0.5, gradient='dreg')"
        )
    return objective
