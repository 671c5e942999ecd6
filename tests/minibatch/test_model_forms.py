# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Every form of model: the mean over all batches is the full log-probability, and so its gradient.

Each builder is called twice, on minibatches and on the full data. Nothing else differs: no total_size.
"""

import numpy as np
import pytensor.tensor as pt
import pytest

import pymc as pm

from tests.minibatch.enumeration import full_logp_and_gradient, mean_over_batches, some_point

N, B = 5, 2
rng = np.random.default_rng(1)
X = rng.normal(size=(N, 3))
Y = rng.normal(size=N)
G = np.array([0, 1, 3, 1, 2])
COUNTS = rng.integers(1, 5, size=(N, 3))


def hierarchical(data):
    x, y, g = data(X, Y, G)
    a = pm.Normal("a", shape=4)
    pm.StudentT("lik", nu=4, mu=a[g] + (x**2).sum(1), observed=y)


def indexed_data(data):
    y, g = data(Y, G)
    group_mean = pt.as_tensor(np.array([0.3, 1.0, -1.0, 0.1]))
    pm.Normal("lik", pm.Normal("b") * group_mean[g], 1, observed=y)


def softmax_of_groups(data):
    x, g = data(X, G)
    logits = x @ pm.Normal("b", shape=(3, 4))
    pm.Categorical("lik", p=pm.math.softmax(logits, axis=-1), observed=g)


def logit_p(data):
    x, g = data(X, G)
    pm.Categorical("lik", logit_p=x @ pm.Normal("b", shape=(3, 4)), observed=g)


def normal_mixture(data):
    y = data(Y)
    pm.NormalMixture("lik", [0.3, 0.7], pm.Normal("mu", shape=2), 1, observed=y)


def mixture_of_regressions(data):
    x, y = data(X, Y)
    mu = pm.Normal("mu", shape=2)
    components = [
        pm.Normal.dist(mu[0] + x[:, 0], 1),
        pm.Normal.dist(mu[1], 1, shape=x.shape[:1]),
    ]
    pm.Mixture("lik", [0.3, 0.7], components, observed=y)


def censored(data):
    x, y = data(X, np.maximum(Y, -1))
    dist = pm.Normal.dist(x @ pm.Normal("b", shape=3), 1)
    pm.Censored("lik", dist, lower=-1, upper=None, observed=y)


def censored_at_data(data):
    x, y, upper = data(X, np.minimum(Y, 0.2), np.full(N, 0.2) + 0.1 * np.arange(N))
    pm.Censored("lik", pm.Normal.dist(x[:, 0] * pm.Normal("b"), 1), None, upper, observed=y)


def truncated(data):
    x, y = data(X, Y)
    dist = pm.Normal.dist(x @ pm.Normal("b", shape=3), 1)
    pm.Truncated("lik", dist, lower=-5, upper=5, observed=y)


def truncated_without_inverse(data):
    x, y = data(X, np.abs(Y) + 0.1)
    dist = pm.Gamma.dist(pt.exp(x[:, 0] * pm.Normal("b")), 1)
    pm.Truncated("lik", dist, lower=0.05, observed=y)


def custom_logp(data):
    x, y = data(X, Y)
    mu = x @ pm.Normal("b", shape=3)
    pm.CustomDist("lik", mu, logp=lambda value, mu: -((value - mu) ** 2), observed=y)


def custom_dist(data):
    x, y = data(X, Y)
    mu = x @ pm.Normal("b", shape=3)
    pm.CustomDist("lik", mu, dist=lambda mu, size: pm.Normal.dist(mu, 1, size=size) * 2, observed=y)


def multivariate(data):
    x = data(X)
    pm.MvNormal("lik", pm.Normal("mu", shape=3), np.eye(3), observed=x)


def multivariate_regression(data):
    x, y = data(X, X * 2.0 + 1.0)
    pm.MvNormal("lik", x * pm.Normal("b"), chol=np.eye(3), observed=y)


def multinomial(data):
    counts = data(COUNTS)
    pm.Multinomial("lik", counts.sum(-1), pm.Dirichlet("p", np.ones(3)), observed=counts)


def dirichlet_multinomial(data):
    counts = data(COUNTS)
    a = pm.HalfNormal("a", shape=3)
    pm.DirichletMultinomial("lik", n=counts.sum(-1), a=a + 1, observed=counts)


def random_walks(data):
    x = data(X)
    mu = pm.Normal("mu")
    init = pm.Normal.dist(0, 1)
    pm.GaussianRandomWalk("lik", mu=mu, sigma=1, init_dist=init, steps=2, observed=x)


def autoregressive(data):
    x = data(X)
    rho = pm.Normal("rho", shape=1)
    pm.AR("lik", rho, init_dist=pm.Normal.dist(0, 1), steps=2, observed=x)


def matmul_with_broadcast(data):
    x, y = data(X, Y)
    b = pm.Normal("b", shape=3)
    pm.Normal("lik", (x[:, None, :] @ b[:, None]).squeeze(), 1, observed=y)


def design_matrix(data):
    x, y = data(X, Y)
    design = pt.concatenate([pt.ones((x.shape[0], 1)), x], axis=1)
    pm.Normal("lik", design @ pm.Normal("b", shape=4), 1, observed=y)


def stacked_columns(data):
    x, y = data(X, Y)
    b = pm.Normal("b", shape=2)
    pm.Normal("lik", pt.stack([x[:, 0], x[:, 1]], axis=1) @ b, 1, observed=y)


def written_columns(data):
    x, y = data(X, Y)
    design = pt.set_subtensor(pt.zeros((x.shape[0], 2))[:, 1], x[:, 0])
    pm.Normal("lik", design @ pm.Normal("b", shape=2), 1, observed=y)


def reshaped(data):
    x, y = data(X, Y)
    mu = (x @ pm.Normal("b", shape=3)).reshape((-1, 1))
    pm.Normal("lik", mu, 1, observed=y[:, None])


def transposed(data):
    x, y = data(X, Y)
    pm.Normal("lik", (pm.Normal("b", shape=3) @ x.T), 1, observed=y)


def observed_transposed(data):
    x = data(X)
    pm.Normal("lik", pm.Normal("mu", shape=3)[:, None], 1, observed=x.T)


def observed_column(data):
    x = data(X)
    pm.Normal("lik", pm.Normal("b") * x[:, 1], 1, observed=x[:, 0])


def observed_expression(data):
    x, y = data(X, Y)
    b = pm.Normal("b")
    pm.Normal("lik", pt.switch(x[:, 0] > 0, b, -b), 1, observed=pt.log(y**2))


def zero_inflated(data):
    x, g = data(X, G)
    pm.ZeroInflatedPoisson("lik", 0.7, pt.exp(x @ pm.Normal("b", shape=3)), observed=g)


def hurdle(data):
    g = data(G + 1)
    pm.HurdlePoisson("lik", 0.7, pm.HalfNormal("mu"), observed=g)


def ordered(data):
    x, g = data(X, G)
    eta = x @ pm.Normal("b", shape=3)
    pm.OrderedLogistic("lik", eta=eta, cutpoints=[-1.0, 0.0, 1.0], observed=g)


def through_deterministic(data):
    x, y = data(X, Y)
    mu = pm.Deterministic("mu", x @ pm.Normal("b", shape=3))
    pm.Normal("lik", mu, 1, observed=y)


def weights(data):
    y, w = data(Y, np.abs(Y) + 0.1)
    pm.Normal("lik", pm.Normal("b"), w, observed=y)


def constants_that_broadcast(data):
    y = data(Y)
    pm.Normal("lik", pm.Normal("b"), pt.ones_like(y) * 2, observed=y)


def logsumexp_over_columns(data):
    x, y = data(X, Y)
    pm.Normal("lik", pt.logsumexp(x * pm.Normal("b"), axis=1), 1, observed=y)


def einsum(data):
    x, y = data(X, Y)
    pm.Normal("lik", pt.einsum("ij,j->i", x, pm.Normal("b", shape=3)), 1, observed=y)


def solved(data):
    x, y = data(X, Y)
    mu = pt.linalg.solve(np.eye(3), x.T).T.sum(1) * pm.Normal("b")
    pm.Normal("lik", mu, 1, observed=y)


def two_likelihoods(data):
    x, y = data(X, Y)
    b = pm.Normal("b")
    pm.Normal("first", b * x[:, 0], 1, observed=y)
    pm.Normal("second", b, 2, observed=x)


def two_data_sets(data):
    first, second = data(X), data(np.arange(4.0))
    mu = pm.Normal("mu")
    pm.Normal("first", mu, 1, observed=first)
    pm.Normal("second", mu, 2, observed=second)


def mask_of_zeros(data):
    x, g = data(X, G)
    pm.Poisson("lik", pt.exp(x[:, 0] * pm.Normal("b")), observed=pt.zeros_like(g))


def observed_as_parameter(data):
    x, y = data(X, Y)
    first = pm.Normal("first", pm.Normal("b"), 1, observed=x[:, 0])
    pm.Normal("lik", first * pm.Normal("c"), 1, observed=y)


def simulator(data):
    y = data(Y)
    # Its log-probability is of draws: a simulator that draws nothing makes it exact
    pm.Simulator("lik", lambda rng, b, size: np.full(size, b), pm.Normal("b"), observed=y)


def potential(data):
    y = data(Y)
    in_batches = not isinstance(y, np.ndarray)
    term = -((pt.as_tensor(y) - pm.Normal("b")) ** 2)
    pm.Potential("term", term, total_size=N if in_batches else None)


def summed_potential(data):
    y = data(Y)
    in_batches = not isinstance(y, np.ndarray)
    term = -((pt.as_tensor(y) - pm.Normal("b")) ** 2).sum()
    pm.Potential("term", term, total_size=N if in_batches else None)


FORMS = [
    value
    for value in list(globals().values())
    if callable(value)
    and getattr(value, "__code__", None)
    and value.__module__ == __name__
    and value.__code__.co_varnames[:1] == ("data",)
]


def on_full_data(*arrays):
    return arrays[0] if len(arrays) == 1 else arrays


def on_minibatches(sampling):
    def data(*arrays):
        return pm.Minibatch(*arrays, batch_size=B, sampling=sampling)

    return data


@pytest.fixture(scope="module")
def full_model():
    built = {}

    def build(form):
        if form not in built:
            with pm.Model() as built[form]:
                form(on_full_data)
        return built[form]

    return build


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
def test_mean_over_batches_is_full_logp(form, full_model):
    with pm.Model() as model:
        form(on_minibatches("without_replacement"))
    point = some_point(model)
    np.testing.assert_allclose(
        mean_over_batches(model, point),
        full_logp_and_gradient(full_model(form), point),
        rtol=1e-10,
        atol=1e-10,
    )


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
def test_remove_minibatch_gives_the_full_model(form, full_model):
    with pm.Model() as model:
        form(on_minibatches("epoch"))
    point = some_point(model)
    np.testing.assert_allclose(
        full_logp_and_gradient(pm.remove_minibatch(model), point),
        full_logp_and_gradient(full_model(form), point),
        rtol=1e-12,
        atol=1e-12,
    )
