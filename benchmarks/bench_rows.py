# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""A step of a model with a latent variable for each row, against the number of rows.

    python benchmarks/bench_rows.py [--quick] [--rounds 9]

Each of N rows has a mean and a standard deviation of its own, and what an optimizer keeps of them; a
step draws a batch, and changes its rows only. Every N is a process of one thread, and all of them take
turns in the same rounds. A figure is the median over the rounds, a ratio the median of the rounds'
ratios. The memory is that of a process after its steps, above that with the data alone.

The table and all figures are written to ``benchmarks/results/``; a run with ``--quick``, which leaves
out the largest N, to ``.cache/benchmarks/``.
"""

import sys

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

from _common import CACHE, ROOT, Peer, as_markdown, machine, main, peak_memory, ratio, send, serve
from _results import Measured, Section, write_json

SIZES = [10**3, 10**5, 10**6, 10**7]
BATCH_SIZES = [64, 256]
OPTIMIZERS = ["adam", "adagrad_window"]
BAR = 1.5  # of the time with the most rows, over that with the fewest
DTYPE = "float64"

Settings = dict[str, Any]


def measure(
    optimizer: str, batch_size: int, sizes: Sequence[int], rounds: int, seconds: float
) -> Section:
    """Measure a step for each number of rows, all in the same rounds."""
    case = f"{optimizer}, B = {batch_size}"
    settings = {
        "optimizer": optimizer,
        "batch_size": batch_size,
        "seconds": seconds,
        "dtype": DTYPE,
    }
    with ExitStack() as stack:
        peers = {
            f"{n:,}": stack.enter_context(Peer(__file__, sys.executable, settings | {"n_rows": n}))
            for n in sizes
        }
        times: dict[str, list[float]] = {name: [] for name in peers}
        for k in range(rounds):
            for name in list(peers)[:: -1 if k % 2 else 1]:
                times[name].append(peers[name].ask(what="time")["time"])
        memory = {name: peer.ask(what="memory")["memory"] for name, peer in peers.items()}
        steps = {name: peer.hello["n_steps"] for name, peer in peers.items()}
    return [Measured(case, DTYPE, n, times[n], steps[n], memory[n]) for n in peers]


def table(section: Section) -> str:
    """Write a line for each case: the time for each N, and how it grows."""
    cases = {m.case: [other for other in section if other.case == m.case] for m in section}
    sizes = [m.peer for m in next(iter(cases.values()))]
    header = ["µs a step", *(f"N = {n}" for n in sizes), "last / first", "aim", "bytes a row"]
    rows = []
    for case, found in cases.items():
        first, last = found[0], found[-1]
        per_row = (last.memory - first.memory) * 1e6 / int(last.peer.replace(",", ""))
        growth = f"{ratio(last.times, first.times):.2f}"
        figures = [f"{median(m.times):.3g}" for m in found]
        rows.append([case, *figures, growth, f"≤ {BAR}", f"{per_row:.0f}"])
    return as_markdown(header, rows)


def benchmark(options: Any) -> str:
    """Measure all, write the results, and return them as text."""
    quick, rounds = options.quick, 3 if options.quick else options.rounds
    folder = CACHE if quick else ROOT / "benchmarks" / "results"
    section: Section = []
    for optimizer in OPTIMIZERS:
        for batch_size in BATCH_SIZES:
            sizes = SIZES[:-1] if quick else SIZES
            section += measure(optimizer, batch_size, sizes, rounds, 0.1 if quick else 0.3)
    return write_results(folder, machine("numba"), section)


def write_results(folder: Path, where: str, section: Section) -> str:
    """Write ``rows.json`` and ``rows.md``, and return the text."""
    text = f"One thread for each process. {where}.\n\n{table(section)}"
    folder.mkdir(parents=True, exist_ok=True)
    folder.joinpath("rows.md").write_text(text + "\n", encoding="utf-8")
    write_json(folder / "rows.json", where, {"rows": section})
    return text


def be_peer(settings: Settings) -> None:
    """Take steps with one number of rows, and say how long they take."""
    import numpy as np  # what only a peer needs

    from peers import seconds, steps_per_round
    from peers.local_rows import LocalRows

    x = np.random.default_rng(0).normal(size=(settings["n_rows"],))
    before = peak_memory()
    fit = LocalRows(x, settings["batch_size"], settings["optimizer"])
    n_steps = steps_per_round(fit, settings["seconds"])
    send({"n_steps": n_steps})

    def answer(what: str) -> dict[str, float]:
        if what == "memory":
            return {"memory": peak_memory() - before}
        return {"time": seconds(fit, n_steps) / n_steps * 1e6}

    serve(answer)


if __name__ == "__main__":
    main(__doc__, benchmark, be_peer, rounds=9, quick=False)
