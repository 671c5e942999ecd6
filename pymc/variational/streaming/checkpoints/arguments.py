#   Copyright 2026 - present The PyMC Developers
#
#   Licensed under the Apache License, Version 2.0 (the "License");
#   you may not use this file except in compliance with the License.
#   You may obtain a copy of the License at
#
#       http://www.apache.org/licenses/LICENSE-2.0
#
#   Unless required by applicable law or agreed to in writing, software
#   distributed under the License is distributed on an "AS IS" BASIS,
#   WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
#   See the License for the specific language governing permissions and
#   limitations under the License.
"""Arguments of a fit in JSON: those that are plain are made again, others have to be given again."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from inspect import signature
from typing import Any

from pytensor.compile.sharedvalue import SharedVariable
from pytensor.graph.basic import Variable

import pymc.variational.schedule_formulas as formulas
import pymc.variational.updates as updates

from pymc.variational.guides.low_rank import LowRank
from pymc.variational.objectives import ELBO, IWAE, Renyi, ReweightedWakeSleep
from pymc.variational.optimizers import (
    AddDecayedWeights,
    Chain,
    Clip,
    ClipByGlobalNorm,
    Scale,
    ScaleByAdam,
)
from pymc.variational.schedule_formulas import Formula
from pymc.variational.streaming.checkpoints.graph_text import plain_text

__all__ = ["as_json", "from_json", "merged_arguments"]

#: Values that are made of plain arguments, which are their attributes too.
LINKS = (AddDecayedWeights, Chain, Clip, ClipByGlobalNorm, Scale, ScaleByAdam)
MADE = {cls.__name__: cls for cls in (ELBO, IWAE, LowRank, Renyi, ReweightedWakeSleep, *LINKS)}

OPTIMIZERS = (
    "adadelta adagrad adagrad_window adam adamax momentum nesterov_momentum rmsprop sgd".split()
)


SCHEDULES = tuple("constant cosine_decay exponential_decay join linear_warmup".split())


class NotPlain(TypeError):
    """An argument that JSON has no form for."""


def as_json(value: Any) -> Any:
    """Describe an argument of a fit.

    Returns
    -------
    JSON
        Of what is not plain, such as a user's own optimizer: {"@again": a text}.

    Examples
    --------
    >>> from pymc.variational.streaming.checkpoints.arguments import as_json, from_json
    >>> as_json(pm.adam(learning_rate=0.1))["@optimizer"]
    'adam'
    >>> from_json(as_json(pm.adam(learning_rate=0.1))).keywords["learning_rate"]
    0.1
    """
    try:
        return _plain(value)
    except NotPlain:
        return {"@again": plain_text(value)}


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return float(value)
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {"@items": [[_plain(key), _plain(item)] for key, item in value.items()]}
    if isinstance(value, Variable) and value.name and not isinstance(value, SharedVariable):
        return {"@variable": value.name}
    if isinstance(value, Formula) and value.formula.__name__ in SCHEDULES:
        return {"@schedule": value.formula.__name__, "arguments": _plain(dict(value.arguments))}
    if isinstance(value, partial) and not value.args:
        name = getattr(value.func, "__name__", "")
        if name in OPTIMIZERS and value.func is getattr(updates, name):
            return {"@optimizer": name, "arguments": _plain(value.keywords)}
    name = type(value).__name__
    if MADE.get(name) is type(value):
        given = {part: getattr(value, part) for part in signature(type(value)).parameters}
        return {"@made": name, "arguments": _plain(given)}
    raise NotPlain


def from_json(value: Any) -> Any:
    """Make an argument again.

    Raises
    ------
    NotPlain
        If it has to be given.
    """
    if isinstance(value, list):
        return [from_json(item) for item in value]
    if not isinstance(value, Mapping):
        return value
    if "@items" in value:
        return {_key(key): from_json(item) for key, item in value["@items"]}
    if "@variable" in value:
        return value["@variable"]
    if "@again" in value:
        raise NotPlain(value["@again"])
    arguments = from_json(value["arguments"])
    if "@optimizer" in value and value["@optimizer"] in OPTIMIZERS:
        return partial(getattr(updates, value["@optimizer"]), **arguments)
    if "@schedule" in value and value["@schedule"] in SCHEDULES:
        pairs = tuple((name, _tuples(item)) for name, item in arguments.items())
        return Formula(getattr(formulas, value["@schedule"]), pairs)
    return MADE[value["@made"]](**arguments)


def _key(key: Any) -> Any:
    return tuple(_key(item) for item in key) if isinstance(key, list) else from_json(key)


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def merged_arguments(
    saved: Mapping[str, Any], given: Mapping[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    """Put the arguments of a checkpoint and those that are given for it together.

    Parameters
    ----------
    saved : mapping of str to JSON
        As :func:`as_json` made it of each.
    given : mapping of str to object

    Returns
    -------
    arguments : dict of str to object
    problems : list of str
        A line for each argument that differs, or that has to be given again.
    """
    merged, problems = dict(given), []
    for name, value in saved.items():
        if name in given:
            now = as_json(given[name])
            if now != value:
                problems.append(f"{name}: {value!r} in the checkpoint, {now!r} now")
            continue
        try:
            merged[name] = from_json(value)
        except NotPlain as text:
            problems.append(
                f"{name}: {text} in the checkpoint, none now: give {name}= again, what it was"
            )
    return merged, problems
