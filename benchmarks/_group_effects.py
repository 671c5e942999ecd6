# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Rows of groups, and where fits of their effects should end."""

from typing import NamedTuple

import numpy as np

from scipy.optimize import minimize

#: Rows of a batch
BATCH = 1_000


class Groups(NamedTuple):
    """Rows of groups."""

    group: np.ndarray
    y: np.ndarray
    n_groups: int

    @classmethod
    def simulate(cls, n_groups: int, n_rows: np.ndarray, seed: int = 1) -> "Groups":
        rng = np.random.default_rng(seed)
        group = rng.permutation(np.repeat(np.arange(n_groups), n_rows))
        y = 0.5 + rng.normal(0, 0.7, n_groups)[group] + rng.normal(0, 1.5, group.size)
        return cls(group, y, n_groups)


class Optimum(NamedTuple):
    """The optimum of mean-field: normals of the effects, mu, log s and log sigma."""

    mean: np.ndarray
    sd: np.ndarray
    log_s: tuple[float, float]
    #: Of log s, with the effects integrated out
    posterior_log_s: tuple[float, float]


def mean_field_optimum(data: Groups) -> Optimum:
    """Find it by coordinate ascent; the expectations are those of normal and log-normal variables."""
    n = np.bincount(data.group, minlength=data.n_groups).astype(float)
    sums, squares, n_rows = np.bincount(data.group, data.y), (data.y**2).sum(), len(data.y)

    def scale(count: float, expected: float, start: np.ndarray) -> np.ndarray:
        """Return mean and log variance of a log scale with a half-normal prior of sd 2."""

        def loss(x: np.ndarray) -> tuple[float, np.ndarray]:
            m, v = x[0], np.exp(x[1])
            fit = 0.5 * np.exp(-2 * m + 2 * v) * expected
            prior = np.exp(2 * m + 2 * v) / 8
            value = count * m + fit - m + prior - x[1] / 2
            return value, np.array([count - 2 * fit - 1 + 2 * prior, v * 2 * (fit + prior) - 0.5])

        return minimize(loss, start, jac=True, method="BFGS", options={"gtol": 1e-9}).x

    mu, of_s, of_sigma = 0.0, np.array([0.0, -5.0]), np.array([0.0, -5.0])
    while True:
        old = np.concatenate([[mu], of_s, of_sigma])
        prior, error = (np.exp(-2 * m + 2 * np.exp(v)) for m, v in (of_s, of_sigma))
        variance = 1 / (prior + n * error)
        mean = error * (sums - n * mu) * variance
        precision = n_rows * error + 0.01
        mu = error * (sums - n * mean).sum() / precision
        moments = (n * (mean**2 + variance)).sum() + 2 * mu * (n * mean).sum()
        residual = squares - 2 * mu * sums.sum() - 2 * (mean * sums).sum()
        residual += n_rows * (mu**2 + 1 / precision) + moments
        of_s = scale(data.n_groups, (mean**2 + variance).sum(), of_s)
        of_sigma = scale(n_rows, residual, of_sigma)
        if abs(np.concatenate([[mu], of_s, of_sigma]) - old).max() < 1e-9:
            break
    log_s = float(of_s[0]), float(np.exp(of_s[1] / 2))
    return Optimum(mean, np.sqrt(variance), log_s, _posterior_log_s(n, sums, squares))


def _posterior_log_s(n: np.ndarray, sums: np.ndarray, squares: float) -> tuple[float, float]:
    """Return mode and sd of log s with the effects integrated out, by the curvature at the mode."""
    means, n_rows = sums / n, n.sum()
    within = squares - (n * means**2).sum()

    def loss(x: np.ndarray) -> float:
        mu, s2, v = x[0], np.exp(2 * x[1]), np.exp(2 * x[2])
        total = v + n * s2
        fit = 0.5 * np.log(total).sum() + (n_rows - len(n)) * x[2] + within / v / 2
        fit += 0.5 * (n * (means - mu) ** 2 / total).sum()
        return fit + mu**2 / 200 - x[1] + s2 / 8 - x[2] + v / 8

    options = {"xatol": 1e-9, "fatol": 1e-9, "maxiter": 10_000}
    x = minimize(loss, np.zeros(3), method="Nelder-Mead", options=options).x
    h, unit = 1e-3, np.eye(3)
    curvature = np.array(
        [
            [
                sum(
                    a * b * loss(x + h * (a * unit[i] + b * unit[j]))
                    for a in (1, -1)
                    for b in (1, -1)
                )
                for j in range(3)
            ]
            for i in range(3)
        ]
    ) / (4 * h**2)
    return float(x[1]), float(np.sqrt(np.linalg.inv(curvature)[1, 1]))
