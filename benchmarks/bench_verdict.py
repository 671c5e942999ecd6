# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""How often a verdict of ``pm.fit(method="auto")`` is right, against exact answers and long runs of NUTS.

A fit is right if each mean is within 0.2 posterior sds, and each sd within a factor of 0.8 to 1.25. ``--sbc`` adds
simulation-based calibration (Talts et al. 2018, "Validating Bayesian inference algorithms with simulation-based
calibration"): the rank of a true parameter among draws of the posterior is uniform.
"""

import argparse
import json
import logging
import time
import warnings

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from _common import as_markdown, machine, main
from _verdict_models import MODELS, SIMULATED
from posteriordb.scoring import Score, score
from scipy.stats import chisquare

import pymc as pm

REFERENCE = Path(__file__).parent / "results" / "verdict_reference.json"

N_DRAWS, N_EXACT = 4000, 200_000

#: Draws among which a rank is, and bins of ranks.
N_RANKED, N_BINS = 99, 10


class Outcome(NamedTuple):
    """What a fit came to: trust, how far it is from the reference, and seconds."""

    size: int
    trusted: bool
    score: Score
    seconds: float


def flat(draws: dict[str, np.ndarray], model: pm.Model) -> np.ndarray:
    """Put draws of all variables side by side, shape (n_draws, n_numbers)."""
    values = [np.asarray(draws[rv.name]) for rv in model.free_RVs]
    return np.concatenate([value.reshape(len(value), -1) for value in values], axis=1)


def reference_draws(model: pm.Model, of_priors: bool) -> np.ndarray:
    """Draw from the priors where these are the posterior, or else by NUTS."""
    names = [rv.name for rv in model.free_RVs]
    if of_priors:
        drawn = pm.draw(model.free_RVs, draws=N_EXACT, random_seed=1)
        return flat(dict(zip(names, drawn, strict=True)), model)
    with model:
        posterior = pm.sample(
            1500, tune=1500, chains=4, cores=1, target_accept=0.95, random_seed=1, progressbar=False
        ).posterior
    values = {name: posterior[name].values for name in names}
    draws = flat({name: v.reshape(-1, *v.shape[2:]) for name, v in values.items()}, model)
    chains = draws.reshape(4, 1500, -1)
    spread = chains.mean(axis=1).std(axis=0, ddof=1) / chains.std(axis=1).mean(axis=0)
    if spread.max() > 0.2:
        raise RuntimeError(
            f"chains of NUTS differ by {spread.max():.2g} sds: a model without reference"
        )
    return draws


def references(anew: bool) -> dict[str, Any]:
    """Return means and sds of all models; those that are not in the file are computed, and written."""
    known = not anew and REFERENCE.exists()
    found: dict[str, Any] = json.loads(REFERENCE.read_text(encoding="utf-8")) if known else {}
    for name, (build, of_priors) in MODELS.items():
        if name in found:
            continue
        draws = reference_draws(build(), of_priors)
        found[name] = {"mean": draws.mean(axis=0).tolist(), "sd": draws.std(axis=0).tolist()}
        REFERENCE.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return found


def fit(model: pm.Model, reference: dict[str, list[float]], seed: int) -> Outcome:
    started = time.perf_counter()
    approx: Any = pm.fit(method="auto", model=model, random_seed=seed, progressbar=False)
    seconds = time.perf_counter() - started
    posterior = approx.sample(N_DRAWS, random_seed=seed).posterior
    draws = flat({rv.name: posterior[rv.name].values[0] for rv in model.free_RVs}, model)
    moments = {name: np.array(value) for name, value in reference.items()}
    found = score({"all": draws}, {"all": moments})
    return Outcome(draws.shape[1], approx.report.trusted, found, seconds)


def verdicts(n_seeds: int, known: dict[str, Any]) -> str:
    """Fit all models, and count trust and errors."""
    outcomes: dict[str, list[Outcome]] = {}
    for name, (build, _) in MODELS.items():
        model = build()
        outcomes[name] = [fit(model, known[name], seed) for seed in range(1, n_seeds + 1)]
    every = [outcome for found in outcomes.values() for outcome in found]
    wrong = sum(o.trusted and not o.score.right for o in every)
    good = sum(o.trusted and o.score.right for o in every)
    refused = sum(o.score.right and not o.trusted for o in every)
    lead = (
        f"trusted and wrong: {wrong} of {len(every)}; right and trusted: {good}; "
        f"right and not trusted: {refused}"
    )
    header = ("model", "D", "trusted", "right", "worst mean error", "sd ratios", "seconds")
    rows = [verdict_row(name, found) for name, found in outcomes.items()]
    return f"{lead}\n\n{as_markdown(header, rows)}"


def verdict_row(name: str, found: list[Outcome]) -> list[str]:
    least = min(o.score.smallest_sd for o in found)
    largest = max(o.score.largest_sd for o in found)
    return [
        name.replace("_", " "),
        str(found[0].size),
        f"{sum(o.trusted for o in found)} of {len(found)}",
        f"{sum(o.score.right for o in found)} of {len(found)}",
        f"{max(o.score.mean_error for o in found):.2f}",
        f"{least:.2f} to {largest:.2f}",
        f"{np.median([o.seconds for o in found]):.1f}",
    ]


def calibration(n_sets: int) -> str:
    """Fit simulated data, and test ranks of the true parameters for uniformity."""
    rows: list[list[str]] = []
    for name, build in SIMULATED.items():
        ranks, trusted, labels = simulate(build(), n_sets)
        for label, of_one in zip(labels, ranks.T, strict=True):
            counts = np.histogram(of_one, bins=N_BINS, range=(0, N_RANKED + 1))[0]
            p = float(chisquare(counts).pvalue)
            rows.append([name, label, f"{trusted:.0%}", f"{p:.3f}"])
    table = as_markdown(("model", "parameter", "trusted", "p"), rows)
    least = min(float(row[-1]) for row in rows)
    return (
        f"{n_sets} data sets for each model. The least of {len(rows)} p-values is {least:.3f}; "
        f"by Bonferroni's rule {0.05 / len(rows):.4f} would be significant.\n\n{table}"
    )


def simulate(model: pm.Model, n_sets: int) -> tuple[np.ndarray, float, list[str]]:
    """Return ranks of true parameters, shape (n_sets, n_numbers), the part of fits that is trusted, and names."""
    variables = [*model.free_RVs, model["y"]]
    drawn = dict(
        zip(
            [rv.name for rv in variables],
            pm.draw(variables, draws=n_sets, random_seed=3),
            strict=True,
        )
    )
    truth, ranks, n_trusted = flat(drawn, model), [], 0
    for k in range(n_sets):
        pm.set_data({"y_data": drawn["y"][k]}, model=model)
        approx: Any = pm.fit(method="auto", model=model, random_seed=k, progressbar=False)
        posterior = approx.sample(N_RANKED, random_seed=k).posterior
        draws = flat({rv.name: posterior[rv.name].values[0] for rv in model.free_RVs}, model)
        ranks.append((draws < truth[k]).sum(axis=0))
        n_trusted += approx.report.trusted
    names = [
        f"{rv.name}[{i}]" if size > 1 else str(rv.name)
        for rv in model.free_RVs
        for size in [int(np.prod(rv.shape.eval(), dtype=int))]
        for i in range(size)
    ]
    return np.array(ranks), n_trusted / n_sets, names


def benchmark(arguments: argparse.Namespace) -> str:
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    known = references(arguments.reference)
    parts = ["# Verdicts of automatic fits", machine(), verdicts(arguments.seeds, known)]
    if arguments.sbc:
        parts += ["## Simulation-based calibration", calibration(arguments.data_sets)]
    return "\n\n".join(parts)


if __name__ == "__main__":
    main(__doc__, benchmark, seeds=5, sbc=False, data_sets=200, reference=False)
