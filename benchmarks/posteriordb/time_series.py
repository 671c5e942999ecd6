# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Models of series: autoregressions, volatility, hidden states, and populations by a differential equation."""

import numpy as np
import pytensor
import pytensor.tensor as pt

import pymc as pm

from posteriordb.data import Data

SUBSTEPS = 10  # of Runge and Kutta's method in a year: its error is far below the posterior's sds


def autoregression(data: Data) -> pm.Model:
    """Build y_t ~ N(alpha + sum_k beta_k y_{t-k}, sigma)."""
    y, order = data["y"], int(data["K"])
    lagged = np.column_stack([y[order - k - 1 : len(y) - k - 1] for k in range(order)])
    with pm.Model() as model:
        alpha = pm.Normal("alpha", 0, 10)
        beta = pm.Normal("beta", 0, 10, shape=order)
        sigma = pm.HalfCauchy("sigma", 2.5)
        pm.Normal("y", alpha + pt.dot(lagged, beta), sigma, observed=y[order:])
    return model


def arma11(data: Data) -> pm.Model:
    """Build e_t = y_t - mu - phi y_{t-1} - theta e_{t-1} ~ N(0, sigma), with y_0 = mu and e_0 = 0."""
    y = data["y"]
    with pm.Model() as model:
        mu, phi, theta = pm.Normal("mu", 0, 10), pm.Normal("phi", 0, 2), pm.Normal("theta", 0, 2)
        sigma = pm.HalfCauchy("sigma", 2.5)
        first = y[0] - mu - phi * mu
        rest = pytensor.scan(
            lambda now, before, error, mu, phi, theta: now - mu - phi * before - theta * error,
            sequences=[pt.as_tensor(y[1:]), pt.as_tensor(y[:-1])],
            outputs_info=[first],
            non_sequences=[mu, phi, theta],
            strict=True,
            return_updates=False,
        )
        errors = pt.concatenate([first[None], rest])
        pm.Potential("y", pm.logp(pm.Normal.dist(0, sigma), errors).sum())
    return model


def garch11(data: Data) -> pm.Model:
    """Build y_t ~ N(mu, s_t), s_t² = alpha0 + alpha1 (y_{t-1} - mu)² + beta1 s_{t-1}², alpha1 + beta1 < 1."""
    y, first = data["y"], data["sigma1"] ** 2
    with pm.Model() as model:
        mu, alpha0 = pm.Flat("mu"), pm.HalfFlat("alpha0")
        alpha1, part = pm.Uniform("alpha1", 0, 1), pm.Uniform("part", 0, 1)
        beta1 = pm.Deterministic("beta1", part * (1 - alpha1))
        pm.Potential("flat_in_beta1", pt.log1p(-alpha1))
        shocks = alpha0 + alpha1 * (y[:-1] - mu) ** 2
        rest = pytensor.scan(
            lambda shock, variance, beta1: shock + beta1 * variance,
            sequences=[shocks],
            outputs_info=[pt.as_tensor(first)],
            non_sequences=[beta1],
            strict=True,
            return_updates=False,
        )
        pm.Normal("y", mu, pt.sqrt(pt.concatenate([first[None], rest])), observed=y)
    return model


def hidden_markov(data: Data) -> pm.Model:
    r"""Build y_t ~ N(mu_z, 1) with two hidden states, mu_1 < mu_2, and z summed out.

    By the forward recursion :math:`g_t(j) = \log N(y_t | \mu_j, 1) + \log \sum_i \exp(g_{t-1}(i)) \theta_{ij}`.
    """
    y = data["y"]
    with pm.Model() as model:
        stay, leave = pm.Uniform("stay", 0, 1), pm.Uniform("leave", 0, 1)
        low, gap = pm.TruncatedNormal("low", 3, 1, lower=0), pm.HalfFlat("gap")
        mu = pm.Deterministic("mu", pt.stack([low, low + gap]))
        theta1 = pm.Deterministic("theta1", pt.stack([stay, 1 - stay]))
        theta2 = pm.Deterministic("theta2", pt.stack([leave, 1 - leave]))
        pm.Potential("prior_of_high", pm.logp(pm.Normal.dist(10, 1), mu[1]))
        emitted = -0.5 * (pt.as_tensor(y)[:, None] - mu) ** 2 - 0.5 * np.log(2 * np.pi)
        forward = pytensor.scan(
            lambda now, before, moves: pt.logsumexp(before[:, None] + moves, axis=0) + now,
            sequences=[emitted[1:]],
            outputs_info=[emitted[0]],
            non_sequences=[pt.log(pt.stack([theta1, theta2]))],
            strict=True,
            return_updates=False,
        )
        pm.Potential("y", pt.logsumexp(forward[-1]))
    return model


def lotka_volterra(data: Data) -> pm.Model:
    """Build log-normal counts of prey u and predators v, u' = (t1 - t2 v) u, v' = (t4 u - t3) v."""
    years = int(data["N"])
    with pm.Model() as model:
        rates = pm.TruncatedNormal("rates", 1, 0.5, lower=0, shape=2)
        effects = pm.TruncatedNormal("effects", 0.05, 0.05, lower=0, shape=2)
        theta = pt.stack([rates[0], effects[0], rates[1], effects[1]])
        theta = pm.Deterministic("theta", theta)
        first = pm.LogNormal("z_init", np.log(10), 1, shape=2)
        sigma = pm.LogNormal("sigma", -1, 1, shape=2)
        prey, predators = pytensor.scan(
            runge_kutta_step,
            outputs_info=[first[0], first[1]],
            non_sequences=[theta],
            n_steps=SUBSTEPS * years,
            strict=True,
            return_updates=False,
        )
        each_year = slice(SUBSTEPS - 1, None, SUBSTEPS)
        counts = pt.stack([prey[each_year], predators[each_year]], axis=1)
        pm.LogNormal("y_init", pt.log(first), sigma, observed=data["y_init"])
        pm.LogNormal("y", pt.log(pt.maximum(counts, 1e-30)), sigma, observed=data["y"])
    return model


def runge_kutta_step(
    prey: pt.TensorVariable, predators: pt.TensorVariable, theta: pt.TensorVariable
) -> tuple[pt.TensorVariable, ...]:
    """Take a step of the classical fourth-order method."""
    h = 1 / SUBSTEPS

    def slope(u: pt.TensorVariable, v: pt.TensorVariable) -> tuple[pt.TensorVariable, ...]:
        return (theta[0] - theta[1] * v) * u, (theta[3] * u - theta[2]) * v

    k1 = slope(prey, predators)
    k2 = slope(prey + h / 2 * k1[0], predators + h / 2 * k1[1])
    k3 = slope(prey + h / 2 * k2[0], predators + h / 2 * k2[1])
    k4 = slope(prey + h * k3[0], predators + h * k3[1])
    sums = (a + 2 * b + 2 * c + d for a, b, c, d in zip(k1, k2, k3, k4, strict=True))
    return tuple(z + h / 6 * s for z, s in zip((prey, predators), sums, strict=True))
