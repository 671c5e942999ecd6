# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Effects of groups: a step by batch and with all groups, against code by hand, and where fits end.

    python benchmarks/bench_groups.py [--quick] [--rounds 5] [--largest 1000000]

Rows are y ~ N(mu + effect[group], sigma), effects are N(0, s), and all of mu, s and sigma are unknown. Batches
have 1,000 rows, groups 20, and 5 from ten million groups on. The three kinds of steps take turns in one process; a figure
is the median over the rounds of a fit's own time per step, without compilation.

The second table has fits of groups of 1 to about 100 rows, and compares where they end with the optimum of mean-field,
which coordinate ascent finds to 1e-9, and the scale with the posterior with effects integrated out.
"""

import sys

from statistics import median
from time import perf_counter
from typing import Any, NamedTuple

import numba
import numpy as np

from _common import as_markdown, machine, main
from scipy.optimize import minimize

BATCH = 1_000
SIZES = [10**3, 10**4, 10**5, 10**6, 10**7]
MOST_DENSE = 10**6  # a step of ten times as many takes half a second
ACCURACY = [(2_000, 10), (2_000, 40), (20_000, 10), (20_000, 40)]


class Groups(NamedTuple):
    """Rows of groups."""

    group: np.ndarray
    y: np.ndarray
    n_groups: int

    @classmethod
    def simulate(cls, n_groups: int, n_rows: np.ndarray, seed: int = 1) -> "Groups":
        rng = np.random.default_rng(seed)
        group = rng.permutation(np.repeat(np.arange(n_groups), n_rows))
        y = 0.5 + rng.normal(0, 0.7, n_groups)[group] + rng.normal(0, 1.5, group.size)
        return cls(group, y, n_groups)


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


# --- by hand ---
@numba.njit(fastmath=True)
def steps_by_hand(
    table: np.ndarray,
    shared: np.ndarray,
    moments: np.ndarray,
    group: np.ndarray,
    y: np.ndarray,
    shares: np.ndarray,
    slot_of: np.ndarray,
    n_steps: int,
) -> None:
    """Take steps of Adam: a line of `table` has mean, log sd, four moments and visits of a group."""
    n_rows, n_slots = len(y), BATCH
    who, slots = np.empty(n_slots, np.int64), np.empty(n_slots, np.int64)
    rows = np.empty(n_slots, np.int64)
    effects, noise, slopes, weights = np.empty((4, n_slots))
    z, slope = np.empty(3), np.empty(3)
    for step in range(1, n_steps + 1):
        for k in range(3):
            z[k] = np.random.standard_normal()
        drawn = shared[:, 0] + np.exp(shared[:, 1]) * z
        mu, prior, error = drawn[0], np.exp(-2 * drawn[1]), np.exp(-2 * drawn[2])
        slope[0] = -mu / 100
        slope[1], slope[2] = 1 - 1 / (4 * prior), 1 - 1 / (4 * error)
        n = 0
        for k in range(n_slots):
            rows[k] = np.random.randint(0, n_rows)
            g = group[rows[k]]
            if slot_of[g] < 0:
                slot_of[g], who[n] = n, g
                noise[n] = np.random.standard_normal()
                effects[n] = table[g, 0] + np.exp(table[g, 1]) * noise[n]
                slopes[n] = weights[n] = 0.0
                n += 1
            slots[k] = slot_of[g]
        scale = n_rows / n_slots
        for k in range(n_slots):
            j = slots[k]
            e, weight = effects[j], scale * shares[who[j]]
            residual = y[rows[k]] - mu - e
            slopes[j] += scale * residual * error - weight * e * prior
            weights[j] += weight
            slope[0] += scale * residual * error
            slope[1] += weight * (e * e * prior - 1)
            slope[2] += scale * (residual * residual * error - 1)
        for j in range(n):
            line = table[who[j]]
            slot_of[who[j]] = -1
            line[6] += 1
            spread = np.exp(line[1]) * noise[j]
            rate = 0.01 * np.sqrt(1 - 0.999 ** line[6]) / (1 - 0.9 ** line[6])
            for p, gradient in enumerate((-slopes[j], -(slopes[j] * spread + weights[j]))):
                line[2 + p] += 0.1 * (gradient - line[2 + p])
                line[4 + p] += 0.001 * (gradient * gradient - line[4 + p])
                line[p] -= rate * line[2 + p] / (np.sqrt(line[4 + p]) + 1e-8)
        rate = 0.01 * np.sqrt(1 - 0.999**step) / (1 - 0.9**step)
        for k in range(3):
            spread = np.exp(shared[k, 1]) * z[k]
            for p, gradient in enumerate((-slope[k], -(slope[k] * spread + 1))):
                moments[k, p] += 0.1 * (gradient - moments[k, p])
                moments[k, 2 + p] += 0.001 * (gradient * gradient - moments[k, 2 + p])
                shared[k, p] -= rate * moments[k, p] / (np.sqrt(moments[k, 2 + p]) + 1e-8)


def time_by_hand(data: Groups, n_steps: int) -> float:
    n_rows = np.bincount(data.group, minlength=data.n_groups)
    table, shared = np.zeros((data.n_groups, 8)), np.array([[0.0, -2.0]] * 3)
    arrays = (table, shared, np.zeros((3, 4)), data.group, data.y, 1 / np.maximum(n_rows, 1))
    slots = np.full(data.n_groups, -1)
    steps_by_hand(*arrays, slots, 1)
    begun = perf_counter()
    steps_by_hand(*arrays, slots, n_steps)
    return (perf_counter() - begun) / n_steps


# --- where fits should end ---
class Optimum(NamedTuple):
    """The optimum of mean-field: normals of the effects, mu, log s and log sigma."""

    mean: np.ndarray
    sd: np.ndarray
    log_s: tuple[float, float]
    #: Of log s, with the effects integrated out
    posterior_log_s: tuple[float, float]


def mean_field_optimum(data: Groups) -> Optimum:
    """Find it by coordinate ascent; the expectations are those of normal and log-normal variables."""
    n = np.bincount(data.group, minlength=data.n_groups).astype(float)
    sums, squares, n_rows = np.bincount(data.group, data.y), (data.y**2).sum(), len(data.y)

    def scale(count: float, expected: float, start: np.ndarray) -> np.ndarray:
        """Return mean and log variance of a log scale with a half-normal prior of sd 2."""

        def loss(x: np.ndarray) -> tuple[float, np.ndarray]:
            m, v = x[0], np.exp(x[1])
            fit = 0.5 * np.exp(-2 * m + 2 * v) * expected
            prior = np.exp(2 * m + 2 * v) / 8
            value = count * m + fit - m + prior - x[1] / 2
            return value, np.array([count - 2 * fit - 1 + 2 * prior, v * 2 * (fit + prior) - 0.5])

        return minimize(loss, start, jac=True, method="BFGS", options={"gtol": 1e-9}).x

    mu, of_s, of_sigma = 0.0, np.array([0.0, -5.0]), np.array([0.0, -5.0])
    while True:
        old = np.concatenate([[mu], of_s, of_sigma])
        prior, error = (np.exp(-2 * m + 2 * np.exp(v)) for m, v in (of_s, of_sigma))
        variance = 1 / (prior + n * error)
        mean = error * (sums - n * mu) * variance
        precision = n_rows * error + 0.01
        mu = error * (sums - n * mean).sum() / precision
        moments = (n * (mean**2 + variance)).sum() + 2 * mu * (n * mean).sum()
        residual = squares - 2 * mu * sums.sum() - 2 * (mean * sums).sum()
        residual += n_rows * (mu**2 + 1 / precision) + moments
        of_s = scale(data.n_groups, (mean**2 + variance).sum(), of_s)
        of_sigma = scale(n_rows, residual, of_sigma)
        if abs(np.concatenate([[mu], of_s, of_sigma]) - old).max() < 1e-9:
            break
    log_s = float(of_s[0]), float(np.exp(of_s[1] / 2))
    return Optimum(mean, np.sqrt(variance), log_s, _posterior_log_s(n, sums, squares))


def _posterior_log_s(n: np.ndarray, sums: np.ndarray, squares: float) -> tuple[float, float]:
    """Return mode and sd of log s with the effects integrated out, by the curvature at the mode."""
    means, n_rows = sums / n, n.sum()
    within = squares - (n * means**2).sum()

    def loss(x: np.ndarray) -> float:
        mu, s2, v = x[0], np.exp(2 * x[1]), np.exp(2 * x[2])
        total = v + n * s2
        fit = 0.5 * np.log(total).sum() + (n_rows - len(n)) * x[2] + within / v / 2
        fit += 0.5 * (n * (means - mu) ** 2 / total).sum()
        return fit + mu**2 / 200 - x[1] + s2 / 8 - x[2] + v / 8

    options = {"xatol": 1e-9, "fatol": 1e-9, "maxiter": 10_000}
    x = minimize(loss, np.zeros(3), method="Nelder-Mead", options=options).x
    h, unit = 1e-3, np.eye(3)
    curvature = np.array(
        [
            [
                sum(
                    a * b * loss(x + h * (a * unit[i] + b * unit[j]))
                    for a in (1, -1)
                    for b in (1, -1)
                )
                for j in range(3)
            ]
            for i in range(3)
        ]
    ) / (4 * h**2)
    return float(x[1]), float(np.sqrt(np.linalg.inv(curvature)[1, 1]))


# --- tables ---
def steps_table(sizes: list[int], rounds: int, quick: bool) -> str:
    rows = []
    for n_groups in sizes:
        data = Groups.simulate(n_groups, np.full(n_groups, 5 if n_groups >= 10**7 else 20))
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
        us = {name: 1e6 * median(found) for name, found in times.items() if found}
        figures = [f"{us[name]:,.3g}" if name in us else "–" for name in times]
        times_faster = f"{us['all groups'] / us['by batch']:.3g}" if "all groups" in us else "–"
        rows.append([f"{n_groups:,}", *figures, times_faster])
        print(rows[-1], file=sys.stderr)
    header = ["groups", "µs a step by batch", "with all groups", "by hand", "all groups / by batch"]
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
    sizes = [n for n in SIZES if n <= (10**4 if options.quick else options.largest)]
    steps = steps_table(sizes, 2 if options.quick else options.rounds, options.quick)
    ends = accuracy_table([(500, 10)] if options.quick else ACCURACY)
    return f"{machine('numba')}.\n\n{steps}\n\n{ends}"


if __name__ == "__main__":
    main(__doc__, benchmark, rounds=5, quick=False, largest=10**6)
