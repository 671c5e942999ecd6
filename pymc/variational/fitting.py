# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Run a fit: from the arguments of :meth:`pymc.Inference.fit` to steps, their losses and the report."""

from __future__ import annotations

import inspect
import logging
import time
import warnings

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from rich.theme import Theme

from pymc.argument_checks import check_int
from pymc.minibatch.axis_tracking import Rows
from pymc.minibatch.index import check_batch_size
from pymc.minibatch.plates import model_indexes
from pymc.minibatch.stream_index import is_stream
from pymc.progress_bar import default_progress_theme
from pymc.pytensorf import current_length
from pymc.variational.approximation import GuideApproximation
from pymc.variational.averaging import TailAverage, check_average
from pymc.variational.convergence import LEAST_STEPS, ConvergenceMonitor
from pymc.variational.early_stopping import CheckStationarity, check_until
from pymc.variational.engine.batch_feed import BatchFeed
from pymc.variational.engine.callback_schedule import next_call
from pymc.variational.engine.interrupts import Interrupts
from pymc.variational.engine.loop import ENDED, LoopEnd, NotFinite, run_loop
from pymc.variational.engine.step_cache import Step, make_step, one_at_a_time
from pymc.variational.fit_objective import FitObjective
from pymc.variational.fit_options import (
    FitOptions,
    argument_names,
    backend_name,
    check_callbacks,
    check_known,
    check_no_more,
    settings_of,
    take_compile_kwargs,
)
from pymc.variational.objectives.base import Objective
from pymc.variational.objectives.elbo import ELBO
from pymc.variational.objectives.stein import Stein
from pymc.variational.operators import KL, KSD
from pymc.variational.optimizers import as_optimizer
from pymc.variational.progress import Compiling, FitProgress, log_info
from pymc.variational.report import FitReport, Verdict, describe_failed_step
from pymc.variational.test_functions import rbf
from pymc.variational.tuned import with_named_optimizer
from pymc.variational.updates import adagrad_window

__all__ = ["FitState", "Fitting"]

_log = logging.getLogger("pymc.variational.inference")


class FitState(NamedTuple):
    """The state of a fit, from which `refine` goes on."""

    i: int  # steps done
    step: Step
    callbacks: Sequence[Callable]
    score: bool  # whether losses are kept
    average: TailAverage | None
    report: FitReport  # of the fit up to now
    averaged: bool = False  # whether the parameters are their averages now
    feed: BatchFeed | None = None  # the batches, in a fit of a stream
    # The last step of a run that ended early, or that a checkpoint was taken of: the average of the parameters
    # goes on in a run that ends there
    until: int | None = None
    check: CheckStationarity | None = None  # may end the fit before
    #: The learning rate at the steps since `first`, up to a factor
    rates: Callable[[np.ndarray], np.ndarray] = np.ones_like
    first: int = 0
    #: The verdict in place of that the parameters stand still, for a fit that may do so elsewhere
    doubt: Callable[[], Verdict | None] = lambda: None


class Fitting:
    """Mixin of :class:`pymc.Inference` that runs fits."""

    objective: Any
    approx: Any
    hist: np.ndarray
    state: FitState | None
    _maybe_score: Callable[[bool | None], bool]

    def fits_guides(self, op: Any, approx: Any, tf: Any, kwargs: Mapping[str, Any]) -> bool:
        """Return whether an operator fits guides by an objective, after it has been set.

        An operator of the user's own does not.
        """
        of_op: Iterable[str] | None = ("n_particles", "reduction")
        if isinstance(op, type):
            of_op = argument_names(op, "__init__")
        of_class = inspect.signature(type(self)).parameters.keys() - {"args", "kwargs"}
        of_op = set(kwargs if of_op is None else of_op) - {"approx"}  # a user's own may take any
        check_known(f"pm.{type(self).__name__}", kwargs, (of_op | of_class) - {"op", "tf"})
        found = objective_of_operator(op, tf, kwargs)
        if found is not None and isinstance(approx, GuideApproximation):
            objective, options = found
            self.hist = np.asarray(())
            self.objective = FitObjective(approx, objective, **options)
            self.state = None
            return True
        return False

    @property
    def method(self) -> str:
        """The name of the method in a report: the class, or the objective of a fit of guides."""
        name = type(self).__name__
        if name == "Inference" and isinstance(self.objective, FitObjective):
            return self.objective.objective.name.upper()
        return name

    def fit(
        self,
        n: int = 10000,
        score: bool | None = None,
        callbacks: Sequence[Callable] | None = None,
        progressbar: bool | str = True,
        progressbar_theme: Theme = default_progress_theme,
        *,
        backend: str | None = None,
        include_transformed: bool = False,
        average: float | None = None,
        until: str | CheckStationarity | None = None,
        data: Any = None,
        data_name: str = "batch",
        **kwargs: Any,
    ) -> Any:
        """Perform Operator Variational Inference.

        Parameters
        ----------
        n : int
            Number of steps. 0 only initialises.
        score : bool, optional
            Whether to keep the loss of each step in `hist`. Default: if the operator has one.
        callbacks : list of callable (Approximation, losses, i) -> None
            Called after each step, or if one has an attribute `every`, when that divides `i`: the steps
            between are one compiled call. `StopIteration` ends the fit.
        progressbar : bool or "plot"
            Whether to show a bar in a terminal or notebook, or lines in a log, and a line while the fit
            compiles. "plot" also draws the loss as the fit goes on.
        progressbar_theme : Theme
            Custom theme for the progress bar
        average : float, optional
            Set the parameters to their average over this last part of the steps, such as 0.5 for
            the second half.
        until : "stationary" or CheckStationarity, optional
            End before `n` steps when the parameters only vary about fixed values, and set them to their average
            over these steps. :class:`~pymc.variational.callbacks.CheckStationarity` takes another tolerance.
        backend, include_transformed, data, data_name
            As in :func:`pymc.fit`.

        Other Parameters
        ----------------
        obj_n_mc, tf_n_mc : int
            Monte Carlo samples for the gradients of the objective and of the test function
        obj_optimizer, test_optimizer : callable (grads, params) -> updates
            Optimizers of the objective's parameters and of the test function's. "tuned" is
            :func:`~pymc.variational.tuned.tuned` for `n` steps, with ``average=0.5``: a falling rate, for
            posteriors of any width.
        more_obj_params, more_tf_params : list
            Custom parameters for these optimizers
        more_updates : dict
            Custom updates of shared variables
        total_grad_norm_constraint : float
            Bound of the norm of the gradient
        compile_kwargs : dict
            Arguments of `pytensor.function`. ``compile_kwargs["mode"]`` cannot be combined with ``backend``.
        more_replacements : dict
            Replacements in the graph of the objective

        Returns
        -------
        :class:`Approximation`
            With the losses in `hist` and a :class:`~pymc.variational.report.FitReport` in `report`.

        Raises
        ------
        FloatingPointError
            If a loss or a parameter is nan or infinite. The approximation keeps the state after the
            last good step.
        Exception
            Of a callback, or of the source of `data`. All steps up to then are kept, too.
        """
        n = check_int(n, "n", "a fit", at_least=0)
        kwargs_of_step = with_named_optimizer(n, {"average": average, "until": until, **kwargs})
        self._check_arguments(callbacks, average, until, kwargs)
        with Compiling(theme=progressbar_theme, show=progressbar):
            state = self.prepare(
                score,
                callbacks,
                backend=backend,
                include_transformed=include_transformed,
                data=data,
                data_name=data_name,
                **kwargs_of_step,
            )
        self._run(state, n, progressbar, progressbar_theme)
        return self.approx

    @one_at_a_time
    def prepare(
        self,
        score: bool | None = None,
        callbacks: Sequence[Callable] | None = None,
        *,
        backend: str | None = None,
        include_transformed: bool = False,
        average: float | None = None,
        until: str | CheckStationarity | None = None,
        data: Any = None,
        data_name: str = "batch",
        **kwargs: Any,
    ) -> FitState:
        """Compile a fit without taking steps: `refine` takes them.

        The arguments are those of `fit`, but for names of optimizers, which need a number of steps.

        Returns
        -------
        FitState
            Also in `state`. The shared variables of its step have the values before the first one.
        """
        callbacks, fraction, check = self._check_arguments(callbacks, average, until, kwargs)
        score = self._maybe_score(score)
        started = time.perf_counter()
        feed = self._feed(data, data_name)
        compile_kwargs = take_compile_kwargs(backend, kwargs)
        step, tail = self._make_step(score, fraction, compile_kwargs, kwargs, feed)
        mode = compile_kwargs.get("mode")
        settings = kwargs | {"average": average, "until": until} | self.objective.settings()
        report = FitReport(
            method=self.method,
            driver=step.driver.name,
            backend=backend_name(mode),
            n_steps=0,
            seconds=0.0,
            compile_seconds=time.perf_counter() - started,
            stopped="finished",
            settings=settings_of(settings),
            loss_factor=self.objective.factor(),
        )
        self.approx.keep_transformed(include_transformed)
        rates = as_optimizer(kwargs.get("obj_optimizer", adagrad_window)).rates
        self.state = FitState(
            0, step, callbacks, score, tail, report, feed=feed, check=check, rates=rates
        )
        return self.state

    def _check_arguments(
        self, callbacks: Any, average: Any, until: Any, kwargs: Mapping[str, Any]
    ) -> tuple[tuple[Callable, ...], float | None, CheckStationarity | None]:
        """Check the arguments of a fit; return callbacks, the part to average, and the check that ends it."""
        of_updates = argument_names(type(self.objective), "updates")
        if of_updates is not None:
            check_known("A fit", kwargs, self.fit_names() | of_updates)
        callbacks = check_callbacks(callbacks)
        for callback in callbacks:
            next_call(callback, 0)  # raises for an `every` that is no rate
        check = check_until(until, average)
        return callbacks, 1.0 if check else check_average(average), check

    @classmethod
    def fit_names(cls) -> frozenset[str]:
        """Return the names of the arguments of `fit` itself, without those of the objective's updates."""
        of_fits = [
            inspect.signature(vars(base)["fit"]) for base in cls.__mro__ if "fit" in vars(base)
        ]
        named = frozenset(p for signature in of_fits for p in signature.parameters)
        return named.union(FitOptions.names("compiler")) - {"self", "kwargs"}

    def _feed(self, data: Any, data_name: str) -> BatchFeed | None:
        """Find the variables of the model that a loader feeds."""
        model = self.approx.model
        if isinstance(data, BatchFeed) or (data is None and not model.root._streams):
            return data
        # Only a fit of a stream needs them
        from pymc.variational.placeholders import check_rows_set, make_feed

        if data is None:
            check_rows_set(model)
            return None
        return make_feed(model, data, data_name)

    def refine(
        self,
        n: int,
        progressbar: bool | str = True,
        progressbar_theme: Theme = default_progress_theme,
        **kwargs: Any,
    ) -> None:
        """Take `n` more steps with the step, the optimizer's state and the callbacks of the last fit.

        Parameters
        ----------
        n : int
            Number of steps.
        progressbar, progressbar_theme
            As in `fit`.

        Raises
        ------
        TypeError
            If other arguments are given. Those of the last fit stay; `fit` takes new ones.
        """
        check_no_more("refine", kwargs)
        n = check_int(n, "n", "a fit", at_least=0)
        if self.state is None:
            raise TypeError(
                "Need to call `.fit` first: `refine` goes on with the step of that fit."
            )
        if n == 0:
            return
        if self.state.average is not None and self.state.averaged:
            self.state.average.swap()  # back to where the steps ended
            self.state = self.state._replace(averaged=False)
        self._run(self.state, n, progressbar, progressbar_theme)

    def _make_step(
        self,
        score: bool,
        fraction: float | None,
        compile_kwargs: Mapping[str, Any],
        kwargs: Mapping[str, Any],
        feed: BatchFeed | None,
    ) -> tuple[Step, TailAverage | None]:
        updates, loss, tail = self.objective.updates_averaged(fraction, **kwargs)
        guarded = self.objective.guarded
        # The loss of a guarded step is needed to know that it is not finite
        loss = loss if score or guarded else None
        seed = int(self.approx.rng.randint(2**30, dtype=np.int64))
        model = self.approx.model
        step = make_step(
            updates,
            loss,
            model=model,
            random_seed=seed,
            guarded=guarded,
            batch_dtypes=None if feed is None else feed.batch_dtypes,
            **compile_kwargs,
        )
        return step, tail

    def _run(self, state: FitState, n: int, progressbar: bool | str, theme: Theme) -> None:
        """Take steps from `state` on; update `hist`, `state` and `report`."""
        self._check_data()
        for table in self.approx.tables if state.feed is None else ():
            table.check_known()  # a loader knows the rows of its batches
        if state.average is not None and state.i + n != state.until:
            state.average.begin(n)
        progress = FitProgress(n, theme=theme, show=progressbar)
        watch = None
        if state.check is not None:
            state.check.begin(state.average)
        elif n >= LEAST_STEPS and isinstance(self.approx, GuideApproximation):
            step, n_before = state.step, state.i - state.first
            rates = lambda steps: state.rates(n_before + steps)  # noqa: E731
            watch = ConvergenceMonitor(self.approx, step.shared, n, rates, step.at_once)
        with Interrupts() as interrupts:
            end, error = self._take_steps(state, n, progress, interrupts, watch)
            average = state.average if error is None else None
            if average is not None:
                average.swap()
            verdict = None
            if watch is not None:
                fraction = None if average is None else average.fraction
                verdict = watch.verdict(end.losses, state.report.loss_factor, fraction)
                if verdict is not None and verdict.converged:
                    verdict = state.doubt() or verdict
            elif state.check is not None:
                verdict = state.check.verdict()
            self._keep_end(state, n, end, verdict)
            if average is not None:
                self.state = self.state and self.state._replace(averaged=True)
            error = self._call_at_end(state, end, error)
        if error is not None:
            raise error
        if end.stopped == ENDED:
            warnings.warn(
                f"The source of the batches ended after {end.n_steps} of the n={n} steps of this fit, which "
                "keeps these. A source that can be read again, such as an array or a function that returns "
                "a new iterator, gives as many passes as a fit needs",
                stacklevel=3,
            )
        may_change = state.callbacks and isinstance(self.approx, GuideApproximation)
        if may_change and self.approx.groups_have_changed():
            warnings.warn(
                "The rows of groups were changed during the fit, by data that a callback set. Its steps have "
                "counted those that each group had when it began: fit again, or set data between two calls",
                stacklevel=3,
            )
        _log_end(n, end, state.report.settings.get("bound"))
        if verdict is not None and not verdict.converged:
            _log.warning("The fit has %s", verdict)

    def _check_data(self) -> None:
        """Raise a ValueError if the data have fewer rows than a batch, or data of the same rows differ in length."""
        for index in model_indexes(self.approx.model):
            n_rows = current_length(Rows(index).total)
            if n_rows is not None and not is_stream(index):
                check_batch_size(Rows(index).batch_size, n_rows)
        for table in self.approx.tables:
            table.check_rows()
        if isinstance(self.approx, GuideApproximation):
            self.approx.check_groups()

    def _call_at_end(
        self, state: FitState, end: LoopEnd, error: BaseException | None
    ) -> BaseException | None:
        """Make the callbacks of the end of a fit; return the error to raise."""
        losses = end.losses if state.score else None
        for callback in state.callbacks:
            if getattr(callback, "at_end", False):
                try:
                    callback(self.approx, losses, state.i + end.n_steps)
                except BaseException as late:
                    if error is None:
                        error = late
                    else:
                        error.add_note(f"After it, at the end of the fit: {late!r}")
        return error

    def _take_steps(
        self,
        state: FitState,
        n: int,
        progress: FitProgress,
        interrupts: Interrupts,
        watch: ConvergenceMonitor | None,
    ) -> tuple[LoopEnd, BaseException | None]:
        """Take steps; return how they ended, and the error to raise after all is kept."""
        try:
            end = run_loop(
                state.step,
                n,
                approx=self.approx,
                params=self.approx.params,
                callbacks=[*state.callbacks, *([state.check] if state.check else [])],
                progress=progress,
                n_before=state.i,
                feed=state.feed,
                interrupts=interrupts,
                check=self._check_data,
                watch=watch,
            )
        except NotFinite as bad:
            n_good = state.i + bad.end.n_steps
            message = describe_failed_step(self.approx, state.step, n_good, bad.loss, bad.batches)
            return bad.end, FloatingPointError(message)
        return end, end.error

    def _keep_end(self, state: FitState, n: int, end: LoopEnd, verdict: Verdict | None) -> None:
        report = state.report.after(end.n_steps, end.seconds, end.stopped, verdict)
        until = None if end.n_steps == n else state.i + n
        self.state = state._replace(i=state.i + end.n_steps, report=report, until=until)
        if state.score:
            self.hist = np.concatenate([self.hist, end.losses])
            if self.objective.guide_losses:
                self.approx.guide_losses = self.guide_losses_with(end.aux_losses)
        self.approx.hist, self.approx.report = self.hist, report

    def guide_losses_with(self, aux_losses: np.ndarray) -> dict[str, np.ndarray]:
        """Return the losses of the guide by name, with those of more steps, shape (n_steps, n)."""
        known = self.approx.guide_losses
        return {
            name: np.concatenate([known.get(name, np.empty(0)), losses])
            for name, losses in zip(self.objective.guide_losses, aux_losses.T)
        }


def objective_of_operator(
    op: Any, tf: Any, arguments: Mapping[str, Any]
) -> tuple[Objective, dict[str, Any]] | None:
    """Return the objective of an operator of PyMC, and the arguments that are not the objective's.

    None for an operator of the user's own.
    """
    options = dict(arguments)
    if isinstance(op, Objective):
        return op, options
    if op is KL:
        return ELBO(beta=options.pop("beta", 1.0)), options
    if op is KSD and tf is rbf:
        return Stein(temperature=float(options.pop("temperature", 1.0))), options
    return None


def _log_end(n: int, end: LoopEnd, bound: Any = None) -> None:
    """Log how a run ended, as PyMC does, and the kind of its bound."""
    if end.stopped not in ("finished", "interrupted"):
        log_info(_log, end.stopped)
    if n == 0:
        log_info(_log, "Initialization only")
        return
    did = "Finished" if end.stopped == "finished" else f"Interrupted at {end.n_steps:,d}"
    loss = ""
    if len(end.losses):
        recent = end.losses[-1000:] if n >= 10 else end.losses[-1:]
        loss = f": {'Average ' if n >= 10 else ''}Loss = {recent.mean():,.5g}"
    what = f", a bound {bound}" if bound else ""
    log_info(_log, f"{did} [{100 * end.n_steps // n:.0f}%]{loss}{what}")
