# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
r"""Logs of probabilities, written so that their gradients are those of the log and not quotients.

PyTensor writes :math:`\log \sigma(x)` as :math:`-\log(1 + e^{-x})`, but only where it meets the two Ops side by
side, and only when it compiles. Probabilities are indexed, set side by side, subtracted from 1 and multiplied
before a distribution takes their log. Here the log is brought to where the probability is computed:

.. math::

    \log (1 - \sigma(x)_i) \to (-\log(1 + e^x))_i, \quad
    \log\, [1 - \sigma(x), \sigma(x)] \to [-\log(1 + e^x), -\log(1 + e^{-x})], \quad
    \log (\sigma(x)\, p) \to -\log(1 + e^{-x}) + \log p

and so for the softmax, the normal distribution function, and :math:`1 - e^x`. A plain :math:`\log e^x`, as a
scale on its unconstrained space makes, is left to PyTensor: its gradient cancels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytensor
import pytensor.tensor as pt

from pytensor.compile.ops import ViewOp
from pytensor.graph.basic import Apply, Variable, clone_get_equiv
from pytensor.graph.fg import FunctionGraph
from pytensor.graph.replace import graph_replace
from pytensor.graph.rewriting.basic import EquilibriumGraphRewriter, node_rewriter
from pytensor.graph.traversal import ancestors
from pytensor.tensor.basic import Alloc, Join, MakeVector, get_underlying_scalar_constant_value
from pytensor.tensor.elemwise import DimShuffle
from pytensor.tensor.math import add, erf, erfc, exp, log, log1p, mul, neg, sigmoid, sub, true_div
from pytensor.tensor.reshape import JoinDims, SplitDims
from pytensor.tensor.rewriting.math import (
    local_log1p_plusminus_exp,
    logdiffexp_to_log1mexpdiff,
    logmexpm1_to_log1mexp,
)
from pytensor.tensor.rewriting.special import local_log_add_exp, local_log_sum_exp
from pytensor.tensor.shape import Reshape, SpecifyShape
from pytensor.tensor.special import Softmax, log_softmax
from pytensor.tensor.subtensor import AdvancedSubtensor, Subtensor
from pytensor.xtensor.type import XTensorVariable

from pymc.variational.vectorize import without_names

__all__ = [
    "local_log_of_probability",
    "stabilised",
]

LOG_HALF = float(np.log(0.5))

#: Ops that move or repeat the entries of their first input.
MOVES = (
    AdvancedSubtensor,
    Alloc,
    DimShuffle,
    JoinDims,
    Reshape,
    SpecifyShape,
    SplitDims,
    Subtensor,
    ViewOp,
)


@node_rewriter([log, log1p])
def local_log_of_probability(fgraph: FunctionGraph, node: Apply) -> list[Variable] | None:
    """Bring a log to the sigmoid: ``log(sigmoid(x)[i]) -> (-softplus(-x))[i]``."""
    [p], [old] = node.inputs, node.outputs
    if node.op == log:
        found = log_of(p)
    else:
        found = log_of_rest(p.owner.inputs[0]) if _is(p, neg) else None
    return None if found is None else [pt.cast(found, old.type.dtype)]


def log_of(p: Variable) -> Variable | None:
    """Return the log of a probability, or None where there is no better form than ``log(p)``."""
    if p.owner is None:
        return None
    if (x := logit_of(p)) is not None:
        return -pt.softplus(-x)
    if (x := tail_of(p)) is not None:
        return LOG_HALF + log_erfc(x)
    if _is(p, erfc):
        return log_erfc(p.owner.inputs[0])
    if isinstance(p.owner.op, Softmax):
        return log_softmax(p.owner.inputs[0], axis=p.owner.op.axis)
    if _is_exp_of_logs(p):
        return p.owner.inputs[0]
    if (q := rest_of(p)) is not None:
        return log_of_rest(q)
    if _is(p, mul):
        return _log_of_product(p.owner.inputs)
    return _through_moves(p, log_of, pt.log)


def log_of_rest(q: Variable) -> Variable | None:
    """Return the log of 1 - q, or None where there is no better form than ``log(1 - q)``."""
    if q.owner is None:
        return None
    if (x := logit_of(q)) is not None:
        return -pt.softplus(x)
    if (x := tail_of(q)) is not None:
        return LOG_HALF + log_erfc(-x)
    if _is(q, exp):
        return pt.log1mexp(q.owner.inputs[0])
    if (p := rest_of(q)) is not None:
        return p.owner.inputs[0] if _is(p, exp) else log_of(p)
    if _is(q, mul) and (log_q := _log_of_product(q.owner.inputs)) is not None:
        return pt.log1mexp(log_q)
    return _through_moves(q, log_of_rest, lambda part: pt.log1p(-part))


def log_erfc(x: Variable) -> Variable:
    r"""Return :math:`\log \operatorname{erfc} x`, whose gradient is finite for any finite x.

    Each branch is computed at values that it is right for: a gradient passes through both, and 0 times
    infinity is nan.
    """
    low, high = pt.minimum(x, 1), pt.maximum(x, 1)
    # Not log(erfc(low)), which would be rewritten again
    return pt.switch(x < 1, pt.log1p(-pt.erf(low)), pt.log(pt.erfcx(high)) - high**2)


def logit_of(p: Variable) -> Variable | None:
    """Return x of ``sigmoid(x)``, and of its forms ``1 / (1 + exp(-x))`` and ``exp(x) / (1 + exp(x))``."""
    if _is(p, sigmoid):
        return p.owner.inputs[0]
    if not _is(p, true_div):
        return None
    above, below = p.owner.inputs
    power = _beside(below, add, 1)
    if power is None or not _is(power, exp):
        return None
    x = power.owner.inputs[0]
    if _equals(above, 1):
        return -x
    return x if _is(above, exp) and above.owner.inputs[0] is x else None


def tail_of(p: Variable) -> Variable | None:
    """Return x of ``erfc(x) / 2``, and of its forms ``(1 + erf(-x)) / 2`` and ``1 / 2 + erf(-x) / 2``."""
    twice = _beside(p, mul, 0.5)
    if twice is not None and _is(twice, erfc):
        return twice.owner.inputs[0]
    below = _beside(p, add, 0.5) if twice is None else _beside(twice, add, 1)
    if twice is None and below is not None:
        below = _beside(below, mul, 0.5)
    return -below.owner.inputs[0] if below is not None and _is(below, erf) else None


def rest_of(p: Variable) -> Variable | None:
    """Return q of ``1 - q``."""
    if _is(p, sub) and _equals(p.owner.inputs[0], 1):
        return p.owner.inputs[1]
    return None


def _log_of_product(factors: Sequence[Variable]) -> Variable | None:
    found = [log_of(factor) for factor in factors]
    if all(part is None for part in found):
        return None
    others = [factor for factor, part in zip(factors, found) if part is None]
    terms = [part for part in found if part is not None]
    if others:
        terms.append(pt.log(pt.mul(*others) if len(others) > 1 else others[0]))
    return pt.add(*terms) if len(terms) > 1 else terms[0]


def _through_moves(
    p: Variable, form: Callable[[Variable], Variable | None], plain: Callable[[Variable], Variable]
) -> Variable | None:
    """Write what is moved in the form, if that is known of a part of it."""
    op, inputs = p.owner.op, list(p.owner.inputs)
    if isinstance(op, MOVES) or op == pt.tensor_copy:
        moved = inputs[:1]
    elif isinstance(op, Join | MakeVector):
        moved = inputs
    else:
        return None
    found = [form(part) for part in moved]
    if all(part is None for part in found):
        return None
    parts = [plain(old) if new is None else new for old, new in zip(moved, found)]
    parts = [pt.cast(part, p.type.dtype) for part in parts]
    return op(*parts, *inputs[len(parts) :])


def _is_exp_of_logs(p: Variable) -> bool:
    """Return whether logs were set side by side, as PyMC's ordered distributions write probabilities."""
    if not _is(p, exp) or p.owner.inputs[0].owner is None:
        return False
    return isinstance(p.owner.inputs[0].owner.op, Join)


def _is(var: Variable, op: object) -> bool:
    return var.owner is not None and var.owner.op == op


def _beside(var: Variable, op: object, value: float) -> Variable | None:
    """Return what is added to a constant, or multiplied by it."""
    if not _is(var, op) or len(var.owner.inputs) != 2:
        return None
    a, b = var.owner.inputs
    if _equals(a, value):
        return b
    return a if _equals(b, value) else None


def _equals(var: Variable, value: float) -> bool:
    found = get_underlying_scalar_constant_value(var, raise_not_constant=False)
    return not isinstance(found, Variable) and bool(found == value)


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
    >>> from pymc.variational.stable_logs import stabilised
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
