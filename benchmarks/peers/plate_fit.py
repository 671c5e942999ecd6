# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""The patch's fit of :class:`LocalMeans`: a latent variable with the dim that is subsampled."""

from typing import Any

import numpy as np
import pytensor

from _local_means import EPOCHS, LEARNING_RATE, Ended, LocalMeans
from _regression import check_side

import pymc as pm

from pymc.variational.fit_options import FitOptions
from pymc.variational.inference import make_inference

START_SD = 0.1  # as NumPyro's


class PlateFit:
    """A fit that is continued by ``refine``, which compiles nothing."""

    compiles_each_call = False

    def __init__(self, data: LocalMeans) -> None:
        self.data = data
        self.learning_rate = pytensor.shared(np.asarray(LEARNING_RATE, pytensor.config.floatX))
        with pm.Model() as model:
            rows = pm.Minibatch(pm.Data("rows", data.x, dims="obs"), batch_size=data.batch_size)
            mu = pm.Normal("mu", 0, 1)
            z = pm.Normal("z", mu, 1, dims="obs")
            pm.Normal("x", z, 1, observed=rows, dims="obs")
        # What pm.fit makes of this model; the object can be continued
        sds = dict.fromkeys(["mu", "z"], START_SD)
        self.inference = make_inference(FitOptions(model=model, start_sigma=sds, random_seed=1))
        optimizer = pm.adam(learning_rate=self.learning_rate)
        self.inference.fit(100, obj_optimizer=optimizer, progressbar=False)

    def run(self, n_steps: int, progressbar: bool = False) -> np.ndarray:
        before = len(self.inference.hist)
        self.inference.refine(n_steps, progressbar=progressbar)
        return self.inference.hist[before:]

    def settle(self) -> None:
        """Go through all rows as :data:`EPOCHS` says."""
        for rate, n_epochs in EPOCHS:
            self.learning_rate.set_value(np.asarray(rate, pytensor.config.floatX))
            self.run(n_epochs * self.data.steps_per_epoch)

    def ended(self) -> Ended:
        storage = self.inference.approx.storage
        loc, rho = (var.get_value() for var in storage.dense.values())
        [table] = storage.tables.values()
        z, z_rho = table.parameters().T.astype("float64")
        return Ended(float(loc[0]), float(_softplus(rho)[0]), z, _softplus(z_rho))


def _softplus(rho: np.ndarray) -> np.ndarray:
    return np.logaddexp(0, rho)


def start(data: LocalMeans, settings: dict[str, Any]) -> PlateFit:
    """Compile, and take the first steps."""
    check_side(settings["patched"])
    return PlateFit(data)
