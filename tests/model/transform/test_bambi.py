# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Models of Bambi go through `pm.minibatch_model` as they are, whatever their formula and family.

Their design matrices, group indexes, offsets and weights are constants. Proof by enumeration: the
log-probability, averaged over all batches, is that of all rows.
"""

import numpy as np
import pandas as pd
import pytest

import pymc as pm

from tests.minibatch.enumeration import (
    PYTHON,
    full_logp_and_gradient,
    mean_over_batches,
    some_point,
)

bmb = pytest.importorskip("bambi")
pytestmark = pytest.mark.filterwarnings("ignore::Warning:bambi", "ignore::Warning:formulae")

N, B = 8, 6
rng = np.random.default_rng(1)
FRAME = pd.DataFrame(
    {
        "x": rng.normal(size=N),
        "z": rng.normal(size=N),
        "y": rng.normal(size=N),
        "angle": rng.uniform(-3, 3, N),
        "share": rng.uniform(0.1, 0.9, N),
        "positive": rng.gamma(2, size=N),
        "count": [0, 3, 1, 0, 2, 5, 4, 0],
        "success": [0, 1, 3, 2, 0, 4, 1, 2],
        "trials": [5, 6, 5, 7, 5, 8, 5, 6],
        "binary": [0, 1, 1, 0, 1, 0, 0, 1],
        "group": list("abcbacab"),
        "other": list("uvuvuvvu"),
        "row": [f"r{k}" for k in range(N)],  # as many groups as rows
        "weight": rng.uniform(0.5, 2, N),
        "low": rng.uniform(-4, -2, N),
        "high": rng.uniform(2, 4, N),
        "status": ["none", "left", "right", "none", "none", "right", "left", "none"],
        "level": pd.Categorical([0, 1, 2, 0, 1, 2, 2, 1], ordered=True),
        "kind": pd.Categorical(list("abcabcca")),
        "one": 1.0,
    }
)
FRAME["with_zeros"] = np.where(FRAME["count"] > 0, FRAME.positive, 0.0)
FRAME[["c0", "c1", "c2"]] = rng.integers(1, 6, (N, 3))

TERMS = [
    "y ~ 1",
    "y ~ 0 + x",
    "y ~ x * z",
    "y ~ group * x",
    "y ~ bs(x, df=4)",
    "y ~ poly(x, 2)",
    "y ~ scale(x) + (scale(x) | group)",
    "y ~ x + (1 | group)",
    "y ~ x + (x | group)",
    "y ~ x + (0 + x | group)",
    "y ~ x + (other | group)",
    "y ~ x + (1 | group / other)",
    "y ~ x + (1 | group) + (1 | other)",
    "y ~ x + (1 | row)",
    "y ~ x + offset(z)",
    "y ~ x + offset(one)",
    "y ~ hsgp(x, m=4, c=2)",
    "y ~ hsgp(x, m=4, c=2, centered=True)",
    "y ~ hsgp(x, z, m=3, c=2)",
    "y ~ hsgp(x, by=group, m=4, c=2)",
    "truncated(y, -5, 5) ~ x",
    "truncated(y, low, high) ~ x",
    "constrained(y, -5, 5) ~ x",
    "weighted(y, weight) ~ x + (1 | group)",
]
FAMILIES = {
    "t": "y ~ x",
    "asymmetriclaplace": "y ~ x",
    "vonmises": "angle ~ x",
    "beta": "share ~ x",
    "gamma": "positive ~ x",
    "wald": "positive ~ x",
    "weibull": "censored(positive, status) ~ x + (1 | group)",
    "exponential": "censored(positive, status) ~ x",
    "bernoulli": "binary ~ x",
    "binomial": "p(success, trials) ~ x",
    "beta_binomial": "p(success, trials) ~ x",
    "zero_inflated_binomial": "p(success, trials) ~ x",
    "poisson": "weighted(count, weight) ~ x",
    "negativebinomial": "count ~ x",
    "zero_inflated_poisson": "count ~ x",
    "zero_inflated_negativebinomial": "count ~ x",
    "hurdle_poisson": "count ~ x",
    "hurdle_negativebinomial": "count ~ x",
    "hurdle_gamma": "with_zeros ~ x",
    "hurdle_lognormal": "with_zeros ~ x",
    "categorical": "kind ~ x + (x | group)",
    "cumulative": "level ~ 0 + x",
    "sratio": "level ~ 0 + x",
    "multinomial": "counts(c0, c1, c2) ~ x + (1 | group)",
    "dirichlet_multinomial": "counts(c0, c1, c2) ~ x",
}
LOG_LINKS = {"gamma", "wald", "weibull", "hurdle_gamma"}


def built(formula, family="gaussian", **kwargs):
    link = {"link": "log"} if family in LOG_LINKS else {}
    model = bmb.Model(formula, FRAME, family=family, **link, **kwargs)
    model.build()
    return model


def assert_unbiased(model):
    full = model.backend.model
    batched = pm.minibatch_model(full, B)
    point = some_point(full)
    mean = mean_over_batches(batched, point, gradient=False)
    np.testing.assert_allclose(mean, full_logp_and_gradient(full, point, gradient=False), 1e-8)

    assert batched.observed_RVs[0].shape.eval(mode=PYTHON)[0] == B


@pytest.mark.parametrize("formula", TERMS)
def test_terms(formula):
    assert_unbiased(built(formula))


@pytest.mark.parametrize("family", FAMILIES)
def test_families(family):
    assert_unbiased(built(FAMILIES[family], family))


def test_parameters_with_formulas_of_their_own():
    formula = bmb.Formula("y ~ x + (1 | group)", "sigma ~ z + (1 | other)")
    assert_unbiased(built(formula, noncentered=False, center_predictors=False))


def test_fit_of_bambi_takes_batch_size():
    approx = built("y ~ x + (1 | group)").fit(
        inference_method="vi",
        batch_size=B,
        n=3,
        random_seed=1,
        progressbar=False,
        compile_kwargs={"mode": PYTHON},
    )
    assert approx.model["y"].shape.eval(mode=PYTHON) == B
    assert np.isfinite(approx.hist).all()
    posterior = approx.sample(2, random_seed=1).posterior
    assert posterior["1|group"].shape == (1, 2, 3)
    assert posterior["mu"].shape == (1, 2, N)  # Deterministics are of all rows
