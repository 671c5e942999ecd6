# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Measure the error of a posterior from a sorted file, by the size of the shuffle buffer.

``python docs/how_to/sorted_files.py`` takes five minutes. The model is a line with a known posterior.
"""

# ruff: noqa: T201
import tempfile

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import pymc as pm

N, BATCH_SIZE, NOISE = 100_000, 500, 2.0
BUFFERS = (None, 500, 5_000, 20_000, 50_000, 100_000)
PASSES = (5, 20)
SEEDS = (1, 2, 3)


def sorted_rows(n: int = N) -> dict[str, np.ndarray]:
    """Return rows of a line, sorted by x."""
    rng = np.random.default_rng(1)
    x = np.sort(rng.normal(size=n))
    return {"x": x - x.mean(), "y": 1 + 2 * x + NOISE * rng.normal(size=n)}


def exact(rows: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return exact means and sds of intercept and slope, with N(0, 10) priors."""
    design = np.stack([np.ones_like(rows["x"]), rows["x"]], axis=1)
    covariance = np.linalg.inv(design.T @ design / NOISE**2 + np.eye(2) / 100)
    return covariance @ design.T @ rows["y"] / NOISE**2, np.sqrt(np.diag(covariance))


def in_one_order(rows: dict[str, np.ndarray], block: int = 1_000) -> Callable[[], Iterator]:
    """Return a source with a fixed order, like a CSV file."""

    def blocks() -> Iterator[dict[str, np.ndarray]]:
        for start in range(0, len(rows["x"]), block):
            yield {name: values[start : start + block] for name, values in rows.items()}

    return blocks


def in_row_groups(rows: dict[str, np.ndarray], folder: Path, n_groups: int) -> Any:
    """Return a source of a Parquet file with `n_groups` row groups."""
    path = folder / f"{n_groups}.parquet"
    pq.write_table(pa.table(rows), path, row_group_size=len(rows["x"]) // n_groups)
    return pm.parquet_source(path, columns={"x": "x", "y": "y"})


def fit(source: Any, buffer_size: int | None, n: int, seed: int = 1) -> np.ndarray:
    """Return means of intercept and slope after n steps, with a rate that falls to a thousandth."""
    shuffle = buffer_size is not None
    loader = pm.DataLoader(
        source, batch_size=BATCH_SIZE, shuffle=shuffle, buffer_size=buffer_size, seed=seed
    )
    with pm.Model() as model:
        x, y = (pm.Data(name, loader, dims="obs") for name in ("x", "y"))
        mu = pm.Normal("intercept", 0, 10) + pm.Normal("slope", 0, 10) * x
        pm.Normal("line", mu, NOISE, observed=y, dims="obs")
    rate = pm.variational.schedules.exponential_decay(0.05, decay_steps=n, decay_rate=1 / 1000)
    approx = pm.fit(
        n,
        model=model,
        data=loader,
        obj_optimizer=pm.adam(learning_rate=rate),
        random_seed=seed,
        progressbar=False,
    )
    return approx.mean.eval()


def main() -> None:
    rows = sorted_rows()
    mean, sd = exact(rows)
    folder = Path(tempfile.mkdtemp())
    sources: dict[str, Any] = {"in one order": in_one_order(rows)}
    for n_groups in (10, 100):
        sources[f"{n_groups} row groups"] = in_row_groups(rows, folder, n_groups)
    print("| | passes |", " | ".join("none" if b is None else f"{b:,}" for b in BUFFERS), "|")
    print("|---|---:|" + "---:|" * len(BUFFERS))
    for name, source in sources.items():
        for passes in PASSES:
            n, cells = passes * N // BATCH_SIZE, []
            for buffer_size in BUFFERS:
                shifts = [(fit(source, buffer_size, n, seed) - mean) / sd for seed in SEEDS]
                cells.append(f"{np.sqrt(np.mean(np.square(shifts))):.1f}")
            print(f"| {name} | {passes} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
