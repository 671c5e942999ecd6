# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""The patch's loader, by itself."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from _stream_data import N_COLUMNS

import pymc as pm


def make_loader(settings: dict[str, Any]) -> Any:
    """Return the loader of all columns."""
    return pm.DataLoader(
        pm.parquet_source(settings["folder"]),
        batch_size=settings["batch_size"],
        shuffle=settings["shuffle"],
        buffer_size=settings["buffer_size"] if settings["shuffle"] else None,
        seed=1,
    )


def start(settings: dict[str, Any]) -> Callable[[], Iterable[Any]]:
    """Return what begins a pass."""
    loader = make_loader(settings)
    return lambda: iter(loader)


def few_rows(settings: dict[str, Any]) -> pm.DataLoader:
    """Return a loader of ten batches from memory: what it needs is imported and compiled then."""
    rows = np.ones((10 * settings["batch_size"], N_COLUMNS), "float32")
    return pm.DataLoader(rows, batch_size=settings["batch_size"], shuffle=True, seed=1)


def prepare(settings: dict[str, Any]) -> Callable[[], None]:
    """Read a few rows from memory, open all files, and return what reads all rows once."""
    for _ in few_rows(settings):
        pass
    loader = make_loader(settings)

    def run() -> None:
        for _ in loader:
            pass

    return run
