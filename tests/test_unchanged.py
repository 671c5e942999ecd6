# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0

"""What has no minibatch comes out as from plain PyMC: the same bits for one seed."""

import importlib.util
import os
import subprocess

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# What prints a line for each quantity: its name, and a digest of its dtype, shape and bytes.
PRELUDE = """
import hashlib, logging, sys, warnings
import numpy as np
import pymc as pm

warnings.simplefilter("ignore")
logging.disable(logging.CRITICAL)
assert hasattr(pm, "_layer") == (sys.argv[1] == "patched"), pm.__file__

x = np.linspace(-1, 1, 8)
few = {"cores": 1, "progressbar": False, "random_seed": 20, "compute_convergence_checks": False}


def show(name, value):
    value = np.ascontiguousarray(value)
    print(name, hashlib.sha256(f"{value.dtype}{value.shape}".encode() + value.tobytes()).hexdigest())


def show_group(name, group):
    for variable in sorted(group.data_vars):
        if variable not in ("perf_counter_diff", "perf_counter_start", "process_time_diff"):
            show(f"{name}.{variable}", group[variable].values)
"""

QUANTITIES = """
counts = np.array([0, 2, 1, 3, 5, 4, 8, 9])
with pm.Model(coords={"row": range(8), "group": ["a", "b"]}) as model:
    data = pm.Data("x", x, dims="row")
    slope = pm.Normal("slope", 0, 1)
    level = pm.Normal("level", 0, 1, dims="group")
    sigma = pm.HalfNormal("sigma", 1)
    rate = pm.math.exp(level[np.arange(8) % 2] + slope * data)
    pm.Poisson("count", rate, observed=counts, dims="row")
    pm.StudentT("y", nu=3, mu=slope * data, sigma=sigma, observed=x**2, dims="row")
    pm.Potential("penalty", -(slope**2))

    quiet = {"progressbar": False, "random_seed": 20}
    point = model.initial_point()
    show("logp", model.compile_logp()(point))
    show("dlogp", model.compile_dlogp()(point))
    nuts = pm.sample(draws=30, tune=30, chains=2, **few)
    show_group("nuts", nuts["posterior"])
    show_group("nuts_stats", nuts["sample_stats"])
    show_group("observed", nuts["observed_data"])
    smc = pm.sample_smc(draws=30, chains=2, **few)
    show_group("smc", smc["posterior"])
    show("map", np.concatenate([np.ravel(pm.find_MAP(progressbar=False)[v.name]) for v in model.free_RVs]))
    prior = pm.sample_prior_predictive(draws=30, random_seed=20)
    show_group("prior", prior["prior"])
    show_group("prior_predictive", prior["prior_predictive"])
    posterior = pm.sample_posterior_predictive(nuts, **quiet)
    show_group("posterior_predictive", posterior["posterior_predictive"])
    pm.compute_log_likelihood(nuts, progressbar=False)
    show_group("log_likelihood", nuts["log_likelihood"])
    fit = pm.fit(50, method="advi", **quiet)
    # A fit adds the rows up in another order: its last digits differ
    show("advi_losses", np.round(fit.hist, 6))
    show("advi_mean", np.round(fit.mean.eval(), 6))
with pm.do(model, {"slope": 0.5}):
    show_group("do", pm.sample_prior_predictive(draws=5, random_seed=20)["prior"])
"""

# The same of packages built on PyMC.
PACKAGES = {
    "bambi": """
import bambi, pandas

frame = pandas.DataFrame({"x": x, "y": x**2, "g": list("abcd") * 2})
model = bambi.Model("y ~ x + (1 | g)", frame)
show_group("posterior", model.fit(draws=10, tune=10, chains=1, **few)["posterior"])
""",
    "pymc_bart": """
import pymc_bart

with pm.Model():
    mu = pymc_bart.BART("mu", x[:, None], x**2, m=5)
    pm.Normal("y", mu, 1, observed=x**2)
    show_group("posterior", pm.sample(draws=10, tune=10, chains=1, **few)["posterior"])
""",
    "pymc_extras": """
import pymc_extras

@pymc_extras.as_model(coords={"row": range(8)})
def extremes():
    mu = pm.Normal("mu", 0, 1)
    pymc_extras.GenExtreme("y", mu=mu, sigma=1, xi=0.1, observed=x, dims="row")


model = extremes()
show("logp", model.compile_logp()(model.initial_point()))
show("dlogp", model.compile_dlogp()(model.initial_point()))
show_group("prior", pm.sample_prior_predictive(draws=10, model=model, random_seed=20)["prior"])
""",
}


@pytest.fixture(scope="module")
def start(plain_python):
    """Return a function that starts `code` on plain PyMC or on the patch, and is fair to both."""

    def start(code: str, *arguments: str, patched: bool, **environment: str) -> subprocess.Popen:
        clean = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
        if patched:
            environment["PYTHONPATH"] = str(ROOT)
        return subprocess.Popen(
            [plain_python, "-c", code, *arguments],
            cwd="/",
            env=clean | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


def output(process: subprocess.Popen) -> str:
    stdout, stderr = process.communicate()
    assert process.returncode == 0, stderr
    return stdout


def both(start, code: str, folder: Path) -> list[list[str]]:
    """Return the lines that `code` prints on plain PyMC and on the patch.

    Numba's code may differ in the last bits when it comes from the cache (on plain PyMC: the losses of
    ADVI), so each compiles anew.
    """
    runs = [
        start(
            code,
            name,
            patched=name == "patched",
            PYTENSOR_FLAGS=f"base_compiledir={folder / name}",
        )
        for name in ("plain", "patched")
    ]
    return [output(run).splitlines() for run in runs]


def test_same_bits_for_one_seed(start, tmp_path):
    plain, patched = both(start, PRELUDE + QUANTITIES, tmp_path)
    assert len(plain) > 30
    assert [line for line in patched if line not in plain] == []
    assert patched == plain


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_built_on_pymc(start, tmp_path, package):
    if not os.environ.get("CI") and importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed; make test installs it")
    plain, patched = both(start, PRELUDE + PACKAGES[package], tmp_path)
    assert len(plain) > 0
    assert patched == plain


def test_import_loads_what_every_user_needs(start):
    """The engine is there; streams, plots and diagnostics come when they are asked for."""
    late = (
        "data_loading",
        *(
            f"variational.{name}"
            for name in ("checkpoints", "trainer", "plots", "diagnostics", "optax_optimizers")
        ),
        "variational.engine.drivers.jax",
    )
    code = "import sys, pymc; print(*sys.modules); print(*map(str, {}))"
    loaded = output(start(code.format("()"), patched=True)).split()
    assert [m for m in loaded if m.startswith(tuple(f"pymc.{name}" for name in late))] == []
    asked = output(start(code.format("[pymc.DataLoader.__module__]"), patched=True)).split()
    assert asked[-1] == "pymc.data_loading.data_loader"


def test_imports_nothing_that_plain_pymc_does_not(start):
    """No backend before a linker of its kind asks for it, and no package of others."""
    code = "import sys, pymc; print(*sys.modules)"
    plain, patched = (set(output(start(code, patched=p)).split()) for p in (False, True))
    assert len(plain) > 500
    assert {m.partition(".")[0] for m in patched} - {m.partition(".")[0] for m in plain} == set()
    assert {m for m in patched - plain if m.startswith("pytensor.link.")} == set()


def test_a_fit_by_auto_imports_no_package_of_others(start):
    """Those that take longer to import than such a fit takes."""
    code = """
import sys, pymc as pm
with pm.Model():
    scale = pm.HalfStudentT("scale", 3, 5)
    pm.Normal("y", pm.StudentT("mu", 3, 0, sigma=scale), 1, observed=1.0)
    pm.fit(method="auto", random_seed=1, progressbar=False)
print(*sys.modules)
"""
    loaded = set(output(start(code, patched=True)).split())
    assert loaded.isdisjoint({"jax", "arviz_base", "arviz_stats", "scipy.stats"})


def test_root_names(start):
    code = """
import types, pymc
names = (name for name in dir(pymc) if name not in ("__dir__", "__getattr__"))
print(*(name for name in names if not isinstance(getattr(pymc, name), types.ModuleType)))
"""
    plain, patched = (set(output(start(code, patched=p)).split()) for p in (False, True))
    new = {"Amortized", "LowRank", "NormalizingFlow", "Renyi", "ReweightedWakeSleep", "Structured"}
    new |= {"Loader", "Optimizer", "Source", "adamw"}
    new |= {"DataLoader", "IterableDataset", "Trainer", "arrow_source", "load_approximation"}
    new |= {"Rounds", "Workers", "parquet_source", "shuffle_buffer"}
    assert patched - plain == new | {
        "compile_pymc",
        "minibatch_logp",
        "minibatch_model",
        "remove_minibatch",
    }
    assert plain - patched == set()
