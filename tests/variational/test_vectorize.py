# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Graphs at many draws at once: the values of a loop over the draws."""

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest

from pytensor.graph.replace import graph_replace
from pytensor.graph.traversal import ancestors
from pytensor.scan.op import Scan

import pymc as pm
import pymc.dims as pmd

from pymc.variational import vectorize
from pymc.variational.vectorize import LARGEST, at_draws, draw_anew, largest_at_once
from tests.variational.engine import PYTHON, normal_model, shared


def values(inputs, nodes, given):
    function = pytensor.function(inputs, nodes, mode=PYTHON, on_unused_input="ignore")
    return function(*given)


def assert_as_a_loop(nodes, inputs, n_particles=3):
    """Assert that nodes over particles have the values of the nodes at each of them."""
    rng = np.random.default_rng(1)
    draws = [rng.normal(size=(n_particles, var.type.shape[0])) for var in inputs]
    symbols = [pt.matrix(dtype="float64") for _ in inputs]
    each = [values(inputs, nodes, [draw[k] for draw in draws]) for k in range(n_particles)]
    depends = [bool(set(inputs) & set(ancestors([node]))) for node in nodes]
    for largest in (np.inf, 0):  # all at once, and by a Scan
        actual = values(symbols, at_draws(nodes, dict(zip(inputs, symbols)), largest), draws)
        for node, new, old, moves in zip(nodes, actual, zip(*each), depends):
            assert new.ndim == node.type.ndim + moves
            np.testing.assert_allclose(new, np.stack(old) if moves else old[0], rtol=1e-12)


def vector(name, n):
    return pt.vector(name, shape=(n,), dtype="float64")


class TestAtDraws:
    def test_of_any_number_of_dims(self):
        x = vector("x", 4)
        assert_as_a_loop([x.sum(), 2 * x, pt.outer(x, x), x[1:3].cumsum()], [x])

    def test_of_two_groups(self):
        x, y = vector("x", 2), vector("y", 3)
        assert_as_a_loop([pt.outer(x, y), x.sum() * y], [x, y])

    def test_what_does_not_depend_on_them(self):
        x = vector("x", 2)
        assert_as_a_loop([pt.as_tensor(np.ones((2, 3))), pt.constant(1.0), x.sum()], [x])

    def test_linear_algebra(self):
        x = vector("x", 3)
        spd = pt.outer(x, x) + pt.eye(3)
        assert_as_a_loop([pt.linalg.cholesky(spd), pt.linalg.solve(spd, x)], [x])

    def test_indexing(self):
        x = vector("x", 4)
        rows = pt.as_tensor(np.array([0, 3, 3]))
        assert_as_a_loop([x[rows], pt.set_subtensor(pt.zeros(4)[rows[:2]], x[:2])], [x])

    def test_one_particle(self):
        x = vector("x", 2)
        assert_as_a_loop([x.sum(), pt.zeros(3)], [x], n_particles=1)


def models():
    rng = np.random.default_rng(2)
    with pm.Model() as hierarchical:
        mu = pm.Normal("mu")
        sd = pm.HalfNormal("sd")
        a = pm.Normal("a", mu, sd, shape=3)
        pm.Normal("y", a[np.array([0, 1, 2, 1])], 1, observed=rng.normal(size=4))
    with pm.Model() as multivariate:
        w = pm.Dirichlet("w", np.ones(3))
        z = pm.MvNormal("z", np.zeros(2), np.eye(2))
        pm.Categorical("y", w, observed=[0, 2])
        pm.Potential("p", -(z**2).sum())
    with pm.Model() as sequential:
        pm.ZeroSumNormal("zero", shape=3)
        pm.AR("ar", [0.5], init_dist=pm.Normal.dist(), shape=4)
        pm.GaussianRandomWalk("walk", init_dist=pm.Normal.dist(), shape=3)
    return {"hierarchical": hierarchical, "multivariate": multivariate, "sequential": sequential}


@pytest.mark.parametrize("name, model", models().items(), ids=models())
def test_log_probability_of_a_model(name, model):
    """At the draws of an approximation, and without a Scan."""
    approx = pm.MeanField(model=model)
    nodes = [approx.datalogp, approx.varlogp] if model.observed_RVs else [approx.varlogp]
    assert not any(isinstance(v.owner and v.owner.op, Scan) for v in ancestors(nodes))
    terms = [model.datalogp, model.varlogp] if model.observed_RVs else [model.varlogp]
    group = approx.groups[0]
    single = vector("single", group.ddim)
    at_one = [
        graph_replace(group.to_flat_input([term])[0], {group.input: single}) for term in terms
    ]
    at_many = at_draws(at_one, {single: pt.matrix("draws", dtype="float64")})
    assert all(node.type.ndim == 1 for node in at_many)
    assert_as_a_loop(at_one, [single])


class TestScanWhereItHasTo:
    def scans(self, approx, node):
        [node] = approx.model.replace_rvs_by_values([node])
        draws = approx.symbolic_sample_over_posterior(node)
        return sum(isinstance(v.owner and v.owner.op, Scan) for v in ancestors([draws]))

    @pytest.mark.parametrize("error", [NotImplementedError, TypeError, ValueError])
    def test_an_op_without_a_form_for_many(self, monkeypatch, error):
        def refuse(*args):
            raise error("one at a time")

        model = normal_model()
        approx = pm.MeanField(model=model)
        node = model["mu"] ** 2
        assert self.scans(approx, node) == 0
        monkeypatch.setattr(vectorize, "vectorize_graph", refuse)
        assert self.scans(approx, node) > 0

    def test_a_large_model(self, monkeypatch):
        model = normal_model()
        approx = pm.MeanField(model=model)
        monkeypatch.setattr(vectorize, "LARGEST", 2)  # fewer than the 6 rows
        assert self.scans(approx, model["mu"] ** 2) > 0


class TestLargestAtOnce:
    @pytest.mark.parametrize("n, fits", [(LARGEST, True), (LARGEST + 1, False)])
    def test_rows(self, n, fits):
        with pm.Model() as model:
            mu = pm.Normal("mu")
            pm.Normal("y", mu, observed=np.zeros(n))
        assert (largest_at_once(model) > 0) == fits

    def test_latent_variables_count(self):
        with pm.Model() as model:
            pm.Normal("x", shape=(2, LARGEST))
        assert largest_at_once(model) == 0

    def test_lengths_that_are_not_known(self):
        with pm.Model() as model:
            x = pm.Data("x", np.zeros(10), dims=None)
            mu = pm.Normal("mu")
            pm.Normal("y", mu, observed=x)
            assert largest_at_once(model) == LARGEST
            pm.set_data({"x": np.zeros(LARGEST + 1)})
        assert largest_at_once(model) == 0

    def test_lengths_of_named_dims(self):
        with pm.Model(coords={"obs": range(3)}) as model:
            pmd.Normal("x", dims="obs")
        assert largest_at_once(model) == LARGEST

    def test_a_batch_is_what_counts(self):
        with pm.Model() as model:
            mu = pm.Normal("mu")
            pm.Normal("y", mu, observed=pm.Minibatch(np.zeros(2 * LARGEST), batch_size=10))
        assert largest_at_once(model) == LARGEST


@pytest.mark.parametrize(
    "of",
    [
        lambda x: x[(x > 0).nonzero()].sum(),
        lambda x: x[x > 0].sum(),
        lambda x: pt.arange(x[0].astype(int)).sum(),
        lambda x: x[: x[0].astype(int)].sum(),
        lambda x: pt.full((x[0].astype(int),), 2.0).sum(),
        lambda x: pt.outer(pt.repeat(x, 100), pt.repeat(x, 100)).sum(),
    ],
    ids=["nonzero", "mask", "arange", "slice", "full", "large"],
)
def test_lengths_that_depend_on_the_draw_are_refused(of):
    """Blockwise would write rows of one length into rows of another."""
    x = pt.vector("x", shape=(2,))
    draws = pt.matrix("draws", shape=(3, 2))
    with pytest.raises(NotImplementedError, match=r"depends on the draw|large for each draw"):
        vectorize.check_lengths([of(x)], [x], LARGEST)
    assert any(
        isinstance(v.owner and v.owner.op, Scan)
        for v in ancestors(at_draws([of(x)], {x: draws}, LARGEST))
    )


def test_a_length_of_the_draw_itself_is_fine():
    x = pt.vector("x", shape=(2,))
    draws = pt.matrix("draws", shape=(3, 2))
    [out] = at_draws([x[: x.shape[0] - 1].sum()], {x: draws})
    assert out.eval({draws: np.arange(6.0).reshape(3, 2)}).tolist() == [0, 2, 4]


def student(x):
    return pm.StudentT.dist(nu=30, mu=x[np.array([0, 1, 1])], sigma=0.1, shape=3)


def binomial(x):
    return pm.Binomial.dist(n=np.array([100, 200, 300]), p=pt.sigmoid(x[0]), shape=3)


def two_students(x):
    return student(student(x)[:2])


def multivariate(x):
    return pm.MvNormal.dist(mu=np.zeros(2), cov=pt.exp(x[0]) * np.eye(2), shape=(3, 2))


@pytest.mark.parametrize("dist", [student, two_students])
def test_random_variables_with_a_fixed_first_parameter(dist):
    """PyTensor adds the axes of draws to a size by the first parameter alone."""
    x = pt.vector("x", shape=(2,))
    draws = pt.matrix("draws", shape=(None, 2))
    [out] = at_draws([dist(x)], {x: draws})
    found = out.eval({draws: [[0.0, 1000.0], [-500.0, 7.0]]}, mode=PYTHON)
    np.testing.assert_allclose(found, [[0, 1000, 1000], [-500, 7, 7]], atol=2)
    assert len(np.unique(found)) == 6


def test_counts_of_a_fixed_number_of_trials():
    x = pt.vector("x", shape=(2,))
    draws = pt.matrix("draws", shape=(None, 2))
    [out] = at_draws([binomial(x)], {x: draws})
    found = out.eval({draws: [[20.0, 0], [-20.0, 0]]}, mode=PYTHON)
    assert found.dtype == "int64" and found.tolist() == [[100, 200, 300], [0, 0, 0]]


def test_vectors_with_a_fixed_mean():
    x = pt.vector("x", shape=(2,))
    draws = pt.matrix("draws", shape=(None, 2))
    [out] = at_draws([multivariate(x)], {x: draws})
    found = out.eval({draws: [[20.0, 0], [-20.0, 0]]}, mode=PYTHON)
    assert found.shape == (2, 3, 2)
    assert abs(found[0]).min() > 10 and abs(found[1]).max() < 1e-3


@pytest.fixture(scope="module")
def approx():
    return pm.MeanField(model=normal_model(), random_seed=1)


def rng_of(name):
    return pytensor.shared(np.random.default_rng(1), name)


def test_eval_moves_the_generators_on():
    node = pt.random.normal(rng=rng_of("rng"))
    once = node + 0
    assert once.eval(mode=PYTHON) == once.eval(mode=PYTHON)
    draw_anew([node], given=[])
    assert len({float(node.eval(mode=PYTHON)) for _ in range(5)}) == 5


def test_generators_of_what_is_given_stay():
    own, new = rng_of("own"), rng_of("new")
    given = pt.random.normal(rng=own)
    node = given + pt.random.normal(rng=new)
    draw_anew([node], [given])
    node.eval(mode=PYTHON)
    assert own.default_update is None
    assert new.default_update is not None
    fresh = np.random.default_rng(1).bit_generator.state
    assert own.get_value().bit_generator.state == fresh
    assert new.get_value().bit_generator.state != fresh


def test_nodes_without_noise():
    x = shared(1.0)
    draw_anew([x + 1], given=[x])
    assert (x + 1).eval(mode=PYTHON) == 2


class TestSampleNode:
    @pytest.mark.parametrize("size", [None, 3])
    def test_each_evaluation_is_another_draw(self, approx, size):
        node = approx.sample_node(approx.model["mu"], size=size)
        draws = np.array([node.eval(mode=PYTHON) for _ in range(4)])
        assert draws.shape == ((4,) if size is None else (4, size))
        assert len(np.unique(draws)) == draws.size

    def test_a_symbolic_size(self, approx):
        size = pt.iscalar("size")
        node = approx.sample_node(approx.model["mu"], size=size)
        draws = [node.eval({size: np.int32(n)}, mode=PYTHON) for n in (2, 5, 5)]
        assert [draw.shape for draw in draws] == [(2,), (5,), (5,)]
        assert len(np.unique(np.concatenate(draws))) == 12

    def test_nodes_of_one_call_share_a_draw(self, approx):
        mu = approx.model["mu"]
        both = approx.sample_node([mu, 2 * mu])
        x, y = pytensor.function([], both, mode=PYTHON)()
        assert y == 2 * x

    def test_deterministic(self, approx):
        node = approx.sample_node(approx.model["mu"], deterministic=True)
        mean = approx.mean.eval(mode=PYTHON)
        assert node.eval(mode=PYTHON) == node.eval(mode=PYTHON) == mean[0]

    def test_the_models_generators_stay(self, approx):
        before = [rv.owner.inputs[0].get_value() for rv in approx.model.free_RVs]
        states = [rng.bit_generator.state for rng in before]
        approx.sample_node(approx.model["mu"]).eval(mode=PYTHON)
        after = [rv.owner.inputs[0].get_value() for rv in approx.model.free_RVs]
        assert [rng.bit_generator.state for rng in after] == states
