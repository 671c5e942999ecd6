# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0

"""Fit the flights of `flights.py` by two worker processes, kill one of them, and compare.

1. Write the flights to a folder of Parquet files, one per month.
2. Fit them by ``method="auto"``, whose passes over the rows one worker computes.
3. Fit them again by two workers, and kill one after the first pass. Another takes its place.
4. Compare both answers, bit for bit.

The workers are processes of Ray on this machine. On a cluster only the argument `workers` is another:
``pm.Workers(16, address="auto")``. Run it with ``make demo-cluster``, or
``python examples/flights_cluster.py --out some/folder``.
"""

import argparse
import os
import signal
import sys
import tempfile
import threading
import time

from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from flights import read_flights
from flights_stream import SEED, open_loader, streamed_model, write_shards

import pymc as pm


def make_trainer(shards: Path, coords: dict[str, list[str]], workers: int) -> pm.Trainer:
    loader = open_loader(shards, coords["feature"])
    return pm.Trainer(
        "auto",
        dataloader=loader,
        model=streamed_model(loader, coords),
        workers=workers,
        random_seed=SEED,
        progressbar=False,
    )


def kill_a_worker(trainer: pm.Trainer) -> None:
    """Kill a worker after the first pass, as the loss of its machine would."""
    while trainer.state is None or trainer.state.i < 1 or not trainer.worker_processes:
        time.sleep(0.01)
    _, pid = trainer.worker_processes[-1]
    os.kill(pid, signal.SIGKILL)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, help="folder for the files; default: a temporary one")
    with tempfile.TemporaryDirectory() as folder:
        out = parser.parse_args().out or Path(folder)
        run(out / "flights")


def run(shards: Path) -> None:
    flights = read_flights()
    write_shards(flights, shards)
    answers = []
    for workers in (1, 2):
        trainer = make_trainer(shards, flights.coords, workers)
        if workers == 2:
            threading.Thread(target=kill_a_worker, args=[trainer], daemon=True).start()
        started = time.perf_counter()
        approx = trainer.fit()
        seconds = time.perf_counter() - started
        print(f"{workers} worker(s): {trainer.state.i} passes over {len(flights.delay):,} flights")
        print(f"  in {seconds:.0f} s, workers and compilation included. {approx.report.verdict}")
        if lost := approx.report.settings.get("lost_workers"):
            print(f"  Lost: {lost}")
        answers.append([param.get_value() for param in approx.params])
    same = all(np.array_equal(a, b) for a, b in zip(*answers, strict=True))
    print(f"The same bits: {'yes' if same else 'NO'}")
    if not same:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
