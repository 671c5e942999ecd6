# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""What it costs to draw the rows of a batch, against the number of rows of the data.

    python benchmarks/bench_index_draw.py [--batch-size 500] [--write benchmarks/bench_index_draw.md]

Two figures a line, in microseconds a draw, compilation apart and after a warm-up: the smallest mean
over ``REPEATS`` runs of many draws each.

- "loop": the compiled draw called in a Numba loop, as it is in a compiled loop over steps;
- "call": called from Python as a PyTensor function.

The peers draw in the same run: PyTensor's ``integers`` (with replacement), and the first rows of a
``numpy.random.Generator.permutation`` of all rows, from Python.
"""

import argparse
import time

from collections.abc import Callable
from functools import partial
from typing import Any

import numba
import numpy as np
import pytensor.tensor as pt

from _common import as_markdown, machine, main

import pymc as pm

from pymc.minibatch.index import minibatch_index
from pymc.minibatch.shuffle import SAMPLING

N_ROWS = [10**3, 10**4, 10**5, 10**6, 10**7, 10**8]
REPEATS = 5
Run = Callable[[np.ndarray, int], object]  # (n_rows, n_draws)
INTEGERS, PERMUTATION = "integers (PyTensor)", "permutation (NumPy)"


def microseconds(run: Run, n_rows: np.ndarray, n_draws: int) -> float:
    """Time of one draw: the smallest mean over repeated runs."""
    run(n_rows, 1)
    means = []
    for _ in range(REPEATS if n_draws > 1 else 1):
        start = time.perf_counter()
        run(n_rows, n_draws)
        means.append((time.perf_counter() - start) / n_draws)
    return min(means) * 1e6


def compile_draw(sampling: str, batch_size: int) -> tuple[Run, Run]:
    """Compile ``loop(n_rows, n_draws)`` and ``call(n_rows, n_draws)``."""
    n_rows = pt.lscalar("n_rows")
    if sampling == INTEGERS:
        rng = pt.random.shared_rng(seed=1)
        _, index = pt.random.integers(0, n_rows, size=batch_size, rng=rng, return_next_rng=True)
    else:
        index = minibatch_index(n_rows, batch_size, sampling)
    f = pm.compile([n_rows], index, mode="NUMBA", random_seed=1)
    f.trust_input = True
    draw = f.vm.jit_fn
    state = f.input_storage[1].storage[0]

    @numba.njit
    def many(n_rows: np.ndarray, state: Any, n_draws: int) -> int:
        checksum = 0
        for _ in range(n_draws):
            rows, _ = draw(n_rows, state)
            checksum += rows[0]
        return checksum

    def call(n_rows: np.ndarray, n_draws: int) -> None:
        for _ in range(n_draws):
            f(n_rows)

    def loop(n_rows: np.ndarray, n_draws: int) -> None:
        many(n_rows, state, n_draws)

    return loop, call


def permute(batch_size: int, n_rows: np.ndarray, n_draws: int) -> None:
    rng = np.random.default_rng(1)
    for _ in range(n_draws):
        rng.permutation(int(n_rows))[:batch_size]


def measure(batch_size: int) -> dict[str, list[str]]:
    """Table of the figures: a line a sampling, a column a number of rows."""
    table = {}
    sizes = [np.asarray(n, dtype="int64") for n in N_ROWS]
    for sampling in [*SAMPLING, INTEGERS]:
        loop, call = compile_draw(sampling, batch_size)
        for way, run, n_draws in (("loop", loop, 20_000), ("call", call, 2_000)):
            figures = [f"{microseconds(run, n, n_draws):.1f}" for n in sizes]
            table[f"{sampling}, {way}"] = figures
    table[f"{PERMUTATION}, call"] = [
        f"{microseconds(partial(permute, batch_size), n, max(1, 10**6 // int(n))):,.0f}"
        for n in sizes
    ]
    return table


def benchmark(options: argparse.Namespace) -> str:
    """Measure all."""
    table = measure(options.batch_size)
    header = ["µs a draw", *(f"N = {n:,}" for n in N_ROWS)]
    rows = [[name, *figures] for name, figures in table.items()]
    return (
        f"Rows of a batch of {options.batch_size}. {machine('numba')}.\n\n"
        f"{as_markdown(header, rows)}"
    )


if __name__ == "__main__":
    main(__doc__, benchmark, batch_size=500)
