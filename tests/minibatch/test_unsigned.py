# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Differences of unsigned integers of a batch wrap: who makes one is told."""

import warnings

import numpy as np
import pytest

import pymc as pm

from tests.minibatch.streams import loader_of

PIXELS = np.arange(60, dtype="u1").reshape(20, 3)
BATCHES = {
    "Minibatch": lambda dtype: pm.Minibatch(PIXELS.astype(dtype), batch_size=5),
    "stream": lambda dtype: pm.Data(
        "batch", loader_of(PIXELS.astype(dtype), 5), dims=("obs", None)
    ),
}
WRAPPING = {
    "difference": lambda x: x[:, 0] - x[:, 1],
    "negative": lambda x: -x[:, 0],
    "later a float": lambda x: (x[:, 0] - x[:, 1]).astype("float64") / 255,
}
SIGNED = {
    "floats": lambda x: x[:, 0].astype("float64") - x[:, 1],
    "constant": lambda x: x[:, 0] - 128,
    "scaled": lambda x: x[:, 0] / 255 - 0.5,
    "sum": lambda x: x[:, 0] + x[:, 1],
}


@pytest.mark.parametrize("kind", BATCHES)
@pytest.mark.parametrize("expression", WRAPPING)
@pytest.mark.parametrize(["dtype", "wrapped"], [("uint8", 254), ("uint16", 65534)])
def test_unsigned_differences_are_told(kind, expression, dtype, wrapped):
    with pm.Model():
        batch = BATCHES[kind](dtype)
        x = WRAPPING[expression](batch)
        beta = pm.Normal("beta")
        with pytest.warns(UserWarning, match=f"'y' depends on a difference of {dtype}.* {wrapped}"):
            pm.Normal("y", beta * x, 1, observed=batch[:, 2])
        with pytest.warns(UserWarning, match="'p' depends on a difference of"):
            pm.Potential("p", beta * x, total_size=20)


@pytest.mark.parametrize("kind", BATCHES)
@pytest.mark.parametrize("expression", SIGNED)
def test_what_has_a_sign_is_not(kind, expression):
    with warnings.catch_warnings(), pm.Model():
        warnings.simplefilter("error")
        batch = BATCHES[kind]("uint8")
        x = SIGNED[expression](batch)
        pm.Normal("y", pm.Normal("beta") * x, 1, observed=batch[:, 2])


def test_differences_of_all_rows_are_of_the_release():
    with warnings.catch_warnings(), pm.Model() as model:
        warnings.simplefilter("error")
        x = pm.Data("x", PIXELS, dims=("obs", None))
        pm.Normal("y", x[:, 0] - x[:, 1], 1, observed=np.zeros(20), dims="obs")
    with pytest.warns(UserWarning, match="'y' depends on a difference of uint8 of a minibatch"):
        pm.minibatch_model(model, batch_size=5)
