# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Data that are rows of a dim by position, though no dims say so.

Entry i of a constant design matrix, of group indexes or of an offset meets row i of a term. An axis of
such data is rows if its entries come out, one by one, on the rows of a variable: the axis rules, read
backwards. Equal lengths prove nothing: the prior means of N groups are on no axis of the rows.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from pytensor.graph.basic import Apply, Variable
from pytensor.graph.traversal import toposort
from pytensor.tensor.basic import Alloc, AllocEmpty, get_vector_length, stack
from pytensor.tensor.random.op import RandomVariable, RNGConsumerOp
from pytensor.tensor.shape import Reshape, SpecifyShape
from pytensor.tensor.type_other import NoneTypeT

from pymc.logprob.abstract import MeasurableOp
from pymc.minibatch.axis_tracking import (
    BROADCAST,
    Axes,
    Rows,
    Untracked,
    ndim_of,
    output_axes,
    static_shape,
)
from pymc.minibatch.current_value import current_length
from pymc.minibatch.index import minibatch_index
from pymc.minibatch.lengths import size_inputs


class PositionalRows(NamedTuple):
    """Axes of rows, found by position."""

    #: Axes of roots of the graph
    data: dict[Variable, list[int]]
    #: Output axes of nodes whose length is an input, as in ``pt.zeros(1000)``
    sizes: dict[Apply, list[int]]
    #: Axes of variables that are not known to be computed row by row, such as a running sum
    ends: dict[Variable, list[int]]
    #: Those of `ends` that surely mix rows
    coupled: list[Variable]


def find_positional_rows(
    terms: Iterable[tuple[Variable, int]], n_rows: int, blockers: Collection[Variable] = ()
) -> PositionalRows:
    """Find what comes out, row by row, on the axis of rows of each of `terms`.

    `n_rows` is the number of rows of the full data. Nothing before `blockers` is searched: free variables
    have rows by their dims alone.

    Examples
    --------
    >>> import pytensor.tensor as pt
    >>> from pymc.minibatch.positional_rows import find_positional_rows
    >>> X, slopes, group = pt.matrix("X"), pt.vector("slopes"), pt.lvector("group")
    >>> find_positional_rows([(X @ slopes + slopes[group], 0)], n_rows=100).data
    {X: [0], group: [0]}
    """
    row_axes: defaultdict[Variable, set[int]] = defaultdict(set)
    for var, axis in terms:
        row_axes[var].add(axis)
    rows = Rows(minibatch_index(n_rows, n_rows))
    sizes: dict[Apply, list[int]] = {}
    ends: dict[Variable, list[int]] = {}
    coupled: list[Variable] = []
    for node in reversed(list(toposort(list(row_axes), blockers=blockers))):
        outputs = [
            (k, axis) for k, out in enumerate(node.outputs) for axis in row_axes.get(out, ())
        ]
        if not outputs:
            continue
        found, is_certain = _row_inputs(node, outputs, rows)
        for var, axis in found:
            row_axes[var].add(axis)
        if not found and not isinstance(node.op, Alloc | AllocEmpty | MeasurableOp):
            ended = {out: sorted(row_axes[out]) for out in node.outputs if out in row_axes}
            ends |= ended
            coupled += ended if is_certain else ()
        sized = {axis for _, axis in outputs if _is_length_of_all(node, axis, n_rows)}
        if sized:
            sizes[node] = sorted(sized)
    roots = {
        var: sorted(axes)
        for var, axes in row_axes.items()
        if var.owner is None and var not in blockers
    }
    return PositionalRows(roots, sizes, ends, coupled)


def _row_inputs(
    node: Apply, outputs: Sequence[tuple[int, int]], rows: Rows
) -> tuple[list[tuple[Variable, int]], bool]:
    """Return which axes of the inputs come out on any of these axes of the outputs.

    Also return whether it is certain that no other axis does.
    """
    repeated: list[Axes] = [(BROADCAST,) * ndim_of(var) for var in node.inputs]
    found, is_certain = [], True
    for k, var in enumerate(node.inputs):
        for axis, length in enumerate(static_shape(var)):
            if length == 1:  # it broadcasts
                continue
            one: Axes = (*repeated[k][:axis], rows, *repeated[k][axis + 1 :])
            try:
                axes = output_axes(node.op, node, [*repeated[:k], one, *repeated[k + 1 :]])
            except Untracked as untracked:
                is_certain = is_certain and untracked.certain
                continue
            if any(axes[output][place] == rows for output, place in outputs):
                found.append((var, axis))
    return found, is_certain


def _length_input(node: Apply, axis: int) -> tuple[int, int | None] | None:
    """Return which input of `node`, or which entry of it, is the length of an output axis."""
    if isinstance(node.op, AllocEmpty):
        return axis, None
    if isinstance(node.op, Alloc | SpecifyShape):
        return 1 + axis, None
    if isinstance(node.op, Reshape):
        return 1, axis
    if isinstance(node.op, RandomVariable | RNGConsumerOp):
        for position in size_inputs(node):
            return position, axis
    return None


def _is_length_of_all(node: Apply, axis: int, n_rows: int) -> bool:
    """Return True if an input of `node` says that an output axis is as long as all rows."""
    found = _length_input(node, axis)
    if found is None:
        return False
    position, entry = found
    length = node.inputs[position]
    if entry is not None:
        if ndim_of(length) != 1 or entry >= get_vector_length(length):
            return False
        length = length[entry]
    return not isinstance(length.type, NoneTypeT) and current_length(length) == n_rows


def with_lengths(
    node: Apply, inputs: Sequence[Variable], lengths: Mapping[int, Variable]
) -> list[Variable]:
    """Replace the lengths among `inputs` of a node of :attr:`PositionalRows.sizes`, by output axis."""
    result = list(inputs)
    entries: dict[int, dict[int, Variable]] = {}
    for axis, length in lengths.items():
        position, entry = _length_input(node, axis)  # type: ignore[misc]
        if entry is None:
            result[position] = length.astype("int64")
        else:
            entries.setdefault(position, {})[entry] = length
    for position, new in entries.items():
        size = result[position]
        n_axes = get_vector_length(size)
        result[position] = stack([new.get(k, size[k]).astype("int64") for k in range(n_axes)])
    return result
