# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
r"""Bounds of rows that a fit does not see, and early stopping by them.

The held-out bound of rows :math:`x_1, \dots, x_m` is the mean, over draws of the guide, of

.. math::

    \frac1m \sum_i \log p(x_i, z_i \mid \theta) - \log q(z_i \mid x_i),

in nats of a row: below :math:`\log p(x_i)` given the fitted rows, on average. Rows without latent variables have
their log-likelihood alone. The prior and the guide of the global variables :math:`\theta` are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from pymc.argument_checks import check_int, check_number
from pymc.data_loading.data_loader import DataLoader
from pymc.variational.engine.callback_schedule import CallbackSchedule
from pymc.variational.posterior.log_weights import RowWeights
from pymc.variational.posterior.sample import SampleOptions

if TYPE_CHECKING:
    from pymc.variational.approximation import GuideApproximation

__all__ = ["EarlyStopping", "HeldOutBound"]


class HeldOutBound:
    """The bound of held-out rows, as a function of ``(approx, losses, i)``: a higher one is better.

    Pass it to :class:`EarlyStopping`, to :class:`ModelCheckpoint`, and to loggers or a
    :class:`Tracker`; the value of a step is computed once.

    Parameters
    ----------
    validation : dict of str to array, or DataLoader
        Rows that are not fitted: values of each `pm.Data` of the rows by its name, as of
        ``approx.sample(data=...)``; or a loader, whose rows are read once and stay in memory.
    n_particles : int
        Draws of the guide.
    data_name : str
        The `pm.Data` of a loader whose batches are arrays, as of :func:`pymc.fit`.
    random_seed : int, RandomState or Generator, optional

    Attributes
    ----------
    se : float
        Standard error of the last value, from the draws.

    Raises
    ------
    TypeError
        If `validation` is neither of the two.
    ValueError
        If it is called in a fit of a model without minibatches or an amortized guide, which knows no rows; or if
        rows have latent variables with parameters for each row, which held-out rows lack.

    Examples
    --------
    >>> rng = np.random.default_rng(1)
    >>> with pm.Model() as model:
    ...     y = pm.Minibatch(pm.Data("y_data", rng.normal(size=200), dims="obs"), batch_size=20)
    ...     rows = pm.Normal("y", pm.Normal("mu", 0, 10), 1, observed=y, dims="obs")
    ...     approx = pm.fit(200, random_seed=1, progressbar=False)
    >>> bound = pm.callbacks.HeldOutBound({"y_data": rng.normal(size=50)}, random_seed=1)
    >>> bool(-2 < bound(approx) < -1)
    True
    """

    def __init__(
        self,
        validation: Mapping[str, Any] | DataLoader,
        *,
        n_particles: int = 32,
        data_name: str = "batch",
        random_seed: Any = None,
    ) -> None:
        if isinstance(validation, DataLoader):
            validation = _all_rows(validation, data_name)
        if not isinstance(validation, Mapping) or not validation:
            raise TypeError(
                f"validation={validation!r} of HeldOutBound has to be the held-out rows by the names of pm.Data, such "
                'as {"x": x_val, "y": y_val}, or a pm.DataLoader of them'
            )
        self.validation = dict(validation)
        self.n_particles = check_int(n_particles, "n_particles", "HeldOutBound", at_least=2)
        self.random_seed = random_seed
        self.se = float("nan")
        self._weights: RowWeights | None = None
        self._known: tuple[int, float] | None = None

    def __call__(self, approx: GuideApproximation, losses: Any = None, i: int = 0) -> float:
        """Return the bound at the present parameters, in nats of a row; `i` is the step, 0 outside of a fit."""
        is_new = self._weights is None or self._weights.approx is not approx
        if self._known is not None and not is_new and i and self._known[0] == i:
            return self._known[1]
        if self._weights is None or is_new:  # compiled for the first step of a fit
            options = SampleOptions(data=self.validation, random_seed=self.random_seed)
            self._weights = RowWeights(
                approx, self.n_particles, options, False, "HeldOutBound", is_reused=True
            )
        total = np.zeros(self.n_particles)
        for particles, _, values in self._weights.parts():
            total[particles] += values.sum(axis=1)
        means = total / self._weights.n_rows
        self.se = float(means.std(ddof=1) / np.sqrt(self.n_particles))
        self._known = i, float(means.mean())
        return self._known[1]


class EarlyStopping(CallbackSchedule):
    """Stop when the bound of held-out rows does not rise any more, and take back the best parameters.

    For fits that can overfit: with networks, as in :class:`pymc.Amortized` and ``pm.fit(params=...)``. A guide of a
    fixed model cannot, and ``until="stationary"`` tells better when it has converged.

    Parameters
    ----------
    validation : dict of str to array, DataLoader, or HeldOutBound
        The held-out rows, as of :class:`HeldOutBound`.
    every : int
        Steps between two checks.
    patience : int
        Checks without a rise after which the fit ends.
    min_delta : float
        The least rise that counts, in nats of a row.
    restore_best : bool
        Whether the parameters of the best check are set when it stops the fit.
    **options
        Of :class:`HeldOutBound`, such as `n_particles`.

    Attributes
    ----------
    steps : list of int
        The steps of the checks.
    bounds, errors : list of float
        The bound at each of them, in nats of a row, and its standard error by the draws.
    best_step : int
        The step of the largest bound; 0 before the first check.

    Raises
    ------
    TypeError, ValueError
        If an argument is not of this form; see also :class:`HeldOutBound`.

    Notes
    -----
    The averages of ``average=`` and ``obj_optimizer="tuned"`` take the place of the restored parameters.

    Examples
    --------
    >>> rng = np.random.default_rng(1)
    >>> stop = pm.callbacks.EarlyStopping({"y_data": rng.normal(size=50)}, every=50, patience=2)
    >>> with pm.Model() as model:
    ...     y = pm.Minibatch(pm.Data("y_data", rng.normal(size=200), dims="obs"), batch_size=20)
    ...     rows = pm.Normal("y", pm.Normal("mu", 0, 10), 1, observed=y, dims="obs")
    ...     approx = pm.fit(200, callbacks=[stop], random_seed=1, progressbar=False)
    >>> stop.best_step in stop.steps
    True
    """

    def __init__(
        self,
        validation: Mapping[str, Any] | DataLoader | HeldOutBound,
        every: int = 500,
        patience: int = 5,
        min_delta: float = 0.0,
        restore_best: bool = True,
        **options: Any,
    ) -> None:
        self.every = check_int(every, "every", "EarlyStopping")
        self.patience = check_int(patience, "patience", "EarlyStopping")
        self.min_delta = check_number(min_delta, "min_delta", "EarlyStopping", at_least=0)
        self.restore_best = restore_best
        if isinstance(validation, HeldOutBound):
            self.monitor = validation
        else:
            self.monitor = HeldOutBound(validation, **options)
        self._begin()

    def _begin(self) -> None:
        self.steps: list[int] = []
        self.bounds: list[float] = []
        self.errors: list[float] = []
        self.best_step, self._best = 0, -np.inf
        self._parameters: list[np.ndarray] = []

    def __call__(self, approx: GuideApproximation, losses: Any, i: int) -> None:
        """Compare the bound after step `i` with the best one; raise StopIteration after too many without a rise."""
        if self.steps and i <= self.steps[-1]:  # another fit
            self._begin()
        bound = self.monitor(approx, losses, i)
        self.steps.append(i)
        self.bounds.append(bound)
        self.errors.append(self.monitor.se)
        if bound > self._best + self.min_delta or not self.best_step:
            self.best_step, self._best = i, bound
            if self.restore_best:
                self._parameters = [param.get_value() for param in approx.params]
            return
        if len(self.steps) - 1 - self.steps.index(self.best_step) < self.patience:
            return
        for param, value in zip(approx.params, self._parameters):
            param.set_value(value)
        raise StopIteration(
            f"The held-out bound has not risen since step {self.best_step}, where it was {self._best:.5g} nats a row"
        )


def _all_rows(loader: DataLoader, data_name: str) -> dict[str, np.ndarray]:
    """Read the rows of a loader once, by the name of their `pm.Data`."""
    parts: dict[str, list[np.ndarray]] = {}
    for fields in loader.read_fields([field.name for field in loader.layout.fields]):
        for name, array in fields.items():
            parts.setdefault(name or data_name, []).append(np.array(array))
    return {name: np.concatenate(arrays) for name, arrays in parts.items()}
