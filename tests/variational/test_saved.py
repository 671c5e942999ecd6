# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Approximations by way of pickle."""

import copy
import pickle
import threading

import cloudpickle
import numpy as np
import pytest

import pymc as pm

from tests.variational.engine import normal_model, quiet

METHODS = [
    {"method": "advi"},
    {"method": "fullrank_advi"},
    {"method": "svgd", "inf_kwargs": {"n_particles": 5}},
    {"guide": "low_rank"},
    {"batch_size": 2},
]


def local_model():
    data = np.random.default_rng(1).normal(size=6)
    with pm.Model(coords={"obs": range(6)}) as model:
        x = pm.Minibatch(pm.Data("x", data, dims="obs"), batch_size=2)
        mu = pm.Deterministic("mu", pm.Normal("m", 0, 1) + 1)
        z = pm.Normal("z", mu, 1, dims="obs")
        pm.Normal("y", z, 1, observed=x, dims="obs")
    return model


def assert_same_posterior(approx, again):
    """Draws of one seed, twice, and the fit."""
    np.testing.assert_array_equal(again.hist, approx.hist)
    assert again.report == approx.report
    draws, others = (each.sample(5, random_seed=1).posterior for each in (approx, again))
    assert set(others.data_vars) == set(draws.data_vars)
    for name in draws.data_vars:
        np.testing.assert_array_equal(others[name], draws[name])


@pytest.mark.parametrize("arguments", METHODS, ids=lambda each: " ".join(map(str, each.values())))
def test_pickled(arguments):
    """Approximations of groups and of guides, before and after they have drawn."""
    approx = pm.fit(3, model=normal_model(), random_seed=1, **quiet(), **arguments)
    assert_same_posterior(approx, pickle.loads(pickle.dumps(approx)))
    assert_same_posterior(approx, pickle.loads(pickle.dumps(approx)))


def test_pickled_with_variables_of_rows():
    approx = pm.fit(3, model=local_model(), random_seed=1, **quiet())
    assert_same_posterior(approx, pickle.loads(pickle.dumps(approx)))


def test_one_model_for_all_that_cloudpickle_takes():
    approx = pm.fit(3, model=normal_model(), random_seed=1, **quiet())
    again, model = cloudpickle.loads(cloudpickle.dumps((approx, approx.model)))
    assert again.model is model


def test_functions_of_a_model():
    """A transform of an interval has one, and so has a distribution of one's own."""
    with pm.Model() as model:
        pm.Uniform("u", 0, 1)
        pm.CustomDist("x", logp=lambda value: -(value**2), size=2)
    approx = pm.fit(3, model=model, random_seed=1, **quiet())
    again = pickle.loads(pickle.dumps(approx))
    for mean, other in zip(approx.params, again.params, strict=True):
        np.testing.assert_array_equal(mean.get_value(), other.get_value())
    np.testing.assert_array_equal(again.sample_node(again.model["u"]).eval().shape, ())


@pytest.mark.parametrize("guide", [None, "low_rank"])
def test_a_part_that_cannot_be_pickled(guide):
    approx = pm.fit(3, model=normal_model(), random_seed=1, guide=guide, **quiet())
    approx.model.lock = threading.Lock()
    with pytest.raises(pickle.PicklingError, match=r"part of its model.*lock.*approx.save\(path\)"):
        pickle.dumps(approx)
    copied = copy.copy(approx)
    assert copied.model is approx.model


@pytest.mark.parametrize("guide", [None, "low_rank"])
def test_copies_are_no_pickles(guide):
    """What a copy shares with its model stays shared."""
    approx = pm.fit(3, model=normal_model(), random_seed=1, guide=guide, **quiet())
    copied = copy.copy(approx)
    assert copied is not approx
    assert copied.model is approx.model
    assert copied.params[0] is approx.params[0]
