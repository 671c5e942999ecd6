# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""The minibatch index in machine code: for Numba, and for PyTensor's C linkers.

The arithmetic is that of :mod:`pymc.minibatch.shuffle`, row by row. The C linkers run random variables
in Python, where a call that draws 500 rows takes 310 us with NumPy, and 4 us with the thunk below. Its
first compilation takes 3 s; later processes read it from PyTensor's cache in 0.1 s, after 0.5 s for
importing Numba.
"""

from collections.abc import Callable
from functools import cache
from hashlib import sha256
from types import FunctionType
from typing import Any

import numba
import numpy as np

from pytensor.configdefaults import config
from pytensor.graph.basic import Apply
from pytensor.graph.op import ThunkType, is_thunk_type
from pytensor.link.numba.cache import CACHED_SRC_FUNCTIONS
from pytensor.link.numba.dispatch.basic import numba_njit
from pytensor.link.numba.dispatch.random import numba_core_rv_funcify

import pymc.minibatch.shuffle as shuffle

from pymc.minibatch.index import BatchSizeError, MinibatchIndexRV, check_batch_size
from pymc.minibatch.shuffle import GOLDEN_GAMMA, NARROW, ROUNDS, WIDE, PairHash

# Part of the key of PyTensor's cache of compiled functions, which knows nothing of this code: raise
# it when a draw changes, here or in pymc.minibatch.shuffle.
CACHE_VERSION = 1

Word = Any  # np.uint32 or np.uint64
u64 = np.uint64

splitmix64 = numba_njit(shuffle.splitmix64)
scale_to = numba_njit(shuffle.scale_to)


def make_shuffle(pair_hash: PairHash) -> Callable:
    """Compile ``out[j] = place of row (first + j) among n_rows``, in words of one width."""
    word, _, hash_first, shift, hash_second, top = pair_hash

    # Numba widens what it computes: each result is cut to a word, or the loop would not vectorise.
    @numba_njit
    def swap_or_not(i: Word, n: Word, pivot: Word, salt: Word) -> Word:
        j = word(pivot - i)
        j = min(j, word(j + n))
        x = word(word(max(i, j) + salt) * hash_first)
        x = word(word(x ^ (x >> shift)) * hash_second)
        return j if x >> top else i

    @numba_njit(error_model="numpy")
    def shuffle_rows(out: np.ndarray, first: Word, n_rows: Word, key: Word) -> None:
        n = word(n_rows)
        work = np.empty(out.shape[0], word)
        for j in range(work.shape[0]):
            work[j] = word(first + u64(j))
        # Two rounds at a time: a single one is a conditional store, which is slow before AVX-512.
        for r in range(0, ROUNDS, 2):
            hash_a = splitmix64(key + u64(r) * GOLDEN_GAMMA)
            hash_b = splitmix64(key + u64(r + 1) * GOLDEN_GAMMA)
            pivot_a, salt_a = word(scale_to(n_rows, hash_a)), word(splitmix64(hash_a))
            pivot_b, salt_b = word(scale_to(n_rows, hash_b)), word(splitmix64(hash_b))
            for j in range(work.shape[0]):
                work[j] = swap_or_not(swap_or_not(work[j], n, pivot_a, salt_a), n, pivot_b, salt_b)
        for j in range(work.shape[0]):
            out[j] = np.int64(work[j])

    return shuffle_rows


shuffle_narrow = make_shuffle(NARROW)
shuffle_wide = make_shuffle(WIDE)
NARROW_MAX_ROWS = u64(NARROW.max_rows)


@numba_njit
def shuffle_rows(out: np.ndarray, first: Word, n_rows: Word, key: Word) -> None:
    """Shuffle in words of the width that the number of rows needs."""
    if n_rows <= NARROW_MAX_ROWS:
        shuffle_narrow(out, first, n_rows, key)
    else:
        shuffle_wide(out, first, n_rows, key)


@numba_njit(error_model="numpy")
def epoch_rows(out: np.ndarray, key: Word, position: Word, n_rows: Word) -> None:
    """Write the rows at `position`: the end of a pass, and the beginning of the next."""
    epoch, place = position // n_rows, position % n_rows
    n_left = min(out.shape[0], np.int64(n_rows - place))
    shuffle_rows(out[:n_left], place, n_rows, splitmix64(key + epoch * GOLDEN_GAMMA))
    if n_left < out.shape[0]:
        next_key = splitmix64(key + (epoch + u64(1)) * GOLDEN_GAMMA)
        shuffle_rows(out[n_left:], u64(0), n_rows, next_key)


@numba_njit
def rows_without_replacement(out: np.ndarray, key: Word, position: Word, n_rows: Word) -> None:
    """Write the first rows of an order that no other draw has."""
    shuffle_rows(out, u64(0), n_rows, splitmix64(key + position * GOLDEN_GAMMA))


@numba_njit
def rows_with_replacement(out: np.ndarray, key: Word, position: Word, n_rows: Word) -> None:
    """Write independent rows."""
    for j in range(out.shape[0]):
        out[j] = np.int64(scale_to(n_rows, splitmix64(key + (position + u64(j)) * GOLDEN_GAMMA)))


ROWS: dict[str, Callable] = {
    "epoch": epoch_rows,
    "without_replacement": rows_without_replacement,
    "with_replacement": rows_with_replacement,
}


def make_draw_into(rows: Callable) -> Callable:
    """Compile a draw of as many rows as `out` has, which advances `state`, uint32 of shape (4,)."""

    @numba_njit
    def draw_into(state: np.ndarray, n_rows: int, out: np.ndarray) -> None:
        key = u64(state[0]) | (u64(state[1]) << u64(32))
        position = u64(state[2]) | (u64(state[3]) << u64(32))
        rows(out, key, position, u64(n_rows))
        position += u64(out.shape[0])
        state[2], state[3] = np.uint32(position), np.uint32(position >> u64(32))

    return draw_into


@numba_core_rv_funcify.register(MinibatchIndexRV)
def numba_core_MinibatchIndexRV(op: MinibatchIndexRV, node: Apply) -> tuple[Callable, int]:
    """Compile a draw as PyTensor calls it, with or without an array to write to."""
    batch_size, draw_into = op.batch_size, make_draw_into(ROWS[op.sampling])

    @numba_njit
    def draw(state: np.ndarray, n_rows: int, out: np.ndarray | None = None) -> np.ndarray:
        if n_rows < batch_size:
            raise BatchSizeError(batch_size, n_rows)
        if out is None:
            out = np.empty(batch_size, np.int64)
        draw_into(state, n_rows, out)
        return out

    draw.handles_out = True  # type: ignore[attr-defined]
    return draw, CACHE_VERSION


DRAW_INTO: Callable = None  # type: ignore[assignment]


def draw(state: np.ndarray, n_rows: int, out: np.ndarray) -> None:
    """Call the global ``DRAW_INTO``, which is set for each way of sampling."""
    DRAW_INTO(state, n_rows, out)


@cache
def compiled_draw(sampling: str) -> Callable[[np.ndarray, int, np.ndarray], None]:
    """Compile the draw of one way of sampling for any batch size, or read it from the cache."""
    # By a global, since Numba does not find functions with a closure in its cache
    scope = {"DRAW_INTO": make_draw_into(ROWS[sampling]), "__name__": __name__}
    function = FunctionType(draw.__code__, scope, f"draw_{sampling}")
    key = f"minibatch index on C, {sampling}, {CACHE_VERSION}"
    CACHED_SRC_FUNCTIONS[function] = sha256(key.encode()).hexdigest()
    compiled = numba_njit(function, final_function=True, cache=config.numba__cache)
    compiled.compile((numba.uint32[::1], numba.int64, numba.int64[::1]))
    return compiled


def make_thunk(op: MinibatchIndexRV, node: Apply, storage_map: Any, compute_map: Any) -> ThunkType:
    """Make the thunk of a C linker, which reads and fills cells of `storage_map`."""
    state_cell, _, n_rows_cell = inputs = [storage_map[var] for var in node.inputs]
    next_state_cell, rows_cell = outputs = [storage_map[var] for var in node.outputs]
    computed = [compute_map[var] for var in node.outputs] if compute_map else []
    draw_rows, batch_size, inplace = compiled_draw(op.sampling), op.batch_size, op.inplace

    @is_thunk_type
    def thunk() -> None:
        n_rows = int(n_rows_cell[0])
        check_batch_size(batch_size, n_rows)
        state = state_cell[0] if inplace else state_cell[0].copy()
        rows = np.empty(batch_size, dtype="int64")
        draw_rows(state, n_rows, rows)
        next_state_cell[0], rows_cell[0] = state, rows
        for cell in computed:
            cell[0] = True

    thunk.inputs, thunk.outputs, thunk.lazy = inputs, outputs, False
    return thunk
