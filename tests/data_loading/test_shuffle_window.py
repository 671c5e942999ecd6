# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""`shuffle_buffer`, and windows of rows."""

import numpy as np
import pytest

from hypothesis import given
from hypothesis import strategies as st

import pymc as pm

from pymc.data_loading.data_loader import shuffle_buffer
from tests.data_loading.rows import Blocks, numbers


def rows_of(batches) -> list[int]:
    return np.concatenate(list(batches)).tolist()


def test_public_name():
    assert pm.shuffle_buffer is shuffle_buffer


@given(
    n_rows=st.integers(1, 40),
    buffer_size=st.integers(1, 50),
    batch_size=st.integers(1, 50),
    known=st.booleans(),
)
def test_all_rows_in_a_new_order_within_bounded_memory(n_rows, buffer_size, batch_size, known):
    source = numbers(*[1] * n_rows, n_rows=n_rows if known else None)
    shuffled = shuffle_buffer(source, buffer_size, batch_size, seed=1)
    for _ in range(2):
        source.reads.clear()
        found: list[int] = []
        for batch in shuffled:
            # Beside what it holds there is at most the block with which it looked for the end
            assert source.rows_read - len(found) <= buffer_size + batch_size
            assert np.array_equal(batch, batch.rows)
            found += batch.tolist()
        assert sorted(found) == list(range(n_rows))


def test_a_last_window_that_is_longer_than_one_move():
    # Rows are moved together 4,096 at a time where a pass ends within a window
    found = rows_of(shuffle_buffer(numbers(5000, 5001, n_rows=10_001), 20_000, 10, 1))
    assert sorted(found) == list(range(10_001)) != found


def test_each_pass_and_each_seed():
    one, same, other = (shuffle_buffer(numbers(30), 10, 7, seed) for seed in (1, 1, 2))
    first, second = rows_of(one), rows_of(one)
    assert first != second
    assert [rows_of(same), rows_of(same)] == [first, second]
    assert rows_of(other) != first


def test_n_rows_is_that_of_the_source():
    assert shuffle_buffer(numbers(30), 10, 7).n_rows is None
    assert shuffle_buffer(numbers(30, n_rows=30), 10, 7).n_rows == 30


def test_all_rows_are_shuffled_in_a_buffer_that_holds_them():
    # The first row is equally likely to be in the first half of the order as in the second: of 400
    # passes it is 200 times, with a standard deviation of 10. Five of them: 6e-7 of false alarms
    shuffled = shuffle_buffer(numbers(10, 10, n_rows=20), 20, 20, seed=1)
    early = sum(rows_of(shuffled).index(0) < 10 for _ in range(400))
    assert abs(early - 200) < 50


def test_nan_is_kept():
    values = np.array([1.0, np.nan])
    assert np.isnan(rows_of(shuffle_buffer(Blocks([values]), 2, 2, seed=1))).sum() == 1


@pytest.mark.parametrize("argument", ["buffer_size", "batch_size"])
@pytest.mark.parametrize(
    ("value", "error", "message"),
    [(0, ValueError, "at least 1"), (True, TypeError, "whole number"), (1.5, TypeError, "whole")],
)
def test_bad_sizes(argument, value, error, message):
    with pytest.raises(error, match=f"{argument}={value} of shuffle_buffer .*{message}"):
        shuffle_buffer(numbers(3), **{"buffer_size": 2, "batch_size": 2, argument: value})


def test_a_loader_reads_the_rows_behind_it():
    source = numbers(7, 7, 6, as_parts=True)
    loader = pm.DataLoader(shuffle_buffer(source, 5, 2, seed=3), 4)
    assert (loader.shuffle, loader.buffer_size, loader.seed, len(loader)) == (True, 5, 3, 20)
    batches = list(loader)
    assert all(np.array_equal(batch, batch.rows) for batch in batches)
    direct = pm.DataLoader(source, 4, shuffle=True, buffer_size=5, seed=3)
    assert rows_of(batches) == rows_of(direct)


def test_what_is_shuffled_already_is_not_read_in_order():
    source = numbers(7, 7, 6)
    loader = pm.DataLoader(source, 6, shuffle=True, seed=2)
    twice = shuffle_buffer(shuffle_buffer(loader, 5, 2, seed=3), 5, 4, seed=4)
    assert twice.source is source
    assert rows_of(twice) == rows_of(shuffle_buffer(source, 5, 4, seed=4))
