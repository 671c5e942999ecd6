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
"""Which guide each variable has: what `pm.fit(guide=...)` says, and mean-field for the rest."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from pymc.variational.guides.base import Guide, Site
from pymc.variational.guides.mean_field import MeanFieldGuide
from pymc.variational.guides.starts import Starts

__all__ = ["FAMILIES", "Family", "assemble"]


class Family(Protocol):
    """What a user gives for a guide: it makes one when the variables are known."""

    #: Whether the entries of a draw depend on each other, which rows must not.
    couples: bool

    def bind(self, sites: Sequence[Site], starts: Starts, model: Any) -> Guide:
        """Make the guide of some variables, all of one plate."""


class MeanFieldFamily:
    """`MeanFieldGuide`, for globals and for rows."""

    couples = False

    def bind(self, sites: Sequence[Site], starts: Starts, model: Any) -> Guide:
        return MeanFieldGuide(sites, starts)


#: By what the user writes; the short names are PyMC's.
FAMILIES: dict[str, Callable[[], Family]] = {
    "mean_field": MeanFieldFamily,
    "mf": MeanFieldFamily,
}


def assemble(
    model: Any, sites: Sequence[Site], guide: Any, starts: Starts, others: str = "mean_field"
) -> tuple[Guide, ...]:
    """Make the guides of all variables of a model.

    Parameters
    ----------
    model : Model
    sites : sequence of Site
    guide : None, str, family, or dict
        Of all variables, or by variable: names, variables or tuples of them, which share one guide;
        None stands for all others.
    starts : Starts

    Returns
    -------
    tuple of Guide
    """
    left = {site.name: site for site in sites}
    guides = []
    for names, family in _requests(guide, left):
        mine = [left.pop(name) for name in names]
        guides += [family.bind(group, starts, model) for group in _by_plate(mine)]
    rest = [MeanFieldFamily().bind(group, starts, model) for group in _by_plate(left.values())]
    return (*guides, *rest)


def _by_plate(sites: Any) -> list[list[Site]]:
    groups: dict[Any, list[Site]] = {}
    for site in sites:
        groups.setdefault(site.plate, []).append(site)
    return list(groups.values())


def _requests(guide: Any, sites: Mapping[str, Site]) -> list[tuple[list[str], Family]]:
    if guide is None:
        return []
    if isinstance(guide, str):
        return [(list(sites), FAMILIES[guide]())]
    raise NotImplementedError
