#   Copyright 2026 - present The PyMC Developers
#
#   Licensed under the Apache License, Version 2.0 (the "License");
#   you may not use this file except in compliance with the License.
#   You may obtain a copy of the License at
#
#       http://www.apache.org/licenses/LICENSE-2.0
#
#   Unless required by applicable law or agreed to in writing, software
#   distributed under the License is distributed on an "AS IS" BASIS,
#   WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
#   See the License for the specific language governing permissions and
#   limitations under the License.
r"""Low-rank: a normal distribution whose covariance is a few factors and a diagonal.

.. math::

    q(z) = \mathcal N(z \mid \mu, U U^\top + D^2), \qquad z = \mu + U \varepsilon_r + D \varepsilon_d

with :math:`U` of shape (d, rank) and a diagonal :math:`D`, so that parameters and time grow with d and not
with its square (Ong, Nott and Smith 2018, "Gaussian variational approximation with a factor covariance
structure", section 3). Its density is by the Woodbury identity and the matrix determinant lemma.
"""

from __future__ import annotations

import numbers

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytensor
import pytensor.tensor as pt

from pytensor.graph.basic import Variable
from pytensor.tensor.linalg import cholesky

from pymc.variational.guides.base import Block, Guide, Here, Lead, Parameter, Site, noise
from pymc.variational.guides.full_rank import solve_lower
from pymc.variational.guides.layout import Layout
from pymc.variational.guides.mean_field import LOG_SQRT_2PI
from pymc.variational.guides.starts import Starts

__all__ = ["LowRank", "LowRankGuide"]

# Standard deviation of where the factors start; at 0 the loss is flat in them
START = 0.01


class LowRankGuide:
    """A normal distribution of globals with a covariance of low rank and a diagonal.

    Parameters
    ----------
    sites : sequence of Site
        Globals.
    starts : Starts
    rank : int
    """

    reparametrised = True

    def __init__(self, sites: Sequence[Site], starts: Starts, rank: int) -> None:
        self.layout = Layout.of(sites, starts.point)
        self.sites = self.layout.sites
        self.rank = rank
        factors = np.random.default_rng(0).normal(0, START, size=(self.layout.size, rank))
        self.loc = Parameter("globals_mu", starts.means(self.layout))
        self.rho = Parameter("globals_rho", starts.rhos(self.layout))
        self.factors = Parameter("globals_factors", factors.astype(pytensor.config.floatX))
        self.parameters = (self.loc, self.rho, self.factors)

    def draw(self, here: Here, lead: Lead, given: Mapping[Variable, Variable]) -> Block:
        common, own = noise((*lead, self.rank)), noise((*lead, self.layout.size))
        spread = common @ here[self.factors].T + pt.softplus(here[self.rho]) * own
        return (here[self.loc] + spread,)

    def values(self, block: Block, n_lead: int) -> dict[Site, Variable]:
        return self.layout.split(block[0], n_lead)

    def logq(
        self, block: Block, here: Here, n_lead: int, given: Mapping[Variable, Variable]
    ) -> Variable:
        sd, factors = pt.softplus(here[self.rho]), here[self.factors]
        standard = (block[0] - here[self.loc]) / sd
        scaled = factors / sd[:, None]
        inner = cholesky(pt.eye(self.rank) + scaled.T @ scaled)
        explained = solve_lower(inner, standard @ scaled)
        quadratic = (standard**2).sum(axis=-1) - (explained**2).sum(axis=-1)
        log_det = pt.log(sd).sum() + pt.log(pt.diagonal(inner)).sum()
        return -0.5 * quadratic - log_det - self.layout.size * LOG_SQRT_2PI

    def moments(self, here: Here) -> tuple[Variable, Variable]:
        """Mean and standard deviation on the unconstrained space, flat."""
        variance = pt.softplus(here[self.rho]) ** 2 + (here[self.factors] ** 2).sum(axis=-1)
        return here[self.loc], pt.sqrt(variance)


@dataclass(frozen=True)
class LowRank:
    """A guide of global variables: a normal distribution with a covariance of low rank and a diagonal.

    Parameters
    ----------
    rank : int
        Number of factors, at least 1; 5 by default. Parameters grow by it times the number of entries.

    Raises
    ------
    TypeError, ValueError
        If `rank` is no whole number of at least 1.

    Examples
    --------
    >>> with pm.Model():
    ...     w = pm.Normal("w", shape=20)
    ...     approx = pm.fit(10, guide=pm.LowRank(rank=3), progressbar=False)
    """

    rank: int = 5
    couples = True
    name = "low_rank"

    def __post_init__(self) -> None:
        rank: Any = self.rank
        if isinstance(rank, bool) or not isinstance(rank, numbers.Integral):
            raise TypeError(
                f"rank={rank!r} of pm.LowRank is the number of factors, a whole number such as 5; got "
                f"a {type(rank).__name__}"
            )
        if rank < 1:
            raise ValueError(
                f"rank={rank} of pm.LowRank is the number of factors, at least 1; without factors it "
                "is guide='mean_field'"
            )

    def bind(self, sites: Sequence[Site], starts: Starts, model: Any) -> Guide:
        return LowRankGuide(sites, starts, int(self.rank))
