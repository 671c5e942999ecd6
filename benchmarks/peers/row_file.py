# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""A file of many rows, made for a run and removed after it."""

import tempfile

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

ROWS_AT_ONCE = 10**6


@contextmanager
def row_file(folder: Path, n_rows: int, n_columns: int) -> Iterator[Path]:
    """Yield a file of float32, normal with mean 1 and standard deviation 2, row after row."""
    rng = np.random.default_rng(1)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as inside:
        file = Path(inside, "rows.float32")
        with file.open("wb") as out:
            for first in range(0, n_rows, ROWS_AT_ONCE):
                shape = (min(ROWS_AT_ONCE, n_rows - first), n_columns)
                (1 + 2 * rng.standard_normal(shape, dtype="float32")).tofile(out)
        yield file
