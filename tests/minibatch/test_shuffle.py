# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""The keyed shuffle: a permutation for every key, and as good as random.

The statistical tests are chi-squared tests over fixed seeds. ``FALSE_ALARM`` is the chance that a
perfect shuffle fails any one of the `n_tests` tests of a family: 1e-6 a test function.
"""

import itertools

import numpy as np
import pytest

from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2

from pymc.minibatch.shuffle import (
    GOLDEN_GAMMA,
    MAX_ROWS,
    NARROW,
    ROUNDS,
    WIDE,
    pack_state,
    random_rows,
    round_keys,
    scale_to,
    shuffle_rows,
    splitmix64,
    unpack_state,
)

FALSE_ALARM = 1e-6
HASHES = pytest.mark.parametrize("pair_hash", [NARROW, WIDE], ids=["narrow", "wide"])


def uint64(*values):
    return np.array(values, dtype="uint64")


def keys_of_epochs(n_keys, seed=0):
    """Keys as they occur: of consecutive passes of one index."""
    return splitmix64(uint64(seed) + np.arange(n_keys, dtype="uint64") * GOLDEN_GAMMA)


def places(row, n_rows, keys, pair_hash, rounds=ROUNDS):
    """Where `row` goes in the order of each key."""
    pivots, salts = round_keys(np, keys, uint64(n_rows))
    rows = np.full(keys.shape, row, dtype="uint64")
    out = shuffle_rows(np, rows, uint64(n_rows), pivots[:rounds], salts[:rounds], pair_hash)
    return out.astype("int64")


def p_value(cells, n_cells):
    """Of the hypothesis that all cells are equally likely."""
    counts = np.bincount(cells, minlength=n_cells)
    expected = len(cells) / n_cells
    assert expected >= 10, "too few draws for chi-squared"
    return chi2.sf(((counts - expected) ** 2 / expected).sum(), n_cells - 1)


def assert_uniform(p_values):
    assert min(p_values) > FALSE_ALARM / len(p_values)


def test_splitmix64_reference():
    # the first outputs of the reference implementation for the seed 0
    counter = np.arange(1, 4, dtype="uint64")
    expected = uint64(0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F)
    np.testing.assert_array_equal(splitmix64(counter * GOLDEN_GAMMA), expected)


@given(st.integers(1, MAX_ROWS), st.integers(0, 2**64 - 1))
def test_scale_to_is_the_high_word(n_rows, x):
    assert int(scale_to(uint64(n_rows), uint64(x))[0]) == n_rows * x >> 64


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
def test_state_round_trip(key, position):
    state = pack_state(np, uint64(key), uint64(position))
    assert state.dtype == "uint32"
    assert state.shape == (4,)
    assert [int(x[0]) for x in unpack_state(state)] == [key, position]


@HASHES
@given(st.integers(1, 300), st.integers(0, 2**64 - 1))
@settings(max_examples=50)
def test_shuffle_is_a_permutation(pair_hash, n_rows, key):
    pivots, salts = round_keys(np, uint64(key), uint64(n_rows))
    rows = np.arange(n_rows, dtype="uint64")
    shuffled = shuffle_rows(np, rows, uint64(n_rows), pivots, salts, pair_hash)
    np.testing.assert_array_equal(np.sort(shuffled), rows)


@HASHES
@pytest.mark.parametrize("back", [0, 1])
def test_largest_number_of_rows(pair_hash, back):
    """No word overflows: rows stay below n_rows, and distinct."""
    n_rows = pair_hash.max_rows - back
    rows = np.concatenate([uint64(0, 1, 2), uint64(n_rows - 3, n_rows - 2, n_rows - 1)])
    pivots, salts = round_keys(np, uint64(3), uint64(n_rows))
    for rounds in range(1, ROUNDS + 1):
        shuffled = shuffle_rows(
            np, rows, uint64(n_rows), pivots[:rounds], salts[:rounds], pair_hash
        )
        assert shuffled.max() < n_rows
        assert len(set(shuffled.tolist())) == 6


@HASHES
@pytest.mark.parametrize("n_rows", [4, 5])
def test_all_orders(pair_hash, n_rows):
    keys = keys_of_epochs(20_000)
    orders = np.stack([places(row, n_rows, keys, pair_hash) for row in range(n_rows)])
    code_of = {order: code for code, order in enumerate(itertools.permutations(range(n_rows)))}
    codes = np.array([code_of[tuple(order)] for order in orders.T.tolist()])
    assert_uniform([p_value(codes, len(code_of))])


@HASHES
def test_one_row(pair_hash):
    keys = keys_of_epochs(20_000)
    assert_uniform(
        [
            p_value(places(row, n_rows, keys, pair_hash), n_rows)
            for n_rows in (2, 3, 10, 101)
            for row in {0, n_rows // 2, n_rows - 1}
        ]
    )


@HASHES
def test_two_rows(pair_hash):
    """Adjacent and distant rows: any ordered pair of places is equally likely."""
    n_rows, keys = 12, keys_of_epochs(20_000)
    p_values = []
    for row, other in [(0, 1), (5, 6), (10, 11), (0, 11), (3, 8)]:
        x, y = (places(r, n_rows, keys, pair_hash) for r in (row, other))
        p_values.append(p_value(x * (n_rows - 1) + (y - x) % n_rows - 1, n_rows * (n_rows - 1)))
    assert_uniform(p_values)


@HASHES
def test_one_row_in_consecutive_epochs(pair_hash):
    x = places(3, 10, keys_of_epochs(20_000), pair_hash)
    assert_uniform([p_value(x[:-1] * 10 + x[1:], 100)])


@pytest.mark.parametrize(
    "pair_hash, n_rows",
    [(NARROW, 2**16), (NARROW, 2**31), (WIDE, 2**40), (WIDE, 2**62)],
)
def test_many_rows(pair_hash, n_rows):
    """High and low bits of the places of adjacent rows, and of their difference."""
    keys, bins = keys_of_epochs(20_000), 16
    p_values = []
    for row in (0, n_rows // 2, n_rows - 2):
        x, y = (places(r, n_rows, keys, pair_hash) for r in (row, row + 1))
        width = n_rows // bins
        p_values += [
            p_value(x // width * bins + y // width, bins**2),
            p_value(x % bins * bins + y % bins, bins**2),
            p_value((y - x) % n_rows // width, bins),
        ]
    assert_uniform(p_values)


@HASHES
def test_a_third_of_the_rounds_would_fail(pair_hash):
    """The tests above can tell a good shuffle from a bad one."""
    keys = keys_of_epochs(100_000)
    p_values = [
        p_value(places(row, 101, keys, pair_hash, rounds=ROUNDS // 3), 101) for row in (0, 50, 100)
    ]
    assert min(p_values) < FALSE_ALARM / len(p_values)


def test_random_rows_are_independent_and_uniform():
    rows = random_rows(uint64(5), np.arange(40_000, dtype="uint64"), uint64(20)).astype("int64")
    assert_uniform([p_value(rows, 20), p_value(rows[:-1] * 20 + rows[1:], 400)])
