# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""What a step computes twice, in two shapes.

PyTensor takes a function of one argument after a reshape and not before. A layer of a network at many
particles is reshaped for its product with the weights, and its gradient needs it as it was: so that
every ``tanh`` was computed twice, a fifth of the step of an autoencoder. The rewrite applies to the
steps of a fit only, under the tag ``"reshapes"``, after PyTensor's own.
"""

from __future__ import annotations

from pytensor.compile.mode import optdb
from pytensor.graph.basic import Apply, Variable
from pytensor.graph.fg import FunctionGraph
from pytensor.graph.rewriting.basic import dfs_rewriter, node_rewriter
from pytensor.tensor.elemwise import Elemwise
from pytensor.tensor.shape import Reshape

__all__ = ["TAG"]

TAG = "reshapes"


@node_rewriter([Elemwise])
def local_known_before_reshape(fgraph: FunctionGraph, node: Apply) -> list[Variable] | None:
    """Reshape what is known: ``f(reshape(x)) -> reshape(f(x))``, where f(x) is in the graph."""
    reshape = node.inputs[0].owner
    if len(node.inputs) != 1 or reshape is None or not isinstance(reshape.op, Reshape):
        return None
    x, shape = reshape.inputs
    for other, _ in fgraph.clients[x]:
        if other.op == node.op:
            return [reshape.op(other.outputs[0], shape)]
    return None


# Position 2 is that of "specialize", 49 of the fusion of elementwise operations
optdb.register(
    "pymc_reshapes",
    dfs_rewriter(local_known_before_reshape, ignore_newtrees=True),
    TAG,
    position=2.92,
)
