# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Rows of Parquet files, whole ones and others."""

import json
import os
import pickle
import subprocess
import sys

from pathlib import Path

import fsspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset
import pyarrow.fs
import pyarrow.parquet as pq
import pytest

from pymc.data_loading.data_loader import DataLoader
from pymc.data_loading.sources.layout import SchemaError
from pymc.data_loading.sources.parquet import parquet_source
from tests.data_loading.sources.test_dataset import rows_of

N = 40
COLUMNS = {
    "dep_delay": np.linspace(-5, 90, N, dtype="f4"),
    "distance": np.arange(N, dtype="f4") * 100,
    "arr_delay": np.linspace(-9, 80, N, dtype="f4"),
}
TABLE = pa.table(COLUMNS)
EXPECTED = np.stack(list(COLUMNS.values()), axis=1)


def write(path, table, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, **{"row_group_size": 8, "write_page_checksum": True, **options})
    return path


@pytest.fixture
def flights(tmp_path):
    """A folder of shards: one of 15 rows in two row groups, one of no rows, one of 25 rows in four."""
    write(tmp_path / "flights" / "2013" / "part-0.parquet", TABLE[:15])
    write(tmp_path / "flights" / "2013" / "part-1.parquet", TABLE[:0])
    write(tmp_path / "flights" / "2014" / "part-0.parquet", TABLE[15:])
    tmp_path.joinpath("flights", "_SUCCESS").touch()
    tmp_path.joinpath("flights", "2013", ".part-0.parquet.crc").touch()
    return tmp_path / "flights"


def addresses(folder):
    files = sorted(folder.rglob("*/part*.parquet"))
    return {
        "folder": folder,
        "folder as text": f"{folder}/",
        "pattern": f"{folder}/*/part-?.parquet",
        "recursive pattern": f"{folder}/**/*.parquet",
        "list": files,
        "list of folders": [folder / "2013", folder / "2014"],
        "address": f"file://{folder}",
        "pattern in an address": f"file://{folder}/*/*.parquet",
    }


@pytest.mark.parametrize("kind", addresses(Path()))
def test_where_files_are(flights, kind):
    source = parquet_source(addresses(flights)[kind])
    assert source.n_rows == N
    assert source.part_lengths == (8, 7, 8, 8, 8, 1)
    assert source.layout.fields[0].columns == tuple(COLUMNS)
    np.testing.assert_array_equal(rows_of(source), EXPECTED)


def test_one_file_in_memory_of_another_machine():
    filesystem = fsspec.filesystem("memory")
    with filesystem.open("/flights/a.parquet", "wb") as file:
        pq.write_table(TABLE, file)
    for source in (
        parquet_source("memory://flights/a.parquet"),
        parquet_source("/flights", filesystem=filesystem),
    ):
        np.testing.assert_array_equal(rows_of(source), EXPECTED)
        assert source.shards[0].name == "a.parquet"


@pytest.mark.parametrize("path", ["{}", "{}/*/*.parquet"])
def test_file_systems_of_pyarrow(flights, path):
    filesystem = pyarrow.fs.SubTreeFileSystem(str(flights.parent), pyarrow.fs.LocalFileSystem())
    source = parquet_source(path.format("flights"), filesystem=filesystem)
    assert tuple(shard.name for shard in source.shards) == tuple(
        f"{y}/part-{i}.parquet" for y, i in [(2013, 0), (2013, 1), (2014, 0)]
    )
    np.testing.assert_array_equal(rows_of(pickle.loads(pickle.dumps(source))), EXPECTED)
    with pytest.raises(
        TypeError, match=r"filesystem=.s3. of parquet_source has to be .* not of type str"
    ):
        parquet_source(flights, filesystem="s3")


def test_address_that_only_pyarrow_opens(flights, monkeypatch):
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    assert parquet_source(flights.as_uri()).n_rows == N


def test_home_folder(flights, monkeypatch):
    monkeypatch.setenv("HOME", str(flights.parent))
    for path in ("~/flights", Path("~/flights"), "~/flights/*/*.parquet"):
        assert parquet_source(path).n_rows == N


def test_sample_shape_of_a_first_draft(flights):
    loader = DataLoader(parquet_source(flights), batch_size=4, sample_shape=(3,))
    assert next(iter(loader)).shape == (4, 3)
    with pytest.raises(
        ValueError, match=r"sample_shape=\(4,\) contradicts ParquetSource\(3 files.*\(3,\)"
    ):
        DataLoader(parquet_source(flights), batch_size=4, sample_shape=(4,))


def test_columns_are_fields(flights):
    source = parquet_source(flights, {"X": ["arr_delay", "dep_delay"], "y": "distance"})
    rows = rows_of(source)
    np.testing.assert_array_equal(rows["X"], EXPECTED[:, [2, 0]])
    np.testing.assert_array_equal(rows["y"], EXPECTED[:, 1])
    assert {array.dtype for array in rows.values()} == {np.dtype("f4")}


def test_columns_by_name_in_another_order(flights):
    write(
        flights / "2014" / "part-0.parquet",
        TABLE.select(["arr_delay", "dep_delay", "distance"])[15:],
    )
    np.testing.assert_array_equal(rows_of(parquet_source(flights)), EXPECTED)


def test_names_are_sorted_and_lists_are_not(tmp_path):
    files = [write(tmp_path / f"{i}.parquet", pa.table({"i": [i]})) for i in range(3)]
    assert rows_of(parquet_source(tmp_path, "i")).tolist() == [0, 1, 2]
    assert rows_of(parquet_source(files[::-1], "i")).tolist() == [2, 1, 0]


def test_only_footers_are_read_before_rows(flights, monkeypatch):
    monkeypatch.setattr(pq.ParquetFile, "read_row_group", None)
    source = parquet_source(flights)
    assert source.n_rows == N
    assert source.layout.empty(3)[0].shape == (3, 3)


def test_bools_count_as_numbers(tmp_path):
    late = np.arange(9) % 2 == 0
    path = write(tmp_path / "a.parquet", pa.table({"late": late, "x": np.ones(9, "f4")}))
    np.testing.assert_array_equal(rows_of(parquet_source(path))[:, 0], late)


def test_unread_columns_may_be_of_any_type(tmp_path):
    table = TABLE.append_column("carrier", pa.array(["UA"] * N))
    path = write(tmp_path / "a.parquet", table)
    np.testing.assert_array_equal(rows_of(parquet_source(path, list(COLUMNS))), EXPECTED)


OTHER_SCHEMAS = {
    "missing": (lambda t: t.drop(["distance"]), "lacks 'distance', which 2013/part-0.parquet has"),
    "extra": (
        lambda t: t.append_column("carrier", pa.array(np.arange(len(t)))),
        "has 'carrier', which 2013/part-0.parquet does not have",
    ),
    "not numeric": (
        lambda t: t.set_column(1, "distance", t["distance"].cast("string")),
        "is of type string, and a model computes with numbers",
    ),
    "twice": (
        lambda t: t.append_column("distance", t["distance"]),
        "2014/part-0.parquet has 2 columns called 'distance'",
    ),
}


@pytest.mark.parametrize("kind", OTHER_SCHEMAS)
def test_shard_of_another_schema(flights, kind):
    change, message = OTHER_SCHEMAS[kind]
    write(flights / "2014" / "part-0.parquet", change(TABLE[15:]))
    with pytest.raises(SchemaError, match=message) as caught:
        parquet_source(flights)
    assert "2014/part-0.parquet" in str(caught.value)


def test_columns_that_nobody_asked_for(flights):
    more = TABLE[15:].append_column("carrier", pa.array(["UA"] * 25)).drop(["arr_delay"])
    write(flights / "2014" / "part-0.parquet", more)
    source = parquet_source(flights, ["distance", "dep_delay"])
    np.testing.assert_array_equal(rows_of(source), EXPECTED[:, [1, 0]])
    with pytest.raises(SchemaError, match=r"lacks 'arr_delay'.*columns=\[...\]"):
        parquet_source(flights)


@pytest.mark.parametrize(
    ["first", "second", "dtype"],
    [
        ([1], [2**40], "int64"),
        (np.array([1], "i4"), [2**40], "int64"),
        (np.array([0.5], "f4"), [0.1], "float64"),
        ([0.5], [2], "float64"),
        ([1], [0.5], "float64"),
        ([True], [3], "int64"),
        (pa.nulls(1), [0.5], "float64"),
    ],
)
def test_shards_of_two_dtypes(tmp_path, first, second, dtype):
    for names in ("ab", "ba"):  # whichever comes first
        write(tmp_path / f"{names[0]}.parquet", pa.table({"x": first}))
        write(tmp_path / f"{names[1]}.parquet", pa.table({"x": second}))
        source = parquet_source(tmp_path, "x")
        assert source.layout.fields[0].dtype == dtype
        block = source.read("ab".index(names[1]))
        out = source.layout.empty(1)
        assert block.write(out, 0, 0, 1)
        assert out[0][0] == second[0]


def test_dtype_that_a_shard_does_not_fit(tmp_path):
    write(tmp_path / "a.parquet", pa.table({"x": [1, 2]}))
    write(tmp_path / "b.parquet", pa.table({"x": [0.5, 1.0]}))
    write(tmp_path / "c.parquet", pa.table({"x": [2**53 + 1]}))
    with pytest.raises(
        ValueError, match=r"c\.parquet, row group 0, column 'x', row 0: 9007199254740993"
    ):
        rows_of(parquet_source(tmp_path))
    with pytest.raises(
        ValueError, match=r"b\.parquet, row group 0, column 'x', row 0: 0.5 is no int64"
    ):
        rows_of(parquet_source(tmp_path, dtypes={"x": "int64"}))
    assert rows_of(parquet_source(tmp_path / "a.parquet", dtypes={"x": "f4"})).dtype == "float32"


def test_nulls_that_pandas_writes(tmp_path):
    for i, x in enumerate([[1.0, None, 3.0], [None, 5.0]]):
        pd.DataFrame({"x": x, "n": range(len(x))}).to_parquet(tmp_path / f"{i}.parquet")
    source = parquet_source(tmp_path)
    loader = DataLoader(source, batch_size=3, on_nan="skip")
    assert len(loader) == 3
    assert next(iter(loader)).tolist() == [[1, 0], [3, 2], [5, 1]]
    message = r"0\.parquet, row group 0, row 1, column 'x': a value is NaN"
    with pytest.raises(ValueError, match=message):
        list(DataLoader(source, batch_size=3))


@pytest.fixture
def partitioned(tmp_path):
    """A folder as Hive has them, in which pandas or Spark would find three columns more."""
    for year, month in [(2013, 1), (2013, 2), (2014, 1)]:
        folder = tmp_path / "flights" / f"_year={year}" / f"month={month}" / "carrier=U%20A"
        write(folder / "part-0", pa.table({"x": [0.5 * month] * 9}))
    tmp_path.joinpath("flights", "_temporary").mkdir()
    return tmp_path / "flights"


def test_partitions_are_columns(partitioned):
    source = parquet_source(partitioned, {"X": ["x", "_year"], "month": "month"})
    rows = rows_of(source)
    np.testing.assert_array_equal(rows["X"], np.repeat([[0.5, 2013], [1, 2013], [0.5, 2014]], 9, 0))
    np.testing.assert_array_equal(rows["month"], np.repeat([1, 2, 1], 9))
    assert rows["month"].dtype == np.int32
    assert rows_of(parquet_source(partitioned, "_year")).tolist() == [2013] * 18 + [2014] * 9
    assert parquet_source(partitioned).layout.fields[0].columns == ("x",)
    with pytest.raises(SchemaError, match=r"column 'carrier' of .* is of type string"):
        parquet_source(partitioned, ["x", "carrier"])
    only = rows_of(parquet_source(f"{partitioned}/_year=201*/month=2", ["month", "x"]))
    np.testing.assert_array_equal(only, [[2, 1]] * 9)


def test_partitions_of_floats(tmp_path):
    for dose in ("1.5", "2"):
        write(tmp_path / f"dose={dose}" / "a.parquet", pa.table({"x": [1.0]}))
    message = r"'dose' of dose=1\.5/a\.parquet .*if all of them have integers.*{'dose': 'float64'}"
    with pytest.raises(SchemaError, match=message):
        parquet_source(tmp_path, ["x", "dose"])
    source = parquet_source(tmp_path, ["x", "dose"], dtypes={"dose": "float64"})
    assert rows_of(source).tolist() == [[1, 1.5], [1, 2]]


def test_partitions_without_a_value(tmp_path):
    for i, value in enumerate(["1.5", "__HIVE_DEFAULT_PARTITION__"]):
        write(tmp_path / f"z={value}" / "a.parquet", pa.table({"x": [i], "k": [i]}))
    source = parquet_source(tmp_path, ["x", "z"], dtypes={"z": "float32"})
    loader = DataLoader(source, batch_size=1, on_nan="skip")
    assert len(loader) == 1
    assert next(iter(loader)).tolist() == [[0, 1.5]]
    only = parquet_source(tmp_path / "z=__HIVE_DEFAULT_PARTITION__", "x")
    assert rows_of(only).tolist() == [1]


def test_column_of_a_file_counts_rather_than_its_path(tmp_path):
    write(tmp_path / "x=7" / "a.parquet", pa.table({"x": [1.0, 2.0]}))
    assert rows_of(parquet_source(tmp_path, "x")).tolist() == [1, 2]


def test_schema_of_an_empty_shard_does_not_matter(flights):
    write(flights / "2013" / "part-1.parquet", pa.table({"index": pa.array([], pa.null())}))
    assert parquet_source(flights).n_rows == N


def test_only_empty_shards(tmp_path):
    for i in range(2):
        write(tmp_path / f"{i}.parquet", TABLE[:0])
    with pytest.raises(ValueError, match=r"path=.*all files \(2\) are empty"):
        parquet_source(tmp_path)


@pytest.mark.parametrize(
    ["path", "error", "match"],
    [
        (
            "nowhere.parquet",
            FileNotFoundError,
            "path='nowhere.parquet'.*there is no such file or folder",
        ),
        ("nowhere-*.parquet", FileNotFoundError, "no file matches"),
        ("file:///nowhere", FileNotFoundError, "there is no such file or folder"),
        (3, TypeError, "path=3 of parquet_source has to be a file"),
        ([], TypeError, r"path=\[\] of parquet_source has to be a file"),
        ([3], TypeError, r"path=\[3\] of parquet_source has to be a file"),
    ],
)
def test_no_files(path, error, match):
    with pytest.raises(error, match=match):
        parquet_source(path)


def test_folder_without_parquet(tmp_path):
    tmp_path.joinpath("_old.parquet").touch()
    tmp_path.joinpath("README").write_text("PAR")
    with pytest.raises(FileNotFoundError, match="the folder has no file of Parquet"):
        parquet_source(tmp_path)


@pytest.mark.parametrize("kind", ["folder", "memory"])
def test_files_of_parquet_by_any_name(tmp_path, kind):
    names = ["a.parquet", "b", "c.parquet.gz", "d.PARQUET", "part-00000", "f.snappy"]
    for i, name in enumerate(names):
        write(tmp_path / name, TABLE[i : i + 1])
    for name in ("README", "notes.txt", "_SUCCESS", ".b.crc"):
        tmp_path.joinpath(name).write_text("of no rows")
    where = {"path": tmp_path}
    if kind == "memory":
        filesystem = fsspec.filesystem("memory")
        filesystem.put(str(tmp_path), "/by-any-name", recursive=True)
        where = {"path": "/by-any-name", "filesystem": filesystem}
    source = parquet_source(**where)
    assert tuple(shard.name for shard in source.shards) == tuple(sorted(names))
    np.testing.assert_array_equal(rows_of(source), EXPECTED[[0, 1, 2, 3, 5, 4]])
    counted = pyarrow.dataset.dataset([str(tmp_path / name) for name in names]).count_rows()
    assert source.n_rows == counted


@pytest.mark.parametrize("name", ["a.PARQUET", "a.parquet.gz", "a.pq"])
def test_damaged_file_that_is_of_parquet_by_its_name(flights, name):
    flights.joinpath(name).write_bytes(b"of no rows")
    with pytest.raises(OSError, match=rf"{name} cannot be read"):
        parquet_source(flights)


@pytest.mark.parametrize("cut", [slice(None, -9), slice(9, None)], ids=["end", "start"])
def test_file_without_a_suffix_that_is_damaged(flights, cut):
    raw = write(flights / "part-1", TABLE).read_bytes()
    flights.joinpath("part-1").write_bytes(raw[cut])
    with pytest.raises(OSError, match=r"part-1.* cannot be read"):
        rows_of(parquet_source(flights))


def test_file_twice(flights):
    with pytest.raises(ValueError, match=r"part-0\.parquet' twice: rows would count twice"):
        parquet_source([flights, flights / "2013" / "part-0.parquet"])


def test_null_is_named(tmp_path):
    path = write(tmp_path / "a.parquet", pa.table({"x": [0.5] * 9, "y": [1] * 8 + [None]}))
    source = parquet_source(path)
    message = r"a\.parquet, row group 1, row 0, column 'y' \(null\): a value"
    with pytest.raises(ValueError, match=message):
        list(DataLoader(source, batch_size=1))
    assert rows_of(parquet_source(path, ["x"])).shape == (9, 1)


def test_integer_that_a_float_does_not_hold(tmp_path):
    table = pa.table({"x": np.ones(9), "id": [0] * 8 + [2**53 + 1]})
    path = write(tmp_path / "a.parquet", table)
    message = r"a\.parquet, row group 1, column 'id', row 0: 9007199254740993 is beyond 2\*\*53"
    with pytest.raises(ValueError, match=message):
        rows_of(parquet_source(path))
    assert rows_of(parquet_source(path, "id"))[-1] == 2**53 + 1


@pytest.mark.parametrize(
    "damage",
    [
        lambda raw: raw[: len(raw) // 2],
        lambda raw: raw[:-4] + b"PAR2",
        lambda raw: b"",
        lambda raw: b"not a file of Parquet, whatever its name says",
    ],
    ids=["cut", "magic", "nothing", "text"],
)
def test_damaged_file(flights, damage):
    path = flights / "2014" / "part-0.parquet"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(OSError, match=r"2014/part-0\.parquet cannot be read; it may be damaged"):
        parquet_source(flights)


def test_damaged_page(flights):
    path = flights / "2014" / "part-0.parquet"
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 4] ^= 1
    path.write_bytes(raw)
    source = parquet_source(flights)
    with pytest.raises(OSError, match=r"2014/part-0\.parquet, row group \d cannot be read"):
        rows_of(source)


def test_mutated_files():
    """No damage is read as other numbers, or ends the interpreter: in a process that it may end."""
    script = Path(__file__).with_name("mutated_parquet.py")
    done = subprocess.run(
        [sys.executable, str(script), "60"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    counts = json.loads(done.stdout)
    assert counts.pop("refused") > 30
    assert set(counts) <= {"unchanged"}


def test_bomb_is_not_read(tmp_path, monkeypatch):
    n_rows = 2_000_000
    zeros = pa.table({"x": np.zeros(n_rows), "y": np.zeros(n_rows)})
    path = write(tmp_path / "a.parquet", zeros, row_group_size=n_rows)
    assert path.stat().st_size < n_rows / 50
    monkeypatch.setattr(pq.ParquetFile, "read_row_group", None)
    message = (
        r"a\.parquet, row group 0: .* 32,000,000 bytes in memory, more than max_row_group_bytes="
    )
    with pytest.raises(ValueError, match=message):
        parquet_source(path, max_row_group_bytes=10_000_000)
    assert parquet_source(path, ["x"], max_row_group_bytes=20_000_000).n_rows == n_rows
    with pytest.raises(
        ValueError, match="max_row_group_bytes=0 of parquet_source must be at least 1"
    ):
        parquet_source(path, max_row_group_bytes=0)


def test_shard_that_changes(flights):
    source = parquet_source(flights)
    write(flights / "2014" / "part-0.parquet", TABLE[:25])
    with pytest.raises(OSError, match=r"2014/part-0\.parquet changed since the source was made"):
        rows_of(source)


def test_identity(flights, tmp_path):
    identity = parquet_source(flights).identity
    assert str(tmp_path) not in json.dumps(identity)
    assert identity["n_rows"] == N
    assert [s["name"] for s in identity["shards"]] == [
        f"{year}/part-{i}.parquet" for year, i in [(2013, 0), (2013, 1), (2014, 0)]
    ]
    moved = flights.rename(tmp_path / "moved")
    assert parquet_source(moved).identity == identity
    write(moved / "2014" / "part-0.parquet", TABLE[15:][::-1])
    assert parquet_source(moved).identity != identity
    assert parquet_source(moved, ["distance"]).identity["schema"] != identity["schema"]


def test_other_processes_open_files_of_their_own(flights):
    source = parquet_source(flights)
    rows_of(source)
    np.testing.assert_array_equal(rows_of(pickle.loads(pickle.dumps(source))), EXPECTED)


def test_few_files_stay_open(tmp_path):
    for i in range(9):
        write(tmp_path / f"{i}.parquet", TABLE[i : i + 2])
    source = parquet_source(tmp_path)
    rows_of(source)
    assert len(source._files._files) <= 4


def test_error_without_pyarrow(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match="parquet_source needs pyarrow: pip install pyarrow"):
        parquet_source("a.parquet")


def test_error_without_fsspec(monkeypatch):
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(ImportError, match=r"'zzz://a' is an address that neither fsspec .*install"):
        parquet_source("zzz://a")


@pytest.fixture
def in_memory():
    """A folder of another machine, with one file of rows and a hidden one."""
    filesystem = fsspec.filesystem("memory")
    for name in ("a", "_b"):
        with filesystem.open(f"/hidden/{name}.parquet", "wb") as file:
            pq.write_table(TABLE, file)
    yield filesystem
    filesystem.rm("/hidden", recursive=True)


@pytest.mark.parametrize(
    "path", ["memory://hidden", "hidden", "/hidden/", "memory://hidden/*.parquet"]
)
def test_hidden_files_of_a_file_system(in_memory, path):
    source = parquet_source(path, filesystem=in_memory)
    assert source.n_rows == N
    assert tuple(shard.name for shard in source.shards) == ("a.parquet",)


def test_relative_path_on_a_file_system(flights, monkeypatch):
    flights = flights.rename(flights.with_name("_raw"))
    monkeypatch.chdir(flights)
    write(flights / "2013" / "_old.parquet", TABLE)
    source = parquet_source("2013", filesystem=fsspec.filesystem("file"))
    assert source.n_rows == 15


@pytest.mark.parametrize("pattern", ["**/*.parquet", "*/*", "file:*/*"])
def test_patterns_leave_hidden_files_out(flights, pattern):
    write(flights / "_temporary" / "part-0.parquet", TABLE)
    flights.joinpath("2013", "_SUCCESS").touch()
    scheme, pattern = ("file://", pattern[5:]) if pattern.startswith("file:") else ("", pattern)
    assert parquet_source(f"{scheme}{flights}/{pattern}").n_rows == N


def test_patterns_that_ask_for_hidden_files(flights):
    write(flights / "_kept" / "_a.parquet", TABLE)
    assert parquet_source(f"{flights}/_k*/_?.parquet").n_rows == N
    assert parquet_source(flights / "_kept" / "_a.parquet").n_rows == N


def test_linked_folders_are_entered(flights, tmp_path):
    write(tmp_path / "elsewhere" / "part-2.parquet", TABLE[:4])
    flights.joinpath("more").symlink_to(tmp_path / "elsewhere")
    assert parquet_source(flights).n_rows == N + 4
    for name, target in {"2013/up": flights, "self": flights / "self"}.items():
        flights.joinpath(name).symlink_to(target)
    tmp_path.joinpath("elsewhere", "back").symlink_to(flights)
    assert parquet_source(flights).n_rows == N + 4


@pytest.mark.parametrize("name", ["part-9.parquet", "2015"])
def test_link_to_what_is_gone(flights, tmp_path, name):
    for other in ("notes.txt", "_old"):
        flights.joinpath(other).symlink_to(tmp_path / "nowhere")
    os.mkfifo(flights / "pipe")
    assert parquet_source(flights).n_rows == N
    flights.joinpath("2014", name).symlink_to(tmp_path / "nowhere")
    with pytest.raises(
        FileNotFoundError, match=rf"{name}' is a link to .*nowhere', which does not exist"
    ):
        parquet_source(flights)


def test_folder_that_cannot_be_listed(flights, monkeypatch):
    """As for a user who may not list it; hidden folders are not listed."""

    def scandir(path):
        if str(path).endswith(("2014", "_old")):
            raise PermissionError(13, "Permission denied", path)
        return listed(path)

    listed = os.scandir
    monkeypatch.setattr(os, "scandir", scandir)
    flights.joinpath("_old").mkdir()
    with pytest.raises(PermissionError, match=r"rows would be missing: .*2014'"):
        parquet_source(flights)
    flights.joinpath("2014").rename(flights / "2015")
    assert parquet_source(flights).n_rows == N


class Restricted(pyarrow.fs.FSSpecHandler):
    """Files of a machine that lists nothing."""

    def get_file_info_selector(self, selector):
        raise PermissionError(13, f"Cannot list directory '{selector.base_dir}'")


def test_remote_folder_that_cannot_be_listed(flights):
    filesystem = pyarrow.fs.PyFileSystem(Restricted(fsspec.filesystem("file")))
    with pytest.raises(PermissionError, match=r"rows would be missing: .*flights'"):
        parquet_source(flights, filesystem=filesystem)


@pytest.mark.parametrize("spelling", ["{0}/../2013/part-0.parquet", "link.parquet"])
def test_file_twice_by_two_names(flights, spelling):
    one = flights / "2013" / "part-0.parquet"
    other = flights / spelling.format("2013")
    if spelling == "link.parquet":
        other.symlink_to(one)
    with pytest.raises(ValueError, match=r"twice, also as '.*part-0\.parquet': rows would count"):
        parquet_source([one, str(other)])
    with pytest.raises(ValueError, match=r"part-0\.parquet' twice: rows would count twice"):
        parquet_source([str(one)] * 2)


def test_a_source_of_some_fields_reads_their_columns_alone(flights):
    columns = {"X": ["dep_delay", "distance"], "y": "arr_delay"}
    source = parquet_source(flights, columns=columns)
    some = source.of_fields(["y"])
    assert some.selection.names == ("arr_delay",)
    np.testing.assert_array_equal(
        np.concatenate([part["y"] for part in some]), COLUMNS["arr_delay"]
    )
    [part, *_] = DataLoader(source, batch_size=4).read_fields(["y"])
    assert list(part) == ["y"]
