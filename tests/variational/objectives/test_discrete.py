# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Discrete variables of rows: all draws of all particles, one after another."""

from __future__ import annotations

import itertools

from typing import Any

import numpy as np
import pytensor
import pytest

from scipy.special import expit, logsumexp, softmax
from scipy.stats import bernoulli, norm

import pymc as pm

from tests.variational.objectives.exact import Evaluation, evaluate

RTOL = 1e-10
P, THETA, X = 0.3, 1.5, np.array([0.4, 1.9])
OFF = (-0.2, 0.5)  # not the posterior
EXACT = (np.log(P / (1 - P)) - THETA**2 / 2, THETA)  # p(c = 1 | x) is expit(a + b x)


def switched(
    at: tuple[float, float], n_particles: int, objective: Any = None, n_params: int = 1
) -> Evaluation:
    """c ~ Bernoulli(P), x ~ N(theta c, 1), and q(c = 1 | x) = expit(a + b x)."""
    theta, a, b = (
        pytensor.shared(np.array(value), name=name)
        for value, name in zip((THETA, *at), ("theta", "a", "b"))
    )
    with pm.Model(coords={"obs": range(2)}) as model:
        batch = pm.Minibatch(pm.Data("data", X, dims="obs"), batch_size=2)
        c = pm.Bernoulli("c", np.full(2, P), dims="obs")
        pm.Normal("x", theta * c, 1, observed=batch, dims="obs")
    guide = pm.Amortized({"c": lambda x: pm.Bernoulli.dist(logit_p=a + b * x)}, [batch], "obs")
    objective = objective or pm.ReweightedWakeSleep()
    return evaluate(model, objective, n_particles, guide=guide, params=[theta][:n_params])


def all_draws(n_particles: int) -> np.ndarray:
    """All values of the particles of two rows, shape (draws, K, 2)."""
    values = list(itertools.product([0, 1], repeat=2 * n_particles))
    return np.array(values).reshape(-1, n_particles, 2)


def log_q(c: np.ndarray, at: tuple[float, float]) -> np.ndarray:
    return bernoulli.logpmf(c, expit(at[0] + at[1] * X))


def weights(c: np.ndarray, at: tuple[float, float], theta: float = THETA) -> np.ndarray:
    return bernoulli.logpmf(c, P) + norm.logpdf(X, theta * c, 1) - log_q(c, at)


def bound(c: np.ndarray, at: tuple[float, float], theta: float = THETA) -> np.ndarray:
    w = weights(c, at, theta)
    return (logsumexp(w, axis=1) - np.log(w.shape[1])).sum(axis=1)


@pytest.mark.parametrize("n_particles", [2, 3])
def test_gradients_of_all_draws(n_particles: int) -> None:
    """Of each, and of their mean: wake-theta is that of the expected bound, at a held guide."""
    c = all_draws(n_particles)
    loss = switched(OFF, n_particles)
    got = loss({loss.shapes[0]: c}, [0, 1])
    np.testing.assert_allclose(-got["loss"], bound(c, OFF), rtol=RTOL)
    v = softmax(weights(c, OFF), axis=1)
    np.testing.assert_allclose(
        -got["theta"], (v * c * (X - THETA * c)).sum(axis=(1, 2)), rtol=RTOL, atol=1e-12
    )
    score = c - expit(OFF[0] + OFF[1] * X)
    for name, factor in (("a", 1.0), ("b", X)):
        right = -(v * score * factor).sum(axis=(1, 2))
        np.testing.assert_allclose(got[name], right, rtol=RTOL, atol=1e-12)
    mass = np.exp(log_q(c, OFF).sum(axis=(1, 2)))
    np.testing.assert_allclose(mass.sum(), 1, rtol=RTOL)
    step = 1e-5
    above, below = (mass @ bound(c, OFF, THETA + sign * step) for sign in (1, -1))
    np.testing.assert_allclose(-mass @ got["theta"], (above - below) / (2 * step), rtol=1e-7)


def test_exact_guide() -> None:
    """All draws have the evidence as their bound, and the guide's gradient has a mean of 0."""
    c = all_draws(2)
    loss = switched(EXACT, 2)
    got = loss({loss.shapes[0]: c}, [0, 1])
    evidence = np.logaddexp(
        np.log(1 - P) + norm.logpdf(X, 0, 1), np.log(P) + norm.logpdf(X, THETA, 1)
    )
    np.testing.assert_allclose(-got["loss"], evidence.sum(), rtol=RTOL)
    mass = np.exp(log_q(c, EXACT).sum(axis=(1, 2)))
    for name in ("a", "b"):
        np.testing.assert_allclose(mass @ got[name], 0, atol=1e-12)
        assert abs(got[name]).max() > 0.1


def test_upper_bound_by_the_score() -> None:
    """The χ² bound needs no gradient through draws: of each, the score by weights squared, halved."""
    c = all_draws(2)
    loss = switched(OFF, 2, pm.Renyi(alpha=-1), n_params=0)
    got = loss({loss.shapes[0]: c}, [0, 1])
    w = 2 * weights(c, OFF)
    right = (logsumexp(w, axis=1) - np.log(2)).sum(axis=1) / 2
    np.testing.assert_allclose(got["loss"], right, rtol=RTOL)
    score = c - expit(OFF[0] + OFF[1] * X)
    right = -(softmax(w, axis=1) * score).sum(axis=(1, 2)) / 2
    np.testing.assert_allclose(got["a"], right, rtol=RTOL, atol=1e-12)
