# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Loaders: batches for users, and chunks of them for a trainer."""

import itertools
import json
import multiprocessing
import os
import pickle
import threading
import time
import warnings

import numpy as np
import pandas as pd
import pytest

import pymc as pm

from pymc.data_loading.batch import Position, StreamBatch
from pymc.data_loading.data_loader import DataLoader
from pymc.data_loading.sources.layout import ExhaustedSourceError
from tests.data_loading.rows import Blocks, numbers

ROWS = np.arange(40.0).reshape(20, 2)


def all_rows(batches) -> list[int]:
    return np.concatenate([np.asarray(batch) for batch in batches]).tolist()


def chunk_rows(loader, position=Position(), n_batches=None):
    """Return the rows of chunks, a batch a line, and the positions after each."""
    chunks = list(loader.chunks(position, n_batches))
    return np.concatenate([c.rows for c in chunks]), np.concatenate([c.positions for c in chunks])


def loader_rows(loader) -> list[int]:
    return all_rows(batch.rows for batch in loader)


def unread():
    raise AssertionError("it was read")


class TestSizes:
    @pytest.mark.parametrize(("drop_last", "n_batches"), [(True, 6), (False, 7)])
    def test_the_length_is_that_of_the_rows(self, drop_last, n_batches):
        loader = DataLoader(ROWS, 3, drop_last=drop_last)
        assert len(loader) == loader.n_rows == loader.total_size == 20
        assert loader.n_batches == n_batches == len(list(loader))

    def test_numpy_integers_become_int(self):
        loader = DataLoader(
            ROWS,
            np.int32(3),
            shuffle=True,
            buffer_size=np.int64(5),
            total_size=np.uint8(20),
            seed=np.int64(1),
        )
        sizes = (loader.batch_size, loader.buffer_size, loader.total_size, loader.seed)
        assert sizes == (3, 5, 20, 1)
        assert {type(size) for size in sizes} == {int}

    def test_public_names(self):
        assert pm.DataLoader is DataLoader is pm.data_loading.DataLoader

    def test_auto_asks_the_source(self):
        source = numbers(10, 10, n_rows=20)
        assert len(DataLoader(source, 4)) == 20
        assert source.reads == []

    def test_auto_counts_once(self):
        source = numbers(10, 0, 10)
        loader = DataLoader(source, 4, shuffle=True)
        assert len(loader) == 20
        assert source.rows_read == 30  # the first block again: the source can be read again
        list(loader)
        assert source.rows_read == 50

    @pytest.mark.parametrize("shuffle", [True, False])
    def test_nothing_is_read_before_iteration(self, shuffle):
        source = numbers(10, 10, as_parts=True)
        loader = DataLoader(source, 4, shuffle=shuffle)
        iterator, chunks = iter(loader), loader.chunks()
        assert source.reads == []
        next(iterator), next(chunks)
        assert source.reads != []
        iterator.close(), chunks.close()

    def test_auto_refuses_an_iterator(self):
        with pytest.raises(ValueError, match=r"total_size='auto' .* only once.* total_size=N"):
            DataLoader(numbers(10, one_shot=True), 4)

    def test_auto_refuses_what_cannot_be_read_again(self):
        used = iter([np.arange(4)])
        with pytest.raises(ValueError, match=r"total_size='auto' .* only once.* total_size=N"):
            len(DataLoader(lambda: used, 4))

    @pytest.mark.parametrize("source", [numbers(0, 0), numbers(0, as_parts=True)])
    def test_a_source_without_rows(self, source):
        with pytest.raises(ValueError, match="has none"):
            DataLoader(source, 4)
        with pytest.raises(ValueError, match="has none"):
            list(DataLoader(source, 4, total_size=10))

    @pytest.mark.parametrize(
        ("argument", "value", "error", "message"),
        [
            *((a, v, TypeError, f"{a}=.* whole number")
              for a in ("batch_size", "buffer_size", "total_size", "seed", "prefetch")
              for v in (True, 2.0, np.array([2, 3]))),
            *((a, v, ValueError, f"{a}={v} .* at least 1")
              for a in ("batch_size", "buffer_size", "total_size") for v in (0, -3)),
            ("seed", -1, ValueError, "seed=-1 .* at least 0"),
            ("batch_size", 21, ValueError, "batch_size=21 .* more than the 20 rows"),
            ("total_size", None, TypeError, "total_size=None .* not scaled"),
            ("total_size", "all", TypeError, "total_size='all' .* or 'auto'"),
            ("shuffle", 1, TypeError, "shuffle=1 .* True or False"),
            ("drop_last", None, TypeError, "drop_last=None .* True or False"),
            ("on_nan", "drop", ValueError, "on_nan='drop' .* 'raise', 'skip'"),
            ("on_nan", "keep", ValueError, "on_nan='keep' .* 'raise', 'skip'"),
            ("timeout", "1", TypeError, "timeout='1' .* number of seconds"),
            ("timeout", True, TypeError, "timeout=True .* number of seconds"),
            ("timeout", 0, ValueError, "timeout=0 .* must be above 0"),
            ("timeout", np.nan, ValueError, "timeout=nan .* must be finite and above 0"),
        ],
    )  # fmt: skip
    def test_bad_arguments(self, argument, value, error, message):
        with pytest.raises(error, match=message):
            DataLoader(ROWS, **{"batch_size": 4, "shuffle": True, argument: value})

    def test_a_buffer_without_a_shuffle(self):
        """It is for who sets `shuffle` by a flag: without it, nothing of the loader depends on it."""
        plain, other = DataLoader(ROWS, 4), DataLoader(ROWS, 4, shuffle=False, buffer_size=5)
        assert (other.buffer_size, other.identity) == (plain.buffer_size, plain.identity)
        assert repr(other) == repr(plain)
        np.testing.assert_equal(list(other), list(plain))

    def test_a_time_limit_needs_the_thread(self):
        with pytest.raises(ValueError, match=r"timeout=1 .* prefetch=1"):
            DataLoader(ROWS, 4, timeout=1, prefetch=0)


class TestIteration:
    def test_without_shuffle(self):
        batches = list(DataLoader(ROWS, 8, drop_last=False))
        assert [len(batch) for batch in batches] == [8, 8, 4]
        assert all(type(batch) is StreamBatch for batch in batches)
        assert np.array_equal(np.concatenate(batches), ROWS)
        assert all_rows(batch.rows for batch in batches) == list(range(20))

    def test_shuffled(self):
        loader = DataLoader(ROWS, 8, shuffle=True, seed=1, drop_last=False)
        batches = list(loader)
        assert all(np.array_equal(batch, ROWS[batch.rows]) for batch in batches)
        rows = all_rows(batch.rows for batch in batches)
        assert sorted(rows) == list(range(20)) != rows

    def test_each_pass_has_another_order_and_a_seed_has_its_own(self):
        def passes(seed, n=3):
            loader = DataLoader(numbers(7, 7, 6), 5, shuffle=True, seed=seed)
            return [all_rows(loader) for _ in range(n)]

        one = passes(1)
        assert len({tuple(rows) for rows in one}) == 3
        assert one == passes(1)
        assert one != passes(2)
        assert passes(None) != passes(None)

    def test_a_drawn_seed_is_kept(self):
        loader = DataLoader(numbers(20), 5, shuffle=True)
        assert all_rows(loader) == all_rows(
            DataLoader(numbers(20), 5, shuffle=True, seed=loader.seed)
        )

    def test_batches_own_their_memory(self):
        one, other, *_ = DataLoader(ROWS, 4)
        before = other.copy()
        one[:] = np.nan
        assert np.array_equal(other, before)
        assert one.base.nbytes == one.nbytes

    def test_batches_that_are_dicts(self):
        loader = DataLoader({"X": ROWS, "y": np.arange(20)}, 8, shuffle=True, seed=3)
        for batch in loader:
            assert set(batch) == {"X", "y"}
            assert np.array_equal(batch["X"], ROWS[batch["X"].rows])
            assert np.array_equal(batch["y"], batch["y"].rows)

    def test_two_iterations_at_once(self):
        loader = DataLoader(numbers(8, 12), 4, seed=1, shuffle=True)
        one, other = iter(loader), iter(loader)
        mixed = [(next(one), next(other)) for _ in range(5)]
        for batches in zip(*mixed, strict=True):
            assert sorted(all_rows(batches)) == list(range(20))

    def test_a_list_of_batches_and_truth(self):
        loader = DataLoader(ROWS, 4)
        assert len(list(loader)) == 5
        assert loader

    def test_threads_end_with_the_iteration(self):
        before = set(threading.enumerate())
        for batch in DataLoader(numbers(*[10] * 50), 4):
            break
        end = time.monotonic() + 5
        while any(t.name == "pymc-prefetch" for t in set(threading.enumerate()) - before):
            assert time.monotonic() < end
            time.sleep(0.01)

    @pytest.mark.parametrize("as_parts", [True, False])
    def test_a_source_that_hangs(self, as_parts):
        released = threading.Event()
        source = numbers(8, 8, as_parts=as_parts, n_rows=16)
        source.read = lambda part: released.wait() if part else Blocks.read(source, part)
        loader = DataLoader(source, 4, timeout=0.1)
        batches = iter(loader)
        assert len([next(batches), next(batches)]) == 2
        with pytest.raises(
            TimeoutError, match=r"data of DataLoader, Blocks\(16 rows\), gave .* timeout=0.1"
        ):
            next(batches)
        released.set()

    @pytest.mark.parametrize("total_size", ["auto", 10])
    def test_a_source_that_hangs_before(self, total_size):
        """While rows are counted, and at the first look at a block."""
        released = threading.Event()

        def hang():
            released.wait()
            yield np.zeros((10, 2))

        with pytest.raises(
            TimeoutError, match=r"Source\(hang, rows not counted\), gave no rows for timeout=0.1"
        ):
            DataLoader(hang, 4, total_size=total_size, timeout=0.1).layout
        released.set()
        assert DataLoader(hang, 4, timeout=10).layout.fields[0].shape == (2,)


class TestRepr:
    """What is read and how, in a line, and nothing is read for it."""

    @pytest.mark.parametrize(
        ("data", "arguments", "text"),
        [
            (
                ROWS,
                {},
                "DataLoader(ArraySource(20 rows, float64 of shape (2,) each), batch_size=4)",
            ),
            (
                {"X": np.zeros((9, 2)), "y": np.zeros(9)},
                {"shuffle": True, "buffer_size": 5, "seed": 1},
                "DataLoader(ArraySource(9 rows, fields 'X', 'y'), batch_size=4, shuffle=True, "
                "buffer_size=5, seed=1)",
            ),
            (
                unread,
                {"total_size": 7},
                "DataLoader(IterableSource(unread, rows not counted), batch_size=4, total_size=7)",
            ),
        ],
    )
    def test_loaders(self, data, arguments, text):
        assert repr(DataLoader(data, 4, **arguments)) == text

    def test_sources(self):
        frame = pd.DataFrame(np.zeros((3, 6)), columns=list("abcdef"))
        shuffled = pm.shuffle_buffer(frame, buffer_size=3, batch_size=2, seed=1)
        assert repr(shuffled) == (
            "shuffle_buffer(TableSource(3 rows, columns 'a', 'b', 'c', 'd', and 2 more), buffer_size=3, "
            "batch_size=2, seed=1)"
        )
        dataset = pm.IterableDataset(unread, n_rows=5, sample_shape=(2,))
        assert repr(dataset) == "IterableDataset(unread, n_rows=5, sample_shape=(2,))"


class TestTotals:
    @pytest.mark.parametrize("total_size", [15, 25])
    @pytest.mark.parametrize("as_parts", [True, False])
    def test_a_wrong_total_is_told_once(self, total_size, as_parts):
        loader = DataLoader(numbers(7, 13, as_parts=as_parts), 5, total_size=total_size)
        with pytest.warns(UserWarning, match=rf"total_size={total_size} .* seen 20 rows") as found:
            for _ in range(3):
                list(loader)
            list(loader.chunks(n_batches=20))
        assert len(found) == 1

    def test_with_the_last_batch_where_the_end_is_known(self):
        batches = iter(DataLoader(numbers(7, 13, as_parts=True), 5, total_size=25))
        list(itertools.islice(batches, 3))
        with pytest.warns(UserWarning, match="seen 20 rows"):
            next(batches)
        assert list(batches) == []

    @pytest.mark.parametrize("shuffle", [True, False])
    def test_chunks_that_stop_exactly_there(self, shuffle):
        loader = DataLoader(
            numbers(7, 13), 5, total_size=25, shuffle=shuffle, buffer_size=6 if shuffle else None
        )
        with pytest.warns(UserWarning, match="seen 20 rows"):
            list(loader.chunks(n_batches=4))

    @pytest.mark.parametrize("shuffle", [True, False])
    def test_not_after_a_part_of_a_pass(self, shuffle):
        loader = DataLoader(numbers(7, 14), 5, total_size=25, shuffle=shuffle)
        list(loader.chunks(n_batches=4))
        list(itertools.islice(loader, 3))
        with pytest.warns(UserWarning, match="seen 21 rows"):
            list(loader.chunks(n_batches=5))

    def test_a_right_total(self):
        loader = DataLoader(numbers(7, 13), 5, total_size=20)
        list(loader), list(loader.chunks(n_batches=9))

    def test_rows_that_were_skipped_do_not_count(self):
        source = Blocks([np.array([1.0, np.nan, 3.0, 4.0])])
        list(DataLoader(source, 2, total_size=3, on_nan="skip"))
        with pytest.warns(UserWarning, match=r"total_size=4 .* seen 3 rows, beside 1 that were"):
            list(DataLoader(source, 2, total_size=4, on_nan="skip"))


class TestChunks:
    def test_many_batches_in_one_buffer(self):
        (chunk,) = DataLoader(ROWS, 4).chunks(n_batches=5)
        (values,) = chunk.values
        assert values.shape == (5, 4, 2) and chunk.rows.shape == (5, 4)
        assert values.flags.c_contiguous and chunk.n_batches == 5
        assert np.array_equal(values.reshape(20, 2), ROWS)
        assert chunk.positions.tolist() == [[0, 4], [0, 8], [0, 12], [0, 16], [0, 20]]

    def test_a_rest_opens_the_next_pass(self):
        rows, positions = chunk_rows(DataLoader(ROWS, 8), n_batches=5)
        assert rows.ravel().tolist() == [*range(20), *range(20)]
        assert positions.tolist() == [[0, 8], [0, 16], [1, 4], [1, 12], [1, 20]]

    @pytest.mark.parametrize("n_batches", [1, 3, 7, 20])
    def test_so_many_and_no_more(self, n_batches):
        loader = DataLoader(numbers(7, 13), 5, shuffle=True, buffer_size=6)
        assert chunk_rows(loader, n_batches=n_batches)[0].shape == (n_batches, 5)

    def test_memory_is_used_again_after_release(self):
        def addresses(release):
            found = []
            for chunk in DataLoader(numbers(*[8] * 10), 4, shuffle=True, buffer_size=8).chunks(
                n_batches=20
            ):
                found.append(chunk.values[0].__array_interface__["data"][0])
                kept.append(chunk)
                if release:
                    chunk.release()
            return found

        kept: list = []
        released = addresses(True)
        assert len(set(released)) <= 2 < len(released)
        kept.clear()
        held = addresses(False)
        assert len(set(held)) == len(held)

    @pytest.mark.parametrize("shuffle", [True, False])
    def test_an_iterator_gives_no_more_rows_than_needed(self, shuffle):
        source = numbers(*[1] * 100, one_shot=True)
        loader = DataLoader(
            source, 4, total_size=100, shuffle=shuffle, buffer_size=30 if shuffle else None
        )
        rows, positions = chunk_rows(loader, n_batches=3)
        assert source.rows_read == 12
        assert sorted(rows.ravel()) == list(range(12))
        more, _ = chunk_rows(loader, Position(*positions[-1].tolist()), n_batches=5)
        assert sorted(more.ravel()) == list(range(12, 32))

    def test_an_iterator_that_ends_before(self):
        loader = DataLoader(numbers(10, one_shot=True), 4, total_size=10)
        rows, _ = chunk_rows(loader, n_batches=5)
        assert rows.ravel().tolist() == list(range(8))

    def test_an_iterator_is_read_once(self):
        loader = DataLoader(numbers(10, one_shot=True), 5, total_size=10)
        assert len(list(loader)) == 2
        with pytest.raises(ExhaustedSourceError, match="was read before"):
            list(loader)

    def test_a_source_that_is_empty_in_the_second_pass(self):
        source = numbers(10)
        source.blocks = lambda: iter(() if source.reads else [source.read(0)])
        chunks = DataLoader(source, 5, total_size=10).chunks()
        assert next(chunks).n_batches == 2
        with pytest.raises(ExhaustedSourceError, match=r"no rows in pass 1.* a new iterator"):
            next(chunks)

    def test_a_source_that_dies_has_given_what_came_before(self):
        source = numbers(8, 8, 8)
        source.read = lambda part: 1 / 0 if part == 2 else Blocks.read(source, part)
        chunks = DataLoader(source, 4, total_size=24).chunks(n_batches=6)
        assert [next(chunks).n_batches, next(chunks).n_batches] == [2, 2]
        with pytest.raises(ZeroDivisionError) as caught:
            next(chunks)
        assert "after block 1: 16 rows of this pass had come" in caught.value.__notes__[0]

    def test_an_endless_source(self):
        source = numbers(*[5] * 4)
        source.blocks = lambda: (source.read(i % 4) for i in itertools.count())
        loader = DataLoader(source, 5, total_size=1000)
        assert len(list(itertools.islice(loader, 30))) == 30
        assert chunk_rows(loader, n_batches=30)[0].shape == (30, 5)

    def test_positions_beyond_the_data(self):
        loader = DataLoader(ROWS, 4, shuffle=True)
        with pytest.raises(ExhaustedSourceError, match=r"row 21 of pass 0, .* only 20 rows"):
            next(loader.chunks(Position(0, 21)))

    def test_parts_before_a_position_are_not_read(self):
        source = numbers(*[10] * 10, as_parts=True)
        next(DataLoader(source, 5).chunks(Position(3, 75), n_batches=1))
        assert source.reads == [7]


class TestNaN:
    BLOCKS = np.arange(20.0).reshape(2, 5, 2)
    BLOCKS[0, 3, 1] = np.nan
    BLOCKS[1, [0, 4], 0] = np.inf

    @pytest.mark.parametrize("shuffle", [True, False])
    def test_raise_names_the_place(self, shuffle):
        loader = DataLoader(Blocks(self.BLOCKS), 2, total_size=10, shuffle=shuffle, seed=1)
        with pytest.raises(ValueError, match=r"block 0, row 3, column 1: .* on_nan='skip'"):
            list(loader)

    @pytest.mark.parametrize("buffer_size", [1, 3, 10])
    @pytest.mark.parametrize("shuffle", [True, False])
    def test_skip_counts(self, shuffle, buffer_size):
        loader = DataLoader(
            Blocks(self.BLOCKS),
            2,
            total_size=7,
            shuffle=shuffle,
            buffer_size=buffer_size if shuffle else None,
            seed=1,
            on_nan="skip",
            drop_last=False,
        )
        batches = list(loader)
        kept = self.BLOCKS.reshape(10, 2)[[0, 1, 2, 4, 6, 7, 8]]
        assert np.array_equal(np.sort(np.concatenate(batches), axis=0), kept)
        assert {batch.rows is None for batch in batches} == {True}
        assert np.isfinite(np.concatenate(batches)).all()
        assert loader.n_skipped == 3

    @pytest.mark.parametrize("shuffle", [True, False])
    def test_resume_among_skipped_rows(self, shuffle):
        def loader():
            return DataLoader(
                Blocks(self.BLOCKS),
                2,
                total_size=7,
                shuffle=shuffle,
                buffer_size=4 if shuffle else None,
                seed=1,
                on_nan="skip",
            )

        rows, positions = chunk_rows(loader(), n_batches=12)
        for k in range(11):
            rest, _ = chunk_rows(loader(), Position(*positions[k].tolist()), n_batches=11 - k)
            assert np.array_equal(rest, rows[k + 1 :])

    def test_bad_rows_at_the_end_of_a_pass_are_used_up(self):
        source = Blocks([np.array([1.0, 2.0, 3.0, 4.0, np.nan])])
        loader = DataLoader(source, 2, on_nan="skip")
        assert chunk_rows(loader, n_batches=3)[1].tolist() == [[0, 2], [0, 5], [1, 2]]

    @pytest.mark.parametrize("as_parts", [True, False])
    def test_auto_counts_the_finite_rows(self, as_parts):
        source = Blocks(self.BLOCKS, as_parts=as_parts)
        loader = DataLoader(source, 2, on_nan="skip", shuffle=True, buffer_size=10, seed=1)
        assert (len(loader), loader.total_size, loader.n_batches) == (7, 7, 3)
        assert loader.buffer_size == 10  # rows are shuffled before some are left out
        list(loader)

    def test_integers_are_not_counted(self):
        source = numbers(10, 10, as_parts=True)
        assert len(DataLoader(source, 2, on_nan="skip")) == 20
        assert source.reads == []

    def test_auto_with_nothing_finite(self):
        with pytest.raises(ValueError, match="on_nan='skip' of DataLoader would leave out all 4"):
            DataLoader(Blocks([np.full(4, np.nan)]), 2, on_nan="skip")

    @pytest.mark.parametrize(("shuffle", "n_skipped"), [(False, 6), (True, 9)])
    def test_skipped_rows_count_once_a_pass(self, shuffle, n_skipped):
        """Two passes and a batch, of which a shuffled window is that of a whole pass."""

        def loader(blocks=self.BLOCKS):
            return DataLoader(
                Blocks(blocks),
                2,
                shuffle=shuffle,
                buffer_size=10 if shuffle else None,
                seed=1,
                on_nan="skip",
            )

        one, position, third = loader(), Position(), Position()
        for k in range(8):
            chunk = next(one.chunks(position, 1))
            position = Position(*chunk.positions[-1].tolist())
            third = position if k == 2 else third
        assert (position.epoch, one.n_skipped) == (2, n_skipped)
        order = chunk_rows(loader(np.zeros((2, 5, 2))), n_batches=5)[0].ravel()
        n_before = len({3, 5, 9}.intersection(order[: third.row].tolist()))
        resumed = loader()
        list(resumed.chunks(third, n_batches=5))
        assert resumed.n_skipped == n_skipped - n_before

    def test_nothing_is_left(self):
        source = Blocks([np.full(4, np.nan)])
        with pytest.raises(ValueError, match="all 4 rows of a pass were skipped"):
            next(DataLoader(source, 2, total_size=4, on_nan="skip").chunks())


class TestProcesses:
    def test_pickle(self):
        loader = DataLoader(numbers(8, 12), 4, shuffle=True)
        batches = iter(loader)
        next(batches)
        same = pickle.loads(pickle.dumps(loader))
        expected, _ = chunk_rows(loader, n_batches=7)
        assert np.array_equal(chunk_rows(same, n_batches=7)[0], expected)
        assert all_rows(same) == all_rows(loader)

    @pytest.mark.slow
    def test_spawn(self):
        loader = DataLoader(ROWS, 4, shuffle=True, seed=1)
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            (found,) = pool.map(loader_rows, [loader])
        assert found == loader_rows(loader)

    @pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
    @pytest.mark.filterwarnings(
        "ignore:os.fork:RuntimeWarning"
    )  # of JAX, where another test loaded it
    def test_chunks_go_on_after_a_fork(self):
        loader = DataLoader(numbers(*[4] * 5), 4, seed=1, shuffle=True, buffer_size=4, timeout=10)
        expected, _ = chunk_rows(loader, n_batches=15)
        chunks = loader.chunks(n_batches=15)
        found = [next(chunks).rows]
        child = os.fork()
        found += [chunk.rows for chunk in chunks]
        same = np.array_equal(np.concatenate(found), expected)
        if child == 0:
            os._exit(42 if same else 1)
        assert same
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 42


class TestIdentity:
    def test_json(self):
        identity = DataLoader(numbers(20), 4, shuffle=True, seed=7, buffer_size=9).identity
        assert json.loads(json.dumps(identity)) == {
            "kind": "blocks",
            "total_size": 20,
            "batch_size": 4,
            "shuffle": True,
            "on_nan": "raise",
            "buffer_size": 9,
            "seed": 7,
        }

    def test_a_drawn_seed_of_an_order_that_needs_none(self):
        assert DataLoader(numbers(20), 4).identity == DataLoader(numbers(20), 4).identity


class TestData:
    """What users give, by way of `as_source`."""

    def test_a_dataset_of_blocks(self):
        dataset = pm.IterableDataset(lambda: iter([ROWS[:3], ROWS[:0], ROWS[3:]]))
        loader = DataLoader(dataset, 8, shuffle=True, seed=1, drop_last=False)
        assert len(loader) == 20
        assert sorted(all_rows(batch.rows for batch in loader)) == list(range(20))

    @pytest.mark.parametrize(
        ("bad", "message"),
        [
            (np.ones((4, 3)), r"\(4, 3\)"),
            (np.array([["a", "b"]]), "dtype"),
            (np.float64(1.0), "number"),
        ],
    )
    def test_blocks_that_do_not_fit_are_named(self, bad, message):
        dataset = pm.IterableDataset(lambda: iter([ROWS, bad]), n_rows=24)
        batches = iter(DataLoader(dataset, 4))
        with pytest.raises((TypeError, ValueError), match=message):
            list(batches)


class TestBatches:
    BATCH = StreamBatch.of(np.arange(8.0).reshape(4, 2), np.array([7, 5, 3, 1]))

    @pytest.mark.parametrize(
        ("index", "rows"),
        [
            (slice(1, 3), [5, 3]),
            ((slice(None), 0), [7, 5, 3, 1]),
            ((slice(None, None, -1), slice(1)), [1, 3, 5, 7]),
            ([0, 2], [7, 3]),
            (np.array([True, False, False, True]), [7, 1]),
            (0, None),
            (..., [7, 5, 3, 1]),
            ((0, slice(None)), None),
            (([0, 1], [0, 1]), None),
            (None, None),
        ],
    )
    def test_rows_of_some(self, index, rows):
        found = self.BATCH[index].rows
        assert (None if found is None else found.tolist()) == rows

    @pytest.mark.parametrize("change", [lambda b: b.T, lambda b: b * 2, np.sort, np.ravel])
    def test_rows_of_what_may_be_others(self, change):
        assert change(self.BATCH).rows is None

    def test_pickle(self):
        same = pickle.loads(pickle.dumps(self.BATCH))
        assert np.array_equal(same, self.BATCH) and np.array_equal(same.rows, self.BATCH.rows)


def test_no_warning_is_lost_in_a_thread():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loader = DataLoader(numbers(10), 5, total_size=11)
        with pytest.raises(UserWarning, match="total_size=11"):
            list(loader)


@pytest.mark.parametrize("on_nan", ["raise", "skip"])
def test_some_fields_of_all_rows(on_nan):
    """The rows of a pass, once each, whatever the batches and their order are."""
    x = np.arange(10.0)
    x[[2, 7]] = np.nan
    data = {"x": x, "user": np.arange(10), "z": np.zeros(10)}
    loader = DataLoader(data, batch_size=3, shuffle=True, on_nan=on_nan, total_size=10)
    if on_nan == "skip":
        users = np.concatenate([part["user"] for part in loader.read_fields(["user"])])
        np.testing.assert_array_equal(users, [0, 1, 3, 4, 5, 6, 8, 9])
    else:
        with pytest.raises(ValueError, match=r"row 2, field 'x': the value is missing"):
            list(loader.read_fields(["x"]))
