# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Log-probabilities of a fit are stabilised before gradients are taken, and the others stay what they were."""

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest

from pytensor.graph.basic import equal_computations
from pytensor.graph.traversal import ancestors

import pymc as pm
import pymc.dims as pmd

from pymc.variational.auto.log_posterior import LogPosterior
from pymc.variational.guides.initial_values import Starts
from pymc.variational.objectives import base
from pymc.variational.objectives.terms import terms_of
from pymc.variational.posterior.log_density import SubsampledLogDensity
from pymc.variational.stabilised import stabilised
from pymc.variational.vectorize import at_draws
from tests.variational.engine import PYTHON, quiet

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
    setting = objective.setting(storage.here(storage.of_batch()))
    draws = base.draw_all(setting)
    found = base.log_weights(setting, draws)
    with monkeypatch.context() as patch:
        patch.setattr(base, "stabilised", list)
        plain = base.log_weights(setting, draws)
    return [[weights.glob, *weights.rows.values()] for weights in (found, plain)]


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
    logp = LogPosterior.of(model, Starts.of(model), mode=PYTHON)
    at = np.array([0.5, 0.7])
    [_], [gradient] = logp(at[None])
    np.testing.assert_allclose(gradient, slope(at), rtol=1e-10)


def test_the_log_density_of_some_rows():
    at = np.array([0.5, 0.7])
    some = SubsampledLogDensity.of(subsampled(), {"b": at[None]}, {"mode": PYTHON})
    _, [gradient] = some.expand([at], [np.arange(N)])
    np.testing.assert_allclose(gradient, slope(at), rtol=1e-10)
