# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
r"""Fits of many rows: natural-gradient steps of one pass over all of them each, and importance weights from a subsample.

A pass computes, for each block of rows, the gradient at the mean :math:`m` and at an antithetic pair of draws
:math:`m \pm L z_b`. The gradient of all rows at the mean is exact; the differences estimate the rest of the gradient's
expectation, and the curvature. It is a control variate (Johnson and Zhang 2013, "Accelerating stochastic gradient
descent using predictive variance reduction"): close to the optimum the differences are small, so that one pair of draws per
block is enough, and a pass costs three gradients of each row.

For weights the log-density of a draw is estimated as in :mod:`~pymc.variational.posterior.log_weights`: its first-order
expansion about the mean uses all rows, and the remainder a subsample. If the error is too large, as for a rare category
that the subsample may miss, the expansion is of second order: D + 1 gradients of all rows give the curvature :math:`P`, and
the subsample only estimates what is beyond :math:`-\tfrac12 z^\top P z`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from pymc.variational.auto.importance_sampling import LIGHT_TAIL, WeightedDraws, WeightsError
from pymc.variational.auto.log_posterior import (
    NUMBERS_AT_ONCE,
    Budget,
    LoadedRows,
    LogPosterior,
    RowData,
    Sums,
    Values,
)
from pymc.variational.auto.modes import Modes
from pymc.variational.auto.natural_gradient import CONVERGED, Climb
from pymc.variational.auto.normal import Dense, Normal, Slope
from pymc.variational.pareto_smoothing import smoothed
from pymc.variational.posterior.log_weights import SubsampledLogDensity, random_groups

__all__ = ["Passes", "first_pass", "next_pass", "saved_position", "set_position", "weigh_by_rows"]

#: Blocks per number of a point, and the fewest where that would make blocks of few rows; and the lengths of blocks. In data that
#: are sorted, a block has a part of the categories, and many are needed for the curvature of each.
BLOCKS_PER_NUMBER, FEWEST_BLOCKS = 64, 8
SHORTEST, LONGEST = 64, 512

#: Relative change of sds that is noise of the draws.
NOISE_OF_SDS = 0.1

#: Passes after which the curvature is averaged.
FIRST_PASSES = 2

#: Passes after which the curvature is computed exactly if the mean moves by fewer sds than the second number: the rows of
#: a rare category are in few blocks, each with one draw. It is kept while the mean moves by less than the last.
INEXACT_PASSES, NEAR, SAME_CURVATURE = 4, 2.0, 0.5

#: Step of finite differences for the curvature, in sds.
STEP = 1e-3

#: Draws if their weights are about equal, and otherwise.
FEW, MANY = 500, 4000

#: Effective draws with which few draws are enough, and the margin on them otherwise.
ENOUGH, MARGIN = 400, 1.5

#: Rows of the first subsample for weights, and the error of log-weights, in nats, that is small enough.
N_ROWS, LARGEST_ERROR = 20_000, 0.1


@dataclass(frozen=True, eq=False)
class Passes:
    """State after a pass over all rows."""

    now: Climb
    slope: Slope  # the natural gradient of all rows
    rate: float = 1.0  # of the next step
    exact: bool = False  # whether the precision is the curvature at the mean, and no estimate

    @property
    def n_passes(self) -> int:
        return self.now.n_steps


def first_pass(logp: LogPosterior, start: Climb, rng: np.random.Generator) -> Passes:
    """Compute the natural gradient of all rows at the fit of a subsample."""
    found = _slope(logp, start.normal, rng)
    return Passes(_after_pass(replace(start, n_steps=0), found), found)


def next_pass(logp: LogPosterior, before: Passes, rng: np.random.Generator) -> Passes:
    """Take a step, and compute the natural gradient of all rows there.

    A step to a larger natural gradient is undone, and the next is shorter.
    """
    now, slope, rate = before.now, before.slope, before.rate
    flat = np.eye(logp.size)
    if before.n_passes >= INEXACT_PASSES and not before.exact and slope.of_mean < NEAR:
        # A step of the precision alone; the mean follows by the next one
        steep = slope._replace(mean=np.zeros(logp.size)).of_precision(curvature(logp, now.normal))
        moved = now.normal.moved(steep, 1.0)
        found = _slope(logp, moved, rng).of_precision(flat)
        return Passes(_after_pass(replace(now, normal=moved), found), found, exact=True)
    exact = before.exact and slope.of_mean < SAME_CURVATURE
    share = 1 / max(1, before.n_passes - FIRST_PASSES)
    averaged = slope._replace(values=1 + share * (slope.values - 1))
    moved = now.normal.moved(averaged, rate)
    found = _slope(logp, moved, rng)
    if exact:
        found = found.of_precision(flat)
    if found.of_mean < max(slope.of_mean, CONVERGED):
        rate = min(1.0, 2 * rate)
        return Passes(_after_pass(replace(now, normal=moved), found), found, rate, exact)
    return Passes(_after_pass(now, slope), slope, rate / 4, before.exact)


def curvature(logp: LogPosterior, normal: Normal) -> np.ndarray:
    """Compute the whitened curvature at the mean by finite differences of D + 1 gradients."""
    away = normal.away(np.vstack([np.zeros(normal.size), STEP * np.eye(normal.size)]))
    u = normal.whitened_gradients(logp(normal.mean + away)[1])
    found = (u[0] - u[1:]) / STEP
    return (found + found.T) / 2


def _after_pass(now: Climb, slope: Slope) -> Climb:
    """Record a pass, and whether it has converged."""
    converged = slope.of_mean < CONVERGED and slope.of_sds < NOISE_OF_SDS
    return replace(
        now, slope=slope.of_mean, moved=slope.of_mean, n_steps=now.n_steps + 1, converged=converged
    )


def _slope(logp: LogPosterior, normal: Normal, rng: np.random.Generator) -> Slope:
    """Compute the natural gradient of all rows in a pass over them."""
    assert logp.data is not None and isinstance(normal, Dense)  # as of all models with many rows
    seed = int(rng.integers(2**63))
    n_rows, at_mean, n_paired, of_pairs, squares, products = logp.data.sums(
        logp, _AroundMean(normal, seed)
    )
    # The gradient at the mean is that of all rows; differences of pairs give the rest of its expectation
    slope = normal.regression_of_sums(squares, products)
    return slope._replace(mean=at_mean / n_rows + of_pairs / n_paired)


@dataclass(frozen=True, eq=False)
class _AroundMean:
    """Sums of a pass for the natural gradient at a normal, over blocks and weighted by their rows.

    They are the rows and the whitened gradients at the mean; and of the blocks with an antithetic pair of
    draws, the rows, the mean gradients of pairs minus those at the mean, and the squares and products for
    the regression of half the pairs' differences on the noise.
    """

    normal: Dense
    seed: int

    def __call__(self, logp: LogPosterior, rows: RowData, shard: int) -> Sums:
        normal, size, n_all = self.normal, logp.size, logp.n_all
        shortest = min(SHORTEST, n_all // (FEWEST_BLOCKS * size))
        length = max(1, shortest, min(LONGEST, n_all // (BLOCKS_PER_NUMBER * size)))
        length = max(1, rows.n_all // -(-rows.n_all // length))  # blocks of about equal length
        rng = np.random.default_rng((self.seed, shard))
        at_mean, of_pairs = np.zeros((2, size))
        squares, products = np.zeros((2, size, size))
        n_done = n_paired = 0
        with closing(rows.blocks(length, max(1, NUMBERS_AT_ONCE // (3 * size)))) as all_rows:
            for blocks in all_rows:
                n_blocks, n_rows = blocks[0].shape[:2]
                n_done += n_blocks * n_rows
                if n_rows < length:
                    gradients = logp(normal.mean[None], blocks)[1]
                    at_mean += n_rows * normal.whitened_gradients(gradients)[0]
                    continue
                noise = rng.normal(size=(n_blocks, size))
                away = normal.away(noise)
                points = np.stack([0 * away, away, -away], axis=1).reshape(-1, size) + normal.mean
                u = normal.whitened_gradients(logp(points, blocks)[1]).reshape(n_blocks, 3, size)
                middle, ahead, behind = n_rows * u.sum(axis=0)
                at_mean += middle
                of_pairs += (ahead + behind) / 2 - middle
                squares += n_rows * noise.T @ noise
                products += n_rows * noise.T @ (u[:, 1] - u[:, 2]) / 2
                n_paired += n_blocks * n_rows
        return np.array(n_done), at_mean, np.array(n_paired), of_pairs, squares, products


def saved_position(
    rng: np.random.Generator,
    rows: LoadedRows,
    budget: Budget,
    modes: Modes | None,
    passes: Passes | None,
) -> dict[str, Any]:
    """Return the state of a fit between two passes as arrays and generators by name, for a checkpoint.

    Before the first pass it has only the position of the rows, and the fit restarts from there.
    """
    values: dict[str, Any] = {
        "rng": rng,
        "rows": np.array([rows.seed, rows.n_passes]),
        "budget": np.array([budget.n_gradients, budget.n_rows], dtype="float64"),
    }
    if modes is None or passes is None:
        return values
    values |= _climb_to_dict("now", passes.now) | _climb_to_dict("best", modes.best)
    for k, other in enumerate(modes.others):
        values |= _climb_to_dict(f"other {k}", other)
    slope = passes.slope._asdict()
    values |= {f"slope/{name}": array for name, array in slope.items()}
    numbers = np.array([passes.rate, passes.exact], dtype="float64")
    return values | {"numbers": numbers, "n_others": np.array(len(modes.others))}


def set_position(
    values: Mapping[str, Any], rows: LoadedRows, budget: Budget
) -> tuple[np.random.Generator, Modes | None, Passes | None]:
    """Restore the position of the rows from :func:`saved_position`, and return the rest.

    Raises
    ------
    LookupError, TypeError, ValueError
        If the values have another form.
    """
    rows.seek(*map(int, values["rows"]))
    n_gradients, n_rows = values["budget"]
    budget.n_gradients, budget.n_rows = float(n_gradients), int(n_rows)
    if "now/mean" not in values:
        return values["rng"], None, None
    slope = Slope(*(values[f"slope/{name}"] for name in Slope._fields))
    rate, exact = map(float, values["numbers"])
    passes = Passes(_climb_from_dict("now", values), slope, rate, bool(exact))
    others = (_climb_from_dict(f"other {k}", values) for k in range(int(values["n_others"])))
    return values["rng"], Modes(_climb_from_dict("best", values), tuple(others)), passes


def _climb_to_dict(name: str, climb: Climb) -> dict[str, Any]:
    normal: Normal = climb.normal
    assert isinstance(normal, Dense)  # models fitted by passes have no groups
    numbers = (climb.bound, climb.slope, climb.converged, climb.n_steps, climb.n_draws, climb.moved)
    return {
        f"{name}/mean": normal.mean,
        f"{name}/factor": normal.factor,
        f"{name}/numbers": np.array(numbers, dtype="float64"),
    }


def _climb_from_dict(name: str, values: Mapping[str, Any]) -> Climb:
    normal = Dense(values[f"{name}/mean"], values[f"{name}/factor"])
    bound, slope, converged, n_steps, n_draws, moved = map(float, values[f"{name}/numbers"])
    return Climb(normal, bound, slope, bool(converged), int(n_steps), int(n_draws), moved)


@dataclass(eq=False)
class _Expansion:
    """The log-density of rows minus the second-order term of its expansion, if that is used."""

    logp: LogPosterior
    normal: Normal
    second_order: bool

    def values(self, some: Mapping[str, np.ndarray], rows: Values | None) -> np.ndarray:
        """Return the log-density at draws without its second-order term; `rows` None means all."""
        [points] = some.values()
        return self._of_rows(rows)(points)[0] - self.of_curvature(points, rows)

    def expand(
        self, point: Sequence[np.ndarray], rows: Values | None
    ) -> tuple[float, list[np.ndarray]]:
        """Return value and gradient at the mean, where the second-order term is 0."""
        value, gradient = self._of_rows(rows)(point[0][None])
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
        whole = self._of_all if rows is None else curvature(self._of_rows(rows), self.normal)
        return -0.5 * np.einsum("si,ij,sj->s", z, whole, z)

    @cached_property
    def _of_all(self) -> np.ndarray:
        return curvature(self.logp, self.normal)

    def _of_rows(self, rows: Values | None) -> LogPosterior:
        return self.logp if rows is None else self.logp.of_rows(rows)


def weigh_by_rows(logp: LogPosterior, normal: Normal, rng: np.random.Generator) -> WeightedDraws:
    """Weight draws of the normal by the log-density of a subsample of the rows."""
    n_draws = max(FEW, normal.n_draws)
    draws = _weighed(logp, normal, n_draws, rng)
    is_light = draws.weights.khat < LIGHT_TAIL
    if (is_light and draws.weights.ess > ENOUGH) or draws.weights.about_equal:
        return draws
    # As many draws as give enough effective ones, if the tail lets this be known
    needed = int(n_draws * MARGIN * ENOUGH / draws.weights.ess) if is_light else MANY
    return _weighed(logp, normal, min(MANY, needed), rng)


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
    return WeightedDraws(points, np.empty((0, 0)), smoothed(ratios), error)
