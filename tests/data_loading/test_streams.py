# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Streams that stay open: nothing is lost, nothing is read twice, and no thread is left."""

import gc
import itertools
import threading
import time

import numpy as np
import pytest

from pymc.data_loading.batch import Position
from pymc.data_loading.loader import DataLoader
from tests.data_loading.rows import Blocks, numbers


def threads() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name == "pymc-read-ahead"]


def no_thread_is_left(seconds: float = 5.0) -> bool:
    end = time.monotonic() + seconds
    while threads() and time.monotonic() < end:
        gc.collect()
        time.sleep(0.01)
    return not threads()


@pytest.fixture(autouse=True)
def threads_end():
    yield
    assert no_thread_is_left()


def take(loader, stream, position, n_batches, n_used):
    """Take chunks of some batches, use the first of these only, and return the rows and the position."""
    chunks, rows = loader.chunks(position, n_batches, stream=stream), []
    for chunk in chunks:
        n_here = min(chunk.n_batches, n_used - len(rows))
        rows += chunk.rows[:n_here].tolist()
        position = Position(*chunk.positions[n_here - 1].tolist())
        chunk.release()
        if len(rows) == n_used:
            break
    chunks.close()
    return rows, position


@pytest.mark.parametrize("prefetch", [0, 1, 2])
@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("one_shot", [False, True])
def test_all_batches_come_wherever_readers_stop(one_shot, shuffle, prefetch):
    """As one reader has them, for any number that is asked for and any number of these that is used."""

    def loader():
        how = {"buffer_size": 17} if shuffle else {}
        source = numbers(*[7] * 60, one_shot=one_shot)
        return DataLoader(
            source, 4, total_size=420, shuffle=shuffle, seed=1, prefetch=prefetch, **how
        )

    parts = loader()
    stream, position, rows = parts.stream(), Position(), []
    for n_batches, n_used in [(1, 1), (30, 3), (4, 4), (20, 1), (2, 1), (25, 25), (9, 8)]:
        some, position = take(parts, stream, position, n_batches, n_used)
        rows += some
    (whole,) = (np.concatenate([c.rows for c in loader().chunks(n_batches=43)]),)
    if not (shuffle and one_shot):  # windows of an iterator are as long as what is asked for
        assert rows == whole.tolist()
    flat = list(itertools.chain(*rows))
    assert len(set(flat)) == len(flat) == 172
    stream.close()


def test_a_window_is_read_once():
    source = numbers(*[10] * 10, as_parts=True)
    loader = DataLoader(source, 5, shuffle=True, seed=1, prefetch=0)
    stream, position = loader.stream(), Position()
    for _ in range(5):
        _, position = take(loader, stream, position, 4, 4)
    assert sorted(source.reads) == list(range(10))
    take(loader, stream, Position(2, 10), 1, 1)  # elsewhere it is read anew
    assert len(source.reads) > 10


def test_no_more_is_read_than_wanted():
    source = numbers(*[1] * 100, one_shot=True)
    loader = DataLoader(source, 4, total_size=100)
    _, position = take(loader, None, Position(), 3, 2)
    time.sleep(0.05)
    assert source.rows_read == 12
    rows, _ = take(loader, None, position, 2, 2)
    assert rows == [[8, 9, 10, 11], [12, 13, 14, 15]]
    assert source.rows_read == 16


def test_an_iterator_that_hangs_is_read_by_one_thread():
    """After a time limit, the next reader waits for the same rows."""
    released = threading.Event()
    source = numbers(8, 8, one_shot=True)

    def read(part):
        if part:
            released.wait()
        return Blocks.read(source, part)

    source.read = read
    loader = DataLoader(source, 4, total_size=16, timeout=0.05)
    with pytest.raises(TimeoutError, match=r"timeout=0.05"):
        take(loader, None, Position(), 4, 4)
    with pytest.raises(TimeoutError, match=r"timeout=0.05"):
        take(loader, None, Position(0, 8), 2, 2)
    assert len(threads()) == 1
    released.set()
    time.sleep(0.05)
    assert take(loader, None, Position(0, 8), 2, 2)[0] == [[8, 9, 10, 11], [12, 13, 14, 15]]


@pytest.mark.parametrize("one_shot", [False, True])
def test_the_thread_ends_with_the_stream(one_shot):
    loader = DataLoader(numbers(*[5] * 50, one_shot=one_shot), 5, total_size=250)
    stream = loader.stream()
    take(loader, stream, Position(), 3, 3)
    assert len(threads()) == 1  # it waits
    del loader, stream
    assert no_thread_is_left()
