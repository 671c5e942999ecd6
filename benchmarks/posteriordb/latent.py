# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Models with latent variables: a hierarchy in two forms, Gaussian processes, and a mixture."""

import numpy as np
import pytensor.tensor as pt

import pymc as pm

from posteriordb.data import Data


def eight_schools_centered(data: Data) -> pm.Model:
    """Build y_j ~ N(theta_j, sigma_j), theta_j ~ N(mu, tau), mu ~ N(0, 5), tau ~ Cauchy(0, 5) above 0."""
    with pm.Model() as model:
        mu, tau = pm.Normal("mu", 0, 5), pm.HalfCauchy("tau", 5)
        theta = pm.Normal("theta", mu, tau, shape=len(data["y"]))
        pm.Normal("y", theta, data["sigma"], observed=data["y"])
    return model


def eight_schools_noncentered(data: Data) -> pm.Model:
    """Build the same posterior with theta_j = mu + tau z_j, z_j ~ N(0, 1)."""
    with pm.Model() as model:
        z = pm.Normal("z", 0, 1, shape=len(data["y"]))
        mu, tau = pm.Normal("mu", 0, 5), pm.HalfCauchy("tau", 5)
        theta = pm.Deterministic("theta", mu + tau * z)
        pm.Normal("y", theta, data["sigma"], observed=data["y"])
    return model


def kernel(
    x: np.ndarray, alpha: pt.TensorVariable, rho: pt.TensorVariable, diagonal: float
) -> pt.TensorVariable:
    """Return alpha² exp(-(x_i - x_j)² / (2 rho²)), and something more on the diagonal."""
    squared = (x[:, None] - x[None, :]) ** 2
    return alpha**2 * pt.exp(-0.5 * squared / rho**2) + diagonal * np.eye(len(x))


def gp_poisson(data: Data) -> pm.Model:
    """Build k_i ~ Poisson(exp(f_i)), where f is a Gaussian process by its Cholesky factor, f = L f_tilde."""
    x = data["x"]
    with pm.Model() as model:
        rho, alpha = pm.Gamma("rho", 25, 4), pm.HalfNormal("alpha", 2)
        f_tilde = pm.Normal("f_tilde", 0, 1, shape=len(x))
        f = pm.Deterministic(
            "f", pt.linalg.cholesky(kernel(x, alpha, rho, diagonal=1e-10)) @ f_tilde
        )
        pm.Poisson("k", pt.exp(f), observed=data["k"].astype("int64"))
    return model


def gp_regression(data: Data) -> pm.Model:
    """Build y ~ N(0, K + sigma I), with K of a Gaussian process."""
    x = data["x"]
    with pm.Model() as model:
        rho, alpha, sigma = (
            pm.Gamma("rho", 25, 4),
            pm.HalfNormal("alpha", 2),
            pm.HalfNormal("sigma", 1),
        )
        covariance = kernel(x, alpha, rho, diagonal=0) + sigma * pt.eye(len(x))
        factor = pt.linalg.cholesky(covariance)
        pm.MvNormal("y", np.zeros(len(x)), chol=factor, observed=data["y"])
    return model


def gauss_mixture(data: Data) -> pm.Model:
    """Build y_i ~ theta N(mu_1, sigma_1) + (1 - theta) N(mu_2, sigma_2), with mu_1 < mu_2."""
    y = pt.as_tensor(data["y"])
    ordered = pm.distributions.transforms.ordered
    with pm.Model() as model:
        mu = pm.Normal("mu", 0, 2, shape=2, transform=ordered, initval=[-1.0, 1.0])
        sigma, theta = pm.HalfNormal("sigma", 2, shape=2), pm.Beta("theta", 5, 5)
        first, second = (pm.logp(pm.Normal.dist(mu[k], sigma[k]), y) for k in range(2))
        mixed = pt.logaddexp(first + pt.log(theta), second + pt.log1p(-theta))
        pm.Potential("y", mixed.sum())
    return model
