# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Rows from whatever gives Apache Arrow."""

import datetime
import decimal
import pickle
import sys

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.csv
import pyarrow.dataset
import pyarrow.ipc
import pyarrow.parquet
import pytest

from pymc.data_loading.data_loader import DataLoader, shuffle_buffer
from pymc.data_loading.sources.arrow import TABLE_ROWS, arrow_source
from pymc.data_loading.sources.dataset import IterableDataset, as_source
from pymc.data_loading.sources.layout import ExhaustedSourceError, SchemaError
from pymc.data_loading.sources.parquet import parquet_source
from tests.data_loading.sources.test_dataset import rows_of, write_all

N = 50
COLUMNS = {
    "x": np.linspace(0, 1, N, dtype="f4"),
    "late": np.arange(N) % 3 == 0,
    "day": np.arange(N, dtype="i2"),
}
TABLE = pa.table(COLUMNS)
EXPECTED = np.stack([column.astype("f4") for column in COLUMNS.values()], axis=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("arrow")
    pa.csv.write_csv(
        TABLE.cast(pa.schema({**dict.fromkeys(COLUMNS, pa.float32())})), folder / "t.csv"
    )
    with pa.ipc.new_file(folder / "t.arrow", TABLE.schema) as file:
        file.write_table(TABLE, max_chunksize=20)
    return folder


OPENED = {
    "table": (lambda folder: TABLE, N),
    "record batch": (lambda folder: TABLE.to_batches()[0], N),
    "polars": (lambda folder: pl.DataFrame(COLUMNS), N),
    "dataset": (lambda folder: pa.dataset.dataset(folder / "t.arrow", format="ipc"), None),
    "csv": (lambda folder: lambda: pa.csv.open_csv(folder / "t.csv"), None),
    "ipc": (lambda folder: lambda: pa.ipc.open_file(folder / "t.arrow"), None),
    "tables": (lambda folder: lambda: [TABLE[:7], TABLE[7:7], TABLE[7:]], None),
    "reader": (lambda folder: lambda: TABLE.to_reader(max_chunksize=9), None),
    "pandas": (lambda folder: lambda: pd.DataFrame(COLUMNS), None),
}


@pytest.mark.parametrize("kind", OPENED)
def test_rows(kind, folder):
    opened, n_rows = OPENED[kind]
    source = arrow_source(opened(folder))
    assert source.n_rows == n_rows
    (field,) = source.layout.fields
    assert field.columns == tuple(COLUMNS)
    np.testing.assert_allclose(rows_of(source), EXPECTED, rtol=1e-6)


def test_duckdb():
    connection = duckdb.connect()
    flights = TABLE  # which duckdb finds by this name
    relation = connection.sql("select x, late, day from flights order by day")
    rows = rows_of(arrow_source(relation, {"X": ["x", "late"], "day": "day"}))
    np.testing.assert_array_equal(rows["X"], EXPECTED[:, :2])
    np.testing.assert_array_equal(rows["day"], COLUMNS["day"])


@pytest.mark.parametrize(
    ["columns", "shape", "dtype"],
    [
        (["x", "day"], (2,), "f4"),
        (["late", "day"], (2,), "i2"),
        (["late"], (1,), "?"),
        ("x", (), "f4"),
        (None, (3,), "f4"),
    ],
)
def test_dtype_of_columns_together(columns, shape, dtype):
    (field,) = arrow_source(TABLE, columns).layout.fields
    assert field.shape == shape
    assert field.dtype == np.dtype(dtype)


def test_other_columns_of_a_dataset_are_not_read(folder):
    dataset = pa.dataset.dataset(folder / "t.arrow", format="ipc")
    source = arrow_source(dataset, ["day", "x"])
    assert next(source.open()).schema.names == ["day", "x"]
    np.testing.assert_array_equal(rows_of(source), EXPECTED[:, [2, 0]])
    with pytest.raises(SchemaError, match="there is no column 'y' in the dataset"):
        arrow_source(dataset, ["y"])


def test_numbers_are_not_copied():
    block = arrow_source(TABLE, ["day", "x"]).read(0)
    for name, column in zip(("day", "x"), block.columns[0]):
        assert column.ctypes.data == TABLE[name].chunk(0).buffers()[1].address


def test_large_table_has_parts():
    table = pa.table({"x": np.arange(TABLE_ROWS + 5)})
    assert arrow_source(table).part_lengths == (TABLE_ROWS, 5)


@pytest.mark.parametrize("data", [TABLE, pl.DataFrame(COLUMNS), [TABLE[:9], TABLE[9:]]])
def test_a_loader_may_be_given_arrow_itself(data):
    np.testing.assert_array_equal(rows_of(as_source(data)), EXPECTED)


def test_table_goes_to_another_process():
    source = arrow_source(TABLE)
    rows_of(source)
    np.testing.assert_array_equal(rows_of(pickle.loads(pickle.dumps(source))), EXPECTED)


def test_given_number_of_rows():
    assert arrow_source(lambda: TABLE, n_rows=np.int64(N)).n_rows == N
    with pytest.raises(TypeError, match=r"n_rows=2\.5 of arrow_source must be a whole number"):
        arrow_source(TABLE, n_rows=2.5)


@pytest.mark.parametrize(
    ["data", "match"],
    [
        (TABLE.to_reader(), "a RecordBatchReader, can be read only once.*lambda: open"),
        (3, "a int, gives no Arrow record batches"),
        (lambda: 3, "a int gives no Arrow record batches: what arrow_source opens"),
        (lambda: [3], "a int gives no"),
    ],
)
def test_what_gives_no_batches(data, match):
    with pytest.raises(TypeError, match=match):
        rows_of(arrow_source(data))


def test_factory_of_a_used_reader():
    reader = TABLE.to_reader()
    source = arrow_source(lambda: reader)
    np.testing.assert_array_equal(write_all(source.layout, source.blocks()), EXPECTED)
    with pytest.raises(ExhaustedSourceError, match="is empty at the next pass"):
        next(source.blocks())


NULL = pa.table({"x": [1.0, 2.0, None], "day": [1, 2, 3]})
LARGE = pa.table({"x": [0.5, 1.5], "id": [1, -(2**53) - 1]})


@pytest.mark.parametrize(
    ["batches", "columns", "error", "match"],
    [
        (TABLE, ["y"], SchemaError, "there is no column 'y' in the table. The columns are 'x', 'late'"),
        (TABLE, [], TypeError, r"columns=\[\] has to be a name, or a list of at least one name"),
        (TABLE, [0], TypeError, r"columns=\[0\] has to be a name"),
        (TABLE, ["x", "x"], ValueError, r"columns=\['x', 'x'\] names a column twice"),
        (TABLE, {}, ValueError, "columns={} has to name at least one field"),
        (TABLE, {"": "x"}, ValueError, "has to name at least one field, each by a name"),
        (TABLE.append_column("s", pa.array(["a"] * N)), None, SchemaError, "column 's'.*of type string"),
        (TABLE.append_column("t", pa.array([0] * N, pa.date32())), None, SchemaError, "type date32"),
        (lambda: [TABLE, TABLE.set_column(2, "day", [[2**15] * N])], "day", ValueError,
         r"record batch 1, column 'day', row 0: 32768 is no int16.*dtypes={'day': 'int64'}"),
        (lambda: [pa.table({"x": [1]}), pa.table({"x": [2.0, 0.5]})], None, ValueError,
         "record batch 1, column 'x', row 1: 0.5 is no int64.*dtypes={'x': 'float64'}"),
        (LARGE, None, ValueError, r"column 'id', row 1: -9007199254740993 is beyond 2\*\*53"),
        (lambda: [LARGE, TABLE], None, SchemaError, "record batch 1 lacks 'id'"),
        (lambda: [TABLE, TABLE.drop(["x"])], None, SchemaError, "record batch 1 lacks 'x'"),
        (lambda: [], None, ValueError, "the source has no rows"),
        (TABLE[:0], None, ValueError, "the table has no rows"),
    ],
)  # fmt: skip
def test_bad_columns(batches, columns, error, match):
    with pytest.raises(error, match=match):
        rows_of(arrow_source(batches, columns))


def test_integers_of_a_field_of_their_own_are_exact():
    rows = rows_of(arrow_source(LARGE, {"x": "x", "id": "id"}))
    assert rows["id"].tolist() == [1, -(2**53) - 1]


def test_file_that_cannot_be_read(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("x,y\n1,2\n3,4,5\n")
    with pytest.raises(OSError, match=r"record batch 0 cannot be read.*Expected 2 columns, got 3"):
        rows_of(arrow_source(lambda: pa.csv.open_csv(path)))


@pytest.mark.parametrize("reader", ["open_csv", "dataset"])
def test_types_of_csv_that_were_inferred(tmp_path, reader):
    path = tmp_path / "t.csv"
    path.write_text("x\n" + "1\n" * 200 + "0.5\n")
    small = pa.csv.ReadOptions(block_size=100)

    def opened(types=None):
        convert = pa.csv.ConvertOptions(column_types=types)
        if reader == "open_csv":
            return arrow_source(
                lambda: pa.csv.open_csv(path, read_options=small, convert_options=convert)
            )
        format = pa.dataset.CsvFileFormat(read_options=small, convert_options=convert)
        return arrow_source(pa.dataset.dataset(path, format=format))

    with pytest.raises(SchemaError, match=r"int64: invalid value '0.5'.*inferred.*column_types={"):
        rows_of(opened())
    assert rows_of(opened({"x": pa.float64()}))[-1] == 0.5


def test_nulls_are_missing_values():
    table = pa.concat_tables([NULL, pa.table({"x": [4.0, 5.0], "day": [4, None]})])
    (block,) = as_source([table]).blocks()
    out = np.full((5, 2), -1.0)
    assert not block.write((out,), 0, 0, 5)
    np.testing.assert_array_equal(out[[0, 1, 3]], [[1, 1], [2, 2], [4, 4]])
    assert list(map(str, block.bad_rows(0, 5))) == [
        "row 2, column 'x'",
        "row 4, column 'day' (null)",
    ]
    assert block.bad_rows(3, 4) == []
    assert block.write((out,), 0, 3, 4)


KINDS_OF_NULLS = {
    "floats": (pa.array([1.0, None, 3.0]), [1, 3]),
    "integers": (pa.array([1, None, 3]), [1, 3]),
    "bools": (pa.array([True, None, True]), [1, 1]),
    "half floats": (pa.array([1.0, None, 3.0], pa.float16()), [1, 3]),
    "lists": (pa.array([[1, 2], None, [3, 4]], pa.list_(pa.int8(), 2)), [[1, 2], [3, 4]]),
    "in lists": (pa.array([[1, 2], [3, None], [3, 4]], pa.list_(pa.int8(), 2)), [[1, 2], [3, 4]]),
}


@pytest.mark.parametrize("kind", KINDS_OF_NULLS)
def test_rows_of_nulls_are_skipped_or_an_error(kind):
    column, expected = KINDS_OF_NULLS[kind]
    table = pa.table({"y": column, "x": [0.5] * 3})
    source = arrow_source(table, {"y": "y"})
    loader = DataLoader(source, batch_size=1, on_nan="skip")
    assert len(loader) == 2
    np.testing.assert_array_equal(np.concatenate([b["y"] for b in loader]), expected)
    with pytest.raises(ValueError, match="the table, row 1, field 'y', column 'y"):
        list(DataLoader(source, batch_size=1))
    assert len(DataLoader(arrow_source(table, {"x": "x"}), batch_size=1)) == 3
    shuffled = shuffle_buffer(source, buffer_size=3, batch_size=3)
    if source.layout.fields[0].dtype.kind == "f":
        assert np.isnan(next(iter(shuffled))["y"]).sum() == 1  # for who reads it to look at
    else:
        with pytest.raises(ValueError, match=r"row 1, field 'y', column 'y' \(null\)"):
            next(iter(shuffled))


@pytest.mark.parametrize("kind", KINDS_OF_NULLS)
@pytest.mark.parametrize("library", ["pyarrow", "polars", "parquet"])
def test_iterating_makes_no_number_of_a_null(kind, library, tmp_path):
    """Neither zero nor False; floats have NaN for it, and skipping still leaves the row out."""
    table = pa.table({"y": KINDS_OF_NULLS[kind][0], "x": [0.5] * 3})
    if library == "polars":
        table = pl.from_arrow(table)
    if library == "parquet":
        pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
        source = parquet_source(tmp_path / "a.parquet", {"y": "y"})
        place = r"a\.parquet, row group 0, "
    else:
        source, place = arrow_source(table, {"y": "y"}), ""
    if source.layout.fields[0].dtype.kind == "f":
        assert np.isnan(next(iter(source))["y"]).tolist() == [False, True, False]
        return
    message = place + r"row 1, field 'y', column 'y' \(null\): a value is missing"
    with pytest.raises(ValueError, match=message):
        list(source)
    with pytest.raises(ValueError, match=message):
        list(DataLoader(IterableDataset(lambda: iter(source)), batch_size=3))


def test_column_without_any_value_in_a_later_batch():
    batches = [pa.table({"x": [1.0]}), pa.table({"x": pa.nulls(2)}), pa.table({"x": [2.0]})]
    loader = DataLoader(arrow_source(lambda: batches), batch_size=2, on_nan="skip")
    assert next(iter(loader)).tolist() == [[1.0], [2.0]]


@pytest.mark.parametrize(
    ["values", "type_", "dtype", "expected"],
    [
        ([1, 2], "i2", "i8", [1, 2]),
        ([1.0, np.nan, 3.0], "f8", "i4", None),
        ([1.0, 3.0], "f8", "u1", [1, 3]),
        ([0, 1], "i8", "?", [False, True]),
        ([2.0**24, 0.5], "f8", "f4", [2.0**24, 0.5]),
    ],
)
def test_later_batches_of_another_dtype(values, type_, dtype, expected):
    later = pa.table({"x": np.array(values, type_)})
    source = arrow_source(lambda: [pa.table({"x": np.array([1, 0], dtype)}), later])
    if expected is None:  # NaN is missing in integers too
        *_, block = source.blocks()
        assert [bad.row for bad in block.bad_rows(0, 3)] == [1]
        assert not block.write(source.layout.empty(3), 0, 0, 3)
        return
    rows = rows_of(source)
    assert rows.dtype == np.dtype(dtype)
    assert rows[2:, 0].tolist() == expected


@pytest.mark.parametrize(
    ["values", "type_", "dtype"],
    [
        ([2**31], "i8", "i4"),
        ([-1], "i8", "u8"),
        ([2**24 + 1], "i4", "f4"),
        ([0.1], "f8", "f4"),
        ([2.0**63], "f8", "i8"),
        ([1e30], "f8", "i8"),
        ([2], "i8", "?"),
        ([1e300], "f8", "f4"),
    ],
)
def test_numbers_that_a_dtype_does_not_hold(values, type_, dtype):
    later = pa.table({"x": np.array(values, type_)})
    source = arrow_source(lambda: [pa.table({"x": np.array([1], dtype)}), later], "x")
    with pytest.raises(ValueError, match=r"record batch 1, column 'x', row 0: .*(is no|beyond 2)"):
        rows_of(source)


DAY = datetime.date(2013, 1, 2)
CASTS = {
    "days": (pa.array([DAY]), "float32", 15707),
    "microseconds": (pa.array([datetime.datetime(1970, 1, 1, 0, 0, 2)]), "int64", 2_000_000),
    "seconds": (pa.array([datetime.timedelta(seconds=3)], pa.duration("s")), "float64", 3),
    "decimal": (pa.array([decimal.Decimal("1.25")]), "float64", 1.25),
    "text": (pa.array(["1.5"]), "float64", 1.5),
    "categories": (pa.array([7]).dictionary_encode(), "int16", 7),
    "rounded": (pa.array([0.1]), "float32", np.float32(0.1)),
    "integer": (pa.array([7]), "float64", 7),
}


@pytest.mark.parametrize("kind", CASTS)
def test_dtypes_that_were_asked_for(kind):
    column, dtype, expected = CASTS[kind]
    source = arrow_source(pa.table({"c": column, "x": [1]}), {"c": "c"}, dtypes={"c": dtype})
    (value,) = rows_of(source)["c"]
    assert value == expected
    assert value.dtype == dtype


@pytest.mark.parametrize(
    ["column", "dtypes", "error", "match"],
    [
        (["a"], {"c": "f8"}, ValueError, "column 'c': values of type string cannot be converted to float64.*'a'"),
        ([0.5], {"c": "i4"}, ValueError, "column 'c', row 0: 0.5 is no int32"),
        ([1], {"z": "f8"}, ValueError, "dtypes={'z': 'f8'} names 'z', and the columns to read are 'c'"),
        ([1], {"c": "M8[s]"}, ValueError, r"asks for datetime64\[s\] of 'c', and a model computes with"),
        ([1], "f8", TypeError, "dtypes='f8' has to be a dict from columns to dtypes"),
        ([DAY], None, SchemaError, "of type date32.*dtypes={'c': 'int64'}"),
    ],
)  # fmt: skip
def test_bad_dtypes(column, dtypes, error, match):
    with pytest.raises(error, match=match):
        rows_of(arrow_source(pa.table({"c": column}), "c", dtypes=dtypes))


IMAGES = np.arange(24, dtype="u1").reshape(2, 3, 4)
LISTS = pa.table(
    {
        "image": pa.FixedShapeTensorArray.from_numpy_ndarray(IMAGES),
        "nested": pa.array(IMAGES.tolist(), pa.list_(pa.list_(pa.uint8(), 4), 3)),
        "row": pa.array(IMAGES[:, 0].tolist(), pa.list_(pa.float32(), 4)),
        "x": pa.array([0.5, 1.5], pa.float32()),
    }
)


@pytest.mark.parametrize("columns", ["image", "nested", {"a": "nested", "b": "row"}])
@pytest.mark.parametrize("slices", [[LISTS], [LISTS[:1], LISTS[1:]]])
def test_lists_of_a_fixed_size_are_several_columns(columns, slices):
    source = arrow_source(lambda: slices, columns)
    rows = rows_of(source)
    images = rows["a"] if isinstance(columns, dict) else rows
    np.testing.assert_array_equal(images, IMAGES)
    assert images.dtype == np.uint8
    if isinstance(columns, dict):
        np.testing.assert_array_equal(rows["b"], IMAGES[:, 0])
        assert source.layout.fields[1].columns == ("row[0]", "row[1]", "row[2]", "row[3]")


def test_lists_beside_other_columns():
    source = arrow_source(LISTS, ["x", "row"])
    expected = np.column_stack([[0.5, 1.5], IMAGES[:, 0]])
    np.testing.assert_array_equal(rows_of(source), expected)
    assert source.layout.fields[0].columns == ("x", "row[0]", "row[1]", "row[2]", "row[3]")
    message = r"column 'image' of .* has values of shape \(3, 4\).*a field, columns={\"x\": 'image'"
    with pytest.raises(SchemaError, match=message):
        arrow_source(LISTS, ["x", "image"]).layout
    lists = pa.table({"x": [[1.0], [2.0]]})
    with pytest.raises(SchemaError, match=r"type list<.*pa.list_\(.*, size\)"):
        arrow_source(lists).layout
    shorter = pa.table({"row": pa.array([[1.0]], pa.list_(pa.float32(), 1))})
    with pytest.raises(SchemaError, match=r"values of shape \(1,\), and of shape \(4,\) in"):
        rows_of(arrow_source(lambda: [LISTS, shorter], "row"))


def test_identity_tells_columns_apart():
    both = LISTS.append_column("other", LISTS["image"])
    first, second = (arrow_source(both, name).identity for name in ("image", "other"))
    assert first != second
    assert first == arrow_source(LISTS, "image").identity


def test_bad_values_of_lists():
    column = pa.array([[1.0, 2.0], [3.0, np.inf]], pa.list_(pa.float64(), 2))
    for columns, place in (("v", "'v[1]'"), (["x", "v"], "'v[1]'")):
        (block,) = arrow_source(pa.table({"v": column, "x": [1.0, 2.0]}), columns).blocks()
        assert list(map(str, block.bad_rows(0, 2))) == [f"row 1, column {place}"]


def test_index_of_pandas_is_no_feature():
    frame = pd.DataFrame({"x": [1.0, 2.0]}, index=[7, 9])
    table = pa.Table.from_pandas(frame)
    assert arrow_source(table).layout.fields[0].columns == ("x",)
    assert rows_of(arrow_source(table, "__index_level_0__")).tolist() == [7, 9]
    plain = pa.Table.from_pandas(frame.reset_index(drop=True))
    assert len(rows_of(arrow_source(lambda: [table, plain]))) == 4


def test_blocks_of_several_chunks():
    chunks = [pa.table({"x": np.arange(n, dtype="f4")}) for n in (4, 3, 5)]
    (block,) = as_source([pa.concat_tables(chunks)]).blocks()
    expected = np.concatenate([np.arange(n) for n in (4, 3, 5)])
    out, places = np.zeros((12, 1), "f4"), np.random.default_rng(0).permutation(12)
    assert block.write((out,), places[2:], 2, 12)
    np.testing.assert_array_equal(out[places[2:], 0], expected[2:])
    assert block.write((out,), 1, 3, 9)
    np.testing.assert_array_equal(out[1:7, 0], expected[3:9])


def test_row_that_is_not_finite_in_a_later_chunk():
    chunks = [pa.table({"x": x}) for x in ([0.0, 1.0], [0.0, np.nan])]
    (block,) = as_source([pa.concat_tables(chunks)]).blocks()
    assert not block.write((np.zeros((4, 1)),), 0, 0, 4)
    assert list(map(str, block.bad_rows(1, 4))) == ["row 3, column 'x'"]


def test_error_without_pyarrow(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match="arrow_source needs pyarrow: pip install pyarrow"):
        arrow_source(TABLE)


@pytest.mark.parametrize(
    "opened", [lambda data: data, lambda data: lambda: data], ids=["", "function"]
)
@pytest.mark.parametrize("make", [arrow_source, as_source])
def test_a_query_that_was_not_run(make, opened):
    query = pl.DataFrame(COLUMNS).lazy()
    with pytest.raises(
        TypeError, match=r"LazyFrame of polars is a query.*`lambda: lf.collect\(\)`"
    ):
        make(opened(query)).layout
    assert make(lambda: query.collect()).layout.fields[0].shape == (3,)
