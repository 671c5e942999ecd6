# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Random draws of a step on JAX, computed once and stored.

XLA fuses what is computed element by element into whatever reads it. The normal noise of a guide is read for
each row of a batch, and a step of 500 rows by 100 columns would compute each inverse error function 500
times: half of its time.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pytensor.compile.mode import optdb
from pytensor.graph.basic import Apply, Variable
from pytensor.graph.fg import FunctionGraph
from pytensor.graph.op import Op
from pytensor.graph.rewriting.basic import GraphRewriter
from pytensor.tensor.random.op import RandomVariable

from pymc.variational.engine.rewrites import TAG_JAX

__all__ = ["Stored"]


class Stored(Op):
    """The values of its input, which a backend computes once and as a whole."""

    __props__ = ()
    view_map = {0: [0]}

    def make_node(self, x: Variable) -> Apply:
        return Apply(self, [x], [x.type()])

    def infer_shape(self, node: Apply, shapes: Sequence) -> Sequence:
        return shapes

    def perform(self, node: Apply, inputs: Sequence[np.ndarray], outputs: list[list]) -> None:
        outputs[0][0] = inputs[0]


class StoreDraws(GraphRewriter):
    """Let all that read a random draw of floats read it from memory: ``f(draw) -> f(stored(draw))``.

    A minibatch index, of integers, is stored by its own implementation.
    """

    def apply(self, fgraph: FunctionGraph) -> None:
        for node in fgraph.toposort():
            if isinstance(node.op, RandomVariable) and node.outputs[1].dtype.startswith("float"):
                [_, draw] = node.outputs
                clients, stored = list(fgraph.clients[draw]), Stored()(draw)
                for client, place in clients:
                    fgraph.change_node_input(client, place, stored, reason="store_draws")


# Last, since other rewrites do not know the Op
optdb.register("pymc_stored_draws", StoreDraws(), TAG_JAX, position=100.5)
