# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""What a fit says of itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pymc.variational.verdict import Verdict

__all__ = ["FitReport", "Setting"]

#: A setting in a form that a file of results can hold.
Setting = str | int | float | bool


@dataclass(frozen=True)
class FitReport:
    """How a fit ran: ``approx.report``, and ``fit`` in what ``approx.sample()`` returns.

    Parameters
    ----------
    method : str
        "ADVI", "FullRankADVI", "SVGD" and so on.
    driver : str
        What ran the steps: "numba" and "jax" run many in one compiled call, "python" one at a time.
    backend : str
        What the step was compiled for: "numba", "jax" or "c".
    n_steps : int
        Steps that completed; of ``pm.fit(method="auto")``, gradients of the log-posterior.
    seconds : float
        Time of the steps, without that of the compilation.
    compile_seconds : float
        Time to build and compile the step; near 0 where one was compiled before.
    stopped : str
        "finished", "interrupted", or the message of the `StopIteration` that a callback raised.
    settings : mapping of str to str, int, float or bool
        What the fit was asked for: the optimizer, `obj_n_mc`, `random_seed` and so on. For bounds of
        particles such as "iwae" the entry "bound" says what each is of: "of each row of 'obs'", where rows
        have latent variables and come in minibatches, or else "jointly of all variables and rows". The two are
        different bounds, with different optima.
    loss_factor : float, optional
        What the losses in `hist` are multiplied by: divided by it, they are nats of all data. None where
        it is not known.
    verdict : Verdict, optional
        Whether the fit has converged, of 200 steps or more; and whether it can be trusted, of
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
        """Whether the draws can be taken for those of the posterior; None where that is not known."""
        return None if self.verdict is None else self.verdict.trusted

    @property
    def converged(self) -> bool | None:
        """Whether more steps would change nothing; None where that is not known."""
        return None if self.verdict is None else self.verdict.converged

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> FitReport:
        """Make a report again, from what :func:`dataclasses.asdict` made of it."""
        verdict = fields.get("verdict")
        return cls(**{**fields, "verdict": None if verdict is None else Verdict(**verdict)})

    def after(
        self, n_steps: int, seconds: float, stopped: str, verdict: Verdict | None = None
    ) -> FitReport:
        """Report of the fit when it went on for `n_steps` in `seconds`, and why it stopped then."""
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
        return (
            f"{self.method}: {self.n_steps:,} steps in {self.seconds:.3g} s ({speed}{engine}), "
            f"compiled in {self.compile_seconds:.3g} s, {self.stopped}{self._bound()}"
            f"{'' if self.verdict is None else f'; {self.verdict}'}"
        )

    def _bound(self) -> str:
        if "bound" not in self.settings:
            return ""
        what = [self.settings.get(name) for name in ("objective", "bound", "n_particles")]
        return "; the {} bound is {}, by {} particles".format(*what)
