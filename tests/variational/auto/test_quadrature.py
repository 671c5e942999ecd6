# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Quadrature along lines, against integrals that are known."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from scipy.integrate import quad

from pymc.variational.auto.quadrature import (
    LineRule,
    finite_slopes,
    gauss_rule,
    grid_rule,
    log_of_directions,
    random_frames,
    wide_rule,
)

MAKERS: list[Callable[[int], LineRule]] = [
    lambda size: gauss_rule(7, size),
    lambda size: grid_rule(7, size),
    wide_rule,
]


def slope(r: np.ndarray) -> np.ndarray:
    """Return that of a logistic likelihood and a normal prior."""
    return -1.2 * r - 1.3 + 2 / (1 + np.exp(0.9 * r))


def moment(power: int) -> float:
    def density(r: float) -> float:
        return float(np.exp(-0.6 * r**2 - 1.3 * r + 2 * r - 2 / 0.9 * np.log(np.exp(0.9 * r) + 1)))

    return quad(lambda r: r**power * density(r), -12, 12)[0] / density(0.0)


@pytest.mark.parametrize("size", [1, 2, 3, 8])
@pytest.mark.parametrize("make", MAKERS)
def test_a_normal_distribution_is_exact(make: Callable[[int], LineRule], size: int) -> None:
    rule = make(size)
    found = rule.log_integral(-rule.nodes) + log_of_directions(size)
    np.testing.assert_allclose(found, size / 2 * np.log(2 * np.pi), rtol=1e-10)


@pytest.mark.parametrize(("n_nodes", "atol"), [(7, 2e-3), (15, 5e-5)])
def test_a_gauss_rule(n_nodes: int, atol: float) -> None:
    """Of a density that is not normal it is right, and the more nodes, the more so."""
    rule = gauss_rule(n_nodes, 1)
    terms = np.exp(rule.log_terms(slope(rule.nodes)))
    found = [terms @ rule.places**k for k in range(3)]
    np.testing.assert_allclose(found, [moment(k) for k in range(3)], atol=atol)


def test_a_wide_rule() -> None:
    """It sees a tail that the Gauss rule does not, and ends where slopes do."""
    rule = wide_rule(1)
    slopes = -4 * rule.nodes / (3 + rule.nodes**2)  # of Student-t with 3 degrees of freedom
    terms = np.exp(rule.log_terms(slopes))
    np.testing.assert_allclose(terms.sum(), np.pi * np.sqrt(3) / 2, rtol=0.01)
    slopes = np.where(rule.nodes > 3, np.nan, slopes)
    ended = np.exp(rule.log_terms(finite_slopes(slopes, rule.nodes)))
    inside = rule.nodes < 2.5
    np.testing.assert_allclose(ended[inside], terms[inside], rtol=1e-6)
    assert ended[rule.nodes > 3].max() == 0


def test_draws() -> None:
    """Mean and mean square within 4.5 standard errors: 1 in 70,000."""
    rule, n = grid_rule(11, 1), 100_000
    found = rule.draw(np.broadcast_to(slope(rule.nodes), (n, 11)), np.random.default_rng(1))
    mass, mean, square, fourth = (moment(k) for k in (0, 1, 2, 4))
    mean, square, fourth = mean / mass, square / mass, fourth / mass
    assert abs(found.mean() - mean) < 4.5 * np.sqrt((square - mean**2) / n)
    # A draw is uniform around its place
    spread = (rule.places[1] - rule.places[0]) ** 2 / 12
    assert abs((found**2).mean() - spread - square) < 4.5 * np.sqrt((fourth - square**2) / n)


@pytest.mark.parametrize("size", [1, 2, 5])
def test_frames_are_orthonormal(size: int) -> None:
    frames = random_frames((3, 4), size, np.random.default_rng(1))
    right = np.broadcast_to(np.eye(size), frames.shape)
    np.testing.assert_allclose(frames @ frames.swapaxes(-1, -2), right, atol=1e-12)
