# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
r"""Natural gradients of all rows, by passes over them, from the fit of a few thousand.

A pass computes, for each block of rows, the gradient at the mean and at a pair of draws
:math:`m \pm L z_b` of its own. Their differences estimate what the mean over the normal, and the curvature, add to the
gradient of all rows at the mean, which is exact: a control variate (Johnson and Zhang 2013, "Accelerating stochastic
gradient descent using predictive variance reduction"). With L of a fit that is close, the differences are small, so
that one draw for a block is enough, and a pass costs three gradients of each row.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pymc.variational.auto.log_posterior import (
    BLOCK,
    NUMBERS_AT_ONCE,
    Budget,
    LoadedRows,
    LogPosterior,
)
from pymc.variational.auto.modes import Modes
from pymc.variational.auto.natural_gradient import CONVERGED, Climb
from pymc.variational.auto.normal import Dense, Normal, Slope

__all__ = [
    "MAX_PASSES",
    "SUBSAMPLES",
    "Passes",
    "curvature",
    "first_pass",
    "next_pass",
    "saved_position",
    "set_position",
]


#: Rows of the fits that come first.
SUBSAMPLES = (2_000, 10_000)

#: The fewest blocks for each number of a point, and the most blocks.
BLOCKS_PER_NUMBER, MOST_BLOCKS = 8, 65_536

MAX_PASSES = 10

#: Change of sds that is the noise of the draws.
NOISE_OF_SDS = 0.1

#: Passes after which the curvature is an average over those that follow.
FIRST_PASSES = 2

#: Passes after which the curvature is exact, where the mean is to move by no more sds than these: few rows of a rare
#: category are in few blocks, each with one draw. It stays where the mean moves by less than the last.
INEXACT_PASSES, NEAR, SAME_CURVATURE = 4, 2.0, 0.5

#: Step of the differences that give the curvature, in sds.
STEP = 1e-3


@dataclass(frozen=True, eq=False)
class Passes:
    """Where passes over all rows have come to.

    Parameters
    ----------
    now : Climb
    slope : Slope
        The natural gradient there.
    rate : float
        Of the next step.
    exact : bool
        Whether the precision is the curvature at the mean, and not an estimate from the draws of blocks.
    """

    now: Climb
    slope: Slope
    rate: float = 1.0
    exact: bool = False

    @property
    def n_passes(self) -> int:
        return self.now.n_steps


def first_pass(logp: LogPosterior, start: Climb, rng: np.random.Generator) -> Passes:
    """Compute the natural gradient of all rows at the fit of a part of them.

    Parameters
    ----------
    logp : LogPosterior
        Of minibatches.
    start : Climb
        From a part of the rows.
    rng : Generator

    Raises
    ------
    Stopped
    """
    found = _slope(logp, start.normal, rng)
    return Passes(_looked_at(replace(start, n_steps=0), found), found)


def next_pass(logp: LogPosterior, before: Passes, rng: np.random.Generator) -> Passes:
    """Take a step, and compute the natural gradient of all rows there.

    A step that leads to a larger one is taken back, and the next is shorter.

    Raises
    ------
    Stopped
    """
    now, slope, rate = before.now, before.slope, before.rate
    flat = np.eye(logp.size)
    if before.n_passes >= INEXACT_PASSES and not before.exact and slope.of_mean < NEAR:
        steep = slope._replace(mean=np.zeros(logp.size)).of_precision(curvature(logp, now.normal))
        moved = now.normal.moved(steep, 1.0)
        found = _slope(logp, moved, rng).of_precision(flat)
        return Passes(_looked_at(replace(now, normal=moved), found), found, exact=True)
    exact = before.exact and slope.of_mean < SAME_CURVATURE
    share = 1 / max(1, before.n_passes - FIRST_PASSES)
    averaged = slope._replace(values=1 + share * (slope.values - 1))
    moved = now.normal.moved(averaged, rate)
    found = _slope(logp, moved, rng)
    if exact:
        found = found.of_precision(flat)
    if found.of_mean < max(slope.of_mean, CONVERGED):
        rate = min(1.0, 2 * rate)
        return Passes(_looked_at(replace(now, normal=moved), found), found, rate, exact)
    return Passes(_looked_at(now, slope), slope, rate / 4, before.exact)


def curvature(logp: LogPosterior, normal: Normal) -> np.ndarray:
    """Compute the whitened precision at the mean by differences of the gradient, in D + 1 of them.

    Of the rows that `logp` is of, or of all.
    """
    away = normal.away(np.vstack([np.zeros(normal.size), STEP * np.eye(normal.size)]))
    compute = logp.of_all if logp.rows is None else logp
    u = normal.whitened_gradients(compute(normal.mean + away)[1])
    found = (u[0] - u[1:]) / STEP
    return (found + found.T) / 2


def _looked_at(now: Climb, slope: Slope) -> Climb:
    """Note another pass, and whether its slope is small enough."""
    converged = slope.of_mean < CONVERGED and slope.of_sds < NOISE_OF_SDS
    return replace(
        now, slope=slope.of_mean, moved=slope.of_mean, n_steps=now.n_steps + 1, converged=converged
    )


def _slope(logp: LogPosterior, normal: Normal, rng: np.random.Generator) -> Slope:
    """Compute the natural gradient of all rows in a pass over them."""
    n_all, size = logp.n_all, logp.size
    length = max(1, min(BLOCK, n_all // (BLOCKS_PER_NUMBER * size)), n_all // MOST_BLOCKS)
    n_blocks = n_all // length
    noise = normal.noise(2 * n_blocks, rng)[:n_blocks]
    parts, rest, n_rest, done = [], np.zeros(size), 0, 0
    assert logp.data is not None
    with closing(logp.data.blocks(length, max(1, NUMBERS_AT_ONCE // (3 * size)))) as all_rows:
        for blocks in all_rows:
            n_here, n_rows = blocks[0].shape[:2]
            if n_rows < length:
                rest, n_rest = logp(normal.mean[None], blocks)[1][0], n_rows
                continue
            away = normal.away(noise[done : done + n_here])
            points = np.stack([0 * away, away, -away], axis=1).reshape(-1, size) + normal.mean
            u = normal.whitened_gradients(logp(points, blocks)[1]).reshape(n_here, 3, size)
            parts.append(u)
            done += n_here
    u, noise = np.concatenate(parts), noise[:done]
    middle, ahead, behind = u.mean(axis=0)
    share = n_rest / (done * length + n_rest)
    at_mean = (1 - share) * middle + share * normal.whitened_gradients(rest[None])[0]
    mean = at_mean + (ahead + behind) / 2 - middle
    return normal.regression(noise, (u[:, 1] - u[:, 2]) / 2)._replace(mean=mean)


# MERGED: """Where a fit is between two passes over all rows, in arrays and generators by name, for a checkpoint."""


def saved_position(
    rng: np.random.Generator,
    rows: LoadedRows,
    budget: Budget,
    modes: Modes | None,
    passes: Passes | None,
) -> dict[str, Any]:
    """Take what a fit goes on from.

    Without a pass yet it is where the rows are read, and the fit begins anew.
    """
    values: dict[str, Any] = {
        "rng": rng,
        "rows": np.array([rows.seed, rows.n_passes]),
        "budget": np.array([budget.n_gradients, budget.n_rows], dtype="float64"),
    }
    if modes is None or passes is None:
        return values
    values |= _of_climb("now", passes.now) | _of_climb("best", modes.best)
    for k, other in enumerate(modes.others):
        values |= _of_climb(f"other {k}", other)
    slope = passes.slope._asdict()
    values |= {f"slope/{name}": array for name, array in slope.items()}
    numbers = np.array([passes.rate, passes.exact], dtype="float64")
    return values | {"numbers": numbers, "n_others": np.array(len(modes.others))}


def set_position(
    values: Mapping[str, Any], rows: LoadedRows, budget: Budget
) -> tuple[np.random.Generator, Modes | None, Passes | None]:
    """Set where rows are read, and return the rest of what :func:`saved_position` took.

    Raises
    ------
    LookupError, TypeError, ValueError
        If it has taken something else.
    """
    rows.go_on(*map(int, values["rows"]))
    n_gradients, n_rows = values["budget"]
    budget.n_gradients, budget.n_rows = float(n_gradients), int(n_rows)
    if "now/mean" not in values:
        return values["rng"], None, None
    slope = Slope(*(values[f"slope/{name}"] for name in Slope._fields))
    rate, exact = map(float, values["numbers"])
    passes = Passes(_climb("now", values), slope, rate, bool(exact))
    others = (_climb(f"other {k}", values) for k in range(int(values["n_others"])))
    return values["rng"], Modes(_climb("best", values), tuple(others)), passes


def _of_climb(name: str, climb: Climb) -> dict[str, Any]:
    normal: Normal = climb.normal
    assert isinstance(normal, Dense)  # many rows have no groups
    numbers = (climb.bound, climb.slope, climb.converged, climb.n_steps, climb.n_draws, climb.moved)
    return {
        f"{name}/mean": normal.mean,
        f"{name}/factor": normal.factor,
        f"{name}/numbers": np.array(numbers, dtype="float64"),
    }


def _climb(name: str, values: Mapping[str, Any]) -> Climb:
    normal = Dense(values[f"{name}/mean"], values[f"{name}/factor"])
    bound, slope, converged, n_steps, n_draws, moved = map(float, values[f"{name}/numbers"])
    return Climb(normal, bound, slope, bool(converged), int(n_steps), int(n_draws), moved)
