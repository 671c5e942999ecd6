# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""The losses of a fit: all of them, in an array that grows."""

import tracemalloc

import numpy as np
import pytest

from hypothesis import given
from hypothesis import strategies as st

from pymc.variational.engine.loop import LossHistory


@given(st.lists(st.integers(0, 3000), max_size=8))
def test_keeps_all(lengths):
    history, losses, start = LossHistory(), [], 0
    for n in lengths:
        losses.append(np.arange(start, start + n, dtype=float))
        start += n
        history.extend(losses[-1])
        assert len(history) == start
    np.testing.assert_array_equal(history.losses, np.concatenate([[], *losses]))
    assert history.losses.dtype == "float64"


def test_earlier_views_do_not_change():
    history, views = LossHistory(), []
    for k in range(40):
        history.extend(np.full(100, float(k)))
        views.append(history.losses)
    for k, view in enumerate(views):
        np.testing.assert_array_equal(view, np.repeat(np.arange(k + 1), 100))


def test_what_is_given_may_be_used_again():
    history, losses = LossHistory(), np.ones(3)
    history.extend(losses)
    losses[:] = 2
    assert history.losses.tolist() == [1, 1, 1]


def test_room_grows_with_the_losses():
    tracemalloc.start()
    try:
        history = LossHistory()
        for _ in range(1000):
            history.extend(np.zeros(100))
        # The losses, their room of at most twice that, and the room before
        assert tracemalloc.get_traced_memory()[1] < 3.5 * 8 * len(history)
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "losses, n, mean",
    [
        ([1.0, 2, 3], 2, 2.5),
        ([1.0, 2, 3], 9, 2.0),
        ([1.0, np.inf, 3, np.nan], 4, 2.0),
        ([1.0, np.nan], 1, np.nan),
        ([], 5, np.nan),
    ],
)
def test_recent_mean(losses, n, mean):
    history = LossHistory()
    history.extend(np.array(losses))
    np.testing.assert_equal(history.recent_mean(n), mean)


def test_recent_is_a_thousand():
    history = LossHistory()
    history.extend(np.arange(5000.0))
    assert history.recent_mean() == np.arange(4000, 5000).mean()
