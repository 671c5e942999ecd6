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
"""One column by itself: a series of pandas or polars, an array of Arrow. It is a 1-d array."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["is_series", "series_numbers"]

#: Whose classes are columns, and how they are called there. Who has one has imported the library
SERIES = {"pandas": {"Series"}, "polars": {"Series"}, "pyarrow": {"Array", "ChunkedArray"}}


def is_series(data: Any) -> bool:
    """Return whether data are one column.

    Examples
    --------
    >>> import pandas as pd
    >>> from pymc.variational.streaming.sources.series import is_series
    >>> is_series(pd.Series([1.0, 2.0])), is_series(np.ones(2))
    (True, False)
    """
    return _library(data) is not None


def _library(data: Any) -> str | None:
    for cls in type(data).__mro__:
        library = cls.__module__.partition(".")[0]
        if cls.__name__ in SERIES.get(library, ()):
            return library
    return None


def series_numbers(series: Any, where: str, first_row: int = 0) -> np.ndarray:
    """Return a column as an array of shape ``(n_rows,)``, without a copy where its memory allows it.

    Parameters
    ----------
    series : pandas.Series, polars.Series, pyarrow.Array or pyarrow.ChunkedArray
    where : str
        What messages call it.
    first_row : int
        What messages call its first row.

    Raises
    ------
    ValueError
        If a value is missing. A NaN of a column of floats is one that is not finite.
    """
    library = _library(series)
    if library == "pandas":
        if isinstance(series.dtype, np.dtype):
            return series.to_numpy()
        _check_none(series.isna(), "missing", where, first_row)
        return series.to_numpy(dtype=getattr(series.dtype, "numpy_dtype", None))
    if library == "polars":
        if series.null_count():
            _check_none(series.is_null().to_numpy(), "null", where, first_row)
        return series.to_numpy()
    if series.null_count:
        _check_none(series.is_null().to_numpy(zero_copy_only=False), "null", where, first_row)
    return series.to_numpy(zero_copy_only=False)  # bits, which bools are, have to be copied


def _check_none(missing: Any, word: str, where: str, first_row: int) -> None:
    rows = np.flatnonzero(missing)
    if len(rows):
        raise ValueError(
            f"{where}, row {first_row + rows[0]}: the value is {word}"
            + (f", as are {len(rows) - 1} more here" if len(rows) > 1 else "")
            + ". A likelihood needs a number in each row: fill such values, or leave these rows out, "
            "when the data are written"
        )
