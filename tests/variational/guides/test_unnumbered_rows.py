# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""In-model minibatches, batches fed by hand and the full data have one objective in expectation."""

from __future__ import annotations

import itertools

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
import scipy.stats as st

from pytensor.graph.basic import Variable
from pytensor.graph.replace import graph_replace
from pytensor.graph.traversal import ancestors

import pymc as pm

from pymc.minibatch.index import MinibatchIndexRV
from pymc.variational.approximation import guided_approximation
from pymc.variational.fit_objective import FitObjective
from pymc.variational.objectives import ELBO, IWAE
from tests.variational.guides.amortized_models import (
    PLAIN,
    B,
    N,
    Y,
    weights,
    with_noise,
)


class Feeding:
    """One model and guide, fed in four ways, as a loss and gradients for given rows."""

    def __init__(self, how: str, n_particles: int, n_rows: int = B) -> None:
        self.how = how
        self.weights = [weights("slope", 0.4), weights("shift", 0.1)]
        length = n_rows if how == "fed" else N
        total = N if how == "fed" else None
        with pm.Model(coords={"obs": range(length)}) as model:
            self.data = pm.Data("data", Y[:length], dims="obs")
            y = pm.Minibatch(self.data, batch_size=B) if how == "in_model" else self.data
            mu = pm.Normal("mu")
            z = pm.Normal("z", mu, 1, dims="obs")
            u = pm.Exponential("u", 1, dims="obs")
            pm.Normal("y", z + u, 1, observed=y, dims="obs", total_size=total)
        guide = pm.Amortized({"z": self.encode, "u": self.encode_u}, inputs=[y, mu], dim="obs")
        if how == "batch_size":
            model = pm.minibatch_model(model, batch_size={"obs": B})
        approx = guided_approximation(model, guide)
        loss = FitObjective(approx, IWAE() if n_particles > 1 else ELBO(), n_particles, "sum")
        loss.check()
        reported = loss.losses(approx.storage.param_values({})).reported
        params = [*approx.storage.dense.values()]
        graphs = with_noise([reported, *pytensor.grad(reported, params)], self.noise)
        index = [
            v for v in ancestors(graphs) if v.owner and isinstance(v.owner.op, MinibatchIndexRV)
        ]
        order = pt.lvector("order")
        swaps = {var: pt.specify_shape(order, (B,)).astype(var.type.dtype) for var in index}
        graphs = list(graph_replace(graphs, swaps, strict=False)) if swaps else graphs
        self.function = pytensor.function([order], graphs, mode=PLAIN, on_unused_input="ignore")

    def encode(self, y: Variable, mu: Variable) -> Variable:
        return pm.Normal.dist(self.weights[0] * y + self.weights[1] + 0.3 * mu, 0.8)

    def encode_u(self, y: Variable, mu: Variable) -> Variable:
        return pm.LogNormal.dist(self.weights[1] * y, 0.5)

    @staticmethod
    def noise(zeros: Variable) -> Variable:
        """The same for all rows, other for each particle: what is enumerated are the batches."""
        if zeros.type.ndim == 2:
            return zeros + np.array([[0.2], [0.7]])
        return zeros + 0.3

    def at(self, rows: Sequence[int]) -> np.ndarray:
        if self.how == "fed":
            self.data.set_value(Y[list(rows)])
        return np.concatenate([np.ravel(x) for x in self.function(np.asarray(rows))])


@pytest.mark.parametrize("n_particles", [1, 2])
def test_ways_of_feeding_have_one_mean(n_particles: int) -> None:
    """Of the loss and of its gradients for weights and for a global, over all batches."""
    full = Feeding("full", n_particles).at(range(N))
    batches = list(itertools.combinations(range(N), B))
    for how in ("in_model", "batch_size", "fed"):
        fed = Feeding(how, n_particles)
        found = np.array([fed.at(rows) for rows in batches])
        np.testing.assert_allclose(found.mean(axis=0), full, rtol=1e-10)
        assert found[:, 0].std() > 0.1


def test_ways_of_feeding_agree_on_each_batch() -> None:
    three = [Feeding(how, 2).at([4, 1, 3]) for how in ("in_model", "batch_size", "fed")]
    np.testing.assert_allclose(three[0], three[1], rtol=1e-12)
    np.testing.assert_allclose(three[0], three[2], rtol=1e-12)


def by_hand(rows: Sequence[int]) -> float:
    """The loss of `Feeding` for one particle, as users of other systems write it: local terms times N/B."""
    y, sd = Y[list(rows)], np.log(2)
    mu = 0.3 * sd
    mean = 0.4 * y + 0.1 + 0.3 * mu
    z, u = mean + 0.8 * 0.3, np.exp(0.1 * y + 0.5 * 0.3)
    model = st.norm.logpdf(y, z + u, 1) + st.norm.logpdf(z, mu, 1) + st.expon.logpdf(u)
    guide = st.norm.logpdf(z, mean, 0.8) + st.lognorm.logpdf(u, 0.5, scale=np.exp(0.1 * y))
    of_rows = N / B * (model - guide).sum()
    return float(-of_rows - st.norm.logpdf(mu, 0, 1) + st.norm.logpdf(mu, 0, sd))


@pytest.mark.parametrize("how", ["in_model", "fed"])
def test_only_local_terms_are_scaled(how: str) -> None:
    np.testing.assert_allclose(Feeding(how, 1).at([4, 1, 3])[0], by_hand([4, 1, 3]), rtol=1e-7)


@pytest.mark.parametrize("with_global", [False, True])
def test_without_globals_the_scale_is_one_of_the_step_size(with_global: bool) -> None:
    slope = weights("slope", 0.4)
    found = []
    for total in (None, N):
        with pm.Model(coords={"obs": range(B)}) as model:
            y = pm.Data("data", Y[:B], dims="obs")
            mu = pm.Normal("mu") if with_global else 0.0
            z = pm.Normal("z", mu, 1, dims="obs")
            pm.Normal("y", z, 1, observed=y, dims="obs", total_size=total)
        guide = pm.Amortized({"z": lambda y: pm.Normal.dist(slope * y, 0.8)}, [y], "obs")
        approx = guided_approximation(model, guide)
        param_values = approx.storage.param_values({})
        loss = FitObjective(approx, ELBO(), 1, "sum").losses(param_values).reported
        graphs = with_noise([loss, *pytensor.grad(loss, [*param_values.values()])], Feeding.noise)
        found.append(np.concatenate([np.ravel(x) for x in pm.compile([], graphs, mode=PLAIN)()]))
    ratios = found[1] / found[0]
    if with_global:
        assert np.ptp(ratios) > 0.1
    else:
        np.testing.assert_allclose(ratios, N / B, rtol=1e-12)


def test_other_variables_of_rows_that_are_there_need_encoders() -> None:
    with pm.Model(coords={"obs": range(N)}) as model:
        y = pm.Data("data", Y, dims="obs")
        z, u = pm.Normal("z", dims="obs"), pm.Normal("u", dims="obs")
        pm.Normal("y", z + u, 1, observed=y, dims="obs")
    with pytest.raises(ValueError, match=r"'mean_field' keeps parameters of each row.*'u'"):
        guided_approximation(model, pm.Amortized({"z": lambda y: pm.Normal.dist(y, 1)}, [y], "obs"))


def loss_by_hand(**kwargs: Any) -> tuple[float, float]:
    """A loss of B of N rows, and its gradient; without dims, or with a Potential."""
    slope = weights("slope", 0.4)
    dims, pot, data_dims = (kwargs.get(k, "obs") for k in ("dims", "pot_dims", "data_dims"))
    with pm.Model(coords={"obs": range(B)}) as model:
        y = pm.Data("data", Y[:B], dims=data_dims)
        z = pm.Normal("z", pm.Normal("mu"), 1, dims="obs")
        pm.Normal("y", 2 * z, 1, observed=y, dims=dims, total_size=N)
        pm.Potential("soft", -(z**2), dims=pot, total_size=kwargs.get("total"))
    guide = pm.Amortized({"z": lambda y: pm.Normal.dist(slope * y, 0.8)}, [y], "obs")
    approx = guided_approximation(model, guide)
    loss = FitObjective(approx, ELBO(), 1, "sum")
    loss.check()
    reported = loss.losses(approx.storage.param_values({})).reported
    graphs = with_noise([reported, pytensor.grad(reported, slope)], Feeding.noise)
    loss, gradient = pm.compile([], graphs, mode=PLAIN)()
    return float(loss), float(gradient)


@pytest.mark.parametrize(
    "kwargs",
    [
        {"dims": None},
        {"dims": None, "data_dims": None},
        {"pot_dims": None},
        {"total": N},
        {"pot_dims": None, "total": N},
    ],
    ids=["observed", "data", "potential", "total", "potential_total"],
)
def test_terms_without_dims_or_totals_are_of_the_rows_too(kwargs: dict[str, Any]) -> None:
    np.testing.assert_allclose(loss_by_hand(**kwargs), loss_by_hand(), rtol=1e-12)


def test_terms_that_mix_rows_by_hand_are_refused() -> None:
    with pm.Model(coords={"obs": range(B)}) as model:
        y = pm.Data("data", Y[:B], dims="obs")
        z = pm.Normal("z", dims="obs")
        pm.Normal("y", z, 1, observed=y, total_size=N)
        pm.Potential("sum", -(z.sum() ** 2))
    guide = pm.Amortized({"z": lambda y: pm.Normal.dist(y, 1)}, [y], "obs")
    with pytest.raises(
        ValueError, match=r"'sum' depends on the rows of dim 'obs'.*Sum.*dims='obs'"
    ):
        _ = guided_approximation(model, guide).terms


def test_totals_of_rows_that_cannot_be_told_need_dims() -> None:
    with pm.Model(coords={"obs": range(B)}) as model:
        y = pm.Data("data", Y[:B], dims="obs")
        z = pm.Normal("z", dims="obs")
        pm.Normal("y", pt.cumsum(z), 1, observed=Y[:B], total_size=N)
    guide = pm.Amortized({"z": lambda y: pm.Normal.dist(y, 1)}, [y], "obs")
    with pytest.raises(ValueError, match=r"'y' has total_size= and depends on .*dims='obs'"):
        guided_approximation(model, guide)


def test_totals_have_to_agree() -> None:
    with pm.Model(coords={"obs": range(N)}) as model:
        y = pm.Data("data", Y, dims="obs")
        z = pm.Normal("z", dims="obs")
        pm.Normal("y", z, 1, observed=y, dims="obs", total_size=100)
        pm.Normal("x", z, 1, observed=y, dims="obs")
    guide = pm.Amortized({"z": lambda y: pm.Normal.dist(y, 1)}, [y], "obs")
    with pytest.raises(ValueError, match=r"total_size={'y': 100, 'x': None}"):
        guided_approximation(model, guide)
