# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Search for other modes, from other starts and from symmetric images of the optimum.

Importance weights cannot see a mode that no draw comes near. So the optima of other starts are compared by their
ELBO, as are those from the best optimum with entries exchanged or signs flipped, where the density is as high.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from pymc.variational.auto.log_posterior import LogPosterior
from pymc.variational.auto.natural_gradient import ROUGH, WIDTH, Climb, climb
from pymc.variational.auto.normal import Normal
from pymc.variational.auto.prior_draws import prior_draws
from pymc.variational.guides.base import Layout

__all__ = ["Modes", "find_modes", "spread_starts"]

#: Fewest and most pairs of further starts (one from the priors, one around the initial point), and the evaluations after
#: which the fewest are enough: more of them if only one start found the best optimum.
PAIRS, FEW_EVALUATIONS, MORE_EVALUATIONS = (2, 16), 3000, 20_000

#: Half-width of the uniform distribution around the initial point, as in Stan.
AROUND = 2.0

#: Optima are the same if means are nearer than this, in sds, and no sds differ by more than this factor.
SAME, SAME_WIDTH = 2.0, 4.0

#: A mode whose ELBO is lower by more nats has a weight below 0.001.
NEGLIGIBLE = 7.0

#: Entries of an axis among which all pairs are exchanged.
FEW = 8

#: Symmetric images that are used as starts, the best ones.
MOST_SYMMETRIC = 2


@dataclass(frozen=True, eq=False)
class Modes:
    """Distinct optima of several starts."""

    best: Climb  # the highest ELBO; from the initial point, unless another is clearly higher
    # Elsewhere, with about as high an ELBO. If a single start found the best one, and it was not the initial
    # point, that one's optimum is among them
    others: tuple[Climb, ...] = ()

    def farthest(self) -> tuple[int, float]:
        """Return the index of the largest gap between the best and the next optimum, and the gap in sds."""
        gaps, _ = self.best.normal.differences(self._next.normal)
        return int(gaps.argmax()), float(gaps.max())

    def widest(self) -> tuple[int, float]:
        """Return the index of the largest ratio of sds of these two, and the ratio."""
        _, logs = self.best.normal.differences(self._next.normal)
        return int(logs.argmax()), float(np.exp(logs.max()))

    @property
    def _next(self) -> Climb:
        return max(self.others, key=lambda c: c.bound)


def spread_starts(logp: LogPosterior, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Yield starts: alternately a draw from the priors, if they are proper, and a point around the initial one."""
    start, draw = logp.start, prior_draws(logp.model)
    for _ in range(PAIRS[1]):
        if draw is not None:
            point = logp.layout.flatten(draw(int(rng.integers(2**30))))
            # A draw outside a transform's domain, as of an ordered variable, is not finite
            yield np.where(np.isfinite(point), point, start)
        yield start + rng.uniform(-AROUND, AROUND, size=len(start))


def find_modes(logp: LogPosterior, first: Climb, rng: np.random.Generator) -> Modes:
    """Maximise from other starts, and collect distinct optima.

    Parameters
    ----------
    logp : LogPosterior
    first : Climb
        From the initial point.
    rng : Generator
    """
    ends, before = [first], logp.budget.n_gradients
    best, n_best = first, 1
    for k, start in enumerate(spread_starts(logp, rng)):
        most = FEW_EVALUATIONS if n_best > 1 or best is first else MORE_EVALUATIONS
        if k >= 2 * PAIRS[0] and logp.budget.n_gradients - before > most:
            break
        ends += _climbs(logp, [first.normal.around(start, WIDTH)], first.n_draws, rng)
        best = _best(ends)
        n_best = sum(_same(end, best) for end in ends)
    mirrored = [best.normal.at(point, 0.3) for point in _symmetric(logp, best)]
    ends += _climbs(logp, mirrored, first.n_draws, rng)
    best = _best([best, *ends])
    others: list[Climb] = []
    for end in sorted(ends, key=lambda c: -c.bound):
        as_good = end.converged and end.bound > best.bound - NEGLIGIBLE
        is_doubt = end is first and n_best < 2
        if (as_good or is_doubt) and not any(_same(end, known) for known in (best, *others)):
            others.append(end)
    return Modes(best, tuple(others))


def _best(ends: Sequence[Climb]) -> Climb:
    """Return the optimum with the highest ELBO; the first one, unless another is clearly higher."""
    best = max(ends, key=lambda c: c.bound)
    return best if best.bound > ends[0].bound + 1 else ends[0]


def _climbs(
    logp: LogPosterior, starts: Sequence[Normal], n_draws: int, rng: np.random.Generator
) -> list[Climb]:
    """Maximise from each start around which the density is finite."""
    found = []
    for start in starts:
        try:
            found.append(climb(logp, start, n_draws, rng, tolerance=ROUGH))
        except (FloatingPointError, np.linalg.LinAlgError):
            continue
    return found


def _same(one: Climb, other: Climb) -> bool:
    gaps, logs = one.normal.differences(other.normal)
    gaps = np.minimum(gaps, other.normal.differences(one.normal)[0])  # in the larger of both sds
    return bool(gaps.max() < SAME and logs.max() < np.log(SAME_WIDTH))


def _symmetric(logp: LogPosterior, best: Climb) -> list[np.ndarray]:
    """Return symmetric images of an optimum that are far from it and as good."""
    mean, sd = best.normal.mean, best.normal.sd
    candidates = [
        point for point in _exchanged(logp.layout, mean) if (np.abs(point - mean) / sd).max() > SAME
    ]
    if not candidates:
        return []
    values = logp(np.array([mean, *candidates]))[0]
    order = np.argsort(-values[1:])
    good = [k for k in order if values[1 + k] > values[0] - NEGLIGIBLE]
    return [candidates[k] for k in good[:MOST_SYMMETRIC]]


def _exchanged(layout: Layout, point: np.ndarray) -> Iterator[np.ndarray]:
    """Yield a point with entries along axes of one length exchanged, and with signs of variables flipped."""
    parts = layout.slices
    lengths = {n for shape in layout.shapes for n in shape if n > 1}
    for length in sorted(lengths):
        pairs: Sequence[tuple[int, int]] = list(combinations(range(min(length, FEW)), 2))
        for i, j in pairs:
            new = point.copy()
            for part, shape in zip(parts, layout.shapes):
                value = new[part].reshape(shape)
                for axis in (k for k, n in enumerate(shape) if n == length):
                    value = np.moveaxis(value, axis, 0)
                    value[[i, j]] = value[[j, i]]
                    value = np.moveaxis(value, 0, axis)
                new[part] = value.reshape(-1)
            yield new
    for turned in (*combinations(parts, 1), *combinations(parts[:FEW], 2)):
        new = point.copy()
        for part in turned:
            new[part] *= -1
        yield new
