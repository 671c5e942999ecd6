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
r"""A normal distribution with any covariance, and what a step of natural gradients needs of it.

With draws :math:`x = m + L z` of whitened noise :math:`z`, and whitened gradients
:math:`u = L^\top \nabla \log p(x)`, the natural gradient of the bound is
:math:`a = E[u]` for the mean and :math:`P - I` for the precision, where
:math:`P = -E[z u^\top] = -L^\top E[\nabla^2 \log p] L` by Stein's lemma. Both come from a regression of
:math:`u` on :math:`z` (Salimans and Knowles 2013, "Fixed-form variational posterior approximation through stochastic linear
regression"; Khan and Nielsen 2018, "Fast yet simple natural-gradient descent for variational inference").
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np

from scipy.linalg import solve_triangular
from scipy.special import gammaln

__all__ = ["Dense", "Slope"]

#: The precision along a direction falls at most to this part of what it was in a step: sds grow tenfold.
LEAST_PRECISION = 0.01

#: Draws for each number of a point, with which the regression has two equations for an unknown.
PER_NUMBER = 2


class Slope(NamedTuple):
    """The natural gradient of the bound, whitened.

    Parameters
    ----------
    mean : array, shape (size,)
        0 at the optimum.
    values : array, shape (size,)
        Eigenvalues of the precision to go to, in units of the present one: 1 at the optimum.
    vectors : array, shape (size, size)
    """

    mean: np.ndarray
    values: np.ndarray
    vectors: np.ndarray

    @property
    def of_mean(self) -> float:
        """By how many standard deviations the mean is to move."""
        return float(np.abs(self.mean).max())

    @property
    def of_sds(self) -> float:
        """By which part of them the standard deviations are to change."""
        return float(0.5 * np.abs(self.values - 1).max())

    @property
    def largest(self) -> float:
        return max(self.of_mean, self.of_sds)


@dataclass(frozen=True, eq=False)
class Dense:
    """A normal distribution with any covariance.

    Parameters
    ----------
    mean : array of float64, shape (size,)
    factor : array of float64, shape (size, size)
        Lower triangular, with a positive diagonal: the covariance is ``factor @ factor.T``.
    """

    mean: np.ndarray
    factor: np.ndarray

    name = "full-rank normal"

    @classmethod
    def around(cls, point: np.ndarray, width: float) -> Self:
        """Start at a point, and so narrow that any density is smooth there, whatever its scales are."""
        return cls(point, np.diag(width * (1 + np.abs(point))))

    @property
    def size(self) -> int:
        return len(self.mean)

    @property
    def sd(self) -> np.ndarray:
        return np.sqrt((self.factor**2).sum(axis=1))

    @property
    def log_scale(self) -> float:
        """The logarithm of the determinant of the factor."""
        return float(np.log(np.diag(self.factor)).sum())

    @property
    def n_draws(self) -> int:
        """The fewest draws from which its covariance can be fitted."""
        return max(16, PER_NUMBER * self.size + 2)

    def noise(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Draw an even number of whitened draws, in pairs of opposite signs, with mean 0 and covariance I."""
        half = rng.normal(size=((n + 1) // 2, self.size))
        both = np.concatenate([half, -half])
        root = np.linalg.cholesky(both.T @ both / len(both))
        return solve_triangular(root, both.T, lower=True).T

    def points(self, noise: np.ndarray) -> np.ndarray:
        return self.mean + noise @ self.factor.T

    def whitened(self, points: np.ndarray) -> np.ndarray:
        """Return the noise that gives some points."""
        return solve_triangular(self.factor, (points - self.mean).T, lower=True).T

    def scaled(self, by: float) -> Dense:
        return Dense(self.mean, by * self.factor)

    def slope(self, noise: np.ndarray, gradients: np.ndarray) -> Slope:
        """Return the natural gradient of the bound, from gradients of the log-density at ``points(noise)``."""
        u = gradients @ self.factor
        product = noise.T @ u / len(noise)
        values, vectors = np.linalg.eigh(-(product + product.T) / 2)
        return Slope(u.mean(axis=0), values, vectors)

    def moved(self, slope: Slope, rate: float) -> Dense:
        """Take a step; at a rate of 1 a normal posterior is exact after it.

        Where the density is not concave on average, the normal stays as wide as it is or gets wider.
        """
        values = np.where(slope.values < 0, np.minimum(-slope.values, 1), slope.values)
        precision = np.maximum(1 - rate + rate * values, LEAST_PRECISION)
        step = slope.vectors @ (slope.vectors.T @ slope.mean * rate / precision)
        root = self.factor @ (slope.vectors / np.sqrt(precision))
        return Dense(self.mean + self.factor @ step, triangular(root))

    def student(self, n: int, dof: float, rng: np.random.Generator) -> np.ndarray:
        """Draw from the Student-t distribution with this mean and scale."""
        z = rng.normal(size=(n, self.size))
        return self.points(z * np.sqrt(dof / rng.chisquare(dof, size=(n, 1))))

    def student_density(self, points: np.ndarray, dof: float) -> np.ndarray:
        """Return the log-density of the Student-t distribution in nats."""
        d, squared = self.size, (self.whitened(points) ** 2).sum(axis=1)
        constant = gammaln((dof + d) / 2) - gammaln(dof / 2) - d / 2 * np.log(dof * np.pi)
        return constant - self.log_scale - (dof + d) / 2 * np.log1p(squared / dof)

    @classmethod
    def of_draws(cls, points: np.ndarray, weights: np.ndarray) -> Dense:
        """Take mean and covariance of weighted draws.

        Raises
        ------
        LinAlgError
            If the covariance is singular.
        """
        mean = weights @ points
        centred = (points - mean) * np.sqrt(weights)[:, None]
        scale = np.sqrt((centred**2).sum(axis=0))
        return cls(mean, scale[:, None] * np.linalg.cholesky(_correlation(centred / scale)))


def _correlation(standard: np.ndarray) -> np.ndarray:
    found = standard.T @ standard
    found[np.diag_indices_from(found)] += 1e-12
    return found


def triangular(root: np.ndarray) -> np.ndarray:
    """Return the lower triangular factor of ``root @ root.T``, with a positive diagonal."""
    factor = np.linalg.qr(root.T, mode="r").T
    return factor * np.sign(np.diag(factor))
