# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Guides whose distributions are those of a model, or that encoders gave: densities, draws, and errors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
import scipy.stats as st

from pytensor.graph.basic import Variable

import pymc as pm
import pymc.dims as pmd

from pymc.variational.approximation import guided_approximation
from pymc.variational.fit_objective import FitObjective
from pymc.variational.guides.base import detach
from pymc.variational.guides.latent_distribution import check_density
from pymc.variational.objectives import ReweightedWakeSleep
from pymc.variational.objectives.base import Setting, draw_all, draw_in_order, log_weights
from tests.variational.guides.amortized_models import (
    PLAIN,
    B,
    N,
    Y,
    bound,
    here_of,
    normal,
    one_local,
    weights,
    with_noise,
)

# A constant of a smaller type would have PyTensor compute its logarithm in float32
TWO = np.array(2.0)

SPACES = {
    "normal": (
        normal(),
        lambda y: pm.Normal.dist(0.5 * y, 0.7),
        lambda z, y: st.norm.logpdf(z, 0.5 * y, 0.7),
    ),
    "gamma_log": (
        lambda: pm.Exponential("z", 1, dims="obs"),
        lambda y: pm.Gamma.dist(2 + y**2, TWO),
        lambda z, y: st.gamma.logpdf(z, 2 + y**2, scale=0.5) + np.log(z),
    ),
    "beta_logodds": (
        lambda: pm.Beta("z", 1, 1, dims="obs"),
        lambda y: pm.Beta.dist(2 + y**2, 2 * TWO),
        lambda z, y: st.beta.logpdf(z, 2 + y**2, 4) + np.log(z * (1 - z)),
    ),
    "uniform_interval": (
        lambda: pm.Uniform("z", TWO / 2, 1.5 * TWO, dims="obs"),
        lambda y: pm.TruncatedNormal.dist(2 + 0.1 * y, TWO / 4, lower=TWO / 2, upper=1.5 * TWO),
        lambda z, y: (
            st.truncnorm.logpdf(
                z, (1 - 2 - 0.1 * y) / 0.5, (3 - 2 - 0.1 * y) / 0.5, 2 + 0.1 * y, 0.5
            )
            + np.log((z - 1) * (3 - z) / 2)
        ),
    ),
    "dirichlet_simplex": (
        lambda: pm.Dirichlet("z", np.ones(3), dims=("obs", "k")),
        lambda y: pm.Dirichlet.dist(1 + y[:, None] ** 2 * np.arange(1.0, 4.0)),
        # Of a softmax with coordinates that sum to 0: K times the product of the entries
        lambda z, y: np.array(
            [
                st.dirichlet.logpdf(row / row.sum(), 1 + x**2 * np.arange(1.0, 4.0))
                + np.log(3)
                + np.log(row).sum()
                for row, x in zip(z, y)
            ]
        ),
    ),
    "normal_within_rows": (
        lambda: pm.Normal("z", dims=("obs", "k")),
        lambda y: pm.MvNormal.dist(pt.stack([y, -y], 1), [[2.0, 0.5], [0.5, 1.0]]),
        lambda z, y: np.array(
            [
                st.multivariate_normal.logpdf(row, [x, -x], [[2.0, 0.5], [0.5, 1.0]])
                for row, x in zip(z, y)
            ]
        ),
    ),
    "poisson": (
        lambda: pm.Poisson("z", 1, dims="obs"),
        lambda y: pm.Poisson.dist(pt.exp(y)),
        lambda z, y: st.poisson.logpmf(z, np.exp(y)),
    ),
}


@pytest.mark.parametrize("lead", [(), (2, 4)], ids=str)
@pytest.mark.parametrize("space", SPACES)
def test_density_is_that_of_the_distribution_and_the_jacobian(
    space: str, lead: tuple[int, ...]
) -> None:
    prior, encode, exact = SPACES[space]
    with pm.Model(
        coords={"obs": range(N), "k": range(2 + (space == "dirichlet_simplex"))}
    ) as model:
        batch = pm.Minibatch(pm.Data("data", Y, dims="obs"), batch_size=B)
        z = prior()
        pm.Normal("y", z if z.type.ndim == 1 else z.sum(-1), 1, observed=batch, dims="obs")
    guide = bound(model, pm.Amortized({"z": encode}, inputs=[batch], dim="obs"))
    block = guide.draw({}, lead, {})
    logq = guide.logq(block, {}, len(lead), {})
    value = guide.values(block, len(lead))[guide.sites[0]]
    drawn, density, y, free = pm.compile(
        [], [block[0], logq, batch, value], mode=PLAIN, random_seed=1
    )()
    assert drawn.shape[: len(lead) + 1] == density.shape == (*lead, B)
    for place in np.ndindex(lead):
        np.testing.assert_allclose(density[place], exact(drawn[place], y), rtol=1e-8)
    if space != "poisson":
        assert free.shape[: len(lead) + 1] == (*lead, B)
        assert np.isfinite(free).all()
    if lead:  # draws of particles differ
        assert len(np.unique(drawn[:, :, 0].reshape(8, -1), axis=0)) > (
            2 if space == "poisson" else 7
        )


def test_rows_may_be_on_a_later_axis() -> None:
    with pm.Model(coords={"obs": range(N), "k": range(2)}) as model:
        batch = pm.Minibatch(pm.Data("data", Y, dims="obs"), batch_size=B)
        z = pm.Normal("z", dims=("k", "obs"))
        y = pm.Normal("y", z.sum(0), 1, observed=batch, dims="obs")
    # The observed variable stands for what is observed of it
    guide = pm.Amortized({z: lambda y: pm.Normal.dist(pt.stack([y, -y]), 1)}, [y], "obs")
    made = bound(model, guide)
    block = made.draw({}, (4,), {})
    graphs = [block[0], made.logq(block, {}, 1, {}), batch]
    drawn, density, data = pm.compile([], graphs, mode=PLAIN, random_seed=1)()
    exact = st.norm.logpdf(drawn, np.stack([data, -data]), 1).sum(1)
    np.testing.assert_allclose(density, exact, rtol=1e-12)
    transposed = pm.Amortized({z: lambda y: pm.Normal.dist(pt.stack([y, -y], 1), 1)}, [y], "obs")
    with pytest.raises(ValueError, match=r"the rows of 'obs' on another axis than axis 1|length"):
        guided_approximation(model, transposed)


def test_gradients_pass_through_draws_to_weights() -> None:
    w = weights("w", 0.5)
    model, guide = one_local(normal(), lambda y: pm.Normal.dist(w * y, 1))
    made = bound(model, guide)
    [draw] = made.draw(here_of(made), (), {})
    gradient, y = pm.compile(
        [], [pytensor.grad(draw.sum(), w), made.inputs[0]], mode=PLAIN, random_seed=1
    )()
    np.testing.assert_allclose(gradient, y.sum())


def test_held_weights_have_no_score() -> None:
    w = weights("w", 0.5)
    model, guide = one_local(normal(), lambda y: pm.Normal.dist(w * y, 1))
    made = bound(model, guide)
    block = tuple(map(pt.as_tensor, [np.full(B, 0.3)]))
    free = pytensor.grad(made.logq(block, here_of(made), 0, {}).sum(), w)
    stuck = pytensor.grad(
        made.logq(block, detach(here_of(made)), 0, {}).sum(), w, disconnected_inputs="ignore"
    )
    free, stuck, y = pm.compile([], [free, stuck, made.inputs[0]], mode=PLAIN, random_seed=1)()
    np.testing.assert_allclose(free, ((0.3 - 0.5 * y) * y).sum())
    assert stuck == 0


def hierarchy() -> tuple[pm.Model, Variable]:
    """A global, a positive one, and a variable of rows."""
    with pm.Model(coords={"obs": range(N)}) as model:
        data = pm.Data("data", Y, dims="obs")
        batch = pm.Minibatch(data, batch_size=B)
        mu = pm.Normal("mu", 0, 1)
        sd = pm.HalfNormal("sd", 1)
        z = pm.Normal("z", mu, sd, dims="obs")
        pm.Normal("y", z, 1, observed=batch, dims="obs")
    return model, batch


M, W = weights("m", 0.3), weights("w", 0.5)


def given_globals(model: pm.Model, batch: Variable) -> pm.Model:
    with pm.Model(coords=model.coords) as guide:
        mu = pm.Normal("mu", M, 2)
        sd = pm.LogNormal("sd", mu / 10, 0.5)
        pm.Normal("z", W * batch + mu, sd, dims="obs")
    return guide


def by_transforms(model: pm.Model, batch: Variable) -> pm.Model:
    with pm.Model(coords=model.coords) as guide:
        noise = pm.Normal("noise", 0, 1, shape=2)
        mu = pm.Deterministic("mu", M + 2 * pm.Normal("other"))
        sd = pm.Deterministic("sd", pt.exp(mu / 10 + 0.5 * noise[0]))
        each = pm.Normal("each", dims="obs")
        pm.Deterministic("z", W * batch + mu + sd * each, dims="obs")
    return guide


def on_the_unconstrained_space(model: pm.Model, batch: Variable) -> pm.Model:
    with pm.Model(coords=model.coords) as guide:
        mu = pm.Normal("mu", M, 2)
        log_sd = pm.Normal("sd_log__", mu / 10, 0.5)
        pm.Normal("z", mu=W * batch + mu, sigma=pt.exp(log_sd), dims="obs")
    return guide


def with_data_of_its_own(model: pm.Model, batch: Variable) -> pm.Model:
    """Data by name are those of the model, and rows those of its batch."""
    with pm.Model(coords=model.coords) as guide:
        data = pm.Data("data", np.zeros(N), dims="obs")
        tenth = pm.Data("tenth", 0.1)
        mu = pm.Normal("mu", M, 2)
        sd = pm.LogNormal("sd", tenth * mu, 0.5)
        location = pm.Deterministic("location", W * data + mu, dims="obs")
        pm.Normal("z", location, sd, dims="obs")
    return guide


def with_a_minibatch_of_its_own(model: pm.Model, batch: Variable) -> pm.Model:
    with pm.Model(coords=model.coords) as guide:
        mine = pm.Minibatch(pm.Data("data", np.zeros(N), dims="obs"), batch_size=2)
        mu = pm.Normal("mu", M, 2)
        sd = pm.LogNormal("sd", mu / 10, 0.5)
        pm.Normal("z", W * mine + mu, sd, dims="obs")
    return guide


def written_in_context(model: pm.Model) -> None:
    mu = pm.Normal("mu", M, 2)
    sd = pm.LogNormal("sd", mu / 10, 0.5)
    pm.Normal("z", W * model["data"] + mu, sd, dims="obs")


def returned(model: pm.Model) -> pm.Model:
    return given_globals(model, model["data"])


FORMS: dict[str, Any] = {
    "given_globals": given_globals,
    "by_transforms": by_transforms,
    "on_the_unconstrained_space": on_the_unconstrained_space,
    "with_data_of_its_own": with_data_of_its_own,
    "with_a_minibatch_of_its_own": with_a_minibatch_of_its_own,
    "written_in_context": lambda model, batch: written_in_context,
    "returned": lambda model, batch: returned,
}


@pytest.mark.parametrize("form", FORMS)
def test_density_of_a_guide_model_is_that_of_its_variables(form: str) -> None:
    """All forms are one distribution: mu ~ N(m, 2), log sd ~ N(mu / 10, 1/2), z ~ N(w y + mu, sd)."""
    model, batch = hierarchy()
    with pm.Model(coords=model.coords):  # the guide is of no other model
        pass
    approx = guided_approximation(model, FORMS[form](model, batch))
    assert {p.name for p in approx.params} == {"m", "w"}
    assert all(guide.reparametrised for guide in approx.guides)
    for lead in [(), (4,)]:
        draws = draw_in_order(model, approx.guides, {}, lead)
        logq = [g.logq(b, {}, len(lead), draws.parents) for g, b in draws.latents.items()]
        values = draws.values()
        free = [values[model.rvs_to_values[model[name]]] for name in ("mu", "sd", "z")]
        mu, log_sd, z, of_globals, of_rows, y = pm.compile(
            [], [*free, *logq, batch], mode=PLAIN, random_seed=1
        )()
        exact = st.norm.logpdf(mu, 0.3, 2) + st.norm.logpdf(log_sd, mu / 10, 0.5)
        np.testing.assert_allclose(of_globals, exact, rtol=1e-8)
        each = [np.asarray(x)[..., None] for x in (mu, np.exp(log_sd))]
        np.testing.assert_allclose(
            of_rows, st.norm.logpdf(z, 0.5 * y + each[0], each[1]), rtol=1e-8
        )
        assert z.shape == (*lead, B)
        if lead:
            assert len(np.unique(z)) == z.size


@pytest.mark.parametrize("form", ["given_globals", "by_transforms", "on_the_unconstrained_space"])
def test_draws_of_a_guide_model_are_functions_of_noise(form: str) -> None:
    """Noise of 1 everywhere: mu = m + 2, log sd = mu / 10 + 1/2, z = w y + mu + sd."""
    model, batch = hierarchy()
    approx = guided_approximation(model, FORMS[form](model, batch))
    draws = draw_in_order(model, approx.guides, {}, ())
    graphs = [*draws.parents.values(), *(draws.latents[approx.guides[1]])]
    mu, sd, z = with_noise(graphs, lambda zeros: zeros + np.array(1.0))
    slope = pytensor.grad(z.sum(), M)
    mu, sd, z, slope, y = pm.compile([], [mu, sd, z, slope, batch], mode=PLAIN, random_seed=1)()
    np.testing.assert_allclose(mu, 2.3)
    np.testing.assert_allclose(sd, np.exp(0.73))
    np.testing.assert_allclose(z, 0.5 * y + 2.3 + np.exp(0.73))
    np.testing.assert_allclose(slope, B * (1 + np.exp(0.73) / 10))


def test_results_are_of_all_rows() -> None:
    """With a sd of almost 0 the draws say what each row was given."""
    w = weights("w", 0.5)
    with pm.Model(coords={"obs": range(N)}) as model:
        data = pm.Data("data", Y, dims="obs")
        mu = pm.Normal("mu")
        z = pm.Normal("z", mu, 1, dims="obs")
        pm.Normal("y", z, 1, observed=data, dims="obs")
    with pm.Model(coords=model.coords) as guide:
        mu = pm.Normal("mu", 1, 2)
        pm.Normal("z", w * data + mu, 1e-9, dims="obs")
    with pytensor.config.change_flags(mode="FAST_COMPILE"):
        approx = pm.fit(2, model=model, batch_size=B, guide=guide, progressbar=False)
        found = approx.sample(7, random_seed=1).posterior
    mu = found["mu"].to_numpy()
    np.testing.assert_allclose(found["z"], w.get_value() * Y + mu[..., None], atol=1e-7)
    assert mu.std() > 0.5


def test_rows_of_all_data_without_a_minibatch_may_depend_on_each_other() -> None:
    with pm.Model(coords={"obs": range(N)}) as model:
        z = pm.Normal("z", 0, 1, dims="obs")
        pm.Normal("y", z, 1, observed=Y, dims="obs")
    with pm.Model(coords=model.coords) as guide:
        pm.MvNormal("z", np.zeros(N), np.eye(N) + 0.5, dims="obs")
    [made] = guided_approximation(model, guide).guides
    block = made.draw({}, (3,), {})
    z, logq = pm.compile([], [block[0], made.logq(block, {}, 1, {})], mode=PLAIN)()
    exact = st.multivariate_normal.logpdf(z, np.zeros(N), np.eye(N) + 0.5)
    np.testing.assert_allclose(logq, exact)


def test_an_exact_guide_has_one_weight() -> None:
    """log p - log q of the true posterior is log p(y) at every draw: 20 rows, mu | y and z | mu, y."""
    y = np.random.default_rng(1).normal(1.0, np.sqrt(11.0), size=20)
    with pm.Model(coords={"obs": range(20)}) as model:
        batch = pm.Minibatch(pm.Data("data", y, dims="obs"), batch_size=20)
        mu = pm.Normal("mu")
        z = pm.Normal("z", mu, np.sqrt(5.0), dims="obs")
        pm.Normal("y", z, np.sqrt(5.0), observed=batch, dims="obs")
    with pm.Model(coords=model.coords) as guide:
        mu = pm.Normal("mu", y.sum() / 10 / 3, np.sqrt(1 / 3))
        pm.Normal("z", (batch + mu) / 2, np.sqrt(2.5), dims="obs")
    approx = guided_approximation(model, guide)
    setting = Setting(model, approx.terms, approx.guides, {}, (), n_outer=5)
    found = log_weights(setting, draw_all(setting))
    [rows] = found.rows.values()
    with pm.minibatch_logp():
        weight = pm.compile([], found.global_ + rows.sum(-1), mode=PLAIN, random_seed=1)()
    exact = st.multivariate_normal.logpdf(y, np.zeros(20), 10 * np.eye(20) + 1)
    np.testing.assert_allclose(weight, np.full(5, exact), rtol=1e-10)


def test_discrete_variables_have_their_probabilities() -> None:
    """c ~ Bernoulli, k | c ~ Poisson, of each row: by enumeration q sums to one."""
    with pm.Model(coords={"obs": range(N)}) as model:
        batch = pm.Minibatch(pm.Data("data", Y, dims="obs"), batch_size=B)
        c = pm.Bernoulli("c", 0.5, dims="obs")
        k = pm.Poisson("k", 1 + c, dims="obs")
        pm.Normal("y", k, 1, observed=batch, dims="obs")
    with pm.Model(coords=model.coords) as guide:
        c = pm.Bernoulli("c", logit_p=W * batch, dims="obs")
        pm.Poisson("k", pt.exp(M + c), dims="obs")
    [made] = guided_approximation(model, guide).guides
    assert [site.name for site in made.sites] == ["c", "k"] and not made.reparametrised
    grid = np.array([(c, k) for c in (0, 1) for k in range(30)])
    block = tuple(pt.as_tensor(np.repeat(column[:, None], B, axis=1)) for column in grid.T)
    logq, y = pm.compile([], [made.logq(block, {}, 1, {}), batch], mode=PLAIN, random_seed=1)()
    p = 1 / (1 + np.exp(-0.5 * y))
    exact = np.where(grid[:, :1] == 1, np.log(p), np.log1p(-p))
    exact = exact + st.poisson.logpmf(grid[:, 1], np.exp(0.3 + grid[:, 0]))[:, None]
    np.testing.assert_allclose(logq, exact, rtol=1e-8)
    np.testing.assert_allclose(np.exp(logq).sum(0), 1, rtol=1e-8)
    block = made.draw({}, (2,), {})
    drawn = pm.compile([], list(block), mode=PLAIN, random_seed=1)()
    assert [x.shape for x in drawn] == [(2, B)] * 2


def test_a_sleep_phase_simulates_what_the_guide_reads() -> None:
    model, batch = hierarchy()
    approx = guided_approximation(model, on_the_unconstrained_space(model, batch))
    objective = FitObjective(approx, ReweightedWakeSleep(insomnia=0.5), 3)
    losses = objective.losses(approx.storage.param_values({}))
    [phi] = [part.value for part in losses.minimised if W in part.parameters]
    found = pm.compile([], [phi, pytensor.grad(phi, W)], mode=PLAIN, random_seed=1)()
    assert np.isfinite(found).all() and found[1] != 0


@dataclass(frozen=True)
class Auto:
    """A guide as pymc-extras makes it: inputs, and where they start."""

    model: pm.Model
    params_init_values: dict[Variable, np.ndarray]


def auto_normal(model: pm.Model) -> Auto:
    """Normal distributions on the unconstrained space, by the names of the variables."""
    starts: dict[Variable, np.ndarray] = {}
    with pm.Model(coords=model.coords) as guide:
        for name in ("mu", "sd"):
            loc, scale = pt.scalar(f"{name}_loc"), pt.scalar(f"{name}_scale")
            starts |= {loc: np.array(0.7), scale: np.array(0.1)}
            pm.Deterministic(name, loc + scale * pm.Normal(f"{name}_noise"))
    return Auto(guide, starts)


@pytest.mark.parametrize("as_function", [True, False])
def test_auto_guides_are_on_the_unconstrained_space(as_function: bool) -> None:
    with pm.Model() as model:
        pm.Normal("y", pm.Normal("mu"), pm.HalfNormal("sd"), observed=Y)
    approx = guided_approximation(model, auto_normal if as_function else auto_normal(model))
    assert sorted(str(p.name) for p in approx.params) == [
        "mu_loc",
        "mu_scale",
        "sd_loc",
        "sd_scale",
    ]
    [made] = approx.guides
    block = made.draw({}, (3,), {})
    values = made.values(block, 1)
    mu, log_sd, logq = pm.compile(
        [], [*values.values(), made.logq(block, {}, 1, {})], mode=PLAIN, random_seed=1
    )()
    exact = st.norm.logpdf(mu, 0.7, 0.1) + st.norm.logpdf(log_sd, 0.7, 0.1)
    np.testing.assert_allclose(logq, exact, rtol=1e-10)


def test_a_guide_of_pymc_extras_is_taken() -> None:
    autoguide = pytest.importorskip("pymc_extras.inference.advi.autoguide")
    with pm.Model(coords={"k": range(3)}) as model:
        mu = pm.Normal("mu", dims="k")
        pm.Normal("y", mu.sum(), pm.HalfNormal("sd"), observed=Y)
    guide = autoguide.AutoDiagonalNormal(model)
    approx = guided_approximation(model, guide)
    [made] = approx.guides
    block = made.draw({}, (3,), {})
    values = {site.name: value for site, value in made.values(block, 1).items()}
    logq = made.logq(block, {}, 1, {})
    mu, log_sd, logq = pm.compile(
        [], [values["mu"], values["sd"], logq], mode=PLAIN, random_seed=1
    )()
    start = {var.name: np.asarray(value) for var, value in guide.params_init_values.items()}
    exact = st.norm.logpdf(mu, start["mu_loc"], np.exp(start["mu_scale"])).sum(-1)
    exact += st.norm.logpdf(log_sd, start["sd_loc"], np.exp(start["sd_scale"]))
    np.testing.assert_allclose(logq, exact, rtol=1e-8)


def test_a_part_of_the_variables_stands_beside_other_guides() -> None:
    model, batch = hierarchy()
    with pm.Model(coords=model.coords) as rows:
        pm.Normal("z", W * batch + model["mu"], 1, dims="obs")
    with pytest.raises(ValueError, match=r"a model without 'mu', 'sd'.*guide=\[guide_model, ...\]"):
        guided_approximation(model, rows)
    for guide in (
        [rows],
        {"z": rows},
        {"z": rows, ("mu", "sd"): "full_rank"},
        {("mu", "sd"): "mf", None: rows},
    ):
        found = guided_approximation(model, guide).guides
        names = [site.name for made in found for site in made.sites]
        assert sorted(names) == ["mu", "sd", "z"] and names.index("mu") < names.index("z")


def start(model: pm.Model, batch: Variable) -> None:
    pm.Normal("mu", M, 1)
    pm.LogNormal("sd", 0, 1)


def refused(write: Any) -> Any:
    """A guide with `mu` and `sd`, and what `write` makes of `z`."""

    def guide(model: pm.Model, batch: Variable) -> pm.Model:
        with pm.Model(coords=model.coords) as made:
            start(model, batch)
            write(batch)
        return made

    return guide


REFUSED: dict[str, Any] = {
    "rows_of_one_distribution": (
        lambda y: pm.MvNormal("z", np.zeros(N), np.eye(N), dims="obs"),
        "'z' of the guide model is one .* so that it couples the rows",
    ),
    "random_walk_over_rows": (
        lambda y: pm.GaussianRandomWalk("z", 0, 1, init_dist=pm.Normal.dist(), dims="obs"),
        "'z' of the guide model is one .* so that it couples the rows",
    ),
    "atoms": (
        lambda y: pm.Deterministic("z", pt.clip(pm.Normal("noise", y, 1, dims="obs"), -0.5, 0.5)),
        "'z' .* has draws of one value, as of pt.clip",
    ),
    "rows_mixed": (
        lambda y: pm.Normal("z", y - y.mean(), 1, dims="obs"),
        "The parameters of the free variable 'z'.*mixes the rows",
    ),
    "rows_mixed_by_a_transform": (
        lambda y: pm.Deterministic("z", y.mean() + pm.Normal("noise", dims="obs")),
        "'z' of the guide model couples the rows of 'obs'",
    ),
    "slots": (
        lambda y: pm.Deterministic(
            "z", weights("slots", np.zeros(B)) + pm.Normal("noise", 0 * y, dims="obs")
        ),
        "not of the batch|values of its own along axis 0",
    ),
    "shared_noise": (
        lambda y: pm.Deterministic("z", y + pm.Normal("noise")),
        r"has \d+ entries, which are computed from \d+ random numbers",
    ),
    "dims": (lambda y: pm.Normal("z", 0, 1, dims="k"), r"'z' .* has dims=\('k',\).*dims=\('obs',\)"),
    "integrated": (
        lambda y: pm.Normal("z", pm.Normal("noise", y, 1, dims="obs"), 1, dims="obs"),
        "depends on 'noise', which the model does not have.*integrated out",
    ),
    "two_noises": (
        lambda y: pm.Deterministic(
            "z", y + pm.Normal("first", dims="obs") * pm.Normal("second", dims="obs")
        ),
        "PyMC cannot derive the log-density of the variable 'z'.*can be inverted",
    ),
    "no_noise": (lambda y: pm.Deterministic("z", 2 * y), "'z' .* has to be a distribution"),
    "observed": (lambda y: pm.Normal("seen", 0, 1, observed=1.0), "with 'seen', which is observed"),
    "potential": (lambda y: pm.Potential("pot", pt.constant(1.0)), "with 'pot', which is a Potential"),
    "idle": (lambda y: pm.Normal("typo"), r"with 'typo', which the model .* variables are 'mu'"),
    "twice": (
        lambda y: pm.Normal("sd_log__"),
        "'sd' and 'sd_log__', which are one variable on two spaces",
    ),
    "no_value": (
        lambda y: pm.Normal("z", pt.scalar("a") * y, 1, dims="obs"),
        r"computed from 'a', which has no value.*pytensor.shared",
    ),
    "lacking": (lambda y: None, "a model without 'z', which the model that is fitted has"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_guide_is_refused(kind: str) -> None:
    write, match = REFUSED[kind]
    model, batch = hierarchy()
    model.add_coord("k", range(N))
    with pytest.raises((ValueError, TypeError), match=match):
        guided_approximation(model, refused(write)(model, batch))


def test_globals_of_a_batch_or_of_rows_are_refused() -> None:
    model, batch = hierarchy()
    with pm.Model(coords=model.coords) as guide:
        pm.Deterministic("mu", batch.sum() + pm.Normal("noise"))
    with pytest.raises(ValueError, match=r"'mu' .* is computed from a batch of the rows of 'obs'"):
        guided_approximation(model, [guide])
    with pm.Model(coords=model.coords) as guide:
        z = pm.Normal("z", batch, 1, dims="obs")
        pm.Deterministic("mu", z[0] + pm.Normal("noise"))
    with pytest.raises(
        ValueError, match=r"'mu' .* depends on 'z', which is .* local to other rows"
    ):
        guided_approximation(model, [guide])


def test_transforms_of_one_noise_have_no_density_together() -> None:
    model, _ = hierarchy()
    with pm.Model(coords=model.coords) as guide:
        noise = pm.Normal("noise")
        pm.Deterministic("mu", 2 * noise)
        pm.Deterministic("sd", pt.exp(noise))
    with pytest.raises(ValueError, match=r"'mu' and 'sd' .* of the same random variable 'noise'"):
        guided_approximation(model, [guide])


@pytest.mark.parametrize("factor", [1, 3])
def test_entries_that_are_functions_of_each_other_have_no_density(factor: int) -> None:
    with pm.Model() as model:
        pm.Normal("y", pm.Normal("mu", shape=2).sum(), 1, observed=Y)
    with pm.Model() as guide:
        noise = pm.Normal("noise", shape=2)
        pm.Deterministic("mu", pt.stack([noise[0], factor * noise[0]]))
    with pytest.raises(ValueError, match=r"'mu' .* linear functions of each other"):
        guided_approximation(model, guide)


def test_entries_that_are_the_same_are_found_among_many() -> None:
    draws = np.random.default_rng(1).normal(size=(32, 100))
    check_density(draws, draws, "z")
    draws[:, 90] = draws[:, 40]
    with pytest.raises(ValueError, match="z has entries that are the same in each draw"):
        check_density(draws, draws, "z")


def test_values_of_a_small_spread_have_a_density() -> None:
    """Draws that are rounded to a few numbers say nothing of their distribution."""
    with pm.Model() as model:
        pm.Normal("y", pm.Normal("mu", shape=3).sum(), 1, observed=Y)
    with pm.Model() as guide:
        pm.Deterministic("mu", 3.0 + 1e-15 * pm.Normal("noise", shape=3))
    assert guided_approximation(model, guide).guides


@pytest.mark.parametrize("lead", [(), (50,)], ids=str)
def test_sources_that_depend_on_each_other_are_drawn_together(lead: tuple[int, ...]) -> None:
    """Of a ~ N(0, 1) and b ~ N(c + k a, 1/2), joined in another order than that of the draws."""
    k, c = 1.5, weights("c", 0.3)
    with pm.Model() as model:
        pm.Normal("y", pm.Normal("mu", shape=3).sum(), 1, observed=Y)
    with pm.Model() as guide:
        a = pm.Normal("a")
        b = pm.Normal("b", c + k * a, 0.5, shape=2)
        pm.Deterministic("mu", pt.concatenate([b, a[None]]))
    [made] = guided_approximation(model, guide).guides
    assert made.reparametrised and [p.name for p in made.parameters] == ["c"]
    block = made.draw({}, lead, {})
    mu, logq = pm.compile(
        [], [block[0], made.logq(block, {}, len(lead), {})], mode=PLAIN, random_seed=1
    )()
    cov = np.array([[k**2 + 0.25, k**2, k], [k**2, k**2 + 0.25, k], [k, k, 1]])
    exact = st.multivariate_normal([0.3, 0.3, 0], cov)
    np.testing.assert_allclose(logq, exact.logpdf(mu))
    # With a hidden draw of a for b this would be 2.2
    residual = mu[..., :2] - 0.3 - k * mu[..., 2:]
    assert np.sqrt(np.mean(residual**2)) < 1.0


def test_a_batch_fed_by_hand_has_the_rows_of_a_guide_model() -> None:
    w = weights("w", 0.5)
    with pm.Model(coords={"obs": range(B)}) as model:
        data = pm.Data("data", Y[:B], dims="obs")
        mu = pm.Normal("mu", shape=2)
        z = pm.Normal("z", mu.sum(), 1, dims="obs")
        pm.Normal("y", z, 1, observed=data, dims="obs", total_size=N)
    with pm.Model(coords=model.coords) as guide:
        pm.Normal("mu", 1, 2, shape=2)
        pm.Normal("z", w * data, 1e-9, dims="obs")
    approx = guided_approximation(model, guide)
    assert [[rows.dim for rows in made.sites[0].plate] for made in approx.guides] == [[], ["obs"]]
    with pytensor.config.change_flags(mode="FAST_COMPILE"):
        new = approx.sample(3, data={"data": [1.0, 2.0]}, random_seed=1).posterior
    np.testing.assert_allclose(new["z"], np.broadcast_to([0.5, 1.0], (1, 3, 2)), atol=1e-7)
    with pm.Model(coords=model.coords) as slots:
        pm.Normal("z", weights("slots", np.zeros(B)), 1, dims="obs")
    with pytest.raises(ValueError, match=r"values of its own along axis 0"):
        guided_approximation(model, [slots])


def test_a_transform_outside_of_the_support_is_refused() -> None:
    model, _ = hierarchy()
    with pm.Model(coords=model.coords) as guide:
        pm.Deterministic("sd", M + pm.Normal("noise"))
    with pytest.raises(ValueError, match=r"no values of 'sd'.*'log'.*pt.exp.*'?sd_log__"):
        guided_approximation(model, [guide])


@pytest.mark.parametrize("given", [pm.Model, 1.0, pm.LowRank], ids=str)
def test_what_is_neither_a_guide_nor_a_model_is_refused(given: Any) -> None:
    model, _ = hierarchy()
    with pytest.raises(TypeError, match=r"is no guide: give one of .*pm.Model whose variables"):
        guided_approximation(model, given)


def test_named_dims_are_refused() -> None:
    model, _ = hierarchy()
    with pm.Model(coords=model.coords) as guide:
        pmd.Normal("mu")
    with pytest.raises(NotImplementedError, match=r"'mu' of pymc.dims.*pm.Normal\('mu'"):
        guided_approximation(model, [guide])


def test_starts_of_a_guide_model_are_its_own() -> None:
    model, batch = hierarchy()
    with pytest.raises(ValueError, match=r"start of pm.fit has 'mu'"):
        guided_approximation(model, given_globals(model, batch), start={"mu": 1.0})
