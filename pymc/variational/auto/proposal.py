# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Proposals of importance sampling: Student-t distributions, with a part of the draws far out along one coordinate.

In many dimensions a draw is far out along all coordinates at once, or along none, so that a tail of one of them is not
seen. Along that coordinate a Cauchy distribution is heavier than any tail whose variance exists.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scipy.special import gammaln

from pymc.variational.auto.normal import Normal

__all__ = ["Proposal"]

#: Part of the draws that is stretched.
STRETCHED = 0.2


@dataclass(frozen=True, eq=False)
class Proposal:
    """A mixture of a Student-t distribution and of normal draws that are stretched along one coordinate.

    Parameters
    ----------
    normal : Normal
        Its mean and scale.
    dof : float
        Degrees of freedom of the Student-t distribution.
    shares : array of float64, shape (size,)
        Probability of each whitened coordinate to be the one that is stretched.
    """

    normal: Normal
    dof: float
    shares: np.ndarray

    def draw(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Draw points, shape (n, size)."""
        n_stretched = round(STRETCHED * n)
        z = rng.normal(size=(n, self.normal.size))
        student, stretched = np.split(z, [n - n_stretched])
        student *= np.sqrt(self.dof / rng.chisquare(self.dof, size=(len(student), 1)))
        along = rng.choice(self.normal.size, size=n_stretched, p=self.shares)
        stretched[np.arange(n_stretched), along] = rng.standard_cauchy(n_stretched)
        return self.normal.points(z)

    def log_density(self, points: np.ndarray) -> np.ndarray:
        """Return the log-density at points in nats."""
        squares, size = self.normal.whitened(points) ** 2, self.normal.size
        squared = squares.sum(axis=1)
        normal = -0.5 * squared - size / 2 * np.log(2 * np.pi)
        with np.errstate(divide="ignore"):
            log_shares = np.log(self.shares)
        # By how much a Cauchy distribution is above the normal one, for each coordinate
        excess = 0.5 * squares - np.log1p(squares) + 0.5 * np.log(2 / np.pi)
        stretched = normal + np.logaddexp.reduce(excess + log_shares, axis=1)
        constant = gammaln((self.dof + size) / 2) - gammaln(self.dof / 2)
        constant -= size / 2 * np.log(self.dof * np.pi)
        student = constant - (self.dof + size) / 2 * np.log1p(squared / self.dof)
        found = np.logaddexp(np.log1p(-STRETCHED) + student, np.log(STRETCHED) + stretched)
        return found - self.normal.log_scale
