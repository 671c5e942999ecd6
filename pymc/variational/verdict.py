# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Whether a fit has converged and can be trusted, and why not."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Verdict"]


@dataclass(frozen=True)
class Verdict:
    """Whether a fit has converged, and whether its draws can be taken for those of the posterior.

    Parameters
    ----------
    trusted : bool or None
        None where nothing was compared with the posterior, as in all fits but ``pm.fit(method="auto")``.
    reason : str
        One sentence, without a full stop.
    advice : str
        What to do next; empty where nothing is to be done.
    converged : bool
        Whether more steps would change nothing.
    khat : float
        Shape of the tail of the importance weights; nan where there are none.
    ess : float
        As many independent draws of the posterior the weighted ones are worth.

    Examples
    --------
    >>> from pymc.variational.verdict import Verdict
    >>> print(Verdict(False, "the posterior has two modes", "Order the components"))
    not trusted: the posterior has two modes. Order the components.
    """

    trusted: bool | None
    reason: str
    advice: str = ""
    converged: bool = True
    khat: float = float("nan")
    ess: float = 0.0

    def __str__(self) -> str:
        good, word = (
            (self.converged, "converged") if self.trusted is None else (self.trusted, "trusted")
        )
        advice = f" {self.advice}." if self.advice else ""
        return f"{'' if good else 'not '}{word}: {self.reason}.{advice}"
