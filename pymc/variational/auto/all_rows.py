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
r"""Natural gradients of all rows, by passes over them, from the fit of a few thousand.

A pass computes, for each block of rows, the gradient at the mean and at a pair of draws
:math:`m \pm L z_b` of its own. Their differences estimate what the mean over the normal, and the curvature, add to the
gradient of all rows at the mean, which is exact: a control variate (Johnson and Zhang 2013, "Accelerating stochastic
gradient descent using predictive variance reduction"). With L of a fit that is close, the differences are small, so
that one draw for a block is enough, and a pass costs three gradients of each row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from pymc.variational.auto.log_posterior import LogPosterior
from pymc.variational.auto.natural_gradient import CONVERGED, Climb
from pymc.variational.auto.normal import Normal, Slope

__all__ = ["SUBSAMPLES", "climb_all_rows"]

#: Rows of the fits that come first.
SUBSAMPLES = (2_000, 10_000)

#: The most rows of a block, and the fewest blocks for each number of a point.
BLOCK, BLOCKS_PER_NUMBER = 4096, 8

MAX_PASSES = 10

#: Change of sds that is the noise of the draws.
NOISE_OF_SDS = 0.1

#: Passes after which the curvature is an average over those that follow.
FIRST_PASSES = 2


@dataclass(frozen=True, eq=False)
class _Blocks:
    """All rows, in blocks of one length and the rest of them."""

    blocks: np.ndarray
    rest: np.ndarray

    @classmethod
    def of(cls, n_rows: int, size: int, rng: np.random.Generator) -> _Blocks:
        order = rng.permutation(n_rows)
        length = max(1, min(BLOCK, n_rows // (BLOCKS_PER_NUMBER * size)))
        n_blocks = n_rows // length
        return cls(order[: n_blocks * length].reshape(n_blocks, length), order[n_blocks * length :])


def climb_all_rows(
    logp: LogPosterior,
    start: Climb,
    rng: np.random.Generator,
    watch: Callable[[Climb], None] = lambda now: None,
) -> Climb:
    """Climb the bound of all rows, pass by pass.

    Parameters
    ----------
    logp : LogPosterior
        Of minibatches.
    start : Climb
        From a subsample.
    rng : Generator
    watch : callable (Climb) -> None
        Called after each pass.

    Raises
    ------
    Stopped
    """
    blocks = _Blocks.of(logp.n_all, logp.size, rng)
    now = replace(start, converged=False, moved=np.inf, n_draws=2 * len(blocks.blocks))
    slope, rate = _slope(logp, now.normal, blocks, rng), 1.0
    for n_passes in range(1, MAX_PASSES + 1):
        now = replace(now, slope=slope.of_mean, moved=slope.of_mean, n_steps=now.n_steps + 1)
        watch(now)
        if slope.of_mean < CONVERGED and slope.of_sds < NOISE_OF_SDS:
            return replace(now, converged=True)
        if n_passes == MAX_PASSES:
            break
        share = 1 / max(1, n_passes - FIRST_PASSES)
        averaged = slope._replace(values=1 + share * (slope.values - 1))
        moved = now.normal.moved(averaged, rate)
        found = _slope(logp, moved, blocks, rng)
        if found.of_mean < max(slope.of_mean, CONVERGED):
            now, slope, rate = replace(now, normal=moved), found, min(1.0, 2 * rate)
        else:
            rate /= 4
    return now


def _slope(logp: LogPosterior, normal: Normal, blocks: _Blocks, rng: np.random.Generator) -> Slope:
    """Compute the natural gradient of all rows in a pass over them."""
    n_blocks = len(blocks.blocks)
    noise = normal.noise(2 * n_blocks, rng)[:n_blocks]
    away = normal.away(noise)
    points = np.stack([0 * away, away, -away], axis=1).reshape(-1, logp.size) + normal.mean
    _, gradients = logp(points, np.repeat(blocks.blocks, 3, axis=0))
    u = normal.whitened_gradients(gradients).reshape(n_blocks, 3, -1)
    middle, ahead, behind = u.mean(axis=0)
    mean = middle
    if len(blocks.rest):
        _, of_rest = logp(normal.mean[None], blocks.rest[None])
        share = len(blocks.rest) / logp.n_all
        mean = (1 - share) * middle + share * normal.whitened_gradients(of_rest)[0]
    mean = mean + (ahead + behind) / 2 - middle
    return normal.regression(noise, (u[:, 1] - u[:, 2]) / 2)._replace(mean=mean)
