# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Diagnosis of a fitted approximation by Pareto-smoothed importance sampling."""

from __future__ import annotations

import logging

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytensor

from pytensor.compile.mode import Mode
from pytensor.graph.basic import Variable
from pytensor.graph.traversal import ancestors

from pymc.argument_checks import check_int
from pymc.minibatch.axis_tracking import Rows
from pymc.minibatch.plates import model_indexes
from pymc.minibatch.scaling import RowRatio
from pymc.model.full_data import full_data_model, is_streamed
from pymc.pytensorf import resolve_backend_compile_kwargs
from pymc.util import RandomState, _get_seeds_per_chain
from pymc.variational.approximation import GuideApproximation
from pymc.variational.display import Status, card
from pymc.variational.local_params.table import rows_in_all
from pymc.variational.pareto_smoothing import ABOUT_EQUAL, smoothed
from pymc.variational.posterior.log_weights import (
    LogDensity,
    SubsampledLogDensity,
    global_draws,
    joint_log_weights,
    log_density,
)

__all__ = ["Diagnosis", "diagnose"]

_MIN_DRAWS = 100
_FEWEST_ROWS = 200
# Log-ratios that differ by less are equal: no expectation could show it
_EQUAL = 1e-8


@dataclass(frozen=True, eq=False)
class Diagnosis:
    r"""Result of :func:`diagnose`; `print` it for a sentence.

    Parameters
    ----------
    khat : float
        Estimate of the shape k of the tail of the ratios, whose moments of order 1/k and above are
        infinite. If no Pareto distribution fits: -inf for ratios that are about equal, and inf if a few
        draws have all the weight.
    ess : float
        Effective sample size of the smoothed weights; it means little if `khat` is above `threshold`.
    elbo : float
        Estimate of the evidence lower bound, in nats: the mean of `log_weights`.
    elbo_se : float
        Its standard error, from the number of draws.
    log_weights : array of float64, shape (n_draws,)
        :math:`\log p(y, z) + \log |\partial \theta / \partial z| - \log q(z)`, in nats, where z is
        a draw on the unconstrained space and θ the model's variables.
    smoothed_log_weights : array of float64, shape (n_draws,)
        The same, Pareto-smoothed and normalised: their exponentials sum to 1.
    points : mapping of str to array, shape (n_draws, ...)
        The draws, by name of the value variable, on the unconstrained space. Draws of rows are left out
        if they take over 270 MB.
    n_rows : int, optional
        Number of rows of the log-likelihood, if it was not computed for all.
    elbo_rows_se : float
        The standard error of `elbo` from these rows; 0 for all rows.
    log_weights_se : float
        The standard error of differences between log-weights from these rows.
    wider : float, optional
        Width of the approximation in units of that of the posterior, if the approximation is wider in all
        directions and most differences between ratios come from that; else None.

    Examples
    --------
    >>> with pm.Model():
    ...     x = pm.Normal("x", 1, 2)
    ...     approx = pm.MeanField(start={"x": 1.0}, start_sigma={"x": 2.0})
    >>> diagnosis = pm.variational.diagnostics.diagnose(approx, draws=100, random_seed=1)
    >>> diagnosis.log_weights.shape
    (100,)
    """

    khat: float
    ess: float
    elbo: float
    elbo_se: float
    log_weights: np.ndarray = field(repr=False)
    smoothed_log_weights: np.ndarray = field(repr=False)
    points: Mapping[str, np.ndarray] = field(repr=False)
    n_rows: int | None = None
    elbo_rows_se: float = 0.0
    log_weights_se: float = 0.0
    wider: float | None = None

    @property
    def n_draws(self) -> int:
        """Number of draws of the approximation."""
        return len(self.log_weights)

    @property
    def threshold(self) -> float:
        """Largest `khat` with reliable weights for this number of draws: min(1 - 1/log10(S), 0.7)."""
        return min(1 - 1 / np.log10(self.n_draws), 0.7)

    @property
    def verdict(self) -> str:
        """Either "good", "usable" with its weights, "unreliable", or "unknown" from too few rows.

        A good one has a small `khat`, and an `ess` of half of its draws at least; or an `ess` of 0.9 of its
        draws, with any tail, which then has no weight.
        """
        if self.log_weights_se > _largest_se(self.log_weights):
            return "unknown"
        if self.ess > ABOUT_EQUAL * self.n_draws:
            return "good"
        if self.khat < 0.5 and self.ess >= self.n_draws / 2:
            return "good"
        return "usable" if self.khat < self.threshold else "unreliable"

    def __str__(self) -> str:
        rows = of_rows = ""
        if self.n_rows is not None:
            rows = f" and {self.n_rows:,} rows"
            of_rows = f" (draws) ± {_digits(self.elbo_rows_se)} (rows)"
        found = f"Pareto k-hat {self.khat:.2f} from {self.n_draws:,} draws{rows}"
        if self.khat == np.inf or np.isnan(self.khat):
            found = f"No Pareto k-hat from {self.n_draws:,} draws{rows}, of which few have all the weight"
        elbo = f"ELBO {self.elbo:,.2f} ± {_digits(self.elbo_se)}{of_rows} nats"
        if self.verdict != "unknown":
            elbo += f"; with their weights the draws are worth {self.ess:,.0f} of the posterior"
        return f"{found}: {self._sentence()}. {elbo}."

    def _repr_html_(self) -> str:
        verdict = self.verdict
        good = None if verdict == "unknown" else verdict != "unreliable"
        rows = {
            "Pareto k-hat": f"{self.khat:.2f}, reliable below {self.threshold:.2f}",
            "Effective draws": f"{self.ess:,.0f} of {self.n_draws:,}",
            "ELBO": f"{self.elbo:,.2f} ± {_digits(self.elbo_se)} nats",
        }
        if self.n_rows is not None:
            rows["Rows"] = f"{self.n_rows:,}, an error of {_digits(self.elbo_rows_se)} nats"
        return card("Diagnosis", Status(verdict, good, f"{self._sentence()}."), rows)

    def _sentence(self) -> str:
        if self.verdict == "unknown":
            return (
                f"not known, since so few rows leave an error of {_digits(self.log_weights_se)} nats in the "
                f"log-weights, and the largest useful one is {_digits(_largest_se(self.log_weights))}. Take "
                "more rows, by n_rows="
            )
        if self.verdict == "good" or self.wider is None:
            return _SENTENCES[self.verdict]
        return _WIDER[self.verdict].format(_digits(self.wider))


#: The largest error of log-weights with a verdict, in nats, or in their standard deviations.
LARGEST_SE = 0.3

#: Rows of the log-likelihood in the first attempt, if it is not computed for all.
N_ROWS = 50_000

#: Draws times rows up to which the log-likelihood is computed for all rows.
AFFORDABLE = 250_000_000

_log = logging.getLogger(__name__)

_SENTENCES = {
    "good": "good, the approximation is close to the posterior",
    "usable": (
        "usable, if draws are weighted by smoothed_log_weights; without weights, expect the tails "
        "and the standard deviations to be off"
    ),
    "unreliable": (
        "not to be trusted, the posterior has mass where the approximation has little, and weights "
        "do not repair it. Take more steps, try pm.FullRankADVI or another parametrisation, or "
        "compare with pm.sample"
    ),
}

_WIDER = {
    "usable": (
        "usable, if draws are weighted by smoothed_log_weights; without weights, expect standard "
        "deviations that are too large, about {} times. More steps make the approximation narrower"
    ),
    "unreliable": (
        "not to be trusted, the approximation is wider than the posterior in all directions, about {} "
        "times, so that few of its draws are where the posterior is. The fit has not come to its "
        "end: take more steps, or a larger learning rate"
    ),
}


def diagnose(
    approx: GuideApproximation,
    draws: int = 1000,
    random_seed: RandomState = None,
    *,
    n_rows: int | None = None,
    progressbar: bool = True,
    backend: str | None = None,
    compile_kwargs: Mapping[str, Any] | None = None,
) -> Diagnosis:
    """Diagnose a fitted approximation by Pareto-smoothed importance sampling.

    Draws z of the approximation have importance ratios p(y, z) / q(z). The shape k-hat of their tail shows
    whether the approximation covers the mass of the posterior (Yao et al. 2018): below 0.5 is good, up to
    0.7 (less with few draws) usable with weights, above not to be trusted. The posterior is that of all
    rows, also for a model that was fitted to minibatches.

    Parameters
    ----------
    approx : GuideApproximation
        The result of `pm.fit`. Variables of all rows are judged together.
    draws : int
        Number of draws, at least 100. The standard error of k-hat is about
        (1 + k) / √(3 √draws).
    random_seed : int, RandomState or Generator, optional
    n_rows : int, optional
        Rows of the longest subsampled dim for which the log-likelihood is computed, or all if there are
        fewer. Default: all, up to 250 million draws times rows, and else 50,000 or more, until the error of
        log-weights is below 0.1 nats, or a tenth of their standard deviation. A model with variables of
        the rows, or without minibatches, takes all.
    progressbar : bool
        Show a bar once it takes more than a second.
    backend : str, optional
        "numba", "jax" or "c", as in `pm.fit`, for the model's log-probability.
    compile_kwargs : mapping, optional
        Of :func:`pymc.pytensorf.compile`.

    Returns
    -------
    Diagnosis

    Raises
    ------
    TypeError
        If `approx` is no approximation, or `draws` or `n_rows` is no whole number.
    ValueError
        If `draws` is too small, the approximation has no log-density (SVGD, Empirical), or the
        model does not hold all of its data.
    FloatingPointError
        If a log-ratio is not finite.

    Notes
    -----
    From a part of the rows the log-likelihood is estimated by its first-order expansion about the mean of the
    draws, for all rows, and the remainder, for the part. The standard errors of the ELBO and of the
    log-weights come from the differences between 16 groups of these rows. For 8 draws the estimate is
    compared with all rows, since a part may lack the few rows that a coefficient depends on, such as those
    of a rare category. If these errors are more than twice as large, they are the standard errors. They do
    not cover rows that matter only for draws far from these 8. With an error of log-weights above 0.3 nats,
    and 0.3 of their standard deviations, there is no verdict.

    k-hat judges the joint distribution of all variables. With many of them it may be large while means and
    standard deviations are still good; compare the relevant ones with `pm.sample`.

    References
    ----------
    Yao, Vehtari, Simpson, Gelman (2018), Yes, but Did It Work?: Evaluating Variational Inference,
    section 2.
    Vehtari, Simpson, Gelman, Yao, Gabry (2024), Pareto Smoothed Importance Sampling, section 3.2
    (the threshold for so many draws).

    Examples
    --------
    >>> from pymc.variational.diagnostics import diagnose
    >>> with pm.Model():
    ...     x = pm.Normal("x", 1, 2)
    ...     approx = pm.MeanField(start={"x": 1.0}, start_sigma={"x": 2.0})
    >>> diagnosis = diagnose(approx, draws=100, random_seed=1)
    >>> diagnosis.verdict
    'good'
    >>> round(abs(diagnosis.elbo), 6)  # exact: the log of the evidence, which is 1
    0.0
    """
    _check_approx(approx)
    hint = "The tail of the largest ratios needs that many. Write draws=1000"
    draws = check_int(draws, "draws", "diagnose", at_least=_MIN_DRAWS, hint=hint)
    if is_streamed(approx.model):
        raise ValueError(
            "pm.variational.diagnose compares an approximation with the posterior of all rows, but those of "
            "this model come in batches from a loader, and are not in memory. Give diagnose a fit to an array "
            "in pm.Data; the losses of batches are in approx.hist"
        )
    model = full_data_model(approx.model)
    options = resolve_backend_compile_kwargs(backend, dict(compile_kwargs or {}))
    _check_all_data(model.logp())
    has_latent_rows = any(site.plate for site in approx.sites)
    subsampled = [] if has_latent_rows else [Rows(index) for index in model_indexes(approx.model)]
    n_all = max((rows_in_all([rows]) for rows in subsampled), default=0)
    n_rows = _check_n_rows(n_rows, n_all)
    if has_latent_rows:
        points, log_weights = joint_log_weights(
            approx, draws, random_seed, options.get("mode"), progressbar
        )
        _check_finite(log_weights)
        return _weigh(log_weights, points)
    points, logq = global_draws(approx, draws, random_seed)
    if n_rows is None and draws * n_all <= AFFORDABLE:
        n_rows = n_all
    found = None
    if n_rows is None or n_rows < n_all:
        rng = np.random.default_rng(_get_seeds_per_chain(random_seed, 1)[0])
        density = SubsampledLogDensity.of(approx.model, points, options)
        found = _by_some_rows(density, logq, n_rows, rng, progressbar)
    if found is None:
        found = log_density(model, points, progressbar, options)
    _check_finite(found.values - logq)
    return replace(
        _weigh(found.values - logq, points),
        n_rows=found.n_rows,
        elbo_rows_se=found.se,
        log_weights_se=found.se_between,
    )


def _by_some_rows(
    density: SubsampledLogDensity,
    logq: np.ndarray,
    n_rows: int | None,
    rng: np.random.Generator,
    show: bool,
) -> LogDensity | None:
    """Estimate the log-probability of draws; return None if it takes more than half of the rows.

    Without `n_rows` four times as many are taken until the error is a third of the largest useful one.
    """
    n_all, n_draws = max(density.totals), len(logq)
    some = n_rows or N_ROWS
    while n_rows or 2 * some <= n_all:
        _log.info(
            f"diagnose computes the log-probability of {n_draws:,} draws by {some:,} of {n_all:,} rows"
            f"{'' if n_rows else ', or more, unless n_rows= is given'}"
        )
        found = density.estimate(some, rng, show)
        if n_rows or found.se_between <= _largest_se(found.values - logq) / 3:
            return found
        some *= 4
    return None


def _digits(number: float) -> str:
    """Return a number with two digits, and all before the point."""
    return f"{number:.2g}" if number < 99 else f"{number:,.0f}"


def _largest_se(log_weights: np.ndarray) -> float:
    """Return the largest log-weight error that still allows a verdict."""
    return LARGEST_SE * max(1.0, float(log_weights.std()))


def _weigh(log_weights: np.ndarray, points: Mapping[str, np.ndarray]) -> Diagnosis:
    n_draws, weights = len(log_weights), smoothed(log_weights)
    return Diagnosis(
        khat=weights.khat,
        ess=weights.ess,
        elbo=float(log_weights.mean()),
        elbo_se=float(log_weights.std(ddof=1) / np.sqrt(n_draws)),
        log_weights=log_weights,
        smoothed_log_weights=weights.log_weights,
        points=points,
        wider=_times_wider(log_weights, points),
    )


def _times_wider(log_weights: np.ndarray, points: Mapping[str, np.ndarray]) -> float | None:
    """Estimate how many times as wide as the posterior an approximation is, if it is that in all directions.

    Of a normal posterior with standard deviations s and a normal approximation with r s, a log-ratio falls
    by (r² - 1) / 2 times the squared distance from the mean, in standard deviations of the draws.
    """
    distance = np.zeros(len(log_weights))
    for array in points.values():
        if array.dtype.kind == "f":
            flat = array.reshape(len(array), -1)
            spread = flat.std(axis=0)
            scaled = (flat - flat.mean(axis=0))[:, spread > 0] / spread[spread > 0]
            distance += np.einsum("ij,ij->i", scaled, scaled)
    if np.ptp(log_weights) < _EQUAL or np.ptp(distance) == 0:
        return None
    correlation = np.corrcoef(distance, log_weights)[0, 1]
    if correlation > -np.sqrt(0.5):  # less than half of the variance
        return None
    slope = correlation * log_weights.std() / distance.std()
    return float(np.sqrt(1 - 2 * slope))


def _check_approx(approx: Any) -> None:
    if not isinstance(approx, GuideApproximation):
        raise TypeError(
            f"diagnose takes the approximation that pm.fit returns, and got "
            f"{type(approx).__name__}; of a method such as pm.ADVI() take its .approx. For approximations made "
            "of groups there is no diagnosis: fit by guide="
        )
    if not approx.has_logq:
        raise ValueError(
            f"diagnose needs the log-density of the approximation, which {approx} does "
            "not have: particles are no distribution with a density. Compare such a fit with "
            "pm.sample, or with pm.fit(method='fullrank_advi') and its diagnosis"
        )


def _check_n_rows(n_rows: Any, n_all: int) -> int | None:
    """Check the argument `n_rows`, of `n_all` rows; 0 if they cannot be taken one by one."""
    if n_rows is None:
        return None
    n_rows = check_int(n_rows, "n_rows", "diagnose")
    if not n_all:
        raise ValueError(
            f"n_rows={n_rows} of diagnose is for models whose rows can be taken one by one: that have "
            "minibatches, and no variable with a value for each row. Leave n_rows out: this one is "
            "computed of all rows, and fewer draws, such as draws=200, take less time"
        )
    if n_rows < min(_FEWEST_ROWS, n_all):
        raise ValueError(
            f"n_rows={n_rows} of diagnose is too few for an estimate of their error. Take at least "
            f"{_FEWEST_ROWS}, better {N_ROWS:,}, or leave it out"
        )
    return n_rows


def _check_all_data(logp: Variable) -> None:
    """Raise a ValueError if a log-probability is scaled up from batches."""
    nodes = {var.owner for var in ancestors([logp]) if var.owner is not None}
    scales = [node.outputs[0] for node in nodes if isinstance(node.op, RowRatio)]
    if not scales:
        return
    python = Mode(linker="py", optimizer=None)  # to compile a division takes longer
    factors = pytensor.function([], scales, mode=python)()
    if any(factor != 1 for factor in factors):
        raise ValueError(
            f"diagnose compares the approximation with the posterior of all rows, but the model "
            f"holds a part of them: its total_size scales a log-probability by "
            f"{max(factors, key=abs):g}. Put all rows into the model's data first, by pm.set_data or "
            "shared.set_value, or make it with pm.Minibatch, which keeps them"
        )


def _check_finite(log_weights: np.ndarray) -> None:
    bad = log_weights[~np.isfinite(log_weights)]
    if len(bad):
        raise FloatingPointError(
            f"{len(bad)} of {len(log_weights)} draws of the approximation have a log-ratio of "
            f"{', '.join(map(str, np.unique(bad)))}: there the model's log-probability, or that of "
            "the approximation, is not finite, so that no weights exist. Look at "
            "approx.mean.eval() and approx.std.eval(): a fit that went astray has large values. "
            "Take a smaller learning rate, or bound the model's parameters by its priors"
        )
