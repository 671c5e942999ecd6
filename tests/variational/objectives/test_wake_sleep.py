# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Reweighted wake-sleep against formulas on the same noise, and against known values."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest

from pytensor.compile.sharedvalue import SharedVariable
from scipy.special import softmax
from scipy.stats import norm

import pymc as pm

from pymc.variational.fit_objective import check_reparametrised
from pymc.variational.objectives import IWAE
from tests.variational.objectives.exact import (
    X,
    Z,
    all_batches,
    evaluate,
    for_rows,
    hermite,
    rows_model,
)

RTOL = 1e-10
THETA = 0.5
RWS = pm.ReweightedWakeSleep


def shared(value: float, name: str) -> SharedVariable:
    return pytensor.shared(np.array(value), name=name)


def theta_model(x: Any, batch_size: int) -> tuple[pm.Model, SharedVariable]:
    """A12: z ~ N(theta, 1) with a parameter of the model."""
    theta = shared(THETA, "theta")
    return rows_model(x, batch_size, loc=theta), theta


def wake_gradient(z: np.ndarray, x: Any, axes: Any = 1) -> np.ndarray:
    """Gradient of wake-theta for theta, for z of shape (R, K, rows); the weights sum to 1 over `axes`."""
    v = softmax(norm.logpdf(x, z, 1), axis=axes)
    return -(v * (z - THETA)).sum(axis=(1, 2))


PRIOR: dict[str, Any] = {"start": {"z": THETA}, "start_sigma": {"z": 1.0}}


@pytest.mark.parametrize("n_particles, known, n_nodes", [(1, 0.0, 20), (2, 0.3500453, 80)])
def test_wake_theta_has_the_known_gradient(n_particles: int, known: float, n_nodes: int) -> None:
    """A12 at K = 1 and 2, by quadrature; a second row beside it does not change it."""
    x = np.array([1.7, -0.4])
    model, theta = theta_model(x, 2)
    loss = evaluate(model, RWS(), n_particles, params=[theta], **PRIOR)
    points, mass = hermite(n_nodes, n_particles)
    got = loss({loss.shapes[0]: for_rows(points, 2)}, [0, 1])["theta"]
    z = THETA + points[:, :, None]
    np.testing.assert_allclose(got, sum(wake_gradient(z, row) for row in x), rtol=RTOL, atol=1e-12)
    np.testing.assert_allclose(-mass @ wake_gradient(z, 1.7), known, atol=5e-8)
    both = np.broadcast_to(z, (*points.shape, 2))
    if n_particles > 1:  # normalised over the batch jointly
        assert abs(mass @ wake_gradient(both, x, axes=(1, 2)) - mass @ got) > 0.02


@pytest.mark.parametrize("n_particles, known", [(10, 0.5678), (100, 0.5974)])
def test_wake_theta_of_many_particles(n_particles: int, known: float) -> None:
    """A12 at K = 10 and 100, known from sampling, with the computed error of 5,000 draws.

    The gradient of log p(x), (x - theta) / 2, is 0.6.
    """
    model, theta = theta_model([1.7], 1)
    loss = evaluate(model, RWS(), n_particles, params=[theta], **PRIOR)
    noise = np.random.default_rng(1).normal(size=(5000, n_particles, 1, 1))
    got = -loss({noise.shape[1:]: noise}, [0])["theta"]
    np.testing.assert_allclose(
        got, -wake_gradient(THETA + noise[..., 0], np.array([1.7])), rtol=RTOL
    )
    assert abs(got.mean() - known) < 3e-4 + Z * got.std() / np.sqrt(len(got))


@pytest.mark.parametrize("n_particles", [1, 2])
def test_wake_phi_at_the_posterior(n_particles: int) -> None:
    """A12: with an exact guide the weights are alike, and the mean of the guide's gradient is 0."""
    at: dict[str, Any] = {"start": {"z": 0.5}, "start_sigma": {"z": 0.5**0.5}}
    loss = evaluate(rows_model([1.0, 1.0], 2), RWS(), n_particles, **at)
    points, mass = hermite(20, n_particles)
    values = loss({loss.shapes[0]: for_rows(points, 2)}, [0, 1])
    for name in ("obs_mu", "obs_rho"):
        np.testing.assert_allclose(np.tensordot(mass, values[name], 1), 0, atol=RTOL)
        assert abs(values[name]).max() > 0.1  # its mean, and not each of it
    np.testing.assert_allclose(-values["loss"], 2 * norm.logpdf(1, 0, 2**0.5), rtol=RTOL)


def test_wake_phi_is_the_weighted_score() -> None:
    """Its gradient for the mean of each row is that of -sum_k v_k log q(z_k), at held draws."""
    at: dict[str, Any] = {"start": {"z": 0.2}, "start_sigma": {"z": 0.9}}
    loss = evaluate(rows_model(), RWS(), 3, **at)
    noise = np.random.default_rng(2).normal(size=(4, 3, 3, 1))
    values = loss({(3, 3, 1): noise}, range(3))
    z = 0.2 + 0.9 * noise[..., 0]
    logq = norm.logpdf(z, 0.2, 0.9)
    v = softmax(norm.logpdf(z) + norm.logpdf(X, z, 1) - logq, axis=1)
    np.testing.assert_allclose(values["wake_phi"], -(v * logq).sum(axis=(1, 2)), rtol=RTOL)
    score = -(v * noise[..., 0] / 0.9).sum(axis=1)
    np.testing.assert_allclose(values["obs_mu"][..., 0], score, rtol=RTOL)
    jointly = softmax((norm.logpdf(z) + norm.logpdf(X, z, 1) - logq).reshape(4, -1), axis=1)
    wrong = -(jointly.reshape(4, 3, 3) * noise[..., 0] / 0.9).sum(axis=1)
    assert (abs(wrong - score).max(axis=1) > 0.05).all()


def test_history_is_the_importance_weighted_bound() -> None:
    """Also of globals, whose guide has its gradient with the draws of the rows held."""
    model = rows_model(with_global=True)
    noise = {
        (1,): np.full((1, 1), 0.3),
        (2, 3, 1): np.random.default_rng(3).normal(size=(1, 2, 3, 1)),
    }
    rws, iwae = (evaluate(model, o, 2)(noise, range(3)) for o in (RWS(), IWAE()))
    np.testing.assert_allclose(rws["loss"], iwae["loss"], rtol=RTOL)
    # mean-field draws of the rows do not depend on the global: the same gradient
    for name in ("globals_mu", "globals_rho"):
        np.testing.assert_allclose(rws[name], iwae[name], rtol=RTOL)


@pytest.mark.parametrize("insomnia", [1.0, 0.3])
def test_batches_have_the_mean_of_all_rows(insomnia: float) -> None:
    """Loss, losses of the guide and all gradients, over all batches of two of three rows."""
    full, part = (encoded(size, insomnia, with_global=True) for size in (3, 2))
    rng = np.random.default_rng(4)
    # A simulation is of a row, as a particle is: the noise goes with the row
    noise = {shape: rng.normal(size=(2, *shape)) for shape in full.shapes}
    exact = full(noise, range(3))
    batches = []
    for batch in all_batches(3, 2):
        mine = {of_batch(s): n if s == (1,) else n[..., batch] for s, n in noise.items()}
        batches.append(part(mine, batch))
    for name, value in exact.items():
        mean = np.mean([values[name] for values in batches], axis=0)
        np.testing.assert_allclose(mean, value, rtol=RTOL, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("insomnia", [1.0, 0.3])
def test_globals_beside_rows_need_gradients_through_draws(insomnia: float) -> None:
    """They follow the bound; where nothing is of a row, all draws are weighed."""
    rows, global_ = (
        SimpleNamespace(
            reparametrised=False, plate=plate, sites=[SimpleNamespace(name=name, plate=plate)]
        )
        for name, plate in (("z", ("obs",)), ("k", ()))
    )
    objective: Any = RWS(insomnia)
    guides: Any
    for guides in ([rows], [global_]):
        check_reparametrised(guides, objective)
    with pytest.raises(ValueError, match=r"of globals, but the guide of 'k' .* sum it out"):
        check_reparametrised([rows, global_], objective)  # type: ignore[list-item]


def of_batch(shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape if shape == (1,) else (*shape[:-1], 2)


def encoded(batch_size: int, insomnia: float, with_global: bool = False) -> Any:
    """A9 or A10 with a normal guide around a + b x."""
    a, b, scale = shared(0.1, "a"), shared(0.3, "b"), shared(-0.2, "scale")
    model = rows_model(X, batch_size, with_global=with_global)
    guide = pm.Amortized(
        {"z": lambda x: pm.Normal.dist(a + b * x, pt.exp(scale))}, inputs=[model["x"]], dim="obs"
    )
    return evaluate(model, RWS(insomnia=insomnia), 2, guide=guide)


def test_a_fit_of_globals_alone() -> None:
    """Without a table of rows the loop looks at the loss itself, beside which are the guide's."""
    with pm.Model() as model:
        mu = pm.Normal("mu", 0.3)
        pm.Normal("x", 2 * mu, 1, observed=[1.0, 2.0])
    approx = pm.fit(
        5, model=model, objective="rws", n_particles=4, progressbar=False, random_seed=1
    )
    assert approx.hist.shape == approx.guide_losses["wake_phi"].shape == (5,)
