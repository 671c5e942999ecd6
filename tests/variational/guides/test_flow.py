# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""The normalizing flow: its density is exact, and so are the gradients that hold parameters or draws."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
import scipy.stats as st

from pytensor.gradient import jacobian

import pymc as pm

from pymc.variational.approximation import GuideApproximation, guided_approximation
from pymc.variational.fit_objective import FitObjective
from pymc.variational.guides.flow import NormalizingFlow, halves
from pymc.variational.objectives import ELBO, IWAE
from tests.variational.guides.amortized_models import PLAIN, with_noise


def flow(size: int = 3, wild: float = 0.5, **kwargs: Any) -> GuideApproximation:
    """A flow of a vector and a positive number, with random weights."""
    with pm.Model() as model:
        x = pm.Normal("x", 0, 2, shape=size - 1)
        s = pm.HalfNormal("s")
        pm.Normal("y", x.sum(), s, observed=1.0)
    guide = pm.NormalizingFlow(n_hidden=4, **kwargs)
    approx = guided_approximation(model, guide, start={"s": 0.5})
    rng = np.random.default_rng(1)
    for var in approx.params:
        value = var.get_value()
        var.set_value(value + wild * rng.normal(size=value.shape))
    return approx


@pytest.mark.parametrize(("size", "n_layers"), [(1, 2), (2, 1), (3, 3), (4, 2)])
def test_density_is_that_of_the_noise_and_the_jacobian(size: int, n_layers: int) -> None:
    approx = flow(size, n_layers=n_layers)
    [guide] = approx.guides
    eps = pt.dvector("eps")
    param_values = approx.storage.param_values({})
    [z] = with_noise(guide.draw(param_values, (), {}), lambda zeros: eps)
    logq = guide.logq((z,), param_values, 0, {})
    point = np.random.default_rng(2).normal(size=size)
    at, volume, found = pytensor.function([eps], [z, jacobian(z, eps), logq], mode=PLAIN)(point)
    exact = st.norm.logpdf(point).sum() - np.linalg.slogdet(volume)[1]
    np.testing.assert_allclose(found, exact, rtol=1e-8)
    if n_layers > 1 and size > 1:  # each entry depends on the noise of others
        assert (volume - np.diag(np.diag(volume)) != 0).any(axis=1).all()
    # Many at once are as one
    many = pytensor.function(
        [], guide.logq((pt.as_tensor([at, at + 1]),), param_values, 1, {}), mode=PLAIN
    )()
    np.testing.assert_allclose(many[0], exact, rtol=1e-8)
    assert abs(many[1] - exact) > 1e-3


@pytest.mark.parametrize("size", [2, 3, 5, 8])
def test_any_two_entries_are_apart_in_a_layer(size: int) -> None:
    layers = [halves(k, size) for k in range(2 * (size - 1).bit_length())]
    assert all(
        len(kept) and len(moved) and len(kept) + len(moved) == size for kept, moved in layers
    )
    given = {(i, j) for kept, moved in layers for i in kept for j in moved}
    assert given == {(i, j) for i in range(size) for j in range(size) if i != j}


def test_starts_as_the_mean_field_guide() -> None:
    approx = flow(wild=0.0)
    block = (pt.as_tensor(np.array([0.3, -0.2, 0.1])),)
    starts = guided_approximation(approx.model, "mean_field", start={"s": 0.5})
    found = [
        made.guides[0].logq(block, made.storage.param_values({}), 0, {})
        for made in (approx, starts)
    ]
    first, second = pytensor.function([], found, mode=PLAIN)()
    np.testing.assert_allclose(first, second)


def gradients(approx: GuideApproximation, objective: Any, n_particles: int) -> list[Any]:
    losses = FitObjective(approx, objective, n_particles, "sum").losses(
        approx.storage.param_values({}), 50
    )
    [mine] = [
        loss for loss in losses.minimised if approx.guides[0].parameters[0] in loss.parameters
    ]
    return [losses.reported, *pytensor.grad(mine.value, approx.params)]


def test_gradient_of_the_elbo_is_that_of_finite_differences() -> None:
    """With fixed noise the loss is a function of the parameters."""
    approx = flow(n_layers=2)
    noise = pt.as_tensor(np.random.default_rng(4).normal(size=(50, 3)))
    graphs = with_noise(gradients(approx, ELBO(), 1), lambda zeros: noise)
    call = pytensor.function([], graphs, mode=PLAIN)
    _, *found = call()
    for var, gradient in zip(approx.params, found, strict=True):
        value = var.get_value()
        step = np.random.default_rng(5).normal(size=value.shape)
        ends = []
        for size in (1e-5, -1e-5):
            var.set_value(value + size * step)
            ends.append(call()[0])
        var.set_value(value)
        np.testing.assert_allclose(
            (ends[0] - ends[1]) / 2e-5, (gradient * step).sum(), rtol=1e-4, atol=1e-6
        )


@pytest.mark.parametrize(
    ("objectives", "n_particles"),
    [((ELBO(), ELBO(gradient="stl")), 1), ((IWAE(), IWAE(gradient="dreg")), 3)],
    ids=["stl", "dreg"],
)
def test_other_gradients_have_the_same_mean(objectives: Any, n_particles: int) -> None:
    """60 pairs of means of 50 draws, on noise of their own; false alarms are one in 10,000."""
    approx = flow(n_layers=2, wild=0.3)
    graphs = [g for objective in objectives for g in gradients(approx, objective, n_particles)[1:]]
    flat = pt.concatenate([graph.ravel() for graph in graphs])
    call = pm.compile([], flat, mode="FAST_COMPILE", random_seed=7)
    found = np.array([call() for _ in range(60)]).reshape(60, 2, -1)
    away = found[:, 0] - found[:, 1]
    z = away.mean(0) / (away.std(0, ddof=1) / np.sqrt(len(away)))
    limit = st.t.isf(1e-4 / 2 / z.size, len(away) - 1)
    assert abs(z).max() < limit
    assert abs(found[:, 0].mean(0)).max() > 0.1  # there is something to compare


def test_rows_are_refused() -> None:
    with pm.Model(coords={"obs": range(6)}) as model:
        batch = pm.Minibatch(pm.Data("y", np.zeros(6), dims="obs"), batch_size=3)
        pm.Normal("rows", pm.Normal("z", dims="obs"), 1, observed=batch, dims="obs")
    with pytest.raises(ValueError, match="'normalizing_flow' couples the rows of 'z'"):
        guided_approximation(model, "normalizing_flow")


@pytest.mark.parametrize("arguments", [{"n_layers": 0}, {"n_hidden": 0}], ids=str)
def test_arguments_are_checked(arguments: Any) -> None:
    with pytest.raises(ValueError, match=r"of pm.NormalizingFlow must be at least 1"):
        NormalizingFlow(**arguments)
