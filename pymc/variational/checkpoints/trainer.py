# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of streamed fits: ``trainer.save``, ``Trainer.load``, and those that a fit writes while it runs."""

from __future__ import annotations

import os
import uuid
import warnings

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
import pytensor

from pytensor.compile.sharedvalue import SharedVariable

from pymc.argument_checks import check_int
from pymc.data_loading.batch import Position
from pymc.data_loading.loader import Loader
from pymc.variational.auto import AutoInference
from pymc.variational.checkpoints.approximation import set_results, set_value, with_prefix
from pymc.variational.checkpoints.components import argument_to_json, merge_arguments
from pymc.variational.checkpoints.identity import (
    array_text,
    differences,
    graph_hash,
    model_differences,
    model_identity,
    names_of,
    step_differences,
    types_of,
    versions,
    warn_of_versions,
)
from pymc.variational.checkpoints.lock import check_own_folder, lock_folder, own_checkpoints
from pymc.variational.checkpoints.saving import result_values
from pymc.variational.checkpoints.schema import TrainerContents, to_builtins
from pymc.variational.checkpoints.store import (
    Checkpoint,
    CheckpointMismatchError,
    DamagedCheckpointError,
    Value,
    is_checkpoint,
    load_contents,
    remove_checkpoints,
    step_folder,
    step_of,
    write,
)
from pymc.variational.engine.loop import LoopEnd
from pymc.variational.engine.step import host_value
from pymc.variational.fit_options import FitOptions
from pymc.variational.inference import model_of
from pymc.variational.placeholders import as_loader

if TYPE_CHECKING:
    from pymc.model.core import Model

__all__ = ["CheckpointCallback", "Plan", "Resumable", "new_fit_id"]


class Plan(NamedTuple):
    """The folder and the interval of a fit's checkpoints."""

    folder: Path  # the checkpoint itself, if it was loaded from no folder of checkpoints
    every: int | None = None  # steps; None: only when a call of `fit` has ended
    keep: int = 3


class Resumable:
    """Checkpoints of a trainer: a mixin of :class:`pymc.Trainer`."""

    _feed: Any
    _fit_id: str
    _arguments: dict[str, Any]
    _plan: Plan | None = None
    _locked: Path | None = None
    dataloader: Loader
    model: Model
    inference: Any
    state: Any
    batches_seen: int
    position: Position
    approx: Any
    prepare: Any

    @contextmanager
    def _checkpointing(self, options: dict[str, Any]) -> Iterator[Plan | None]:
        """Pop the checkpoint arguments of a call of `fit`, and lock the folder for the call.

        Yields
        ------
        Plan or None
            None if this call writes no checkpoints.

        Warns
        -----
        UserWarning
            If no folder is given, and the fit cannot save in the one that it had.
        """
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

    def _saver(self, plan: Plan | None) -> Callable[[bool], None]:
        """Return what writes checkpoints of passes over all rows, and at the end."""

        def save(is_end: bool) -> None:
            if plan is not None and (is_end or self.state.i % (plan.every or 1) == 0):
                self._write_checkpoint(plan.folder, plan.keep)

        return save

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
        if keep is not None:
            remove_checkpoints(own_checkpoints(path)[: 1 - keep or None])
        return path

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
        found, contents, values = load_contents(Path(path).absolute(), TrainerContents)
        step, seen = step_of(found), contents.batches_seen
        if step is not None and step != seen:
            problem = f"it has the name of step {step}, and is of step {seen}: rename it back"
            raise DamagedCheckpointError(found, problem)
        loader = as_loader(dataloader)
        unsaved = FitOptions.unsaved_names()
        given = {k: v for k, v in kwargs.items() if k not in unsaved}
        arguments, lines = merge_arguments(contents.arguments, given)
        model = model_of(arguments.get("method", "advi"), model)
        lines += model_differences(contents.model, model_identity(model))
        lines += differences(contents.loader, to_builtins(loader.identity), "loader")
        if lines:
            raise CheckpointMismatchError(found, lines)
        trainer = cls(dataloader=loader, model=model, **{**kwargs, **arguments})  # type: ignore[call-arg]
        trainer.prepare()
        _resume(trainer, contents, values, found)
        warn_of_versions(contents.versions, versions(contents.report.backend), found)
        if contents.keep is not None:
            folder = found if step is None else found.parent
            trainer._plan = Plan(folder, contents.every, contents.keep)
        return trainer


def new_fit_id() -> str:
    """Return an id by which a folder of checkpoints tells fits apart."""
    return uuid.uuid4().hex


class CheckpointCallback:
    """Callback that writes checkpoints in the course of a call of `fit` up to a step, and at its end."""

    at_end = True

    def __init__(self, trainer: Resumable, plan: Plan, until: int) -> None:
        self.trainer, self.plan, self.until = trainer, plan, until
        self.every = plan.every or max(until, 1)
        self._end: LoopEnd | None = None

    def tell(self, end: LoopEnd) -> None:
        """Take what the loop has of its steps, before a call that is due."""
        self._end = end

    def __call__(self, approx: Any, losses: np.ndarray | None, i: int) -> None:
        end, self._end = self._end, None
        self.trainer._write_checkpoint(self.plan.folder, self.plan.keep, end, self.until)


def checkpoint_plan(before: Plan | None, options: dict[str, Any]) -> Plan | None:
    """Pop the checkpoint arguments of `fit`; what is not among them stays as in the plan before."""
    names = FitOptions.names("checkpoint")
    given = {name: options.pop(name) for name in names if name in options}
    path, every, keep = map(given.get, names)
    every = None if every is None else check_int(every, "checkpoint_every", "Trainer.fit")
    keep = None if keep is None else check_int(keep, "keep", "Trainer.fit")
    if path is None and ("checkpoint" in given or before is None):
        if every is not None or keep is not None:
            raise TypeError(
                f"checkpoint_every={every!r} and keep={keep!r} of Trainer.fit need a folder: write "
                "checkpoint='folder' too"
            )
        return None
    if path is not None and not isinstance(path, str | os.PathLike):
        raise TypeError(f"checkpoint={path!r} of Trainer.fit has to be a folder, a str or a path")
    plan = before or Plan(Path())
    if path is not None:
        plan = plan._replace(folder=Path(path).absolute())
    if "checkpoint_every" in given:
        plan = plan._replace(every=every)
    return plan if keep is None else plan._replace(keep=keep)


def trainer_contents(
    trainer: Resumable, folder: Path, end: LoopEnd | None, until: int | None
) -> Checkpoint:
    """Return all that a fit resumes from."""
    inference, state, plan = trainer.inference, trainer.state, trainer._plan
    report, i = state.report, state.i
    hist, guide_losses = inference.hist, inference.approx.guide_losses
    if end is not None:  # within a run: `inference` is as it was before
        i, report = i + end.n_steps, report.after(end.n_steps, end.seconds, "running")
        if state.score:
            hist = np.concatenate([hist, end.losses])
            guide_losses = inference.guide_losses_with(end.aux_losses)
    if plan is not None and plan.folder != folder:  # one that `save` was given
        plan = None
    contents = TrainerContents(
        versions=versions(report.backend),
        model=model_identity(trainer.model),
        loader=dict(trainer.dataloader.identity),
        step=_step_identity(trainer),
        fit=trainer._fit_id,
        arguments={
            name: argument_to_json(value)
            for name, value in trainer._arguments.items()
            if name not in FitOptions.unsaved_names()
        },
        position=trainer.position,
        batches_seen=trainer.batches_seen,
        i=i,
        until=None if until == i else until or state.until,
        averaged=state.averaged,
        every=None if plan is None else plan.every,
        keep=None if plan is None else plan.keep,
        include_transformed=bool(inference.approx.include_transformed),
        report=report,
    )
    values: dict[str, Value] = result_values(inference.approx, hist, guide_losses)
    values |= {f"state/{name}": host_value(var) for name, var in _state(trainer).items()}
    if isinstance(inference, AutoInference):
        values |= {f"passes/{name}": value for name, value in inference.position.items()}
    return Checkpoint(to_builtins(contents), values)


def _updated(trainer: Resumable) -> list[SharedVariable]:
    """Return the variables that a step updates."""
    step = trainer.state.step
    return [] if step.graph is None else [step.inputs[i] for i in sorted(step.graph.updated)]


def _state(trainer: Resumable) -> dict[str, SharedVariable]:
    """Return by name the variables that a step updates, and all other parameters."""
    return names_of(list(dict.fromkeys([*_updated(trainer), *trainer.inference.approx.params])))


def _step_identity(trainer: Resumable) -> dict[str, Any]:
    """Describe what a step computes with, its graph and data in memory by hashes."""
    step, report = trainer.state.step, trainer.state.report
    graph = None if step.graph is None else graph_hash(step.graph.outputs, step.graph.shared)
    not_data = {*_updated(trainer), *trainer._feed.variables}
    data = {
        name: host_value(var) for name, var in names_of(step.inputs).items() if var not in not_data
    }
    return {
        "guide": str(trainer.approx),
        "backend": report.backend,
        "driver": report.driver,
        "floatX": pytensor.config.floatX,
        "graph": graph,
        "data": {name: array_text(np.asarray(value)) for name, value in data.items()},
    }


def _resume(
    trainer: Resumable, contents: TrainerContents, values: Mapping[str, Value], path: Path
) -> None:
    """Give a trainer with a compiled step all that the checkpoint has, after it is compared."""
    inference, state = trainer.inference, _state(trainer)
    saved = with_prefix("state", values)
    now = {name: host_value(var) for name, var in state.items()}
    lines = [
        *step_differences(contents.step, _step_identity(trainer)),
        *differences(types_of(saved), types_of(now), "state"),
    ]
    if lines:
        raise CheckpointMismatchError(path, lines)
    for name, var in state.items():
        set_value(var, saved[name])
    set_results(inference.approx, contents, values)
    inference.hist = values["hist"]
    inference.state = trainer.state._replace(
        i=contents.i, averaged=contents.averaged, until=contents.until, report=contents.report
    )
    if isinstance(inference, AutoInference):
        inference.position = with_prefix("passes", values)
    trainer.position, trainer.batches_seen = contents.position, contents.batches_seen
    trainer._fit_id = contents.fit
