# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""The sleep phase: latent variables and inputs of guides are of one simulation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest

from pytensor.graph.basic import Variable
from pytensor.graph.traversal import ancestors
from scipy.stats import norm

import pymc as pm

from pymc.variational.approximation import guided_approximation
from pymc.variational.fit_objective import FitObjective
from pymc.variational.objectives.base import Draws, Setting, draw_all
from pymc.variational.objectives.wake_sleep import simulate
from pymc.variational.vectorize import at_draws
from tests.variational.objectives.exact import PYTHON, Z

RWS = pm.ReweightedWakeSleep
X = np.array([[-1.0, 4.0], [0.0, 5.0], [2.0, 6.0], [0.5, 7.0]])


@dataclass(frozen=True)
class Asleep:
    """A model, its setting, and what was simulated."""

    model: pm.Model
    setting: Setting
    awake: Draws
    draws: Draws

    @property
    def input(self) -> Variable:
        """The simulated input."""
        [guide] = self.setting.local_guides
        [simulated] = at_draws(guide.inputs, self.draws.parents)  # type: ignore[attr-defined]
        return simulated

    @property
    def latent(self) -> Variable:
        [block] = self.draws.latents.values()
        return block[0]

    @property
    def mu(self) -> Variable:
        """The draw of the global variable."""
        return self.awake.parents[self.model["mu"]]


def matrix_model(batch_size: int | None = 2) -> pm.Model:
    """z ~ N(mu, 1) and both columns of x ~ N(z + covariate, 1), with covariates of their own."""
    with pm.Model(coords={"obs": range(4), "column": ["a", "b"]}) as model:
        data = pm.Data("data", X, dims=("obs", "column"))
        covariate = pm.Data("covariate", 100.0 * np.arange(1, 5), dims="obs")
        if batch_size is not None:
            data, covariate = pm.Minibatch(data, covariate, batch_size=batch_size)
        mu = pm.Normal("mu")
        z = pm.Normal("z", mu, 1, dims="obs")
        pm.Normal("x", (z + covariate)[:, None], 1, observed=data, dims=("obs", "column"))
    return model


def asleep(
    form: Callable[[pm.Model], Variable], model: pm.Model | None = None, n_outer: int = 1
) -> Asleep:
    """Simulate for a guide with one input, from which it takes what has the shape of the rows."""
    model = matrix_model() if model is None else model
    weight = pytensor.shared(np.array(0.3), name="weight")

    def encode(x: Variable) -> Variable:
        return pm.Normal.dist(weight * (x if x.type.ndim == 1 else x.sum(axis=1)), 1)

    guide = pm.Amortized({"z": encode}, inputs=[form(model)], dim="obs")
    approx = guided_approximation(model, guide)
    goal = FitObjective(approx, RWS(insomnia=0.5), 2)
    setting = goal.setting(approx.storage.param_values({}), n_outer)
    awake = draw_all(setting)
    return Asleep(model, setting, awake, simulate(setting, awake, setting.local_guides, "rws"))


def value_of(model: pm.Model) -> Variable:
    return model.rvs_to_values[model["x"]]


def index_of(model: pm.Model) -> Variable:
    return value_of(model).owner.inputs[1]


def compiled(*graphs: Variable) -> Any:
    with pytensor.config.change_flags(cxx=""):
        return pm.compile([], list(graphs), mode=PYTHON, random_seed=1)


def evaluated(*graphs: Variable) -> list[np.ndarray]:
    return compiled(*graphs)()


FORMS = {
    "the batch": lambda m: value_of(m),
    "the observed variable": lambda m: m["x"],
    "another read of the same rows": lambda m: m["data"][index_of(m)],
    "a column": lambda m: value_of(m)[:, 0],
    "a function": lambda m: pt.log1p(value_of(m) ** 2),
    "with a covariate": lambda m: pt.concatenate(
        [value_of(m), m["covariate"][index_of(m)][:, None]], axis=1
    ),
    "with a global variable": lambda m: value_of(m)[:, 0] + m["mu"],
}


@pytest.mark.parametrize("form", FORMS)
def test_inputs_are_simulated_with_the_latent_variables(form: str) -> None:
    """No observed value is left, and the latent variable of the block is the one of the input."""
    sleep = asleep(FORMS[form])
    latent = sleep.latent.owner.inputs[0]  # of the Op that holds it
    assert latent in set(ancestors([sleep.input]))
    assert not reads(sleep, "data", X + 1000.0)
    assert reads(sleep, "covariate", np.zeros(4))  # which the simulation is around


def reads(sleep: Asleep, name: str, other: np.ndarray) -> bool:
    """Return True if other data give another input, for one seed."""
    function = compiled(sleep.input)
    generators = {var: var.get_value() for var in function.get_shared() if is_state(var)}
    before = function()
    for var, value in generators.items():
        var.set_value(value)
    with sleep.model:
        pm.set_data({name: other})
    return not np.array_equal(before, function())


def is_state(var: Any) -> bool:
    return not hasattr(var.type, "ndim") or "State" in type(var.type).__name__


def test_simulations_have_the_distribution_of_the_model() -> None:
    """The sum of squares of (x - z - covariate) and of z - mu, within computed errors."""
    sleep = asleep(lambda m: value_of(m))
    index = index_of(sleep.model)
    covariate = sleep.model["covariate"][index]
    errors = [sleep.input - (sleep.latent + covariate)[:, None], sleep.latent - sleep.mu]
    function = compiled(*errors)
    of_x, of_z = (np.stack(each) for each in zip(*(function() for _ in range(1000))))
    for draws in (of_x.ravel(), of_z.ravel()):
        assert abs(draws.mean()) < Z / np.sqrt(draws.size)
        assert abs((draws**2).mean() - 1) < Z * np.sqrt(2 / draws.size)


def test_covariates_stay() -> None:
    """The input's last column is that of the rows of the batch."""
    sleep = asleep(FORMS["with a covariate"])
    index = index_of(sleep.model)
    x, rows = evaluated(sleep.input, index)
    np.testing.assert_array_equal(x[:, 2], 100.0 * (rows + 1))
    # x has its mean at the covariate, and not at the data
    assert abs(x[:, :2] - x[:, 2:]).max() < 20


@pytest.mark.parametrize("n_outer", [1, 3])
def test_loss_is_that_of_the_simulation(n_outer: int) -> None:
    """-log q of what was simulated, scaled to four rows, averaged over outer draws."""
    sleep = asleep(lambda m: value_of(m)[:, 0], n_outer=n_outer)
    [guide] = sleep.setting.local_guides
    logq = guide.logq(
        sleep.draws.latents[guide],
        sleep.setting.param_values,
        sleep.draws.n_sample_dims[guide],
        sleep.draws.parents,
    )
    logq, z, x, mu = evaluated(logq, sleep.latent, sleep.input, sleep.mu)
    assert z.shape[-1:] == x.shape[-1:] == (2,)
    if n_outer > 1:
        assert z.shape == (3, 1, 2)
        assert mu.shape == (3, 1)
    np.testing.assert_allclose(logq, norm.logpdf(z, 0.3 * x, 1), rtol=1e-10)


def test_model_from_all_rows() -> None:
    """`batch_size=` of pm.fit makes another model: the inputs are of the one that the user wrote."""
    full = matrix_model(batch_size=None)
    part = pm.minibatch_model(full, batch_size=2)
    sleep = asleep(lambda m: full["x"], part)
    assert not reads(sleep, "data", X + 1000.0)
    assert evaluated(sleep.input)[0].shape == (2, 2)


def test_a_cast_is_undone() -> None:
    """Pixels are floats of 0 and 1, and observed as integers."""
    pixels = np.array([[0.0, 1.0], [1.0, 1.0], [0.0, 0.0]])
    with pm.Model(coords={"obs": range(3), "pixel": range(2)}) as model:
        batch = pm.Minibatch(pm.Data("data", pixels, dims=("obs", "pixel")), batch_size=2)
        pm.Normal("mu")
        z = pm.Normal("z", dims="obs")
        pm.Bernoulli("x", logit_p=z[:, None], observed=batch, dims=("obs", "pixel"))
    sleep = asleep(lambda m: batch, model)
    assert not reads(sleep, "data", 1 - pixels)
    assert sleep.input.dtype == batch.dtype
    assert set(evaluated(sleep.input)[0].ravel()) <= {0.0, 1.0}


def test_observed_parents_are_simulated_too() -> None:
    """A variable that depends on an observed one depends on its simulation."""
    with pm.Model(coords={"obs": range(4)}) as model:
        x, y = (pm.Data(name, X[:, k], dims="obs") for k, name in enumerate(("xd", "yd")))
        xb, yb = pm.Minibatch(x, y, batch_size=2)
        pm.Normal("mu")
        z = pm.Normal("z", dims="obs")
        first = pm.Normal("first", z, 1, observed=xb, dims="obs")
        pm.Normal("second", first + 50, 1e-3, observed=yb, dims="obs")
    sleep = asleep(lambda m: pt.stack([xb, yb], axis=1), model)
    [simulated] = evaluated(sleep.input)
    np.testing.assert_allclose(simulated[:, 1] - simulated[:, 0], 50, atol=0.01)


ERRORS = {
    "no observed value": (lambda m: m["covariate"][index_of(m)], "no input of the guide of 'z' is"),
    "observed in another form": (
        lambda m: value_of(m)[:, 0] + (2 * m["data"])[index_of(m)][:, 0],
        r"is computed from 'data' in another way than what is observed of it",
    ),
}


@pytest.mark.parametrize("form", ERRORS)
def test_inputs_that_cannot_be_simulated_are_refused(form: str) -> None:
    make, message = ERRORS[form]
    with pytest.raises(ValueError, match=message):
        asleep(make)


def test_a_guide_of_no_data_is_refused() -> None:
    model = matrix_model()
    goal = FitObjective(guided_approximation(model), RWS(insomnia=0.5), 2)
    setting = goal.setting({p: p.start for p in goal.approx.storage.columns})
    with pytest.raises(ValueError, match=r"the guide of 'z' is computed from no data.*insomnia=1"):
        simulate(setting, Draws({}, {}, {}), setting.local_guides, "rws")


def chain_model(circular: bool = False) -> tuple[pm.Model, Variable, Variable]:
    """z, then x ~ N(z, 1), then y ~ N(x + z + 50, 1), which is written with the data of x."""
    with pm.Model(coords={"obs": range(4)}) as model:
        data = (pm.Data(name, X[:, k], dims="obs") for k, name in enumerate(("xd", "yd")))
        xb, yb = pm.Minibatch(*data, batch_size=2)
        pm.Normal("mu")
        z = pm.Normal("z", pt.zeros_like(xb), dims="obs")  # of the length of the data only
        pm.Normal("x", z + yb if circular else z, 1, observed=xb, dims="obs")
        pm.Normal("y", xb + z + 50, 1e-3, observed=yb, dims="obs")
    return model, xb, yb


def test_likelihoods_of_observed_data_are_simulated_given_the_simulation() -> None:
    model, xb, yb = chain_model()
    sleep = asleep(lambda m: pt.stack([xb, yb], axis=1), model)
    for name in ("xd", "yd"):
        assert not reads(sleep, name, np.full(4, 1000.0))
    simulated, z = evaluated(sleep.input, sleep.latent)
    np.testing.assert_allclose(simulated[:, 1] - simulated[:, 0] - z, 50, atol=0.01)


def test_a_prior_given_observed_data_is_simulated_given_the_simulation() -> None:
    """x is observed, and z is N(x, 0.001) after it."""
    with pm.Model(coords={"obs": range(4)}) as model:
        data = (pm.Data(name, X[:, k], dims="obs") for k, name in enumerate(("xd", "yd")))
        xb, yb = pm.Minibatch(*data, batch_size=2)
        pm.Normal("mu")
        pm.Normal("x", 500, 1, observed=xb, dims="obs")
        z = pm.Normal("z", xb, 1e-3, dims="obs")
        pm.Normal("y", z, 1, observed=yb, dims="obs")
    sleep = asleep(lambda m: yb + 0 * xb, model)
    x, z = evaluated(sleep.input, sleep.latent)
    assert abs(z - 500).max() < 10
    assert abs(x - z).max() < 10


def test_weights_in_inputs_keep_their_gradient() -> None:
    """An input is a function of what is simulated, and only that is held."""
    scale = pytensor.shared(np.array(2.0), name="scale")
    sleep = asleep(lambda m: scale * value_of(m)[:, 0])
    [slope, total] = evaluated(pytensor.grad(sleep.input.sum(), scale), sleep.input.sum())
    np.testing.assert_allclose(slope, total / 2, rtol=1e-10)
    assert slope != 0


def test_observed_values_that_depend_on_each_other_are_refused() -> None:
    model, xb, yb = chain_model(circular=True)
    with pytest.raises(
        ValueError, match=r"in the model 'x' depends on observed values that depend"
    ):
        asleep(lambda m: xb + yb, model)


def test_a_model_of_data_in_another_form_is_refused() -> None:
    with pm.Model(coords={"obs": range(4)}) as model:
        batch = pm.Minibatch(pm.Data("data", X[:, 0], dims="obs"), batch_size=2)
        pm.Normal("mu")
        z = pm.Normal("z", 0.1 * (2 * model["data"])[batch.owner.inputs[1]], dims="obs")
        pm.Normal("x", z, 1, observed=batch, dims="obs")
    with pytest.raises(
        ValueError, match=r"in the model 'z' is computed from 'data' in another way"
    ):
        asleep(lambda m: batch, model)


POTENTIALS = {
    "of local variables": lambda z, mu, x: -(z**2),
    "of data and globals": lambda z, mu, x: mu * x[:, 0],
}


@pytest.mark.parametrize("form", POTENTIALS)
def test_potentials_of_rows_are_refused(form: str) -> None:
    """A simulation ignores them, so that the guide would not learn of them asleep."""
    model = matrix_model()
    with model:
        pm.Potential(
            "extra", POTENTIALS[form](model["z"], model["mu"], value_of(model)), dims="obs"
        )
    with pytest.raises(ValueError, match=r"the pm.Potential 'extra' of the rows.*insomnia=1"):
        asleep(lambda m: m["x"], model)


def test_potentials_of_globals_stay() -> None:
    model = matrix_model()
    with model:
        pm.Potential("extra", -(model["mu"] ** 2))
    assert not reads(asleep(lambda m: m["x"], model), "data", X + 1000.0)


def test_guides_in_the_reverse_order_of_the_model() -> None:
    """Model c -> z -> x, guide q(z | x) q(c | z), whose input is the z that was drawn for c."""
    with pm.Model(coords={"obs": range(4)}) as model:
        batch = pm.Minibatch(pm.Data("data", X[:, 0], dims="obs"), batch_size=2)
        c = pm.Normal("c", 50, 1, dims="obs")
        z = pm.Normal("z", c, 1e-3, dims="obs")
        pm.Normal("x", z, 1, observed=batch, dims="obs")
    guides = [
        pm.Amortized({"z": lambda x: pm.Normal.dist(x, 1)}, inputs=[batch], dim="obs"),
        pm.Amortized({"c": lambda z: pm.Normal.dist(z, 1)}, inputs=[z], dim="obs"),
    ]
    approx = guided_approximation(model, guides)
    setting = FitObjective(approx, RWS(insomnia=0), 2).setting(approx.storage.param_values({}))
    draws = simulate(setting, draw_all(setting), setting.local_guides, "rws")
    of_c, of_z = evaluated(*(draws.parents[rv] for rv in (c, z)))
    np.testing.assert_allclose(of_c, of_z, atol=0.01)
    assert abs(of_z - 50).max() < 10
