# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Find the data that are rows of a dim by their place in the model, though no dims say so.

A design matrix that is a constant, group indexes, an offset: entry i of each meets row i of a term. An
axis of such data is rows if its entries come out, one by one, on the axis of a variable that has the
dim. The rules of :mod:`pymc.minibatch.rules` tell, read backwards. As many entries as there are rows
prove nothing: the mean of a prior for each of N groups is on no axis of the rows.
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


class Placed(NamedTuple):
    """What is rows by its place.

    Parameters
    ----------
    data : dict of Variable to list of int
        Roots of the graph, and their axes of rows.
    sizes : dict of Apply to list of int
        Nodes whose length is an input, as in ``pt.zeros(1000)``, and their axes of rows.
    ends : dict of Variable to list of int
        What is not computed row by row, such as a running sum, or not known to be; its axes of rows.
    coupled : list of Variable
        Those of `ends` that surely are not.
    """

    data: dict[Variable, list[int]]
    sizes: dict[Apply, list[int]]
    ends: dict[Variable, list[int]]
    coupled: list[Variable]


def placed_rows(
    terms: Iterable[tuple[Variable, int]], n_rows: int, blockers: Collection[Variable] = ()
) -> Placed:
    """Find what comes out, row by row, on given axes of variables.

    Parameters
    ----------
    terms : iterable of (Variable, int)
        Variables, and their axis of rows.
    n_rows : int
        How many rows there are in all.
    blockers : collection of Variable
        What has rows by its dims alone, as free variables: nothing before them is looked at.

    Returns
    -------
    Placed

    Examples
    --------
    >>> import pytensor.tensor as pt
    >>> from pymc.minibatch.placed_rows import placed_rows
    >>> X, slopes, group = pt.matrix("X"), pt.vector("slopes"), pt.lvector("group")
    >>> placed_rows([(X @ slopes + slopes[group], 0)], n_rows=100).data
    {X: [0], group: [0]}
    """
    asked: defaultdict[Variable, set[int]] = defaultdict(set)
    for var, axis in terms:
        asked[var].add(axis)
    row = Rows(minibatch_index(n_rows, n_rows))
    sizes: dict[Apply, list[int]] = {}
    ends: dict[Variable, list[int]] = {}
    coupled: list[Variable] = []
    for node in reversed(list(toposort(list(asked), blockers=blockers))):
        outputs = [(k, axis) for k, out in enumerate(node.outputs) for axis in asked.get(out, ())]
        found, certain = _coming_out(node, outputs, row)
        for var, axis in found:
            asked[var].add(axis)
        if not found and not isinstance(node.op, Alloc | AllocEmpty | MeasurableOp):
            ended = {out: sorted(asked[out]) for out in node.outputs if out in asked}
            ends |= ended
            coupled += ended if certain else ()
        numbers = {axis for _, axis in outputs if _is_of_all(node, axis, n_rows)}
        if numbers:
            sizes[node] = sorted(numbers)
    roots = {v: sorted(axes) for v, axes in asked.items() if v.owner is None and v not in blockers}
    return Placed(roots, sizes, ends, coupled)


def _coming_out(
    node: Apply, outputs: Sequence[tuple[int, int]], row: Rows
) -> tuple[list[tuple[Variable, int]], bool]:
    """Tell which axes of the inputs of `node` are, entry by entry, any of these axes of its outputs.

    And whether this is certain of all that are not.
    """
    alike: list[Axes] = [(BROADCAST,) * ndim_of(var) for var in node.inputs]
    result, certain = [], True
    for k, var in enumerate(node.inputs if outputs else ()):
        for axis, length in enumerate(static_shape(var)):
            if length == 1:  # it broadcasts
                continue
            one: Axes = (*alike[k][:axis], row, *alike[k][axis + 1 :])
            try:
                found = output_axes(node.op, node, [*alike[:k], one, *alike[k + 1 :]])
            except Untracked as lost:
                certain = certain and lost.certain
                continue
            if any(found[output][place] == row for output, place in outputs):
                result.append((var, axis))
    return result, certain


# --- lengths ---
def _length_at(node: Apply, axis: int) -> tuple[int, int | None] | None:
    """Tell which input of `node` is the length of an axis of its output, or which entry of an input."""
    if isinstance(node.op, AllocEmpty):
        return axis, None
    if isinstance(node.op, Alloc | SpecifyShape):
        return 1 + axis, None
    if isinstance(node.op, Reshape):
        return 1, axis
    if isinstance(node.op, RandomVariable | RNGConsumerOp):
        for position in size_inputs(node.op, node):
            return position, axis
    return None


def _is_of_all(node: Apply, axis: int, n_rows: int) -> bool:
    """Tell whether an input of `node` says that an axis of its output has as many entries as rows."""
    found = _length_at(node, axis)
    if found is None:
        return False
    position, entry = found
    length = node.inputs[position]
    if entry is not None:
        if ndim_of(length) != 1 or entry >= get_vector_length(length):
            return False
        length = length[entry]
    return not isinstance(length.type, NoneTypeT) and current_length(length) == n_rows


def sized_inputs(node: Apply, inputs: Sequence[Variable], lengths: Mapping[int, Variable]) -> list:
    """Put other lengths into the inputs of a node whose length is an input.

    Parameters
    ----------
    node : Apply
        One of :attr:`Placed.sizes`.
    inputs : sequence of Variable
        What its inputs have become.
    lengths : mapping of int to Variable
        For axes of its output, their length.

    Returns
    -------
    list of Variable
    """
    result = list(inputs)
    entries: dict[int, dict[int, Variable]] = {}
    for axis, length in lengths.items():
        position, entry = _length_at(node, axis)  # type: ignore[misc]
        if entry is None:
            result[position] = length.astype("int64")
        else:
            entries.setdefault(position, {})[entry] = length
    for position, new in entries.items():
        n_axes = get_vector_length(result[position])
        whole = [new.get(k, result[position][k]) for k in range(n_axes)]
        result[position] = stack([length.astype("int64") for length in whole])
    return result
