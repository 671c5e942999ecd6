# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Models of a loader's batches: what the graph says, what is fed, and what it counts for."""

import copy

from dataclasses import dataclass
from io import StringIO
from itertools import combinations, permutations

import cloudpickle
import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
import scipy.stats as st

from pytensor.compile.mode import Mode, get_mode
from pytensor.graph.basic import equal_computations
from rich.console import Console

import pymc as pm
import pymc.dims as pmd

from pymc.minibatch.axis_tracking import BROADCAST, Rows, track_axes
from pymc.minibatch.data_placeholder import available_rows
from pymc.minibatch.plates import subsampled_dims
from pymc.minibatch.stream_index import (
    StreamedRows,
    StreamIndexRV,
    is_stream,
    loader_placeholders,
    stream_index,
)
from pymc.model.fgraph import clone_model, fgraph_from_model, model_from_fgraph
from pymc.model.transform.optimization import freeze_dims_and_data
from pymc.pytensorf import current_length
from tests.minibatch.enumeration import PYTHON, mean_over_batches
from tests.minibatch.streams import feed, loader_of

N, B = 6, 2
DATA = np.random.default_rng(0).normal(size=(N, 3))
FIELDS = {"X": DATA[:, :2], "y": DATA[:, 2]}


def regression(*, by_name=False, batch_size=B):
    with pm.Model() as model:
        batch = pm.Data("batch", loader_of(DATA, batch_size), dims=("obs", "column"))
        batch = model["batch"] if by_name else batch
        w = pm.Normal("w", shape=2)
        mean = pm.Deterministic("mean", batch[:, :2] @ w)
        pm.Normal("y", mean, 1, observed=batch[:, 2], dims="obs")
    return model


def of_fields():
    with pm.Model() as model:
        loader = loader_of(FIELDS, B)
        X = pm.Data("X", loader, dims=("obs", "column"))
        y = pm.Data("y", loader, dims="obs")
        w = pm.Normal("w", shape=2)
        pm.Normal("lik", X @ w, 1, observed=y, dims="obs")
    return model


def by_rows():
    """A value for each row, beside what all share."""
    with pm.Model() as model:
        batch = pm.Data("batch", loader_of(DATA, B), dims=("obs", "column"))
        mu = pm.Normal("mu")
        z = pm.Normal("z", mu, 1, dims="obs")
        pm.Normal("y", z, 1, observed=batch[:, 2], dims="obs")
    return model


def logp_of(model, point, name="y"):
    """The log-probability of a term, in Python."""
    inputs = model.value_vars
    graph = model.logp(model[name])
    evaluate = pytensor.function(inputs, graph, mode=PYTHON, on_unused_input="ignore")
    return evaluate(*[point[var.name] for var in inputs])


W = np.array([0.5, -1.0])


class TestGraph:
    def test_rows_are_traced(self):
        model = regression()
        index = subsampled_dims(model)["obs"]
        assert is_stream(index)
        value = model.rvs_to_values[model["y"]]
        assert track_axes(value) == (Rows(index),)
        assert str(Rows(index)) == "the stream of dim 'obs' (batch_size=2)"

    def test_dim_has_a_length_and_no_coords(self):
        model = regression()
        assert model.coords["obs"] is None
        assert model.coords["column"] == ("a", "b", "c")
        assert model.dim_lengths["obs"].eval() == N

    def test_the_placeholder_is_the_same_as_what_is_returned(self):
        one, other = (regression(by_name=by_name) for by_name in (False, True))
        shared = [
            [
                m["batch"],
                loader_placeholders(m)[0].state,
                m["w"].owner.inputs[0],
                m["y"].owner.inputs[0].owner.inputs[0],
            ]
            for m in (one, other)
        ]
        values = [[m.rvs_to_values[m["y"]], m["mean"]] for m in (one, other)]
        assert equal_computations(
            *values, *([*s[:2], m["w"]] for s, m in zip(shared, (one, other)))
        )

    @pytest.mark.parametrize("mode", ["FAST_RUN", "FAST_COMPILE", "NUMBA", "JAX", "CVM"])
    def test_nothing_of_it_is_compiled(self, mode):
        model = regression()
        graphs = [model["batch"], model.rvs_to_values[model["y"]], stream_index(5, 2)]
        rewritten = pytensor.function([], graphs, mode=Mode("py", get_mode(mode).optimizer))
        ops = {type(node.op) for node in rewritten.maker.fgraph.apply_nodes}
        assert not ops & {StreamedRows, StreamIndexRV}

    def test_it_runs_as_it_is(self):
        model = regression()
        out = pytensor.function(
            [], [model.rvs_to_values[model["y"]], stream_index(5, 2)], mode=Mode("py", None)
        )()
        np.testing.assert_array_equal(out[0], [0, 0])
        np.testing.assert_array_equal(out[1], [-2, -2])

    def test_what_is_the_same_in_all_rows_stays_so(self):
        with pm.Model():
            batch = pm.Data("batch", loader_of(np.zeros((N, 1)), B), dims=("obs", None))
        assert track_axes(batch)[1] is BROADCAST


RESHAPED = {
    "ravel": lambda x: x.ravel(),
    "flatten": lambda x: x.flatten(),
    "a column": lambda x: x.reshape((-1, 1)),
    "repeat": lambda x: pt.repeat(x[:, 0], 2),
    "a number of rows": lambda x: x.reshape((B, -1)),
    "other rows": lambda x: x.reshape((x.shape[0], -1)).ravel(),
}


@pytest.mark.parametrize("build", RESHAPED.values(), ids=RESHAPED)
def test_rows_of_any_length_are_not_taken_for_another_axis(build):
    """A placeholder has no static length, and two axes without one may differ."""
    with pm.Model():
        batch = pm.Data("batch", loader_of(DATA, B), dims=("obs", "column"))
        mu = pm.Normal("mu")
        with pytest.raises(ValueError, match=r"mix(es)? the rows of a minibatch"):
            pm.Normal("y", mu, 1, observed=build(batch))


def test_a_flat_potential_is_refused_whatever_is_said():
    with pm.Model():
        batch = pm.Data("batch", loader_of(DATA, B), dims=("obs", "column"))
        with pytest.raises(ValueError, match="mixes the rows of a minibatch with another axis"):
            pm.Potential("loss", -abs(batch - pm.Normal("mu")).flatten(), total_size=N)


KEPT = {
    "an axis between": (lambda x: x.reshape((-1, 1, 3)), 0),
    "an axis before": (lambda x: x.reshape((1, -1, 3)), 1),
    "a product": (lambda x: (x @ np.ones(3)).reshape((-1, 1)), 0),
    "one column": (lambda x: x[:, :1].flatten(), 0),
    "by its length": (lambda x: x.reshape((x.shape[0], -1)), 0),
    "by the length of another": (lambda x: (2 * x).reshape((x.shape[0], -1)), 0),
    "columns twice": (lambda x: pt.repeat(x, 2, axis=1), 0),
    "a column as often": (lambda x: pt.repeat(x[:, :1], 3, axis=1), 0),
}


@pytest.mark.parametrize(("build", "place"), KEPT.values(), ids=KEPT)
def test_rows_of_any_length_are_followed_to_their_place(build, place):
    with pm.Model() as model:
        batch = pm.Data("batch", loader_of(DATA, B), dims=("obs", "column"))
    axes = track_axes(build(batch))
    assert [k for k, axis in enumerate(axes) if axis == Rows(subsampled_dims(model)["obs"])] == [
        place
    ]


def twins():
    yield "itself", lambda model: model
    yield "do", lambda model: pm.do(model, {"w": W})
    yield "clone", clone_model
    yield "copied graph", lambda model: model_from_fgraph(fgraph_from_model(model)[0])
    yield "deepcopy", copy.deepcopy
    yield "pickle", lambda model: cloudpickle.loads(cloudpickle.dumps(model))
    yield "clone of a clone", lambda model: clone_model(clone_model(model))


@pytest.mark.parametrize("make", [f for _, f in twins()], ids=[name for name, _ in twins()])
class TestClones:
    def test_scale_and_feeds(self, make):
        model = make(regression(by_name=True))
        stream, placeholders = loader_placeholders(model)
        assert (stream.dim, current_length(stream.total), stream.batch_size) == ("obs", N, B)
        assert placeholders == {"batch": model["batch"]}
        feed(model, DATA, [1, 4, 5])
        np.testing.assert_array_equal(stream.state.get_value(), [1, 4, 5])
        logp = logp_of(model, {"w": W})
        rows = st.norm(DATA[:, :2] @ W, 1).logpdf(DATA[:, 2])
        np.testing.assert_allclose(logp, N / 3 * rows[[1, 4, 5]].sum(), rtol=1e-10)

    def test_it_has_rows_of_its_own(self, make):
        model = regression()
        other = make(model)
        feed(other, DATA, [3])
        expected = [3] if other is model else [-2, -2]
        np.testing.assert_array_equal(loader_placeholders(model)[0].state.get_value(), expected)


def test_a_clone_keeps_fields_that_no_term_uses():
    with pm.Model() as model:
        loader = loader_of(FIELDS, B)
        pm.Data("X", loader, dims=("obs", "column"))
        pm.Normal("lik", pm.Normal("mu"), 1, observed=pm.Data("y", loader, dims="obs"), dims="obs")
    other = clone_model(model)
    assert loader_placeholders(other)[1] == {"X": other["X"], "y": other["y"]}
    feed(other, FIELDS, [1, 2, 3])
    np.testing.assert_array_equal(loader_placeholders(other)[0].state.get_value(), [1, 2, 3])


def test_observe_keeps_the_scale():
    with pm.Model() as model:
        batch = pm.Data("batch", loader_of(DATA, B), dims=("obs", "column"))
        pm.Normal("mu")
        pm.Normal("z", model["mu"], 1)
        pm.Normal("y", model["mu"], 1, observed=batch[:, 0], dims="obs")
    observed = pm.observe(model, {"z": 0.5})
    feed(observed, DATA, [0, 1])
    expected = N / 2 * st.norm.logpdf(DATA[:2, 0]).sum()
    np.testing.assert_allclose(logp_of(observed, {"mu": 0.0}, "y"), expected, rtol=1e-10)


@dataclass(frozen=True)
class Case:
    """A model of data at hand and the same of batches, and a point of all rows."""

    full: pm.Model
    streamed: pm.Model
    data: dict
    point: dict


def a1():
    x = np.random.default_rng(1).normal(size=5)

    def model(data):
        with pm.Model() as made:
            x = pm.Data("batch", data, dims="obs")
            pm.Normal("x", pm.Normal("mu"), 1, observed=x, dims="obs")
        return made

    return Case(model(x), model(loader_of(x, B)), {"batch": x}, {"mu": np.array(0.2)})


def a6():
    rng = np.random.default_rng(6)
    x = rng.normal(size=5)
    data = {"x": x, "y": 1 + 2 * x + 0.5 * rng.normal(size=5)}

    def model(x, y):
        with pm.Model() as made:
            x, y = pm.Data("x", x, dims="obs"), pm.Data("y", y, dims="obs")
            slope = pm.Normal("slope", 0, 10)
            pm.Normal("lik", 1 + slope * x, 0.5, observed=y, dims="obs")
        return made

    loader = loader_of(data, B)
    return Case(model(**data), model(loader, loader), data, {"slope": np.array(1.5)})


def a4():
    x = np.random.default_rng(4).normal(size=5)

    def model(data):
        with pm.Model() as made:
            x = pm.Data("batch", data, dims="obs")
            z = pm.Normal("z", pm.Normal("mu"), 1, dims="obs")
            pm.Normal("x", z, 1, observed=x, dims="obs")
        return made

    point = {"mu": np.array(0.3), "z": np.linspace(-1, 1, 5)}
    return Case(model(x), model(loader_of(x, B)), {"batch": x}, point)


def potential():
    x = np.random.default_rng(7).normal(size=5)

    def model(data):
        with pm.Model() as made:
            x = pm.Data("batch", data, dims="obs")
            pm.Potential("loss", -abs(x - pm.Normal("mu")), dims="obs")
        return made

    return Case(model(x), model(loader_of(x, B)), {"batch": x}, {"mu": np.array(0.3)})


def logps(case, batches):
    """The log-probability of each batch; a variable of the rows has those of the batch."""
    values = case.streamed.value_vars
    evaluate = pytensor.function(values, case.streamed.logp(), mode=PYTHON)
    found = []
    for rows in batches:
        feed(case.streamed, case.data, rows)
        point = [case.point[v.name] for v in values]
        found.append(evaluate(*[x[list(rows)] if np.ndim(x) else x for x in point]))
    return np.array(found)


CASES = [a1, a6, a4, potential]


@pytest.mark.parametrize("case", CASES)
class TestExact:
    def test_mean_over_batches_is_the_full_logp(self, case):
        case = case()
        found = logps(case, combinations(range(5), B))
        expected = pytensor.function(case.full.value_vars, case.full.logp(), mode=PYTHON)
        point = [case.point[v.name] for v in case.full.value_vars]
        np.testing.assert_allclose(found.mean(), expected(*point), rtol=1e-10)

    def test_each_batch_counts_as_that_of_a_minibatch(self, case):
        case = case()
        batched = pm.minibatch_model(
            case.full, batch_size={"obs": B}, sampling="without_replacement"
        )
        found = logps(case, combinations(range(5), B))
        expected = mean_over_batches(batched, case.point, reduce=None)[:, 0]
        np.testing.assert_allclose(found, expected, rtol=1e-10)

    def test_a8_passes_with_a_short_last_batch(self, case):
        """Batches of 2, 2 and 1: scaled by the rows that are there."""
        case = case()
        orders = permutations(range(5))
        batches = [tuple(sorted(o[k : k + 2])) for o in orders for k in (0, 2, 4)]
        by_rows = dict(zip(sets := sorted(set(batches)), logps(case, sets)))
        found = np.mean([by_rows[rows] for rows in batches])
        expected = pytensor.function(case.full.value_vars, case.full.logp(), mode=PYTHON)
        point = [case.point[v.name] for v in case.full.value_vars]
        np.testing.assert_allclose(found, expected(*point), rtol=1e-10)


class TestFeeds:
    def test_of_a_model_without_streams(self):
        with pm.Model() as model:
            pm.Data("x", np.zeros(3))
        assert loader_placeholders(model) is None

    def test_fields_share_one_index(self):
        model = of_fields()
        _, placeholders = loader_placeholders(model)
        assert placeholders == {"X": model["X"], "y": model["y"]}
        assert len({Rows(var.owner.inputs[1]) for var in model._streams.values()}) == 1

    def test_by_hand(self):
        """As a trainer does it: nothing but values of shared variables."""
        model = by_rows()
        (stream, placeholders), rows = loader_placeholders(model), [4, 0, 2]
        placeholders["batch"].set_value(DATA[rows])
        stream.state.set_value(np.array(rows))
        z = np.array([0.1, 0.2, 0.3])
        expected = N / 3 * st.norm(z, 1).logpdf(DATA[rows, 2]).sum()
        np.testing.assert_allclose(logp_of(model, {"mu": 0.0, "z": z}), expected, rtol=1e-10)
        prior = N / 3 * st.norm(0.5, 1).logpdf(z).sum()
        np.testing.assert_allclose(logp_of(model, {"mu": 0.5, "z": z}, "z"), prior, rtol=1e-10)

    def test_two_loaders_of_two_dims(self):
        with pm.Model() as model:
            pm.Data("a", loader_of(DATA, B), dims=("obs", "column"))
            pm.Data("b", loader_of(DATA, B), dims=("other", "column"))
        with pytest.raises(ValueError, match="streams of 2 loaders"):
            loader_placeholders(model)

    def test_without_dims_the_total_is_known(self):
        with pm.Model() as model:
            batch = pm.Data("batch", loader_of(DATA, B))
            pm.Normal("y", pm.Normal("mu"), 1, observed=batch[:, 2])
        feed(model, DATA, [1, 2, 3])
        assert loader_placeholders(model)[0].dim is None
        expected = N / 3 * st.norm.logpdf(DATA[1:4, 2]).sum()
        np.testing.assert_allclose(logp_of(model, {"mu": 0.0}), expected, rtol=1e-10)
        assert current_length(loader_placeholders(clone_model(model))[0].total) == N

    def test_a_plain_placeholder_with_a_total_is_fed_by_hand(self):
        with pm.Model() as model:
            batch = pm.Data("batch", np.zeros((B, 3)), dims=("row", "column"))
            pm.Normal("y", pm.Normal("mu"), 1, observed=batch[:, 2], total_size=N)
        pm.set_data({"batch": DATA[:3]}, model=model)
        assert loader_placeholders(model) is None
        expected = N / 3 * st.norm.logpdf(DATA[:3, 2]).sum()
        np.testing.assert_allclose(logp_of(model, {"mu": 0.0}), expected, rtol=1e-10)

    def test_named_dims(self):
        with pm.Model() as model:
            batch = pmd.Data("batch", loader_of(DATA, B), dims=("obs", "column"))
            pmd.Normal("y", pmd.Normal("mu"), 1, observed=batch.isel(column=2))
        feed(model, DATA, [1, 2, 3])
        expected = N / 3 * st.norm.logpdf(DATA[1:4, 2]).sum()
        np.testing.assert_allclose(logp_of(model, {"mu": 0.0}), expected, rtol=1e-10)


class TestOutOfStep:
    """Rows that are not those of the batch."""

    def test_another_loader(self):
        with pm.Model():
            pm.Data("a", loader_of(DATA, B), dims=("obs", "column"))
            with pytest.raises(ValueError, match=r"'obs' has the rows of the stream .* one loader"):
                pm.Data("b", loader_of(DATA, B), dims=("obs", "column"))

    def test_a_minibatch_of_the_dim(self):
        with pm.Model():
            pm.Data("a", loader_of(DATA, B), dims=("obs", "column"))
            with pytest.raises(ValueError, match=r"'obs' has the rows of .* one loader"):
                pm.Minibatch(pm.Data("x", DATA, dims=("obs", "column")), batch_size=B)

    def test_a_minibatch_without_dims(self):
        with pm.Model():
            y = pm.Data("a", loader_of(DATA, B), dims=("obs", "column"))[:, 2]
            x = pm.Minibatch(DATA[:, 0], batch_size=B)
            with pytest.raises(
                ValueError, match=r"two minibatch indexes meet.*from the same loader"
            ):
                pm.Normal("y", x, 1, observed=y, dims="obs")

    def test_data_of_all_rows(self):
        with pm.Model():
            y = pm.Data("a", loader_of(DATA, B), dims=("obs", "column"))[:, 2]
            x = pm.Data("x", DATA[:, 0], dims="obs")
            with pytest.raises(
                ValueError, match=r"values of its own.*from the same loader: give it"
            ):
                pm.Normal("y", x, 1, observed=y, dims="obs")
            with pytest.raises(
                ValueError, match=r"'obs', which a loader subsamples.*the same loader"
            ):
                pm.Normal("z", 0, 1, observed=x, dims="obs")

    def test_a_variable_with_slots_of_the_batch(self):
        with pm.Model():
            y = pm.Data("a", loader_of(DATA, B), dims=("obs", "column"))[:, 2]
            with pytest.raises(ValueError, match="give it dims='obs'"):
                pm.Normal("y", pm.Normal("z", shape=B), 1, observed=y, dims="obs")

    def test_a_mean_over_the_batch(self):
        with pm.Model():
            y = pm.Data("a", loader_of(DATA, B), dims=("obs", "column"))[:, 2]
            with pytest.raises(ValueError, match="mixes the rows"):
                pm.Normal("y", pm.Normal("mu"), 1, observed=y - y.mean(), dims="obs")

    def test_another_total(self):
        with pm.Model():
            y = pm.Data("a", loader_of(DATA, B), dims=("obs", "column"))[:, 2]
            with pytest.raises(ValueError, match="total_size is 7, but the data have 6 rows"):
                pm.Normal("y", pm.Normal("mu"), 1, observed=y, dims="obs", total_size=7)

    def test_batch_size_of_a_fit(self):
        with pytest.raises(ValueError, match="leave batch_size out, the loader has one"):
            pm.fit(1, model=regression(), batch_size=2)


class TestOtherFunctions:
    @pytest.mark.parametrize("function", [pm.sample, pm.find_MAP, pm.sample_smc])
    def test_what_compares_log_probabilities_is_refused(self, function):
        with pytest.raises(ValueError, match=r"the stream of dim 'obs'.*pm.Trainer"):
            function(model=regression())

    def test_remove_minibatch(self):
        with pytest.raises(ValueError, match="come in batches from a loader"):
            pm.remove_minibatch(regression())

    def test_freezing_data(self):
        with pytest.raises(ValueError, match="constants of 'batch'"):
            freeze_dims_and_data(regression())
        assert loader_placeholders(freeze_dims_and_data(regression(), data=[])) is not None

    def test_printing(self):
        model = by_rows()
        assert "obs (2 of 6)" in str(pm.model_to_graphviz(model))
        assert "y ~ Normal(z, 1)" in model.str_repr()
        console = Console(file=StringIO(), width=120)
        console.print(model.table())
        assert "obs[2 of 6]" in console.file.getvalue()


class TestObserve:
    """Observed values that are rows of a stream are those of the clone."""

    @pytest.mark.parametrize("by_name", [False, True])
    def test_rows_are_those_that_the_clone_is_given(self, by_name):
        with pm.Model() as model:
            batch = pm.Data("batch", loader_of(DATA[:, 0], B), dims="obs")
            mu = pm.Normal("mu")
            pm.Normal("y", mu, 1, dims="obs")
        observed = pm.observe(model, {"y": model["batch"] if by_name else 2 * batch})
        assert loader_placeholders(observed)[1] == {"batch": observed["batch"]}
        assert loader_placeholders(observed)[0].state is not loader_placeholders(model)[0].state
        feed(observed, DATA[:, 0], [0, 1])
        factor = 1 if by_name else 2
        expected = N / 2 * st.norm.logpdf(factor * DATA[:2, 0]).sum()
        np.testing.assert_allclose(logp_of(observed, {"mu": 0.0}), expected, rtol=1e-10)

    def test_plain_data(self):
        with pm.Model() as model:
            data = pm.Data("data", [1.0, 2.0])
            mu = pm.Normal("mu")
            pm.Normal("y", mu, 1, shape=data.shape)
        observed = pm.observe(model, {"y": data})
        pm.set_data({"data": [3.0]}, model=observed)
        np.testing.assert_allclose(logp_of(observed, {"mu": 0.0}), st.norm.logpdf(3.0), rtol=1e-10)

    def test_what_is_no_variable(self):
        model = of_fields()
        with pytest.raises(ValueError, match="not a random variable or deterministic"):
            pm.observe(model, {"X": model["y"]})


class TestDo:
    """What is replaced is not fed."""

    def test_a_placeholder(self):
        model = of_fields()
        done = pm.do(model, {"X": np.ones((B, 2))})
        assert loader_placeholders(done)[1] == {"y": done["y"]}
        assert loader_placeholders(clone_model(done))[1].keys() == {"y"}
        pm.set_data({"y": FIELDS["y"][:2]}, model=done)
        expected = N / 2 * st.norm(W.sum(), 1).logpdf(FIELDS["y"][:2]).sum()
        np.testing.assert_allclose(logp_of(done, {"w": W}, "lik"), expected, rtol=1e-10)

    def test_the_rows_are_given(self):
        with pm.Model() as model:
            batch = pm.Data("batch", loader_of(DATA, B), dims=("obs", "column"))
            pm.Normal("y", pm.Normal("mu"), 1, observed=batch[:, 2], dims="obs")
        done = pm.do(model, {batch: DATA[:5]})
        assert loader_placeholders(done) is None
        assert len(available_rows(done, subsampled_dims(done)["obs"]).numbers) == 5
        expected = N / 5 * st.norm.logpdf(DATA[:5, 2]).sum()
        np.testing.assert_allclose(logp_of(done, {"mu": 0.0}), expected, rtol=1e-10)

    def test_a_function_of_the_rows(self):
        model = of_fields()
        with pytest.warns(UserWarning, match="references the variable"):
            done = pm.do(model, {"X": 2 * model["X"]})
        assert "do_X" not in done._streams
