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
"""The density and the draws of rows whose distributions encoders gave."""

from __future__ import annotations

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
import scipy.stats as st

import pymc as pm

from pymc.variational.fit_objective import guided_approximation
from pymc.variational.guides.base import held
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
        made.logq(block, held(here_of(made)), 0, {}).sum(), w, disconnected_inputs="ignore"
    )
    free, stuck, y = pm.compile([], [free, stuck, made.inputs[0]], mode=PLAIN, random_seed=1)()
    np.testing.assert_allclose(free, ((0.3 - 0.5 * y) * y).sum())
    assert stuck == 0
