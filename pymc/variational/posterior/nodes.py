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

from pymc.variational.guides.base import Block, Guide
from pymc.variational.objectives.base import own_space
from pymc.variational.posterior.draw import draw_guides
from pymc.variational.vectorize import at_draws, at_each_draw

__all__ = ["sampled_nodes"]


def sampled_nodes(approx: Any, nodes: list[Variable], size: Any, deterministic: Any) -> list[Any]:
    """Put draws into nodes; `size` and `deterministic` are those of :meth:`Approximation.sample_node`."""
    for table in approx.storage.tables.values():
        table.check_known()
    lead = () if size is None else (size,)
    params = approx.storage.of_batch()
    if isinstance(deterministic, Variable):
        fed = means_of(approx, params, lead, deterministic)
    else:
        fed = means_of(approx, params, lead) if deterministic else {}
    values = draw_guides(approx, params, lead, fed).values()
    free = approx.model.free_RVs
    replaced = {**values, **own_space(approx.model, free, values)}
    return at_each_draw(nodes, replaced, size) if lead else at_draws(nodes, replaced)


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
