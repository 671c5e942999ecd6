# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""What tests of guided fits share: small models, and approximations whose parameters are set by hand."""

from __future__ import annotations

from typing import Any

import numpy as np

import pymc as pm

from pymc.variational.approximation import guided_approximation

X = np.array([-1.0, 0.0, 2.0, 0.5, 0.3, -0.7])
NAMES = list("abcdef")


def local_model(x: np.ndarray = X, batch_size: int | None = 2) -> pm.Model:
    """z_i ~ N(0, 1), x_i ~ N(z_i, 1): given x, z_i is N(x_i / 2, 1 / 2), and x_i is N(0, 2)."""
    with pm.Model(coords={"obs": NAMES[: len(x)]}) as model:
        data = pm.Data("data", x, dims="obs")
        seen = data if batch_size is None else pm.Minibatch(data, batch_size=batch_size)
        z = pm.Normal("z", 0, 1, dims="obs")
        pm.Normal("x", z, 1, observed=seen, dims="obs")
    return model


def exact(model: pm.Model, x: np.ndarray = X) -> Any:
    """The posterior of `local_model`, as an approximation of it."""
    return guided_approximation(model, start={"z": x / 2}, start_sigma={"z": 0.5**0.5})


def crossed_model() -> pm.Model:
    """Rows along two dims, a variable on each of them and one on both, and deterministics of all kinds."""
    with pm.Model(coords={"user": range(4), "obs": NAMES, "k": range(3)}) as model:
        data = pm.Data("data", np.arange(24.0).reshape(4, 6), dims=("user", "obs"))
        batch = pm.Minibatch(data, batch_size={"user": 2, "obs": 3})
        mu = pm.Normal("mu")
        scale = pm.HalfNormal("scale", dims="k")
        u = pm.Normal("u", mu, 1, dims="user")
        v = pm.HalfNormal("v", 1, dims=("k", "obs"))
        z = pm.Normal("z", u[:, None] + v.sum(0), scale.sum(), dims=("user", "obs"))
        pm.Deterministic("both", z + u[:, None] + v[0] + mu, dims=("user", "obs"))
        pm.Deterministic("square", mu**2)
        pm.Deterministic("mean", z.mean())
        pm.Deterministic("twice", 2 * batch, dims=("user", "obs"))
        pm.Normal("x", z, 1, observed=batch, dims=("user", "obs"))
    return model


def set_rows(approx: Any, name: str, means: np.ndarray, rho: float = -40.0) -> None:
    """Set the means of a local variable with a table of its own, and all its standard deviations."""
    [guide] = [guide for guide in approx.guides if guide.sites[0].name == name]
    table = approx.storage.tables[guide.plate]
    flat = np.concatenate([means, np.full_like(means, rho)], axis=1)
    table.shared.get_value(borrow=True)[:, : table.n_params] = flat
