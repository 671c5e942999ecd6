# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""The prior as a guide: of groups without rows, whose posterior given the other variables it is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytensor

from pytensor.compile.mode import Mode
from pytensor.graph.basic import Variable
from pytensor.graph.traversal import ancestors

from pymc.minibatch.group_reads import Groups, groups_with_rows
from pymc.variational.guides.base import (
    Guide,
    Latents,
    ParamValues,
    Parents,
    SampleShape,
    Site,
    in_dependency_order,
)
from pymc.variational.guides.latent_distribution import draw_given, to_unconstrained

if TYPE_CHECKING:
    from pymc.model.core import Model

__all__ = ["PriorGuide", "can_be_drawn", "drawable_groups", "new_groups", "prior_guides"]


class PriorGuide(Guide):
    """The prior of one variable, given draws of those that it depends on.

    No fit changes it, and it has no part in a loss: there its density and the prior's would cancel. So the
    posterior of all other variables is not approximated together with that of groups that no row tells of.
    """

    name = "prior"
    takes_groups = True
    has_logq = False

    def __init__(self, site: Site, free: Sequence[Variable]) -> None:
        self.sites, self.parameters = (site,), ()
        self._parents = set(ancestors(site.rv.owner.inputs, blockers=free)).intersection(free)

    def bind(self, sites: object, starts: object, model: object) -> PriorGuide:
        return self

    def reads(self) -> set[Variable]:
        return self._parents

    def draw(
        self, param_values: ParamValues, sample_shape: SampleShape, parents: Parents
    ) -> Latents:
        [site] = self.sites
        known = {rv: parents[rv] for rv in self._parents}
        draw = to_unconstrained(site, draw_given(site.rv, known, sample_shape), known)
        assert site.groups is not None
        return (draw[site.groups.index(len(sample_shape))],)

    def values(self, latents: Latents, n_sample_dims: int) -> dict[Site, Variable]:
        return dict(zip(self.sites, latents))


def can_be_drawn(rv: Variable) -> bool:
    """Return whether a variable can be drawn given others, several times: not a :class:`pymc.Flat`, for one."""
    try:
        draws = draw_given(rv, {}, (2,))
        shapes = [draws.shape, rv.shape]
        drawn, shape = pytensor.function([], shapes, mode=Mode("py", None))()
    # Distributions of users may fail in any way
    except Exception:
        return False
    return tuple(drawn) == (2, *shape)


def drawable_groups(model: Model) -> dict[Variable, Groups]:
    """Return the groups with rows of free variables, of which the others can be drawn from their prior."""
    whole: set[Variable] = set()
    while True:
        found = groups_with_rows(model, whole)
        if not (kept := {rv for rv in found if not can_be_drawn(rv)}):
            return found
        # What a variable with all of its groups depends on has other groups with rows
        whole |= kept


def new_groups(
    model: Model,
    sites: Iterable[Site],
    replacements: Mapping[Variable, Variable] | None = None,
) -> dict[str, np.ndarray]:
    """Return the groups that have got rows since a fit was made without them, by variable.

    `replacements` are for data of the model.
    """
    made = {site.rv: site.groups for site in sites if site.groups is not None}
    whole = [rv for rv in model.free_RVs if rv not in made]
    now = groups_with_rows(model, whole, made, replacements) if made else {}
    found = {}
    for rv, groups in made.items():
        has_rows = np.ones(groups.total, dtype=bool)
        if rv in now:
            has_rows[now[rv].others.positions] = False
        has_rows[groups.positions] = False
        if has_rows.any():
            found[rv.name] = np.flatnonzero(has_rows)
    return found


def prior_guides(guides: Sequence[Guide], free: Sequence[Variable]) -> tuple[PriorGuide, ...]:
    """Return the guides of the groups without rows, where other guides are for those with rows.

    `free` are the free variables of the model.
    """
    found = [
        PriorGuide(replace(site, groups=site.groups.others), free)
        for guide in guides
        for site in guide.sites
        if site.groups is not None
    ]
    return in_dependency_order(found, lambda guide: guide.sites, lambda guide: guide.reads())
