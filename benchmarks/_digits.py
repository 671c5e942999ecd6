# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""What the benchmark of variational autoencoders fits: digits, a network, and log p(x) by particles.

Only NumPy, but for reading the digits, so that each peer starts from the same weights and is judged by
the same estimate.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

N_PIXELS, N_TEST = 64, 360
LEARNING_RATE = 1e-3

#: Weights by name: of the encoder's layer and of its heads, of the decoder's layer and of its pixels.
Weights = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Digits:
    """Scikit-learn's digits of 8 x 8 pixels, each 1 where it is dark.

    Parameters
    ----------
    train, test : array of float, shape (n_rows, 64)
    """

    train: np.ndarray
    test: np.ndarray

    @classmethod
    def read(cls, file: str, dtype: str) -> "Digits":
        """Read what :func:`write_digits` wrote."""
        with np.load(file) as arrays:
            return cls(arrays["train"].astype(dtype), arrays["test"].astype(dtype))


def write_digits(file: Path) -> None:
    """Split the digits by a fixed seed, and write them: a peer's environment lacks scikit-learn."""
    from sklearn.datasets import load_digits  # a parent's only

    pixels = (load_digits().data >= 8).astype("uint8")
    rows = np.random.default_rng(1).permutation(len(pixels))
    file.parent.mkdir(parents=True, exist_ok=True)
    np.savez(file, train=pixels[rows[N_TEST:]], test=pixels[rows[:N_TEST]])


def first_weights(n_latent: int, n_hidden: int, seed: int, dtype: str) -> dict[str, np.ndarray]:
    """Draw weights as Glorot and Bengio (2010), equation 16, and zero biases."""
    rng = np.random.default_rng(seed)
    layers = {
        "encoder": (N_PIXELS, n_hidden),
        "mean": (n_hidden, n_latent),
        "log_sd": (n_hidden, n_latent),
        "decoder": (n_latent, n_hidden),
        "pixels": (n_hidden, N_PIXELS),
    }
    weights = {}
    for name, shape in layers.items():
        bound = np.sqrt(6 / sum(shape))
        weights[f"{name}_weight"] = rng.uniform(-bound, bound, size=shape).astype(dtype)
        weights[f"{name}_bias"] = np.zeros(shape[1], dtype)
    return weights


def log_evidence(weights: Weights, rows: np.ndarray, n_particles: int, seed: int = 0) -> np.ndarray:
    """Estimate log p(x) of each row, in nats, by particles from the encoder.

    Returns
    -------
    array of float64, shape (n_rows,)
    """
    rng = np.random.default_rng(seed)
    w = {name: value.astype("float64") for name, value in weights.items()}
    result = np.empty(len(rows))
    for k, x in enumerate(rows.astype("float64")):
        hidden = np.tanh(x @ w["encoder_weight"] + w["encoder_bias"])
        mean = hidden @ w["mean_weight"] + w["mean_bias"]
        log_sd = hidden @ w["log_sd_weight"] + w["log_sd_bias"]
        noise = rng.standard_normal((n_particles, len(mean)))
        z = mean + np.exp(log_sd) * noise
        hidden = np.tanh(z @ w["decoder_weight"] + w["decoder_bias"])
        logits = hidden @ w["pixels_weight"] + w["pixels_bias"]
        log_weights = logits @ x - np.logaddexp(0, logits).sum(axis=1)
        log_weights += (-0.5 * z**2 + 0.5 * noise**2 + log_sd).sum(axis=1)
        result[k] = np.logaddexp.reduce(log_weights) - np.log(n_particles)
    return result
