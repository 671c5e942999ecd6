# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""The verdict of an automatic fit: trusted or not, and why."""

from __future__ import annotations

from functools import partial

import numpy as np

from pymc.logprob.transforms import IntervalTransform, LogTransform
from pymc.variational.auto.importance_sampling import WeightedDraws
from pymc.variational.auto.modes import SAME, Modes
from pymc.variational.auto.natural_gradient import Climb
from pymc.variational.guides.base import Layout, Site
from pymc.variational.pareto_smoothing import smoothed
from pymc.variational.report import Verdict

__all__ = ["judge"]

#: The fewest effective draws of a trusted fit.
LEAST_ESS = 400

#: Effective draws of a variance that are enough; with fewer, the largest Pareto k-hat of weights times squares.
LEAST_ESS_OF_SQUARES, LARGEST_KHAT_OF_SQUARES = 100, 0.7

#: Largest difference of logarithms, whose exponential has a finite square, and a term that keeps squares positive.
LARGEST_LOG, TINY = 300.0, 1e-300

#: Largest Pareto k-hat of the weights, and the largest after more than so many draws.
LARGEST_KHAT, AFTER_MANY, MANY = 0.5, 0.3, 10_000


def judge(
    layout: Layout,
    now: Climb | None,
    modes: Modes | None,
    draws: WeightedDraws | None,
    stopped: str,
) -> Verdict:
    """Judge whether a fit can be trusted, which ended for the reason `stopped`.

    `draws` are None if it ended before the importance sampling.
    """
    if draws is None or now is None or modes is None:
        return Verdict(
            False,
            f"the fit was stopped before it was done ({stopped})",
            "Go on by refine, or give it a larger budget",
            converged=False,
        )
    khat, ess = draws.weights.khat, draws.weights.ess
    found = partial(Verdict, converged=now.converged, khat=khat, ess=ess)
    if modes.others:
        where, gap = modes.farthest()
        differs = f"in {layout.entry(where)!r} one is {gap:.2g} sd away"
        if gap < SAME:
            where, times = modes.widest()
            differs = f"the sds of {layout.entry(where)!r} differ by a factor of {times:.2g}"
        return found(
            False,
            f"fits from other starts end elsewhere, and as good: {differs}. The posterior has several modes, of "
            "which the draws are one, or is far from a normal distribution",
            "Order the components of a mixture (transform=pm.distributions.transforms.ordered), fix signs by "
            "priors, write a hierarchy in its non-centred form, or sample with pm.sample_smc",
        )
    if draws.error.se > draws.error.largest:
        return found(
            False,
            f"not known: the log-weights of draws, {draws.error.source}, have an error of {draws.error.se:.2g} nats",
            "Compare with pm.variational.diagnose(approx.normal, n_rows=...), or with pm.sample",
        )
    if draws.doubt is not None:
        doubt = draws.doubt
        return found(
            False,
            f"the posterior of groups is too far from a normal distribution, most of all in "
            f"{layout.entry(doubt.number)!r}: given the globals its mean is {doubt.shift:.2g} sd, and its sd "
            f"{doubt.times:.2g} times, that of the draws",
            "Take a prior of groups that is closer to a normal distribution, another parametrisation, or pm.sample",
        )
    limit = LARGEST_KHAT if len(draws.points) <= MANY else AFTER_MANY
    if ess >= LEAST_ESS and (khat < limit or draws.weights.about_equal):
        where, n_squares, of_squares = _worst_variance(layout, draws)
        if of_squares > LARGEST_KHAT_OF_SQUARES:
            return found(
                False,
                f"the sd of {layout.entry(where)!r} is not known: it depends on {n_squares:.0f} draws in a heavy tail, "
                f"whose Pareto k-hat is {of_squares:.2f} for weights times squares, and {khat:.2f} for weights",
                "Take a prior with a lighter tail, another parametrisation, or pm.sample",
            )
        return found(True, f"{ess:,.0f} effective draws of the posterior, Pareto k-hat {khat:.2f}")
    worst = layout.entry(_least_normal(layout, now, draws))
    return found(
        False,
        f"the posterior is too far from a normal distribution, most of all in {worst!r}: importance weights "
        f"leave {ess:,.0f} effective draws, Pareto k-hat {khat:.2f}",
        "Try another parametrisation, such as the non-centred form of a hierarchy, guide=pm.NormalizingFlow(), or "
        "pm.sample",
    )


def _worst_variance(layout: Layout, draws: WeightedDraws) -> tuple[int, float, float]:
    """Return the index of the least accurate variance, its effective draws, and its Pareto k-hat.

    The k-hat is that of weights times squared distances from the mean, on the constrained scale for positive variables;
    -inf if the effective draws are enough.
    """
    worst = (0, np.inf, -np.inf)
    for points, log_weights, numbers in draws.parts(layout.size):
        probabilities = np.exp(log_weights)
        for site, part in zip(layout.sites, layout.slices):
            columns = np.flatnonzero((numbers >= part.start) & (numbers < part.stop))
            values = points[:, columns]
            # The variance of exp(value) may be infinite where that of the value is not
            if _is_exponential(site):
                away = values - probabilities @ values
                values = np.exp(np.minimum(away, LARGEST_LOG))  # up to a factor
            squares = (values - probabilities @ values) ** 2
            products = probabilities[:, None] * squares
            ess = products.sum(axis=0) ** 2 / (products**2).sum(axis=0)
            for k in np.flatnonzero(ess < LEAST_ESS_OF_SQUARES):
                khat = smoothed(log_weights + np.log(squares[:, k] + TINY)).khat
                found = (int(numbers[columns[k]]), float(ess[k]), khat)
                worst = max(worst, found, key=lambda found: found[2])
    return worst


def _is_exponential(site: Site) -> bool:
    """Return True if a variable is the exponential of its value, up to a bound and a sign."""
    if isinstance(site.transform, IntervalTransform):
        lower, upper = site.transform.args_fn(*site.rv.owner.inputs)
        return (lower is None) != (upper is None)
    return isinstance(site.transform, LogTransform)


def _least_normal(layout: Layout, now: Climb, draws: WeightedDraws) -> int:
    """Return the index of the number along which the posterior differs most from the normal, by its gradients."""
    [(_, _, numbers), *_] = draws.parts(layout.size)
    normal = now.normal
    if not np.isfinite(draws.gradients).any():  # without gradients: the most skewed
        probabilities = draws.probabilities
        away = draws.points - probabilities @ draws.points
        skewness = probabilities @ away**3 / (probabilities @ away**2 + TINY) ** 1.5
        return int(numbers[np.abs(skewness).argmax()])
    noise = normal.whitened(draws.points)
    typical = (noise**2).sum(axis=1) < 2 * normal.size + 4
    usable = typical & np.isfinite(draws.gradients).all(axis=1)
    excess = (draws.gradients + normal.restoring(noise))[usable] * normal.sd
    return int(numbers[(excess**2).mean(axis=0).argmax()])
