# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Encoders that mix rows are refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
import scipy.stats as st

from pytensor.graph.basic import Variable

import pymc as pm

from pymc.variational.approximation import guided_approximation
from tests.variational.guides.amortized_models import (
    PLAIN,
    B,
    bound,
    normal,
    one_local,
    weights,
)


def mean_over_rows(x: np.ndarray) -> np.ndarray:
    return x - x.mean()


def twice(x: np.ndarray) -> np.ndarray:
    return 2 * x


def as_op(function: Callable[[np.ndarray], np.ndarray], x: Variable) -> Variable:
    return pytensor.wrap_py([pt.dvector], [pt.dvector])(function)(x)


COUPLED = {
    "batch_normalisation": (lambda y: (y - y.mean()) / y.std(), "Sum.* mixes the rows"),
    "cumulated": (lambda y: pt.cumsum(y), "Cumsum"),
    "unknown_op": (lambda y: as_op(mean_over_rows, y), "in another order"),
    "weights_of_zero": (lambda y: weights("w", 0.0) * as_op(mean_over_rows, y), "in another order"),
    "own_values": (lambda y: 0 * y + np.arange(float(B)), "not of the batch"),
    "slots": (lambda y: weights("slots", np.arange(float(B))), "values of its own along axis 0"),
}


@pytest.mark.parametrize("kind", COUPLED)
def test_encoders_that_couple_rows_are_refused(kind: str) -> None:
    function, match = COUPLED[kind]
    model, guide = one_local(normal(), lambda y: pm.Normal.dist(function(y), 1))
    with pytest.raises(ValueError, match=rf"encoder of 'z' in pm.Amortized.*{match}"):
        guided_approximation(model, guide)


@pytest.mark.parametrize("feeding", ["in_model", "there"])
@pytest.mark.parametrize(
    "function", [lambda y: as_op(twice, y), lambda y: pt.tanh(y), lambda y: [0.5]], ids=["op", "tanh", "alike"]
)  # fmt: skip
def test_encoders_of_single_rows_pass(function: Any, feeding: str) -> None:
    model, guide = one_local(normal(), lambda y: pm.Normal.dist(function(y), 1))
    if feeding == "there":
        model = pm.remove_minibatch(model)
        guide.inputs = (model["data"],)
    assert bound(model, guide).reparametrised


@pytest.mark.parametrize("kind", ["batch_normalisation", "unknown_op"])
def test_rows_that_are_there_are_checked_too(kind: str) -> None:
    function, match = COUPLED[kind]
    model, guide = one_local(normal(), lambda y: pm.Normal.dist(function(y), 1))
    with pytest.raises(ValueError, match=match):
        guided_approximation(pm.remove_minibatch(model), guide)


@pytest.mark.parametrize("feeding", ["in_model", "there"])
def test_encoders_do_not_compute_with_the_length_of_a_batch(feeding: str) -> None:
    model, guide = one_local(normal(), lambda y: pm.Normal.dist(y / y.shape[0], 1))
    if feeding == "there":
        model = pm.remove_minibatch(model)
    match = (
        r"encoder of 'z' in pm.Amortized computes with the number of rows of a batch, \d.*full data"
    )
    with pytest.raises(ValueError, match=match):
        guided_approximation(model, guide)


def test_a_length_may_be_a_size() -> None:
    model, guide = one_local(normal(), lambda y: pm.Normal.dist(pt.zeros(y.shape[0]), 1))
    assert bound(model, guide).reparametrised


def test_rows_alike_have_draws_of_their_own() -> None:
    model, guide = one_local(normal(), lambda y: pm.Normal.dist([0.5], 1))
    made = bound(model, guide)
    [draw] = made.draw({}, (), {})
    logq = made.logq((draw,), {}, 0, {})
    drawn, density = pm.compile([], [draw, logq], mode=PLAIN, random_seed=1)()
    assert len(set(drawn)) == B
    np.testing.assert_allclose(density, st.norm.logpdf(drawn, 0.5, 1))
