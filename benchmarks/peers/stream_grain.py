# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""grain's pipeline: rows of Parquet files, shuffled in windows, batched, columns stacked."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import grain
import numpy as np

from grain.experimental import ParquetIterDataset, WindowShuffleIterDataset


def stacked(batch: dict[str, np.ndarray]) -> np.ndarray:
    return np.stack(list(batch.values()), axis=1)


def start(settings: dict[str, Any]) -> Callable[[], Iterable[np.ndarray]]:
    """Return what begins a pass; the next batches are made by a thread meanwhile."""
    files = [str(file) for file in sorted(Path(settings["folder"]).glob("*.parquet"))]
    rows: grain.IterDataset = ParquetIterDataset(files)
    if settings["shuffle"]:
        rows = WindowShuffleIterDataset(rows, window_size=settings["buffer_size"], seed=1)
    batches = rows.batch(settings["batch_size"], drop_remainder=True).map(stacked)
    ahead = grain.experimental.ThreadPrefetchIterDataset(batches, prefetch_buffer_size=8)
    return lambda: iter(ahead)
