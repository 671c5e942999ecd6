# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Fits by workers of Ray on this machine: passes and steps of 1 and 2, and curves for up to 128.

    python benchmarks/bench_cluster.py [--quick] [--rounds 5] [--rows 1000000]

A logistic regression of rows in Parquet files. One pass of method="auto" computes the log-density and the gradient at 3
points, in one process with one thread and by workers of one core each. One step is of mean-field ADVI, whose batches grow.
Figures are medians over the rounds of wall time, so the machine has to be quiet.

The curves follow from the measured time of a message, with compute times of workers that vary by 10 %, of which 1 % are
stragglers of three times as long, and 10 Gb/s between nodes.
"""

from __future__ import annotations

import tempfile
import time

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from _common import as_markdown, machine, main

N_COLUMNS, FILES, GROUP_ROWS = 10, 8, 65_536
POINTS = 3
BATCHES = (6_400, 25_600, 102_400, 409_600)
WORKERS = (1, 2)
CURVE = (2, 4, 8, 16, 32, 64, 128)
BYTES_A_SECOND = 10e9 / 8


def write_rows(folder: Path, n_rows: int) -> None:
    rng = np.random.default_rng(1)
    coefficients = np.linspace(-1, 1, N_COLUMNS)
    for k in range(FILES):
        x = rng.normal(size=(n_rows // FILES, N_COLUMNS))
        y = rng.random(len(x)) < 1 / (1 + np.exp(-x @ coefficients))
        columns = {f"x{i}": x[:, i] for i in range(N_COLUMNS)} | {"y": y.astype("int8")}
        pq.write_table(pa.table(columns), folder / f"{k}.parquet", row_group_size=GROUP_ROWS)


def problem(folder: Path, batch_size: int) -> tuple[Any, Any]:
    import pymc as pm

    columns = {"x": [f"x{i}" for i in range(N_COLUMNS)], "y": "y"}
    source = pm.parquet_source(folder, columns=columns)
    loader = pm.DataLoader(source, batch_size, shuffle=True, seed=1)
    with pm.Model() as model:
        x, y = pm.Data("x", loader, dims=("obs", "column")), pm.Data("y", loader, dims="obs")
        slope = pm.Normal("slope", 0, 5, shape=N_COLUMNS)
        pm.Bernoulli("like", logit_p=pm.math.dot(x, slope), observed=y, dims="obs")
    return loader, model


def seconds_of(call: Callable[[], Any], rounds: int) -> float:
    call()
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return median(times)


@contextmanager
def passes(folder: Path, n_workers: int) -> Iterator[Callable[[], Any]]:
    """Return a pass over all rows, of this process for 0 workers."""
    import pymc as pm

    from pymc.variational.cluster.passes import passes_by

    loader, model = problem(folder, 5_000)
    trainer = pm.Trainer(
        "auto", dataloader=loader, model=model, random_seed=1, progressbar=False, cores=1
    )
    trainer.prepare()
    inference = trainer.inference
    points = np.random.default_rng(1).normal(size=(POINTS, N_COLUMNS))
    if not n_workers:
        yield lambda: inference._logp(points)
        return
    with passes_by(pm.Workers(n_workers), inference, loader, "batch"):
        wait_for(inference.rows.pool)
        yield lambda: inference._logp(points)


@contextmanager
def steps(folder: Path, n_workers: int, batch_size: int, n: int) -> Iterator[Callable[[], Any]]:
    """Return a number of steps, of this process for 0 workers."""
    import pymc as pm

    loader, model = problem(folder, batch_size)
    trainer = pm.Trainer(
        dataloader=loader,
        model=model,
        random_seed=1,
        progressbar=False,
        workers=n_workers or None,
    )
    trainer.prepare()
    with trainer._working():
        if n_workers:
            wait_for(trainer.state.step.driver.pool)
        yield lambda: trainer.inference.refine(n, progressbar=False)


def wait_for(pool: Any) -> None:
    while not all(place.about for place in pool._places):
        list(pool._wait(lambda: None))


def message_seconds(rounds: int) -> list[float]:
    """Return the seconds of a message to all workers and back, for each number of them."""
    import pymc as pm

    from pymc.variational.cluster.pool import open_pool

    found = []
    for n in (1, 2, 4):
        with open_pool(pm.Workers(n), Nothing()) as pool:
            wait_for(pool)
            times = []
            for _ in range(100 * rounds):
                started = time.perf_counter()
                pool.map(return_number, range(n))
                times.append(time.perf_counter() - started)
            found.append(median(times))
    return found


class Nothing:
    """A program that computes nothing."""

    data: dict[str, Any] = {}

    def build(self) -> None: ...


def return_number(program: Nothing, item: int) -> int:
    return item


def curve(seconds: float, n_numbers: int, message: Callable[[int], float]) -> list[float]:
    """Return how many times faster steps of `seconds` are, for each number of workers."""
    rng, found = np.random.default_rng(1), []
    for n in CURVE:
        work = seconds / n * np.exp(0.1 * rng.normal(size=(4_000, n)))
        work *= np.where(rng.random(work.shape) < 0.01, 3.0, 1.0)
        sent = 2 * n * 8 * n_numbers / BYTES_A_SECOND
        found.append(seconds / (work.max(axis=1).mean() + message(n) + sent))
    return found


def benchmark(arguments: Any) -> str:
    rounds = arguments.rounds
    n_rows, batches = arguments.rows, BATCHES[:2] if arguments.quick else BATCHES
    parts = [f"# Fits by workers\n\n{machine('numba', 'ray')}. Rounds: {rounds}"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_rows(folder, n_rows)
        rows = []
        for kind, make in [
            (f"pass over {n_rows:,} rows", lambda n: passes(folder, n)),
            *(
                (f"step of {size:,} rows", lambda n, size=size: steps(folder, n, size, 10))
                for size in batches
                if size <= n_rows
            ),
        ]:
            times = []
            for n in (0, *WORKERS):
                with make(n) as call:
                    times.append(seconds_of(call, rounds) / (10 if "step" in kind else 1))
            ratios = [f"{times[0] / t:.2f} ×" for t in times[1:]]
            rows.append([kind, *(f"{1e3 * t:.3g}" for t in times), *ratios])
    header = ["milliseconds", "one process", *(f"{n} workers" for n in WORKERS)]
    parts.append(as_markdown([*header, *(f"{n} workers / one process" for n in WORKERS)], rows))
    some = message_seconds(rounds)
    each = (some[2] - some[0]) / 3
    parts.append(
        "A message to all workers and back takes "
        + ", ".join(f"{1e3 * s:.2f} ms ({n})" for n, s in zip((1, 2, 4), some))
        + f": {1e3 * (some[0] - each):.2f} ms and {1e3 * each:.2f} ms for each worker."
    )
    lines = [
        [
            f"{1e3 * s:g} ms",
            *(f"{r:.2f}" for r in curve(s, 200, lambda n: some[0] + (n - 1) * each)),
        ]
        for s in (1e-3, 5e-3, 25e-3, 0.1, 1.0, 10.0, 100.0)
    ]
    parts.append(as_markdown(["time in one process", *(f"{n} workers" for n in CURVE)], lines))
    return "\n\n".join(parts)


if __name__ == "__main__":
    main(__doc__, benchmark, rounds=5, rows=1_000_000, quick=False)
