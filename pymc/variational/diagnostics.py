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
"""How far a fitted approximation is from the posterior, from importance ratios."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytensor
import pytensor.tensor as pt

from pytensor.compile.mode import Mode
from pytensor.graph.basic import Variable
from pytensor.graph.traversal import ancestors

from pymc.minibatch.guards import full_data_model, is_streamed
from pymc.minibatch.scaling import RowRatio
from pymc.pytensorf import compile, resolve_backend_compile_kwargs
from pymc.util import RandomState, _get_seeds_per_chain
from pymc.variational.guided.approximation import GuidedApproximation
from pymc.variational.opvi import Approximation  # type: ignore[attr-defined]  # the release's
from pymc.variational.sampling.joint_weights import joint_log_weights

__all__ = ["Diagnosis", "diagnose"]

_MIN_DRAWS = 100
# Log-ratios that differ by less are equal: no expectation could show it
_EQUAL = 1e-8


@dataclass(frozen=True, eq=False)
class Diagnosis:
    r"""What importance ratios say of an approximation; `print` it for a sentence.

    Parameters
    ----------
    khat : float
        Estimate of the shape k of the tail of the ratios: those of order 1/k and above have no
        finite moment. -inf where all ratios are equal.
    ess : float
        As many draws of the posterior the smoothed weights are worth; it means little where `khat`
        is above `threshold`.
    elbo : float
        Estimate of the evidence lower bound, in nats: the mean of `log_weights`.
    elbo_se : float
        Its standard error.
    log_weights : array of float64, shape (n_draws,)
        :math:`\log p(y, z) + \log |\partial \theta / \partial z| - \log q(z)`, in nats, where z is
        a draw on the unconstrained space and θ the model's variables.
    smoothed_log_weights : array of float64, shape (n_draws,)
        The same, Pareto-smoothed and normalised: their exponentials sum to 1.
    points : mapping of str to array, shape (n_draws, ...)
        The draws, by name of the value variable, on the unconstrained space.
    """

    khat: float
    ess: float
    elbo: float
    elbo_se: float
    log_weights: np.ndarray = field(repr=False)
    smoothed_log_weights: np.ndarray = field(repr=False)
    points: Mapping[str, np.ndarray] = field(repr=False)

    @property
    def n_draws(self) -> int:
        """Draws of the approximation that it is made from."""
        return len(self.log_weights)

    @property
    def threshold(self) -> float:
        """Largest `khat` at which so many draws give reliable weights: min(1 - 1/log10(S), 0.7)."""
        return min(1 - 1 / np.log10(self.n_draws), 0.7)

    @property
    def verdict(self) -> str:
        """Either "good", "usable" with its weights, or "unreliable"."""
        if self.khat < 0.5:
            return "good"
        return "usable" if self.khat < self.threshold else "unreliable"

    def __str__(self) -> str:
        return (
            f"Pareto k-hat {self.khat:.2f} from {self.n_draws:,} draws: {_SENTENCES[self.verdict]}. "
            f"ELBO {self.elbo:,.2f} ± {self.elbo_se:.2g} nats; with their weights the draws are worth "
            f"{self.ess:,.0f} of the posterior."
        )


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


def diagnose(
    approx: Approximation | GuidedApproximation,
    draws: int = 1000,
    random_seed: RandomState = None,
    *,
    backend: str | None = None,
    compile_kwargs: Mapping[str, Any] | None = None,
) -> Diagnosis:
    """Tell whether a fitted approximation can be trusted, by Pareto-smoothed importance sampling.

    Draws z of the approximation have importance ratios p(y, z) / q(z). How heavy their tail is, k-hat,
    says whether the approximation reaches where the posterior has mass (Yao et al. 2018): below 0.5
    is good, up to 0.7 (less with few draws) usable with weights, above not to be trusted. The
    posterior is that of all rows, also where the model was fitted to minibatches.

    Parameters
    ----------
    approx : Approximation or GuidedApproximation
        What `pm.fit` returns: mean-field, full-rank, or of several groups with a log-density; or of
        guides, whose variables of all rows are judged together.
    draws : int
        Number of draws, at least 100. The standard error of k-hat is about
        (1 + k) / √(3 √draws).
    random_seed : int, RandomState or Generator, optional
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
        If `approx` is no approximation or `draws` no whole number.
    ValueError
        If `draws` is too small, the approximation has no log-density (SVGD, Empirical), or the
        model does not hold all of its data.
    FloatingPointError
        If a log-ratio is not finite.

    Notes
    -----
    One number judges the joint distribution of all variables. With many of them it may be large
    while means and standard deviations are still good; what matters can then be compared with
    `pm.sample`.

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
    draws = _check_draws(draws)
    if is_streamed(approx.model):
        raise ValueError(
            "pm.variational.diagnose compares an approximation with the posterior of all rows, but those of "
            "this model come in batches from a loader, and are not in memory. Give diagnose a fit of rows "
            "that are, in pm.Data as an array; what the rows of a batch say of it is in approx.hist"
        )
    model = full_data_model(approx.model)
    options = resolve_backend_compile_kwargs(backend, dict(compile_kwargs or {}))
    logp = model.logp()
    _check_all_data(logp)
    if isinstance(approx, GuidedApproximation):
        points, log_weights = joint_log_weights(approx, draws, random_seed, options.get("mode"))
        _check_finite(log_weights)
        return _weigh(log_weights, points)
    points, logq = _draw(approx, draws, random_seed)
    values = {value.name: value for value in model.value_vars}
    logp_of = compile([values[name] for name in points], logp, **options)
    # One point at a time: draws by rows would be a large array
    log_p = np.array([logp_of(*point) for point in zip(*points.values())], dtype="float64")
    _check_finite(log_p - logq)
    return _weigh(log_p - logq, points)


def _draw(
    approx: Any, draws: int, random_seed: RandomState
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return joint draws of all groups by name, and their log-density."""
    names = [name for ordering in approx.collect("ordering") for name in ordering]
    nodes = [*(approx.rslice(name) for name in names), approx.symbolic_logq]
    size = pt.iscalar("draws")
    nodes = approx.set_size_and_deterministic(nodes, size, 0)  # one noise for all of them
    [seed] = _get_seeds_per_chain(random_seed, 1)
    # It is called once, and runs in NumPy before a backend would have compiled it
    draw = compile([size], nodes, random_seed=seed, mode=Mode("py", "fast_compile"))
    *points, logq = draw(draws)
    return dict(zip(names, points, strict=True)), np.asarray(logq, dtype="float64")


def _weigh(log_weights: np.ndarray, points: Mapping[str, np.ndarray]) -> Diagnosis:
    # As PyMC does: importing ArviZ takes longer than importing PyMC's variational modules
    from arviz_stats.base import array_stats

    n_draws = len(log_weights)
    if np.ptp(log_weights) < _EQUAL:
        smoothed, khat = np.full(n_draws, -np.log(n_draws)), -np.inf
    else:
        # ArviZ takes log-likelihoods, of which the ratios are the inverse
        smoothed, khat = array_stats.psislw(-log_weights)
    return Diagnosis(
        khat=float(khat),
        ess=float(1 / np.exp(2 * smoothed).sum()),
        elbo=float(log_weights.mean()),
        elbo_se=float(log_weights.std(ddof=1) / np.sqrt(n_draws)),
        log_weights=log_weights,
        smoothed_log_weights=smoothed,
        points=points,
    )


def _check_approx(approx: Any) -> None:
    if isinstance(approx, GuidedApproximation):
        return
    if not isinstance(approx, Approximation):
        raise TypeError(
            f"diagnose takes the approximation that pm.fit returns, and got "
            f"{type(approx).__name__}; of a method such as pm.ADVI() it is its .approx"
        )
    if not approx.has_logq:
        without = [type(group).__name__ for group in approx.groups if not group.has_logq]
        raise ValueError(
            f"diagnose needs the log-density of the approximation, which {', '.join(without)} does "
            "not have: particles are no distribution with a density. Compare such a fit with "
            "pm.sample, or with pm.fit(method='fullrank_advi') and its diagnosis"
        )


def _check_draws(draws: Any) -> int:
    if isinstance(draws, bool) or not isinstance(draws, int | np.integer):
        raise TypeError(f"draws of diagnose is {draws!r}; write a whole number, such as 1000")
    if draws < _MIN_DRAWS:
        raise ValueError(
            f"draws of diagnose is {draws}: that many leave no tail to look at, which is the "
            f"largest ratios. Take at least {_MIN_DRAWS}, better 1000"
        )
    return int(draws)


def _check_all_data(logp: Variable) -> None:
    """Refuse a log-probability that is scaled up from batches."""
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
