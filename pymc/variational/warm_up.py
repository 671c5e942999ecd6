# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Compile what most fits need, before the first one: ``python -m pymc.variational.warm_up``.

It fits three small models for a few steps. The functions that other models share with them, such as draws of
a normal distribution, of the rows of a minibatch, and the updates of Adam, are then in PyTensor's cache on
disk, and the first fit of a model compiles less. The cache is that of this user, CPU and version of Numba.
"""

# mypy: disable-error-code="attr-defined,name-defined"
# since it does not see the names of the release in `pm`

from __future__ import annotations

import logging
import time

from collections.abc import Callable

import numpy as np

import pymc as pm

__all__ = ["MODELS", "warm_up"]


def hierarchical() -> pm.Model:
    """Return the model of eight schools, without centres."""
    effects = np.array([28.0, 8, -3, 7, -1, 1, 18, 12])
    errors = np.array([15.0, 10, 16, 11, 9, 11, 10, 18])
    with pm.Model() as model:
        mu = pm.Normal("mu", 0, 5)
        tau = pm.HalfCauchy("tau", 5)
        z = pm.Normal("z", 0, 1, shape=8)
        pm.Normal("y", mu + tau * z, errors, observed=effects)
    return model


def logistic_regression() -> pm.Model:
    """Return a logistic regression on minibatches."""
    rng = np.random.default_rng(1)
    with pm.Model() as model:
        X, y = pm.Minibatch(
            pm.Data("X", rng.normal(size=(40, 3)), dims=("obs", "feature")),
            pm.Data("y", rng.integers(0, 2, size=40), dims="obs"),
            batch_size=10,
        )
        intercept = pm.Normal("intercept", 0, 5)
        slopes = pm.Normal("slopes", 0, 1, dims="feature")
        pm.Bernoulli("clicks", logit_p=intercept + X @ slopes, observed=y, dims="obs")
    return model


def group_effects() -> pm.Model:
    """Return a normal model with an effect of each group, on minibatches."""
    rng = np.random.default_rng(1)
    with pm.Model(coords={"group": range(5)}) as model:
        group, y = pm.Minibatch(
            pm.Data("group_of_row", rng.integers(0, 5, size=40), dims="obs"),
            pm.Data("y", rng.normal(size=40), dims="obs"),
            batch_size=10,
        )
        mu = pm.Normal("mu", 0, 1)
        scale = pm.HalfNormal("scale", 1)
        effect = pm.Normal("effect", 0, scale, dims="group")
        noise = pm.HalfNormal("noise", 1)
        pm.Normal("rows", mu + effect[group], noise, observed=y, dims="obs")
    return model


#: Functions that return the models that are fitted.
MODELS: tuple[Callable[[], pm.Model], ...] = (hierarchical, logistic_regression, group_effects)


def warm_up() -> None:
    """Fit the models for a few steps, and say how long each took.

    Examples
    --------
    >>> from pymc.variational.warm_up import warm_up
    >>> warm_up()  # doctest: +SKIP
    """
    logging.getLogger("pymc").setLevel(logging.WARNING)
    for build in MODELS:
        start = time.perf_counter()
        optimizer = pm.adam(learning_rate=0.01)
        pm.fit(5, model=build(), obj_optimizer=optimizer, random_seed=1, progressbar=False)
        name = build.__name__.replace("_", " ")
        print(f"{name}: compiled in {time.perf_counter() - start:.1f} s", flush=True)  # noqa: T201


if __name__ == "__main__":
    warm_up()
