# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""NumPyro's variational autoencoder by ``RenyiELBO(alpha=0)``, on the same network.

``RenyiELBO`` takes the logsumexp over particles apart for each row of the plates that enclose *all*
sites of model and guide, and sums everything else before: so both are written within one plate, which
is the form that is right. All steps are one compiled scan over ``svi.update``, on rows drawn by index,
the fastest form found.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from _digits import LEARNING_RATE, Digits, first_weights
from jax import lax, random
from numpyro.infer import SVI, RenyiELBO
from numpyro.optim import Adam

BLOCK = 100  # steps of a scan, whose length is fixed when it is compiled

Parameters = dict[str, jax.Array]


def parameters(first: dict[str, np.ndarray], names: tuple[str, ...]) -> Parameters:
    return {
        f"{name}_{part}": numpyro.param(f"{name}_{part}", jnp.asarray(first[f"{name}_{part}"]))
        for name in names
        for part in ("weight", "bias")
    }


class VAE:
    """Steps from a state to the next, in blocks."""

    compiles_each_call = False

    def __init__(self, data: Digits, settings: dict[str, Any]) -> None:
        n_latent, batch_size = settings["n_latent"], settings["batch_size"]
        first = first_weights(n_latent, settings["n_hidden"], settings["seed"], settings["dtype"])

        def model(x: jax.Array) -> None:
            w = parameters(first, ("decoder", "pixels"))
            with numpyro.plate("rows", len(x)):
                z = numpyro.sample("z", dist.Normal(jnp.zeros(n_latent), 1).to_event(1))
                hidden = jnp.tanh(z @ w["decoder_weight"] + w["decoder_bias"])
                logits = hidden @ w["pixels_weight"] + w["pixels_bias"]
                numpyro.sample("x", dist.Bernoulli(logits=logits).to_event(1), obs=x)

        def guide(x: jax.Array) -> None:
            w = parameters(first, ("encoder", "mean", "log_sd"))
            hidden = jnp.tanh(x @ w["encoder_weight"] + w["encoder_bias"])
            mean = hidden @ w["mean_weight"] + w["mean_bias"]
            sd = jnp.exp(hidden @ w["log_sd_weight"] + w["log_sd_bias"])
            with numpyro.plate("rows", len(x)):
                numpyro.sample("z", dist.Normal(mean, sd).to_event(1))

        objective = RenyiELBO(alpha=0, num_particles=settings["n_particles"])
        self.svi = svi = SVI(model, guide, Adam(LEARNING_RATE), objective)
        self.rows = jnp.asarray(data.train)
        state = svi.init(random.key(settings["seed"]), self.rows[:batch_size])
        self.state = (state, random.key(settings["seed"] + 1))

        @jax.jit
        def block(state: Any, rows: jax.Array) -> tuple[Any, jax.Array]:
            def step(state: Any, _: None) -> tuple[Any, jax.Array]:
                svi_state, key = state
                key, draw = random.split(key)
                batch = rows[random.randint(draw, (batch_size,), 0, len(rows))]
                svi_state, loss = svi.update(svi_state, batch)
                return (svi_state, key), loss

            return lax.scan(step, state, None, length=BLOCK)

        self.block = block

    def run(self, n_steps: int, progressbar: bool = False) -> np.ndarray:
        losses = []
        for _ in range(0, n_steps, BLOCK):
            self.state, some = self.block(self.state, self.rows)
            losses.append(some)
        return np.concatenate(losses)[:n_steps]

    def weights(self) -> dict[str, np.ndarray]:
        return {k: np.asarray(v) for k, v in self.svi.get_params(self.state[0]).items()}


def start(data: Digits, settings: dict[str, Any]) -> VAE:
    """Put the data on the device, and make the first state."""
    jax.config.update("jax_enable_x64", settings["dtype"] == "float64")
    return VAE(data, settings)
