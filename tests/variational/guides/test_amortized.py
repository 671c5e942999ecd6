#   Copyright 2026 - present The PyMC Developers
#
#   Licensed under the Apache License, Version 2.0 (the "License");
#   you may not use this file except in compliance with the License.
#   You may obtain a copy of the License at
#
#       http://www.apache.org/licenses/LICENSE-2.0
#
#   Unless required by applicable law or agreed to in writing, software
#   distributed under the License is distributed on an "AS IS" BASIS,
#   WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
#   See the License for the specific language governing permissions and
#   limitations under the License.
"""Amortized guides: their density, their draws, what they train, and how rows may be fed."""

from __future__ import annotations

import itertools

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
import scipy.stats as st

from pytensor.compile.mode import Mode
from pytensor.graph.basic import Variable
from pytensor.graph.replace import graph_replace
from pytensor.graph.traversal import ancestors, toposort
from pytensor.tensor.random.op import RandomVariable
from scipy.special import logsumexp

import pymc as pm

from pymc.minibatch.index import MinibatchIndexRV
from pymc.variational.guided import GuidedApproximation, GuidedObjective, guided_approximation
from pymc.variational.guides.base import held
from pymc.variational.guides.encoded import AmortizedGuide
from pymc.variational.guides.reparametrise import path
from pymc.variational.objectives import ELBO, IWAE, ReweightedWakeSleep
from pymc.variational.objectives.base import Setting, draw_all, log_weights
from pymc.variational.particles import at_draws

PLAIN = Mode(linker="py", optimizer=None)
N, B = 5, 3
Y = np.array([0.4, 1.7, -0.6, 2.2, 0.9])


def weights(name: str, value: Any) -> Any:
    return pytensor.shared(np.asarray(value, dtype=pytensor.config.floatX), name=name)


def one_local(
    prior: Callable[[], Variable], encode: Callable[..., Variable], **kwargs: Any
) -> tuple[pm.Model, pm.Amortized]:
    """A model with one variable of its rows, `z`, and a guide of it."""
    with pm.Model(coords={"obs": range(N)}) as model:
        batch = pm.Minibatch(pm.Data("data", Y, dims="obs"), batch_size=B)
        z = prior()
        loc = z if z.type.ndim == 1 else z.sum(-1)
        pm.Normal("y", loc, 1, observed=batch, dims="obs")
    return model, pm.Amortized({"z": encode}, inputs=[batch], dim="obs", **kwargs)


def bound(model: pm.Model, guide: Any) -> AmortizedGuide:
    [found] = (g for g in guided_approximation(model, guide).guides if hasattr(g, "dists"))
    return found


def here_of(guide: Any) -> dict[Any, Variable]:
    return {p: p for p in guide.parameters}


def normal(mean: Any = 0.0) -> Callable[[], Variable]:
    return lambda: pm.Normal("z", mean, 1, dims="obs")


# ---------------------------------------------------------------------------------------------------
# The density: closed forms by SciPy, and the Jacobian of each transform by hand


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


LOCS = np.array([0.0, 1.0])
PATHS = {
    "normal": (lambda: pm.Normal.dist(LOCS, 2.0), st.norm(LOCS, 2.0)),
    "lognormal": (lambda: pm.LogNormal.dist(LOCS, 0.5), st.lognorm(0.5, scale=np.exp(LOCS))),
    "halfnormal": (lambda: pm.HalfNormal.dist(LOCS + 1), st.halfnorm(0, LOCS + 1)),
    "student": (lambda: pm.StudentT.dist(nu=3, mu=LOCS, sigma=2.0), st.t(3, LOCS, 2.0)),
    "laplace": (lambda: pm.Laplace.dist(LOCS, 2.0), st.laplace(LOCS, 2.0)),
}


@pytest.mark.parametrize("kind", PATHS)
def test_reparametrised_draws_have_the_distribution(kind: str) -> None:
    """By Kolmogorov's test at 1e-6 for each of 10 comparisons: a false alarm in 100,000 seeds."""
    dist, exact = PATHS[kind]
    way = path(dist())
    assert way is not None
    graph = at_draws([way.draw], {way.noise: way.of_shape((2000, 2))})
    [draws] = pm.compile([], graph, mode=PLAIN, random_seed=3)()
    for column in exact.cdf(draws).T:
        assert st.kstest(column, "uniform").pvalue > 1e-6


def test_covariance_within_rows_is_that_of_its_factor() -> None:
    way = path(pm.MvNormal.dist([1.0, 2.0], [[2.0, 0.5], [0.5, 1.0]]))
    assert way is not None
    [draw] = at_draws([way.draw], {way.noise: pt.eye(2)})
    factor = draw.eval(mode=PLAIN) - [1.0, 2.0]
    np.testing.assert_allclose(factor.T @ factor, [[2.0, 0.5], [0.5, 1.0]])


def test_degrees_of_freedom_that_are_fitted_have_no_path() -> None:
    nu = weights("nu", 3.0)
    assert path(pm.StudentT.dist(nu=nu, mu=0, sigma=1)) is None
    assert path(pm.StudentT.dist(nu=2 * nu, mu=0, sigma=1)) is None


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
        made.logq(block, held(here_of(made)), 0, {}).sum(), w, disconnected_inputs="ignore"
    )
    free, stuck, y = pm.compile([], [free, stuck, made.inputs[0]], mode=PLAIN, random_seed=1)()
    np.testing.assert_allclose(free, ((0.3 - 0.5 * y) * y).sum())
    assert stuck == 0


# ---------------------------------------------------------------------------------------------------
# Objectives


def with_noise(graphs: Sequence[Variable], noise: Callable[[Variable], Variable]) -> list[Variable]:
    """Put numbers in the place of all noise, but for the index."""
    nodes = [
        node
        for node in toposort(graphs)
        if isinstance(node.op, RandomVariable) and not isinstance(node.op, MinibatchIndexRV)
    ]
    swaps = {}
    for node in nodes:
        out = node.outputs[1]
        size = [node.inputs[1][k] for k in range(out.type.ndim)]
        swaps[out] = noise(pt.zeros(size)) if size else noise(pt.constant(0.0))
    return list(graph_replace(list(graphs), swaps, strict=False))


GRID, POINT_WEIGHTS = np.polynomial.hermite_e.hermegauss(30)
POINT_WEIGHTS = POINT_WEIGHTS / POINT_WEIGHTS.sum()


@pytest.mark.parametrize(("n_particles", "exact"), [(1, -7.39496), (2, -6.25623)])
def test_guide_that_depends_on_a_global_has_the_bound_by_quadrature(
    n_particles: int, exact: float
) -> None:
    """A10 with q(z | mu) = N(mu, 1): the guide's draw of mu stands in the encoder of z."""
    with pm.Model(coords={"obs": range(3)}) as model:
        x = pm.Minibatch(pm.Data("x_all", [-1.0, 0.0, 2.0], dims="obs"), batch_size=3)
        mu = pm.Normal("mu")
        z = pm.Normal("z", mu, 1, dims="obs")
        pm.Normal("x", z, 1, observed=x, dims="obs")
    guide = pm.Amortized({"z": lambda x, mu: pm.Normal.dist(mu + 0 * x, 1)}, [x, mu], "obs")
    start = {"start": {"mu": 0.2}, "start_sigma": {"mu": np.sqrt(0.4)}}
    approx = guided_approximation(model, guide, **start)
    points = np.array(list(itertools.product(range(len(GRID)), repeat=1 + n_particles)))
    setting = Setting(
        model, approx.terms, approx.guides, approx.storage.here({}), (), len(points), n_particles
    )

    def noise(zeros: Variable) -> Variable:
        shape = zeros.type.shape
        if shape[1] == n_particles if n_particles > 1 else shape[1] != 1:
            return zeros + GRID[points[:, 1:]][(..., None) if n_particles > 1 else ()]
        return zeros + GRID[points[:, :1]].reshape((len(points), *(1,) * (len(shape) - 1)))

    weights_ = log_weights(setting, draw_all(setting))
    [rows] = weights_.rows.values()
    graphs = with_noise([weights_.glob, rows], noise)
    glob, rows = pm.compile([], graphs, mode=PLAIN)()
    of_rows = rows.reshape(len(points), n_particles, 3)
    bounds = (logsumexp(of_rows, axis=1) - np.log(n_particles)).sum(-1) + glob.reshape(-1)
    probability = POINT_WEIGHTS[points].prod(axis=1)
    np.testing.assert_allclose((probability * bounds).sum(), exact, atol=6e-6)


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
        loss = GuidedObjective(approx, IWAE() if n_particles > 1 else ELBO(), n_particles, "sum")
        loss.check()
        reported = loss.losses(approx.storage.here({})).reported
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
        here = approx.storage.here({})
        loss = GuidedObjective(approx, ELBO(), 1, "sum").losses(here).reported
        graphs = with_noise([loss, *pytensor.grad(loss, [*here.values()])], Feeding.noise)
        found.append(np.concatenate([np.ravel(x) for x in pm.compile([], graphs, mode=PLAIN)()]))
    ratios = found[1] / found[0]
    if with_global:
        assert np.ptp(ratios) > 0.1
    else:
        np.testing.assert_allclose(ratios, N / B, rtol=1e-12)


def test_discrete_variables_are_for_objectives_that_weigh_draws() -> None:
    w = weights("w", 0.5)
    model, guide = one_local(
        lambda: pm.Bernoulli("z", 0.3, dims="obs"), lambda y: pm.Bernoulli.dist(logit_p=w * y)
    )
    approx = guided_approximation(model, guide)
    assert not approx.guides[0].reparametrised
    with pytest.raises(ValueError, match=r"'iwae' needs gradients through draws.*'z'.*'rws'"):
        GuidedObjective(approx, IWAE(), 4).check()
    loss = GuidedObjective(approx, ReweightedWakeSleep(), 4, "sum")
    loss.check()
    losses = loss.losses(approx.storage.here({}))
    [phi] = [part.value for part in losses.minimised if w in part.parameters]
    found = pm.compile([], [losses.reported, pytensor.grad(phi, w)], mode=PLAIN, random_seed=1)()
    assert np.isfinite(found).all()
    assert found[1] != 0


def test_gamma_guides_are_not_reparametrised() -> None:
    model, guide = one_local(
        lambda: pm.Gamma("z", 2, 1, dims="obs"), lambda y: pm.Gamma.dist(1 + y**2, 1)
    )
    with pytest.raises(ValueError, match=r"draws from a distribution that has none"):
        GuidedObjective(guided_approximation(model, guide), ELBO()).check()


# ---------------------------------------------------------------------------------------------------
# What is trained


def vae(**kwargs: Any) -> tuple[pm.Model, pm.Amortized, dict[str, Any]]:
    """An encoder with a scale that is data, and a decoder with weights of its own."""
    found = {
        "w": weights("w", 0.5),
        "b": weights("b", 0.0),
        "decoder": weights("decoder", 1.0),
        "counts": pytensor.shared(np.ones(2, dtype="int64"), name="counts"),
    }
    with pm.Model(coords={"obs": range(N)}) as model:
        scale = pm.Data("scale", 2.0)
        batch = pm.Minibatch(pm.Data("data", Y, dims="obs"), batch_size=B)
        z = pm.Normal("z", 0, 1, dims="obs")
        pm.Normal("y", found["decoder"] * z, 1, observed=batch, dims="obs")

    def encode(y: Variable) -> Variable:
        rate = found["decoder"] / scale + 0 * found["counts"].sum()
        return pm.Normal.dist((found["w"] * y + found["b"]) * rate, 1)

    found["scale"] = scale
    return model, pm.Amortized({"z": encode}, [batch], "obs", **kwargs), found


def test_weights_are_found_and_data_and_the_decoder_left_out() -> None:
    model, guide, found = vae()
    assert set(bound(model, guide).parameters) == {found["w"], found["b"]}


def test_params_selects() -> None:
    model, _, found = vae()
    _, guide, found = vae(params=[])
    assert bound(model, guide).parameters == ()
    model, guide, found = vae()
    guide.params = (found["w"], found["decoder"])
    assert bound(model, guide).parameters == (found["w"], found["decoder"])


def test_params_of_the_model_are_trained_when_listed() -> None:
    model, guide, found = vae()
    assert guided_approximation(model, guide).model_parameters == ()
    approx = guided_approximation(model, guide, params=[found["decoder"]])
    assert approx.model_parameters == (found["decoder"],)
    [copy] = guided_approximation(
        pm.do(model, {}), guide, params=[found["decoder"]]
    ).model_parameters
    assert copy.container is found["decoder"].container


@pytest.mark.parametrize(
    ("chosen", "error", "match"),
    [
        ("w", ValueError, r"params of pm.fit has 'w', but the shared variables .* \['decoder'\]"),
        ("scale", ValueError, "params of pm.fit has 'scale', which is data"),
        (1.0, TypeError, "params of pm.fit has 1.0 of type float"),
    ],
)
def test_params_of_a_fit_are_checked(chosen: Any, error: Any, match: str) -> None:
    model, guide, found = vae()
    with pytest.raises(error, match=match):
        guided_approximation(model, guide, params=[found.get(chosen, chosen)])


def test_params_are_a_list_and_of_one_owner() -> None:
    model, guide, found = vae()
    with pytest.raises(TypeError, match=r"write \[decoder\]"):
        guided_approximation(model, guide, params=found["decoder"])
    guide.params = (found["decoder"],)
    with pytest.raises(ValueError, match="'decoder', which the guide trains already"):
        guided_approximation(model, guide, params=[found["decoder"]])
    guide.params = (weights("other", 0.0),)
    with pytest.raises(ValueError, match=r"pm.Amortized has 'other', but .* encoders depend"):
        guided_approximation(model, guide)


# ---------------------------------------------------------------------------------------------------
# Rows


def mean_over_rows(x: np.ndarray) -> np.ndarray:
    return x - x.mean()


def twice(x: np.ndarray) -> np.ndarray:
    return 2 * x


def as_op(function: Callable[[np.ndarray], np.ndarray], x: Variable) -> Variable:
    return pytensor.wrap_py([pt.dvector], [pt.dvector])(function)(x)


COUPLED = {
    "batch_normalisation": (lambda y: (y - y.mean()) / y.std(), "Sum.* mixes the rows"),
    "cumulated": (lambda y: pt.cumsum(y), "Cumsum"),
    "unknown_op": (lambda y: as_op(mean_over_rows, y), "in another order"),
    "own_values": (lambda y: 0 * y + np.arange(float(B)), "not of the batch"),
    "slots": (lambda y: weights("slots", np.arange(float(B))), "values of its own along axis 0"),
}


@pytest.mark.parametrize("kind", COUPLED)
def test_encoders_that_couple_rows_are_refused(kind: str) -> None:
    function, match = COUPLED[kind]
    model, guide = one_local(normal(), lambda y: pm.Normal.dist(function(y), 1))
    with pytest.raises(ValueError, match=rf"encoder of 'z' in pm.Amortized.*{match}"):
        guided_approximation(model, guide)


@pytest.mark.parametrize("feeding", ["in_model", "there"])
@pytest.mark.parametrize(
    "function", [lambda y: as_op(twice, y), lambda y: pt.tanh(y), lambda y: [0.5]], ids=["op", "tanh", "alike"]
)  # fmt: skip
def test_encoders_of_single_rows_pass(function: Any, feeding: str) -> None:
    model, guide = one_local(normal(), lambda y: pm.Normal.dist(function(y), 1))
    if feeding == "there":
        model = pm.remove_minibatch(model)
        guide.inputs = (model["data"],)
    assert bound(model, guide).reparametrised


@pytest.mark.parametrize("kind", ["batch_normalisation", "unknown_op"])
def test_rows_that_are_there_are_checked_too(kind: str) -> None:
    function, match = COUPLED[kind]
    model, guide = one_local(normal(), lambda y: pm.Normal.dist(function(y), 1))
    with pytest.raises(ValueError, match=match):
        guided_approximation(pm.remove_minibatch(model), guide)


def test_rows_alike_have_draws_of_their_own() -> None:
    model, guide = one_local(normal(), lambda y: pm.Normal.dist([0.5], 1))
    made = bound(model, guide)
    [draw] = made.draw({}, (), {})
    logq = made.logq((draw,), {}, 0, {})
    drawn, density = pm.compile([], [draw, logq], mode=PLAIN, random_seed=1)()
    assert len(set(drawn)) == B
    np.testing.assert_allclose(density, st.norm.logpdf(drawn, 0.5, 1))


# ---------------------------------------------------------------------------------------------------
# Errors


ENCODERS = {
    "no_distribution": (normal(), lambda y: y, TypeError, "has to return a distribution"),
    "nothing": (normal(), lambda y: None, TypeError, "got NoneType None"),
    "axes": (normal(), lambda y: pm.Normal.dist(y[:, None], 1), ValueError, "of 2 axes.* has 1"),
    "discrete": (normal(), lambda y: pm.Poisson.dist(pt.exp(y)), TypeError, "of int64.* float64"),
    "support": (
        lambda: pm.Gamma("z", 2, 1, dims="obs"),
        lambda y: pm.Normal.dist(y, 1),
        ValueError,
        "normal, which has values that 'z' cannot have.*pm.LogNormal",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", ENCODERS)
def test_what_an_encoder_returns_is_checked(case: str) -> None:
    prior, encode, error, match = ENCODERS[case]
    with pytest.raises(error, match=match):
        guided_approximation(*one_local(prior, encode))


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (({}, [], "obs"), "encoders=.* has to be a dict"),
        (({"z": 1}, [], "obs"), "encoder of 'z' .* of type int"),
        (({"z": len}, [1], "obs"), r"inputs=\[1\]"),
        (({"z": len}, [], None), "dim=None"),
        (({"z": len}, [], "obs", weights("w", 0.0)), r"params=w of pm.Amortized .* write \[w\]"),
    ],
)
def test_arguments_are_checked(arguments: Any, match: str) -> None:
    with pytest.raises(TypeError, match=match):
        pm.Amortized(*arguments)


def test_variables_have_to_be_rows_of_the_dim() -> None:
    with pm.Model(coords={"obs": range(N), "k": range(2)}) as model:
        y = pm.Data("data", Y, dims="obs")
        w = pm.Normal("w", dims="k")
        v = pm.Normal("v", dims="obs")
        pm.Normal("y", v + w.sum(), 1, observed=y, dims="obs")
    encode = lambda y: pm.Normal.dist(y, 1)  # noqa: E731
    with pytest.raises(ValueError, match="'w', whose rows are those of no dim"):
        guided_approximation(model, pm.Amortized({"w": encode}, [y], "obs"))
    with pytest.raises(ValueError, match=r"dim='rows' of pm.Amortized is no dim of the model"):
        guided_approximation(model, pm.Amortized({"v": encode}, [y], "rows"))
    with pytest.raises(ValueError, match="has no encoder of 'w'"):
        guided_approximation(model, {"w": pm.Amortized({"v": encode}, [y], "obs")})


def test_other_variables_of_rows_that_are_there_need_encoders() -> None:
    with pm.Model(coords={"obs": range(N)}) as model:
        y = pm.Data("data", Y, dims="obs")
        z, u = pm.Normal("z", dims="obs"), pm.Normal("u", dims="obs")
        pm.Normal("y", z + u, 1, observed=y, dims="obs")
    with pytest.raises(ValueError, match=r"'mean_field' keeps parameters of each row.*'u'"):
        guided_approximation(model, pm.Amortized({"z": lambda y: pm.Normal.dist(y, 1)}, [y], "obs"))


def test_totals_have_to_agree() -> None:
    with pm.Model(coords={"obs": range(N)}) as model:
        y = pm.Data("data", Y, dims="obs")
        z = pm.Normal("z", dims="obs")
        pm.Normal("y", z, 1, observed=y, dims="obs", total_size=100)
        pm.Normal("x", z, 1, observed=y, dims="obs")
    guide = pm.Amortized({"z": lambda y: pm.Normal.dist(y, 1)}, [y], "obs")
    with pytest.raises(ValueError, match=r"total_size={'y': 100, 'x': None}"):
        guided_approximation(model, guide)


def test_encoders_take_no_local_variables() -> None:
    with pm.Model(coords={"obs": range(N)}) as model:
        batch = pm.Minibatch(pm.Data("data", Y, dims="obs"), batch_size=B)
        z, u = pm.Normal("z", dims="obs"), pm.Normal("u", dims="obs")
        pm.Normal("y", z + u, 1, observed=batch, dims="obs")
    guide = pm.Amortized({"z": lambda u: pm.Normal.dist(u, 1)}, [u], "obs")
    with pytest.raises(ValueError, match="depends on 'u', which is local itself"):
        guided_approximation(model, guide)


def test_support_that_moves_is_refused() -> None:
    with pm.Model(coords={"obs": range(N)}) as model:
        batch = pm.Minibatch(pm.Data("data", Y, dims="obs"), batch_size=B)
        top = pm.HalfNormal("top")
        z = pm.Uniform("z", 0, top, dims="obs")
        pm.Normal("y", z, 1, observed=batch, dims="obs")
    guide = pm.Amortized({"z": lambda y: pm.Beta.dist(1, 1 + y**2)}, [batch], "obs")
    with pytest.raises(ValueError, match="support of 'z' depends on 'top'"):
        guided_approximation(model, guide)


# ---------------------------------------------------------------------------------------------------
# New rows, and a fit


def test_new_rows_have_their_distribution_without_a_fit() -> None:
    w = weights("w", 0.5)
    model, guide = one_local(normal(), lambda y: pm.Normal.dist(w * y, 2))
    guided_approximation(model, guide)
    dist = guide.distribution("z", np.array([2.0, 4.0, 6.0, 8.0]))
    np.testing.assert_allclose(
        pm.logp(dist, np.zeros(4)).eval(mode=PLAIN), st.norm.logpdf(0, [1.0, 2.0, 3.0, 4.0], 2)
    )
    with pytest.raises(ValueError, match="needs 1 inputs"):
        guide.distribution("z")
    with pytest.raises(ValueError, match="no encoder of 'u'"):
        guide.distribution("u", Y)


@pytest.fixture(scope="module")
def fitted() -> tuple[GuidedApproximation, dict[str, Any]]:
    """Factor analysis of one column, whose posterior is linear in y; the scale of z is learnt too."""
    rng = np.random.default_rng(4)
    y = rng.normal(0, np.sqrt(5.0), size=4000)
    found = {"slope": weights("slope", 0.1), "log_sd": weights("log_sd", 0.0), "decoder": weights("decoder", 1.0)}  # fmt: skip
    with pm.Model(coords={"obs": range(len(y))}):
        data = pm.Data("data", y, dims="obs")
        z = pm.Normal("z", 0, 1, dims="obs")
        pm.Normal("y", found["decoder"] * z, 1, observed=data, dims="obs")
        guide = pm.Amortized(
            {"z": lambda y: pm.Normal.dist(found["slope"] * y, pt.exp(found["log_sd"]))},
            inputs=[data],
            dim="obs",
        )
        approx = pm.fit(
            1500,
            batch_size=100,
            guide=guide,
            gradient="stl",
            reduction="mean",
            params=[found["decoder"]],
            obj_optimizer=pm.adam(learning_rate=0.02),
            average=0.5,
            progressbar=False,
            random_seed=1,
        )
    return approx, {**found, "y": y}


def test_fit_finds_the_posterior_and_the_decoder(fitted: Any) -> None:
    """The decoder's best value is that of maximum likelihood, the encoder's then follow exactly.

    Averages of 1,500 steps of 100 rows have seen each row 37 times; what is left of the noise of
    batches is below 2 %, and a scale of N/B wrong by 2 would move the slope by 20 %.
    """
    approx, found = fitted
    decoder = np.sqrt(np.mean(found["y"] ** 2) - 1)
    slope, sd = decoder / (1 + decoder**2), 1 / np.sqrt(1 + decoder**2)
    np.testing.assert_allclose(abs(found["decoder"].get_value()), decoder, rtol=0.04)
    np.testing.assert_allclose(abs(found["slope"].get_value()), slope, rtol=0.04)
    np.testing.assert_allclose(np.exp(found["log_sd"].get_value()), sd, rtol=0.04)
    assert found["slope"] in approx.params
