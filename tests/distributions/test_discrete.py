# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Ordered distributions: the same probabilities, with logs that stay finite."""

import pickle

import numpy as np
import pytensor.tensor as pt
import pytest

from scipy.special import expit

import pymc as pm

CUTPOINTS = np.array([-1.0, 0.5, 2.0])


def probabilities(eta, cutpoints):
    return pm.OrderedLogistic.compute_p(eta, cutpoints).eval(mode="FAST_COMPILE")


@pytest.mark.parametrize("eta", [0.3, np.array([-2.0, 0.0, 3.0]), np.zeros((2, 3))])
@pytest.mark.parametrize("n_cutpoints", [1, 2, 3])
def test_probabilities_are_differences_of_sigmoids(eta, n_cutpoints):
    cutpoints = CUTPOINTS[:n_cutpoints]
    found = probabilities(eta, cutpoints)
    inner = expit(cutpoints - np.expand_dims(eta, -1))
    ends = [(*inner.shape[:-1], 1)]
    cumulative = np.concatenate([np.zeros(*ends), inner, np.ones(*ends)], axis=-1)
    np.testing.assert_allclose(found, np.diff(cumulative, axis=-1), rtol=1e-13)


def test_cutpoints_of_each_row():
    eta, cutpoints = np.array([-2.0, 3.0]), np.stack([CUTPOINTS, CUTPOINTS + 1])
    found = probabilities(eta, cutpoints)
    for k in range(2):
        np.testing.assert_array_equal(found[k], probabilities(eta[k], cutpoints[k]))


def test_far_out_they_keep_their_digits():
    """The upper sigmoids are both 1 in float64; their difference is about exp(-50) (exp(2) - exp(.5))."""
    found = probabilities(-50.0, CUTPOINTS)
    exp = np.exp([1.0, -0.5, -2.0])
    np.testing.assert_allclose(found[1:], np.exp(-50) * (exp - np.append(exp[1:], 0)), rtol=1e-12)


def test_unordered_cutpoints_have_no_probability():
    y = pm.OrderedLogistic.dist(eta=0.0, cutpoints=CUTPOINTS[::-1])
    with pm.Model() as model:
        cutpoints = pm.Flat("cutpoints", shape=3)
        pm.OrderedLogistic("y", eta=0.0, cutpoints=cutpoints, observed=1)
    assert model.compile_logp(mode="FAST_COMPILE")({"cutpoints": CUTPOINTS[::-1]}) == -np.inf
    assert isinstance(y.owner.op, type(pm.Categorical.dist(np.ones(2) / 2).owner.op))


def test_the_class_is_that_of_the_release():
    assert pickle.loads(pickle.dumps(pm.OrderedLogistic)) is pm.OrderedLogistic
    assert pm.OrderedLogistic.__module__ == "pymc.distributions.discrete"
    assert "Ordered Logistic distribution" in pm.OrderedLogistic.__doc__
    with pm.Model() as model:
        pm.OrderedLogistic("y", eta=pt.zeros(2), cutpoints=CUTPOINTS, observed=[0, 3])
    assert model["y_probs"].type.ndim == 2
