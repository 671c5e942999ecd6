# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0

"""Checks of arguments: what they let through, and what their errors say."""

import re

from fractions import Fraction

import numpy as np
import pytest

from pymc.argument_checks import check_choice, check_flag, check_int, check_number


@pytest.mark.parametrize("value", [3, np.int8(3), np.uint64(3), np.array(3)])
def test_integers(value):
    result = check_int(value, "draws", "sample")
    assert type(result) is int and result == 3


@pytest.mark.parametrize("value", [True, np.bool_(True), 3.0, np.float64(3), "3", None, [3]])
def test_no_integers(value):
    message = f"draws={value!r} of sample must be a whole number; got a {type(value).__name__}"
    with pytest.raises(TypeError, match=f"^{re.escape(message)}. Try 10$"):
        check_int(value, "draws", "sample", hint="Try 10")


def test_range_of_integers():
    assert check_int(0, "n", "fit", at_least=0) == 0
    assert check_int(10**400, "seed", "fit") == 10**400  # more than the largest float
    with pytest.raises(ValueError, match=r"^n=0 of fit must be at least 1$"):
        check_int(0, "n", "fit")
    with pytest.raises(ValueError, match=r"^n=9 of fit must be at least 1 and at most 8. Try 8$"):
        check_int(9, "n", "fit", at_most=8, hint="Try 8")


@pytest.mark.parametrize("value", [0.5, np.float32(0.5), np.array(0.5), Fraction(1, 2)])
def test_numbers(value):
    result = check_number(value, "average", "fit", above=0, at_most=1)
    assert type(result) is float and result == 0.5


@pytest.mark.parametrize("value", [True, np.bool_(True), np.array(True), "1", None, [0.5], 0.5j])
def test_no_numbers(value):
    with pytest.raises(TypeError, match=r"^average=.* of fit must be a number; got a "):
        check_number(value, "average", "fit")


@pytest.mark.parametrize(
    ("value", "bounds", "message"),
    [
        (0, {"above": 0, "at_most": 1}, "above 0 and at most 1"),
        (1.0, {"at_least": 0, "below": 1}, "at least 0 and below 1"),
        (np.nan, {"above": 0}, "finite and above 0"),
        (np.inf, {}, "finite"),
    ],
)
def test_range_of_numbers(value, bounds, message):
    with pytest.raises(ValueError, match=f"of fit must be {message}$"):
        check_number(value, "average", "fit", **bounds)


def test_flags_and_choices():
    assert check_flag(np.bool_(True), "shuffle", "DataLoader") is True
    with pytest.raises(
        TypeError, match=r"^shuffle=1 of DataLoader must be True or False; got a int$"
    ):
        check_flag(1, "shuffle", "DataLoader")
    assert check_choice("skip", "on_nan", "DataLoader", ("raise", "skip")) == "skip"
    with pytest.raises(
        ValueError, match=r"^on_nan='x' of DataLoader must be one of 'raise', 'skip'"
    ):
        check_choice("x", "on_nan", "DataLoader", ("raise", "skip"))
