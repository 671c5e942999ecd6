# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Methods that know nothing of minibatches: what they compile is one function, or estimates a gradient.

Those of pymc-extras and nutpie are written here as short as they go, by the calls that they make of PyMC
and PyTensor; the releases themselves are too large, or pinned to other releases of PyMC.
"""

from types import SimpleNamespace

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest

from pytensor.compile.mode import Mode
from pytensor.graph.replace import clone_replace, graph_replace, vectorize_graph
from pytensor.graph.rewriting.utils import rewrite_graph
from pytensor.tensor.random.type import RandomType
from scipy.stats import norm

import pymc as pm

from pymc.distributions.shape_utils import change_dist_size
from pymc.minibatch.plates import model_indexes
from pymc.model.transform.optimization import freeze_dims_and_data, freeze_model
from pymc.pytensorf import join_nonshared_inputs
from tests.minibatch.enumeration import PYTHON

N, B = 6, 2
Y = np.random.default_rng(1).normal(1, 2, size=N)
REFUSED = r"log-probability of a minibatch is compiled as a function .*other rows at each call"
LOCAL = r"has values of 'z' for the rows of a batch .*which are others at each call"


def observed():
    with pm.Model() as model:
        batch = pm.Minibatch(Y, batch_size=B)
        pm.Normal("y", pm.Normal("mu"), 1, observed=batch)
    return model


def local():
    with pm.Model(coords={"obs": range(N)}) as model:
        batch = pm.Minibatch(pm.Data("data", Y, dims="obs"), batch_size=B)
        z = pm.Normal("z", pm.Normal("mu"), 1, dims="obs")
        pm.Normal("y", z, 1, observed=batch, dims="obs")
    return model


def potential():
    with pm.Model() as model:
        batch = pm.Minibatch(Y, batch_size=B)
        pm.Potential("y", -((batch - pm.Normal("mu")) ** 2).sum(), total_size=N)
    return model


def derived():
    with pm.Model(coords={"obs": range(N)}) as model:
        data = pm.Data("data", Y, dims="obs")
        pm.Normal("y", pm.Normal("mu"), 1, observed=data, dims="obs")
    return pm.minibatch_model(model, batch_size=B)


def streamed():
    with pm.Model() as model:
        batch = pm.Data("data", pm.DataLoader(Y, batch_size=B), dims="obs")
        pm.Normal("y", pm.Normal("mu"), 1, observed=batch, dims="obs")
    return model


def rows_of_potential():
    with pm.Model(coords={"obs": range(N)}) as model:
        batch = pm.Minibatch(Y, batch_size=B)
        pm.Potential("y", -((batch - pm.Normal("mu")) ** 2), dims="obs")
    return model


MODELS = [observed, local, potential, rows_of_potential, derived, streamed]


def flat(model, graphs):
    """Join the values of `model` to one input, as find_MAP and fit_laplace of pymc-extras do."""
    values = model.value_vars
    return join_nonshared_inputs(model.initial_point(0), graphs, values)


def of_jax(model):
    jax = pytest.importorskip("pymc.sampling.jax")
    return jax.get_jaxified_logp(model)


def jax_gradients(model):
    """As fit_laplace with gradient_backend="jax"."""
    jax = pytest.importorskip("pymc.sampling.jax")
    return jax._replace_shared_variables(flat(model, [model.logp()])[0])


def frozen_data(model):
    """As find_MAP of pymc-extras."""
    model = freeze_dims_and_data(model)
    [loss], point = flat(model, [-model.logp(jacobian=False)])
    return pm.compile([point], [loss, pt.grad(loss, point)], mode=PYTHON)


def fixed_draws(model):
    """As fit_dadvi."""
    [logp], point = flat(model, [model.logp()])
    mean = pt.dvector()
    draws = mean + pt.constant(np.linspace(-1, 1, 3)[:, None])
    return pm.compile([mean], -vectorize_graph(logp, {point: draws}).mean(), mode=PYTHON)


def draw_by_draw(model):
    """As fit_pathfinder."""
    [logp], point = flat(model, [model.logp()])
    points = pt.dmatrix()
    logps = pytensor.map(
        lambda x: clone_replace([logp], {point: x})[0], points, return_updates=False
    )
    return pm.compile([points], logps, mode=PYTHON)


def rewritten(model):
    """As nutpie."""
    logp = rewrite_graph(model.logp(), include=["canonicalize", "stabilize"])
    gradient = pt.grad(logp, model.value_vars)
    return pm.compile(model.value_vars, [logp, *gradient], mode=PYTHON)


METHODS = [
    lambda model: model.compile_logp(mode=PYTHON),
    lambda model: model.compile_logp(sum=False, mode=PYTHON),
    lambda model: model.compile_dlogp(mode=PYTHON),
    lambda model: model.compile_d2logp(negate_output=False, mode=PYTHON),
    lambda model: model.logp_dlogp_function(ravel_inputs=True, mode=PYTHON),
    lambda model: model.logp_dlogp_function(tempered=True, ravel_inputs=True, mode=PYTHON),
    lambda model: freeze_model(model).compile_logp(mode=PYTHON),
    frozen_data,
    fixed_draws,
    draw_by_draw,
    rewritten,
]


@pytest.mark.parametrize("make", MODELS, ids=lambda make: make.__name__)
def test_one_function_is_refused(make):
    model = make()
    for method in METHODS:
        if method is frozen_data and make is streamed:
            continue  # has an error of its own
        with pytest.raises(ValueError, match=LOCAL if make is local else REFUSED):
            method(model)


@pytest.mark.parametrize("method", [of_jax, jax_gradients])
def test_one_function_of_jax_is_refused(method):
    for make, message in [(observed, REFUSED), (local, LOCAL)]:
        with pytest.raises(ValueError, match=message):
            method(make())


@pytest.mark.parametrize("make", [observed, potential, rows_of_potential, derived])
def test_what_the_message_says_works(make):
    model, point = make(), {"mu": 0.3}
    with pytest.raises(
        ValueError, match=r"pm\.remove_minibatch\(model\).*`with pm\.minibatch_logp\(\):`"
    ):
        model.compile_logp()
    full = pm.remove_minibatch(model).compile_logp(mode=PYTHON)(point)
    with pm.minibatch_logp():
        of_batch = model.compile_logp(mode=PYTHON)
    found = [of_batch(point) for _ in range(N // B)]
    assert len(set(map(float, found))) == N // B
    np.testing.assert_allclose(np.mean(found), full, rtol=1e-10)


def test_it_is_meant_within_the_block_alone():
    model = observed()
    with pytest.raises(KeyError, match="left"), pm.minibatch_logp():
        with pm.minibatch_logp():
            pass
        model.compile_logp(mode=PYTHON)
        raise KeyError("left")
    with pytest.raises(ValueError, match=REFUSED):
        model.compile_logp()


def test_of_a_stream_says_what_to_do():
    with pytest.raises(ValueError, match=r"Fit the model by pm\.Trainer or pm\.fit\(data=loader\)"):
        streamed().compile_logp()


@pytest.mark.parametrize("make", MODELS, ids=lambda make: make.__name__)
def test_what_asks_for_one_batch_goes_on(make, capsys):
    model = make()
    assert model.point_logps(mode=PYTHON).keys() >= {"mu", "y"}
    model.profile(model.logp(), n=1, mode=PYTHON)
    if not model.potentials:  # which PyMC's debug cannot do
        with pytensor.config.change_flags(mode=PYTHON):
            model.debug()
        assert "No problems found" in capsys.readouterr().out


def test_what_is_no_log_probability_of_a_batch_is_compiled():
    model = observed()
    model.compile_logp(vars=model["mu"], mode=PYTHON)
    model.compile_fn(model.unobserved_value_vars, mode=PYTHON)
    [index] = model_indexes(model)
    slope = pt.dscalar()
    loss = ((pt.constant(Y)[index] - slope) ** 2).sum() * (N / B)  # a user's own
    pm.compile([slope], [loss, pt.grad(loss, slope)], mode=PYTHON)
    with pm.Model() as fed:  # by hand: one function until the next batch is set
        pm.Normal("y", pm.Normal("mu"), 1, observed=pm.Data("data", Y[:B]), total_size=N)
    fed.compile_logp(mode=PYTHON)


def test_a_step_is_compiled():
    """Stochastic gradient descent, which writes the parameters of its own loss."""
    model = observed()
    mu = pytensor.shared(0.0)
    [loss] = graph_replace([-model.logp()], {model.rvs_to_values[model["mu"]]: mu})
    step = pm.compile([], loss, updates={mu: mu - 1e-3 * pt.grad(loss, mu)}, mode=PYTHON)
    assert len({float(step()) for _ in range(N // B)}) == N // B


def test_a_fit_says_it_for_itself():
    """A frozen model keeps the graph that was made when nobody had said it."""
    model = freeze_model(local())
    model.logp(vars=[*model.basic_RVs, *model.potentials], sum=False)
    approx = pm.fit(2, model=model, progressbar=False, compile_kwargs={"mode": PYTHON})
    assert np.isfinite(approx.hist).all()


def guided(model, n_particles):
    """Negative ELBO of a normal guide of mu at each particle, as fit_advi of pymc-extras writes it.

    It vectorizes the graph by its random variables without random parameters, the index among them.
    """
    loc, scale = pt.dscalars("loc", "scale")
    noise = pt.random.normal(size=())
    mu = loc + pt.exp(scale) * noise
    [logp] = graph_replace([model.logp()], {model.rvs_to_values[model["mu"]]: mu})
    loss = -0.5 * noise**2 - scale - logp
    [index] = model_indexes(model)
    roots = [noise, index]
    many = {root: change_dist_size(root, n_particles, expand=True) for root in roots}
    losses, draws = vectorize_graph([loss, noise], many)
    return SimpleNamespace(params=[loc, scale], losses=losses, draws=draws, index=many[index])


def test_values_of_rows_are_refused_in_a_step_too():
    """A4: a guide with a value for each slot of the batch has sd(mu) .144 for .196 with 50 rows."""
    model = local()
    value_of = {rv.name: model.rvs_to_values[rv] for rv in model.free_RVs}
    mu, z = pytensor.shared(0.0), pytensor.shared(np.zeros(B))
    draws = {
        value_of["mu"]: mu + pt.random.normal(),
        value_of["z"]: z + pt.random.normal(size=B),
    }
    [loss] = graph_replace([-model.logp()], draws)
    [index] = model_indexes(model)
    many = vectorize_graph([loss], {index: index, mu: pt.zeros(3)})
    with pytest.raises(ValueError, match=LOCAL):
        pm.compile([], many)
    slopes = pt.grad(loss, [mu, z])
    for kwargs in ({}, {"updates": {p: p - g for p, g in zip([mu, z], slopes)}}):
        with pytest.raises(ValueError, match=LOCAL):
            pm.compile([], [loss, *slopes], **kwargs)
    with pm.minibatch_logp():
        pm.compile([], [loss, *slopes], mode=PYTHON)
    pm.compile([], model.logp(vars=model["mu"]), givens={value_of["mu"]: mu}, mode=PYTHON)


def test_particles_share_the_batch():
    model = observed()
    graph = guided(model, 3)
    gradient = pt.grad(graph.losses.mean(), graph.params)
    step = pm.compile(
        graph.params,
        [graph.losses, graph.draws, graph.index, *gradient],
        mode=PYTHON,
        random_seed=2,
    )
    loc, scale = 0.4, -1.0
    seen = []
    for _ in range(N // B):
        losses, draws, rows, *found = step(loc, scale)
        assert rows.shape == (B,) and losses.shape == draws.shape == (3,)
        mu = loc + np.exp(scale) * draws
        logps = N / B * norm.logpdf(Y[rows], mu[:, None]).sum(1) + norm.logpdf(mu)
        np.testing.assert_allclose(losses, -0.5 * draws**2 - scale - logps, rtol=1e-10)
        slopes = mu - N / B * (Y[rows] - mu[:, None]).sum(1)
        exact = [slopes.mean(), (slopes * np.exp(scale) * draws).mean() - 1]
        np.testing.assert_allclose(found, exact, rtol=1e-10)
        seen.extend(rows)
    assert sorted(seen) == list(range(N))  # each row once a pass, so that the mean is that of all


@pytest.mark.parametrize("by_jax", [False, True])
def test_reseeding_a_compiled_function_past_the_filter(by_jax):
    """As pymc-extras does: generators, or what JAX makes of them, are put where the states are."""
    model = observed()
    graph = guided(model, 1)
    step = pm.compile(graph.params, [graph.losses, graph.index], mode=Mode("py", None))

    def run(seed):
        states = [c for c in step.input_storage if isinstance(c.type, RandomType)]
        assert len(states) == 2
        for state, child in zip(states, np.random.SeedSequence(seed).spawn(2)):
            new = np.random.Generator(np.random.PCG64(child))
            if by_jax and not isinstance(state.storage[0], np.random.Generator):
                new = pytest.importorskip("pytensor.link.jax.dispatch").jax_typify(new)
            state.storage[0] = new
        return [step(0.1, 0.2) for _ in range(N // B)]

    first, second, other = run(1), run(1), run(2)
    assert sorted(np.concatenate([rows for _, rows in first])) == list(range(N))
    np.testing.assert_array_equal(*([loss for loss, _ in runs] for runs in (first, second)))
    assert not np.array_equal(*([rows for _, rows in runs] for runs in (first, other)))
