# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""What a free variable may have of a batch: the errors are raised before anything is compiled."""

import numpy as np
import pytensor.tensor as pt
import pytest

import pymc as pm
import pymc.dims as pmd

from pymc.minibatch.plates import local_axes
from pymc.model.fgraph import clone_model
from tests.minibatch.local_forms import (
    COORDS,
    PAIRS,
    B,
    N,
    X,
    Y,
    build,
    in_model,
    likelihood,
    of_full_data,
    one_local,
    table,
)


def not_of_the_batch(y):
    return pm.Normal("z", pt.as_tensor(np.arange(float(B))), 1, dims="obs")


def of_full_length_data(y):
    return pm.Normal("z", pm.Data("all", X, dims="obs"), 1, dims="obs")


def of_rows_of_another(y):
    other = pm.Minibatch(pm.Data("pairs", PAIRS, dims=("obs", "site")), batch_size={"site": B})
    return pm.Normal("z", other[0], 1, dims="obs")


def random_walk_over_the_plate(y):
    init = pm.Normal.dist(0, 1)
    return pm.GaussianRandomWalk("z", init_dist=init, dims="obs", steps=B - 1)


def autoregression_over_the_plate(y):
    return pm.AR("z", [0.5], init_dist=pm.Normal.dist(0, 1), dims=("group", "obs"))


def zero_sum_over_the_plate(y):
    return pm.ZeroSumNormal("z", dims="obs")


def correlated_over_the_plate(y):
    return pm.MvNormal("z", np.zeros(B), np.eye(B), dims="obs")


def shares_over_the_plate(y):
    return pm.Dirichlet("z", np.ones(B), dims="obs")


def named_zero_sum_over_the_plate(y):
    return pmd.ZeroSumNormal("z", core_dims="obs", dims=("obs",))


def named_shares_over_the_plate(y):
    weights = pmd.as_xtensor(np.ones(B), dims=("obs",))
    return pmd.Dirichlet("z", weights, core_dims="obs", dims=("obs",))


def without_its_dim(y):
    return pm.Normal("z", y, 1)


def with_another_dim(y):
    return pm.Normal("z", y, 1, dims="group")


def on_another_local_without_its_dim(y):
    return pm.Normal("z", pm.Normal("local", dims="obs"), 1)


def global_of_mixed_locals(y):
    return pm.Normal("z", pm.Normal("local", dims="obs").sum(), 1)


def global_of_mixed_data(y):
    return pm.Normal("z", y.mean(), 1)


def local_of_mixed_locals(y):
    return pm.Normal("z", pm.Normal("local", dims="obs").mean(), 1, dims="obs")


def slots_meet_rows(y):
    return pm.Normal("z", pm.Normal("slots", shape=B), 1, dims="obs")


def with_too_long_a_shape(y):
    return pm.Normal("z", shape=N, dims="obs")


def with_the_length_of_all_data(y):
    return pm.Normal("z", shape=pm.modelcontext(None)["y"].shape, dims="obs")


def sized_by_all_data(y):
    return pm.Normal("z", size=N, dims="obs")


def of_the_number_of_rows(y):
    return pm.Normal("z", 0, 1 / y.shape[0], dims="obs")


def on_the_diagonal(y):
    return pm.Normal("z", dims=("obs", "obs"))


def custom_that_mixes(y):
    def dist(mu, size):
        return pm.math.cumsum(pm.Normal.dist(mu, 1, size=size))

    return pm.CustomDist("z", 0.0, dist=dist, dims="obs")


def custom_that_hides_its_data(y):
    return pm.CustomDist("z", logp=lambda value: -((value - y) ** 2), dims="obs")


WITHIN_A_DRAW = (
    "'z' has the subsampled dim 'obs' on axis .* which is within one draw of its distrib"
)


class TestRefused:
    """Before anything is compiled, and by name."""

    @pytest.mark.parametrize(
        ("form", "message"),
        [
            (not_of_the_batch, "axis 0, but a parameter has values of its own there"),
            (of_full_length_data, "axis 0, but a parameter has values of its own there"),
            (
                of_rows_of_another,
                "but its parameters are rows of the minibatch index of dim 'site'",
            ),
            (random_walk_over_the_plate, WITHIN_A_DRAW),
            (autoregression_over_the_plate, WITHIN_A_DRAW),
            (zero_sum_over_the_plate, WITHIN_A_DRAW),
            (correlated_over_the_plate, WITHIN_A_DRAW),
            (shares_over_the_plate, WITHIN_A_DRAW),
            (named_zero_sum_over_the_plate, WITHIN_A_DRAW),
            (named_shares_over_the_plate, WITHIN_A_DRAW),
            (without_its_dim, r"'z', axis 0, has parameters that are rows .* Give it dims='obs'"),
            (with_another_dim, r"its dims \(\('group',\)\) do not say so"),
            (on_another_local_without_its_dim, "'z', axis 0, has parameters that are rows of"),
            (global_of_mixed_locals, "The parameters of the free variable 'z': .* mixes the rows"),
            (global_of_mixed_data, "The parameters of the free variable 'z': .* mixes the rows"),
            (local_of_mixed_locals, "The parameters of the free variable 'z': .* mixes the rows"),
            (slots_meet_rows, "a parameter has values of its own there"),
            (with_too_long_a_shape, "it has 2 rows, those of a batch, but its length there is 4"),
            (with_the_length_of_all_data, "those of a batch, but its length there is 4"),
            (sized_by_all_data, "those of a batch, but its length there is 4"),
            (of_the_number_of_rows, "'z' computes with the number of rows of a batch"),
            (on_the_diagonal, "'z': one minibatch index on two axes picks the diagonal"),
            (custom_that_mixes, "'z': .* has to be a sum over its rows"),
            (custom_that_hides_its_data, "the logp= of 'z' uses the minibatch index of dim 'obs'"),
        ],
        ids=lambda value: getattr(value, "__name__", ""),
    )
    def test_forms(self, form, message):
        with pm.Model(coords=COORDS):
            y = pm.Minibatch(pm.Data("y", Y, dims="obs"), batch_size=B)
            with pytest.raises(ValueError, match=message):
                form(y)

    def test_registered_before(self):
        with pm.Model(coords=COORDS):
            y = pm.Data("y", Y, dims="obs")
            pm.Normal("z", dims="obs")
            with pytest.raises(
                ValueError, match="'obs', but 'z' was registered with that dim before"
            ):
                pm.Minibatch(y, batch_size=B)

    def test_an_observed_value_of_all_rows(self):
        with pm.Model(coords=COORDS):
            pm.Minibatch(pm.Data("y", Y, dims="obs"), batch_size=B)
            z = pm.Normal("z", dims="obs")
            with pytest.raises(
                ValueError, match="its observed value is not, so that x and y are out"
            ):
                pm.Normal("lik", z, 1, observed=np.arange(float(B)))

    def test_a_potential_that_does_not_say_its_rows(self):
        with pm.Model(coords=COORDS):
            pm.Minibatch(pm.Data("y", Y, dims="obs"), batch_size=B)
            z = pm.Normal("z", dims="obs")
            with pytest.raises(ValueError, match="nothing says that it is a sum over rows"):
                pm.Potential("soft", -(z**2))

    @pytest.mark.parametrize(
        ("form", "message"),
        [
            (zero_sum_over_the_plate, WITHIN_A_DRAW),
            (global_of_mixed_locals, "The parameters of the free variable 'z': .* mixes the rows"),
        ],
        ids=lambda value: getattr(value, "__name__", ""),
    )
    def test_in_a_model_of_full_data(self, form, message):
        with pm.Model(coords=COORDS) as full:
            y = pm.Data("y", Y, dims="obs")
            z = form(y)
            pm.Normal("lik", z, 1, observed=y, dims="obs")
        with pytest.raises(ValueError, match=message):
            pm.minibatch_model(full, B)

    @pytest.mark.parametrize("fit", [pm.sample, pm.find_MAP, pm.sample_smc])
    def test_methods_that_need_one_log_probability(self, fit):
        with pytest.raises(ValueError, match=r"pm\.remove_minibatch"):
            fit(model=build(one_local, "epoch"))


def test_an_explicit_length_of_the_batch_is_the_same():
    with pm.Model(coords=COORDS) as model:
        y = pm.Minibatch(pm.Data("y", Y, dims="obs"), batch_size=B)
        pm.Normal("z", dims="obs", shape=y.shape)
        pm.Normal("literal", dims="obs", shape=B)
    assert [rv.name for rv in local_axes(model)] == ["z", "literal"]


class TestInitval:
    @pytest.mark.parametrize("write", [in_model, of_full_data])
    def test_one_for_each_row(self, write):
        def with_initval(rows):
            _, y, *_ = table(rows)
            likelihood(pm.Gamma("z", 2, 1, dims="obs", initval=np.arange(1.0, N + 1)), y)

        full = build(with_initval)
        model = write(with_initval, full, "epoch")
        assert set(model.initial_point(3)["z_log__"]) < set(np.log(np.arange(1.0, N + 1)))
        np.testing.assert_allclose(
            pm.remove_minibatch(clone_model(model)).initial_point()["z_log__"],
            np.log(np.arange(1.0, N + 1)),
        )

    @pytest.mark.parametrize("initval", [0.5, [0.5], np.array([[0.5]] * 2), pt.constant(0.5)])
    def test_one_for_all(self, initval):
        with pm.Model(coords=COORDS) as model:
            pm.Minibatch(pm.Data("y", Y, dims="obs"), batch_size=B)
            dims = ("group", "obs") if np.ndim(initval) == 2 else "obs"
            pm.Normal("z", dims=dims, initval=initval)
        assert model.initial_point()["z"].shape == (*([2] * (np.ndim(initval) == 2)), B)
        assert (model.initial_point()["z"] == 0.5).all()

    def test_strategy(self):
        with pm.Model(coords=COORDS) as model:
            pm.Minibatch(pm.Data("y", Y, dims="obs"), batch_size=B)
            pm.Normal("z", dims="obs", initval="prior")
        assert (model.initial_point()["z"] != 0).all()

    def test_of_a_batch(self):
        with pm.Model(coords=COORDS):
            pm.Minibatch(pm.Data("y", Y, dims="obs"), batch_size=B)
            with pytest.raises(ValueError, match="initval of 'z' has 2 rows along the dim 'obs'"):
                pm.Normal("z", dims="obs", initval=np.zeros(B))
