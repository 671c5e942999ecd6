# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Models with free variables on a subsampled dim: each is built of all rows, and of batches."""

from functools import cache

import numpy as np
import pytensor.tensor as pt

import pymc as pm
import pymc.dims as pmd

N, B, SITES = 4, 2, 3
rng = np.random.default_rng(5)
COORDS = {"obs": range(N), "site": range(SITES), "k": range(3), "group": range(2)}
X, Y = rng.normal(size=(2, N))
Z = rng.normal(size=(N, 3))
PAIRS = rng.normal(size=(N, SITES))
GROUP = np.array([0, 1, 1, 0])
SIZES = {"obs": B}


def table(rows):
    return rows(
        pm.Data("x", X, dims="obs"),
        pm.Data("y", Y, dims="obs"),
        pm.Data("wide", Z, dims=("obs", "k")),
        pm.Data("g", GROUP, dims="obs"),
    )


def likelihood(mu, observed, dims="obs"):
    pm.Normal("lik", mu, 1.5, observed=observed, dims=dims)


def one_local(rows):
    x, y, *_ = table(rows)
    z = pm.Normal("z", 0.3, 1.2, dims="obs")
    likelihood(pm.Normal("w") * x + z, y)


def log_transformed(rows):
    x, y, *_ = table(rows)
    likelihood(x * pm.Gamma("z", 2, 1.5, dims="obs"), y)


def interval_transformed(rows):
    x, y, *_ = table(rows)
    likelihood(x * pm.Beta("z", 2, 1.5, dims="obs") + pm.Uniform("u", -1, 2, dims="obs"), y)


def simplex(rows):
    _, y, wide, _ = table(rows)
    likelihood((wide * pm.Dirichlet("z", np.array([1.0, 2.0, 3.0]), dims=("obs", "k"))).sum(-1), y)


def ordered(rows):
    _, y, wide, _ = table(rows)
    transform = pm.distributions.transforms.ordered
    z = pm.Normal("z", dims=("obs", "k"), transform=transform, initval=np.tile([0.0, 1, 2], (N, 1)))
    likelihood((wide * z).sum(-1), y)


def multivariate(rows):
    _, y, wide, _ = table(rows)
    cov = np.array([[2.0, 0.3, 0], [0.3, 1, 0], [0, 0, 1]])
    z = pm.MvNormal("z", pm.Normal("mu", dims="k"), cov, dims=("obs", "k"))
    likelihood((wide * z).sum(-1), y)


def zero_sum_within_a_row(rows):
    _, y, wide, _ = table(rows)
    likelihood((wide * pm.ZeroSumNormal("z", dims=("obs", "k"))).sum(-1), y)


def random_walk_of_each_row(rows):
    _, y, wide, _ = table(rows)
    init = pm.Normal.dist(0, 1)
    z = pm.GaussianRandomWalk("z", sigma=0.7, init_dist=init, steps=2, dims=("obs", "k"))
    likelihood((wide * z).sum(-1), y)


def one_on_the_other(rows):
    x, y, *_ = table(rows)
    scale = pm.HalfNormal("scale", dims="obs")
    z = pm.Normal("z", pm.Normal("mu"), scale, dims="obs")
    likelihood(pm.Normal("deeper", z * x, 1, dims="obs"), y)


def batch_axis_last(rows):
    x, y, *_ = table(rows)
    z = pm.Gamma("z", pm.HalfNormal("a", dims="group")[:, None] + 1, 1, dims=("group", "obs"))
    likelihood((z * x).sum(0), y)


def mean_from_data(rows):
    x, y, *_ = table(rows)
    likelihood(pm.Normal("z", pm.Normal("w") * x, pt.exp(x), dims="obs"), y)


def groups_by_an_index(rows):
    x, y, _, g = table(rows)
    a = pm.Normal("a", dims="group")
    likelihood(pm.Normal("z", a[g], 1, dims="obs") + x, y)


def crossed(rows):
    pairs = rows(pm.Data("pairs", PAIRS, dims=("obs", "site")))
    row, column = pm.Normal("row", dims="obs"), pm.Gamma("column", 2, 1, dims="site")
    cell = pm.Normal("cell", row[:, None] * column, 1, dims=("obs", "site"))
    likelihood(cell + pm.Normal("w"), pairs, ("obs", "site"))


def cell_of_two_plates(rows):
    pairs = rows(pm.Data("pairs", PAIRS, dims=("obs", "site")))
    pm.Normal("unobserved", dims="site")
    likelihood(pm.Normal("cell", dims=("site", "obs")).T, pairs, ("obs", "site"))


def deterministic_between(rows):
    x, y, *_ = table(rows)
    z = pm.Normal("z", dims="obs")
    likelihood(pm.Deterministic("mu", pt.exp(z) * x, dims="obs"), y)


def potential_of_a_local(rows):
    x, y, *_ = table(rows)
    z = pm.Normal("z", dims="obs")
    pm.Potential("soft", -(z**2) / 3, dims="obs")
    likelihood(x, y)


def discrete(rows):
    x, y, *_ = table(rows)
    likelihood(pm.Bernoulli("z", pm.Beta("p", 2, 2), dims="obs") * x, y)


def custom(rows):
    x, y, *_ = table(rows)
    z = pm.CustomDist("z", x, logp=lambda value, x: -((value - x) ** 2), dims="obs")
    likelihood(z, y)


def mixture(rows):
    _, y, *_ = table(rows)
    likelihood(pm.NormalMixture("z", [0.3, 0.7], pm.Normal("m", dims="group"), 1, dims="obs"), y)


def named(rows):
    x, y, *_ = rows(*(pmd.Data(n, v, dims="obs") for n, v in (("x", X), ("y", Y))))
    z = pmd.Gamma("z", 2, 1, dims="obs")
    deeper = pmd.Normal("deeper", pmd.Normal("w") + z * x, 1, dims="obs")
    pmd.Normal("lik", deeper, 1.5, observed=y)


def named_and_multivariate(rows):
    y = rows(pmd.Data("y", Z, dims=("obs", "k")))
    weights = pmd.as_xtensor(np.array([1.0, 2.0, 3.0]), dims=("k",))
    z = pmd.Dirichlet("z", weights, core_dims="k", dims=("obs", "k"))
    zero = pmd.ZeroSumNormal("zero", core_dims="k", dims=("k", "obs"))
    pmd.Normal("lik", z + zero, 1.5, observed=y)


FORMS = [
    form
    for form in list(globals().values())
    if callable(form)
    and getattr(form, "__module__", None) == __name__
    and form.__code__.co_varnames[:1] == ("rows",)
    and form is not table
]


def sizes_of(form):
    return {"obs": B, "site": 2} if form in (crossed, cell_of_two_plates) else SIZES


def all_of(*data):
    return data if len(data) > 1 else data[0]


def build(form, sampling=None):
    def some_of(*data):
        return pm.Minibatch(*data, batch_size=sizes_of(form), sampling=sampling)

    with pm.Model(coords=COORDS) as model:
        form(all_of if sampling is None else some_of)
    return model


@cache
def full_model(form):
    return build(form)


def in_model(form, full, sampling):
    return build(form, sampling)


def of_full_data(form, full, sampling):
    return pm.minibatch_model(full, sizes_of(form), sampling)
