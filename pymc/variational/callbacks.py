# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

import pymc._layer as _layer

from pymc._docstrings import extends_docstring
from pymc._lazy import load_late
from pymc.argument_checks import check_int
from pymc.variational.early_stopping import CheckStationarity, shared_params
from pymc.variational.engine.callback_schedule import CallbackSchedule

released = _layer.run_release(globals(), Callback=CallbackSchedule)

__all__ = [
    "Callback",
    "CheckParametersConvergence",
    "CheckStationarity",
    "Tracker",
]

load_late(
    globals(),
    {
        "pymc.variational.checkpoints.best": ("ModelCheckpoint",),
        "pymc.variational.held_out": ("EarlyStopping", "HeldOutBound"),
        "pymc.variational.loggers": (
            "CSVLogger",
            "MLflowLogger",
            "MetricLogger",
            "TensorBoardLogger",
            "WandbLogger",
        ),
    },
)

# Bound above, which mypy does not see
Callback: Any = released.Callback


@extends_docstring(released.CheckParametersConvergence)
class CheckParametersConvergence(released.CheckParametersConvergence):  # type: ignore[name-defined]
    """For stochastic gradients, :class:`CheckStationarity` looks at averages instead.

    At a constant learning rate they keep the parameters changing, by an amount that depends on the rate as
    much as on convergence.

    Raises
    ------
    TypeError
        If `every` is not a whole number.
    ValueError
        If it is less than 1, or `diff` is another word.
    """

    # The first call only records the parameters
    at_start = True

    def __init__(
        self,
        every: int = 100,
        tolerance: float = 1e-3,
        diff: str = "relative",
        ord: Any = np.inf,
    ) -> None:
        if diff not in ("relative", "absolute"):
            raise ValueError(
                f"diff of CheckParametersConvergence is {diff!r}: say 'relative' to compare the "
                "change of a parameter with its value, or 'absolute' to take the change as it is"
            )
        every = check_int(every, "every", "CheckParametersConvergence")
        super().__init__(every, tolerance, diff, ord)

    def __call__(self, approx: Any, _: Any, i: int) -> None:
        super().__call__(SimpleNamespace(params=shared_params(approx)), _, i)


@extends_docstring(released.Tracker)
class Tracker(released.Tracker):  # type: ignore[name-defined]
    """With `every`, it records at the multiples of a number of steps.

    Parameters
    ----------
    every : int
        Steps between two records; each step by default. A callable is a statistic of that name, as
        any other keyword.

    Raises
    ------
    TypeError
        If a statistic cannot be called, or `every` is neither a function nor a whole number.
    ValueError
        If `every` is less than 1.

    Examples
    --------
    The mean, every tenth step:

    >>> with pm.Model():
    ...     x = pm.Normal("x")
    ...     advi = pm.ADVI()
    ...     tracker = pm.variational.callbacks.Tracker(every=10, mean=advi.approx.mean.eval)
    ...     approx = advi.fit(100, callbacks=[tracker], progressbar=False)
    >>> len(tracker["mean"])
    10
    """

    def __init__(self, *, every: Any = 1, **kwargs: Callable) -> None:
        if callable(every):
            kwargs, every = {**kwargs, "every": every}, 1
        for name, stat in kwargs.items():
            if not callable(stat):
                raise TypeError(
                    f"Tracker calls each statistic when it records, but {name} is "
                    f"{type(stat).__name__}: {stat!r}. Give it a function, such as "
                    f"{name}=approx.mean.eval or {name}=lambda approx, losses, i: losses[-1]"
                )
        self.every = check_int(every, "every", "Tracker")
        super().__init__(**kwargs)
