# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""The log-probability of a model, taken apart into terms of rows, at many draws."""

from __future__ import annotations

import numpy as np
import pytensor.tensor as pt
import pytest

from pytensor.compile.mode import Mode

import pymc as pm

from pymc.variational import vectorize
from pymc.variational.objectives.base import plate_scale, terms_of
from pymc.variational.vectorize import at_draws

PLAIN = Mode(linker="py", optimizer=None)
N_ROWS, BATCH = 5, 2


@pytest.fixture(scope="module")
def model() -> pm.Model:
    """Terms of every kind: globals, rows, columns in rows, a vector in a row, another number of rows."""
    with pm.Model(coords={"obs": range(N_ROWS), "k": range(3)}) as model:
        data = pm.Data("data", np.arange(15.0).reshape(5, 3) / 10, dims=("obs", "k"))
        batch = pm.Minibatch(data, batch_size=BATCH)
        mu = pm.Normal("mu", shape=3)
        z = pm.Gamma("z", 2, 1, dims="obs")
        v = pm.MvNormal("v", np.zeros(3), np.eye(3) + 0.5, dims=("obs", "k"))
        pm.Normal("x", mu + z[:, None] + v, 1, observed=batch, dims=("obs", "k"))
        pm.Normal("other", mu, 1, observed=np.ones((4, 3)))
        pm.Potential("soft", -(z**2), dims="obs")
    return model


def test_terms_add_up_to_the_log_probability(model: pm.Model) -> None:
    terms = terms_of(model)
    total = sum(
        plate_scale(term.plate) * term.logp.sum() if term.plate else term.logp for term in terms
    )
    values = [model.rvs_to_values[rv] for rv in model.free_RVs]
    point = model.initial_point()
    with pm.minibatch_logp():
        both = pm.compile(values, [total, model.logp()], mode=PLAIN, random_seed=1)
    parts, whole = both(**{v.name: np.full_like(point[v.name], 0.3) for v in values})
    np.testing.assert_allclose(parts, whole, rtol=1e-10)
    shapes = {term.name: (len(term.plate), term.logp.type.ndim) for term in terms}
    assert shapes == {
        "mu": (0, 0),
        "z": (1, 1),
        "v": (1, 1),
        "x": (1, 1),
        "other": (0, 0),
        "soft": (1, 1),
    }
    assert not any(term.mixed for term in terms)


@pytest.mark.parametrize("by_copies", [False, True])
def test_many_draws_are_the_draws_one_by_one(
    model: pm.Model, by_copies: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Globals of shape (2, 1, ...) and locals of shape (2, 3, ...) broadcast."""

    def no_form(*args: object) -> None:
        raise NotImplementedError

    if by_copies:
        monkeypatch.setattr(vectorize, "vectorize_graph", no_form)
    rng, point = np.random.default_rng(1), model.initial_point()
    values = {rv.name: model.rvs_to_values[rv] for rv in model.free_RVs}
    lead = {"mu": (2, 1), "z": (2, 3), "v": (2, 3)}
    arrays = {n: rng.normal(size=(*lead[n], *point[v.name].shape)) for n, v in values.items()}
    terms = terms_of(model)
    many = at_draws([t.logp for t in terms], {values[n]: pt.constant(a) for n, a in arrays.items()})
    with pm.minibatch_logp():
        found = pm.compile([], many, mode=PLAIN, random_seed=1)()
        one = pm.compile(list(values.values()), [t.logp for t in terms], mode=PLAIN)
    for term, got in zip(terms, found):
        for i, k in np.ndindex(2, 3):
            pm.pytensorf.reseed_rngs(list(pm.pytensorf.find_rng_nodes([t.logp for t in terms])), 1)
            point = {values[n].name: a[i, min(k, a.shape[1] - 1)] for n, a in arrays.items()}
            expected = one(**point)[terms.index(term)]
            broadcast = np.broadcast_to(got, (2, 3, *np.shape(expected)))
            np.testing.assert_allclose(broadcast[i, k], expected, rtol=1e-10)


def test_rows_that_cannot_be_told_apart() -> None:
    with pm.Model(coords={"obs": range(N_ROWS)}) as model:
        batch = pm.Minibatch(pm.Data("data", np.arange(5.0), dims="obs"), batch_size=BATCH)
        z = pm.Normal("z", dims="obs")
        pm.Potential("sum", -(z**2).sum(), total_size=N_ROWS)
        pm.Normal("x", z, 1, observed=batch, dims="obs")
    [term] = [t for t in terms_of(model) if t.name == "sum"]
    assert term.mixed
    assert term.plate == ()


def test_categories_of_rows_that_share_their_probabilities() -> None:
    """The log-probability picks from one row of probabilities by an ``arange`` of length 1."""
    with pm.Model(coords={"obs": range(N_ROWS)}) as model:
        batch = pm.Minibatch(pm.Data("data", np.arange(5.0), dims="obs"), batch_size=BATCH)
        n = pm.Categorical("n", [0.2, 0.3, 0.5], dims="obs")
        k = pm.Categorical("k", pm.Dirichlet("p", np.ones(3)), dims="obs")
        pm.Normal("x", n + k, 1, observed=batch, dims="obs")
    plates = {term.name: len(term.plate) for term in terms_of(model)}
    assert plates == {"n": 1, "k": 1, "p": 0, "x": 1}
