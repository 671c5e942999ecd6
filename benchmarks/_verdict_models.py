# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Models on which the verdict of automatic fits is checked, and models for simulation-based calibration."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytensor.tensor as pt

import pymc as pm

__all__ = ["MODELS", "SIMULATED"]

#: Models by name, and whether draws of the priors are those of the posterior, since there are no data.
MODELS: dict[str, tuple[Callable[[], pm.Model], bool]] = {}


def _of_data(build: Callable[[], pm.Model]) -> Callable[[], pm.Model]:
    MODELS[build.__name__] = build, False
    return build


def _of_priors(build: Callable[[], pm.Model]) -> Callable[[], pm.Model]:
    MODELS[build.__name__] = build, True
    return build


@_of_data
def poisson_on_raw_scales() -> pm.Model:
    """Predictors whose scales differ by four decades."""
    rng = np.random.default_rng(2)
    x = rng.normal(size=(300, 4)) * [1, 10, 100, 0.01] + [0, 50, 300, 0]
    y = rng.poisson(np.exp(1 + (x - x.mean(0)) @ [0.3, 0.02, -0.003, 20]))
    with pm.Model() as model:
        a, b = pm.Normal("a", 0, 100), pm.Normal("b", 0, 100, shape=4)
        pm.Poisson("y", pt.exp(a + x @ b), observed=y)
    return model


@_of_data
def centred_hierarchy() -> pm.Model:
    rng = np.random.default_rng(3)
    group = rng.integers(0, 30, 300)
    y = rng.normal(1, 0.4, 30)[group] + rng.normal(0, 0.8, 300)
    with pm.Model() as model:
        mu, tau = pm.Normal("mu", 0, 10), pm.HalfNormal("tau", 2)
        a, s = pm.Normal("a", mu, tau, shape=30), pm.HalfNormal("s", 2)
        pm.Normal("y", a[group], s, observed=y)
    return model


@_of_data
def non_centred_hierarchy() -> pm.Model:
    """The scale of groups is near 0."""
    rng = np.random.default_rng(4)
    group = rng.integers(0, 20, 60)
    y = rng.normal(1, 0.1, 20)[group] + rng.normal(0, 0.8, 60)
    with pm.Model() as model:
        mu, tau = pm.Normal("mu", 0, 10), pm.HalfNormal("tau", 2)
        z, s = pm.Normal("z", 0, 1, shape=20), pm.HalfNormal("s", 2)
        pm.Normal("y", mu + tau * z[group], s, observed=y)
    return model


@_of_data
def separable_logistic() -> pm.Model:
    x = np.linspace(-1, 1, 20)
    with pm.Model() as model:
        b = pm.Normal("b", 0, 10, shape=2)
        pm.Bernoulli("y", logit_p=b[0] + b[1] * x, observed=(x > 0).astype(int))
    return model


@_of_data
def negative_binomial() -> pm.Model:
    rng = np.random.default_rng(11)
    x = rng.normal(size=150)
    y = rng.negative_binomial(3, 3 / (3 + np.exp(1 + 0.5 * x)))
    with pm.Model() as model:
        a, b, alpha = pm.Normal("a", 0, 5), pm.Normal("b", 0, 5), pm.Exponential("alpha", 0.2)
        pm.NegativeBinomial("y", mu=pt.exp(a + b * x), alpha=alpha, observed=y)
    return model


@_of_data
def item_response() -> pm.Model:
    rng = np.random.default_rng(7)
    away = rng.normal(size=30)[:, None] - rng.normal(size=10)
    y = (rng.random((30, 10)) < 1 / (1 + np.exp(-away))).astype(int)
    with pm.Model() as model:
        theta, b = pm.Normal("theta", 0, 1, shape=30), pm.Normal("b", 0, 2, shape=10)
        pm.Bernoulli("y", logit_p=theta[:, None] - b, observed=y)
    return model


@_of_data
def student_regression() -> pm.Model:
    rng = np.random.default_rng(9)
    x = rng.normal(size=100)
    y = 1 + x + rng.standard_t(1.5, size=100)
    with pm.Model() as model:
        a, s = pm.Normal("a", 0, 5, shape=2), pm.HalfNormal("s", 2)
        nu = pm.Gamma("nu", 2, 0.1)
        pm.StudentT("y", nu=nu, mu=a[0] + a[1] * x, sigma=s, observed=y)
    return model


@_of_data
def changepoint() -> pm.Model:
    rng = np.random.default_rng(2)
    t = np.arange(100.0)
    y = np.where(t < 40, 1.0, 3.0) + rng.normal(0, 1, 100)
    with pm.Model() as model:
        tau, s = pm.Uniform("tau", 0, 100), pm.HalfNormal("s", 2)
        a = pm.Normal("a", 0, 5, shape=2)
        mean = a[0] + (a[1] - a[0]) * pm.math.sigmoid(5 * (t - tau))
        pm.Normal("y", mean, s, observed=y)
    return model


@_of_data
def bounds_far_and_near() -> pm.Model:
    """A uniform prior far wider than the likelihood, and one whose bound cuts it."""
    y = np.random.default_rng(5).normal(3, 1, 30)
    with pm.Model() as model:
        mu, s = pm.Uniform("mu", -10, 2.8), pm.Uniform("s", 0, 1e4)
        pm.Normal("y", mu, s, observed=y)
    return model


@_of_data
def product_of_scales() -> pm.Model:
    """Only the product of two variables is known."""
    with pm.Model() as model:
        a, b = pm.HalfNormal("a", 5), pm.HalfNormal("b", 5)
        pm.Normal("y", a * b, 0.1, observed=[1.0, 1.1, 0.9])
    return model


@_of_data
def period() -> pm.Model:
    """The frequency of a wave has several modes, and its sign is that of the amplitude."""
    rng = np.random.default_rng(1)
    t = np.linspace(0, 10, 60)
    y = np.sin(2 * t + 0.5) + rng.normal(0, 0.3, 60)
    with pm.Model() as model:
        w, phase = pm.Uniform("w", 0, 6), pm.Uniform("phase", -np.pi, np.pi)
        size, s = pm.HalfNormal("size", 2), pm.HalfNormal("s", 1)
        pm.Normal("y", size * pt.sin(w * t + phase), s, observed=y)
    return model


@_of_priors
def normals_of_any_scale() -> pm.Model:
    with pm.Model() as model:
        pm.Normal("x", 0, np.array([1e-6, 1, 1e6, 1e9]))
        pm.Normal("y", 1e6, 1e-3)
    return model


@_of_priors
def dirichlet() -> pm.Model:
    with pm.Model() as model:
        pm.Dirichlet("p", np.array([0.3, 0.5, 2, 4]))
    return model


@_of_priors
def uniform_and_truncated() -> pm.Model:
    with pm.Model() as model:
        pm.Uniform("u", 0, 1, shape=5)
        pm.Truncated("t", pm.Normal.dist(0, 1), lower=3)
    return model


@_of_priors
def curved() -> pm.Model:
    with pm.Model() as model:
        x = pm.Normal("x", 0, 1)
        pm.Normal("y", x**2, 0.5)
    return model


@_of_priors
def funnel() -> pm.Model:
    with pm.Model() as model:
        v = pm.Normal("v", 0, 3)
        pm.Normal("x", 0, pt.exp(v / 2), shape=9)
    return model


@_of_priors
def mild_funnel() -> pm.Model:
    with pm.Model() as model:
        v = pm.Normal("v", 0, 1)
        pm.Normal("x", 0, pt.exp(v / 2), shape=3)
    return model


@_of_priors
def student_tails() -> pm.Model:
    with pm.Model() as model:
        pm.StudentT("x", nu=4, mu=0, sigma=1, shape=10)
    return model


@_of_priors
def tail_among_many() -> pm.Model:
    with pm.Model() as model:
        pm.Normal("z", shape=30)
        pm.StudentT("x", nu=3, mu=0, sigma=1)
    return model


@_of_priors
def modes_of_unequal_weight() -> pm.Model:
    with pm.Model() as model:
        pm.NormalMixture("x", [0.9, 0.1], [0.0, 8.0], sigma=1)
    return model


@_of_priors
def spike_and_slab() -> pm.Model:
    with pm.Model() as model:
        parts = [pm.MvNormal.dist(np.zeros(5), cov=sd**2 * np.eye(5)) for sd in (1.0, 0.03)]
        pm.Mixture("x", [0.5, 0.5], parts)
    return model


def _data(like: Any) -> Any:
    """Make data that simulated ones replace."""
    return pm.Data("y_data", np.asarray(like))


def _normal() -> pm.Model:
    with pm.Model() as model:
        mu, s = pm.Normal("mu", 0, 2), pm.HalfNormal("s", 2)
        pm.Normal("y", mu, s, observed=_data(np.zeros(20)), shape=20)
    return model


def _logistic() -> pm.Model:
    x = np.random.default_rng(1).normal(size=(60, 2))
    with pm.Model() as model:
        a, b = pm.Normal("a", 0, 1), pm.Normal("b", 0, 1, shape=2)
        pm.Bernoulli("y", logit_p=a + x @ b, observed=_data(np.zeros(60, int)))
    return model


def _poisson() -> pm.Model:
    x = np.random.default_rng(2).normal(size=(60, 2))
    with pm.Model() as model:
        a, b = pm.Normal("a", 0, 1), pm.Normal("b", 0, 0.5, shape=2)
        pm.Poisson("y", pt.exp(a + x @ b), observed=_data(np.zeros(60, int)))
    return model


def _hierarchy() -> pm.Model:
    group = np.repeat(np.arange(8), 5)
    with pm.Model() as model:
        mu, tau, s = pm.Normal("mu", 0, 2), pm.HalfNormal("tau", 1), pm.HalfNormal("s", 1)
        z = pm.Normal("z", shape=8)
        pm.Normal("y", mu + tau * z[group], s, observed=_data(np.zeros(40)))
    return model


def _gamma() -> pm.Model:
    with pm.Model() as model:
        shape, rate = pm.LogNormal("shape", 0.5, 0.5), pm.Gamma("rate", 3, 2)
        pm.Gamma("y", shape, rate, observed=_data(np.ones(30)), shape=30)
    return model


#: Models for simulation-based calibration, by name. Their data are "y_data", and "y" is simulated.
SIMULATED: Mapping[str, Callable[[], pm.Model]] = {
    "normal mean and scale": _normal,
    "logistic regression": _logistic,
    "Poisson regression": _poisson,
    "non-centred hierarchy": _hierarchy,
    "gamma rates": _gamma,
}
