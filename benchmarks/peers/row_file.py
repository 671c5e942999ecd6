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
