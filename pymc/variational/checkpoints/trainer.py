# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Contents of the checkpoints of a :class:`pymc.Trainer`: what they hold, when they are written, and resuming."""

from __future__ import annotations

import os

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import pytensor

from pytensor.compile.sharedvalue import SharedVariable
from pytensor.graph.replace import clone_replace

from pymc.argument_checks import check_int
from pymc.data_loading.batch import Position
from pymc.data_loading.loader import Loader
from pymc.variational.auto import AutoInference
from pymc.variational.checkpoints.approximation import set_results, set_value, with_prefix
from pymc.variational.checkpoints.components import argument_to_json, merge_arguments
from pymc.variational.checkpoints.identity import (
    Identity,
    array_text,
    differences,
    dims_identity,
    graph_hash,
    model_differences,
    model_identity,
    names_of,
    step_differences,
    types_of,
    versions,
)
from pymc.variational.checkpoints.saving import result_values
from pymc.variational.checkpoints.store import (
    Checkpoint,
    CheckpointMismatchError,
    DamagedCheckpointError,
    Value,
    load_contents,
    step_of,
    to_builtins,
)
from pymc.variational.cluster.gradients import GradientsOfWorkers
from pymc.variational.cluster.tables import TableOfWorkers
from pymc.variational.engine.loop import LoopEnd
from pymc.variational.engine.step import host_value
from pymc.variational.fit_options import FitOptions
from pymc.variational.inference import model_of
from pymc.variational.report import FitReport

if TYPE_CHECKING:
    from pymc.model.core import Model
    from pymc.variational.trainer import Trainer

__all__ = [
    "CheckpointCallback",
    "Plan",
    "SavedTrainer",
    "StepIdentity",
    "checkpoint_plan",
    "read_trainer",
    "resume",
    "trainer_contents",
]


class Plan(NamedTuple):
    """The folder and the interval of a fit's checkpoints."""

    folder: Path  # the checkpoint itself, if it was loaded from no folder of checkpoints
    every: int | None = None  # steps; None: only when a call of `fit` has ended
    keep: int = 3


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


class CheckpointCallback:
    """Callback that writes checkpoints in the course of a call of `fit` up to a step, and at its end."""

    at_end = True

    def __init__(self, trainer: Trainer, plan: Plan, until: int) -> None:
        self.trainer, self.plan, self.until = trainer, plan, until
        self.every = plan.every or max(until, 1)
        self._end: LoopEnd | None = None

    def tell(self, end: LoopEnd) -> None:
        """Take what the loop has of its steps, before a call that is due."""
        self._end = end

    def __call__(self, approx: Any, losses: np.ndarray | None, i: int) -> None:
        end, self._end = self._end, None
        self.trainer._write_checkpoint(self.plan.folder, self.plan.keep, end, self.until)


class StepIdentity(NamedTuple):
    """What is the same in all checkpoints of a compiled step, and takes long to compute."""

    versions: dict[str, str]
    model: Identity
    graph: str | None  # a hash; None without steps

    @classmethod
    def of(cls, trainer: Trainer) -> StepIdentity:
        """Describe the model and the step of a trainer."""
        state = trainer.inference.state
        step, hashed = state.step, None
        if step.graph is not None:
            # A graph that was compiled for another model first has the names of that model's data
            own = [var.type(name=var.name) for var in step.inputs]
            outputs = clone_replace(list(step.graph.outputs), dict(zip(step.graph.shared, own)))
            hashed = graph_hash(outputs, own)
            if (objective := _of_workers(trainer)) is not None:
                # By itself: a step that was compiled before shares no constants with it
                outputs = [*objective.graph, *(row.lines for row in objective.row_updates)]
                own = [*objective.params, *objective.watched, *objective.row_settings]
                own += objective.pending
                own += [var for table in objective.tables for var in (table.shared, table.rows)]
                hashed = sha256((hashed + graph_hash(outputs, own)).encode()).hexdigest()
        return cls(versions(state.report.backend), model_identity(trainer.model), hashed)


@dataclass(frozen=True, kw_only=True)
class TrainerContents:
    """Contents of a checkpoint of a streamed fit, apart from arrays and generators."""

    kind: Literal["trainer"] = "trainer"
    versions: dict[str, str]
    model: dict[str, dict[str, str]]
    loader: dict[str, Any]
    step: dict[str, Any]  # identity of what a step computes with
    fit: str
    arguments: dict[str, Any]
    position: Position
    batches_seen: int
    i: int
    first: int = 0  # the step at which the present optimizer began
    until: int | None  # the step at which the running call of `fit` is to end
    averaged: bool
    every: int | None  # steps between two checkpoints
    keep: int | None  # None: the fit does not write checkpoints into this folder by itself
    include_transformed: bool
    report: FitReport


def trainer_contents(
    trainer: Trainer, folder: Path, end: LoopEnd | None, until: int | None
) -> Checkpoint:
    """Return all that a fit resumes from."""
    inference, plan = trainer.inference, trainer._plan
    state = inference.state
    report, i = state.report, state.i
    hist, guide_losses = inference.hist, inference.approx.guide_losses
    if end is not None:  # within a run: `inference` is as it was before
        i, report = i + end.n_steps, report.after(end.n_steps, end.seconds, "running")
        if state.score:
            hist = np.concatenate([hist, end.losses])
            guide_losses = inference.guide_losses_with(end.aux_losses)
    if plan is not None and plan.folder != folder:  # one that `save` was given
        plan = None
    identity = trainer._step_identity
    contents = TrainerContents(
        versions=identity.versions,
        # pm.set_data may have changed the length of a dim since
        model=identity.model | {"dims": dims_identity(trainer.model)},
        loader=dict(trainer.dataloader.identity),
        step=_step_text(trainer),
        fit=trainer._fit_id,
        arguments={
            name: argument_to_json(value)
            for name, value in trainer._arguments.items()
            if name not in FitOptions.unsaved_names()
        },
        position=trainer.position,
        batches_seen=trainer.batches_seen,
        i=i,
        first=state.first,
        until=None if until == i else until or state.until,
        averaged=state.averaged,
        every=None if plan is None else plan.every,
        keep=None if plan is None else plan.keep,
        include_transformed=bool(inference.approx.include_transformed),
        report=report,
    )
    values: dict[str, Value] = result_values(inference.approx, hist, guide_losses)
    values |= {f"state/{name}": value for name, value in _values(trainer).items()}
    if isinstance(inference, AutoInference):
        values |= {f"passes/{name}": value for name, value in inference.position.items()}
    return Checkpoint(to_builtins(contents), values)


def _updated(trainer: Trainer) -> list[SharedVariable]:
    """Return the variables that a step updates."""
    step = trainer.inference.state.step
    return [] if step.graph is None else [step.inputs[i] for i in sorted(step.graph.updated)]


def _state(trainer: Trainer) -> dict[str, SharedVariable]:
    """Return by name the variables that a step updates, and all other parameters."""
    # Parameters that no step updates belong to guides that a method fits by other means, as "auto" does
    return names_of(list(dict.fromkeys([*_updated(trainer), *trainer.inference.approx.params])))


def _tables_of_workers(trainer: Trainer) -> dict[SharedVariable, TableOfWorkers]:
    """Return the tables whose lines are with workers, which send them in parts."""
    objective = _of_workers(trainer)
    return {} if objective is None else {table.shared: table for table in objective.tables}


def _values(trainer: Trainer) -> dict[str, Value]:
    """Return the values of the state of a fit."""
    tables = _tables_of_workers(trainer)
    return {
        name: tables[var].parts() if var in tables else host_value(var)
        for name, var in _state(trainer).items()
    }


def _of_workers(trainer: Trainer) -> GradientsOfWorkers | None:
    """Return the objective of a fit whose gradients workers compute."""
    inference = trainer.inference
    objective = None if isinstance(inference, AutoInference) else inference.objective
    return objective if isinstance(objective, GradientsOfWorkers) else None


def _step_text(trainer: Trainer) -> dict[str, Any]:
    """Describe what a step computes with, its graph and data in memory by hashes."""
    state = trainer.inference.state
    step, report = state.step, state.report
    inputs, not_data = list(step.inputs), {*_updated(trainer), *trainer._feed.variables}
    if (objective := _of_workers(trainer)) is not None:
        inputs = [*inputs, *objective.watched, *objective.row_settings]
        not_data |= {objective.received}
    data = {name: host_value(var) for name, var in names_of(inputs).items() if var not in not_data}
    return {
        "guide": str(trainer.approx),
        "backend": report.backend,
        "driver": report.driver,
        "floatX": pytensor.config.floatX,
        "graph": trainer._step_identity.graph,
        "data": {name: array_text(np.asarray(value)) for name, value in data.items()},
    }


class SavedTrainer(NamedTuple):
    """A checkpoint of a trainer, of which model, loader and arguments are compared."""

    path: Path
    contents: TrainerContents
    values: Mapping[str, Value]
    model: Model
    arguments: dict[str, Any]


def read_trainer(
    path: Path, loader: Loader, model: Model | None, given: Mapping[str, Any]
) -> SavedTrainer:
    """Read the newest checkpoint at a path, and merge the given arguments of the fit into its own.

    Raises
    ------
    CheckpointMismatchError, DamagedCheckpointError, FileNotFoundError
        As :meth:`pymc.Trainer.load`.
    """
    found, contents, values = load_contents(path, TrainerContents)
    step, seen = step_of(found), contents.batches_seen
    if step is not None and step != seen:
        problem = f"it has the name of step {step}, and is of step {seen}: rename it back"
        raise DamagedCheckpointError(found, problem)
    unsaved = FitOptions.unsaved_names()
    compared = {k: v for k, v in given.items() if k not in unsaved}
    arguments, lines = merge_arguments(contents.arguments, compared)
    model = model_of(arguments.get("method", "advi"), model)
    lines += model_differences(contents.model, model_identity(model))
    lines += differences(contents.loader, to_builtins(loader.identity), "loader")
    if lines:
        raise CheckpointMismatchError(found, lines)
    return SavedTrainer(found, contents, values, model, {**given, **arguments})


def resume(trainer: Trainer, saved: SavedTrainer) -> None:
    """Give a trainer with a compiled step all that a checkpoint has, after the step is compared.

    Raises
    ------
    CheckpointMismatchError
        If the step computes something else.
    """
    path, contents, values = saved.path, saved.contents, saved.values
    inference, state = trainer.inference, _state(trainer)
    new = with_prefix("state", values)
    now = _values(trainer)
    lines = [
        *step_differences(contents.step, _step_text(trainer)),
        *differences(types_of(new), types_of(now), "state"),
    ]
    if lines:
        raise CheckpointMismatchError(path, lines)
    tables = _tables_of_workers(trainer)
    for name, var in state.items():
        if var in tables:
            tables[var].set_parts(new[name])
        else:
            set_value(var, new[name])
    set_results(inference.approx, contents, values)
    inference.hist = values["hist"]
    inference.state = inference.state._replace(
        i=contents.i,
        first=contents.first,
        averaged=contents.averaged,
        until=contents.until,
        report=contents.report,
    )
    if isinstance(inference, AutoInference):
        inference.position = with_prefix("passes", values)
    trainer.position, trainer.batches_seen = contents.position, contents.batches_seen
    trainer._fit_id = contents.fit
    if contents.keep is not None:
        folder = path if step_of(path) is None else path.parent
        trainer._plan = Plan(folder, contents.every, contents.keep)
