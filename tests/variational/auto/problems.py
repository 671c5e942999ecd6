# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Models with known posteriors, for the tests of automatic fits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytensor.tensor as pt

import pymc as pm

from pymc.variational.auto.log_posterior import LogPosterior
from pymc.variational.guides.initial_values import InitialValues
from tests.variational.engine import PYTHON


def log_posterior(model: pm.Model, **options: Any) -> LogPosterior:
    return LogPosterior.of(model, InitialValues.from_model(model), **{"mode": PYTHON} | options)


class Regression:
    """y ~ N(X b, 2) with flat priors, on predictors whose scales differ by four decades."""

    def __init__(self, n_rows: int = 60) -> None:
        rng = np.random.default_rng(2)
        scales = np.array([1.0, 0.01, 100.0])
        self.X = np.column_stack([np.ones(n_rows), rng.normal(3, 1, size=(n_rows, 2))]) * scales
        self.y = self.X @ [1.0, 50.0, -0.02] + rng.normal(0, 2, size=n_rows)
        precision = self.X.T @ self.X / 4
        self.cov = np.linalg.inv(precision)
        self.mean = self.cov @ self.X.T @ self.y / 4
        self.sd = np.sqrt(np.diag(self.cov))

    def model(self, batch_size: int | None = None) -> pm.Model:
        X, y = self.X, self.y
        with pm.Model() as model:
            if batch_size is not None:
                X, y = pm.Minibatch(X, y, batch_size=batch_size)
            b = pm.Flat("b", shape=3)
            pm.Normal("y", pt.dot(X, b), 2, observed=y)
        return model


def labels() -> pm.Model:
    """A mixture of two normals whose labels can be exchanged."""
    y = np.concatenate([np.linspace(-4, -2, 30), np.linspace(2, 4, 30)])
    with pm.Model() as model:
        mu = pm.Normal("mu", 0, 5, shape=2, initval=[-1.0, 1.0])
        pm.NormalMixture("y", np.ones(2) / 2, mu, sigma=1.0, observed=y)
    return model


def funnel() -> pm.Model:
    with pm.Model() as model:
        v = pm.Normal("v", 0, 3)
        pm.Normal("x", 0, pt.exp(v / 2), shape=3)
    return model


def gamma() -> pm.Model:
    """A gamma distribution, whose logarithm is skewed: mean 1.5, sd 0.87, normalised."""
    with pm.Model() as model:
        pm.Gamma("g", 3, 2)
    return model


def spike_and_slab(size: int = 3) -> pm.Model:
    """Half of the mass is within sds of 0.01, and the other half within sds of 1, around the same mean."""
    with pm.Model() as model:
        x = pm.Normal("x", 0, 1, shape=size)
        spike = size * np.log(100) - 0.5 * (1e4 - 1) * (x**2).sum()
        pm.Potential("spike", pt.logaddexp(spike, 0.0))
    return model


def cauchy_among(size: int) -> pm.Model:
    """Normal variables, and one that has no variance."""
    with pm.Model() as model:
        pm.Normal("z", shape=size)
        pm.Cauchy("x", 0, 1)
    return model
