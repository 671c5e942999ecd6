# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Shards of a source: consecutive rows, which may begin and end within its parts."""

from __future__ import annotations

import pickle

from itertools import chain
from typing import Any

import numpy as np
import pytest

import pymc as pm


class Counting(pm.Source):
    """Rows of several parts, and how often each was loaded."""

    def __init__(self, lengths: tuple[int, ...]) -> None:
        self._lengths, self.loads = lengths, [0] * len(lengths)

    @property
    def part_lengths(self) -> tuple[int, ...]:
        return self._lengths

    def load(self, part: int) -> Any:
        self.loads[part] += 1
        first = sum(self._lengths[:part])
        return np.arange(first, first + self._lengths[part], dtype="float64")


@pytest.mark.parametrize("n", [1, 2, 3, 7, 13])
@pytest.mark.parametrize("lengths", [(13,), (5, 0, 8), (1,) * 13, (12, 1)])
def test_each_row_is_in_one_shard(lengths: tuple[int, ...], n: int) -> None:
    loader = pm.DataLoader(Counting(lengths), batch_size=2, drop_last=False)
    shards = [loader.shard(k, n) for k in range(n)]
    rows = [np.concatenate(list(shard)).tolist() for shard in shards]
    assert list(chain.from_iterable(rows)) == list(range(13))
    assert [shard.total_size for shard in shards] == [len(some) for some in rows]
    assert max(map(len, rows)) - min(map(len, rows)) <= 1


def test_a_block_with_rows_of_several_shards_is_read_once() -> None:
    source = Counting((100, 3))
    loader = pm.DataLoader(source, batch_size=2)
    assert loader.layout.row_bytes == 8
    source.loads = [0, 0]
    for k in range(10):
        assert len(list(loader.shard(k, 10).batches(0)))
    assert source.loads == [1, 1]


def test_the_order_is_another_one_in_each_shard() -> None:
    loader = pm.DataLoader(np.arange(40.0), batch_size=20, shuffle=True, seed=1)
    first, second = (next(iter(loader.shard(k, 2))) for k in (0, 1))
    assert set(first) == set(range(20)) and set(second) == set(range(20, 40))
    assert (first != np.sort(first)).any() and (first + 20 != second).any()
    again = next(iter(pm.DataLoader(np.arange(40.0), 20, shuffle=True, seed=1).shard(0, 2)))
    np.testing.assert_array_equal(first, again)


def test_bad_values_are_named_by_their_rows() -> None:
    data = np.arange(20.0)
    data[13] = np.nan
    shard = pm.DataLoader(data, batch_size=5).shard(1, 2)
    with pytest.raises(ValueError, match="row 13"):
        list(shard)


def test_a_shard_goes_to_another_process() -> None:
    shard = pickle.loads(pickle.dumps(pm.DataLoader(np.arange(9.0), batch_size=3).shard(1, 3)))
    assert next(iter(shard)).tolist() == [3, 4, 5]


@pytest.mark.parametrize("k, n, name", [(2, 2, "k"), (-1, 2, "k"), (0, 0, "n")])
def test_bad_arguments(k: int, n: int, name: str) -> None:
    with pytest.raises(ValueError, match=rf"^{name}=-?\d of DataLoader.shard"):
        pm.DataLoader(np.zeros(9), batch_size=3).shard(k, n)


def test_rows_that_come_in_order_only() -> None:
    loader = pm.DataLoader(lambda: iter([np.zeros(5)]), batch_size=2)
    with pytest.raises(ValueError, match="gives its rows in order only"):
        loader.shard(0, 2)
