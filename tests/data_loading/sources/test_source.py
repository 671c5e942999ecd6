# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0

"""A source of a user's own: parts that are loaded alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import pymc as pm

from pymc.data_loading.sources.dataset import as_source

LENGTHS = (0, 4, 1, 0, 5)
ROWS = np.arange(20.0).reshape(10, 2)


class Parts(pm.Source):
    """Slices of an array, which notes what is loaded."""

    part_lengths = LENGTHS

    def __init__(self, rows: Any = ROWS) -> None:
        self.rows = rows
        self.loaded: list[int] = []

    def load(self, part: int) -> Any:
        self.loaded.append(part)
        start = sum(self.part_lengths[:part])
        return self.rows[start : start + LENGTHS[part]]


def test_defaults():
    source = Parts()
    assert as_source(source) is source
    assert (source.n_rows, source.one_shot, repr(source)) == (10, False, "Parts(10 rows)")
    assert source.loaded == []  # nothing is read for it
    [field] = source.layout.fields
    assert (field.name, field.shape, field.dtype) == ("", (2,), np.dtype("float64"))
    assert source.identity == {"kind": "Parts", "n_rows": 10, "schema": source.layout.schema}
    np.testing.assert_array_equal(np.concatenate(list(source)), ROWS)


@pytest.mark.parametrize("shuffle", [False, True])
def test_each_row_once_a_pass(shuffle):
    loader = pm.DataLoader(Parts(), batch_size=5, shuffle=shuffle, seed=1)
    for _ in range(2):
        batches = list(loader)
        rows = np.concatenate([batch.rows for batch in batches])
        assert sorted(rows.tolist()) == list(range(10))
        np.testing.assert_array_equal(np.concatenate(batches), ROWS[rows])
    assert shuffle == (rows.tolist() != list(range(10)))


def test_a_position_is_found_without_reading_what_comes_before():
    source = Parts()
    loader = pm.DataLoader(source, batch_size=5, prefetch=0)
    assert len(loader.layout.fields) == 1
    source.loaded.clear()
    chunk = next(iter(loader.chunks(pm.data_loading.batch.Position(0, 5), 1)))
    np.testing.assert_array_equal(chunk.values[0][0], ROWS[5:])
    assert source.loaded == [4]


def test_a_fit_of_it():
    loader = pm.DataLoader(Parts(), batch_size=5)
    with pm.Model() as model:
        batch = pm.Data("batch", loader)
        pm.Normal("y", pm.Normal("mu"), 1, observed=batch)
    by_source, by_array = (
        pm.fit(
            3,
            model=model,
            data=data,
            random_seed=1,
            progressbar=False,
            compile_kwargs={"mode": "FAST_COMPILE"},
        )
        for data in (loader, pm.DataLoader(ROWS, batch_size=5))
    )
    np.testing.assert_array_equal(by_source.hist, by_array.hist)


def test_fields_of_a_dict():
    class Named(Parts):
        def load(self, part: int) -> Any:
            rows = super().load(part)
            return {"x": rows, "y": rows[:, 0].astype(int)}

    batch = next(iter(pm.DataLoader(Named(), batch_size=3)))
    assert {name: array.dtype.name for name, array in batch.items()} == {
        "x": "float64",
        "y": "int64",
    }


def test_what_is_missing():
    class NoLoad(pm.Source):
        part_lengths = (1,)

    with pytest.raises(TypeError, match="abstract method 'load'"):
        NoLoad()


def test_no_parts():
    class Empty(Parts):
        part_lengths = ()

    with pytest.raises(ValueError, match=r"Empty\(0 rows\) has no rows: part_lengths is \(\)"):
        Empty().layout


def test_another_number_of_rows_than_was_said():
    class Fewer(Parts):
        def load(self, part: int) -> Any:
            return super().load(part)[1:]

    with pytest.raises(ValueError, match=r"part 1 of Fewer\(10 rows\) has 3 rows, and 4 when"):
        list(pm.DataLoader(Fewer(), batch_size=5))


def test_other_rows_than_those_of_the_first_part():
    rows = [np.zeros((4, 2)), np.zeros((1, 3))]

    class Other(Parts):
        part_lengths = (4, 1)

        def load(self, part: int) -> Any:
            return rows[part]

    with pytest.raises(ValueError, match=r"part 1 of Other\(5 rows\) has shape \(1, 3\)"):
        list(pm.DataLoader(Other(), batch_size=5))


@pytest.mark.parametrize("data", [3, None, object()])
def test_no_source_of_rows(data):
    with pytest.raises(TypeError, match=f"rows cannot come from a {type(data).__name__}"):
        as_source(data)
