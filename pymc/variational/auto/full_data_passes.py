# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
r"""Natural-gradient steps on all rows, one pass over them each, from the fit of a subsample.

A pass computes, for each block of rows, the gradient at the mean :math:`m` and at an antithetic pair of draws
:math:`m \pm L z_b`. The gradient of all rows at the mean is exact; the differences estimate the rest of the gradient's
expectation, and the curvature. It is a control variate (Johnson and Zhang 2013, "Accelerating stochastic gradient
descent using predictive variance reduction"): close to the optimum the differences are small, so that one pair of draws per
block is enough, and a pass costs three gradients of each row.
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

#: Rows of the subsamples that are fitted first.
SUBSAMPLES = (2_000, 10_000)

#: The fewest blocks per number of a point, and the most blocks.
BLOCKS_PER_NUMBER, MOST_BLOCKS = 8, 65_536

MAX_PASSES = 10

#: Relative change of sds that is noise of the draws.
NOISE_OF_SDS = 0.1

#: Passes after which the curvature is averaged.
FIRST_PASSES = 2

#: Passes after which the curvature is computed exactly if the mean moves by fewer sds than the second number: the rows of
#: a rare category are in few blocks, each with one draw. It is kept while the mean moves by less than the last.
INEXACT_PASSES, NEAR, SAME_CURVATURE = 4, 2.0, 0.5

#: Step of finite differences for the curvature, in sds.
STEP = 1e-3


@dataclass(frozen=True, eq=False)
class Passes:
    """State after a pass over all rows.

    Parameters
    ----------
    now : Climb
    slope : Slope
        The natural gradient of all rows.
    rate : float
        Rate of the next step.
    exact : bool
        Whether the precision is the curvature at the mean instead of an estimate from draws.
    """

    now: Climb
    slope: Slope
    rate: float = 1.0
    exact: bool = False

    @property
    def n_passes(self) -> int:
        return self.now.n_steps


def first_pass(logp: LogPosterior, start: Climb, rng: np.random.Generator) -> Passes:
    """Compute the natural gradient of all rows at the fit of a subsample.

    Parameters
    ----------
    logp : LogPosterior
        Log-posterior with minibatches.
    start : Climb
        Fit of the subsample.
    rng : Generator

    Raises
    ------
    Stopped
    """
    found = _slope(logp, start.normal, rng)
    return Passes(_after_pass(replace(start, n_steps=0), found), found)


def next_pass(logp: LogPosterior, before: Passes, rng: np.random.Generator) -> Passes:
    """Take a step, and compute the natural gradient of all rows there.

    A step to a larger natural gradient is undone, and the next is shorter.

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
    compute = logp.of_all if logp.rows is None else logp
    u = normal.whitened_gradients(compute(normal.mean + away)[1])
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
    n_all, size = logp.n_all, logp.size
    length = max(1, min(BLOCK, n_all // (BLOCKS_PER_NUMBER * size)), n_all // MOST_BLOCKS)
    n_blocks = n_all // length
    noise = normal.noise(2 * n_blocks, rng)[:n_blocks]
    parts, rest, n_rest, done = [], np.zeros(size), 0, 0
    assert logp.data is not None
    with closing(logp.data.blocks(length, max(1, NUMBERS_AT_ONCE // (3 * size)))) as all_rows:
        for blocks in all_rows:
            n_blocks_read, n_rows = blocks[0].shape[:2]
            if n_rows < length:
                rest, n_rest = logp(normal.mean[None], blocks)[1][0], n_rows
                continue
            away = normal.away(noise[done : done + n_blocks_read])
            points = np.stack([0 * away, away, -away], axis=1).reshape(-1, size) + normal.mean
            u = normal.whitened_gradients(logp(points, blocks)[1]).reshape(n_blocks_read, 3, size)
            parts.append(u)
            done += n_blocks_read
    u, noise = np.concatenate(parts), noise[:done]
    middle, ahead, behind = u.mean(axis=0)
    share = n_rest / (done * length + n_rest)
    at_mean = (1 - share) * middle + share * normal.whitened_gradients(rest[None])[0]
    mean = at_mean + (ahead + behind) / 2 - middle
    return normal.regression(noise, (u[:, 1] - u[:, 2]) / 2)._replace(mean=mean)


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
