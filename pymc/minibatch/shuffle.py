# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Random rows in O(batch) time and O(1) memory: a keyed shuffle of ``0 .. n_rows - 1``.

The place of a row in a shuffled order is a function of (row, key, n_rows), so that no permutation is
stored. The functions here take whole batches, as NumPy or as JAX arrays (``xp`` is ``numpy`` or
``jax.numpy``); :mod:`pymc.minibatch.dispatch.numba` has the same arithmetic as a loop over scalars. All
of it is unsigned and wraps, hence bit-identical on every backend.

The shuffle is swap-or-not [1]_: in each round the rows are paired off (``i`` with ``pivot - i`` modulo
``n_rows``) and a hash of the pair decides whether the two change places. It works for any number of
rows, not only for powers of two. Keys come from splitmix64 [2]_, whose 64-bit hashes are brought down to
a range by a multiplication [3]_. The hash of a pair is the middle of MurmurHash3's finalizer [4]_ (of
splitmix64's for wide words).

None of this is meant for cryptography: the hash is chosen for speed, and ``ROUNDS`` for statistical
tests, which begin to fail with a third of the rounds.

References
----------
.. [1] V. T. Hoang, B. Morris and P. Rogaway (2012). An Enciphering Scheme Based on a Card Shuffle.
   CRYPTO 2012, LNCS 7417. :arxiv:`1208.1176`
.. [2] G. L. Steele, D. Lea and C. H. Flood (2014). Fast Splittable Pseudorandom Number Generators.
   OOPSLA 2014.
.. [3] D. Lemire (2019). Fast Random Integer Generation in an Interval. ACM Transactions on Modeling
   and Computer Simulation 29(1). Without its rejection step the bias is below ``n_rows / 2**64``.
.. [4] A. Appleby (2011). MurmurHash3, 32-bit finalizer.
"""

from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

# A NumPy or a JAX array. These functions are traced by JAX, whose arrays no NumPy type describes.
Array = Any

ROUNDS = 24
ROUNDS_PER_KERNEL = 4  # on JAX: see materialize
MAX_ROWS = 2**62

GOLDEN_GAMMA = np.uint64(0x9E3779B97F4A7C15)
SPLITMIX_A = np.uint64(0xBF58476D1CE4E5B9)
SPLITMIX_B = np.uint64(0x94D049BB133111EB)
LOW_WORD = np.uint64(0xFFFFFFFF)
WORD = np.uint64(32)


class PairHash(NamedTuple):
    """Constants of the hash of a pair, for words of one width.

    The decision is the top bit of ``(x ^ (x >> shift)) * second``, ``x = (max(i, j) + salt) * first``.
    """

    dtype: type[np.unsignedinteger]
    max_rows: int  # the sum of a row and n_rows has to fit into a word
    first: np.unsignedinteger
    shift: np.unsignedinteger
    second: np.unsignedinteger
    top: np.unsignedinteger


# Words of 32 bits take half the time of wide ones, and a sixth on a processor without AVX-512, which
# has no multiplication of vectors of 64-bit words.
NARROW = PairHash(
    dtype=np.uint32,
    max_rows=2**31,
    first=np.uint32(0x85EBCA6B),
    shift=np.uint32(13),
    second=np.uint32(0xC2B2AE35),
    top=np.uint32(31),
)
WIDE = PairHash(
    dtype=np.uint64,
    max_rows=MAX_ROWS,
    first=SPLITMIX_A,
    shift=np.uint64(27),
    second=SPLITMIX_B,
    top=np.uint64(63),
)


# Numba compiles splitmix64 and scale_to for scalars
def splitmix64(x: Array) -> Array:
    """Hash 64-bit words, one by one: the finalizer of splitmix64."""
    x = (x ^ (x >> np.uint64(30))) * SPLITMIX_A
    x = (x ^ (x >> np.uint64(27))) * SPLITMIX_B
    return x ^ (x >> np.uint64(31))


def scale_to(n: Array, x: Array) -> Array:
    """Bring 64-bit hashes `x` down to ``0 .. n - 1``: the high word of the 128-bit ``n * x``."""
    n_high, n_low = n >> WORD, n & LOW_WORD
    x_high, x_low = x >> WORD, x & LOW_WORD
    cross = x_high * n_low + ((x_low * n_low) >> WORD)
    carry = (x_low * n_high + (cross & LOW_WORD)) >> WORD
    return x_high * n_high + (cross >> WORD) + carry


def materialize(xp: ModuleType, x: Array) -> Array:
    """Have JAX compute `x` once and as a whole, before anything that uses it.

    XLA fuses what is computed element by element into whatever reads it, and would shuffle the rows
    anew for each column of ``x[index]``. A kernel of all 24 rounds takes three times as long as six
    of four rounds each, besides (12 and 4 us for 500 rows).
    """
    if xp is np:
        return x
    # An array of JAX exists, so that JAX is imported already
    from jax.lax import optimization_barrier

    return optimization_barrier(x)


def unpack_state(state: Array) -> tuple[Array, Array]:
    """Return the key and the position, uint64 of shape (1,) each, of a state of four 32-bit words."""
    words = state.astype("uint64")
    both = words[0::2] | (words[1::2] << WORD)
    return both[:1], both[1:]


def pack_state(xp: ModuleType, key: Array, position: Array) -> Array:
    """Invert :func:`unpack_state`. JAX without x64 has no wider words than these four."""
    words = [key & LOW_WORD, key >> WORD, position & LOW_WORD, position >> WORD]
    return xp.concatenate(words).astype("uint32")


def round_keys(xp: ModuleType, key: Array, n_rows: Array) -> tuple[Array, Array]:
    """Return pivots and salts of all rounds, uint64 of shape (ROUNDS, k), for `k` keys."""
    rounds = xp.arange(ROUNDS, dtype="uint64")[:, None]
    hashes = splitmix64(key + rounds * GOLDEN_GAMMA)
    return materialize(xp, scale_to(n_rows, hashes)), materialize(xp, splitmix64(hashes))


def shuffle_rows(
    xp: ModuleType, rows: Array, n_rows: Array, pivots: Array, salts: Array, pair_hash: PairHash
) -> Array:
    """Return the places of `rows` in a shuffled order of ``0 .. n_rows - 1``.

    Rows are uint64 of shape (batch,), `n_rows` of shape (1,), `pivots` and `salts`, of
    :func:`round_keys`, of shape (ROUNDS, batch) or (ROUNDS, 1). NARROW and WIDE give different orders.
    """
    word = pair_hash.dtype
    i, n, pivots, salts = (x.astype(word) for x in (rows, n_rows, pivots, salts))
    for done, (pivot, salt) in enumerate(zip(pivots, salts), start=1):
        j = pivot - i
        j = xp.minimum(j, j + n)  # pivot < i wrapped around: then j + n is the smaller of the two
        x = (xp.maximum(i, j) + salt) * pair_hash.first
        x = (x ^ (x >> pair_hash.shift)) * pair_hash.second
        i = xp.where((x >> pair_hash.top).astype(bool), j, i)
        if done % ROUNDS_PER_KERNEL == 0:
            i = materialize(xp, i)
    return i.astype("uint64")


def random_rows(key: Array, counter: Array, n_rows: Array) -> Array:
    """Return independent uniform rows: the `counter`-th outputs of a splitmix64 generator."""
    return scale_to(n_rows, splitmix64(key + counter * GOLDEN_GAMMA))


# The rows of a batch at a position, by each way of sampling. All arrays are uint64, of shape (1,) or
# (batch_size,).


def epoch_rows(
    xp: ModuleType, key: Array, position: Array, n_rows: Array, batch_size: int, pair_hash: PairHash
) -> Array:
    """Draw every row exactly once a pass, each pass in a new order.

    The position divided by the number of rows is the number of the pass; the remainder is the place in
    it. A batch that reaches the end of a pass takes its other rows from the next one, so a row may be in
    it twice. When the number of rows changes, the current pass is cut to a random part of the rows, and
    every pass after it is whole.
    """
    epochs = position // n_rows + xp.arange(2, dtype="uint64")
    pivots, salts = round_keys(xp, splitmix64(key + epochs * GOLDEN_GAMMA), n_rows)
    places = position % n_rows + xp.arange(batch_size, dtype="uint64")
    in_next = places >= n_rows
    return shuffle_rows(
        xp,
        xp.where(in_next, places - n_rows, places),
        n_rows,
        xp.where(in_next, pivots[:, 1:], pivots[:, :1]),
        xp.where(in_next, salts[:, 1:], salts[:, :1]),
        pair_hash,
    )


def rows_without_replacement(
    xp: ModuleType, key: Array, position: Array, n_rows: Array, batch_size: int, pair_hash: PairHash
) -> Array:
    """Draw distinct rows: the first of an order that is new at each draw."""
    pivots, salts = round_keys(xp, splitmix64(key + position * GOLDEN_GAMMA), n_rows)
    places = xp.arange(batch_size, dtype="uint64")
    return shuffle_rows(xp, places, n_rows, pivots, salts, pair_hash)


def rows_with_replacement(
    xp: ModuleType, key: Array, position: Array, n_rows: Array, batch_size: int, pair_hash: PairHash
) -> Array:
    """Draw independent rows."""
    return random_rows(key, position + xp.arange(batch_size, dtype="uint64"), n_rows)


SAMPLING: dict[str, Callable] = {
    "epoch": epoch_rows,
    "without_replacement": rows_without_replacement,
    "with_replacement": rows_with_replacement,
}
