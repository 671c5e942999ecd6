# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Weights that a model and an encoder share: the gradient is the sum of that of weights apart."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest

import pymc as pm

from pymc.variational.objectives import ELBO, IWAE, Renyi
from tests.variational.objectives.exact import X, evaluate

RWS = pm.ReweightedWakeSleep

OBJECTIVES = {
    "elbo": ELBO(),
    "elbo, stl": ELBO(gradient="stl"),
    "iwae": IWAE(),
    "iwae, stl": IWAE(gradient="stl"),
    "iwae, dreg": IWAE(gradient="dreg"),
    "renyi, dreg": Renyi(0.5, gradient="dreg"),
    "awake": RWS(),
    "asleep": RWS(insomnia=0),
    "between": RWS(insomnia=0.3),
}


def gradients(objective: Any, tied: bool) -> dict[str, np.ndarray]:
    """Gradients where the priors, the likelihood, and guides of two local variables have a weight.

    The second guide reads the first variable, whose prior has the weight too, and has a transform.
    """
    w = pytensor.shared(np.array(0.8), name="w")
    v = w if tied else pytensor.shared(np.array(0.8), name="v")
    with pm.Model(coords={"obs": range(3)}) as model:
        batch = pm.Minibatch(pm.Data("data", X, dims="obs"), batch_size=3)
        first = pm.Normal("first", w, 1, dims="obs")
        second = pm.Exponential("second", w, dims="obs")
        pm.Normal("x", w * first + second, 1, observed=batch, dims="obs")
    guides = [
        pm.Amortized({"first": lambda x: pm.Normal.dist(v * x + 0.3, 0.7)}, [batch], "obs"),
        pm.Amortized(
            {"second": lambda x, z: pm.LogNormal.dist(v * (x - z) / 4, pt.exp(-v))},
            [batch, first],
            "obs",
        ),
    ]
    loss = evaluate(model, objective, 3, guide=guides, params=[w])
    noise = {}
    for shape in set(loss.shapes):
        noise[shape] = np.random.default_rng(1).uniform(0.2, 1.5, size=(4, *shape))
    return loss(noise, range(3))


@pytest.mark.parametrize("name", OBJECTIVES)
def test_gradient_is_the_sum_of_both_parts(name: str) -> None:
    """Of the model's weight and of the encoder's, at the same noise, where each has its own loss."""
    together, apart = (gradients(OBJECTIVES[name], tied) for tied in (True, False))
    np.testing.assert_allclose(together["loss"], apart["loss"], rtol=1e-10)
    assert (abs(apart["w"]) > 1e-3).all() and (abs(apart["v"]) > 1e-3).all()
    np.testing.assert_allclose(together["w"], apart["w"] + apart["v"], rtol=1e-9)
