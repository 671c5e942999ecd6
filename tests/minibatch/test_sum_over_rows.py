# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Terms of the log-probability are sums over rows, as the log-probability is written out (A18)."""

import functools
import re

import numpy as np
import pytensor.tensor as pt
import pytest

from pytensor import scan
from pytensor.compile.builders import OpFromGraph
from pytensor.conditional import ifelse
from pytensor.graph.basic import Apply
from pytensor.graph.op import Op

import pymc as pm

from pymc.distributions.dist_math import check_parameters
from pymc.distributions.transforms import Chain, ZeroSumTransform, logodds, ordered, simplex
from pymc.minibatch.axis_tracking import Rows, Untracked, root_axes
from pymc.minibatch.sum_over_rows import summed_rows
from tests.minibatch.enumeration import full_logp_and_gradient, mean_over_batches, some_point

N, B = 6, 2
rng = np.random.default_rng(18)
X = rng.normal(size=(N, 3))
Y = rng.normal(size=N)
W = rng.uniform(1, 2, size=N)

x, y, w = pm.Minibatch(X, Y, W, batch_size=B)
v = pt.vector("v", shape=(None,))
m = pt.vector("m", shape=(None,))
mu = pt.scalar("mu")
ll = -((v - mu) ** 2)
ROWS = Rows(y.owner.inputs[1])
KNOWN = {v: (ROWS,), m: (ROWS,), mu: root_axes(mu)}

SUMS = {
    "a value for each row": ll,
    "a sum": ll.sum(),
    "a sum, scaled": 0.5 * ll.sum() / mu,
    "a number of rows": (-0.5 * (v / mu) ** 2).sum() - v.shape[0] * pt.log(mu),
    "a number of rows, by size": ll.sum() - v.size * pt.log(mu),
    "ones": ll.sum() + (pt.ones(v.shape[0]) * pt.log(mu)).sum(),
    "a constant": ll.sum() + 3.0,
    "two sums": ll.sum() - pt.sqr(v).sum(),
    "a dot product": -pt.dot(v - mu, v - mu),
    "a matrix product": (x @ pt.vector("b")) @ (v - mu),
    "all entries": (x * v[:, None] * mu).ravel().sum(),
    "entries in another order": (x * v[:, None] * mu).ravel(),
    "end to end": pt.concatenate([ll, 2 * ll]),
    "a branch for all": pt.switch(mu > 0, ll.sum(), -np.inf),
    "a condition on all rows": check_parameters(ll.sum(), mu > 0, v.sum() > 0),
    "values left out by a switch": pt.switch(pt.isnan(v), 0, ll).sum(),
    "values left out by a mask": ll[~pt.isnan(v)].sum(),
    "values left out before": (-((v[~pt.isnan(v)] - mu) ** 2)).sum(),
    "a mean of columns": (x * v[:, None]).mean(1),
    "a count of those that a mask leaves": ll[v > 0].sum() - v[v > 0].shape[0] * pt.log(mu),
    "a branch of Python's kind": ifelse(mu > 0, ll.sum(), 2 * ll.sum()),
    "a loop over rows": scan(lambda a: -((a - mu) ** 2), sequences=[v], return_updates=False).sum(),
    "a ratio of sizes": ll * (v.size / v.shape[0]),
    "a Categorical": pm.logp(
        pm.Categorical.dist(logit_p=m[:, None] * np.arange(3.0)), pt.cast(v, "int64")
    ),
    "zeros of the shape": pt.zeros_like(v) + pt.log(mu),
}

MIXED = {
    "a mean": (ll.mean(), "take their sum, not their mean"),
    "a sum over the number of rows": (ll.sum() / v.shape[0], "take their sum, not their mean"),
    "a mean of rows, then a sum": ((x * v[:, None]).mean(0).sum(), "take their sum"),
    "a mean of some": (ll[v > 0].mean(), "computes with a sum over the rows"),
    "a constant times a parameter": ((ll.sum() + 5.0) * mu, "multiplies a constant beside a sum"),
    "a constant by a condition": (
        pt.switch(mu > 1, ll.sum(), -20.0),
        "stands for a sum over the rows",
    ),
    "a prior": (ll.sum() + pt.log(mu), "is added to a sum over the rows"),
    "a sum to each row": (ll + ll.sum(), "is added to a sum over the rows"),
    "a sum end to end with a prior": (pt.concatenate([ll, mu[None]]), "is added to a sum over"),
    "pairs": (v[:, None] * v[None, :], "pairs of rows"),
    "a square of a sum": (v.sum() ** 2, "mixes the rows"),
    "a product": (ll.prod(), "mixes the rows"),
    "a mask of others": (pt.exp(-v[v > v.mean()]).sum(), "mixes the rows"),
    "a softmax": (pm.math.log_softmax(v), "mixes the rows"),
    "a log of a sum": (pt.logsumexp(v), "mixes the rows"),
    "a running sum": (pt.cumsum(v), "mixes the rows"),
    "an order": (pt.sort(v), "mixes the rows"),
    "a lag": (v[1:] - mu * v[:-1], "by their place in the batch"),
    "the first row": (v[0], "by their place in the batch"),
    "a centre": (-((v - v.mean()) ** 2), "mixes the rows"),
    "a covariance": (
        pm.logp(pm.MvNormal.dist(pt.zeros(B), np.eye(B) + 0.2), v),
        "values that are not of the batch|mixes the rows",
    ),
    "the number of rows in each": (ll * v.shape[0], "computes with a sum over the rows"),
    "all data's equal numbers": (ll * np.full(N, 2.0), "that are all alike: write one number"),
}


@pytest.mark.parametrize("form", SUMS)
def test_sums_over_rows(form):
    assert summed_rows("lik", SUMS[form], KNOWN) == {ROWS}


@pytest.mark.parametrize("form", MIXED)
def test_no_sums_over_rows(form):
    term, why = MIXED[form]
    found = summed_rows("lik", term, KNOWN)
    assert isinstance(found, Untracked) and found.certain
    assert re.search(why, found.why)


def test_what_is_of_no_rows():
    assert summed_rows("lik", mu * 2, KNOWN) == frozenset()


def lag(value, rho):
    return pt.concatenate([-(value[:1] ** 2) / 2, -((value[1:] - rho * value[:-1]) ** 2) / 2])


def squares(value, mu):
    return -((value - mu) ** 2)


class Users:
    """A model of each kind, in which a user's function is the likelihood of data."""

    @staticmethod
    def logp(fn, *params):
        pm.CustomDist("lik", *params, logp=fn, observed=y)

    @staticmethod
    def dist(fn, *params):
        pm.CustomDist("lik", *params, dist=fn, observed=y)

    @staticmethod
    def mixture(fn, *params):
        custom = pm.CustomDist.dist(*params, logp=fn, shape=(B,))
        pm.Mixture("lik", [0.5, 0.5], [custom, pm.Normal.dist(0, 1, shape=(B,))], observed=y)


def effects(covariate):
    def dist(x, b, size):
        return pm.Normal.dist(b * covariate(x), 1, size=size)

    return dist


N_ROWS = {
    "stacked": lambda n: pt.stack([n, 1])[0],
    "written": lambda n: pt.zeros(2)[0].set(n)[0],
    "counted": lambda n: pt.arange(n).max() + 1,
    "of places": lambda n: pt.arange(n).shape[0],
    "of ones": lambda n: pt.ones(n).sum(),
    "of a diagonal": lambda n: pt.eye(n).sum(),
    "of a loop": lambda n: scan(
        lambda a: a + 1.0, outputs_info=[pt.zeros(())], n_steps=n, return_updates=False
    )[-1],
}


def of_length(number, x):
    return number(x.shape[0])


LENGTHS = {
    "sorted": lambda x: pt.sort(x).shape[0],
    "of those above 0": lambda x: x[x > 0].shape[0],
    "of others": lambda x: pt.unique(x).shape[0],
    "end to end": lambda x: pt.concatenate([x, x]).shape[0],
    "but the first": lambda x: x[1:].shape[0],
    "as a vector": lambda x: pt.log(x.shape)[0],
    "joined": lambda x: pt.concatenate([x.shape, [3]])[0],
    "a part of it": lambda x: x.shape[:1].prod(),
    **{name: functools.partial(of_length, number) for name, number in N_ROWS.items()},
}


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("place", ["sigma", "prior", "logp"])
def test_numbers_of_rows_are_no_numbers_of_a_model(length, place):
    """By whatever they are computed: on all rows they are others."""
    number, match = LENGTHS[length], "number of rows|sum over its rows|mixes the rows"
    with pm.Model(), pytest.raises(ValueError, match=match):
        if place == "sigma":
            pm.Normal("lik", 0, 1.0 * number(x[:, 0]), observed=y)
        elif place == "prior":
            pm.Normal("b", 0, 1.0 * number(y))
        else:
            Users.logp(lambda v, m: squares(v, m) / number(v), pm.Normal("m"))


def test_numbers_of_rows_inside_of_an_op():
    i, j = pt.vectors("i", "j")
    op = OpFromGraph([i, j], [-((i - j) ** 2) / i.shape[0].astype("float64")])
    with pm.Model(), pytest.raises(ValueError, match="number of rows"):
        Users.logp(lambda v, m: op(v, m * pt.ones_like(v)), pm.Normal("m"))


REFUSED = {
    "AR(1)": lambda: Users.logp(lag, pm.Normal("rho")),
    "Cox": lambda: Users.logp(
        lambda value, eta: eta - pt.log(pt.cumsum(pt.exp(eta)[::-1])[::-1]),
        x @ pm.Normal("b", shape=3),
    ),
    "the mean": lambda: Users.logp(lambda *args: squares(*args).mean(), pm.Normal("m")),
    "the rows' number": lambda: Users.logp(
        lambda value, mu: squares(value, mu) * value.shape[0], pm.Normal("m")
    ),
    "a component": lambda: Users.mixture(lag, pm.Normal("rho")),
    "a batch in the closure": lambda: Users.logp(
        lambda v, b: squares(v, x[:, 0] * b), pm.Normal("b")
    ),
    "a batch in that of a component": lambda: Users.mixture(
        lambda v, b: squares(v, x[:, 0] * b), pm.Normal("b")
    ),
    "all data in the closure": lambda: Users.logp(
        functools.partial(lambda v, m, weights: weights * squares(v, m), weights=W), pm.Normal("m")
    ),
    "equal data in the closure": lambda: Users.logp(
        lambda v, m: np.full(N, 2.0) * squares(v, m), pm.Normal("m")
    ),
    "equal data as a parameter": lambda: pm.Normal(
        "lik", pm.Normal("m"), np.full(N, 0.5), observed=y
    ),
    "differences of parameters": lambda: Users.dist(
        effects(lambda x: pt.concatenate([x[:1], x[1:] - x[:-1]])), x[:, 0], pm.Normal("b")
    ),
    "centred parameters": lambda: Users.dist(
        effects(lambda x: x - x.mean()), x[:, 0], pm.Normal("b")
    ),
    "a kernel of parameters": lambda: Users.dist(
        effects(lambda x: pt.exp(-((x[:, None] - x[None]) ** 2)) @ x), x[:, 0], pm.Normal("b")
    ),
    "the number of parameters": lambda: Users.dist(
        effects(lambda x: x * x.shape[0]), x[:, 0], pm.Normal("b")
    ),
    "a distance of means": lambda: pm.Simulator(
        "lik",
        lambda rng, mu, size: rng.normal(mu, 1, size=size),
        pm.Normal("m"),
        distance=lambda epsilon, data, sim: -abs(data.mean() - sim.mean()) / epsilon,
        observed=y,
    ),
}


@pytest.mark.parametrize("form", REFUSED)
def test_refused(form):
    match = "sum over its rows|not among its parameters|computes with the number of rows"
    with pm.Model(), pytest.raises(ValueError, match=f"'lik'.*({match})"):
        REFUSED[form]()


def test_one_arange_picks_of_one_axis():
    z = pm.Minibatch(rng.normal(size=(N, 8)), Y, batch_size=B)
    places = pt.arange(B)
    with pm.Model(), pytest.raises(ValueError, match="values that are not of the batch"):
        pm.Normal("lik", z[0][places, places], 1, observed=z[1])


@pytest.mark.parametrize("size", [1, B])
def test_all_data_in_the_closure_are_not_repeated(size):
    """With a batch of one row, each would count once for every row of the data."""
    batch = pm.Minibatch(Y, batch_size=size)
    for weights in W, np.full(N, 2.0):
        with pm.Model(), pytest.raises(ValueError, match="meet"):
            pm.CustomDist(
                "lik", pm.Normal("m"), logp=lambda v, m: weights * squares(v, m), observed=batch
            )


def scaled_normal(value, mu, s):
    return (-(((value - mu) / s) ** 2) / 2).sum() - value.shape[0] * pt.log(s)


RIGHT = {
    "rows": lambda data: pm.CustomDist("lik", pm.Normal("m"), logp=squares, observed=data),
    "their sum": lambda data: pm.CustomDist(
        "lik", pm.Normal("m"), pm.HalfNormal("s"), logp=scaled_normal, observed=data
    ),
    "of some": lambda data: pm.CustomDist(
        "lik", pm.Normal("m"), logp=lambda v, m: squares(v[v > 0], m).sum(), observed=data
    ),
    "a component": lambda data: pm.Mixture(
        "lik",
        [0.4, 0.6],
        [
            pm.CustomDist.dist(pm.Normal("m"), logp=squares, shape=data.shape),
            pm.Normal.dist(0, 1, shape=data.shape),
        ],
        observed=data,
    ),
}


@pytest.mark.parametrize("form", RIGHT)
def test_what_is_accepted_is_unbiased(form):
    with pm.Model() as model:
        RIGHT[form](pm.Minibatch(Y, batch_size=B))
    with pm.Model() as full:
        RIGHT[form](pt.as_tensor(Y))
    point = some_point(model)
    np.testing.assert_allclose(
        mean_over_batches(model, point), full_logp_and_gradient(full, point), rtol=1e-10, atol=1e-10
    )


class TestDerivedModels:
    def full(self, logp):
        with pm.Model(coords={"obs": range(N)}) as model:
            data = pm.Data("y", Y, dims="obs")
            pm.CustomDist("lik", pm.Normal("m"), logp=logp, observed=data, dims="obs")
        return model

    def test_refused(self):
        with pytest.raises(ValueError, match=r"'lik'.*by their place.*sum over its rows"):
            pm.minibatch_model(self.full(lag), batch_size=B)

    def test_accepted(self):
        full = self.full(squares)
        model = pm.minibatch_model(full, batch_size=B)
        point = some_point(full)
        np.testing.assert_allclose(
            mean_over_batches(model, point), full_logp_and_gradient(full, point), rtol=1e-10
        )


COORDS = {"obs": range(N), "k": range(3)}


class TestLocalVariables:
    @pytest.fixture
    def model(self):
        with pm.Model(coords=COORDS) as model:
            pm.Minibatch(pm.Data("y", Y, dims="obs"), batch_size=B)
            yield model

    @pytest.mark.parametrize(
        "prior",
        [
            lambda: pm.Normal("z", dims="obs", transform=ordered),
            lambda: pm.Normal("z", dims=("k", "obs"), transform=ordered),
            lambda: pm.Normal("z", dims="obs", transform=ZeroSumTransform([0])),
            lambda: pm.Uniform("z", dims="obs", transform=simplex),
            lambda: pm.CustomDist("z", 0.5, logp=lag, dims="obs"),
            lambda: pm.CustomDist(
                "z", dist=lambda size: pt.cumsum(pm.Normal.dist(size=size)), dims="obs"
            ),
        ],
    )
    def test_refused(self, model, prior):
        with pytest.raises(ValueError, match=r"'z'.*sum over its rows"):
            prior()

    @pytest.mark.parametrize(
        "prior",
        [
            lambda: pm.Normal("z", dims=("obs", "k"), transform=ordered),
            lambda: pm.Normal("z", dims=("obs", "k"), transform=ZeroSumTransform([1])),
            lambda: pm.Uniform("z", 0, 1, dims=("obs", "k"), transform=Chain([logodds, ordered])),
            lambda: pm.ZeroSumNormal("z", pm.HalfNormal("s"), dims=("obs", "k")),
            lambda: pm.Dirichlet("z", np.ones(3), dims=("obs", "k")),
            lambda: pm.Uniform("z", 0, pm.HalfNormal("s"), dims="obs"),
            lambda: pm.CustomDist("z", 0.5, logp=squares, dims="obs"),
        ],
    )
    def test_accepted(self, model, prior):
        prior()

    def test_in_a_model_of_full_data(self):
        with pm.Model(coords=COORDS) as full:
            z = pm.Normal("z", dims="obs", transform=ordered)
            pm.Normal("lik", z, 1, observed=pm.Data("y", Y, dims="obs"), dims="obs")
        with pytest.raises(ValueError, match=r"'z'.*sum over its rows"):
            pm.minibatch_model(full, batch_size=B)


class Opaque(Op):
    """A function of NumPy's, of which nobody knows anything."""

    __props__ = ("fn",)

    def __init__(self, fn):
        self.fn = fn

    def make_node(self, x):
        return Apply(self, [x], [x.type()])

    def perform(self, node, inputs, outputs):
        outputs[0][0] = np.asarray(self.fn(inputs[0]), dtype=inputs[0].dtype)


class TestOpsWithoutARule:
    def observe(self, fn, total_size=None, data=Y):
        batch = pm.Minibatch(data, batch_size=B)
        mu = Opaque(fn)(batch * pm.Normal("b"))
        pm.Normal("lik", mu, 1, observed=batch, total_size=total_size)

    @pytest.mark.parametrize("total_size", [None, N])
    def test_row_by_row(self, total_size):
        with pm.Model():
            self.observe(np.sin, total_size)

    @pytest.mark.parametrize("total_size", [None, N])
    @pytest.mark.parametrize("fn", [lambda a: a - a.mean(), np.cumsum, lambda a: a * len(a)])
    def test_mixed(self, fn, total_size):
        """What was tried is believed, and not who vouches for it."""
        match = "that of five rows is not the sum of those of two and three"
        with pm.Model(), pytest.raises(ValueError, match=match):
            self.observe(fn, total_size)

    def test_rows_of_a_group_are_mixed_however_many_groups_there_are(self):
        """Rows that are tried have to share a group."""
        rng = np.random.default_rng(1)
        groups = np.repeat(np.arange(400), 5)
        batch, g = pm.Minibatch(rng.normal(size=2000), groups, batch_size=50)
        with pm.Model(), pytest.raises(ValueError, match="that of five rows"):
            sums = pt.zeros(400)[g].inc(batch)
            pm.Normal("lik", pm.Normal("a") * batch + sums[g], 1, observed=batch)

        def integrated(value, g, a):
            sums = pt.zeros(400)[g].inc(value - a)
            return -squares(value, a).sum() + (sums**2).sum()

        with pm.Model(), pytest.raises(ValueError, match=r"'lik'.*sum over its rows"):
            pm.CustomDist("lik", g, pm.Normal("a"), logp=integrated, observed=batch)

    def test_nothing_can_be_told_where_rows_are_alike(self):
        with pm.Model(), pytest.raises(ValueError, match="If it is, say so by total_size="):
            self.observe(np.sin, data=np.ones(N))
        with pm.Model():
            self.observe(np.sin, N, data=np.ones(N))

    def test_local_variables(self):
        def fit(fn):
            with pm.Model(coords=COORDS):
                batch = pm.Minibatch(pm.Data("y", Y, dims="obs"), batch_size=B)
                z = pm.Normal("z", dims="obs")
                pm.Normal("lik", Opaque(fn)(z), 1, observed=batch)

        fit(np.sin)
        with pytest.raises(ValueError, match="that of five rows"):
            fit(lambda a: a - a.mean())

    @pytest.mark.parametrize("name", ["z", "lik"])
    def test_potentials_of_variables_that_depend_on_others(self, name):
        def fit(fn):
            with pm.Model(coords=COORDS) as model:
                batch = pm.Minibatch(pm.Data("y", Y, dims="obs"), batch_size=B)
                z = pm.Normal("z", pm.Normal("m"), pm.HalfNormal("s"), dims="obs")
                pm.Normal("lik", z, 1, observed=batch, dims="obs")
                pm.Potential("p", Opaque(fn)(model[name]).sum(), total_size=N)

        fit(np.sin)
        with pytest.raises(ValueError, match=r"'p'.*that of five rows"):
            fit(lambda a: a - a.mean() ** 2)

    def test_a_trial_does_not_move_the_index_on(self):
        with pm.Model(coords=COORDS):
            batch, x = pm.Minibatch(pm.Data("y", Y, dims="obs"), W, batch_size=B)
            z = pm.Normal("z", x, 1, dims="obs")
            state = Rows(batch.owner.inputs[1]).state
            before = state.get_value()
            pm.Potential("p", Opaque(np.sin)(z).sum(), total_size=N)
        np.testing.assert_array_equal(state.get_value(), before)

    def test_of_a_model_of_full_data(self):
        def full(fn):
            with pm.Model(coords=COORDS) as model:
                data = pm.Data("y", Y, dims="obs")
                pm.Normal("lik", Opaque(fn)(data * pm.Normal("b")), 1, observed=data, dims="obs")
            return model

        pm.minibatch_model(full(np.sin), batch_size=B)
        with pytest.raises(ValueError, match="that of five rows"):
            pm.minibatch_model(full(np.cumsum), batch_size=B)
