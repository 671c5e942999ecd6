#   Copyright 2026 - present The PyMC Developers
#
#   Licensed under the Apache License, Version 2.0 (the "License");
#   you may not use this file except in compliance with the License.
#   You may obtain a copy of the License at
#
#       http://www.apache.org/licenses/LICENSE-2.0
#
#   Unless required by applicable law or agreed to in writing, software
#   distributed under the License is distributed on an "AS IS" BASIS,
#   WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
#   See the License for the specific language governing permissions and
#   limitations under the License.
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
