# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""What the values of a checkpoint have to be, looked at before any is used.

Hashes tell that a file is what was written. Who writes one by hand can make them too, so each entry is looked
at, and what does not fit is named.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from numpy.random import Generator, RandomState

from pymc.variational.checkpoints.arguments import NotPlain, from_json
from pymc.variational.checkpoints.errors import DamagedCheckpointError
from pymc.variational.checkpoints.folders import VALUES, step_of
from pymc.variational.checkpoints.recipes import Unknown
from pymc.variational.fit_options import FitOptions
from pymc.variational.report import FitReport

__all__ = ["check_approximation", "check_generators", "check_trainer"]

#: Above any number of steps or rows, and within 64 bits.
MOST = 1 << 62


class Rule(NamedTuple):
    """What a value has to be.

    Parameters
    ----------
    text : str
        In words, for the message.
    holds : callable
        Tells whether a value is.
    """

    text: str
    holds: Callable[[Any], bool]


#: Of a part of a checkpoint: the entries that it has, all of them and no other.
Schema = Mapping[str, "Rule | Schema"]


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < MOST


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _each(value: Any, kinds: Any) -> bool:
    """Tell whether a dict by texts has values of these types only."""
    return isinstance(value, dict) and all(isinstance(item, kinds) for item in value.values())


def _is_often(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and value.keys() == {"every", "keep"}
        and all(_is_count(n) and n > 0 for n in value.values() if n is not None)
        and value["keep"] is not None
    )


def _are_losses(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.ndim == 1 and value.dtype.kind == "f"


def _are_arguments(value: Any) -> bool:
    """Tell whether these are arguments that are made again, or have to be given."""
    if not isinstance(value, dict) or FitOptions.unsaved_names() & value.keys():
        return False
    for item in value.values():
        try:
            from_json(item)
        except (NotPlain, Unknown):
            continue
        except (LookupError, TypeError, ValueError, AttributeError, RuntimeError):
            return False
    return isinstance(value.get("data_name", ""), str)


def _are_guides(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(guide, dict)
        and guide.keys() == {"class", "variables", "config"}
        and isinstance(guide["class"], str)
        and isinstance(guide["variables"], list)
        and all(isinstance(name, str) for name in guide["variables"])
        and (guide["config"] is None or isinstance(guide["config"], dict))
        for guide in value
    )


def _is_verdict(value: Any) -> bool:
    if not isinstance(value, dict):
        return False
    kinds: dict[str, Any] = {
        "reason": str,
        "advice": str,
        "converged": bool,
        "khat": float,
        "ess": float,
    }
    found = {name: type(item) for name, item in value.items()}
    return found.pop("trusted", int) in (bool, type(None)) and found == kinds


COUNT = Rule("a number of steps, an integer from 0 on", _is_count)
TEXT = Rule("a text", lambda value: isinstance(value, str))
YES = Rule("true or false", lambda value: isinstance(value, bool))
SECONDS = Rule("seconds, from 0 on", lambda value: _is_number(value) and 0 <= value < np.inf)
TEXTS = Rule("texts by name", lambda value: _each(value, str))
VALUES_BY_NAME = Rule(
    "arrays and generators by name",
    lambda value: _each(value, np.ndarray | Generator | RandomState),
)
OBJECT = Rule("values by name", lambda value: isinstance(value, dict))

MODEL: Schema = {"variables": TEXTS, "potentials": TEXTS, "dims": TEXTS}

REPORT: Schema = {
    **{field.name: TEXT for field in fields(FitReport)},
    "n_steps": COUNT,
    "seconds": SECONDS,
    "compile_seconds": SECONDS,
    "settings": Rule(
        "texts and numbers by name", lambda value: _each(value, str | int | float | bool)
    ),
    "loss_factor": Rule("a number or none", lambda value: value is None or _is_number(value)),
    "verdict": Rule("a verdict, or none", lambda value: value is None or _is_verdict(value)),
}

RESULTS: Schema = {
    "generators": Rule(
        "a list of generators",
        lambda value: (
            isinstance(value, list)
            and all(isinstance(rng, Generator | RandomState) for rng in value)
        ),
    ),
    "include_transformed": Rule(
        "a list of true and false",
        lambda value: isinstance(value, list) and all(isinstance(item, bool) for item in value),
    ),
    "hist": Rule("losses, one after the other", _are_losses),
    "guide_losses": Rule(
        "losses by name",
        lambda value: isinstance(value, dict) and all(map(_are_losses, value.values())),
    ),
}

TRAINER: Schema = {
    "kind": TEXT,
    "fit": TEXT,
    "model": MODEL,
    "loader": OBJECT,
    "step": OBJECT,
    "versions": TEXTS,
    "arguments": Rule("arguments of a trainer and its fit", _are_arguments),
    "position": Rule(
        "two integers from 0 on, of the pass and of its row",
        lambda value: isinstance(value, list) and len(value) == 2 and all(map(_is_count, value)),
    ),
    "batches_seen": COUNT,
    "i": COUNT,
    "checkpointing": Rule(
        "none, or how often checkpoints are written and how many are kept",
        lambda value: value is None or _is_often(value),
    ),
    "until": Rule("a number of steps, or none", lambda value: value is None or _is_count(value)),
    "averaged": YES,
    "report": REPORT,
    "state": VALUES_BY_NAME,
    "fixed": VALUES_BY_NAME,
    "results": {**RESULTS, "report": Rule("none", lambda value: value is None)},
    "passes": VALUES_BY_NAME,
}

APPROXIMATION: Schema = {
    "kind": TEXT,
    "model": OBJECT,
    "versions": TEXTS,
    "approximation": {
        "class": TEXT,
        "text": TEXT,
        "guides": Rule("a list of guides", _are_guides),
        "parameters": Rule("arrays by name", lambda value: _each(value, np.ndarray)),
        **RESULTS,
        "report": Rule("a report, or none", lambda value: value is None or isinstance(value, dict)),
    },
}


def check_trainer(tree: Mapping[str, Any], path: Path, total_size: Any = None) -> None:
    """Look at all values of a checkpoint of a streamed fit.

    Parameters
    ----------
    tree : mapping of str
        As it was read.
    path : Path
        Of the checkpoint.
    total_size : int, optional
        Rows of a pass.

    Raises
    ------
    DamagedCheckpointError
        It names the entry.
    """
    # Checkpoints of earlier versions have neither
    _check({"checkpointing": None, "passes": {}, **tree}, TRAINER, path)
    named, seen, row = step_of(path), tree["batches_seen"], tree["position"][1]
    if named is not None and named != seen:
        problem = (
            f"it is called after step {named}, and is of step {seen}: give it its own name back"
        )
        raise DamagedCheckpointError(path, problem)
    if isinstance(total_size, int) and row > total_size:
        problem = f"its entry 'position' is at row {row:,} of a pass that has {total_size:,}"
        raise DamagedCheckpointError(path / VALUES, problem)


def check_approximation(tree: Mapping[str, Any], path: Path) -> None:
    """Look at all values of an approximation; see :func:`check_trainer`."""
    _check(tree, APPROXIMATION, path)
    report = tree["approximation"]["report"]
    if report is not None:
        _check(report, REPORT, path, "approximation, report")


def check_generators(saved: Mapping[str, Any], n_owners: int, path: Path) -> None:
    """See that each part of an approximation has its generator.

    Raises
    ------
    DamagedCheckpointError
    """
    for name in ("generators", "include_transformed"):
        if len(saved[name]) != n_owners:
            problem = f"its entry {name!r} has {len(saved[name])} items, and needs {n_owners}"
            raise DamagedCheckpointError(path / VALUES, problem)


def _check(value: Any, schema: Schema, path: Path, where: str = "") -> None:
    """Compare a part with what it has to be."""
    for name, rule in schema.items():
        entry = f"{where}, {name}" if where else name
        if name not in value:
            raise DamagedCheckpointError(path / VALUES, f"it has no entry {entry!r}")
        if isinstance(rule, Rule):
            if not rule.holds(value[name]):
                _refuse(entry, value[name], rule.text, path)
            continue
        if not isinstance(value[name], dict):
            _refuse(entry, value[name], OBJECT.text, path)
        _check(value[name], rule, path, entry)
    if more := sorted(value.keys() - schema.keys()):
        entry = f"{where}, {more[0]}" if where else more[0]
        raise DamagedCheckpointError(
            path / VALUES, f"it has an entry {entry!r}, which is of nothing"
        )


def _refuse(entry: str, value: Any, text: str, path: Path) -> None:
    shown = repr(value)
    shown = shown if len(shown) <= 80 else f"{shown[:77]}..."
    raise DamagedCheckpointError(
        path / VALUES, f"its entry {entry!r} is {shown}, and has to be {text}"
    )
