# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""All that a streamed fit goes on from, and a trainer that goes on from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytensor

from pytensor.compile.sharedvalue import SharedVariable

from pymc.data_loading.batch import Position
from pymc.variational.auto import AutoInference
from pymc.variational.checkpoints.arguments import as_json, merged_arguments
from pymc.variational.checkpoints.errors import (
    CheckpointMismatchError,
    DamagedCheckpointError,
)
from pymc.variational.checkpoints.fingerprint import (
    differences,
    model_fingerprint,
    named,
    step_fingerprint,
    versions,
    warn_of_versions,
)
from pymc.variational.checkpoints.saving import put_results, results_tree
from pymc.variational.checkpoints.state import pack, restore, unlike, unpack
from pymc.variational.checkpoints.validation import check_trainer
from pymc.variational.engine.loop import LoopEnd
from pymc.variational.engine.step import host_value
from pymc.variational.engine.step_cache import Step
from pymc.variational.fit_options import FitOptions
from pymc.variational.inference import model_of
from pymc.variational.placeholders import as_loader
from pymc.variational.report import FitReport

if TYPE_CHECKING:
    from pymc.model.core import Model

__all__ = ["load_trainer", "trainer_tree"]


def trainer_tree(trainer: Any, end: LoopEnd | None, until: int | None) -> dict[str, Any]:
    """Take all that a fit goes on from."""
    inference, state = trainer.inference, trainer.state
    results = results_tree(inference.approx)
    hist, report, i = np.asarray(inference.hist, "float64"), state.report, state.i
    if end is not None:  # in the midst of a run: `inference` is as it was before
        i, report = i + end.n_steps, report.after(end.n_steps, end.seconds, "running")
        if state.score:
            hist = np.concatenate([hist, end.losses])
            results["guide_losses"] = inference.guide_losses_with(end.beside)
    changing = _changing(state.step)
    return {
        "kind": "trainer",
        "fit": trainer._fit_id,
        "model": model_fingerprint(trainer.model),
        "loader": trainer.dataloader.identity,
        "step": _step_texts(trainer),
        "versions": versions(report.backend),
        "arguments": {
            name: as_json(value)
            for name, value in trainer._arguments.items()
            if name not in FitOptions.unsaved_names()
        },
        "position": [trainer.position.epoch, trainer.position.row],
        "batches_seen": trainer.batches_seen,
        "i": i,
        "until": None if until == i else until or state.until,
        "averaged": state.averaged,
        "report": {**asdict(report), "settings": dict(report.settings)},
        "state": {name: host_value(var) for name, var in changing.items()},
        "fixed": {
            name: host_value(var) for name, var in _fixed(inference.approx, changing).items()
        },
        "results": {**results, "hist": hist, "report": None},
        "passes": inference.position if isinstance(inference, AutoInference) else {},
    }


def _changing(step: Step) -> dict[str, SharedVariable]:
    """Name what the steps change."""
    updated = set() if step.graph is None else {step.inputs[i] for i in step.graph.updated}
    return {name: var for name, var in named(step.inputs).items() if var in updated}


def _fixed(approx: Any, changing: Mapping[str, SharedVariable]) -> dict[str, SharedVariable]:
    """Name the parameters that no step changes."""
    known = set(changing.values())
    return {name: var for name, var in named(approx.params).items() if var not in known}


def _step_texts(trainer: Any) -> dict[str, Any]:
    """Describe what is computed, and by what."""
    step, report = trainer.state.step, trainer.state.report
    return {
        **step_fingerprint(step.graph, step.inputs, trainer._feed.variables),
        "guide": str(trainer.approx),
        "backend": report.backend,
        "driver": report.driver,
        "floatX": pytensor.config.floatX,
    }


def load_trainer(
    cls: Any,
    found: Path,
    tree: Mapping[str, Any],
    dataloader: Any,
    model: Model,
    given: Mapping[str, Any],
) -> Any:
    """Make a trainer as it was.

    Raises
    ------
    CheckpointMismatchError
        If it is another one.
    DamagedCheckpointError
        If a value of it is none of a fit.
    """
    _check_given(given)
    loader = as_loader(dataloader)
    check_trainer(tree, found, loader.total_size)
    unsaved = FitOptions.unsaved_names()
    asked = {name: value for name, value in given.items() if name not in unsaved}
    arguments, lines = merged_arguments(tree["arguments"], asked)
    model = model_of(arguments.get("method", "advi"), model)
    lines += differences(tree["model"], model_fingerprint(model), "model")
    lines += differences(tree["loader"], _through_json(loader.identity), "loader")
    if lines:
        raise CheckpointMismatchError(found, lines)
    trainer = cls(dataloader=loader, model=model, **{**given, **arguments})
    trainer.prepare()
    _restore(trainer, tree, found)
    warn_of_versions(tree["versions"], versions(trainer.state.report.backend), found)
    return trainer


def _check_given(given: Mapping[str, Any]) -> None:
    """Refuse what would be another start.

    Raises
    ------
    TypeError
    """
    if starts := sorted(FitOptions.select(given, "start")):
        raise TypeError(
            f"Trainer.load takes no {', '.join(starts)}: the fit goes on with the parameters and the generators "
            "of its checkpoint. Leave it out, or make a new pm.Trainer with it"
        )


def _through_json(values: Mapping[str, Any]) -> dict[str, Any]:
    return unpack(pack(values))


def _restore(trainer: Any, tree: Mapping[str, Any], found: Path) -> None:
    """Give a trainer that has a step all that the checkpoint has; everything is compared first."""
    inference = trainer.inference
    changing = _changing(trainer.state.step)
    fixed = _fixed(inference.approx, changing)
    lines = [
        f"{line}: what a step computes has another hash, and the variables look the same. It may be an "
        "array, a number beyond three digits, an expression, or what a function of yours does"
        if line.startswith("step, graph: ")
        else line
        for line in differences(tree["step"], _step_texts(trainer), "step")
    ]
    for here, there in ((changing, tree["state"]), (fixed, tree["fixed"])):
        lines += differences(
            dict.fromkeys(there, "a value"), dict.fromkeys(here, "a value"), "state"
        )
        for name in here.keys() & there.keys():
            if problem := unlike(host_value(here[name]), there[name]):
                lines.append(f"state, {name}: {problem}")
    if lines:
        raise CheckpointMismatchError(found, lines)
    epoch, row = tree["position"]
    report = FitReport.of(tree["report"])
    state = trainer.state._replace(
        i=tree["i"], averaged=tree["averaged"], until=tree["until"], report=report
    )
    for here, there in ((changing, tree["state"]), (fixed, tree["fixed"])):
        for name, var in here.items():
            restore(var, there[name])
    put_results(inference.approx, tree["results"], found)
    inference.approx.report = report
    inference.hist, inference.state = tree["results"]["hist"], state
    if isinstance(inference, AutoInference):
        try:
            inference.position = tree["passes"]
        except (LookupError, TypeError, ValueError) as error:
            raise DamagedCheckpointError(
                found, f"it holds no passes of a fit ({error!r})"
            ) from error
    trainer.position, trainer.batches_seen = Position(epoch, row), tree["batches_seen"]
    trainer._fit_id = tree["fit"]
