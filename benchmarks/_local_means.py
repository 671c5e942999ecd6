# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Rows with a latent mean each: data, and the mean-field posterior that a fit should end at.

Only NumPy, so that each peer has the same rows.
"""

from dataclasses import dataclass

import numpy as np

LEARNING_RATE = 1e-3
#: For the accuracy, after what was timed: rates, and how often all rows are gone through with each.
EPOCHS = [(0.3, 60), (0.03, 60), (0.01, 60), (1e-3, 15), (1e-4, 5)]
N_EPOCHS = sum(n for _, n in EPOCHS)


@dataclass(frozen=True)
class Ended:
    """Where a fit ended: means and standard deviations of the mean of all rows, and of each row's.

    Parameters
    ----------
    mu, mu_sd : float
    z, z_sd : array of float, shape (n_rows,)
    """

    mu: float
    mu_sd: float
    z: np.ndarray
    z_sd: np.ndarray

    def errors(self, right: "Ended") -> dict[str, float]:
        """Compare with what is right: errors of means in sds, and ratios of sds.

        Of the rows, the root of the mean square of their errors, and the 1st and 99th percentiles of
        the ratios.
        """
        low, high = np.percentile(self.z_sd / right.z_sd, [1, 99])
        return {
            "mu_error": abs(self.mu - right.mu) / right.mu_sd,
            "mu_sd": self.mu_sd / right.mu_sd,
            "z_error": float(np.sqrt(np.mean(((self.z - right.z) / right.z_sd) ** 2))),
            "z_sd_low": float(low),
            "z_sd_high": float(high),
        }


@dataclass(frozen=True)
class LocalMeans:
    """``mu ~ N(0, 1); z[i] ~ N(mu, 1); x[i] ~ N(z[i], 1)``.

    Parameters
    ----------
    x : array of float, shape (n_rows,)
    batch_size : int
    """

    x: np.ndarray
    batch_size: int

    @classmethod
    def simulate(cls, n_rows: int, batch_size: int, dtype: str) -> "LocalMeans":
        x = np.random.default_rng(1).normal(1, np.sqrt(2), size=n_rows)
        return cls(x.astype(dtype), batch_size)

    @property
    def steps_per_epoch(self) -> int:
        return -(-len(self.x) // self.batch_size)

    def reference(self) -> Ended:
        """Return the best mean-field Gaussian: its means are the posterior's.

        Its precisions are those of each variable given the others: 1 + N of mu, and 2 of a row.
        """
        x = self.x.astype("float64")
        mu = x.sum() / (len(x) + 2)
        sds = np.full(len(x), np.sqrt(0.5))
        return Ended(float(mu), float(1 / np.sqrt(len(x) + 1)), (mu + x) / 2, sds)
