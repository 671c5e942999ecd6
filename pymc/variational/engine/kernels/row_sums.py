# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Sums over the rows of a batch, in a loop over four rows at a time.

PyTensor fuses ``((X[index] - mu) ** 2).sum(0)`` into one loop over rows, which loads and stores each sum of a
column for each row.
"""

from __future__ import annotations

from pytensor.compile.mode import optdb
from pytensor.graph.basic import Apply
from pytensor.graph.fg import FunctionGraph
from pytensor.graph.rewriting.basic import GraphRewriter
from pytensor.scalar.basic import Add, ScalarType
from pytensor.tensor.elemwise import Elemwise
from pytensor.tensor.rewriting.fused_elemwise import FusedElemwise

from pymc.variational.engine.rewrites import TAG_NUMBA

__all__ = ["RowSums", "elementwise_node"]

FLOATS = ("float32", "float64")

#: Columns from which on four rows at a time are faster. A step of 4 gains 7 % of gathered rows, and loses 6 % of others
MIN_COLUMNS = 8


class RowSums(FusedElemwise):
    """A fused loop whose outputs are all sums over the rows of a matrix."""


class SumFourRows(GraphRewriter):
    """Replace a fused loop by one over four rows at a time: ``fused_elemwise -> row_sums``."""

    def apply(self, fgraph: FunctionGraph) -> None:
        for node in fgraph.toposort():
            if type(node.op) is FusedElemwise and _sums_rows(node):
                op = node.op
                row_sums = RowSums(
                    list(op.fgraph.inputs),
                    list(op.fgraph.outputs),
                    fgraph=op.fgraph,
                    indexed_inputs=op.indexed_inputs,
                    indexed_outputs=op.indexed_outputs,
                    reduced_outputs=op.reduced_outputs,
                )
                sums = row_sums(*node.inputs, return_list=True)
                fgraph.replace_all(list(zip(node.outputs, sums)), reason="row_sums")


def elementwise_node(op: FusedElemwise) -> Apply:
    """Return the node of the elementwise operation that is fused."""
    [node] = [node for node in op.fgraph.apply_nodes if isinstance(node.op, Elemwise)]
    return node


def _sums_rows(node: Apply) -> bool:
    """Return whether all outputs are sums over the rows of a matrix, gathered by vectors if at all."""
    op, inner = node.op, elementwise_node(node.op)
    n_columns = inner.outputs[0].type.shape[-1]
    if n_columns is not None and n_columns < MIN_COLUMNS:
        return False
    [rows, columns] = inner.outputs[0].type.broadcastable if inner.outputs[0].ndim == 2 else (1, 1)
    operands, others = node.inputs[: len(inner.inputs)], node.inputs[len(inner.inputs) :]
    gathered = [entry for entry in op.indexed_inputs if entry is not None]
    sources = [source for entry in gathered for source in entry[0]]
    return (
        not rows
        and not columns
        and not inner.op.inplace_pattern
        and not op.destroy_map
        and len(gathered) == len(op.indexed_inputs) == len(others)
        and not any(op.indexed_outputs)
        and len(op.reduced_outputs) == len(inner.outputs)
        and all(_is_sum_over_rows(entry) for entry in op.reduced_outputs)
        and all(out.type.dtype in FLOATS for out in node.outputs)
        and all(axis == 0 for _, axis in gathered)
        # Each row by one index; an index of one row would be broadcast
        and len(sources) == len(set(sources))
        and all(index.type.broadcastable == (False,) for index in others)
        and all(isinstance(v.type, ScalarType) or v.type.ndim == 2 for v in operands)
        # At least one operand that is not the same in all rows
        and any(not v.type.broadcastable[0] for v in inner.inputs)
    )


def _is_sum_over_rows(entry: tuple | None) -> bool:
    if entry is None:
        return False
    scalar_op, axes, _, acc_dtype = entry
    return isinstance(scalar_op, Add) and tuple(axes) == (0,) and str(acc_dtype) in FLOATS


# Behind the fusion, at 100
optdb.register("pymc_row_sums", SumFourRows(), TAG_NUMBA, position=100.5)
