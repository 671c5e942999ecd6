# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
r"""Averages of the parameters over the last steps of a fit (Polyak and Juditsky, 1992).

With a constant learning rate the parameters end up moving about the optimum; their average is closer to
it than the last of them.

References
----------
-   Boris T. Polyak, Anatoli B. Juditsky (1992)
    Acceleration of stochastic approximation by averaging
    SIAM Journal on Control and Optimization 30(4), section 2
-   Akash Kumar Dhaka et al. (2020)
    Robust, accurate stochastic optimization for variational inference
    arXiv:2009.00666
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pytensor
import pytensor.tensor as pt

from pytensor.compile.sharedvalue import SharedVariable
from pytensor.graph.basic import Variable

from pymc.argument_checks import check_number

if TYPE_CHECKING:
    from pymc.variational.local_params.table import ParamTable


__all__ = ["TailAverage", "check_average"]


@dataclass(frozen=True)
class TailAverage:
    """The average of parameters over the last `fraction` of a run, updated in each step.

    `means` have the shapes of `params`. `n_waiting` counts the steps until the average begins, `n_averaged`
    the steps in it so far. The averages of `tables` are columns of theirs, over the visits of each row, which
    :func:`~pymc.variational.local_params.row_optimizer.all_updates` updates by `n_waiting`.
    """

    fraction: float
    params: tuple[SharedVariable, ...]
    means: tuple[SharedVariable, ...]
    n_waiting: SharedVariable
    n_averaged: SharedVariable
    tables: tuple[ParamTable, ...] = ()

    @classmethod
    def of(
        cls,
        params: Sequence[SharedVariable],
        fraction: float,
        tables: Sequence[ParamTable] = (),
    ) -> TailAverage:
        """Return the average of shared variables, with means and counts as new ones."""
        means = [
            pytensor.shared(param.get_value(), f"{param.name}_mean", shape=param.type.shape)
            for param in params
        ]
        waiting, averaged = (
            pytensor.shared(np.int64(0), name) for name in ("n_waiting", "n_averaged")
        )
        return cls(fraction, tuple(params), tuple(means), waiting, averaged, tuple(tables))

    def updates(self, updates: Mapping[SharedVariable, Variable]) -> dict[SharedVariable, Variable]:
        """Return the updates of the parameters and of their averages."""
        waits = self.n_waiting > 0
        n = self.n_averaged + pt.switch(waits, 0, 1)
        more = {self.n_waiting: pt.maximum(self.n_waiting - 1, 0), self.n_averaged: n}
        for param, mean in zip(self.params, self.means):
            weight = pt.switch(waits, 0, 1 / pt.maximum(n, 1)).astype(mean.dtype)
            more[mean] = mean + weight * (updates[param] - mean)
        return {**updates, **more}

    def begin(self, n_steps: int) -> None:
        """Begin a run of `n_steps`."""
        n_last = max(1, round(self.fraction * n_steps))
        self.n_waiting.set_value(np.int64(max(n_steps - n_last, 0)))
        self.n_averaged.set_value(np.int64(0))
        for table in self.tables:
            table.forget_averages()

    def swap(self) -> None:
        """Exchange the parameters with their averages, once these have begun."""
        if self.n_averaged.get_value() == 0:
            return
        for param, mean in zip(self.params, self.means):
            last = param.get_value(borrow=True)
            param.set_value(mean.get_value(borrow=True), borrow=True)
            mean.set_value(last, borrow=True)
        for table in self.tables:
            table.swap_averages()


def check_average(average: Any) -> float | None:
    """Return the argument `average` of a fit as a float or None, or raise a TypeError or ValueError."""
    if average is None:
        return None
    hint = "It is the last part of the steps, whose parameters are averaged: 0.5 is the second half"
    return check_number(average, "average", "a fit", above=0, at_most=1, hint=hint)
