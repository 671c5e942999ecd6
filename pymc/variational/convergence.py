# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Convergence of a fit by steps: trends and noise of its parameters, and the verdict at its end.

Errors are in units in which they matter: standard deviations of the guide for its means, parts of them for
its standard deviations, and nats for the bound.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np

from pytensor.compile.sharedvalue import SharedVariable

from pymc.variational.guides.base import FlatGuide
from pymc.variational.report import Verdict

if TYPE_CHECKING:
    from pymc.variational.approximation import GuideApproximation

__all__ = [
    "LARGEST_MOVE",
    "LEAST_STEPS",
    "ConvergenceMonitor",
    "Trend",
    "mean_error",
    "sure_errors",
    "trend",
    "watched_entries",
]

#: The unit of an error of each entry of a parameter.
Scales: TypeAlias = Mapping[SharedVariable, np.ndarray]

#: The fewest steps with a verdict.
LEAST_STEPS = 200

#: Times at which parameters are recorded.
N_RECORDS = 64

#: The most entries that are watched, of each parameter.
MOST_WATCHED = 2048

#: The largest change of a converged parameter over a stretch, in its unit.
LARGEST_MOVE = 0.2

#: The largest way that a converged parameter has to go, in its unit, if it slows down as it did over two stretches; and the
#: slowest such slowing
LARGEST_LEFT, SLOWEST = 0.5, 0.98

#: A way at a constant speed that is too short to matter, however far it goes on
LEAST_MOVE = 1e-3

#: The largest error by the noise of steps, in the unit of a parameter.
LARGEST_NOISE = 0.3

#: The least rise of the bound, in nats, that counts.
LEAST_RISE = 0.5

#: A standard deviation beyond which numbers mean nothing, on the unconstrained space.
LARGEST_SD = 1e8

#: The chance that any slope counts as sure where all are 0
CHANCE = 1e-3

#: The part of the largest learning rate below which steps change nothing
LEAST_RATE = 1e-3

#: Means of a stretch to which a line is fitted.
N_BLOCKS = 16

TUNED = "obj_optimizer='tuned'"
AUTO = "or take pm.fit(method='auto')"
ADVICE = f"Take more steps, at a rate that falls, and their average: {TUNED}; {AUTO}"
AVERAGE = f"Average the later steps by average=0.5, at a rate that falls: {TUNED}; {AUTO}"

#: Names of parameters for messages.
KINDS = {"mu": "mean", "rho": "sd"}


class Trend(NamedTuple):
    """A line through each parameter over a stretch of a fit: arrays of shape (d,).

    `slope` is the change over the stretch, `se` its standard error, and `noise` the standard deviation about the line.
    """

    slope: np.ndarray
    se: np.ndarray
    noise: np.ndarray

    @property
    def is_sure(self) -> np.ndarray:
        """Whether a change cannot be by chance: shape (d,)."""
        return np.abs(self.slope) > sure_errors(self.slope.size) * self.se

    @property
    def moved(self) -> np.ndarray:
        """Size of the change of each, 0 where it may be by chance: shape (d,)."""
        return np.where(self.is_sure, np.abs(self.slope), 0.0)


@cache
def sure_errors(n: int) -> float:
    """Return the number of standard errors that the largest of `n` slopes exceeds by chance as rarely as `CHANCE`.

    By Student's t with 6 degrees of freedom, which the 8 pairs of blocks leave, and Bonferroni's rule.
    """
    low, high = 1.0, 1e6
    while high - low > 1e-6 * low:
        middle = (low + high) / 2
        square = 6 / (middle**2 + 6)  # of the cosine
        inside = (1 - square) ** 0.5 * (1 + square / 2 + 3 * square**2 / 8)
        low, high = (middle, high) if 1 - inside > CHANCE / max(n, 1) else (low, middle)
    return high


def trend(window: np.ndarray, rates: np.ndarray | None = None) -> Trend:
    """Fit a line to each parameter over a stretch, an array of shape (n, d).

    With learning rates of the stretch, the line is along their sum: the path of parameters that are far away is straight then.
    """
    blocks = _block_means(window, N_BLOCKS)
    if rates is None or not rates.any():
        rates = np.ones(len(window))
    time = _block_means(np.cumsum(rates)[:, None], N_BLOCKS)
    # Errors come from pairs of blocks, since neighbours are correlated
    n_pairs = len(blocks) // 2
    pairs, time_of_pairs = (
        values[: 2 * n_pairs].reshape(n_pairs, 2, -1).mean(axis=1) for values in (blocks, time)
    )
    of_pairs, of_blocks = _unit_time(time_of_pairs), _unit_time(time)
    centered = pairs - pairs.mean(axis=0)
    square = of_pairs @ of_pairs
    slope = of_pairs @ centered / square
    residual = centered - of_pairs[:, None] * slope
    se = np.sqrt((residual**2).sum(axis=0) / (n_pairs - 2) / square)
    noise = (blocks - blocks.mean(axis=0) - of_blocks[:, None] * slope).std(axis=0)
    return Trend(slope, se, noise)


def _unit_time(time: np.ndarray) -> np.ndarray:
    """Return times of shape (n, 1) as a vector around 0, from the first to the last a unit apart."""
    flat = time[:, 0] - time.mean()
    return flat / (flat[-1] - flat[0])


def way_left(before: Trend, now: Trend, slowed: float = 1.0) -> np.ndarray:
    """Return how far each parameter still moves, if each stretch has the same part of the move before: shape (d,).

    A parameter far from its optimum moves by little, if steps are small, but no slower than before. With the learning rate
    `slowed` to a part of what it was before, it moves slower for that alone: the way is that at the rate before.
    """
    with np.errstate(all="ignore"):
        errors = [each.se / np.abs(each.slope) for each in (before, now)]
        # At least, within two standard errors
        least = 1 - 2 * np.hypot(*errors)
        part = np.clip(np.nan_to_num(now.slope / slowed / before.slope * least), 0, SLOWEST)
    left = np.where(before.is_sure, now.moved, 0.0) / slowed * part / (1 - part)
    # At a constant rate, what is no slower at all has not begun to arrive
    is_far = (left > LEAST_MOVE) & (part == SLOWEST) & (slowed > 0.9)
    return np.where(is_far, np.inf, left)


class Way(NamedTuple):
    """How far each parameter moved over a stretch, and how far it still moves, at the rate of the stretch before."""

    slope: np.ndarray
    left: np.ndarray
    slowed: float


def _way_of_stretch(records: np.ndarray, rates: np.ndarray) -> Way:
    """Return the way of the second half of some records."""
    n = len(records) // 2
    before, now = trend(records[:n], rates[:n]), trend(records[n:], rates[n:])
    slowed = np.clip(np.nan_to_num(rates[n:].sum() / rates[:n].sum(), nan=1.0), 1e-3, 1)
    return Way(now.slope, way_left(before, now, float(slowed)), float(slowed))


def mean_error(window: np.ndarray) -> np.ndarray:
    r"""Return the standard error of the mean of each parameter over a stretch, of shape (n, d).

    From means over up to 32 parts it is :math:`s \sqrt{(1 + r) / (1 - r) / n}`, where r is the correlation of
    neighbours, without its bias in few values (Kendall 1954, "Note on bias in the estimation of
    autocorrelation").
    """
    blocks = _block_means(window, 2 * N_BLOCKS)
    n, residual = len(blocks), blocks - blocks.mean(axis=0)
    squares = (residual**2).sum(axis=0)
    r = (residual[1:] * residual[:-1]).sum(axis=0) / np.where(squares > 0, squares, 1)
    r = np.clip(r + (1 + 3 * r) / n, 0, 0.95)
    return np.sqrt(squares / (n - 1) / n * (1 + r) / (1 - r))


def _block_means(window: np.ndarray, n: int) -> np.ndarray:
    """Return the means of `n` successive parts of a stretch, or all of it if it is shorter."""
    if len(window) <= n:
        return window
    starts = np.arange(n) * len(window) // n
    sums = np.add.reduceat(window, starts, axis=0)
    return sums / np.diff(starts, append=len(window))[:, None]


def watched_entries(n: int, most: int) -> np.ndarray:
    """Return all of `n` entries, or the same random `most` of them each time."""
    if n <= most:
        return np.arange(n)
    return np.sort(np.random.default_rng(0).choice(n, most, replace=False))


class ConvergenceMonitor:
    """Records the parameters of a fit of `n_steps` now and then, for a verdict at its end.

    `shared` are the variables of the step, in the order of its state. It records after each `every` steps, or after
    rounds of `at_once`. `rates` returns the learning rate, up to a factor, at an array of steps of this fit.
    """

    def __init__(
        self,
        approx: GuideApproximation,
        shared: Sequence[SharedVariable],
        n_steps: int,
        rates: Callable[[np.ndarray], np.ndarray] = np.ones_like,
        at_once: int = 1,
    ) -> None:
        self._rates, self._at_once = rates, at_once
        self._n_rounds = -(-n_steps // at_once)
        self.every = max(1, n_steps // N_RECORDS)
        self._approx = approx
        self._params = [p for p in approx.parameter_scales() if p in shared]
        self._places = [shared.index(p) for p in self._params]
        sizes = [int(np.size(p.get_value(borrow=True))) for p in self._params]
        self._entries = [watched_entries(size, MOST_WATCHED) for size in sizes]
        self._records: list[np.ndarray] = []

    def record(self, state: Sequence[object]) -> None:
        """Record the parameters in the state of a driver."""
        self._records.append(self._flat([np.asarray(state[i]) for i in self._places]))

    def _flat(self, values: Sequence[np.ndarray]) -> np.ndarray:
        parts = [np.ravel(v)[entries] for v, entries in zip(values, self._entries)]
        return np.concatenate(parts).astype("float64") if parts else np.empty(0)

    def verdict(
        self, losses: np.ndarray, loss_factor: float | None, averaged: float | None
    ) -> Verdict | None:
        """Return whether the fit has converged; None if too little is known.

        `losses` are empty for a fit without a score. `averaged` is the last part of the steps, if the parameters
        are averages over it.
        """
        if self._n_rounds < N_RECORDS // 2:
            return _not_converged(
                f"{self._n_rounds} rounds are too few to tell",
                f"Take more steps, or shorter rounds, so that a fit has {N_RECORDS // 2} or more",
            )
        if len(self._records) < N_RECORDS // 2:
            return None
        scales = self._approx.parameter_scales()
        # Some parameters have no known scale, or are those of rows: the bound stands for them. A rate that
        # falls lets the bound of others rise, too
        needs_bound = bool(self._approx.tables) or len(self._params) < len(
            self._approx.dense_params
        )
        problem = self._diverged(scales) or self._unchanged() or self._moved(scales, averaged)
        if problem is None and needs_bound:
            problem = _bound_rises(losses, loss_factor)
        if problem is not None:
            return problem
        if not self._params and not len(losses):
            return None
        what = ["the parameters"] * bool(self._params) + ["the bound"] * needs_bound
        return Verdict(
            None, f"over the last quarter of the steps {' and '.join(what)} did not move"
        )

    def _unchanged(self) -> Verdict | None:
        first = self._records[0]
        if not self._params or any((values != first).any() for values in self._records):
            return None
        return _not_converged(
            "no step has changed a parameter, as where the learning rate is 0 after a schedule has ended",
            "Make another fit with all steps, pm.fit(n, obj_optimizer='tuned'), and no refine",
        )

    def _diverged(self, scales: Scales) -> Verdict | None:
        for guide in self._approx.guides:
            if not isinstance(guide, FlatGuide) or not guide.has_moments or guide.layout.plate:
                continue
            mu = self._approx.storage.dense.get(guide.params_by_name.get("mu"))  # type: ignore[arg-type]
            if mu is None or mu not in self._params:
                continue
            sds = scales[mu]
            k = int(np.argmax(sds))
            if sds[k] > LARGEST_SD:
                return _not_converged(
                    f"the standard deviation of {guide.layout.entry(k)!r} is {sds[k]:.2g}, where numbers mean nothing",
                    "Take a smaller learning rate, standardised data, or pm.fit(method='auto')",
                )
        return None

    def _moved(self, scales: Scales, averaged: float | None) -> Verdict | None:
        """Return the problem that parameters still move, or that the last step's are noisy."""
        if not self._params:
            return None
        records = np.array(self._records)
        units = self._flat([scales[p] for p in self._params])
        with np.errstate(all="ignore"):
            records /= units
            steps = max(self.every, self._at_once) * np.arange(1, len(records) + 1)
            rates = np.abs(self._rates(steps))
            # Once the rate is 0, parameters stand still wherever they are
            n_live = 1 + int(np.flatnonzero(rates >= LEAST_RATE * rates.max())[-1])
            records, rates = records[:n_live], rates[:n_live]
            if n_live < N_RECORDS // 4:
                return _not_converged(
                    f"the learning rate was 0 after {100 * n_live // len(steps)} % of the steps, too few to tell",
                    ADVICE,
                )
            last_quarter = trend(records[-max(n_live // 4, 4) :])
            stretches = {"last quarter": n_live // 4, "second half": n_live // 2}
            ways = {
                what: _way_of_stretch(records[-2 * n :], rates[-2 * n :])
                for what, n in stretches.items()
            }
            moved, noise = np.nan_to_num(last_quarter.moved), np.nan_to_num(last_quarter.noise)
            if averaged:
                n_last = max(N_RECORDS // 8, round(averaged * len(records)))
                noise = np.nan_to_num(mean_error(records[-n_last:]))
        k = int(moved.argmax())
        if moved[k] > LARGEST_MOVE:
            return _not_converged(
                f"{self._name(k)} still moved by {moved[k]:.2g} of its sd over the last quarter of the steps",
                ADVICE,
            )
        for what, way in ways.items():
            k = int(way.left.argmax())
            if way.left[k] > LARGEST_LEFT:
                at_rate = " for the learning rate that it had" if way.slowed < 0.9 else ""
                return _not_converged(
                    f"{self._name(k)} moved by {abs(way.slope[k]):.2g} of its sd over the {what} of the steps, and hardly "
                    f"slower than before{at_rate}: it may have {_far(way.left[k])} to go",
                    ADVICE,
                )
        k = int(noise.argmax())
        if noise[k] > LARGEST_NOISE:
            what, advice = (
                ("the average", ADVICE) if averaged else ("the last step's value", AVERAGE)
            )
            return _not_converged(
                f"{what} of {self._name(k)} is off by about {noise[k]:.2g} of its sd, by the noise of the steps",
                advice,
            )
        return None

    def _name(self, k: int) -> str:
        """Return the name of a watched number, such as "the mean of 'x'"."""
        n_before = np.cumsum([0, *map(len, self._entries)])
        i = int(np.searchsorted(n_before, k, side="right")) - 1
        param, entry = self._params[i], int(self._entries[i][k - n_before[i]])
        for guide in self._approx.guides:
            if not isinstance(guide, FlatGuide):
                continue
            for name, parameter in guide.params_by_name.items():
                if self._approx.storage.dense.get(parameter) is param and name in KINDS:
                    return f"the {KINDS[name]} of {guide.layout.entry(entry % guide.layout.size)!r}"
        return f"the parameter {param.name}"


def _far(left: float) -> str:
    return f"{left:.2g}" if np.isfinite(left) else "far"


def _bound_rises(losses: np.ndarray, loss_factor: float | None) -> Verdict | None:
    if len(losses) < LEAST_STEPS:
        return None
    last_quarter = trend(losses[-(len(losses) // 4) :, None] / (loss_factor or 1.0))
    rise = float(-last_quarter.slope[0])
    if not last_quarter.is_sure[0] or rise <= LEAST_RISE:
        return None
    return _not_converged(
        f"the bound still rose by {rise:.2g} nats over the last quarter of the steps", ADVICE
    )


def _not_converged(reason: str, advice: str) -> Verdict:
    return Verdict(None, reason, advice, converged=False)
