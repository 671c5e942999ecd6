# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Arguments of guided fits that are wrong: errors that name them, before anything is compiled."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import pymc as pm

from tests.variational.engine import quiet
from tests.variational.guided.fits import NAMES, X, exact, local_model


@pytest.fixture(scope="module")
def model() -> pm.Model:
    """A local variable that is positive, and a global one."""
    with pm.Model(coords={"obs": NAMES}) as model:
        batch = pm.Minibatch(pm.Data("data", X, dims="obs"), batch_size=2)
        z = pm.HalfNormal("z", dims="obs")
        pm.Normal("x", z + pm.Normal("mu"), 1, observed=batch, dims="obs")
    return model


@pytest.fixture(autouse=True)
def not_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("it compiles a step")

    monkeypatch.setattr("pymc.variational.fitting.make_step", refuse)


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"obj_n_mc": 0}, ValueError, "obj_n_mc=0 of pm.fit must be at least 1"),
        ({"obj_n_mc": 2.5}, TypeError, "obj_n_mc=2.5 of pm.fit must be a whole number"),
        ({"obj_n_mc": True}, TypeError, "obj_n_mc=True of pm.fit must be a whole number"),
        ({"obj_n_mc": "2"}, TypeError, "obj_n_mc='2' of pm.fit must be a whole number"),
        ({"start": {"z": np.ones(2)}}, ValueError, r"start .*'z' .*\(2,\).* to \(6,\)"),
        ({"start": {"z": -1.0}}, ValueError, "start of pm.fit has -1. for 'z', .* its support"),
        ({"start_sigma": {"z": np.ones(2)}}, ValueError, r"start_sigma .*'z' .*\(2,\).* to \(6,\)"),
        ({"start_sigma": {"mu": -1}}, ValueError, "start_sigma of pm.fit has -1 for 'mu'"),
        ({"start_sigma": {"z": 0.0}}, ValueError, "start_sigma of pm.fit has 0. for 'z'"),
        ({"start_sigma": {"z": np.inf}}, ValueError, "start_sigma of pm.fit has inf for 'z'"),
        ({"start_sigma": {"z": "a"}}, TypeError, "start_sigma of pm.fit has 'a' for 'z'"),
        ({"objective": pm.Renyi}, TypeError, r"objective=Renyi .* write objective=pm\.Renyi\(\)"),
        ({"guide": pm.LowRank}, TypeError, "guide <class .*LowRank'> of pm.fit, .* an object such"),
        ({"rate": 0.1}, TypeError, "pm.fit got rate=0.1, which nothing in a fit takes"),
        ({"inf_kwargs": {"vfam": "mf"}}, TypeError, "pm.ADVI got vfam='mf'"),
    ],
)
def test_refusals(
    model: pm.Model, arguments: dict[str, Any], error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        pm.fit(3, model=model, **quiet(), **arguments)


@pytest.mark.parametrize("argument", ["start", "start_sigma"])
def test_what_an_encoder_draws_has_no_start(argument: str) -> None:
    model = local_model()
    seen = model.rvs_to_values[model["x"]]
    guide = pm.Amortized({"z": lambda x: pm.Normal.dist(x / 2, 1)}, inputs=[seen], dim="obs")
    with pytest.raises(ValueError, match=rf"{argument} of pm\.fit has 'z', .* an encoder"):
        pm.fit(3, model=model, guide=guide, **{argument: {"z": 3.0}}, **quiet())


def test_starts_may_be_given_by_the_class_too(model: pm.Model) -> None:
    by_class = {"start": {"mu": 3.0}, "start_sigma": {"mu": 2.0}}
    with pytest.raises(ValueError, match=r"start_sigma of pm\.fit has 0\. for 'mu'"):
        pm.fit(3, model=model, inf_kwargs=by_class, start_sigma={"mu": 0.0}, **quiet())


def test_what_is_about_a_test_function_is_not_used(model: pm.Model) -> None:
    with pytest.warns(UserWarning, match="tf_n_mc of pm.fit is about a test function"):
        pm.ADVI(model=model).objective.updates(tf_n_mc=3)


@pytest.mark.parametrize("function", [pm.variational.log_weights, pm.variational.log_evidence])
def test_a_plain_fit_has_no_weights_of_rows(function: Any) -> None:
    with pm.Model() as model:
        pm.Normal("mu")
    approx = pm.MeanField(model=model)
    with pytest.raises(
        ValueError, match=r"no dim of the model is subsampled .* Fit on minibatches"
    ):
        function(approx, 5)


@pytest.mark.parametrize("rows", [[], slice(0), {"obs": []}], ids=["list", "slice", "coords"])
def test_no_rows_are_no_error(rows: Any) -> None:
    approx = exact(local_model())
    assert approx.sample(3, rows=rows).posterior["z"].shape == (1, 3, 0)
    assert approx.sample_posterior_predictive(3, rows=rows).posterior_predictive["x"].size == 0
    assert pm.variational.log_weights(approx, 5, rows).shape == (5, 0)
