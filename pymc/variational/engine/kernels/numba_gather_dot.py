# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Products of gathered rows on Numba, four rows at a time.

So the vector is read, and the sum of columns written, a quarter as often.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from numba.extending import overload
from pytensor.graph.basic import Apply
from pytensor.link.numba.dispatch.basic import (
    numba_njit,
    register_funcify_default_op_cache_key,
)

from pymc.variational.engine.kernels.gather_dot import GatherDot, GatherTDot
from pymc.variational.engine.kernels.numba_rows import (
    check_rows,
    n_ahead,
    prefetch_row,
    version_of,
)

CACHE_VERSION = version_of(__file__)

#: Rows of a sum of float32 numbers in float32. Sums of these sums are in float64
BLOCK = 128


@numba_njit(boundscheck=False)
def dot_rows(X: np.ndarray, index: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Return ``X[index] @ w``, where the entries of a row lie side by side."""
    check_rows(index, X.shape[0])
    n, m = index.shape[0], X.shape[1]
    if w.shape[0] != m:
        raise ValueError("dot: the vector has another length than the rows")
    out = np.empty(n, X.dtype)
    zero = X.dtype.type(0)
    ahead, n_fours = n_ahead(X), n - n % 4
    for k in range(min(ahead, n)):
        prefetch_row(X, index[k])
    for i in range(0, n_fours, 4):
        for k in range(i + ahead, min(i + ahead + 4, n)):
            prefetch_row(X, index[k])
        row0, row1, row2, row3 = X[index[i]], X[index[i + 1]], X[index[i + 2]], X[index[i + 3]]
        sum0 = sum1 = sum2 = sum3 = zero
        for j in range(m):
            factor = w[j]
            sum0 += row0[j] * factor
            sum1 += row1[j] * factor
            sum2 += row2[j] * factor
            sum3 += row3[j] * factor
        out[i], out[i + 1], out[i + 2], out[i + 3] = sum0, sum1, sum2, sum3
    for i in range(n_fours, n):
        row = X[index[i]]
        sum0 = zero
        for j in range(m):
            sum0 += row[j] * w[j]
        out[i] = sum0
    return out


@numba_njit(boundscheck=False)
def dot_columns(X: np.ndarray, index: np.ndarray, r: np.ndarray) -> np.ndarray:
    """Return ``X[index].T @ r``, where the entries of a row lie side by side."""
    check_rows(index, X.shape[0])
    n, m = index.shape[0], X.shape[1]
    if r.shape[0] != n:
        raise ValueError("dot: the vector has another length than the rows are many")
    total, part = np.zeros(m, np.float64), np.empty(m, X.dtype)
    block = BLOCK if X.itemsize < 8 else max(n, 1)
    for start in range(0, n, block):
        end = min(start + block, n)
        n_fours = end - (end - start) % 4
        part[:] = 0
        for i in range(start, n_fours, 4):
            row0, row1, row2, row3 = X[index[i]], X[index[i + 1]], X[index[i + 2]], X[index[i + 3]]
            r0, r1, r2, r3 = r[i], r[i + 1], r[i + 2], r[i + 3]
            for j in range(m):
                part[j] += (r0 * row0[j] + r1 * row1[j]) + (r2 * row2[j] + r3 * row3[j])
        for i in range(n_fours, end):
            row, factor = X[index[i]], r[i]
            for j in range(m):
                part[j] += factor * row[j]
        total += part
    return total.astype(X.dtype)


@numba_njit(boundscheck=False)
def copy_rows(X: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Return ``X[index]``, in the order of C."""
    check_rows(index, X.shape[0])
    rows = np.empty((index.shape[0], X.shape[1]), X.dtype)
    for i in range(index.shape[0]):
        row = X[index[i]]
        for j in range(X.shape[1]):
            rows[i, j] = row[j]
    return rows


def in_any_layout(kernel: Callable) -> Callable:
    """Return the kernel for matrices of any layout. Rows that are no block of memory are copied first."""

    def on_copies(X: np.ndarray, index: np.ndarray, vector: np.ndarray) -> np.ndarray:
        return kernel(copy_rows(X, index), np.arange(index.shape[0]), vector)

    def product(X: np.ndarray, index: np.ndarray, vector: np.ndarray) -> np.ndarray:
        return kernel(X, index, vector)

    @overload(product, strict=False)
    def overload_product(X: Any, index: Any, vector: Any) -> Callable:
        return product if X.layout == "C" else on_copies

    return product


gather_dot, gather_t_dot = in_any_layout(dot_rows), in_any_layout(dot_columns)


@register_funcify_default_op_cache_key(GatherDot)
def numba_funcify_GatherDot(op: GatherDot, node: Apply, **kwargs: Any) -> tuple[Callable, int]:
    """Return the function for any floats."""
    return gather_dot, CACHE_VERSION


@register_funcify_default_op_cache_key(GatherTDot)
def numba_funcify_GatherTDot(op: GatherTDot, node: Apply, **kwargs: Any) -> tuple[Callable, int]:
    """Return the function for any floats."""
    return gather_t_dot, CACHE_VERSION
