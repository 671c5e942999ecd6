# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Graphs that stay finite where their gradients are taken."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytensor

from pytensor.graph.basic import Variable, clone_get_equiv
from pytensor.graph.fg import FunctionGraph
from pytensor.graph.replace import graph_replace
from pytensor.graph.rewriting.basic import EquilibriumGraphRewriter
from pytensor.graph.traversal import ancestors
from pytensor.tensor.rewriting.math import (
    local_log1p_plusminus_exp,
    logdiffexp_to_log1mexpdiff,
    logmexpm1_to_log1mexp,
)
from pytensor.tensor.rewriting.special import local_log_add_exp, local_log_sum_exp
from pytensor.xtensor.type import XTensorVariable

from pymc.variational.stable_logs import local_log_of_probability
from pymc.variational.vectorize import without_names

__all__ = ["stabilised"]

# No canonicalisation: a graph without one of these patterns is to stay the very graph it was
stable_logs = EquilibriumGraphRewriter(
    [
        local_log_of_probability,
        local_log1p_plusminus_exp,
        local_log_add_exp,
        local_log_sum_exp,
        logdiffexp_to_log1mexpdiff,
        logmexpm1_to_log1mexp,
    ],
    max_use_ratio=pytensor.config.optdb__max_use_ratio,
)


def stabilised(graphs: Sequence[Variable]) -> list[Variable]:
    """Write log-probabilities in a form whose gradients do not overflow, such as log(sigmoid(x)) as -softplus(-x).

    PyTensor does so when it compiles. By then a gradient has been taken, in which sigmoid(x) is divided by
    itself: 0 / 0 where x is small.

    Parameters
    ----------
    graphs : sequence of Variable
        They are not changed.

    Returns
    -------
    list of Variable
        Graphs in which there is nothing to mend are the same objects, and so are the parts of the others that
        nothing was mended in.

    Examples
    --------
    >>> import pytensor.tensor as pt
    >>> from pymc.variational.stabilised import stabilised
    >>> x = pt.scalar("x", dtype="float64")
    >>> [logp] = stabilised([pt.log(pt.sigmoid(x))])
    >>> pt.grad(logp, x).eval({x: -800.0}).item()
    1.0
    """
    return [_stabilised(graph) for graph in graphs]


def _stabilised(graph: Variable) -> Variable:
    clones = clone_get_equiv([], [graph], copy_inputs=False, copy_orphans=False)
    fgraph = FunctionGraph(outputs=[clones[graph]], clone=False)
    if any(isinstance(var, XTensorVariable) for var in ancestors([graph])):
        without_names(fgraph)
    before = set(fgraph.apply_nodes)
    stable_logs.rewrite(fgraph)
    if fgraph.apply_nodes == before:
        return graph
    [result] = graph_replace(fgraph.outputs, _originals(fgraph, clones), strict=False)
    return result


def _originals(fgraph: FunctionGraph, clones: Mapping[Any, Any]) -> dict[Variable, Variable]:
    """Map what was not rewritten to what it is a clone of: others may know it, such as the rows of a batch."""
    original = {new: old for old, new in clones.items()}
    found: dict[Variable, Variable] = {}
    for node in fgraph.toposort():
        old = original.get(node)
        if old is not None and all(found.get(a, a) is b for a, b in zip(node.inputs, old.inputs)):
            found.update(zip(node.outputs, old.outputs))
    return found
