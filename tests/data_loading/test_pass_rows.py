# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""The rows of a pass: their order follows from a seed, and they are read piece by piece."""

import weakref

import numpy as np
import pytest

from hypothesis import given
from hypothesis import strategies as st

from pymc.data_loading.batch import Position
from pymc.data_loading.data_loader import DataLoader
from pymc.data_loading.pass_rows import Order, PassRows, open_pass
from pymc.data_loading.sources.layout import ExhaustedSourceError
from tests.data_loading.rows import Blocks, numbers

IN_ORDER = Order(seed=0, window_rows=4, shuffle=False)
SHUFFLED = Order(seed=0, window_rows=4, shuffle=True)


def taken(rows: PassRows, n_rows: int = 10**6) -> list[int]:
    """Return the numbers of rows by which they are taken; each has to be the row's own value."""
    found = []
    for block, start, stop, first_row in rows.take(n_rows):
        out = (np.empty(stop - start, int),)
        block.write(out, 0, start, stop)
        assert out[0].tolist() == list(range(first_row, first_row + stop - start))
        found += out[0].tolist()
    return found


@given(
    lengths=st.lists(st.integers(0, 5), min_size=1, max_size=6),
    sizes=st.lists(st.integers(0, 7), max_size=6),
    as_parts=st.booleans(),
    order=st.sampled_from([IN_ORDER, SHUFFLED]),
)
def test_each_row_comes_once(lengths, sizes, as_parts, order):
    rows = open_pass(numbers(*lengths, as_parts=as_parts), order, 0, 0)
    found = []
    for size in sizes:
        some = taken(rows, size)
        found += some
        assert len(some) == size or rows.at_end()
        assert rows.n_taken == len(found)
    found += taken(rows)
    assert rows.at_end()
    assert sorted(found) == list(range(sum(lengths)))
    if not (as_parts and order.shuffle):
        assert found == sorted(found)


@given(st.data(), st.booleans(), st.sampled_from([IN_ORDER, SHUFFLED]))
def test_a_pass_goes_on_at_any_row(data, as_parts, order):
    lengths = data.draw(st.lists(st.integers(0, 5), min_size=1, max_size=6))
    row = data.draw(st.integers(0, sum(lengths)))
    source = numbers(*lengths, as_parts=as_parts)
    assert taken(open_pass(source, order, 1, row)) == taken(open_pass(source, order, 1, 0))[row:]


def test_parts_before_a_row_are_not_read():
    source = numbers(10, 10, 10, as_parts=True)
    assert taken(open_pass(source, IN_ORDER, 0, 25)) == list(range(25, 30))
    assert source.reads == [2]


@pytest.mark.parametrize("as_parts", [True, False])
@pytest.mark.parametrize("shuffle", [True, False])
def test_one_block_is_held(as_parts, shuffle):
    source, alive = numbers(*[3] * 20, as_parts=as_parts), []

    def read(part):
        assert [block() for block in alive if block() is not None] == []
        block = Blocks.read(source, part)
        alive.append(weakref.ref(block))
        return block

    source.read = read
    loader = DataLoader(
        source, 4, total_size=60, shuffle=shuffle, buffer_size=10 if shuffle else None
    )
    for chunk in loader.chunks(Position(0, 20), n_batches=40):
        chunk.release()
    assert len(alive) >= 50


def test_the_end_of_parts_is_known_without_reading():
    source = numbers(3, 3, as_parts=True)
    rows = open_pass(source, IN_ORDER, 0, 0)
    taken(rows, 3)
    assert not rows.at_end()
    assert source.reads == [0]


@pytest.mark.parametrize("as_parts", [True, False])
def test_fewer_rows_than_were_used(as_parts):
    with pytest.raises(ExhaustedSourceError, match=r"row 7 of pass 0, .* only 6 rows: resume with"):
        open_pass(numbers(3, 3, as_parts=as_parts), IN_ORDER, 0, 7)


def test_a_source_that_dies_says_where():
    source = numbers(3, 3)
    source.read = lambda part: 1 / 0 if part else Blocks.read(source, part)
    rows = open_pass(source, IN_ORDER, 0, 0)
    with pytest.raises(ZeroDivisionError) as caught:
        taken(rows)
    assert caught.value.__notes__ == [
        "The source of rows raised it, after block 0: 3 rows of this pass had come."
    ]


def test_a_part_of_another_length_than_before():
    source = numbers(3, 3, as_parts=True)
    rows = open_pass(source, IN_ORDER, 0, 0)
    source.arrays = [np.arange(3), np.arange(2)]
    with pytest.raises(ValueError, match="block 1 has 2 rows, and 3 when the source was opened"):
        taken(rows)


# --- order ---


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
    lengths = {shuffled(1000).window_at(epoch, 0).stop for epoch in range(20)}
    assert len(lengths) > 15
    assert 1 <= min(lengths) and max(lengths) <= 1000


def test_one_window_has_room_for_all_rows():
    assert shuffled(1000, whole=True).window_at(3, 0) == range(1000)


def test_places_are_a_permutation_and_other_ones_in_each_window_and_pass():
    order, n_rows = shuffled(), 50
    all_places = [
        tuple(order.places(epoch, range(start, start + n_rows)))
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
    window = range(10, 20)
    assert np.array_equal(same.places(4, window), shuffled().places(4, window))
    assert not np.array_equal(same.places(4, window), other.places(4, window))
    assert same.parts(4, 30) != other.parts(4, 30)


def test_a_pass_uses_the_child_of_its_seed_sequence():
    expected = np.random.default_rng(np.random.SeedSequence(1, spawn_key=(2,))).permutation(9)
    assert list(shuffled().parts(2, 9)) == expected.tolist()


@pytest.mark.parametrize("row", [0, 7])
def test_without_shuffle_rows_stay(row):
    order = Order(seed=1, window_rows=10, shuffle=False)
    assert order.window_at(1, row) == range(row, row + 10)
    assert order.places(1, range(row, row + 10)) is None
    assert order.parts(1, 4) == range(4)
