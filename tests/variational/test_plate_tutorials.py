# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""The tutorials of plates, on few steps: what their pages show, and the numbers that have an answer."""

import importlib.util
import sys

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import matplotlib as mpl
import numpy as np
import pytest

from pytensor.compile.mode import Mode
from scipy.special import expit
from scipy.stats import binom, norm

ROOT = Path(__file__).parents[2]
PYTHON = {"mode": Mode(linker="py", optimizer="fast_compile")}
KS = (1, 2, 5, 10, 20, 50, 100)


def load(name: str) -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location(name, ROOT / f"examples/{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(ROOT / "examples"))  # they import from each other
    try:
        with mpl.rc_context({"backend": "agg"}):
            spec.loader.exec_module(module)
            yield module
    finally:
        sys.path.remove(str(ROOT / "examples"))


@pytest.fixture(scope="module")
def particles() -> Iterator[ModuleType]:
    yield from load("particle_objectives")


@pytest.fixture(scope="module")
def vae() -> Iterator[ModuleType]:
    yield from load("vae")


@pytest.fixture(scope="module")
def local_effects() -> Iterator[ModuleType]:
    yield from load("local_effects")


@pytest.fixture(scope="module")
def three_rows(particles) -> np.ndarray:
    return particles.weights_of_prior(20_000)


def within(estimates: np.ndarray, exact: float, z: float = 5) -> bool:
    """Within z standard errors: at 5, one of 1.7 million is not."""
    return abs(estimates.mean() - exact) <= z * estimates.std() / np.sqrt(len(estimates))


@pytest.mark.parametrize(
    ("n_particles", "exact", "batch_first"),
    [(1, -6.7568, -6.7568), (2, -5.72868, -5.8766), (20, -5.0937, -5.1146)],
)
def test_the_orders_are_told_apart(particles, three_rows, n_particles, exact, batch_first):
    w = three_rows.reshape(-1, n_particles, 3)
    right, wrong = particles.right(w), particles.batch_first(w)
    assert within(right, exact)
    assert within(wrong, batch_first)
    if n_particles == 2:  # of the same draws, so that their difference has little noise
        assert not within(right - wrong, 0)
    if n_particles > 1:
        assert particles.scale_inside(w).mean() > exact + 0.4


def test_scale_inside_is_no_bound(particles, three_rows):
    w = three_rows.reshape(-1, 100, 3)
    assert particles.scale_inside(w).mean() > particles.LOG_EVIDENCE + 0.8


def test_renyi_and_wake_gradients(particles):
    # 400,000 draws of weights with sd near 1: a tolerance of 5 standard errors, 0.008, and more
    for alpha, exact in ((0, -1.515512), (0.5, -1.540654), (1, -1.572082), (2, -1.667445)):
        assert abs(particles.renyi_bound(alpha) - exact) < 0.01
    for k, exact in ((1, 0), (2, 0.3502), (10, 0.5678), (100, 0.5974)):
        assert abs(particles.wake_gradient(k) - exact) < 0.01


def test_objectives_and_pictures_of_particles(particles, tmp_path):
    model = particles.two_sides(n_rows=60)
    for options in particles.OBJECTIVES.values():
        few = {**options, "n_particles": 2} if "n_particles" in options else options
        approx = particles.fit_sides(model, n=3, compile_kwargs=PYTHON, **few)
        assert np.isfinite(approx.hist).all()
    bounds = particles.bounds_by_particles(np.zeros((200, 3)))
    assert {k for by_k in bounds.values() for k in by_k} == set(KS)
    particles.plot_bounds({"3 rows": (bounds, 0.0)}, tmp_path / "bounds.png")
    particles.plot_sides({"ELBO": 0.4, "RWS": 0.7}, tmp_path / "sides.png")
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in tmp_path.iterdir())


def test_vae(vae, tmp_path):
    digits = vae.read_digits()
    assert digits.train.shape == (1397, 64) and digits.test.shape == (400, 64)
    assert set(np.unique(digits.train)) == {0, 1}
    encoder, decoder = vae.new_weights()
    before = {name: weight.get_value() for name, weight in (decoder | encoder).items()}
    model, guide = vae.vae(digits.train[:300], encoder, decoder)
    for stage in vae.STAGES.values():
        few = {**stage, "n": 40} | ({"n_particles": 2} if "n_particles" in stage else {})
        approx = vae.fit(model, guide, decoder, compile_kwargs=PYTHON, **few)
        assert np.isfinite(approx.hist).all()
    for name, weight in (decoder | encoder).items():
        assert not np.array_equal(weight.get_value(), before[name])
    found = vae.held_out(model, guide, digits.test[:20], n_particles=50)
    # better than pixels that are black or white by chance
    assert found["log_evidence"].shape == (20,)
    assert found["log_evidence"].mean() > -64 * np.log(2)
    vae.plot_codes(digits, encoder, decoder, tmp_path / "codes.png", n_across=3)
    vae.plot_reconstructions(digits.test, {"same": digits.test}, tmp_path / "digits.png")
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in tmp_path.iterdir())


def few_rows(data, n: int):
    """Some rows of the departures, with all coords but theirs."""
    rows = np.linspace(0, len(data.n_late) - 1, n).astype(int)
    arrays = {name: getattr(data, name)[rows] for name in data._fields if name != "coords"}
    labels = [data.coords["obs"][row] for row in rows]
    return data._replace(**arrays, coords={**data.coords, "obs": labels})


def test_local_effects(local_effects, tmp_path):
    data = local_effects.read_departures()
    assert len(data.n_late) == len(set(data.coords["obs"])) == 115_031
    assert data.n_flights.sum() == 336_776 - 9_430
    few = few_rows(data, 300)
    model = local_effects.departures_model(few)
    approx = local_effects.fit(model, n=5, batch_size=50, compile_kwargs=PYTHON)
    names = ["effect", "expected", "effect_sd"]
    rows = np.arange(6)
    labels = few.coords["obs"][:6]
    draws = approx.sample(50, rows={"obs": labels}, var_names=names, random_seed=1)
    assert draws["posterior"]["effect"].obs.to_numpy().tolist() == labels
    assert local_effects.exact_moments(draws["posterior"].to_dataset(), few, rows).shape == (6, 2)
    local_effects.plot_rows({"ELBO": draws}, few, rows, tmp_path / "rows.png")
    local_effects.plot_effect_sd({"ELBO": np.arange(5.0)}, tmp_path / "sd.png")
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in tmp_path.iterdir())


def test_integrated_model_is_the_model(local_effects):
    few = few_rows(local_effects.read_departures(), 4)
    model = local_effects.integrated_model(few, n_nodes=40)
    point = model.initial_point()
    del point["day_sd_log__"]  # no part of the rows' term
    logps = model.logp(vars=model.potentials, sum=False)
    [found] = model.compile_fn(logps, mode=PYTHON["mode"])(point)
    z = np.linspace(-9, 9, 4001)[:, None]
    effect_sd = np.exp(point["effect_sd_log__"])
    p = expit(point["hour_effect"][few.hour] + effect_sd * z)
    exact = np.log((norm.pdf(z) * binom.pmf(few.n_late, few.n_flights, p)).sum(0) * (z[1] - z[0]))
    # without the number of orders
    exact -= binom.logpmf(few.n_late, few.n_flights, 0.5) + few.n_flights * np.log(2)
    np.testing.assert_allclose(found, exact, rtol=1e-6)


def test_exact_density_is_the_posterior(local_effects):
    # without data the posterior of a row is its prior
    found = local_effects.exact_density(np.zeros(1), np.full(1, 0.8), 0, 0)
    np.testing.assert_allclose(found, norm.pdf(local_effects.GRID, 0, 0.8), atol=1e-4)
