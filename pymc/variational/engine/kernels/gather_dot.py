# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Products of gathered rows with a vector, without a copy of the rows.

A linear predictor of a minibatch is ``X[index] @ beta``, and its gradient ``X[index].T @ residuals``. PyTensor
copies the rows for BLAS first, which takes most of the time of both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytensor.tensor as pt

from pytensor.compile.mode import optdb
from pytensor.graph.basic import Apply, Variable
from pytensor.graph.fg import FunctionGraph, Output
from pytensor.graph.op import Op
from pytensor.graph.rewriting.basic import GraphRewriter
from pytensor.tensor.elemwise import DimShuffle
from pytensor.tensor.math import Dot
from pytensor.tensor.subtensor import AdvancedSubtensor
from pytensor.tensor.type import TensorType, integer_dtypes

from pymc.variational.engine.rewrites import TAG_NUMBA

__all__ = ["GatherDot", "GatherTDot"]


class GatherDot(Op):
    """Product ``X[index] @ w`` of rows with a vector of their length."""

    __props__ = ()

    def make_node(self, X: Variable, index: Variable, w: Variable) -> Apply:
        return Apply(self, [X, index, w], [TensorType(X.type.dtype, index.type.shape)()])

    def infer_shape(self, node: Apply, shapes: Sequence[tuple]) -> list[tuple]:
        return [shapes[1]]

    def perform(self, node: Apply, inputs: Sequence[np.ndarray], outputs: list[list]) -> None:
        X, index, w = inputs
        outputs[0][0] = X[index] @ w


class GatherTDot(Op):
    """Product ``X[index].T @ r`` of columns with a number for each row."""

    __props__ = ()

    def make_node(self, X: Variable, index: Variable, r: Variable) -> Apply:
        return Apply(self, [X, index, r], [TensorType(X.type.dtype, X.type.shape[1:])()])

    def infer_shape(self, node: Apply, shapes: Sequence[tuple]) -> list[tuple]:
        return [shapes[0][1:]]

    def perform(self, node: Apply, inputs: Sequence[np.ndarray], outputs: list[list]) -> None:
        X, index, r = inputs
        outputs[0][0] = r @ X[index]


#: A product in the graph, and what replaces it
Replacement = tuple[Variable, Variable]


class ProductsOfGatheredRows(GraphRewriter):
    """Replace products of gathered rows: ``dot(X[i], w[:, None]) -> gather_dot(X, i, w)[:, None]``.

    Rows that something else reads too are copied anyway, and stay as they are.
    """

    def apply(self, fgraph: FunctionGraph) -> None:
        for node in fgraph.toposort():
            if _gathers_rows(node) and (found := _products(fgraph, node)):
                fgraph.replace_all(found, reason="gather_dot")


def _gathers_rows(node: Apply) -> bool:
    """Return whether a node is ``X[index]`` of a matrix and a vector."""
    if not isinstance(node.op, AdvancedSubtensor) or node.op.idx_list != (0,):
        return False
    X, index = node.inputs
    return (
        X.type.ndim == 2
        and X.type.dtype in ("float32", "float64")
        and index.type.ndim == 1
        and index.type.dtype in integer_dtypes
    )


def _products(fgraph: FunctionGraph, node: Apply) -> list[Replacement] | None:
    """Return a replacement for each reader of the rows, or None if one is no product with a vector."""
    [rows] = node.outputs
    found: list[Replacement] = []
    for client, place in fgraph.clients[rows]:
        if _transposes(client.op):
            [columns] = client.outputs
            readers = [(each, k, True) for each, k in fgraph.clients[columns]]
        else:
            readers = [(client, place, False)]
        for reader, k, transposed in readers:
            product = _product(node, reader, k, transposed)
            if product is None:
                return None
            found.append((reader.outputs[0], product))
    return found


def _transposes(op: Op) -> bool:
    return isinstance(op, DimShuffle) and op.new_order == (1, 0)


def _product(node: Apply, reader: Apply, place: int, transposed: bool) -> Variable | None:
    """Return what replaces a product of rows, or of columns, as its left or right operand."""
    if isinstance(reader.op, Output) or not isinstance(reader.op, Dot):
        return None
    other = reader.inputs[1 - place]
    # A product of the rows with themselves has no vector
    if other.type.dtype != node.outputs[0].type.dtype or not other.type.broadcastable[1 - place]:
        return None
    op: Callable = GatherTDot() if transposed == (place == 0) else GatherDot()
    vector = op(*node.inputs, other.dimshuffle(place))
    return vector.dimshuffle(0, "x") if place == 0 else pt.shape_padleft(vector)


# Behind the rewrites that move factors out of sums, and before elementwise operations are fused
optdb.register("pymc_gather_dot", ProductsOfGatheredRows(), TAG_NUMBA, position=2.95)
