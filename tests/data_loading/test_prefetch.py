# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""A thread reads ahead within bounds and ends with its consumer; a stream that stays open loses no rows."""

import gc
import itertools
import os
import subprocess
import sys
import threading
import time
import traceback

from collections.abc import Callable, Iterator

import numpy as np
import pytest

from pymc.data_loading.batch import Position
from pymc.data_loading.data_loader import DataLoader
from pymc.data_loading.prefetch import ForkedError, PrefetchQueue
from tests.data_loading.rows import Blocks, numbers


def wait_until(condition: Callable[[], bool], seconds: float = 5.0) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.005)
    return condition()


def readers() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name == "pymc-prefetch"]


def no_thread_is_left() -> bool:
    return wait_until(lambda: gc.collect() >= 0 and readers() == [])


@pytest.fixture(autouse=True)
def threads_end() -> Iterator[None]:
    yield
    assert no_thread_is_left()


def prefetched(items, size=1, timeout=None):
    return PrefetchQueue(items, size, timeout, "the source")


@pytest.mark.parametrize("size", [0, 1, 3])
def test_items_in_order(size):
    assert list(prefetched(iter(range(20)), size)) == list(range(20))


@pytest.mark.parametrize("size", [1, 3])
def test_no_more_is_read_than_asked_for(size):
    counter = itertools.count()
    made: list[int] = []
    items = prefetched((made.append(i) or i for i in counter), size)
    assert made == [] and readers() == []  # nothing, before the first is asked for
    for i in range(5):
        assert next(items) == i
        wait_until(lambda: len(made) > i + size)
        time.sleep(0.02)
        assert len(made) == i + 1 + size
    items.close()


def test_errors_come_with_their_traceback():
    def broken():
        yield 1
        raise KeyError("row group 7")

    items = prefetched(broken())
    assert next(items) == 1
    with pytest.raises(KeyError, match="row group 7") as caught:
        next(items)
    assert "broken" in "".join(traceback.format_tb(caught.tb))


def test_a_source_that_hangs():
    release = threading.Event()

    def hanging():
        yield 1
        release.wait()

    items = prefetched(hanging(), timeout=0.05)
    assert next(items) == 1
    start = time.monotonic()
    with pytest.raises(TimeoutError, match=r"the source gave no rows for timeout=0.05 seconds"):
        next(items)
    assert time.monotonic() - start < 1
    release.set()


@pytest.mark.parametrize("end", [lambda items: items.close(), lambda items: None])
def test_the_thread_ends_with_its_reader(end):
    closed = threading.Event()

    def endless():
        try:
            yield from itertools.count()
        finally:
            closed.set()

    items = prefetched(endless())
    next(items)
    assert len(readers()) == 1
    end(items)
    del items
    gc.collect()
    assert wait_until(lambda: readers() == [])
    assert closed.is_set()


def test_the_thread_ends_when_the_reader_raises():
    with pytest.raises(ZeroDivisionError):
        for _ in prefetched(itertools.count()):
            raise ZeroDivisionError
    gc.collect()
    assert wait_until(lambda: readers() == [])


def test_what_was_handed_on_is_not_held():
    class Buffer: ...

    import weakref

    items = prefetched(Buffer() for _ in range(10))
    first = weakref.ref(next(items))
    next(items)
    gc.collect()
    assert first() is None
    items.close()


def test_two_readers_are_independent():
    one, other = prefetched(iter(range(10))), prefetched(iter(range(10)))
    assert [next(one), next(one), next(other)] == [0, 1, 0]
    assert list(one) == list(range(2, 10))
    assert list(other) == list(range(1, 10))


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning")  # of JAX, where another test loaded it
def test_a_forked_process_says_that_the_thread_is_not_there():
    items = prefetched(itertools.count())
    next(items)
    child = os.fork()
    if child == 0:
        try:
            next(items)
        except ForkedError:
            os._exit(42)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 42
    assert next(items) == 1
    items.close()


def test_a_process_ends_though_a_reader_is_left():
    code = """
import itertools
from pymc.data_loading.prefetch import PrefetchQueue
items = PrefetchQueue(itertools.count(), size=1, timeout=None, name="x")
print(next(items))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert (done.stdout, done.stderr) == ("0\n", "")


# --- streams that stay open ---


def take(read, position, n_batches, n_used):
    """Take chunks of some batches, use the first of these only, and return the rows and the position."""
    chunks, rows = read(position, n_batches), []
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

    read, position, rows = loader().reader(), Position(), []
    for n_batches, n_used in [(1, 1), (30, 3), (4, 4), (20, 1), (2, 1), (25, 25), (9, 8)]:
        some, position = take(read, position, n_batches, n_used)
        rows += some
    (whole,) = (np.concatenate([c.rows for c in loader().chunks(n_batches=43)]),)
    if not (shuffle and one_shot):  # windows of an iterator are as long as what is asked for
        assert rows == whole.tolist()
    flat = list(itertools.chain(*rows))
    assert len(set(flat)) == len(flat) == 172


def test_a_window_is_read_once():
    source = numbers(*[10] * 10, as_parts=True)
    loader = DataLoader(source, 5, shuffle=True, seed=1, prefetch=0)
    read, position = loader.reader(), Position()
    for _ in range(5):
        _, position = take(read, position, 4, 4)
    assert sorted(source.reads) == list(range(10))
    take(read, Position(2, 10), 1, 1)  # elsewhere it is read anew
    assert len(source.reads) > 10


def test_no_more_is_read_than_wanted():
    source = numbers(*[1] * 100, one_shot=True)
    loader = DataLoader(source, 4, total_size=100)
    _, position = take(loader.chunks, Position(), 3, 2)
    time.sleep(0.05)
    assert source.rows_read == 12
    rows, _ = take(loader.chunks, position, 2, 2)
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
        take(loader.chunks, Position(), 4, 4)
    with pytest.raises(TimeoutError, match=r"timeout=0.05"):
        take(loader.chunks, Position(0, 8), 2, 2)
    assert len(readers()) == 1
    released.set()
    time.sleep(0.05)
    assert take(loader.chunks, Position(0, 8), 2, 2)[0] == [[8, 9, 10, 11], [12, 13, 14, 15]]


@pytest.mark.parametrize("one_shot", [False, True])
def test_the_thread_ends_with_the_stream(one_shot):
    loader = DataLoader(numbers(*[5] * 50, one_shot=one_shot), 5, total_size=250)
    read = loader.reader()
    take(read, Position(), 3, 3)
    assert len(readers()) == 1  # it waits
    del loader, read
    assert no_thread_is_left()
