# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""What is about all rows uses all rows, bit for bit; what needs one log-probability refuses."""

import inspect
import pickle

import numpy as np
import pytest
import xarray as xr

from pytensor.compile.mode import Mode

import pymc as pm

from pymc.model.full_data import full_data_model
from pymc.stats import compute_log_prior
from pymc.stats.log_density import compute_log_density
from pymc.tuning.scaling import find_hessian, find_hessian_diag

N, B = 6, 2
rng = np.random.default_rng(1)
X = rng.normal(size=(N, 3))
Y = rng.normal(size=N)
G = np.array([0, 1, 2, 1, 0, 3], dtype="int32")
PYTHON = {"compile_kwargs": {"mode": Mode(linker="py", optimizer="fast_compile")}}
QUIET = {"progressbar": False, **PYTHON}


def build(kind):
    coords = {"obs": [f"row{i}" for i in range(N)], "feature": list("abc"), "group": range(4)}
    with pm.Model(coords=coords) as model:
        x = pm.Data("x", X, dims=("obs", "feature"))
        g = pm.Data("g", G, dims="obs")
        y = pm.Data("y_data", Y, dims="obs")
        if kind == "within":
            x, g, y = pm.Minibatch(x, g, y, batch_size=B)
        b = pm.Normal("b", dims="feature")
        a = pm.Normal("a", dims="group")
        mu = pm.Deterministic("mu", x @ b + a[g], dims="obs")
        pm.Normal("lik", mu, pm.HalfNormal("sigma"), observed=y, dims="obs")
    return pm.minibatch_model(model, B) if kind == "transformed" else model


@pytest.fixture(scope="module")
def posterior():
    draws = np.random.default_rng(3)
    values = {
        "b": (("chain", "draw", "feature"), draws.normal(size=(1, 3, 3))),
        "a": (("chain", "draw", "group"), draws.normal(size=(1, 3, 4))),
        "sigma": (("chain", "draw"), draws.uniform(1, 2, size=(1, 3))),
    }
    coords = {"chain": [0], "draw": range(3), "feature": list("abc"), "group": range(4)}
    return xr.DataTree.from_dict({"posterior": xr.Dataset(values, coords=coords)})


def everything(model, posterior):
    """Call all that draws or computes for all rows, with a model given and from the context."""
    results = {
        "prior": pm.sample_prior_predictive(2, model=model, random_seed=1, **PYTHON),
        "predictive": pm.sample_posterior_predictive(
            posterior, model=model, random_seed=2, **QUIET
        ),
        "likelihood": pm.compute_log_likelihood(posterior.copy(), model=model, **QUIET),
        "log_prior": compute_log_prior(posterior.copy(), model=model, **QUIET),
    }
    with model:
        deterministics = pm.compute_deterministics(posterior, **QUIET)
        results["deterministics"] = xr.DataTree(deterministics)
        new = {"x": X[:4] + 1, "g": G[:4], "y_data": Y[:4]}
        pm.set_data(new, coords={"obs": list("wxyz")})
        results["predictions"] = pm.sample_posterior_predictive(
            posterior, predictions=True, random_seed=3, **QUIET
        )
    return {
        (call, group.name, name): variable.values
        for call, tree in results.items()
        for group in tree.subtree
        for name, variable in group.dataset.variables.items()
    }


@pytest.fixture(scope="module")
def of_all_rows(posterior):
    return everything(build("plain"), posterior)


@pytest.mark.parametrize("kind", ["within", "transformed"])
def test_uses_all_rows(kind, posterior, of_all_rows):
    values = everything(build(kind), posterior)
    for key, expected in of_all_rows.items():
        np.testing.assert_array_equal(values[key], expected, err_msg=str(key))
    assert values["predictive", "posterior_predictive", "lik"].shape == (1, 3, N)
    assert values["predictions", "predictions", "lik"].shape == (1, 3, 4)
    np.testing.assert_array_equal(values["prior", "observed_data", "lik"], Y)
    np.testing.assert_array_equal(values["prior", "constant_data", "x"], X)
    assert list(values["deterministics", None, "obs"]) == [f"row{i}" for i in range(N)]


def test_all_rows_need_no_copy_of_the_data():
    model = build("within")
    full = full_data_model(model)
    assert full["x"] is model["x"]
    copied = model.copy()
    assert not np.shares_memory(
        copied["x"].get_value(borrow=True), model["x"].get_value(borrow=True)
    )


def test_full_data_model_is_the_model_itself_without_minibatch():
    model = build("plain")
    assert full_data_model(model) is model


def of_jax(name):
    def call(**kwargs):
        getattr(pytest.importorskip("pymc.sampling.jax"), name)(**kwargs)

    return call


# What each refusing function is called by; the name in its message comes first
REFUSING = {
    "sample": pm.sample,
    "sample, other NUTS": lambda **kwargs: pm.sample(nuts_sampler="numpyro", **kwargs),
    "init_nuts": pm.init_nuts,
    "find_MAP": pm.find_MAP,
    "sample_smc": pm.sample_smc,
    "find_hessian": lambda **kwargs: find_hessian({}, **kwargs),
    "find_hessian_diag": lambda **kwargs: find_hessian_diag({}, **kwargs),
    "sample_jax_nuts, NumPyro": of_jax("sample_numpyro_nuts"),
    "sample_jax_nuts, BlackJAX": of_jax("sample_blackjax_nuts"),
}


@pytest.mark.parametrize("name", REFUSING)
def test_refuses(name):
    model = build("within")
    called = name.partition(",")[0]
    message = rf"^pm\.(\S+\.)?{called} compares .*pm\.(\S+\.)?{called}\(\.\.\., model=pm\.remove_minibatch\(model\)"
    with pytest.raises(ValueError, match=message) as error:
        REFUSING[name](model=model)
    assert callable(eval(str(error.value).split(" compares")[0]))  # what it says is there
    with model, pytest.raises(ValueError, match=message):
        REFUSING[name]()


WRAPPED = [
    pm.sample,
    pm.init_nuts,
    pm.find_MAP,
    pm.sample_smc,
    find_hessian,
    find_hessian_diag,
    pm.sample_prior_predictive,
    pm.sample_posterior_predictive,
    pm.compute_deterministics,
    compute_log_density,
    pm.compute_log_likelihood,
    pm.do,
]


@pytest.mark.parametrize("function", WRAPPED, ids=lambda function: function.__name__)
def test_looks_like_the_release(function):
    assert pickle.loads(pickle.dumps(function)) is function
    assert "Parameters\n" in function.__doc__
    assert "args" not in inspect.signature(function).parameters


def test_submodel_refuses_too():
    with pm.Model(), pm.Model(name="sub"):
        y = pm.Minibatch(Y, batch_size=B)
        pm.Normal("lik", pm.Normal("mu"), 1, observed=y)
        with pytest.raises(ValueError, match=r"pm\.find_MAP compares"):
            pm.find_MAP()


def test_batch_moves_in_functions_of_the_model():
    with pm.Model() as model:
        y = pm.Minibatch(Y, batch_size=1)
        pm.Normal("lik", pm.Normal("mu"), 1, observed=y)
    with pm.minibatch_logp():
        logp, dlogp = model.compile_logp(**_mode()), model.compile_dlogp(**_mode())
        both = model.logp_dlogp_function(ravel_inputs=True, **_mode())
    point = model.initial_point()
    assert len({float(logp(point)) for _ in range(N)}) == N  # each row once a pass
    assert len({float(dlogp(point)[0]) for _ in range(N)}) == N
    assert len({float(both(np.zeros(1))[0]) for _ in range(N)}) == N


def _mode():
    return PYTHON["compile_kwargs"]
