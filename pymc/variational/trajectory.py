# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""The parameters of a guide over the steps of a fit, in bounded memory, and what can be said of them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from pymc.variational.opvi import Approximation  # type: ignore[attr-defined]  # the release's

__all__ = [
    "LARGEST_MOVE",
    "Trajectory",
    "Trend",
    "block_means",
    "flat_parameters",
    "flat_scales",
    "mean_error",
    "trend",
    "watched_entries",
    "watched_params",
]

#: The largest change over a stretch of what has converged, in the parameters' units.
LARGEST_MOVE = 0.2

#: Standard errors of a slope by which it is no chance.
SURE = 6.0

#: Means of a stretch to which a line is fitted.
N_BLOCKS = 16


class Trend(NamedTuple):
    """How parameters went over a stretch of a fit.

    Parameters
    ----------
    slope : array of shape (d,)
        How far each went, along a line.
    is_sure : array of bool, shape (d,)
        Whether that is no chance.
    noise : array of shape (d,)
        Standard deviation about the line.
    """

    slope: np.ndarray
    is_sure: np.ndarray
    noise: np.ndarray

    @property
    def moved(self) -> np.ndarray:
        """How far each went, 0 where that may be chance: shape (d,)."""
        return np.where(self.is_sure, np.abs(self.slope), 0.0)


class Trajectory:
    """Means of successive batches of vectors, at most `capacity` of them.

    When they are as many, neighbours are averaged in pairs, and a batch is twice as long from then
    on. So the mean of all rows stays the mean of all vectors, but for the batch not yet full.

    Parameters
    ----------
    size : int
        Length of a vector.
    capacity : int
        An even number of rows.

    Examples
    --------
    >>> from pymc.variational.trajectory import Trajectory
    >>> trajectory = Trajectory(size=1, capacity=4)
    >>> for value in range(8):
    ...     trajectory.append([value])
    >>> trajectory.rows.ravel()
    array([0.5, 2.5, 4.5, 6.5])
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

    def append(self, vector: Any) -> None:
        """Add one vector, of shape (size,)."""
        if self._n_rows == len(self._rows):  # just before it is needed: the last rows are shown
            self._halve()
        self._sum += vector
        self._n_summed += 1
        if self._n_summed == self._batch:
            self._rows[self._n_rows] = self._sum / self._batch
            self._n_rows += 1
            self._sum[:], self._n_summed = 0, 0

    def _halve(self) -> None:
        self._n_rows //= 2
        self._rows[: self._n_rows] = (self._rows[0::2] + self._rows[1::2]) / 2
        self._batch *= 2


def watched_entries(n: int, most: int) -> np.ndarray:
    """Choose which of `n` entries to watch: all, or `most` of them, always the same."""
    if n <= most:
        return np.arange(n)
    return np.sort(np.random.default_rng(0).choice(n, most, replace=False))


def watched_params(approx: Any) -> list[Any]:
    """List the parameters that tell how a fit goes: those that all rows share.

    A row's own only change when it is visited, so that they would look stationary between.

    Raises
    ------
    ValueError
        If there are none.
    """
    is_fitted = isinstance(approx, Approximation)  # not so what only has parameters
    params = approx.dense_params if is_fitted else approx.params
    if not params:
        raise ValueError(
            "All parameters of this fit are of rows of their own, which only change when the row is in "
            "a batch, so that they look stationary in between. Watch the losses: "
            "pm.callbacks.Tracker(loss=lambda approx, losses, i: losses[-1])"
        )
    return list(params)


def flat_parameters(approx: Any) -> np.ndarray:
    """Return the values of the parameters that are watched as one vector of float64."""
    params = watched_params(approx)
    return np.concatenate([np.ravel(p.get_value()) for p in params]).astype("float64")


def flat_scales(approx: Any) -> np.ndarray:
    """Return what an error of 1 means for each entry of `flat_parameters`.

    An error divided by it is, for a location, in standard deviations of the guide, and for a
    parameter of scale relative to the standard deviation. It is 1 for parameters of other guides.
    """
    known = approx.parameter_scales() if isinstance(approx, Approximation) else {}
    values = ((param, param.get_value(borrow=True)) for param in watched_params(approx))
    return np.concatenate([np.ravel(known.get(p, np.ones(np.shape(v)))) for p, v in values])


def block_means(window: np.ndarray, n: int) -> np.ndarray:
    """Average a stretch of shape (m, d) over `n` parts of it, in the order of time; all of it if m is less."""
    if len(window) <= n:
        return window
    starts = np.arange(n) * len(window) // n
    sums = np.add.reduceat(window, starts, axis=0)
    return sums / np.diff(starts, append=len(window))[:, None]


def trend(window: np.ndarray) -> Trend:
    """Fit a line to each parameter over a stretch.

    Parameters
    ----------
    window : array of shape (n, d)
        In the parameters' units.
    """
    looks = block_means(window, N_BLOCKS)
    pairs = looks[: len(looks) // 2 * 2].reshape(-1, 2, looks.shape[1]).mean(axis=1)
    time = np.linspace(-0.5, 0.5, len(pairs))
    slope = time @ pairs / (time @ time)
    left = pairs - pairs.mean(axis=0) - time[:, None] * slope
    se = np.sqrt((left**2).sum(axis=0) / (len(pairs) - 2) / (time @ time))
    beside = looks - looks.mean(axis=0) - np.linspace(-0.5, 0.5, len(looks))[:, None] * slope
    return Trend(slope, np.abs(slope) > SURE * se, beside.std(axis=0))


def mean_error(window: np.ndarray) -> np.ndarray:
    r"""Estimate the standard error of the mean over a stretch of the trajectory.

    Of means over up to 32 parts it is :math:`s \sqrt{(1 + r) / (1 - r) / n}`, where r is the correlation of
    neighbours, without its bias in few values (Kendall 1954, "Note on bias in the estimation of
    autocorrelation").

    Parameters
    ----------
    window : array of shape (n, d)

    Returns
    -------
    array of shape (d,)
        In the units of the parameters; 0 for what does not vary.
    """
    blocks = block_means(window, 2 * N_BLOCKS)
    n, left = len(blocks), blocks - blocks.mean(axis=0)
    squares = (left**2).sum(axis=0)
    r = (left[1:] * left[:-1]).sum(axis=0) / np.where(squares > 0, squares, 1)
    r = np.clip(r + (1 + 3 * r) / n, 0, 0.95)
    return np.sqrt(squares / (n - 1) / n * (1 + r) / (1 - r))
