# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Arguments of a fit come back from JSON, or are asked for again."""

from __future__ import annotations

import json
import sys

from functools import partial
from typing import Any

import pytest

from pytensor.compile.mode import Mode

import pymc as pm

from pymc.variational import optimizers, schedules
from pymc.variational.checkpoints.components import (
    argument_from_json,
    argument_to_json,
    merge_arguments,
)
from pymc.variational.objectives import ELBO, IWAE, Renyi, ReweightedWakeSleep
from pymc.variational.objectives.base import Objective

VALUES = [
    ELBO(),
    ELBO(gradient="stl"),
    IWAE(),
    IWAE(gradient="dreg"),
    pm.LowRank(rank=3),
    Renyi(alpha=0.5, gradient="stl"),
    ReweightedWakeSleep(insomnia=0.5),
    optimizers.chain(optimizers.clip(1.0), optimizers.clip_by_global_norm(2.0)),
    optimizers.clip(1.0),
    optimizers.clip_by_global_norm(2.0),
    optimizers.add_decayed_weights(0.1, ["weights"]),
    optimizers.scale_by_learning_rate(schedules.linear_warmup(0.1, 5)),
    optimizers.scale_by_adam(beta1=0.8),
    pm.adamw(0.1, mask=["weights"]),
]


@pytest.mark.parametrize("value", VALUES, ids=str)
def test_what_is_made_of_plain_arguments(value: Any) -> None:
    again = through_json(value)
    assert type(again) is type(value)
    assert repr(again) == repr(value)


class Tilted(ELBO):
    """An objective of a user's own: the fields of the dataclass are its config."""


class Plain(Objective):
    """One that says itself how it is made again."""

    name = "plain"

    def __init__(self, weight: float, power: int = 2) -> None:
        self.settings = {"weight": weight, "power": power}

    def losses(self, setting: Any) -> Any:
        raise NotImplementedError

    def config(self) -> dict[str, Any]:
        return self.settings


class Closed(Plain):
    """One that only the user can make."""

    def config(self) -> None:  # type: ignore[override]
        return None


class Picky(Plain):
    """One whose config does not fit to its arguments."""

    def config(self) -> dict[str, Any]:
        return {"wieght": 1.0}


def signs(loss_or_grads: Any = None, params: Any = None, rate: float = 0.1) -> dict[Any, Any]:
    """Step by the signs of gradients."""
    return {p: p - rate * g for p, g in zip(params, loss_or_grads)}


def through_json(value: Any) -> Any:
    return argument_from_json(json.loads(json.dumps(argument_to_json(value))))


def test_objectives_of_ones_own() -> None:
    assert through_json(Tilted(gradient="stl")) == Tilted(gradient="stl")
    again = through_json(Plain(0.5))
    assert type(again) is Plain
    assert again.settings == {"weight": 0.5, "power": 2}
    assert "@again" in argument_to_json(Closed(0.5))


def test_the_class_that_was_defined_last() -> None:
    """As in a notebook whose cell is run again."""

    def define() -> type[Objective]:
        class Local(Plain):
            pass

        return Local

    classes = [define(), define()]
    assert type(through_json(classes[0](0.5))) is classes[1]


def test_optimizers_of_ones_own() -> None:
    assert through_json(signs) is signs
    again = through_json(partial(signs, rate=0.5))
    assert (again.func, again.keywords) == (signs, {"rate": 0.5})
    assert "@again" in argument_to_json(lambda loss_or_grads, params: {})
    assert "@again" in argument_to_json(through_json)  # no optimizer by its parameters


def test_schedules() -> None:
    schedule = pm.variational.schedules.join(
        [pm.variational.schedules.linear_warmup(0.1, 5), pm.variational.schedules.constant(0.1)],
        [5],
    )
    assert through_json(schedule) == schedule
    assert through_json(pm.adam(learning_rate=schedule)).keywords["learning_rate"] == schedule


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (
            {"@class": "elsewhere:Own", "arguments": {"@items": []}},
            "no guide, objective or optimizer",
        ),
        (
            {"@class": "os:system", "arguments": {"@items": []}},
            "no guide, objective or optimizer 'os:system'",
        ),
        (
            {"@class": "pymc.nowhere:Own", "arguments": {"@items": []}},
            "this version of PyMC has no",
        ),
        ({"@optimizer": "os:system", "arguments": {"@items": []}}, "no function 'os:system' with"),
        ({"@optimizer": f"{__name__}:through_json", "arguments": {"@items": []}}, "no function"),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_what_is_not_loaded_is_given_again(value: Any, problem: str) -> None:
    _, [line] = merge_arguments({"argument": value}, {})
    assert line.startswith(f"argument: {problem}")
    assert "give argument= again" in line
    assert "elsewhere" not in sys.modules


def test_a_config_that_does_not_fit() -> None:
    _, [line] = merge_arguments({"objective": argument_to_json(Picky(1.0))}, {})
    assert "Picky(**{'wieght': 1.0}), which its config() asks for, raises TypeError" in line


def test_a_chain_of_pymcs_optimizers() -> None:
    chain = optimizers.chain(optimizers.clip(1.0), pm.adam(learning_rate=0.1))
    again = argument_from_json(json.loads(json.dumps(argument_to_json(chain))))
    assert repr(again) == repr(chain)


def test_modes_are_told_apart() -> None:
    """By linker and rewrites, and not by where they are in memory."""
    modes = [Mode(linker, "fast_run") for linker in ("py", "numba")]
    modes += [modes[0].excluding("fusion"), Mode("py", "fast_compile")]
    texts = [argument_to_json(mode)["@again"] for mode in modes]
    assert len(set(texts)) == len(modes)
    assert texts[0] == argument_to_json(Mode("py", "fast_run"))["@again"]
    assert texts[0].startswith("Mode(linker='py', rewrites={'include': [")
    _, [problem] = merge_arguments({"mode": argument_to_json(modes[0])}, {"mode": modes[1]})
    assert "linker='numba'" in problem
