# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""What kernels on gathered rows share on Numba: checks of the index, and prefetching.

A row of a batch lies anywhere in memory, and the processor does not foresee where. So a kernel asks for each
row some time before it reads it.
"""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.typing.templates import Signature
from numba.extending import intrinsic
from numba.np import arrayobj
from pytensor.link.numba.dispatch.basic import numba_njit

__all__ = ["check_rows", "n_ahead", "prefetch_row", "version_of"]

#: Bytes of a line of the cache
LINE = 64
#: How many bytes ahead rows are asked for. With 4 rows instead, narrow rows gain half as much
AHEAD = 4096


def version_of(file: str) -> int:
    """Return a number for the code of a module of kernels and of this one.

    PyTensor's cache of compiled functions knows nothing of this code: the number is a part of its keys.
    """
    code = b"".join(Path(each).read_bytes() for each in (file, __file__))
    return int(sha256(code).hexdigest()[:12], 16)


@intrinsic
def prefetch(typing_context: Any, array: Any, row: Any, offset: Any) -> tuple[Signature, Any]:
    """Ask for the line of memory at `offset` bytes in a row. An address that does not exist is ignored."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = arrayobj.make_array(signature.args[0])(context, builder, arguments[0])
        stride = cgutils.unpack_tuple(builder, data.strides)[0]
        byte, i32 = ir.IntType(8).as_pointer(), ir.IntType(32)
        place = builder.add(builder.mul(arguments[1], stride), arguments[2])
        address = builder.gep(builder.bitcast(data.data, byte), [place])
        kind = ir.FunctionType(ir.VoidType(), [byte, i32, i32, i32])
        function = builder.module.declare_intrinsic("llvm.prefetch", [byte], kind)
        # To read, keep in all caches, data
        builder.call(function, [address, i32(0), i32(3), i32(1)])
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp), codegen


@numba_njit
def prefetch_row(X: np.ndarray, row: int) -> None:
    """Ask for all of a row, if it is a block of memory."""
    if X.strides[1] != X.itemsize:
        return
    for offset in range(0, X.shape[1] * X.itemsize, LINE):
        prefetch(X, row, offset)


@numba_njit
def n_ahead(X: np.ndarray) -> int:
    """Return how many rows ahead to ask for, a multiple of 4."""
    return max(4, AHEAD // max(X.shape[1] * X.itemsize, 1) // 4 * 4)


@numba_njit
def check_rows(index: np.ndarray, n_rows: int) -> None:
    """Raise an IndexError if an index is out of bounds: it would be read from memory of others."""
    lowest, highest = 0, -1
    for k in range(index.shape[0]):  # without a way out, so that it is vectorised
        lowest, highest = min(lowest, index[k]), max(highest, index[k])
    if lowest < -n_rows or highest >= n_rows:
        raise IndexError("index is out of bounds for the rows of the data")
