# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Group effects: which groups of a latent variable have rows in the data.

A model reads the effects of groups by the group of each row, as ``effect[user]``. An effect that no row reads
has its prior as posterior, given the hyperparameters. This module finds such groups in the graph of a model and
its data.
"""

from __future__ import annotations

import math

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from pytensor.graph.basic import Apply, Variable
from pytensor.graph.replace import graph_replace
from pytensor.graph.traversal import ancestors, toposort
from pytensor.raise_op import CheckAndRaise
from pytensor.tensor.basic import Join
from pytensor.tensor.random.op import RNGConsumerOp
from pytensor.tensor.subtensor import (
    AdvancedIncSubtensor,
    AdvancedSubtensor,
    IncSubtensor,
    Subtensor,
    indices_from_subtensor,
)
from pytensor.tensor.variable import TensorVariable

from pymc.minibatch.axis_rules import is_full
from pymc.minibatch.axis_tracking import (
    BROADCAST,
    Axes,
    Axis,
    Rows,
    Untracked,
    indexes,
    label,
    ndim_of,
    output_axes,
)
from pymc.minibatch.plates import local_axes
from pymc.minibatch.rebuild import all_rows, rebuild
from pymc.minibatch.scaling import RowRatio, minibatch_logp
from pymc.minibatch.stream_index import StreamIndexRV
from pymc.pytensorf import current_length, current_value

if TYPE_CHECKING:
    from pymc.model.core import Model

__all__ = ["Groups", "children_first", "counted_from_start", "groups_with_rows"]


@dataclass(frozen=True, eq=False)
class Groups:
    """Some groups of a variable: entries along an axis, or cells of several consecutive ones.

    Parameters
    ----------
    axis : int
        The axis, or the first of several.
    positions : array of int
        In ascending order, of cells in C order.
    lengths : tuple of int
        The number of all groups; along each axis of cells.
    """

    axis: int
    positions: np.ndarray
    lengths: tuple[int, ...]

    @property
    def total(self) -> int:
        return math.prod(self.lengths)

    @property
    def share(self) -> float:
        return self.positions.size / self.total

    @property
    def others(self) -> Groups:
        """The groups that these are not."""
        is_other = np.ones(self.total, dtype=bool)
        is_other[self.positions] = False
        return Groups(self.axis, np.flatnonzero(is_other), self.lengths)

    def index(self, n_sample_dims: int = 0) -> tuple[slice | np.ndarray, ...]:
        """Return the index of these groups in an array with some leading axes; they come out on one axis."""
        cells = np.unravel_index(self.positions, self.lengths)
        return (slice(None),) * (n_sample_dims + self.axis) + cells


def groups_with_rows(
    model: Model,
    whole: Collection[Variable] = (),
    along: Mapping[Variable, Groups] | None = None,
    replacements: Mapping[Variable, Variable] | None = None,
) -> dict[Variable, Groups]:
    """Return the groups with rows of each free variable that has groups without rows too.

    A term of the model depends on a group with rows. Variables whose groups are read in another way than by
    integers of the data, all together or by a stream for example, are left out. `whole` are variables all of
    whose groups count; `along` has the axes of groups, by default those with most groups without rows;
    `replacements` are for data in the terms.

    Raises
    ------
    IndexError
        If the data have a group that a variable does not have.

    Examples
    --------
    >>> from pymc.minibatch.group_reads import groups_with_rows
    >>> with pm.Model(coords={"user": range(5)}) as model:
    ...     effect = pm.Normal("effect", dims="user")
    ...     rows = pm.Normal("rows", effect[np.array([0, 3, 3])], 1, observed=np.zeros(3))
    >>> groups_with_rows(model)[effect].positions
    array([0, 3])
    """
    root, local = model.root, local_axes(model)
    candidates = [
        rv
        for rv in children_first(root, root.free_RVs)
        if rv.type.ndim and rv not in local and rv not in whole and isinstance(rv, TensorVariable)
    ]
    # Deriving the log-probability takes longer than looking for an index of such a variable
    terms = [*root.basic_RVs, *root.potentials]
    picked = [
        node.inputs[0]
        for node in toposort(terms)
        if isinstance(node.op, Subtensor | AdvancedSubtensor)
    ]
    if set(candidates).isdisjoint(ancestors(picked)):
        return {}
    with minibatch_logp():
        logps = root.logp(vars=terms, sum=False)
    # What is checked of all groups is no term
    logps = rebuild(logps, {}, bypass=lambda node: isinstance(node.op, CheckAndRaise))
    if replacements:
        logps = graph_replace(logps, replacements, strict=False)
    reader = _Reader(root, dict(zip(terms, logps)))
    for rv in candidates:
        reader.read(rv, None if along is None else along.get(rv))
    return reader.found


def children_first(model: Model, variables: Collection[Variable]) -> list[Variable]:
    """Sort variables of a model: first those that no other depends on."""
    known = set(variables)
    order = [var for node in toposort(model.basic_RVs) for var in node.outputs if var in known]
    return order[::-1]


@dataclass(frozen=True, eq=False)
class _Places(Rows, ABC):
    """Places along an axis, each of which has the effect of a group."""

    index: Any = None  # of no minibatch
    key: object = field(default_factory=object)
    batch_size = 0  # type: ignore[assignment]  # of any length
    dim = None
    #: Whether they are places that an index picks, and not all groups
    is_picked = False
    #: Which axis of cells it is
    order = 0

    def __str__(self) -> str:
        return "groups"

    @property
    def state(self) -> Any:
        return self.key

    @property
    @abstractmethod
    def length(self) -> int: ...

    @abstractmethod
    def groups(self, at: np.ndarray | None = None) -> np.ndarray:
        """Return the groups at some places, or at all."""


@dataclass(frozen=True, eq=False)
class _Every(_Places):
    """All groups in their order."""

    total: int = 0
    order: int = 0

    @property
    def length(self) -> int:
        return self.total

    def groups(self, at: np.ndarray | None = None) -> np.ndarray:
        return np.arange(self.total) if at is None else at


@dataclass(frozen=True, eq=False)
class _Picked(_Places):
    """The places of `of` that an index array picks."""

    of: Any = None
    at: Any = None
    is_picked = True

    @property
    def length(self) -> int:
        return len(self.at)

    def groups(self, at: np.ndarray | None = None) -> np.ndarray:
        return self.of.groups(self.at if at is None else self.at[at])


@dataclass(frozen=True, eq=False)
class _Joined(_Places):
    """The places of `of` among others, such as that of a reference group whose effect is 0."""

    of: Any = None
    before: int = 0
    total: int = 0

    @property
    def length(self) -> int:
        return self.total

    def groups(self, at: np.ndarray | None = None) -> np.ndarray:
        if at is None:
            return self.of.groups()
        at = at - self.before
        return self.of.groups(at[(at >= 0) & (at < self.of.length)])


class _Read(Exception):
    """Groups that a node reads, and which no axis of its outputs has."""

    def __init__(self, groups: np.ndarray) -> None:
        self.groups = groups


class _Unknown(Exception):
    """It is not known which groups are read."""


@dataclass(eq=False)
class _Reader:
    """Finds the groups with rows of the variables of a model, children first.

    `terms` are log-probabilities, element by element, as functions of values.
    """

    model: Model
    terms: Mapping[Variable, Variable]
    found: dict[Variable, Groups] = field(default_factory=dict)
    has_array: bool = False  # whether an index array picks groups, and not b[0] alone
    picks: dict[Variable, np.ndarray | None] = field(default_factory=dict)

    def read(self, rv: Variable, along: Groups | None = None) -> None:
        """Add a variable if it has groups without rows: along the axis with most of them, or as cells."""
        value = self.model.rvs_to_values[rv]
        n_axes = min(rv.type.ndim, value.type.ndim, self.terms[rv].type.ndim)
        spans = list(combinations(range(n_axes + 1), 2))
        if along is not None:
            spans = [(along.axis, along.axis + len(along.lengths))]
        candidates = []
        for axis, end in spans:
            lengths = [current_length(rv.shape[k]) for k in range(axis, end)]
            known = tuple(n for n in lengths if n is not None)
            if len(known) < end - axis or (along is not None and known != along.lengths):
                continue
            has_rows, self.has_array = np.zeros(known, dtype=bool).ravel(), False
            try:
                for groups in self._reads(rv, value, axis, known):
                    has_rows[groups] = True
                    if has_rows.all():
                        break
            except _Unknown:
                continue
            if self.has_array and has_rows.any() and not has_rows.all():
                candidates.append(Groups(axis, np.flatnonzero(has_rows), known))
        if candidates:
            self.found[rv] = min(candidates, key=lambda groups: groups.share)

    def _reads(
        self, rv: Variable, value: Variable, axis: int, lengths: Sequence[int]
    ) -> Iterator[np.ndarray]:
        """Yield the groups that the terms of the model read.

        Raises
        ------
        _Unknown
            If one reads all of them, or by what is no data, or the groups are not independent.
        """
        along: list[Axis] = [BROADCAST] * value.type.ndim
        along[axis : axis + len(lengths)] = [
            _Every(total=n, order=k) for k, n in enumerate(lengths)
        ]
        carried: dict[Variable, Axes] = {value: tuple(along)}
        # That of the variable itself has to be one of each group
        own = self.terms[rv]
        list(self._walk([own], carried))
        if (
            list(carried.get(own, ()))[axis : axis + len(lengths)]
            != along[axis : axis + len(lengths)]
        ):
            raise _Unknown
        others = {var: logp for var, logp in self.terms.items() if var is not rv}
        for logp in others.values():
            # A batch that pm.set_data replaces has rows of other groups at other times
            if _is_of_part(logp) and value in set(ancestors([logp])):
                raise _Unknown
        yield from self._walk(list(others.values()), carried)
        for var, logp in others.items():
            if logp in carried:
                yield self._of_term(var, carried[logp])

    def _walk(self, graphs: list[Variable], carried: dict[Variable, Axes]) -> Iterator[np.ndarray]:
        """Follow groups through graphs, and yield those that are read where they get lost."""
        for node in toposort(graphs, blockers=list(carried)):
            inputs = [carried.get(var, (BROADCAST,) * ndim_of(var)) for var in node.inputs]
            places = [place for axes in inputs for place in _places(axes)]
            if not places:
                continue
            try:
                outputs = self._output_axes(node, inputs)
            except _Read as read:
                yield read.groups
                continue
            except Untracked:
                # All places come together: these are some groups only if an index has picked them
                for place in places:
                    if not place.is_picked:
                        raise _Unknown from None
                    yield place.groups()
                continue
            for var, axes in zip(node.outputs, outputs):
                if len(found := _places(axes)) != len({place.order for place in found}):
                    raise _Unknown  # groups meet groups
                if found:
                    carried[var] = axes

    def _of_term(self, term: Variable, axes: Axes) -> np.ndarray:
        """Return the groups that a term reads: those of its groups with rows, if it has others."""
        groups, places = self.found.get(term), _places(axes)
        at = None
        if groups is not None:
            span = slice(groups.axis, groups.axis + len(groups.lengths))
            in_order = [place.order for place in places] == list(range(len(places)))
            if list(axes[span]) == places and in_order:
                at = groups.positions
                self.has_array = True  # as the term's own groups are
        if len(places) > 1 and at is not None:
            return at
        if len(places) > 1 or (at is None and not places[0].is_picked):
            raise _Unknown
        return places[0].groups(at)

    def _output_axes(self, node: Apply, inputs: Sequence[Axes]) -> Sequence[Axes]:
        op = node.op
        if isinstance(op, IncSubtensor | AdvancedIncSubtensor) and _places(inputs[0]):
            if not any(map(_places, inputs[1:])):
                return [inputs[0]]  # what is not written stays
        if isinstance(op, Join) and any(_places(axes[op.axis : op.axis + 1]) for axes in inputs):
            return [self._joined(node, inputs)]
        if isinstance(op, Subtensor | AdvancedSubtensor) and _places(inputs[0]):
            return [self._picked(node, inputs)]
        return output_axes(op, node, inputs)

    def _joined(self, node: Apply, inputs: Sequence[Axes]) -> Axes:
        along = node.op.axis
        having = [k for k, axes in enumerate(inputs) if _places(axes)]
        if len(having) > 1 or len(_places(inputs[having[0]])) > 1:
            raise Untracked("groups are joined with groups")
        [k] = having
        lengths = [current_length(var.shape[along]) for var in node.inputs]
        lengths[k] = _places(inputs[k])[0].length
        if None in lengths:
            raise Untracked("groups are joined with an unknown number of others")
        before = sum(lengths[:k])  # type: ignore[arg-type]
        [place] = _places(inputs[k])
        joined = _Joined(of=place, before=before, total=sum(lengths))  # type: ignore[arg-type]
        return tuple(joined if axis is place else axis for axis in inputs[k])

    def _picked(self, node: Apply, inputs: Sequence[Axes]) -> Axes:
        """Return the axes of ``x[...]``, where the places of groups are those that an entry picks."""
        op, axes = node.op, inputs[0]
        entries = list(indices_from_subtensor(node.inputs[1:], op.idx_list))
        if len(_places(axes)) > 1:
            return self._picked_cells(node, inputs, entries)
        [k] = [k for k, axis in enumerate(axes) if isinstance(axis, _Places)]
        place: Any = axes[k]
        entry = entries[k] if k < len(entries) else slice(None)
        if is_full(entry):
            [found] = output_axes(op, node, inputs)
            return found
        if isinstance(entry, slice):
            bounds = [
                None if b is None else self._integers(b)
                for b in (entry.start, entry.stop, entry.step)
            ]
            at = np.arange(place.length)[slice(*(None if b is None else int(b) for b in bounds))]
        else:
            at = self._integers(entry)
            self.has_array = self.has_array or at.ndim > 0
            at = (
                np.flatnonzero(at)
                if at.dtype == bool
                else counted_from_start(at, place.length, node.inputs[0], entry)
            )
        picked = _Picked(of=place, at=at.ravel())
        n_arrays = sum(isinstance(e, Variable) and e.type.ndim > 0 for e in entries)
        is_broadcast = n_arrays > 1 and at.size == 1
        if (
            at.ndim != 1
            or is_broadcast
            or (isinstance(entry, slice) and not isinstance(op, Subtensor))
        ):
            raise _Read(picked.groups())
        if isinstance(entry, slice):
            axes = tuple(picked if axis is place else axis for axis in axes)
            entries += [slice(None)] * (len(axes) - len(entries))
            return tuple(axis for axis, e in zip(axes, entries) if isinstance(e, slice))
        return _picked_axes(node, inputs, [entry], picked)

    def _picked_cells(self, node: Apply, inputs: Sequence[Axes], entries: Sequence[Any]) -> Axes:
        """Return the axes of ``x[i, j]``, where arrays pick cells."""
        picks = [
            (place, entries[k])
            for k, place in enumerate(inputs[0])
            if isinstance(place, _Places) and k < len(entries)
        ]
        is_array = [isinstance(e, Variable) and e.type.ndim == 1 for _, e in picks]
        if len(picks) < len(_places(inputs[0])) or not all(is_array):
            raise _Unknown
        self.has_array = True
        at = [self._integers(entry) for _, entry in picks]
        if any(array.dtype == bool for array in at):
            raise _Unknown
        arrays = {
            place.order: counted_from_start(array, place.length, node.inputs[0], entry)
            for array, (place, entry) in zip(at, picks)
        }
        by_order = sorted((place for place, _ in picks), key=lambda place: place.order)
        lengths = tuple(place.length for place in by_order)
        ordered = np.broadcast_arrays(*(arrays[place.order] for place in by_order))
        cells = np.ravel_multi_index(ordered, lengths)
        picked = _Picked(of=_Every(total=math.prod(lengths)), at=cells)
        return _picked_axes(node, inputs, [entry for _, entry in picks], picked)

    def _integers(self, index: Any) -> np.ndarray:
        """Return the values of an index for all rows of the data."""
        if not isinstance(index, Variable):
            return np.asarray(index)
        if index not in self.picks:
            self.picks[index] = self._evaluate(index)
        found = self.picks[index]
        if found is None:
            raise _Unknown
        return found

    def _evaluate(self, index: Variable) -> np.ndarray | None:
        above = set(ancestors([index]))
        if any(var.owner is not None and isinstance(var.owner.op, StreamIndexRV) for var in above):
            return None
        [graph] = all_rows([index])
        above = set(ancestors([graph]))
        is_random = any(
            var.owner is not None and isinstance(var.owner.op, RNGConsumerOp) for var in above
        )
        return (
            None
            if is_random or not above.isdisjoint(self.model.value_vars)
            else current_value(graph)
        )


def _places(axes: Axes) -> list[_Places]:
    return [axis for axis in axes if isinstance(axis, _Places)]


def _is_of_part(logp: Variable) -> bool:
    """Return whether a term is scaled up from a part of the rows, which no index picks."""
    ratios = [var for var in ancestors([logp]) if var.owner and isinstance(var.owner.op, RowRatio)]
    return any(current_value(ratio) != 1 for ratio in ratios) and not indexes([logp])


def _picked_axes(
    node: Apply, inputs: Sequence[Axes], entries: Sequence[Variable], picked: _Places
) -> Axes:
    """Return the axes of ``x[entries]``: to the rule, index arrays of rows."""
    axes = [(picked,) if var in entries else axes for var, axes in zip(node.inputs, inputs)]
    axes[0] = tuple(BROADCAST if isinstance(axis, _Places) else axis for axis in inputs[0])
    [found] = output_axes(node.op, node, axes)
    return found


def counted_from_start(
    at: np.ndarray, length: int, indexed: Variable, index: Variable
) -> np.ndarray:
    """Replace negative integers, which count from the end.

    Raises
    ------
    IndexError
        If one is out of bounds.
    """
    if not at.size:
        return at
    low, high = at.min(), at.max()
    if low < -length or high >= length:
        wrong = (at < -length) | (at >= length)
        first = np.unravel_index(int(wrong.argmax()), at.shape)
        raise IndexError(
            f"{label(indexed)!r} has {length:,} groups, and {label(index)!r}, which says the group of each row, "
            f"has {at[first]:,} (row {first[0] if first else 0:,}): groups are numbered from 0 to {length - 1:,}. "
            "Compiled code would read beyond the end. Give the dim as many coords as there are groups, or number "
            "them anew, as by np.unique(..., return_inverse=True)"
        )
    return np.where(at < 0, at + length, at) if low < 0 else at
