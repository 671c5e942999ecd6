# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Callbacks that write the course of a fit elsewhere: CSV files, TensorBoard, MLflow, Weights & Biases.

The library of a logger is imported at the first step that it logs.
"""

from __future__ import annotations

import csv
import os
import time

from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pymc.argument_checks import check_int
from pymc.variational.engine.callback_schedule import CallbackSchedule

if TYPE_CHECKING:
    from pymc.variational.report import FitReport

__all__ = ["CSVLogger", "MLflowLogger", "MetricLogger", "TensorBoardLogger", "WandbLogger"]

#: A statistic of a fit.
Statistic = Callable[[Any, Any, int], Any]


class MetricLogger(CallbackSchedule):
    """Base class of loggers: write :meth:`log`, and if need be :meth:`end`, for another one.

    Parameters
    ----------
    every : int
        Steps between two records.
    stats : mapping of str to callable, optional
        More metrics by name: functions of ``(approx, losses, i)``, such as :class:`HeldOutBound`. Each entry of
        an array is a metric.

    Raises
    ------
    TypeError
        If a statistic cannot be called, or `every` is no whole number.
    ValueError
        If `every` is less than 1.

    Notes
    -----
    The metrics are ``loss``, the mean of the losses since the last record, as in ``approx.hist``, and
    ``steps_per_second``.

    Examples
    --------
    >>> class Listed(pm.callbacks.MetricLogger):
    ...     def __init__(self, every):
    ...         super().__init__(every)
    ...         self.records = []
    ...
    ...     def log(self, step, metrics):
    ...         self.records.append((step, sorted(metrics)))
    >>> listed = Listed(every=20)
    >>> with pm.Model():
    ...     x = pm.Normal("x")
    ...     approx = pm.fit(50, callbacks=[listed], progressbar=False)
    >>> [step for step, names in listed.records]
    [20, 40, 50]
    >>> listed.records[0]
    (20, ['loss', 'steps_per_second'])
    """

    at_end = True

    def __init__(self, every: int = 100, stats: Mapping[str, Statistic] | None = None) -> None:
        name = type(self).__name__
        self.every = check_int(every, "every", name)
        for key, stat in (stats or {}).items():
            if not callable(stat):
                raise TypeError(
                    f"stats of {name} has {key!r}: {stat!r}, which cannot be called: give it a function such as "
                    "lambda approx, losses, i: losses.min()"
                )
        self._stats = dict(stats or {})
        self._last, self._time, self._n_losses = 0, time.perf_counter(), 0
        self._start: int | None = None  # the step before a call of fit
        self._has_ended = False

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write the metrics after a step."""
        raise NotImplementedError(f"{type(self).__name__} has no method log(step, metrics)")

    def end(self, report: FitReport) -> None:
        """Write the report, at the end of a call of `fit` or `refine`."""

    def __call__(self, approx: Any, losses: np.ndarray | None, i: int) -> None:
        """Log the steps since the last record; at the end, the report too."""
        n_losses, start = (0, None) if losses is None else (len(losses), i - len(losses))
        is_again = i < self._last or (i == self._last and self._has_ended)
        if start != self._start or is_again:  # another call of fit
            self._start, self._n_losses = start, 0
            if is_again:
                self._last = start or 0
        is_end = i == self._last or i % self.every
        self._has_ended = bool(is_end)
        if i > self._last:
            metrics = self._metrics(approx, losses, i)
            self._last, self._n_losses, self._time = i, n_losses, time.perf_counter()
            self.log(i, metrics)
        if is_end:
            self.end(approx.report)

    def _metrics(self, approx: Any, losses: np.ndarray | None, i: int) -> dict[str, float]:
        metrics = {}
        if losses is not None and len(losses) > self._n_losses:
            metrics["loss"] = float(losses[self._n_losses :].mean())
        seconds = time.perf_counter() - self._time
        metrics["steps_per_second"] = (i - self._last) / max(seconds, 1e-9)
        for name, stat in self._stats.items():
            value = np.asarray(stat(approx, losses, i), "float64")
            if value.ndim == 0:
                metrics[name] = float(value)
            else:
                metrics |= {f"{name}_{k}": float(entry) for k, entry in enumerate(value.flat)}
        return metrics


class CSVLogger(MetricLogger):
    """Log the course of a fit to a CSV file, a line for each record.

    Parameters
    ----------
    path : str or path
        A file that is there is replaced at the first record.
    every, stats
        As of :class:`MetricLogger`.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> path = Path(tempfile.mkdtemp()) / "fit.csv"
    >>> with pm.Model():
    ...     x = pm.Normal("x")
    ...     approx = pm.fit(
    ...         40, callbacks=[pm.callbacks.CSVLogger(path, every=20)], progressbar=False
    ...     )
    >>> path.read_text().splitlines()[0]
    'step,loss,steps_per_second'
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        every: int = 100,
        stats: Mapping[str, Statistic] | None = None,
    ) -> None:
        super().__init__(every, stats)
        self.path = Path(path)
        self._is_open = False

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        with self.path.open("a" if self._is_open else "w", newline="") as file:
            writer = csv.writer(file)
            if not self._is_open:
                writer.writerow(["step", *metrics])
            writer.writerow([step, *metrics.values()])
        self._is_open = True


class TensorBoardLogger(MetricLogger):
    """Log the course of a fit for TensorBoard, by tensorboardX or by PyTorch.

    Parameters
    ----------
    folder : str or path
        The folder of the run: ``tensorboard --logdir`` takes it, or the one above.
    every, stats
        As of :class:`MetricLogger`.

    Raises
    ------
    ImportError
        If neither library is installed.

    Examples
    --------
    >>> import tempfile
    >>> logger = pm.callbacks.TensorBoardLogger(tempfile.mkdtemp(), every=20)
    >>> with pm.Model():
    ...     x = pm.Normal("x")
    ...     approx = pm.fit(40, callbacks=[logger], progressbar=False)
    """

    LIBRARIES = ("tensorboardX", "torch.utils.tensorboard")

    def __init__(
        self,
        folder: str | os.PathLike[str],
        every: int = 100,
        stats: Mapping[str, Statistic] | None = None,
    ) -> None:
        super().__init__(every, stats)
        self.folder = Path(folder)
        found = [name for name in self.LIBRARIES if find_spec(name.partition(".")[0])]
        if not found:
            raise _not_installed(self, "tensorboardX", "tensorboardX, or torch")
        self._library = found[0]
        self._writer: Any = None

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        if self._writer is None:
            self._writer = import_module(self._library).SummaryWriter(str(self.folder))
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)

    def end(self, report: FitReport) -> None:
        if self._writer is not None:
            self._writer.add_text("report", str(report), report.n_steps)
            self._writer.close()
            self._writer = None


class MLflowLogger(MetricLogger):
    """Log the course of a fit, its settings and its verdict to MLflow.

    The run is the active one. Without one, a run is started, which ends with the fit, and goes on with `refine`.

    Parameters
    ----------
    every, stats
        As of :class:`MetricLogger`.

    Raises
    ------
    ImportError
        If MLflow is not installed.

    Examples
    --------
    >>> with pm.Model():
    ...     x = pm.Normal("x")
    ...     approx = pm.fit(callbacks=[pm.callbacks.MLflowLogger()])  # doctest: +SKIP
    """

    def __init__(self, every: int = 100, stats: Mapping[str, Statistic] | None = None) -> None:
        super().__init__(every, stats)
        if not find_spec("mlflow"):
            raise _not_installed(self, "mlflow-skinny", "mlflow")
        self._run_id: str | None = None
        self._is_own = False

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        import mlflow

        if mlflow.active_run() is None:
            self._run_id = mlflow.start_run(run_id=self._run_id).info.run_id
            self._is_own = True
        mlflow.log_metrics(dict(metrics), step=step)

    def end(self, report: FitReport) -> None:
        import mlflow

        mlflow.set_tags({name: str(value) for name, value in _results(report).items()})
        if self._is_own:
            mlflow.end_run()
            self._is_own = False


class WandbLogger(MetricLogger):
    """Log the course of a fit, its settings and its verdict to Weights & Biases.

    Parameters
    ----------
    run : wandb.Run, optional
        Default: the current run, or else a new one, ``wandb.init()``, which ends with the fit.
        ``wandb.init(mode="offline")`` writes to this machine alone.
    every, stats
        As of :class:`MetricLogger`.

    Raises
    ------
    ImportError
        If wandb is not installed.

    Examples
    --------
    >>> import wandb  # doctest: +SKIP
    >>> run = wandb.init(mode="offline")  # doctest: +SKIP
    >>> with pm.Model():
    ...     x = pm.Normal("x")
    ...     approx = pm.fit(callbacks=[pm.callbacks.WandbLogger(run)])  # doctest: +SKIP
    """

    def __init__(
        self, run: Any = None, every: int = 100, stats: Mapping[str, Statistic] | None = None
    ) -> None:
        super().__init__(every, stats)
        if run is None and not find_spec("wandb"):
            raise _not_installed(self, "wandb", "wandb")
        self._run, self._is_own = run, False

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        if self._run is None:
            import wandb

            self._is_own = wandb.run is None
            self._run = wandb.init() if self._is_own else wandb.run
        self._run.log(dict(metrics), step=step)

    def end(self, report: FitReport) -> None:
        if self._run is None:
            return
        self._run.config.update(dict(report.settings), allow_val_change=True)
        self._run.summary.update(_results(report))
        if self._is_own:
            self._run.finish()
            self._run, self._is_own = None, False


def _results(report: FitReport) -> dict[str, Any]:
    """Return what a run is remembered by: the settings, how the fit ended, and its verdict."""
    results: dict[str, Any] = {
        **report.settings,
        "method": report.method,
        "stopped": report.stopped,
        "n_steps": report.n_steps,
    }
    if report.verdict is not None:
        results |= {"converged": report.converged, "verdict": str(report.verdict)}
    return results


def _not_installed(logger: MetricLogger, package: str, libraries: str) -> ImportError:
    return ImportError(
        f"{type(logger).__name__} writes by {libraries}, which is not installed: pip install {package}. "
        "pm.callbacks.CSVLogger needs nothing"
    )
