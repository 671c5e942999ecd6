# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Rows by position, by mask and by coords."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import pymc as pm

from pymc.minibatch.index import minibatch_index
from pymc.minibatch.provenance import Rows
from pymc.variational.posterior.select import select_rows

OBS = Rows(minibatch_index(rows=4, batch_size=2, dim="obs"))
USER = Rows(minibatch_index(rows=3, batch_size=2, dim="user"))
MODEL = pm.Model(coords={"obs": ["a", "b", "c", "d"]})


@pytest.mark.parametrize(
    ("rows", "positions"),
    [
        (None, [0, 1, 2, 3]),
        (slice(2, None), [2, 3]),
        ([3, 0], [3, 0]),
        (-1, [3]),
        ([], []),
        ([True, False, False, True], [0, 3]),
        (np.array([1], dtype="int8"), [1]),
        ({"obs": ["d", "a"]}, [3, 0]),
        ({"obs": "b"}, [1]),
        ({"obs": slice(0, 2)}, [0, 1]),
        ({}, [0, 1, 2, 3]),
    ],
)
def test_positions(rows: Any, positions: list[int]) -> None:
    selection = select_rows(MODEL, [OBS], rows)
    assert selection.positions[OBS].tolist() == positions
    assert selection.positions[OBS].dtype == np.int64
    assert selection.is_all == (positions == [0, 1, 2, 3])


def test_rows_of_two_axes_in_a_table() -> None:
    selection = select_rows(MODEL, [USER, OBS], {"obs": ["d", "b"], "user": [2, 0]})
    assert selection.in_table((USER, OBS)).tolist() == [11, 9, 3, 1]
    assert selection.in_table((OBS,)).tolist() == [3, 1]
    assert set(selection.by_dim) == {"obs", "user"}


def test_parts_along_one_axis() -> None:
    selection = select_rows(MODEL, [USER, OBS], {"obs": ["d", "b", "a"]})
    parts = [(part, rows.in_table((OBS,)).tolist()) for part, rows in selection.chunks(OBS, 2)]
    assert parts == [(slice(0, 2), [3, 1]), (slice(2, 3), [0])]
    assert all(len(rows.positions[USER]) == 3 for _, rows in selection.chunks(OBS, 2))


@pytest.mark.parametrize(
    ("rows", "error", "match"),
    [
        ([4], IndexError, "has a row that is not there.*'obs' has 4 rows"),
        ([True], IndexError, "a mask of another length"),
        ([0.5], TypeError, r"rows=\[0.5\] of f has to be a slice, positions, or a mask"),
        ({"obs": ["e"]}, KeyError, r"rows of f has \['e'\] of the dim 'obs'"),
        (
            {"group": [1]},
            ValueError,
            r"rows of f has 'group', but the subsampled dims are \['obs'\]",
        ),
    ],
)
def test_refusals(rows: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        select_rows(MODEL, [OBS], rows, "f")


def test_positions_need_one_axis() -> None:
    with pytest.raises(ValueError, match=r"are positions along one subsampled dim.*write a dict"):
        select_rows(MODEL, [OBS, USER], [0], "f")
    with pytest.raises(ValueError, match="no dim of the model is subsampled"):
        select_rows(MODEL, [], [0], "f")
