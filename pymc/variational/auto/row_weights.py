# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
r"""Importance weights of draws of the normal, from a subsample of the rows.

The log-density of a draw is estimated as in :mod:`~pymc.variational.posterior.log_weights`: its first-order expansion
about the mean uses all rows, and the remainder a subsample. If the error is too large, as for a rare category that the
subsample may miss, the expansion is of second order: D + 1 gradients of all rows give the curvature :math:`P`, and the
subsample only estimates what is beyond :math:`-\tfrac12 z^\top P z`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pymc.variational.auto.full_data_passes import curvature
from pymc.variational.auto.importance_sampling import LIGHT_TAIL, WeightedDraws, WeightsError
from pymc.variational.auto.log_posterior import LogPosterior, Values
from pymc.variational.auto.normal import Normal
from pymc.variational.pareto_smoothing import smoothed
from pymc.variational.posterior.log_weights import SubsampledLogDensity, random_groups

__all__ = ["weigh_by_rows"]

#: Draws if their weights are about equal, and otherwise.
FEW, MANY = 500, 4000

#: Effective draws with which few draws are enough, and the margin on them otherwise.
ENOUGH, MARGIN = 400, 1.5

#: Rows of the first subsample.
N_ROWS = 20_000

#: Error of log-weights, in nats, that is small enough.
LARGEST_ERROR = 0.1


@dataclass(eq=False)
class _Expansion:
    """The log-density of rows minus the second-order term of its expansion, if that is used.

    Parameters
    ----------
    logp : LogPosterior
    normal : Normal
    second_order : bool
    """

    logp: LogPosterior
    normal: Normal
    second_order: bool

    def values(self, some: Mapping[str, np.ndarray], rows: Values | None) -> np.ndarray:
        """Return the log-density at draws without its second-order term; `rows` None means all."""
        [points] = some.values()
        return self._evaluate(points, rows)[0] - self.of_curvature(points, rows)

    def expand(
        self, point: Sequence[np.ndarray], rows: Values | None
    ) -> tuple[float, list[np.ndarray]]:
        """Return value and gradient at the mean, where the second-order term is 0."""
        value, gradient = self._evaluate(point[0][None], rows)
        return float(value[0]), [gradient[0]]

    def part(self, share: float, rng: np.random.Generator) -> list[Values]:
        """Draw a subsample of the rows, in groups."""
        data = self.logp.data
        assert data is not None
        rows = data.part(round(share * data.n_all), rng)
        groups = random_groups(len(rows[0]), 1.0, rng)
        return [tuple(array[group] for array in rows) for group in groups]

    def of_curvature(self, points: np.ndarray, rows: Values | None) -> np.ndarray:
        if not self.second_order:
            return np.zeros(len(points))
        z = self.normal.whitened(points)
        whole = (
            self.of_all_rows if rows is None else curvature(self.logp.of_rows(rows), self.normal)
        )
        return -0.5 * np.einsum("si,ij,sj->s", z, whole, z)

    @cached_property
    def of_all_rows(self) -> np.ndarray:
        """Curvature of all rows."""
        return curvature(self.logp, self.normal)

    def _evaluate(self, points: np.ndarray, rows: Values | None) -> tuple[np.ndarray, np.ndarray]:
        return self.logp.of_all(points) if rows is None else self.logp.of_rows(rows)(points)


def weigh_by_rows(logp: LogPosterior, normal: Normal, rng: np.random.Generator) -> WeightedDraws:
    """Weight draws of the normal by the log-density of a subsample of the rows.

    Parameters
    ----------
    logp : LogPosterior
        Log-posterior with minibatches.
    normal : Normal
    rng : Generator

    Raises
    ------
    Stopped
    """
    n_draws = max(FEW, normal.n_draws)
    draws = _weighed(logp, normal, n_draws, rng)
    light = draws.weights.khat < LIGHT_TAIL and draws.weights.ess > ENOUGH
    if light or draws.weights.about_equal:
        return draws
    if draws.weights.khat < LIGHT_TAIL:  # more draws, for enough effective ones
        return _weighed(
            logp, normal, min(MANY, int(n_draws * MARGIN * ENOUGH / draws.weights.ess)), rng
        )
    return _weighed(logp, normal, MANY, rng)


def _weighed(
    logp: LogPosterior, normal: Normal, n_draws: int, rng: np.random.Generator
) -> WeightedDraws:
    # The expansion is about the mean, so the draws' mean has to be exact
    noise = normal.noise(max(n_draws, normal.n_draws), rng)
    points, n_rows = normal.points(noise), N_ROWS
    assert logp.data is not None
    most = logp.data.most
    for second_order in (False, True):
        expansion = _Expansion(logp, normal, second_order)
        density = SubsampledLogDensity(
            {"point": points}, (logp.n_all,), expansion.values, expansion.expand, expansion.part
        )
        found = density.estimate(min(n_rows, most), rng)
        if found.se_between < LARGEST_ERROR or n_rows >= most:
            break
    while found.se_between > LARGEST_ERROR and n_rows < most:
        n_rows = 4 * n_rows if 8 * n_rows < most else most
        found = density.estimate(n_rows, rng)
    ratios = found.values + expansion.of_curvature(points, None)
    ratios = ratios + 0.5 * (noise**2).sum(axis=1) + normal.log_scale
    error = WeightsError(found.se_between, f"by {n_rows:,} rows")
    return WeightedDraws(points, np.empty((0, 0)), smoothed(ratios), float(ratios.mean()), error)
