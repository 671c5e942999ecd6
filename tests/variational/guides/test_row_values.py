# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Slots of a batch that is fed by hand are of other rows at the next step: no variable may have them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytensor.tensor as pt
import pytest

from pytensor.graph.basic import Variable

import pymc as pm

from pymc.variational.fit_options import FitOptions
from pymc.variational.guides.unnumbered_rows import (
    check_no_row_values,
    explicit_totals,
    scaled_axes,
)
from pymc.variational.inference import make_inference

N, B = 20, 4
Y = np.arange(float(B))
X = np.arange(float(3 * B)).reshape(B, 3)


def model_of(mean: Callable[[], Variable], total_size: Any = N, **kwargs: Any) -> pm.Model:
    with pm.Model(coords={"obs": range(B), "k": range(3)}) as model:
        y = pm.Data("data", Y, dims="obs")
        pm.Normal("y", mean(), 1, observed=y, total_size=total_size, **kwargs)
    return model


PER_ROW = {
    "dims": lambda: pm.Normal("z", dims="obs"),
    "shape": lambda: pm.Normal("z", shape=B),
    "transformed": lambda: pt.exp(pm.HalfNormal("z", dims="obs")) + Y,
    "with data": lambda: pt.as_tensor(X) @ pm.Normal("w", dims="k") + pm.Normal("z", dims="obs"),
    "columns": lambda: (pm.Normal("z", shape=(B, 3)) * X).sum(-1),
    "of a free variable": lambda: pm.Normal("u", pm.Normal("z", shape=B), 1, shape=B),
    "deterministic": lambda: pm.Deterministic("d", 2 * pm.Normal("z", dims="obs")),
}
SHARED = {
    "scalar": lambda: pm.Normal("mu"),
    "one": lambda: pm.Normal("mu", shape=1),
    "coefficients": lambda: pt.as_tensor(X) @ pm.Normal("w", dims="k"),
    "as many groups as rows": lambda: pm.Normal("g", shape=B)[np.array([0, 2, 1, 1])],
    "sum": lambda: pm.Normal("g", shape=B).sum(),
    "as many coefficients as rows": lambda: pt.as_tensor(np.eye(B)) @ pm.Normal("w", shape=B),
}
WAYS: dict[str, Callable[[pm.Model], Any]] = {
    "fit": lambda model: pm.fit(1, model=model, progressbar=False),
    "mean_field": lambda model: pm.fit(1, model=model, guide="mean_field", progressbar=False),
    "iwae": lambda model: pm.fit(
        1, model=model, objective="iwae", n_particles=2, progressbar=False
    ),
    "ADVI": lambda model: pm.ADVI(model=model),
    "FullRank": lambda model: pm.FullRank(model=model),
    "SVGD": lambda model: pm.SVGD(n_particles=2, model=model),
}


@pytest.mark.parametrize("kind", PER_ROW)
def test_variables_of_rows_are_refused(kind: str) -> None:
    match = r"'[zu]' has a value for each row along axis 0, and 'y'.*from the 4 rows .* to 20.*Amortized"
    with pytest.raises(ValueError, match=match):
        check_no_row_values(model_of(PER_ROW[kind]))


@pytest.mark.parametrize("kind", SHARED)
def test_what_rows_share_passes(kind: str) -> None:
    check_no_row_values(model_of(SHARED[kind]))


@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_a_fit_is_checked(way: str) -> None:
    with pytest.raises(ValueError, match="'z' has a value for each row along axis 0"):
        WAYS[way](model_of(PER_ROW["dims"]))


@pytest.mark.parametrize("total", [None, B])
def test_all_rows_pass(total: int | None) -> None:
    model = model_of(PER_ROW["dims"], total)
    assert scaled_axes(model) == []
    make_inference(FitOptions(model=model))


def test_effects_of_columns_that_are_all_there_pass() -> None:
    """A variable along another axis than that of the total, as long as the batch."""
    with pm.Model() as model:
        z = pm.Normal("z", shape=B)
        pm.Normal("y", z, 1, observed=pm.Data("data", np.zeros((B, B))), total_size=(N, None))
    check_no_row_values(model)
    assert list(explicit_totals(model, model["y"])) == [0]


def test_potentials_count() -> None:
    with pm.Model() as model:
        pm.Potential("soft", -(pm.Normal("z", shape=B) ** 2), total_size=N)
    with pytest.raises(ValueError, match=r"'z' .* axis 0, and 'soft'"):
        check_no_row_values(model)


def test_totals_of_an_index_are_not_given_by_hand() -> None:
    with pm.Model(coords={"obs": range(B)}) as model:
        batch = pm.Minibatch(pm.Data("data", Y, dims="obs"), batch_size=2)
        z = pm.Normal("z", dims="obs")
        pm.Normal("y", z, 1, observed=batch, dims="obs")
        pm.Potential("soft", -(z**2), dims="obs")
    assert scaled_axes(model) == []


@pytest.mark.parametrize("below", [False, True])
def test_variables_beside_those_of_an_encoder_are_checked(below: bool) -> None:
    """Those that the likelihood depends on, and those that the prior of a row does."""
    with pm.Model(coords={"obs": range(B)}) as model:
        y = pm.Data("data", Y, dims="obs")
        u = pm.Normal("u", shape=B)
        z = pm.Normal("z", u if below else 0, 1, dims="obs")
        pm.Normal("y", z if below else z + u, 1, observed=y, dims="obs", total_size=N)
    guide = pm.Amortized({"z": lambda y: pm.Normal.dist(y, 1)}, inputs=[y], dim="obs")
    term = "z" if below else "y"
    with pytest.raises(ValueError, match=rf"'u' has a value for each row .* and '{term}'"):
        make_inference(FitOptions(model=model, guide=guide))
