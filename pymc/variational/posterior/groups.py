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
"""Approximations made of groups, seen as guides that were drawn before: for results by rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pytensor.graph.basic import Variable

from pymc.util import RandomState, _get_seeds_per_chain
from pymc.variational.guides.base import Block, Guide, Site, sites_of

__all__ = ["DrawnGroups"]


@dataclass(frozen=True, eq=False)
class Drawn:
    """All variables of an approximation as a guide whose draws are made elsewhere."""

    sites: tuple[Site, ...]
    parameters: tuple[()] = ()

    def values(self, block: Block, n_lead: int) -> dict[Site, Variable]:
        return dict(zip(self.sites, block))


class NoTables:
    """The storage of groups, as results see it: no row has parameters of its own."""

    tables: Mapping[Any, Any] = {}

    @staticmethod
    def here(params: Mapping[Any, Variable]) -> dict[Any, Variable]:
        return {}


class DrawnGroups:
    """An approximation made of groups, with what :class:`Request` needs of guides.

    Parameters
    ----------
    approx : Approximation
        Its groups draw: one seed gives the draws that ``approx.sample`` has.
    model : Model
        Of the results.
    """

    storage = NoTables()

    def __init__(self, approx: Any, model: Any) -> None:
        self.approx = approx
        self.model = model
        self.sites = sites_of(model)
        self.guides: tuple[Any, ...] = (Drawn(tuple(self.sites)),) if self.sites else ()

    def draw_before(
        self, n_draws: int, random_seed: RandomState = None
    ) -> dict[Guide, list[np.ndarray]]:
        """Draw the groups: for each guide the values of its sites, of shape (n_draws, ...)."""
        seed = None if random_seed is None else _get_seeds_per_chain(random_seed, 1)[0]
        found: Mapping[str, np.ndarray] = self.approx.sample_dict_fn(n_draws, random_seed=seed)
        return {guide: [found[site.value.name] for site in guide.sites] for guide in self.guides}
