# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0

"""Groups without rows: no fit is changed by them, and their draws are those of the prior given the others."""

import numpy as np
import pytensor.tensor as pt
import pytest

from scipy import stats

import pymc as pm

from pymc.minibatch.group_reads import groups_with_rows
from pymc.variational import diagnose
from pymc.variational.approximation import guided_approximation
from pymc.variational.auto import AutoInference
from pymc.variational.auto.log_posterior import LogPosterior
from pymc.variational.guides.initial_values import InitialValues
from tests.variational.engine import PYTHON

MODE = {"mode": "FAST_COMPILE"}
RNG = np.random.default_rng(1)
GROUP = np.repeat([0, 2, 3, 5], 5)
Y = 1 + RNG.normal(size=6)[GROUP] + RNG.normal(size=20)


def model_of(groups, numbers, *, minibatch=False, distribution=pm.Normal):
    """y ~ N(mu + effect[group], 1), where `numbers` are the groups of the rows."""
    with pm.Model(coords={"group": groups}) as model:
        group, y = pm.Data("number", numbers, dims="obs"), pm.Data("y", Y, dims="obs")
        if minibatch:
            group, y = pm.Minibatch(group, y, batch_size=8)
        mu, s = pm.Normal("mu", 0, 10), pm.HalfNormal("s", 2)
        parameters = (0, s) if distribution is pm.Normal else (s,)
        effect = distribution("effect", *parameters, dims="group")
        pm.Normal("rows", mu + effect[group], 1, observed=y, dims="obs")
    return model


def with_empty(**kwargs):
    return model_of(range(9), GROUP, **kwargs)


def without_empty(**kwargs):
    return model_of([0, 2, 3, 5], np.searchsorted([0, 2, 3, 5], GROUP), **kwargs)


@pytest.mark.parametrize("minibatch", [False, True])
@pytest.mark.parametrize("guide", ["mean_field", "full_rank", pm.LowRank(1), "normalizing_flow"])
def test_a_fit_is_the_one_without_empty_groups(guide, minibatch):
    """Losses and draws of all other entries are equal: nothing of the loss depends on the empty groups."""
    fits = [
        pm.fit(
            3,
            model=make(minibatch=minibatch),
            guide=guide,
            random_seed=1,
            progressbar=False,
            compile_kwargs=MODE,
        )
        for make in (with_empty, without_empty)
    ]
    np.testing.assert_allclose(fits[0].hist, fits[1].hist, rtol=1e-12)
    draws, expected = (fit.sample(3, random_seed=1).posterior for fit in fits)
    np.testing.assert_allclose(draws["mu"], expected["mu"], rtol=1e-12)
    found = draws["effect"].sel(group=expected["group"].values)
    np.testing.assert_allclose(found, expected["effect"], rtol=1e-12)


@pytest.mark.parametrize("distribution", [pm.Normal, pm.HalfNormal, pm.Exponential])
def test_draws_of_empty_groups_are_those_of_the_prior(distribution):
    approx = guided_approximation(with_empty(distribution=distribution), start_sigma={"s": 0.8})
    posterior = approx.sample(4000, random_seed=1).posterior
    empty = posterior["effect"].sel(group=[1, 4, 6, 7, 8]).values[0]
    scale = (
        1 / posterior["s"].values[0] if distribution is pm.Exponential else posterior["s"].values[0]
    )
    law = {pm.Normal: stats.norm, pm.HalfNormal: stats.halfnorm, pm.Exponential: stats.expon}
    uniform = law[distribution].cdf(empty / scale[:, None])
    # Kolmogorov-Smirnov, of each empty group: they are independent given the scale
    assert min(stats.kstest(column, "uniform").pvalue for column in uniform.T) > 1e-5
    ranks = stats.spearmanr(np.column_stack([uniform, scale])).statistic
    assert abs(ranks[np.triu_indices(6, 1)]).max() < 5 / np.sqrt(4000)


def test_empty_groups_of_empty_groups_are_drawn_in_order():
    """District 1 has users 3 to 5 only, who have no rows: its draw comes first, theirs given it."""
    with pm.Model(coords={"district": range(2), "user": range(6)}) as model:
        d = pm.Normal("d", 5, 1, dims="district")
        u = pm.Normal("u", d[np.array([0, 0, 0, 1, 1, 1])], 0.01, dims="user")
        pm.Normal("rows", u[np.arange(20) % 3], 1, observed=Y)
    approx = guided_approximation(model)
    assert {rv.name: g.positions.tolist() for rv, g in approx.groups_with_rows.items()} == {
        "d": [0],
        "u": [0, 1, 2],
    }
    draws = approx.sample(2000, random_seed=1).posterior
    difference = draws["u"].values[0, :, 3:] - draws["d"].values[0, :, 1:]
    assert abs(difference.std() - 0.01) < 5 * 0.01 / np.sqrt(2 * 6000)
    assert abs(draws["d"].values[0, :, 1].std() - 1) < 5 / np.sqrt(4000)
    term = next(term for term in approx.terms if term.name == "d")
    assert term.logp.eval({model.rvs_to_values[d]: [5.0, 1e9]}) == pytest.approx(
        -0.5 * np.log(2 * np.pi)
    )


def test_cells_without_rows_are_left_out():
    u, i = np.arange(20) % 3, np.arange(20) % 2
    with pm.Model(coords={"user": range(4), "item": range(3), "feature": range(2)}) as model:
        s = pm.HalfNormal("s")
        effect = pm.Normal("effect", 0, s, dims=("user", "item", "feature"))
        pm.Normal("rows", effect[u, i].sum(-1), 1, observed=Y)
    approx = pm.fit(2, model=model, progressbar=False, compile_kwargs=MODE)
    assert approx.params[0].get_value().shape == (1 + 6 * 2,)
    means = approx.mean_data["effect"]
    assert means.shape == (4, 3, 2)
    has_rows = np.zeros((4, 3), dtype=bool)
    has_rows[u, i] = True
    np.testing.assert_array_equal(np.isfinite(means).all("feature"), has_rows)
    draws = approx.sample(1000, random_seed=1).posterior
    standard = draws["effect"].values[0][:, ~has_rows] / draws["s"].values[0][:, None, None]
    assert stats.kstest(standard.ravel(), "norm").pvalue > 1e-5


def test_means_of_empty_groups_are_not_a_number():
    approx = guided_approximation(with_empty(), start_sigma={"effect": 0.5})
    for data, value in ((approx.mean_data, 0.0), (approx.std_data, 0.5), (approx.state.mean, 0.0)):
        expected = np.full(9, np.nan)
        expected[[0, 2, 3, 5]] = value
        np.testing.assert_allclose(data["effect"], expected)
    assert approx.mean.eval().shape == approx.std.eval().shape == (6,)


def test_all_ways_of_drawing_have_empty_groups():
    model = with_empty(minibatch=True)
    approx = guided_approximation(model)
    assert approx.sample_node(model["effect"], size=7).eval().shape == (7, 9)
    assert approx.sample_node(model["effect"]).eval().shape == (9,)
    parts = list(approx.sample_chunks(5, random_seed=1))
    assert np.isfinite(parts[0]["effect"]).all()
    # New rows of empty groups
    new = {"number": np.array([1, 8, 0]), "y": np.zeros(3)}
    predictions = approx.sample_posterior_predictive(4000, data=new, random_seed=1)
    rows = predictions.posterior_predictive["rows"].values[0]
    assert rows.shape == (4000, 3)
    draws = approx.sample(4000, data=new, var_names=["mu", "s"], random_seed=1).posterior
    expected = np.sqrt(draws["mu"].var() + (draws["s"] ** 2).mean() + 1)
    np.testing.assert_allclose(rows[:, :2].std(axis=0), expected, rtol=0.1)


@pytest.mark.parametrize("minibatch", [False, True])
def test_log_weights_are_those_without_empty_groups(minibatch):
    """The density of empty groups and their prior cancel, so that no weight depends on them."""
    start = {"start": {"mu": 1.0}, "start_sigma": {"mu": 0.2, "effect": 0.3, "s": 0.1}}
    found = [
        diagnose(
            guided_approximation(make(minibatch=minibatch), **start),
            draws=100,
            random_seed=1,
            progressbar=False,
            compile_kwargs=MODE,
        )
        for make in (with_empty, without_empty)
    ]
    assert found[0].elbo == pytest.approx(found[1].elbo, rel=1e-10)
    assert found[0].khat == pytest.approx(found[1].khat, rel=1e-6)


def test_a_guide_of_the_user_and_particles_have_all_groups():
    model = with_empty()
    with pm.Model(coords={"group": range(9)}) as guide:
        pm.Normal("effect", pm.Data("loc", np.zeros(9)), 1, dims="group")
    assert not guided_approximation(model, [guide]).groups_with_rows
    assert pm.Empirical(size=3, model=model).histogram.get_value().shape == (3, 11)
    # The prior is only for what no other guide is for
    approx = guided_approximation(model, {"effect": "full_rank"})
    assert [g.sites[0].name for g in approx.prior_guides] == ["effect"]


def test_what_a_guide_of_rows_depends_on_keeps_all_groups():
    """A structured guide is affine in all entries, which a step and its results have to give the same values."""
    with pm.Model(coords={"group": range(9), "obs": range(20)}) as model:
        group, y = pm.Minibatch(
            pm.Data("g", GROUP, dims="obs"), pm.Data("y", Y, dims="obs"), batch_size=8
        )
        effect = pm.Normal("effect", 0, 1, dims="group")
        z = pm.Normal("z", effect[group], 1, dims="obs")
        pm.Normal("rows", z, 1, observed=y, dims="obs")
    assert guided_approximation(model).groups_with_rows
    assert not guided_approximation(model, {"z": pm.Structured()}).groups_with_rows
    with pytest.raises(ValueError, match="'effect', but the guide 'structured' of other variables"):
        pm.fit(1, model=model, guide={"z": pm.Structured()}, groups=["effect"], progressbar=False)


def test_parents_of_a_variable_with_a_guide_of_its_own_keep_their_groups():
    with pm.Model(coords={"district": range(4), "group": range(9)}) as model:
        d = pm.Normal("d", 0, 1, dims="district")
        effect = pm.Normal("effect", d[np.arange(9) % 4], 1, dims="group")
        pm.Normal("rows", effect[GROUP * 0], 1, observed=Y)
    assert [rv.name for rv in guided_approximation(model).groups_with_rows] == ["d", "effect"]
    with pm.Model() as guide:
        pm.Normal("effect", pm.Data("loc", np.zeros(9)), 1)
    assert not guided_approximation(model, [guide]).groups_with_rows


@pytest.mark.parametrize("prior", ["Flat", "CustomDist"])
def test_a_prior_that_cannot_be_drawn_keeps_all_groups(prior):
    with pm.Model() as model:
        if prior == "Flat":
            effect = pm.Flat("effect", shape=9)
        else:
            effect = pm.CustomDist("effect", logp=lambda value: -(value**2), shape=9)
        pm.Normal("rows", effect[GROUP], 1, observed=Y)
    approx = guided_approximation(model)
    assert not approx.groups_with_rows
    assert approx.sample(3).posterior["effect"].shape == (1, 3, 9)


def test_replacements_with_rows_of_empty_groups_are_refused():
    model = with_empty()
    objective = pm.ADVI(model=model).objective
    number, y = model["number"], model["y"]
    objective(1, more_replacements={number: np.zeros(5, "int32"), y: np.zeros(5)})
    with pytest.raises(ValueError, match="more_replacements has rows of 1 groups of 'effect'"):
        objective(1, more_replacements={number: np.full(5, 7, "int32"), y: np.zeros(5)})


def test_fewer_cells_are_no_new_groups():
    with pm.Model() as model:
        i, j = pm.Data("i", np.array([0, 0, 1])), pm.Data("j", np.array([0, 1, 0]))
        cell = pm.Normal("cell", shape=(3, 2))
        pm.Normal("rows", cell[i, j], 1, observed=np.zeros(3))
    approx = guided_approximation(model)
    assert approx.groups_with_rows[cell].positions.tolist() == [0, 1, 2]
    with model:
        pm.set_data({"i": np.array([0, 0, 0])})  # which is the first line, of an axis of three
    approx.check_groups()
    with model:
        pm.set_data({"i": np.array([0, 0, 2])})
    with pytest.raises(ValueError, match=r"rows of 1 groups of 'cell' .* 4"):
        approx.check_groups()


@pytest.mark.parametrize("minibatch", [False, True])
def test_the_log_posterior_is_the_one_without_empty_groups(minibatch):
    model, other = (make(minibatch=minibatch) for make in (with_empty, without_empty))
    groups = {rv.name: found for rv, found in groups_with_rows(model).items()}
    assert list(groups) == ["effect"]
    found, expected = (
        LogPosterior.of(each, InitialValues.from_model(each), groups=of_each, mode=PYTHON)
        for each, of_each in ((model, groups), (other, {}))
    )
    points = np.random.default_rng(1).normal(size=(3, 6))
    rows = (np.arange(12).reshape(3, 4),) if minibatch else None
    for one, two in zip(found(points, rows), expected(points, rows)):
        np.testing.assert_allclose(one, two, rtol=1e-12)


def test_a_fit_without_settings_leaves_empty_groups_out(tmp_path):
    options = {"method": "auto", "random_seed": 1, "progressbar": False}
    model = with_empty(minibatch=True)
    approx, expected = (pm.fit(model=each, **options) for each in (model, without_empty()))
    assert approx.report.settings["groups_with_rows"] == "effect: 4 of 9"
    assert approx.params[0].get_value().shape == expected.params[0].get_value().shape
    found, known = (fit.sample(4000, random_seed=1).posterior for fit in (approx, expected))
    for name in ("mu", "s"):
        # Draws of 1,000 effective ones or more each
        assert abs(found[name].mean() - known[name].mean()) < 5 * known[name].std() * np.sqrt(0.002)
    standard = found["effect"].sel(group=[1, 4, 6, 7, 8]) / found["s"]
    assert stats.kstest(standard.values.ravel(), "norm").pvalue > 1e-5
    assert np.isfinite(approx.sample(5, correct=False).posterior["effect"]).all()
    approx.save(tmp_path / "fit")
    again = pm.load_approximation(tmp_path / "fit", model=with_empty())
    np.testing.assert_array_equal(
        *(fit.sample(5, random_seed=1).posterior["effect"] for fit in (again, approx))
    )


def test_a_fit_without_settings_is_made_anew_for_groups_that_get_rows():
    model = with_empty()
    inference = AutoInference(model, random_seed=1)
    inference.fit(max_gradients=100, progressbar=False, compile_kwargs=MODE)
    with model:
        pm.set_data({"number": np.where(GROUP == 5, 7, GROUP)})
    with pytest.raises(ValueError, match="rows of 1 groups of 'effect' that had none"):
        inference.refine(max_gradients=100, progressbar=False)


def test_groups_that_get_rows_need_a_new_fit():
    model = with_empty()
    inference = pm.ADVI(model=model)
    inference.fit(1, progressbar=False, compile_kwargs=MODE)
    with model:
        pm.set_data({"number": np.where(GROUP == 5, 3, GROUP)})  # fewer groups than before
    inference.refine(1, progressbar=False)
    with model:
        pm.set_data({"number": np.where(GROUP == 5, 7, GROUP)})
    message = "rows of 1 groups of 'effect' that had none when the fit was made: 7"
    with pytest.raises(ValueError, match=message):
        inference.refine(1, progressbar=False)
    with pytest.raises(ValueError, match=message):
        inference.fit(1, progressbar=False, compile_kwargs=MODE)
    again = pm.fit(1, model=model, progressbar=False, compile_kwargs=MODE)
    assert again.groups_with_rows[model["effect"]].positions.tolist() == [0, 2, 3, 7]


def test_groups_that_get_rows_during_a_fit_are_told():
    model = with_empty()

    def change(approx, losses, i):
        pm.set_data({"number": np.where(GROUP == 5, 7, GROUP)}, model=model)

    with pytest.warns(UserWarning, match="rows of groups were changed during the fit"):
        pm.fit(2, model=model, callbacks=[change], progressbar=False, compile_kwargs=MODE)


def test_a_saved_fit_keeps_its_groups(tmp_path):
    approx = pm.fit(2, model=with_empty(), random_seed=1, progressbar=False, compile_kwargs=MODE)
    assert approx.report.settings["groups_with_rows"] == "effect: 4 of 9"
    approx.save(tmp_path / "fit")
    # Other data, such as those of predictions
    again = pm.load_approximation(tmp_path / "fit", model=model_of(range(9), (GROUP + 1) % 6))
    draws, expected = (fit.sample(5, random_seed=1).posterior for fit in (again, approx))
    np.testing.assert_array_equal(draws["effect"], expected["effect"])
    by_guide = guided_approximation(with_empty(), pm.LowRank(1))
    by_guide.save(tmp_path / "low")
    again = pm.load_approximation(tmp_path / "low", model=model_of(range(9), np.arange(20) % 9))
    assert [g.total for g in again.groups_with_rows.values()] == [9]


def test_an_entry_is_named_by_its_group():
    approx = guided_approximation(with_empty())
    [guide] = approx.guides
    assert [guide.layout.entry(k) for k in range(2, 6)] == [f"effect[{k}]" for k in (0, 2, 3, 5)]
    values = {approx.params[0]: np.array([0, 0, 0, 0, np.nan, 0.0])}
    assert approx.bad_parameters(values) == [("effect", "3")]


def test_the_groups_of_the_release_are_of_whole_variables():
    with pytest.raises(NotImplementedError, match="no form as PyMC's groups"):
        pm.MeanField(model=with_empty()).groups


def test_an_index_out_of_bounds_is_an_error_before_a_step():
    with pytest.raises(IndexError, match="'effect' has 4 groups"):
        pm.fit(1, model=model_of(range(4), GROUP), progressbar=False)


def test_a_constant_data_index_is_enough():
    with pm.Model() as model:
        effect = pm.Normal("effect", 0, pm.HalfNormal("s"), shape=4)
        pm.Normal("rows", effect[pt.constant(np.arange(20) % 3)], 1, observed=Y)
    assert guided_approximation(model).params[0].get_value().shape == (4,)
