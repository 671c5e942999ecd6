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
"""A graph at many draws of an approximation at once: with an axis for the particles, without a Scan."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytensor.tensor as pt

from pytensor.graph.basic import Variable
from pytensor.graph.replace import vectorize_graph

__all__ = ["fits_in_memory", "over_particles"]

# Entries of the largest variable of a model. Above it, a loop over the particles costs next to nothing
# beside what is in it, while all of them at once would no longer fit into a cache, or into memory.
LARGEST = 2**14


def over_particles(
    nodes: Sequence[Variable], inputs: Sequence[Variable], draws: Sequence[Variable]
) -> list[Variable]:
    """Compute nodes for each particle.

    Parameters
    ----------
    nodes : sequence of Variable
    inputs : sequence of Variable
        Vectors of shape (d,) that the nodes depend on: one draw of each group.
    draws : sequence of Variable
        As many matrices of shape (n_particles, d).

    Returns
    -------
    list of Variable
        Each with a leading axis of length n_particles.

    Raises
    ------
    NotImplementedError, TypeError, ValueError
        If an Op of the graph has no form for many values at once.
    """
    n_particles = draws[0].shape[0]
    replaced = vectorize_graph(list(nodes), dict(zip(inputs, draws)))
    return [
        new if new.type.ndim > old.type.ndim else pt.broadcast_to(new, (n_particles, *new.shape))
        for old, new in zip(nodes, replaced)
    ]


def fits_in_memory(model: Any) -> bool:
    """Tell whether the variables of a model are small enough to be held for each particle."""
    for rv in model.basic_RVs:
        shape = model.rvs_to_values[rv].type.shape
        if None in shape:
            shape = rv.shape.eval(mode="FAST_COMPILE")
        if np.prod(shape, dtype=float) > LARGEST:
            return False
    return True
