# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
r"""Bounds of several particles: the importance-weighted bound, and Rényi's.

With log-weights :math:`w_k = \log p(x, z_k) - \log q(z_k)` of a row,

.. math::

    \mathcal L_\alpha = \frac{1}{1 - \alpha} \log \frac1K \sum_k e^{(1 - \alpha) w_k}

is Rényi's bound, the importance-weighted one at :math:`\alpha = 0`, and tends to the ELBO, the mean of
:math:`w_k`, as :math:`\alpha \to 1`. It is taken for each row. The bounds are scaled to all rows and summed,
never the weights.

For :math:`\alpha \geq 0` it is a lower bound of :math:`\log p(x)`, and the loss is
:math:`-\mathcal L_\alpha`. Below 0 it tends to an upper bound with the number of particles, the
:math:`\chi` upper bound (CUBO) of order :math:`1 - \alpha`, and the loss is
:math:`\mathcal L_\alpha` itself. K particles that all miss the posterior make it small, so that the gradient of
the estimate leads away from there. Instead, that of its limit is taken, with normalised weights
:math:`v_k \propto e^{(1 - \alpha) w_k}`: by the score of the guide,

.. math::

    \frac{\alpha}{1 - \alpha} \sum_k v_k \nabla_\phi \log q_\phi(z_k),

or doubly reparametrised, :math:`\alpha \sum_k v_k \nabla w_k` through the draws alone. Both have a bias of
O(1/K), and lead to where the guide is the posterior.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import pytensor.tensor as pt

from pytensor.gradient import disconnected_grad
from pytensor.graph.basic import Variable
from pytensor.graph.replace import graph_replace

from pymc.argument_checks import check_choice, check_number
from pymc.variational.guides.base import Guide
from pymc.variational.objectives.base import (
    Draws,
    Loss,
    Losses,
    Setting,
    draw_all,
    log_weights,
    total,
)
from pymc.variational.objectives.elbo import LowerBound

__all__ = ["IWAE", "Renyi"]

GRADIENTS = ("reparam", "stl", "dreg")
UPPER_BOUND_GRADIENTS = ("score", "stl", "dreg")


class RenyiBound(LowerBound):
    """Rényi's bound of order `alpha` of K particles of a row; an upper bound below 0."""

    alpha: float

    @property
    def of_particles(self) -> bool:  # type: ignore[override]
        return self.alpha != 1

    @property
    def is_upper(self) -> bool:  # type: ignore[override]
        return self.alpha < 0

    @property
    def needs_reparametrisation(self) -> bool:  # type: ignore[override]
        return self.gradient != "score"

    @property
    def name(self) -> str:  # type: ignore[override]
        return {1.0: "elbo", 0.0: "iwae"}.get(float(self.alpha), f"renyi(alpha={self.alpha:g})")

    def bound(self, weights: Variable, axis: int) -> Variable:
        if self.alpha == 1:
            return weights.mean(axis=axis)
        rest = 1 - self.alpha
        n_particles = weights.shape[axis].astype(weights.dtype)
        # Weights themselves would overflow: a log-weight of all data may be in the thousands
        return (pt.logsumexp(rest * weights, axis=axis) - pt.log(n_particles)) / rest

    def losses(self, setting: Setting) -> Losses:
        """Return the bound, negative if it is a lower one, and losses with the chosen gradient."""
        if self.is_upper:
            return self._upper_losses(setting)
        if self.gradient == "dreg":
            return self._dreg_losses(setting)
        return super().losses(setting)

    def _normalised(self, weights: Variable, axis: int) -> Variable:
        return disconnected_grad(pt.special.softmax((1 - self.alpha) * weights, axis=axis))

    def _upper_losses(self, setting: Setting) -> Losses:
        """Return a loss with the gradient of the limit of many particles."""
        guides, draws = setting.guides, draw_all(setting)
        bound = total(setting, log_weights(setting, draws), self.bound)
        # The reported bound has a gradient that leads away from the posterior; see above
        if self.gradient == "score":
            inner = log_weights(setting, draws.detached(guides))
            factor = -self.alpha / (1 - self.alpha)
        else:
            inner = log_weights(setting, draws, setting.detached_params(guides))
            factor = self.alpha

        def weighted(weights: Variable, axis: int) -> Variable:
            return factor * (self._normalised(weights, axis) * weights).sum(axis=axis)

        loss = Loss("bound", total(setting, inner, weighted), setting.parameters_of(guides))
        return Losses(bound, (loss,))

    def _dreg_losses(self, setting: Setting) -> Losses:
        """Return doubly reparametrised losses for the guides of rows, or for all without rows."""
        draws = draw_all(setting)
        loss = -total(setting, log_weights(setting, draws), self.bound)
        # Through the draws alone: the score of the guide is reparametrised once more
        weights = log_weights(setting, draws, setting.detached_params(setting.guides))
        doubly = -total(setting, weights, self._doubly_reparametrised)
        guides = setting.local_guides or setting.guides
        own_params = setting.parameters_of(guides)
        others = (p for p in setting.parameters_of(setting.guides) if p not in own_params)
        return Losses(
            loss,
            (
                Loss("guide", doubly, own_params),
                *self._shared_loss(setting, draws, guides),
                Loss("bound", loss, (*others, *setting.model_only_params(guides))),
            ),
        )

    def _shared_loss(
        self, setting: Setting, draws: Draws, guides: Sequence[Guide]
    ) -> tuple[Loss, ...]:
        """Return the loss of parameters that the model shares with the guides.

        Its gradient is doubly reparametrised through the guides, and that of the bound through the model.
        """
        shared = setting.shared_params(guides)
        if not shared:
            return ()
        weights = log_weights(setting, draws.detached(guides), setting.detached_params(guides))
        of_model = -total(setting, weights, self.bound)
        # In the terms only: the guides are to be differentiated
        constant = {p: disconnected_grad(p) for p in shared}
        logps = graph_replace([term.logp for term in setting.terms], constant, strict=False)
        terms = tuple(replace(term, logp=logp) for term, logp in zip(setting.terms, logps))
        of_guides = log_weights(
            replace(setting, terms=terms), draws, setting.detached_params(setting.guides)
        )
        doubly = -total(setting, of_guides, self._doubly_reparametrised)
        return (Loss("shared", of_model + doubly, shared),)

    def _doubly_reparametrised(self, weights: Variable, axis: int) -> Variable:
        r"""Return a surrogate with the gradient :math:`\sum_k c_k \nabla w_k` of Tucker et al.

        With normalised weights :math:`v_k` of :math:`e^{(1 - \alpha) w_k}`, :math:`c_k` is
        :math:`\alpha v_k + (1 - \alpha) v_k^2`: their squares for the importance-weighted bound.
        """
        v = self._normalised(weights, axis)
        return ((self.alpha * v + (1 - self.alpha) * v**2) * weights).sum(axis=axis)


@dataclass(frozen=True)
class IWAE(RenyiBound):
    """The importance-weighted bound, which tends to log p(x) from below with the number of particles.

    The loss is its negative, in nats.

    Parameters
    ----------
    gradient : {"reparam", "stl", "dreg"}
        "dreg" has the mean of "reparam" and a signal-to-noise ratio that grows with the particles.
        "stl" is biased for more than one particle.

    Raises
    ------
    ValueError
        For another gradient.

    References
    ----------
    Yuri Burda, Roger Grosse, Ruslan Salakhutdinov (2016), Importance weighted autoencoders, equation 8.
    arXiv:1509.00519
    George Tucker et al. (2019), Doubly reparameterized gradient estimators, equations 6 and 13.
    arXiv:1810.04152

    Examples
    --------
    >>> from pymc.variational.objectives import IWAE
    >>> IWAE(gradient="dreg").name
    'iwae'
    """

    alpha: ClassVar[float] = 0.0  # type: ignore[misc]

    gradient: str = "reparam"

    def __post_init__(self) -> None:
        check_choice(self.gradient, "gradient", "the objective 'iwae'", GRADIENTS)


@dataclass(frozen=True, init=False)
class Renyi(RenyiBound):
    """Rényi's bound: a lower bound of log p(x) for `alpha` of 0 and more, an upper one below 0.

    The loss is the negative of a lower bound, and an upper bound as it is, in nats: it is always
    minimised.

    Parameters
    ----------
    alpha : float
        Order. 0 is the importance-weighted bound, 1 the ELBO; above 1 it is mode-seeking. Below 0 it is
        the χ upper bound of order ``1 - alpha``, the χ² bound at -1, whose guide covers the posterior.
    gradient : str, optional
        "reparam", the default, "stl" or "dreg" as of `IWAE`; for 1 "reparam" or "stl". Below 0 "score",
        the default, which needs no gradient through draws, or "stl" or "dreg", which are one there:
        without noise where the guide is the posterior, and slower from a start that is far off.

    Raises
    ------
    TypeError, ValueError
        If `alpha` is not a finite number, or for another gradient.

    Warnings
    --------
    Below 0 the K particles of a fit give an upper bound only if they reach the mass of the posterior: those
    that miss it make the loss small, and it grows as the guide comes near. Take 50 particles and more, and
    judge such a fit by its parameters or by :func:`pymc.variational.diagnose`, not by its loss.

    `pm.fit` refuses such a bound with one particle, for parameters of the model (they would make the data
    less likely), and for local variables together with global ones, whose part is a lower bound.

    References
    ----------
    Yingzhen Li, Richard E. Turner (2016), Rényi divergence variational inference, equation 10.
    arXiv:1602.02311
    Adji B. Dieng et al. (2017), Variational inference via χ upper bound minimization, equations 4 and 5.
    arXiv:1611.00328. Its weights are relative to the largest one of the draws, here they are normalised.

    Examples
    --------
    >>> pm.Renyi(alpha=0.5).name
    'renyi(alpha=0.5)'
    >>> pm.Renyi(alpha=-1).gradient
    'score'
    """

    alpha: float
    gradient: str

    def __init__(self, alpha: float, gradient: str | None = None) -> None:
        check_number(alpha, "alpha", "pm.Renyi", hint="It is the order of the bound, such as 0.5")
        if alpha < 0 and gradient == "reparam":
            raise ValueError(
                f"gradient='reparam' of pm.Renyi(alpha={alpha:g}), an upper bound, leads away from the "
                "posterior wherever few particles reach it: leave it out, which is gradient='score', or "
                "write gradient='dreg'"
            )
        known: tuple[str, ...] = GRADIENTS
        if alpha < 0:
            known = UPPER_BOUND_GRADIENTS
        elif alpha == 1:
            known = ("reparam", "stl")
        gradient = check_choice(gradient or known[0], "gradient", "pm.Renyi", known)
        object.__setattr__(self, "alpha", float(alpha))
        object.__setattr__(self, "gradient", gradient)
