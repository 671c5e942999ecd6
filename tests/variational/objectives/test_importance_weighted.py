# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Bounds of particles against formulas in NumPy on the same noise, and against known values.

The formulas stand apart from the code: the right order, in which logsumexp runs over the particles of a
row and N/B is outside, and the wrong ones, which have to be told apart from it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from scipy.special import logsumexp, softmax
from scipy.stats import norm

import pymc as pm

from pymc.variational.objectives import ELBO, IWAE, Renyi
from tests.variational.objectives.exact import (
    X,
    Z,
    all_batches,
    assert_mean,
    evaluate,
    for_rows,
    hermite,
    rows_model,
)

RTOL = 1e-10
UNIT: dict[str, Any] = {"start": {"z": 0.0}, "start_sigma": {"z": 1.0}}

# The sum over rows, by the number of particles; for many of them with the digits that are known
A9 = {1: -6.7568, 2: -5.72868}
A9_MANY = {20: (-5.0937, 5e-5), 100: (-5.0554, 5e-5)}


def log_weights(z: np.ndarray, x: np.ndarray = X, mu: Any = 0.0) -> np.ndarray:
    """Log p(x, z | mu) - log N(z; 0, 1), for z of shape (..., K, rows)."""
    return norm.logpdf(z, mu, 1) + norm.logpdf(x, z, 1) - norm.logpdf(z)


def mean_exp(w: np.ndarray, axis: int) -> np.ndarray:
    """Log of the mean of exp."""
    return logsumexp(w, axis=axis) - np.log(w.shape[axis])


def shape_of(n_particles: int, n_rows: int = 3) -> tuple[int, ...]:
    return (n_rows, 1) if n_particles == 1 else (n_particles, n_rows, 1)


def random_noise(n: int, n_particles: int, n_rows: int = 3, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, *shape_of(n_particles, n_rows)))


@pytest.mark.parametrize("n_particles, n_nodes", [(1, 20), (2, 60)])
def test_bound_has_the_known_value(n_particles: int, n_nodes: int) -> None:
    """A9 at K = 1 and 2, by quadrature."""
    loss = evaluate(rows_model(), IWAE(), n_particles, gradients=False, **UNIT)
    points, mass = hermite(n_nodes, n_particles)
    bound = -mass @ loss({shape_of(n_particles): for_rows(points, 3)}, range(3))["loss"]
    right = mass @ mean_exp(log_weights(for_rows(points, 3)[..., 0].reshape(-1, n_particles, 3)), 1)
    np.testing.assert_allclose(bound, right.sum(), rtol=RTOL)
    np.testing.assert_allclose(bound, A9[n_particles], atol=1e-5 * abs(bound))


@pytest.mark.parametrize("n_particles", A9_MANY)
def test_bound_of_many_particles(n_particles: int) -> None:
    """A9 at K = 20 and 100: the same as the formula at each draw, and the mean within its error."""
    loss = evaluate(rows_model(), IWAE(), n_particles, gradients=False, **UNIT)
    noise = random_noise(2000, n_particles)
    bounds = -loss({shape_of(n_particles): noise}, range(3))["loss"]
    right = mean_exp(log_weights(noise[..., 0]), 1).sum(axis=1)
    np.testing.assert_allclose(bounds, right, rtol=RTOL)
    value, digits = A9_MANY[n_particles]
    assert abs(bounds.mean() - value) < digits + 4.9 * bounds.std() / np.sqrt(len(bounds))


def wrong_orders(w: np.ndarray, scale: float) -> dict[str, np.ndarray]:
    """The formula of the bound: of log-weights, shape (R, K, rows of the batch)."""
    rows = mean_exp(w, 1)
    return {
        "logsumexp after the sum over the batch": mean_exp(scale * w.sum(axis=2), 1),
        "N/B inside of the logsumexp": mean_exp(scale * w, 1).sum(axis=1),
        "weights normalised over the batch": scale * (softmax(w, axis=(1, 2)) * w).sum(axis=(1, 2)),
        "total size on top": scale**2 * rows.sum(axis=1),
        "not scaled": rows.sum(axis=1),
        "mean over the batch": rows.mean(axis=1),
    }


@pytest.mark.parametrize("n_particles", [2, 20])
def test_wrong_orders_are_told_apart(n_particles: int) -> None:
    """Over all batches of two of three rows the mean is the bound of all rows, in no wrong order."""
    loss = evaluate(rows_model(batch_size=2), IWAE(), n_particles, gradients=False, **UNIT)
    full = evaluate(rows_model(), IWAE(), n_particles, gradients=False, **UNIT)
    noise = random_noise(300, n_particles)
    exact = -full({shape_of(n_particles): noise}, range(3))["loss"].mean()
    bounds, wrong = [], []
    for batch in all_batches(3, 2):
        mine = noise[..., batch, :]  # a row has its own noise, in whatever batch it is
        bounds.append(-loss({shape_of(n_particles, 2): mine}, batch)["loss"])
        wrong.append(wrong_orders(log_weights(mine[..., 0], X[list(batch)]), 3 / 2))
    np.testing.assert_allclose(np.mean(bounds), exact, rtol=RTOL)
    for name in wrong[0]:
        assert abs(np.mean([w[name] for w in wrong]) - exact) > 0.01, name


def test_full_data_tell_the_order_apart() -> None:
    """A9 with all rows: the logsumexp after the sum over the batch gives -5.8766 for -5.72868."""
    noise = random_noise(200_000, 2)
    wrong = wrong_orders(log_weights(noise[..., 0]), 1.0)["logsumexp after the sum over the batch"]
    assert_mean(wrong + 5.8766, 0.0)
    assert abs(wrong.mean() - A9[2]) > 0.1


@pytest.mark.parametrize("objective", [IWAE(), Renyi(0.5), Renyi(2.0), Renyi(-1.0), ELBO()])
def test_outer_draws_are_averaged(objective: Any) -> None:
    """Three draws of the bound of two particles: the mean of three bounds."""
    model = rows_model(with_global=not objective.is_upper)
    one = evaluate(model, objective, 2, **UNIT)
    three = evaluate(model, objective, 2, n_outer=3, **UNIT)
    rng = np.random.default_rng(2)
    mu, z = rng.normal(size=(3, 1)), rng.normal(size=(3, 2, 3, 1))
    together = three({(3, 1, 1): mu[None, :, None], (3, 2, 3, 1): z[None]}, range(3))
    apart = one({(1,): mu, (2, 3, 1): z}, range(3))
    for name in apart:
        np.testing.assert_allclose(together[name][0], apart[name].mean(axis=0), rtol=RTOL)


# A10


def with_encoder(batch_size: int = 3) -> tuple[pm.Model, pm.Amortized]:
    """A10: q(z | mu) is N(mu, 1), by a function that is given mu."""
    model = rows_model(X, batch_size, with_global=True)
    inputs = [model["x"], model["mu"]]

    def encode(x: Any, mu: Any) -> Any:
        return pm.Normal.dist(mu + 0 * x, 1)

    return model, pm.Amortized({"z": encode}, inputs=inputs, dim="obs")


AT: dict[str, Any] = {"start": {"mu": 0.2}, "start_sigma": {"mu": 0.4**0.5}}


@pytest.mark.parametrize("n_particles, known", [(1, -7.39496), (2, -6.25623)])
def test_globals_enter_once(n_particles: int, known: float) -> None:
    """A10 by quadrature over the global and the particles of a row, and for all batches of two rows."""
    points, mass = hermite(24, 1 + n_particles)
    mu = 0.2 + 0.4**0.5 * points[:, :1]
    z = mu + points[:, 1:]
    right = norm.logpdf(mu) - norm.logpdf(mu, 0.2, 0.4**0.5)  # (G, 1): of the global
    w = norm.logpdf(X, z[..., None], 1)  # the prior of z and its guide are one
    model, guide = with_encoder()
    loss = evaluate(model, IWAE(), n_particles, guide=guide, gradients=False, **AT)
    shape = loss.shapes[1]
    noise = {(1,): points[:, :1], shape: for_rows(points[:, 1:], 3).reshape(-1, *shape)}
    bounds = -loss(noise, range(3))["loss"]
    np.testing.assert_allclose(bounds, right[:, 0] + mean_exp(w, 1).sum(axis=1), rtol=RTOL)
    np.testing.assert_allclose(mass @ bounds, known, atol=1e-5)
    model, guide = with_encoder(batch_size=2)
    part = evaluate(model, IWAE(), n_particles, guide=guide, gradients=False, **AT)
    shape = part.shapes[1]
    noise[shape] = for_rows(points[:, 1:], 2).reshape(-1, *shape)
    batches = [-part(noise, batch)["loss"] for batch in all_batches(3, 2)]
    np.testing.assert_allclose(np.mean(batches, axis=0), bounds, rtol=RTOL)
    if n_particles > 1:
        inside = right[:, 0] + mean_exp(1.5 * w, 1).mean(axis=1) * 2  # N/B inside of the logsumexp
        assert abs(mass @ inside - known) > 0.1


def test_globals_of_many_particles() -> None:
    """A10 at K = 20, whose value is known to 4e-4, with the computed error of 20,000 draws."""
    model, guide = with_encoder()
    loss = evaluate(model, IWAE(), 20, guide=guide, gradients=False, **AT)
    rng = np.random.default_rng(6)
    noise = {shape: rng.normal(size=(20_000, *shape)) for shape in loss.shapes}
    bounds = -loss(noise, range(3))["loss"]
    assert abs(bounds.mean() + 5.5127) < 4e-4 + Z * bounds.std() / np.sqrt(len(bounds))


# A11

EXACT_RENYI = {0.0: -1.515512, 0.5: -1.540654, 0.999: -1.572011, 2.0: -1.667445, 1.0: -1.572082}


@pytest.mark.parametrize("of_rows", [True, False])
@pytest.mark.parametrize("alpha", EXACT_RENYI)
def test_renyi_bound_of_very_many_particles(alpha: float, of_rows: bool) -> None:
    """A11: particles at the quantiles of the guide are a quadrature of the bound's limit.

    The same for a latent variable of a row, and for one of a model without rows.
    """
    n = 40_000
    noise = norm.ppf((np.arange(n) + 0.5) / n)
    if of_rows:
        model, shape, rows = rows_model([1.0], 1), (n, 1, 1), [0]
    else:
        with pm.Model() as model:
            z = pm.Normal("z")
            pm.Normal("x", z, 1, observed=1.0)
        shape, rows = (n, 1), None  # type: ignore[assignment]
    at: dict[str, Any] = {"start": {"z": 0.3}, "start_sigma": {"z": 0.8}}
    loss = evaluate(model, Renyi(alpha), n, gradients=False, **at)
    bound = -loss({shape: noise.reshape((1, *shape))}, rows)["loss"][0]
    # What the particles leave of the tails: q/p, which has heavy ones, is averaged at alpha = 2
    np.testing.assert_allclose(bound, EXACT_RENYI[alpha], atol=5e-4 if alpha == 2 else 2e-5)


@pytest.mark.parametrize("alpha", [-1.0, 0.0, 0.5, 0.999, 2.0])
def test_renyi_bound_at_each_draw(alpha: float) -> None:
    """The loss is a lower bound's negative, and an upper bound."""
    loss = evaluate(rows_model(), Renyi(alpha), 3, gradients=False, **UNIT)
    noise = random_noise(5, 3)
    w = (1 - alpha) * log_weights(noise[..., 0])
    sign = 1 if alpha < 0 else -1
    right = sign * (mean_exp(w, 1) / (1 - alpha)).sum(axis=1)
    np.testing.assert_allclose(loss({shape_of(3): noise}, range(3))["loss"], right, rtol=RTOL)


def upper_bound(alpha: float, mean: float, sd: float, x: float = 1.0) -> float:
    """Log of E[w^n] / n, n = 1 - alpha, of z ~ N(0, 1) and x ~ N(z, 1) with the guide N(mean, sd)."""
    n = 1 - alpha
    at, of_posterior = x / 2, 0.5  # the posterior's mean and variance
    precision = n / of_posterior - (n - 1) / sd**2
    first = n * at / of_posterior - (n - 1) * mean / sd**2
    rest = n * at**2 / of_posterior - (n - 1) * mean**2 / sd**2
    scales = -n * np.log(2 * np.pi * of_posterior) + (n - 1) * np.log(2 * np.pi * sd**2)
    log_chi = (scales + np.log(2 * np.pi / precision) + first**2 / precision - rest) / 2
    return norm.logpdf(x, 0, 2**0.5) + log_chi / n


@pytest.mark.parametrize("gradient", ["score", "stl", "dreg"])
@pytest.mark.parametrize("alpha", [-0.5, -1.0])
def test_upper_bound_and_its_gradient(alpha: float, gradient: str) -> None:
    """With very many particles both are those of the χ bound in closed form, which is above log p(x)."""
    n, mean, sd = 40_000, 0.3, 1.0
    noise = norm.ppf((np.arange(n) + 0.5) / n).reshape(1, n, 1, 1)
    at: dict[str, Any] = {"start": {"z": mean}, "start_sigma": {"z": sd}}
    found = evaluate(rows_model([1.0], 1), Renyi(alpha, gradient), n, **at)(
        {noise.shape[1:]: noise}, [0]
    )
    assert found["loss"][0] > norm.logpdf(1, 0, 2**0.5)
    np.testing.assert_allclose(found["loss"][0], upper_bound(alpha, mean, sd), rtol=1e-4)
    h = 1e-5
    by_mean = upper_bound(alpha, mean + h, sd) - upper_bound(alpha, mean - h, sd)
    by_sd = upper_bound(alpha, mean, sd + h) - upper_bound(alpha, mean, sd - h)
    by_rho = by_sd * (1 - np.exp(-sd))  # the derivative of softplus
    exact = np.array([by_mean, by_rho]) / (2 * h)
    actual = np.ravel([found["obs_mu"], found["obs_rho"]])
    np.testing.assert_allclose(actual, exact, rtol=2e-3)


@pytest.mark.parametrize("gradient", ["score", "dreg"])
def test_upper_bound_of_few_particles_leads_to_the_posterior(gradient: str) -> None:
    """If they all miss it, the gradient of the estimate itself would lead away."""
    at: dict[str, Any] = {"start": {"z": 6.0}, "start_sigma": {"z": 0.5}}
    loss = evaluate(rows_model([1.0], 1), Renyi(-1.0, gradient), 4, **at)
    assert loss({shape_of(4, 1): random_noise(2000, 4, 1)}, [0])["obs_mu"].mean() > 0.1


# A13


def gradients(objective: Any, n_particles: int, noise: np.ndarray) -> np.ndarray:
    """Gradients of mu and rho of all rows, shape (R, 6), for a guide that is off the posterior."""
    loss = evaluate(rows_model(), objective, n_particles, start={"z": 0.2}, start_sigma={"z": 0.9})
    values = loss({shape_of(n_particles): noise}, range(3))
    both = np.concatenate([values["obs_mu"], values["obs_rho"]], axis=1)
    return both.reshape(len(noise), 6)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 2.0])
def test_doubly_reparametrised_gradient_has_the_same_mean(alpha: float) -> None:
    """A13 at K = 2, by quadrature."""
    points, mass = hermite(40, 2)
    noise = for_rows(points, 3)
    plain, doubly = (mass @ gradients(Renyi(alpha, g), 2, noise) for g in ("reparam", "dreg"))
    np.testing.assert_allclose(doubly, plain, atol=1e-5)
    biased = mass @ gradients(Renyi(alpha, "stl"), 2, noise)
    assert abs(biased - plain).max() > 1e-2


def test_signal_of_doubly_reparametrised_gradient_grows_with_particles() -> None:
    """A13: mean by standard deviation goes as the root of K for DReG, and falls for the plain one."""
    ratios: dict[str, list[float]] = {"reparam": [], "dreg": []}
    for n_particles in (2, 32):
        noise = random_noise(1000, n_particles)
        for name, found in ratios.items():
            draws = gradients(IWAE(gradient=name), n_particles, noise)
            found.append(float(np.mean(abs(draws.mean(axis=0)) / draws.std(axis=0))))
    # A mean of 1,000 draws has the standard error 0.03 of their standard deviation, and 16 times the
    # particles are a factor of 4, or of 1/4
    assert ratios["dreg"][1] > 2 * ratios["dreg"][0]
    assert ratios["reparam"][1] < ratios["reparam"][0]


def global_model(n_rows: int = 100) -> tuple[pm.Model, float, float]:
    """A1 on all rows, and the mean and standard deviation of its posterior."""
    data = np.random.default_rng(3).normal(size=n_rows)
    with pm.Model() as model:
        mu = pm.Normal("mu")
        pm.Normal("x", mu, 1, observed=data)
    return model, data.sum() / (n_rows + 1), 1 / np.sqrt(n_rows + 1)


def test_sticking_the_landing_has_no_variance_at_the_posterior() -> None:
    """A13: no gradient at any draw, where the plain one has the variance N + 1."""
    model, mean, sd = global_model()
    at: dict[str, Any] = {"start": {"mu": mean}, "start_sigma": {"mu": sd}}
    noise = np.random.default_rng(4).normal(size=(2000, 1))
    stuck = evaluate(model, ELBO(gradient="stl"), **at)({(1,): noise})
    plain = evaluate(model, ELBO(), **at)({(1,): noise})
    np.testing.assert_allclose(stuck["globals_mu"], 0, atol=1e-11)
    np.testing.assert_allclose(stuck["globals_rho"], 0, atol=1e-11)
    # The plain one is sqrt(N + 1) eps, at each draw
    np.testing.assert_allclose(plain["globals_mu"], np.sqrt(101) * noise, rtol=1e-9)


AT_POSTERIOR = [(IWAE(gradient=g), n) for g in ("reparam", "stl", "dreg") for n in (1, 2)]
AT_POSTERIOR += [(Renyi(-1.0, gradient=g), 2) for g in ("score", "stl", "dreg")]


@pytest.mark.parametrize("objective, n_particles", AT_POSTERIOR)
def test_gradient_at_the_posterior_of_rows(objective: Any, n_particles: int) -> None:
    """At the exact posterior all weights are alike, whatever the particles: the bound is log p(x)."""
    at: dict[str, Any] = {"start": {"z": 0.5}, "start_sigma": {"z": 0.5**0.5}}
    loss = evaluate(rows_model([1.0], 1), objective, n_particles, **at)
    points, mass = hermite(30, n_particles)
    values = loss({shape_of(n_particles, 1): for_rows(points, 1)}, [0])
    bound = values["loss"] if objective.is_upper else -values["loss"]
    np.testing.assert_allclose(bound, norm.logpdf(1, 0, 2**0.5), rtol=RTOL)
    np.testing.assert_allclose(np.tensordot(mass, values["obs_mu"], 1), 0, atol=RTOL)
    np.testing.assert_allclose(np.tensordot(mass, values["obs_rho"], 1), 0, atol=RTOL)
    if objective.gradient in ("stl", "dreg"):
        np.testing.assert_allclose(values["obs_mu"], 0, atol=RTOL)


LOWER = [ELBO(), IWAE(), IWAE(gradient="dreg"), Renyi(0.5)]
BATCHES = [*((bound, way) for way in (True, False) for bound in LOWER), (Renyi(-1.0), False)]


@pytest.mark.parametrize("objective, with_global", BATCHES)
def test_batches_have_the_mean_of_all_rows(objective: Any, with_global: bool) -> None:
    """Loss and gradients, over all batches of two of three rows."""
    full = evaluate(rows_model(with_global=with_global), objective, 2, **UNIT)
    part = evaluate(rows_model(batch_size=2, with_global=with_global), objective, 2, **UNIT)
    z, mu = random_noise(3, 2), np.random.default_rng(5).normal(size=(3, 1))
    exact = full({shape_of(2): z, (1,): mu}, range(3))
    batches = [
        part({shape_of(2, 2): z[..., batch, :], (1,): mu}, batch) for batch in all_batches(3, 2)
    ]
    for name, value in exact.items():
        mean = np.mean([values[name] for values in batches], axis=0)
        np.testing.assert_allclose(mean, value, rtol=RTOL, atol=1e-12, err_msg=name)
