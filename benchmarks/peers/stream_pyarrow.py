# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""pyarrow by itself: each row group is read, and its columns stacked to rows."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq


def row_groups(folder: str) -> Iterator[np.ndarray]:
    """Yield the rows of each row group, shape (n_rows, n_columns)."""
    for path in sorted(Path(folder).glob("*.parquet")):
        with pq.ParquetFile(path, memory_map=True) as file:
            for group in range(file.num_row_groups):
                columns = file.read_row_group(group).columns
                yield np.stack([column.to_numpy() for column in columns], axis=1)


def start(settings: dict[str, Any]) -> Callable[[], Iterator[np.ndarray]]:
    """Return what begins a pass."""
    return lambda: row_groups(settings["folder"])
