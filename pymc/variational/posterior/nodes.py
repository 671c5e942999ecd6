# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
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
