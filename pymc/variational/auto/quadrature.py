# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
r"""Quadrature along lines through the centre of a distribution, from gradients alone.

An integral over :math:`d` numbers is a mean over directions :math:`v` of integrals along lines,

.. math::

    \int e^{f(z)} dz = \frac{\pi^{d/2}}{\Gamma(d/2)} \; E_v \int |r|^{d-1} e^{f(rv)} dr,

and along a line :math:`f` is the integral of its slope. A polynomial through the slopes at the nodes has that
integral, so that no values are needed. In one dimension this is adaptive Gauss-Hermite
quadrature (Liu and Pierce 1994); in more it is a spherical-radial rule (Genz and Monahan 1999, "A stochastic algorithm for
high-dimensional integrals over unbounded regions with Gaussian weight").
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from numpy.polynomial import legendre
from scipy.special import gammaln, logsumexp

__all__ = [
    "LineRule",
    "finite_slopes",
    "gauss_rule",
    "grid_rule",
    "log_of_directions",
    "random_frames",
    "wide_rule",
]

#: Reach of a grid beyond the typical radius, and its spacing, in sds; the spacing widens the sds of draws by 0.4 %.
REACH, SPACING = 6.0, 0.3

#: Reach of a wide rule, the scale within which nodes are dense, and its number of nodes on one side.
WIDE_REACH, WIDE_SCALE, N_WIDE = 50.0, 2.0, 50

#: Steepest slope: one that is steeper, or not finite, ends the density.
STEEPEST = 1e8


@dataclass(frozen=True, eq=False)
class LineRule:
    r"""Integrate :math:`|r|^{d-1} e^{f(r)}`, :math:`f(0) = 0`, from slopes of f."""

    # Points are in sds of a normal distribution close by
    nodes: np.ndarray  # (n_nodes,): where slopes are computed; 0 is in the middle
    places: np.ndarray  # (n_places,): where f is known from the slopes
    log_weights: np.ndarray  # (n_places,)
    rise: np.ndarray  # (n_places, n_nodes): integrates slopes minus those of the normal, from 0

    def log_terms(self, slopes: np.ndarray) -> np.ndarray:
        """Return the logarithms of the terms whose sum is the integral, shape (..., n_places)."""
        f = (slopes + self.nodes) @ self.rise.T
        return f + (self.log_weights - 0.5 * self.places**2)

    def log_integral(self, slopes: np.ndarray) -> np.ndarray:
        return logsumexp(self.log_terms(slopes), axis=-1)

    def draw(self, slopes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Draw from the density, constant in a cell around each of the equidistant places: shape (...)."""
        terms = self.log_terms(slopes)
        terms -= terms.max(axis=-1, keepdims=True)
        below = np.cumsum(np.exp(terms, out=terms), axis=-1)
        level = rng.random(below.shape[:-1]) * below[..., -1]
        cell = (below[..., :-1] < level[..., None]).sum(axis=-1)
        width = self.places[1] - self.places[0]
        return self.places[cell] + width * (rng.random(cell.shape) - 0.5)


def gauss_rule(n_nodes: int, size: int) -> LineRule:
    """Return the Gauss rule of a normal distribution, exact for polynomials times its density.

    `n_nodes` is odd, and `size` is the dimension of the integral, d.
    """
    nodes, log_weights = _gauss_nodes(n_nodes, size)
    return LineRule(nodes, nodes, log_weights, _polynomial_rise(nodes, nodes))


def grid_rule(n_nodes: int, size: int) -> LineRule:
    """Return a rule with the nodes of the Gauss rule and places on a grid, for draws."""
    nodes, _ = _gauss_nodes(n_nodes, size)
    n_side = int(np.ceil((np.sqrt(size - 1) + REACH) / SPACING))
    places = SPACING * np.arange(-n_side, n_side + 1)
    # Beyond the last node, slopes keep their distance from those of the normal distribution
    inside = np.clip(places, nodes[0], nodes[-1])
    rise = _polynomial_rise(nodes, inside)
    rise[:, 0] += np.minimum(places - nodes[0], 0)
    rise[:, -1] += np.maximum(places - nodes[-1], 0)
    return LineRule(nodes, places, _scaled(_log_volume(places, size), places, size), rise)


def wide_rule(size: int) -> LineRule:
    """Return a rule that reaches far out, to see tails and other modes."""
    t = np.linspace(-1, 1, 2 * N_WIDE + 1) * np.arcsinh(WIDE_REACH / WIDE_SCALE)
    nodes = WIDE_SCALE * np.sinh(t)
    # Trapezoids from the middle outwards: a slope that is not finite does no harm further in
    steps = np.zeros((len(t) - 1, len(t)))
    at = np.arange(len(t) - 1)
    steps[at, at] = steps[at, at + 1] = np.diff(nodes) / 2
    rise = np.vstack([np.zeros(len(t)), np.cumsum(steps, axis=0)])
    log_weights = _log_volume(nodes, size) + np.log(np.cosh(t))
    return LineRule(nodes, nodes, _scaled(log_weights, nodes, size), rise - rise[N_WIDE])


def log_of_directions(size: int) -> float:
    """Return the logarithm of the factor on the mean over directions."""
    return float(size / 2 * np.log(np.pi) - gammaln(size / 2))


def random_frames(shape: tuple[int, ...], size: int, rng: np.random.Generator) -> np.ndarray:
    """Draw matrices with orthonormal rows, shape (..., size, size)."""
    if size == 1:
        return np.ones((*shape, 1, 1))
    found = rng.normal(size=(*shape, size, size))
    for k in range(size):
        line, before = found[..., k, :], found[..., :k, :]
        for _ in range(2):  # the second pass removes rounding errors
            line = line - np.einsum(
                "...kb,...k->...b", before, np.einsum("...kb,...b->...k", before, line)
            )
        found[..., k, :] = line / np.linalg.norm(line, axis=-1, keepdims=True)
    return found


def _gauss_nodes(n_nodes: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return nodes and log-weights from eigenvalues (Golub and Welsch 1969)."""
    k = np.arange(1, n_nodes)
    off = np.sqrt(k + (size - 1) * (k % 2))
    nodes, vectors = np.linalg.eigh(np.diag(off, 1) + np.diag(off, -1))
    nodes = (nodes - nodes[::-1]) / 2
    log_mass = size / 2 * np.log(2) + gammaln(size / 2)
    return nodes, 2 * np.log(np.abs(vectors[0])) + log_mass + 0.5 * nodes**2


def _polynomial_rise(nodes: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Return the matrix that integrates the polynomial through values at nodes, from 0 to places."""
    n, last = len(nodes), nodes[-1]
    coefficients = np.linalg.inv(legendre.legvander(nodes / last, n - 1))
    integrals = legendre.legint(coefficients, lbnd=0, axis=0)
    return last * legendre.legvander(places / last, n) @ integrals


def _log_volume(places: np.ndarray, size: int) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return (size - 1) * np.log(np.abs(places)) if size > 1 else np.zeros(len(places))


def _scaled(log_weights: np.ndarray, places: np.ndarray, size: int) -> np.ndarray:
    """Scale weights so that they integrate the standard normal density exactly."""
    log_mass = size / 2 * np.log(2) + gammaln(size / 2)
    return log_weights + log_mass - logsumexp(log_weights - 0.5 * places**2)


def finite_slopes(slopes: np.ndarray, nodes: np.ndarray) -> np.ndarray:
    """Replace slopes that are not finite, shape (..., n_nodes), by ones that end the density."""
    ends = np.where(nodes == 0, 0.0, -np.sign(nodes) * STEEPEST)
    return np.clip(np.where(np.isnan(slopes), ends, slopes), -STEEPEST, STEEPEST)
