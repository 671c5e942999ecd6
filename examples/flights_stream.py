# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0

"""Stream the flights of `flights.py` from Parquet files, kill the fit, and resume it.

1. Write the flights to a folder of Parquet files, one per month.
2. Stream them through `pm.Trainer` in another process, with a checkpoint every 1,000 steps. Kill
   the process halfway, to simulate the loss of the machine.
3. Load the last checkpoint in this process, and take the remaining steps.
4. Compare the result with an uninterrupted fit, bit for bit, and with the fit of `flights.py`,
   which has all flights in memory.

Run it with ``make demo-stream``, or ``python examples/flights_stream.py --out some/folder``.
"""

import argparse
import shutil
import subprocess
import sys
import time

from pathlib import Path

import arviz as az
import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xarray as xr

sys.path.insert(0, str(Path(__file__).parent))
from flights import (
    BATCH_SIZE,
    BLUE,
    MONTHS,
    ORANGE,
    Flights,
    flights_model,
    read_flights,
    robust_regression,
)

import pymc as pm

EVERY = 1_000
SEED = 2013
DIMS = {
    "features": ("obs", "feature"),
    "carrier_of_flight": "obs",
    "origin_of_flight": "obs",
    "month_of_flight": "obs",
    "arrival_delay": "obs",
}


def write_shards(flights: Flights, folder: Path) -> None:
    """Write the flights as Parquet files, one per month, in row groups of 10,000."""
    folder.mkdir(parents=True, exist_ok=True)
    columns = dict(zip(flights.coords["feature"], flights.features.T))
    columns |= {"carrier": flights.carrier, "origin": flights.origin}
    columns |= {"month": flights.month, "delay": flights.delay}
    for k, month in enumerate(MONTHS):
        in_month = flights.month == k
        table = pa.table({name: values[in_month] for name, values in columns.items()})
        file = folder / f"{k + 1:02d}-{month}.parquet"
        # Checksums let readers detect flipped bits
        pq.write_table(table, file, row_group_size=10_000, write_page_checksum=True)


def open_loader(folder: Path, features: list[str], batch_size: int = BATCH_SIZE) -> pm.DataLoader:
    """Return a loader of shuffled batches, with a name for each array of a batch."""
    source = pm.parquet_source(
        folder,
        columns={
            "features": features,
            "carrier_of_flight": "carrier",
            "origin_of_flight": "origin",
            "month_of_flight": "month",
            "arrival_delay": "delay",
        },
    )
    return pm.DataLoader(
        source, batch_size=batch_size, shuffle=True, buffer_size=100_000, seed=SEED
    )


def streamed_model(loader: pm.DataLoader, coords: dict[str, list[str]]) -> pm.Model:
    with pm.Model(coords=coords) as model:
        robust_regression(*(pm.Data(name, loader, dims=dims) for name, dims in DIMS.items()))
    return model


def optimizer(n: int):
    """Return Adam with a learning rate that falls from 0.05 to 0.00017 over `n` steps."""
    return pm.adam(
        learning_rate=pm.variational.schedules.exponential_decay(
            0.05, decay_steps=n, decay_rate=1 / 300
        )
    )


def make_trainer(model: pm.Model, loader: pm.DataLoader, n: int) -> pm.Trainer:
    return pm.Trainer(
        method="advi",
        dataloader=loader,
        model=model,
        obj_optimizer=optimizer(n),
        random_seed=SEED,
        progressbar=False,
    )


def train(shards: Path, checkpoints: Path, coords: dict[str, list[str]], n: int) -> None:
    """Take `n` steps with checkpoints, in the process that is killed."""
    loader = open_loader(shards, coords["feature"])
    trainer = make_trainer(streamed_model(loader, coords), loader, n)
    trainer.fit(n, checkpoint=checkpoints, checkpoint_every=EVERY)


def kill_half_way(command: list[str], checkpoints: Path, n: int) -> int:
    """Kill a process when a checkpoint has half of the steps, and return its exit code."""
    process = subprocess.Popen(command)
    half = f"step-{n // 2:09d}"
    while process.poll() is None and not any(p.name >= half for p in checkpoints.glob("step-*")):
        time.sleep(0.01)
    process.kill()
    return process.wait()


def resume(
    shards: Path, checkpoints: Path, coords: dict[str, list[str]], n: int
) -> tuple[pm.Trainer, int]:
    """Load the last checkpoint and take the remaining of `n` steps."""
    loader = open_loader(shards, coords["feature"])
    trainer = pm.Trainer.load(
        checkpoints,
        model=streamed_model(loader, coords),
        dataloader=loader,
        obj_optimizer=optimizer(n),
        progressbar=False,
    )
    done = trainer.batches_seen
    trainer.fit(n - done)
    return trainer, done


def shifts(stream: xr.Dataset, memory: xr.Dataset) -> tuple[xr.Dataset, xr.Dataset]:
    """Return the differences of two posteriors' means in sds, and the ratios of their sds."""
    draws = ["chain", "draw"]
    sd = memory.std(draws)
    return (stream.mean(draws) - memory.mean(draws)) / sd, stream.std(draws) / sd


def plot_comparison(stream: xr.Dataset, memory: xr.Dataset, path: Path) -> None:
    """Plot the typical delay of each airline by both fits, as 94 % intervals in minutes."""
    order = memory["carrier_delay"].mean(["chain", "draw"]).argsort().to_numpy()
    figure, axis = plt.subplots(figsize=(7.5, 5), layout="constrained")
    for posterior, color, offset, label in [
        (memory, BLUE, -0.17, "all flights in memory"),
        (stream, ORANGE, 0.17, "streamed, killed and resumed"),
    ]:
        effect = posterior["carrier_delay"].isel(carrier=order)
        low, high = effect.quantile([0.03, 0.97], ["chain", "draw"]).to_numpy()
        rows = np.arange(len(low)) + offset
        axis.hlines(rows, low, high, color=color, linewidth=2.5, label=label)
        axis.plot(effect.mean(["chain", "draw"]), rows, "o", color=color, markersize=4)
    axis.set_yticks(range(len(order)), memory["carrier"].to_numpy()[order])
    axis.invert_yaxis()
    axis.set_xlabel("minutes after the timetable; negative is early")
    axis.set_title("Typical arrival delay by airline", loc="left", weight="bold")
    axis.legend(frameon=False)
    axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main(out: Path, n: int) -> None:
    clock = time.perf_counter
    flights = read_flights()
    shards, checkpoints = out / "shards", out / "checkpoints"
    shutil.rmtree(out, ignore_errors=True)
    write_shards(flights, shards)
    files = sorted(shards.iterdir())
    size = sum(file.stat().st_size for file in files)
    print(f"{len(flights.delay):,} flights in {len(files)} Parquet files of {size / 1e6:.0f} MB")

    began = clock()
    command = [sys.executable, __file__, "--out", str(out), "--steps", str(n), "--train"]
    code = kill_half_way(command, checkpoints, n)
    print(f"a process took steps, and was killed after {clock() - began:.1f} s (exit code {code})")

    began = clock()
    trainer, done = resume(shards, checkpoints, flights.coords, n)
    print(f"resumed at step {done:,} of {n:,}: {clock() - began:.1f} s for the other half")

    loader = open_loader(shards, flights.coords["feature"])
    whole = make_trainer(streamed_model(loader, flights.coords), loader, n)
    began = clock()
    whole.fit(n)
    print(f"the same without a kill: {clock() - began:.1f} s")
    same = np.array_equal(whole.approx.hist, trainer.approx.hist) and all(
        np.array_equal(a.get_value(), b.get_value())
        for a, b in zip(whole.approx.params, trainer.approx.params)
    )
    print(f"losses of all steps and parameters are the same bits: {same}")

    began = clock()
    in_memory = pm.fit(
        n,
        model=flights_model(flights),
        obj_optimizer=optimizer(n),
        random_seed=SEED,
        progressbar=False,
    )
    print(f"the same from memory, by pm.Minibatch: {clock() - began:.1f} s")

    stream, memory = (
        approx.sample(2000, random_seed=SEED)["posterior"].to_dataset()
        for approx in (trainer.approx, in_memory)
    )
    shift, ratio = (
        np.concatenate([np.ravel(v) for v in d.data_vars.values()]) for d in shifts(stream, memory)
    )
    print(
        f"{len(shift)} parameters, streamed against in memory: means differ by "
        f"{np.median(abs(shift)):.2f} sd in the median and {abs(shift).max():.2f} at most; sds are "
        f"{ratio.min():.2f} to {ratio.max():.2f} times those"
    )
    print(az.summary(stream, kind="stats", ci_prob=0.94, round_to=2).head(12).to_string())
    plot_comparison(stream, memory, out / "stream.png")
    print(f"Picture: {out / 'stream.png'}")


if __name__ == "__main__":
    mpl.use("agg")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--out", type=Path, default=Path("build/flights-stream"), help="folder of all files"
    )
    parser.add_argument("--steps", type=int, default=20_000, help="steps of the fit")
    parser.add_argument("--train", action="store_true", help="take steps in the killed process")
    arguments = parser.parse_args()
    if arguments.train:
        labels = read_flights().coords
        train(arguments.out / "shards", arguments.out / "checkpoints", labels, arguments.steps)
    else:
        main(arguments.out, arguments.steps)
