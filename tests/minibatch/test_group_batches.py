# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0

"""Terms of the groups of a batch: their mean over all batches is the sum over all groups with rows."""

import itertools

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest

from pytensor.compile.mode import Mode

import pymc as pm

from pymc.distributions.transforms import ordered
from pymc.minibatch.group_batches import batch_terms, group_batches, logps_of
from pymc.minibatch.rebuild import rebuild

PYTHON = Mode("py", None)
N_ROWS, BATCH = 6, 2
#: Users 3 and 5, item 0 and district 2 have no rows
USER, ITEM = np.array([0, 1, 1, 2, 4, 4]), np.array([2, 1, 2, 1, 3, 3])
DISTRICT = np.array([0, 0, 1, 2, 1, 2])


def model_of(effects, sampling="without_replacement"):
    coords = {
        "user": range(6),
        "user2": range(6),
        "item": range(4),
        "district": range(3),
        "feature": range(2),
    }
    rng = np.random.default_rng(1)
    with pm.Model(coords=coords) as model:
        u, i, x, y = pm.Minibatch(
            pm.Data("user_of_row", USER, dims="obs"),
            pm.Data("item_of_row", ITEM, dims="obs"),
            pm.Data("x", rng.normal(size=(N_ROWS, 2)), dims=("obs", "feature")),
            pm.Data("y", rng.normal(size=N_ROWS), dims="obs"),
            batch_size=BATCH,
            sampling=sampling,
        )
        pm.Normal("rows", effects(u, i, x, pm.HalfNormal("s")), 1, observed=y, dims="obs")
    return model


def normal(name, dims, mu=0.0, sigma=1.0):
    return pm.Normal(name, mu, sigma, dims=dims)


def other_rows(e):
    """Let rows of another minibatch read some effects, and return 0."""
    with pm.modelcontext(None):
        v, z = pm.Minibatch(USER[:4], np.zeros(4), batch_size=2)
        pm.Normal("others", e[v], 1, observed=z)
    return 0.0


def lkj():
    """Return a covariance of two numbers that is estimated too."""
    return pm.LKJCholeskyCov("chol", n=2, eta=2, sd_dist=pm.HalfNormal.dist(1))[0]


BY_BATCH = {
    "centred": (lambda u, i, x, s: normal("e", "user", 0, s)[u], "e"),
    "not centred": (lambda u, i, x, s: (1 + s * normal("e", "user"))[u], "e"),
    "slopes": (lambda u, i, x, s: (normal("e", ("user", "feature"), 0, s)[u] * x).sum(-1), "e"),
    "crossed": (lambda u, i, x, s: normal("e", "user", 0, s)[u] + normal("f", "item")[i], "ef"),
    "one of two": (lambda u, i, x, s: normal("e", "user", 0, s)[u] + normal("f", "item")[i], "f"),
    "nested by the row": (
        lambda u, i, x, s: (
            normal("e", "user")[u] + normal("d", "district")[pt.constant(DISTRICT)[u]]
        ),
        "ed",
    ),
    "nested by the group": (
        lambda u, i, x, s: normal("e", "user")[u] + (2 * normal("d", "district"))[DISTRICT][u],
        "ed",
    ),
    "nested in the prior": (
        lambda u, i, x, s: normal("e", "user", normal("d", "district")[DISTRICT], s)[u],
        "ed",
    ),
    "a chain": (lambda u, i, x, s: normal("e", "user", 0, pt.exp(normal("g", "user")))[u], "eg"),
    "with data of groups": (
        lambda u, i, x, s: (pm.Data("w", np.arange(6.0), dims="user") * s + normal("e", "user"))[u],
        "e",
    ),
    "a positive variable": (lambda u, i, x, s: pm.Gamma("e", 2, s, dims="user")[u], "e"),
    "a constant prior for each group": (
        lambda u, i, x, s: normal("e", "user", np.arange(6.0), 1 + np.arange(6.0))[u],
        "e",
    ),
    "two groups of a row": (
        lambda u, i, x, s: pt.exp((lambda e: e[u] - e[i])(normal("e", "user", 0, s))),
        "e",
    ),
    "slopes of two groups": (
        lambda u, i, x, s: (lambda e: (e[u] * x - e[i]).sum(-1))(normal("e", ("user", "feature"))),
        "e",
    ),
    "two groups, nested in the prior": (
        lambda u, i, x, s: (lambda e: e[u] * e[i])(
            normal("e", "user", normal("d", "district")[DISTRICT], s)
        ),
        "ed",
    ),
    "two groups, of whom one is nested": (
        lambda u, i, x, s: (lambda e: e[u] * e[pt.constant(DISTRICT)[u]])(
            normal("e", "user", 0, s)
        ),
        "e",
    ),
    "vectors with a common covariance": (
        lambda u, i, x, s: (
            pm.MvNormal("e", pm.Normal("m", dims="feature"), chol=lkj(), dims=("user", "feature"))[
                u
            ]
            * x
        ).sum(-1),
        "e",
    ),
    "vectors with a mean for each group": (
        lambda u, i, x, s: (lambda e: e[u, 0] + e[u, 1] * x[:, 0])(
            pm.MvNormal(
                "e",
                s * np.arange(12.0).reshape(6, 2),
                cov=np.eye(2) + 0.5,
                dims=("user", "feature"),
            )
        ),
        "e",
    ),
    "vectors of two groups, with a precision": (
        lambda u, i, x, s: (lambda e: (e[u] - e[i]).prod(-1))(
            pm.MvNormal("e", np.zeros(2), tau=s * (np.eye(2) + 0.5), dims=("user", "feature"))
        ),
        "e",
    ),
    "vectors that are not centred": (
        lambda u, i, x, s: ((normal("e", ("user", "feature")) @ lkj().T)[u] * x).sum(-1),
        "e",
    ),
    "vectors of a t distribution": (
        lambda u, i, x, s: (lambda e: e[:, 0][u] + e[:, 1][u])(
            pm.MvStudentT("e", nu=4, mu=np.zeros(2), chol=lkj(), dims=("user", "feature"))
        ),
        "e",
    ),
    "shares": (
        lambda u, i, x, s: (pm.Dirichlet("e", s * np.arange(1, 4), shape=(6, 3))[u][:, 1:] * x).sum(
            -1
        ),
        "e",
    ),
    "shares with a prior for each group": (
        lambda u, i, x, s: pm.Dirichlet("e", s + np.arange(18.0).reshape(6, 3), shape=(6, 3))[u, 2],
        "e",
    ),
    "vectors that sum to 0": (
        lambda u, i, x, s: (pm.ZeroSumNormal("e", s, shape=(6, 3))[u][:, :2] * x).sum(-1),
        "e",
    ),
    "thresholds": (
        lambda u, i, x, s: (
            pm.Normal("e", [-1, 1], s, dims=("user", "feature"), transform=ordered)[u] * x
        ).sum(-1),
        "e",
    ),
    "groups on the second axis": (
        lambda u, i, x, s: (normal("e", ("feature", "user"), 0, s)[:, u].T * x).sum(-1),
        "e",
    ),
    "groups on the second axis, not centred": (
        lambda u, i, x, s: pt.dot(lkj(), normal("e", ("feature", "user"))).T[u].prod(-1),
        "e",
    ),
    "a line of groups": (lambda u, i, x, s: normal("e", ("feature", "user"), 0, s)[1, u], "e"),
    "groups on the middle axis": (
        lambda u, i, x, s: (lambda e: e[0, :, 1][u] * e[1, i, 2] + pt.exp(e[1, u]).sum(-1))(
            normal("e", ("feature", "user", "item"), normal("m", ("feature", "item"))[:, None], s)
        ),
        "e",
    ),
    "integers apart from the index": (
        lambda u, i, x, s: normal("e", ("user", "item", "feature"), 0, s)[u, :, 1].sum(-1),
        "e",
    ),
    "vectors on the second axis": (
        lambda u, i, x, s: (
            pm.MvNormal("e", np.zeros(2), chol=lkj(), dims=("item", "user", "feature"))[:, u].sum(0)
            * x
        ).sum(-1),
        "e",
    ),
    "an entry of a vector": (lambda u, i, x, s: normal("e", ("user", "feature"))[:, 1][u], "e"),
}


@pytest.mark.parametrize("case", BY_BATCH)
def test_the_mean_over_all_batches_is_the_sum_over_groups(case):
    effects, names = BY_BATCH[case]
    model = model_of(effects)
    batches = group_batches(model, [model[name] for name in names])
    assert sorted(batch.rv.name for batch in batches) == sorted(names)
    rows, by_batch = batches[0].rows, {batch.rv for batch in batches}
    index = pt.lvector()
    slots = {
        slots: pt.moveaxis(batch.value, batch.axis, 0)[index]
        for batch in batches
        for slots, index in zip(batch.slots, batch.indexes, strict=True)
    }
    terms = batch_terms(logps_of(model), batches)
    # The model scales the terms of rows, and not those of groups
    total = pt.add(
        *(
            logp.sum() * (N_ROWS / BATCH if rv in by_batch else 1)
            for rv, logp in zip(
                terms, rebuild(rebuild(list(terms.values()), slots), {rows.index: index})
            )
        )
    )
    full = pm.remove_minibatch(model)
    of_groups = {
        batch.rv.name: (batch.axis, np.flatnonzero(batch.shares.get_value())) for batch in batches
    }
    logps = dict(zip(full.basic_RVs, full.logp(vars=full.basic_RVs, sum=False)))
    for rv, logp in logps.items():
        if rv.name in of_groups:
            axis, groups = of_groups[rv.name]
            logps[rv] = logp.take(groups, axis=axis)
    expected = pt.add(*(logp.sum() for logp in logps.values()))
    rng = np.random.default_rng(2)
    point = {name: rng.normal(size=x.shape) for name, x in full.initial_point().items()}
    of_batch = pytensor.function([*model.value_vars, index], total, mode=PYTHON)
    found = [
        of_batch(*(point[var.name] for var in model.value_vars), np.array(some))
        for some in itertools.combinations(range(N_ROWS), BATCH)
    ]
    assert np.ptp(found) > 0.1
    of_all = pytensor.function(full.value_vars, expected, mode=PYTHON)
    exact = of_all(*(point[var.name] for var in full.value_vars))
    assert np.mean(found) == pytest.approx(exact, rel=1e-12)


REFUSED = {
    "also its mean": (
        lambda u, i, x, s: (lambda e: e[u] + e.mean())(normal("e", "user")),
        "'rows' is not computed group by group",
    ),
    "draws that sum to 0": (
        lambda u, i, x, s: pm.ZeroSumNormal("e", dims="user")[u],
        "no term reads it by the group",
    ),
    "one vector of all groups": (
        lambda u, i, x, s: pm.MvNormal("e", np.zeros(6), cov=np.eye(6), dims="user")[u],
        "its prior is one of all groups",
    ),
    "groups on two axes": (
        lambda u, i, x, s: (lambda e: e[u, 1] + e[2, u])(normal("e", ("user", "user2"))),
        "groups are read along several axes",
    ),
    "cells": (
        lambda u, i, x, s: normal("e", ("user", "item"))[u, i],
        "no term reads it by the group",
    ),
    "a random walk": (
        lambda u, i, x, s: pm.GaussianRandomWalk("e", init_dist=pm.Normal.dist(), dims="user")[u],
        "its prior is one of all groups",
    ),
    "two minibatches": (
        lambda u, i, x, s: (lambda e: e[u] + other_rows(e))(normal("e", "user")),
        "which have rows of different minibatches",
    ),
    "an index that is latent": (
        lambda u, i, x, s: normal("e", "user")[(u + pm.Bernoulli("b", 0.5)) % 6],
        "depends on latent variables",
    ),
    "no index": (lambda u, i, x, s: normal("e", "user").sum() + 0 * s, "no term reads"),
    "an index of all rows": (
        lambda u, i, x, s: 0 * u + normal("e", "user")[np.arange(6) % 4].sum(),
        "has rows not of a minibatch",
    ),
    "numbers from the end": (lambda u, i, x, s: normal("e", "user")[u - 6], "has negative numbers"),
    "a variable of rows": (lambda u, i, x, s: normal("e", "obs"), "has a value for each row"),
    "districts without their users": (
        lambda u, i, x, s: normal("e2", "user", normal("e", "district")[DISTRICT], s)[u],
        "has rows not of a minibatch",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_needs_other_groups_is_refused(case):
    effects, why = REFUSED[case]
    model = model_of(effects)
    with pytest.raises(ValueError, match=f"groups of pm.fit has 'e', but .*{why}"):
        group_batches(model, [model["e"]])


def test_terms_outside_of_the_rows_are_refused():
    with model_of(BY_BATCH["centred"][0]) as model:
        pm.Potential("all", -(model["e"] ** 2))
    with pytest.raises(ValueError, match="'all' is not computed group by group"):
        group_batches(model, [model["e"]])


@pytest.mark.parametrize("read_twice", [False, True])
def test_groups_of_a_loader_are_counted_or_given(read_twice, caplog):
    data = {"u": USER, "i": ITEM, "y": np.zeros(N_ROWS)}
    loader = pm.DataLoader(data, batch_size=BATCH, shuffle=True, drop_last=True)
    with pm.Model(coords={"user": range(6)}) as model:
        u, i, y = (pm.Data(name, loader, dims="obs") for name in data)
        e, f = pm.Normal("e", dims="user"), pm.Normal("f", dims="user")
        read = e[u] - e[i] if read_twice else e[u]
        pm.Normal("rows", read + f[(u + 1) % 6], 1, observed=y, dims="obs")
    counts = np.bincount(np.concatenate([USER, ITEM]) if read_twice else USER, minlength=6)
    with caplog.at_level("INFO"):
        counted = {b.rv.name: b for b in group_batches(model, [model["e"], model["f"]])}
    assert "groups of 'e', 'f' in a pass over 6 rows" in caplog.text
    np.testing.assert_array_equal(counted["e"].counts, counts)
    np.testing.assert_array_equal(counted["f"].counts, np.bincount((USER + 1) % 6, minlength=6))
    caplog.clear()
    with caplog.at_level("INFO"):
        [batch] = group_batches(model, [model["e"]], {"e": counts})
    assert not caplog.text
    np.testing.assert_array_equal(batch.with_rows.positions, np.flatnonzero(counts))
    for wrong, why in ((counts[1:], "an array of 6 integers"), (counts + 1, "rows in the groups")):
        with pytest.raises(ValueError, match=why):
            group_batches(model, [model["e"]], {"e": wrong})


class Batches(pm.Loader):
    """Batches of the rows of a `DataLoader`."""

    batch_size, total_size = BATCH, N_ROWS

    def __init__(self, loader):
        self.loader = loader

    def batches(self, epoch):
        return self.loader.batches(epoch)


LOADERS = {
    "an iterator": (lambda data: iter([data]), "can be read only once"),
    "batches": (lambda data: data, "Batches gives its rows in batches only"),
}


@pytest.mark.parametrize("case", LOADERS)
def test_groups_of_other_loaders_need_counts(case):
    data = {"u": USER, "y": np.zeros(N_ROWS)}
    dataset, why = LOADERS[case]
    loader = pm.DataLoader(dataset(data), batch_size=BATCH, total_size=N_ROWS)
    if case == "batches":
        loader = Batches(loader)
    with pm.Model(coords={"user": range(6)}) as model:
        u, y = (pm.Data(name, loader, dims="obs") for name in data)
        pm.Normal("rows", pm.Normal("e", dims="user")[u], 1, observed=y, dims="obs")
    with pytest.raises(
        ValueError, match=rf"comes from a loader, .*{why}.* groups=\{{'e': counts\}}"
    ):
        group_batches(model, [model["e"]])
    [batch] = group_batches(model, [model["e"]], {"e": np.bincount(USER, minlength=6)})
    assert batch.counts.sum() == N_ROWS
