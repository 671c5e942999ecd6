# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""The rows that bench_stream.py reads: a linear regression in Parquet files, made once."""

import os
import shutil

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

N_COLUMNS = 20
ROWS_PER_GROUP = 100_000
ROWS_PER_SHARD = 1_000_000
BYTES_PER_ROW = 4 * N_COLUMNS


def parquet_folder(parent: Path, n_rows: int) -> Path:
    """Return a folder of Parquet files with `n_rows` rows of float32, made unless it is there.

    The last column is a linear function of the others, plus normal noise. The numbers are random, so
    they are written as they are: a dictionary of them would be slower to write and to read.
    """
    import pyarrow as pa  # as the patch needs it: for streams only
    import pyarrow.parquet as pq

    folder = parent / f"rows-{n_rows}"
    if folder.exists():
        return folder
    unfinished = folder.with_suffix(".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for shard, start in enumerate(range(0, n_rows, ROWS_PER_SHARD)):
        rows = _rows(rng, min(ROWS_PER_SHARD, n_rows - start))
        table = pa.table({f"x{j}": rows[:, j] for j in range(N_COLUMNS)})
        file = unfinished / f"part-{shard:04}.parquet"
        pq.write_table(table, file, row_group_size=ROWS_PER_GROUP, use_dictionary=False)
    unfinished.rename(folder)
    return folder


def _rows(rng: np.random.Generator, n_rows: int) -> np.ndarray:
    rows = rng.standard_normal((n_rows, N_COLUMNS), dtype="float32")
    weights = np.linspace(-1, 1, N_COLUMNS - 1, dtype="float32")
    rows[:, -1] += rows[:, :-1] @ weights
    return rows


@contextmanager
def linked_folder(folder: Path, n_bytes: float) -> Iterator[Path]:
    """Yield a folder with `n_bytes` of rows on the disk space of `folder`: its files, many times."""
    files = sorted(folder.glob("*.parquet"))
    size = sum(file.stat().st_size for file in files) / len(files)
    linked = folder.with_name(f"{folder.name}-linked")
    shutil.rmtree(linked, ignore_errors=True)
    linked.mkdir()
    try:
        for k in range(max(1, round(n_bytes / size))):
            os.link(files[k % len(files)], linked / f"part-{k:04}.parquet")
        yield linked
    finally:
        shutil.rmtree(linked)
