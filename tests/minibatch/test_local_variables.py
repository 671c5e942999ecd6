# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Free variables on a subsampled dim: a value for each row, and priors that count for all rows.

The proof is enumeration: the mean over all batches, each with the values of its own rows, is the
log-probability of the full model, and so is the gradient.
"""

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
import xarray as xr

from pytensor.graph.replace import graph_replace
from pytensor.graph.traversal import ancestors

import pymc as pm

from pymc.minibatch.index import MinibatchIndexRV
from pymc.model.transform.optimization import freeze_model
from tests.minibatch.enumeration import (
    PYTHON,
    full_logp_and_gradient,
    mean_over_batches,
    some_point,
)
from tests.minibatch.local_forms import (
    COORDS,
    FORMS,
    B,
    N,
    X,
    Y,
    build,
    deterministic_between,
    full_model,
    in_model,
    of_full_data,
    one_on_the_other,
    sizes_of,
)


class TestEnumeration:
    @pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
    def test_mean_over_batches_is_full_logp(self, form):
        full = full_model(form)
        point, sampling = some_point(full), "without_replacement"
        expected = full_logp_and_gradient(full, point)
        each = [
            mean_over_batches(write(form, full, sampling), point, reduce=None)
            for write in (in_model, of_full_data)
        ]
        np.testing.assert_allclose(each[0], each[1], rtol=1e-12)
        np.testing.assert_allclose(each[0].mean(0), expected, rtol=1e-10, atol=1e-12)

    @pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
    def test_on_all_rows_it_is_the_full_model(self, form):
        full = full_model(form)
        point = some_point(full)
        back = pm.remove_minibatch(build(form, "epoch"))
        np.testing.assert_allclose(
            full_logp_and_gradient(back, point), full_logp_and_gradient(full, point), rtol=1e-12
        )
        assert {k: np.shape(v) for k, v in back.initial_point().items()} == {
            k: np.shape(v) for k, v in full.initial_point().items()
        }

    @pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
    def test_back_and_forth(self, form):
        """Of the full-data model that a minibatch model gives, there are minibatches again."""
        back = pm.remove_minibatch(build(form, "epoch"))
        again = pm.minibatch_model(back, sizes_of(form))
        lengths = {k: np.shape(v) for k, v in again.initial_point().items()}
        assert lengths == {k: np.shape(v) for k, v in build(form, "epoch").initial_point().items()}

    @pytest.mark.parametrize("write", [in_model, of_full_data])
    def test_rows_that_come_twice(self, write):
        full = full_model(one_on_the_other)
        point = some_point(full)
        found = mean_over_batches(write(one_on_the_other, full, "with_replacement"), point)
        np.testing.assert_allclose(found, full_logp_and_gradient(full, point), rtol=1e-10)


POINT = {
    "z": np.array([0.3, -1.0]),
    "scale_log__": np.array([0.2, -0.4]),
    "mu": np.array(0.7),
    "deeper": np.array([0.1, 0.6]),
}


def of_one_batch():
    """The model of `one_on_the_other`, of B rows that are all there are."""
    with pm.Model() as model:
        scale = pm.HalfNormal("scale", shape=B)
        z = pm.Normal("z", pm.Normal("mu"), scale)
        pm.Normal("deeper", z, 1)
    return model


def evaluate(model, outputs):
    inputs = [v for v in model.value_vars if v.name in POINT]
    fn = pytensor.function(inputs, outputs, mode=PYTHON, on_unused_input="ignore")
    return fn(*(POINT[v.name] for v in inputs))


NAMES = ["scale", "z", "mu"]


def drawn_indexes(*outputs):
    return [
        var
        for var in ancestors(outputs)
        if var.owner is not None
        and isinstance(var.owner.op, MinibatchIndexRV)
        and var is var.owner.outputs[1]
    ]


class TestScale:
    """What each term is multiplied by, whatever is asked for."""

    @pytest.fixture(scope="class")
    @classmethod
    def model(cls):
        return build(one_on_the_other, "epoch")

    @pytest.fixture(scope="class")
    @classmethod
    def plain(cls):
        return of_one_batch()

    @pytest.mark.parametrize("jacobian", [True, False])
    def test_priors_of_locals_alone(self, model, plain, jacobian):
        mine, there = (
            evaluate(m, m.logp([m[n] for n in NAMES], jacobian=jacobian, sum=False))
            for m in (model, plain)
        )
        for name, scaled, bare in zip(NAMES, mine, there, strict=True):
            np.testing.assert_allclose(scaled, bare * (1 if name == "mu" else N / B), rtol=1e-12)

    def test_variable_and_value_ask_alike(self, model, plain):
        [expected] = evaluate(plain, [plain.logp(plain["z"])])
        z = model["z"]
        for asked in (z, model.rvs_to_values[z], (z,)):
            assert evaluate(model, [model.logp(asked)]) == pytest.approx([expected * N / B])

    def test_sum_is_that_of_the_terms(self, model):
        terms = model.logp([model[n] for n in NAMES], sum=False)
        total, *each = evaluate(model, [model.logp([model[n] for n in NAMES]), *terms])
        assert total == pytest.approx(sum(t.sum() for t in each))
        assert model.logp().name == "__logp"
        assert model.logp(jacobian=False).name == "__logp_nojac"
        assert evaluate(model, [model.logp([])]) == [0]

    def test_gradient_of_the_prior(self, model, plain):
        def slope(m):
            return evaluate(m, [pt.grad(m.logp([m["z"]]), m.rvs_to_values[m["z"]])])[0]

        np.testing.assert_allclose(slope(model), slope(plain) * N / B, rtol=1e-12)

    def test_properties_follow(self, model):
        free, observed = model.free_RVs, model.observed_RVs
        for found, expected in [
            (model.varlogp, model.logp(free)),
            (model.varlogp_nojac, model.logp(free, jacobian=False)),
            (model.datalogp, model.logp(observed)),
        ]:
            rows = dict.fromkeys(drawn_indexes(found, expected), pt.as_tensor([0, 1]))
            graphs = graph_replace([found, expected], rows, strict=False)
            mine, there = (float(value) for value in evaluate(model, graphs))
            assert mine == pytest.approx(there)

    def test_frozen_model_keeps_it(self, model):
        frozen = freeze_model(model)
        assert frozen.logp() is frozen.logp()
        for name in NAMES:
            [found] = evaluate(frozen, [frozen.logp([frozen[name]])])
            [expected] = evaluate(model, [model.logp([model[name]])])
            assert float(found) == pytest.approx(float(expected))

    def test_in_a_nested_model(self):
        with pm.Model(coords=COORDS) as model:
            y = pm.Minibatch(pm.Data("y", Y, dims="obs"), batch_size=B)
            with pm.Model(name="part") as part:
                z = pm.Normal("z", dims="obs")
            pm.Normal("lik", z, 1, observed=y, dims="obs")
        expected = [-0.5 * np.log(2 * np.pi) * N]
        zeros = {"part::z": np.zeros(B)}
        for m in (model, part):
            fn = pytensor.function([m.rvs_to_values[z]], [m.logp([z])], mode=PYTHON)
            assert fn(zeros["part::z"]) == pytest.approx(expected)


class TestAllRows:
    """Functions about all rows take and give N values of a local variable."""

    @pytest.fixture(scope="class")
    @classmethod
    def model(cls):
        return build(deterministic_between, "epoch")

    @pytest.fixture(scope="class")
    @classmethod
    def posterior(cls):
        z = np.random.default_rng(2).normal(size=(1, 5, N))
        return xr.Dataset({"z": (("chain", "draw", "obs"), z)}, {"obs": range(N)})

    def test_prior_predictive(self, model):
        drawn = pm.sample_prior_predictive(3, model=model)
        assert drawn.prior["z"].sizes == {"chain": 1, "draw": 3, "obs": N}
        assert drawn.prior_predictive["lik"].sizes["obs"] == N

    def test_posterior_predictive(self, model, posterior):
        drawn = pm.sample_posterior_predictive(posterior, model=model, progressbar=False)
        assert drawn.posterior_predictive["lik"].sizes == {"chain": 1, "draw": 5, "obs": N}

    def test_log_likelihood(self, model, posterior):
        found = pm.compute_log_likelihood(
            xr.DataTree.from_dict({"posterior": posterior}), model=model, progressbar=False
        )
        mu = np.exp(posterior["z"].to_numpy()) * X
        expected = -0.5 * ((Y - mu) / 1.5) ** 2 - np.log(1.5 * np.sqrt(2 * np.pi))
        np.testing.assert_allclose(found.log_likelihood["lik"], expected)

    def test_deterministics(self, model, posterior):
        found = pm.compute_deterministics(posterior, model=model, progressbar=False)
        np.testing.assert_allclose(found["mu"], np.exp(posterior["z"].to_numpy()) * X)
