# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Fits of streamed models, step by step, and results about all rows, or about those that were given."""

import numpy as np
import pytensor
import pytest

from scipy import stats

import pymc as pm

from pymc.minibatch.data_placeholder import unset_rows
from pymc.model.fgraph import clone_model
from pymc.variational.approximation import guided_approximation
from pymc.variational.fit_options import FitOptions
from pymc.variational.inference import make_inference
from pymc.variational.posterior.draw import likelihood_outputs, row_axes, sample_rows
from pymc.variational.posterior.select import select_rows
from tests.minibatch.enumeration import PYTHON
from tests.minibatch.streams import feed, loader_of

N, B = 12, 4
DATA = np.random.default_rng(0).normal(size=(N, 2))
ROWS = [3, 1, 7, 9]
QUIETLY = {"progressbar": False, "compile_kwargs": {"mode": PYTHON}}


def of_rows(loader=None, **more):
    """A value for each row, which its data say something of."""
    with pm.Model(**more) as model:
        batch = pm.Data("batch", loader or loader_of(DATA, B), dims=("obs", "column"))
        z = pm.Normal("z", pm.Normal("mu"), 1, dims="obs")
        pm.Normal("y", z, 1, observed=batch[:, 0], dims="obs")
    return model


def of_globals():
    with pm.Model() as model:
        batch = pm.Data("batch", loader_of(DATA, B), dims=("obs", "column"))
        mean = pm.Deterministic("mean", pm.Normal("slope") * batch[:, 1], dims="obs")
        pm.Normal("y", mean, 1, observed=batch[:, 0], dims="obs")
    return model


def amortized(model, batch=None):
    weights = pytensor.shared(np.zeros(2), "weights")
    encode = {"z": lambda batch: pm.Normal.dist(batch @ weights, 1)}
    return pm.Amortized(encode, inputs=[model["batch"] if batch is None else batch], dim="obs")


def steps(model, n=1, **kwargs):
    inference = make_inference(FitOptions(model=model, random_seed=1, **kwargs))
    return inference.fit(n, obj_optimizer=pm.adam(learning_rate=0.1), **QUIETLY)


class TestSteps:
    def test_only_the_rows_of_the_batch_change(self):
        model = of_rows()
        feed(model, DATA, ROWS)
        [table] = steps(model, 5).storage.tables.values()
        changed = (table.parameters() != table.parameters([0])).any(axis=1)
        np.testing.assert_array_equal(np.flatnonzero(changed), sorted(ROWS))

    def test_a_batch_of_another_size(self):
        model = of_rows()
        feed(model, DATA, [5, 6])
        [table] = steps(model, 5).storage.tables.values()
        changed = (table.parameters() != table.parameters([0])).any(axis=1)
        np.testing.assert_array_equal(np.flatnonzero(changed), [5, 6])

    def test_a_row_twice_in_a_batch(self):
        """The loss is that of the rows of the batch, so its step is the sum of two."""
        once, twice = of_rows(), of_rows()
        feed(once, DATA, [5])
        feed(twice, DATA, [5, 5])
        sgd = pm.sgd(learning_rate=0.01)
        tables = []
        for model in (once, twice):
            inference = make_inference(
                FitOptions(model=model, random_seed=1, start_sigma={"z": 1e-6, "mu": 1e-6})
            )
            inference.fit(1, obj_optimizer=sgd, **QUIETLY)
            tables.append(inference.approx.mean_data["z"].values)
        # Equal but for the noise of draws, of standard deviation 1e-6; the loss is that of the batch
        np.testing.assert_allclose(tables[1][5], 2 * tables[0][5], rtol=1e-3)
        assert not tables[1][[k for k in range(N) if k != 5]].any()

    def test_rows_of_nobody_are_refused(self):
        model = of_rows()
        pm.set_data({"batch": DATA[:B]}, model=model)
        inference = make_inference(FitOptions(model=model, random_seed=1))
        before = inference.approx.mean_data
        with pytest.raises(ValueError, match="the row numbers of the current batch are unknown"):
            inference.fit(1, **QUIETLY)
        np.testing.assert_array_equal(inference.approx.mean_data["z"], before["z"])

    def test_losses_are_those_of_data_at_hand(self):
        """All rows in one batch: the losses of the model of the same rows in memory."""
        with pm.Model() as plain:
            batch = pm.Data("batch", DATA, dims=("obs", "column"))
            slope = pm.Normal("slope")
            pm.Normal("y", slope * batch[:, 1], 1, observed=batch[:, 0], dims="obs")
        streamed = of_globals()
        feed(streamed, DATA, range(N))
        found, expected = (
            pm.ADVI(model=model, random_seed=1).fit(20, **QUIETLY).hist
            for model in (streamed, plain)
        )
        np.testing.assert_allclose(found, expected, rtol=1e-10)

    @pytest.mark.parametrize("make", ["returned", "by name", "clone"])
    def test_encoders(self, make):
        model = of_rows()
        guide = amortized(
            model, next(iter(model._streams.values())) if make == "returned" else None
        )
        model = clone_model(model) if make == "clone" else model
        pm.set_data({"batch": DATA[:B]}, model=model)  # whose rows they are does not matter
        approx = steps(model, 30, guide=guide)
        assert np.isfinite(approx.hist).all()
        assert approx.sample(3).posterior["z"].shape == (1, 3, B)

    def test_encoders_that_mix_rows_by_their_values(self):
        model = of_rows()
        index = np.array([1, 2, 3, 0])
        guide = pm.Amortized(
            {"z": lambda batch: pm.Normal.dist(batch[:, 0] + batch[index, 0], 1)},
            inputs=[model["batch"]],
            dim="obs",
        )
        with pytest.raises(ValueError, match="rows"):
            make_inference(FitOptions(model=model, guide=guide))


class TestStarts:
    def test_of_all_rows(self):
        start = np.linspace(-1, 1, N)
        approx = guided_approximation(of_rows(), start={"z": start})
        np.testing.assert_allclose(approx.mean_data["z"], start)
        assert approx.mean_data["z"].sizes == {"obs": N}

    def test_an_initval_for_each_row(self):
        with pm.Model() as model:
            batch = pm.Data("batch", loader_of(DATA, B), dims=("obs", "column"))
            z = pm.Normal("z", dims="obs", initval=np.arange(float(N)))
            pm.Normal("y", z, 1, observed=batch[:, 0], dims="obs")
        feed(model, DATA, ROWS)
        np.testing.assert_array_equal(model.initial_point()["z"], ROWS)
        np.testing.assert_array_equal(guided_approximation(model).mean_data["z"], np.arange(N))

    def test_where_the_data_of_a_row_say_where(self):
        with pm.Model() as model:
            batch = pm.Data("batch", loader_of(DATA, B), dims=("obs", "column"))
            z = pm.Normal("z", batch[:, 1], 1, dims="obs")
            pm.Normal("y", z, 1, observed=batch[:, 0], dims="obs")
        np.testing.assert_array_equal(guided_approximation(model).mean_data["z"], np.zeros(N))


class TestResults:
    def test_rows_need_no_data(self):
        approx = guided_approximation(of_rows())
        tree = approx.sample(3, random_seed=1)
        assert tree.posterior["z"].shape == (1, 3, N)
        assert set(tree.groups) == {"/", "/posterior"}
        some = approx.sample(3, rows=[2, 5], var_names="z", random_seed=1)
        np.testing.assert_array_equal(some.posterior["obs"], [2, 5])

    def test_a_million_rows(self):
        loader = loader_of(DATA, B)
        approx = guided_approximation(of_rows(type(loader)(loader.layout, B, 10**6)))
        assert approx.sample(2, var_names="z").posterior["z"].shape == (1, 2, 10**6)

    def test_deterministics_of_data_are_left_out(self):
        approx = guided_approximation(of_globals())
        with pytest.warns(UserWarning, match="leaves out 'mean'"):
            tree = approx.sample(3)
        assert list(tree.posterior.data_vars) == ["slope"]

    def test_deterministics_of_rows_that_were_given(self):
        model = of_globals()
        approx = guided_approximation(model)
        feed(model, DATA, ROWS)
        found = approx.sample(3, var_names=["slope", "mean"]).posterior
        np.testing.assert_array_equal(found["obs"], ROWS)
        expected = found["slope"].values[..., None] * DATA[ROWS, 1]
        np.testing.assert_allclose(found["mean"].values, expected)

    def test_deterministics_of_data_that_are_not_there(self):
        approx = guided_approximation(of_globals())
        with pytest.raises(
            ValueError, match=r"'mean' of .* needs data.*pm.set_data\({'batch': ...}\)"
        ):
            approx.sample(3, var_names="mean")

    def test_rows_cannot_be_chosen_in_two_ways(self):
        model = of_globals()
        feed(model, DATA, ROWS)
        with pytest.raises(ValueError, match="leave rows out"):
            guided_approximation(model).sample(3, var_names="mean", rows=[1])

    @pytest.mark.parametrize("rows", [None, [1, 2]])
    def test_log_likelihoods_of_data_that_are_not_there(self, rows):
        """Positions among all rows are no places in the batch that a fit leaves in the model."""
        model = of_rows()
        feed(model, DATA, range(N))
        approx = steps(model)
        unset_rows(model)
        with pytest.raises(ValueError, match=r"log_likelihood= of approx.sample needs data.*data="):
            approx.sample(3, rows=rows, log_likelihood=True)

    def test_log_likelihoods_of_rows_that_were_given(self):
        model = of_rows()
        approx = guided_approximation(model)
        feed(model, DATA, ROWS)
        tree = approx.sample(3, log_likelihood=True)
        np.testing.assert_array_equal(tree.log_likelihood["obs"], ROWS)
        expected = stats.norm(tree.posterior["z"].values, 1).logpdf(DATA[ROWS, 0])
        np.testing.assert_allclose(tree.log_likelihood["y"].values, expected)

    def test_places_in_a_batch_are_not_those_of_all_rows(self):
        """A function of rows says so itself, whoever selects them."""
        model = of_globals()
        approx = guided_approximation(model)
        feed(model, DATA, range(N))
        likelihood = likelihood_outputs(model)
        whole = select_rows(model, row_axes(approx), None)
        with pytest.raises(ValueError, match="this needs data of"):
            list(sample_rows(approx, likelihood, whole, 3))

    def test_encoded_variables_are_of_rows_that_were_given(self):
        model = of_rows()
        approx = guided_approximation(model, amortized(model))
        with pytest.raises(ValueError, match=r"'z' of .* needs data"):
            approx.sample(3)
        feed(model, DATA, [5, 6])
        np.testing.assert_array_equal(approx.sample(3).posterior["obs"], [5, 6])
        pm.set_data({"batch": DATA[:3]}, model=model)
        np.testing.assert_array_equal(approx.sample(3).posterior["obs"], [0, 1, 2])

    def test_row_variables_of_rows_of_nobody(self):
        with pm.Model() as model:
            batch = pm.Data("batch", loader_of(DATA, B), dims=("obs", "column"))
            z = pm.Normal("z", dims="obs")
            mean = pm.Deterministic("mean", z + batch[:, 1], dims="obs")
            pm.Normal("y", mean, 1, observed=batch[:, 0], dims="obs")
        approx = guided_approximation(model)
        pm.set_data({"batch": DATA[:2]}, model=model)
        with pytest.raises(ValueError, match="which rows of the fit the data are of is not known"):
            approx.sample(3, var_names="mean")

    def test_nodes_are_of_rows_that_are_known(self):
        model = of_rows()
        approx = guided_approximation(
            model, start={"z": np.arange(float(N))}, start_sigma={"z": 1e-9}
        )
        with pytest.raises(ValueError, match="the row numbers of the current batch are unknown"):
            approx.sample_node(model["z"])
        feed(model, DATA, [5, 6])
        found = approx.sample_node(model["z"]).eval(mode="FAST_COMPILE")
        np.testing.assert_allclose(found, [5, 6], atol=1e-6)

    def test_parts_are_as_the_whole(self):
        model = of_globals()
        feed(model, DATA, range(N))
        approx = guided_approximation(model)
        whole, parts = (
            approx.sample(3, var_names=["mean"], chunk=chunk, random_seed=1).posterior["mean"]
            for chunk in (None, 5)
        )
        np.testing.assert_allclose(whole.values, parts.values)

    def test_plain_approximations(self):
        model = of_globals()
        approx = pm.MeanField(model=model)
        with pytest.warns(UserWarning, match="leaves out 'mean'"):
            assert list(approx.sample(3).posterior.data_vars) == ["slope"]
        feed(model, DATA, ROWS)
        found = approx.sample(3, var_names=["slope", "mean"])
        np.testing.assert_array_equal(found.posterior["obs"], ROWS)
        np.testing.assert_array_equal(found.observed_data["y"], DATA[ROWS, 0])

    def test_log_evidence_is_of_rows_that_were_given(self):
        model = of_rows()
        approx = guided_approximation(model, start_sigma={"z": 0.5**0.5})
        with pytest.raises(ValueError, match="needs data"):
            pm.variational.log_evidence(approx, 2)
        feed(model, DATA, ROWS)
        found = pm.variational.log_evidence(approx, 2, random_seed=1)
        np.testing.assert_array_equal(found["obs"], ROWS)

    def test_diagnose_is_refused(self):
        with pytest.raises(ValueError, match="posterior of all rows"):
            pm.variational.diagnose(guided_approximation(of_rows()))


class TestFunctionsOfData:
    """What the release computes of all data is about the rows that were given."""

    def test_nothing_was_given(self):
        model = of_globals()
        draws = guided_approximation(model).sample(2, var_names="slope")
        for function in (
            lambda: pm.sample_posterior_predictive(draws, model=model),
            lambda: pm.compute_log_likelihood(draws, model=model),
            lambda: pm.compute_deterministics(draws.posterior.dataset, model=model),
            lambda: pm.sample_prior_predictive(2, model=model),
        ):
            with pytest.raises(ValueError, match=r"pm.set_data\({'batch': ...}\)"):
                function()

    def test_of_new_rows(self):
        model = of_globals()
        draws = guided_approximation(model).sample(2, var_names="slope")
        new = np.array([[0.0, 1.0], [0.0, 2.0], [0.0, 3.0]])
        pm.set_data({"batch": new}, model=model, coords={"obs": ["u", "v", "w"]})
        found = pm.compute_deterministics(draws.posterior.dataset, model=model, progressbar=False)
        expected = draws.posterior["slope"].values[..., None] * new[:, 1]
        np.testing.assert_allclose(found["mean"].values, expected)
        np.testing.assert_array_equal(found["obs"], ["u", "v", "w"])
        predicted = pm.sample_posterior_predictive(draws, model=model, progressbar=False)
        assert predicted.posterior_predictive["y"].shape == (1, 2, 3)
        pm.compute_log_likelihood(draws, model=model, progressbar=False)
        logp = -0.5 * expected**2 - 0.5 * np.log(2 * np.pi)  # of zeros, and not scaled
        np.testing.assert_allclose(draws.log_likelihood["y"].values, logp)

    def test_draws_of_other_rows(self):
        model = of_rows()
        approx = guided_approximation(model)
        feed(model, DATA, ROWS)
        for draws in (approx.sample(2), approx.sample(2, rows=sorted(ROWS), var_names=["mu", "z"])):
            with pytest.raises(ValueError, match=r"rows=batch\.rows"):
                pm.sample_posterior_predictive(draws, model=model)
        draws = approx.sample(2, rows=ROWS, var_names=["mu", "z"])
        found = pm.sample_posterior_predictive(draws, model=model, progressbar=False)
        np.testing.assert_array_equal(found.posterior_predictive["obs"], ROWS)

    def test_rows_without_numbers(self):
        """They may be others than those of the draws, unless both say which they are, or none does."""
        model = of_rows()
        draws = guided_approximation(model).sample(2, rows=ROWS, var_names=["mu", "z"])
        pm.set_data({"batch": DATA[ROWS]}, model=model)
        with pytest.raises(ValueError, match=r"draws of 'z' are of the rows .* have no numbers"):
            pm.sample_posterior_predictive(draws, model=model)
        pm.set_data({"batch": DATA[ROWS]}, model=model, coords={"obs": ROWS})
        found = pm.sample_posterior_predictive(draws, model=model, progressbar=False)
        np.testing.assert_array_equal(found.posterior_predictive["obs"], ROWS)

    def test_a_fitted_batch_is_none_that_was_given(self):
        loader = pm.DataLoader(DATA, batch_size=B, seed=1)
        with pm.Model() as model:
            batch = pm.Data("batch", loader, dims=("obs", "column"))
            pm.Normal("y", pm.Normal("mu"), 1, observed=batch[:, 0], dims="obs")
        feed(model, DATA, ROWS)
        assert pm.sample_prior_predictive(2, model=model).prior_predictive["y"].shape == (1, 2, B)
        make_inference(FitOptions(model=model, random_seed=1)).fit(2, data=loader, **QUIETLY)
        assert model["batch"].get_value().any()
        with pytest.raises(ValueError, match="you have set no rows in the model"):
            pm.sample_prior_predictive(2, model=model)
        with pytest.raises(ValueError, match="would see the same rows at each step"):
            make_inference(FitOptions(model=model, random_seed=1)).fit(2, **QUIETLY)


def test_a_length_is_no_row():
    """A variable as long as a row depends on no row, so that draws of it need none."""
    with pm.Model() as model:
        loader = loader_of({"X": DATA, "y": DATA[:, 0]}, B)
        X = pm.Data("X", loader, dims=("obs", "feature"))
        slopes = [pm.Normal("by_dim", dims="feature"), pm.Normal("by_shape", shape=X.shape[1])]
        y = pm.Data("y", loader, dims="obs")
        pm.Normal("lik", X @ (slopes[0] + slopes[1]), 1, observed=y, dims="obs")
    for approx in (pm.MeanField(model=model), guided_approximation(model)):
        found = approx.sample(3).posterior
        assert found["by_dim"].shape == found["by_shape"].shape == (1, 3, 2)
