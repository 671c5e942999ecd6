# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
r"""The evidence lower bound, the mean of the log-weights.

.. math::

    \mathcal L = \mathbb E_q[\log p(x, z) - \log q(z)] \leq \log p(x)
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace

from pytensor.graph.basic import Variable

from pymc.argument_checks import check_choice, check_number
from pymc.variational.objectives.base import (
    Loss,
    Losses,
    Objective,
    Setting,
    draw_all,
    log_weights,
    total,
)

__all__ = ["ELBO"]


class LowerBound(Objective):
    """A lower bound of log p(x); its gradient is "reparam", or "stl" without the score of the guide."""

    gradient: str

    @abstractmethod
    def bound(self, weights: Variable, axis: int) -> Variable:
        """Return the bound, in nats, of log-weights of particles along an axis."""

    def losses(self, setting: Setting) -> Losses:
        """Return the negative bound."""
        draws = draw_all(setting)
        loss = -total(setting, log_weights(setting, draws), self.bound)
        parameters = (*setting.parameters_of(setting.guides), *setting.model_parameters)
        if self.gradient == "reparam":
            return Losses(loss, (Loss("bound", loss, parameters),))
        # Through the draws alone: the score of the guide has mean 0, and would only add variance
        weights = log_weights(setting, draws, setting.detached_params(setting.guides))
        return Losses(loss, (Loss("bound", -total(setting, weights, self.bound), parameters),))


@dataclass(frozen=True)
class ELBO(LowerBound):
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
    arXiv:1703.09194
    Christopher P. Burgess et al. (2018), Understanding disentangling in β-VAE. arXiv:1804.03599

    Examples
    --------
    >>> from pymc.variational.objectives import ELBO
    >>> ELBO(gradient="stl").name
    'elbo'
    """

    gradient: str = "reparam"
    beta: float | Variable = 1.0

    name = "elbo"

    def __post_init__(self) -> None:
        check_choice(self.gradient, "gradient", "the objective 'elbo'", ("reparam", "stl"))
        if not isinstance(self.beta, Variable):
            hint = "It scales the divergence from the prior, and is 1 for the bound of log p(x)"
            check_number(self.beta, "beta", "the ELBO", at_least=0, hint=hint)

    def bound(self, weights: Variable, axis: int) -> Variable:
        return weights.mean(axis=axis)

    def losses(self, setting: Setting) -> Losses:
        if not isinstance(self.beta, Variable) and self.beta == 1:
            return super().losses(setting)
        # beta scales log q - log p(z), and not the likelihood
        priors = {rv.name for rv in setting.model.free_RVs}
        terms = tuple(
            replace(term, logp=self.beta * term.logp) if term.name in priors else term
            for term in setting.terms
        )
        return super().losses(replace(setting, terms=terms, logq_scale=self.beta))
