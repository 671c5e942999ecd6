# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Effects of groups: a step by batch and with all groups, against code by hand, and where fits end.

    python benchmarks/bench_groups.py [--quick] [--no-numpyro] [--rounds 5] [--largest 10000000]

Rows are y ~ N(mu + effect[group], sigma), effects are N(0, s), and all of mu, s and sigma are unknown. Batches
have 1,000 rows, groups 20, and 5 from ten million groups on. The three kinds of steps of ours take turns in one process; a
figure is the median over the rounds of a fit's own time per step, without compilation. NumPyro's plate over groups, of which a
step takes those of 1,000 rows with all of their rows, is timed in a process of one thread, in one compiled scan.

The second table has fits of groups of 1 to about 100 rows, and compares where they end with the optimum of mean-field,
which coordinate ascent finds to 1e-9, and the scale with the posterior with effects integrated out.
"""

import sys

from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from _common import Peer, as_markdown, machine, main, send, serve
from _group_effects import BATCH, Groups, mean_field_optimum

SIZES = [10**3, 10**4, 10**5, 10**6, 10**7]
MOST_DENSE = 10**6  # a step of ten times as many takes half a second
MOST_NUMPYRO = 10**6
ACCURACY = [(2_000, 10), (2_000, 40), (20_000, 10), (20_000, 40)]


def fit(data: Groups, n_steps: int, by_batch: bool, seed: int = 1) -> Any:
    import pymc as pm

    with pm.Model(coords={"group": range(data.n_groups)}):
        group, y = pm.Minibatch(
            pm.Data("group_of_row", data.group, dims="obs"),
            pm.Data("y", data.y, dims="obs"),
            batch_size=BATCH,
        )
        mu, s = pm.Normal("mu", 0, 10), pm.HalfNormal("s", 2)
        sigma = pm.HalfNormal("sigma", 2)
        effect = pm.Normal("effect", 0, s, dims="group")
        pm.Normal("rows", mu + effect[group], sigma, observed=y, dims="obs")
        rate = pm.variational.schedules.exponential_decay(0.1, decay_steps=n_steps, decay_rate=0.01)
        return pm.fit(
            n_steps,
            groups=["effect"] if by_batch else False,
            obj_optimizer=pm.adam(learning_rate=rate),
            random_seed=seed,
            progressbar=False,
        )


# --- tables ---
def n_rows_of(n_groups: int) -> int:
    """Return the number of rows of each group."""
    return 5 if n_groups >= 10**7 else 20


def time_numpyro(python: Path | None, n_groups: int, rounds: int) -> list[float]:
    """Return the seconds of a step of NumPyro in each round, in a process of its own."""
    if python is None or n_groups > MOST_NUMPYRO:
        return []
    settings = {"n_groups": n_groups, "dtype": "float64"}
    with Peer(__file__, python, settings) as peer:
        return [peer.ask(what="time")["time"] for _ in range(rounds)]


def be_peer(settings: dict[str, Any]) -> None:
    """Take steps of NumPyro: say how long they take."""
    from peers import seconds, steps_per_round
    from peers.numpyro_groups import NumPyroGroups

    n_groups = settings["n_groups"]
    fit = NumPyroGroups(Groups.simulate(n_groups, np.full(n_groups, n_rows_of(n_groups))))
    n_steps = steps_per_round(fit, 2.0, 50)
    send({"n_steps": n_steps})
    serve(lambda what: {what: seconds(fit, n_steps) / n_steps})


def steps_table(sizes: list[int], rounds: int, quick: bool, numpyro: Path | None) -> str:
    from peers.groups_by_hand import time_by_hand  # Numba, which NumPyro's process does not have

    rows = []
    for n_groups in sizes:
        data = Groups.simulate(n_groups, np.full(n_groups, n_rows_of(n_groups)))
        n_steps = 200 if quick else 2_000
        n_dense = max(10, min(n_steps, 2 * 10**8 // (20 * n_groups)))
        times: dict[str, list[float]] = {"by batch": [], "all groups": [], "by hand": []}
        for _ in range(rounds):
            report = fit(data, n_steps, by_batch=True).report
            times["by batch"].append(report.seconds / n_steps)
            if n_groups <= MOST_DENSE:
                report = fit(data, n_dense, by_batch=False).report
                times["all groups"].append(report.seconds / n_dense)
            times["by hand"].append(time_by_hand(data, n_steps))
        times["NumPyro"] = time_numpyro(numpyro, n_groups, rounds)
        us = {name: 1e6 * median(found) for name, found in times.items() if found}
        figures = [f"{us[name]:,.3g}" if name in us else "–" for name in times]
        times_faster = f"{us['all groups'] / us['by batch']:.3g}" if "all groups" in us else "–"
        rows.append([f"{n_groups:,}", *figures, times_faster])
        print(rows[-1], file=sys.stderr)
    header = ["groups", "µs a step by batch", "with all groups", "by hand", "NumPyro's plate"]
    header += ["all groups / by batch"]
    return as_markdown(header, rows)


def accuracy_table(cases: list[tuple[int, int]]) -> str:
    rows = []
    for n_groups, passes in cases:
        n_rows = 1 + np.random.default_rng(1).geometric(1 / 19, n_groups)
        data = Groups.simulate(n_groups, n_rows)
        optimum = mean_field_optimum(data)
        for by_batch in (True, False):
            approx = fit(data, passes * len(data.y) // BATCH, by_batch)
            means, sds = approx.mean_data, approx.std_data
            error = (means["effect"].values - optimum.mean) / optimum.sd
            off = float(means["s_log__"]) - optimum.log_s[0]
            rows.append(
                [
                    f"{n_groups:,}, {passes} passes, {'by batch' if by_batch else 'all groups'}",
                    f"{np.sqrt((error**2).mean()):.3f}",
                    f"{abs(error).max():.2f}",
                    f"{np.median(sds['effect'].values / optimum.sd):.3f}",
                    f"{off / optimum.posterior_log_s[1]:+.1f}",
                    f"{float(sds['s_log__']) / optimum.posterior_log_s[1]:.2f}",
                    f"{approx.report.seconds:.3g}",
                ]
            )
            print(rows[-1], file=sys.stderr)
    header = [
        "groups",
        "rms error of means, sds",
        "largest",
        "sd / right",
        "error of log s, posterior sds",
    ]
    return as_markdown([*header, "sd of log s / posterior", "s"], rows)


def benchmark(options: Any) -> str:
    from peers.environments import numpyro_python  # a parent's only, as pip is

    sizes = [n for n in SIZES if n <= (10**4 if options.quick else options.largest)]
    numpyro = None if options.no_numpyro else numpyro_python()
    rounds = 2 if options.quick else options.rounds
    steps = steps_table(sizes, rounds, options.quick, numpyro)
    ends = accuracy_table([(500, 10)] if options.quick else ACCURACY)
    return f"{machine('numba')}.\n\n{steps}\n\n{ends}"


if __name__ == "__main__":
    main(__doc__, benchmark, be_peer, rounds=5, quick=False, largest=10**7, no_numpyro=False)
