# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Early stopping: a callback that ends a fit when its parameters are stationary."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pytensor.compile.sharedvalue import SharedVariable

from pymc.argument_checks import check_int, check_number
from pymc.variational.averaging import TailAverage
from pymc.variational.convergence import LARGEST_MOVE, mean_error, trend, watched_entries
from pymc.variational.engine.callback_schedule import CallbackSchedule
from pymc.variational.opvi import Approximation  # type: ignore[attr-defined]  # the release's
from pymc.variational.report import Verdict

if TYPE_CHECKING:
    from pymc.variational.approximation import GuideApproximation

__all__ = [
    "CheckStationarity",
    "Trajectory",
    "check_until",
    "flat_parameters",
    "flat_scales",
    "shared_params",
]

#: Records of the parameters at the first check.
FIRST_CHECK = 100
#: Rows of a trajectory: each check has 100 at least.
CAPACITY = 400
#: Each check comes at this multiple of the steps of the one before.
GROWTH = 1.2
#: After a stretch in which parameters moved, the next is checked at this multiple: it is the later third.
RESTART_GROWTH = 1.5
#: Standard deviations between single steps and their average that are a sign of bias.
LARGEST_SPREAD = 10.0


class Trajectory:
    """Means of successive batches of vectors of length `size`, at most `capacity` of them.

    When it is full, neighbours are averaged in pairs, and batches are twice as long from then on. So the
    mean of all rows stays the mean of all vectors, except for an unfinished batch.
    """

    def __init__(self, size: int, capacity: int) -> None:
        self._rows = np.empty((capacity, size))
        self._n_rows = 0
        self._sum = np.zeros(size)
        self._n_summed = 0
        self._batch = 1

    @property
    def rows(self) -> np.ndarray:
        """Means of batches, of shape (n, size), in the order of time."""
        return self._rows[: self._n_rows]

    def append(self, vector: np.ndarray | Sequence[float]) -> None:
        """Add one vector, of shape (size,)."""
        # Just before a row is needed, so that a full trajectory can be read
        if self._n_rows == len(self._rows):
            self._n_rows //= 2
            self._rows[: self._n_rows] = (self._rows[0::2] + self._rows[1::2]) / 2
            self._batch *= 2
        self._sum += vector
        self._n_summed += 1
        if self._n_summed == self._batch:
            self._rows[self._n_rows] = self._sum / self._batch
            self._n_rows += 1
            self._sum[:], self._n_summed = 0, 0


class CheckStationarity(CallbackSchedule):
    r"""Stop when the parameters only vary about averages that are known well enough.

    Stochastic gradients keep the parameters moving however long a fit takes. This callback records them, and
    checks two things over a stretch, the later third of the steps at least: that no parameter moved along a
    line, and that the standard error of its average (the Monte Carlo standard error, MCSE, which counts
    autocorrelation) is small. The formulas and units are those of the verdict of a fit. If a parameter
    moved, even by little, another stretch begins. The first stretch is a burn-in, and never the last.

    The last parameters vary about the averages as all others do: ``pm.fit(until="stationary")`` uses this
    check, and sets the parameters to their averages over the stretch.

    Parameters
    ----------
    every : int
        Steps between two records of the parameters.
    tolerance : float
        Largest MCSE, and ten times the largest move. It is in standard deviations of the guide for the
        location of a Gaussian guide, and relative for its standard deviations, so that it does not depend
        on the units of variables; for other guides it is in the units of their parameters.
    share : float
        Share of the parameters that have to meet both, in (0, 1].
    max_parameters : int
        Largest number of parameters that are watched. Of more, the same random ones are taken.

    Attributes
    ----------
    largest_move : float
        Largest move, in the units of `tolerance`.
    steps : list of int
        Steps of the checks.
    moved, mcse : list of float
        At each check, for the worst of the parameters or their `share` quantile, in the units of
        `tolerance`: the move over the stretch, 0 if it may be by chance, and the MCSE.
    stretch : int
        The step after which the current stretch began.
    stopped : str or None
        The message with which it stopped the fit.

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
    millions. :math:`\hat R` of the halves, which Dhaka et al. use, is no part of it: it compares a
    move with the noise of the steps, which is nearly one move where a rate is small.

    At a constant rate the averages have a bias in proportion to it where the gradient is curved, which the
    MCSE does not include. A fit warns if single steps are 10 standard deviations off.

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
    >>> stop.steps  # too few steps for a check
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
        """Begin anew, with an average of the parameters that begins with each stretch."""
        self.steps: list[int] = []
        self.moved: list[float] = []
        self.mcse: list[float] = []
        self.stopped: str | None = None
        self._average = average
        self._trajectory: Trajectory | None = None
        self._watched = np.arange(0)
        self._start = self._last = self.stretch = 0
        self._next_check = self._spread = 0.0

    def __call__(self, approx: GuideApproximation, losses: np.ndarray | None, i: int) -> None:
        """Record the parameters after step `i`; raise StopIteration if they are stationary."""
        if i <= self._last or self.stopped is not None:  # another fit, or one that goes on
            self.begin(self._average)
        values = flat_parameters(approx)
        if self._trajectory is None:
            self._start = i
            self._begin_stretch(len(values), i, self.every * (FIRST_CHECK - 1))
        assert self._trajectory is not None
        self._last = i
        self._trajectory.append(values[self._watched])
        if i - self._start >= self._next_check:
            self._check(flat_scales(approx), values, self._trajectory, i)

    def _begin_stretch(self, size: int, i: int, next_check: float) -> None:
        self.stretch, self._next_check = i, next_check
        self._watched = watched_entries(size, self.max_parameters)
        self._trajectory = Trajectory(len(self._watched), CAPACITY)
        if self._average is not None:
            self._average.begin(0)

    def _check(
        self, scales: np.ndarray, values: np.ndarray, trajectory: Trajectory, i: int
    ) -> None:
        n_steps, units = i - self._start, scales[self._watched]
        window = trajectory.rows / units
        moved, error = self._of_share(trend(window).moved), self._of_share(mean_error(window))
        self.steps.append(i)
        self.moved.append(moved)
        self.mcse.append(error)
        if moved > self.largest_move or self.stretch == self._start:
            self._begin_stretch(len(scales), i, RESTART_GROWTH * n_steps)
        elif error > self.tolerance:
            self._next_check = GROWTH * n_steps
        else:
            self._spread = self._of_share(abs(values[self._watched] / units - window.mean(axis=0)))
            self.stopped = f"Stationary at {i}: standard error of the averages {error:.2g}"
            raise StopIteration(self.stopped)

    def verdict(self) -> Verdict:
        """Return whether a fit until stationarity has converged."""
        advice = (
            "Take more steps n, a larger tolerance, or obj_optimizer='tuned' in the place of until"
        )
        if self.stopped is not None and self._spread <= LARGEST_SPREAD:
            return Verdict(None, self.stopped)
        if self.stopped is not None:
            reason = (
                f"{self.stopped}, but the last step's values are {self._spread:.2g} sd from them, so that a "
                "curved gradient biases them too"
            )
            advice = "Take a smaller learning rate, such as a tenth, or obj_optimizer='tuned' in the place of until"
        elif not self.steps:
            reason = f"it has {FIRST_CHECK * self.every:,} steps at least to become stationary"
        elif self.moved[-1] > self.largest_move:
            reason = f"at step {self.steps[-1]} a parameter still moved by {self.moved[-1]:.2g} of its sd"
        else:
            reason = (
                f"at step {self.steps[-1]} the average of a parameter was known to {self.mcse[-1]:.2g} of its "
                f"sd, and not to tolerance={self.tolerance:g}"
            )
        return Verdict(None, reason, advice, converged=False)

    def _of_share(self, values: np.ndarray) -> float:
        return float(np.quantile(values, self.share, method="inverted_cdf"))


def check_until(until: object, average: float | None) -> CheckStationarity | None:
    """Return the check that the argument `until` of a fit stands for.

    Raises
    ------
    TypeError, ValueError
        If it is neither "stationary" nor a check, or `average` is given too.
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
        f"until={until!r} of a fit must be 'stationary', to end before n steps, or "
        "pm.callbacks.CheckStationarity(tolerance=0.05) for another tolerance"
    )


def shared_params(approx: Any) -> list[SharedVariable]:
    """Return the parameters that all rows share.

    The parameters of a row only change when it is visited, so that they would look stationary in between.

    Raises
    ------
    ValueError
        If there are none.
    """
    # Callbacks may be called with any object that has parameters
    params = approx.dense_params if isinstance(approx, Approximation) else approx.params
    if not params:
        raise ValueError(
            "All parameters of this fit are parameters of rows, which only change when the row is in a "
            "batch, so that they look stationary in between. Watch the losses: "
            "pm.callbacks.Tracker(loss=lambda approx, losses, i: losses[-1])"
        )
    return list(params)


def flat_parameters(approx: Any) -> np.ndarray:
    """Return the values of the shared parameters as one vector of float64."""
    params = shared_params(approx)
    return np.concatenate([np.ravel(p.get_value()) for p in params]).astype("float64")


def flat_scales(approx: Any) -> np.ndarray:
    """Return the natural scale of each entry of `flat_parameters`.

    An error divided by it is in standard deviations of the guide for a location, and relative to the
    standard deviation for a parameter of scale. It is 1 for parameters of other guides.
    """
    known = approx.parameter_scales() if isinstance(approx, Approximation) else {}
    values = ((param, param.get_value(borrow=True)) for param in shared_params(approx))
    return np.concatenate([np.ravel(known.get(p, np.ones(np.shape(v)))) for p, v in values])
