# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Amortized guides as users write them: arguments, bounds, new rows, and a fit."""

from __future__ import annotations

import itertools

from typing import Any

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
import scipy.stats as st

from pytensor.graph.basic import Variable
from scipy.special import logsumexp

import pymc as pm

from pymc.variational.approximation import GuideApproximation, guided_approximation
from pymc.variational.fit_objective import FitObjective
from pymc.variational.objectives import ELBO, IWAE, ReweightedWakeSleep
from pymc.variational.objectives.base import Setting, draw_all, log_weights
from tests.variational.guides.amortized_models import (
    PLAIN,
    B,
    N,
    Y,
    normal,
    one_local,
    weights,
    with_noise,
)

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
        model,
        approx.terms,
        approx.guides,
        approx.storage.param_values({}),
        (),
        len(points),
        n_particles,
    )

    def noise(zeros: Variable) -> Variable:
        shape = zeros.type.shape
        if shape[1] == n_particles if n_particles > 1 else shape[1] != 1:
            return zeros + GRID[points[:, 1:]][(..., None) if n_particles > 1 else ()]
        return zeros + GRID[points[:, :1]].reshape((len(points), *(1,) * (len(shape) - 1)))

    weights_ = log_weights(setting, draw_all(setting))
    [rows] = weights_.rows.values()
    graphs = with_noise([weights_.global_, rows], noise)
    with pm.minibatch_logp():  # at given points
        global_, rows = pm.compile([], graphs, mode=PLAIN)()
    of_rows = rows.reshape(len(points), n_particles, 3)
    bounds = (logsumexp(of_rows, axis=1) - np.log(n_particles)).sum(-1) + global_.reshape(-1)
    probability = POINT_WEIGHTS[points].prod(axis=1)
    np.testing.assert_allclose((probability * bounds).sum(), exact, atol=6e-6)


def test_discrete_variables_are_for_objectives_that_weigh_draws() -> None:
    w = weights("w", 0.5)
    model, guide = one_local(
        lambda: pm.Bernoulli("z", 0.3, dims="obs"), lambda y: pm.Bernoulli.dist(logit_p=w * y)
    )
    approx = guided_approximation(model, guide)
    assert not approx.guides[0].reparametrised
    with pytest.raises(ValueError, match=r"'iwae' needs gradients through draws.*'z'.*'rws'"):
        FitObjective(approx, IWAE(), 4).check()
    loss = FitObjective(approx, ReweightedWakeSleep(), 4, "sum")
    loss.check()
    losses = loss.losses(approx.storage.param_values({}))
    [phi] = [part.value for part in losses.minimised if w in part.parameters]
    found = pm.compile([], [losses.reported, pytensor.grad(phi, w)], mode=PLAIN, random_seed=1)()
    assert np.isfinite(found).all()
    assert found[1] != 0


def test_gamma_guides_are_not_reparametrised() -> None:
    model, guide = one_local(
        lambda: pm.Gamma("z", 2, 1, dims="obs"), lambda y: pm.Gamma.dist(1 + y**2, 1)
    )
    with pytest.raises(ValueError, match=r"draws from a distribution that has none"):
        FitObjective(guided_approximation(model, guide), ELBO()).check()


ENCODERS = {
    "no_distribution": (normal(), lambda y: y, TypeError, "has to be a distribution"),
    "nothing": (normal(), lambda y: None, TypeError, "got NoneType None"),
    "axes": (normal(), lambda y: pm.Normal.dist(y[:, None], 1), ValueError, "of 2 axes.* has 1"),
    "discrete": (normal(), lambda y: pm.Poisson.dist(pt.exp(y)), TypeError, "of int64.* float64"),
    "support": (
        lambda: pm.Gamma("z", 2, 1, dims="obs"),
        lambda y: pm.Normal.dist(y, 1),
        ValueError,
        "normal, which has values that 'z' cannot have.*pm.LogNormal",
    ),
    "above": (
        lambda: pm.Beta("z", 2, 1, dims="obs"),
        lambda y: pm.LogNormal.dist(y, 1),
        ValueError,
        "lognormal, with values from 0 to inf, but those of 'z' are from 0 to 1.*pm.Beta",
    ),
    "below": (
        lambda: pm.Pareto("z", 2, 1.5, dims="obs"),
        lambda y: pm.LogNormal.dist(y, 1),
        ValueError,
        "from 0 to inf, but those of 'z' are from 1.5 to inf",
    ),
    "no_transform": (
        lambda: pm.HalfNormal("z", default_transform=None, dims="obs"),
        lambda y: pm.Normal.dist(y, 1),
        ValueError,
        "from -inf to inf, but those of 'z' are from 0 to inf",
    ),
    "counts": (
        lambda: pm.Bernoulli("z", 0.5, dims="obs"),
        lambda y: pm.Poisson.dist(pt.exp(y)),
        ValueError,
        "poisson, with values from 0 to inf, but those of 'z' are from 0 to 1.*pm.Bernoulli",
    ),
    "categories": (
        lambda: pm.Bernoulli("z", 0.5, dims="obs"),
        lambda y: pm.Categorical.dist(pt.ones((y.shape[0], 3)) / 3),
        ValueError,
        "categorical, with values from 0 to 2",
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("prior", "encode"),
    [
        (lambda: pm.HalfNormal("z", dims="obs"), lambda y: pm.Beta.dist(pt.exp(y), 1)),
        (lambda: pm.Uniform("z", 0, 2, dims="obs"), lambda y: pm.Beta.dist(pt.exp(y), 1)),
        (lambda: pm.Poisson("z", 2, dims="obs"), lambda y: pm.Geometric.dist(pm.math.sigmoid(y))),
        (lambda: pm.Binomial("z", 3, 0.5, dims="obs"), lambda y: pm.Bernoulli.dist(logit_p=y)),
    ],
    ids=["unit_in_positive", "unit_in_interval", "counts", "binary_in_counts"],
)
def test_a_smaller_support_passes(prior: Any, encode: Any) -> None:
    guided_approximation(*one_local(prior, encode))


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


def test_encoders_take_other_local_variables() -> None:
    """They are drawn before, whatever the order in which guides are listed."""
    with pm.Model(coords={"obs": range(N)}) as model:
        batch = pm.Minibatch(pm.Data("data", Y, dims="obs"), batch_size=B)
        z, u = pm.Normal("z", dims="obs"), pm.Normal("u", dims="obs")
        pm.Normal("y", z + u, 1, observed=batch, dims="obs")

    def encode(x: Any) -> Any:
        return pm.Normal.dist(x, 1)

    of_u, of_z = (pm.Amortized({name: encode}, [x], "obs") for name, x in (("z", u), ("u", z)))
    guides = guided_approximation(model, of_u).guides
    assert [[site.name for site in guide.sites] for guide in guides] == [["u"], ["z"]]
    with pytest.raises(ValueError, match="the guides of 'u', 'z' depend on each other"):
        guided_approximation(model, [of_u, of_z])
    with pytest.raises(ValueError, match="depends on 'u', which is the variable itself"):
        guided_approximation(model, pm.Amortized({"u": encode}, [u], "obs"))


def test_support_that_moves_is_refused() -> None:
    with pm.Model(coords={"obs": range(N)}) as model:
        batch = pm.Minibatch(pm.Data("data", Y, dims="obs"), batch_size=B)
        top = pm.HalfNormal("top")
        z = pm.Uniform("z", 0, top, dims="obs")
        pm.Normal("y", z, 1, observed=batch, dims="obs")
    guide = pm.Amortized({"z": lambda y: pm.Beta.dist(1, 1 + y**2)}, [batch], "obs")
    with pytest.raises(ValueError, match="support of 'z' depends on 'top'"):
        guided_approximation(model, guide)


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
def fitted() -> tuple[GuideApproximation, dict[str, Any]]:
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
