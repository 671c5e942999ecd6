# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""A graph as a text that is the same in every process: what it computes, and from which inputs.

Variables are numbered as a walk from the outputs meets them; Ops are told apart by class and props,
constants by their bytes. Names of variables in between, addresses and hashes of objects are not in it.
"""

from __future__ import annotations

import re

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from enum import Enum
from hashlib import sha256
from types import CodeType, FunctionType
from typing import Any, Protocol, runtime_checkable

import numpy as np

from pytensor.compile.mode import Mode
from pytensor.graph.basic import Apply, Constant, Variable
from pytensor.graph.op import HasInnerGraph, Op
from pytensor.graph.rewriting.db import RewriteDatabaseQuery
from pytensor.graph.type import Type
from pytensor.scan.op import Scan

__all__ = ["graph_lines", "hash_of_array", "plain_text"]

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


def graph_lines(outputs: Sequence[Variable], inputs: Sequence[Variable]) -> Iterator[str]:
    """Describe a graph, a line for each node.

    Parameters
    ----------
    outputs : sequence of Variable
    inputs : sequence of Variable
        Called by their place here. Others are described.

    Yields
    ------
    str

    Examples
    --------
    >>> import pytensor.tensor as pt
    >>> from pymc.variational.checkpoints.graph_text import graph_lines
    >>> x = pt.vector("x", dtype="float64")
    >>> for line in graph_lines([pt.exp(x)], [x]):
    ...     print(line)
    input 0: TensorType(float64, shape=(None,))
    node 0: pytensor.tensor.elemwise.Elemwise(scalar_op=...Exp('exp'), inplace_pattern={}) of input 0
    output: node 0.0
    """
    known: dict[Variable, str] = {}
    for place, var in enumerate(inputs):
        known[var] = f"input {place}"
        yield f"input {place}: {plain_text(var.type)}"
    n_nodes = 0
    for node in _nodes(outputs, set(inputs)):
        taken = ", ".join(known.get(var) or _leaf(var) for var in node.inputs)
        yield f"node {n_nodes}: {_op_text(node.op)} of {taken}"
        for place, var in enumerate(node.outputs):
            known[var] = f"node {n_nodes}.{place}"
        n_nodes += 1
    for var in outputs:
        yield f"output: {known.get(var) or _leaf(var)}"


def _nodes(outputs: Sequence[Variable], known: set[Variable]) -> Iterator[Apply]:
    """Yield the nodes of a graph, each after those that it takes from, in an order that is its own."""
    done: set[Apply] = set()
    for output in outputs:
        waiting = [output.owner]
        while waiting:
            node = waiting[-1]
            if node is None or node in done or known.issuperset(node.outputs):
                waiting.pop()
                continue
            before = [var.owner for var in node.inputs if var not in known and var.owner]
            before = [other for other in before if other not in done]
            if before:
                waiting.extend(reversed(before))
            else:
                done.add(node)
                yield waiting.pop()


def _leaf(var: Variable) -> str:
    if isinstance(var, Constant):
        return f"constant {plain_text(var.type)} {plain_text(var.data)}"
    return f"{type(var).__name__} {var.name!r}: {plain_text(var.type)}"


@runtime_checkable
class HasProps(Protocol):
    """An Op that is told from others of its class by its props."""

    def _props_dict(self) -> dict[str, Any]: ...


def _op_text(op: Any) -> str:
    """Describe an Op by its class, its props and the graph inside of it."""
    props = op._props_dict() if isinstance(op, HasProps) else {}
    parts = [f"{name}={plain_text(value)}" for name, value in props.items() if name != "fgraph"]
    if isinstance(op, HasInnerGraph):
        lines = "; ".join(graph_lines(op.fgraph.outputs, op.fgraph.inputs))
        parts.append(f"graph=[{lines}]")
        if isinstance(op, Scan):
            parts.append(plain_text(op.info))  # what is what of its inputs
    elif not props:
        parts.append(repr(_ADDRESS.sub("", str(op))))
    return f"{type(op).__module__}.{type(op).__qualname__}({', '.join(parts)})"


def plain_text(value: Any) -> str:
    """Describe a value without what differs between processes.

    Examples
    --------
    >>> from pymc.variational.checkpoints.graph_text import plain_text
    >>> plain_text({"b": (1, 2.5), "a": np.dtype("float32")})
    "{'a': dtype('float32'), 'b': [1, 2.5]}"
    """
    if isinstance(value, Op):
        return _op_text(value)
    if isinstance(value, np.ndarray | np.generic):
        array = np.asarray(value)
        return f"{array.dtype} of shape {array.shape} {hash_of_array(array)}"
    if isinstance(value, Mapping):
        items = sorted((plain_text(key), plain_text(item)) for key, item in value.items())
        return "{" + ", ".join(f"{key}: {item}" for key, item in items) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(plain_text, value)) + "]"
    if isinstance(value, set | frozenset):
        return "{" + ", ".join(sorted(map(plain_text, value))) + "}"
    if isinstance(value, Variable):
        return "; ".join(graph_lines([value], []))
    if isinstance(value, FunctionType):
        return f"{value.__qualname__} {_code_hash(value.__code__)}"
    if isinstance(value, type):
        return f"{value.__module__}.{value.__qualname__}"
    if is_dataclass(value) and not isinstance(value, Type):
        parts = {field.name: getattr(value, field.name) for field in fields(value)}
        return f"{type(value).__name__}{plain_text(parts)}"
    if isinstance(value, Enum):
        return str(value)
    if isinstance(value, Mode):
        rewrites = plain_text(value.provided_optimizer)
        return f"{type(value).__name__}(linker={plain_text(value.provided_linker)}, rewrites={rewrites})"
    if isinstance(value, RewriteDatabaseQuery):
        parts = {"include": value.include, "exclude": value.exclude, "require": value.require}
        return plain_text({part: sorted(map(str, names)) for part, names in parts.items()})
    return _ADDRESS.sub("", repr(value))


def hash_of_array(array: np.ndarray) -> str:
    """Hash the bytes of an array: the first 16 digits of their SHA-256."""
    if array.dtype.hasobject:
        return sha256(repr(array.tolist()).encode()).hexdigest()[:16]
    data = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
    return sha256(data).hexdigest()[:16]


def _code_hash(code: CodeType) -> str:
    """Hash what a function does, wherever it stands."""
    hashed = sha256(code.co_code)
    for constant in code.co_consts:
        inner = isinstance(constant, CodeType)
        hashed.update((_code_hash(constant) if inner else plain_text(constant)).encode())
    hashed.update(repr(code.co_names).encode())
    return hashed.hexdigest()[:16]
