# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
r"""Stein variational gradient descent: particles that follow the kernelized Stein discrepancy.

.. math::

    \hat\phi(z) = \frac1n \sum_j \frac{k(z_j, z)}{T} \nabla_{z_j} \log p(x, z_j) + \nabla_{z_j} k(z_j, z)

moves the particles :math:`z_j` of an empirical guide, or the draws of any other guide and through them its
parameters (amortized).

References
----------
-   Qiang Liu, Dilin Wang (2016)
    Stein variational gradient descent, algorithm 1. arXiv:1608.04471
-   Dilin Wang, Qiang Liu (2016)
    Learning to draw samples, algorithm 1. arXiv:1611.01722
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytensor
import pytensor.tensor as pt

from pytensor.gradient import disconnected_grad
from pytensor.graph.basic import Variable

from pymc.argument_checks import check_number
from pymc.variational.objectives.base import (
    Draws,
    Loss,
    Losses,
    Objective,
    Setting,
    draw_in_order,
    log_weights,
    sum_over_rows,
)
from pymc.variational.objectives.median import median

__all__ = ["Stein"]


@dataclass(frozen=True)
class Stein(Objective):
    """The direction of Stein variational gradient descent, as a loss without a value.

    Parameters
    ----------
    temperature : float
        Above 1 particles spread more than the posterior, below 1 less.

    Raises
    ------
    ValueError
        If `temperature` is not a positive number.

    Examples
    --------
    >>> from pymc.variational.objectives import Stein
    >>> Stein(temperature=2.0).name
    'stein(temperature=2)'
    """

    temperature: float = 1.0

    returns_loss = False
    needs_logq = False

    def __post_init__(self) -> None:
        hint = "It divides the gradient of log p"
        check_number(
            self.temperature,
            "temperature",
            "Stein variational gradient descent",
            above=0,
            hint=hint,
        )

    @property
    def name(self) -> str:  # type: ignore[override]
        return "stein" if self.temperature == 1 else f"stein(temperature={self.temperature:g})"

    def check(self, setting: Setting) -> None:
        """Raise for parameters of the model, since the direction is no bound, and for rows of a batch."""
        if setting.model_parameters:
            names = ", ".join(repr(var.name) for var in setting.model_parameters)
            raise ValueError(
                f"Stein's direction moves the guide alone, so that params={names} of pm.fit would stay as they "
                "are: take objective='elbo' for parameters of the model"
            )
        if setting.local_plates:
            names = ", ".join(repr(s.name) for s in setting.sites if s.plate)
            raise ValueError(
                f"Stein's direction is about all rows at once, but a batch has some of the rows of {names}: give "
                "it the model of all rows, pm.remove_minibatch(model), or take objective='elbo'"
            )

    def losses(self, setting: Setting) -> Losses:
        """Return a loss whose gradient, through the particles or draws, is Stein's direction."""
        draws = _draw_particles(setting)
        values = list(draws.values().values())
        z = _as_matrix(values)
        logp = sum_over_rows(log_weights(replace(setting, logq_scale=None), draws))
        slope = _as_matrix(pytensor.grad(logp.sum(), values))
        kernel, repulsion = _kernel(z)
        direction = kernel @ slope / self.temperature + repulsion
        # The gradient of the loss below is then the negative direction, for any optimizer
        direction = disconnected_grad(direction / z.shape[0].astype(z.dtype))
        parameters = setting.parameters_of(setting.guides)
        return Losses(None, (Loss("stein", -(direction * z).sum(), parameters),))


def _kernel(z: Variable) -> tuple[Variable, Variable]:
    r"""Return the kernel of each two particles, and the sum of its gradients: PyMC's `rbf`.

    :math:`k(z_i, z_j) = \exp(-d_{ij} / 2h)` with squared distances d, and h half of their median over the
    logarithm of n + 1.
    """
    squares = pt.sqr(z).sum(axis=1)
    distances = squares[:, None] + squares[None, :] - 2.0 * (z @ z.T)
    n = z.shape[0].astype(z.dtype)
    h = 0.5 * median(distances) / pt.log(n + 1)
    kernel = pt.exp(-distances / h / 2.0)
    repulsion = (z * kernel.sum(axis=-1, keepdims=True) - kernel @ z) / h
    return kernel, repulsion


def _as_matrix(values: list[Variable]) -> Variable:
    """Concatenate the entries of each particle."""
    flat = [value.reshape((value.shape[0], -1)) for value in values]
    return pt.concatenate(flat, axis=1) if len(flat) > 1 else flat[0]


def _draw_particles(setting: Setting) -> Draws:
    """Return all particles, and draws of guides that are not made of particles."""
    found = {guide: guide.particles(setting.param_values) for guide in setting.guides}
    particles = {guide: latents for guide, latents in found.items() if latents is not None}
    sizes = [latents[0].shape[0] for latents in particles.values()]
    sample_shape = (sizes[0] if sizes else setting.n_outer,)
    return draw_in_order(
        setting.model, setting.guides, setting.param_values, sample_shape, drawn=particles
    )
