# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""The one copy of a row, against NumPy's."""

import hypothesis.strategies as st
import numpy as np
import pytest

from hypothesis import given

from pymc.data_loading.sources import copying
from pymc.data_loading.sources.copying import (
    MIXED_ROWS,
    copy_columns,
    copy_rows,
    group_columns,
)

DTYPES = ["?", "i1", "u2", "i4", "i8", "f2", "f4", "f8"]


def numbers(n, dtype, seed=0):
    values = np.random.default_rng(seed).integers(0, 100, n)
    return (values % 2 if dtype == "?" else values).astype(dtype)


def stacked(columns, dtype):
    return np.stack([column.astype(dtype) for column in columns], axis=1)


# Few pairs of dtypes for the kernels: each is compiled
@pytest.mark.parametrize(
    "dtypes", [["f4"] * 3, ["f4", "?"], ["i8"], ["f2", "f2"], ["?", "?"], DTYPES]
)
@pytest.mark.parametrize("n", [0, 1, 700, MIXED_ROWS + 300])
def test_columns(dtypes, n):
    columns = [numbers(n, dtype, seed) for seed, dtype in enumerate(dtypes)]
    dtype = np.result_type(*dtypes)
    start, stop = min(n, 3), max(n - 2, 0)
    start = min(start, stop)
    expected = stacked(columns, dtype)[start:stop]
    out = np.zeros((n + 10, len(dtypes)), dtype)
    assert copy_columns(group_columns(columns), out, 5, start, stop)
    np.testing.assert_array_equal(out[5 : 5 + stop - start], expected)
    assert not out[:5].any()
    assert not out[5 + stop - start :].any()

    places = np.random.default_rng(1).permutation(n + 10)[: stop - start]
    out = np.zeros((n + 10, len(dtypes)), dtype)
    assert copy_columns(group_columns(columns), out, places, start, stop)
    np.testing.assert_array_equal(out[places], expected)
    assert not np.delete(out, places, axis=0).any()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
@pytest.mark.parametrize("row", [0, 255, 256, 599])
def test_a_value_that_is_not_finite_is_found(bad, dtype, row):
    columns = [numbers(600, dtype) for _ in range(3)]
    columns[1][row] = bad
    out, places = np.empty((600, 3), dtype), np.arange(600)[::-1].copy()
    groups, rows = group_columns(columns), stacked(columns, dtype)
    for where in (0, places):
        assert not copy_columns(groups, out, where, 0, 600)
        assert not copy_rows(rows, out, where, 0, 600)
    others = (0, row) if row else (1, 600)
    assert copy_columns(groups, out, 0, *others)
    assert copy_rows(rows, out, 0, *others)


def test_large_floats_are_finite():
    columns = [np.full(300, np.finfo("f4").max), np.full(300, -np.finfo("f4").max)]
    assert copy_columns(group_columns(columns), np.empty((300, 2), "f4"), 0, 0, 300)


@pytest.mark.parametrize(
    "change", [np.asfortranarray, lambda a: a[::-1], lambda a: a.astype(">f4")]
)
@pytest.mark.parametrize("shape", [(700,), (700, 3), (5000, 2, 3)])
def test_rows_of_any_memory(change, shape):
    rows = change(np.random.default_rng(0).normal(size=shape).astype("f4"))
    out = np.zeros(shape, "f4")
    assert copy_rows(rows, out, 0, 0, len(rows))
    np.testing.assert_array_equal(out, rows)
    places = np.random.default_rng(1).permutation(len(rows))
    assert copy_rows(rows, out, places[10:], 10, len(rows))
    np.testing.assert_array_equal(out[places[10:]], rows[10:])


def test_read_only_memory_and_strided_columns():
    table = np.arange(40.0).reshape(10, 4)
    table.flags.writeable = False
    out = np.empty((10, 2))
    copy_columns(group_columns([table[:, 3], table[:, 1]]), out, 0, 0, 10)
    np.testing.assert_array_equal(out, table[:, [3, 1]])


def test_contiguous_columns_are_not_copied():
    column = np.arange(5.0)
    (group,) = group_columns([column])
    assert group.addresses.tolist() == [column.ctypes.data]


def test_one_kernel_serves_any_number_of_columns():
    for n in (1, 2, 7):
        copy_columns(group_columns([np.ones(4, "f4")] * n), np.empty((4, n), "f4"), 0, 0, 4)
    signatures = copying.interleave.signatures
    assert len(signatures) == len({(s[1].dtype, s[4].dtype) for s in signatures})


@given(
    n=st.integers(0, 20),
    start=st.integers(-3, 22),
    n_copied=st.integers(-2, 20),
    at=st.integers(-3, 22),
)
def test_nothing_outside_is_read_or_written(n, start, n_copied, at):
    stop = start + n_copied
    source, out = np.ones((n, 1)), np.zeros((15, 1))
    inside = 0 <= start <= stop <= n and 0 <= at <= 15 - n_copied
    for where in (at, np.arange(at, at + max(n_copied, 0))):
        fits = inside or (isinstance(where, np.ndarray) and 0 <= start == stop <= n)
        for copy in (
            lambda: copy_columns(group_columns([source[:, 0]]), out, where, start, stop),
            lambda: copy_rows(source, out, where, start, stop),
        ):
            if fits:
                assert copy()
            else:
                with pytest.raises(IndexError, match="do not fit to places"):
                    copy()


def test_output_of_strides_is_refused():
    with pytest.raises(ValueError, match="not C-contiguous"):
        copy_rows(np.ones((4, 2)), np.ones((2, 4)).T, 0, 0, 4)
