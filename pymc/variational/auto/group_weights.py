# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
r"""Importance weights of the globals of a hierarchy, whose groups are integrated out by quadrature.

Given the globals :math:`g`, groups are independent. About any centre :math:`c_j` of each,

.. math::

    \log p(g) = \log p(g, c) + \sum_j \log \int e^{\Delta_j(x)} dx, \qquad
    \Delta_j(x) = \int_{c_j}^{x} \nabla_j \log p(g, s) \, ds,

and the gradient with respect to one group does not depend on the others, so that one gradient of the log-posterior moves
all groups at once along a line (see :mod:`~pymc.variational.auto.quadrature`). The centre and the scale of each group
come from a natural-gradient step at these globals. So the weights are those of a few numbers, however many groups there
are; groups are then drawn from their distribution given the globals.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np

from pymc.variational.auto.arrowhead import Arrow
from pymc.variational.auto.importance_sampling import (
    FEWEST,
    PER_ROUND,
    Doubt,
    WeightedDraws,
    WeightsError,
    importance_sample,
)
from pymc.variational.auto.log_posterior import LogPosterior
from pymc.variational.auto.modes import SAME
from pymc.variational.auto.normal import Normal, positive
from pymc.variational.auto.quadrature import (
    LineRule,
    finite_slopes,
    gauss_rule,
    grid_rule,
    log_of_directions,
    random_frames,
    wide_rule,
)
from pymc.variational.pareto_smoothing import smoothed

__all__ = ["GroupDraws", "Marginal", "weigh_by_groups"]

#: Nodes of a line, and factor on the number of lines, of ever finer quadrature.
LEVELS = ((7, 1), (11, 2), (15, 4), (21, 8))

#: Lines per number of a group, and the most of them.
LINES_PER_NUMBER, MOST_LINES = 2, 32

#: Error of log-weights, in nats, above which quadrature gets finer.
LARGEST_ERROR = 0.05

#: Draws of the globals at which quadrature is compared with a finer rule, and with one that reaches far out.
N_COMPARED, N_COMPARED_WIDE = 16, 4

#: The most numbers of a group that is centred anew at each draw of the globals; the most steps of that, and the shift in
#: sds and change of log-sds above which there is another.
MOST_CENTRED, MAX_STEPS, FAR, FAR_SDS = 8, 5, 1.0, 0.5

#: In a step, the precision of a group shrinks at most to this part, and its mean moves at most by so many sds.
LEAST_PRECISION, LONGEST = 0.2, 3.0

#: Numbers in the points of one call; points of a round of importance sampling, their numbers, and its fewest draws.
NUMBERS_AT_ONCE, POINTS_OF_ROUND, NUMBERS_OF_ROUND, FEWEST_OF_ROUND = 2**22, 20_000, 5 * 10**7, 500

#: Lines from which that of a draw is chosen.
LINES_OF_DRAW = 4

#: Draws near an optimum that count as having met it.
MEETS = 10

#: Size up to which all numbers are weighted jointly if quadrature is not accurate enough.
FEW_NUMBERS = 1000

#: Largest error of log-weights, in nats: an error of quadrature may shift a mean by as many sds.
LARGEST_SYSTEMATIC = 0.1

#: Largest error of a group's mean, in sds, and of its log-sd.
LARGEST_SHIFT, LARGEST_LOG_SD = 0.1, 0.1


class Local(NamedTuple):
    """The normal distribution of each group at some globals."""

    centre: np.ndarray  # (n, n_blocks, block_size)
    scale: np.ndarray  # (n, n_blocks, block_size, block_size): a root of its covariance
    log_scale: np.ndarray  # (n,): sum of the log-determinants of its roots


@dataclass(frozen=True, eq=False)
class GroupDraws(WeightedDraws):
    """Weighted draws of the globals, and unweighted draws of the whole posterior."""

    # (n_draws, size): of the posterior; empty if too few draws of the globals are effective
    whole: np.ndarray = field(default_factory=lambda: np.empty((0, 0)))
    marginal: Marginal | None = None

    def parts(self, size: int) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Return the draws of the globals, and those of the groups if there are any."""
        of_globals, n = super().parts(size), len(self.whole)
        if not n:
            return of_globals
        others = np.setdiff1d(np.arange(size), of_globals[0][2])
        return [*of_globals, (self.whole[:, others], np.full(n, -np.log(n)), others)]

    def resampled(self, n: int, rng: np.random.Generator) -> np.ndarray:
        return self.whole[:n]

    def meets(self, optimum: Normal) -> bool:
        """Return True if draws come near another optimum, and groups there are as they would be drawn.

        The ELBO of a hierarchy can have several optima along a ridge of the groups' scales, all within one posterior.
        """
        assert self.marginal is not None and isinstance(optimum, Arrow)
        blocks, of_globals = optimum.blocks, optimum.of_globals
        p, away = self.probabilities, self.points - of_globals.mean
        sd = np.sqrt(p @ (self.points - p @ self.points) ** 2)
        near = np.abs(away) < np.maximum(2 * of_globals.sd, 0.5 * sd)
        if near.all(axis=1).sum() < MEETS:
            return False
        local = self.marginal.centred(of_globals.mean[None])
        away = optimum.mean[blocks.members] - local.centre[0]
        whitened = np.linalg.solve(local.scale[0], away[..., None])
        return bool(np.abs(whitened).max() < SAME)


@dataclass(frozen=True, eq=False)
class Marginal:
    """The log-density of the globals, with groups integrated out."""

    logp: LogPosterior
    normal: Arrow
    level: int = 0  # fineness of the quadrature, an index of `LEVELS`
    seed: int = 0  # seed of the directions of lines, which all draws of the globals share

    @property
    def size(self) -> int:
        """Number of globals."""
        return len(self.normal.blocks.shared)

    @property
    def block_size(self) -> int:
        """Numbers of a group."""
        return self.normal.blocks.block_size

    @property
    def n_nodes(self) -> int:
        """Nodes of a line."""
        return LEVELS[self.level][0]

    @cached_property
    def directions(self) -> np.ndarray:
        """Directions of lines, shape (1, n_blocks, n_lines, block_size); n_blocks may be 1."""
        n, n_blocks = self.block_size, len(self.normal.blocks.members)
        rng, times = np.random.default_rng([self.seed, self.level]), LEVELS[self.level][1]
        if n == 1:
            return np.ones((1, 1, 1, 1))
        if n == 2:  # at equal angles
            n_lines = 2 * LINES_PER_NUMBER * times
            angles = np.pi * (np.arange(n_lines) / n_lines + rng.random((1, n_blocks, 1)))
            return np.stack([np.cos(angles), np.sin(angles)], axis=-1)
        n_lines = min(LINES_PER_NUMBER * times * n, MOST_LINES)
        frames = [random_frames((1, n_blocks), n, rng) for _ in range(-(-n_lines // n))]
        return np.concatenate(frames, axis=2)[:, :, :n_lines]

    @property
    def n_points(self) -> int:
        """Upper bound of the gradients that the density at a point takes."""
        centring = 2 * self.block_size if self.block_size <= MOST_CENTRED else 0
        return centring + 1 + self.directions.shape[2] * (self.n_nodes - 1)

    def __call__(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Compute log-densities, shape (n_points,), -inf where they are nan; gradients are not computed, and nan."""
        values = np.empty(len(points))
        rule = gauss_rule(self.n_nodes, self.block_size)
        log_mean = log_of_directions(self.block_size) - np.log(self.directions.shape[2])
        for some in self._parts(len(points), self.n_points):
            local = self.centred(points[some])
            value, slopes = self.on_lines(points[some], local, self.directions, rule.nodes)
            terms = rule.log_terms(slopes)
            with np.errstate(all="ignore"):
                top = terms.max(axis=(-2, -1), keepdims=True)
                log_z = np.log(np.exp(terms - top).sum(axis=(-2, -1))) + top[..., 0, 0] + log_mean
                values[some] = value + local.log_scale + log_z.sum(axis=1)
        return np.where(np.isnan(values), -np.inf, values), np.full(points.shape, np.nan)

    def centred(self, points: np.ndarray) -> Local:
        """Centre and scale each group at some globals by natural-gradient steps."""
        normal, blocks = self.normal, self.normal.blocks
        z = np.linalg.solve(normal.shared, (points - normal.mean[blocks.shared]).T).T
        centre = normal.mean[blocks.members] + np.einsum("jbg,sg->sjb", normal.across, z)
        scale = np.broadcast_to(normal.within, (len(points), *normal.within.shape)).copy()
        diagonals = np.diagonal(normal.within, axis1=1, axis2=2)
        log_scale = np.full(len(points), np.log(diagonals).sum())
        left = np.arange(len(points) if self.block_size <= MOST_CENTRED else 0)
        for _ in range(MAX_STEPS):
            if not left.size:
                break
            shift, root = self._step(points[left], centre[left], scale[left])
            centre[left] += np.einsum("sjbc,sjc->sjb", scale[left], shift)
            scale[left] = np.einsum("sjbc,sjcd->sjbd", scale[left], root)
            logs = np.log(np.diagonal(root, axis1=2, axis2=3))
            log_scale[left] += logs.sum(axis=(1, 2))
            moved = (np.abs(shift) > FAR) | (np.abs(logs) > FAR_SDS)
            left = left[moved.any(axis=(1, 2))]
        return Local(centre, scale, log_scale)

    def _step(
        self, points: np.ndarray, centre: np.ndarray, scale: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return shift and root of a natural-gradient step, whitened, by cubature of degree 3."""
        n = self.block_size
        nodes = np.sqrt(n) * np.concatenate([np.eye(n), -np.eye(n)])
        away = np.einsum("sjbc,kc->skjb", scale, nodes)
        _, u = self._gradients(points, centre[:, None] + away)
        u = np.einsum("skjb,sjbc->skjc", u, scale)
        # Where the density ends, slopes of a standard normal pull back
        u = np.where(np.isfinite(u), u, -nodes[:, None])
        slope = -np.einsum("kb,skjc->sjbc", nodes, u) / (2 * n)
        inverse = _inverse_root((slope + slope.swapaxes(-1, -2)) / 2)
        to_mean = np.einsum("sjbc,sjc->sjb", inverse, u.mean(axis=1))
        shift = np.einsum("sjcb,sjc->sjb", inverse, to_mean)
        return np.clip(shift, -LONGEST, LONGEST), inverse.swapaxes(-1, -2)

    def on_lines(
        self, points: np.ndarray, local: Local, directions: np.ndarray, nodes: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Compute the slopes of the log-density on lines through the centre of each group.

        Parameters
        ----------
        points : array, shape (n, size)
        local : Local
        directions : array, shape (n or 1, n_blocks or 1, n_lines, block_size)
        nodes : array, shape (n_nodes,)

        Returns
        -------
        values : array, shape (n,)
            The log-density at the centres.
        slopes : array, shape (n, n_blocks, n_lines, n_nodes)
        """
        middle = len(nodes) // 2
        steps = np.delete(nodes, middle)
        along = np.einsum("sjbc,sjkc->sjkb", local.scale, directions)
        moved = steps[:, None, None] * along.swapaxes(1, 2)[:, :, None]
        shape = moved.shape  # n, n_lines, n_nodes - 1, n_blocks, block_size
        moved = moved.reshape(shape[0], -1, *shape[3:])
        moved = np.concatenate([np.zeros_like(moved[:, :1]), moved], axis=1)
        values, u = self._gradients(points, local.centre[:, None] + moved)
        slopes = np.einsum("skmjb,sjkb->sjkm", u[:, 1:].reshape(shape), along)
        at_centre = np.einsum("sjb,sjkb->sjk", u[:, 0], along)
        slopes = np.insert(slopes, middle, at_centre, axis=-1)
        return values[:, 0], finite_slopes(slopes, nodes)

    def _gradients(self, points: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return values, and gradients of groups, at globals and groups of shape (n, k, n_blocks, block_size)."""
        whole = self.normal.blocks.join(points[:, None], groups)
        values, gradients = self.logp(whole.reshape(-1, self.normal.size))
        _, found = self.normal.blocks.split(gradients)
        return values.reshape(groups.shape[:2]), found.reshape(groups.shape)

    def _parts(self, n: int, n_points: int) -> Iterator[slice]:
        """Yield slices of n points that take a bounded memory."""
        at_once = max(1, NUMBERS_AT_ONCE // (n_points * self.normal.size))
        return (slice(k, k + at_once) for k in range(0, n, at_once))

    def draw(self, points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Draw groups given globals, each on one of some random lines, chosen by its integral: shape (n, normal.size)."""
        n = self.block_size
        gauss, grid = gauss_rule(self.n_nodes, n), grid_rule(self.n_nodes, n)
        whole, n_lines = np.empty((len(points), self.normal.size)), min(n, LINES_OF_DRAW)
        for some in self._parts(len(points), max(n_lines * self.n_nodes, len(grid.places))):
            local = self.centred(points[some])
            frames = random_frames(local.centre.shape[:2], n, rng)[:, :, :n_lines]
            _, slopes = self.on_lines(points[some], local, frames, gauss.nodes)
            # By the Gumbel-max trick: the largest sum is at a line with the probability of its integral
            noise = rng.gumbel(size=slopes.shape[:3])
            chosen = (gauss.log_integral(slopes) + noise).argmax(axis=2)[:, :, None, None]
            [slopes, lines] = (
                np.take_along_axis(array, chosen, axis=2)[:, :, 0] for array in (slopes, frames)
            )
            away = grid.draw(slopes, rng)[..., None] * lines
            groups = local.centre + np.einsum("sjbc,sjc->sjb", local.scale, away)
            whole[some] = self.normal.blocks.join(points[some], groups)
        return whole

    def doubt(self, points: np.ndarray) -> Doubt | None:
        """Compare means and sds of groups as drawn with those by quadrature that reaches far out."""
        rules = grid_rule(self.n_nodes, self.block_size), wide_rule(self.block_size)
        found = np.array([[self._moments(point[None], rule) for rule in rules] for point in points])
        mean, square = found.mean(axis=0).swapaxes(0, 1)
        sd, right_sd = np.sqrt(np.maximum(square - mean**2, 1e-300))
        shift = np.abs(mean[0] - mean[1]) / np.minimum(sd, right_sd)
        times = right_sd / sd
        bad = np.maximum(shift / LARGEST_SHIFT, np.abs(np.log(times)) / LARGEST_LOG_SD)
        bad = np.nan_to_num(bad, nan=np.inf)
        at = np.unravel_index(bad.argmax(), bad.shape)
        if bad[at] <= 1:
            return None
        return Doubt(int(self.normal.blocks.members[at]), float(shift[at]), float(times[at]))

    def _moments(self, point: np.ndarray, rule: LineRule) -> tuple[np.ndarray, np.ndarray]:
        """Return first and second moments of each number of a group, whitened."""
        local = self.centred(point)
        _, slopes = self.on_lines(point, local, self.directions, rule.nodes)
        terms, lines = rule.log_terms(slopes[0]), self.directions[0]
        weights = np.exp(terms - terms.max(axis=(-2, -1), keepdims=True))
        weights /= weights.sum(axis=(-2, -1), keepdims=True)
        first, second = weights @ rule.places, weights @ rule.places**2
        return (first[..., None] * lines).sum(axis=1), (second[..., None] * lines**2).sum(axis=1)

    def error(self, points: np.ndarray) -> float:
        """Estimate the error of differences of log-densities, in nats, against finer quadrature."""
        finer = replace(self, level=self.level + 1)
        with np.errstate(invalid="ignore"):
            found = np.std(finer(points)[0] - self(points)[0])
        return float(found) if np.isfinite(found) else np.inf


def weigh_by_groups(
    logp: LogPosterior,
    normal: Arrow,
    rng: np.random.Generator,
    n_draws: int,
    watch: Callable[[WeightedDraws], None] = lambda now: None,
) -> WeightedDraws:
    """Draw globals from their marginal posterior, and `n_draws` groups given the globals.

    If no quadrature is accurate enough, and the numbers are few, all are weighted jointly. `watch` is called after each
    round.
    """
    marginal, is_good = _good_enough(logp, normal, rng)
    if not is_good and logp.size <= FEW_NUMBERS:
        return importance_sample(logp, normal, rng, watch)
    n = min(POINTS_OF_ROUND, NUMBERS_OF_ROUND // normal.size) // marginal.n_points
    n = int(np.clip(n, FEWEST_OF_ROUND, PER_ROUND))
    if marginal.size:
        found = importance_sample(marginal, normal.of_globals, rng, watch, per_round=n, enough=n)
    else:
        found = WeightedDraws(np.empty((n, 0)), np.empty((0, 0)), smoothed(np.zeros(n)))
    some = found.resampled(N_COMPARED, rng)
    source = f"by quadrature of groups with {marginal.n_nodes} nodes"
    error = WeightsError(marginal.error(some), source, LARGEST_SYSTEMATIC)
    whole = np.empty((0, 0))
    if found.weights.ess >= FEWEST:
        whole = marginal.draw(found.resampled(n_draws, rng), rng)
    return GroupDraws(
        found.points,
        found.gradients,
        found.weights,
        error,
        normal.blocks.shared,
        marginal.doubt(some[:N_COMPARED_WIDE]),
        whole,
        marginal,
    )


def _good_enough(
    logp: LogPosterior, normal: Arrow, rng: np.random.Generator
) -> tuple[Marginal, bool]:
    """Return the coarsest quadrature that is accurate enough and True, or the finest one and False."""
    marginal = Marginal(logp, normal, seed=int(rng.integers(2**30)))
    pilot = normal.of_globals.points(rng.normal(size=(N_COMPARED, marginal.size)))
    while True:
        if marginal.error(pilot) < LARGEST_ERROR and not marginal.doubt(pilot[:N_COMPARED_WIDE]):
            return marginal, True
        if marginal.level + 2 == len(LEVELS):
            return marginal, False
        marginal = replace(marginal, level=marginal.level + 1)


def _inverse_root(matrices: np.ndarray) -> np.ndarray:
    """Return inverses of Cholesky factors of precisions, which are made positive where they are not."""
    n, root, inverse = matrices.shape[-1], np.zeros_like(matrices), np.zeros_like(matrices)
    for k in range(n):
        before = root[..., k, :k] = np.einsum(
            "...ab,...b->...a", inverse[..., :k, :k], matrices[..., k, :k]
        )
        pivot = matrices[..., k, k] - (before**2).sum(axis=-1)
        scale = inverse[..., k, k] = np.maximum(positive(pivot), LEAST_PRECISION) ** -0.5
        inverse[..., k, :k] = -scale[..., None] * np.einsum(
            "...a,...ab->...b", before, inverse[..., :k, :k]
        )
    return inverse
