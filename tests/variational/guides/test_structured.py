# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""The structured guide: rows whose means are affine in global variables."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.stats as st

import pymc as pm

from pymc.variational.approximation import guided_approximation
from pymc.variational.objectives.base import Setting, draw_all, log_weights
from tests.variational.guides.amortized_models import PLAIN

N, B = 6, 4
Y = np.random.default_rng(1).normal(1, 3, size=N)


def hierarchy() -> pm.Model:
    with pm.Model(coords={"obs": range(N), "k": range(2)}) as model:
        batch = pm.Minibatch(pm.Data("data", Y, dims="obs"), batch_size=B)
        mu = pm.Normal("mu")
        sd = pm.HalfNormal("sd", dims="k")
        u = pm.Normal("u", mu, 1, dims=("obs", "k"))
        z = pm.Normal("z", mu, sd.sum(), dims="obs")
        pm.Normal("y", z + u.sum(-1), 1, observed=batch, dims="obs")
    return model


def set_rows(approx: Any, **values: Any) -> None:
    """Return parameters of the rows of `z` values, by their names."""
    [guide] = [g for g in approx.guides if g.name == "structured"]
    [table] = approx.storage.tables.values()
    held = table.shared.get_value(borrow=True)
    for parameter in guide.parameters:
        name = parameter.name.removeprefix("obs_")
        held[:, approx.storage.columns[parameter]] = values[name]


def test_density_and_mean_follow_the_globals() -> None:
    """z_i ~ N(m_i + a_i mu + b_i (log sd - log start), softplus(rho_i)), u likewise, of each draw."""
    model = hierarchy()
    guide = {("z", "u"): pm.Structured([model["mu"], "sd"]), None: "mean_field"}
    approx = guided_approximation(model, guide, start={"sd": 2.0})
    of_globals, of_rows = approx.guides
    rng = np.random.default_rng(2)
    mu, rho, slopes = (rng.normal(size=(N, n)) for n in (3, 3, 9))
    set_rows(approx, mu=mu, rho=rho, slopes=slopes)
    [(plate, table)] = approx.storage.tables.items()
    param_values = approx.storage.param_values({plate: table.gather()[1]})
    setting = Setting(model, approx.terms, approx.guides, param_values, (), n_outer=5)
    draws = draw_all(setting)
    logq = of_rows.logq(draws.latents[of_rows], param_values, 1, draws.parents)
    values = of_rows.values(draws.latents[of_rows], 1)
    by_name = {site.name: value for site, value in values.items()}
    order = [site.name for site in of_rows.sites]
    with pm.minibatch_logp():
        g, rows, q, *z = pm.compile(
            [],
            [
                draws.latents[of_globals][0],
                plate[0].index,
                logq,
                *(by_name[name] for name in order),
            ],
            mode=PLAIN,
            random_seed=1,
        )()
    away = g - np.array([0.0, np.log(2), np.log(2)])
    mean = mu[rows] + np.einsum("rkg,dg->drk", slopes.reshape(N, 3, 3)[rows], away)
    flat = np.concatenate([x.reshape(5, B, -1) for x in z], axis=-1)
    exact = st.norm.logpdf(flat, mean, np.logaddexp(0, rho[rows])).sum(-1)
    np.testing.assert_allclose(q, exact, rtol=1e-8)
    assert abs((flat - mean) / np.logaddexp(0, rho[rows])).max() < 5


def test_exact_parameters_have_one_weight() -> None:
    """z | mu, y ~ N((y + mu) / 2, 1 / 2): log p - log q is log p(y) at every draw."""
    with pm.Model(coords={"obs": range(N)}) as model:
        batch = pm.Minibatch(pm.Data("data", Y, dims="obs"), batch_size=N)
        mu = pm.Normal("mu")
        z = pm.Normal("z", mu, 1, dims="obs")
        pm.Normal("y", z, 1, observed=batch, dims="obs")
    of_mu = {"start": {"mu": Y.sum() / 2 / (1 + N / 2)}, "start_sigma": {"mu": (1 + N / 2) ** -0.5}}
    approx = guided_approximation(model, {z: pm.Structured(), mu: "mean_field"}, **of_mu)
    set_rows(
        approx,
        mu=(Y[:, None] + of_mu["start"]["mu"]) / 2,
        rho=np.log(np.expm1(0.5**0.5)),
        slopes=0.5,
    )
    [(plate, table)] = approx.storage.tables.items()
    param_values = approx.storage.param_values({plate: table.gather()[1]})
    setting = Setting(model, approx.terms, approx.guides, param_values, (), n_outer=5)
    found = log_weights(setting, draw_all(setting))
    with pm.minibatch_logp():
        weight = pm.compile([], found.global_ + found.rows[plate].sum(-1), mode=PLAIN)()
    exact = st.multivariate_normal.logpdf(Y, np.zeros(N), 2 * np.eye(N) + 1)
    np.testing.assert_allclose(weight, np.full(5, exact), rtol=1e-8)


@pytest.mark.parametrize("given", [["z"], ["c"], ["other"]], ids=str)
def test_only_continuous_globals_are_given(given: list[str]) -> None:
    with pm.Model(coords={"obs": range(N)}) as model:
        batch = pm.Minibatch(pm.Data("data", Y, dims="obs"), batch_size=B)
        c = pm.Bernoulli("c", 0.5)
        z = pm.Normal("z", pm.Normal("mu"), 1, dims="obs")
        pm.Normal("y", z + c, 1, observed=batch, dims="obs")
    with pytest.raises(ValueError, match=r"of pm.Structured has to name .* which are \['mu'\]"):
        guided_approximation(model, {z: pm.Structured(given)})


def test_globals_alone_have_no_rows() -> None:
    with pm.Model() as model:
        pm.Normal("y", pm.Normal("mu"), 1, observed=1.0)
    with pytest.raises(ValueError, match=r"'structured' is a guide of each row"):
        guided_approximation(model, pm.Structured())
    with pytest.raises(TypeError, match=r"given='mu' of pm.Structured .* write given=\['mu'\]"):
        pm.Structured("mu")
    assert pm.Structured([model["mu"]]).config() == {"given": ["mu"]}
