#   Copyright 2026 - present The PyMC Developers
#
#   Licensed under the Apache License, Version 2.0 (the "License");
#   you may not use this file except in compliance with the License.
#   You may obtain a copy of the License at
#
#       http://www.apache.org/licenses/LICENSE-2.0
#
#   Unless required by applicable law or agreed to in writing, software
#   distributed under the License is distributed on an "AS IS" BASIS,
#   WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
#   See the License for the specific language governing permissions and
#   limitations under the License.
"""A fit on minibatches, the patch against the release: time of a step, first fit, and memory.

    python benchmarks/bench_fit.py [--n-rows 40000] [--n-columns 100] [--batch-size 500]

- A step of ``pm.fit``, its loop and a callback included: both fit at the same time, and are stopped
  and let go in turns by their callbacks.
- ``pm.fit(n=100)`` from its call to its end in a new process, with the cache of compiled code cold
  and warm; the model is built before.
- Memory: the peak resident size of a process that fits 1,000,000 × 20 rows of float64 (160 MB),
  above its peak when the data were there.
"""

import sys
import tempfile
import time

from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

from _common import (
    PATCH,
    RELEASE,
    Peer,
    as_markdown,
    machine,
    main,
    peak_memory,
    plain_python,
    ratio,
    send,
    take_turns,
)

DTYPES = ("float64", "float32")
ROUNDS = 9
STEPS = 1_000
COLD, WARM = 1, 2
LARGE = {"n_rows": 1_000_000, "n_columns": 20}

Pythons = dict[str, Path | str]


def peer(settings: dict[str, Any]) -> None:
    """Fit, and say what it took."""
    from _regression import Regression, check_side  # imports PyMC, which the parent need not

    import pymc as pm

    check_side(settings["patched"])
    data = Regression.simulate(settings["n_rows"], settings["n_columns"], settings["dtype"])
    before = peak_memory()
    start = time.perf_counter()
    model = data.model(settings["batch_size"])
    built = time.perf_counter() - start
    quiet: dict[str, Any] = {"progressbar": False, "random_seed": 1}
    if settings["kind"] == "steps":
        with model:
            pm.fit((ROUNDS + 2) * STEPS, callbacks=[Gate()], obj_optimizer=pm.adam(), **quiet)
        return
    start = time.perf_counter()
    with model:
        pm.fit(100, **quiet)
    fitted = time.perf_counter() - start
    send({"model": built, "fit": fitted, "memory": peak_memory() - before})


class Gate:
    """A callback of ``pm.fit``: stops it after each round, until the next one is asked for.

    What comes before the first request is warm-up. The fit ends when there are no more requests.
    """

    def __init__(self) -> None:
        self.start = 0.0

    def __call__(self, approx: Any, losses: Any, step: int) -> None:
        if step % STEPS:
            return
        elapsed = time.perf_counter() - self.start
        send({"time": elapsed / STEPS * 1e6})
        if not sys.stdin.readline():
            raise StopIteration
        self.start = time.perf_counter()


def time_steps(pythons: Pythons, settings: dict[str, Any]) -> dict[str, list[float]]:
    """Microseconds of a step, for each round."""
    settings = settings | {"kind": "steps"}
    with ExitStack() as stack:
        peers = {
            name: stack.enter_context(Peer(__file__, python, settings))
            for name, python in pythons.items()
        }
        return take_turns(peers, ROUNDS)


def first_fits(
    pythons: Pythons, settings: dict[str, Any], repeats: int, cold: bool
) -> dict[str, list[dict[str, float]]]:
    """Fit in new processes in turns; each one's cache is its own, and empty when it is to be cold."""
    answers: dict[str, list[dict[str, float]]] = {name: [] for name in pythons}
    settings = settings | {"kind": "first"}
    with tempfile.TemporaryDirectory() as folder:
        for k in range(repeats if cold else repeats + 1):
            for name, python in pythons.items():
                cache = Path(folder, f"{name}-{k}" if cold else name)
                with Peer(__file__, python, settings, cache) as peer:
                    if cold or k > 0:
                        answers[name].append(peer.hello)
    return answers


def summary(times: dict[str, list[float]], unit: str) -> list[str]:
    """Write the figures of one line of the table: both sides, and how the release compares."""
    figures = [f"{median(times[name]):.3g} {unit}" for name in (RELEASE, PATCH)]
    return [*figures, f"{ratio(times[RELEASE], times[PATCH]):.2f} ×"]


def benchmark(options: Any) -> str:
    """Measure all."""
    sizes = {name: vars(options)[name] for name in ("n_rows", "n_columns", "batch_size")}
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        pythons: Pythons = {RELEASE: plain_python(Path(folder)), PATCH: sys.executable}
        for dtype in DTYPES:
            times = time_steps(pythons, sizes | {"dtype": dtype})
            rows.append([f"step of pm.fit, {dtype}", *summary(times, "µs")])
        settings = sizes | {"dtype": "float64"}
        for state, repeats in (("cold", COLD), ("warm", WARM)):
            fits = first_fits(pythons, settings, repeats, cold=state == "cold")
            for what, key in (("model", "model"), ("pm.fit(n=100)", "fit")):
                seconds = {name: [fit[key] for fit in fits[name]] for name in pythons}
                rows.append([f"{what}, {state} cache", *summary(seconds, "s")])
        fits = first_fits(pythons, settings | LARGE, repeats=1, cold=False)
        memory = {name: [fit["memory"] for fit in fits[name]] for name in pythons}
        rows.append(["memory of a fit to 160 MB", *summary(memory, "MB")])
    return (
        f"Fits to {options.n_rows:,} × {options.n_columns} rows in batches of "
        f"{options.batch_size}, by ADVI on Numba. {machine('numba')}.\n\n"
        f"{as_markdown(['', RELEASE, PATCH, 'release / patch'], rows)}"
    )


if __name__ == "__main__":
    main(__doc__, benchmark, peer, n_rows=40_000, n_columns=100, batch_size=500)
