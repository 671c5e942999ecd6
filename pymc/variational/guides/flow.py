# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
r"""A normalizing flow: noise that invertible layers transform.

.. math::

    x^0 = \varepsilon \sim \mathcal N(0, I), \qquad
    x^l_B = x^{l-1}_B \exp(s_l(x^{l-1}_A)) + t_l(x^{l-1}_A), \qquad x^l_A = x^{l-1}_A, \qquad
    z = \mu + \sigma x^L

Each layer keeps one half :math:`A` of the entries and shifts and scales the other :math:`B` by a network of it,
by turns (Dinh, Sohl-Dickstein and Bengio 2017, "Density estimation using Real NVP", equations 7 and 8). Its
inverse is as simple, so that the density of a given :math:`z` is exact.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pytensor.tensor as pt

from pytensor.graph.basic import Variable

from pymc.argument_checks import check_int
from pymc.variational.guides.base import FlatGuide, SampleShape, noise
from pymc.variational.guides.initial_values import InitialValues
from pymc.variational.guides.mean_field import LOG_SQRT_2PI

#: The largest logarithm of a scale of one layer: exp(8) times as wide, or as narrow.
LARGEST_SCALE = 8.0


@dataclass(eq=False)
class NormalizingFlow(FlatGuide):
    """A normalizing flow of coupling layers, for global variables.

    It has any correlations and many shapes, such as a scale that depends on another variable. It starts as
    the mean-field guide. Of one number it is a normal distribution.

    Parameters
    ----------
    n_layers : int
        How many layers. Twice the binary digits of the number of entries let each depend on all others.
    n_hidden : int
        Hidden units of the network of each layer.
    seed : int
        Of the first weights of the networks.

    Raises
    ------
    ValueError
        If there is no layer, or none of the hidden units.

    Examples
    --------
    >>> with pm.Model() as funnel:
    ...     v = pm.Normal("v", 0, 3)
    ...     x = pm.Normal("x", 0, pm.math.exp(v / 2))
    >>> approx = pm.fit(5, model=funnel, guide=pm.NormalizingFlow(n_hidden=4), progressbar=False)
    >>> approx.sample(10).posterior["x"].shape
    (1, 10)
    """

    n_layers: int = 4
    n_hidden: int = 16
    seed: int = 0

    name = "normalizing_flow"
    couples_rows = True

    def __post_init__(self) -> None:
        for argument, value in (("n_layers", self.n_layers), ("n_hidden", self.n_hidden)):
            check_int(value, argument, "pm.NormalizingFlow")

    def start(self, starts: InitialValues) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(self.seed)
        found = {"mu": starts.means(self.layout), "rho": starts.rhos(self.layout)}
        for k in self._layers():
            n_kept, n_moved = map(len, halves(k, self.layout.size))
            found[f"w{k}"] = rng.normal(size=(n_kept, self.n_hidden)) / np.sqrt(n_kept)
            found[f"b{k}"] = rng.normal(size=self.n_hidden)
            # With a last layer of 0 nothing is moved
            found[f"out{k}"] = np.zeros((self.n_hidden + 1, 2 * n_moved))
        return found

    def _layers(self) -> range:
        return range(self.n_layers if self.layout.size > 1 else 0)

    def _network(
        self, x: Variable, params: Mapping[str, Variable], layer: int
    ) -> tuple[Variable, Variable]:
        """Return shift and logarithm of the scale of what a layer moves."""
        hidden = pt.tanh(x @ params[f"w{layer}"] + params[f"b{layer}"])
        out = hidden @ params[f"out{layer}"][:-1] + params[f"out{layer}"][-1]
        n_moved = len(halves(layer, self.layout.size)[1])
        log_scale = LARGEST_SCALE * pt.tanh(out[..., n_moved:] / LARGEST_SCALE)
        return out[..., :n_moved], log_scale

    def sample(self, params: Mapping[str, Variable], sample_shape: SampleShape) -> Variable:
        x = noise((*sample_shape, self.layout.size))
        for layer in self._layers():
            kept, moved = halves(layer, self.layout.size)
            shift, log_scale = self._network(x[..., kept], params, layer)
            x = x[..., moved].set(x[..., moved] * pt.exp(log_scale) + shift)
        return params["mu"] + pt.softplus(params["rho"]) * x

    def log_density(self, z: Variable, params: Mapping[str, Variable]) -> Variable:
        sd = pt.softplus(params["rho"])
        x = (z - params["mu"]) / sd
        log_volume = pt.log(sd).sum()
        for layer in reversed(self._layers()):
            kept, moved = halves(layer, self.layout.size)
            shift, log_scale = self._network(x[..., kept], params, layer)
            x = x[..., moved].set((x[..., moved] - shift) * pt.exp(-log_scale))
            log_volume = log_volume + log_scale.sum(axis=-1)
        return (-0.5 * x**2 - LOG_SQRT_2PI).sum(axis=-1) - log_volume


def halves(layer: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the places that a layer keeps, and those that it moves, by turns.

    Two layers share a digit of the places, written in binary, and the next two take the next digit: any two
    places differ in one.
    """
    places = np.arange(size)
    digit = places >> layer // 2 % max(size - 1, 1).bit_length() & 1
    return np.flatnonzero(digit == layer % 2), np.flatnonzero(digit != layer % 2)
