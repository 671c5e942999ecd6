# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""The patch's variational autoencoder: an amortized guide, and a decoder that is trained with it."""

from typing import Any

import numpy as np
import pytensor
import pytensor.tensor as pt

from _digits import LEARNING_RATE, Digits, first_weights
from _regression import check_side

import pymc as pm

from pymc.variational.fit_options import FitOptions
from pymc.variational.inference import make_inference

DECODER = ("decoder_weight", "decoder_bias", "pixels_weight", "pixels_bias")


class VAE:
    """A fit by ``objective="iwae"`` that is continued by ``refine``, which compiles nothing."""

    compiles_each_call = False

    def __init__(self, data: Digits, settings: dict[str, Any]) -> None:
        first = first_weights(
            *(settings[name] for name in ("n_latent", "n_hidden", "seed", "dtype"))
        )
        w = {name: pytensor.shared(value, name) for name, value in first.items()}
        self.variables, n_latent = w, settings["n_latent"]
        with pm.Model(coords={"latent": range(n_latent)}) as model:
            pixels = pm.Data("pixels", data.train, dims=("obs", "pixel"))
            batch = pm.Minibatch(pixels, batch_size=settings["batch_size"])
            z = pm.Normal("z", 0, 1, dims=("obs", "latent"))
            hidden = pt.tanh(z @ w["decoder_weight"] + w["decoder_bias"])
            logits = hidden @ w["pixels_weight"] + w["pixels_bias"]
            pm.Bernoulli("x", logit_p=logits, observed=batch, dims=("obs", "pixel"))

        def encode(x: Any) -> Any:
            hidden = pt.tanh(x @ w["encoder_weight"] + w["encoder_bias"])
            mean = hidden @ w["mean_weight"] + w["mean_bias"]
            return pm.Normal.dist(mean, pt.exp(hidden @ w["log_sd_weight"] + w["log_sd_bias"]))

        # What pm.fit makes of these arguments; the object can be continued
        self.inference = make_inference(
            FitOptions(
                model=model,
                guide=pm.Amortized({"z": encode}, inputs=[batch], dim="obs"),
                objective="iwae",
                n_particles=settings["n_particles"],
                params=[w[name] for name in DECODER],
                random_seed=settings["seed"],
            )
        )
        self.model = model
        self.inference.fit(
            1,
            obj_optimizer=pm.adam(learning_rate=LEARNING_RATE),
            backend=settings.get("backend"),
            progressbar=False,
        )

    def run(self, n_steps: int, progressbar: bool = False) -> np.ndarray:
        before = len(self.inference.hist)
        self.inference.refine(n_steps, progressbar=progressbar)
        return self.inference.hist[before:]

    def weights(self) -> dict[str, np.ndarray]:
        return {name: np.asarray(var.get_value()) for name, var in self.variables.items()}

    def log_evidence(self, rows: np.ndarray, n_particles: int) -> float:
        """Estimate the mean log p(x) of new rows as a user would."""
        with self.model:
            pm.set_data({"pixels": rows})
        estimate = pm.variational.log_evidence(self.inference.approx, n_particles, random_seed=1)
        return float(estimate["log_evidence"].mean())


def start(data: Digits, settings: dict[str, Any]) -> VAE:
    """Compile, and take the first step."""
    check_side(settings["patched"])
    return VAE(data, settings)
