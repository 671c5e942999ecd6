# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Which row numbers the parts of a batch have."""

import numpy as np
import pytest

from pymc.data_loading.batch import StreamBatch

VALUES = np.arange(5 * 2 * 3).reshape(5, 2, 3)
ROWS = np.array([7, 5, 3, 9, 1])
MASK = VALUES[0] % 2 == 0

KEPT = {
    "all": ...,
    "slice": slice(1, 4),
    "list": [4, 0, 0],
    "mask": ROWS > 4,
    "column": (..., 0),
    "columns of a column": (slice(None), 1, slice(0, 2)),
    "a new axis behind": (..., None, 0, slice(None)),
    "list behind": (slice(2), slice(None), [2, 0]),
    "list behind all": (..., [2, 0]),
    "mask behind": (slice(None), MASK),
    "mask behind all": (..., MASK),
}
LOST = {
    "one row": 2,
    "one entry of each": (..., 0, 0, 0, None),
    "the first axis by dots": (..., 2, slice(None), slice(None)),
    "a new axis before": None,
    "a new axis before dots": (None, ...),
    "lists apart": (slice(2), [0, 1], None, [0, 1]),
    "number and list apart": (slice(None), 0, None, [0, 1]),
    "rows and columns by lists": ([0, 1], [1, 0]),
    "mask of entries": VALUES > 4,
    "matrix of rows": np.array([[0, 1], [2, 3]]),
}


@pytest.mark.parametrize("index", KEPT.values(), ids=KEPT)
def test_rows_are_kept(index):
    """They are those that the values come from: each value says its row."""
    batch = StreamBatch.of(np.broadcast_to(ROWS[:, None, None], VALUES.shape), ROWS)[index]
    assert len(batch.rows) == len(batch)
    np.testing.assert_array_equal(batch.rows, batch.reshape(len(batch), -1)[:, 0])


@pytest.mark.parametrize("index", LOST.values(), ids=LOST)
def test_rows_are_not_known(index):
    assert getattr(StreamBatch.of(VALUES, ROWS)[index], "rows", None) is None
