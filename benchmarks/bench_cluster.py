# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Fits by workers of Ray on this machine: passes and steps of 1 and 2, and curves for up to 128.

    python benchmarks/bench_cluster.py [--quick] [--rounds 5] [--rows 1000000] [--fit-rows 10000000]

A regression of counts, with a negative binomial likelihood, of rows in Parquet files. One process reads in a thread of
its own while it computes, so that it uses a part of the second core too. One pass of method="auto" computes the log-density and the gradient at 3
points, in one process with one thread and by workers of one core each. One step is of mean-field ADVI, whose batches grow.
"One core" is one process on one core. Figures are medians over the rounds of wall time, in turns, so the machine has to
be quiet.

The curves follow from the measured time of a message, with compute times of workers that vary by 10 %, of which 1 % are
stragglers of three times as long, and 10 Gb/s between nodes.

--fit-rows also times a whole fit by method="auto" of so many rows, once for each peer, compilation and start of workers included.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from _common import Peer, as_markdown, machine, main, ratio, send, serve, take_turns

N_COLUMNS, FILES, GROUP_ROWS = 10, 8, 65_536
POINTS = 3
BATCHES = (6_400, 25_600, 102_400, 409_600)
N_STEPS = 10
#: Workers of a peer; 0 computes in one process
#: In place of the rows of a batch: a pass, a whole fit
PASS, FIT = 0, -1
PEERS = {"one core": 0, "one process": 0, "1 worker": 1, "2 workers": 2}
CURVE = (2, 4, 8, 16, 32, 64, 128)
BYTES_A_SECOND = 10e9 / 8


def write_rows(folder: Path, n_rows: int) -> None:
    rng = np.random.default_rng(1)
    coefficients = np.linspace(-1, 1, N_COLUMNS)
    for k in range(FILES):
        x = rng.normal(size=(n_rows // FILES, N_COLUMNS))
        y = rng.poisson(rng.gamma(2, np.exp(1 + x @ coefficients / 4) / 2))
        columns = {f"x{i}": x[:, i] for i in range(N_COLUMNS)} | {"y": y}
        pq.write_table(pa.table(columns), folder / f"{k}.parquet", row_group_size=GROUP_ROWS)


def problem(folder: Path, batch_size: int) -> tuple[Any, Any]:
    import pymc as pm

    columns = {"x": [f"x{i}" for i in range(N_COLUMNS)], "y": "y"}
    source = pm.parquet_source(folder, columns=columns)
    loader = pm.DataLoader(source, batch_size, shuffle=True, seed=1)
    with pm.Model() as model:
        x, y = pm.Data("x", loader, dims=("obs", "column")), pm.Data("y", loader, dims="obs")
        slope = pm.Normal("slope", 0, 5, shape=N_COLUMNS)
        alpha, level = pm.HalfNormal("alpha", 5), pm.Normal("level", 0, 5)
        mu = pm.math.exp(level + pm.math.dot(x, slope))
        pm.NegativeBinomial("like", mu=mu, alpha=alpha, observed=y, dims="obs")
    return loader, model


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
    points = np.random.default_rng(1).normal(0, 0.1, size=(POINTS, N_COLUMNS + 2))
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


@contextmanager
def fit(folder: Path, n_workers: int) -> Iterator[Callable[[], Any]]:
    """Return a whole fit by method="auto"."""
    import pymc as pm

    loader, model = problem(folder, 5_000)
    trainer = pm.Trainer(
        "auto",
        dataloader=loader,
        model=model,
        random_seed=1,
        progressbar=False,
        cores=1,
        workers=n_workers or None,
    )

    def call() -> None:
        if not trainer.fit().report.trusted:
            raise RuntimeError(f"the fit is not trusted: {trainer.approx.report.verdict}")

    yield call


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
    keeps_state = False

    def build(self) -> None: ...


def return_number(program: Nothing, item: int) -> int:
    return item


def curve(seconds: float, n_numbers: int, message: Callable[[int], float]) -> list[float]:
    """Return how many times faster steps of `seconds` are, for each number of workers."""
    rng = np.random.default_rng(1)
    found: list[float] = []
    for n in CURVE:
        work = seconds / n * np.exp(0.1 * rng.normal(size=(4_000, n)))
        work *= np.where(rng.random(work.shape) < 0.01, 3.0, 1.0)
        sent = 2 * n * 8 * n_numbers / BYTES_A_SECOND
        found.append(seconds / (work.max(axis=1).mean() + message(n) + sent))
    return found


def measure(settings: dict[str, Any]) -> None:
    """Be a peer: time passes or steps."""
    if settings["name"] == "one core":
        os.sched_setaffinity(0, {0})
    folder, n_workers, size = Path(settings["folder"]), PEERS[settings["name"]], settings["size"]
    is_fit = size == FIT
    if is_fit:
        made = fit(folder, n_workers)
    else:
        made = steps(folder, n_workers, size, N_STEPS) if size else passes(folder, n_workers)
    with made as call:
        if not is_fit:
            call()
        send({})

        def answer() -> dict[str, float]:
            started = time.perf_counter()
            call()
            return {"time": (time.perf_counter() - started) / (N_STEPS if size > 0 else 1)}

        serve(answer)


def of_peers(n_rows: int, sizes: Sequence[int], rounds: int) -> list[list[str]]:
    """Return the times of all peers, a line of a table for each kind."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        write_rows(Path(folder), n_rows)
        for size in sizes:
            peers = {}
            for name in PEERS:
                settings = {"name": name, "folder": folder, "size": size, "dtype": "float64"}
                peers[name] = Peer(__file__, sys.executable, settings)
            times = take_turns(peers, rounds)
            for peer in peers.values():
                peer.__exit__()
            ratios = [f"{ratio(times[name], times['2 workers']):.2f} ×" for name in times]
            kind = {PASS: f"pass over {n_rows:,} rows", FIT: f"auto on {n_rows:,} rows"}.get(
                size, f"step of {size:,} rows"
            )
            rows.append([kind, *(f"{1e3 * median(t):.3g}" for t in times.values()), *ratios[:3]])
    return rows


def benchmark(arguments: Any) -> str:
    rounds, n_rows = arguments.rounds, arguments.rows
    parts = [f"# Fits by workers\n\n{machine('numba', 'ray')}. Rounds: {rounds}"]
    sizes = (PASS, *(BATCHES[2:3] if arguments.quick else BATCHES))
    rows = of_peers(n_rows, sizes, rounds)
    if arguments.fit_rows:
        rows += of_peers(arguments.fit_rows, (FIT,), 1)
    header = ["milliseconds", *PEERS, *(f"{name} / 2 workers" for name in list(PEERS)[:3])]
    parts.append(as_markdown(header, rows))
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
    parts.append(as_markdown(["time on one core", *(f"{n} workers" for n in CURVE)], lines))
    return "\n\n".join(parts)


if __name__ == "__main__":
    main(__doc__, benchmark, measure, rounds=5, rows=1_000_000, fit_rows=0, quick=False)
