# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Numbers of rows as inputs of the compiled step, so that other data compile nothing.

The number of all rows is a constant in the graph where arrays, a loader or `total_size` say it. A step
takes it as a value instead, and arrays of rows as ones of any length.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytensor

from pytensor.compile.sharedvalue import SharedVariable
from pytensor.graph.basic import Constant, Variable
from pytensor.graph.traversal import toposort
from pytensor.tensor.elemwise import Elemwise
from pytensor.tensor.type import TensorType

from pymc.minibatch.array_data import RawData
from pymc.minibatch.index import MinibatchIndexRV
from pymc.minibatch.scaling import RowRatio
from pymc.minibatch.stream_index import StreamIndexRV
from pymc.variational.number_inputs import replaced

__all__ = ["with_totals_as_inputs"]


def with_totals_as_inputs(
    outputs: Sequence[Variable], constant_data: bool = False
) -> list[Variable]:
    """Put shared scalars in the place of known numbers of all rows.

    Parameters
    ----------
    outputs : sequence of Variable
    constant_data : bool
        Whether raw data become constants of the compiled step, as on JAX. They keep their length then,
        and so does what is drawn from them.

    Returns
    -------
    list of Variable
        The number of rows of an index, and the total of a scale, are int64 scalars. The first axis of raw
        data has no static length. All else is the same, so a graph in which a number of rows is a
        constant in other places too differs from that of another number.

    Examples
    --------
    >>> from pytensor.graph.traversal import graph_inputs
    >>> from pymc.variational.engine.totals import with_totals_as_inputs
    >>> batch = pm.Minibatch(np.arange(10.0), batch_size=2)
    >>> [batch] = with_totals_as_inputs([batch])
    >>> [int(var.get_value()) for var in graph_inputs([batch]) if var.name == "n_rows"]
    [10]
    """
    totals, kept = dict[Variable, int](), set[Variable]()
    nodes = list(toposort(outputs))
    for node in nodes:
        if isinstance(node.op, RowRatio):
            total = node.inputs[0]
        elif isinstance(node.op, MinibatchIndexRV):
            total = node.inputs[2]
            if constant_data and not isinstance(node.op, StreamIndexRV):
                kept.add(total)
        else:
            continue
        if (n_rows := _known(total)) is not None:
            totals[total] = n_rows
    new: dict[Variable, Variable] = {
        total: pytensor.shared(np.array(n_rows, "int64"), "n_rows", shape=())
        for total, n_rows in totals.items()
        if total not in kept
    }
    if not constant_data:
        data = {var for node in nodes for var in node.inputs if isinstance(var, RawData)}
        new |= {var: _of_any_length(var) for var in data if var.type.ndim}
    return replaced(outputs, nodes, new)


def _known(total: Variable) -> int | None:
    """Return a number that is a constant, or the cast of one."""
    if total.owner is not None and isinstance(total.owner.op, Elemwise):
        [*inputs] = total.owner.inputs
        if len(inputs) != 1 or str(total.owner.op.scalar_op) != "Cast{int64}":
            return None
        [total] = inputs
    return int(total.data) if isinstance(total, Constant) and np.ndim(total.data) == 0 else None


def _of_any_length(data: RawData) -> SharedVariable:
    """Share the memory of `data`, with a first axis whose length is not static."""
    kind = TensorType(data.type.dtype, (None, *data.type.shape[1:]))
    return RawData(type=kind, value=data.container.data, strict=True, name=data.name)
