# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""What a batch is like."""

import json

import numpy as np
import pytest

from pymc.data_loading.sources.layout import BadValue, BlockSource, Field, Layout

F4, I8 = np.dtype("f4"), np.dtype("i8")
X = Field("X", (2, 3), F4)
Y = Field("y", (), I8, columns=("arr_delay",))


def test_named_batch():
    layout = Layout((X, Y))
    batch = layout.batch(layout.empty(5, 7))
    assert {name: (a.shape, a.dtype) for name, a in batch.items()} == {
        "X": ((5, 7, 2, 3), F4),
        "y": ((5, 7), I8),
    }
    assert layout.named
    assert layout.row_bytes == 2 * 3 * 4 + 8


def test_batch_of_one_array():
    layout = Layout((Field("", (2,), F4),))
    assert not layout.named
    assert layout.batch(layout.empty(5)).shape == (5, 2)


def test_schema_is_json():
    schema = Layout((X, Y)).schema
    assert json.loads(json.dumps(schema)) == schema
    assert schema[1] == {"name": "y", "shape": [], "dtype": "int64", "columns": ["arr_delay"]}


@pytest.mark.parametrize(
    ["field", "place", "label"],
    [
        (Y, (), "'arr_delay'"),
        (Y, (0,), "'arr_delay'"),
        (Field("", (2,), F4, ("a", "b")), (1,), "'b'"),
        (X, (1, 2), "1, 2"),
        (Field("", (), F4), (), ""),
    ],
)
def test_label(field, place, label):
    assert field.label(place) == label


@pytest.mark.parametrize(
    ["bad", "text"],
    [
        (BadValue(3, "", ""), "row 3"),
        (BadValue(3, "X", "1, 2"), "row 3, field 'X', column 1, 2"),
        (BadValue(3, "", "'b'", first_row=100), "row 103, column 'b'"),
    ],
)
def test_bad_value_says_where(bad, text):
    assert str(bad) == text


def test_source_without_parts_reads_in_order_only():
    class Stream(BlockSource):
        n_rows = None
        layout = Layout((X,))
        identity = {}

    assert Stream().part_lengths is None
    with pytest.raises(NotImplementedError, match="Stream gives its blocks in order only"):
        Stream().read(0)
