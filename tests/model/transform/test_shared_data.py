# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""A derived model and the one that it was made of have one `pm.Data`, in both directions."""

import pickle

from copy import deepcopy

import cloudpickle
import numpy as np
import pytest
import xarray as xr

from scipy import stats

import pymc as pm

from tests.minibatch.enumeration import PYTHON, full_logp_and_gradient, mean_over_batches
from tests.variational.engine import BACKENDS, JAX_COPIES

QUICK = {"compile_kwargs": {"mode": PYTHON}, "progressbar": False}
N, B = 6, 2
X, Y = np.linspace(-1, 1, N), np.linspace(0, 3, N)
ROWS = [f"row{i}" for i in range(N)]


def regression(coords=True, temperature=1.0):
    with pm.Model(coords={"obs": ROWS} if coords else {}) as model:
        t = pm.Data("t", temperature)
        x, y = pm.Data("x", X, dims="obs"), pm.Data("y", Y, dims="obs")
        mu = pm.Normal("slope", 0.5, 2) * x
        pm.Normal("lik", mu, 2 / pm.math.sqrt(t), observed=y, dims="obs")
    return model


def written():
    with pm.Model(coords={"obs": ROWS}) as model:
        t = pm.Data("t", 1.0)
        x, y = pm.Data("x", X, dims="obs"), pm.Data("y", Y, dims="obs")
        x, y = pm.Minibatch(x, y, batch_size=B, sampling="without_replacement")
        mu = pm.Normal("slope", 0.5, 2) * x
        pm.Normal("lik", mu, 2 / pm.math.sqrt(t), observed=y, dims="obs")
    return model


def derived_pair(kind):
    """Make two models that share their data: of all rows, and of minibatches of them."""
    if kind == "minibatch_model":
        full = regression()
        return full, pm.minibatch_model(full, B, sampling="without_replacement")
    if kind == "remove_minibatch":
        batched = written()
        return pm.remove_minibatch(batched), batched
    full = regression()
    batched = pm.minibatch_model(full, B, sampling="without_replacement")
    return pm.remove_minibatch(batched), pm.minibatch_model(full, B)


def new_rows(n):
    return {"x": np.linspace(-2, 1, n), "y": np.linspace(1, 5, n)}


def assert_same(full, batched):
    point = {"slope": np.array(0.3)}
    np.testing.assert_allclose(
        mean_over_batches(batched, point), full_logp_and_gradient(full, point)
    )


@pytest.mark.parametrize("on", [0, 1], ids=["set on all rows", "set on minibatches"])
@pytest.mark.parametrize("kind", ["minibatch_model", "remove_minibatch", "two of one"])
def test_set_data_shows_in_both(kind, on):
    models = full, batched = derived_pair(kind)
    labels = tuple("abcd")
    with models[on]:
        pm.set_data({"t": 0.5, **new_rows(4)}, coords={"obs": labels})
    for model in models:
        assert model.coords["obs"] == labels
        assert model.dim_lengths["obs"].eval() == 4
    assert_same(full, batched)  # lengths move the scale
    alone = regression()
    pm.set_data({"t": 0.5, **new_rows(4)}, model=alone, coords={"obs": labels})
    np.testing.assert_allclose(full_logp_and_gradient(full), full_logp_and_gradient(alone))


def test_dims_without_coords():
    full = regression(coords=False)
    batched = pm.minibatch_model(full, B, sampling="without_replacement")
    pm.set_data(new_rows(4), model=full)
    assert batched.dim_lengths["obs"].eval() == 4
    assert_same(full, batched)


def test_what_is_added_to_one_is_its_own():
    full = regression()
    batched = pm.minibatch_model(full, B)
    batched.add_coord("k", ["u", "v"])
    full.add_coord("k", [1, 2, 3])
    assert dict(batched.coords) == {"obs": tuple(ROWS), "k": ("u", "v")}
    assert dict(full.coords) == {"obs": tuple(ROWS), "k": (1, 2, 3)}


@pytest.mark.parametrize(
    "copied",
    [
        pm.Model.copy,
        deepcopy,
        lambda model: pickle.loads(cloudpickle.dumps(model)),
        lambda model: pm.do(model, {"t": 1.0}),
        lambda model: pm.observe(model, {"slope": 1.0}),
    ],
    ids=["copy", "deepcopy", "pickle", "do", "observe"],
)
def test_copies_have_data_of_their_own(copied):
    full = regression()
    batched = pm.minibatch_model(full, B)
    other = copied(batched)
    pm.set_data(new_rows(4), model=full, coords={"obs": range(4)})
    np.testing.assert_array_equal(other["x"].get_value(), X)
    assert other.coords["obs"] == tuple(ROWS)
    pm.set_data(new_rows(5), model=other, coords={"obs": range(5)})
    assert len(batched["x"].get_value()) == len(full.coords["obs"]) == 4


def test_pickled_together_they_share():
    full = regression()
    full, batched = pickle.loads(cloudpickle.dumps((full, pm.minibatch_model(full, B))))
    pm.set_data(new_rows(4), model=batched, coords={"obs": range(4)})
    assert full.coords["obs"] == tuple(range(4))
    np.testing.assert_array_equal(full["x"].get_value(), new_rows(4)["x"])


def alike(n, temperature=1.0):
    """Rows that are alike, so that each batch says the same: the posterior is found exactly."""
    with pm.Model() as model:
        t = pm.Data("t", temperature)
        y = pm.Data("y", np.full(n, 1.7), dims="obs")
        pm.Normal("lik", pm.Normal("mu"), 2 / pm.math.sqrt(t), observed=y, dims="obs")
    return model


def at_step(step, action):
    def callback(approx, losses, i):
        if i == step:
            action()

    callback.every = step
    return callback


class TestDuringAFit:
    """`pm.set_data` on the user's model by a callback of `pm.fit(batch_size=...)`."""

    @pytest.mark.parametrize(
        "new", [{"t": 1.0}, {"t": 1.0, "y": np.full(120, 1.7)}], ids=["temperature", "more rows"]
    )
    def test_posterior_is_that_of_the_new_data(self, new):
        model = alike(60, temperature=0.01)
        approx = pm.fit(
            1500,
            model=model,
            batch_size=5,
            gradient="stl",  # has no noise where the guide is the posterior
            obj_optimizer=pm.adam(learning_rate=0.03),
            callbacks=[at_step(300, lambda: pm.set_data(new, model=model))],
            random_seed=1,
            progressbar=False,
        )
        n = len(model["y"].get_value())
        precision = 1 + n / 4
        np.testing.assert_allclose(approx.std_data["mu"], precision**-0.5, rtol=0.01)
        np.testing.assert_allclose(approx.mean_data["mu"], n * 1.7 / 4 / precision, rtol=0.01)

    @pytest.mark.filterwarnings(JAX_COPIES)
    @pytest.mark.parametrize("backend", BACKENDS)
    def test_each_driver_takes_it_at_the_next_step(self, backend):
        model = alike(8)
        approx = pm.fit(
            6,
            model=model,
            batch_size=5,
            backend=backend,
            callbacks=[at_step(3, lambda: pm.set_data({"y": np.full(8, 1e6)}, model=model))],
            random_seed=1,
            progressbar=False,
        )
        np.testing.assert_array_equal(approx.hist > 1e9, [False] * 3 + [True] * 3)

    @pytest.mark.parametrize(
        ("new", "message"),
        [
            (np.zeros(3), "batch_size is 5, but the data have 3 rows"),
            (np.zeros(9), r"The data have 9 rows, and 'obs' has parameters of 8"),
        ],
    )
    def test_refuses_rows_that_no_step_can_take(self, new, message):
        model = alike(8)
        with model:
            pm.Normal("z", dims="obs")
        with pytest.raises(ValueError, match=message):
            pm.fit(
                6,
                model=model,
                batch_size=5,
                callbacks=[at_step(3, lambda: pm.set_data({"y": new}, model=model))],
                **QUICK,
            )


def draws_of(slopes):
    values = {"slope": (("chain", "draw"), [slopes])}
    return xr.DataTree.from_dict({"posterior": xr.Dataset(values)})


class TestAfterAFit:
    @pytest.fixture
    def approx(self):
        model = regression()
        approx = pm.fit(0, model=model, batch_size=B, random_seed=1, **QUICK)
        pm.set_data(new_rows(9), model=model, coords={"obs": range(9)})
        return model, approx

    def test_predictions_are_of_the_new_rows(self, approx):
        model, approx = approx
        draws = approx.sample(3, random_seed=1)
        assert draws.observed_data["lik"].values.tolist() == new_rows(9)["y"].tolist()
        for of in (model, approx.model):
            predicted = pm.sample_posterior_predictive(draws, model=of, **QUICK)
            assert predicted.posterior_predictive["lik"].shape == (1, 3, 9)
            assert predicted.posterior_predictive["obs"].values.tolist() == list(range(9))

    def test_log_likelihood_is_of_the_new_rows(self, approx):
        model, approx = approx
        with_likelihood = [
            pm.compute_log_likelihood(draws_of([0.1, 2.0]), model=of, **QUICK)
            for of in (model, approx.model)
        ]
        np.testing.assert_array_equal(*(d.log_likelihood["lik"].values for d in with_likelihood))
        assert with_likelihood[0].log_likelihood["lik"].shape == (1, 2, 9)

    def test_log_evidence_is_of_the_new_rows(self):
        model, new = alike(8), np.array([0.4, -1.0, 3.0])
        known = {"start": {"mu": 0.5}, "start_sigma": {"mu": 1e-9}}
        approx = pm.fit(0, model=model, batch_size=B, gradient="stl", **known, **QUICK)
        pm.set_data({"y": new}, model=model)
        found = pm.variational.log_evidence(approx, 2)["log_evidence"]
        np.testing.assert_allclose(found, stats.norm(0.5, 2).logpdf(new), atol=1e-7)


class TestDataOfOtherLengths:
    """`pm.set_data` of some of the data alone, with another length."""

    def model(self, constant=False):
        with pm.Model() as model:
            x = pm.Data("x", X, dims="obs")
            y = Y if constant else pm.Data("y", Y, dims="obs")
            x, y = pm.Minibatch(x, y, batch_size=B)
            pm.SkewNormal("lik", mu=pm.Normal("slope") * x, sigma=1, alpha=1, observed=y)
        pm.set_data({"x": np.zeros(3)}, model=model)
        return model

    def test_predictions_name_them(self):
        with pytest.raises(
            ValueError,
            match=r"predictive needs all rows, .*'y' has 6, 'x' has 3\. .*pm.set_data\({'y': ...,",
        ):
            pm.sample_posterior_predictive(
                draws_of([0.1]),
                model=self.model(),
                **QUICK,
            )

    def test_arrays_have_to_be_data(self):
        with pytest.raises(ValueError, match=r"an array has 6.*put arrays into pm\.Data"):
            pm.compute_log_likelihood(
                draws_of([0.1]),
                model=self.model(constant=True),
                **QUICK,
            )

    def test_advice_works(self):
        model = self.model()
        pm.set_data({"x": np.zeros(3), "y": np.zeros(3)}, model=model)
        predicted = pm.sample_posterior_predictive(draws_of([0.1]), model=model, **QUICK)
        assert predicted.posterior_predictive["lik"].shape == (1, 1, 3)

    def test_rows_of_local_variables(self):
        model = regression()
        with model:
            pm.Normal("z", dims="obs")
        approx = pm.fit(0, model=model, batch_size=B, **QUICK)
        pm.set_data({"x": np.zeros(3)}, model=model, coords={"obs": range(3)})
        with pytest.raises(ValueError, match=r"different numbers of rows.*one pm\.set_data call"):
            approx.sample(1)
