# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""pymc-extras' loader, as its documentation has it."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from pymc_extras.variational import DataLoader, parquet_source


def start(settings: dict[str, Any]) -> Callable[[], Iterable[np.ndarray]]:
    """Return what begins a pass."""
    loader = DataLoader(
        parquet_source(settings["folder"]),
        batch_size=settings["batch_size"],
        shuffle=settings["shuffle"],
        buffer_size=settings["buffer_size"],
        seed=1,
    )
    return lambda: iter(loader)
