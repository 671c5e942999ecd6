# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Log-probabilities of likelihoods, and their gradients, far out: finite and right where float64 has them.

The predictor is b0 + b1 x at (0, 1), as a product of a matrix and as a sum, whose graphs differ. At 700 nothing
of these likelihoods overflows: exp(700) is about 1e304. References are written by hand, from `expit`, `log_ndtr`
and, for differences of sigmoids, decimal numbers of 400 digits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal, localcontext
from typing import Any, NamedTuple

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest

from pytensor.compile.mode import Mode
from pytensor.graph.basic import equal_computations
from pytensor.graph.traversal import ancestors
from scipy.special import comb, expit, gammaln, log_ndtr, logsumexp, ndtr
from scipy.stats import norm

import pymc as pm
import pymc.dims as pmd

from pymc.variational.auto.log_posterior import LogPosterior
from pymc.variational.guides.initial_values import InitialValues
from pymc.variational.objectives import base
from pymc.variational.objectives.base import terms_of
from pymc.variational.posterior.log_weights import SubsampledLogDensity
from pymc.variational.stable_logs import log_erfc, stabilised
from pymc.variational.vectorize import at_draws
from tests.variational.engine import PYTHON, quiet

X = np.array([-700, -50, -1.5, 0.7, 50, 700])
CUTPOINTS = np.array([-1.0, 0.5, 2.0])
TWO = np.array(2.0)  # a plain 2.0 is one of float32 to PyTensor

#: What a step of a fit is compiled with, but for the backend.
REWRITTEN = Mode(linker="py", optimizer="fast_run")


def log_expit(x: float) -> float:
    return float(-np.logaddexp(0, -x))


def bernoulli(x: float, y: float) -> tuple[float, float]:
    return (log_expit(x), expit(-x)) if y else (log_expit(-x), -expit(x))


def binomial(x: float, y: float) -> tuple[float, float]:
    value = np.log(comb(5, y)) + y * log_expit(x) + (5 - y) * log_expit(-x)
    return value, y * expit(-x) - (5 - y) * expit(x)


def categorical(x: float, y: float) -> tuple[float, float]:
    slopes = np.array([0, 1, -0.5])
    logits = slopes * x
    p = np.exp(logits - logsumexp(logits))
    return logits[int(y)] - logsumexp(logits), p @ (slopes[int(y)] - slopes)


def ordered_logistic(x: float, y: float) -> tuple[float, float]:
    with localcontext() as context:
        context.prec, k = 400, int(y)
        low = [Decimal(0)] if k == 0 else []
        high = [Decimal(1)] if k == 3 else []
        at = [1 / (1 + (Decimal(x) - Decimal(c)).exp()) for c in CUTPOINTS[max(k - 1, 0) : k + 1]]
        below, above = [*low, *at, *high]
        slope = (above * (1 - above) - below * (1 - below)) / (above - below)
        return float((above - below).ln()), -float(slope)


def ordered_probit(x: float, y: float) -> tuple[float, float]:
    below, above = np.concatenate([[-np.inf], CUTPOINTS, [np.inf]])[int(y) :][:2] - x
    a, b = (-below, -above) if below > 0 else (above, below)  # the tail that is not close to 1
    value = log_ndtr(a) + np.log1p(-np.exp(log_ndtr(b) - log_ndtr(a)))
    return value, np.exp(norm.logpdf(below) - value) - np.exp(norm.logpdf(above) - value)


def negative_binomial(x: float, y: float) -> tuple[float, float]:
    z = x - np.log(2)
    value = gammaln(y + 2) - gammaln(y + 1) + 2 * log_expit(-z) + y * log_expit(z)
    return value, y * expit(-z) - 2 * expit(z)


def poisson(x: float, y: float) -> tuple[float, float]:
    return y * x - np.exp(x) - gammaln(y + 1), y - np.exp(x)


def student_t(x: float, y: float) -> tuple[float, float]:
    r = (y - x) / 0.1
    const = gammaln(2) - gammaln(1.5) - 0.5 * np.log(3 * np.pi) - np.log(0.1)
    return const - 2 * np.log1p(r**2 / 3), 4 * r / 0.1 / (3 + r**2)


def mixture(x: float, y: float) -> tuple[float, float]:
    first, second = log_expit(x) + norm.logpdf(y), log_expit(-x) + norm.logpdf(y, 3)
    value = np.logaddexp(first, second)
    return value, np.exp(first - value) * expit(-x) - np.exp(second - value) * expit(x)


def censored(x: float, y: float) -> tuple[float, float]:
    if abs(y) < 1:
        return norm.logpdf(y, x), y - x
    z = y * x - 1  # beyond the bound that y is
    return log_ndtr(z), y * np.exp(norm.logpdf(z) - log_ndtr(z))


def zero_inflated(x: float, y: float) -> tuple[float, float]:
    of_counts = log_expit(x) + y * np.log(2) - 2 - gammaln(y + 1)
    if y:
        return of_counts, expit(-x)
    value = np.logaddexp(log_expit(-x), of_counts)
    return value, np.exp(of_counts - value) * expit(-x) - np.exp(log_expit(-x) - value) * expit(x)


def probit(x: float, y: float) -> tuple[float, float]:
    z = x if y else -x
    return log_ndtr(z), np.copysign(np.exp(norm.logpdf(z) - log_ndtr(z)), z * x)


def both(x: float, y: float) -> tuple[float, float]:
    """Two events of which both happen, or not."""
    p = log_expit(x) + log_expit(x + 1)
    slope = expit(-x) + expit(-x - 1)
    # 1 - p is a sum of products of sigmoids, of which none cancels
    rest = logsumexp([log_expit(-x), log_expit(x) + log_expit(-x - 1)])
    return (p, slope) if y else (rest, -np.exp(p - rest) * slope)


def logit_weights(x: Any) -> Any:
    return pt.stack([pm.math.sigmoid(x), 1 - pm.math.sigmoid(x)], axis=-1)


class Likelihood(NamedTuple):
    """A likelihood of one predictor.

    Parameters
    ----------
    values : sequence of float
    make : callable (predictor, observed) -> RV
    reference : callable (predictor, value) -> (log-probability, its derivative)
    rtol : float
        1e-7 where PyMC takes a square root of 2 in float32.
    """

    values: Sequence[float]
    make: Callable[[Any, np.ndarray], Any]
    reference: Callable[[float, float], tuple[float, float]]
    rtol: float = 1e-10


def some_rows(x: Any) -> Any:
    """Take all rows, in an order that is an index to PyTensor."""
    return pm.math.sigmoid(x[::-1])[np.arange(x.type.shape[0])[::-1]]


LIKELIHOODS = {
    "bernoulli_logit": Likelihood(
        [0, 1], lambda x, y: pm.Bernoulli("y", logit_p=x, observed=y), bernoulli
    ),
    "bernoulli_sigmoid": Likelihood(
        [0, 1], lambda x, y: pm.Bernoulli("y", p=pm.math.sigmoid(x), observed=y), bernoulli
    ),
    "bernoulli_of_a_deterministic_by_index": Likelihood(
        [0, 1],
        lambda x, y: pm.Bernoulli("y", p=pm.Deterministic("p", some_rows(x)), observed=y),
        bernoulli,
    ),
    "bernoulli_by_hand": Likelihood(
        [0, 1], lambda x, y: pm.Bernoulli("y", p=1 / (1 + pt.exp(-x)), observed=y), bernoulli
    ),
    "bernoulli_by_hand_of_exp": Likelihood(
        [0, 1], lambda x, y: pm.Bernoulli("y", p=pt.exp(x) / (1 + pt.exp(x)), observed=y), bernoulli
    ),
    "bernoulli_of_two_events": Likelihood(
        [0, 1],
        lambda x, y: pm.Bernoulli("y", p=pm.math.sigmoid(x) * pm.math.sigmoid(x + 1), observed=y),
        both,
    ),
    "bernoulli_probit": Likelihood(
        [0, 1], lambda x, y: pm.Bernoulli("y", p=pm.math.invprobit(x), observed=y), probit, 1e-7
    ),
    "bernoulli_erf": Likelihood(
        [0, 1],
        lambda x, y: pm.Bernoulli("y", p=0.5 * (1 + pt.erf(x / np.sqrt(TWO))), observed=y),
        probit,
    ),
    "binomial": Likelihood(
        [0, 2, 5], lambda x, y: pm.Binomial("y", n=5, logit_p=x, observed=y), binomial
    ),
    "categorical": Likelihood(
        [0, 1, 2],
        lambda x, y: pm.Categorical("y", logit_p=x[:, None] * np.array([0, 1, -0.5]), observed=y),
        categorical,
    ),
    "categorical_of_two": Likelihood(
        [0, 1],
        lambda x, y: pm.Categorical("y", p=logit_weights(x)[:, ::-1], observed=y),
        bernoulli,
    ),
    "ordered_logistic": Likelihood(
        [0, 1, 2, 3],
        lambda x, y: pm.OrderedLogistic("y", eta=x, cutpoints=CUTPOINTS, observed=y),
        ordered_logistic,
    ),
    "ordered_probit": Likelihood(
        [0, 1, 2, 3],
        lambda x, y: pm.OrderedProbit("y", eta=x, cutpoints=CUTPOINTS, observed=y),
        ordered_probit,
        1e-7,
    ),
    "negative_binomial": Likelihood(
        [0, 3],
        lambda x, y: pm.NegativeBinomial("y", mu=pm.math.exp(x), alpha=TWO, observed=y),
        negative_binomial,
    ),
    "poisson": Likelihood(
        [0, 3], lambda x, y: pm.Poisson("y", mu=pm.math.exp(x), observed=y), poisson
    ),
    "student_t": Likelihood(
        [0.0, 2.0],
        lambda x, y: pm.StudentT("y", nu=np.array(3.0), mu=x, sigma=np.array(0.1), observed=y),
        student_t,
    ),
    "normal_mixture": Likelihood(
        [0.0, 2.0],
        lambda x, y: pm.NormalMixture(
            "y", w=logit_weights(x), mu=np.array([0.0, 3.0]), sigma=1, observed=y
        ),
        mixture,
    ),
    "mixture_softmax": Likelihood(
        [0.0, 2.0],
        lambda x, y: pm.Mixture(
            "y",
            w=pm.math.softmax(pt.stack([x, pt.zeros_like(x)], axis=-1), axis=-1),
            comp_dists=[pm.Normal.dist(0, 1), pm.Normal.dist(3, 1)],
            observed=y,
        ),
        mixture,
    ),
    "censored": Likelihood(
        [-1.0, 0.3, 1.0],
        lambda x, y: pm.Censored("y", pm.Normal.dist(x, 1), lower=-1, upper=1, observed=y),
        censored,
        1e-7,
    ),
    "zero_inflated_poisson": Likelihood(
        [0, 3],
        lambda x, y: pm.ZeroInflatedPoisson("y", psi=pm.math.sigmoid(x), mu=TWO, observed=y),
        zero_inflated,
    ),
}


@pytest.mark.parametrize("as_sum", [False, True], ids=["dot", "sum"])
@pytest.mark.parametrize("name", LIKELIHOODS)
def test_value_and_gradient(name, as_sum):
    likelihood = LIKELIHOODS[name]
    y = np.repeat(likelihood.values, len(X))
    x = np.tile(X, len(likelihood.values))
    with pm.Model() as model:
        b = pm.Flat("b", shape=2)
        predictor = b[0] + b[1] * x if as_sum else np.column_stack([np.ones_like(x), x]) @ b
        likelihood.make(predictor, y)
    value = model.value_vars[0]
    [logp] = stabilised(model.logp(vars=model.observed_RVs, sum=False))
    row = pt.lscalar()
    # The gradients of single rows: in a sum of many a small one, or one of two that cancel, would not show
    each = pt.grad((logp * pt.eq(pt.arange(len(x)), row)).sum(), value)
    function = pytensor.function([value, row], [logp, each], mode=REWRITTEN)
    expected, slopes = np.array([likelihood.reference(*row) for row in zip(x, y)]).T
    with np.errstate(all="ignore"):  # of branches that are not taken
        found = [function(np.array([0.0, 1.0]), k) for k in range(len(x))]
    assert np.isfinite(expected).all() and np.isfinite(slopes).all()
    close = {"rtol": likelihood.rtol, "atol": 1e-15}
    np.testing.assert_allclose(found[0][0], expected, **close)
    np.testing.assert_allclose([g[0] for _, g in found], slopes, **close)
    np.testing.assert_allclose([g[1] for _, g in found] / x, slopes, **close)


def test_log_erfc():
    x = pt.vector("x", dtype="float64")
    graph = log_erfc(x)
    function = pytensor.function([x], [graph, pt.grad(graph.sum(), x)], mode=REWRITTEN)
    at = np.array([-500.0, -5.0, -1e-9, 0.0, 0.3, 1.0, 1.0 + 1e-9, 6.0, 30.0, 500.0])
    value, slope = function(at)
    z = -np.sqrt(2) * at
    np.testing.assert_allclose(value, np.log(2) + log_ndtr(z), rtol=1e-12, atol=1e-15)
    expected = -np.sqrt(2) * np.exp(norm.logpdf(z) - log_ndtr(z))
    np.testing.assert_allclose(slope, expected, rtol=1e-9)


def graphs():
    x = pt.vector("x", shape=(3,), dtype="float64")
    p = pt.sigmoid(x)
    place = pt.as_tensor(np.array([2, 0]))
    tail = pt.erfc(x)
    return x, {
        "index": (pt.log(p[place]), log_ndtr_free(x)[place]),
        "rest of an index": (pt.log(1 - p[place]), log_ndtr_free(-x)[place]),
        "log1p": (pt.log1p(-p[place]), log_ndtr_free(-x)[place]),
        "reshape": (pt.log(p.reshape((3, 1))), log_ndtr_free(x)[:, None]),
        "alloc": (pt.log(pt.alloc(p[0], 2)), pt.stack([log_ndtr_free(x)[0]] * 2)),
        "scalars": (pt.log(pt.stack([p[0], 1 - p[1]])), None),
        "beside data": (pt.log(pt.concatenate([p, np.ones(1)])), None),
        "beside integers": (pt.log(pt.concatenate([p, np.ones(1, dtype="int8")])), None),
        "rest of the rest": (pt.log(1 - (1 - p)), log_ndtr_free(x)),
        "rest of an exp": (pt.log(1 - pt.exp(-pt.abs(x))), None),
        "rest of the rest of an exp": (pt.log(1 - (1 - pt.exp(x))), x),
        "product": (pt.log(p * x**2 * 0.3), None),
        "softmax": (pt.log(pt.special.softmax(x)[place]), None),
        "erfc": (pt.log(tail), None),
        "half erfc": (pt.log(1 - 0.5 * tail), None),
        "half and erf": (pt.log(0.5 + pt.erf(x) * 0.5), None),
        "sum of exp": (pt.log(pt.exp(x).sum()), None),
        "softplus": (pt.log1p(pt.exp(x)), pt.softplus(x)),
    }


def log_ndtr_free(x):
    return -pt.softplus(-x)


@pytest.mark.parametrize("name", graphs()[1])
def test_forms_are_the_log(name):
    x, known = graphs()
    graph, expected = known[name]
    [new] = stabilised([graph])
    assert new is not graph and new.type.dtype == graph.type.dtype
    at = np.array([-1.3, 0.4, 2.0])
    before, after = pytensor.function([x], [graph, new], mode="FAST_COMPILE")(at)
    np.testing.assert_allclose(after, before, rtol=1e-12)
    if expected is not None:
        np.testing.assert_allclose(after, expected.eval({x: at}, mode="FAST_COMPILE"), rtol=1e-12)


def test_other_logs_stay():
    x = pt.vector("x", shape=(3,), dtype="float64")
    others = {
        "a scale": pt.log(pt.exp(x)),
        "scales of groups": pt.log(pt.exp(x)[np.array([0, 2])]),
        "a rate": pt.log(2 * pt.exp(x)),
        "a number": pt.log(x),
        "of no sigmoid": pt.log(1 - x),
        "log1p": pt.log1p(pt.exp(x) ** 2),
        "a sigmoid alone": pt.sigmoid(x),
        "a curve": pt.log(3 + pt.sigmoid(x)),
    }
    assert [name for name, old in others.items() if stabilised([old])[0] is not old] == []


def test_ndtr_agrees_with_its_log():
    """The reference itself, where both are exact."""
    np.testing.assert_allclose(np.exp(log_ndtr(X[2:4])), ndtr(X[2:4]), rtol=1e-14)


N = 50
DISTANCE = np.linspace(0, 300, N)  # of raw data: logits are far beyond 40
ROWS = np.column_stack([np.ones(N), DISTANCE])
Y = (DISTANCE < 100).astype("int64")


def logistic():
    """A logistic regression on rows of raw data."""
    with pm.Model(coords={"obs": range(N)}) as model:
        x, y = pm.Data("x", ROWS, dims=("obs", None)), pm.Data("observed", Y, dims="obs")
        b = pm.Normal("b", 0, 10, shape=2)
        # With b[0] + b[1] * x PyTensor cancels the quotient of 0 and 0, with a product of matrices not
        pm.Bernoulli("y", logit_p=x @ b, observed=y, dims="obs")
    return model


def subsampled():
    with pm.Model(coords={"obs": range(N)}) as model:
        x, y = pm.Data("x", ROWS, dims=("obs", None)), pm.Data("observed", Y, dims="obs")
        x, y = pm.Minibatch(x, y, batch_size=10)
        b = pm.Normal("b", 0, 10, shape=2)
        pm.Bernoulli("y", logit_p=x @ b, observed=y, dims="obs")
    return model


def of_rows():
    """Each row has a logit of its own."""
    with pm.Model(coords={"obs": range(N)}) as model:
        y = pm.Minibatch(pm.Data("observed", Y, dims="obs"), batch_size=10)
        z = pm.Normal("z", 0, 1, dims="obs")
        pm.Bernoulli("y", logit_p=500 * z, observed=y, dims="obs")
    return model


def named():
    with pm.Model(coords={"obs": range(N), "k": range(2)}) as model:
        x, y = pmd.Data("x", DISTANCE, dims="obs"), pmd.Data("observed", Y, dims="obs")
        b = pmd.Normal("b", 0, 10, dims="k")
        p = pmd.math.sigmoid(b.isel(k=0) + b.isel(k=1) * x)
        pmd.Bernoulli("y", p=p, observed=y)
    return model


def streamed():
    loader = pm.DataLoader({"x": ROWS, "observed": Y}, batch_size=10, seed=1)
    with pm.Model() as model:
        x = pm.Data("x", loader, dims=("obs", None))
        y = pm.Data("observed", loader, dims="obs")
        b = pm.Normal("b", 0, 10, shape=2)
        pm.Bernoulli("y", logit_p=x @ b, observed=y, dims="obs")
    return model, loader


FITS = {
    "mean-field": (logistic, {"method": "advi"}),
    "full-rank": (logistic, {"method": "fullrank_advi"}),
    "several draws": (logistic, {"guide": "low_rank", "obj_n_mc": 3}),
    "particles": (logistic, {"objective": "iwae", "n_particles": 3}),
    "wake-sleep": (logistic, {"objective": "rws", "n_particles": 3}),
    "SVGD": (
        logistic,
        {"method": "svgd", "start": {"b": [0, 1]}, "inf_kwargs": {"n_particles": 5}},
    ),
    "minibatches": (subsampled, {}),
    "rows": (of_rows, {}),
    "particles of rows": (of_rows, {"objective": "iwae", "n_particles": 3}),
    "named dims": (named, {}),
}


@pytest.mark.parametrize("name", FITS)
def test_a_fit_on_raw_predictors_ends(name):
    make, kwargs = FITS[name]
    with make():
        start = pm.fit(0, random_seed=1, **quiet(**kwargs))
        approx = pm.fit(50, random_seed=1, **quiet(**kwargs))
    for before, after in zip(start.params, approx.params):
        assert (before.get_value() != after.get_value()).any()  # SVGD has no loss that would be nan
    assert all(np.isfinite(param.get_value()).all() for param in approx.params)


def test_a_fit_on_raw_predictors_ends_as_compiled_by_default():
    with logistic():
        approx = pm.fit(50, random_seed=1, progressbar=False)
    assert len(approx.hist) == 50 and np.isfinite(approx.hist).all()


def test_a_fit_of_a_stream_ends():
    model, loader = streamed()
    with model:
        approx = pm.fit(50, data=loader, random_seed=1, **quiet())
    assert len(approx.hist) == 50 and np.isfinite(approx.hist).all()


def test_a_guide_of_discrete_rows():
    """Its log-density has a gradient too."""
    w = pytensor.shared(np.array([0.0, 1.0]), "w")

    def classify(x):
        return pm.Bernoulli.dist(logit_p=pt.stack([pt.ones_like(x), x], axis=1) @ w)

    with pm.Model(coords={"obs": range(N)}):
        batch = pm.Minibatch(pm.Data("x", DISTANCE, dims="obs"), batch_size=10)
        c = pm.Bernoulli("c", 0.5, dims="obs")
        pm.Normal("y", 300 * c, 10, observed=batch, dims="obs")
        guide = pm.Amortized({"c": classify}, [batch], "obs")
        for insomnia in (1.0, 0.5):
            approx = pm.fit(
                50,
                guide=guide,
                objective=pm.ReweightedWakeSleep(insomnia=insomnia),
                n_particles=3,
                obj_optimizer=pm.sgd(learning_rate=0.1),
                random_seed=1,
                **quiet(),
            )
            assert all(np.isfinite(param.get_value()).all() for param in approx.params)


def normal_regression():
    with pm.Model(coords={"obs": range(N)}) as model:
        x, y = pm.Data("x", DISTANCE, dims="obs"), pm.Data("observed", DISTANCE, dims="obs")
        x, y, group = pm.Minibatch(x, y, pm.Data("group", Y, dims="obs"), batch_size=10)
        b = pm.Normal("b", 0, 10, shape=2)
        sigma = pm.HalfNormal("sigma", shape=2)
        pm.Normal("y", b[0] + b[1] * x, sigma[group], observed=y, dims="obs")
    return model


def weights_of(model, monkeypatch):
    """Return the log-weights of a fit, and what they would be of graphs as they are."""
    objective = pm.ADVI(model=model).objective
    storage = objective.approx.storage
    setting = objective.setting(storage.param_values(storage.of_batch()))
    draws = base.draw_all(setting)
    found = base.log_weights(setting, draws)
    with monkeypatch.context() as patch:
        patch.setattr(base, "stabilised", list)
        plain = base.log_weights(setting, draws)
    return [[weights.global_, *weights.rows.values()] for weights in (found, plain)]


def test_other_models_keep_their_graphs(monkeypatch):
    found, plain = weights_of(normal_regression(), monkeypatch)
    assert equal_computations(found, plain)
    found, plain = weights_of(subsampled(), monkeypatch)
    assert not equal_computations(found, plain)


def test_parts_that_nothing_is_mended_in_are_the_same_objects():
    x = pt.vector("x", dtype="float64")
    eta = (x**2).cumsum()
    p = pt.sigmoid(eta)
    graph = pt.log(1 - p) + p
    [found, other] = stabilised([graph, eta])
    assert found is not graph and other is eta
    assert {eta, p} <= set(ancestors([found]))
    assert equal_computations([found], [-pt.softplus(eta) + p])
    assert equal_computations([graph], [pt.log(1 - p) + p])  # it is not changed


def test_random_numbers_are_shared():
    rng = pytensor.shared(np.random.default_rng(1))
    _, noise = pt.random.normal(size=(3,), rng=rng).owner.outputs
    graph = pt.log(pt.sigmoid(noise)) + noise
    [found] = stabilised([graph])
    assert noise in set(ancestors([found])) and rng in set(ancestors([found]))


def slope(b):
    """The gradient of the log-posterior of a logistic regression."""
    p = 1 / (1 + np.exp(-(b[0] + b[1] * DISTANCE)))
    return np.array([(Y - p).sum(), ((Y - p) * DISTANCE).sum()]) - b / 100


def test_named_dims():
    """Named dims are written as tensors, whose patterns are known."""
    model = named()
    graphs = [term.logp.sum() for term in terms_of(model)]
    assert [new is old for new, old in zip(stabilised(graphs), graphs)] == [True, False]
    b = pt.vector("b", shape=(2,), dtype="float64")
    logp = pt.add(*at_draws(stabilised(graphs), {model.value_vars[0]: b}))
    gradient = pytensor.function([b], pt.grad(logp, b), mode=PYTHON)
    at = np.array([0.5, 0.7])
    np.testing.assert_allclose(gradient(at), slope(at), rtol=1e-10)


def test_the_log_posterior_of_auto():
    model = logistic()
    logp = LogPosterior.of(model, InitialValues.from_model(model), mode=PYTHON)
    at = np.array([0.5, 0.7])
    [_], [gradient] = logp(at[None])
    np.testing.assert_allclose(gradient, slope(at), rtol=1e-10)


def test_the_log_density_of_some_rows():
    at = np.array([0.5, 0.7])
    some = SubsampledLogDensity.of(subsampled(), {"b": at[None]}, {"mode": PYTHON})
    _, [gradient] = some.expand([at], [np.arange(N)])
    np.testing.assert_allclose(gradient, slope(at), rtol=1e-10)
