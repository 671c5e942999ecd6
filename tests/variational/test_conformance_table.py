# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Every method, on every backend, float type and way of sampling, comes to the exact posterior.

Here a part, in which each of them is, unless CONFORMANCE_TABLE=full is in the environment, as in
``make conformance``. Of the cases A14 and A15 have no minibatch.
"""

import itertools
import os

import numpy as np
import pytest

from scipy.stats import chi2

import pymc as pm

from pymc.minibatch.shuffle import SAMPLING
from pymc.variational import diagnose
from tests.variational.fitting import (
    BOUNDS,
    FALSE_ALARMS,
    METHODS,
    OF_OBJECTIVES,
    RHO,
    all_rows_case,
    assert_posterior,
    correlated_case,
    fit,
    float_type,
    mean_case,
    moments,
    regression_case,
    two_likelihoods_case,
    z_score,
)

pytestmark = [
    pytest.mark.slow,
    # The JAX linker says of every shared generator, and so of this state, that it works on a copy
    pytest.mark.filterwarnings("ignore:The RandomType SharedVariables:UserWarning"),
    pytest.mark.filterwarnings("ignore:You are using experimental inference Operator:UserWarning"),
]

FULL = os.environ.get("CONFORMANCE_TABLE") == "full"
BACKENDS = ("numba", "jax", "c")
FLOATS = ("float64", "float32")
CASES = {"A1": mean_case, "A3": two_likelihoods_case, "A6": regression_case}

# Each case, method, backend, float type and way of sampling at least once, mostly on the backend that
# compiles fastest
MINIBATCHES = [
    ("A1", "advi", "numba", "float32", "epoch"),
    ("A1", "advi", "jax", "float64", "with_replacement"),
    ("A1", "fullrank_advi", "c", "float32", "epoch"),
    ("A1", "svgd", "jax", "float32", "without_replacement"),
    ("A1", "asvgd", "jax", "float64", "epoch"),
    ("A3", "advi", "jax", "float32", "with_replacement"),
    ("A3", "fullrank_advi", "numba", "float64", "epoch"),
    ("A6", "advi", "c", "float64", "without_replacement"),
    ("A6", "fullrank_advi", "jax", "float32", "with_replacement"),
    ("A6", "svgd", "jax", "float64", "epoch"),
]
CORRELATED = [("advi", "jax", "float32"), ("fullrank_advi", "jax", "float64")]
TWO_MODES = [("jax", "float64"), ("jax", "float32")]
OBJECTIVES = [
    ("elbo-stl", "jax"),
    ("iwae", "jax"),
    ("rws", "jax"),
    ("renyi(0.5)-reparam", "numba"),
    ("renyi(2.0)-dreg", "jax"),
    ("renyi(-1.0)-score", "jax"),
    ("renyi(-1.0)-dreg", "jax"),
]
if FULL:
    OBJECTIVES = list(itertools.product(BOUNDS, BACKENDS))
    # ASVGD, which PyMC advises against, is only for one parameter: with two it is far too wide
    pairs = [(case, method) for case in CASES for method in METHODS]
    pairs = [pair for pair in pairs if pair[1] != "asvgd" or pair[0] == "A1"]
    rest = list(itertools.product(BACKENDS, FLOATS, SAMPLING))
    MINIBATCHES = [(*pair, *others) for pair in pairs for others in rest]
    CORRELATED = list(itertools.product(("advi", "fullrank_advi"), BACKENDS, FLOATS))
    TWO_MODES = list(itertools.product(BACKENDS, FLOATS))


def row(*values):
    """A row of the table; the C linkers need a compiler."""
    marks = [pytest.mark.cxx] if "c" in values else []
    return pytest.param(*values, marks=marks, id="-".join(values))


def check_types(approx, backend, float_name):
    assert approx.report.driver == {"c": "python"}.get(backend, backend)
    assert {param.dtype for param in approx.params} == {float_name}


@pytest.mark.parametrize(
    "case_name, method, backend, float_name, sampling", [row(*values) for values in MINIBATCHES]
)
def test_minibatches(case_name, method, backend, float_name, sampling):
    case = CASES[case_name]()
    with float_type(float_name):
        approx = fit(case, case.model(sampling), method, seed=1, backend=backend)
        check_types(approx, backend, float_name)
        assert_posterior(moments(approx), case, method)


@pytest.mark.parametrize("name, backend", [row(*values) for values in OBJECTIVES])
def test_objectives(name, backend):
    """A1 on all rows; the sign of a bound shows in where its fit goes (A23)."""
    bound = BOUNDS[name]
    case = all_rows_case(bound)
    many = "obj_n_mc" if "elbo" in name else "n_particles"
    approx = fit(
        case,
        case.model(""),
        OF_OBJECTIVES,
        seed=1,
        backend=backend,
        objective=bound.objective,
        **{many: bound.n_particles},
    )
    assert_posterior(moments(approx), case, OF_OBJECTIVES)


def test_tempered_posterior():
    """`KLqp` of beta = 4: a quarter of the likelihood, and so of its rows."""
    case = all_rows_case(n_data=25)
    inference = pm.variational.KLqp(pm.MeanField(model=case.model("")), beta=4.0)
    approx = fit(case, None, OF_OBJECTIVES, seed=1, inference=inference, backend="jax")
    assert_posterior(moments(approx), case, OF_OBJECTIVES)


@pytest.mark.parametrize("method, backend, float_name", [row(*values) for values in CORRELATED])
def test_correlated_posterior(method, backend, float_name):
    """A14: full-rank has the ELBO 0, mean-field ½·log(1 − ρ²)."""
    case = correlated_case(method)
    with float_type(float_name):
        approx = fit(case, case.model(""), method, seed=1, backend=backend)
        check_types(approx, backend, float_name)
        assert_posterior(moments(approx), case, method)
        diagnosis = diagnose(approx, random_seed=1)
    best = 0 if method == "fullrank_advi" else 0.5 * np.log(1 - RHO**2)
    # That the 5 parameters are off costs half a χ² of as many degrees, by the number of steps
    cost = chi2.isf(FALSE_ALARMS, 5) / METHODS[method].n_steps
    assert abs(diagnosis.elbo - best) < z_score(1) * diagnosis.elbo_se + cost


@pytest.mark.parametrize("backend, float_name", [row(*values) for values in TWO_MODES])
def test_particles_find_both_modes(backend, float_name):
    """A15: 0.2·N(−0.3, 0.1) + 0.8·N(0.5, 0.1)."""
    with float_type(float_name):
        with pm.Model() as model:
            pm.NormalMixture("x", w=np.array([0.2, 0.8]), mu=np.array([-0.3, 0.5]), sigma=0.1)
        approx = pm.fit(
            300,
            "svgd",
            model=model,
            random_seed=1,
            inf_kwargs={"n_particles": 100},
            obj_optimizer=pm.sgd(learning_rate=0.01),
            backend=backend,
            progressbar=False,
        )
        check_types(approx, backend, float_name)
    x = approx.histogram.get_value().ravel()
    for particles, mean, weight in ((x[x < 0.1], -0.3, 0.2), (x[x >= 0.1], 0.5, 0.8)):
        # Shares of the exact ones as for other particles; how many are in a mode follows from the
        # start as much as from the weights, so of that only that neither mode is left out
        assert len(particles) / len(x) > weight / 4
        np.testing.assert_allclose(particles.mean(), mean, atol=0.15 * 0.1)
        np.testing.assert_allclose(particles.std(), 0.1, rtol=0.15)


def test_seeds():
    case = mean_case(use_dims=True)
    model = case.model("epoch")
    for seed in range(20):
        assert_posterior(moments(fit(case, model, "advi", seed, backend="jax")), case, "advi")


@pytest.mark.parametrize("wrong", ["not scaled", "scaled twice"])
def test_wrong_scale_fails(wrong):
    case, n_rows, batch_size = mean_case(), 100, 10
    scale = {"not scaled": batch_size / n_rows, "scaled twice": n_rows / batch_size}[wrong]
    x = np.random.default_rng(1).normal(0.7, 1, size=n_rows)
    with pm.Model() as model:
        batch = pm.Minibatch(x, batch_size=batch_size)
        mu = pm.Normal("mu", 0, 1)
        wrong_scale = pm.Data("scale", scale)
        term = wrong_scale * pm.logp(pm.Normal.dist(mu, 1), batch)
        pm.Potential("lik", term, total_size=n_rows)
    actual = moments(fit(case, model, "advi", seed=1, backend="jax"))
    with pytest.raises(AssertionError, match="not strictly ordered"):
        assert_posterior(actual, case, "advi")


def test_wrong_answers_are_outside_of_the_tolerance():
    """One scale for both likelihoods, and x and y out of step."""
    case = two_likelihoods_case()
    with pytest.raises(AssertionError, match="not strictly ordered"):
        assert_posterior(np.array([case.means, [0.026717]]), case, "advi")
    np.testing.assert_allclose(case.sds, 0.028855, atol=1e-6)
    case = regression_case()
    with pytest.raises(AssertionError, match="not strictly ordered"):
        assert_posterior(np.array([case.means * [1, 0], case.sds]), case, "advi")
    np.testing.assert_allclose(case.means[1], 2, atol=4 * 0.5 / np.sqrt(1000))
