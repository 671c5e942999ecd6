# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
r"""Empirical: a set of particles with equal probabilities.

.. math::

    q(z) = \frac1S \sum_s \delta_{z_s}(z)

It has no density. :class:`~pymc.variational.objectives.stein.Stein` moves the particles, or they are
draws of MCMC.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytensor
import pytensor.tensor as pt

from pytensor.graph.basic import Variable

from pymc.argument_checks import check_int, check_number
from pymc.backends.base import MultiTrace
from pymc.variational.guides.base import (
    FlatGuide,
    Latents,
    Params,
    ParamValues,
    SampleShape,
    Site,
    draw_random,
)
from pymc.variational.guides.initial_values import InitialValues


@dataclass(eq=False)
class EmpiricalGuide(FlatGuide):
    """Particles of all variables.

    Parameters
    ----------
    size : int
        Number of particles.
    jitter : float
        Standard deviation, on the unconstrained space, of the noise of their initial values.
    replace : bool
        Whether draws are with replacement. Without, each particle is drawn once before one is repeated.
    """

    size: int = 100
    jitter: float = 1.0
    replace: bool = True
    name = "empirical"
    couples_rows = True
    has_logq = False

    def __post_init__(self) -> None:
        # Those with replacement may come from a trace of all variables
        self.takes_groups = not self.replace
        check_int(self.size, "size", "an empirical guide")
        hint = "It is the standard deviation of the noise with which they start, such as 1.0"
        check_number(self.jitter, "jitter", "particles", at_least=0, hint=hint)

    def start(self, starts: InitialValues) -> dict[str, np.ndarray]:
        noise = starts.rng.normal(0, 1, size=(self.size, self.layout.size))
        spread = starts.sds(self.layout, self.jitter) * noise
        return {"histogram": starts.means(self.layout) + spread}

    def sample(self, params: Params, sample_shape: SampleShape) -> Variable:
        histogram = params["histogram"]
        n_particles = histogram.shape[0]
        if self.replace:
            size = sample_shape or None
            return histogram[draw_random(pt.random.integers, 0, n_particles, size=size)]
        # Each particle once before any is drawn again
        order = draw_random(pt.random.permutation, n_particles, size=None)
        n_draws = pt.prod(pt.stack([1, *sample_shape]))
        return histogram[order[pt.arange(n_draws) % n_particles].reshape(sample_shape)]

    def log_density(self, z: Variable, params: Params) -> Variable:
        names = [site.name for site in self.sites]
        raise NotImplementedError(f"particles of {names} have no density")

    def particles(self, param_values: ParamValues) -> Latents:
        return (self.values_by_name(param_values)["histogram"],)

    def moments(self, param_values: ParamValues) -> tuple[Variable, Variable]:
        [histogram] = self.particles(param_values)
        return histogram.mean(axis=0), histogram.std(axis=0)

    def covariance(self, param_values: ParamValues) -> Variable:
        [histogram] = self.particles(param_values)
        centred = histogram - histogram.mean(axis=0)
        return centred.T @ centred / histogram.shape[0].astype(centred.dtype)


def particles_of_trace(trace: MultiTrace, sites: Sequence[Site]) -> np.ndarray:
    """Return the draws of all chains, one after the other, shape (n_draws, size)."""
    draws = [trace.get_values(site.value.name or "", combine=True) for site in sites]
    flat = [np.reshape(draw, (len(draw), -1)) for draw in draws]
    return np.concatenate(flat, axis=1).astype(pytensor.config.floatX)
