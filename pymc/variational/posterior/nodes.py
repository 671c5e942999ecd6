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
"""Draws of a guided approximation in nodes of its model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytensor.tensor as pt

from pytensor.graph.basic import Variable

from pymc.minibatch.rebuild import rebuild
from pymc.variational.draws import draw_anew
from pymc.variational.guides.base import Block, Guide
from pymc.variational.objectives.base import own_space
from pymc.variational.posterior.draw import draw_guides
from pymc.variational.replacements import as_replacements
from pymc.variational.vectorize import at_draws

__all__ = ["sample_node"]


def sample_node(
    approx: Any,
    node: Any,
    size: Any = None,
    deterministic: bool | Variable = False,
    more_replacements: Mapping[Variable | str, Any] | None = None,
) -> Any:
    """Put draws into nodes; the arguments are those of :meth:`GuideApproximation.sample_node`."""
    several = isinstance(node, list | tuple)
    nodes = list(node) if several else [node]
    model = approx.model
    new = as_replacements(model, more_replacements)
    if new:
        # Latent variables are what is sampled: a replacement does not reach into their priors
        nodes = rebuild(nodes, {rv: rv for rv in model.free_RVs} | new)
    for table in approx.storage.tables.values():
        table.check_known()
    lead = () if size is None else (size,)
    params = {plate: table.gather()[1] for plate, table in approx.storage.tables.items()}
    if isinstance(deterministic, Variable):
        fed = means_of(approx, params, lead, deterministic)
    else:
        fed = means_of(approx, params, lead) if deterministic else {}
    draws = draw_guides(approx, params, lead, fed)
    values = draws.values()
    replaced = {**values, **own_space(model, model.free_RVs, values)}
    if lead:
        sampled = [
            new if new.type.ndim > old.type.ndim else pt.broadcast_to(new, (size, *new.shape))
            for old, new in zip(nodes, at_draws(nodes, replaced))
        ]
    else:
        sampled = at_draws(nodes, replaced)
    draw_anew(sampled, nodes)
    return sampled if several else sampled[0]


def means_of(
    approx: Any,
    params: Mapping[Any, Variable],
    lead: tuple[Any, ...] = (),
    deterministic: Variable | None = None,
) -> dict[Guide, Block]:
    """Return the means of guides, or draws where the scalar `deterministic` is 0.

    Raises
    ------
    NotImplementedError
        If a guide has no mean that is known.
    """
    here = approx.storage.here(params)
    blocks = {}
    for guide in approx.guides:
        mean = guide.moments(here)[0]
        if lead:
            shape = (mean.shape[k] for k in range(mean.type.ndim))
            mean = pt.broadcast_to(mean, (*lead, *shape))
        if deterministic is not None:
            mean = pt.switch(deterministic, mean, guide.draw(here, lead, {})[0])
        blocks[guide] = (mean,)
    return blocks
