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
"""The distributions of rows that encoders gave, as a guide: draws, and their density."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytensor
import pytensor.tensor as pt

from pytensor.compile.sharedvalue import SharedVariable
from pytensor.graph.basic import Variable
from pytensor.graph.replace import graph_replace
from pytensor.graph.traversal import ancestors
from pytensor.tensor.random.type import RandomType

from pymc.distributions.shape_utils import change_dist_size
from pymc.logprob.basic import logp
from pymc.variational.guides.base import Block, Guide, Here, Lead, Parameter, Site, plate_shape
from pymc.variational.guides.reparametrise import Path, path
from pymc.variational.vectorize import at_draws

__all__ = ["AmortizedGuide"]


class AmortizedGuide(Guide):
    """Distributions of the variables of a plate, as functions of data and of global variables.

    Parameters
    ----------
    sites : sequence of Site
        All of one plate, of one axis.
    dists : sequence of Variable
        Of each site, on its own space, row by row.
    parameters : tuple of SharedVariable
    inputs : tuple of Variable
        What the encoders were called with.
    free : tuple of Variable
        Free variables of the model, where what the distributions are computed from ends.
    """

    name = "amortized"
    takes_discrete = True

    def __init__(
        self,
        sites: Sequence[Site],
        dists: Sequence[Variable],
        parameters: tuple[SharedVariable, ...],
        inputs: tuple[Variable, ...] = (),
        free: tuple[Variable, ...] = (),
    ) -> None:
        self.sites = tuple(sites)
        self.dists = tuple(dists)
        self.parameters = parameters
        self.inputs = inputs
        self.free = free
        self.paths: tuple[Path | None, ...] = tuple(map(path, self.dists))
        self.reparametrised = all(found is not None for found in self.paths)

    def bind(self, sites: Sequence[Site], starts: Any, model: Any) -> AmortizedGuide:
        """Return itself: encoders are made for the variables of one model."""
        return self

    def reads(self) -> set[Variable]:
        return set(ancestors(self.dists, self.free))

    def draw(self, here: Here, lead: Lead, given: Mapping[Variable, Variable]) -> Block:
        """Draw all variables, on their own spaces."""
        draws = zip(self.sites, self.dists, self.paths, strict=True)
        return tuple(_draw(*one, {**_changed(here), **given}, lead) for one in draws)

    def values(self, block: Block, n_lead: int) -> dict[Site, Variable]:
        return {site: _unconstrained(site, draw) for site, draw in zip(self.sites, block)}

    def logq(
        self, block: Block, here: Here, n_lead: int, given: Mapping[Variable, Variable]
    ) -> Variable:
        parts = [
            _logq(site, dist, draw, _changed(here), given)
            for site, dist, draw in zip(self.sites, self.dists, block)
        ]
        return pt.add(*parts) if len(parts) > 1 else parts[0]


def _changed(here: Here) -> dict[Variable, Variable]:
    """What stands for shared variables, where it is not the variable itself."""
    return {
        old: new for old, new in here.items() if not isinstance(old, Parameter) and old is not new
    }


def _shape(site: Site, dist: Variable) -> list[Any]:
    """Lengths of a draw; the rows are those of the batch, also where all of them are alike."""
    rows = list(plate_shape(site.plate))
    lengths: list[Any] = []
    for k, axis in enumerate(site.axes[: dist.type.ndim]):
        known = site.rv.type.shape[k] or dist.type.shape[k]
        lengths.append(rows[0] if axis is not None else known)
    lengths += [
        site.rv.type.shape[k] or dist.type.shape[k] for k in range(len(lengths), dist.type.ndim)
    ]
    return [dist.shape[k] if n is None else n for k, n in enumerate(lengths)]


def _draw(
    site: Site, dist: Variable, way: Path | None, swaps: Mapping[Variable, Variable], lead: Lead
) -> Variable:
    shape = _shape(site, dist)
    if way is not None:
        [draw] = at_draws([way.draw], {**swaps, way.noise: way.of_shape((*lead, *shape))})
        return draw
    [draw] = at_draws([_drawn_anew(dist)], swaps)
    n_batch = dist.type.ndim - dist.owner.op.ndim_supp
    try:
        return change_dist_size(draw, (*lead, *shape[:n_batch]))
    except (NotImplementedError, TypeError, ValueError) as error:
        raise NotImplementedError(
            f"the guide of {site.name!r} in pm.Amortized draws from {dist.owner.op}, which cannot be "
            "drawn for several values of global variables: take obj_n_mc=1, or a distribution with an "
            "Op of its own, such as pm.Normal"
        ) from error


def _drawn_anew(dist: Variable) -> Variable:
    """The same distribution with a generator of its own: draws of two graphs are independent."""
    node = dist.owner
    inputs = [
        pytensor.shared(v.get_value()) if isinstance(v.type, RandomType) else v for v in node.inputs
    ]
    return node.clone_with_new_inputs(inputs).outputs[node.outputs.index(dist)]


def _placeholder(site: Site) -> Variable:
    return site.rv.type.clone(shape=(None,) * site.rv.type.ndim)()


def _unconstrained(site: Site, draw: Variable) -> Variable:
    if site.transform is None:
        return draw
    one = _placeholder(site)
    [value] = at_draws([site.transform.forward(one, *site.rv.owner.inputs)], {one: draw})
    return value


def _logq(
    site: Site,
    dist: Variable,
    draw: Variable,
    changed: Mapping[Variable, Variable],
    given: Mapping[Variable, Variable],
) -> Variable:
    """Log-density of draws on the unconstrained space, in nats, for each row."""
    one = _placeholder(site)
    # Weights change in the guide only: the model, which what is given comes from, may have them too
    marks = {var: var.type() for var in given}
    parts = graph_replace([logp(dist, one)], {**changed, **marks}, strict=False)
    if site.transform is not None:
        inputs = site.rv.owner.inputs
        value = site.transform.forward(one, *inputs)
        parts.append(site.transform.log_jac_det(value, *inputs))
    [rows] = site.plate
    place = site.axes.index(rows)
    by_row = pt.add(*(_sum_within(part, place) for part in parts))
    marked = {mark: given[var] for var, mark in marks.items()}
    [density] = at_draws([by_row], {**given, **marked, one: draw})
    return density


def _sum_within(density: Variable, place: int) -> Variable:
    within = [k for k in range(density.type.ndim) if k != place]
    return density.sum(within) if within else density
