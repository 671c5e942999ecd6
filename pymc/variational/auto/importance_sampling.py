# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Adaptive importance sampling: weighted draws of the posterior, from a normal that is close to it.

Each round draws from a Student-t distribution with the mean and covariance of the weighted draws so far, and stretches a
part of the draws far out along one coordinate: in many dimensions no other draw would see a tail. The weights of all
draws are relative to the mixture of all rounds (Cornuet et al. 2012, "Adaptive multiple importance sampling"), and are
Pareto-smoothed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from scipy.special import gammaln

from pymc.variational.auto.normal import Normal
from pymc.variational.pareto_smoothing import Smoothed, smoothed

__all__ = ["Density", "Doubt", "Proposal", "WeightedDraws", "WeightsError", "importance_sample"]


#: Degrees of freedom of the proposals, and after a heavy tail was seen.
DOF, HEAVY_DOF = 7.0, 3.0

#: Draws per round.
PER_ROUND = 2000

#: The fewest and the most rounds, and the most rounds for the sake of variances alone.
ROUNDS, ROUNDS_FOR_TAILS = (2, 10), 5

#: Numbers in all draws; larger points have fewer draws.
MOST_NUMBERS = 20_000_000

#: Effective draws, and the Pareto k-hat, that end the sampling.
ENOUGH, LIGHT_TAIL = 2000, 0.5

#: Effective draws of a variance that are enough; other coordinates get more draws far out.
ENOUGH_IN_TAILS = 200

#: Distances in sds at which tails are probed, and the heaviness that counts as one.
FAR_OUT, LEAST_HEAVINESS = (6.0, 12.0, 24.0), 1e-3

#: Share of effective draws if no sd is off by a tenth.
NO_CORRECTION = 0.98

#: Effective draws per number of a point from which a covariance can be estimated.
PER_NUMBER = 5

#: The fewest effective draws that replace those of the normal.
FEWEST = 100

#: Factor by which the proposal widens if the draws are too few for a covariance.
WIDER = 1.2


class Density(Protocol):
    """A log-density such as :class:`~pymc.variational.auto.log_posterior.LogPosterior`."""

    @property
    def size(self) -> int: ...

    def __call__(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]: ...


@dataclass(frozen=True)
class WeightsError:
    """Error of log-weights that are estimated."""

    se: float = 0.0  # standard error of differences between log-weights, in nats
    source: str = ""  # how they were estimated, for messages
    largest: float = 0.3  # error above which the weights are unknown


@dataclass(frozen=True)
class Doubt:
    """A number whose distribution given the globals is inaccurate."""

    number: int
    shift: float  # error of its mean in sds
    times: float  # ratio of its accurate sd to that of the draws


@dataclass(frozen=True, eq=False)
class WeightedDraws:
    """Draws in the unconstrained space with importance weights for the posterior."""

    points: np.ndarray  # (n_draws, n_numbers)
    gradients: np.ndarray  # of the log-density, (n_draws, n_numbers); empty or nan if not computed
    weights: Smoothed
    error: WeightsError = WeightsError()
    numbers: np.ndarray | None = None  # indices of the numbers that the points have; None for all
    doubt: Doubt | None = None  # the least accurate of the other numbers

    @property
    def probabilities(self) -> np.ndarray:
        return np.exp(self.weights.log_weights)

    @property
    def needs_no_correction(self) -> bool:
        """True if the unweighted draws are as good as the weighted."""
        return self.weights.ess > NO_CORRECTION * len(self.points)

    def parts(self, size: int) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Return draws, their log-weights, and the indices of their numbers among `size`."""
        numbers = np.arange(size) if self.numbers is None else self.numbers
        return [(self.points, self.weights.log_weights, numbers)]

    def in_tails(self, normal: Normal) -> np.ndarray:
        """Return the effective draws of the variance along each whitened coordinate, shape (size,)."""
        z, p = normal.whitened(self.points), self.probabilities
        parts = p[:, None] * (z - p @ z) ** 2
        return parts.sum(axis=0) ** 2 / (parts**2).sum(axis=0)

    def meets(self, optimum: Normal) -> bool:
        """Return True if draws are known to come near another optimum, so that the weights include its mass."""
        return False

    def resampled(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Resample systematically, in the order of the distance from the mean.

        So each draw comes as often as expected, up to one, and so do the draws far out. A draw does not come if less than
        half a draw is expected from its distance outwards.
        """
        p = self.probabilities
        away = self.points - p @ self.points
        order = np.argsort(((away / np.sqrt(p @ away**2)) ** 2).sum(axis=1))
        steps = (0.5 + np.arange(n)) / n
        at = np.searchsorted(np.cumsum(p[order]), steps * (1 - 1e-12))
        return self.points[order[rng.permutation(np.minimum(at, len(order) - 1))]]


def importance_sample(
    logp: Density,
    normal: Normal,
    rng: np.random.Generator,
    watch: Callable[[WeightedDraws], None] = lambda now: None,
    *,
    per_round: int = PER_ROUND,
    enough: int = ENOUGH,
) -> WeightedDraws:
    """Sample the posterior by adaptive importance sampling, from a normal close to it.

    `watch` is called after each round of `per_round` draws, or fewer of large points. `enough` effective draws end the
    sampling.
    """
    least, most = ROUNDS
    per_round = int(np.clip(MOST_NUMBERS // (most * logp.size), PER_ROUND // 10, per_round))
    most = int(np.clip(MOST_NUMBERS // (per_round * logp.size), least, most))
    proposals: list[Proposal] = []
    dof, heaviness = max(DOF, logp.size / 10), _heaviness(logp, normal)
    shares = _shares(heaviness)
    points, values, gradients = (
        np.empty((0, *shape)) for shape in ((logp.size,), (), (logp.size,))
    )
    densities = np.empty((0, 0))  # of each proposal at each draw
    while True:
        proposal = Proposal(normal, dof, shares)
        drawn = proposal.draw(per_round, rng)
        found, slopes = logp(drawn)
        proposals.append(proposal)
        old = proposal.log_density(points)[None]
        new = np.array([each.log_density(drawn) for each in proposals])
        densities = np.concatenate([np.concatenate([densities, old]), new], axis=1)
        points, values, gradients = (
            np.concatenate(pair) for pair in ((points, drawn), (values, found), (gradients, slopes))
        )
        log_mixture = np.logaddexp.reduce(densities) - np.log(len(proposals))
        now = WeightedDraws(points, gradients, smoothed(values - log_mixture))
        watch(now)
        ess, khat, n_rounds = now.weights.ess, now.weights.khat, len(proposals)
        in_tails = now.in_tails(normal)
        tails = in_tails.min() > ENOUGH_IN_TAILS or n_rounds >= ROUNDS_FOR_TAILS
        known = ess > enough and khat < LIGHT_TAIL and tails
        if n_rounds >= most or (n_rounds >= least and known):
            return now
        if khat >= LIGHT_TAIL and n_rounds >= least:
            dof = max(HEAVY_DOF, logp.size / 20)
        if ess > FEWEST:
            shares = _shares(heaviness + np.maximum(ENOUGH_IN_TAILS / in_tails - 1, 0))
        normal = _adapted(normal, now)


def _heaviness(logp: Density, normal: Normal) -> np.ndarray:
    """Return the share of the variance along each whitened coordinate that is far out, from 0 to 1.

    It is estimated from the density on the axes; a normal distribution has less than 1e-5.
    """
    steps = np.array([step for far in FAR_OUT for step in (far, -far)])
    noise = (steps[:, None, None] * np.eye(normal.size)).reshape(-1, normal.size)
    centre, far = logp(normal.mean[None])[0], logp(normal.points(noise))[0]
    with np.errstate(invalid="ignore"):
        ratios = np.exp(np.minimum(far - centre, 0)).reshape(len(steps), -1)
    return np.nan_to_num(np.minimum(np.abs(steps**3) @ ratios, 1))


def _shares(weights: np.ndarray) -> np.ndarray:
    """Return probabilities for stretching each coordinate: half of it uniform, half by the weights."""
    alike, total = np.full(len(weights), 1 / len(weights)), weights.sum()
    return alike if total < LEAST_HEAVINESS else (alike + weights / total) / 2


def _adapted(normal: Normal, draws: WeightedDraws) -> Normal:
    """Return the next proposal: from the weighted draws, or wider if they are too few."""
    if draws.weights.ess >= PER_NUMBER * normal.n_fitted:
        try:
            return normal.of_draws(draws.points, draws.probabilities)
        except np.linalg.LinAlgError:  # draws that lie in a plane, up to rounding
            pass
    return normal.at(normal.mean, WIDER)


#: Share of the draws that are stretched along one coordinate.
STRETCHED = 0.2


@dataclass(frozen=True, eq=False)
class Proposal:
    """A mixture of a Student-t distribution and of normal draws stretched along one coordinate.

    The stretched coordinate is Cauchy, heavier than any tail with a finite variance.
    """

    normal: Normal  # mean and scale
    dof: float  # degrees of freedom of the Student-t distribution
    shares: np.ndarray  # (size,): probabilities for stretching each whitened coordinate

    def draw(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Draw points, shape (n, size)."""
        n_stretched = round(STRETCHED * n)
        z = rng.normal(size=(n, self.normal.size))
        student, stretched = np.split(z, [n - n_stretched])
        student *= np.sqrt(self.dof / rng.chisquare(self.dof, size=(len(student), 1)))
        along = rng.choice(self.normal.size, size=n_stretched, p=self.shares)
        stretched[np.arange(n_stretched), along] = rng.standard_cauchy(n_stretched)
        return self.normal.points(z)

    def log_density(self, points: np.ndarray) -> np.ndarray:
        """Return the log-density at points in nats."""
        squares, size = self.normal.whitened(points) ** 2, self.normal.size
        squared = squares.sum(axis=1)
        normal = -0.5 * squared - size / 2 * np.log(2 * np.pi)
        with np.errstate(divide="ignore"):
            log_shares = np.log(self.shares)
        # Log-ratio of the Cauchy and the normal density, for each coordinate
        excess = 0.5 * squares - np.log1p(squares) + 0.5 * np.log(2 / np.pi)
        stretched = normal + np.logaddexp.reduce(excess + log_shares, axis=1)
        constant = gammaln((self.dof + size) / 2) - gammaln(self.dof / 2)
        constant -= size / 2 * np.log(self.dof * np.pi)
        student = constant - (self.dof + size) / 2 * np.log1p(squared / self.dof)
        found = np.logaddexp(np.log1p(-STRETCHED) + student, np.log(STRETCHED) + stretched)
        return found - self.normal.log_scale
