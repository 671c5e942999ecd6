# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""The example of rows with a random number of latent variables: masks, and fits beside sums."""

from __future__ import annotations

import importlib.util

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from scipy.special import logsumexp
from scipy.stats import norm

import pymc as pm

from pymc.variational.objectives import IWAE
from tests.variational.engine import JAX_COPIES
from tests.variational.objectives.exact import evaluate

EXAMPLE = Path(__file__).parents[3] / "examples" / "dynamic_rows.py"


@pytest.fixture(scope="module")
def example() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("dynamic_rows", EXAMPLE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module


def test_log_weights_are_masked_sums(example: ModuleType) -> None:
    """Of a row's own slots only, whatever the noise of the others: at each draw of two particles."""
    rows = example.Rows(np.array([0.3, 2.0, 4.5, 9.0]), np.array([0, 1, 2, 3]))
    model = example.pulse_model(rows, 4, known_numbers=True)
    loss = evaluate(model, IWAE(), 2, guide=example.slot_guide(model), gradients=False)
    noise = np.random.default_rng(1).normal(size=(5, 2, 4, 3))  # the guide starts at N(0, 1)
    got = loss({(2, 4, 3): noise}, range(4))["loss"]
    weights = np.log(example.P)[rows.n] + np.zeros((5, 2, 4))
    for row, n in enumerate(rows.n):
        z = noise[..., row, :n]  # no other slot
        weights[..., row] += (norm.logpdf(z, 2.0, 1) - norm.logpdf(z)).sum(axis=-1)
        weights[..., row] += norm.logpdf(rows.x[row], z.sum(axis=-1), example.NOISE)
    bound = logsumexp(weights, axis=1) - np.log(2)
    np.testing.assert_allclose(-got, bound.sum(axis=1), rtol=1e-10)
    noise[..., ~example.used_slots(rows.n)] = 100.0
    same = loss({(2, 4, 3): noise}, range(4))["loss"]
    np.testing.assert_allclose(same, got, rtol=1e-10)


@pytest.mark.filterwarnings(JAX_COPIES)
# PyTensor's checks of shapes, which JAX has none of
@pytest.mark.filterwarnings("ignore:Skipping Assert:UserWarning")
@pytest.mark.parametrize("known_numbers", [False, True])
def test_fits_beside_exact_sums(example: ModuleType, known_numbers: bool) -> None:
    """RWS and IWAE: the bound is close below the evidence, and q(n | x) close to p(n | x).

    The guide cannot be exact, so that what is asked is a share of what a fit gains. JAX compiles such
    graphs in seconds, and Numba in minutes.
    """
    pytest.importorskip("jax")
    rows = example.simulate_rows()
    compile_kwargs = {"mode": "JAX"}
    approx, height, guides = example.fit(rows, known_numbers, n=3000, compile_kwargs=compile_kwargs)
    at = float(height.get_value())
    exact = example.exact_log_evidence(rows, at, known_numbers)
    bound = -approx.hist[-500:].mean()
    error = approx.hist[-500:].std() / np.sqrt(500)  # of batches and particles
    assert exact - 0.1 < bound < exact + 5 * error
    # Where it starts, at 2, the data have 0.4 nats less for a row
    best = example.best_height(rows, known_numbers)
    assert example.exact_log_evidence(rows, best, known_numbers) - exact < 0.05
    if not known_numbers:
        exact_p = example.exact_probabilities(rows.x, at)
        distance = abs(example.fitted_probabilities(guides[0], rows.x) - exact_p).sum(axis=1) / 2
        assert distance.mean() < 0.05
        assert set(approx.guide_losses) == {"wake_phi", "sleep_phi"}
        assert all(len(losses) == 3000 for losses in approx.guide_losses.values())


def test_numbers_are_of_the_model(example: ModuleType) -> None:
    """A row has 0 to `MOST` pulses, and the slots that it has not are 0 in its total."""
    rows = example.simulate_rows(20_000)
    share = np.bincount(rows.n, minlength=example.MOST + 1) / len(rows.n)
    error = np.sqrt(example.P * (1 - example.P) / len(rows.n))
    assert (abs(share - example.P) < norm.isf(1e-6) * error).all()
    none = rows.x[rows.n == 0]
    assert abs((none**2).mean() / example.NOISE**2 - 1) < norm.isf(1e-6) * np.sqrt(2 / len(none))
    assert isinstance(example.pulse_model(rows, 10, False), pm.Model)
