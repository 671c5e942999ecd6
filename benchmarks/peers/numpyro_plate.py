# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""NumPyro's SVI of :class:`LocalMeans`: ``AutoNormal`` and ``plate(subsample_size=...)``.

As its documentation has it, by ``svi.run``, which compiles at each call. One compiled scan over
``svi.update`` with the state donated takes as long for each step.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from _local_means import EPOCHS, LEARNING_RATE, Ended, LocalMeans
from jax import random
from numpyro.infer import SVI, Trace_ELBO
from numpyro.infer.autoguide import AutoNormal
from numpyro.optim import Adam


class NumPyroPlate:
    """A fit that is continued by ``svi.run`` from its last state."""

    compiles_each_call = True

    def __init__(self, data: LocalMeans) -> None:
        self.data, self.x = data, jnp.asarray(data.x)
        self.begin(LEARNING_RATE)

    def begin(self, rate: Any, parameters: Any = None) -> None:
        """Start Adam from these parameters of the guide, or from NumPyro's own."""

        def model(x: jax.Array) -> None:
            mu = numpyro.sample("mu", dist.Normal(0, 1))
            with numpyro.plate("obs", len(x), subsample_size=self.data.batch_size) as rows:
                z = numpyro.sample("z", dist.Normal(mu, 1))
                numpyro.sample("x", dist.Normal(z, 1), obs=x[rows])

        self.svi = SVI(model, AutoNormal(model), Adam(rate), Trace_ELBO())
        self.state = self.svi.init(random.key(1), self.x, init_params=parameters)

    def run(self, n_steps: int, progressbar: bool = False) -> np.ndarray:
        result = self.svi.run(
            random.key(2), n_steps, self.x, progress_bar=progressbar, init_state=self.state
        )
        self.state = result.state
        return np.asarray(result.losses)

    def settle(self) -> None:
        """Go through as many rows as :data:`EPOCHS` says."""
        per_epoch = self.data.steps_per_epoch
        rates = jnp.array([rate for rate, _ in EPOCHS])
        ends = np.cumsum([n * per_epoch for _, n in EPOCHS])
        parameters = self.svi.get_params(self.state)
        self.begin(lambda step: rates[jnp.searchsorted(ends, step, "right")], parameters)
        self.run(int(ends[-1]))

    def ended(self) -> Ended:
        found = self.svi.get_params(self.state)
        mu, mu_sd, z, z_sd = (
            np.asarray(found[f"{name}_auto_{part}"], "float64")
            for name in ("mu", "z")
            for part in ("loc", "scale")
        )
        return Ended(float(mu), float(mu_sd), z, z_sd)


def start(data: LocalMeans, settings: dict[str, Any]) -> NumPyroPlate:
    """Put the data on the device, and make the first state."""
    jax.config.update("jax_enable_x64", settings["dtype"] == "float64")
    return NumPyroPlate(data)
