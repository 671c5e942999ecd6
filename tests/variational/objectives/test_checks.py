# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Models that have no bound by row, and what is written instead: all before anything is compiled."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytensor
import pytest

import pymc as pm

from pymc.variational.fit_options import FitOptions
from pymc.variational.inference import make_inference
from tests.variational.objectives.exact import rows_model

N = 6


def two_plates() -> pm.Model:
    with pm.Model(coords={"obs": range(N), "other": range(N)}) as model:
        x = pm.Minibatch(pm.Data("x", np.zeros(N), dims="obs"), batch_size=2)
        y = pm.Minibatch(pm.Data("y", np.zeros(N), dims="other"), batch_size=2)
        u, v = pm.Normal("u", dims="obs"), pm.Normal("v", dims="other")
        pm.Normal("of_x", u, 1, observed=x, dims="obs")
        pm.Normal("of_y", v, 1, observed=y, dims="other")
    return model


def crossed_plates() -> pm.Model:
    """A local variable on two plates at once."""
    with pm.Model(coords={"row": range(N), "column": range(N)}) as model:
        data = pm.Data("data", np.zeros((N, N)), dims=("row", "column"))
        batch = pm.Minibatch(data, batch_size={"row": 2, "column": 3})
        z = pm.Normal("z", dims=("row", "column"))
        pm.Normal("x", z, 1, observed=batch, dims=("row", "column"))
    return model


def nested_observations() -> pm.Model:
    """Locals of rows, observed on a larger plate: N/B of the columns would be inside."""
    with pm.Model(coords={"row": range(N), "column": range(N)}) as model:
        data = pm.Data("data", np.zeros((N, N)), dims=("row", "column"))
        batch = pm.Minibatch(data, batch_size={"row": 2, "column": 3})
        z = pm.Normal("z", dims="row")
        pm.Normal("x", z[:, None], 1, observed=batch, dims=("row", "column"))
    return model


def only_globals() -> pm.Model:
    with pm.Model(coords={"obs": range(N)}) as model:
        batch = pm.Minibatch(pm.Data("data", np.zeros(N), dims="obs"), batch_size=2)
        pm.Normal("x", pm.Normal("mu"), 1, observed=batch, dims="obs")
    return model


def only_globals_by_hand() -> pm.Model:
    with pm.Model() as model:
        batch = pm.Data("data", np.zeros(2))
        pm.Normal("x", pm.Normal("mu"), 1, observed=batch, total_size=N)
    return model


def only_globals_of_potentials() -> pm.Model:
    with pm.Model() as model:
        pm.Potential("x", -((pm.Normal("mu") - pm.Data("data", np.zeros(2))) ** 2), total_size=N)
    return model


def columns_by_hand() -> pm.Model:
    """Locals of rows, of which some of the columns are there."""
    with pm.Model(coords={"row": range(N), "column": range(3)}) as model:
        data = pm.Data("data", np.zeros((N, 3)), dims=("row", "column"))
        batch, z = pm.Minibatch(data, batch_size=2), pm.Normal("z", dims="row")
        dims = ("row", "column")
        pm.Normal("x", z[:, None], 1, observed=batch, dims=dims, total_size=(None, 9))
    return model


REFUSED = {
    "only globals by hand": (
        only_globals_by_hand,
        r"on minibatches \('x' has total_size=6\).*N/B would stand inside",
    ),
    "only globals of a Potential": (only_globals_of_potentials, r"\('x' has total_size=6\)"),
    "columns by hand": (columns_by_hand, r"'x' is scaled by total_size within these rows"),
    "only globals": (only_globals, r"N/B would stand inside.*objective='elbo'"),
    "two plates": (two_plates, r"are on .*obs.*other.*objective='elbo'"),
    "crossed plates": (crossed_plates, r"are on row x column.*objective='elbo'"),
    "nested observations": (
        nested_observations,
        r"'x', which depends on .* is on the plate row, c",
    ),
}
OBJECTIVES: list[Any] = ["iwae", pm.Renyi(alpha=0.5), pm.Renyi(alpha=-1), pm.ReweightedWakeSleep()]


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("case", REFUSED)
def test_models_without_a_bound_by_row_are_refused(case: str, objective: Any) -> None:
    make, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        pm.fit(1, model=make(), objective=objective, n_particles=2, progressbar=False)


def test_a_total_within_rows_by_hand_is_refused() -> None:
    with pm.Model(coords={"obs": range(2)}) as model:
        y = pm.Data("y", np.zeros(2), dims="obs")
        z = pm.Normal("z", dims="obs")
        pm.Normal("x", z, 1, observed=y, dims="obs", total_size=N)
        pm.Potential("soft", -((z[:, None] + np.zeros(3)) ** 2), total_size=(None, 9))
    guide = pm.Amortized({"z": lambda y: pm.Normal.dist(y, 1)}, inputs=[y], dim="obs")
    with pytest.raises(ValueError, match=r"'soft' is scaled by total_size within these rows"):
        make_inference(FitOptions(model=model, guide=guide, objective="iwae", n_particles=2))


def test_all_rows_by_hand_have_a_bound_of_particles() -> None:
    with pm.Model() as model:
        pm.Normal("x", pm.Normal("mu"), 1, observed=pm.Data("data", np.zeros(N)), total_size=N)
    fit = make_inference(FitOptions(model=model, objective="iwae", n_particles=2))
    assert fit.objective.settings()["bound"] == "jointly of all variables and rows"


def test_arguments_of_objectives() -> None:
    for wrong in (-0.1, 1.1, np.nan):
        with pytest.raises(ValueError, match=r"insomnia=.* from 0 \(sleep only\) to 1"):
            pm.ReweightedWakeSleep(insomnia=wrong)
    for text in ("0.5", True, None):
        with pytest.raises(TypeError, match=r"insomnia=.*must be a number; got a"):
            pm.ReweightedWakeSleep(insomnia=text)
    with pytest.raises(TypeError, match=r"alpha='0.5' of pm.Renyi"):
        pm.Renyi(alpha="0.5")
    with pytest.raises(ValueError, match=r"alpha=inf of pm.Renyi"):
        pm.Renyi(alpha=np.inf)
    with pytest.raises(ValueError, match="gradient='dreg' of the objective 'elbo' must be one of"):
        pm.variational.ELBO(gradient="dreg")


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"objective": "vae"}, "objective='vae' of pm.fit is none of 'elbo', 'iwae', 'rws'"),
        ({"objective": "rws", "gradient": "dreg"}, "objective='rws' has gradients of its own"),
        (
            {"objective": pm.Renyi(0.5), "gradient": "dreg"},
            r"contradicts objective=Renyi\(alpha=0.5",
        ),
        ({"objective": "iwae", "n_particles": 0}, "n_particles=0 of pm.fit must be at least 1"),
        (
            {"objective": pm.ReweightedWakeSleep(insomnia=0.5)},
            "the guide of 'z' is computed from no data",
        ),
    ],
)
def test_arguments_of_a_fit(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pm.fit(1, model=rows_model(), progressbar=False, **arguments)


def test_gradients_of_an_upper_bound() -> None:
    with pytest.raises(ValueError, match=r"pm.Renyi\(alpha=-1\), an upper bound, leads away"):
        pm.Renyi(alpha=-1, gradient="reparam")
    with pytest.raises(ValueError, match=r"gradient='score' of pm\.Renyi must be one of"):
        pm.Renyi(alpha=0.5, gradient="score")


def test_an_upper_bound_is_of_guides_alone() -> None:
    """Minimised for a decoder, or with one particle, or beside globals, it would lead astray."""
    weight = pytensor.shared(1.0, name="weight")
    with pm.Model() as decoder:
        pm.Normal("x", weight * pm.Normal("z"), 1, observed=2.0)
    upper: dict[str, Any] = {"objective": pm.Renyi(alpha=-1), "progressbar": False}
    with pytest.raises(ValueError, match=r"parameters of the model, here 'weight', .*'iwae'"):
        pm.fit(1, model=decoder, n_particles=2, params=[weight], **upper)
    with pytest.raises(ValueError, match=r"parameters of the model, here 'weight', .*'iwae'"):
        pm.fit(1, model=decoder, n_particles=2, more_obj_params=[weight], **upper)
    with pytest.raises(ValueError, match=r"with n_particles=1 is the ELBO, .*n_particles=64"):
        pm.fit(1, model=decoder, **upper)
    with pytest.raises(ValueError, match=r"global variables 'mu' is a lower bound.*alpha=0.5"):
        pm.fit(1, model=rows_model(with_global=True), n_particles=2, **upper)


@pytest.mark.parametrize("n_particles", [2.0, True, "2"])
def test_number_of_particles_is_whole(n_particles: Any) -> None:
    with pytest.raises(TypeError, match=r"n_particles=.* of pm.fit must be a whole number"):
        pm.fit(1, model=rows_model(), objective="iwae", n_particles=n_particles, progressbar=False)
