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
"""Arguments of a fit come back from JSON, or are asked for again."""

from __future__ import annotations

import json

from typing import Any

import pytest

from pytensor.compile.mode import Mode

import pymc as pm

from pymc.variational import optimizers, schedules
from pymc.variational.objectives import ELBO, IWAE, Renyi, ReweightedWakeSleep
from pymc.variational.streaming.checkpoints.arguments import (
    MADE,
    as_json,
    from_json,
    merged_arguments,
)

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
    assert from_json(json.loads(json.dumps(as_json(value)))) == value


def test_each_class_is_among_them() -> None:
    assert {type(value).__name__ for value in VALUES} == MADE.keys()


def test_a_chain_of_pymcs_optimizers() -> None:
    chain = optimizers.chain(optimizers.clip(1.0), pm.adam(learning_rate=0.1))
    again = from_json(json.loads(json.dumps(as_json(chain))))
    assert repr(again) == repr(chain)


def test_modes_are_told_apart() -> None:
    """By linker and rewrites, and not by where they are in memory."""
    modes = [Mode(linker, "fast_run") for linker in ("py", "numba")]
    modes += [modes[0].excluding("fusion"), Mode("py", "fast_compile")]
    texts = [as_json(mode)["@again"] for mode in modes]
    assert len(set(texts)) == len(modes)
    assert texts[0] == as_json(Mode("py", "fast_run"))["@again"]
    assert texts[0].startswith("Mode(linker='py', rewrites={'exclude': [")
    _, [problem] = merged_arguments({"mode": as_json(modes[0])}, {"mode": modes[1]})
    assert "linker='numba'" in problem
