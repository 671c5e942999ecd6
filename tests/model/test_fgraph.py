# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""What a model's graph carries: initial values, scales, and data that are shared or copied."""

import numpy as np
import pytest

import pymc as pm

from pymc.minibatch.plates import model_indexes, subsampled_dims
from pymc.model.fgraph import (
    clone_model,
    fgraph_from_model,
    model_from_fgraph,
    sharing_data,
)
from pymc.variational.minibatch_rv import unscaled_rv
from tests.minibatch.streams import loader_of

Y = np.arange(6.0)


def minibatch_model():
    with pm.Model(coords={"obs": range(6)}) as model:
        y = pm.Minibatch(pm.Data("y_data", Y, dims="obs"), batch_size=2)
        pm.Normal("lik", pm.Normal("mu"), 1, observed=y, dims="obs")
    return model


@pytest.mark.parametrize("initval", [np.array([1.0, 2.0]), "prior", "support_point", "symbolic"])
def test_initial_values_go_through_a_graph(initval):
    symbolic = isinstance(initval, str) and initval == "symbolic"
    with pm.Model() as model:
        x = pm.Data("x", [3.0, 4.0])
        pm.Normal("mu", 5, shape=2, initval=2 * x if symbolic else initval)
        pm.Normal("other", initval=7.0)
    clone = clone_model(model)
    assert clone["mu"] is not model["mu"]
    for name, value in model.initial_point(1).items():
        np.testing.assert_array_equal(clone.initial_point(1)[name], value)
    if symbolic:
        with clone:
            pm.set_data({"x": [30.0, 40.0]})
        np.testing.assert_array_equal(clone.initial_point()["mu"], [60, 80])
        np.testing.assert_array_equal(model.initial_point()["mu"], [6, 8])


def test_memo_maps_a_variable_with_initial_value():
    with pm.Model() as model:
        mu = pm.Normal("mu", initval=1.0)
        pm.Deterministic("double", 2 * mu)
    fgraph, memo = fgraph_from_model(model)
    assert memo[mu] in fgraph.variables
    assert memo[mu].owner.op.name == "mu"


def test_graph_can_be_used_twice():
    fgraph, _ = fgraph_from_model(minibatch_model())
    first, second = model_from_fgraph(fgraph), model_from_fgraph(fgraph)
    assert first["mu"] is not second["mu"]
    for model in (first, second):
        [index] = model_indexes(model)
        assert subsampled_dims(model) == {"obs": index}


def test_clone_is_scaled_once():
    model = minibatch_model()
    bare, totals = unscaled_rv(clone_model(clone_model(model))["lik"])
    assert unscaled_rv(bare)[0] is bare
    assert [total.eval() for total in totals] == [6]


def test_clone_has_an_index_of_its_own():
    model = minibatch_model()
    [index], [cloned] = model_indexes(model), model_indexes(clone_model(model))
    assert index.owner.inputs[0] is not cloned.owner.inputs[0]
    assert index.owner.op == cloned.owner.op


def test_data_are_copied_or_shared():
    model = minibatch_model()
    data = model["y_data"].get_value(borrow=True)
    assert not np.shares_memory(clone_model(model)["y_data"].get_value(borrow=True), data)
    with sharing_data():
        shared = clone_model(model)
    assert shared["y_data"] is model["y_data"]
    assert not np.shares_memory(clone_model(model)["y_data"].get_value(borrow=True), data)


@pytest.mark.parametrize("kind", ["minibatch", "loader"])
def test_axes_without_a_name(kind):
    """Dims of some axes alone, which PyMC's graphs have no place for."""
    data = np.arange(12.0).reshape(6, 2)
    with pm.Model() as model:
        if kind == "minibatch":
            batch = pm.Minibatch(pm.Data("data", data, dims=("obs", None)), batch_size=2)
        else:
            batch = pm.Data("data", loader_of(data, 2), dims=("obs", None))
        pm.Normal("lik", pm.Normal("mu"), 1, observed=batch[:, 0], dims="obs")
    for made in (clone_model(model), pm.do(model, {"mu": 1.0}), pm.observe(model, {"mu": 1.0})):
        assert made.named_vars_to_dims["data"] == ("obs", None)
        assert set(made.dim_lengths) == {"obs"}
        assert subsampled_dims(made).keys() == {"obs"}
