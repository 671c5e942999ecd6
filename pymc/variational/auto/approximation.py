# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""What an automatic fit returns: weighted draws of the posterior, and the normal that they came from."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import numpy as np
import pytensor

from pytensor.compile.sharedvalue import SharedVariable

from pymc.variational.approximation import GuideApproximation, make_guides
from pymc.variational.auto.normal import Normal
from pymc.variational.guides.empirical import EmpiricalGuide

__all__ = ["AutoApproximation"]


class AutoApproximation(GuideApproximation):
    """Draws of the posterior by adaptive importance sampling, beside the normal of natural gradients.

    Parameters
    ----------
    normal : FullRank
    size : int
        How many draws; :meth:`set_draws` sets them.

    Attributes
    ----------
    normal : FullRank
        Without the correction by importance weights.
    """

    normal: Any

    def __init__(self, normal: Any, size: int) -> None:
        guides = make_guides(
            normal.model, {None: EmpiricalGuide(size, 0.0, replace=False)}, rng=normal.rng
        )
        super().__init__(normal.model, guides, rng=normal.rng)
        self.normal, self.size = normal, size

    def set_normal(self, normal: Normal) -> None:
        """Set mean and covariance of the normal, without the correction."""
        [guide] = self.normal.guides
        for name, value in normal.guide_parameters.items():
            var = self.normal.storage.dense[guide.own[name]]
            var.set_value(value.astype(pytensor.config.floatX))

    def set_draws(self, draws: np.ndarray) -> None:
        """Set the draws of the posterior, shape (size, ndim), each with the same probability."""
        [histogram] = self.storage.dense.values()
        histogram.set_value(draws.astype(pytensor.config.floatX))

    def __deepcopy__(self, memo: dict[int, Any]) -> AutoApproximation:
        new = super().__deepcopy__(memo)
        new.normal = deepcopy(self.normal, memo)
        return new

    @property
    def made_of(self) -> Any:
        return self.normal

    @property
    def params(self) -> list[SharedVariable]:
        return [*super().params, *self.normal.params]

    def __str__(self) -> str:
        return f"{type(self).__name__}{{{', '.join(site.name for site in self.sites)}}}"

    def __repr__(self) -> str:
        verdict = None if self.report is None else self.report.verdict
        return str(self) if verdict is None else f"{self}, {verdict}"

    def sample(self, draws: int = 500, *, correct: bool = True, **kwargs: Any) -> Any:
        """Draw from the posterior, or from the normal.

        Parameters
        ----------
        draws : int
            Number of draws: up to :attr:`size` none comes twice.
        correct : bool
            Whether to take the draws that importance weights have corrected; False draws from the normal.
        **kwargs
            As of :meth:`pymc.Approximation.sample`.

        Returns
        -------
        DataTree or MultiTrace
            The attributes of the group fit say whether it can be trusted.
        """
        return super().sample(draws, **kwargs) if correct else self.normal.sample(draws, **kwargs)
