# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Models made of models keep local variables what they are, and say which axes are rows."""

import cloudpickle
import numpy as np
import pytensor
import pytest

import pymc as pm

from pymc.minibatch.axis_tracking import OTHER, rows_of
from pymc.minibatch.plates import known_axes, local_axes, model_indexes
from pymc.model.fgraph import clone_model
from pymc.model.transform.optimization import freeze_dims_and_data, freeze_model
from tests.minibatch.enumeration import (
    PYTHON,
    full_logp_and_gradient,
    mean_over_batches,
    some_point,
)
from tests.minibatch.local_forms import (
    COORDS,
    B,
    N,
    X,
    Y,
    build,
    crossed,
    full_model,
    groups_by_an_index,
    in_model,
    mixture,
    multivariate,
    of_full_data,
    one_local,
    one_on_the_other,
    random_walk_of_each_row,
    simplex,
)

POINT = {
    "z": np.array([0.3, -1.0]),
    "scale_log__": np.array([0.2, -0.4]),
    "mu": np.array(0.7),
    "deeper": np.array([0.1, 0.6]),
}


def evaluate(model, outputs):
    inputs = [v for v in model.value_vars if v.name in POINT]
    fn = pytensor.function(inputs, outputs, mode=PYTHON, on_unused_input="ignore")
    return fn(*(POINT[v.name] for v in inputs))


def pickled(model):
    return cloudpickle.loads(cloudpickle.dumps(model))


def without_the_weight(model):
    return pm.do(model, {"w": 2.0})


class TestModels:
    """Models made of models keep local variables what they are."""

    @pytest.mark.parametrize(
        "change",
        [clone_model, pickled, freeze_dims_and_data, freeze_model, without_the_weight],
        ids=lambda change: change.__name__,
    )
    @pytest.mark.parametrize("write", [in_model, of_full_data])
    def test_clones(self, change, write):
        model = change(write(one_local, full_model(one_local), "epoch"))
        [axes] = local_axes(model).values()
        assert [(rows.dim, rows.batch_size) for rows in axes] == [("obs", B)]
        assert model.rvs_to_values[model["z"]].type.shape == (B,)
        assert evaluate(model, [model.logp([model["z"]])]) == pytest.approx(
            [N / B * pm.logp(pm.Normal.dist(0.3, 1.2), POINT["z"]).eval(mode=PYTHON).sum()]
        )

    def test_observed_local(self):
        full = pm.observe(full_model(one_on_the_other), {"z": X})
        model = clone_model(pm.minibatch_model(full, B))
        assert [rv.name for rv in local_axes(model)] == ["scale", "deeper"]
        point = some_point(full)
        np.testing.assert_allclose(
            mean_over_batches(model, point), full_logp_and_gradient(full, point), rtol=1e-10
        )

    def test_replaced_local(self):
        with pytest.raises(ValueError, match="meet values that are not of the batch"):
            pm.do(build(one_local, "epoch"), {"z": np.zeros(B)})
        full = pm.do(pm.remove_minibatch(build(one_local, "epoch")), {"z": np.zeros(N)})
        assert local_axes(pm.minibatch_model(full, B)) == {}

    def test_axes(self):
        model = build(crossed, "epoch")
        found = local_axes(model)
        dims = {rv.name: [rows and rows.dim for rows in axes] for rv, axes in found.items()}
        assert dims == {"row": ["obs"], "column": ["site"], "cell": ["obs", "site"]}
        known = known_axes(model)
        for rv, axes in found.items():
            assert known[rv] == known[model.rvs_to_values[rv]] == axes
        assert known[model["w"]] == (OTHER,) * model["w"].ndim

    def test_groups_that_rows_point_at_stay_global(self):
        assert [rv.name for rv in local_axes(build(groups_by_an_index, "epoch"))] == ["z"]

    def test_axes_of_the_value_of_a_draw_with_fewer(self):
        model = build(simplex, "epoch")
        [rows] = {axis for axis in local_axes(model)[model["z"]] if axis is not None}
        assert known_axes(model)[model.rvs_to_values[model["z"]]] == (rows, OTHER)

    def test_a_model_without_any(self):
        assert local_axes(full_model(one_local)) == {}
        assert not any(map(rows_of, known_axes(full_model(one_local)).values()))

    def test_static_shapes(self):
        model = build(simplex, "epoch")
        assert model["z"].type.shape[0] == B
        assert model.rvs_to_values[model["z"]].type.shape[0] == B

    @pytest.mark.parametrize("form", [random_walk_of_each_row, mixture, multivariate])
    def test_static_shapes_behind_inner_graphs(self, form):
        model = of_full_data(form, full_model(form), "epoch")
        assert model.rvs_to_values[model["z"]].type.shape[0] == B

    def test_coords_stay_full(self):
        model = build(one_local, "epoch")
        assert model.dim_lengths["obs"].eval(mode=PYTHON) == N
        assert len(model.coords["obs"]) == N

    def test_without_a_likelihood(self):
        with pm.Model(coords=COORDS) as model:
            pm.Minibatch(pm.Data("y", Y, dims="obs"), batch_size=B)
            pm.Normal("z", dims="obs")
        assert model_indexes(model) != []
        assert pm.remove_minibatch(model).initial_point()["z"].shape == (N,)
