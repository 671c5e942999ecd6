# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Minibatch log-probability and gradient, the patch against the release.

    python benchmarks/bench_logp.py [--n-rows 40000] [--n-columns 100] [--batch-size 500]

One call of a compiled function of the parameters, which draws the batch and returns the scaled
log-probability and its gradient. Beside the time stands how far the mean over ``PASSES`` passes is
from the log-probability of all rows, in standard errors of that many independent batches, and how
long a process takes to compile when the cache is warm.

The floor is the same arithmetic written by hand in Numba, called from Python, with the same batches
as the patch draws by "epoch".
"""

import sys
import tempfile
import time

from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from _common import (
    PATCH,
    RELEASE,
    Peer,
    as_markdown,
    machine,
    main,
    plain_python,
    ratio,
    send,
    serve,
    take_turns,
)

CASES = [(mode, dtype) for mode in ("NUMBA", "CVM", "JAX") for dtype in ("float64", "float32")]
MODES = {"NUMBA": "Numba", "CVM": "C", "JAX": "JAX"}
ROUNDS = 15
ROUND_SECONDS = 0.1
PASSES = 10


def peer(settings: dict[str, Any]) -> None:
    """Compile, say how long it took, and time calls."""
    from _regression import Regression, check_side  # imports PyMC, which the parent need not

    check_side(settings["patched"])
    n_rows, dtype = settings["n_rows"], settings["dtype"]
    data = Regression.simulate(n_rows, settings["n_columns"], dtype)
    point = [np.full(settings["n_columns"], 0.1, dtype), np.asarray(0.2, dtype)]
    if settings["kind"] == "floor":
        call: Callable[[], Any] = floor(data.X, data.y, point, settings["batch_size"])
        compile_time = 0.0
    else:
        start = time.perf_counter()
        f = compile_logp_dlogp(data.model(settings["batch_size"]), settings["mode"])
        f(*point)
        compile_time = time.perf_counter() - start

        def call() -> Any:
            return f(*point)

    send({"compile_time": compile_time})
    call()

    def answer(what: str) -> dict[str, float]:
        if what == "time":
            return {"time": time_of_call(call)}
        full = float(compile_logp_dlogp(data.model(None), settings["mode"])(*point)[0])
        batches = np.array([float(call()[0]) for _ in range(settings["n_batches"])])
        error = batches.std(ddof=1) / len(batches) ** 0.5
        return {"full": full, "mean": batches.mean(), "standard_error": error}

    serve(answer)


def compile_logp_dlogp(model: Any, mode: str) -> Callable[..., list]:
    """Compile the log-probability and the gradient, with the batch drawn within."""
    import pytensor

    import pymc as pm

    logp = model.logp()
    outputs = [logp, *pytensor.grad(logp, model.value_vars)]
    with getattr(pm, "minibatch_logp", nullcontext)():  # plain PyMC has no guard
        f = pm.compile(model.value_vars, outputs, mode=mode, random_seed=1)
    f.trust_input = True
    return f


def time_of_call(call: Callable[[], Any]) -> float:
    """Time of one call in microseconds, the smallest mean over a round's fifths."""
    start = time.perf_counter()
    call()
    n_calls = max(1, int(ROUND_SECONDS / 5 / (time.perf_counter() - start)))
    means = []
    for _ in range(5):
        start = time.perf_counter()
        for _ in range(n_calls):
            call()
        means.append((time.perf_counter() - start) / n_calls)
    return min(means) * 1e6


def floor(
    X: np.ndarray, y: np.ndarray, point: list[np.ndarray], batch_size: int
) -> Callable[[], tuple]:
    """Return the same by hand: one pass over the rows of a batch, nothing copied, one compiled call.

    The draw is the patch's, so the batches are the same.
    """
    import numba

    import pymc as pm

    from pymc.minibatch.index import minibatch_index

    f = pm.compile([], minibatch_index(len(y), batch_size), mode="NUMBA", random_seed=1)
    draw, state = f.vm.jit_fn, f.input_storage[0].storage[0]
    w, log_sigma = point
    half_log_2pi = y.dtype.type(0.5 * np.log(2 * np.pi))
    half_normal = y.dtype.type(0.5 * np.log(2 / np.pi))
    half, one, scale = y.dtype.type(0.5), y.dtype.type(1), y.dtype.type(len(y) / batch_size)

    @numba.njit(fastmath=True, error_model="numpy")
    def logp_dlogp(X, y, w, log_sigma, state):
        rows, _ = draw(state)
        sigma = np.exp(log_sigma[()])
        dw = np.zeros_like(w)
        squares = y.dtype.type(0)
        for row in rows:
            x = X[row]
            residual = y[row]
            for j in range(w.shape[0]):
                residual -= x[j] * w[j]
            squares += residual * residual
            for j in range(w.shape[0]):
                dw[j] += residual * x[j]
        squares /= sigma * sigma
        n = y.dtype.type(rows.shape[0])
        logp = -scale * (half * squares + n * (half_log_2pi + log_sigma[()]))
        logp += half_normal - half * sigma * sigma + log_sigma[()]
        for j in range(w.shape[0]):
            logp -= half * w[j] * w[j] + half_log_2pi
            dw[j] = scale * dw[j] / (sigma * sigma) - w[j]
        dlog_sigma = scale * (squares - n) - sigma * sigma + one
        return logp, dw, dlog_sigma

    return lambda: logp_dlogp(X, y, w, log_sigma, state)


def measure(
    python: Path | str, mode: str, dtype: str, sizes: dict[str, int]
) -> tuple[list[str], list[str]]:
    """Measure one backend with one dtype: a line of the table of times, and of that of means."""
    settings = sizes | {"mode": mode, "dtype": dtype, "kind": "pymc"}
    pythons: dict[str, Path | str] = {RELEASE: python, PATCH: sys.executable}
    for side in pythons.values():  # fills the cache
        with Peer(__file__, side, settings):
            pass
    with ExitStack() as stack:
        peers = {
            name: stack.enter_context(Peer(__file__, side, settings))
            for name, side in pythons.items()
        }
        if mode == "NUMBA":
            hand = Peer(__file__, sys.executable, settings | {"kind": "floor"})
            peers["floor"] = stack.enter_context(hand)
        times = take_turns(peers, ROUNDS, what="time")
        means = {name: peer.ask(what="mean") for name, peer in peers.items()}
        compiles = [f"{peers[name].hello['compile_time']:.1f}" for name in pythons]
    backend = f"{MODES[mode]}, {dtype}"
    figures = [f"{median(times[name]):.1f}" for name in pythons]
    faster = f"{ratio(times[RELEASE], times[PATCH]):.2f} ×"
    by_hand = f"{median(times['floor']):.1f}" if "floor" in times else "–"
    full = means[PATCH]["full"]
    errors = [f"{means[name]['standard_error'] / abs(full):.1e}" for name in pythons]
    shares = [
        f"{(means[name]['mean'] - full) / means[name]['standard_error']:.2g}" for name in means
    ]
    shares += ["–"] * (3 - len(shares))
    return [backend, *figures, faster, by_hand, *compiles], [backend, *errors, *shares]


def benchmark(options: Any) -> str:
    """Measure all backends."""
    n_rows, batch_size = options.n_rows, options.batch_size
    sizes = {"n_rows": n_rows, "n_columns": options.n_columns, "batch_size": batch_size}
    sizes["n_batches"] = PASSES * n_rows // batch_size
    with tempfile.TemporaryDirectory() as folder:
        python = plain_python(Path(folder))
        lines = [measure(python, mode, dtype, sizes) for mode, dtype in CASES]
    times, means = zip(*lines, strict=True)
    header = ["backend", "release, µs", "patch, µs", "faster", "by hand, µs"]
    header += ["release, s to compile", "patch, s to compile"]
    accuracy = ["backend", "release, s.e. / |full|", "patch, s.e. / |full|"]
    accuracy += ["release, s.e. off", "patch, s.e. off", "by hand, s.e. off"]
    return (
        f"Log-probability and gradient of {n_rows:,} × {options.n_columns} rows in batches of "
        f"{batch_size}. {machine('numba', 'jax')}.\n\n{as_markdown(header, times)}\n\n"
        f"Mean over {sizes['n_batches']} batches minus the log-probability of all rows:\n\n"
        f"{as_markdown(accuracy, means)}"
    )


if __name__ == "__main__":
    main(__doc__, benchmark, peer, n_rows=40_000, n_columns=100, batch_size=500)
