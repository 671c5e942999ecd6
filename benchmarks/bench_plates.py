# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""A step of a model with a latent variable for each row, against NumPyro and the number of rows.

    python benchmarks/bench_plates.py [--quick] [--no-numpyro] [--rounds 5]

The mean of each row is normal around a mean of all, and has a mean-field guide. The patch fits it by
``pm.fit`` on a subsampled dim, NumPyro by ``AutoNormal`` and ``plate(subsample_size=...)``; both with
Adam. Every number of rows and every peer is a process of one thread, and all of a case take turns in
the same rounds. A figure is the median over the rounds, a ratio the median of the rounds' ratios.
NumPyro's ``svi.run`` compiles at each call: its time is the difference of two lengths.

After what was timed, the patch goes through all rows 200 times with falling rates, and where it ends
is compared with the closed form; so does NumPyro up to 10,000 rows, as more would take it hours.

The tables and all figures are written to ``benchmarks/results/``; a run with ``--quick``, which leaves
out NumPyro and the largest numbers of rows, to ``.cache/benchmarks/``.
"""

import sys

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

from _common import CACHE, PATCH, ROOT, Peer, as_markdown, machine, main, ratio, send, serve
from _local_means import N_EPOCHS, LocalMeans
from _results import Measured, Section, find, write_json

NUMPYRO = "NumPyro"
SIZES = [10**3, 10**5, 10**6, 10**7]
MOST_NUMPYRO = 10**6  # rows; ten times as many take it ten times as long
MOST_SETTLED = {PATCH: 10**6, NUMPYRO: 10**4}
CASES = [(256, "float64"), (256, "float32"), (64, "float64")]
AIMS = {10**5: "≥ 25", 10**6: "≥ 100"}  # NumPyro's time over the patch's
GROWTH = 1.5  # of the time with the most rows, over that with the fewest

Settings = dict[str, Any]
Who = dict[str, tuple[Path | str, Settings]]


def measure(
    batch_size: int, dtype: str, sizes: Sequence[int], who: Who, rounds: int, settle: bool
) -> Section:
    """Measure a step of each peer for each number of rows, all in the same rounds."""
    with ExitStack() as stack:
        peers = {
            (n, name): stack.enter_context(
                Peer(
                    __file__, python, own | {"sizes": _sizes(n, batch_size, dtype), "dtype": dtype}
                )
            )
            for n in sizes
            for name, (python, own) in who.items()
            if name == PATCH or n <= MOST_NUMPYRO
        }
        times: dict[tuple[int, str], list[float]] = {key: [] for key in peers}
        for k in range(rounds):
            for key in list(peers)[:: -1 if k % 2 else 1]:
                times[key].append(peers[key].ask(what="time")["time"])
        ended = {
            (n, name): peer.ask(what="settle")
            for (n, name), peer in peers.items()
            if settle and 10**5 <= n <= MOST_SETTLED[name]
        }
        steps = {key: peer.hello["n_steps"] for key, peer in peers.items()}
    return [
        Measured(_case(n, batch_size), dtype, name, times[n, name], steps[n, name], 0.0, accuracy)
        for n, name in peers
        for accuracy in [ended.get((n, name), {})]
    ]


def _sizes(n_rows: int, batch_size: int, dtype: str) -> Settings:
    return {"n_rows": n_rows, "batch_size": batch_size, "dtype": dtype}


def _case(n_rows: int, batch_size: int) -> str:
    return f"N = {n_rows:,}, B = {batch_size}"


def steps_table(section: Section, sizes: Sequence[int]) -> str:
    """Write a line for each batch size and precision: the times, and how the patch's grow."""
    header = ["µs a step", *(f"N = {n:,}" for n in sizes), "last / first", "aim"]
    rows = []
    for batch_size, dtype in CASES:
        for name in (PATCH, NUMPYRO):
            cells = [find(section, _case(n, batch_size), dtype, name) for n in sizes]
            known = [m for m in cells if m is not None]
            if not known:
                continue
            figures = ["–" if m is None else f"{median(m.times):,.3g}" for m in cells]
            growth = f"{ratio(known[-1].times, known[0].times):.3g}"
            aim = f"≤ {GROWTH}" if name == PATCH else ""
            rows.append([f"B = {batch_size}, {dtype}: {name}", *figures, growth, aim])
    return as_markdown(header, rows)


def aims_table(section: Section) -> str:
    """Write how many times faster than NumPyro a step is."""
    rows = []
    for m in section:
        other = find(section, m.case, m.dtype, NUMPYRO)
        if m.peer == PATCH and other is not None:
            aim = next(
                (
                    aim
                    for n, aim in AIMS.items()
                    if m.case.startswith(_case(n, 0).partition(", B")[0] + ", B")
                ),
                "–",
            )
            rows.append([f"{m.case}, {m.dtype}", f"{ratio(other.times, m.times):.3g}", aim])
    return as_markdown(["NumPyro's time of a step / the patch's", "measured", "aim"], rows)


def settled_table(section: Section) -> str:
    """Write where each fit ended, and how long it took to get there."""
    header = [
        f"{N_EPOCHS} times through all rows",
        "peer",
        "s",
        "error of mu, sds",
        "sd of mu / right",
    ]
    header += ["error of z, sds (rms)", "sd of z / right (1st to 99th percentile)"]
    rows = []
    for m in section:
        a = m.accuracy
        if a:
            sds = f"{a['z_sd_low']:.2f} to {a['z_sd_high']:.2f}"
            figures = [f"{a['seconds']:.3g}", f"{a['mu_error']:.2f}", f"{a['mu_sd']:.2f}"]
            rows.append([f"{m.case}, {m.dtype}", m.peer, *figures, f"{a['z_error']:.2f}", sds])
    return as_markdown(header, rows)


def benchmark(options: Any) -> str:
    """Measure all, write the results, and return them as text."""
    quick, rounds = options.quick, 3 if options.quick else options.rounds
    folder = CACHE if quick else ROOT / "benchmarks" / "results"
    seconds = 0.1 if quick else 0.3
    who: Who = {PATCH: (sys.executable, {"peer": "plate_fit", "seconds": seconds, "block": 1_000})}
    where = machine("numba")
    if not (quick or options.no_numpyro):
        where += _add_numpyro(who)
    sizes = SIZES[:2] if quick else SIZES
    section: Section = []
    for k, (batch_size, dtype) in enumerate(CASES):
        section += measure(batch_size, dtype, sizes, who, rounds, settle=k == 0)
        text = write_results(folder, where, section, sizes)
    return text


def _add_numpyro(who: Who) -> str:
    from peers.environments import numpyro_python, package_version  # a parent's only, as pip is

    python = numpyro_python()
    if python is None:
        return ""
    # the difference of two calls that compile needs more steps than the noise of seconds
    who[NUMPYRO] = (python, {"peer": "numpyro_plate", "seconds": 2.0, "block": 50})
    return "".join(f", {name} {package_version(python, name)}" for name in ("jax", "numpyro"))


def write_results(folder: Path, where: str, section: Section, sizes: Sequence[int]) -> str:
    """Write ``plates.json`` and ``plates.md``, and return the text."""
    parts = [f"One thread for each process. {where}.", steps_table(section, sizes)]
    if any(m.peer == NUMPYRO for m in section):
        parts.append(aims_table(section))
    text = "\n\n".join([*parts, settled_table(section)])
    folder.mkdir(parents=True, exist_ok=True)
    folder.joinpath("plates.md").write_text(text + "\n", encoding="utf-8")
    write_json(folder / "plates.json", where, {"plates": section})
    return text


def be_peer(settings: Mapping[str, Any]) -> None:
    """Take steps with one number of rows: say how long they take, and where they end."""
    import importlib  # what only a peer needs
    import time

    from peers import seconds, steps_per_round

    data = LocalMeans.simulate(**settings["sizes"])
    fit = importlib.import_module(f"peers.{settings['peer']}").start(data, settings)
    n_steps = steps_per_round(fit, settings["seconds"], settings["block"])
    send({"n_steps": n_steps})

    def answer(what: str) -> dict[str, float]:
        if what == "time":
            return {"time": seconds(fit, n_steps) / n_steps * 1e6}
        begun = time.perf_counter()
        fit.settle()
        took = time.perf_counter() - begun
        return {**fit.ended().errors(data.reference()), "seconds": took}

    serve(answer)


if __name__ == "__main__":
    main(__doc__, benchmark, be_peer, rounds=5, quick=False, no_numpyro=False)
