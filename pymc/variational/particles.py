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
from pytensor.graph.traversal import toposort
from pytensor.tensor.basic import Alloc, ARange, Nonzero
from pytensor.tensor.extra_ops import Repeat, Unique
from pytensor.tensor.shape import Reshape, Shape, Shape_i
from pytensor.tensor.subtensor import AdvancedSubtensor, IncSubtensor, Subtensor

__all__ = ["fits_in_memory", "over_particles"]

# What has entries for lengths after its first input
OPS_OF_LENGTH = (Alloc, Reshape, Subtensor, IncSubtensor)

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
    check_lengths(nodes, inputs)
    n_particles = draws[0].shape[0]
    replaced = vectorize_graph(list(nodes), dict(zip(inputs, draws)))
    return [
        new if new.type.ndim > old.type.ndim else pt.broadcast_to(new, (n_particles, *new.shape))
        for old, new in zip(nodes, replaced)
    ]


def check_lengths(nodes: Sequence[Variable], inputs: Sequence[Variable]) -> None:
    """Refuse a graph whose lengths depend on the draw, or that is large for each particle.

    Raises
    ------
    NotImplementedError
    """
    depends = set(inputs)
    for node in toposort(nodes):
        found = [i for i, var in enumerate(node.inputs) if var in depends]
        if not found or isinstance(node.op, Shape | Shape_i):
            continue
        depends.update(node.outputs)
        by_length = isinstance(node.op, OPS_OF_LENGTH) and (found[-1] > 0 or len(node.inputs) == 1)
        by_mask = isinstance(node.op, AdvancedSubtensor) and any(
            node.inputs[i].type.dtype == "bool" for i in found if i > 0
        )
        if by_length or by_mask or isinstance(node.op, Nonzero | Unique | ARange | Repeat):
            raise NotImplementedError(f"a length depends on the draw in {node}")
        for var in node.outputs:
            shape: Any = getattr(var.type, "shape", (None,))
            if None not in shape and np.prod(shape, dtype=float) > LARGEST:
                raise NotImplementedError(f"{var} is large for each particle")


def fits_in_memory(model: Any) -> bool:
    """Tell whether the variables of a model are small enough to be held for each particle."""
    for rv in model.basic_RVs:
        shape = model.rvs_to_values[rv].type.shape
        if None in shape:
            shape = rv.shape.eval(mode="FAST_COMPILE")
        if np.prod(shape, dtype=float) > LARGEST:
            return False
    return True
