# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Pareto-smoothed importance weights."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from scipy.special import boxcox1p, logsumexp, softmax

__all__ = ["Smoothed", "smoothed"]

# Log-ratios that differ by less are equal: no expectation could show it
_EQUAL = 1e-8
# Log-ratios that differ by more have no ratio as a float
_UNDERFLOW = 700
# Draws of a tail to which a distribution can be fitted
_SHORTEST = 5

#: Part of the draws above which their effective number says that weights are about equal, whatever their tail is.
ABOUT_EQUAL = 0.9

#: The largest of weights that are about equal, in units of their mean.
LARGEST = 10.0


@dataclass(frozen=True, eq=False)
class Smoothed:
    """Importance weights whose largest ones are those of a Pareto distribution.

    Parameters
    ----------
    log_weights : array of float64, shape (n_draws,)
        Normalised: their exponentials sum to 1.
    khat : float
        Estimate of the shape of the tail. Where no Pareto distribution fits: -inf if the ratios are about equal,
        and inf if a few draws have all the weight.
    largest : float
        The largest weight before it was smoothed, in units of the mean.
    """

    log_weights: np.ndarray
    khat: float
    largest: float

    @property
    def ess(self) -> float:
        """As many draws of the target the weighted ones are worth."""
        return float(np.exp(-logsumexp(2 * self.log_weights)))

    @property
    def about_equal(self) -> bool:
        """True if the weights are so equal that the shape of their tail does not matter."""
        return self.ess > ABOUT_EQUAL * len(self.log_weights) and self.largest < LARGEST


def smoothed(log_ratios: np.ndarray) -> Smoothed:
    """Return Pareto-smoothed weights from log-ratios up to a constant; -inf is a weight of 0.

    The results are those of ``psislw`` of ArviZ, which takes longer to import than PyMC.

    References
    ----------
    Vehtari et al. (2024), "Pareto smoothed importance sampling"
    """
    n_draws = len(log_ratios)
    raw = log_ratios - logsumexp(log_ratios)
    largest = float(np.exp(raw.max()) * n_draws)
    n_tail = min(n_draws // 5, int(3 * np.sqrt(n_draws)))
    order = np.argsort(log_ratios)[-n_tail - 1 :]
    cutoff, *tail = np.maximum(raw, -_UNDERFLOW)[order] - raw.max()
    # Where the tail is of one value, or of powers that underflow, nothing can be fitted
    if n_tail >= _SHORTEST and _EQUAL < np.ptp(log_ratios[order[1:]]) < _UNDERFLOW:
        with np.errstate(all="ignore"):
            shape, scale = pareto_fit(np.exp(tail) - np.exp(cutoff))
            # Quantiles; the function is log1p if the shape is 0
            excess = -scale * boxcox1p(-(np.arange(n_tail) + 0.5) / n_tail, -shape)
        if np.isfinite(shape):
            log_weights = np.maximum(raw, -_UNDERFLOW) - raw.max()
            log_weights[order[1:]] = np.minimum(np.log(np.exp(cutoff) + excess), 0)
            return Smoothed(log_weights - logsumexp(log_weights), float(shape), largest)
    found = Smoothed(raw, np.nan, largest)
    return replace(found, khat=-np.inf if found.ess > n_draws / 2 else np.inf)


def pareto_fit(excess: np.ndarray) -> tuple[float, float]:
    """Estimate the shape and the scale of a generalised Pareto distribution.

    Parameters
    ----------
    excess : array of float, shape (n,)
        Values above the threshold, in ascending order.

    Returns
    -------
    shape : float
        Shrunk towards a half, by a prior that counts as 10 values. Nan if a quarter of the values are equal.
    scale : float

    References
    ----------
    Zhang and Stephens (2009), "A new and efficient estimation method for the generalized Pareto distribution"
    """
    n = len(excess)
    quartile = excess[int(n / 4 + 0.5) - 1]
    if quartile <= excess[0]:
        return np.nan, np.nan
    m = 30 + int(np.sqrt(n))
    thetas = 1 / excess[-1] + (1 - np.sqrt(m / (np.arange(m) + 0.5))) / (3 * quartile)
    shapes = np.log1p(-thetas[:, None] * excess).mean(axis=1)
    log_likelihoods = n * (np.log(-thetas / shapes) - shapes - 1)
    theta = thetas @ softmax(log_likelihoods)
    shape = np.log1p(-theta * excess).mean()
    return (n * shape + 10 * 0.5) / (n + 10), -shape / theta
