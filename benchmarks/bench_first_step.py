# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0

"""Time from ``pm.fit`` to its first steps, plain and patched, in turns, in seconds of processor time.

"eager" is the patched one with machine code of each function that Numba compiles. Each is measured with an empty cache ("cold"), in a new process that finds a cache ("warm"), and for a
second fit with another learning rate in the cold process ("rate"). "process" is a warm process from its
start on, imports included. "auto" is `method="auto"` on the model of the schools, to its answer, which plain PyMC has not. Byte code is compiled before: without it, imports take three seconds longer.
The figures are the smallest of the rounds, since other load on the machine only adds to them.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time

from pathlib import Path
from typing import Any

from _common import as_markdown, machine, main, plain_python

ROOT = Path(__file__).resolve().parent.parent
MODELS = ("flights", "logistic", "groups", "schools", "auto")
PEERS = ("plain", "eager", "patched")


def batches(pm: Any, size: int, **arrays: Any) -> tuple[list[Any], dict[str, Any]]:
    """Return minibatches of arrays with rows, and the arguments of what is observed of them."""
    n_rows = len(next(iter(arrays.values())))
    if not hasattr(pm, "minibatch_model"):
        return pm.Minibatch(*arrays.values(), batch_size=size), {"total_size": n_rows}
    data = [
        pm.Data(f"{name}_data", values, dims=("obs", f"{name}_column")[: values.ndim])
        for name, values in arrays.items()
    ]
    return pm.Minibatch(*data, batch_size=size), {"dims": "obs"}


def flights(pm: Any, rng: Any) -> None:
    n = 20_000
    pm.modelcontext(None).add_coords(
        {"carrier": range(16), "origin": range(3), "month": range(12), "feature": range(4)}
    )
    (features, carrier, origin, month, y), observed = batches(
        pm,
        1000,
        features=rng.normal(size=(n, 4)),
        carrier=rng.integers(0, 16, n),
        origin=rng.integers(0, 3, n),
        month=rng.integers(0, 12, n),
        y=10 * rng.normal(size=n),
    )
    typical, spread = pm.Normal("typical", 0, 20), pm.HalfNormal("spread", 10)
    delays = pm.Normal("delays", typical, spread, dims="carrier")
    of_origin = pm.ZeroSumNormal("of_origin", sigma=10, dims="origin")
    of_month = pm.ZeroSumNormal("of_month", sigma=10, dims="month")
    slopes = pm.Normal("slopes", 0, 10, dims="feature")
    mu = delays[carrier] + of_origin[origin] + of_month[month] + (features * slopes).sum(axis=-1)
    sigma, nu = pm.HalfNormal("sigma", 50), pm.Gamma("nu", 2, 0.1)
    pm.StudentT("delay", nu=nu, mu=mu, sigma=sigma, observed=y, **observed)


def logistic(pm: Any, rng: Any) -> None:
    n = 20_000
    X = rng.normal(size=(n, 10))
    # The release casts longer integers, and takes no casts as observed
    (X, y), observed = batches(pm, 500, X=X, y=rng.integers(0, 2, n, dtype="int32"))
    slopes, intercept = pm.Normal("slopes", 0, 1, shape=10), pm.Normal("intercept", 0, 5)
    pm.Bernoulli("clicks", logit_p=intercept + X @ slopes, observed=y, **observed)


def groups(pm: Any, rng: Any) -> None:
    n_groups = 100_000
    pm.modelcontext(None).add_coord("user", range(n_groups))
    (user, y), observed = batches(
        pm,
        1000,
        user=rng.integers(0, n_groups, 2 * n_groups),
        y=rng.normal(size=2 * n_groups),
    )
    mu, scale = pm.Normal("mu", 0, 1), pm.HalfNormal("scale", 1)
    effect = pm.Normal("effect", 0, scale, dims="user")
    pm.Normal("rows", mu + effect[user], pm.HalfNormal("noise", 1), observed=y, **observed)


def schools(pm: Any, rng: Any) -> None:
    mu, tau = pm.Normal("mu", 0, 5), pm.HalfCauchy("tau", 5)
    z = pm.Normal("z", 0, 1, shape=8)
    errors = [15.0, 10, 16, 11, 9, 11, 10, 18]
    pm.Normal("y", mu + tau * z, errors, observed=[28.0, 8, -3, 7, -1, 1, 18, 12])


def auto(pm: Any, rng: Any) -> None:
    schools(pm, rng)


def measure(request: dict[str, Any]) -> None:
    """Print times of this process, which fits a model twice."""
    import numpy as np

    import pymc as pm

    with pm.Model() as model:
        globals()[request["model"]](pm, np.random.default_rng(1))
    seconds = {}
    for kind, rate in (("fit", 0.05), ("rate", 0.02)):
        start = time.process_time()
        if request["peer"] == "eager":  # here, as a fit imports it too
            from pymc.variational.engine.drivers import quick_compilation

            quick_compilation.TESTED = ()
        if request["model"] == "auto":
            settings: dict[str, Any] = {"method": "auto"}
        else:
            settings = {"n": 10, "obj_optimizer": pm.adam(learning_rate=rate)}
        pm.fit(model=model, random_seed=1, progressbar=False, **settings)
        seconds[kind] = time.process_time() - start
        seconds.setdefault("process", time.process_time())
    print(json.dumps(seconds))


def run(python: str, peer: str, model: str, folder: Path) -> dict[str, float]:
    """Measure in a new process, with the cache and the byte code in `folder`."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "PYTENSOR"))}
    environment = clean | {
        "PYTHONPYCACHEPREFIX": str(folder.parent / "bytecode"),
        "PYTENSOR_FLAGS": f"base_compiledir={folder}",
    }
    if peer != "plain":
        python, environment["PYTHONPATH"] = sys.executable, f"{ROOT / 'overlay'}:{ROOT}"
    command = [python, __file__, "--peer", json.dumps({"peer": peer, "model": model})]
    done = subprocess.run(command, env=environment, cwd="/", capture_output=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def compare(python: str, folder: Path, n_rounds: int) -> str:
    """Return a table of the smallest times of the rounds."""
    for peer in PEERS:  # byte code
        run(python, peer, "schools", folder / f"{peer}_first")
    rows = []
    for model in MODELS:
        peers = [peer for peer in PEERS if (peer, model) != ("plain", "auto")]
        measured: dict[str, list[list[float]]] = {peer: [] for peer in peers}
        for k in range(n_rounds):
            for peer in peers[:: -1 if k % 2 else 1]:
                cache = folder / f"{model}_{peer}_{k}"
                cold = run(python, peer, model, cache)
                warm = run(python, peer, model, cache)
                times = [cold["fit"], warm["fit"], warm["process"], cold["rate"]]
                measured[peer].append(times)
        for peer, columns in measured.items():
            rows.append([f"{model}, {peer}", *(f"{min(column):.2f}" for column in zip(*columns))])
            print(*rows[-1], file=sys.stderr, flush=True)
    return as_markdown(("seconds", "cold", "warm", "process", "rate"), rows)


def benchmark(arguments: argparse.Namespace) -> str:
    with tempfile.TemporaryDirectory() as folder:
        python = plain_python(Path(folder) / "plain")
        table = compare(str(python), Path(folder), arguments.rounds)
    about = __doc__.partition("\n\n")[2]
    rounds = f"Rounds: {arguments.rounds}"
    return f"# Time to the first step\n\n{machine('numba')}. {rounds}\n\n{about}\n{table}"


if __name__ == "__main__":
    main(__doc__, benchmark, measure, rounds=3)
