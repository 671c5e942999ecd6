# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""One column by itself: a series of pandas or polars, an array of Arrow. It is a 1-d array."""

from __future__ import annotations

from typing import Any

import numpy as np

from pymc.data_loading.sources.protocols import is_of
from pymc.minibatch.array_data import check_exact, numpy_dtype

__all__ = ["is_series", "series_numbers"]

#: Whose classes are columns, and how they are called there. Who has one has imported the library
SERIES = {"pandas": {"Series"}, "polars": {"Series"}, "pyarrow": {"Array", "ChunkedArray"}}


def is_series(data: Any) -> bool:
    """Return whether data are one column.

    Examples
    --------
    >>> import pandas as pd
    >>> from pymc.data_loading.sources.series import is_series
    >>> is_series(pd.Series([1.0, 2.0])), is_series(np.ones(2))
    (True, False)
    """
    return _library(data) is not None


def _library(data: Any) -> str | None:
    return next((library for library in SERIES if is_of(library, data, *SERIES[library])), None)


def series_numbers(series: Any, where: str, first_row: int = 0, *, nan: bool = False) -> np.ndarray:
    """Return a column as an array of shape ``(n_rows,)``, without a copy where its memory allows it.

    Parameters
    ----------
    series : pandas.Series, polars.Series, pyarrow.Array or pyarrow.ChunkedArray
    where : str
        What messages call it.
    first_row : int
        What messages call its first row.
    nan : bool
        Whether what is missing becomes NaN, in floats, for who looks at rows that are not finite.

    Raises
    ------
    ValueError
        If a value is missing, unless it becomes NaN; or if an integer beside it is beyond 2**53.
    """
    library = _library(series) or ""
    if library == "pandas" and isinstance(series.dtype, np.dtype):
        return series.to_numpy()
    missing = _missing(series, library)
    if missing is None:
        return _numbers(series, library)
    if not nan:
        _refuse(missing, "missing" if library == "pandas" else "null", where, first_row)
    there = _numbers(_present(series, library), library)
    if there.dtype.kind not in "biuf":
        return there
    dtype = there.dtype if there.dtype.kind == "f" else np.dtype("float64")
    check_exact(there, dtype, where)
    numbers = np.full(len(missing), np.nan, dtype)
    numbers[~missing] = there
    return numbers


def _missing(series: Any, library: str) -> np.ndarray | None:
    """Return where values are missing, None if nowhere."""
    if library == "pandas":
        missing = series.isna().to_numpy()
        return missing if missing.any() else None
    if library == "polars":
        return series.is_null().to_numpy() if series.null_count() else None
    return series.is_null().to_numpy(zero_copy_only=False) if series.null_count else None


def _present(series: Any, library: str) -> Any:
    """Leave out what is missing."""
    if library == "pandas":
        return series.dropna()
    return series.drop_nulls() if library == "polars" else series.drop_null()


def _numbers(series: Any, library: str) -> np.ndarray:
    """Return a column in which nothing is missing."""
    if library == "pandas":
        return series.to_numpy(dtype=numpy_dtype(series.dtype))
    if library == "polars":
        return series.to_numpy()
    return series.to_numpy(zero_copy_only=False)  # bits, which bools are, have to be copied


def _refuse(missing: np.ndarray, word: str, where: str, first_row: int) -> None:
    rows = np.flatnonzero(missing)
    raise ValueError(
        f"{where}, row {first_row + rows[0]}: the value is {word}"
        + (f", as are {len(rows) - 1} more here" if len(rows) > 1 else "")
        + ". A likelihood needs a number in each row: fill such values, or leave these rows out, "
        "when the data are written"
    )
