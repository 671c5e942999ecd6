# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Arrow-shaped normal distributions, against dense ones and posteriors that are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytensor.tensor as pt
import pytest

import pymc as pm

from pymc.variational.auto import AutoInference, inference
from pymc.variational.auto.arrowhead import Arrow, Blocks, find_blocks
from pymc.variational.auto.natural_gradient import climb
from pymc.variational.auto.normal import Dense, triangular
from tests.variational.auto.problems import log_posterior
from tests.variational.engine import PYTHON

N_GROUPS = 25


def groups() -> pm.Model:
    """y ~ N(a + b x, 1) in each group, (a, b) ~ N(mu, 0.5): a normal posterior of two globals and 25 pairs."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(N_GROUPS, 4))
    y = rng.normal(1 + 2 * x, 1.2)
    with pm.Model() as model:
        mu = pm.Normal("mu", 0, 3, shape=2)
        a = pm.Normal("a", mu[0], 0.5, shape=N_GROUPS)
        b = pm.Normal("b", mu[1], 0.5, shape=N_GROUPS)
        pm.Normal("y", a[:, None] + b[:, None] * x, 1, observed=y)
    return model


def an_arrow(seed: int = 1) -> Arrow:
    rng = np.random.default_rng(seed)
    places = rng.permutation(2 + 3 * 2)
    blocks = Blocks(np.sort(places[:2]), places[2:].reshape(3, 2))
    shared = np.tril(rng.normal(size=(2, 2)), -1) + np.diag([1.0, 2.0])
    within = np.tril(rng.normal(size=(3, 2, 2)), -1) + np.eye(2) * 0.5
    return Arrow(rng.normal(size=8), blocks, shared, rng.normal(size=(3, 2, 2)), within)


def dense(arrow: Arrow) -> Dense:
    root = arrow.away(np.eye(arrow.size)).T
    return Dense(arrow.mean, triangular(root))


def test_it_is_a_normal_distribution() -> None:
    """Everything that a fit asks of it is as of a dense one with the same covariance."""
    arrow, rng = an_arrow(), np.random.default_rng(2)
    same = dense(arrow)
    points = rng.normal(size=(5, 8))
    np.testing.assert_allclose(arrow.sd, same.sd)
    np.testing.assert_allclose(arrow.log_scale, same.log_scale)
    np.testing.assert_allclose(arrow.points(arrow.whitened(points)), points)
    squares = [(normal.whitened(points) ** 2).sum(axis=1) for normal in (arrow, same)]
    np.testing.assert_allclose(*squares)
    np.testing.assert_allclose(
        arrow.restoring(arrow.whitened(points)), same.restoring(same.whitened(points))
    )
    gradients = rng.normal(size=(5, 8))
    root = arrow.away(np.eye(8)).T
    np.testing.assert_allclose(arrow.whitened_gradients(gradients), gradients @ root)


def test_its_noise_is_matched() -> None:
    arrow = an_arrow()
    noise = arrow.noise(arrow.n_draws, np.random.default_rng(1))
    np.testing.assert_allclose(noise.mean(axis=0), 0, atol=1e-12)
    for members in arrow.blocks.members:
        some = noise[:, np.concatenate([arrow.blocks.shared, members])]
        np.testing.assert_allclose(some.T @ some / len(some), np.eye(4), atol=1e-10)


def test_a_step_ends_at_an_arrow() -> None:
    """From one arrow to another in a step, by as many draws as four numbers need."""
    here, there = an_arrow(1), an_arrow(1)
    rng = np.random.default_rng(3)
    target = dense(
        Arrow(there.mean + 1, there.blocks, 2 * there.shared, 0.3 * there.across, there.within)
    )
    noise = here.noise(40, rng)
    away = (here.points(noise) - target.mean).T
    gradients = -np.linalg.solve(target.factor @ target.factor.T, away).T
    for _ in range(30):
        slope = here.slope(noise, gradients)
        here = here.moved(slope, 1.0)
        gradients = -np.linalg.solve(
            target.factor @ target.factor.T, (here.points(noise) - target.mean).T
        ).T
    covariance = dense(here).factor @ dense(here).factor.T
    np.testing.assert_allclose(here.mean, target.mean, atol=0.02 * target.sd.max())
    np.testing.assert_allclose(np.diag(covariance) ** 0.5 / target.sd, 1, atol=0.1)


def test_moments_of_draws() -> None:
    arrow, rng = an_arrow(), np.random.default_rng(1)
    points = arrow.points(rng.normal(size=(20_000, 8)))
    found = arrow.of_draws(points, np.full(len(points), 1 / len(points)))
    np.testing.assert_allclose(found.mean, arrow.mean, atol=0.05 * arrow.sd.max())
    np.testing.assert_allclose(found.sd / arrow.sd, 1, atol=0.03)


def test_groups_are_found() -> None:
    logp = log_posterior(groups())
    blocks = find_blocks(logp, np.random.default_rng(1))
    assert blocks is not None
    assert blocks.shared.tolist() == [0, 1]
    assert sorted(blocks.members[3]) == [2 + 3, 2 + N_GROUPS + 3]


@pytest.mark.parametrize("coupling", ["walk", "sum", "covariance"])
def test_groups_that_depend_on_each_other(coupling: str) -> None:
    with pm.Model() as model:
        if coupling == "walk":
            pm.GaussianRandomWalk("z", sigma=1.0, init_dist=pm.Normal.dist(), steps=30)
        elif coupling == "sum":
            z = pm.Normal("z", shape=30)
            pm.Normal("y", z.sum(), 1, observed=0.3)
        else:
            pm.MvNormal("z", np.zeros(30), np.eye(30) + 0.5)
    assert find_blocks(log_posterior(model), np.random.default_rng(1)) is None


@pytest.mark.parametrize(("size", "i", "j"), [(2, 0, 1), (3, 0, 2), (30, 4, 7), (30, 28, 29)])
def test_two_groups_that_depend_on_each_other(size: int, i: int, j: int) -> None:
    """However few they are among the others, and however small the scale of their gradient."""
    with pm.Model() as model:
        z = pm.Normal("z", shape=size)
        pm.Normal("large", 0, 1e-6)
        pm.Normal("y", z[i] * z[j], 1, observed=0.3)
    logp = log_posterior(model)
    assert all(find_blocks(logp, np.random.default_rng(seed)) is None for seed in range(10))


@pytest.mark.parametrize(("size", "largest"), [(30, 1000), (30, 20)])
def test_groups_that_seem_independent_far_from_the_posterior(
    size: int, largest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the start the gradient is 3e12, whose rounding hides what neighbours of a walk add to it."""
    monkeypatch.setattr(inference, "GROUPS_FROM", 10)
    monkeypatch.setattr(inference, "LARGEST", largest)
    rng = np.random.default_rng(1)
    y = 1e6 + np.cumsum(rng.normal(size=size))[:, None] + rng.normal(size=(size, 3))
    with pm.Model() as model:
        z = pm.Flat("z", shape=size)
        pm.Potential("walk", -0.5 * ((z[1:] - z[:-1]) ** 2).sum())
        pm.Normal("y", z[:, None], 1e-3 + pm.math.exp(pm.Flat("log_sd")), observed=y)
    made = AutoInference(model, random_seed=1)
    if largest < size:
        with pytest.raises(ValueError, match="no groups that are independent"):
            made.fit(progressbar=False)
        return
    approx = made.fit(progressbar=False)
    assert approx.report.trusted and isinstance(made._family, Dense)


def test_a_fit_of_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same as of a full covariance, from a fifth of the draws; the normal is saved, and has a density."""
    model, rng = groups(), np.random.default_rng(1)
    logp = log_posterior(model)
    full = Dense.of_size(logp.size).around(logp.start, 1e-3)
    right = climb(logp, full, full.n_draws, rng).normal
    monkeypatch.setattr(inference, "GROUPS_FROM", 10)
    monkeypatch.setattr(inference, "N_KEPT", 200)
    made = AutoInference(model, random_seed=1)
    approx = made.fit(compile_kwargs={"mode": PYTHON}, progressbar=False)
    assert approx.report.settings["guide"] == "arrow"
    assert approx.report.trusted
    np.testing.assert_allclose((approx.normal.mean.eval() - right.mean) / right.sd, 0, atol=0.02)
    np.testing.assert_allclose(approx.normal.std.eval() / right.sd, 1, atol=0.02)
    draws = approx.sample(2000, correct=False, random_seed=1).posterior
    np.testing.assert_allclose(draws["a"].values[0].std(axis=0) / right.sd[2:27], 1, atol=0.08)


def test_its_guide(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It has the density, and is saved."""
    monkeypatch.setattr(inference, "GROUPS_FROM", 10)
    monkeypatch.setattr(inference, "N_KEPT", 200)
    made = AutoInference(groups(), random_seed=1)
    approx = made.fit(compile_kwargs={"mode": PYTHON}, progressbar=False)
    [guide] = approx.normal.guides
    normal = made._now.normal  # type: ignore[union-attr]
    points = normal.points(np.random.default_rng(1).normal(size=(3, normal.size)))
    params = {name: approx.normal.storage.dense[key] for name, key in guide.params_by_name.items()}
    found = guide.log_density(pt.as_tensor(points), params).eval(mode=PYTHON)
    squares = (normal.whitened(points) ** 2).sum(axis=1)
    constant = normal.log_scale + normal.size * 0.5 * np.log(2 * np.pi)
    np.testing.assert_allclose(found, -0.5 * squares - constant, rtol=1e-6)
    loaded = pm.load_approximation(approx.save(tmp_path / "fit"), model=approx.model)
    np.testing.assert_array_equal(loaded.normal.std.eval(), approx.normal.std.eval())


def test_a_model_that_is_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference, "LARGEST", 20)
    monkeypatch.setattr(inference, "GROUPS_FROM", 10)
    with pm.Model() as model:
        z = pm.Normal("z", shape=30)
        pm.Normal("y", z.sum(), 1, observed=0.3)
    with pytest.raises(ValueError, match="finds no groups that are independent"):
        pm.fit(method="auto", model=model, compile_kwargs={"mode": PYTHON}, progressbar=False)


def test_latent_variables_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """z ~ N(mu, sqrt 5), y ~ N(z, sqrt 5) for 120 rows of minibatches: the sd of mu is 1 / sqrt(1 + 12)."""
    monkeypatch.setattr(inference, "N_KEPT", 400)
    y = np.random.default_rng(1).normal(1.0, 3.0, size=120)
    with pm.Model(coords={"obs": range(120)}) as model:
        batch = pm.Minibatch(pm.Data("data", y, dims="obs"), batch_size=10)
        mu = pm.Normal("mu")
        z = pm.Normal("z", mu, np.sqrt(5.0), dims="obs")
        pm.Normal("y", z, np.sqrt(5.0), observed=batch, dims="obs")
    approx = pm.fit(
        method="auto",
        model=model,
        random_seed=1,
        compile_kwargs={"mode": PYTHON},
        progressbar=False,
    )
    assert approx.report.settings["guide"] == "arrow"
    assert approx.report.trusted
    draws = approx.sample(4000, correct=False, random_seed=1).posterior["mu"].values
    np.testing.assert_allclose(draws.std(), 13**-0.5, rtol=0.05)
    np.testing.assert_allclose(draws.mean(), 12 * y.mean() / 13, atol=4 * 13**-0.5 / 4000**0.5)
    assert approx.sample(5).posterior["z"].shape == (1, 5, 120)
