# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
r"""Reweighted wake-sleep: the model and the guide have losses of their own, and draws are held.

With draws :math:`z_k \sim q_\phi(z \mid x)` of a row and its normalised weights
:math:`v_k \propto p_\theta(x, z_k) / q_\phi(z_k \mid x)`,

.. math::

    \text{wake-}\theta: \; -\log \frac1K \sum_k \frac{p_\theta(x, z_k)}{q_\phi(z_k \mid x)}, \quad
    \text{wake-}\phi: \; -\sum_k v_k \log q_\phi(z_k \mid x), \quad
    \text{sleep-}\phi: \; -\log q_\phi(z' \mid x'), \; (z', x') \sim p_\theta.

No gradient passes through a draw or a weight, so variables of rows may be discrete.

References
----------
-   Jörg Bornschein, Yoshua Bengio (2015)
    Reweighted wake-sleep, section 2. arXiv:1406.2751
-   Tuan Anh Le et al. (2019)
    Revisiting reweighted wake-sleep for models with stochastic control flow, equations 5, 7 and 9.
    arXiv:1805.10469
"""

from __future__ import annotations

import numbers

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import pytensor.tensor as pt

from pytensor.gradient import disconnected_grad
from pytensor.graph.basic import Variable

from pymc.variational.guides.base import Guide
from pymc.variational.objectives.base import (
    Draws,
    Loss,
    Losses,
    Objective,
    Setting,
    Weights,
    draw_all,
    log_weights,
    total,
)
from pymc.variational.objectives.particles import IWAE, hold, tied_parameters, untied
from pymc.variational.objectives.simulation import simulate

__all__ = ["ReweightedWakeSleep"]


@dataclass(frozen=True)
class ReweightedWakeSleep(Objective):
    """Reweighted wake-sleep, the objective "rws".

    The parameters of the model, and the guides of global variables, follow the importance-weighted
    bound (wake-theta), whose negative is what the history has. The guides of rows, or all guides where
    nothing is of a row, minimise ``insomnia`` times wake-phi plus ``1 - insomnia`` times sleep-phi. All
    losses are in nats.

    Parameters
    ----------
    insomnia : float
        From 0 to 1, the share of wake-phi. Below 1 the guides of rows have to be amortized, by inputs
        of which at least one is computed from observed values: those are replaced by simulated ones.

    Raises
    ------
    TypeError, ValueError
        If `insomnia` is no number from 0 to 1.

    Notes
    -----
    The fit keeps the guide's losses, wake-phi and sleep-phi without their shares, beside the history:
    ``approx.guide_losses["wake_phi"]`` has one for each step, of the size of the history's.

    With one particle the weights say nothing, and wake-phi has a gradient of mean 0.

    References
    ----------
    Jörg Bornschein, Yoshua Bengio (2015), Reweighted wake-sleep, section 2.
    Tuan Anh Le et al. (2019), Revisiting reweighted wake-sleep, equations 5, 7 and 9.

    Examples
    --------
    >>> pm.ReweightedWakeSleep(insomnia=0.8).name
    'rws(insomnia=0.8)'
    """

    insomnia: float = 1.0

    of_particles: ClassVar[bool] = True  # type: ignore[misc]
    needs_reparametrisation: ClassVar[bool] = False  # type: ignore[misc]

    def __post_init__(self) -> None:
        if isinstance(self.insomnia, bool) or not isinstance(self.insomnia, numbers.Real):
            raise TypeError(
                f"insomnia={self.insomnia!r} of pm.ReweightedWakeSleep is the share of wake-phi in the "
                f"loss of the guide, a number from 0 to 1; got a {type(self.insomnia).__name__}"
            )
        if not 0 <= self.insomnia <= 1:
            raise ValueError(
                f"insomnia={self.insomnia!r} of pm.ReweightedWakeSleep is the share of wake-phi in the "
                "loss of the guide, from 0 (sleep only) to 1 (wake only)"
            )

    @property
    def name(self) -> str:  # type: ignore[override]
        return "rws" if self.insomnia == 1 else f"rws(insomnia={self.insomnia:g})"

    @property
    def guide_losses(self) -> tuple[str, ...]:  # type: ignore[override]
        """Names of the losses of the guide that a fit keeps, each without its share."""
        wake = ("wake_phi",) if self.insomnia > 0 else ()
        return wake if self.insomnia == 1 else (*wake, "sleep_phi")

    def losses(self, setting: Setting) -> Losses:
        """Build wake-theta, and for the guides of rows wake-phi and sleep-phi.

        Raises
        ------
        ValueError
            If `insomnia` is below 1 and what a guide is computed from cannot be simulated.
        """
        mine = setting.local_guides or setting.guides
        others = tuple(guide for guide in setting.guides if guide not in mine)
        draws = draw_all(setting)
        weights = log_weights(setting, draws)
        bound = IWAE().bound
        theta = -total(setting, log_weights(setting, *hold(setting, draws, mine)), bound)
        beside = {}
        if self.insomnia > 0:
            beside["wake_phi"] = wake_phi(setting, draws, weights, mine)
        if self.insomnia < 1:
            beside["sleep_phi"] = sleep_phi(setting, draws, mine, self.name)
        share = {"wake_phi": self.insomnia, "sleep_phi": 1 - self.insomnia}
        phi = pt.add(*(share[name] * loss for name, loss in beside.items()), pt.constant(0.0))
        rest = (*setting.parameters_of(others), *untied(setting, mine))
        tied = tied_parameters(setting, mine)
        return Losses(
            -total(setting, weights, bound),
            (
                Loss("guide", phi, setting.parameters_of(mine)),
                *((Loss("tied", theta + phi, tied),) if tied else ()),
                Loss("wake_theta", theta, rest),
            ),
            tuple(beside.items()),
        )


def wake_phi(setting: Setting, draws: Draws, weights: Weights, guides: Sequence[Guide]) -> Variable:
    """Fit guides of one plate to their own draws, each by its weight among those of its row.

    Returns
    -------
    scalar Variable
        In nats of all data; a cross-entropy.
    """
    plate = guides[0].sites[0].plate
    held, _ = hold(setting, draws, guides)
    logw = disconnected_grad(weights.rows[plate] if plate else weights.glob)

    def weighted(logq: Variable, axis: int) -> Variable:
        return (pt.special.softmax(logw, axis=axis) * logq).sum(axis=axis)

    return -total(setting, _logq(setting, held, guides), weighted)


def sleep_phi(setting: Setting, draws: Draws, guides: Sequence[Guide], name: str) -> Variable:
    """Fit guides of one plate to what the model simulates for the rows of the batch.

    The global variables are those of `draws`. Variables of the rows, and what is observed of them, are
    simulated together, once for each outer draw.

    Returns
    -------
    scalar Variable
        In nats of all data; a cross-entropy.

    Raises
    ------
    ValueError
        If the inputs of a guide cannot be simulated.
    """
    logq = _logq(setting, simulate(setting, draws, guides, name), guides)
    return -total(setting, logq, lambda weights, axis: weights.mean(axis=axis))


def _logq(setting: Setting, draws: Draws, guides: Sequence[Guide]) -> Weights:
    logqs = [
        guide.logq(draws.blocks[guide], setting.here, draws.n_lead[guide], draws.given)
        for guide in guides
    ]
    plate = guides[0].sites[0].plate
    logq = pt.add(*logqs) if len(logqs) > 1 else logqs[0]
    return Weights(pt.constant(0.0), {plate: logq}) if plate else Weights(logq, {})
