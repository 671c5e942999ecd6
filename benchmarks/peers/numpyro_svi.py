# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""NumPyro's SVI of :class:`Normals`, in two forms.

- ``"plate"``: ``plate(subsample_size=...)`` and ``svi.run``, as its documentation has it;
- ``"scan"``: rows drawn by index in one ``lax.scan`` over ``svi.update``, all of it compiled once. The
  fastest form found: ``AutoDiagonalNormal``, an unrolled scan and other modes of the gather are not
  faster.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from _problems import Normals, Posterior
from jax import lax, random
from numpyro.infer import SVI, Trace_ELBO
from numpyro.infer.autoguide import AutoNormal
from numpyro.optim import Adam

from peers import ANNEALING, LEARNING_RATE

BLOCK = 1_000  # steps of a scan, whose length is fixed when it is compiled


def priors(n_columns: int) -> tuple[jax.Array, jax.Array]:
    mu = numpyro.sample("mu", dist.Normal(0, 1e5).expand([n_columns]).to_event(1))
    sd = numpyro.sample("sd", dist.HalfNormal(1).expand([n_columns]).to_event(1))
    return mu, sd


def plate_model(data: jax.Array, batch_size: int) -> None:
    mu, sd = priors(data.shape[1])
    with numpyro.plate("rows", len(data), subsample_size=batch_size) as rows:
        numpyro.sample("y", dist.Normal(mu, sd).to_event(1), obs=data[rows])


def batch_model(batch: jax.Array, n_rows: int) -> None:
    mu, sd = priors(batch.shape[1])
    with numpyro.handlers.scale(scale=n_rows / len(batch)):
        numpyro.sample("y", dist.Normal(mu, sd), obs=batch)


class Scan:
    """Batches drawn within the scan."""

    compiles_each_call = False

    def __init__(self, data: Normals) -> None:
        self.data, self.batch_size = jnp.asarray(data.data), data.batch_size
        self.begin(LEARNING_RATE)

    def begin(self, rate: Any, parameters: Any = None) -> None:
        """Start Adam from these parameters of the guide, or from NumPyro's own."""
        model = partial(batch_model, n_rows=len(self.data))
        svi = SVI(model, AutoNormal(model), Adam(rate), Trace_ELBO())
        state = svi.init(random.key(1), self.data[: self.batch_size], init_params=parameters)
        self.svi, self.state = svi, (state, random.key(2))

        @jax.jit
        def block(state: Any, data: jax.Array) -> tuple[Any, jax.Array]:
            def step(state: Any, _: None) -> tuple[Any, jax.Array]:
                svi_state, key = state
                key, draw = random.split(key)
                rows = random.randint(draw, (self.batch_size,), 0, len(data))
                svi_state, loss = svi.update(svi_state, data[rows])
                return (svi_state, key), loss

            return lax.scan(step, state, None, length=BLOCK)

        self.block = block

    def run(self, n_steps: int, progressbar: bool = False) -> np.ndarray:
        losses = []
        for _ in range(0, n_steps, BLOCK):
            self.state, some = self.block(self.state, self.data)
            losses.append(some)
        return np.concatenate(losses)[: n_steps if n_steps < BLOCK else None]

    def parameters(self) -> dict[str, jax.Array]:
        return self.svi.get_params(self.state[0])

    def anneal(self) -> None:
        rates = jnp.array([rate for rate, _ in ANNEALING])
        ends = np.cumsum([n for _, n in ANNEALING])
        self.begin(lambda step: rates[jnp.searchsorted(ends, step, "right")], self.parameters())
        self.run(int(ends[-1]))

    def posterior(self) -> Posterior:
        found = {name: np.asarray(v, "float64") for name, v in self.parameters().items()}
        parts = (
            [found[f"{name}_auto_{part}"] for name in ("mu", "sd")] for part in ("loc", "scale")
        )
        return Posterior(*map(np.concatenate, parts))


class Plate(Scan):
    """``svi.run`` on a plate, which compiles at each call."""

    compiles_each_call = True

    def begin(self, rate: Any, parameters: Any = None) -> None:
        model = partial(plate_model, batch_size=self.batch_size)
        self.svi = SVI(model, AutoNormal(model), Adam(rate), Trace_ELBO())
        self.state = (self.svi.init(random.key(1), self.data, init_params=parameters), None)

    def run(self, n_steps: int, progressbar: bool = False) -> np.ndarray:
        result = self.svi.run(
            random.key(2), n_steps, self.data, progress_bar=progressbar, init_state=self.state[0]
        )
        self.state = (result.state, None)
        return np.asarray(result.losses)


def start(data: Normals, settings: dict[str, Any]) -> Scan:
    """Put the data on the device, and make the first state."""
    jax.config.update("jax_enable_x64", settings["dtype"] == "float64")
    return {"scan": Scan, "plate": Plate}[settings["form"]](data)
