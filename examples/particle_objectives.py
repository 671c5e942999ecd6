# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Compare bounds over particles on models with known answers.

Run it with ``python examples/particle_objectives.py``: it prints the results of
``docs/tutorials/particle_objectives.md`` and draws its figures.
"""

import argparse
import time

from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np

from matplotlib.patches import Ellipse
from scipy.special import logsumexp
from scipy.stats import norm

import pymc as pm

BLUE, ORANGE, GREEN, PURPLE = "#1f5a94", "#d1662b", "#3d8b5f", "#7a4fa3"
SEED = 9
X = np.array([-1.0, 0.0, 2.0])
LOG_EVIDENCE = norm.logpdf(X, 0, np.sqrt(2)).sum()  # -5.04654
NOISE = 0.5


def three_rows() -> pm.Model:
    """Build a model of three rows x ~ N(z, 1), each with a latent z ~ N(0, 1)."""
    with pm.Model(coords={"obs": range(len(X))}) as model:
        x = pm.Data("x_data", X, dims="obs")
        z = pm.Normal("z", 0, 1, dims="obs")
        pm.Normal("x", z, 1, observed=x, dims="obs")
    return model


def weights_of_prior(n: int) -> np.ndarray:
    """Return the log-weights of draws from the prior, the initial guide, shape (n, 3)."""
    approx = pm.fit(
        0,
        model=three_rows(),
        batch_size={"obs": len(X)},
        start={"z": np.zeros(len(X))},
        start_sigma={"z": np.ones(len(X))},
        progressbar=False,
    )
    return np.asarray(pm.variational.log_weights(approx, n, random_seed=SEED))


def right(w: np.ndarray) -> np.ndarray:
    """Return the bound of weights (repeats, K, rows): logsumexp over K, then the sum over rows."""
    return (logsumexp(w, axis=1) - np.log(w.shape[1])).sum(axis=-1)


def batch_first(w: np.ndarray) -> np.ndarray:
    """Sum over rows before the logsumexp over particles, which is wrong."""
    return logsumexp(w.sum(axis=-1), axis=1) - np.log(w.shape[1])


def scale_inside(w: np.ndarray, scale: float = 3.0) -> np.ndarray:
    """Scale by N/B inside the logsumexp, which is wrong, and average over the batches."""
    return (logsumexp(scale * w, axis=1) - np.log(w.shape[1])).sum(axis=-1) / scale


ORDERS = {"right": right, "batch summed first": batch_first, "N/B inside": scale_inside}


def bounds_by_particles(w: np.ndarray) -> dict[str, dict[int, float]]:
    """Return the bounds in each order by number of particles, from weights (particle, row)."""
    n, n_rows = w.shape
    return {
        name: {
            k: float(order(w[: n // k * k].reshape(-1, k, n_rows)).mean())
            for k in (1, 2, 5, 10, 20, 50, 100)
        }
        for name, order in ORDERS.items()
    }


def renyi_bound(alpha: float, n: int = 400_000) -> float:
    """Return Rényi's bound of one row, x = 1, with the guide N(.3, .8) and many particles."""
    z = np.random.default_rng(SEED).normal(0.3, 0.8, size=n)
    w = norm.logpdf(z) + norm.logpdf(1, z, 1) - norm.logpdf(z, 0.3, 0.8)
    if alpha == 1:
        return float(w.mean())
    return float((logsumexp((1 - alpha) * w) - np.log(n)) / (1 - alpha))


def wake_gradient(n_particles: int, n: int = 400_000) -> float:
    """Return the mean RWS gradient for θ = .5 in z ~ N(θ, 1), x = 1.7 ~ N(z, 1); guide: prior."""
    theta, x = 0.5, 1.7
    z = np.random.default_rng(SEED).normal(theta, 1, size=(n // n_particles, n_particles))
    w = norm.logpdf(x, z, 1)  # prior and guide cancel
    v = np.exp(w - logsumexp(w, axis=1, keepdims=True))
    return float((v * (z - theta)).sum(axis=1).mean())


def two_sides(n_rows: int = 200) -> pm.Model:
    """Build a model that observes the sum of two latent variables per row (correlation -0.8)."""
    x = np.random.default_rng(SEED).normal(0, np.sqrt(2 + NOISE**2), size=n_rows)
    with pm.Model(coords={"obs": range(n_rows), "side": ["left", "right"]}) as model:
        x_data = pm.Data("x_data", x, dims="obs")
        z = pm.Normal("z", 0, 1, dims=("obs", "side"))
        pm.Normal("x", z.sum(axis=-1), NOISE, observed=x_data, dims="obs")
    return model


OBJECTIVES: dict[str, dict[str, Any]] = {
    "ELBO": {"objective": "elbo"},
    "Rényi, α = 0.5": {"objective": pm.Renyi(alpha=0.5), "n_particles": 20},
    "IWAE": {"objective": "iwae", "n_particles": 20, "gradient": "dreg"},
    "RWS": {"objective": pm.ReweightedWakeSleep(), "n_particles": 20},
}


def fit_sides(model: pm.Model, n: int = 8000, **options: Any) -> Any:
    learning_rate = pm.variational.schedules.exponential_decay(
        0.03, decay_steps=n, decay_rate=1 / 100
    )
    return pm.fit(
        n,
        model=model,
        batch_size={"obs": 50},
        obj_optimizer=pm.adam(learning_rate=learning_rate),
        random_seed=SEED,
        progressbar=False,
        **options,
    )


def plot_bounds(found: dict[str, tuple[dict[str, dict[int, float]], float]], to: Path) -> None:
    """Plot the bounds of each model by the number of particles, and log p(x)."""
    figure, axes = plt.subplots(1, len(found), figsize=(9, 3.5), squeeze=False)
    for axis, (title, (bounds, log_evidence)) in zip(axes.flat, found.items()):
        for colour, (name, by_k) in zip((BLUE, ORANGE, GREEN), bounds.items()):
            axis.plot(list(by_k), list(by_k.values()), "o-", color=colour, label=name)
        axis.axhline(log_evidence, color="black", lw=1, ls="--", label="log p(x)")
        axis.set(xscale="log", xlabel="particles K", title=title)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0, 0].set_ylabel("nats of all data")
    axes[0, 0].legend(frameon=False, fontsize=9)
    figure.tight_layout()
    figure.savefig(to, dpi=110)
    plt.close(figure)


def plot_sides(sds: dict[str, float], to: Path) -> None:
    """Plot ellipses of one sd of the exact posterior of a row and of the guides."""
    figure, axes = plt.subplots(1, len(sds), figsize=(9, 2.7), sharex=True, sharey=True)
    covariance = np.linalg.inv(np.eye(2) + np.ones((2, 2)) / NOISE**2)
    values, vectors = np.linalg.eigh(covariance)
    angle = np.degrees(np.arctan2(vectors[1, 1], vectors[0, 1]))
    long, short = 2 * np.sqrt(values[::-1])
    for axis, colour, (name, sd) in zip(axes, (BLUE, GREEN, ORANGE, PURPLE), sds.items()):
        axis.add_patch(Ellipse((0, 0), long, short, angle=angle, color="0.8"))
        axis.add_patch(Ellipse((0, 0), 2 * sd, 2 * sd, fill=False, color=colour, lw=2))
        axis.set_title(f"{name}\nsd {sd:.3f}", fontsize=10)
        axis.set(xlim=(-1.1, 1.1), ylim=(-1.1, 1.1), aspect="equal")
        axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(to, dpi=110)
    plt.close(figure)


def main(out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()

    def say(*what: Any) -> None:
        print(f"{time.perf_counter() - started:6.1f} s ", *what, flush=True)

    three = bounds_by_particles(weights_of_prior(400_000))
    for name, by_k in three.items():
        say(name, {k: round(bound, 3) for k, bound in by_k.items()})
    say(f"log p(x) {LOG_EVIDENCE:.5f}")
    say("Renyi", {alpha: round(renyi_bound(alpha), 4) for alpha in (0, 0.5, 1, 2)})
    say("wake-theta", {k: round(wake_gradient(k), 3) for k in (1, 2, 10, 100)})

    model = two_sides()
    sds, weights = {}, {}
    for name, options in OBJECTIVES.items():
        approx = fit_sides(model, **options)
        z = approx.sample(500, random_seed=SEED)["posterior"]["z"]
        sds[name] = float(z.std(["chain", "draw"]).mean())
        w = weights[name] = np.asarray(pm.variational.log_weights(approx, 4000, random_seed=SEED))
        of_20 = right(w.reshape(-1, 20, w.shape[1])).mean() / w.shape[1]
        say(f"{name}: {approx.report}")
        say(f"sd {sds[name]:.3f}; of a row, ELBO {w.mean():.3f}, IWAE at K = 20 {of_20:.3f}")
    x = model["x_data"].get_value()
    log_p = norm.logpdf(x, 0, np.sqrt(2 + NOISE**2)).sum()
    say(f"exact: sd {np.sqrt(5) / 3:.4f}; log p of a row {log_p / len(x):.4f}")
    many = bounds_by_particles(weights["ELBO"])
    say({name: {k: round(v / len(x), 3) for k, v in by_k.items()} for name, by_k in many.items()})
    del many["N/B inside"]
    found = {"3 rows": (three, LOG_EVIDENCE), f"{len(x)} rows": (many, log_p)}
    plot_bounds(found, out / "particles_bounds.png")
    plot_sides(sds, out / "particles_guides.png")


if __name__ == "__main__":
    mpl.use("agg")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("docs/images"), help="folder of pictures")
    main(parser.parse_args().out)
