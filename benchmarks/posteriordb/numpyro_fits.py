# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Fits by NumPyro's guides, of the log-density of a PyMC model as a function of JAX.

NumPyro sees one variable, a point of the unconstrained space, with an improper prior and the log-density as
a factor.
"""

import time

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from jax.flatten_util import ravel_pytree
from numpyro.infer import SVI, Trace_ELBO, init_to_value
from numpyro.infer.autoguide import (
    AutoContinuous,
    AutoLaplaceApproximation,
    AutoMultivariateNormal,
    AutoNormal,
)

import pymc as pm

from posteriordb.peer import N_DRAWS, FitModel, Fitted
from pymc.sampling.jax import get_jaxified_graph

N_STEPS, LEARNING_RATE = 20_000, 0.01

jax.config.update("jax_enable_x64", True)


@dataclass(frozen=True)
class Target:
    """The log-density of a model, in JAX.

    Parameters
    ----------
    start : array, shape (size,)
        PyMC's initial point.
    logp : callable (point) -> scalar
    constrain : callable (points) -> dict of str to array
        From draws of the unconstrained space to those of the variables.
    """

    start: jax.Array
    logp: Callable[[jax.Array], jax.Array]
    constrain: Callable[[jax.Array], dict[str, jax.Array]]

    @classmethod
    def of(cls, model: pm.Model) -> "Target":
        initial = model.initial_point()
        start, unravel = ravel_pytree([jnp.asarray(initial[v.name]) for v in model.value_vars])
        logp = get_jaxified_graph(model.value_vars, [model.logp()])
        variables = [*model.free_RVs, *model.deterministics]
        graph = get_jaxified_graph(model.value_vars, model.replace_rvs_by_values(variables))
        names = [variable.name for variable in variables]

        def constrain(point: jax.Array) -> dict[str, jax.Array]:
            return dict(zip(names, graph(*unravel(point)), strict=True))

        return cls(start, lambda point: logp(*unravel(point))[0], jax.jit(jax.vmap(constrain)))


def fit(model: pm.Model, seed: int, guide: Callable[..., AutoContinuous]) -> Fitted:
    """Take steps of Adam in one compiled loop, and draw from the guide."""
    started = time.perf_counter()
    target = Target.of(model)
    space = dist.ImproperUniform(dist.constraints.real_vector, (), target.start.shape)

    def density() -> None:
        numpyro.factor("logp", target.logp(numpyro.sample("x", space)))

    made = guide(density, init_loc_fn=init_to_value(values={"x": target.start}))
    svi = SVI(density, made, numpyro.optim.Adam(LEARNING_RATE), Trace_ELBO())
    state = svi.init(jax.random.key(seed))

    @jax.jit
    def steps(state: Any) -> Any:
        return jax.lax.scan(lambda s, _: (svi.update(s)[0], None), state, length=N_STEPS)[0]

    compiled = steps.lower(state).compile()
    ran = time.perf_counter()
    params = svi.get_params(jax.block_until_ready(compiled(state)))
    run_seconds = time.perf_counter() - ran
    # the Laplace approximation computes its covariance here, and compiles that
    draws = made.sample_posterior(jax.random.key(seed + 1), params, sample_shape=(N_DRAWS,))
    points = jax.block_until_ready(draws["x"])
    seconds = time.perf_counter() - started
    values = {name: np.asarray(v) for name, v in target.constrain(points).items()}
    return Fitted(values, seconds, run_seconds, N_STEPS)


FITS: dict[str, FitModel] = {
    "numpyro_normal": partial(fit, guide=AutoNormal),
    "numpyro_full_rank": partial(fit, guide=AutoMultivariateNormal),
    "numpyro_laplace": partial(fit, guide=AutoLaplaceApproximation),
}
