# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
r"""Normal distributions with the operations of natural-gradient steps and importance sampling.

With draws :math:`x = m + L z` of whitened noise :math:`z`, and whitened gradients
:math:`u = L^\top \nabla \log p(x)`, the natural gradient of the bound is
:math:`a = E[u]` for the mean and :math:`P - I` for the precision, where
:math:`P = -E[z u^\top] = -L^\top E[\nabla^2 \log p] L` by Stein's lemma. Both come from a regression of
:math:`u` on :math:`z` (Salimans and Knowles 2013, "Fixed-form variational posterior approximation through stochastic linear
regression"; Khan and Nielsen 2018, "Fast yet simple natural-gradient descent for variational inference").
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np

from scipy.linalg import solve_triangular

from pymc.variational.guides.initial_values import rhos

__all__ = ["Dense", "Normal", "Slope", "positive", "triangular"]

#: In one step the precision along a direction shrinks at most to this part: sds grow at most tenfold.
LEAST_PRECISION = 0.01

#: Draws per unknown of the regression.
PER_NUMBER = 2


def positive(values: np.ndarray) -> np.ndarray:
    """Return positive eigenvalues of a precision: where the density is not concave, the normal keeps its width or widens."""
    return np.where(values < 0, np.minimum(-values, 1), values)


class Slope(NamedTuple):
    """The natural gradient of the bound, whitened."""

    mean: np.ndarray  # (size,): 0 at the optimum
    # Of the target precision in units of the present one: 1 at the optimum
    values: np.ndarray  # (size,): eigenvalues
    vectors: np.ndarray  # (size, size): eigenvectors

    @property
    def of_mean(self) -> float:
        """The largest step of a mean, in standard deviations."""
        return float(np.abs(self.mean).max())

    @property
    def of_sds(self) -> float:
        """The largest relative change of a standard deviation."""
        return float(0.5 * np.abs(self.values - 1).max())

    @property
    def largest(self) -> float:
        return max(self.of_mean, self.of_sds)

    def of_precision(self, precision: np.ndarray) -> Slope:
        """Replace the target precision, whitened."""
        values, vectors = np.linalg.eigh(precision)
        return self._replace(values=values, vectors=vectors)


class Normal(ABC):
    """A normal distribution; subclasses have a form of covariance."""

    mean: np.ndarray

    @property
    @abstractmethod
    def sd(self) -> np.ndarray: ...

    @property
    @abstractmethod
    def log_scale(self) -> float:
        """The logarithm of the determinant of the factor."""

    @property
    @abstractmethod
    def n_fitted(self) -> int:
        """Number of unknowns in the regression for a row of the covariance."""

    @property
    @abstractmethod
    def guide(self) -> Any:
        """The guide of this form, as :func:`pymc.fit` takes it."""

    @property
    @abstractmethod
    def guide_parameters(self) -> dict[str, np.ndarray]:
        """Values of the guide's parameters by name."""

    @abstractmethod
    def around(self, point: np.ndarray, width: float) -> Self:
        """Return a distribution at a point with sds of `width` times 1 + the point's size."""

    @abstractmethod
    def at(self, mean: np.ndarray, scale: float = 1.0) -> Self:
        """Return it at another mean, with sds multiplied by `scale`."""

    @abstractmethod
    def noise(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Draw an even number of whitened draws, in antithetic pairs, with mean 0 and covariance I exactly."""

    @abstractmethod
    def away(self, noise: np.ndarray) -> np.ndarray:
        """Return the displacements from the mean of some noise."""

    @abstractmethod
    def whitened(self, points: np.ndarray) -> np.ndarray:
        """Return the noise of some points."""

    @abstractmethod
    def whitened_gradients(self, gradients: np.ndarray) -> np.ndarray: ...

    @abstractmethod
    def restoring(self, noise: np.ndarray) -> np.ndarray:
        """Return the negative gradient of this distribution's log-density at ``points(noise)``."""

    @abstractmethod
    def regression(self, noise: np.ndarray, u: np.ndarray) -> Any:
        """Return the natural gradient of the bound, from whitened gradients `u` at ``points(noise)``."""

    @abstractmethod
    def moved(self, slope: Any, rate: float) -> Self:
        """Take a step; with rate 1 it ends at the optimum if the posterior is normal."""

    @abstractmethod
    def of_draws(self, points: np.ndarray, weights: np.ndarray) -> Self:
        """Return the normal with the moments of weighted draws; LinAlgError if their covariance is singular."""

    @property
    def size(self) -> int:
        return len(self.mean)

    @property
    def n_draws(self) -> int:
        """The fewest draws that determine the covariance."""
        return max(16, PER_NUMBER * self.n_fitted + 2)

    def points(self, noise: np.ndarray) -> np.ndarray:
        return self.mean + self.away(noise)

    def differences(self, other: Normal) -> tuple[np.ndarray, np.ndarray]:
        """Return the distances of means from another normal's in sds, and of log-sds."""
        return np.abs(self.mean - other.mean) / self.sd, np.abs(np.log(self.sd / other.sd))

    def slope(self, noise: np.ndarray, gradients: np.ndarray) -> Any:
        """Return the natural gradient of the bound, from gradients of the log-density at ``points(noise)``."""
        return self.regression(noise, self.whitened_gradients(gradients))


@dataclass(frozen=True, eq=False)
class Dense(Normal):
    """A normal distribution with any covariance, ``factor @ factor.T``."""

    mean: np.ndarray  # (size,)
    factor: np.ndarray  # (size, size): lower triangular, with a positive diagonal

    guide = "full_rank"

    @classmethod
    def of_size(cls, size: int) -> Self:
        """Return the standard normal distribution."""
        return cls(np.zeros(size), np.eye(size))

    @property
    def sd(self) -> np.ndarray:
        return np.sqrt((self.factor**2).sum(axis=1))

    @property
    def log_scale(self) -> float:
        return float(np.log(np.diag(self.factor)).sum())

    @property
    def n_fitted(self) -> int:
        return self.size

    @property
    def guide_parameters(self) -> dict[str, np.ndarray]:
        factor, diagonal = self.factor.copy(), np.diag_indices(self.size)
        factor[diagonal] = rhos(factor[diagonal])
        return {"mu": self.mean, "L_tril": factor[np.tril_indices(self.size)]}

    def around(self, point: np.ndarray, width: float) -> Dense:
        return Dense(point, np.diag(width * (1 + np.abs(point))))

    def at(self, mean: np.ndarray, scale: float = 1.0) -> Dense:
        return Dense(mean, scale * self.factor)

    def noise(self, n: int, rng: np.random.Generator) -> np.ndarray:
        half = rng.normal(size=((n + 1) // 2, self.size))
        both = np.concatenate([half, -half])
        root = np.linalg.cholesky(both.T @ both / len(both))
        return solve_triangular(root, both.T, lower=True).T

    def away(self, noise: np.ndarray) -> np.ndarray:
        return noise @ self.factor.T

    def whitened(self, points: np.ndarray) -> np.ndarray:
        return solve_triangular(self.factor, (points - self.mean).T, lower=True).T

    def whitened_gradients(self, gradients: np.ndarray) -> np.ndarray:
        return gradients @ self.factor

    def restoring(self, noise: np.ndarray) -> np.ndarray:
        return solve_triangular(self.factor, noise.T, lower=True, trans=1).T

    def regression(self, noise: np.ndarray, u: np.ndarray) -> Slope:
        # The noise has covariance I exactly, so that the coefficients are products
        return _slope_of(u.mean(axis=0), noise.T @ u / len(noise))

    @staticmethod
    def regression_of_sums(squares: np.ndarray, products: np.ndarray) -> Slope:
        """Return the natural gradient, but for its mean, from sums of squares of the noise and of its products with `u`."""
        return _slope_of(np.zeros(len(squares)), np.linalg.solve(squares, products))

    def moved(self, slope: Slope, rate: float) -> Dense:
        precision = np.maximum(1 - rate + rate * positive(slope.values), LEAST_PRECISION)
        step = slope.vectors @ (slope.vectors.T @ slope.mean * rate / precision)
        root = self.factor @ (slope.vectors / np.sqrt(precision))
        return Dense(self.mean + self.factor @ step, triangular(root))

    def of_draws(self, points: np.ndarray, weights: np.ndarray) -> Dense:
        mean = weights @ points
        centred = (points - mean) * np.sqrt(weights)[:, None]
        # By correlations, since the scales of numbers may be decades apart
        scale = np.sqrt((centred**2).sum(axis=0))
        standard = centred / scale
        correlation = standard.T @ standard
        correlation[np.diag_indices_from(correlation)] += 1e-12
        return Dense(mean, scale[:, None] * np.linalg.cholesky(correlation))


def _slope_of(mean: np.ndarray, coefficients: np.ndarray) -> Slope:
    """Return a natural gradient from the coefficients of `u` on the noise, shape (size, size)."""
    values, vectors = np.linalg.eigh(-(coefficients + coefficients.T) / 2)
    return Slope(mean, values, vectors)


def triangular(root: np.ndarray) -> np.ndarray:
    """Return the lower triangular factor of ``root @ root.T``, with a positive diagonal."""
    factor = np.linalg.qr(root.T, mode="r").T
    return factor * np.sign(np.diag(factor))
