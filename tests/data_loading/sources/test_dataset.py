# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Sources of whatever a loader can be given: the rows they have, and what they refuse."""

import itertools
import json
import pickle

from types import SimpleNamespace

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hypothesis import given

import pymc as pm

from pymc.data_loading.data_loader import DataLoader, open_rows, shuffle_buffer
from pymc.data_loading.sources.arrow import arrow_source
from pymc.data_loading.sources.dataset import (
    IterableDataset,
    as_source,
    check_torch_loader,
    shuffles,
)
from pymc.data_loading.sources.layout import BlockSource, ExhaustedSourceError
from pymc.data_loading.sources.parquet import parquet_source
from pymc.variational.placeholders import as_loader

X = np.arange(60.0).reshape(20, 3)


@pytest.mark.parametrize("shape", [None, (3,)])
def test_a_source_is_iterated_block_by_block(shape, tmp_path):
    """What the loader of pymc-extras reads: arrays of rows, again at each pass, and `n_rows`."""
    pq.write_table(pa.table(dict(zip("abc", X.T))), tmp_path / "part.parquet", row_group_size=8)
    parquet = parquet_source(tmp_path)
    blocks = as_source(lambda: iter([X[:8], X[8:16], X[16:]]), sample_shape=shape)
    for source in (parquet, blocks):
        for _ in range(2):
            found = list(source)
            assert [len(block) for block in found] == [8, 8, 4]
            np.testing.assert_array_equal(np.concatenate(found), X)
    assert parquet.n_rows == 20
    [named] = as_source({"x": X, "y": X[:, 0]})
    np.testing.assert_array_equal(named["y"], X[:, 0])


class Tensor:
    """As much of a tensor of torch as NumPy sees."""

    def __init__(self, value, requires_grad=False):
        self.value, self.requires_grad = np.asarray(value), requires_grad
        self.shape, self.dtype = self.value.shape, f"torch.{self.value.dtype}"

    def __array__(self, dtype=None, copy=None):
        if self.requires_grad:
            raise RuntimeError("Can't call numpy() on Tensor that requires grad.")
        return self.value

    def __len__(self):
        return len(self.value)


class Samples:
    """A dataset in the manner of torch, with no ``__iter__``."""

    def __init__(self, samples):
        self.samples = samples

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, i):
        return self.samples[i]


class Stored:
    """As much as h5py's and zarr's arrays share: they are read by slices."""

    def __init__(self, value, chunks=None):
        self._value, self.chunks, self.n_read = value, chunks, 0
        self.shape, self.dtype = value.shape, value.dtype

    def __getitem__(self, rows):
        assert isinstance(rows, slice)
        self.n_read += len(self._value[rows])
        return self._value[rows]

    def __array__(self, dtype=None, copy=None):
        raise MemoryError("all of it at once")


class SizedStream(IterableDataset):
    """As those of torch: with a ``__getitem__`` that only raises."""

    def __getitem__(self, i):
        raise NotImplementedError

    def __len__(self):
        return len(X)


def torch_loader(dataset, batch_size=7):
    return SimpleNamespace(dataset=dataset, batch_size=batch_size)


def write_all(layout, blocks):
    """Return all rows of blocks, each written to its place in one array a field."""
    blocks = list(blocks)
    out = layout.empty(sum(block.n_rows for block in blocks))
    at = 0
    for block in blocks:
        assert block.n_rows > 0
        assert block.write(out, at, 0, block.n_rows)
        at += block.n_rows
    return layout.batch(out)


def rows_of(source):
    """Return all rows, which are the same in a second pass and in parts."""
    first = write_all(source.layout, source.blocks())
    parts = source.part_lengths
    again = source.blocks() if parts is None else [source.read(i) for i in range(len(parts))]
    np.testing.assert_equal(write_all(source.layout, again), first)
    json.dumps(source.identity)
    return first


def as_blocks(array, *stops):
    return np.split(array, stops)


@pytest.mark.parametrize(
    ["data", "n_rows"],
    [
        pytest.param(X, 20, id="array"),
        pytest.param(np.asfortranarray(X), 20, id="columns"),
        pytest.param(X.astype(">f8"), 20, id="byte order"),
        pytest.param(Tensor(X), 20, id="tensor"),
        pytest.param(pd.DataFrame(X), 20, id="frame"),
        pytest.param(as_blocks(X, 1, 1, 7), None, id="blocks"),
        pytest.param([X[:0], X, np.empty(0)], None, id="empty blocks"),
        pytest.param([X[:5].astype(">f8"), X[5:]], None, id="blocks of two byte orders"),
        pytest.param([X[:5], X[5:].astype(">f8")], None, id="blocks of other byte orders"),
        pytest.param(lambda: iter(as_blocks(X, 5)), None, id="factory"),
        pytest.param(lambda: X, None, id="factory of an array"),
        pytest.param(lambda: pd.DataFrame(X), None, id="factory of a frame"),
        pytest.param(lambda: {"": X}, None, id="factory of a dict"),
        pytest.param(IterableDataset(lambda: as_blocks(X, 5), n_rows=20), 20, id="dataset"),
        pytest.param(IterableDataset(as_blocks(X, 5)), None, id="dataset of blocks"),
        pytest.param(IterableDataset(list(X), sample_shape=(3,)), None, id="dataset of rows"),
        pytest.param([b.tolist() for b in as_blocks(X, 5)], None, id="lists"),
        pytest.param([pd.DataFrame(b) for b in as_blocks(X, 5)], None, id="frames"),
        pytest.param(torch_loader(SimpleNamespace(tensors=(Tensor(X),))), 20, id="TensorDataset"),
        pytest.param(torch_loader(as_source(X)), 20, id="source in a loader"),
        pytest.param(torch_loader(pd.DataFrame(X)), 20, id="frame in a loader"),
        pytest.param(torch_loader(Samples(list(map(Tensor, X)))), 20, id="samples"),
        pytest.param(torch_loader(Samples([(row,) for row in X])), 20, id="samples in tuples"),
        pytest.param(Samples(list(X)), 20, id="dataset of samples"),
        pytest.param(torch_loader(list(X)), 20, id="list of samples"),
        pytest.param(torch_loader(IterableDataset(lambda: iter(X))), None, id="stream of samples"),
        pytest.param(torch_loader(IterableDataset([X]), None), None, id="stream of batches"),
        pytest.param(torch_loader(SizedStream(lambda: iter(X))), 20, id="sized stream"),
    ],
)
def test_rows(data, n_rows):
    source = as_source(data)
    assert source.n_rows == n_rows
    assert source.layout.fields[0].shape == (3,)
    np.testing.assert_array_equal(rows_of(source), X)


NAMED = {"X": X, "y": np.arange(20)}


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(NAMED, id="arrays"),
        pytest.param(
            [{k: v[i:j] for k, v in NAMED.items()} for i, j in [(0, 3), (3, 20)]], id="blocks"
        ),
        pytest.param(lambda: ({"y": y, "X": x} for x, y in zip(*NAMED.values())), id="rows"),
        pytest.param(Samples([{"X": x, "y": y} for x, y in zip(*NAMED.values())]), id="samples"),
    ],
)
def test_named_rows(data):
    shape = {"X": (3,), "y": ()} if callable(data) else None
    rows = rows_of(as_source(data, sample_shape=shape))
    assert set(rows) == set(NAMED)
    for name, expected in NAMED.items():
        np.testing.assert_array_equal(rows[name], expected)
        assert rows[name].dtype == expected.dtype


@pytest.mark.parametrize(
    "data",
    [
        [(X[:5], X[:5, 0]), (X[5:], X[5:, 0])],
        torch_loader(SimpleNamespace(tensors=(Tensor(X), Tensor(X[:, 0])))),
        torch_loader(Samples([(Tensor(x), x[0]) for x in X])),
        torch_loader(Samples([(Tensor(x), float(x[0])) for x in X])),
    ],
    ids=["blocks", "TensorDataset", "samples", "samples with numbers"],
)
def test_tuples_are_named_by_place(data):
    rows = rows_of(as_source(data))
    np.testing.assert_array_equal(rows["0"], X)
    np.testing.assert_array_equal(rows["1"], X[:, 0])


@given(
    array=hnp.arrays("f4", st.tuples(st.integers(1, 30), st.integers(1, 3), st.integers(1, 2))),
    stops=st.lists(st.integers(0, 30), max_size=6).map(sorted),
)
def test_blocks_of_any_size(array, stops):
    array = np.nan_to_num(array, posinf=0, neginf=0)
    np.testing.assert_array_equal(rows_of(as_source(as_blocks(array, *stops))), array)
    np.testing.assert_array_equal(rows_of(as_source(array)), array)


def test_memory_map_is_neither_flattened_nor_copied(tmp_path):
    mapped = np.memmap(tmp_path / "rows", "f4", "w+", shape=(300_000, 3, 2))
    mapped[:] = np.arange(300_000)[:, None, None]
    source = as_source(mapped)
    assert source.n_rows == 300_000
    assert source.layout.fields[0].shape == (3, 2)
    assert len(source.part_lengths) > 1
    assert np.shares_memory(source.read(1).columns[0][0], mapped)
    np.testing.assert_array_equal(rows_of(source), mapped)


@pytest.mark.parametrize("n_rows", [None, 4])
def test_rows_or_blocks_by_sample_shape(n_rows):
    numbers = [1.0, 2.0, 3.0, 4.0]
    dataset = IterableDataset(numbers, n_rows=n_rows, sample_shape=())
    assert as_source(dataset).n_rows == n_rows
    np.testing.assert_array_equal(rows_of(as_source(dataset)), numbers)
    mixed = [X[0], X[1:5], X[5]]
    np.testing.assert_array_equal(rows_of(as_source(mixed, sample_shape=(3,))), X[:6])
    assert as_source(np.ones((4, 2)), sample_shape=[2]).n_rows == 4
    assert as_source([np.arange(4.0)]).layout.fields[0].shape == ()


@pytest.mark.parametrize("data", [{"X": X}, [{"X": X}], X, [X]])
def test_sample_shape_of_other_names(data):
    named = isinstance(data, dict) or isinstance(data[0], dict)
    shape, there = ((3,), "'X'") if named else ({"y": (3,)}, "one array")
    with pytest.raises(ValueError, match=f"sample_shape=.* does not fit .*, which has {there}"):
        rows_of(as_source(data, sample_shape=shape))


ROWS_OF_THREE = {
    "array": X,
    "source": as_source(X),
    "stream": as_source(lambda: iter([X])),
    "arrow": pa.table({c: X[:, j] for j, c in enumerate("abc")}),
    "frame": pd.DataFrame(X),
    "frames": [pd.DataFrame(X)],
    "samples": Samples(list(X)),
    "torch": torch_loader(Samples(list(X))),
    "shuffled": shuffle_buffer(X, buffer_size=5, batch_size=2),
    "shuffled stream": shuffle_buffer(lambda: iter([X]), buffer_size=5, batch_size=2),
}


@pytest.mark.parametrize("kind", ROWS_OF_THREE)
def test_sample_shape_has_to_agree(kind):
    rows = ROWS_OF_THREE[kind]
    assert next(iter(DataLoader(rows, batch_size=4, sample_shape=(3,)))).shape == (4, 3)
    for wrong in [(4,), (), (3, 1)]:
        message = r"sample_shape=.*contradicts .*shape \(3,\): write that|sample_shape=\("
        with pytest.raises(ValueError, match=message):
            next(iter(DataLoader(rows, batch_size=4, sample_shape=wrong)))
    with pytest.raises(ValueError, match="which has one array: write the shape of one row"):
        next(iter(DataLoader(rows, batch_size=4, sample_shape={"X": (3,)})))


def test_sample_shapes_of_fields_have_to_agree():
    table = pa.table({"a": [1.0], "b": [2.0], "y": [3]})
    source = arrow_source(table, {"X": ["a", "b"], "y": "y"})
    assert as_source(source, sample_shape={"X": (2,), "y": ()}) is source
    with pytest.raises(ValueError, match=r"contradicts .* shape {'X': \(2,\), 'y': \(\)}"):
        as_source(source, sample_shape={"X": (2,), "y": (1,)})
    with pytest.raises(
        ValueError, match="which has 'X', 'y': write a dict of the shape of a row for each"
    ):
        as_source(source, sample_shape=(3,))


def test_class_with_iter():
    class Noise(IterableDataset):
        n_rows = 8
        sample_shape = (2,)

        def __init__(self):
            pass

        def __iter__(self):
            return iter(np.ones((8, 2)))

    source = as_source(Noise())
    assert source.n_rows == 8
    assert rows_of(source).shape == (8, 2)


def test_blocks_are_opened_once_more_for_each_pass():
    opened = []

    def blocks():
        opened.append(1)
        yield from as_blocks(X, 4, 9)

    source = as_source(blocks)
    assert not opened
    assert source.layout.fields[0].dtype == np.float64  # the pass that is begun here is the first
    for n_passes in (1, 2):
        assert sum(block.n_rows for block in source.blocks()) == 20
        assert len(opened) == n_passes


def test_infinite_blocks():
    source = as_source(lambda: itertools.repeat(X))
    assert sum(block.n_rows for block in itertools.islice(source.blocks(), 5)) == 100


def test_one_shot_is_read_once_and_nothing_is_lost():
    source = as_source(iter(as_blocks(X, 4)))
    assert source.one_shot
    np.testing.assert_array_equal(write_all(source.layout, source.blocks()), X)
    with pytest.raises(ExhaustedSourceError, match="can be read only once"):
        next(source.blocks())


def test_factory_of_a_used_iterator():
    blocks = iter(as_blocks(X, 4))
    source = as_source(lambda: blocks)
    np.testing.assert_array_equal(write_all(source.layout, source.blocks()), X)
    with pytest.raises(ExhaustedSourceError, match="gave the iterator that it had given before"):
        next(source.blocks())


def test_source_that_restarts_empty():
    blocks = iter(as_blocks(X, 4))
    source = as_source(lambda: (block for block in blocks))
    np.testing.assert_array_equal(write_all(source.layout, source.blocks()), X)
    with pytest.raises(ExhaustedSourceError, match="is empty at the next pass"):
        next(source.blocks())


def test_nothing_is_kept_of_a_block():
    import gc
    import weakref

    made = []

    def blocks():
        for _ in range(3):
            block = np.ones((4, 2))
            made.append(weakref.ref(block))
            yield block
            del block

    for block in as_source(blocks).blocks():
        del block
        gc.collect()
        assert sum(ref() is not None for ref in made[:-1]) == 0


@pytest.mark.parametrize("data", [X, pd.DataFrame(X), Samples(list(X)), as_blocks(X, 5)])
def test_identity_tells_data_sets_apart(data):
    identity = as_source(data).identity
    assert identity == as_source(data).identity
    other = np.vstack([X, X]) if not isinstance(data, list) else [X.astype("f4")]
    assert as_source(other).identity != identity


def test_identity_of_arrays_sees_values():
    changed = X.copy()
    changed[-1, -1] = 7
    for make in (np.asarray, pd.DataFrame):
        assert as_source(make(changed)).identity != as_source(make(X)).identity


def read_some():
    return [X[:4], X[4:]]


@pytest.mark.parametrize(
    "data",
    [X, pd.DataFrame(X), [X], read_some, IterableDataset(read_some), torch_loader(list(X))],
)
def test_sources_go_to_other_processes(data):
    source = as_source(data)
    rows_of(source)
    np.testing.assert_array_equal(rows_of(pickle.loads(pickle.dumps(source))), X)


def test_source_is_its_own_source():
    source = as_source(X)
    assert as_source(source) is source


def test_rows_that_are_not_finite_are_named():
    bad = X.copy()
    bad[[3, 5], 1] = np.nan, np.inf
    block = as_source(bad).read(0)
    assert not block.write((np.empty((20, 3)),), 0, 0, 20)
    assert list(map(str, block.bad_rows(4, 20))) == ["row 5, column 1"]
    block = as_source(pd.DataFrame(bad, columns=list("abc"))).read(0)
    assert list(map(str, block.bad_rows(0, 20))) == ["row 3, column 'b'", "row 5, column 'b'"]


FRAME = pd.DataFrame({"a": np.arange(4, dtype="i2"), "b": [True, False, True, True]})


def test_columns_of_a_frame():
    frame = FRAME.assign(c=pd.array([1, 2, 3, 4], dtype="Int16"), d=np.float32(0.5))
    source = as_source(frame)
    (field,) = source.layout.fields
    assert field.columns == ("a", "b", "c", "d")
    assert field.dtype == np.float32
    np.testing.assert_array_equal(rows_of(source), frame.to_numpy(dtype="f4"))


@pytest.mark.parametrize(
    ["frame", "error", "match"],
    [
        (
            FRAME.assign(c="x"),
            ValueError,
            r"column 'c' of the DataFrame is of type str.*columns=\[...\]",
        ),
        (
            FRAME.assign(c=pd.array([2**60, None, 3, 4], dtype="Int64")),
            ValueError,
            "column 'c' got integers .*1152921504606846976, not all of which float64 can hold",
        ),
        (
            FRAME.assign(c=2**60, d=0.5),
            ValueError,
            r"column 'c', row 0: 1152921504606846976 is beyond 2\*\*53",
        ),
        (FRAME[:0], ValueError, "the DataFrame has no rows"),
        (
            pd.concat([FRAME, FRAME], axis=1),
            ValueError,
            "the DataFrame has 2 columns called 'a'",
        ),
    ],
)
def test_bad_frame(frame, error, match):
    with pytest.raises(error, match=match):
        rows_of(as_source(frame))


@pytest.mark.parametrize(
    ["data", "sample_shape", "error", "match"],
    [
        ("flights/", None, TypeError, "'flights/' is a path: open it as pm.parquet_source"),
        (3, None, TypeError, "rows cannot come from a int: give an array"),
        (np.float64(3), None, ValueError, "data is array.*a number: rows are along the first axis"),
        (np.zeros((0, 3)), None, ValueError, "data has no rows"),
        (np.zeros((4, 0)), None, ValueError, r"shape \(4, 0\): its rows are empty"),
        (np.array(["a"]), None, TypeError, "data has dtype <U1, and a model computes with numbers"),
        (np.zeros(3, "M8[s]"), None, TypeError, "data has dtype datetime64"),
        (np.ma.masked_equal([1, 2], 2), None, ValueError, "data has masked values"),
        (X, (4,), ValueError, r"rows have shape \(3,\), and not sample_shape=\(4,\)"),
        (X, 3, TypeError, "sample_shape=3 has to be the shape of one row"),
        (X, (0,), ValueError, "sample_shape=0 of a loader must be at least 1"),
        (X, (2.0,), TypeError, "sample_shape=2.0 of a loader must be a whole number"),
        ({}, None, ValueError, "data is empty"),
        ({"X": X, "y": X[:5]}, None, ValueError, "different numbers of rows: {'X': 20, 'y': 5}"),
        (Tensor(X, requires_grad=True), None, TypeError, "cannot be read as an array.*requires grad"),
        ([1.0, 2.0], None, ValueError, r"block 0 is the number 1.0.*sample_shape=\(\)"),
        ([np.array(1.0)], None, ValueError, "block 0 is the number 1.0"),
        ([], None, ValueError, "the source has no rows: it has no blocks"),
        ([X[:0], X[:0]], None, ValueError, "no blocks, or only empty ones"),
        ([X, X[:, :2]], None, ValueError, r"block 1 has shape \(20, 2\).*those of block 0 have shape \(3,\)"),
        ([X, X[0]], None, ValueError, r"single|one row, say so: sample_shape=\(3,\)"),
        ([X, X.astype("f4")], None, TypeError, r"block 1 has dtype float32.*astype\('float64'\)"),
        (iter([[1, 2], [1.5, 2]]), None, TypeError, r"block 1 has dtype float64.*astype\('float64'\)"),
        ([[1.5, 2], [2**60, 2]], (), ValueError, r"block 1 got integers .* not all of which float64"),
        ({"": X, "y": X}, None, ValueError, r"called \['', 'y'\]: '' names a single array"),
        ([{"": X, "y": X}], None, ValueError, r"called \['', 'y'\]"),
        (Samples([{"": 1.0, "y": 2.0}]), None, ValueError, r"called \['', 'y'\]"),
        (pl.Series([None, "a"]), None, TypeError, "data has dtype .*, and a model computes with numbers"),
        ([pd.Series([1]), pd.Series([None], dtype="Int64")], None, TypeError, "block 1 has dtype float64"),
        (
            iter([pd.DataFrame({"a": pd.array([1, n], dtype="Int64")}) for n in (2, None)]),
            None, ValueError, "block 1, column 'a', row 1: the value is missing",
        ),
        (pd.Series(["a"]), None, TypeError, "data has dtype .*, and a model computes with numbers"),
        (Stored(np.array(["a"])), None, TypeError, "data has dtype <U1"),
        (Stored(X[:0]), None, ValueError, "data has no rows"),
        ({"X": Stored(X), "y": X[:5]}, None, ValueError, "different numbers of rows: {'X': 20, 'y': 5}"),
        ([X, {"X": X}], None, ValueError, "block 1 has 'X', and block 0 has one array"),
        ([{"X": X}, {"Z": X}], None, ValueError, "block 1 has 'Z', and block 0 has 'X'"),
        ([{"X": X, "y": X[:3, 0]}], None, ValueError, "arrays of block 0 have different numbers of rows"),
        ([X, X[:, :2]], (3,), ValueError, r"block 1 has shape \(20, 2\): by sample_shape=\(3,\)"),
        ([X, [["a", "b", "c"]]], None, TypeError, "block 1 has dtype <U1"),
        ([[[1], [2, 3]]], None, TypeError, "block 0, of type list, cannot be read as an array"),
        ([FRAME, FRAME.assign(c=1)], None, ValueError, "block 1 has 'c', which block 0 does not have"),
        ([FRAME, FRAME.astype("f8") + 0.5], None, ValueError, r"block 1, column 'a', row 0: \d.5 is no int16"),
        ([(X[0], X[0, :2])], None, ValueError, r"say what .*: sample_shape={'0': \(3,\), '1': \(2,\)}"),
        ([{"X": X}], (3,), ValueError, r"has 'X': write a dict of .*, such as {'X': \(3,\)}"),
        (X, {"x": (3,)}, ValueError, r"has one array: write the shape of one row, such as \(3,\)"),
        ([FRAME, X], None, TypeError, "block 1 is a ndarray, and those before were data frames"),
        (lambda: 3, None, TypeError, "the function that opens the data returned a int"),
        (torch_loader(Samples([])), None, ValueError, "no rows: its length is 0"),
        (torch_loader(Samples([X[0], X[0, :2]])), None, ValueError, "sample 1 is not like sample 0"),
        (torch_loader(Samples([X[0], X[1].astype("f4")])), None, ValueError, "sample 1 is not like"),
        (torch_loader(Samples([X[0]] * 1024 + [X])), None, ValueError, "sample 1024 is not like sample 0"),
    ],
)  # fmt: skip
def test_bad_data(data, sample_shape, error, match):
    with pytest.raises(error, match=match):
        rows_of(as_source(data, sample_shape=sample_shape))


@pytest.mark.parametrize("n_rows", [0, -1, 2.5, True])
def test_bad_number_of_rows(n_rows):
    with pytest.raises((TypeError, ValueError), match=r"n_rows=.* of IterableDataset must be"):
        IterableDataset([X], n_rows=n_rows)
    with pytest.raises((TypeError, ValueError), match=r"n_rows=.* of Blocks must be"):
        as_source(type("Blocks", (list,), {"n_rows": n_rows})())


def test_dataset_of_nothing():
    with pytest.raises(TypeError, match="blocks of IterableDataset is of type ndarray"):
        IterableDataset(X)
    with pytest.raises(TypeError, match="blocks of IterableDataset is of type int"):
        IterableDataset(3)
    with pytest.raises(TypeError, match=r"Empty has no blocks.*define __iter__"):
        iter(type("Empty", (IterableDataset,), {})())


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize(
    "column",
    [
        pd.Series([1.0, 2.0, 3.0], index=[5, 1, 2]),
        pd.Series([1, 2, 3], dtype="Int64"),
        pl.Series("a", [1.0, 2.0, 3.0]),
        pa.chunked_array([[1.0, 2.0], [3.0]]),
        pa.array([1.0, 2.0, 3.0]),
    ],
    ids=["pandas", "nullable", "polars", "chunks", "Arrow"],
)
def test_one_column_is_an_array(column, whole):
    for data in [column] if whole else [[column], lambda: column, lambda: iter([column])]:
        source = as_source(data)
        assert source.layout.fields[0].shape == ()
        np.testing.assert_array_equal(rows_of(source), [1, 2, 3])
    pair = {"y": column, "z": np.arange(3)} if whole else [(column, column)]
    assert len(rows_of(as_source(pair))) == 2


def test_stored_array_is_read_by_slices():
    stored = Stored(np.arange(600_000.0).reshape(300_000, 2), chunks=(50_000, 1))
    source = as_source(stored)
    assert source.n_rows == 300_000
    assert stored.n_read == 0
    assert source.part_lengths == (100_000,) * 3
    assert source.read(2).write(source.layout.empty(100_000), 0, 0, 100_000)
    assert stored.n_read == 100_000
    np.testing.assert_array_equal(rows_of(source), stored._value)
    assert source.identity == as_source(stored._value).identity
    np.testing.assert_array_equal(rows_of(as_source({"X": Stored(X), "y": X[:, 0]}))["X"], X)


def test_generator_that_is_left_is_closed():
    ends = []

    def blocks():
        try:
            yield from as_blocks(X, 4, 9)
        finally:
            ends.append("closed")

    source = as_source(blocks)
    rows = source.blocks()
    next(rows)
    assert ends == []
    rows.close()
    assert ends == ["closed"]


def test_iterator_of_the_users_stays_open():
    blocks = (block for block in as_blocks(X, 4, 9))
    rows = as_source(blocks).blocks()
    next(rows)
    rows.close()
    np.testing.assert_array_equal(next(blocks), X[4:9])


def sampled(**attributes):
    """A loader of torch, with samplers and functions that are called by the names of their classes."""
    kinds = {
        name: type(value, (), {"__name__": value})() for name, value in attributes.items() if value
    }
    return SimpleNamespace(dataset=Samples(list(X)), batch_size=4, **kinds)


@pytest.mark.parametrize(
    ["attributes", "match"],
    [
        ({"sampler": "SubsetRandomSampler"}, "the sampler SubsetRandomSampler of .*Subset"),
        ({"sampler": "WeightedRandomSampler"}, "the sampler WeightedRandomSampler of .*leave"),
        ({"sampler": "RandomSampler", "batch_sampler": "Mine"}, "the batch_sampler Mine of"),
        ({"collate_fn": "halve"}, "collate_fn=.* of the loader, .* is not called"),
    ],
)
@pytest.mark.parametrize("use", [as_source, as_loader], ids=["as data", "of a fit"])
def test_loader_that_chooses_or_changes_rows(attributes, match, use):
    with pytest.raises(TypeError, match=match):
        use(sampled(**attributes))


def test_sampler_of_a_batch_sampler():
    loader = sampled(sampler="SequentialSampler", batch_sampler="BatchSampler")
    check_torch_loader(loader)
    loader.batch_sampler.sampler = sampled(sampler="SubsetRandomSampler").sampler
    with pytest.raises(TypeError, match="the sampler SubsetRandomSampler"):
        check_torch_loader(loader)


@pytest.mark.parametrize("sampler", [None, "SequentialSampler", "RandomSampler"])
def test_loader_of_all_rows(sampler):
    loader = sampled(sampler=sampler, batch_sampler="BatchSampler", collate_fn="default_collate")
    np.testing.assert_array_equal(rows_of(as_source(loader)), X)
    assert shuffles(loader) == as_loader(loader).shuffle == (sampler == "RandomSampler")


@pytest.mark.parametrize("columns", [{"b", "a"}, frozenset("ab"), {"X": {"a", "b"}}])
def test_columns_without_an_order(columns):
    with pytest.raises(TypeError, match=r"columns=.* is a set, which has no order.*\['a', 'b'\]"):
        arrow_source(pa.table({"a": [1.0], "b": [2.0]}), columns)


class Every:
    """An iterable of users', which keeps what it reads under any name, and gives half of its rows."""

    def __init__(self, **kept):
        self.__dict__.update(kept)

    def __iter__(self):
        yield X[::2]


HALF = X[::2]


@pytest.mark.parametrize(
    "kept",
    [
        {"source": as_source(X)},
        {"dataset": Samples(list(X))},
        {"dataset": Samples(list(X)), "batch_size": 5},
        {"dataset": SimpleNamespace(tensors=(X,)), "tensors": (X,)},
        {"shape": X.shape, "dtype": X.dtype},
        {"n_rows": lambda: 20},
        {"layout": None, "columns": 3, "chunks": (5,), "sampler": None},
    ],
    ids=lambda kept: ", ".join(kept),
)
@pytest.mark.parametrize("base", [Every, IterableDataset])
def test_what_a_users_object_gives_counts_and_not_what_it_keeps(kept, base):
    cls = Every if base is Every else type("Own", (Every, IterableDataset), {"n_rows": None})
    if base is IterableDataset and callable(kept.get("n_rows")):
        kept = {}
    for data in (cls(**kept), lambda: cls(**kept)):
        np.testing.assert_array_equal(rows_of(open_rows(data)), HALF)
        assert len(pm.DataLoader(data, batch_size=2)) == 10


def test_a_source_of_users_that_wraps_another():
    class Half(BlockSource):
        def __init__(self, source):
            self.source = self.dataset = source

        n_rows = property(lambda self: 10)
        layout = property(lambda self: self.source.layout)
        identity = property(lambda self: {"kind": "half"})

        def blocks(self):
            return as_source(HALF).blocks()

    loader = pm.DataLoader(Half(as_source(X)), batch_size=5)
    np.testing.assert_array_equal(np.concatenate(list(loader)), HALF)


def test_rows_of_a_loader_are_those_of_its_source_unless_it_iterates_by_itself():
    class Doubled(pm.DataLoader):
        def __iter__(self):
            for batch in super().__iter__():
                yield 2 * batch

    loader, doubled = pm.DataLoader(X, batch_size=4), Doubled(X, batch_size=4)
    assert open_rows(loader) is loader.source
    np.testing.assert_array_equal(rows_of(open_rows(doubled)), 2 * X)
    assert as_loader(loader) is loader
    with pytest.raises(
        TypeError, match=r"is a Doubled with an __iter__ of its own, .* does not call"
    ):
        as_loader(doubled)


class Subset(Samples):
    """As torch's: it has the data set that it is a part of."""

    def __init__(self, dataset, indices):
        self.dataset, self.indices = dataset, indices
        super().__init__([dataset[i] for i in indices])


class Transformed(Samples):
    """A data set of tensors that are transformed on their way, as many are written."""

    def __init__(self, *tensors):
        self.tensors = tensors
        super().__init__([2 * row for row in tensors[0]])


def test_data_sets_of_torch_are_read_by_their_samples():
    even = Subset(Samples(list(X)), range(0, 20, 2))
    for data in (even, torch_loader(even), torch_loader(Subset(even, range(10)))):
        np.testing.assert_array_equal(rows_of(as_source(data)), HALF)
    for data in (Transformed(X), torch_loader(Transformed(X))):
        np.testing.assert_array_equal(rows_of(as_source(data)), 2 * X)
    sized = Samples(list(2 * X))
    sized.shape, sized.dtype = X.shape, X.dtype
    np.testing.assert_array_equal(rows_of(as_source(torch_loader(sized))), 2 * X)


def test_a_tensor_dataset_is_read_as_a_whole():
    def getitem(self, row):
        raise AssertionError("not sample by sample")

    getitem.__module__ = "torch.utils.data.dataset"
    cls = type("TensorDataset", (), {"__getitem__": getitem, "__len__": lambda self: 20})
    dataset = cls()
    dataset.tensors = (Tensor(X), Tensor(X[:, 0]))
    np.testing.assert_array_equal(rows_of(as_source(torch_loader(dataset)))["0"], X)


PAIRS = [(x, y) for x, y in zip(X, X[:, 0])]


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(PAIRS, id="tuples"),
        pytest.param(iter(PAIRS), id="iterator"),
        pytest.param(lambda: iter(PAIRS), id="factory"),
        pytest.param([(x.tolist(), float(y)) for x, y in PAIRS], id="lists and numbers"),
        pytest.param([(Tensor(x), y) for x, y in PAIRS], id="tensors"),
        pytest.param([[X[:7], X[:7, 0]], [X[7:], X[7:, 0]]], id="batches of a loader of torch"),
        pytest.param(torch_loader(IterableDataset(lambda: iter(PAIRS))), id="stream of torch"),
    ],
)
def test_samples_of_x_and_y(data):
    """A number beside an array has no rows, so that each item is one row."""
    source = as_source(data)
    assert [field.shape for field in source.layout.fields] == [(3,), ()]
    rows = write_all(source.layout, source.blocks())
    np.testing.assert_array_equal(rows["0"], X)
    np.testing.assert_array_equal(rows["1"], X[:, 0])


def test_rows_of_a_dataset_of_hugging_face():
    """Dicts of lists and Python's numbers, and a `shape` without a `dtype`."""

    class Rows(list):
        shape = (20, 2)

    rows = Rows({"x": x.tolist(), "label": i % 2} for i, x in enumerate(X))
    for data in (rows, lambda: rows):
        found = rows_of(as_source(data))
        np.testing.assert_array_equal(found["x"], X)
        np.testing.assert_array_equal(found["label"], np.arange(20) % 2)
    with pytest.raises(TypeError, match=r"block 0\['text'\] has dtype <U1"):
        rows_of(as_source([{"text": "a", "label": 1}]))


@pytest.mark.parametrize(
    ["data", "shape", "expected"],
    [
        ([[1.0, 2.0], [3.0, 4.0]], None, [[1, 2], [3, 4]]),
        ([[1, 2], [1.5, 2]], None, [[1, 2], [1.5, 2]]),
        ([(1.0, True), (3, 4.0)], (2,), [[1, 1], [3, 4]]),
        (lambda: [[1.0, 2.0], [3.0, 4.0]], None, [[1, 2], [3, 4]]),
        ([[1.0, 2.0], [3.0, 4.0]], (), [1, 2, 3, 4]),
        ([[1.0, 2.0], [3.0]], None, [1, 2, 3]),
        ([np.array([1.0, 2.0]), np.array([3.0, 4.0])], None, [1, 2, 3, 4]),
        ([[[1, 2], [3, 4]], [[5, 6], [7, 8]]], None, [[1, 2], [3, 4], [5, 6], [7, 8]]),
    ],
    ids=["lists", "mixed", "tuples", "factory", "numbers are rows", "ragged", "arrays", "blocks"],
)
def test_a_list_of_lists_of_numbers_has_a_row_in_each(data, shape, expected):
    """As it has everywhere else; what was said to be blocks, and arrays, are blocks."""
    np.testing.assert_array_equal(rows_of(as_source(data, sample_shape=shape)), expected)


def test_integers_after_floats():
    """What the floats of the first block hold: they are converted."""
    floats, integers = X[:5], X[5:].astype(int)
    for data in ([floats, integers], torch_loader(Samples([*floats, *integers]))):
        np.testing.assert_array_equal(rows_of(as_source(data)), X)
    first = pd.DataFrame({"a": [1, 2], "b": [0.5, 1.5], "c": [True, False]})
    then = pd.DataFrame({"a": [1.5, 2.5], "b": [1, 2], "c": pd.array([1, 0], dtype="Int64")})
    expected = np.concatenate([first.to_numpy("f8"), then.to_numpy("f8")])
    # The floats in b make floats of all columns
    np.testing.assert_array_equal(
        rows_of(as_source([first, then.astype({"a": int})]))[:2], expected[:2]
    )
    np.testing.assert_array_equal(rows_of(as_source([then, first])), expected[[2, 3, 0, 1]])
    with pytest.raises(ValueError, match=r"block 1, column 'a', row 0: 1.5 is no int64"):
        rows_of(as_source([first[["a"]], then[["a"]]]))


MISSING = {
    "Int64": pd.Series([1, None, 3], dtype="Int64"),
    "Float32": pd.Series([1, None, 3], dtype="Float32"),
    "boolean": pd.Series([True, None, False], dtype="boolean"),
    "pyarrow": pd.Series([1, None, 3], dtype="int64[pyarrow]"),
    "polars": pl.Series([1, None, 3]),
    "polars bool": pl.Series([True, None, False]),
    "Arrow": pa.chunked_array([[1], [None, 3]]),
}


@pytest.mark.parametrize("kind", MISSING)
def test_what_is_missing_is_not_finite(kind):
    """So that `on_nan` decides: in one column, in a dict, and in a frame beside floats and integers."""
    column = MISSING[kind]
    data = [column, {"y": column}]
    if isinstance(column, pd.Series):
        data += [pd.DataFrame({"a": column}), pd.DataFrame({"a": column, "b": [0.5, 1, 2]})]
        data += [[pd.DataFrame({"a": column, "b": [0.5, 1, 2]})]]
    for each in data:
        loader = pm.DataLoader(each, batch_size=2, on_nan="skip")
        assert len(loader) == 2
        [batch] = loader
        batch = np.asarray(batch["y"] if isinstance(batch, dict) else batch).reshape(2, -1)
        np.testing.assert_array_equal(batch[:, 0], [1, 0 if "bool" in kind else 3])
        with pytest.raises(ValueError, match=r"row 1.*nan"):
            list(pm.DataLoader(each, batch_size=3, on_nan="raise"))


def test_nothing_missing_leaves_integers():
    frame = pd.DataFrame(
        {"a": pd.array([1, 2**60], dtype="Int64"), "b": pd.array([1, 2], dtype="UInt8")}
    )
    source = as_source(frame)
    assert source.layout.fields[0].dtype == np.int64
    np.testing.assert_array_equal(rows_of(source), [[1, 1], [2**60, 2]])
