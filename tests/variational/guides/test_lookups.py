# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""The shared variables that an amortized guide and a fit train."""

from __future__ import annotations

from typing import Any

import pytest

import pymc as pm

from pymc.variational.approximation import guided_approximation
from tests.variational.guides.amortized_models import (
    B,
    N,
    Y,
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
    guide.params = (found["w"],)
    assert bound(model, guide).parameters == (found["w"],)


def test_weights_of_the_model_are_trained_by_a_fit_only() -> None:
    """The encoder reads the decoder too: its gradient is that of the model and of the guide."""
    model, guide, found = vae()
    guide.params = (found["w"], found["decoder"])
    with pytest.raises(
        ValueError, match=r"has 'decoder', which the log-prob.* pm.fit\(params=...\)"
    ):
        guided_approximation(model, guide)
    with pytest.raises(
        ValueError, match=r"has 'decoder', which the log-prob.* pm.fit\(params=...\)"
    ):
        guided_approximation(pm.do(model, {}), guide)


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


def test_params_are_a_list_and_read_by_the_encoders() -> None:
    model, guide, found = vae()
    with pytest.raises(TypeError, match=r"write \[decoder\]"):
        guided_approximation(model, guide, params=found["decoder"])
    guide.params = (weights("other", 0.0),)
    with pytest.raises(ValueError, match=r"pm.Amortized has 'other', but .* encoders depend"):
        guided_approximation(model, guide)


def test_order_of_guides_is_not_that_of_the_model() -> None:
    """Model a -> b -> y: q(a | b) is drawn after b, and b is no function of a in the guide."""
    with pm.Model(coords={"obs": range(N)}) as model:
        batch = pm.Minibatch(pm.Data("data", Y, dims="obs"), batch_size=B)
        a = pm.Normal("a", 0, 1, dims="obs")
        b = pm.Normal("b", a, 1, dims="obs")
        pm.Normal("y", b, 1, observed=batch, dims="obs")
    second = pm.Amortized({"a": lambda b: pm.Normal.dist(b / 2, 1)}, inputs=[b], dim="obs")
    for first in (
        pm.Amortized({"b": lambda y: pm.Normal.dist(y, 1)}, [batch], "obs"),
        "mean_field",
    ):
        guide = [second, first] if isinstance(first, pm.Amortized) else second
        guides = guided_approximation(model, guide).guides
        assert [site.name for made in guides for site in made.sites] == ["b", "a"]
    itself = pm.Amortized({"a": lambda a: pm.Normal.dist(a / 2, 1)}, inputs=[a], dim="obs")
    with pytest.raises(
        ValueError, match=r"the encoder of 'a' .* depends on 'a', which is the variable"
    ):
        guided_approximation(model, itself)
