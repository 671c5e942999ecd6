# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Exponentials and logarithms of many numbers, which LLVM computes several at once.

Numba calls the C library for each number, and the loop around the call is not vectorised.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np

from pytensor.compile.mode import optdb
from pytensor.graph.basic import Apply, Variable
from pytensor.graph.fg import FunctionGraph
from pytensor.graph.op import Op
from pytensor.graph.rewriting.basic import dfs_rewriter, node_rewriter
from pytensor.scalar.basic import Exp, Log, Log1p
from pytensor.scalar.math import Sigmoid, Softplus
from pytensor.tensor.basic import tensor_copy
from pytensor.tensor.elemwise import CAReduce, Elemwise

from pymc.variational.engine.rewrites import TAG_NUMBA

__all__ = ["VectorMath", "has_wide_vectors"]

#: Names of functions, by the class of their scalar Op
NAMES: dict[type, str] = {
    Exp: "exp",
    Log: "log",
    Log1p: "log1p",
    Sigmoid: "sigmoid",
    Softplus: "softplus",
}

IN_PYTHON: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "exp": np.exp,
    "log": np.log,
    "log1p": np.log1p,
    # Not by SciPy, whose special functions import much
    "sigmoid": lambda x: np.exp(-np.logaddexp(0, -x)).astype(x.dtype),
    "softplus": lambda x: np.logaddexp(0, x).astype(x.dtype),
}

#: The fewest numbers for which a loop of their own is faster, since it allocates an array
FEWEST = 64
SHORT_ROWS = range(2, 8)


class VectorMath(Op):
    """A function of each number, in a loop of its own."""

    __props__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def make_node(self, x: Variable) -> Apply:
        return Apply(self, [x], [x.type()])

    def infer_shape(self, node: Apply, shapes: Sequence[tuple]) -> list[tuple]:
        return [shapes[0]]

    def perform(self, node: Apply, inputs: Sequence[np.ndarray], outputs: list[list]) -> None:
        [x] = inputs
        outputs[0][0] = IN_PYTHON[self.name](x)


@cache
def has_wide_vectors() -> bool:
    """Return whether the processor computes four float64 numbers at once; with two, the C library is as fast."""
    from llvmlite.binding import get_host_cpu_features  # loads LLVM, as Numba does

    return get_host_cpu_features().get("avx2", False)


@node_rewriter([Elemwise])
def local_vector_math(fgraph: FunctionGraph, node: Apply) -> list[Variable] | None:
    """Compute functions of many numbers in a loop of their own: ``exp(x) -> vector_math{exp}(x)``."""
    name = NAMES.get(type(node.op.scalar_op))
    if name is None:
        return None
    [x], [result] = node.inputs, node.outputs
    if x.dtype != result.dtype or x.dtype not in ("float32", "float64"):
        return None
    if np.prod([FEWEST if n is None else n for n in x.type.shape]) < FEWEST:
        return None
    # Loops over short rows take longer than what they compute, and there would be one more of them
    if x.type.ndim > 1 and x.type.shape[-1] in SHORT_ROWS:
        return None
    if not has_wide_vectors():
        return None
    values = VectorMath(name)(x)
    # PyTensor fuses sums with elementwise operations only
    is_summed = any(isinstance(client.op, CAReduce) for client, _ in fgraph.clients[result])
    return [tensor_copy(values) if is_summed else values]


# Before elementwise operations are fused, at 49
optdb.register("pymc_vector_math", dfs_rewriter(local_vector_math), TAG_NUMBA, position=48.9)
