# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Streams of Parquet files against their peers: reading, fits, and memory.

    python benchmarks/bench_stream.py [--quick] [--large] [--no-peers] [--no-memory] [--rounds 5]

10⁷ rows of 20 float32 columns, in row groups of 100,000, are written once to ``.cache/benchmarks/``.

- Reading in order: `pm.DataLoader` against pyarrow, which reads each row group and stacks its columns.
- Reading shuffled (batches of 512 from a buffer of 100,000 rows): against the loader of pymc-extras, grain
  and torch, each in an environment of its own, as far as they can be installed. They read the first two
  million rows, those that read row by row a file of 200,000.
- Fits: a step of ``pm.Trainer`` against one of `pm.Minibatch` on the rows in memory, and against the
  reading of its batch, for a model that is cheaper than that and one that costs more.
- Memory of a process that reads, or fits, 1 GB; with ``--large`` also 20 GB, by links to the same files.

Each is a process; those of a case take turns, after a pass that warms up and brings the files to the
page cache, so a disk is not measured. Unlike in other benchmarks a process may use all cores, as each
reads and works at a time. A figure is the median over the rounds, a ratio that of the rounds' ratios.

The tables and figures are written to ``benchmarks/results/``; a run with ``--quick``, of 200,000 rows,
to ``.cache/benchmarks/``.
"""

import os
import sys

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from _common import CACHE, ROOT, Peer, machine, main, take_turns
from _results import Measured, Section, write_json
from _stream_data import BYTES_PER_ROW, ROWS_PER_GROUP, linked_folder, parquet_folder
from _stream_peer import be_peer
from _stream_report import (
    DTYPE,
    EXTRAS,
    IN_MEMORY,
    LOADER,
    PYARROW,
    STREAMED,
    Memory,
    bars_table,
    fits_table,
    memory_table,
    reads_table,
)

N_ROWS, SOME_ROWS, FEW_ROWS = 10**7, 2 * 10**6, 200_000
BUFFER_SIZE = 100_000
READ_BATCH, FIT_BATCH = 512, 500
MEMORY_BATCH = 4_096  # a fit keeps its losses too: with few rows a step, they would show
ORDERS = {"in order": False, "shuffled": True}
PROBLEMS = ["regression", "network"]
INPUT_GB, LARGE_INPUT_GB = 1, 20
# The threads of Arrow, which has no variable of its own
ALL_CORES = {"OMP_NUM_THREADS": str(len(os.sched_getaffinity(0)))}

Settings = dict[str, Any]
Who = dict[str, tuple[Path | str, Settings]]


def start(python: Path | str, settings: Settings) -> Peer:
    """Start a process of this benchmark."""
    return Peer(__file__, python, {"dtype": DTYPE, **settings}, environment=ALL_CORES)


def measure(case: str, who: Who, common: Mapping[str, Any], rounds: int) -> Section:
    """Measure the microseconds of a batch for each of these, which take turns."""
    with ExitStack() as stack:
        peers = {
            name: stack.enter_context(start(python, {**common, **own}))
            for name, (python, own) in who.items()
        }
        times = take_turns(peers, rounds)
        n_batches = {
            name: peer.settings["n_rows"] // common["batch_size"] for name, peer in peers.items()
        }
    return [Measured(case, DTYPE, name, times[name], n_batches[name]) for name in peers]


def measure_reads(folder: Path, n_rows: int, rounds: int, others: Who) -> Section:
    """Measure the reading of batches by the loader and its peers, in both orders."""
    here, section = sys.executable, Section()
    who: Who = {LOADER: (here, {"peer": "loader"})}
    common = _sizes(folder, READ_BATCH) | {"kind": "read", "n_rows": n_rows}
    for order, shuffle in ORDERS.items():
        peers = others if shuffle else {PYARROW: (here, {"peer": "pyarrow"})}
        section += measure(order, who | peers, common | {"shuffle": shuffle}, rounds)
    return section


def measure_fits(folder: Path, n_rows: int, rounds: int) -> Section:
    """Measure a step, streamed and in memory, and the reading of its batch, in both orders."""
    here, section = sys.executable, Section()
    n_steps = n_rows // FIT_BATCH
    for problem in PROBLEMS:
        fit = {"kind": "fit", "peer": "fit", "problem": problem, "n_steps": n_steps}
        who: Who = {
            LOADER: (here, {"kind": "read", "peer": "loader"}),
            IN_MEMORY: (here, fit | {"form": "memory"}),
            STREAMED: (here, fit | {"form": "stream"}),
        }
        for order, shuffle in ORDERS.items():
            common = _sizes(folder, FIT_BATCH) | {"n_rows": n_rows, "shuffle": shuffle}
            section += measure(f"{problem}, {order}", who, common, rounds)
    return section


def measure_memory(folder: Path, sizes_gb: Sequence[float]) -> list[Memory]:
    """Measure the memory of one pass by the loader and by a fit, for each size of the input."""
    held = (BUFFER_SIZE + ROWS_PER_GROUP + MEMORY_BATCH) * BYTES_PER_ROW / 1e6
    common = {"kind": "memory", "form": "stream", "shuffle": True}
    whats: dict[str, Settings] = {
        LOADER: {"peer": "loader"},
        "streamed fit": {"peer": "fit", "problem": "regression"},
    }
    memory = []
    for what, own in whats.items():
        for input_gb in sizes_gb:
            with linked_folder(folder, input_gb * 1e9) as linked:
                settings = _sizes(linked, MEMORY_BATCH) | common | own
                with start(sys.executable, settings | {"kind": "warm"}):
                    pass  # what is compiled, for this number of rows, is in the cache now
                with start(sys.executable, settings) as peer:
                    memory.append(Memory(what, input_gb, held=held, **peer.hello))
    return memory


def _sizes(folder: Path, batch_size: int) -> Settings:
    return {"folder": str(folder), "batch_size": batch_size, "buffer_size": BUFFER_SIZE}


def other_loaders(cache: Path, n_rows: int) -> tuple[Who, str]:
    """Return the loaders of other libraries that can be installed here, and their versions."""
    from peers import environments  # a parent's only, as pip is

    some = {"n_rows": min(n_rows, SOME_ROWS)}
    few = {"folder": str(parquet_folder(cache, FEW_ROWS)), "n_rows": FEW_ROWS}
    who: Who = {}
    versions = ""
    if python := environments.extras_python():
        who[EXTRAS] = (python, some | {"peer": "extras"})
        versions += f", pymc-extras {environments.package_version(python, 'pymc-extras')}"
    if python := environments.grain_python():
        who["grain"] = (python, few | {"peer": "grain"})
        versions += f", grain {environments.package_version(python, 'grain')}"
    if python := environments.torch_python():
        who["torch, rows"] = (python, few | {"peer": "torch", "form": "rows"})
        who["torch, windows by hand"] = (python, some | {"peer": "torch", "form": "windows"})
        versions += f", torch {environments.package_version(python, 'torch')}"
    return who, versions


def benchmark(options: Any) -> str:
    """Measure all, write the results, and return them as text."""
    quick, rounds = options.quick, 3 if options.quick else options.rounds
    n_rows = FEW_ROWS if quick else options.rows
    cache = CACHE / "stream"
    folder = parquet_folder(cache, n_rows)
    others, versions = ({}, "") if quick or options.no_peers else other_loaders(cache, n_rows)
    sizes_gb = [INPUT_GB, LARGE_INPUT_GB] if options.large else [INPUT_GB]
    reads = measure_reads(folder, n_rows, rounds, others)
    fits = measure_fits(folder, n_rows, rounds)
    memory = [] if quick or options.no_memory else measure_memory(folder, sizes_gb)
    where = machine("numba", "pyarrow") + versions
    results = ROOT / "benchmarks" / "results" if n_rows == N_ROWS else CACHE
    return write_results(results, f"{n_rows:,} rows. {where}", reads, fits, memory)


def write_results(
    folder: Path, where: str, reads: Section, fits: Section, memory: list[Memory]
) -> str:
    """Write ``stream.json`` and ``stream.md``, and return the text."""
    parts = [
        f"{where}.",
        bars_table(reads, fits, memory),
        reads_table(reads, READ_BATCH, "in order", PYARROW),
        reads_table(reads, READ_BATCH, "shuffled", EXTRAS),
        fits_table(fits),
        *([memory_table(memory)] if memory else []),
    ]
    text = "\n\n".join(parts)
    folder.mkdir(parents=True, exist_ok=True)
    folder.joinpath("stream.md").write_text(text + "\n", encoding="utf-8")
    write_json(folder / "stream.json", where, {"reads": reads, "fits": fits, "memory": memory})
    return text


if __name__ == "__main__":
    main(
        __doc__,
        benchmark,
        be_peer,
        rounds=5,
        rows=N_ROWS,
        quick=False,
        large=False,
        no_peers=False,
        no_memory=False,
    )
