# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0

"""Docstrings that add to those of the release."""

import pymc as pm

from pymc._docstrings import extends_docstring, merge_docstrings

OLD = """Fit a line.

    It is straight.

    Warnings
    --------
    Slow.

    Parameters
    ----------
    x : array
        The places.
    **kwargs
        More.

    Examples
    --------
    >>> fit([1])
    """

NEW = """With weights, it is another line.

    Parameters
    ----------
    x : array or batch
        Of a batch, its rows.
    weights : array, optional
        One for each place.

    Raises
    ------
    ValueError
        Without places.

    Examples
    --------
    >>> fit([1], weights=[2])
    """

MERGED = """Fit a line.

It is straight.

With weights, it is another line.

Warnings
--------
Slow.

Parameters
----------
x : array or batch
    The places.
    Of a batch, its rows.
weights : array, optional
    One for each place.
**kwargs
    More.

Raises
------
ValueError
    Without places.

Examples
--------
>>> fit([1])

>>> fit([1], weights=[2])
"""


def test_sections_and_entries_are_merged() -> None:
    assert merge_docstrings(OLD, NEW) == MERGED


def test_either_may_be_stripped() -> None:
    assert merge_docstrings(None, NEW) == NEW
    assert merge_docstrings(OLD, None) == OLD
    assert merge_docstrings(None, None) is None


def test_decorator() -> None:
    def old() -> None:
        """Do it."""

    @extends_docstring(old)
    def new() -> None:
        """Twice."""

    assert new.__doc__ == "Do it.\n\nTwice.\n"


def test_users_have_both() -> None:
    """What PyMC says of a function is kept: `pm.Data` on static lengths, `pm.Potential` on soft constraints."""
    for function, theirs, ours in [
        (pm.Data, "cannot broadcast", "DataLoader"),
        (pm.Potential, "soft constraint", "total_size"),
        (pm.callbacks.Tracker, "tracker['time']", "every : int"),
        (pm.callbacks.CheckParametersConvergence, "check frequency", "CheckStationarity"),
    ]:
        doc = function.__doc__ or ""
        assert theirs in doc and ours in doc
