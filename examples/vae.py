# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Train a variational autoencoder of handwritten digits: an amortized guide and a decoder.

Run it with ``python examples/vae.py``: it prints the results of ``docs/tutorials/vae.md`` and
draws its figures. The digits are from scikit-learn.
"""

import argparse
import time

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytensor
import pytensor.tensor as pt

from pytensor.compile.sharedvalue import SharedVariable
from scipy.stats import norm
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import pymc as pm

SEED = 8
N_HIDDEN, N_CODE = 64, 2
Weights: TypeAlias = Mapping[str, SharedVariable]


class Digits(NamedTuple):
    """Black and white images of 8 × 8 pixels, and their labels."""

    train: np.ndarray  # (obs, pixel) int64, 0 or 1
    test: np.ndarray
    train_labels: np.ndarray  # (obs,) int64, 0 to 9
    test_labels: np.ndarray


def read_digits() -> Digits:
    digits = load_digits()
    images = (digits.data >= 8).astype("int64")
    split = train_test_split(images, digits.target, test_size=400, random_state=SEED)
    return Digits(*split)


def new_weights(n_pixels: int = 64, seed: int = SEED) -> tuple[Weights, Weights]:
    """Return the initial weights of an encoder and of a decoder."""
    rng = np.random.default_rng(seed)

    def shared(name: str, *shape: int) -> SharedVariable:
        values = rng.normal(size=shape) / np.sqrt(shape[0]) if len(shape) > 1 else np.zeros(shape)
        return pytensor.shared(values.astype(pytensor.config.floatX), name=name)

    encoder = {
        "hidden": shared("encoder_hidden", n_pixels, N_HIDDEN),
        "bias": shared("encoder_bias", N_HIDDEN),
        "mean": shared("encoder_mean", N_HIDDEN, N_CODE),
        "log_sd": shared("encoder_log_sd", N_HIDDEN, N_CODE),
    }
    decoder = {
        "hidden": shared("decoder_hidden", N_CODE, N_HIDDEN),
        "bias": shared("decoder_bias", N_HIDDEN),
        "out": shared("decoder_out", N_HIDDEN, n_pixels),
        "out_bias": shared("decoder_out_bias", n_pixels),
    }
    return encoder, decoder


def encode(images: Any, weights: Weights) -> tuple[Any, Any]:
    """Return mean and sd of the code of each image."""
    hidden = pt.tanh(images @ weights["hidden"] + weights["bias"])
    return hidden @ weights["mean"], pt.exp(hidden @ weights["log_sd"])


def decode(code: Any, weights: Weights) -> Any:
    """Return the logit of the probability that a pixel is black."""
    hidden = pt.tanh(code @ weights["hidden"] + weights["bias"])
    return hidden @ weights["out"] + weights["out_bias"]


def vae(images: np.ndarray, encoder: Weights, decoder: Weights) -> tuple[pm.Model, pm.Amortized]:
    coords = {"obs": range(len(images)), "pixel": range(images.shape[1]), "code": range(N_CODE)}
    with pm.Model(coords=coords) as model:
        data = pm.Data("images", images, dims=("obs", "pixel"))
        z = pm.Normal("z", 0, 1, dims=("obs", "code"))
        pm.Bernoulli("pixels", logit_p=decode(z, decoder), observed=data, dims=("obs", "pixel"))

    def guide_of_z(images: Any) -> Any:
        return pm.Normal.dist(*encode(images, encoder))

    return model, pm.Amortized({"z": guide_of_z}, inputs=[data], dim="obs")


def fit(
    model: pm.Model, guide: pm.Amortized, decoder: Weights, n: int = 6000, **options: Any
) -> Any:
    learning_rate = pm.variational.schedules.exponential_decay(
        0.005, decay_steps=n, decay_rate=1 / 20
    )
    return pm.fit(
        n,
        model=model,
        batch_size={"obs": 128},
        guide=guide,
        params=list(decoder.values()),
        obj_optimizer=pm.adam(learning_rate=learning_rate),
        random_seed=SEED,
        progressbar=False,
        **options,
    )


def held_out(
    model: pm.Model, guide: pm.Amortized, images: np.ndarray, n_particles: int = 1000
) -> Any:
    """Estimate log p(x) of held-out images, with the encoder's posterior as guide."""
    with model:
        pm.set_data({"images": images}, coords={"obs": range(len(images))})
        approx = pm.fit(0, guide=guide, progressbar=False)
    return pm.variational.log_evidence(approx, n_particles, random_seed=SEED)


def plot_codes(
    digits: Digits, encoder: Weights, decoder: Weights, to: Path, n_across: int = 12
) -> None:
    """Plot the codes of held-out digits, and the decoded digits of a grid of codes."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 4.6))
    mean, _ = encode(digits.test, encoder)
    codes = mean.eval()
    for digit in range(10):
        points = codes[digits.test_labels == digit]
        left.scatter(*points.T, s=14, color=plt.get_cmap("tab10")(digit), label=str(digit))
    left.legend(frameon=False, fontsize=8, ncols=2, handletextpad=0, columnspacing=0.5)
    left.set(xlabel="z[0]", ylabel="z[1]", title="400 digits that no fit has seen", aspect="equal")
    left.spines[["top", "right"]].set_visible(False)

    across = norm.ppf((np.arange(n_across) + 0.5) / n_across)
    grid = np.stack(np.meshgrid(across, across[::-1]), axis=-1).reshape(-1, N_CODE)
    pixels = pt.sigmoid(decode(grid, decoder)).eval().reshape(n_across, n_across, 8, 8)
    pixels = np.pad(pixels, [(0, 0), (0, 0), (1, 1), (1, 1)])
    right.imshow(pixels.transpose(0, 2, 1, 3).reshape(10 * n_across, -1), cmap="gray_r")
    right.set(xticks=[], yticks=[], title="Digits of codes: quantiles of the prior")
    figure.tight_layout()
    figure.savefig(to, dpi=110)
    plt.close(figure)


def plot_reconstructions(
    images: np.ndarray, pixels: Mapping[str, np.ndarray], to: Path, n: int = 12
) -> None:
    shown = {"digit": images, **pixels}
    figure, axes = plt.subplots(len(shown), n, figsize=(9, 0.85 * len(shown)))
    for row, (name, values) in zip(axes, shown.items()):
        for axis, image in zip(row, values):
            axis.imshow(image.reshape(8, 8), cmap="gray_r", vmin=0, vmax=1)
            axis.set(xticks=[], yticks=[])
        row[0].set_ylabel(name, rotation=0, ha="right", va="center")
    figure.tight_layout(pad=0.3)
    figure.savefig(to, dpi=110)
    plt.close(figure)


#: Run in order, on the same weights
STAGES: dict[str, dict[str, Any]] = {
    "ELBO": {"n": 6000, "objective": "elbo"},
    "IWAE": {"n": 2000, "objective": "iwae", "n_particles": 10, "gradient": "dreg"},
}


def main(out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()

    def say(*what: Any) -> None:
        print(f"{time.perf_counter() - started:6.1f} s ", *what, flush=True)

    digits = read_digits()
    reconstructed = {}
    encoder, decoder = new_weights()
    for name, options in STAGES.items():
        model, guide = vae(digits.train, encoder, decoder)
        approx = fit(model, guide, decoder, **options)
        say(name, approx.report)
        evidence = held_out(model, guide, digits.test)
        total = evidence["log_evidence"].mean().item()
        say(f"log p of an unseen digit: {total:.2f}, se at most {evidence['se'].max().item():.2f}")
        mean, _ = encode(digits.test, encoder)
        reconstructed[name] = pt.sigmoid(decode(mean, decoder)).eval()
    plot_codes(digits, encoder, decoder, out / "vae_codes.png")
    plot_reconstructions(digits.test, reconstructed, out / "vae_digits.png")


if __name__ == "__main__":
    mpl.use("agg")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("docs/images"), help="folder of pictures")
    main(parser.parse_args().out)
