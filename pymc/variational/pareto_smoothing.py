# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Pareto-smoothed importance weights."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from scipy.special import logsumexp

__all__ = ["Smoothed", "smoothed"]

# Log-ratios that differ by less are equal: no expectation could show it
_EQUAL = 1e-8
# Log-ratios that differ by more have no ratio as a float
_UNDERFLOW = 700

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

    See Vehtari et al. (2024), "Pareto smoothed importance sampling".
    """
    # As PyMC does: importing ArviZ takes longer than importing PyMC's variational modules
    from arviz_stats.base import array_stats

    n_draws = len(log_ratios)
    raw = log_ratios - logsumexp(log_ratios)
    largest = float(np.exp(raw.max()) * n_draws)
    # The tail that ArviZ fits; where it is of one value, or of powers that underflow, nothing can be fitted
    tail = np.sort(log_ratios)[-min(n_draws // 5, int(3 * np.sqrt(n_draws))) :]
    if _EQUAL < np.ptp(tail) < _UNDERFLOW:
        # ArviZ takes log-likelihoods, of which the ratios are the inverse
        with np.errstate(all="ignore"):
            log_weights, khat = array_stats.psislw(-np.maximum(raw, -_UNDERFLOW))
        if np.isfinite(khat):
            return Smoothed(log_weights, float(khat), largest)
    found = Smoothed(raw, np.nan, largest)
    return replace(found, khat=-np.inf if found.ess > n_draws / 2 else np.inf)
