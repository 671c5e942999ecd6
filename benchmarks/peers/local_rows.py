# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""A hierarchical mean with a latent variable for each row, on the engine's parts."""

import numpy as np
import pytensor
import pytensor.tensor as pt

import pymc as pm

from pymc.minibatch.axis_tracking import Rows
from pymc.variational.engine.step_cache import make_step
from pymc.variational.local_params.row_optimizer import RowGradient, all_updates, guarded
from pymc.variational.local_params.table import ParamTable
from pymc.variational.optimizers import as_optimizer


class LocalRows:
    """``mu ~ N(0, 1); z[i] ~ N(mu, 1); x[i] ~ N(z[i], 1)`` with a mean-field guide.

    Parameters
    ----------
    x : array of floats, shape (n_rows,)
    batch_size : int
    optimizer : str
        Of PyMC, by name.
    """

    compiles_each_call = False

    def __init__(self, x: np.ndarray, batch_size: int, optimizer: str) -> None:
        data = pytensor.shared(x, "x", borrow=True)
        with pm.Model() as model:
            batch = pm.Minibatch(data, batch_size=batch_size)
        rows = Rows(batch.owner.inputs[1])
        table = ParamTable.of((rows,), np.zeros((1, 2)), "z")
        lines, params = table.gather()
        # Mean and rho of mu
        top = pytensor.shared(np.zeros(2), "mu", shape=(2,))
        mu, logq_top = draw(top[None, :], 1)
        z, logq = draw(params, batch_size)
        per_row = -((z - mu) ** 2) / 2 - (batch - z) ** 2 / 2 - logq
        bound = per_row.sum() + (-(mu**2) / 2 - logq_top).sum() * batch_size / rows.total
        by_row, by_top = pt.grad(-bound, [params, top])
        update_rule = as_optimizer(getattr(pm, optimizer)(learning_rate=1e-3))
        gradients = [RowGradient(table, (lines, params), by_row)]
        updates, of_rows = all_updates(update_rule, [top], [by_top], gradients)
        loss, updates = guarded(-bound, updates, of_rows)
        self.step = make_step(updates, loss, model=model, random_seed=1, mode="NUMBA", guarded=True)
        self.state = self.step.load()

    def run(self, n_steps: int, progressbar: bool = False) -> np.ndarray:
        """Take steps, and return the loss of each."""
        self.state, losses = self.step.driver.run(self.state, n_steps)
        return losses


def draw(params: pt.TensorVariable, n: int) -> tuple[pt.TensorVariable, pt.TensorVariable]:
    """Draw from normals, given the means and rhos of `n` of them; return their log-density too."""
    noise = pt.random.normal(size=n, rng=pytensor.shared(np.random.default_rng(0)))
    sd = pt.softplus(params[:, 1])
    return params[:, 0] + sd * noise, -pt.log(sd) - noise**2 / 2
