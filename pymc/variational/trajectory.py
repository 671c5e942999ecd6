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
"""The parameters of a guide over the steps of a fit, in bounded memory, and what can be said of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from pymc.variational.opvi import Approximation  # type: ignore[attr-defined]  # the release's

__all__ = [
    "Trajectory",
    "flat_parameters",
    "flat_scales",
    "mean_error",
    "split_rhat",
    "watched_entries",
    "watched_params",
]


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

    def last_half(self) -> np.ndarray:
        """Return the later half of the rows, an even number of them, as a copy."""
        n = self._n_rows // 4 * 2
        return self.rows[self._n_rows - n :].copy()


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


def split_rhat(window: np.ndarray) -> np.ndarray:
    """Compare the halves of a stretch of the trajectory, by R-hat with the halves as chains.

    Parameters
    ----------
    window : array of shape (2n, d)

    Returns
    -------
    array of shape (d,)
        Near 1 where both halves vary about one value; 1 for what does not vary.
    """
    # As PyMC does: importing ArviZ takes longer than importing all of PyMC's variational modules
    from arviz_stats.base import array_stats

    halves = np.stack(np.split(window, 2)).transpose(2, 0, 1)
    return _of_varying(halves, lambda x: array_stats.rhat(x, method="identity"), constant=1.0)


def mean_error(window: np.ndarray) -> np.ndarray:
    """Estimate the Monte Carlo standard error of the mean over a stretch of the trajectory.

    Parameters
    ----------
    window : array of shape (n, d)

    Returns
    -------
    array of shape (d,)
        In the units of the parameters; 0 for what does not vary.
    """
    # For the reason given in split_rhat
    from arviz_stats.base import array_stats

    chains = window.T[:, None, :]
    errors = _of_varying(chains, lambda x: array_stats.mcse(x, method="mean"), constant=0.0)
    return errors * window.std(axis=0)


def _of_varying(chains: np.ndarray, statistic: Any, constant: float) -> np.ndarray:
    """Compute a statistic of each array (chain, draw), standardised, where it is not constant."""
    sd = chains.std(axis=(1, 2), keepdims=True)
    mean = chains.mean(axis=(1, 2), keepdims=True)
    varying = (sd > np.finfo("float64").eps * abs(mean)).ravel()
    result = np.full(len(chains), constant)
    if varying.any():  # standardised, since ArviZ takes a range of less than 1e-15 for none
        result[varying] = statistic(((chains - mean)[varying]) / sd[varying])
    return result
