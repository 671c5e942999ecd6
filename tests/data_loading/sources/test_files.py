# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Folders with a log of which files count: rows of removed files are never read."""

import sys

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pymc.data_loading.sources.arrow import arrow_source
from pymc.data_loading.sources.parquet import parquet_source
from tests.data_loading.sources.test_dataset import rows_of

OLD, NEW = pa.table({"x": [1.0, 2.0, 3.0]}), pa.table({"x": [7.0, 8.0]})


def write(folder, *marks):
    """Write the files of an old and a new version, and what is in such a folder beside them."""
    folder.mkdir(parents=True)
    pq.write_table(OLD, folder / "part-0.parquet")
    pq.write_table(NEW, folder / "part-1.parquet")
    for mark in marks:
        folder.parent.joinpath(mark).parent.mkdir(parents=True, exist_ok=True)
        folder.parent.joinpath(mark).write_text("{}")


TABLES = {
    "delta": ("t", ["t/_delta_log/00000000000000000000.json"], r"Delta Lake.*DeltaTable\('.*/t'\)"),
    "delta, partitioned": ("t/p=1", ["_delta_log/0.json"], "/t' is a table of Delta Lake"),
    "spark": ("t", ["t/_spark_metadata/0"], r"sink.*give the files that its log, _spark_metadata"),
    "hudi": ("t", ["t/.hoodie/hoodie.properties"], r"pm.arrow_source\(lambda: hudi.HudiTableBuilder"),
    "hudi, partition": ("t/2013", ["2013/.hoodie_partition_metadata"], "is a table of Hudi"),
    "iceberg": (
        "t/data",
        ["metadata/00000-a.metadata.json", "metadata/00001-b.metadata.json"],
        r"/t' is a table of Iceberg.*StaticTable.from_metadata\('.*/metadata/00001-b.metadata.json'\)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("given", ["the folder", "a folder above", "a pattern"])
@pytest.mark.parametrize("kind", TABLES)
def test_removed_files_are_not_read(tmp_path, kind, given, monkeypatch):
    monkeypatch.setitem(sys.modules, "deltalake", None)
    inside, marks, message = TABLES[kind]
    write(tmp_path / inside, *marks)
    path = {
        "the folder": tmp_path / inside,
        "a folder above": tmp_path,
        "a pattern": tmp_path / inside / "*.parquet",
    }[given]
    if (kind, given) == ("delta", "the folder"):
        message = "is a table of Delta Lake, .* its log is read by deltalake: pip install"
    with pytest.raises((ValueError, ImportError), match=message):
        parquet_source(path)
    # Who names files has read the log
    assert parquet_source([tmp_path / inside / "part-1.parquet"]).n_rows == 2


def test_delta_table_of_another_machine(tmp_path):
    filesystem = fsspec.filesystem("memory")
    write(tmp_path / "t", "t/_delta_log/0.json")
    filesystem.put(str(tmp_path), "/delta", recursive=True)
    with pytest.raises(ValueError, match=r"on another machine.*arrow_source\(deltalake.DeltaTable"):
        parquet_source("memory://delta/t")
    with pytest.raises(
        ValueError, match="'/delta/t' is a table of Delta Lake, with a log of which"
    ):
        parquet_source("memory://delta")


def test_folders_that_are_no_tables(tmp_path):
    write(tmp_path / "data", "metadata/about.json", "data/metadata/columns.json")
    write(tmp_path / "_old", "_old/_delta_log/0.json")
    assert parquet_source(tmp_path).n_rows == 5


def test_delta_table(tmp_path):
    deltalake = pytest.importorskip("deltalake")
    path = tmp_path / "t"
    for i, mode in enumerate(["append", "overwrite", "append"]):
        table = pa.table({"x": np.arange(4.0) + 10 * i, "year": [2013, 2014] * 2, "s": ["a"] * 4})
        deltalake.write_deltalake(path, table, mode=mode, partition_by=["year", "s"])
    deltalake.DeltaTable(path).delete("x = 11")
    log = deltalake.DeltaTable(path).to_pyarrow_table().select(["x", "year"])
    rows = rows_of(parquet_source(path, ["x", "year"]))
    assert sorted(map(tuple, rows.tolist())) == sorted(zip(*log.to_pydict().values()))
    assert len(rows) == log.num_rows == 7
    assert parquet_source(path).layout.fields[0].columns == ("x",)
    with pytest.raises(ValueError, match=r"DeltaTable.*file_uris"):
        parquet_source(path / "year=2013")
    assert parquet_source(deltalake.DeltaTable(path).file_uris()).n_rows == 7
    for opened in (
        deltalake.DeltaTable(path).to_pyarrow_dataset(),
        lambda: deltalake.DeltaTable(path).scan(),
    ):
        assert len(rows_of(arrow_source(opened, ["x", "year"]))) == 7


@pytest.mark.parametrize("log", [None, "", "{}", "no JSON"])
def test_delta_table_whose_log_cannot_be_read(tmp_path, log):
    pytest.importorskip("deltalake")
    write(tmp_path / "t")
    (tmp_path / "t" / "_delta_log").mkdir()
    if log is not None:
        (tmp_path / "t" / "_delta_log" / f"{0:020}.json").write_text(log)
    with pytest.raises(
        ValueError, match=r"/t' is a table of Delta Lake, and deltalake cannot read its log, .*\("
    ):
        parquet_source(tmp_path / "t")


def test_delta_table_with_deletion_vectors(tmp_path, monkeypatch):
    deltalake = pytest.importorskip("deltalake")
    deltalake.write_deltalake(tmp_path / "t", NEW)

    def refuse(*args, **kwargs):
        raise deltalake.exceptions.DeltaProtocolError("requires reader feature 'deletionVectors'")

    monkeypatch.setattr(deltalake.DeltaTable, "to_pyarrow_dataset", refuse)
    with pytest.raises(ValueError, match=r"deletionVectors.*pm.arrow_source\(lambda: deltalake"):
        parquet_source(tmp_path / "t")
