# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Guided fits of models of `pymc.dims`: as the same model without named dims."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import pymc as pm
import pymc.dims as pmd

from tests.variational.engine import quiet
from tests.variational.guided.fits import NAMES, X

COORDS = {"obs": NAMES, "k": range(3)}


def plain_model() -> pm.Model:
    """Globals with and without dims, a positive local, and one whose rows are its second axis."""
    with pm.Model(coords=COORDS) as model:
        seen = pm.Minibatch(pm.Data("data", X, dims="obs"), batch_size=2)
        w = pm.Normal("w", dims="k")
        s = pm.HalfNormal("s")
        z = pm.HalfNormal("z", s, dims="obs")
        u = pm.Normal("u", z, 1, dims=("k", "obs"))
        pm.Deterministic("both", z + (w[:, None] * u).sum(0), dims="obs")
        pm.Normal("x", z + (w[:, None] * u).sum(0), 1, observed=seen, dims="obs")
    return model


def named_model() -> pm.Model:
    with pm.Model(coords=COORDS) as model:
        seen = pm.Minibatch(pmd.Data("data", X, dims="obs"), batch_size=2)
        w = pmd.Normal("w", dims="k")
        s = pmd.HalfNormal("s")
        z = pmd.HalfNormal("z", s, dims="obs")
        u = pmd.Normal("u", z, 1, dims=("k", "obs"))
        pmd.Deterministic("both", z + (w * u).sum("k"), dims="obs")
        pmd.Normal("x", z + (w * u).sum("k"), 1, observed=seen)
    return model


def fit(model: pm.Model, n: int = 3, **kwargs: Any) -> Any:
    return pm.fit(n, model=model, random_seed=1, **{**quiet(), **kwargs})


@pytest.fixture(scope="module")
def both() -> tuple[Any, Any]:
    return fit(plain_model()), fit(named_model())


@pytest.mark.parametrize(
    "settings",
    [
        {"obj_n_mc": 2},
        {"objective": "iwae", "n_particles": 3, "gradient": "dreg"},
        {"guide": {("z", "u"): "row_full_rank", None: "full_rank"}},
    ],
    ids=["elbo", "iwae", "full_rank"],
)
def test_losses_are_those_without_names(settings: dict[str, Any]) -> None:
    plain, named = fit(plain_model(), **settings), fit(named_model(), **settings)
    np.testing.assert_allclose(named.hist, plain.hist, rtol=1e-10)


def test_draws_are_those_without_names(both: tuple[Any, Any]) -> None:
    some = {"rows": {"obs": ["f", "b", "c"]}, "random_seed": 2}
    plain, named = (approx.sample(4, **some).posterior for approx in both)
    for name in ("w", "s", "z", "u", "both"):
        np.testing.assert_allclose(named[name], plain[name], rtol=1e-10)
        assert named[name].dims == plain[name].dims


def test_moments_are_those_without_names(both: tuple[Any, Any]) -> None:
    plain, named = (approx.mean_data for approx in both)
    for name in plain:
        np.testing.assert_allclose(named[name], plain[name], rtol=1e-10)
        assert named[name].dims == plain[name].dims
    nodes = [approx.sample_node(approx.model["u"], 3) for approx in both]
    shapes = [node.eval(mode="FAST_COMPILE").shape for node in nodes]
    assert shapes == [(3, 3, 2)] * 2


def test_log_weights_are_those_without_names(both: tuple[Any, Any]) -> None:
    plain, named = (pm.variational.log_weights(approx, 4, random_seed=3) for approx in both)
    np.testing.assert_allclose(named, plain, rtol=1e-10)


def test_new_data_are_of_the_rows_that_are_asked_for(both: tuple[Any, Any]) -> None:
    new = both[1].sample_posterior_predictive(4, rows=[4, 1, 0], random_seed=1)
    assert new.posterior_predictive["x"].shape == (1, 4, 3)


@pytest.mark.parametrize("form", [lambda g: g, lambda g: [g], lambda g: {"z": g}])
def test_encoders_are_of_tensors(form: Any) -> None:
    model = named_model()
    seen = model.rvs_to_values[model["x"]]
    guide = pm.Amortized({"z": lambda x: pm.LogNormal.dist(x, 1)}, inputs=[seen], dim="obs")
    with pytest.raises(
        NotImplementedError, match=r"pm\.Amortized .* 'z' of pymc\.dims.*pm\.Normal"
    ):
        fit(model, guide=form(guide))
