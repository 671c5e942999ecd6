# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0

"""Mean-field effects of groups, fitted at the cost of a batch."""

import itertools

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest

from pytensor.compile.mode import Mode
from pytensor.graph.traversal import toposort
from pytensor.tensor.random.op import RandomVariable

import pymc as pm

from pymc.minibatch.axis_tracking import index_variables
from pymc.minibatch.index import MinibatchIndexRV
from pymc.minibatch.rebuild import rebuild
from pymc.variational import diagnose
from pymc.variational.approximation import guided_approximation
from pymc.variational.fit_objective import FitObjective
from pymc.variational.objectives import objective_of

MODE = {"mode": "FAST_COMPILE"}
USER = np.array([0, 1, 1, 2, 4, 4])
#: In the second row the same as USER
OTHER = np.array([2, 1, 2, 1, 0, 0])
COVARIANCE = np.array([[1.0, 0.3], [0.3, 0.5]])
Y = np.random.default_rng(1).normal(size=6)


def model_of(user=USER, batch_size=2, n_users=6, sampling="epoch", n_reads=1, axis=0):
    """Groups of 0 to 2 rows, with two numbers each; users 3 and 5 have no rows."""
    with pm.Model(coords={"user": range(n_users), "feature": range(2)}) as model:
        u, other, y = pm.Minibatch(
            pm.Data("user_of_row", user, dims="obs"),
            OTHER,
            pm.Data("y", Y, dims="obs"),
            batch_size=batch_size,
            sampling=sampling,
        )
        s = pm.HalfNormal("s")
        if axis:
            effect = pm.Normal("effect", 0, s, dims=("feature", "user")).T
        else:
            effect = pm.MvNormal("effect", np.zeros(2), s**2 * COVARIANCE, dims=("user", "feature"))
        mean = effect[u] if n_reads == 1 else effect[u] - effect[other]
        pm.Normal("rows", mean.sum(-1), 1, observed=y, dims="obs")
    return model


def fit(model, n=3, **kwargs):
    options = {"groups": ["effect"], "random_seed": 1, "progressbar": False, **kwargs}
    return pm.fit(n, model=model, compile_kwargs=MODE, **options)


@pytest.mark.parametrize("n_reads, axis", [(1, 0), (2, 0), (2, 1)])
def test_the_mean_loss_and_gradient_of_all_batches_are_those_of_all_groups(n_reads, axis):
    """With noise that each group has once, nothing is left to chance but the rows."""
    start = np.random.default_rng(2).normal(size=(6, 2))
    start = {"effect": start.T if axis else start, "s": 0.7}
    sigmas = {"start": start, "start_sigma": {"effect": 0.4, "s": 0.2}}
    some = list(itertools.combinations(range(6), 2))
    with_rows, eps = [0, 1, 2, 4], np.random.default_rng(3).normal(size=(6, 2))
    found = {}
    for name, guide in (("by batch", {"effect": "group_mean_field"}), ("dense", None)):
        approx = guided_approximation(model_of(n_reads=n_reads, axis=axis), guide, **sigmas)
        objective = FitObjective(approx, objective_of("elbo", None), reduction="sum")
        storage, index = approx.storage, pt.lvector()
        params = storage.of_batch()
        losses = objective.losses(storage.param_values(params))
        groups = next((table.index for table in approx.tables), index)
        wrt = [*storage.shared, *params.values()]
        gradients = pytensor.grad(losses.reported, wrt, disconnected_inputs="ignore")
        graphs = [losses.reported, groups, *gradients]
        fixed = {}
        for node in toposort(graphs):
            if isinstance(node.op, RandomVariable) and not isinstance(node.op, MinibatchIndexRV):
                of_batch = node.outputs[1].type.ndim == 2
                of_all = eps[with_rows].T if axis else eps[with_rows]
                dense = np.append(0.0, of_all.ravel())[: None if name == "dense" else 1]
                fixed[node.outputs[1]] = pt.constant(eps)[groups] if of_batch else dense
        graphs = rebuild(graphs, fixed)
        graphs = rebuild(graphs, dict.fromkeys(index_variables(graphs), index))
        loss = pytensor.function([index], graphs, mode=Mode("py", None), on_unused_input="ignore")
        each = [loss(np.array(rows)) for rows in some]
        found[name] = np.mean([one[0] for one in each])
        if name == "dense":
            # of s, and of the effects of users with rows
            dense = [np.mean([one[k] for one in each], axis=0) for k in (2, 3)]
            if axis:
                dense = [np.append(one[0], one[1:].reshape(2, -1).T) for one in dense]
        else:
            table = next(iter(params.values()))
            lines = np.zeros((6, 4))
            for one in each:
                np.add.at(lines, one[1], one[2 + wrt.index(table)] / len(each))
            names = [var.name for var in storage.shared]
            by_batch = [
                np.append(
                    np.mean([one[2 + names.index(f"globals_{name}")] for one in each], axis=0),
                    lines[with_rows, 2 * k : 2 * k + 2].ravel(),
                )
                for k, name in enumerate(("mu", "rho"))
            ]
    assert found["by batch"] == pytest.approx(found["dense"], rel=1e-12)
    np.testing.assert_allclose(by_batch, dense, rtol=1e-10, atol=1e-12)


def test_a_row_that_reads_a_group_twice_reads_one_draw():
    approx = guided_approximation(model_of(n_reads=2), {"effect": "group_mean_field"})
    [guide] = [guide for guide in approx.guides_of_batch if guide.plate]
    param_values = approx.storage.param_values(approx.storage.of_batch())
    values = guide.values(guide.draw(param_values, (3,), {}), 1).values()
    batch = guide.batch
    rows = {batch.rows.index: pt.constant([0, 1])}
    graphs = rebuild([*batch.indexes, *values], rows)
    user, other, first, second = pytensor.function([], graphs, mode=Mode("py", None))()
    np.testing.assert_array_equal(user == other, [False, True])
    np.testing.assert_array_equal((first == second).all((0, 2)), [False, True])
    assert first.shape == (3, 2, 2)


@pytest.mark.parametrize("sampling", ["epoch", "without_replacement", "with_replacement"])
def test_only_the_groups_of_batches_change(sampling):
    approx = fit(model_of(np.zeros(6, int), sampling=sampling), obj_n_mc=2)
    [table] = approx.tables
    lines = table.parameters()
    assert (lines[0] != lines[1]).all()
    np.testing.assert_array_equal(lines[1:], np.broadcast_to(lines[1], (5, 4)))
    assert str(approx) == "GuideApproximation{GroupMeanField[effect] & MeanField[s]}"


def test_a_fit_ends_where_the_exact_posterior_is():
    """y ~ N(effect, 1) and effect ~ N(0, 2): normals of known mean and sd, from 1 to 40 rows a group."""
    rng = np.random.default_rng(3)
    user = np.repeat(np.arange(40), np.arange(1, 41))
    y = rng.normal(size=40)[user] + rng.normal(size=user.size)
    with pm.Model(coords={"user": range(50)}) as model:
        u, data = pm.Minibatch(user, y, batch_size=60)
        effect = pm.Normal("effect", 0, 2, dims="user")
        pm.Normal("rows", effect[u], 1, observed=data)
    approx = pm.fit(
        4000, model=model, groups="auto", guide="full_rank", obj_optimizer="tuned", random_seed=1,
        progressbar=False,
    )  # fmt: skip
    assert not approx.tables  # 50 groups are fewer than four batches
    approx = pm.fit(
        4000, model=model, groups=[effect], obj_optimizer="tuned", random_seed=1, progressbar=False
    )
    n_rows = np.bincount(user)
    sd = 1 / np.sqrt(n_rows + 0.25)
    mean = np.bincount(user, y) * sd**2
    found = approx.mean_data["effect"].values[:40]
    assert np.sqrt(np.mean(((found - mean) / sd) ** 2)) < 0.2
    np.testing.assert_allclose(approx.std_data["effect"].values[:40], sd, rtol=0.35)
    assert np.isnan(approx.mean_data["effect"].values[40:]).all()
    empty = approx.sample(2000, random_seed=1).posterior["effect"].values[0][:, 40:]
    assert abs(empty.std() - 2) < 5 * 2 / np.sqrt(2 * empty.size)


@pytest.mark.parametrize("axis", [0, 1])
def test_results_are_those_of_mean_field(axis):
    """Draws, means, log-weights and rows of a dense approximation with the same parameters."""
    model = model_of(axis=axis)
    by_batch = fit(model)
    means, sds = by_batch.mean_data, by_batch.std_data
    assert np.isnan(means["effect"].transpose("user", ...).values[[3, 5]]).all()
    dense = guided_approximation(
        model,
        start={"effect": np.nan_to_num(means["effect"].values), "s_log__": means["s_log__"].values},
        start_sigma={
            "effect": np.nan_to_num(sds["effect"].values, nan=1.0),
            "s": sds["s_log__"].values,
        },
    )
    assert by_batch.mean.eval().shape == dense.mean.eval().shape == (9,)
    np.testing.assert_allclose(np.sort(by_batch.std.eval()), np.sort(dense.std.eval()), rtol=1e-6)
    draws, expected = (a.sample(4000, random_seed=1).posterior for a in (by_batch, dense))
    for name in ("effect", "s"):
        np.testing.assert_allclose(draws[name].mean("draw"), expected[name].mean("draw"), atol=0.1)
        np.testing.assert_allclose(draws[name].std("draw"), expected[name].std("draw"), rtol=0.1)
    options = {"draws": 4000, "random_seed": 1, "progressbar": False, "compile_kwargs": MODE}
    found, known = (diagnose(a, **options) for a in (by_batch, dense))
    assert abs(found.elbo - known.elbo) < 5 * np.hypot(found.elbo_se, known.elbo_se)
    assert by_batch.sample_node(model["effect"], size=3).eval().shape == (3, *means["effect"].shape)
    new = {"user_of_row": np.array([5, 0]), "y": np.zeros(2)}
    predictions = by_batch.sample_posterior_predictive(7, data=new, random_seed=1)
    assert predictions.posterior_predictive["rows"].shape == (1, 7, 2)
    [part] = by_batch.sample_chunks(3, random_seed=1)
    assert part["effect"].shape == (1, 3, *means["effect"].shape)


def test_several_variables_of_nested_groups():
    district = np.array([0, 0, 1, 1, 2, 2])
    with pm.Model(coords={"user": range(6), "district": range(3)}) as model:
        u, y = pm.Minibatch(USER, Y, batch_size=2)
        d = pm.Normal("d", 0, 1, dims="district")
        e = pm.Normal("e", d[district], 1, dims="user")
        pm.Normal("rows", e[u], 1, observed=y)
    approx = fit(model, groups=[d, "e"])
    assert sorted(table.name for table in approx.tables) == ["d", "e"]
    assert approx.sample(5).posterior["e"].shape == (1, 5, 6)
    assert not np.allclose(*(table.parameters()[0].mean() for table in approx.tables))


def test_groups_auto_takes_what_it_can():
    model = model_of(n_users=9)
    assert (
        str(fit(model, groups="auto"))
        == "GuideApproximation{GroupMeanField[effect] & MeanField[s]}"
    )
    # 6 groups are less than 4 times 2 rows
    assert str(fit(model_of(), groups="auto")) == "MeanField{MeanField[s, effect]}"
    assert str(fit(model_of(), groups=False)) == "MeanField{MeanField[s, effect]}"


def test_other_variables_keep_their_guide():
    approx = fit(model_of(), guide="full_rank")
    assert str(approx) == "GuideApproximation{GroupMeanField[effect] & FullRank[s]}"
    approx = fit(model_of(), guide={"s": pm.LowRank(1)})
    assert str(approx) == "GuideApproximation{LowRank[s] & GroupMeanField[effect]}"


@pytest.mark.parametrize(
    "options, error, message",
    [
        ({"groups": "effect"}, TypeError, r"write groups=\['effect'\]"),
        ({"groups": ["nothing"]}, ValueError, "guide of pm.fit has 'nothing'"),
        ({"groups": ["s"]}, ValueError, "groups of pm.fit has 's'"),
        ({"objective": "iwae", "n_particles": 4}, ValueError, "particles of objective='iwae'"),
        ({"guide": ["mean_field"]}, TypeError, "beside a list of guides"),
        ({"guide": {"effect": "mean_field"}}, ValueError, "'effect' twice"),
        ({"method": "svgd"}, ValueError, "has particles of its own: guide, groups"),
    ],
)
def test_what_is_no_group_is_refused(options, error, message):
    with pytest.raises(error, match=message):
        fit(model_of(), **options)


def test_rows_of_groups_are_counted_when_data_change():
    model = model_of()
    inference = pm.fit(0, model=model, groups=["effect"], progressbar=False, compile_kwargs=MODE)
    [guide] = [guide for guide in inference.guides if guide.group_batches]
    [batch] = guide.group_batches
    np.testing.assert_allclose(batch.shares.get_value(), [1, 0.5, 1, 0, 0.5, 0])
    with model:
        pm.set_data({"user_of_row": np.array([0, 0, 0, 1, 2, 4])})
    inference.check_groups()
    np.testing.assert_allclose(batch.shares.get_value(), [1 / 3, 1, 1, 0, 1, 0])

    def change(approx, losses, i):
        pm.set_data({"user_of_row": USER}, model=model)

    with pytest.warns(UserWarning, match="rows of groups were changed during the fit"):
        fit(model, callbacks=[change])


@pytest.mark.parametrize("is_given", [True, False])
def test_groups_of_a_loader_are_those_of_the_data(is_given):
    """A loader in order of the rows, of batches of all rows: the same steps as on data in memory."""
    loader = pm.DataLoader({"u": USER, "y": Y}, batch_size=6, shuffle=False)
    with pm.Model(coords={"user": range(6)}) as model:
        u, y = (pm.Data(name, loader, dims="obs") for name in "uy")
        s = pm.HalfNormal("s")
        effect = pm.Normal("effect", 0, s, dims="user")
        pm.Normal("rows", effect[u], 1, observed=y, dims="obs")
    counts = np.bincount(USER, minlength=6)
    approx = fit(model, groups={effect: counts} if is_given else [effect], data=loader)
    [guide] = [guide for guide in approx.guides if guide.group_batches]
    assert guide.config()["counts"] == {"effect": counts.tolist()}  # so that loading reads no rows
    with pm.Model(coords={"user": range(6)}) as in_memory:
        u, y = pm.Minibatch(USER, Y, batch_size=6)
        s = pm.HalfNormal("s")
        effect = pm.Normal("effect", 0, s, dims="user")
        pm.Normal("rows", effect[u], 1, observed=y)
    assert np.isfinite(approx.hist).all()
    [table], [other] = approx.tables, fit(in_memory).tables
    changed = (table.parameters() != table.parameters()[5]).all(axis=1)
    np.testing.assert_array_equal(changed, counts > 0)
    np.testing.assert_array_equal(
        (other.parameters() != other.parameters()[5]).all(axis=1), changed
    )
    assert approx.sample(3).posterior["effect"].shape == (1, 3, 6)


def test_groups_are_counted_of_the_loader_that_is_fitted():
    def loader_of(user):
        return pm.DataLoader({"u": user, "y": Y}, batch_size=2)

    other = loader_of(np.zeros(6, int))
    with pm.Model(coords={"user": range(6)}) as model:
        u, y = (pm.Data(name, other, dims="obs") for name in "uy")
        pm.Normal("rows", pm.Normal("effect", dims="user")[u], 1, observed=y, dims="obs")
    approx = fit(model, data=loader_of(USER))
    [batch] = [batch for guide in approx.guides for batch in guide.group_batches]
    np.testing.assert_array_equal(batch.counts, np.bincount(USER, minlength=6))


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("model", ["of minibatches", "of all rows", "of other rows"])
def test_a_saved_fit_is_loaded(tmp_path, model, axis):
    approx = fit(model_of(axis=axis))
    approx.save(tmp_path / "fit")
    user = np.zeros(6, int) if model == "of other rows" else USER
    new = model_of(user, axis=axis)
    if model == "of all rows":
        new = pm.remove_minibatch(new)
    again = pm.load_approximation(tmp_path / "fit", model=new)
    draws, expected = (a.sample(4, random_seed=2).posterior for a in (again, approx))
    np.testing.assert_array_equal(draws["effect"], expected["effect"])
    np.testing.assert_array_equal(again.mean_data["effect"], approx.mean_data["effect"])
    assert str(again) == str(approx)
    if model == "of all rows":
        again.save(tmp_path / "again")
        third = pm.load_approximation(tmp_path / "again", model=model_of(axis=axis))
        np.testing.assert_array_equal(
            third.sample(4, random_seed=2).posterior["effect"], draws["effect"]
        )
        found, known = (
            diagnose(a, 500, random_seed=1, progressbar=False, compile_kwargs=MODE)
            for a in (again, approx)
        )
        assert found.elbo == pytest.approx(known.elbo)


def test_a_saved_fit_is_refined_with_all_rows(tmp_path):
    fit(model_of()).save(tmp_path / "fit")
    model = pm.remove_minibatch(model_of())
    approx = pm.load_approximation(tmp_path / "fit", model=model)
    [table] = [var for var in approx.params if var.name == "effect"]
    before = table.get_value()
    inference = pm.variational.KLqp(approx)
    inference.fit(3, progressbar=False, compile_kwargs=MODE)
    moved = (table.get_value() != before).all(axis=1)
    np.testing.assert_array_equal(moved, np.bincount(USER, minlength=6) > 0)
