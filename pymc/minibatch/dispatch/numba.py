# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""The minibatch index on Numba: the arithmetic of :mod:`pymc.minibatch.shuffle`, row by row."""

from collections.abc import Callable
from typing import Any

import numpy as np

from pytensor.graph.basic import Apply
from pytensor.link.numba.dispatch.basic import numba_njit
from pytensor.link.numba.dispatch.random import numba_core_rv_funcify

import pymc.minibatch.shuffle as shuffle

from pymc.minibatch.index import (
    BatchSizeError,
    EpochIndexRV,
    MinibatchIndexRV,
    WithoutReplacementIndexRV,
    WithReplacementIndexRV,
)
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
    here = min(out.shape[0], np.int64(n_rows - place))
    shuffle_rows(out[:here], place, n_rows, splitmix64(key + epoch * GOLDEN_GAMMA))
    if here < out.shape[0]:
        next_key = splitmix64(key + (epoch + u64(1)) * GOLDEN_GAMMA)
        shuffle_rows(out[here:], u64(0), n_rows, next_key)


@numba_njit
def rows_without_replacement(out: np.ndarray, key: Word, position: Word, n_rows: Word) -> None:
    """Write the first rows of an order of their own."""
    shuffle_rows(out, u64(0), n_rows, splitmix64(key + position * GOLDEN_GAMMA))


@numba_njit
def rows_with_replacement(out: np.ndarray, key: Word, position: Word, n_rows: Word) -> None:
    """Write independent rows."""
    for j in range(out.shape[0]):
        out[j] = np.int64(scale_to(n_rows, splitmix64(key + (position + u64(j)) * GOLDEN_GAMMA)))


# What writes the rows of each way of sampling
ROWS: dict[type[MinibatchIndexRV], Callable] = {
    EpochIndexRV: epoch_rows,
    WithoutReplacementIndexRV: rows_without_replacement,
    WithReplacementIndexRV: rows_with_replacement,
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


def make_draw(op: MinibatchIndexRV, rows: Callable) -> tuple[Callable, int]:
    """Compile a draw as PyTensor calls it, which makes `out` unless it is given."""
    batch_size, draw_into = op.batch_size, make_draw_into(rows)

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


@numba_core_rv_funcify.register(EpochIndexRV)
def numba_core_EpochIndexRV(op: EpochIndexRV, node: Apply) -> tuple[Callable, int]:
    """Compile the draw of each row once a pass."""
    return make_draw(op, ROWS[EpochIndexRV])


@numba_core_rv_funcify.register(WithoutReplacementIndexRV)
def numba_core_WithoutReplacementIndexRV(
    op: WithoutReplacementIndexRV, node: Apply
) -> tuple[Callable, int]:
    """Compile the draw of distinct rows."""
    return make_draw(op, ROWS[WithoutReplacementIndexRV])


@numba_core_rv_funcify.register(WithReplacementIndexRV)
def numba_core_WithReplacementIndexRV(
    op: WithReplacementIndexRV, node: Apply
) -> tuple[Callable, int]:
    """Compile the draw of independent rows."""
    return make_draw(op, ROWS[WithReplacementIndexRV])
