# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""`pm.Trainer`: a fit to the batches of a loader, which can go on where it stopped."""

from __future__ import annotations

import os
import uuid
import warnings

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pytensor

from rich.theme import Theme

from pymc.argument_checks import check_int
from pymc.data_loading.batch import Position
from pymc.data_loading.data_loader import DataLoader, check_parts
from pymc.data_loading.loader import Loader
from pymc.variational.auto import AutoInference
from pymc.variational.checkpoints.identity import warn_of_versions
from pymc.variational.checkpoints.lock import check_own_folder, lock_folder, own_checkpoints
from pymc.variational.checkpoints.store import (
    is_checkpoint,
    remove_checkpoints,
    step_folder,
    write,
)
from pymc.variational.checkpoints.trainer import (
    CheckpointCallback,
    Plan,
    StepIdentity,
    checkpoint_plan,
    read_trainer,
    resume,
    trainer_contents,
)
from pymc.variational.cluster.gradients import (
    GradientProgram,
    GradientsOfWorkers,
    check_shards,
    positions_feed,
)
from pymc.variational.cluster.passes import passes_by
from pymc.variational.cluster.pool import Pool
from pymc.variational.cluster.rounds import (
    FactorsOfWorkers,
    RoundProgram,
    check_parts_of_rounds,
    put_in_rounds,
)
from pymc.variational.cluster.steps import put_on_workers, steps_by
from pymc.variational.cluster.tables import Owners, tables_on_workers
from pymc.variational.cluster.workers import Rounds, Workers, as_rounds, as_workers
from pymc.variational.engine.loop import LoopEnd
from pymc.variational.engine.step_cache import one_at_a_time
from pymc.variational.fit_options import N_STEPS, FitOptions, check_callbacks, check_no_more
from pymc.variational.fitting import FitState
from pymc.variational.inference import (
    check_fit_arguments,
    is_auto,
    make_inference,
    model_of,
    refuse_for_auto,
)
from pymc.variational.placeholders import as_loader, make_feed
from pymc.variational.progress import Compiling
from pymc.variational.report import fit_html
from pymc.variational.tuned import with_named_optimizer

if TYPE_CHECKING:
    from pymc.model.core import Model

__all__ = ["Trainer"]


class Trainer:
    """Fit a model to data that are read batch by batch.

    Each step takes the next batch. Passes over all rows follow one another, and the last rows of a pass open
    the first batch of the next. A fit that has ended, for whatever reason, can go on. With ``method="auto"``
    there are no steps, but a few passes over all rows, from a fit of a random part of them.

    Parameters
    ----------
    method : str or :class:`Inference`
        As of :func:`pymc.fit`.
    dataloader : DataLoader
        Or a loader of another library, with the attribute `batch_size`, and either `dataset` or batches to
        iterate over.
    model : Model, default the one of the context
        Its data are made by ``pm.Data(name, dataloader, dims=...)``, or by ``pm.Data(name, zeros)`` with
        ``total_size=len(dataloader)`` for the observed variables.
    data_name : str
        The `pm.Data` that holds a batch. A batch that is a dict goes to the `pm.Data` of its names.
    workers : int or :class:`Workers`, optional
        Processes that compute the gradients of each step, or with ``method="auto"`` the passes over the rows:
        a number of them on this machine, or on a Ray cluster.
    exchange : Rounds, optional
        Let workers take many steps each between two messages, ``exchange=pm.Rounds(250)``, for steps that take less
        time than a message. A step of `fit` is then one of each worker. Default: the gradients of each step.
    **defaults
        Arguments of :func:`pymc.fit` for all calls of :meth:`fit`.

    Attributes
    ----------
    position : Position
        The position in the stream of the next step: the pass, and how many rows of it were used up.
    batches_seen, rows_streamed : int
        Of all steps up to now.

    Raises
    ------
    KeyError, TypeError, ValueError
        If model and loader do not fit together. Nothing is read or compiled then.

    Examples
    --------
    >>> rows = np.random.default_rng(1).normal(2, 1, size=(1000, 1))
    >>> loader = pm.DataLoader(rows, batch_size=50, shuffle=True, seed=1)
    >>> with pm.Model() as model:
    ...     batch = pm.Data("batch", loader, dims=("obs", "column"))
    ...     mu = pm.Normal("mu", 0, 10)
    ...     y = pm.Normal("y", mu, 1, observed=batch[:, 0], dims="obs")
    >>> trainer = pm.Trainer(dataloader=loader, model=model, random_seed=1, progressbar=False)
    >>> approx = trainer.fit(30)
    >>> trainer.refine(5)
    >>> trainer.batches_seen, trainer.rows_streamed, trainer.position
    (35, 1750, Position(epoch=1, row=750))
    """

    def __init__(
        self,
        method: Any = "advi",
        *,
        dataloader: Any,
        model: Model | None = None,
        data_name: str = "batch",
        workers: int | Workers | None = None,
        exchange: Rounds | None = None,
        **defaults: Any,
    ) -> None:
        _check_arguments("pm.Trainer", defaults, method)
        self._workers = as_workers(workers, "pm.Trainer")
        self._exchange = as_rounds(exchange, self._workers, "pm.Trainer")
        self.model = model_of(method, model)
        self.dataloader = as_loader(dataloader)
        self._feed = make_feed(self.model, self.dataloader, data_name)
        if self._workers is not None:
            loader = _loader_of_workers(self.dataloader)
            if not isinstance(method, str):
                raise TypeError(
                    f"method={method!r} of pm.Trainer with workers has to be the name of a method, such as 'advi', since "
                    "the gradients are computed elsewhere"
                )
            if is_auto(method):
                if exchange is not None:
                    raise TypeError(
                        f"exchange={exchange!r} of pm.Trainer is of steps, and method='auto' takes none: leave it out"
                    )
            elif self._exchange is not None:
                check_parts_of_rounds(self._exchange, loader)
                n_factors = self._exchange.factors or 1
                self._feed = positions_feed(loader, n_factors, self._exchange.steps)
            else:
                check_shards(self._workers, loader)
                self._feed = positions_feed(loader)
        self._method = method
        self._defaults = dict(defaults)
        self._arguments = {"method": method, "data_name": data_name}
        if exchange is not None:
            self._arguments["exchange"] = self._exchange
        self._fit_id = uuid.uuid4().hex  # by which a folder of checkpoints tells fits apart
        self._plan: Plan | None = None
        self._locked: Path | None = None
        self._identity: StepIdentity | None = None
        self._inference: Any = None
        self._pool: Pool | None = None

    def __repr__(self) -> str:
        """Return the method, the loader and the number of batches so far."""
        method = self._method if isinstance(self._method, str) else type(self._method).__name__
        return f"Trainer({method!r}, {self.dataloader!r}, batches_seen={self.batches_seen})"

    def _repr_html_(self) -> str:
        where = self.position
        rows: dict[str, object] = {"Loader": repr(self.dataloader)}
        rows["Read"] = (
            f"{self.batches_seen:,} batches; at row {where.row:,} of pass {where.epoch + 1}"
        )
        if self._plan is not None:
            rows["Checkpoints"] = self._plan.folder
        if self._workers is not None:
            rows["Workers"] = self._workers
        report = None if self.state is None or not self.batches_seen else self.state.report
        return fit_html("Trainer", report, self.hist, rows)

    def fit(self, n: int = N_STEPS, **kwargs: Any) -> Any:
        """Take `n` steps, each with the next batch.

        Parameters
        ----------
        n : int
            Number of steps, and of batches: at least 1. By default as many as those of :func:`pymc.fit`.
            ``method="auto"`` takes none.
        **kwargs
            Arguments of :func:`pymc.fit`, in place of those that the trainer was made with. Later calls
            keep them, callbacks and those below too, apart from `progressbar`. A second call goes on with
            step, optimizer and losses. If it has arguments of the step, a new step is made of these and the
            earlier ones, and starts from the current parameters. Also:

            checkpoint : str or path
                A folder for checkpoints, from which :meth:`load` makes a trainer that goes on, in the same
                folder. One is written when the fit ends, unless the process is killed. None: no more
                checkpoints.
            checkpoint_every : int
                Write one also at the steps that are multiples of it, counted from the first fit on. With
                ``method="auto"`` these are passes over all rows, by default each.
            keep : int
                How many checkpoints are kept, the last ones: 3 by default.

        Returns
        -------
        :class:`Approximation`
            After the last step. Ctrl-C ends a fit after the current step: it returns as after `n` steps,
            with a last checkpoint, and ``approx.report.stopped`` is "interrupted". SIGTERM ends the fit in
            the same way, and then the process.

        Raises
        ------
        TypeError, ValueError
            If arguments are wrong or unknown. Nothing is read or compiled then.
        FloatingPointError
            As :func:`pymc.fit`.
        Exception
            Of a callback, or of the source: its message names the part of the data. All completed steps are
            kept: `approx`, `hist` and `position` are those of the last one.
        """
        n = check_int(n, "n", "Trainer.fit")
        _check_arguments("Trainer.fit", kwargs, self._method)
        if is_auto(self._method) and n != N_STEPS:
            refuse_for_auto({"n": n})
        kwargs = self._without_names(n, kwargs)
        options = {**self._defaults, **kwargs}
        with self._checkpointing(options) as plan:
            of_call = FitOptions.select(options, "display", "budget")
            kept = {k: v for k, v in kwargs.items() if k in options and k not in of_call}
            # Any argument but callbacks belongs to the step, which is then made anew
            if self.state is None or kept.keys() - {"callbacks"}:
                with Compiling(
                    theme=of_call.get("progressbar_theme"), show=of_call.get("progressbar", True)
                ):
                    self.prepare(**kept)
            elif "callbacks" in kept:
                self._set_callbacks(check_callbacks(kept["callbacks"]))
                self._defaults |= kept
            self._take(n, plan, of_call)
        return self.approx

    def refine(
        self,
        n: int,
        progressbar: bool | str | None = None,
        progressbar_theme: Theme | None = None,
        **kwargs: Any,
    ) -> None:
        """Take `n` more steps with the step and the callbacks of the last fit, from where it stopped.

        Parameters
        ----------
        n : int
        progressbar, progressbar_theme
            As of :meth:`fit`. Default: those that the trainer was made with.
        """
        check_no_more("Trainer.refine", kwargs)
        n = check_int(n, "n", "Trainer.refine")
        if is_auto(self._method):
            raise TypeError(
                f"n={n} of Trainer.refine are steps, and method='auto' takes none: trainer.fit() goes on"
            )
        if self.state is None:
            raise TypeError(
                "Need to call `.fit` first: `refine` goes on with the step of that fit."
            )
        options = dict(self._defaults)
        with self._checkpointing(options) as plan:
            shown = {"progressbar": progressbar, "progressbar_theme": progressbar_theme}
            of_call = FitOptions.select(options, "display", "budget")
            self._take(n, plan, of_call | {k: v for k, v in shown.items() if v is not None})

    def _take(self, n: int, plan: Plan | None, of_call: dict[str, Any]) -> None:
        """Take steps, and write checkpoints after the user's callbacks of a step."""
        state = self.inference.state
        if is_auto(self._method):

            def after_pass(is_end: bool) -> None:
                if plan is not None and (is_end or self.inference.state.i % (plan.every or 1) == 0):
                    self._write_checkpoint(plan.folder, plan.keep)

            self.inference.after_pass = after_pass
            with self._working():
                self.inference.refine(**of_call)
            return
        if plan is not None:
            # Last, so that a checkpoint has what the user's callbacks changed
            writer = CheckpointCallback(self, plan, until=state.i + n)
            self._set_callbacks([*state.callbacks, writer])
        try:
            with self._working():
                self.inference.refine(n, **of_call)
        finally:
            self._set_callbacks(state.callbacks)

    @contextmanager
    def _working(self) -> Iterator[None]:
        """Let workers compute, while a call of `fit` takes steps or passes."""
        if self._workers is None:
            yield
            return
        loader, data_name = _loader_of_workers(self.dataloader), self._arguments["data_name"]
        if is_auto(self._method):
            with passes_by(self._workers, self.inference, loader, data_name) as self._pool:
                try:
                    yield
                finally:
                    self._pool = None
            return
        inference = self.inference
        compiler = {name: self._arguments.get(name) for name in ("backend", "compile_kwargs")}
        kind = GradientProgram if self._exchange is None else RoundProgram
        program = kind(inference.objective, loader, data_name, **compiler)
        with steps_by(self._workers, inference.state, program) as self._pool:
            try:
                yield
            finally:
                pool, self._pool = self._pool, None
                report = inference.state.report
                settings = pool.settings | inference.state.step.driver.settings
                report = replace(report, settings={**report.settings, **settings})
                inference.state = inference.state._replace(report=report)
                inference.approx.report = report

    @one_at_a_time
    def prepare(self, **kwargs: Any) -> FitState:
        """Make and compile all that a fit needs, without a step.

        Parameters
        ----------
        **kwargs
            As of :meth:`fit`.

        Returns
        -------
        FitState
            Also in `state`. A fit starts from the values of ``state.step.shared``, `position` and
            ``inference.hist``.
        """
        options = {**self._defaults, **kwargs}
        if self._workers is not None and options.get("more_updates"):
            raise TypeError(
                "more_updates of Trainer.fit would be computed where no batch is read: leave them out of a fit "
                "with workers"
            )
        if self._exchange is not None and (until := options.get("until")) is not None:
            raise TypeError(
                f"until={until!r} of Trainer.fit looks at the parameters after single steps, and exchange={self._exchange} "
                "has them after rounds: leave until out, and look at approx.report.verdict"
            )
        for name in FitOptions.names("checkpoint"):
            options.pop(name, None)
        target = FitOptions.select(options, "target", "start")
        inference = self._inference
        if inference is None:
            options_of_fit = FitOptions(method=self._method, model=self.model, **target)
            if self._workers is None or is_auto(self._method):
                inference = make_inference(options_of_fit)
            elif self._exchange is not None:
                inference = make_inference(options_of_fit)
                inference.objective = FactorsOfWorkers.in_rounds(
                    inference.objective, self._exchange
                )
            else:
                with tables_on_workers(Owners()):
                    inference = make_inference(options_of_fit)
                inference.objective = GradientsOfWorkers.of(inference.objective)
        elif again := sorted(FitOptions.select(kwargs, "target", "start")):
            raise TypeError(
                f"{', '.join(again)} of Trainer.fit say what is fitted, which this trainer does already. "
                "Make another pm.Trainer for it"
            )
        of_call = FitOptions.names("display", "budget")
        fitting = {k: v for k, v in options.items() if k not in (*target, *of_call)}
        n_before = 0 if self.state is None else self.state.i
        # Fast math lets other processes compile other bits, and costs a few percent to leave out
        with pytensor.config.change_flags(numba__fastmath=False), _as_before_errors(inference):
            state = inference.prepare(data=self._feed, **fitting)
        if self._workers is not None and not is_auto(self._method):
            state = (
                put_on_workers(state, inference.objective, self.dataloader.batch_size)
                if self._exchange is None
                else put_in_rounds(state, inference.objective, self.dataloader.total_size)
            )
        # Steps are counted from the first fit on
        inference.state = state._replace(i=n_before, first=n_before)
        self._inference, self._identity = inference, None  # a new step has another graph
        self._defaults |= {k: v for k, v in kwargs.items() if k in options}
        self._arguments |= options  # a checkpoint has only what a step was made of
        return inference.state

    def _without_names(self, n: int, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Replace the name of an optimizer by one of `n` steps, in `kwargs` or in the defaults."""
        named = with_named_optimizer(n, {**self._defaults, **kwargs})
        if "obj_optimizer" not in kwargs:
            self._defaults |= {k: v for k, v in named.items() if k not in kwargs}
            return kwargs
        return {k: v for k, v in named.items() if k in kwargs or k not in self._defaults}

    def _set_callbacks(self, callbacks: Sequence[Any]) -> None:
        self._inference.state = self.inference.state._replace(callbacks=tuple(callbacks))

    def save(self, path: str | os.PathLike[str], *, keep: int | None = None) -> Path:
        """Write a checkpoint of the fit in its present state.

        Parameters
        ----------
        path : str or path
            A folder of checkpoints of this fit. The new one is ``step-000012345`` in it, after the number
            of steps so far.
        keep : int, optional
            Number of checkpoints that stay in the folder, the last ones. Default: all. Checkpoints of
            other fits, and those that were in the folder before this fit saved there, always stay.

        Returns
        -------
        Path
            The checkpoint.

        Raises
        ------
        TypeError
            If there was no fit yet, or a checkpoint cannot hold a part of it.
        ValueError
            If another fit uses the folder, or the folder has checkpoints of another fit or of later steps.
        OSError
            If the folder is a file, or the disk is full. Earlier checkpoints and the fit stay as they were.
        """
        if self.state is None:
            raise TypeError("Need to call `.fit` first: there is nothing to save.")
        if keep is not None:
            keep = check_int(keep, "keep", "Trainer.save")
        folder = Path(path).absolute()
        with self._lock(folder):
            return self._write_checkpoint(folder, keep)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        dataloader: object,
        model: Model | None = None,
        **kwargs: Any,
    ) -> Self:
        """Make a trainer that resumes a fit from a checkpoint, bit for bit.

        Parameters
        ----------
        path : str or path
            A checkpoint, or a folder of checkpoints: the last one is loaded.
        dataloader : DataLoader
            For the same data, with the same arguments.
        model : Model, default the one of the context
            Made by the same code.
        **kwargs
            Arguments of the trainer and of its `fit`. Those in the checkpoint need not be given; only
            functions of your own have to be given again. `callbacks` and `progressbar` may be new.

        Returns
        -------
        Trainer
            Its `fit(n)` takes n more steps: parameters, optimizer, generators, `hist` and `position` go
            on, and so does the average of ``fit(average=...)`` if `n` are the steps that were left. It
            writes checkpoints into the same folder, as often as before, if that folder has the file
            ``.fit.json`` of the fit. An archive of single checkpoints stays as it is, with a warning.
            ``fit(n, checkpoint=..., checkpoint_every=...)`` changes that, and ``checkpoint=None`` writes
            none.

        Notes
        -----
        The same bits need the same versions and kind of machine. A trainer also compiles for Numba without
        `numba__fastmath`: with it, a process that compiled a step itself may get other last bits than one
        that found the step in PyTensor's cache of compiled code.

        Raises
        ------
        CheckpointMismatchError
            If the model, the data or an argument differs: a line for each difference, with both sides.
        DamagedCheckpointError
            If a file was changed. The error names the checkpoint before, if that one is whole.
        FileNotFoundError
            If there is no checkpoint.

        Warns
        -----
        UserWarning
            If other versions of the packages that compute wrote the checkpoint.
        """
        if starts := sorted(FitOptions.select(kwargs, "start")):
            raise TypeError(
                f"Trainer.load takes no {', '.join(starts)}: the fit goes on with the parameters and the "
                "generators of its checkpoint. Leave it out, or make a new pm.Trainer with it"
            )
        loader = as_loader(dataloader)
        saved = read_trainer(Path(path).absolute(), loader, model, kwargs)
        trainer = cls(dataloader=loader, model=saved.model, **saved.arguments)
        trainer.prepare()
        resume(trainer, saved)
        warn_of_versions(saved.contents.versions, trainer._step_identity.versions, saved.path)
        return trainer

    @contextmanager
    def _checkpointing(self, options: dict[str, Any]) -> Iterator[Plan | None]:
        """Pop the checkpoint arguments of a call of `fit`, and lock the folder while it runs; None without one."""
        is_given = options.get("checkpoint") is not None
        plan = checkpoint_plan(self._plan, options)
        if plan is None:
            self._plan = None
            yield None
        elif is_given or self._can_go_on_in(plan.folder):
            with self._lock(plan.folder):
                self._plan = plan
                yield plan
        else:
            yield None

    def _can_go_on_in(self, folder: Path) -> bool:
        """Return True if a fit can save where it did before, and warn if not."""
        problem = "The checkpoint that it goes on from is in no folder of checkpoints"
        if not is_checkpoint(folder):
            try:
                check_own_folder(folder, self._fit_id, self.batches_seen)
                return True
            except (OSError, ValueError) as error:
                problem = str(error)
        warnings.warn(
            f"This fit writes no checkpoints. {problem}. Write Trainer.fit(n, checkpoint='folder') with another "
            "folder, or checkpoint=None to have none",
            stacklevel=5,
        )
        return False

    @contextmanager
    def _lock(self, folder: Path) -> Iterator[None]:
        """Lock a folder, if this fit does not have the lock already: a callback may save too."""
        if folder == self._locked:
            yield
            return
        with lock_folder(folder, self._fit_id, self.batches_seen):
            before, self._locked = self._locked, folder
            try:
                yield
            finally:
                self._locked = before

    def _write_checkpoint(
        self,
        folder: Path,
        keep: int | None,
        end: LoopEnd | None = None,
        until: int | None = None,
    ) -> Path:
        """Write a checkpoint into a locked folder, and remove those that are not kept.

        While a call of `fit` runs, `end` has the steps up to now, and `until` is the last step.
        """
        path = step_folder(folder, self.batches_seen)
        write(path, trainer_contents(self, folder, end, until))
        if keep is not None:  # the new one is among those kept: with keep=1 all earlier ones go
            remove_checkpoints(own_checkpoints(path)[: 1 - keep or None])
        return path

    @property
    def _step_identity(self) -> StepIdentity:
        """What identifies the step in its checkpoints, computed for the first of them."""
        if self._identity is None:
            self._identity = StepIdentity.of(self)
        return self._identity

    @property
    def inference(self) -> Any:
        """The :class:`Inference` of the fit."""
        if self._inference is None:
            raise AttributeError("The trainer has nothing yet: call `.fit` first.")
        return self._inference

    @property
    def approx(self) -> Any:
        """The approximation after the last step."""
        return self.inference.approx

    @property
    def hist(self) -> np.ndarray:
        """The losses of all steps, shape (n_steps,)."""
        return np.empty(0) if self._inference is None else self._inference.hist

    @property
    def state(self) -> FitState | None:
        """The state of the fit; None before :meth:`fit` or :meth:`prepare`."""
        return None if self._inference is None else self._inference.state

    @property
    def position(self) -> Position:
        """The position in the stream of the next step."""
        return self._feed.position

    @position.setter
    def position(self, position: Position) -> None:
        self._feed.position = position

    @property
    def batches_seen(self) -> int:
        """The number of batches that were used: one for each step."""
        return self._feed.n_used

    @batches_seen.setter
    def batches_seen(self, n: int) -> None:
        self._feed.n_used = n

    def close(self) -> None:
        """End workers that have the parameters of rows; without such it does nothing.

        They end with the trainer and its approximation otherwise, or with Python. Afterwards the approximation has
        no parameters of rows, and the fit goes on from a checkpoint only.
        """
        if (owners := self._owners) is not None:
            owners.close()

    @property
    def _owners(self) -> Owners | None:
        """The workers that have the parameters of rows, if these are with workers."""
        objective = _objective_of_workers(self._inference)
        return None if objective is None else objective.owners

    @property
    def worker_processes(self) -> list[tuple[str, int]]:
        """The node and the process of each worker.

        They end with each call of :meth:`fit`, unless they have parameters of rows: then they end with :meth:`close`.
        """
        owners = self._owners
        pool = self._pool if owners is None else owners.pool
        return [] if pool is None else pool.processes

    @property
    def rows_streamed(self) -> int:
        """The number of rows of these batches."""
        return self._feed.n_used * self._feed.batch_size


def _objective_of_workers(inference: Any) -> GradientsOfWorkers | None:
    """Return the objective of a fit whose gradients workers compute."""
    if inference is None or isinstance(inference, AutoInference):
        return None
    return inference.objective if isinstance(inference.objective, GradientsOfWorkers) else None


@contextmanager
def _as_before_errors(inference: Any) -> Iterator[None]:
    """Let the objective of workers stay as it was, if a step cannot be made: the fit goes on with the step before."""
    objective = _objective_of_workers(inference)
    if objective is None:
        yield
        return
    before, owners = dict(vars(objective)), objective.owners
    lines = [table.shared.get_value() for table in objective.tables]
    is_new_step = owners is not None and owners.is_new_step
    try:
        yield
    except BaseException:
        vars(objective).clear()
        vars(objective).update(before)
        for table, value in zip(objective.tables, lines):
            table.shared.set_value(value, borrow=True)
        if owners is not None:
            owners.is_new_step = is_new_step
        raise


def _loader_of_workers(loader: Loader) -> DataLoader:
    """Return a loader that workers can read a part of each."""
    if not isinstance(loader, DataLoader):
        raise TypeError(
            f"workers of pm.Trainer read a part of the rows each, which a {type(loader).__name__} cannot give: make "
            "the loader by pm.DataLoader(rows, batch_size=...), of arrays, Parquet files, or a pm.Source"
        )
    check_parts(loader.source)
    if loader.skips_rows:
        raise ValueError(
            "on_nan='skip' of pm.DataLoader leaves out rows, so that the workers of pm.Trainer would not know the number "
            "of rows of their parts: clean the data first, and leave on_nan out"
        )
    if loader.total_size != loader.source.n_rows:
        raise ValueError(
            f"total_size={loader.total_size} of pm.DataLoader is not the {loader.source.n_rows} rows that the workers of "
            "pm.Trainer would read: leave it out"
        )
    return loader


def _check_arguments(function: str, arguments: dict[str, Any], method: Any) -> None:
    """Raise for arguments that a trainer sets itself, and for unknown ones."""
    if "batch_size" in arguments:
        raise TypeError(
            f"batch_size={arguments['batch_size']!r} of {function}: the batches have that of the loader. "
            "Write pm.DataLoader(..., batch_size=...)"
        )
    if names := sorted(FitOptions.select(arguments, "problem")):
        raise TypeError(
            f"{function} takes no {', '.join(names)}: a trainer is made for one method, model and loader, and "
            "`n` is the first argument of its fit"
        )
    check_fit_arguments(function, arguments, method, is_trainer=True)
