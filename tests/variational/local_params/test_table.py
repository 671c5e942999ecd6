# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""The table of the rows of a plate: which row is where, and how it lies in memory."""

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest

from hypothesis import given
from hypothesis import strategies as st

import pymc as pm

from pymc.minibatch.axis_tracking import Rows
from pymc.minibatch.index import minibatch_index
from pymc.variational.local_params.table import CACHE_LINE, ParamTable, aligned_zeros, line_length
from tests.variational.engine import PYTHON


def rows(n_rows, batch_size, sampling="epoch", dim=None):
    return Rows(minibatch_index(n_rows, batch_size, sampling, dim))


def table_of(*plate, start=((0.0, 1.0),)):
    return ParamTable.of(plate, np.array(start), "z")


class TestStart:
    def test_all_rows_alike(self):
        table = table_of(rows(5, 2))
        np.testing.assert_array_equal(table.parameters(), [[0, 1]] * 5)
        assert (table.name, table.n_rows, table.n_params, table.batch_size) == ("z", 5, 2, 2)
        assert table.shared.type.shape == (None, None)

    def test_each_row(self):
        start = np.arange(15.0).reshape(5, 3)
        table = table_of(rows(5, 2), start=start)
        np.testing.assert_array_equal(table.parameters(), start)
        assert table.shared.get_value().shape == (5, 4)

    def test_several_axes(self):
        table = table_of(rows(3, 2, dim="a"), rows(4, 2, dim="b"))
        assert (table.n_rows, table.batch_size) == (12, 4)

    def test_rows_of_data(self):
        data = pytensor.shared(np.zeros((7, 2)), "data")
        assert table_of(rows(data.shape[0], 3)).n_rows == 7

    def test_float32(self):
        with pytensor.config.change_flags(floatX="float32"):
            assert table_of(rows(5, 2)).shared.type.dtype == "float32"

    @pytest.mark.parametrize("shape", [(2,), (4, 2), (5, 2, 1)])
    def test_shape(self, shape):
        with pytest.raises(ValueError, match=r"'z' of 5 rows start from .* or \(5, n\)"):
            table_of(rows(5, 2), start=np.zeros(shape))

    def test_unknown_number_of_rows(self):
        with pytest.raises(ValueError, match=r"of dim 'obs'.* is not known before the model runs"):
            table_of(rows(pt.lscalar("n"), 2, dim="obs"))


class TestIndex:
    def drawn(self, table, *more):
        compiled = pm.compile([], [table.index, *more], mode=PYTHON, random_seed=1)
        return compiled()

    def test_of_one_axis(self):
        plate = rows(9, 4)
        index, own = self.drawn(table_of(plate), plate.index)
        np.testing.assert_array_equal(index, own)
        assert table_of(plate).index.type.shape == (4,)

    def test_crossed(self):
        """In C order over the axes."""
        plate = rows(5, 2, dim="a"), rows(7, 3, dim="b"), rows(3, 2, dim="c")
        table = table_of(*plate)
        index, *own = self.drawn(table, *(axis.index for axis in plate))
        cells = np.ravel_multi_index(np.ix_(*own), (5, 7, 3))
        np.testing.assert_array_equal(index, cells.ravel())
        assert table.index.type.shape == (12,)

    def test_gather(self):
        start = np.arange(10.0).reshape(5, 2)
        table = table_of(rows(5, 3), start=start)
        table.add_optimizer_columns(np.array([7.0]))
        lines, params = table.gather()
        assert params.type.shape == (3, 2)
        index, lines, params = self.drawn(table, lines, params)
        np.testing.assert_array_equal(params, start[index])
        np.testing.assert_array_equal(lines[:, :2], params)
        np.testing.assert_array_equal(lines[:, 2], 7)

    @pytest.mark.parametrize(
        ("samplings", "found"),
        [
            (["epoch"], True),
            (["with_replacement"], True),
            (["without_replacement"], False),
            (["without_replacement", "epoch"], True),
            (["without_replacement"] * 2, False),
        ],
    )
    def test_has_duplicates(self, samplings, found):
        plate = [rows(4, 2, sampling, dim=str(k)) for k, sampling in enumerate(samplings)]
        assert table_of(*plate).has_duplicates is found


class TestOtherData:
    def test_more_rows(self):
        """No row is read beyond the table, which Numba would do."""
        data = pytensor.shared(np.zeros(4), "data")
        table = table_of(rows(data.shape[0], 3))
        table.check_rows()
        data.set_value(np.zeros(50))
        with pytest.raises(ValueError, match="data have 50 rows, and 'z' has parameters of 4"):
            table.check_rows()
        compiled = pm.compile([], [table.index, table.has_all_rows], mode=PYTHON, random_seed=1)
        for _ in range(5):
            index, has_all_rows = compiled()
            assert index.max() < 4
            assert not has_all_rows


class TestValues:
    def test_all_or_some(self):
        start = np.arange(10.0).reshape(5, 2)
        table = table_of(rows(5, 3), start=start)
        table.add_optimizer_columns(np.zeros(3))
        np.testing.assert_array_equal(table.parameters(), start)
        np.testing.assert_array_equal(table.parameters(slice(1, 3)), start[1:3])
        np.testing.assert_array_equal(table.parameters(np.array([4, 0])), start[[4, 0]])

    def test_all_are_a_view(self):
        table = table_of(rows(5, 3))
        params = table.parameters()
        assert np.shares_memory(params, table.shared.get_value(borrow=True))
        with pytest.raises(ValueError, match="read-only"):
            params[0] = 1
        assert table.shared.get_value(borrow=True).flags.writeable


class TestMemory:
    def test_widen_keeps_parameters_and_starts_states_anew(self):
        start = np.arange(10.0).reshape(5, 2)
        table = table_of(rows(5, 3), start=start)
        for states in ([1.0, 2.0, 3.0], [0.0] * 5, [0.0] * 9, []):
            table.add_optimizer_columns(np.array(states))
            value = table.shared.get_value(borrow=True)
            assert value.shape == (5, line_length(2 + len(states)))
            np.testing.assert_array_equal(table.parameters(), start)
            np.testing.assert_array_equal(value[:, 2 : 2 + len(states)], [states] * 5)
            assert not value[:, 2 + len(states) :].any()

    def test_widen_where_there_is_room(self):
        table = table_of(rows(5, 3))
        table.add_optimizer_columns(np.ones(5))
        value = table.shared.get_value(borrow=True)
        table.add_optimizer_columns(np.zeros(4))
        assert table.shared.get_value(borrow=True) is value

    @given(st.integers(1, 40), st.sampled_from(["float32", "float64"]))
    def test_lines_of_the_cache(self, n_used, dtype):
        n_columns = line_length(n_used, dtype)
        assert n_used <= n_columns < max(2 * n_used, n_used + CACHE_LINE // 4)
        value = aligned_zeros(50, n_columns, dtype)
        assert (value.shape, value.dtype, value.any()) == ((50, n_columns), dtype, False)
        assert value.flags.c_contiguous
        n_bytes = n_columns * value.itemsize
        first = value.ctypes.data + n_bytes * np.arange(50)
        touched = (first + n_bytes - 1) // CACHE_LINE - first // CACHE_LINE + 1
        assert set(touched) == {-(-n_used * value.itemsize // CACHE_LINE)}
