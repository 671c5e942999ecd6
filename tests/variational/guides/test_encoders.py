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
"""Which shared variables an amortized guide and a fit train."""

from __future__ import annotations

from typing import Any

import pytest

import pymc as pm

from pymc.variational.guided.objective import guided_approximation
from tests.variational.guides.amortized_models import (
    bound,
    vae,
    weights,
)


def test_weights_are_found_and_data_and_the_decoder_left_out() -> None:
    model, guide, found = vae()
    assert set(bound(model, guide).parameters) == {found["w"], found["b"]}


def test_params_selects() -> None:
    model, _, found = vae()
    _, guide, found = vae(params=[])
    assert bound(model, guide).parameters == ()
    model, guide, found = vae()
    guide.params = (found["w"], found["decoder"])
    assert bound(model, guide).parameters == (found["w"], found["decoder"])


def test_params_of_the_model_are_trained_when_listed() -> None:
    model, guide, found = vae()
    assert guided_approximation(model, guide).model_parameters == ()
    approx = guided_approximation(model, guide, params=[found["decoder"]])
    assert approx.model_parameters == (found["decoder"],)
    [copy] = guided_approximation(
        pm.do(model, {}), guide, params=[found["decoder"]]
    ).model_parameters
    assert copy.container is found["decoder"].container


@pytest.mark.parametrize(
    ("chosen", "error", "match"),
    [
        ("w", ValueError, r"params of pm.fit has 'w', but the shared variables .* \['decoder'\]"),
        ("scale", ValueError, "params of pm.fit has 'scale', which is data"),
        (1.0, TypeError, "params of pm.fit has 1.0 of type float"),
    ],
)
def test_params_of_a_fit_are_checked(chosen: Any, error: Any, match: str) -> None:
    model, guide, found = vae()
    with pytest.raises(error, match=match):
        guided_approximation(model, guide, params=[found.get(chosen, chosen)])


def test_params_are_a_list_and_of_one_owner() -> None:
    model, guide, found = vae()
    with pytest.raises(TypeError, match=r"write \[decoder\]"):
        guided_approximation(model, guide, params=found["decoder"])
    guide.params = (found["decoder"],)
    with pytest.raises(ValueError, match="'decoder', which the guide trains already"):
        guided_approximation(model, guide, params=[found["decoder"]])
    guide.params = (weights("other", 0.0),)
    with pytest.raises(ValueError, match=r"pm.Amortized has 'other', but .* encoders depend"):
        guided_approximation(model, guide)
