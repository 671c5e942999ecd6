# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Which placeholders are fed: all of a loader, and those of the model itself."""

import numpy as np
import pytest

import pymc as pm

from pymc.variational.placeholders import find_placeholders, make_feed

DATA = np.random.default_rng(0).normal(size=(6, 2))


@pytest.fixture
def loader():
    return pm.DataLoader(DATA, batch_size=2)


def fed(model, loader):
    """What the variables of a model hold after the first step, by name."""
    feed = make_feed(model, loader)
    with feed.reading(1):
        feed.n_ready()
        feed.advance(1)
    return {var.name: var.get_value() for var in feed.variables}


def test_two_of_one_loader_are_both_fed(loader):
    with pm.Model() as model:
        x = pm.Data("x", loader, dims=("obs", "column"))
        y = pm.Data("y", loader, dims=("obs", "column"))
        pm.Normal("likelihood", x[:, 0] * pm.Normal("slope"), 1, observed=y[:, 1], dims="obs")
    found = fed(model, loader)
    np.testing.assert_array_equal(found["x"], DATA[:2])
    np.testing.assert_array_equal(found["y"], DATA[:2])


def test_one_field_in_two_parts_of_a_model():
    loader = pm.DataLoader({"x": DATA[:, 0], "y": DATA[:, 1]}, batch_size=2)
    with pm.Model() as model:
        y = pm.Data("y", loader, dims="obs")
        for part in "ab":
            with pm.Model(name=part):
                x = pm.Data("x", loader, dims="obs")
                pm.Normal("likelihood", x * pm.Normal("slope"), 1, observed=y, dims="obs")
    assert fed(model, loader).keys() >= {"y", "a::x", "b::x"}


class TestTerms:
    def test_of_nothing_that_is_fed(self, loader):
        with pm.Model() as model:
            pm.Data("batch", loader, dims=("obs", "column"))
            pm.Normal("mu")
        with pytest.raises(
            ValueError, match="No observed variable of the model depends on 'batch'"
        ):
            find_placeholders(model, loader)

    def test_of_a_placeholder_of_another_model(self, loader):
        with pm.Model():
            other = pm.Data("other", loader)
        with pm.Model() as model:
            batch = pm.Data("batch", loader, dims=("obs", "column"))
            mu = pm.Normal("mu")
            pm.Normal("here", mu, 1, observed=batch)
            pm.Normal("there", mu, 1, observed=other)
        with pytest.raises(
            ValueError, match=r"depends on 'other', a pm.Data of a loader that is not its"
        ):
            find_placeholders(model, loader)

    def test_of_a_potential(self, loader):
        with pm.Model() as model:
            batch = pm.Data("batch", loader, dims=("obs", "column"))
            pm.Potential("loss", -abs(batch - pm.Normal("mu")), dims=("obs", "column"))
        assert find_placeholders(model, loader)[0].variable is model["batch"]

    @pytest.mark.parametrize("replaced", [["x"], ["x", "y"]])
    def test_of_what_pm_do_has_replaced(self, replaced):
        loader = pm.DataLoader({"x": DATA, "y": DATA[:, 1]}, batch_size=2)
        with pm.Model() as model:
            x, y = pm.Data("x", loader), pm.Data("y", loader)
            pm.Normal("likelihood", x[:, 0] * pm.Normal("slope"), 1, observed=y)
        rows = {"x": np.zeros((2, 2)), "y": np.zeros(2)}
        done = pm.do(model, {name: rows[name] for name in replaced})
        with pytest.raises(ValueError, match=r"pm\.do has replaced 'x'.*use what it made for"):
            find_placeholders(done, loader)


def test_observed_afterwards(loader):
    with pm.Model() as model:
        batch = pm.Data("batch", loader, dims=("obs", "column"))
        pm.Normal("y", pm.Normal("mu"), 1, dims=("obs", "column"))
    observed = pm.observe(model, {"y": batch})
    assert find_placeholders(observed, loader)[0].variable is observed["batch"]
