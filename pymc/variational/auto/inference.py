# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""``pm.fit(method="auto")``: a fit without settings that judges its own result."""

from __future__ import annotations

import logging
import time

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import pytensor

from pytensor.compile.sharedvalue import SharedVariable
from rich.theme import Theme

from pymc.argument_checks import check_int
from pymc.minibatch.axis_tracking import Rows
from pymc.minibatch.minibatch import axis_length
from pymc.minibatch.plates import model_indexes
from pymc.model.core import modelcontext
from pymc.model.full_data import full_data_model, is_streamed
from pymc.model.transform.minibatch import minibatch_model
from pymc.progress_bar import default_progress_theme
from pymc.pytensorf import current_length
from pymc.variational.approximation import GuideApproximation, guided_approximation
from pymc.variational.auto.arrowhead import Arrow, are_independent, find_blocks
from pymc.variational.auto.full_data_passes import (
    Passes,
    first_pass,
    next_pass,
    saved_position,
    set_position,
    weigh_by_rows,
)
from pymc.variational.auto.group_weights import weigh_by_groups
from pymc.variational.auto.importance_sampling import FEWEST, WeightedDraws, importance_sample
from pymc.variational.auto.judge import judge
from pymc.variational.auto.log_posterior import LoadedRows, LogPosterior, Stopped, n_cores
from pymc.variational.auto.modes import Modes, find_modes, spread_starts
from pymc.variational.auto.natural_gradient import ROUGH, WIDTH, Climb, climb, settle
from pymc.variational.auto.normal import Dense, Normal
from pymc.variational.engine.batch_feed import BatchFeed
from pymc.variational.engine.interrupts import Interrupts
from pymc.variational.engine.step_cache import one_at_a_time
from pymc.variational.fit_options import backend_name, take_compile_kwargs
from pymc.variational.fitting import FitState
from pymc.variational.guides.base import Layout, sites_of
from pymc.variational.guides.empirical import EmpiricalGuide
from pymc.variational.guides.initial_values import InitialValues
from pymc.variational.guides.prior import drawable_groups
from pymc.variational.guides.specification import make_guides
from pymc.variational.progress import Compiling, StageProgress
from pymc.variational.report import FitReport, Setting

if TYPE_CHECKING:
    from pymc.model.core import Model

__all__ = ["AutoApproximation", "AutoInference"]


_log = logging.getLogger("pymc.variational.inference")

#: The most evaluations of the log-posterior and its gradient.
MAX_GRADIENTS = 500_000

#: Draws of the posterior to keep, and the most numbers in them.
N_KEPT, MOST_KEPT = 4000, 10_000_000

#: Rows from which a fit starts with a subsample, rows of these, and factor if the density of the first is flat.
MANY_ROWS, SUBSAMPLES, MORE_ROWS = 50_000, (2_000, 10_000), 5

#: The most passes over all rows in a call.
MAX_PASSES = 10

#: Sizes of a point: from which groups are looked for; below which groups are first weighted jointly, which takes fewer
#: gradients; up to which a model with many rows is fitted by passes; and up to which a covariance may be full.
GROUPS_FROM, JOINTLY_UP_TO, ROWS_UP_TO, LARGEST = 3, 100, 500, 1000


class AutoInference:
    """A fit without settings: natural-gradient ascent of a normal, then importance sampling.

    Parameters
    ----------
    model : Model, optional
        Default: the model on the context stack.
    start : dict of str to array, optional
        Starting point, by the name of a variable, or of its value variable.
    random_seed : int, optional

    Attributes
    ----------
    approx : AutoApproximation
        The result. If rows have latent variables, it belongs to the model of all rows.

    Raises
    ------
    TypeError
        If the model has no free variable, or a discrete one.
    ValueError
        If its rows come from a loader and have latent variables.

    Examples
    --------
    >>> with pm.Model():
    ...     x = pm.Normal("x", 1, 2)
    ...     inference = pm.variational.auto.AutoInference(random_seed=1)
    >>> approx = inference.fit(progressbar=False)
    >>> approx.report.trusted
    True
    """

    def __init__(
        self,
        model: Model | None = None,
        start: Mapping[str, np.ndarray] | None = None,
        random_seed: Any = None,
    ) -> None:
        model = modelcontext(model)
        _check_model(model)
        if any(site.plate for site in sites_of(model)):
            model = full_data_model(model)
        self.model = model
        self.starts = InitialValues.from_model(model, start)
        #: Groups with rows, of variables that have others
        self.groups = {} if is_streamed(model) else drawable_groups(model)
        sites = [replace(site, groups=self.groups.get(site.rv)) for site in sites_of(model)]
        size = Layout.of(sites, self.starts.point).size
        self.fitted_model = model if is_streamed(model) else _model_to_fit(model, size)
        self._of_seed = np.random.RandomState(random_seed)
        self._rng = np.random.default_rng(self._of_seed.randint(2**30))
        self.compile_options: Mapping[str, Any] = {}
        self._logp: LogPosterior | None = None
        self._family: Normal | None = None
        self._now: Climb | None = None
        self._modes: Modes | None = None
        self._passes: Passes | None = None
        self._draws: WeightedDraws | None = None
        #: State for checkpoints; a step is a pass over all rows
        self.state: FitState | None = None
        self.hist = np.empty(0)
        #: Callback after each pass over all rows, with True at the end
        self.after_pass: Callable[[bool], None] = lambda is_end: None
        #: More settings for the report
        self.more_settings: Callable[[], Mapping[str, Setting]] = dict

    def fit(
        self,
        *,
        max_gradients: int = MAX_GRADIENTS,
        max_seconds: float | None = None,
        cores: int | None = None,
        progressbar: bool | str = True,
        progressbar_theme: Theme = default_progress_theme,
        backend: str | None = None,
        include_transformed: bool = False,
        compile_kwargs: Mapping[str, Any] | None = None,
        data: BatchFeed | None = None,
    ) -> AutoApproximation:
        """Fit until the answer stands still and its importance weights are even.

        Parameters
        ----------
        max_gradients : int
            The most evaluations of the log-posterior and its gradient.
        max_seconds : float, optional
            The longest time to fit, without compilation.
        cores : int, optional
            Threads of computations on many rows, with the same results for any number. Default: all cores that the
            process may use. Only Numba uses more than one.
        progressbar : bool or "plot"
            Whether to show how many sds the answer moves, and a line at the end. "plot" also draws these.
        progressbar_theme : Theme
        backend : str, optional
            "numba", "jax" or "c". Default: that of `pytensor.config`.
        include_transformed : bool
            Whether :attr:`Approximation.state` has the unconstrained variables too.
        compile_kwargs : dict, optional
            Keywords of `pytensor.function`.
        data : BatchFeed, optional
            Batch feed of a loader: one random sample of its rows stays in memory, and several passes read them all.

        Returns
        -------
        AutoApproximation
            ``approx.report.trusted`` is the verdict. Ctrl-C and a spent budget end the fit and keep its state;
            :meth:`refine` continues.

        Raises
        ------
        FloatingPointError
            If the log-posterior is not finite around any start.
        """
        check_int(max_gradients, "max_gradients", "pm.fit")
        cores = _cores(cores, "pm.fit")
        with Compiling(theme=progressbar_theme, show=progressbar):
            self.prepare(backend, include_transformed, compile_kwargs, data, cores)
            self._run(max_gradients, max_seconds, progressbar, progressbar_theme)
        return self.approx

    def refine(
        self,
        *,
        max_gradients: int = MAX_GRADIENTS,
        max_seconds: float | None = None,
        cores: int | None = None,
        progressbar: bool | str = True,
        progressbar_theme: Theme = default_progress_theme,
    ) -> None:
        """Continue the fit with a new budget.

        Parameters
        ----------
        max_gradients, max_seconds, cores, progressbar, progressbar_theme
            As in :meth:`fit`.

        Raises
        ------
        TypeError
            If there is no fit to continue.
        """
        if self._logp is None:
            raise TypeError("Need to call `.fit` first: `refine` goes on with that fit.")
        check_int(max_gradients, "max_gradients", "refine")
        self._logp.budget.cores = _cores(cores, "refine")
        self._run(max_gradients, max_seconds, progressbar, progressbar_theme)

    @one_at_a_time
    def prepare(
        self,
        backend: str | None = None,
        include_transformed: bool = False,
        compile_kwargs: Mapping[str, Any] | None = None,
        data: BatchFeed | None = None,
        cores: int | None = None,
    ) -> FitState:
        """Compile the log-posterior, and choose the form of the covariance; the arguments are those of `fit`.

        Raises
        ------
        ValueError
            If the model has too many numbers for a full covariance and no independent groups; if it needs a loader
            and has none, or one that can be read only once.
        """
        if data is None and is_streamed(self.model):
            raise ValueError(
                "pm.fit(method='auto') has no rows of this model, which come from a loader: give it data=loader, or "
                "write pm.Trainer('auto', dataloader=loader)"
            )
        if data is not None and data.one_shot:
            raise ValueError(
                "pm.fit(method='auto') reads all rows several times, and the iterator of the loader can be read only "
                "once: give pm.DataLoader a function that returns a new one, or the files themselves"
            )
        started = time.perf_counter()
        asked = {} if compile_kwargs is None else {"compile_kwargs": dict(compile_kwargs)}
        options = take_compile_kwargs(backend, asked)
        self.compile_options = options
        seed = int(self._rng.integers(2**30))
        groups = {rv.name: found for rv, found in self.groups.items()}
        logp = LogPosterior.of(self.fitted_model, self.starts, seed, data, groups, **options)
        logp.budget.cores = _cores(cores, "pm.fit")
        # Few rows are read once and kept, and are then fitted as rows in memory are
        if isinstance(logp.data, LoadedRows) and logp.n_all < MANY_ROWS and logp.data.fit:
            logp = replace(logp.of_part(logp.n_all, self._rng), data=None)
        self._logp = logp
        self._set_family(_family(logp, self._rng), include_transformed)
        self.approx.report = FitReport(
            method="Auto",
            driver=logp.step.driver.name,
            backend=backend_name(options.get("mode")),
            n_steps=0,
            seconds=0.0,
            compile_seconds=time.perf_counter() - started,
            stopped="finished",
        )
        self.state = FitState(0, logp.step, (), False, None, self.approx.report, feed=data)
        return self.state

    def _set_family(self, family: Normal, include_transformed: bool) -> None:
        """Set the form of the covariance, and create the approximation."""
        self._family = family
        normal = guided_approximation(
            self.model, family.guide, starts=self.starts, groups=self.groups
        )
        normal.rng = self._of_seed
        size = min(N_KEPT, max(N_KEPT // 10, MOST_KEPT // family.size))
        self.approx = AutoApproximation(normal, size, self.starts)
        self.approx.keep_transformed(include_transformed)

    def _without_groups(self, logp: LogPosterior) -> None:
        """Restart with a full covariance."""
        before = self.approx
        self._set_family(_full(logp), before.include_transformed)
        self.approx.report, self._now, self._modes = before.report, None, None

    def check(self) -> None:
        """Raise `Stopped` if the fit is interrupted or its budget is spent."""
        assert self._logp is not None
        self._logp.budget.check()

    @property
    def rows(self) -> LoadedRows | None:
        """The rows of a loader, if there are too many to hold; others may take their place, to read them elsewhere."""
        assert self._logp is not None
        return self._logp.data if isinstance(self._logp.data, LoadedRows) else None

    @rows.setter
    def rows(self, rows: LoadedRows) -> None:
        assert self._logp is not None
        self._logp = replace(self._logp, data=rows)

    @property
    def position(self) -> dict[str, Any]:
        """State after the last pass, as arrays and generators by name; setting it resumes the fit bit for bit."""
        assert self._logp is not None
        if self.rows is None:
            return {}  # rows in memory are fitted in one go
        return saved_position(self._rng, self.rows, self._logp.budget, self._modes, self._passes)

    @position.setter
    def position(self, values: Mapping[str, Any]) -> None:
        assert self._logp is not None
        if self.rows is None:
            return
        self._rng, self._modes, self._passes = set_position(values, self.rows, self._logp.budget)
        self._now = None if self._passes is None else self._passes.now
        self.approx.normal.rng = self.approx.rng

    def _run(
        self, max_gradients: int, max_seconds: float | None, progressbar: bool | str, theme: Theme
    ) -> None:
        logp, started, stopped = self._logp, time.perf_counter(), "finished"
        assert logp is not None
        self.approx.check_groups()
        last = logp.budget.n_gradients + max_gradients
        with Interrupts() as interrupts, StageProgress(theme=theme, show=progressbar) as bar:

            def check() -> None:
                if interrupts.pending:
                    raise Stopped("interrupted")
                if logp.budget.n_gradients >= last:
                    raise Stopped(f"max_gradients={max_gradients:,} were taken")
                if max_seconds is not None and time.perf_counter() - started > max_seconds:
                    raise Stopped(f"max_seconds={max_seconds:g} were over")

            logp.budget.check = check
            try:
                self._fit(logp, bar)
            except Stopped as reason:
                stopped = str(reason)
            finally:
                logp.budget.check = lambda: None
            self._keep(logp, time.perf_counter() - started, stopped)
            report = self.approx.report
            self.after_pass(True)
            bar.end(str(report))
        if not report.trusted:
            _log.warning("The fit is %s", report.verdict)

    def _fit(self, logp: LogPosterior, bar: StageProgress) -> None:
        def watch(now: Climb) -> None:
            self._now = now
            moved = now.slope if np.isinf(now.moved) else now.moved
            bar.show(f"Fitting a normal: moves {moved:.2g} sd, {now.n_draws:,} draws", moved)

        def weigh(now: WeightedDraws) -> None:
            bar.show(f"Weighing draws: {now.weights.ess:,.0f} of {len(now.points):,} are effective")

        rng, self._draws = self._rng, None
        if self._modes is None:
            self._find_modes(logp, bar, watch)
        assert self._now is not None and self._modes is not None
        # Blocks that seemed independent at the start may not be at the optimum
        if isinstance(self._now.normal, Arrow) and not are_independent(logp, self._now.normal, rng):
            self._without_groups(logp)
            return self._fit(logp, bar)
        if logp.n_all:
            self._take_passes(logp, self._now, watch)
            bar.show("Weighing draws")
            self._draws = weigh_by_rows(logp, self._now.normal, rng)
            return
        self._now = settle(logp, self._now, rng, watch)
        normal = self._now.normal
        if not isinstance(normal, Arrow) or logp.size < JOINTLY_UP_TO:
            self._draws = importance_sample(logp, normal, rng, weigh)
        if isinstance(normal, Arrow):
            # Weights of the globals alone take more gradients, and are for where joint ones are uneven
            if judge(logp.layout, self._now, self._modes, self._draws, "").trusted:
                return
            draws = weigh_by_groups(logp, normal, rng, self.approx.size, weigh)
            others = (c for c in self._modes.others if not draws.meets(c.normal))
            self._modes, self._draws = replace(self._modes, others=tuple(others)), draws

    def _find_modes(
        self, logp: LogPosterior, bar: StageProgress, watch: Callable[[Climb], None]
    ) -> None:
        """Fit from several starts, of many rows a subsample."""
        some, n_rows = logp, SUBSAMPLES[0]
        while True:
            if logp.data is not None:
                bar.show(f"Fitting {n_rows:,} of {logp.n_all:,} rows")
                some = logp.of_part(n_rows, self._rng)
            first = self._first(some, watch)
            if logp.data is None or n_rows >= logp.data.most or not first.is_flat:
                break
            # The rows miss a category whose coefficient has a flat prior
            n_rows, self._now = MORE_ROWS * n_rows, None
        bar.show("Looking for other modes")
        self._modes = find_modes(some, first, self._rng)
        self._now = self._modes.best

    def _take_passes(self, logp: LogPosterior, now: Climb, watch: Callable[[Climb], None]) -> None:
        """Take passes over all rows until the mean stands still."""
        passes = self._passes
        if passes is None:
            for n_rows in SUBSAMPLES[1:]:
                some = logp.of_part(n_rows, self._rng)
                found = climb(some, now.normal, now.normal.n_draws, self._rng, watch, ROUGH)
                self._now = now = now if found.is_flat else found
            passes = self._pass(logp, watch)
        last = MAX_PASSES * (1 + passes.n_passes // MAX_PASSES)
        while not passes.now.converged and passes.n_passes < last:
            passes = self._pass(logp, watch)

    def _pass(self, logp: LogPosterior, watch: Callable[[Climb], None]) -> Passes:
        """Take a pass over all rows; a pass that is stopped leaves the state unchanged."""
        rng, now, before = self._rng, self._now, self._passes
        assert now is not None and self.state is not None
        state = rng.bit_generator.state  # a pass that is taken again draws the same noise
        try:
            found = first_pass(logp, now, rng) if before is None else next_pass(logp, before, rng)
        except BaseException:
            rng.bit_generator.state = state
            raise
        self._passes, self._now = found, found.now
        self.state = self.state._replace(i=found.n_passes)
        watch(self._now)
        self.after_pass(False)
        return found

    def _first(self, logp: LogPosterior, watch: Callable[[Climb], None]) -> Climb:
        """Fit from the initial point, or from the first start around which the density is finite."""
        family = self._family
        assert family is not None
        if self._now is not None:
            return climb(logp, self._now.normal, family.n_draws, self._rng, watch, ROUGH)
        error: FloatingPointError | None = None
        for start in chain([logp.start], spread_starts(logp, self._rng)):
            normal = family.around(start, WIDTH)
            try:
                return climb(logp, normal, family.n_draws, self._rng, watch, ROUGH)
            except FloatingPointError as bad:
                error = error or bad
        raise FloatingPointError(
            f"pm.fit(method='auto'): {error}, nor around other starts. model.debug() says which term is not "
            "finite there; start= gives another start"
        )

    def _keep(self, logp: LogPosterior, seconds: float, stopped: str) -> None:
        """Write the result into the approximation and its report."""
        approx, corrected = self.approx, False
        rng = deepcopy(self._rng)  # a resumed fit draws the same numbers
        verdict = judge(logp.layout, self._now, self._modes, self._draws, stopped)
        if self._now is not None:
            normal, draws, n_kept = self._now.normal, self._draws, approx.size
            approx.set_normal(normal)
            if draws is not None and draws.weights.ess >= FEWEST:
                # Where draws of the normal are as good, there are more of them
                corrected = not (logp.n_all and draws.needs_no_correction)
            if corrected and draws is not None:
                approx.set_draws(draws.resampled(n_kept, rng))
            else:
                n_noise = max(n_kept, normal.n_draws)
                approx.set_draws(normal.points(normal.noise(n_noise, rng)[:n_kept]))
        approx.report = approx.normal.report = replace(
            approx.report,
            n_steps=round(logp.budget.n_gradients),
            seconds=approx.report.seconds + seconds,
            stopped=stopped,
            settings={
                "guide": approx.normal.guides[0].name,
                "corrected": corrected,
                **({} if (found := approx.fitted_groups) is None else {"groups_with_rows": found}),
                **self.more_settings(),
            },
            verdict=verdict,
        )
        if self.state is not None:
            self.state = self.state._replace(report=approx.report)


def _cores(cores: int | None, where: str) -> int:
    """Return the argument `cores` of the user's function `where`, or its default."""
    return n_cores() if cores is None else check_int(cores, "cores", where)


def _family(logp: LogPosterior, rng: np.random.Generator) -> Normal:
    """Choose the form of the covariance."""
    if logp.size >= GROUPS_FROM and not logp.n_all:
        blocks = find_blocks(logp, rng)
        if blocks is not None:
            return Arrow.of_blocks(blocks)
    return _full(logp)


def _full(logp: LogPosterior) -> Normal:
    """Return a full covariance, unless the model is too large."""
    if logp.size <= LARGEST:
        return Dense.of_size(logp.size)
    raise ValueError(
        f"pm.fit(method='auto') fits a full covariance of up to {LARGEST:,} numbers, and this model has "
        f"{logp.size:,}, among which it finds no groups that are independent given the others. Take "
        "guide=pm.LowRank() or 'mean_field', and pm.variational.diagnose"
    )


def _model_to_fit(model: Model, size: int) -> Model:
    """Return a model of minibatches if it has many rows that can be subsampled, and one of all rows otherwise.

    `size` is that of a point.
    """
    full = full_data_model(model)
    observed = [full.rvs_to_values[rv] for rv in full.observed_RVs if rv.type.ndim]
    lengths = [current_length(axis_length(value, 0)) or 0 for value in observed]
    if max(lengths, default=0) < MANY_ROWS or size > ROWS_UP_TO:
        return full
    if indexes := model_indexes(model):
        return model if len(set(map(Rows, indexes))) == 1 else full
    try:
        return minibatch_model(model, batch_size=SUBSAMPLES[0])
    except (TypeError, ValueError, NotImplementedError) as error:
        _log.info(
            "pm.fit(method='auto') takes all rows at a time, since the model cannot be fitted on a part of them: %s",
            error,
        )
        return full


def _check_model(model: Model) -> None:
    if not model.free_RVs:
        raise TypeError(
            f"{model.name or 'The model'} has no free variables, so there is nothing to fit"
        )
    discrete = [rv.name for rv in model.free_RVs if not rv.type.dtype.startswith("float")]
    if discrete:
        raise TypeError(
            f"pm.fit(method='auto') fits continuous variables, and {', '.join(map(repr, discrete))} "
            "are discrete. Marginalise them: write a mixture as pm.Mixture, or take "
            "pymc_extras.marginalize(model, [...]), and fit that"
        )
    local = [site.name for site in sites_of(model) if site.plate]
    if local and is_streamed(model):
        raise ValueError(
            f"pm.fit(method='auto') needs all rows of {', '.join(map(repr, local))} in memory, and those of this "
            "model come from a loader. Make the model of arrays, or take method='advi'"
        )


class AutoApproximation(GuideApproximation):
    """Draws of the posterior by adaptive importance sampling, and the normal they were drawn from.

    Parameters
    ----------
    normal : FullRank
    size : int
        Number of draws.
    starts : InitialValues, optional
        Of the model.

    Attributes
    ----------
    normal : FullRank
        The normal without the correction by importance weights.

    Examples
    --------
    >>> with pm.Model():
    ...     x = pm.Normal("x", 1, 2)
    ...     approx = pm.fit(method="auto", random_seed=1, progressbar=False)
    >>> approx.sample(100, random_seed=1)["posterior"]["x"].shape
    (1, 100)
    """

    normal: Any

    def __init__(
        self, normal: GuideApproximation, size: int, starts: InitialValues | None = None
    ) -> None:
        guides = make_guides(
            normal.model,
            {None: EmpiricalGuide(size, 0.0, replace=False)},
            rng=normal.rng,
            starts=starts,
            groups=normal.groups_with_rows,
        )
        super().__init__(normal.model, guides, rng=normal.rng)
        self.normal, self.size = normal, size

    def set_normal(self, normal: Normal) -> None:
        """Set the mean and covariance of the normal."""
        [guide] = self.normal.guides
        for name, value in normal.guide_parameters.items():
            var = self.normal.storage.dense[guide.params_by_name[name]]
            var.set_value(value.astype(pytensor.config.floatX))

    def set_draws(self, draws: np.ndarray) -> None:
        """Set the draws of the posterior, unweighted, shape (size, ndim)."""
        [histogram] = self.storage.dense.values()
        histogram.set_value(draws.astype(pytensor.config.floatX))

    def __deepcopy__(self, memo: dict[int, Any]) -> AutoApproximation:
        new = super().__deepcopy__(memo)
        new.normal = deepcopy(self.normal, memo)
        return new

    @property
    def underlying(self) -> GuideApproximation:
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
            Number of draws; up to :attr:`size`, none is drawn twice.
        correct : bool
            Whether to take the draws corrected by importance weights, or to draw from the normal.
        **kwargs
            Keywords of :meth:`pymc.Approximation.sample`.

        Returns
        -------
        DataTree or MultiTrace
            The group "fit" has the verdict in its attributes.
        """
        return super().sample(draws, **kwargs) if correct else self.normal.sample(draws, **kwargs)
