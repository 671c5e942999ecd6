# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""From full data to minibatches and back: no term, gradient or initial value changes."""

import copy
import subprocess
import sys

from pathlib import Path

import cloudpickle
import numpy as np
import pytensor.tensor as pt
import pytest

import pymc as pm
import pymc.dims as pmd

from pymc.minibatch.plates import model_indexes
from pymc.model.transform.basic import remove_minibatched_nodes
from pymc.model.transform.optimization import freeze_dims_and_data, freeze_model
from tests.minibatch.enumeration import full_logp_and_gradient, mean_over_batches, some_point

N, B = 6, 2
rng = np.random.default_rng(1)
X = rng.normal(size=(N, 3))
Y = rng.normal(size=N)
G = np.array([0, 1, 2, 1, 0, 3])
COORDS = {"obs": range(N), "feature": list("abc"), "group": range(4)}


def by_name(model, values):
    """Split logp and gradient by variable: transformations may change the order of these."""
    sizes = {v.name: int(np.size(model.initial_point(0)[v.name])) for v in model.value_vars}
    ends = np.cumsum([1, *sizes.values()])[:-1]
    return dict(zip(["logp", *sizes], np.split(values, ends), strict=True))


def assert_same_logp(model, full):
    """Assert that the mean over all batches of `model` is the logp of `full`, and so the gradient."""
    point = some_point(full)
    evaluate = mean_over_batches if model_indexes(model) else full_logp_and_gradient
    values = by_name(model, evaluate(model, point))
    expected = by_name(full, full_logp_and_gradient(full, point))
    assert values.keys() == expected.keys()
    for name in expected:
        np.testing.assert_allclose(values[name], expected[name], 1e-10, 1e-10, err_msg=name)


def hierarchical(**initvals):
    x = pm.Data("x", X, dims=("obs", "feature"))
    g = pm.Data("g", G, dims="obs")
    y = pm.Data("y_data", Y, dims="obs")
    b = pm.Normal("b", dims="feature", initval=initvals.get("b"))
    a = pm.Normal("a", dims="group", initval=initvals.get("a"))
    sigma = pm.HalfNormal("sigma", initval=initvals["sigma"](x) if initvals else None)
    mu = pm.Deterministic("mu", x @ b + a[g], dims="obs")
    pm.Potential("penalty", -((y - mu) ** 2), dims="obs")
    pm.Normal("lik", mu, sigma, observed=y, dims="obs")


def raw_observed():
    x = pm.Data("x", X[:, 0], dims="obs")
    pm.Normal("lik", pm.Normal("w") * x, 1, observed=Y, dims="obs")


def matrix_with_global_dim():
    x = pm.Data("x", X, dims=("obs", "feature"))
    pm.Normal("lik", pm.Normal("w", dims="feature") * pm.Normal("s"), 1, observed=x, dims=x_dims)


x_dims = ("obs", "feature")


def dims_that_data_bring():
    x = pm.Data("x", X, dims=("obs", "column"))  # the length of "column" is x.shape[1]
    w = pm.Normal("w", dims="column")
    pm.Normal("lik", x @ w, 1, observed=Y, dims="obs")


def multivariate_of_transposed_data():
    x = pm.Data("x", X.T, dims=("feature", "obs"))
    pm.MvNormal("lik", pm.Normal("mu", dims="feature"), np.eye(3), observed=x.T, dims=x_dims)


def dim_in_the_middle():
    y = np.random.default_rng(2).normal(size=(2, N, 3))
    mu = pm.Normal("mu", dims="feature")
    pm.Normal("lik", mu, 1, observed=y, dims=("group2", "obs", "feature"))


def likelihood_beside():
    mu = pm.Normal("mu")
    pm.Normal("lik", mu, 1, observed=Y, dims="obs")
    pm.Normal("other", mu, 1, observed=np.arange(4.0))


def shape_of_data():
    x = pm.Data("x", X, dims=x_dims)
    w = pm.Normal("w", shape=x.shape[1])
    pm.Normal("lik", x @ w, 1, observed=Y, shape=x.shape[:1], dims="obs")


def named_dims():
    x = pmd.Data("x", X, dims=x_dims)
    y = pmd.Data("y_data", Y, dims="obs")
    pmd.Normal("lik", (x * pmd.Normal("w", dims="feature")).sum("feature"), 1, observed=y)


def named_dims_raw():
    x = pmd.Data("x", X, dims=x_dims)
    y = pmd.as_xtensor(Y, dims=("obs",))
    pmd.Normal("lik", (x * pmd.Normal("w", dims="feature")).sum("feature"), 1, observed=y)


def rows_as_a_number():
    x = pm.Data("x", X[:, 0], dims="obs")
    pm.Normal("lik", pm.Normal("w") * x / x.shape[0], pt.sqrt(x.size), observed=Y, dims="obs")


def dim_length_as_a_number():
    x = pm.Data("x", X[:, 0], dims="obs")
    n = pm.modelcontext(None).dim_lengths["obs"]
    pm.Normal("lik", pm.Normal("w") * x / n, 1, observed=Y, dims="obs")


def rows_as_a_size():
    x = pm.Data("x", X[:, 0], dims="obs")
    n = pm.modelcontext(None).dim_lengths["obs"]
    mu = pm.Normal("w") * pt.ones(x.shape[0]) + pt.zeros_like(x)
    pm.Normal("lik", mu, pt.ones(n), observed=Y, dims="obs")


def rows_as_both():
    x = pm.Data("x", X[:, 0], dims="obs")
    n = x.shape[0]
    pm.Normal("lik", pm.Normal("w") * pt.full((n,), 1 / n), 1, observed=Y, dims="obs")


def standardised_within():
    x = pm.Data("x", X, dims=x_dims)
    z = (x - x.mean(0)) / x.std(0)
    w = pm.Normal("w", 0, 1 / x.std(0), dims="feature")
    pm.Normal("lik", z @ w, 1, observed=Y - Y.mean(), dims="obs")


def groups_counted_within():
    g = pm.Data("g", G, dims="obs")
    pm.Normal("lik", pm.Normal("a", shape=g.max() + 1)[g], 1, observed=Y, dims="obs")


def constants():
    """A design matrix, group indexes and an offset, which is the same for all rows."""
    eta = pt.dot(X, pm.Normal("b", shape=3)) + pm.Normal("a", dims="group")[G]
    pm.Normal("lik", eta + np.full(N, 0.5), np.full(N, 2.0), observed=Y, dims="obs")


def data_without_dims():
    pm.Normal("lik", pm.Data("x", X[:, 0]) * pm.Normal("w"), 1, observed=Y, dims="obs")


def as_many_entries_by_coincidence():
    """Of as many groups as rows: the mean of their prior, which of a larger group they are in."""
    larger, group = np.array([0, 1, 1, 0, 1, 0]), np.array([5, 0, 2, 2, 1, 3])
    mean = pm.Normal("larger", shape=2)[larger] + np.arange(float(N))
    pm.Normal("lik", pm.Normal("a", mean, shape=N)[group], 1, observed=Y, dims="obs")


def index_of_an_index():
    larger, group = np.array([0, 1, 1, 0, 1, 0]), np.array([5, 0, 2, 2, 1, 3])
    in_larger = pt.as_tensor(larger)[group]
    pm.Normal("lik", pm.Normal("a", shape=2)[in_larger], 1, observed=Y, dims="obs")


def mixed_before_parameters():
    """Lags, ranks and row numbers: of all rows, as the model says, and then rows of the batch."""
    x = pm.Data("x", X[:, 0], dims="obs")
    lagged = pt.concatenate([[0.0], x[:-1]])
    mu = pm.Normal("w") * pt.sort(x) + pm.Normal("v") * lagged + pm.Normal("t") * pt.arange(N)
    pm.Normal("lik", mu, 1, observed=Y, dims="obs")


def numbers_as_sizes():
    x = pm.Data("x", X, dims=x_dims)
    eta = pt.concatenate([pt.zeros((N, 1)), x @ pm.Normal("w", shape=(3, 2))], axis=1)
    mu = eta.reshape((N, 3)).sum(1) + pt.broadcast_to(pm.Normal("c"), (N,)) * pt.ones(N).mean()
    pm.Normal("lik", mu, 1 / pt.ones(N).sum(), observed=Y, shape=N, dims="obs")


def reference_category():
    x = pm.Data("x", X, dims=x_dims)
    first = pt.zeros((x.shape[0], 3))
    for k in range(1, 3):
        first = pt.set_subtensor(first[:, k], x @ pm.Normal(f"w{k}", shape=3))
    pm.Categorical("lik", logit_p=first, observed=G % 3, dims="obs")


def picked_by_row_numbers():
    """One element of each row, by arrays of row numbers; and effects of groups of one row."""
    x = pm.Data("x", X, dims=x_dims)
    eta = pm.math.log_softmax(x * pm.Normal("w", shape=3), axis=1)
    one, other = eta[pt.arange(x.shape[0]), G % 3], eta[np.arange(N), G % 2]
    mu = (
        one
        + other
        + pm.Normal("a", shape=N)[np.arange(N)]
        + pm.Normal("z", dims="obs")[pt.arange(N)]
    )
    pm.Normal("lik", mu, 1, observed=Y, dims="obs")


def shapes_of_local_variables():
    z = pm.Normal("z", shape=(N, 3), dims=("obs", "feature"))
    mu = (z * pt.ones(z.shape)).sum(1) / z.shape[1] + pt.zeros(z.shape[0]) + 1 / z.shape[0]
    pm.Normal("lik", mu, 1, observed=Y, dims="obs")


FORMS = [
    value
    for value in list(globals().values())
    if getattr(value, "__code__", None) is not None
    and value.__module__ == __name__
    and value.__code__.co_argcount == 0
]


def built(form, **kwargs):
    with pm.Model(coords={**COORDS, "group2": range(2)}) as model:
        form(**kwargs)
    return model


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
def test_minibatch_model_and_back(form):
    full = built(form)
    batched = pm.minibatch_model(full, {"obs": B}, sampling="without_replacement")
    assert batched["lik"].type.shape.count(B) == 1 or batched["lik"].shape.eval().tolist().count(B)
    assert_same_logp(batched, full)
    assert_same_logp(pm.remove_minibatch(batched), full)
    assert not model_indexes(full)


def test_one_size_is_for_the_shared_leading_dim():
    batched = pm.minibatch_model(built(hierarchical), B, sampling="without_replacement")
    assert_same_logp(batched, built(hierarchical))


def test_blocks_of_two_dims():
    with pm.Model(coords=COORDS) as full:
        pm.Normal("lik", pm.Normal("mu"), 1, observed=X, dims=x_dims)
    sizes = {"obs": B, "feature": 2}
    batched = pm.minibatch_model(full, sizes, sampling="without_replacement")
    assert_same_logp(batched, full)
    assert_same_logp(pm.remove_minibatch(batched), full)


def test_same_draws_as_in_model_minibatch():
    with pm.Model(coords=COORDS) as within:
        x = pm.Data("x", X[:, 0], dims="obs")
        y = pm.Data("y_data", Y, dims="obs")
        x, y = pm.Minibatch(x, y, batch_size=B, sampling="without_replacement")
        pm.Normal("lik", pm.Normal("w") * x, 1, observed=y, dims="obs")
    point = some_point(within)
    outside = pm.minibatch_model(built(raw_observed), B, sampling="without_replacement")
    each = [mean_over_batches(model, point, reduce=None) for model in (within, outside)]
    np.testing.assert_allclose(each[0], each[1], rtol=1e-12)


def through_pickle(model):
    return cloudpickle.loads(cloudpickle.dumps(model))


SURVIVES = [pm.Model.copy, copy.copy, copy.deepcopy, through_pickle]


@pytest.mark.parametrize("transform", [*SURVIVES, freeze_dims_and_data, freeze_model])
def test_survives(transform):
    full = built(hierarchical)
    batched = transform(pm.minibatch_model(full, B, sampling="without_replacement"))
    assert_same_logp(batched, full)
    assert_same_logp(pm.remove_minibatch(batched), full)
    assert_same_logp(remove_minibatched_nodes(batched), full)


def test_minibatch_model_of_frozen_data():
    full = built(hierarchical)
    batched = pm.minibatch_model(freeze_dims_and_data(full), B, sampling="without_replacement")
    assert_same_logp(batched, full)


def test_do_and_observe():
    full = built(hierarchical)
    batched = pm.minibatch_model(full, B, sampling="without_replacement")
    for transform, value in ((pm.do, np.ones(4)), (pm.observe, np.ones(4))):
        assert_same_logp(transform(batched, {"a": value}), transform(full, {"a": value}))


def test_do_gives_a_model_minibatches():
    full = built(hierarchical)
    x, g, y = pm.Minibatch(X, G, Y, batch_size=B, sampling="without_replacement")
    assert_same_logp(pm.do(full, {"x": x, "g": g.astype("int32"), "y_data": y}), full)


def test_do_checks_the_minibatches_it_gives():
    x = pm.Minibatch(X[:, 0], batch_size=B)
    with pytest.raises(ValueError, match="x and y are out of step"):
        pm.do(built(raw_observed), {"x": x})


def test_do_refuses_rows_of_what_it_replaces():
    full = built(hierarchical)
    x, y = pm.Minibatch(full["x"], full["y_data"], batch_size=B)
    with pytest.raises(ValueError, match=r"Use pm\.minibatch_model"):
        pm.do(full, {"x": x, "y_data": y})


def test_observe_scales_what_it_observes():
    with pm.Model() as full:
        pm.Normal("lik", pm.Normal("mu"), 1, observed=Y)
    with pm.Model() as free:
        n = pm.Data("like", np.zeros(B))
        mu = pm.Normal("mu")
        pm.Normal("lik", mu, 1, shape=n.shape)
        pm.Deterministic("shifted", 1 + pm.Normal.dist(mu - 1, 1, shape=n.shape))
    batch = pm.Minibatch(Y, batch_size=B, sampling="without_replacement")
    observed = pm.observe(free, {"lik": batch})
    point = some_point(full)
    for model in (observed, pm.observe(free, {"shifted": batch})):
        values = mean_over_batches(
            model,
            point | model.initial_point() | point,
            terms=[model["lik" if model is observed else "shifted"]],
        )
        expected = full_logp_and_gradient(full, point)[0] + 0.5 * point["mu"] ** 2
        np.testing.assert_allclose(values[0], expected + 0.5 * np.log(2 * np.pi), rtol=1e-10)


def test_pickle_in_a_fresh_process(tmp_path):
    batched = pm.minibatch_model(built(hierarchical), B)
    path = tmp_path / "model.pkl"
    path.write_bytes(cloudpickle.dumps(batched))
    code = (
        "import pickle, sys; import pymc as pm\n"
        "model = pickle.load(open(sys.argv[1], 'rb'))\n"
        "from pymc.minibatch.plates import model_indexes, subsampled_dims\n"
        "[index] = model_indexes(model)\n"
        "assert index.owner.op.batch_size == 2 and list(subsampled_dims(model)) == ['obs']\n"
        "assert pm.remove_minibatch(model)['lik'].shape.eval().tolist() == [6]\n"
    )
    root = Path(pm.__file__).parent.parent
    subprocess.run([sys.executable, "-W", "ignore", "-c", code, path], check=True, cwd=root)


@pytest.mark.parametrize(
    "transform",
    [pm.remove_minibatch, freeze_dims_and_data, freeze_model, *SURVIVES],
    ids=lambda f: f.__name__,
)
def test_initial_values_survive(transform):
    initvals = {"b": np.array([1.0, 2.0, 3.0]), "a": "prior", "sigma": lambda x: x.shape[1] + 0.5}
    full = built(hierarchical, **initvals)
    expected = full.initial_point(1)
    np.testing.assert_allclose(expected["b"], [1, 2, 3])
    np.testing.assert_allclose(expected["sigma_log__"], np.log(3.5))
    batched = pm.minibatch_model(full, B)
    for model in (batched, transform(batched), pm.remove_minibatch(transform(batched))):
        for name, value in model.initial_point(1).items():
            np.testing.assert_allclose(value, expected[name], err_msg=name)


@pytest.mark.parametrize("transform", [pm.do, pm.observe], ids=lambda f: f.__name__)
def test_initial_values_survive_conditioning(transform):
    full = built(hierarchical, b=np.ones(3), a="prior", sigma=lambda x: 0.5)
    model = transform(pm.minibatch_model(full, B), {"a": np.zeros(4)})
    assert model.initial_point(1).keys() == {"b", "sigma_log__"}
    np.testing.assert_allclose(model.initial_point(1)["b"], np.ones(3))


def test_order_of_variables_is_kept():
    full = built(hierarchical)
    for model in (pm.minibatch_model(full, B), pm.remove_minibatch(pm.minibatch_model(full, B))):
        for kind in ("free_RVs", "rvs_to_values", "deterministics", "potentials", "data_vars"):
            assert [v.name for v in getattr(model, kind)] == [v.name for v in getattr(full, kind)]


def test_named_submodel():
    with pm.Model() as model:
        mu = pm.Normal("mu")
        with pm.Model(name="sub"):
            y = pm.Minibatch(Y, batch_size=B, sampling="without_replacement")
            pm.Normal("lik", mu + pm.Normal("c"), 1, observed=y)
    full = pm.remove_minibatch(model)
    assert {"mu", "sub::c", "sub::lik"} == set(full.named_vars)
    assert_same_logp(model, full)
    assert_same_logp(model.copy(), full)


def with_mixed_rows():
    x = pm.Data("x", X[:, 0], dims="obs")
    pm.Normal("lik", pt.cumsum(x * pm.Normal("w")), 1, observed=Y, dims="obs")


def with_adstock():
    x = pm.Data("x", X[:, 0], dims="obs")
    decay = pm.Beta("decay", 2, 2) ** pt.arange(3)
    carried = pt.signal.convolve1d(x, decay, mode="full")[:N]
    pm.Normal("lik", carried, 1, observed=Y, dims="obs")


def with_normalised_rows():
    w = pt.exp(pt.dot(X, pm.Normal("w", shape=3)))
    pm.Normal("lik", w / w.sum(), 1, observed=Y, dims="obs")


def with_slots_for_rows():
    pm.Normal("lik", pm.Normal("z", shape=N) * X[:, 0], 1, observed=Y, dims="obs")


def with_data_of_another_dim():
    x = pm.Data("x", X[:, 0], dims="other")
    pm.Normal("lik", x * pm.Normal("w"), 1, observed=Y, dims="obs")


def with_summed_potential():
    x = pm.Data("x", X[:, 0], dims="obs")
    pm.Potential("term", -((x - pm.Normal("w")) ** 2).sum())


@pytest.mark.parametrize(
    ("form", "error", "message"),
    [
        (
            with_mixed_rows,
            ValueError,
            "'obs' rows are coupled. Cumsum.* does not compute them one by",
        ),
        (
            with_adstock,
            ValueError,
            "rows are coupled. .* as adstock, .* Subsample a dim along which",
        ),
        (with_normalised_rows, ValueError, "mixes the rows of a minibatch"),
        (
            with_slots_for_rows,
            ValueError,
            "does not fit to the rows .*give a free variable with a value",
        ),
        (with_data_of_another_dim, ValueError, "has values of its own there"),
        (with_summed_potential, ValueError, "Potential 'term'"),
    ],
)
def test_refuses_what_has_no_rows(form, error, message):
    with pytest.raises(error, match=message):
        pm.minibatch_model(built(form), {"obs": B})


def test_refuses_rows_with_missing_values():
    with pm.Model(coords=COORDS) as full:
        x = pm.Data("x", X[:, 0], dims="obs")
        missing = np.ma.masked_array(Y, mask=np.arange(N) == 1)
        with pytest.warns(pm.exceptions.ImputationWarning, match="missing values"):
            pm.Normal("lik", x * pm.Normal("w"), 1, observed=missing, dims="obs")
    with pytest.raises(NotImplementedError, match=r"'lik' have missing values .*Drop or fill"):
        pm.minibatch_model(full, {"obs": B})


def test_refuses_a_model_that_has_minibatches():
    with pm.Model(coords=COORDS) as model:
        batch = pm.Minibatch(pm.Data("y", Y, dims="obs"), batch_size=B)
        pm.Normal("lik", pm.Normal("z", dims="obs"), 1, observed=batch, dims="obs")
    with pytest.raises(ValueError, match=rf"minibatches of it already, .*batch_size={B}.*all rows"):
        pm.minibatch_model(model, {"obs": B + 1})


@pytest.mark.parametrize(
    ("batch_size", "error", "message"),
    [
        (None, TypeError, "needs batch_size"),
        (2.0, TypeError, "a whole number"),
        (True, TypeError, "a whole number"),
        (0, ValueError, "batch_size=0 of pm.minibatch_model must be at least 1"),
        ({"rows": 2}, ValueError, "has the dim 'rows', which no data"),
        ({"obs": 7}, ValueError, "batch_size is 7, but the data have 6 rows"),
    ],
)
def test_checks_batch_size(batch_size, error, message):
    with pytest.raises(error, match=message):
        pm.minibatch_model(built(raw_observed), batch_size)


def test_checks_sampling_and_leading_dims():
    with pytest.raises(ValueError, match=r"sampling='other' .* must be one of"):
        pm.minibatch_model(built(raw_observed), B, sampling="other")
    with pytest.raises(ValueError, match="the leading dim that all observed variables share"):
        pm.minibatch_model(built(likelihood_beside), B)


def test_remove_minibatch_names_a_fixed_shape():
    with pm.Model() as model:
        y = pm.Minibatch(Y, batch_size=B)
        pm.Normal("lik", pm.Normal("mu"), 1, observed=y, shape=(B,))
    with pytest.raises(ValueError, match="'lik' has a fixed length of 2 along axis 0"):
        pm.remove_minibatch(model)


def test_deterministics_that_are_rows_of_data():
    data = np.arange(6.0)
    with pm.Model(coords={"obs": range(6)}) as full:
        y = pm.Data("y", data, dims="obs")
        other = pm.Deterministic("other", y, dims="obs")
        pm.Normal("lik", pm.Normal("mu"), 1, observed=other, dims="obs")
    back = pm.remove_minibatch(pm.minibatch_model(full, batch_size=2))
    assert [var.name for var in (*back.deterministics, *back.data_vars)] == ["other", "y"]
    assert back.compile_logp()({"mu": 0.5}) == full.compile_logp()({"mu": 0.5})
    pm.set_data({"y": data + 1}, model=back)
    np.testing.assert_array_equal(back["other"].eval(), data + 1)
