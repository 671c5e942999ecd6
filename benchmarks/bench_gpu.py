# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""The JAX backend of ``pm.fit`` on an accelerator, against the processor.

    python benchmarks/bench_gpu.py [--n-columns 100]

The mean-field model of ``bench_engine.py``, on whatever device JAX finds first; without an accelerator
there is nothing to measure, and a sentence says so. JAX for it is installed apart, such as
``pip install "jax[cuda13]"``.
"""

import sys

from collections.abc import Mapping
from contextlib import ExitStack
from statistics import median
from typing import Any

from _common import Peer, as_markdown, machine, main, ratio, send, take_turns

N_ROWS = 1_000_000
BATCH_SIZES = (500, 5_000, 50_000)
ROUNDS = 5
ENVIRONMENTS = {
    "processor": {"JAX_PLATFORMS": "cpu"},
    # each process would take most of the card's memory when it starts
    "accelerator": {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"},
}


def be_peer(settings: dict[str, Any]) -> None:
    """Say which device JAX finds, or fit."""
    if settings["kind"] == "device":
        import jax  # a peer's only, in which it may take the device

        device = jax.devices()[0]
        send({"platform": device.platform, "name": device.device_kind})
        return
    import peers  # imports NumPy

    peers.be_peer(settings)


def start(environment: str, settings: Mapping[str, Any]) -> Peer:
    """Start a process of the patch, for one of the devices."""
    return Peer(__file__, sys.executable, settings, environment=ENVIRONMENTS[environment])


def measure(n_columns: int, batch_size: int, dtype: str) -> list[str]:
    """Measure one batch size with one dtype: a line of the table."""
    sizes = {"n_rows": N_ROWS, "n_columns": n_columns, "batch_size": batch_size, "dtype": dtype}
    settings: dict[str, Any] = {
        "kind": "steps",
        "problem": "normals",
        "sizes": sizes,
        "dtype": dtype,
    }
    settings |= {"peer": "pymc_fit", "backend": "jax", "seconds": 0.5}
    with ExitStack() as stack:
        peers = {name: stack.enter_context(start(name, settings)) for name in ENVIRONMENTS}
        times = take_turns(peers, ROUNDS, what="time")
        errors = [f"{peer.ask(what='accuracy')['mean_error']:.2f}" for peer in peers.values()]
    figures = [f"{median(times[name]):.3g}" for name in ENVIRONMENTS]
    faster = f"{ratio(times['processor'], times['accelerator']):.3g} ×"
    return [f"{batch_size:,}, {dtype}", *figures, faster, *errors]


def benchmark(options: Any) -> str:
    """Measure all, if there is something to measure."""
    with start("accelerator", {"kind": "device", "dtype": "float32"}) as peer:
        device = peer.hello
    if device["platform"] == "cpu":
        return "JAX finds no accelerator here: the GPU benchmark has nothing to measure."
    rows = [
        measure(options.n_columns, batch_size, dtype)
        for dtype in ("float32", "float64")
        for batch_size in BATCH_SIZES
    ]
    header = ["batch", "processor, µs", "accelerator, µs", "faster"]
    header += [f"{name}, error of means, sds" for name in ENVIRONMENTS]
    return (
        f"A step of the JAX backend, {N_ROWS:,} × {options.n_columns} rows, on {device['name']} and "
        f"on one thread of the processor. {machine('jax')}.\n\n{as_markdown(header, rows)}"
    )


if __name__ == "__main__":
    main(__doc__, benchmark, be_peer, n_columns=100)
