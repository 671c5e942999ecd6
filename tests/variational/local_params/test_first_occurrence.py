# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""The first slot of each row, on every backend."""

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest

from hypothesis import given
from hypothesis import strategies as st

from pymc.variational.local_params.first_occurrence import (
    FirstOccurrence,
    first_occurrence,
    sum_of_rows,
)
from tests.variational.engine import BACKENDS, PYTHON

MODES = {"numba": "NUMBA", "jax": "JAX", "c": "CVM"}
BATCHES = [
    [5, 1, 5, 5, 0, 1, 7, 7],
    [3, 2, 1, 0, 4, 5, 6, 7],
    [9] * 8,
    [2**62, 0, 2**31, 2**62, 2**33, 2**31, 0, 1],  # further apart than a hash table is long
]


def by_search(index):
    index = list(index)
    return [index.index(row) for row in index]


@pytest.fixture(scope="module", params=[*BACKENDS, "python"])
def compiled(request):
    index = pt.vector("index", dtype="int64", shape=(8,))
    mode = MODES.get(request.param, PYTHON)
    return pytensor.function([index], first_occurrence(index), mode=mode, trust_input=True)


@pytest.mark.parametrize("batch", BATCHES)
def test_on_backends(compiled, batch):
    found = np.asarray(compiled(np.array(batch, dtype="int64")))
    np.testing.assert_array_equal(found, by_search(batch))


@given(st.lists(st.integers(0, 20), max_size=40))
def test_any_batch(batch):
    cell = [None]
    FirstOccurrence().perform(None, [np.array(batch, dtype="int64")], [cell])
    assert cell[0].dtype == "int64"
    np.testing.assert_array_equal(cell[0], by_search(batch))


def test_sum_of_rows():
    values, index = np.arange(8.0).reshape(4, 2), np.array([6, 2, 6, 6])
    found = sum_of_rows(pt.constant(values), pt.constant(index)).eval(mode=PYTHON)
    all_of_6 = values[[0, 2, 3]].sum(axis=0)
    np.testing.assert_array_equal(found, [all_of_6, values[1], all_of_6, all_of_6])


@pytest.mark.parametrize("index", [pt.vector("w"), pt.matrix("w", dtype="int64")])
def test_refuses_what_is_no_index(index):
    with pytest.raises(TypeError, match="a vector of integers, got w of type"):
        first_occurrence(index)
