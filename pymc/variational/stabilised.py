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
"""Graphs that stay finite where their gradients are taken."""

from __future__ import annotations

from collections.abc import Sequence

from pytensor.graph.basic import Variable
from pytensor.graph.fg import FunctionGraph
from pytensor.graph.rewriting.utils import rewrite_graph

__all__ = ["stabilised"]


def stabilised(graphs: Sequence[Variable]) -> list[Variable]:
    """Write graphs in a form whose gradients do not overflow, such as log(sigmoid(x)) as -softplus(-x).

    PyTensor does so when it compiles. By then a gradient has been taken, in which sigmoid(x) is divided by
    itself: 0 / 0 where x is small.

    Parameters
    ----------
    graphs : sequence of Variable
        They are not changed.
    """
    fgraph = FunctionGraph(outputs=list(graphs), clone=True, copy_inputs=False)
    rewrite_graph(fgraph, include=("canonicalize", "stabilize"))
    return list(fgraph.outputs)
