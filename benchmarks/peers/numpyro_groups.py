# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""NumPyro's SVI of group effects: ``AutoNormal``, and a plate of which a step takes some groups with all their rows.

Steps are taken by one scan over ``svi.update``, which is compiled once. All groups have as many rows.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from _group_effects import BATCH, Groups
from jax import lax, random
from numpyro.infer import SVI, Trace_ELBO
from numpyro.infer.autoguide import AutoNormal
from numpyro.optim import Adam

jax.config.update("jax_enable_x64", True)


BLOCK = 50  # steps of a scan, whose length is fixed when it is compiled


class NumPyroGroups:
    """A fit that is continued from its last state, in blocks of steps."""

    compiles_each_call = False

    def __init__(self, data: Groups) -> None:
        by_group = data.y[np.argsort(data.group, kind="stable")]
        self.y = jnp.asarray(by_group.reshape(data.n_groups, -1))
        n_groups, n_rows = self.y.shape

        def model(y: jax.Array) -> None:
            mu = numpyro.sample("mu", dist.Normal(0, 10))
            s = numpyro.sample("s", dist.HalfNormal(2))
            sigma = numpyro.sample("sigma", dist.HalfNormal(2))
            n_of_batch = BATCH // n_rows
            with numpyro.plate("group", n_groups, subsample_size=n_of_batch, dim=-2) as groups:
                effect = numpyro.sample("effect", dist.Normal(0, s))
                with numpyro.plate("row", n_rows, dim=-1):
                    numpyro.sample("y", dist.Normal(mu + effect, sigma), obs=y[groups])

        svi = SVI(model, AutoNormal(model), Adam(0.01), Trace_ELBO())
        self.state = svi.init(random.key(1), self.y)

        @partial(jax.jit, donate_argnums=0)
        def block(state: Any, y: jax.Array) -> tuple[Any, jax.Array]:
            return lax.scan(lambda state, _: svi.update(state, y), state, None, length=BLOCK)

        self.block = block

    def run(self, n_steps: int, progressbar: bool = False) -> np.ndarray:
        losses = []
        for _ in range(0, n_steps, BLOCK):
            self.state, some = self.block(self.state, self.y)
            losses.append(np.asarray(some))
        return np.concatenate(losses)[:n_steps]
