# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
r"""Bounds of particles: the ELBO, the importance-weighted bound, and Rényi's.

With log-weights :math:`w_k = \log p(x, z_k) - \log q(z_k)` of a row,

.. math::

    \mathcal L_\alpha = \frac{1}{1 - \alpha} \log \frac1K \sum_k e^{(1 - \alpha) w_k}

is Rényi's bound, the importance-weighted one at :math:`\alpha = 0`, and tends to the ELBO, the mean of
:math:`w_k`, as :math:`\alpha \to 1`. It is taken for each row, and what is scaled to all rows and summed is
the bound, never a weight.

For :math:`\alpha \geq 0` it is a lower bound of :math:`\log p(x)`, and what is minimised is
:math:`-\mathcal L_\alpha`. Below 0 it tends to an upper bound as the particles become many, the
:math:`\chi` upper bound (CUBO) of order :math:`1 - \alpha`, and what is minimised is
:math:`\mathcal L_\alpha` itself. K particles that all miss the posterior make it small, so that the gradient of
the estimate leads away from there. That of its limit is taken instead, with normalised weights
:math:`v_k \propto e^{(1 - \alpha) w_k}`: by the score of the guide,

.. math::

    \frac{\alpha}{1 - \alpha} \sum_k v_k \nabla_\phi \log q_\phi(z_k),

or doubly reparametrised, :math:`\alpha \sum_k v_k \nabla w_k` through the draws alone. Both are biased by
O(1/K), and lead to where the guide is the posterior.

References
----------
-   Yuri Burda, Roger Grosse, Ruslan Salakhutdinov (2016)
    Importance weighted autoencoders, equation 8. arXiv:1509.00519
-   Yingzhen Li, Richard E. Turner (2016)
    Rényi divergence variational inference, equation 10. arXiv:1602.02311
-   Adji B. Dieng et al. (2017)
    Variational inference via χ upper bound minimization, equations 4 and 5. arXiv:1611.00328. Its
    weights are relative to the largest one of the draws, here they are normalised.
-   Geoffrey Roeder, Yuhuai Wu, David Duvenaud (2017)
    Sticking the landing, algorithm 1. arXiv:1703.09194
-   George Tucker et al. (2019)
    Doubly reparameterized gradient estimators, equations 6 and 13. arXiv:1810.04152
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pytensor.tensor as pt

from pytensor.gradient import disconnected_grad
from pytensor.graph.basic import Variable
from pytensor.graph.replace import graph_replace

from pymc.argument_checks import check_number
from pymc.variational.guides.base import Guide, ParamValues, detach
from pymc.variational.objectives.base import (
    Draws,
    Loss,
    Losses,
    Objective,
    Setting,
    draw_all,
    log_weights,
    total,
)

GRADIENTS = ("reparam", "stl", "dreg")

#: Gradients of an upper bound
OF_UPPER = ("score", "stl", "dreg")


class _ParticleBound(Objective):
    """A bound of K particles of a row, of order `alpha`."""

    alpha: float
    gradient: str

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
        """The bound, in nats, of log-weights along an axis."""
        if self.alpha == 1:
            return weights.mean(axis=axis)
        rest = 1 - self.alpha
        n_particles = weights.shape[axis].astype(weights.dtype)
        return (pt.logsumexp(rest * weights, axis=axis) - pt.log(n_particles)) / rest

    def losses(self, setting: Setting) -> Losses:
        """Build the losses: the bound, negative if it is a lower one, and what has the gradient asked for."""
        draws = draw_all(setting)
        guides, rest = setting.guides, setting.model_parameters
        bound = total(setting, log_weights(setting, draws), self.bound)
        if self.is_upper:
            upper = self._of_many_particles(setting, draws)
            return Losses(bound, (Loss("bound", upper, setting.parameters_of(guides)),))
        loss = -bound
        every = setting.parameters_of(guides)
        if self.gradient == "reparam":
            return Losses(loss, (Loss("bound", loss, (*every, *rest)),))
        inner = log_weights(setting, draws, held_in_logq(setting, guides))
        if self.gradient == "stl":
            stuck = -total(setting, inner, self.bound)
            return Losses(loss, (Loss("bound", stuck, (*every, *rest)),))
        mine = setting.local_guides or guides
        doubly = -total(setting, inner, self._doubly_reparametrised)
        tied = self._tied(setting, draws, mine)
        others = (p for p in every if p not in setting.parameters_of(mine))
        return Losses(
            loss,
            (
                Loss("guide", doubly, setting.parameters_of(mine)),
                *tied,
                Loss("bound", loss, (*others, *untied(setting, mine))),
            ),
        )

    def _of_many_particles(self, setting: Setting, draws: Draws) -> Variable:
        """What has the gradient of the bound's limit, with normalised weights."""
        if self.gradient == "score":
            held_draws, _ = hold(setting, draws, setting.guides)
            inner = log_weights(setting, held_draws)
            factor = -self.alpha / (1 - self.alpha)
        else:
            inner = log_weights(setting, draws, held_in_logq(setting, setting.guides))
            factor = self.alpha

        def weighted(weights: Variable, axis: int) -> Variable:
            return factor * (self._normalised(weights, axis) * weights).sum(axis=axis)

        return total(setting, inner, weighted)

    def _normalised(self, weights: Variable, axis: int) -> Variable:
        return disconnected_grad(pt.special.softmax((1 - self.alpha) * weights, axis=axis))

    def _tied(self, setting: Setting, draws: Draws, guides: Sequence[Guide]) -> tuple[Loss, ...]:
        """The doubly reparametrised gradient through the guides, and the bound's through the model."""
        tied = tied_parameters(setting, guides)
        if not tied:
            return ()
        of_model = -total(setting, log_weights(setting, *hold(setting, draws, guides)), self.bound)
        constant = {p: disconnected_grad(p) for p in tied}
        logps = graph_replace([term.logp for term in setting.terms], constant, strict=False)
        terms = (replace(term, logp=logp) for term, logp in zip(setting.terms, logps))
        without = replace(setting, terms=tuple(terms))
        inner = log_weights(without, draws, held_in_logq(setting, setting.guides))
        doubly = -total(setting, inner, self._doubly_reparametrised)
        return (Loss("tied", of_model + doubly, tied),)

    def _doubly_reparametrised(self, weights: Variable, axis: int) -> Variable:
        r"""What has the gradient :math:`\sum_k c_k \nabla w_k` of Tucker et al.

        With normalised weights :math:`v_k` of :math:`e^{(1 - \alpha) w_k}`, :math:`c_k` is
        :math:`\alpha v_k + (1 - \alpha) v_k^2`: their squares for the importance-weighted bound.
        """
        v = self._normalised(weights, axis)
        return ((self.alpha * v + (1 - self.alpha) * v**2) * weights).sum(axis=axis)


@dataclass(frozen=True)
class ELBO(_ParticleBound):
    """The evidence lower bound, the mean of the log-weights. The loss is its negative, in nats.

    Parameters
    ----------
    gradient : {"reparam", "stl"}
        "stl" leaves out the score of the guide, whose mean is 0 (sticking the landing): at the exact
        posterior it has no variance.
    beta : float or scalar variable
        Scale of the divergence of the guide from the prior (Burgess et al. 2018, equation 4); 1 for a
        bound of log p(x).

    Raises
    ------
    ValueError
        For another gradient, or a `beta` below 0.

    References
    ----------
    Geoffrey Roeder, Yuhuai Wu, David Duvenaud (2017), Sticking the landing, algorithm 1.
    Christopher P. Burgess et al. (2018), Understanding disentangling in β-VAE. arXiv:1804.03599

    Examples
    --------
    >>> from pymc.variational.objectives import ELBO
    >>> ELBO(gradient="stl").name
    'elbo'
    """

    alpha: ClassVar[float] = 1.0  # type: ignore[misc]

    gradient: str = "reparam"
    beta: float | Variable = 1.0

    def __post_init__(self) -> None:
        valid_gradient(self.gradient, ("reparam", "stl"), "elbo")
        if not isinstance(self.beta, Variable):
            hint = "It scales the divergence from the prior, and is 1 for the bound of log p(x)"
            check_number(self.beta, "beta", "the ELBO", at_least=0, hint=hint)

    def losses(self, setting: Setting) -> Losses:
        if not isinstance(self.beta, Variable) and self.beta == 1:
            return super().losses(setting)
        priors = {rv.name for rv in setting.model.free_RVs}
        terms = tuple(
            replace(term, logp=self.beta * term.logp) if term.name in priors else term
            for term in setting.terms
        )
        return super().losses(replace(setting, terms=terms, logq_scale=self.beta))


@dataclass(frozen=True)
class IWAE(_ParticleBound):
    """The importance-weighted bound, which tends to log p(x) from below as the particles become many.

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
    George Tucker et al. (2019), Doubly reparameterized gradient estimators, equation 6.

    Examples
    --------
    >>> from pymc.variational.objectives import IWAE
    >>> IWAE(gradient="dreg").name
    'iwae'
    """

    alpha: ClassVar[float] = 0.0  # type: ignore[misc]

    gradient: str = "reparam"

    def __post_init__(self) -> None:
        valid_gradient(self.gradient, GRADIENTS, "iwae")


@dataclass(frozen=True, init=False)
class Renyi(_ParticleBound):
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
        If `alpha` is no finite number, or for another gradient.

    Warnings
    --------
    Below 0 the K particles of a fit give an upper bound only where they reach what the posterior has: those
    that miss it make the loss small, and it grows as the guide comes near. Take 50 particles and more, and
    judge such a fit by its parameters or by :func:`pymc.variational.diagnose`, not by its loss.

    `pm.fit` refuses such a bound with one particle, for parameters of the model (they would make the data
    less likely), and for rows with variables of their own beside global variables, whose part is a lower
    bound.

    References
    ----------
    Yingzhen Li, Richard E. Turner (2016), Rényi divergence variational inference, equation 10.
    Adji B. Dieng et al. (2017), Variational inference via χ upper bound minimization.

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
        known = OF_UPPER if alpha < 0 else ("reparam", "stl") if alpha == 1 else GRADIENTS
        if alpha < 0 and gradient == "reparam":
            raise ValueError(
                f"gradient='reparam' of pm.Renyi(alpha={alpha:g}), an upper bound, leads away from the "
                "posterior wherever few particles reach it: leave it out, which is gradient='score', or "
                "write gradient='dreg'"
            )
        object.__setattr__(self, "alpha", float(alpha))
        valid = valid_gradient(gradient or known[0], known, "pm.Renyi")
        object.__setattr__(self, "gradient", valid)


def held_in_logq(setting: Setting, guides: Sequence[Guide]) -> ParamValues:
    """Hold what log q depends on: parameters of some guides, and of the model, which they may share."""
    mine = setting.parameters_of(guides)
    of_guides = {p: var for p, var in setting.param_values.items() if p in mine}
    of_model = {p: p for p in setting.model_parameters}
    return {**setting.param_values, **detach(of_guides), **detach(of_model)}


def hold(setting: Setting, draws: Draws, guides: Sequence[Guide]) -> tuple[Draws, ParamValues]:
    """Hold the draws of guides and their log q: parameters, and the draws that they depend on."""
    parents = {var: disconnected_grad(draw) for var, draw in draws.parents.items()}
    return replace(draws.stopped(guides), parents=parents), held_in_logq(setting, guides)


def tied_parameters(setting: Setting, guides: Sequence[Guide]) -> tuple[Any, ...]:
    """Parameters of the model that guides are computed from too."""
    read = {var for guide in guides for var in guide.reads()}
    return tuple(p for p in setting.model_parameters if p in read)


def untied(setting: Setting, guides: Sequence[Guide]) -> tuple[Any, ...]:
    """Parameters of the model that no guide is computed from."""
    tied = tied_parameters(setting, guides)
    return tuple(p for p in setting.model_parameters if p not in tied)


def valid_gradient(gradient: str, known: tuple[str, ...], what: str) -> str:
    """Check the name of a gradient.

    Raises
    ------
    ValueError
        The message lists those that there are.
    """
    if gradient not in known:
        raise ValueError(
            f"gradient={gradient!r} is none of the objective {what!r}, which has "
            f"{', '.join(map(repr, known))}"
        )
    return gradient
