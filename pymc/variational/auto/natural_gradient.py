# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Natural-gradient ascent of the ELBO on fixed draws, so that a line search sees a function without noise.

The whitened draws have mean 0 and covariance I exactly, which makes the optimum exact for a normal posterior. For
others the number of draws grows fourfold until the answer stands still (Burroni, Domke and Sheldon 2024, "Sample
average approximation for black-box variational inference").
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from pymc.variational.auto.log_posterior import LogPosterior
from pymc.variational.auto.normal import Normal

__all__ = ["Climb", "climb", "settle"]

#: Largest whitened slope, in sds, of a converged fit, and of one that is good enough to start another.
CONVERGED, ROUGH = 0.02, 0.1

#: Factor on that tolerance where the bound of these draws has stopped rising.
STALLED = 5

#: Smallest rise of the bound in nats that counts, and the number of steps without one that ends a fit.
NO_RISE, PATIENCE = 1e-4, 6

MAX_STEPS = 100

#: Factor by which a start narrows if no step leads up, and the last step at which it may.
NARROWER, MOST_NARROWED = 0.1, 10

#: Sd of a start, relative to 1 + |x|: so narrow that the density is smooth there, whatever its scales.
WIDTH = 1e-3

#: Sd that ends a climb: the density has no curvature there, and squares would overflow soon.
WIDEST = 1e30

#: Smallest rate of the line search, which halves rates down to 0.1 and then quarters them.
LEAST_RATE = 1e-6

#: Change of means in sds, and of log-sds, below which the answer stands still.
STANDS_STILL = 0.05

#: The most draws, and the most numbers in them.
MOST_DRAWS, MOST_NUMBERS = 4096, 20_000_000


@dataclass(frozen=True)
class Climb:
    """State of a natural-gradient ascent."""

    normal: Normal
    bound: float  # the evidence lower bound in nats, up to a constant of the model's size
    slope: float  # the largest whitened slope there
    converged: bool
    n_steps: int
    n_draws: int
    moved: float = np.inf  # change of means in sds, and of log-sds, by the last rise of `n_draws`

    @property
    def is_flat(self) -> bool:
        """True if the density has no curvature along some direction."""
        return bool(self.normal.sd.max() > WIDEST)


def climb(
    logp: LogPosterior,
    normal: Normal,
    n_draws: int,
    rng: np.random.Generator,
    watch: Callable[[Climb], None] = lambda now: None,
    tolerance: float = CONVERGED,
) -> Climb:
    """Maximise the ELBO of fixed draws, from a normal to a slope of `tolerance` sds.

    `watch` is called after each step.

    Raises
    ------
    FloatingPointError
        If the density is not finite around the start.
    """
    noise = normal.noise(n_draws, rng)
    normal, values, gradients = _finite_start(logp, normal, noise)
    now = Climb(normal, values.mean() + normal.log_scale, np.inf, False, 0, len(noise))
    stalled = 0
    while True:
        slope = now.normal.slope(noise, gradients)
        now = replace(now, slope=slope.largest)
        watch(now)
        if now.slope < tolerance:
            return replace(now, converged=True)
        almost = replace(now, converged=now.slope < STALLED * tolerance)
        if stalled >= PATIENCE:
            return almost
        if now.n_steps >= MAX_STEPS or now.is_flat:
            return now
        rate = 1.0
        # The bound is a sum of many terms, whose rounding must not end the line search
        rounding = 1e-4 + 1e-9 * abs(now.bound)
        while rate > LEAST_RATE:
            normal = now.normal.moved(slope, rate)
            values, found = logp(normal.points(noise))
            with np.errstate(all="ignore"):  # a step that was too long
                bound = values.mean() + normal.log_scale
            if np.isfinite(bound) and np.isfinite(found).all() and bound > now.bound - rounding:
                break
            rate /= 2 if rate > 0.1 else 4
        else:
            if almost.converged or now.n_steps >= MOST_NARROWED:
                return almost
            # Too wide: some draws see only the slopes of the density
            normal = now.normal.at(now.normal.mean, NARROWER)
            values, found = logp(normal.points(noise))
            bound = values.mean() + normal.log_scale
            if not (np.isfinite(bound) and np.isfinite(found).all()):
                return almost
        stalled = stalled + 1 if bound - now.bound < NO_RISE else 0
        now = replace(now, normal=normal, bound=float(bound), n_steps=now.n_steps + 1)
        gradients = found


def _finite_start(
    logp: LogPosterior, normal: Normal, noise: np.ndarray
) -> tuple[Normal, np.ndarray, np.ndarray]:
    """Narrow a start until the density is finite at all draws."""
    for _ in range(60):
        values, gradients = logp(normal.points(noise))
        if np.isfinite(values).all() and np.isfinite(gradients).all():
            return normal, values, gradients
        normal = normal.at(normal.mean, 0.25)
    raise FloatingPointError("the log-density, or its gradient, is not finite around the start")


def settle(
    logp: LogPosterior,
    start: Climb,
    rng: np.random.Generator,
    watch: Callable[[Climb], None] = lambda now: None,
) -> Climb:
    """Maximise with ever more draws until means and sds stand still."""
    now, n_draws, n_steps = start, start.n_draws, start.n_steps
    most = max(min(MOST_DRAWS, MOST_NUMBERS // logp.size), 4 * start.normal.n_draws)
    while True:
        n_draws = min(4 * n_draws, most)  # refine starts from as many
        before = now.normal
        now = climb(logp, before, n_draws, rng, watch)
        n_steps += now.n_steps
        moved = max(float(found.max()) for found in now.normal.differences(before))
        now = replace(now, n_steps=n_steps, moved=moved)
        watch(now)
        if (now.converged and moved < STANDS_STILL) or 4 * n_draws > most:
            return now
