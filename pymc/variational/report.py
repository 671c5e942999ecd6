# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""The report of a fit: how it ran, whether it converged, and what went wrong in a failed step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from pymc.variational.display import Status, block_means, card, chart

if TYPE_CHECKING:
    from pymc.variational.approximation import GuideApproximation
    from pymc.variational.engine.batch_feed import PreparedBatches
    from pymc.variational.engine.step_cache import Step
    from pymc.variational.opvi import Approximation  # type: ignore[attr-defined]  # the release's

__all__ = [
    "FitReport",
    "Setting",
    "Verdict",
    "add_fit",
    "describe_failed_step",
    "fit_dataset",
    "fit_html",
]

#: A setting in a form that a file of results can hold.
Setting = str | int | float | bool


@dataclass(frozen=True)
class Verdict:
    """The verdict on a fit: its convergence, and whether its draws can be trusted.

    Parameters
    ----------
    trusted : bool or None
        None if nothing was compared with the posterior, as in all fits but ``pm.fit(method="auto")``.
    reason : str
        One sentence, without a full stop.
    advice : str
        What to do next; empty if nothing is to be done.
    converged : bool
        Whether more steps would change nothing.
    khat : float
        Shape of the tail of the importance weights; nan if there are none.
    ess : float
        Number of independent draws of the posterior that the weighted ones are worth.

    Examples
    --------
    >>> from pymc.variational.report import Verdict
    >>> print(Verdict(False, "the posterior has two modes", "Order the components"))
    not trusted: the posterior has two modes. Order the components.
    """

    trusted: bool | None
    reason: str
    advice: str = ""
    converged: bool = True
    khat: float = float("nan")
    ess: float = 0.0

    @property
    def status(self) -> Status:
        """The word, whether it is a good one, and the sentence."""
        good, word = self.trusted, "trusted"
        if good is None:
            good, word = self.converged, "converged"
        advice = f" {self.advice}." if self.advice else ""
        return Status(f"{'' if good else 'not '}{word}", good, f"{self.reason}.{advice}")

    def __str__(self) -> str:
        status = self.status
        return f"{status.word}: {status.text}"

    def _repr_html_(self) -> str:
        return card("Verdict", self.status, {})


@dataclass(frozen=True)
class FitReport:
    """Report of a fit: ``approx.report``, and the group "fit" of ``approx.sample()``.

    Parameters
    ----------
    method : str
        "ADVI", "FullRankADVI", "SVGD" and so on.
    driver : str
        The loop over steps: "numba" and "jax" run many in one compiled call, "python" one at a time.
    backend : str
        The backend that compiled the step: "numba", "jax" or "c".
    n_steps : int
        Completed steps; of ``pm.fit(method="auto")``, gradients of the log-posterior.
    seconds : float
        Time of the steps, without compilation.
    compile_seconds : float
        Time to build and compile the step; near 0 for a step that was compiled before.
    stopped : str
        "finished", "interrupted", or the message of the `StopIteration` that a callback raised.
    settings : mapping of str to str, int, float or bool
        Arguments of the fit: the optimizer, `obj_n_mc`, `random_seed` and so on. For bounds of
        particles such as "iwae" the entry "bound" says what each is of: "of each row of 'obs'", for
        minibatches of rows with latent variables, or else "jointly of all variables and rows". The two
        are different bounds, with different optima.
    loss_factor : float, optional
        Factor of the losses in `hist`: divided by it, they are nats of all data. None if unknown.
    verdict : Verdict, optional
        Whether the fit has converged, for 200 steps or more; and whether it can be trusted, for
        ``pm.fit(method="auto")``.

    Examples
    --------
    >>> from pymc.variational.report import FitReport
    >>> report = FitReport("ADVI", "numba", "numba", 10_000, 0.5, 3.0, "finished")
    >>> report.steps_per_second
    20000.0
    >>> print(report)
    ADVI: 10,000 steps in 0.5 s (20,000 steps/s; numba), compiled in 3 s, finished
    """

    method: str
    driver: str
    backend: str
    n_steps: int
    seconds: float
    compile_seconds: float
    stopped: str
    settings: Mapping[str, Setting] = field(default_factory=dict)
    loss_factor: float | None = None
    verdict: Verdict | None = None

    @property
    def trusted(self) -> bool | None:
        """True if the draws can be taken for draws of the posterior; None if unknown."""
        return None if self.verdict is None else self.verdict.trusted

    @property
    def converged(self) -> bool | None:
        """True if more steps would change nothing; None if unknown."""
        return None if self.verdict is None else self.verdict.converged

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> FitReport:
        """Return a report from the result of :func:`dataclasses.asdict`."""
        verdict = fields.get("verdict")
        return cls(**{**fields, "verdict": None if verdict is None else Verdict(**verdict)})

    def after(
        self, n_steps: int, seconds: float, stopped: str, verdict: Verdict | None = None
    ) -> FitReport:
        """Return the report of the fit after `n_steps` more steps in `seconds`."""
        return replace(
            self,
            n_steps=self.n_steps + n_steps,
            seconds=self.seconds + seconds,
            stopped=stopped,
            verdict=verdict,
        )

    @property
    def steps_per_second(self) -> float:
        """Steps in a second, without compilation; nan for a fit too short to be timed."""
        return self.n_steps / self.seconds if self.seconds > 0 else float("nan")

    def __str__(self) -> str:
        engine = self.driver if self.driver == self.backend else f"{self.driver}, {self.backend}"
        speed = f"{self.steps_per_second:,.0f} steps/s; " if self.seconds > 0 else ""
        verdict = "" if self.verdict is None else f"; {self.verdict}"
        bound, of = "", self.settings.get
        if "bound" in self.settings:
            bound = (
                f"; the {of('objective')} bound is {of('bound')}, by {of('n_particles')} particles"
            )
        return (
            f"{self.method}: {self.n_steps:,} steps in {self.seconds:.3g} s ({speed}{engine}), "
            f"compiled in {self.compile_seconds:.3g} s, {self.stopped}{bound}{verdict}"
        )

    def _repr_html_(self) -> str:
        return fit_html("Fit", self)


def fit_html(
    title: str, report: FitReport | None, losses: Any = (), rows: Mapping[str, object] = {}
) -> str:
    """Return HTML of a fit for a notebook: the verdict, what ran, the curve of the losses, the settings.

    Parameters
    ----------
    title : str
    report : FitReport, optional
        None before a fit.
    losses : array of floats, shape (n_steps,)
        As in ``approx.hist``.
    rows : mapping of str to object
        Lines before those of the report.
    """
    if report is None:
        return card(title, Status("not fitted", None), rows)
    engine = dict.fromkeys([report.driver, report.backend])
    rows = {
        **rows,
        "Method": report.method,
        "Steps": f"{report.n_steps:,}, {report.stopped}",
        "Time": f"{report.seconds:.3g} s, compiled in {report.compile_seconds:.3g} s ({', '.join(engine)})",
    }
    factor, unit = report.loss_factor, ""
    losses = np.asarray(losses, "float64")
    if factor is not None:
        losses, unit = losses / factor, " in nats of all data"
    if losses.size:
        rows["Loss"] = (
            f"{losses[-1000:].mean():,.6g}{unit}, average of the last {losses[-1000:].size:,} steps"
        )
    verdict = report.verdict
    status = Status("no verdict", None) if verdict is None else verdict.status
    ends, means = block_means(losses)
    figure = chart(ends, means, f"loss{unit}") if losses.size > 1 else ""
    return card(title, status, rows, report.settings, figure)


def add_fit(tree: Any, approx: Approximation) -> Any:
    """Return draws of an approximation with :func:`fit_dataset` as the group "fit".

    `tree` is returned as it is if the approximation was not fitted, or it is a MultiTrace, which has no
    groups.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> import numpy as np
    >>> import xarray as xr
    >>> from pymc.variational.report import add_fit
    >>> fitted = SimpleNamespace(hist=np.array([3.0, 2.0]), report=None)
    >>> add_fit(xr.DataTree(), fitted)["fit/loss"].values
    array([3., 2.])
    """
    dataset = fit_dataset(approx)
    if dataset is None or not isinstance(tree, xr.DataTree):
        return tree
    tree = tree.copy()
    tree["fit"] = xr.DataTree(dataset)
    return tree


def fit_dataset(approx: Approximation) -> xr.Dataset | None:
    """Return the losses of a fit, and its report, in a form that files hold; None without a fit.

    The variable ``loss`` is a negative lower bound or an upper bound in nats, times ``loss_factor`` if the
    attributes have one, along ``step``, which counts from 1. A fit without a score has no ``loss``. The
    fields and the settings of the report are attributes; a bool is 0 or 1.
    """
    losses, report = np.asarray(approx.hist), approx.report
    if report is None and not losses.size:
        return None
    attributes = {} if report is None else _attributes(report)
    if not losses.size:
        return xr.Dataset(attrs=attributes)
    steps = np.arange(1, losses.size + 1)
    return xr.Dataset({"loss": ("step", losses)}, {"step": steps}, attributes)


def _attributes(report: FitReport) -> dict[str, Setting]:
    verdict = {} if report.verdict is None else vars(report.verdict)
    fields = {k: v for k, v in vars(report).items() if k not in ("settings", "verdict")}
    merged = {**report.settings, **fields, **verdict}  # a setting does not hide a field
    merged = {name: value for name, value in merged.items() if value is not None}
    # netCDF has no bool
    return {name: int(v) if isinstance(v, bool) else v for name, v in merged.items()}


NONFINITE_ADVICE = (
    "The approximation keeps the state of the last good step, and `hist` the losses up to it. Try a "
    "smaller learning rate (obj_optimizer=pm.adam(learning_rate=1e-4)), a bound on the gradient "
    "(total_grad_norm_constraint=10.), a start with a finite logp of the model (start=...; "
    "model.debug() shows the terms that are not finite), data without nan or inf, or record the "
    "parameters with pm.callbacks.Tracker to see where they go."
)


def describe_failed_step(
    approx: GuideApproximation,
    step: Step,
    n_good: int,
    loss: float,
    batches: PreparedBatches | None = None,
) -> str:
    """Return the message for a step after `n_good` good ones whose loss or parameters are not finite.

    `approx` is in the state after the last good step. The step is repeated to find the parameters, except
    for a guarded step, which would change nothing. `loss` is nan if the step has none.
    """
    message = f"NaN occurred in optimization. Step {n_good + 1} is not finite"
    bad_parameters: list[tuple[str, str]] = []
    if step.guarded:
        what = "its loss, or a parameter after it," if np.isnan(loss) else "its loss"
        message += f": {what} is {loss}"
    else:
        after, losses = step.driver.run(step.driver.copy(step.load()), 1, batches)
        if step.has_loss:
            message += f": its loss is {losses[-1].flat[0] if len(losses) else loss}"
        bad_parameters = approx.bad_parameters(dict(zip(step.shared, map(np.asarray, after))))
    lines = [
        f"{message}.",
        *(
            f"The current approximation of RV `{name}`.ravel()[{entries}] is not finite after it."
            for name, entries in bad_parameters
        ),
        *(
            f"The log-probability of `{name}` is {value} at the mean of the approximation before it."
            for name, value in approx.bad_terms()
        ),
        NONFINITE_ADVICE,
    ]
    return "\n".join(lines)
