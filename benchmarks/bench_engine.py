# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""The engine of ``pm.fit`` against the release, NumPyro, and a loop written by hand.

    python benchmarks/bench_engine.py [--quick] [--no-numpyro] [--rounds 9]

Every peer of a case is a process of one thread, and all of a case take turns in the same rounds. A
figure is the median over the rounds, a ratio the median of the rounds' ratios.

- A step, warm: Adam's steps by ``refine``, as many as take half a second, with the progress bar off
  and on (on a terminal). NumPyro's ``svi.run`` compiles at each call: the difference of two lengths.
- After what was timed, each peer anneals its rate, and its means and sds are compared with the right
  ones. A round that took fewer steps than it should, or met a NaN, ends the benchmark.
- The first 1,000 steps of a process, from the data to the end of ``pm.fit``, with the caches of
  compiled code empty and filled; and the memory of a fit to 160 MB above that of the data.
- A step against the number of rows, which lie in a file that is mapped into memory; by hand too,
  since the processor's own caches hold fewer of them the more there are.

The table, a picture and all figures are written to ``benchmarks/results/``; a run with ``--quick``,
which leaves out cold starts and most peers, to ``.cache/benchmarks/``.
"""

import sys
import tempfile

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from _common import CACHE, PATCH, RELEASE, ROOT, Peer, machine, main, plain_python
from _results import (
    HAND,
    Aim,
    Measured,
    Section,
    aims_table,
    first_table,
    plot,
    rows_table,
    steps_table,
    write_json,
)

BAR = ", progress bar"
JAX = f"{PATCH}, JAX"
HAND_4 = f"{HAND}, 4 rows at a time"
SCAN, PLATE = "NumPyro, one scan", "NumPyro, plate"
NORMALS, MIXTURE = "mean-field, 40,000 × 100", "mixture, 1 variable"
FULL_RANK, FLIGHTS = "full-rank, d = 50", "hierarchical, 327,346 rows"
DOUBLE, SINGLE = "float64", "float32"

AIMS = [
    Aim(NORMALS, DOUBLE, RELEASE, PATCH, "≥ 3"),
    Aim(MIXTURE, DOUBLE, RELEASE, PATCH, "≥ 40"),
    Aim(NORMALS, DOUBLE, PATCH, HAND, "≤ 1.1"),
    Aim(NORMALS, SINGLE, PATCH, HAND, "≤ 1.3"),
    Aim(NORMALS, DOUBLE, PLATE, PATCH, "≥ 12"),
    Aim(NORMALS, SINGLE, PLATE, PATCH, "≥ 12"),
    Aim(NORMALS, DOUBLE, SCAN, PATCH, "≥ 4"),
    Aim(NORMALS, SINGLE, SCAN, PATCH, "≥ 4"),
    Aim(NORMALS, DOUBLE, JAX, SCAN, "≤ 0.9"),
    Aim(NORMALS, SINGLE, JAX, SCAN, "≤ 0.9"),
    Aim(NORMALS, DOUBLE, PATCH + BAR, PATCH, "≤ 1.02"),
]
FIRST_AIMS = [Aim("cold", DOUBLE, PATCH, RELEASE, "≤ 0.9")]

N_FIRST = 1_000
ROWS = [10**k for k in range(4, 9)]
ROW_COLUMNS = 4

Settings = dict[str, Any]
Who = dict[str, tuple[Path | str, Settings]]


@dataclass(frozen=True)
class Case:
    """What is fitted, and by whom.

    Parameters
    ----------
    name, problem : str
    sizes : mapping
        Arguments of the problem, but for its dtype.
    dtypes, peers : sequence of str
    """

    name: str
    problem: str
    sizes: Mapping[str, Any] = field(default_factory=dict)
    dtypes: Sequence[str] = (DOUBLE,)
    peers: Sequence[str] = (RELEASE, PATCH)

    def settings(self, dtype: str) -> Settings:
        sizes = {**self.sizes, "dtype": dtype} if self.sizes else {}
        return {"kind": "steps", "problem": self.problem, "sizes": sizes, "dtype": dtype}


ALL = (RELEASE, PATCH, JAX, HAND, HAND_4, SCAN, PLATE)
FEW = (RELEASE, PATCH, HAND)
NORMAL_SIZES = {"n_rows": 40_000, "n_columns": 100, "batch_size": 500}
CASES = [
    Case(NORMALS, "normals", NORMAL_SIZES, (DOUBLE, SINGLE), ALL),
    Case(MIXTURE, "mixture"),
    Case(FULL_RANK, "regression", {"n_rows": 40_000, "n_columns": 50, "batch_size": 500}),
    Case(FLIGHTS, "flights", {"n_rows": 327_346, "batch_size": 1_000}),
]
QUICK_CASES = [Case(NORMALS, "normals", NORMAL_SIZES, (DOUBLE,), FEW), Case(MIXTURE, "mixture")]


@contextmanager
def peer_pythons(with_numpyro: bool) -> Iterator[Who]:
    """Yield how to start each peer: its Python, and what it is told beside the case."""
    from peers.environments import numpyro_python  # a parent's only, as pip is

    with tempfile.TemporaryDirectory() as folder:
        here = sys.executable
        who: Who = {
            RELEASE: (plain_python(Path(folder)), {"peer": "pymc_fit"}),
            PATCH: (here, {"peer": "pymc_fit"}),
            JAX: (here, {"peer": "pymc_fit", "backend": "jax"}),
            HAND: (here, {"peer": "by_hand", "block": 1}),
            HAND_4: (here, {"peer": "by_hand", "block": 4}),
        }
        if with_numpyro and (python := numpyro_python()):
            who[SCAN] = (python, {"peer": "numpyro_svi", "form": "scan"})
            # the difference of two calls that compile needs more steps than the noise of seconds
            who[PLATE] = (python, {"peer": "numpyro_svi", "form": "plate", "seconds": 2.0})
        yield who


def take_rounds(
    peers: Mapping[str, Peer], with_bar: Sequence[str], rounds: int
) -> dict[str, list[float]]:
    """Ask each peer for its time in turns, and some of them again with a progress bar."""
    turns = [(name, name, False) for name in peers]
    turns += [(name + BAR, name, True) for name in with_bar]
    times: dict[str, list[float]] = {label: [] for label, _, _ in turns}
    for k in range(rounds):
        for label, name, bar in turns[:: -1 if k % 2 else 1]:
            times[label].append(peers[name].ask(what="time", progressbar=bar)["time"])
    return times


def measure_case(case: Case, dtype: str, who: Who, rounds: int, seconds: float) -> Section:
    """Measure a step of each peer, and what its fit ends at."""
    with ExitStack() as stack:
        peers = {}
        for name in case.peers:
            if name in who:
                python, own = who[name]
                settings = case.settings(dtype) | {"seconds": seconds} | own
                peers[name] = stack.enter_context(Peer(__file__, python, settings))
        with_bar = [name for name in (RELEASE, PATCH) if name in peers]
        times = take_rounds(peers, with_bar, rounds)
        hello = {name: peer.hello for name, peer in peers.items()}
        ended = {name: peer.ask(what="accuracy") for name, peer in peers.items()}
    section = []
    for label, figures in times.items():
        name = label.removesuffix(BAR)
        accuracy = {} if label != name else accuracy_of(ended[name], ended[RELEASE])
        steps, memory = hello[name]["n_steps"], hello[name]["memory"]
        section.append(Measured(case.name, dtype, label, figures, steps, memory, accuracy))
    return section


def accuracy_of(ended: Mapping[str, Any], release: Mapping[str, Any]) -> dict[str, float]:
    """Return how far off a fit is: from what is right, or else from where the release's ended."""
    if "mean_error" in ended:
        return {key: ended[key] for key in ("mean_error", "smallest_sd", "largest_sd")}
    sds = release["sd"]
    errors = [abs(m - r) / sd for m, r, sd in zip(ended["mean"], release["mean"], sds, strict=True)]
    ratios = [s / sd for s, sd in zip(ended["sd"], sds, strict=True)]
    return {"mean_error": max(errors), "smallest_sd": min(ratios), "largest_sd": max(ratios)}


def measure_first(who: Who, cold_rounds: int, warm_rounds: int) -> Section:
    """Measure the first fit of a process, with caches that are empty and filled."""
    settings = CASES[0].settings(DOUBLE) | {"kind": "first", "n_steps": N_FIRST}
    large = settings | {"sizes": settings["sizes"] | {"n_rows": 1_000_000, "n_columns": 20}}
    section = []
    with tempfile.TemporaryDirectory() as folder:
        runs: list[tuple[str, int, Settings]] = [
            ("cold", cold_rounds, settings),
            ("warm", warm_rounds, settings),
            ("warm, 160 MB of data", 1, large),
        ]
        for case, rounds, wanted in runs:
            answers: dict[str, list[dict[str, Any]]] = {RELEASE: [], PATCH: []}
            for k in range(rounds):
                for name in list(answers)[:: -1 if k % 2 else 1]:
                    python, own = who[name]
                    cache = Path(folder, f"{name}-{k if case == 'cold' else 0}")
                    with Peer(__file__, python, wanted | own, cache) as peer:
                        answers[name].append(peer.hello)
            for name, fits in answers.items():
                times = [fit["time"] for fit in fits]
                memory = max(fit["memory"] for fit in fits)
                section.append(Measured(case, DOUBLE, name, times, N_FIRST, memory))
    return section


def measure_rows(who: Who, sizes: Sequence[int], rounds: int, seconds: float) -> Section:
    """Measure a step against the number of rows: all sizes in the same rounds."""
    from peers.row_file import row_file  # a parent's only: it imports NumPy

    settings = {"kind": "steps", "problem": "rows", "dtype": SINGLE, "seconds": seconds}
    section = []
    with row_file(CACHE, max(sizes), ROW_COLUMNS) as file, ExitStack() as stack:
        peers = {}
        for n_rows in sizes:
            sizes_of = {"file": str(file), "n_rows": n_rows, "n_columns": ROW_COLUMNS}
            for name in (PATCH, HAND):
                python, own = who[name]
                wanted = settings | own | {"sizes": sizes_of | {"batch_size": 500}}
                peers[f"{n_rows:,}|{name}"] = stack.enter_context(Peer(__file__, python, wanted))
        times = take_rounds(peers, (), rounds)
        for key, peer in peers.items():
            case, name = key.split("|")
            steps, memory = peer.hello["n_steps"], peer.hello["memory"]
            section.append(Measured(case, SINGLE, name, times[key], steps, memory))
    return section


def benchmark(options: Any) -> str:
    """Measure all, write the results, and return them as text."""
    quick, rounds = options.quick, 3 if options.quick else options.rounds
    seconds = 0.2 if quick else 0.5
    folder = CACHE if quick else ROOT / "benchmarks" / "results"
    sections: dict[str, Section] = {"steps": [], "first": [], "rows": []}
    with peer_pythons(with_numpyro=not (quick or options.no_numpyro)) as who:
        where = describe(who)
        for case in QUICK_CASES if quick else CASES:
            for dtype in case.dtypes:
                sections["steps"] += measure_case(case, dtype, who, rounds, seconds)
                write_results(folder, where, sections)  # what there is, should a later peer die
        sections["rows"] = measure_rows(who, ROWS[:3:2] if quick else ROWS, rounds, seconds)
        write_results(folder, where, sections)
        if not quick:
            sections["first"] = measure_first(who, cold_rounds=2, warm_rounds=3)
    return write_results(folder, where, sections)


def describe(who: Who) -> str:
    """Name the machine and the versions, NumPyro's too."""
    from peers.environments import package_version  # a parent's only

    text = machine("numba", "jax")
    if SCAN in who:
        text += f", numpyro {package_version(Path(who[SCAN][0]), 'numpyro')}"
    return text


def write_results(folder: Path, where: str, sections: Mapping[str, Section]) -> str:
    """Write ``engine.json``, ``engine.md`` and ``engine.png``, and return the text."""
    steps, first, rows = (sections[name] for name in ("steps", "first", "rows"))
    parts = [f"One thread for each process. {where}.", aims_table(steps, AIMS), steps_table(steps)]
    if first:
        parts += [aims_table(first, FIRST_AIMS), first_table(first)]
    if rows:
        parts.append(rows_table(rows))
    text = "\n\n".join(parts)
    folder.mkdir(parents=True, exist_ok=True)
    folder.joinpath("engine.md").write_text(text + "\n", encoding="utf-8")
    write_json(folder / "engine.json", where, sections)
    plot(folder / "engine.png", steps, rows)
    return text


def be_peer(settings: Settings) -> None:
    """Be one of the peers."""
    import peers  # imports NumPy

    peers.be_peer(settings)


if __name__ == "__main__":
    main(__doc__, benchmark, be_peer, rounds=9, quick=False, no_numpyro=False)
