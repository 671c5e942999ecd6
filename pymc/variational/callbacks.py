#   Copyright 2026 - present The PyMC Developers
#
#   Licensed under the Apache License, Version 2.0 (the "License");
#   you may not use this file except in compliance with the License.
#   You may obtain a copy of the License at
#
#       http://www.apache.org/licenses/LICENSE-2.0
#
#   Unless required by applicable law or agreed to in writing, software
#   distributed under the License is distributed on an "AS IS" BASIS,
#   WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
#   See the License for the specific language governing permissions and
#   limitations under the License.
from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

import pymc._layer as _layer

from pymc.variational.engine.calls import CallTimes, check_every
from pymc.variational.trajectory import (
    Trajectory,
    flat_parameters,
    flat_scales,
    mean_error,
    split_rhat,
    watched_entries,
    watched_params,
)

released = _layer.run_release(globals(), Callback=CallTimes)

__all__ = ["Callback", "CheckParametersConvergence", "CheckStationarity", "Tracker"]

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
        every = check_every(every, "every of CheckParametersConvergence")
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
        self.every = check_every(every, "every of Tracker")
        super().__init__(**stats)


_FIRST_CHECK = 100
"""Recorded parameters at the first check: halves of 25 of the later 50."""
_CAPACITY = 400
"""Rows of a trajectory: 100 to 200 of them are checked."""
_GROWTH = 1.2
"""Each check comes at this multiple of the step of the one before."""


class _Record(NamedTuple):
    """What is recorded of one fit: which parameters, their values, and the step to look at them."""

    watched: np.ndarray
    trajectory: Trajectory
    first_check: int


class CheckStationarity(Callback):
    r"""Stop when the parameters only vary about values that their averages tell well enough.

    Stochastic gradients keep the parameters moving however long a fit takes. This callback records
    them, and asks two things of the later half of what it has: whether its two halves vary about the same
    values (:math:`\hat R` of the halves), and how well the average over it is known (the Monte
    Carlo standard error, MCSE, which counts autocorrelation). It stops the fit once both are good.
    The last parameters are as far from the averages as they have been all along, so a fit that
    ends this way is best followed by averaging of the iterates, or by steps at a small rate.

    Parameters
    ----------
    every : int
        Steps between two records of the parameters.
    tolerance : float
        Largest MCSE. It is in standard deviations of the guide for the location of a Gaussian
        guide, and relative for its standard deviations, so that it means the same whatever the
        variables' units; for other guides it is in the units of their parameters.
    rhat : float
        Largest :math:`\hat R`.
    share : float
        Share of the parameters that have to meet both, in (0, 1].
    max_parameters : int
        Of a guide with more parameters, as many are watched, drawn once and always the same.

    Attributes
    ----------
    steps : list of int
        Steps at which it was checked.
    rhat, mcse : list of float
        What was found then for the worst of the parameters, or for the `share` quantile of them.
        The MCSE is nan where :math:`\hat R` was too large to ask for it.

    Raises
    ------
    TypeError
        If `every` or `max_parameters` is not a whole number.
    ValueError
        If one of the arguments is out of its range.

    Notes
    -----
    At most 400 rows of the parameters are kept: in a long fit each is the average of several
    records. Checks come at steps that grow by a fifth, so that there are 51 in a million
    steps; one takes about 10 ms for 256 parameters, and 0.2 s once :math:`\hat R` is good.

    Dhaka et al. stop at a tolerance of 0.02 on the standardised scale, and take
    :math:`\hat R < 1.1`; Welandawe et al. choose the stretch that is checked, where this class
    takes the later half.

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
        tolerance: float = 0.02,
        rhat: float = 1.1,
        share: float = 1.0,
        max_parameters: int = 256,
    ) -> None:
        self.every = check_every(every, "every of CheckStationarity")
        self.max_parameters = check_every(max_parameters, "max_parameters of CheckStationarity")
        self.tolerance = _check_between("tolerance", tolerance, 0, np.inf)
        self.max_rhat = _check_between("rhat", rhat, 1, np.inf)
        self.share = _check_between("share", share, 0, np.nextafter(1, 2))
        self._clear()

    def _clear(self) -> None:
        self.steps: list[int] = []
        self.rhat: list[float] = []
        self.mcse: list[float] = []
        self._record: _Record | None = None
        self._last = 0

    def __call__(self, approx: Any, losses: Any, i: int) -> None:
        """Record the parameters after step `i`; raise StopIteration where they are stationary."""
        if i <= self._last:  # another fit
            self._clear()
        values = flat_parameters(approx)
        if self._record is None:
            self._record = self._begin(values, i)
        record, self._last = self._record, i
        record.trajectory.append(values[record.watched])
        if i >= (_GROWTH * self.steps[-1] if self.steps else record.first_check):
            self._check(approx, record, i)

    def _begin(self, values: np.ndarray, i: int) -> _Record:
        watched = watched_entries(len(values), self.max_parameters)
        first_check = i + (_FIRST_CHECK - 1) * self.every
        return _Record(watched, Trajectory(len(watched), _CAPACITY), first_check)

    def _check(self, approx: Any, record: _Record, i: int) -> None:
        window = record.trajectory.last_half()
        rhat, error = self._of_share(split_rhat(window)), np.nan
        if rhat <= self.max_rhat:
            error = self._of_share(mean_error(window) / flat_scales(approx)[record.watched])
        self.steps.append(i)
        self.rhat.append(rhat)
        self.mcse.append(error)
        if error <= self.tolerance:
            raise StopIteration(
                f"Stationary at {i}: standard error of the averages {error:.2g}, R-hat {rhat:.3f}"
            )

    def _of_share(self, values: np.ndarray) -> float:
        return float(np.quantile(values, self.share, method="inverted_cdf"))


def _check_between(name: str, value: Any, low: float, high: float) -> float:
    """Return a number as a float, if it is in the open interval."""
    if not isinstance(value, int | float | np.number) or isinstance(value, bool):
        raise TypeError(f"{name} of CheckStationarity is {value!r}; write a number")
    if not low < value < high:
        bounds = f"above {low:g}" if np.isinf(high) else f"above {low:g} and at most 1"
        raise ValueError(f"{name} of CheckStationarity is {value!r}; it has to be {bounds}")
    return float(value)
