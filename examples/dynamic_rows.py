# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Fit rows with a random number of latent variables each.

A row is the sum of an unknown number of pulses, each of a random height, and noise:

    n_i ~ Categorical(p),    z_ij ~ Normal(height, 1) for j < n_i,    x_i ~ Normal(sum_j z_ij, 0.5)

The heights are padded to `MOST` slots, and a mask selects those that a row has. Unused slots are
N(0, 1) in the model and in the guide, so that they add exactly 0 to the log-weight of the row.
The masked sums are computed at once for all rows of a batch and all particles.

Run it with ``python examples/dynamic_rows.py``. It fits unknown numbers by reweighted wake-sleep,
and observed numbers by the importance-weighted bound. It compares both with the exact sums over
all numbers.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
import pytensor
import pytensor.tensor as pt

from pytensor.compile.mode import Mode
from pytensor.compile.sharedvalue import SharedVariable
from pytensor.graph.basic import Variable
from pytensor.graph.traversal import ancestors
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp
from scipy.stats import norm

import pymc as pm

SEED = 1
MOST = 3  # pulses of a row
P = np.array([0.2, 0.4, 0.25, 0.15])  # of 0 to MOST pulses
HEIGHT, SPREAD, NOISE = 3.0, 1.0, 0.5
N_HIDDEN = 16


class Rows(NamedTuple):
    """Observed sums, and the numbers of pulses that generated them."""

    x: np.ndarray  # (n_rows,) float64
    n: np.ndarray  # (n_rows,) int64


def simulate_rows(n_rows: int = 400, seed: int = SEED) -> Rows:
    rng = np.random.default_rng(seed)
    n = rng.choice(MOST + 1, p=P, size=n_rows)
    z = rng.normal(HEIGHT, SPREAD, size=(n_rows, MOST))
    x = np.where(used_slots(n), z, 0).sum(axis=1) + NOISE * rng.normal(size=n_rows)
    return Rows(x, n)


def used_slots(n: Any) -> Any:
    """Return the mask of shape (..., rows, MOST) for numbers of shape (..., rows)."""
    return np.arange(MOST) < n[..., None]


def pulse_model(rows: Rows, batch_size: int, known_numbers: bool) -> pm.Model:
    """Build the model. Its shared variable `height`, the mean of a pulse, starts at 2."""
    coords = {"obs": range(len(rows.x)), "slot": range(MOST)}
    with pm.Model(coords=coords) as model:
        data = [pm.Data("data", rows.x, dims="obs"), pm.Data("numbers", rows.n, dims="obs")]
        x, numbers = pm.Minibatch(*data, batch_size=batch_size)
        p = pt.ones_like(x)[:, None] * P  # one row each, so that rows can be tracked
        n = pm.Categorical("n", p=p, observed=numbers if known_numbers else None, dims="obs")
        used = used_slots(numbers if known_numbers else n)
        height = pytensor.shared(2.0, name="height")
        mu, sigma = pt.switch(used, height, 0.0), pt.switch(used, SPREAD, 1.0)
        z = pm.Normal("z", mu, sigma, dims=("obs", "slot"))
        total = pt.switch(used, z, 0.0).sum(axis=-1)
        pm.Normal("x", total, NOISE, observed=x, dims="obs")
    return model


def height_of(model: pm.Model) -> SharedVariable:
    [height] = [v for v in ancestors([model["z"]]) if v.name == "height"]
    return height


def weight(name: str, value: Any) -> SharedVariable:
    return pytensor.shared(np.asarray(value, dtype=pytensor.config.floatX), name=name)


def number_guide(model: pm.Model, seed: int = SEED) -> pm.Amortized:
    """Return the guide q(n | x), a network with one hidden layer."""
    rng = np.random.default_rng(seed)
    w_in, b_in = weight("w_in", rng.normal(size=(1, N_HIDDEN))), weight("b_in", np.zeros(N_HIDDEN))
    b_in.set_value(2 * rng.normal(size=N_HIDDEN))
    w_out = weight("w_out", 0.1 * rng.normal(size=(N_HIDDEN, MOST + 1)))
    b_out = weight("b_out", np.zeros(MOST + 1))

    def encode(x: Variable) -> Variable:
        hidden = pt.tanh(x[:, None] / 4 @ w_in + b_in)
        return pm.Categorical.dist(logit_p=hidden @ w_out + b_out)

    return pm.Amortized({"n": encode}, inputs=[model["x"]], dim="obs")


def slot_guide(model: pm.Model) -> pm.Amortized:
    """Return the guide q(z | x, n), linear in x for each number and slot; N(0, 1) if unused."""
    shape = (MOST + 1, MOST)
    at_0, slope, log_sd = (weight(name, np.zeros(shape)) for name in ("at_0", "slope", "log_sd"))

    def encode(x: Variable, n: Variable) -> Variable:
        used = used_slots(n)
        mu = pt.switch(used, at_0[n] + slope[n] * x[:, None], 0.0)
        return pm.Normal.dist(mu, pt.switch(used, pt.exp(log_sd[n]), 1.0))

    return pm.Amortized({"z": encode}, inputs=[model["x"], model["n"]], dim="obs")


def fit(
    rows: Rows, known_numbers: bool, n: int = 4000, batch_size: int = 40, **kwargs: Any
) -> tuple[Any, SharedVariable, list[pm.Amortized]]:
    """Fit guides and the height, by IWAE if the numbers are known, otherwise by RWS."""
    model = pulse_model(rows, batch_size, known_numbers)
    guides = [slot_guide(model)] if known_numbers else [number_guide(model), slot_guide(model)]
    objective = "iwae" if known_numbers else pm.ReweightedWakeSleep(insomnia=0.5)
    height = height_of(model)
    rate = pm.variational.schedules.cosine_decay(0.02, n)
    approx = pm.fit(
        n,
        model=model,
        guide=guides,
        objective=objective,
        n_particles=10,
        params=[height],
        reduction="mean",
        obj_optimizer=pm.adam(learning_rate=rate),
        random_seed=SEED,
        progressbar=False,
        **kwargs,
    )
    return approx, height, guides


def log_joint(x: np.ndarray, height: float) -> np.ndarray:
    """Return log p(x, n), shape (rows, MOST + 1), with the heights integrated out."""
    n = np.arange(MOST + 1)
    return np.log(P) + norm.logpdf(x[:, None], n * height, np.sqrt(n * SPREAD**2 + NOISE**2))


def exact_probabilities(x: np.ndarray, height: float) -> np.ndarray:
    """Return p(n | x), shape (rows, MOST + 1)."""
    joint = log_joint(x, height)
    return np.exp(joint - logsumexp(joint, axis=1, keepdims=True))


def exact_log_evidence(rows: Rows, height: float, known_numbers: bool) -> float:
    """Return the mean over rows of log p(x), or of log p(x, n) if the numbers are known."""
    joint = log_joint(rows.x, height)
    if known_numbers:
        return float(joint[np.arange(len(rows.n)), rows.n].mean())
    return float(logsumexp(joint, axis=1).mean())


def best_height(rows: Rows, known_numbers: bool) -> float:
    """Return the maximum-likelihood estimate of the height."""
    found = minimize_scalar(
        lambda height: -exact_log_evidence(rows, height, known_numbers), bounds=(0, 6)
    )
    return float(found.x)


def fitted_probabilities(guide: pm.Amortized, x: np.ndarray) -> np.ndarray:
    """Return q(n | x), shape (rows, MOST + 1), of any rows, also outside the fit."""
    dist = guide.distribution("n", x)
    logq = pt.stack([pm.logp(dist, np.full(len(x), n)) for n in range(MOST + 1)], axis=1)
    # Compiling takes longer than a single Python evaluation
    return np.exp(logq.eval(mode=Mode(linker="py", optimizer=None)))


def main() -> None:
    rows = simulate_rows()
    # Networks compile in seconds with JAX, but in a minute or more with Numba
    backend = "jax" if find_spec("jax") else None
    for known_numbers, name in ((False, "RWS, numbers unknown"), (True, "IWAE, numbers known")):
        approx, height, guides = fit(rows, known_numbers, backend=backend)
        exact = exact_log_evidence(rows, float(height.get_value()), known_numbers)
        print(f"{name}: {approx.report.seconds:.1f} s for {approx.report.n_steps:,} steps")
        print(f"  bound of a row {-approx.hist[-500:].mean():.3f}, exact {exact:.3f}")
        print(
            f"  height {float(height.get_value()):.3f}, most likely "
            f"{best_height(rows, known_numbers):.3f}"
        )
        if not known_numbers:
            x = np.array([0.0, 1.5, 3.0, 5.0, 7.0, 9.0])
            print("  p(n | x), exact and fitted, for x =", x)
            print(np.round(exact_probabilities(x, float(height.get_value())), 2))
            print(np.round(fitted_probabilities(guides[0], x), 2))


if __name__ == "__main__":
    main()
