# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

import pymc._layer as _layer

from pymc.argument_checks import check_int, check_number
from pymc.variational.averaging import TailAverage
from pymc.variational.engine.callback_schedule import CallTimes
from pymc.variational.trajectory import (
    LARGEST_MOVE,
    Trajectory,
    flat_parameters,
    flat_scales,
    mean_error,
    trend,
    watched_entries,
    watched_params,
)
from pymc.variational.verdict import Verdict

released = _layer.run_release(globals(), Callback=CallTimes)

__all__ = [
    "Callback",
    "CheckParametersConvergence",
    "CheckStationarity",
    "Tracker",
    "check_until",
]

# Bound above, which mypy does not see
Callback: Any = released.Callback


class CheckParametersConvergence(released.CheckParametersConvergence):  # type: ignore[name-defined]
    """Stop when the parameters change little between two checks.

    With the noise of stochastic gradients they go on changing at a constant learning rate, and how
    much depends on the rate as much as on convergence; :class:`CheckStationarity` asks for averages
    instead.

    Parameters
    ----------
    every : int
        Steps between two checks.
    tolerance : float
        It stops at a norm of the change that is smaller.
    diff : {"relative", "absolute"}
        Whether the change of each parameter is divided by its value before.
    ord : {non-zero int, inf, -inf}
        Which norm; see :func:`numpy.linalg.norm`.

    Raises
    ------
    TypeError
        If `every` is not a whole number.
    ValueError
        If it is less than 1, or `diff` is another word.

    Examples
    --------
    >>> import pymc as pm
    >>> check = pm.variational.callbacks.CheckParametersConvergence(
    ...     every=50, diff="absolute", tolerance=1e-4
    ... )
    >>> with pm.Model():
    ...     x = pm.Normal("x")
    ...     approx = pm.fit(100, callbacks=[check], progressbar=False)
    """

    # The first call notes where the parameters are, and the others compare
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

    def __call__(self, approx: Any, losses: Any, i: int) -> None:
        """Compare the parameters that all rows share with those of the check before."""
        super().__call__(SimpleNamespace(params=watched_params(approx)), losses, i)


class Tracker(released.Tracker):  # type: ignore[name-defined]
    """Record statistics in the course of a fit: ``tracker["name"]`` is a list of what came.

    Parameters
    ----------
    every : int
        Steps between two records; each step by default. A callable is a statistic of that name, as
        any other keyword.
    **stats : callable
        By name, a function without arguments, or one of `(approx, losses, i)`: the first form is
        tried first.

    Raises
    ------
    TypeError
        If a statistic cannot be called, or `every` is neither a function nor a whole number.
    ValueError
        If `every` is less than 1.

    Examples
    --------
    >>> import pymc as pm
    >>> with pm.Model():
    ...     x = pm.Normal("x")
    ...     advi = pm.ADVI()
    ...     tracker = pm.variational.callbacks.Tracker(
    ...         every=10,
    ...         mean=advi.approx.mean.eval,
    ...         loss=lambda approx, losses, i: losses[-1],
    ...     )
    ...     approx = advi.fit(100, callbacks=[tracker], progressbar=False)
    >>> len(tracker["mean"])
    10
    """

    def __init__(self, *, every: Any = 1, **stats: Callable) -> None:
        if callable(every):
            stats, every = {**stats, "every": every}, 1
        for name, stat in stats.items():
            if not callable(stat):
                raise TypeError(
                    f"Tracker calls each statistic when it records, but {name} is "
                    f"{type(stat).__name__}: {stat!r}. Give it a function, such as "
                    f"{name}=approx.mean.eval or {name}=lambda approx, losses, i: losses[-1]"
                )
        self.every = check_int(every, "every", "Tracker")
        super().__init__(**stats)


_FIRST_CHECK = 100
"""Recorded parameters at the first check."""
_CAPACITY = 400
"""Rows of a trajectory: 100 to 200 of them are checked at least."""
_GROWTH = 1.2
"""Each check comes at this multiple of the steps of the one before."""
_ANEW = 1.5
"""After a stretch in which parameters moved, the next is checked at this multiple: it is the later third."""

_LARGEST_SPREAD = 10.0
"""Standard deviations by which single steps may be off where their average is taken for the optimum."""


class _Record(NamedTuple):
    """What is recorded of a stretch: which parameters, their values, and the step to look at them."""

    watched: np.ndarray
    trajectory: Trajectory
    next_check: float


class CheckStationarity(Callback):
    r"""Stop when the parameters only vary about values that their averages tell well enough.

    Stochastic gradients keep the parameters moving however long a fit takes. This callback records
    them, and asks two things of a stretch of the steps, the later third of them at least: that no parameter
    moved along a line, and how well the average over it is known (the Monte Carlo standard error, MCSE,
    which counts autocorrelation). Formulas and units are those by which a fit says whether it has converged.
    Where a parameter moved, another stretch begins: even by little, since it would go on. The first one is of
    steps on the way, and never the last.

    The last parameters vary about the averages as all others do: ``pm.fit(until="stationary")`` takes this
    check, and leaves the parameters at their averages over the stretch.

    Parameters
    ----------
    every : int
        Steps between two records of the parameters.
    tolerance : float
        Largest MCSE, and ten times the largest move. It is in standard deviations of the guide for the location of a Gaussian
        guide, and relative for its standard deviations, so that it means the same whatever the
        variables' units; for other guides it is in the units of their parameters.
    share : float
        Share of the parameters that have to meet both, in (0, 1].
    max_parameters : int
        Of a guide with more parameters, as many are watched, drawn once and always the same.

    Attributes
    ----------
    largest_move : float
        Largest move, in the units of `tolerance`.
    steps : list of int
        Steps at which it was checked.
    moved, mcse : list of float
        What was found then for the worst of the parameters, or for the `share` quantile of them, in the units
        of `tolerance`: how far it went over the stretch, 0 where that may be chance, and the MCSE.
    stretch : int
        The step after which the stretch began that was checked last, or is to be.
    stopped : str or None
        What it said when it stopped the fit.

    Raises
    ------
    TypeError
        If `every` or `max_parameters` is not a whole number.
    ValueError
        If one of the arguments is out of its range.

    Notes
    -----
    The error of averages over T steps is about :math:`\sqrt{N / (B T)}` standard deviations at best, for
    batches of B among N rows: 0.1 takes 20,000 steps for 100,000 rows in batches of 500, and 400,000 for two
    millions. :math:`\hat R` of the halves, which Dhaka et al. ask for, is no part of it: it compares a
    move with the noise of the steps, which is nearly one move where a rate is small.

    The averages at a constant rate are off by a part that is in proportion to it where the gradient is
    curved, and the MCSE has nothing of it. A fit warns where single steps are 10 standard deviations off.

    At most 400 rows of the parameters are kept: in a long fit each is the average of several
    records. Checks come at steps that grow by a fifth, so that there are at most 51 in a million.

    References
    ----------
    Dhaka, Catalina, Andersen, Magnusson, Huggins, Vehtari (2020), Robust, Accurate Stochastic
    Optimization for Variational Inference, algorithm 1.
    Welandawe, Andersen, Vehtari, Huggins (2022), Robust, Automated, and Accurate Black-box
    Variational Inference, section 4.

    Examples
    --------
    >>> import pymc as pm
    >>> stop = pm.variational.callbacks.CheckStationarity(every=10, tolerance=0.05)
    >>> with pm.Model():
    ...     x = pm.Normal("x", 3, 2)
    ...     approx = pm.fit(100, callbacks=[stop], progressbar=False)
    >>> stop.steps  # too few steps to look at
    []
    """

    def __init__(
        self,
        every: int = 10,
        tolerance: float = 0.1,
        share: float = 1.0,
        max_parameters: int = 256,
    ) -> None:
        name = type(self).__name__
        self.every = check_int(every, "every", name)
        self.max_parameters = check_int(max_parameters, "max_parameters", name)
        self.tolerance = check_number(tolerance, "tolerance", name, above=0)
        self.share = check_number(share, "share", name, above=0, at_most=1)
        self.largest_move = min(self.tolerance, LARGEST_MOVE) / 10
        self.begin()

    def __repr__(self) -> str:
        return (
            f"CheckStationarity(every={self.every}, tolerance={self.tolerance}, share={self.share}, "
            f"max_parameters={self.max_parameters})"
        )

    def begin(self, average: TailAverage | None = None) -> None:
        """Begin anew, with what is to be averaged over the stretch."""
        self.steps: list[int] = []
        self.moved: list[float] = []
        self.mcse: list[float] = []
        self.stopped: str | None = None
        self._average = average
        self._record: _Record | None = None
        self._start = self._last = self.stretch = 0
        self._spread = 0.0

    def __call__(self, approx: Any, losses: Any, i: int) -> None:
        """Record the parameters after step `i`; raise StopIteration where they are stationary."""
        if i <= self._last or self.stopped is not None:  # another fit, or one that goes on
            self.begin(self._average)
        values = flat_parameters(approx)
        if self._record is None:
            self._start = i
            self._begin_stretch(len(values), i, self.every * (_FIRST_CHECK - 1))
        assert self._record is not None
        record, self._last = self._record, i
        record.trajectory.append(values[record.watched])
        if i - self._start >= record.next_check:
            self._check(flat_scales(approx), values, record, i)

    def _begin_stretch(self, size: int, i: int, next_check: float) -> None:
        self.stretch = i
        watched = watched_entries(size, self.max_parameters)
        self._record = _Record(watched, Trajectory(len(watched), _CAPACITY), next_check)
        if self._average is not None:
            self._average.begin(0)

    def _check(self, scales: np.ndarray, values: np.ndarray, record: _Record, i: int) -> None:
        n_steps, units = i - self._start, scales[record.watched]
        window = record.trajectory.rows / units
        moved, error = self._of_share(trend(window).moved), self._of_share(mean_error(window))
        self.steps.append(i)
        self.moved.append(moved)
        self.mcse.append(error)
        if moved > self.largest_move or self.stretch == self._start:
            self._begin_stretch(len(scales), i, _ANEW * n_steps)
        elif error > self.tolerance:
            self._record = record._replace(next_check=_GROWTH * n_steps)
        else:
            self._spread = self._of_share(abs(values[record.watched] / units - window.mean(axis=0)))
            self.stopped = f"Stationary at {i}: standard error of the averages {error:.2g}"
            raise StopIteration(self.stopped)

    def verdict(self) -> Verdict:
        """Say whether a fit that it was to end has become stationary."""
        if self.stopped is not None and self._spread > _LARGEST_SPREAD:
            return Verdict(
                None,
                f"{self.stopped}, but the last step's values are {self._spread:.2g} sd from them, so that a curved "
                "gradient biases them too",
                "Take a smaller learning rate, such as a tenth, or obj_optimizer='tuned' in the place of until",
                converged=False,
            )
        if self.stopped is not None:
            return Verdict(None, self.stopped)
        if not self.steps:
            found = f"it has {_FIRST_CHECK * self.every:,} steps at least to become stationary"
        elif self.moved[-1] > self.largest_move:
            found = f"at step {self.steps[-1]} a parameter still moved by {self.moved[-1]:.2g} of its sd"
        else:
            found = (
                f"at step {self.steps[-1]} the average of a parameter was known to {self.mcse[-1]:.2g} of its "
                f"sd, and not to tolerance={self.tolerance:g}"
            )
        advice = (
            "Take more steps n, a larger tolerance, or obj_optimizer='tuned' in the place of until"
        )
        return Verdict(None, found, advice, converged=False)

    def _of_share(self, values: np.ndarray) -> float:
        return float(np.quantile(values, self.share, method="inverted_cdf"))


def check_until(until: Any, average: Any) -> CheckStationarity | None:
    """Check the argument `until` of a fit.

    Raises
    ------
    TypeError, ValueError
        If it is something else than "stationary" or a check of that, or there is an `average` beside it.
    """
    if until is None:
        return None
    if average is not None:
        raise TypeError(
            f"average={average!r} and until={until!r} of a fit are two averages of the parameters: until takes "
            "the one over the steps in which they were stationary. Leave average out"
        )
    if isinstance(until, CheckStationarity):
        return until
    if isinstance(until, str) and until == "stationary":
        return CheckStationarity()
    raise ValueError(
        f"until={until!r} of a fit says when it may end before n steps: write 'stationary', or "
        "pm.callbacks.CheckStationarity(tolerance=0.05) for another tolerance"
    )
