# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0

"""Which groups of a latent variable have rows, read from the graph of a model and its data."""

import numpy as np
import pytensor.tensor as pt
import pytest

import pymc as pm

from pymc.minibatch.group_reads import Groups, groups_with_rows

N_USERS, N_ITEMS, N_DISTRICTS = 12, 6, 4
#: Users 9 to 11 and items 0 and 1 have no rows, and so has district 3
USER, ITEM = np.arange(30) % 9, 2 + np.arange(30) % 4
DISTRICT = np.array([0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 2])
CELLS = np.unique(USER * N_ITEMS + ITEM).tolist()
WITH_ROWS = {"e": list(range(9)), "f": [2, 3, 4, 5], "d": [0, 1, 2]}


def model_of(effects, minibatch):
    """Make a model whose rows have the mean that `effects` returns, given the data and a scale."""
    coords = {"user": N_USERS, "item": N_ITEMS, "district": N_DISTRICTS, "feature": 3}
    with pm.Model(coords={dim: range(n) for dim, n in coords.items()}) as model:
        data = [
            pm.Data("user_of_row", USER, dims="obs"),
            pm.Data("item_of_row", ITEM, dims="obs"),
            pm.Data("x", np.ones((30, 3)), dims=("obs", "feature")),
            pm.Data("y", np.zeros(30), dims="obs"),
        ]
        u, i, x, y = pm.Minibatch(*data, batch_size=5) if minibatch else data
        pm.Normal("rows", effects(u, i, x, pm.HalfNormal("s")), 1, observed=y, dims="obs")
    return model


def normal(name, dims, mu=0.0, sigma=1.0, **kwargs):
    return pm.Normal(name, mu, sigma, dims=dims, **kwargs)


FOUND = {
    "centred": (lambda u, i, x, s: normal("e", "user", 0, s)[u], "e"),
    "not centred": (lambda u, i, x, s: (1 + s * normal("e", "user"))[u], "e"),
    "slopes": (lambda u, i, x, s: (normal("e", ("user", "feature"))[u] * x).sum(-1), "e"),
    "second axis": (lambda u, i, x, s: (normal("e", ("feature", "user"))[:, u].T * x).sum(-1), "e"),
    "crossed": (lambda u, i, x, s: normal("e", "user")[u] + normal("f", "item")[i], "ef"),
    "cells": (lambda u, i, x, s: normal("e", ("user", "item"))[u, i], "cells"),
    "cells the other way round": (
        lambda u, i, x, s: normal("e", ("user", "item")).T[i, u],
        "cells",
    ),
    "cells of a chain, the other way round": (
        lambda u, i, x, s: normal("e", ("user", "item"), normal("e2", ("item", "user")).T)[u, i],
        "cells of both, turned",
    ),
    "cells of a chain": (
        lambda u, i, x, s: normal("e", ("user", "item"), normal("e2", ("user", "item")))[u, i],
        "cells of both",
    ),
    "nested by the row": (
        lambda u, i, x, s: (
            normal("e", "user")[u] + normal("d", "district")[pt.constant(DISTRICT)[u]]
        ),
        "ed",
    ),
    "nested by the group": (
        lambda u, i, x, s: normal("e", "user")[u] + normal("d", "district")[DISTRICT][u],
        "ed",
    ),
    # District 3 has users, and none of them has a row
    "nested in the prior": (
        lambda u, i, x, s: normal("e", "user", normal("d", "district")[DISTRICT], s)[u],
        "ed",
    ),
    "a chain": (lambda u, i, x, s: normal("e", "user", normal("g", "user"), s)[u], "eg"),
    "with data of groups": (
        lambda u, i, x, s: (pm.Data("w", np.arange(12.0), dims="user") * s + normal("e", "user"))[
            u
        ],
        "e",
    ),
    "written in part": (lambda u, i, x, s: pt.set_subtensor(normal("e", "user")[0], 0.0)[u], "e"),
    "counted from the end": (lambda u, i, x, s: normal("e", "user")[u - 12], "9 to 11 and 0 to 5"),
    "a part of the groups": (lambda u, i, x, s: normal("e", "user")[3:][u], "3 to 11"),
    "some groups, by a mask": (
        lambda u, i, x, s: normal("e", "user")[np.arange(12) > 2][u],
        "3 to 11",
    ),
    "after a reference group": (
        lambda u, i, x, s: pt.concatenate([[0.0], normal("e", "user")])[u],
        "0 to 7",
    ),
    "a positive variable": (lambda u, i, x, s: pm.HalfNormal("e", s, dims="user")[u], "e"),
    "a vector for each group": (
        lambda u, i, x, s: (
            pm.MvNormal("e", np.zeros(3), np.eye(3), dims=("user", "feature"))[u] * x
        ).sum(-1),
        "e",
    ),
    "a simplex for each group": (
        lambda u, i, x, s: (pm.Dirichlet("e", np.ones(3), dims=("user", "feature"))[u] * x).sum(-1),
        "e",
    ),
}
#: Cases whose groups with rows are other ones
OTHER = {
    "9 to 11 and 0 to 5": {"e": list(range(9))},
    "3 to 11": {"e": list(range(3, 12))},
    "0 to 7": {"e": list(range(8))},
    "cells": {"e": CELLS},
    "cells of both": {"e": CELLS, "e2": CELLS},
    "cells of both, turned": {"e": CELLS},
}


@pytest.mark.parametrize("minibatch", [True, False])
@pytest.mark.parametrize("case", FOUND)
def test_groups_with_rows_are_read_from_the_graph_and_the_data(case, minibatch):
    effects, expected = FOUND[case]
    found = groups_with_rows(model_of(effects, minibatch))
    known = {**WITH_ROWS, "g": WITH_ROWS["e"]}
    expected = OTHER.get(expected) or {name: known[name] for name in expected}
    assert {rv.name: groups.positions.tolist() for rv, groups in found.items()} == expected


LEFT_OUT = {
    "also read as a whole": lambda u, i, x, s: (lambda e: e[u] + e.mean())(normal("e", "user")),
    "draws that sum to 0": lambda u, i, x, s: pm.ZeroSumNormal("e", dims="user")[u],
    "draws in order": lambda u, i, x, s: normal(
        "e", "user", transform=pm.distributions.transforms.ordered, initval=np.arange(12.0)
    )[u],
    "a random walk": lambda u, i, x, s: pm.GaussianRandomWalk(
        "e", init_dist=pm.Normal.dist(), dims="user"
    )[u],
    "an index that is latent": lambda u, i, x, s: normal("e", "user")[
        (u + pm.Bernoulli("b", 0.5)) % 12
    ],
    "draws that depend on each other": lambda u, i, x, s: pm.CustomDist(
        "e", s, dist=lambda s, size: pt.cumsum(pm.Normal.dist(0, s, shape=12)), dims="user"
    )[u],
    "a log-probability of all": lambda u, i, x, s: pm.CustomDist(
        "e", s, logp=lambda value, s: -((value / s) ** 2).sum(), dims="user"
    )[u],
    "pairs": lambda u, i, x, s: (lambda e: e[:, None] - e[None, :])(normal("e", "user"))[u, i],
    "single entries": lambda u, i, x, s: (
        (lambda e: e[0] + e[1:3].sum())(normal("e", "user")) + 0 * u
    ),
    "no rows at all": lambda u, i, x, s: 0 * u + (normal("e", "user"), s)[1],
}


@pytest.mark.parametrize("case", LEFT_OUT)
def test_variables_of_other_kinds_are_left_out(case):
    assert groups_with_rows(model_of(LEFT_OUT[case], minibatch=True)) == {}


def test_terms_of_all_kinds_count():
    with model_of(FOUND["centred"][0], minibatch=False) as model:
        pm.Potential("ninth", -(model["e"][9] ** 2))
        normal("given", None, model["e"][np.array([10])], shape=1, observed=[0.0])
    assert groups_with_rows(model)[model["e"]].others.positions.tolist() == [11]
    with model:
        pm.Potential("all", -(model["e"] ** 2))
    assert groups_with_rows(model) == {}


def test_batches_that_are_set_by_hand_say_nothing_of_other_groups():
    """Data that hold a part of the rows have other groups at other times."""
    with pm.Model(coords={"user": range(12)}) as model:
        u, y = pm.Data("user_of_row", USER), pm.Data("y", np.zeros(30))
        e = pm.Normal("e", dims="user")
        pm.Normal("rows", e[u], 1, observed=y, total_size=300)
    assert groups_with_rows(model) == {}
    with model:
        pm.set_data({"user_of_row": np.arange(300) % 9, "y": np.zeros(300)})
    assert groups_with_rows(model)[e].positions.tolist() == WITH_ROWS["e"]
    # Of a minibatch all rows are known, with or without a total_size
    with pm.Model(coords={"user": range(12)}) as model:
        u, y = pm.Minibatch(USER, np.zeros(30), batch_size=5)
        e = pm.Normal("e", dims="user")
        pm.Normal("rows", e[u], 1, observed=y, total_size=30)
    assert groups_with_rows(model)[e].positions.tolist() == WITH_ROWS["e"]


def test_the_parents_of_a_variable_that_keeps_all_groups_keep_theirs():
    model = model_of(FOUND["nested in the prior"][0], minibatch=False)
    found = groups_with_rows(model, whole=[model["e"]])
    assert found == {}
    along = {model["e"]: Groups(0, np.array([0]), (12,))}
    assert groups_with_rows(model, along=along)[model["e"]].positions.tolist() == WITH_ROWS["e"]


def test_new_data_count():
    model = model_of(FOUND["centred"][0], minibatch=True)
    with model:
        pm.set_data({"user_of_row": np.arange(30) % 12})
    assert groups_with_rows(model) == {}


def test_groups_of_a_loader_are_not_known():
    loader = pm.DataLoader({"u": USER, "y": np.zeros(30)}, batch_size=5, shuffle=False)
    with pm.Model(coords={"user": range(12)}) as model:
        u, y = (pm.Data(name, loader, dims="obs") for name in "uy")
        pm.Normal("rows", pm.Normal("e", dims="user")[u], 1, observed=y, dims="obs")
    assert groups_with_rows(model) == {}


@pytest.mark.parametrize("wrong, value", [(12, "12"), (-13, "-13")])
def test_a_group_out_of_bounds_is_an_error(wrong, value):
    groups = USER.copy()
    groups[17] = wrong
    with pm.Model(coords={"user": range(12)}) as model:
        e = pm.Normal("e", dims="user")
        pm.Normal("rows", e[pm.Data("user_of_row", groups)], 1, observed=np.zeros(30))
    message = rf"'e' has 12 groups, and 'user_of_row', .* has {value} \(row 17\): .* 0 to 11"
    with pytest.raises(IndexError, match=message):
        groups_with_rows(model)


def test_the_index_of_groups_takes_entries_and_cells():
    array = np.arange(24).reshape(2, 3, 4)
    groups = Groups(1, np.array([0, 2]), (3,))
    np.testing.assert_array_equal(array[groups.index()], array[:, [0, 2]])
    np.testing.assert_array_equal(array[groups.others.index()], array[:, [1]])
    cells = Groups(0, np.array([1, 11]), (3, 4))
    np.testing.assert_array_equal(array[cells.index(n_sample_dims=1)], [[1, 11], [13, 23]])
