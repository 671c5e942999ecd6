# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Particles share one batch a step: the graphs of approximations, over all batches."""

from itertools import combinations

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest

from pytensor.compile.mode import Mode
from pytensor.graph.replace import graph_replace
from pytensor.graph.traversal import ancestors
from pytensor.scan.op import Scan

import pymc as pm

from pymc.minibatch.index import MinibatchIndexRV
from pymc.minibatch.stream_index import StreamedRows, stream_index
from pymc.variational import vectorize
from pymc.variational.approximation import guided_approximation
from pymc.variational.operators import KSD
from pymc.variational.test_functions import rbf

PYTHON = Mode(linker="py", optimizer="fast_compile")
N, B = 5, 2
rng = np.random.default_rng(2)
X, Y = rng.normal(size=N), rng.normal(size=N)
PARTICLES = rng.normal(size=(3, 2))


def regression(batch_size=None):
    """Two terms on one index, so that the log-probability holds clones of it."""
    with pm.Model() as model:
        x, y = pm.Data("x", X), pm.Data("y", Y)
        if batch_size is not None:
            x, y = pm.Minibatch(x, y, batch_size=batch_size)
        b = pm.Normal("b", shape=2)
        pm.Normal("first", b[0] * x, 1, observed=y)
        pm.Normal("second", b[1], 2, observed=x)
    return model


def index_nodes(graph):
    return {
        var.owner
        for var in ancestors(graph)
        if var.owner is not None and isinstance(var.owner.op, MinibatchIndexRV)
    }


def scans(graph):
    return {v.owner.op for v in ancestors(graph) if v.owner and isinstance(v.owner.op, Scan)}


def mean_over_batches(output):
    """Average `output` over all batches of its one index."""
    nodes = index_nodes([output])
    assert len({node.inputs[0] for node in nodes}) == 1
    rows = pt.lvector("rows", shape=(B,))
    output = graph_replace(output, {node.outputs[1]: rows for node in nodes}, strict=False)
    evaluate = pytensor.function([rows], output, mode=PYTHON)
    return np.mean([evaluate(np.array(c)) for c in combinations(range(N), B)], axis=0)


def at_particles(approx):
    """The log-probability at each of three particles."""
    [random] = approx.symbolic_randoms
    return graph_replace(
        approx.sized_symbolic_logp, {random: pt.as_tensor(PARTICLES)}, strict=False
    )


@pytest.fixture(params=["at once", "one by one"])
def by_scan(request, monkeypatch):
    """Particles at once, or in a Scan as they are where their model is too large for that."""
    if request.param == "one by one":
        monkeypatch.setattr(vectorize, "LARGEST", 0)
    return request.param == "one by one"


@pytest.mark.parametrize("approximation", [pm.MeanField, pm.FullRank])
def test_particles_share_one_batch(approximation, by_scan):
    """The mean over all batches, for each particle, is its full log-probability."""
    logps = at_particles(approximation(model=regression(B)))
    assert len({node.inputs[0] for node in index_nodes([logps])}) == 1
    assert bool(scans([logps])) is by_scan
    assert not any(
        isinstance(n.op, MinibatchIndexRV) for s in scans([logps]) for n in s.fgraph.toposort()
    )
    full = at_particles(approximation(model=regression()))
    np.testing.assert_allclose(mean_over_batches(logps), full.eval(mode=PYTHON), rtol=1e-10)


@pytest.mark.parametrize("n_particles", [1, 4])
@pytest.mark.parametrize("method", ["advi", "fullrank_advi"])
def test_step_draws_one_index(method, n_particles, by_scan):
    with regression(B):
        inference = pm.ADVI() if method == "advi" else pm.FullRankADVI()
    step = inference.objective.step_function(
        obj_n_mc=n_particles, score=True, compile_kwargs={"mode": PYTHON}
    )
    nodes = step.maker.fgraph.toposort()
    assert sum(isinstance(node.op, MinibatchIndexRV) for node in nodes) == 1
    inner = [n for node in nodes if isinstance(node.op, Scan) for n in node.op.fgraph.toposort()]
    assert bool(inner) is (by_scan and n_particles > 1)
    assert not any(isinstance(node.op, MinibatchIndexRV) for node in inner)
    assert np.isfinite(step())


def stein_direction(model):
    """The direction that SVGD moves its particles in, and what it is divided by."""
    with model:
        approx = pm.Empirical(size=len(PARTICLES))
    approx.params[0].set_value(PARTICLES)
    operator = KSD(approx)
    direction = operator.apply(rbf)
    return direction * approx.symbolic_normalizing_constant


def test_svgd_direction():
    """Its mean over all batches is that of the full data; the release refuses minibatches."""
    np.testing.assert_allclose(
        mean_over_batches(stein_direction(regression(B))),
        stein_direction(regression()).eval(mode=PYTHON),
        rtol=1e-10,
    )


def test_asvgd_runs():
    with regression(B), pytest.warns(UserWarning, match="experimental inference Operator"):
        approx = pm.fit(
            3, method="asvgd", progressbar=False, compile_kwargs={"mode": PYTHON}, obj_n_mc=3
        )
    assert np.isfinite(approx.mean.eval(mode=PYTHON)).all()


def test_sample_node_uses_one_batch():
    """Of all draws: the terms of a batch at other parameters, not other rows."""
    model = regression(B)
    approx = pm.MeanField(model=model)
    _, rows = model.rvs_to_values[model["first"]], model.rvs_to_values[model["second"]]
    draws = approx.sample_node(rows + 0 * model["b"].sum(), size=4)
    assert draws.type.ndim == 2
    for values in pm.compile([], draws, mode=PYTHON)():
        assert np.isin(values, X).all()
    values = pm.compile([], draws, mode=PYTHON)()
    np.testing.assert_array_equal(values, values[[0] * 4])


def test_sample_node_on_other_data():
    model = regression(B)
    approx = pm.MeanField(model=model)
    batch = model.rvs_to_values[model["second"]]
    node = approx.sample_node(
        batch + 0 * model["b"].sum(), size=4, more_replacements={batch: pt.as_tensor(X[:B])}
    )
    np.testing.assert_array_equal(node.eval(mode=PYTHON), [X[:B]] * 4)


class TestMoreReplacements:
    def loss(self, model, replacements):
        approx = pm.MeanField(model=model)
        loss = approx.set_size_and_deterministic(approx.datalogp, 1, 0, replacements)
        # At b = 0, whatever the noise
        approx.params[0].set_value(np.zeros(2))
        approx.params[1].set_value(np.full(2, -50.0))
        return loss

    def test_without_total_size(self):
        model = regression()
        x, y = pm.Minibatch(model["x"], model["y"], batch_size=B)
        with pytest.raises(ValueError, match=r"axis 0 of 'first', which was made without total_s"):
            self.loss(model, {model["x"]: x, model["y"]: y})

    def test_x_without_y(self):
        model = regression()
        x = pm.Minibatch(model["x"], batch_size=B)
        with pytest.raises(ValueError, match="x and y are out of step"):
            self.loss(model, {model["x"]: x})

    def test_terms_that_are_not_touched(self):
        """A term with a latent that is observed: its rows are known by the model alone."""
        with pm.Model() as model:
            x, y = pm.Minibatch(X, Y, batch_size=B)
            seen = pm.Normal("seen", pm.Normal("b", shape=2)[0], 1, observed=x)
            pm.Normal("on_seen", seen, 1, observed=y)
            data = pm.Data("data", Y)
            pm.Normal("other", 0, 1, observed=data, total_size=N)
        assert self.loss(model, {data: pm.Minibatch(data, batch_size=B)}).type.ndim == 0

    def test_with_total_size(self):
        with pm.Model() as model:
            y = pm.Data("y", Y)
            pm.Normal("lik", pm.Normal("b", shape=2)[0], 1, observed=y, total_size=N)
        batch = pm.Minibatch(y, batch_size=B)
        loss = self.loss(model, {y: batch})
        full = -0.5 * (Y**2 + np.log(2 * np.pi)).sum()
        np.testing.assert_allclose(mean_over_batches(loss), full, rtol=1e-10)

    @pytest.mark.parametrize("guided", [False, True])
    def test_by_name(self, guided):
        """In nodes, of both kinds of approximations: the rows may be fewer."""
        model = regression()
        approx = guided_approximation(model) if guided else pm.MeanField(model=model)
        node = model["x"] + 0 * model["b"].sum()
        for key in ("x", model["x"]):
            new = approx.sample_node(node, size=2, more_replacements={key: X[:3] + 1})
            np.testing.assert_array_equal(new.eval(mode=PYTHON), [X[:3] + 1] * 2)
        match = r"more_replacements has 'X', but the variables of the model are \['x', 'y', "
        with pytest.raises(ValueError, match=match):
            approx.sample_node(node, more_replacements={"X": X})
        with pytest.raises(TypeError, match="the key 0 of type int: write a variable, or its name"):
            approx.sample_node(node, more_replacements={0: X})
        with pytest.raises(TypeError, match=r"has to be a dict .*\{'x': new_rows\}"):
            approx.sample_node(node, more_replacements=[X])
        with pytest.raises(ValueError, match="more_replacements has 'x' twice, by its name"):
            approx.sample_node(node, more_replacements={"x": X, model["x"]: X})

    def test_by_name_in_a_fit(self):
        with pm.Model() as model:
            y = pm.Data("y", Y)
            pm.Normal("lik", pm.Normal("b", shape=2)[0], 1, observed=y)
        other = -0.5 * ((Y[:2] + 1) ** 2 + np.log(2 * np.pi)).sum()
        for replaced in (self.loss(model, {"y": Y[:2] + 1}), self.loss(model, {y: Y[:2] + 1})):
            np.testing.assert_allclose(replaced.eval(mode=PYTHON), other, rtol=1e-10)
        with pytest.raises(ValueError, match="more_replacements has 'Y', but the variables of the"):
            pm.ADVI(model=model).fit(1, more_replacements={"Y": Y}, progressbar=False)

    def test_by_name_in_graphs(self):
        model = regression()
        approx = pm.MeanField(model=model)
        one = approx.symbolic_single_sample(2 * model["x"], more_replacements={"x": X[:3]})
        np.testing.assert_array_equal(one.eval(mode=PYTHON), 2 * X[:3])
        made = approx.set_size_and_deterministic(2 * model["x"], 1, 0, {"x": X[:3]})
        np.testing.assert_array_equal(made.eval(mode=PYTHON), 2 * X[:3])

    def test_minibatch_of_other_data(self):
        """Whose number of rows is not the one in the scale of the model."""
        with pm.Model() as model:
            batch = pm.Minibatch(pm.Data("y", Y), batch_size=B)
            pm.Normal("lik", pm.Normal("b", shape=2)[0], 1, observed=batch)
        other = pm.Minibatch(np.zeros(N + 1), batch_size=B)
        with pytest.raises(ValueError, match="total_size is 5, but the data have 6 rows"):
            self.loss(model, {batch: other})

    def test_potential(self):
        with pm.Model() as model:
            y = pm.Data("y", Y)
            pm.Potential("term", -((y - pm.Normal("b", shape=2)[0]) ** 2))
        with pytest.raises(ValueError, match="Potential 'term', which is not scaled"):
            self.loss(model, {y: pm.Minibatch(y, batch_size=B)})


def test_sampled_nodes_keep_their_form(by_scan):
    approx = pm.MeanField(model=regression(B))
    [b] = approx.model.free_RVs
    one = approx.sample_node(b.sum(), size=3)
    several = approx.sample_node([b.sum()], size=3)
    assert one.eval(mode=PYTHON).shape == (3,)
    assert [node.eval(mode=PYTHON).shape for node in several] == [(3,)]


def streamed_regression():
    """Two fields of a batch, and a shape that is known once a batch is there."""
    loader = pm.DataLoader({"x": X, "y": Y}, batch_size=B, shuffle=True, seed=1)
    with pm.Model() as model:
        x, y = (pm.Data(name, loader, dims="obs") for name in ("x", "y"))
        b = pm.Normal("b", shape=2)
        pm.Normal("first", b[0] * x, 1, observed=y, dims="obs")
        pm.Normal("second", b[1], 2, observed=x, dims="obs")
        pm.Potential("third", -((b[0] - y) ** 2), dims="obs", total_size=N)
    return loader, model


@pytest.mark.parametrize(
    ["method", "arguments"],
    [("advi", {"obj_n_mc": 2}), ("svgd", {"inf_kwargs": {"n_particles": 3}})],
)
def test_particles_share_the_rows_of_a_stream(method, arguments, monkeypatch):
    """A Scan, whose gradient is one of all that is in it, for batches of any size: it is the same fit."""
    fits = []
    for largest in (vectorize.LARGEST, 0):
        monkeypatch.setattr(vectorize, "LARGEST", largest)
        loader, model = streamed_regression()
        options = {"random_seed": 1, "progressbar": False, "compile_kwargs": {"mode": PYTHON}}
        fits.append(pm.fit(3, method=method, model=model, data=loader, **options, **arguments))
    at_once, scanned = fits
    np.testing.assert_allclose(at_once.hist, scanned.hist, rtol=1e-9)
    for one, other in zip(at_once.params, scanned.params, strict=True):
        np.testing.assert_allclose(one.get_value(), other.get_value(), rtol=1e-9)


def test_no_rows_of_a_stream_in_a_scan(monkeypatch):
    monkeypatch.setattr(vectorize, "LARGEST", 0)
    logps = at_particles(pm.MeanField(model=streamed_regression()[1]))
    inner = [node.op for op in scans([logps]) for node in op.fgraph.toposort()]
    assert inner
    assert not any(isinstance(op, MinibatchIndexRV | StreamedRows) for op in inner)


def test_the_gradient_of_a_streams_rows():
    x = pt.vector("x")
    rows = StreamedRows()(x, stream_index(total=N, batch_size=B))
    gradient = pytensor.grad((rows**2).sum(), x).eval({x: X[:B]}, mode=PYTHON)
    np.testing.assert_allclose(gradient, 2 * X[:B])
