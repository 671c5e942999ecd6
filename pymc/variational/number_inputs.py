# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Numbers of an optimizer as inputs of the compiled step, so that other numbers compile nothing.

A number in a graph is a constant, so another number makes another graph. A shared scalar is a value that each
fit sets.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np
import pytensor
import pytensor.scalar as ps

from pytensor.compile.sharedvalue import SharedVariable
from pytensor.graph.basic import Apply, Variable
from pytensor.graph.traversal import ancestors, toposort
from pytensor.tensor.elemwise import DimShuffle, Elemwise
from pytensor.tensor.variable import TensorConstant

__all__ = ["as_input", "lift_numbers", "replaced"]


def as_input(value: Any, name: str | None = None) -> Any:
    """Return a shared scalar for a number: ``floatX`` for a float, int64 for an integer; else `value`.

    Examples
    --------
    >>> from pymc.variational.number_inputs import as_input
    >>> as_input(0.1, "learning_rate").get_value()
    array(0.1)
    """
    if isinstance(value, bool | np.bool_) or not isinstance(value, Real):
        return value
    dtype = "int64" if isinstance(value, int | np.integer) else pytensor.config.floatX
    return pytensor.shared(np.array(value, dtype), name, shape=())


def lift_numbers(outputs: Sequence[Variable], inputs: Iterable[Variable]) -> list[Variable]:
    """Replace each float between `inputs` and `outputs` by a shared scalar of dtype ``floatX``.

    Equal floats share a scalar. Constants that rewrites need to know stay: -1, 0 and 1, operands of a power,
    integers, arrays, and those within the graph of a Scan.

    Examples
    --------
    >>> import pytensor
    >>> import pytensor.tensor as pt
    >>> from pymc.variational.number_inputs import lift_numbers
    >>> x = pt.scalar("x")
    >>> [y] = lift_numbers([x - 0.1 * x**2], [x])
    >>> [var.name for var in pytensor.graph.traversal.graph_inputs([y]) if var.name]
    ['x', '0.1']
    """
    blocked = set(inputs)
    reached = {var.owner for var in ancestors(outputs, blocked) if var not in blocked and var.owner}
    nodes = [node for node in toposort(outputs, blockers=blocked) if node in reached]
    exponents = {_scalar(var) for node in nodes if _is_power(node) for var in node.inputs}
    lifted: dict[float, SharedVariable] = {}
    new: dict[Variable, Variable] = {}
    for var in dict.fromkeys([*(v for node in nodes for v in node.inputs), *outputs]):
        if _is_number(var) and var not in exponents and var not in blocked:
            value = float(var.data)
            new[var] = lifted.setdefault(value, as_input(value, f"{value:g}"))
    return replaced(outputs, nodes, new)


def replaced(
    outputs: Sequence[Variable], nodes: Iterable[Apply], new: Mapping[Variable, Variable]
) -> list[Variable]:
    """Replace variables by others, also of other types; all else stays the same object.

    `nodes` are those of the graph in topological order.
    """
    new = dict(new)
    for node in nodes if new else ():
        if any(var in new for var in node.inputs) and not any(var in new for var in node.outputs):
            clone = node.clone_with_new_inputs([new.get(v, v) for v in node.inputs], strict=False)
            new.update(zip(node.outputs, clone.outputs))
    return [new.get(var, var) for var in outputs]


def _is_number(var: Variable) -> bool:
    return (
        isinstance(var, TensorConstant)
        and var.type.ndim == 0
        and var.type.numpy_dtype.kind == "f"
        and bool(np.isfinite(var.data))
        and float(var.data) not in (-1.0, 0.0, 1.0)
    )


def _is_power(node: Apply) -> bool:
    return isinstance(node.op, Elemwise) and isinstance(node.op.scalar_op, ps.Pow)


def _scalar(var: Variable) -> Variable:
    """Return a variable without the axes that broadcasting added."""
    while var.owner is not None and isinstance(var.owner.op, DimShuffle):
        [var] = var.owner.inputs
    return var
