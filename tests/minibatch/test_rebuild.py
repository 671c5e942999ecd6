# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Graphs with other data in them."""

import numpy as np
import pytensor
import pytensor.tensor as pt
import xarray as xr

from pytensor.compile.mode import Mode
from pytensor.graph.basic import equal_computations
from pytensor.scan import map as scan_map

import pymc as pm
import pymc.dims as pmd

from pymc.minibatch.axis_tracking import indexes
from pymc.minibatch.rebuild import all_rows, rebuild

PYTHON = Mode(linker="py", optimizer=None)
X = np.arange(40.0).reshape(10, 4)


def test_taking_rows_is_undone():
    data = pytensor.shared(X, shape=X.shape)
    [full] = all_rows([pt.exp(pm.Minibatch(data, batch_size=[5, 2])).sum()])
    assert equal_computations([full], [pt.exp(data).sum()])


def test_rows_of_what_is_computed_from_rows():
    rows = pt.exp(pm.Minibatch(X, batch_size=5))
    block = pm.Minibatch(rows, batch_size=[None, 2])
    [full] = all_rows([block])
    assert indexes([full]) == []
    np.testing.assert_allclose(full.eval(mode=PYTHON), np.exp(X))


def test_any_other_use_of_the_index():
    index = indexes([pm.Minibatch(X, batch_size=5)])[0]
    [full] = all_rows([index * 2])
    np.testing.assert_array_equal(full.eval(mode=PYTHON), 2 * np.arange(10))


def test_without_a_minibatch_nothing_is_built():
    var = pt.exp(pt.vector())
    assert all_rows([var]) == [var]


def test_what_does_not_change_is_shared():
    x, y = pt.vectors("xy")
    kept = pt.exp(y)
    [new] = rebuild([x + kept], {x: pt.vector("z")})
    assert kept in new.owner.inputs


def test_a_replacement_may_depend_on_what_it_replaces():
    x = pt.vector("x")
    [new] = rebuild([pt.exp(x)], {x: x[:2]})
    assert equal_computations([new], [pt.exp(x[:2])])


def test_static_shapes_inside_of_scan():
    x = pt.tensor("x", shape=(4,))
    z = pt.tensor("z", shape=(7,))
    [new] = rebuild([scan_map(lambda v: v * x, x, return_updates=False)], {x: z})
    value = np.arange(7.0)
    np.testing.assert_allclose(new.eval({z: value}, mode=PYTHON), np.outer(value, value))


def test_lengths_that_logp_has_folded():
    x, y = pm.Minibatch(X[:, 0], X[:, 1], batch_size=4)
    logp = pm.logp(pm.Weibull.dist(1.5, pt.exp(x / 40)), y)
    [full] = all_rows([logp])
    expected = pm.logp(pm.Weibull.dist(1.5, np.exp(X[:, 0] / 40)), X[:, 1])
    np.testing.assert_allclose(full.eval(mode=PYTHON), expected.eval(mode=PYTHON))


def test_named_dims_that_no_parameter_has():
    with pm.Model(coords={"obs": range(10)}) as model:
        y = pm.Minibatch(pmd.Data("y", X[:, 1], dims="obs"), batch_size={"obs": 4})
        pmd.Normal("lik", pmd.Normal("a"), 1, observed=y)
    logp = pm.remove_minibatch(model).compile_logp(mode=Mode("py", "fast_compile"))
    normal = pm.logp(pm.Normal.dist(0, 1), np.append(X[:, 1], 0)).sum()
    np.testing.assert_allclose(logp({"a": 0.0}), normal.eval(mode=PYTHON))


def test_predictions_for_new_inputs_alone():
    """The length of a dim says how many, also where the observed values are of the old ones."""
    with pm.Model():
        x, y = pm.Minibatch(
            pm.Data("x", X[:, 0], dims="obs"), pm.Data("y", X[:, 1], dims="obs"), batch_size=4
        )
        pm.Normal("lik", pm.Normal("b") * x, 1e-9, observed=y, dims="obs")
        pm.set_data({"x": np.array([1.0, 2.0, 3.0])})
        posterior = xr.Dataset({"b": (("chain", "draw"), np.full((1, 2), 5.0))})
        predictions = pm.sample_posterior_predictive(
            xr.DataTree.from_dict({"posterior": posterior}),
            predictions=True,
            var_names=["lik"],
            progressbar=False,
            compile_kwargs={"mode": PYTHON},
        ).predictions
    np.testing.assert_allclose(predictions["lik"][0], [[5, 10, 15]] * 2, atol=1e-6)
