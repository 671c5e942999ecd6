# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Graphs of the full data, rewritten to graphs of a minibatch.

Data become rows of the batch, and so does everything computed from them row by row. Three cases differ:

- A *length*, such as ``x.shape[0]``, is that of the batch where it is the size of something, as in
  ``pt.zeros(x.shape[0])``. It stays the number of all rows where it is a number, as in
  ``w / x.shape[0]``.
- Values that are computed from data alone and mix their rows, such as ``x.mean(0)`` in a
  standardisation, stay those of all rows.
- Random variables that mix rows are left to the checks of terms, which refuse them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from pytensor.graph.basic import Apply, Variable
from pytensor.graph.traversal import toposort
from pytensor.tensor.basic import Alloc, AllocEmpty, get_vector_length, stack
from pytensor.tensor.random.op import RandomVariable, RNGConsumerOp
from pytensor.tensor.shape import Reshape, Shape, Shape_i, SpecifyShape, shape_i
from pytensor.tensor.subtensor import AdvancedIncSubtensor, AdvancedSubtensor
from pytensor.tensor.type_other import NoneTypeT

from pymc.logprob.abstract import MeasurableOp
from pymc.minibatch.axis_tracking import (
    BROADCAST,
    OTHER,
    Axes,
    KnownAxes,
    Rows,
    Untracked,
    indexes,
    ndim_of,
    output_axes,
    rows_of,
    static_shape,
    track_axes,
)
from pymc.minibatch.index import minibatch_index
from pymc.minibatch.lengths import axis_of_length, size_inputs
from pymc.minibatch.rebuild import with_inputs
from pymc.pytensorf import current_length


def subsample(
    outputs: Sequence[Variable],
    rows: Mapping[Variable, tuple[Variable, Axes]],
    lengths: Mapping[Variable, Variable],
    fixed: Collection[Variable] = (),
    sizes: Mapping[Apply, Mapping[int, Variable]] | None = None,
    known: KnownAxes | None = None,
) -> list[Variable]:
    """Rewrite graphs of full data to graphs of a minibatch; ValueError where a node does not fit.

    `rows` has, for each data variable, its rows of the batch and the axes of these; `lengths`, for the length
    of each subsampled dim, that of the batch; `sizes`, nodes whose length is an input, and its
    replacement by axis. `fixed` variables stay as they are. `known` has the axes of variables that data
    do not tell, such as local variables.
    """
    graph = _Subsampled(rows, lengths, sizes or {}, known or {})
    for node in toposort(outputs, blockers=[*rows, *lengths, *fixed]):
        graph.visit(node)
    return [graph.batch.get(output, output) for output in outputs]


def _untracked_axes(var: Variable) -> Axes:
    return tuple(BROADCAST if length == 1 else OTHER for length in static_shape(var))


class _Subsampled:
    """Replacements of variables so far, as values (`batch`) and as lengths."""

    def __init__(
        self,
        rows: Mapping[Variable, tuple[Variable, Axes]],
        lengths: Mapping[Variable, Variable],
        sizes: Mapping[Apply, Mapping[int, Variable]],
        known: KnownAxes,
    ) -> None:
        self.batch = {var: new for var, (new, _) in rows.items()}
        self.lengths = dict(lengths)
        self.sizes = sizes
        # Of the full data's graph, traced as if the data were the rows of the batch
        self.axes = {**known, **{var: axes for var, (_, axes) in rows.items()}}
        self.random: set[Variable] = set()

    def visit(self, node: Apply) -> None:
        if isinstance(node.op, RNGConsumerOp) or not self.random.isdisjoint(node.inputs):
            self.random.update(node.outputs)
        elif not self._has_rows_of_inputs(node):
            return
        if isinstance(node.op, Shape | Shape_i):
            self._visit_shape(node)
            return
        sizes = set(size_inputs(node)) | self._positions(node)
        inputs = [
            self.lengths.get(var, self.batch.get(var, var))
            if k in sizes
            else self.batch.get(var, var)
            for k, var in enumerate(node.inputs)
        ]
        if node in self.sizes:
            inputs = with_lengths(node, inputs, self.sizes[node])
        if any(new is not old for new, old in zip(inputs, node.inputs)):
            if isinstance(node.op, Alloc) and self.random.isdisjoint(node.outputs):
                self.axes[node.outputs[0]] = self._filled_axes(node)
            self._replace(self.batch, node, inputs)
        of_lengths = [var for var in node.inputs if var in self.lengths]
        values = [var for var in node.inputs if var in self.batch and var not in self.lengths]
        if of_lengths and not values and not self._is_other_length(node):
            self._replace(self.lengths, node, [self.lengths.get(var, var) for var in node.inputs])

    def _visit_shape(self, node: Apply) -> None:
        [of], [shape] = node.inputs, node.outputs
        if of not in self.batch:
            return
        new, axis = self.batch[of], node.op.i if isinstance(node.op, Shape_i) else None
        if self._is_subsampled(of, axis):
            self.lengths[shape] = node.op(new)
        axes = track_axes(of, self.axes)
        if of in self.random and not isinstance(axes, Untracked):
            # As a number, and without the random variable of all rows, which the model has no more
            lengths = [
                a.total if isinstance(a, Rows) else shape_i(new, k) for k, a in enumerate(axes)
            ]
            self.batch[shape] = stack(lengths) if axis is None else lengths[axis]

    def _positions(self, node: Apply) -> set[int]:
        """Return the inputs that pick elements by position, as in ``rows[pt.arange(n), choice]``."""
        if not isinstance(node.op, AdvancedSubtensor | AdvancedIncSubtensor):
            return set()
        first = 1 if isinstance(node.op, AdvancedSubtensor) else 2
        return set(range(first, len(node.inputs))) if node.inputs[0] in self.batch else set()

    def _has_rows_of_inputs(self, node: Apply) -> bool:
        """Return whether `node`, computed from data alone, has rows wherever its inputs have."""
        if not any(var in self.batch for var in node.inputs):
            return True
        found = {output: track_axes(output, self.axes) for output in node.outputs}
        lost = any(isinstance(axes, Untracked) for axes in found.values())
        self.axes |= {out: _untracked_axes(out) for out in node.outputs} if lost else found
        return not lost

    def _filled_axes(self, node: Apply) -> Axes:
        """Return the axes of ``pt.ones(x.shape[0])``: a sum over them counts rows, so they are rows."""
        axes = track_axes(node.outputs[0], self.axes)
        if isinstance(axes, Untracked):
            return _untracked_axes(node.outputs[0])
        lengths = dict(enumerate(self.lengths.get(var) for var in node.inputs[1:]))
        lengths.update(self.sizes.get(node, {}))
        found = [
            [] if lengths[k] is None else indexes([lengths[k]], by_shape=True)
            for k in range(len(axes))
        ]
        return tuple(Rows(own[0]) if own else axis for axis, own in zip(axes, found))

    def _is_subsampled(self, var: Variable, axis: int | None) -> bool:
        axes = track_axes(var, self.axes)
        if isinstance(axes, Untracked):
            return True
        return bool(rows_of(axes)) if axis is None else isinstance(axes[axis], Rows)

    def _is_other_length(self, node: Apply) -> bool:
        """Return whether `node` is ``x.shape[k]`` of an axis that is not subsampled."""
        found = axis_of_length(node.outputs[0])
        return found is not None and not self._is_subsampled(*found)

    def _replace(
        self, memo: dict[Variable, Variable], node: Apply, inputs: Sequence[Variable]
    ) -> None:
        try:
            new_node = with_inputs(node, inputs)
        except (TypeError, ValueError, IndexError, AssertionError) as error:
            raise ValueError(
                f"pm.minibatch_model: {node} does not fit to the rows of a batch ({error}). What "
                "meets the rows of subsampled data has to be of them too, or broadcast: give a free "
                "variable with a value for each row the dims= of these rows, and so data, in pm.Data, whose "
                "place in the model does not show that they are rows. What couples the "
                "rows, such as the covariance of a Gaussian process, has none of a batch alone: use "
                "pm.gp.HSGP, or fit all rows"
            ) from error
        for old, new in zip(node.outputs, new_node.outputs, strict=True):
            new.name = new.name or old.name
            memo.setdefault(old, new)


# --- data whose dims do not say that they have rows ---
# Entry i of a constant design matrix, of group indexes or of an offset meets row i of a term. An axis of
# such data is rows if its entries come out, one by one, on the rows of a variable: the axis rules, read
# backwards. Equal lengths prove nothing: the prior means of N groups are on no axis of the rows.
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
    >>> from pymc.minibatch.subsample import find_positional_rows
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
