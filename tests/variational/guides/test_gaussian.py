# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Draws and densities of normal guides: against SciPy, in Python mode."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytensor
import pytest

from pytensor.compile.mode import Mode
from scipy.stats import multivariate_normal

import pymc as pm

from pymc.variational.approximation import guided_approximation
from pymc.variational.guides.base import Guide, detach

PLAIN = Mode(linker="py", optimizer=None)
N_ROWS, BATCH = 7, 3


@pytest.fixture(scope="module")
def model() -> pm.Model:
    """Two globals, one of two axes, and two locals, one of them transformed."""
    with pm.Model(coords={"obs": range(N_ROWS), "k": range(2)}) as model:
        batch = pm.Minibatch(pm.Data("data", np.arange(7.0), dims="obs"), batch_size=BATCH)
        w = pm.Normal("w", shape=(2, 2))
        s = pm.HalfNormal("s")
        z = pm.Normal("z", w.sum(), 1, dims=("k", "obs"))
        u = pm.Gamma("u", 2, 1, dims="obs")
        pm.Normal("x", z.sum(0) + u, s, observed=batch, dims="obs")
    return model


def with_random_parameters(model: pm.Model, guide: Any) -> Any:
    """An approximation, and variables that stand for its parameters in a batch."""
    approx, rng = guided_approximation(model, guide), np.random.default_rng(3)
    for var in approx.storage.dense.values():
        var.set_value(rng.normal(size=var.get_value().shape))
    for table in approx.storage.tables.values():
        values = rng.normal(size=(N_ROWS, table.n_params))
        table.shared.get_value(borrow=True)[:, : table.n_params] = values
    gathered = {plate: table.gather()[1] for plate, table in approx.storage.tables.items()}
    return approx.guides, approx.storage.param_values(gathered)


def normal_of(guide: Guide, params: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance that the parameters of a guide say, computed by NumPy."""
    kind, d = type(guide).__name__, len(params[0])
    if kind == "FullRankGuide":
        factor = np.zeros((d, d))
        factor[np.tril_indices(d)] = params[1]
        np.fill_diagonal(factor, np.log1p(np.exp(np.diag(factor))))
        return params[0], factor @ factor.T
    diagonal = np.diag(np.log1p(np.exp(params[1])) ** 2)
    return params[0], diagonal + (params[2] @ params[2].T if kind == "LowRank" else 0)


@pytest.mark.parametrize("lead", [(), (4,), (2, 3)], ids=str)
@pytest.mark.parametrize(
    "guide",
    [None, {("w", "s"): "full_rank"}, {("z", "u"): "row_full_rank", None: "low_rank"}],
    ids=["mean_field", "full_rank", "within_rows_and_low_rank"],
)
def test_density_moments_and_shapes(model: pm.Model, guide: Any, lead: tuple[int, ...]) -> None:
    guides, param_values = with_random_parameters(model, guide)
    for one in guides:
        block = one.draw(param_values, lead, {})
        logq = one.logq(block, param_values, len(lead), {})
        values = one.values(block, len(lead))
        rest = [param_values[p] for p in one.parameters]
        outputs = [block[0], logq, *one.moments(param_values), *values.values(), *rest]
        flat, density, mean, sd, *found = pm.compile([], outputs, mode=PLAIN)()
        params = found[len(values) :]
        is_local = bool(one.sites[0].plate)
        by_row = [[p[i] for p in params] for i in range(BATCH)] if is_local else [params]
        normals = [normal_of(one, p) for p in by_row]
        draws = [flat[..., i, :] for i in range(BATCH)] if is_local else [flat]
        expected = [multivariate_normal(*n).logpdf(x) for n, x in zip(normals, draws)]
        np.testing.assert_allclose(density, np.stack(expected, -1) if is_local else expected[0])
        np.testing.assert_allclose(np.atleast_2d(mean), [m for m, _ in normals])
        np.testing.assert_allclose(np.atleast_2d(sd), [np.sqrt(np.diag(c)) for _, c in normals])
        for site, value in zip(values, found):
            axes = {"w": (2, 2), "s": (), "z": (2, BATCH), "u": (BATCH,)}[site.name]
            assert value.shape == (*lead, *axes)


def test_values_are_the_entries_of_their_row(model: pm.Model) -> None:
    """A variable whose rows are its second axis gets them there."""
    guides, param_values = with_random_parameters(model, None)
    local = next(guide for guide in guides if guide.plate)
    block = local.draw(param_values, (2,), {})
    z, u = sorted(local.values(block, 1).items(), key=lambda item: item[0].name)[::-1]
    flat, z_value, u_value = pm.compile([], [block[0], z[1], u[1]], mode=PLAIN)()
    np.testing.assert_array_equal(z_value, np.moveaxis(flat[..., :2], -1, 1))
    np.testing.assert_array_equal(u_value, flat[..., 2])


@pytest.mark.parametrize("guide", ["mean_field", "full_rank", "low_rank"])
def test_draws_have_the_moments(guide: str) -> None:
    """The mean and the covariance of 40,000 draws, within 5 standard errors of 6 + 3 numbers."""
    with pm.Model() as model:
        pm.Normal("w", shape=3)
    (one,), param_values = with_random_parameters(model, guide)
    block = one.draw(param_values, (40_000,), {})
    params = [param_values[p] for p in one.parameters]
    draws, *values = pm.compile([], [block[0], *params], mode=PLAIN, random_seed=1)()
    mean, cov = normal_of(one, values)
    sd = np.sqrt(np.diag(cov))
    assert (abs(draws.mean(0) - mean) < 5 * sd / 200).all()
    error = np.sqrt((cov**2 + np.outer(sd, sd) ** 2) / 40_000)  # of a product of two normals
    assert (abs(np.cov(draws.T) - cov) < 5 * error).all()


@pytest.mark.parametrize("guide", ["mean_field", "full_rank", "low_rank"])
def test_held_parameters_have_no_gradient(guide: str) -> None:
    with pm.Model() as model:
        pm.Normal("w", shape=3)
    (one,), param_values = with_random_parameters(model, guide)
    block = (pytensor.shared(np.ones(3)),)
    params = list(param_values.values())
    free, stuck = (one.logq(block, h, 0, {}) for h in (param_values, detach(param_values)))
    assert all(abs(g).max() > 0 for g in pm.compile([], pytensor.grad(free, params), mode=PLAIN)())
    gradients = pytensor.grad(stuck, params, disconnected_inputs="ignore")
    assert all(abs(g).max() == 0 for g in pm.compile([], gradients, mode=PLAIN)())


@pytest.mark.parametrize(
    ("guide", "message"),
    [
        ("full_rank", "full_rank.*couples the rows of 'z', 'u'.*'obs'.*batch normalisation"),
        ("low_rank", "low_rank.*couples the rows"),
        ({"z": "fr"}, "full_rank.*couples the rows of 'z'.*row_full_rank"),
        ({"w": "row_full_rank"}, "a guide of each row .*'w' has none"),
        ({"zz": "mf"}, "has 'zz', but the model's free variables are 'w', 's', 'z', 'u'"),
        ({"z": "mf", ("z", "u"): "mf"}, "has 'z' twice"),
        ({"z": "meanfield"}, "'meanfield' of pm.fit is none of 'mean_field'"),
    ],
    ids=str,
)
def test_refused(model: pm.Model, guide: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        guided_approximation(model, guide)


def test_discrete() -> None:
    with pm.Model() as model:
        pm.Poisson("n", 3)
    with pytest.raises(ValueError, match=r"'n' is discrete\. Sum it out"):
        guided_approximation(model)


def test_no_guide(model: pm.Model) -> None:
    with pytest.raises(TypeError, match=r"guide 3 of pm.fit, of type int, is no guide"):
        guided_approximation(model, 3)


def test_variables_and_the_rest_as_keys(model: pm.Model) -> None:
    approx = guided_approximation(model, {(model["w"], "s"): pm.LowRank(2), None: "mf"})
    kinds = {site.name: type(g).__name__ for g in approx.guides for site in g.sites}
    assert kinds == {
        "w": "LowRank",
        "s": "LowRank",
        "z": "MeanFieldGuide",
        "u": "MeanFieldGuide",
    }


@pytest.mark.parametrize(
    ("rank", "error", "message"),
    [
        (0, ValueError, "rank=0 of pm.LowRank"),
        (1.5, TypeError, "got a float"),
        (True, TypeError, "got a bool"),
    ],
)
def test_rank(rank: Any, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        pm.LowRank(rank)


def test_starts() -> None:
    with pm.Model() as model:
        pm.Normal("w", shape=2)
        pm.HalfNormal("s")
    approx = guided_approximation(model, start={"w": 2.0, "s": 3.0}, start_sigma={"w": 0.5})
    values = {p.name: v.get_value() for p, v in approx.storage.dense.items()}
    np.testing.assert_allclose(values["globals_mu"], [2, 2, np.log(3)])
    np.testing.assert_allclose(np.log1p(np.exp(values["globals_rho"])), [0.5, 0.5, np.log(2)])
    with pytest.raises(ValueError, match=r"start of pm.fit has 'v'.*free variables are"):
        guided_approximation(model, start={"v": 1.0})
