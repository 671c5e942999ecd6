# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""What the log-probability of a minibatch is made of: terms that are sums over its rows.

A batch can stand for all rows only where each term is a sum over rows of what depends on one row each.
That is looked at where nothing is hidden, in the graph of the log-probability: proved by rules
(:mod:`~pymc.minibatch.row_terms`), else found by trying (:mod:`~pymc.minibatch.row_terms`), else vouched
for by `total_size`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import singledispatch
from typing import Any

import numpy as np
import pytensor
import pytensor.tensor as pt

from pytensor.compile.mode import Mode
from pytensor.conditional.op import IfElse
from pytensor.graph.basic import Apply, Constant, Variable, equal_computations
from pytensor.graph.op import Op
from pytensor.graph.traversal import ancestors, toposort
from pytensor.graph.type import HasShape
from pytensor.raise_op import CheckAndRaise
from pytensor.scalar import Add, Cast, Identity, Mul, Neg, Sub, Switch, TrueDiv
from pytensor.tensor.basic import Join, ScalarFromTensor, TensorFromScalar
from pytensor.tensor.blockwise import Blockwise
from pytensor.tensor.elemwise import DimShuffle, Elemwise
from pytensor.tensor.math import Dot, Sum
from pytensor.tensor.random.op import RNGConsumerOp
from pytensor.tensor.reshape import JoinDims, SplitDims
from pytensor.tensor.shape import Reshape
from pytensor.tensor.subtensor import AdvancedSubtensor, indices_from_subtensor
from pytensor.tensor.type import lvector
from pytensor.xtensor.basic import TensorFromXTensor, XTensorFromTensor
from pytensor.xtensor.reduction import XReduce
from pytensor.xtensor.vectorization import XElemwise

from pymc.minibatch.axis_tracking import (
    BROADCAST,
    OTHER,
    Axes,
    Rows,
    Untracked,
    broadcast_axis,
    indexes,
    label,
    ndim_of,
    output_axes,
    rows_of,
    track_axes,
)
from pymc.minibatch.current_value import current_length
from pymc.minibatch.index import MinibatchIndexRV
from pymc.minibatch.lengths import RowCount, axis_of_length, check_no_row_count, row_counts
from pymc.minibatch.rebuild import rebuild
from pymc.minibatch.stream_index import StreamedRows, StreamIndexRV


def check_log_probability(
    name: str,
    rv: Variable,
    value: Variable,
    axes: Axes | Untracked,
    *,
    known: Mapping[Variable, Axes | Untracked],
    free: Collection[Variable],
    transform: Any = None,
    vouched: bool = False,
) -> None:
    """Check that the log-probability of a variable is a sum over the rows of its value.

    Parameters
    ----------
    name : str
    rv : Variable
        The random variable, not scaled.
    value : Variable
        What is observed, or the value variable of a free variable.
    axes : tuple of Rows, BROADCAST or OTHER, or Untracked
        The axes of `value`.
    known, free
        Passed on to :func:`~pymc.minibatch.axis_tracking.track_axes`.
    transform : Transform, optional
        That of the value.
    vouched : bool
        Whether `total_size` says so: believed where nothing else can tell.

    Raises
    ------
    ValueError
        If rows depend on each other, or the ``logp=`` of a `CustomDist` uses a minibatch that is not
        among its parameters.
    """
    # What the term is made of, so that nothing but its own distribution is looked into
    parts = {part: track_axes(part, known, free) for part in _parameters(rv, [*known, *free])}
    stands_for = {_of_any_length(part, found): part for part, found in parts.items()}
    [bare] = rebuild([rv], {part: stand for stand, part in stands_for.items()})
    observed = _of_any_length(value, axes)
    logp = _log_probability(name, bare, observed, transform)
    if logp is None:
        return
    hidden = indexes([logp], by_shape=True)
    if hidden:
        raise ValueError(
            f"the logp= of {name!r} uses {Rows(hidden[0])}, which is not among its parameters, so that "
            "its rows cannot be followed. Pass what it needs as a parameter: "
            "pm.CustomDist(name, x, ..., logp=lambda value, x, ...: ...)"
        )
    found = map(Rows, indexes([rv, value])) if isinstance(axes, Untracked) else rows_of(axes)
    rows = frozenset(found)
    inside = {stand: parts[part] for stand, part in stands_for.items()}
    summed = summed_rows(repr(name), logp, {**inside, observed: axes})
    if isinstance(summed, Untracked) and summed.is_worth_trying:
        [whole] = rebuild([logp], {**stands_for, observed: value})
        summed = tried(summed, whole, rows, known, free, vouched)
    check_sum_over_rows(repr(name), summed, rows)


def check_sum_over_rows(
    what: str, summed: frozenset[Rows] | Untracked, rows: frozenset[Rows]
) -> None:
    """Raise where a term is no sum over rows.

    Parameters
    ----------
    what : str
        What the term is called.
    summed : frozenset of Rows, or Untracked
        See :func:`~pymc.minibatch.row_terms.summed_rows`.
    rows : frozenset of Rows
        What it has to be a sum over.

    Raises
    ------
    ValueError
    """
    if isinstance(summed, Untracked):
        raise ValueError(f"{what}: {summed.why}. {_RULE}{_COUPLED if summed.certain else _VOUCH}")
    for axis in summed - rows:
        raise ValueError(
            f"{what}: its log-probability is a sum over the rows of {axis}, which its value does not have, "
            "so that it is not known what to scale: observe a value for each of these rows"
        )
    for axis in rows - summed:
        raise ValueError(
            f"{what}: its log-probability does not have the rows of {axis}, so that no scale makes a "
            "batch stand for all rows. Return a value for each row, or their sum"
        )


_RULE = (
    "The log-probability of a minibatch has to be a sum over its rows, each term of one row alone"
)
_COUPLED = (
    ": rows that depend on each other, such as those of a series, have to be one row of data with two axes; "
    "or fit all rows at once, without pm.Minibatch"
)
_VOUCH = ". If it is, say so by total_size=<rows in all>"


def tried(
    lost: Untracked,
    term: Variable,
    rows: frozenset[Rows],
    known: Mapping[Variable, Axes | Untracked],
    free: Collection[Variable],
    vouched: bool,
) -> frozenset[Rows] | Untracked:
    """Tell by trying, else by what the user says, what a term is a sum over that no rule can output_axes.

    Parameters
    ----------
    lost : Untracked
        Where the rules end.
    term : Variable
        The log-probability.
    rows : frozenset of Rows
        What it has to be a sum over.
    known, free
        Passed on to :func:`~pymc.minibatch.axis_tracking.track_axes`.
    vouched : bool
        Whether `total_size` says that it is.
    """
    answer = adds_up(term, rows, known, free)
    if answer or (answer is None and vouched and not lost.certain):
        return rows
    if answer is None or lost.certain:
        return lost
    why = f"{lost.why}, and that of five rows is not the sum of those of two and three of them"
    return Untracked(why)


def _of_any_length(var: Variable, axes: Axes | Untracked) -> Variable:
    """Make a variable like `var`, whose number of rows is not known: else it becomes a number."""
    if isinstance(axes, Untracked):
        return var.type(name=var.name)
    shape = [None if isinstance(axis, Rows) else n for n, axis in zip(var.type.shape, axes)]
    return var.type.clone(shape=tuple(shape))(name=var.name)


def _parameters(rv: Variable, given: Collection[Variable]) -> list[Variable]:
    """List what a distribution is made of, beside other distributions such as a mixture's."""
    from pymc.logprob.abstract import MeasurableOp

    random: set[Variable] = set()
    found: dict[Variable, None] = {}
    for node in toposort([rv], blockers=given):
        # Those that pymc-extras marginalizes draw nothing
        is_index = isinstance(node.op, MinibatchIndexRV)
        is_distribution = is_random(node) or (isinstance(node.op, MeasurableOp) and not is_index)
        if is_distribution or not random.isdisjoint(node.inputs):
            random.update(node.outputs)
            found |= {
                var: None
                for var in node.inputs
                if var not in random
                and isinstance(var.type, HasShape)
                and not isinstance(var, Constant)
            }
    return list(found)


def _log_probability(name: str, rv: Variable, value: Variable, transform: Any) -> Variable | None:
    """Derive the log-probability of `rv` at `value`; None for a distribution that has none."""
    from pymc.logprob.basic import conditional_logp, logp
    from pymc.logprob.transform_value import TransformValuesRewrite

    try:
        if transform is None:
            found = logp(rv, value, warn_rvs=False)
            # Of several variables that have one together, it is the first
            return found[0] if isinstance(found, list | tuple) else found
        rewrite = TransformValuesRewrite({value: transform})
        return conditional_logp({rv: value}, warn_rvs=False, extra_rewrites=rewrite)[value]
    except NotImplementedError:
        return None
    except (TypeError, ValueError, IndexError, AssertionError) as error:
        raise ValueError(
            f"{name!r}: its log-probability cannot be computed of the rows of a batch ({error}). Data "
            "that a logp= uses have to be among its parameters, of the same pm.Minibatch call: "
            "pm.CustomDist(name, x, ..., logp=lambda value, x, ...: ...)"
        ) from error


def summed_rows(
    name: str,
    term: Variable,
    known: Mapping[Variable, Axes | Untracked] | None = None,
    free: Collection[Variable] = (),
) -> frozenset[Rows] | Untracked:
    """Prove that a term of the log-probability is a sum over rows.

    Parameters
    ----------
    name : str
        What the term is called, for messages.
    term : Variable
        Its log-probability: an entry for each row, or sums of these.
    known, free
        Passed on to :func:`~pymc.minibatch.axis_tracking.track_axes`. Value variables are among those known.

    Returns
    -------
    frozenset of Rows, or Untracked
        Of which rows the sum of all entries of `term` is one, each entry of one row alone; where
        that is not so, or not known, the Op and the reason.

    Raises
    ------
    ValueError
        If it computes with the number of rows of the batch.
    """
    known = known or {}
    graph = _Graph(name, known, free, row_counts([term], known))
    try:
        return graph.total(term).over
    except Untracked as lost:
        return lost


@dataclass(frozen=True)
class _Part:
    """A part of a log-probability: row by row along `axes`, and a sum over the rows in `over`.

    `alike` says that all terms of the sum are the same, as they are of a number of rows; `shifted`, that
    a constant is added to it, which moves no posterior as long as nothing multiplies it.
    """

    axes: Axes
    over: frozenset[Rows] = frozenset()
    alike: bool = False
    shifted: bool = False

    @property
    def rows(self) -> frozenset[Rows]:
        return self.over | frozenset(rows_of(self.axes))

    def summed(self, axes: Collection[int], by: object = "the term") -> _Part:
        """Sum over axes."""
        over = rows_of([self.axes[k] for k in axes])
        if len(set(over)) < len(over) or not self.over.isdisjoint(over):
            raise Untracked(f"{by} sums over pairs of rows of a minibatch")
        left = tuple(a for k, a in enumerate(self.axes) if k not in axes)
        return _Part(left, self.over.union(over), shifted=self.shifted)


@dataclass(frozen=True)
class _Graph:
    """The graph of a log-probability, and what is known of its variables."""

    name: str
    known: Mapping[Variable, Axes | Untracked]
    free: Collection[Variable]
    counts: Mapping[Variable, RowCount]
    parts: dict[Variable, _Part] = field(default_factory=dict)

    def total(self, var: Variable) -> _Part:
        """Tell what the sum of all entries of `var` is; it does not matter how they are arranged."""
        node = var.owner
        if node is not None and isinstance(node.op, Reshape | JoinDims | SplitDims):
            return self.total(node.inputs[0])
        if node is not None and isinstance(node.op, Join):
            return self.added(node.inputs, [self.total(part) for part in node.inputs])
        bare = self._without_masks(var)
        if bare is not var:
            return _Graph(self.name, self.known, self.free, row_counts([bare], self.known)).total(
                bare
            )
        part = self.part(var)
        return part.summed(range(len(part.axes)))

    def _without_masks(self, var: Variable) -> Variable:
        """Leave out the masks of values of which a sum is taken: those that they drop are zeros of it."""
        inner = list(ancestors([var], [*self.known, *self.free]))
        masked = [v for v in inner if _mask(v) is not None]
        masks: list[Any] = [_mask(v) for v in masked]
        if not masked or not equal_computations(masks, masks[:1] * len(masks)):
            return var
        [mask, *_] = masks
        if not rows_of(self.part(mask).axes):
            return var
        # How many there are is a sum over rows too, of the mask
        lengths = {v: mask.sum().astype(v.type.dtype) for v in inner if _is_length(v, masked)}
        return rebuild([var], {**{v: v.owner.inputs[0] for v in masked}, **lengths})[0]

    def part(self, var: Variable) -> _Part:
        """Tell what `var` is. Raises `Untracked` where it is neither row by row nor a sum over rows."""
        if var not in self.parts:
            self.parts[var] = self._part(var)
        return self.parts[var]

    def _part(self, var: Variable) -> _Part:
        counted = self.counts.get(var)
        if counted is not None and counted.is_multiple:  # a sum of ones
            return _Part((BROADCAST,) * var.type.ndim, frozenset([counted.rows]), alike=True)
        axes = track_axes(var, self.known, self.free)
        found = None
        if (isinstance(axes, Untracked) or counted is not None) and var.owner is not None:
            found = peel(var.owner.op, var.owner, self)
        if found is not None:
            return found
        if isinstance(axes, Untracked):
            raise axes
        if counted is not None:
            raise Untracked(f"{label(var)} is computed from the number of rows of a batch")
        if self.counts:
            check_no_row_count(self.name, [var], self.known)
        return _Part(axes)

    def added(self, variables: Sequence[Variable], parts: Sequence[_Part]) -> _Part:
        """Tell of what rows the sum of parts is one; they have to be sums over the same rows."""
        first = next((part for part in parts if part.rows), _Part(()))
        shifted = any(part.shifted for part in parts)
        for var, part in zip(variables, parts, strict=True):
            if part.over == first.over and (part.rows == first.rows or not first.over):
                continue
            if part.rows or not self.is_constant(var):
                raise Untracked(
                    f"{label(var)} is added to a sum over the rows of a minibatch, and is not one itself: "
                    "put it into a pm.Potential of its own"
                )
            shifted = True
        return _Part((), first.over, all(part.alike for part in parts), shifted)

    def is_constant(self, var: Variable) -> bool:
        """Tell whether neither parameters nor data are in `var`, so that it moves no posterior."""
        roots = (v for v in ancestors([var], self.free) if v.owner is None or v in self.free)
        return all(isinstance(root, Constant) for root in roots)


@singledispatch
def peel(op: Op, node: Apply, graph: _Graph) -> _Part | None:
    """Tell what a linear operation makes of sums over rows.

    Parameters
    ----------
    op : Op
        The Op of `node`, which is dispatched on.
    node : Apply
    graph : _Graph

    Returns
    -------
    _Part or None
        None for Ops that are not linear.

    Raises
    ------
    Untracked
        Where what comes out is no sum over rows.
    """
    return None


@peel.register(CheckAndRaise)
@peel.register(DimShuffle)
@peel.register(TensorFromScalar)
@peel.register(ScalarFromTensor)
@peel.register(TensorFromXTensor)
@peel.register(XTensorFromTensor)
def _(op: Op, node: Apply, graph: _Graph) -> _Part:
    first = graph.part(node.inputs[0])
    return _combined(node, [first.axes, *map(_any_axes, node.inputs[1:])], first)


@peel.register(Elemwise)
@peel.register(XElemwise)
def _(op: Elemwise | XElemwise, node: Apply, graph: _Graph) -> _Part | None:
    scalar_op = op.scalar_op
    if not isinstance(scalar_op, Cast | Identity | Neg | Add | Sub | Mul | TrueDiv | Switch):
        return None
    parts = [graph.part(var) for var in node.inputs]
    of_rows = [part for part in parts if part.rows]
    if isinstance(scalar_op, Switch) and parts[0].rows:
        return None
    if not of_rows:  # a number of rows that is not one, such as its root
        return None
    axes = [part.axes for part in parts]
    if isinstance(scalar_op, Add | Sub):
        return _combined(node, axes, graph.added(node.inputs, parts))
    if isinstance(scalar_op, Switch):
        return _combined(node, axes, _branches(node.inputs[1:], parts[1:], graph))
    [first, *others] = of_rows
    if (
        isinstance(scalar_op, TrueDiv)
        and others
        and all(part.alike and part.over == first.over for part in parts)
    ):
        return _combined(node, axes, _Part(()))  # rows by rows
    if isinstance(scalar_op, TrueDiv) and parts[0].rows and parts[1].alike:
        raise Untracked(
            f"{op} divides by the number of rows of a batch: take their sum, not their mean",
            by_place=True,
        )
    if others or (isinstance(scalar_op, TrueDiv) and not parts[0].rows):
        raise Untracked(f"{op} computes with a sum over the rows of a minibatch", by_place=True)
    factors = [var for var, part in zip(node.inputs, parts) if part is not first]
    if first.shifted and not all(map(graph.is_constant, factors)):
        raise Untracked(
            f"{op} multiplies a constant beside a sum over the rows of a minibatch, which is no part of "
            "any row"
        )
    return _combined(node, axes, first)


@peel.register(IfElse)
def _(op: IfElse, node: Apply, graph: _Graph) -> _Part | None:
    condition, *branches = node.inputs
    if len(branches) != 2 or graph.part(condition).rows:
        return None
    parts = [graph.part(var) for var in branches]
    if not any(part.rows for part in parts):
        return None
    found = _branches(branches, parts, graph)
    return replace(found, axes=parts[0].axes)


def _branches(variables: Sequence[Variable], parts: Sequence[_Part], graph: _Graph) -> _Part:
    """Tell what one of two parts is, by a condition: a constant is one only where it is no number or 0."""
    found = graph.added(variables, parts)
    for var, part in zip(variables, parts):
        values = var
        while values.owner is not None and isinstance(values.owner.op, DimShuffle):
            [values] = values.owner.inputs
        if not part.rows and found.over:
            data = values.data if isinstance(values, Constant) else 1.0
            if not (np.isinf(data) | np.equal(data, 0)).all():
                raise Untracked(
                    f"{label(var)} stands for a sum over the rows of a minibatch, and is not one"
                )
    return replace(found, alike=False, shifted=any(part.shifted for part in parts))


@peel.register(Sum)
def _(op: Sum, node: Apply, graph: _Graph) -> _Part:
    [var] = node.inputs
    if op.axis is None:
        return graph.total(var)
    return graph.part(var).summed(op.axis, op)


@peel.register(XReduce)
def _(op: XReduce, node: Apply, graph: _Graph) -> _Part | None:
    [var] = node.inputs
    if not isinstance(op.binary_op, Add):
        return None
    return graph.part(var).summed([var.type.dims.index(dim) for dim in op.dims], op)


@peel.register(Dot)
@peel.register(Blockwise)
def _(op: Dot | Blockwise, node: Apply, graph: _Graph) -> _Part | None:
    """A product of two vectors of rows is a sum over them."""
    if not isinstance(op.core_op if isinstance(op, Blockwise) else op, Dot):
        return None
    x, y = (graph.part(var) for var in node.inputs)
    if x.over or y.over:
        return None
    last = max(len(y.axes) - 2, 0)
    together = broadcast_axis([x.axes[-1], y.axes[last]], map(label, node.inputs))
    if not isinstance(together, Rows):
        return None
    axes = [(*x.axes[:-1], BROADCAST), (*y.axes[:last], BROADCAST, *y.axes[last + 1 :])]
    [kept] = output_axes(op, node, axes)
    return _Part((together, *kept)).summed([0], op)


def _combined(node: Apply, axes: Sequence[Axes], part: _Part) -> _Part:
    [found] = output_axes(node.op, node, axes)
    return replace(part, axes=found)


def _mask(var: Variable) -> Variable | None:
    """Return the mask of ``x[mask]``; None for anything else."""
    node = var.owner
    if node is None or not isinstance(node.op, AdvancedSubtensor):
        return None
    entries = indices_from_subtensor(node.inputs[1:], node.op.idx_list)
    if len(entries) == 1 and isinstance(entries[0], Variable) and entries[0].type.dtype == "bool":
        return entries[0]
    return None


def _is_length(var: Variable, of: Collection[Variable]) -> bool:
    found = axis_of_length(var)
    return found is not None and found[1] == 0 and found[0] in of


def _any_axes(var: Variable) -> Axes:
    return (OTHER,) * ndim_of(var)


_MODE = Mode(linker="py", optimizer=None)
_POINTS = 4
_ROWS = 12
_SEED = 2083


def adds_up(
    term: Variable,
    rows: Collection[Rows],
    known: Mapping[Variable, Axes | Untracked],
    free: Collection[Variable],
) -> bool | None:
    """Try whether the sum of all entries of a term is one over rows of data.

    Parameters
    ----------
    term : Variable
        A log-probability, as a function of the data of the model and its random variables.
    rows : collection of Rows
        What it should be a sum over.
    known : mapping of Variable to axes
        Those of local variables, which get a value for each row, among others.
    free : collection of Variable
        The model's free variables, which get values drawn from their prior.

    Returns
    -------
    bool or None
        None where nothing can be told: it is random, its rows are not at hand or are all alike, it is
        not finite, or it is made for one number of rows.
    """
    try:
        function = _of_places(term, known, free)
        answers = [_adds_up(function, axis) for axis in rows]
    except Exception:  # a user's function may fail in any way at rows of another number
        return None
    return False if False in answers else None if None in answers else True


type _Function = Callable[[int, Mapping[Rows, np.ndarray]], np.ndarray]


def _adds_up(function: _Function, axis: Rows) -> bool | None:
    """Compare the term of five rows with that of two of them and that of the others."""
    rng = np.random.default_rng(_SEED)
    conclusive = 0
    for point in range(_POINTS):
        first, second, third = rng.permutation(_ROWS)[:3]
        places = np.array([first, second, third, second, first])
        parts = [function(point, {axis: part}) for part in (places, places[:2], places[2:])]
        if not np.isfinite(parts).all() or function(point, {axis: places}) != parts[0]:
            continue
        whole, two, three = parts
        tolerance = np.sqrt(np.finfo(whole.dtype).eps) * np.abs(parts).sum()
        if abs(whole - two - three) > tolerance:
            return False
        others = [function(point, {axis: places[k : k + 2]}) for k in (1, 2, 3)]
        conclusive += any(abs(other - two) > tolerance for other in others)
    return True if conclusive > 1 else None


def _of_places(
    term: Variable, known: Mapping[Variable, Axes | Untracked], free: Collection[Variable]
) -> _Function:
    """Make a term a function of a point, and of places among a few rows of data and of local variables."""
    roots = [
        var
        for var in ancestors([term])
        if var in free or (var.owner is None and _rows_along(var, known))
    ]
    inner = [v for v in ancestors([term], blockers=roots) if v not in roots and v.owner is not None]
    if any(is_random(var.owner) for var in inner):
        raise NotImplementedError("its values are random")
    rng = np.random.default_rng(_SEED)
    places: dict[Rows, Variable] = {}
    replaced: dict[Variable, Variable] = {}
    lengths = _rows_at_hand(inner)
    for axis, length in lengths.items():
        places[axis] = lvector()
        few = pt.constant(rng.choice(length, _ROWS, replace=length < _ROWS))[places[axis]]
        for var in inner:
            if isinstance(var.owner.op, StreamedRows) and Rows(var.owner.inputs[1]) == axis:
                replaced[var] = var.owner.inputs[0][few]
            elif isinstance(var.owner.op, MinibatchIndexRV) and var is var.owner.outputs[1]:
                if Rows(var) == axis:
                    replaced[var] = few
    inputs = []
    for root in roots:
        table = root.type.clone(shape=(None,) * root.type.ndim)()
        inputs.append(table)
        for k, axis in _rows_along(root, known).items():
            table = table[(slice(None),) * k + (places.setdefault(axis, lvector()),)]
        replaced[root] = table
    [total] = rebuild([term.sum()], replaced, bypass=_is_marker)
    compiled = pytensor.function([*places.values(), *inputs], total, mode=_MODE)
    drawn = _drawn(roots)

    def function(point: int, at: Mapping[Rows, np.ndarray]) -> np.ndarray:
        chosen = [at.get(axis, np.arange(3)) for axis in places]
        values = [
            _table(draws[point * _ROWS :][:_ROWS], _rows_along(root, known))
            for root, draws in zip(roots, drawn)
        ]
        return compiled(*chosen, *values)

    return function


def _drawn(roots: Sequence[Variable]) -> list[list[np.ndarray]]:
    """Draw random variables from their prior; the value variable of one is any number."""
    from pymc.pytensorf import compile

    priors = rebuild(
        [pt.random.normal(size=root.type.shape) if root.owner is None else root for root in roots],
        {},
        bypass=_is_marker,
    )
    draw = compile([], priors, random_seed=_SEED, mode=_MODE)
    return list(map(list, zip(*(draw() for _ in range(_POINTS * _ROWS)))))


@singledispatch
def is_marker(op: Op) -> bool:
    """Tell whether an Op says what its first input is in a model, and does nothing."""
    return False


def _is_marker(node: Apply) -> bool:
    return is_marker(node.op)


def is_random(node: Apply) -> bool:
    """Tell whether `node` draws random values, and not the rows of a batch."""
    return isinstance(node.op, RNGConsumerOp) and not isinstance(node.op, MinibatchIndexRV)


def _rows_along(var: Variable, known: Mapping[Variable, Axes | Untracked]) -> dict[int, Rows]:
    axes = known.get(var, ())
    return {
        k: a for k, a in enumerate(axes if isinstance(axes, tuple) else ()) if isinstance(a, Rows)
    }


def _rows_at_hand(variables: Iterable[Variable]) -> dict[Rows, int]:
    """Count the rows of data that are there: of a stream those of the batch that was fed last."""
    lengths: dict[Rows, int] = {}
    for var in variables:
        op = var.owner.op
        if isinstance(op, StreamedRows):
            placeholder, index = var.owner.inputs
            lengths[Rows(index)] = len(placeholder.get_value(borrow=True))
        elif isinstance(op, MinibatchIndexRV) and not isinstance(op, StreamIndexRV):
            lengths[Rows(var.owner.outputs[1])] = current_length(var.owner.inputs[2]) or 0
    return lengths


def _table(draws: Sequence[np.ndarray], rows: Mapping[int, Rows]) -> np.ndarray:
    """Make a value of draws: one of them, or along axes of rows that of as many rows as there are draws."""
    if not rows:
        return draws[0]
    first, *others = rows
    value = np.concatenate(draws, axis=first).take(range(_ROWS), axis=first)
    for k in others:
        value = value.take(np.arange(_ROWS) % value.shape[k], axis=k)
    return value
