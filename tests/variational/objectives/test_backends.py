# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""The objectives compute the same on Numba and JAX as in Python, and draw what they say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytensor
import pytest

import pymc as pm

from pymc.variational.objectives import IWAE
from tests.variational.engine import JAX_COPIES
from tests.variational.objectives.exact import X, Z, evaluate, rows_model

pytestmark = pytest.mark.filterwarnings(JAX_COPIES)

OBJECTIVES: dict[str, Any] = {
    "elbo": pm.variational.ELBO(),
    "iwae": IWAE(gradient="dreg"),
    "rws": pm.ReweightedWakeSleep(),
}


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("backend", ["NUMBA", "JAX"])
def test_loss_and_gradients_on_backends(backend: str, objective: str) -> None:
    """On the same noise, with two particles and a global variable."""
    model = rows_model(batch_size=2, with_global=True)
    plain = evaluate(model, OBJECTIVES[objective], 2)
    other = evaluate(model, OBJECTIVES[objective], 2, mode=backend)
    rng = np.random.default_rng(1)
    noise = {shape: rng.normal(size=(2, *shape)) for shape in plain.shapes}
    right = plain(noise, [2, 0])
    for k in range(2):
        got = other({shape: draws[k] for shape, draws in noise.items()}, [2, 0])
        for name, value in right.items():
            np.testing.assert_allclose(got[name], value[k], rtol=1e-9, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("backend", ["NUMBA", "JAX"])
def test_categorical_draws_have_their_probabilities(backend: str) -> None:
    """PyTensor 3.3 draws others on JAX, so that draws and log q would not be of one guide."""
    p = np.array([0.2, 0.4, 0.25, 0.15])
    rows = pm.Minibatch(pytensor.shared(X), batch_size=2)  # what makes it a step of ours
    draws = pm.Categorical.dist(p, size=20_000)
    n, _ = pm.compile([], [draws, rows], mode=backend, random_seed=1)()
    share = np.bincount(np.asarray(n), minlength=4) / 20_000
    assert (abs(share - p) < Z * np.sqrt(p * (1 - p) / 20_000)).all()
