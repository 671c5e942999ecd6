# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""A thread reads ahead, within bounds, and ends with whoever it reads for."""

import gc
import itertools
import os
import subprocess
import sys
import threading
import time
import traceback

from collections.abc import Callable, Iterator

import pytest

from pymc.data_loading.prefetch import ForkedError, read_ahead


def wait_until(condition: Callable[[], bool], seconds: float = 5.0) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.005)
    return condition()


def readers() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name == "pymc-read-ahead"]


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    assert wait_until(lambda: readers() == [])


def ahead(items, n_ahead=1, timeout=None):
    return read_ahead(items, n_ahead=n_ahead, timeout=timeout, name="the source")


@pytest.mark.parametrize("n_ahead", [0, 1, 3])
def test_items_in_order(n_ahead):
    assert list(ahead(iter(range(20)), n_ahead)) == list(range(20))


@pytest.mark.parametrize("n_ahead", [1, 3])
def test_no_more_is_read_than_asked_for(n_ahead):
    counter = itertools.count()
    made: list[int] = []
    items = ahead((made.append(i) or i for i in counter), n_ahead)
    assert made == [] and readers() == []  # nothing, before the first is asked for
    for i in range(5):
        assert next(items) == i
        wait_until(lambda: len(made) > i + n_ahead)
        time.sleep(0.02)
        assert len(made) == i + 1 + n_ahead
    items.close()


def test_errors_come_with_their_traceback():
    def broken():
        yield 1
        raise KeyError("row group 7")

    items = ahead(broken())
    assert next(items) == 1
    with pytest.raises(KeyError, match="row group 7") as caught:
        next(items)
    assert "broken" in "".join(traceback.format_tb(caught.tb))


def test_a_source_that_hangs():
    release = threading.Event()

    def hanging():
        yield 1
        release.wait()

    items = ahead(hanging(), timeout=0.05)
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

    items = ahead(endless())
    next(items)
    assert len(readers()) == 1
    end(items)
    del items
    gc.collect()
    assert wait_until(lambda: readers() == [])
    assert closed.is_set()


def test_the_thread_ends_when_the_reader_raises():
    with pytest.raises(ZeroDivisionError):
        for _ in ahead(itertools.count()):
            raise ZeroDivisionError
    gc.collect()
    assert wait_until(lambda: readers() == [])


def test_what_was_handed_on_is_not_held():
    class Buffer: ...

    import weakref

    items = ahead(Buffer() for _ in range(10))
    first = weakref.ref(next(items))
    next(items)
    gc.collect()
    assert first() is None
    items.close()


def test_two_readers_are_independent():
    one, other = ahead(iter(range(10))), ahead(iter(range(10)))
    assert [next(one), next(one), next(other)] == [0, 1, 0]
    assert list(one) == list(range(2, 10))
    assert list(other) == list(range(1, 10))


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning")  # of JAX, where another test loaded it
def test_a_forked_process_says_that_the_thread_is_not_there():
    items = ahead(itertools.count())
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
from pymc.data_loading.prefetch import read_ahead
items = read_ahead(itertools.count(), n_ahead=1, timeout=None, name="x")
print(next(items))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert (done.stdout, done.stderr) == ("0\n", "")
