# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
r"""A normalizing flow: invertible layers that transform normal noise.

.. math::

    x^0 = \varepsilon \sim \mathcal N(0, I), \qquad
    x^l_B = x^{l-1}_B \exp(s_l(x^{l-1}_A)) + t_l(x^{l-1}_A), \qquad x^l_A = x^{l-1}_A, \qquad
    z = \mu + \sigma x^L

Each layer keeps one half :math:`A` of the entries and shifts and scales the other :math:`B` by a network of it,
by turns (Dinh, Sohl-Dickstein and Bengio 2017, "Density estimation using Real NVP", equations 7 and 8). Its
inverse is as simple, so that the density of any :math:`z` is exact.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytensor.tensor as pt

from pytensor.graph.basic import Variable

from pymc.argument_checks import check_int
from pymc.variational.guides.base import FlatGuide, Params, SampleShape, noise
from pymc.variational.guides.initial_values import InitialValues
from pymc.variational.guides.mean_field import LOG_SQRT_2PI

__all__ = ["NormalizingFlow"]

#: Bound of the log-scale of one layer: exp(8) times as wide, or as narrow.
MAX_LOG_SCALE = 8.0


@dataclass(eq=False)
class NormalizingFlow(FlatGuide):
    """A normalizing flow of coupling layers, for global variables.

    It fits any correlations and many shapes, such as a scale that depends on another variable. It starts as
    the mean-field guide. For a single entry it is a normal distribution.

    Parameters
    ----------
    n_layers : int
        Number of layers. Twice the binary digits of the number of entries let each depend on all others.
    n_hidden : int
        Hidden units of the network of each layer.
    seed : int
        Seed of the initial weights of the networks.

    Raises
    ------
    TypeError, ValueError
        If `n_layers` or `n_hidden` is not an integer of at least 1.

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
        check_int(self.n_layers, "n_layers", "pm.NormalizingFlow")
        check_int(self.n_hidden, "n_hidden", "pm.NormalizingFlow")

    def start(self, starts: InitialValues) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(self.seed)
        values = {"mu": starts.means(self.layout), "rho": starts.rhos(self.layout)}
        for k in self._layers():
            n_kept, n_moved = map(len, halves(k, self.layout.size))
            values[f"w{k}"] = rng.normal(size=(n_kept, self.n_hidden)) / np.sqrt(n_kept)
            values[f"b{k}"] = rng.normal(size=self.n_hidden)
            # Output weights of 0 make the layer the identity
            values[f"out{k}"] = np.zeros((self.n_hidden + 1, 2 * n_moved))
        return values

    def _layers(self) -> range:
        return range(self.n_layers if self.layout.size > 1 else 0)

    def _network(self, x: Variable, params: Params, layer: int) -> tuple[Variable, Variable]:
        """Return shift and log-scale of the entries that a layer moves."""
        hidden = pt.tanh(x @ params[f"w{layer}"] + params[f"b{layer}"])
        out = hidden @ params[f"out{layer}"][:-1] + params[f"out{layer}"][-1]
        n_moved = len(halves(layer, self.layout.size)[1])
        # Bounded smoothly: one long step of the optimizer would overflow the exponential otherwise
        log_scale = MAX_LOG_SCALE * pt.tanh(out[..., n_moved:] / MAX_LOG_SCALE)
        return out[..., :n_moved], log_scale

    def sample(self, params: Params, sample_shape: SampleShape) -> Variable:
        x = noise((*sample_shape, self.layout.size))
        for layer in self._layers():
            kept, moved = halves(layer, self.layout.size)
            shift, log_scale = self._network(x[..., kept], params, layer)
            x = x[..., moved].set(x[..., moved] * pt.exp(log_scale) + shift)
        return params["mu"] + pt.softplus(params["rho"]) * x

    def log_density(self, z: Variable, params: Params) -> Variable:
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
    """Return the entries that a layer keeps, and those that it moves.

    Two layers in turn split the entries by one binary digit of their positions, the next two by the next
    digit. So any two entries are on different sides in some layer.
    """
    places = np.arange(size)
    digit = places >> layer // 2 % max(size - 1, 1).bit_length() & 1
    return np.flatnonzero(digit == layer % 2), np.flatnonzero(digit != layer % 2)
