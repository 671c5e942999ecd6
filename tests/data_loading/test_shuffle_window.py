# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Positions, windows and permutations follow from a seed."""

import numpy as np
import pytest

from hypothesis import given
from hypothesis import strategies as st

from pymc.data_loading.batch import Position
from pymc.data_loading.pass_rows import Order, Window


def shuffled(window_rows: int = 10, whole: bool = False) -> Order:
    return Order(seed=1, window_rows=window_rows, shuffle=True, whole=whole)


def test_positions_are_ordered():
    assert Position() == Position(0, 0)
    assert Position(0, 9) < Position(1, 0) < Position(1, 1)


@given(st.integers(1, 20), st.integers(0, 3), st.booleans())
def test_windows_follow_each_other(window_rows, epoch, whole):
    order = shuffled(window_rows, whole)
    row = 0
    for _ in range(5):
        window = order.window_at(epoch, row)
        assert window.start == row
        assert all(order.window_at(epoch, r) == window for r in range(window.start, window.stop))
        row = window.stop


def test_first_windows_differ_in_length():
    lengths = {shuffled(1000).window_at(epoch, 0).n_rows for epoch in range(20)}
    assert len(lengths) > 15
    assert 1 <= min(lengths) and max(lengths) <= 1000


def test_one_window_has_room_for_all_rows():
    assert shuffled(1000, whole=True).window_at(3, 0) == Window(0, 1000)


def test_places_are_a_permutation_and_other_ones_in_each_window_and_pass():
    order, n_rows = shuffled(), 50
    all_places = [
        tuple(order.places(epoch, Window(start, n_rows)))
        for epoch in range(3)
        for start in range(3)
    ]
    assert all(sorted(places) == list(range(n_rows)) for places in all_places)
    assert len(set(all_places)) == 9


def test_parts_are_shuffled_in_each_pass():
    orders = [tuple(shuffled().parts(epoch, 30)) for epoch in range(3)]
    assert all(sorted(parts) == list(range(30)) for parts in orders)
    assert len(set(orders)) == 3


def test_the_order_follows_from_the_seed():
    same, other = shuffled(), Order(seed=2, window_rows=10, shuffle=True)
    window = Window(10, 10)
    assert np.array_equal(same.places(4, window), shuffled().places(4, window))
    assert not np.array_equal(same.places(4, window), other.places(4, window))
    assert same.parts(4, 30) != other.parts(4, 30)


def test_a_pass_uses_the_child_of_its_seed_sequence():
    expected = np.random.default_rng(np.random.SeedSequence(1, spawn_key=(2,))).permutation(9)
    assert list(shuffled().parts(2, 9)) == expected.tolist()


@pytest.mark.parametrize("row", [0, 7])
def test_without_shuffle_rows_stay(row):
    order = Order(seed=1, window_rows=10, shuffle=False)
    assert order.window_at(1, row) == Window(row, 10)
    assert order.places(1, Window(row, 10)) is None
    assert order.parts(1, 4) == range(4)
