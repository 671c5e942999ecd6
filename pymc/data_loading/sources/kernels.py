# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Loops that copy numbers, compiled by Numba: no interpreter's lock, so that they run beside a fit.

They walk in blocks of rows that stay in the processor's first cache, since each column writes one number
a row. Whether all floats are finite is found on the way, which costs next to nothing: a sum of
``0 * value`` is 0 if they are. They take addresses instead of arrays: one kernel, compiled once for two
dtypes, reads any number of columns, those that cannot be written too. Bounds are their callers' matter.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from numba import types
from numba.extending import intrinsic

__all__ = ["interleave", "place_rows", "scatter"]

# Rows that are interleaved at a time: 256 x 20 numbers of 4 bytes are 20 KB
BLOCK = 256


@intrinsic
def _pointer(typingctx: Any, address: Any) -> Any:
    """Return the ``void *`` of an integer, so that one kernel reads any number of columns."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], context.get_value_type(types.voidptr))

    return types.voidptr(types.int64), codegen


@numba.njit(nogil=True, cache=True)
def interleave(addresses, zero, start, stop, out, to):  # type: ignore[no-untyped-def]
    """Write rows of columns to the rows of `out`: column j to ``out[:, to[j]]``."""
    finite = True
    for low in range(start, stop, BLOCK):
        n = min(BLOCK, stop - low)
        rows = out[low - start : low - start + n]
        for j in range(addresses.shape[0]):
            column = numba.carray(_pointer(addresses[j] + low * zero.itemsize), n, zero.dtype)
            target = rows[:, to[j]]
            total = zero[0]
            for i in range(n):
                value = column[i]
                target[i] = value
                total += value * 0
            finite &= total == 0
    return finite


@numba.njit(nogil=True, cache=True)
def scatter(addresses, zero, start, stop, out, to, places):  # type: ignore[no-untyped-def]
    """Write rows of columns to rows `places` of `out`."""
    finite = True
    for low in range(start, stop, BLOCK):
        n = min(BLOCK, stop - low)
        rows = places[low - start : low - start + n]
        for j in range(addresses.shape[0]):
            column = numba.carray(_pointer(addresses[j] + low * zero.itemsize), n, zero.dtype)
            target = out[:, to[j]]
            total = zero[0]
            for i in range(n):
                value = column[i]
                target[np.uintp(rows[i])] = value  # unsigned: no test for places from the end
                total += value * 0
            finite &= total == 0
    return finite


# Sums in any order are vectorised; nothing else of floats is given up
@numba.njit(nogil=True, cache=True, fastmath={"reassoc"})
def place_rows(address, zero, n, out, places):  # type: ignore[no-untyped-def]
    """Write `n` rows, which lie one after another, to rows `places` of `out`."""
    width = out.shape[1]
    rows = numba.carray(_pointer(address), (n, width), zero.dtype)
    finite = True
    for i in range(n):
        target = out[places[i]]
        total = zero[0]
        for j in range(width):
            value = rows[i, j]
            target[j] = value
            total += value * 0
        finite &= total == 0
    return finite
