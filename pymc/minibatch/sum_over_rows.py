# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Terms of the log-probability of a minibatch have to be sums over its rows.

No scale makes a batch stand for all rows unless each term is a sum of functions of one row each. The graph
of the log-probability shows whether it is, with transforms, mixtures and the functions of a `CustomDist`
written out. :func:`summed_rows` proves it by rules. Where these end, :func:`adds_up` tries it on some rows,
and where that tells nothing, `total_size` vouches for it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import singledispatch
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import pytensor
import pytensor.tensor as pt

from pytensor.compile.mode import Mode
from pytensor.compile.sharedvalue import SharedVariable
from pytensor.conditional.op import IfElse
from pytensor.graph.basic import Apply, Constant, Variable, equal_computations
from pytensor.graph.op import Op
from pytensor.graph.traversal import ancestors, toposort
from pytensor.graph.type import HasShape
from pytensor.scalar import Add, Cast, Identity, Mul, Neg, Sub, Switch, TrueDiv
from pytensor.tensor.basic import Join
from pytensor.tensor.blockwise import Blockwise
from pytensor.tensor.elemwise import DimShuffle, Elemwise
from pytensor.tensor.math import Dot, Sum
from pytensor.tensor.random.op import RNGConsumerOp
from pytensor.tensor.random.type import RandomType
from pytensor.tensor.reshape import JoinDims, SplitDims
from pytensor.tensor.shape import Reshape
from pytensor.tensor.subtensor import AdvancedSubtensor, indices_from_subtensor
from pytensor.tensor.type import lvector
from pytensor.xtensor.reduction import XReduce
from pytensor.xtensor.vectorization import XElemwise

from pymc.minibatch.axis_tracking import (
    BROADCAST,
    OTHER,
    Axes,
    KnownAxes,
    Rows,
    Untracked,
    broadcast_axis,
    indexes,
    label,
    ndim_of,
    output_axes,
    require_tracked,
    rows_of,
    track_axes,
)
from pymc.minibatch.index import MinibatchIndexRV
from pymc.minibatch.lengths import (
    SAME_NUMBERS,
    RowCount,
    axis_of_length,
    check_no_row_count,
    row_counts,
)
from pymc.minibatch.rebuild import rebuild
from pymc.minibatch.stream_index import StreamedRows, StreamIndexRV
from pymc.pytensorf import compile, current_length

if TYPE_CHECKING:
    from pymc.logprob.transforms import Transform


def check_log_probability(
    name: str,
    rv: Variable,
    value: Variable,
    axes: Axes | Untracked,
    *,
    known: KnownAxes,
    transform: Transform | None = None,
    is_vouched: bool = False,
) -> None:
    """Check that the log-probability of a variable is a sum over the rows of its value.

    `value` is what is observed, with `axes`, or the value variable of a free variable, after `transform`.
    `known` is passed on to :func:`.track_axes`. A stated `total_size` vouches for the sum
    where nothing else tells.

    Raises
    ------
    ValueError
        If rows depend on each other, or the ``logp=`` of a `CustomDist` uses a minibatch that is not
        among its parameters.
    """
    # Inputs stand for the parameters, so that only the distribution itself is looked into
    parameters = {var: track_axes(var, known) for var in _parameters(rv, list(known))}
    stands_for = {_of_any_length(var, found): var for var, found in parameters.items()}
    [bare] = rebuild([rv], {var: stand for stand, var in stands_for.items()})
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
    inside = {stand: parameters[var] for stand, var in stands_for.items()}
    summed = summed_rows(repr(name), logp, {**inside, observed: axes})
    if isinstance(summed, Untracked) and summed.is_worth_trying:
        [logp] = rebuild([logp], {**stands_for, observed: value})
    check_sum_over_rows(repr(name), logp, summed, frozenset(found), known, is_vouched)


def _of_any_length(var: Variable, axes: Axes | Untracked) -> Variable:
    """Make an input like `var` whose number of rows is unknown, so that none becomes a constant."""
    if isinstance(axes, Untracked):
        return var.type(name=var.name)
    shape = [None if isinstance(axis, Rows) else n for n, axis in zip(var.type.shape, axes)]
    return var.type.clone(shape=tuple(shape))(name=var.name)


def _parameters(rv: Variable, blockers: Collection[Variable]) -> list[Variable]:
    """Return the parameters of a distribution, and of those that it is made of (a mixture)."""
    from pymc.logprob.abstract import MeasurableOp  # whose package imports this module

    random: set[Variable] = set()
    found: dict[Variable, None] = {}
    for node in toposort([rv], blockers=blockers):
        # Marginal Ops of pymc-extras are measurable and draw nothing
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


def _log_probability(
    name: str, rv: Variable, value: Variable, transform: Transform | None
) -> Variable | None:
    """Derive the log-probability of `rv` at `value`; None for a distribution that has none."""
    from pymc.logprob.basic import conditional_logp, logp
    from pymc.logprob.transform_value import TransformValuesRewrite

    try:
        if transform is None:
            found = logp(rv, value, warn_rvs=False)
            # Several variables may have one together: it is that of the first
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


_RULE = (
    "The log-probability of a minibatch has to be a sum over its rows, each term of one row alone"
)
_COUPLED = (
    ": rows that depend on each other, such as those of a series, have to be one row of data with two axes; "
    "or fit all rows at once, without pm.Minibatch"
)
_VOUCH = ". If it is, say so by total_size=<rows in all>"


def check_sum_over_rows(
    what: str,
    term: Variable,
    summed: frozenset[Rows] | Untracked,
    rows: frozenset[Rows],
    known: KnownAxes,
    is_vouched: bool,
) -> None:
    """Raise ValueError where a term of the log-probability is no sum over `rows`.

    `summed` is what :func:`summed_rows` proves. Where it is worth trying, `term` is tried, as a function
    of data and free variables; else a `total_size` vouches for it.
    """
    if isinstance(summed, Untracked) and summed.is_worth_trying:
        answer = adds_up(term, rows, known)
        if answer or (answer is None and is_vouched and not summed.certain):
            summed = rows
        elif answer is False and not summed.certain:
            summed = Untracked(
                f"{summed.why}, and that of five rows is not the sum of those of two and three of them"
            )
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


# --- proof by rules ---
def summed_rows(
    name: str, term: Variable, known: KnownAxes | None = None
) -> frozenset[Rows] | Untracked:
    """Return the rows that a term of the log-probability is a sum over, each entry of one row alone.

    Linear operations are peeled off the top of the graph (sums over rows, sums of these, products with
    what all rows share) until what is left is row by row, by the rules of :func:`.output_axes`. `term` has
    an entry for each row, or is a sum of these. `known` is passed on to :func:`.track_axes`; value
    variables are among those known. `name` is that of the term.

    Raises
    ------
    ValueError
        If it computes with the row count of the batch.
    """
    known = known or {}
    graph = _Graph(name, known, row_counts([term], known))
    try:
        return graph.total(term).over
    except Untracked as untracked:
        return untracked.with_traceback(None)


@dataclass(frozen=True)
class _Part:
    """A part of a log-probability: row by row along `axes`, and a sum over the rows in `over`.

    All terms of the sum are the same if it is `alike`, such as a row count. A constant is added to it if
    it is `shifted`, which moves no posterior as long as nothing multiplies it.
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
        left = tuple(axis for k, axis in enumerate(self.axes) if k not in axes)
        return _Part(left, self.over.union(over), shifted=self.shifted)


@dataclass(frozen=True)
class _Graph:
    """The graph of a log-probability, and what is known of its variables."""

    name: str
    known: KnownAxes
    counts: Mapping[Variable, RowCount]
    parts: dict[Variable, _Part] = field(default_factory=dict)

    def total(self, var: Variable) -> _Part:
        """Return the sum of all entries of `var`, however they are arranged."""
        node = var.owner
        if node is not None and isinstance(node.op, Reshape | JoinDims | SplitDims):
            return self.total(node.inputs[0])
        if node is not None and isinstance(node.op, Join):
            return self.added(node.inputs, [self.total(part) for part in node.inputs])
        bare = self._without_masks(var)
        if bare is not var:
            counts = row_counts([bare], self.known)
            return _Graph(self.name, self.known, counts).total(bare)
        part = self.part(var)
        return part.summed(range(len(part.axes)))

    def _without_masks(self, var: Variable) -> Variable:
        """Leave out the mask of values that are summed: those that it drops are zeros of the sum."""
        inner = list(ancestors([var], list(self.known)))
        masked = {v: mask for v in inner if (mask := _mask(v)) is not None}
        masks = list(masked.values())
        if not masked or not equal_computations(masks, masks[:1] * len(masks)):
            return var
        if not rows_of(self.part(masks[0]).axes):
            return var
        # Their number is a sum over rows too, of the mask
        count = masks[0].sum()
        lengths = {v: count.astype(v.type.dtype) for v in inner if _is_length(v, masked)}
        return rebuild([var], {**{v: v.owner.inputs[0] for v in masked}, **lengths})[0]

    def part(self, var: Variable) -> _Part:
        """Return what `var` is; raise `Untracked` if it is neither row by row nor a sum over rows."""
        if var not in self.parts:
            self.parts[var] = self._part(var)
        return self.parts[var]

    def _part(self, var: Variable) -> _Part:
        count = self.counts.get(var)
        if count is not None and count.is_multiple:  # a sum of ones
            return _Part((BROADCAST,) * var.type.ndim, frozenset([count.rows]), alike=True)
        axes = track_axes(var, self.known)
        if (isinstance(axes, Untracked) or count is not None) and var.owner is not None:
            found = peel(var.owner.op, var.owner, self)
            if found is not None:
                return found
        axes = require_tracked(axes)
        if count is not None:
            raise Untracked(f"{label(var)} is computed from the number of rows of a batch")
        if self.counts:
            check_no_row_count(self.name, [var], self.known)
        return _Part(axes)

    def added(self, variables: Sequence[Variable], parts: Sequence[_Part]) -> _Part:
        """Return the sum of parts, which have to be sums over the same rows."""
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
        """Return True if neither parameters nor data are in `var`, so that it moves no posterior."""
        above = list(ancestors([var], list(self.known)))
        roots = (v for v in above if v.owner is None or v in self.known)
        return all(isinstance(root, Constant) for root in roots)


@singledispatch
def peel(op: Op, node: Apply, graph: _Graph) -> _Part | None:
    """Return what a linear operation makes of sums over rows; None for other Ops.

    Raises
    ------
    Untracked
        Where the output is no sum over rows.
    """
    return None


@peel.register(SAME_NUMBERS)
def _(op: Op, node: Apply, graph: _Graph) -> _Part:
    first = graph.part(node.inputs[0])
    others = [(OTHER,) * ndim_of(var) for var in node.inputs[1:]]
    return _with_output_axes(node, [first.axes, *others], first)


@peel.register(Elemwise | XElemwise)
def _(op: Elemwise | XElemwise, node: Apply, graph: _Graph) -> _Part | None:
    scalar_op = op.scalar_op
    if not isinstance(scalar_op, Cast | Identity | Neg | Add | Sub | Mul | TrueDiv | Switch):
        return None
    parts = [graph.part(var) for var in node.inputs]
    of_rows = [part for part in parts if part.rows]
    if isinstance(scalar_op, Switch) and parts[0].rows:
        return None
    if not of_rows:  # computed from a row count that is no multiple, such as its root
        return None
    axes = [part.axes for part in parts]
    if isinstance(scalar_op, Add | Sub):
        return _with_output_axes(node, axes, graph.added(node.inputs, parts))
    if isinstance(scalar_op, Switch):
        return _with_output_axes(node, axes, _either(node.inputs[1:], parts[1:], graph))
    [first, *others] = of_rows
    if isinstance(scalar_op, TrueDiv):
        if others and all(part.alike and part.over == first.over for part in parts):
            return _with_output_axes(node, axes, _Part(()))  # a row count by itself
        if parts[0].rows and parts[1].alike:
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
    return _with_output_axes(node, axes, first)


@peel.register(IfElse)
def _(op: IfElse, node: Apply, graph: _Graph) -> _Part | None:
    condition, *branches = node.inputs
    if len(branches) != 2 or graph.part(condition).rows:
        return None
    parts = [graph.part(var) for var in branches]
    if not any(part.rows for part in parts):
        return None
    return replace(_either(branches, parts, graph), axes=parts[0].axes)


def _either(variables: Sequence[Variable], parts: Sequence[_Part], graph: _Graph) -> _Part:
    """Return one of two parts, by a condition. In the place of a sum, a constant has to be 0 or infinite."""
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
    return graph.total(var) if op.axis is None else graph.part(var).summed(op.axis, op)


@peel.register(XReduce)
def _(op: XReduce, node: Apply, graph: _Graph) -> _Part | None:
    [var] = node.inputs
    if not isinstance(op.binary_op, Add):
        return None
    return graph.part(var).summed([var.type.dims.index(dim) for dim in op.dims], op)


@peel.register(Dot | Blockwise)
def _(op: Dot | Blockwise, node: Apply, graph: _Graph) -> _Part | None:
    # A product of two vectors of rows is a sum over them
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


def _with_output_axes(node: Apply, inputs: Sequence[Axes], part: _Part) -> _Part:
    [axes] = output_axes(node.op, node, inputs)
    return replace(part, axes=axes)


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


# --- trial on rows ---
_MODE = Mode(linker="py", optimizer=None)
_N_POINTS = 4
_N_ROWS = 12
_SEED = 2083

# The sum of a term, for a point and for positions among a few rows
_TermOfRows: TypeAlias = Callable[[int, Mapping[Rows, np.ndarray]], np.ndarray]


def adds_up(term: Variable, rows: Collection[Rows], known: KnownAxes) -> bool | None:
    """Try whether the sum of all entries of a term is one over `rows`; None if that cannot be told.

    A sum over rows is, for five rows, its value for two of them plus that for the other three. A mean, a lag
    or a softmax is not. Both parts have rows in common, so that what couples the rows of one group
    does not add up either, however many groups there are. Random variables in `known` are drawn from
    their priors, those of rows with a value for each row. Nothing can be told of a term that is random, not finite or
    made for one number of rows, or whose rows are not available or all alike.
    """
    try:
        function = _term_of_rows(term, known)
        answers = [_adds_up_along(function, axis) for axis in rows]
    except Exception:  # a user's function may fail in any way at another number of rows
        return None
    return False if False in answers else None if None in answers else True


def _adds_up_along(function: _TermOfRows, axis: Rows) -> bool | None:
    rng = np.random.default_rng(_SEED)
    n_conclusive = 0
    for point in range(_N_POINTS):
        first, second, third = rng.permutation(_N_ROWS)[:3]
        places = np.array([first, second, third, second, first])
        parts = [function(point, {axis: part}) for part in (places, places[:2], places[2:])]
        if not np.isfinite(parts).all() or function(point, {axis: places}) != parts[0]:
            continue
        whole, two, three = parts
        tolerance = np.sqrt(np.finfo(whole.dtype).eps) * np.abs(parts).sum()
        if abs(whole - two - three) > tolerance:
            return False
        # Inconclusive if other rows give the same value
        others = [function(point, {axis: places[k : k + 2]}) for k in (1, 2, 3)]
        n_conclusive += any(abs(other - two) > tolerance for other in others)
    return True if n_conclusive > 1 else None


def _term_of_rows(term: Variable, known: KnownAxes) -> _TermOfRows:
    """Compile the sum of a term as a function of positions among a few rows of data and local variables."""
    # Not what these are computed from in turn: they are drawn as they are
    roots = [var for var in ancestors([term], blockers=list(known)) if var in known]
    inner = [v for v in ancestors([term], blockers=roots) if v not in roots and v.owner is not None]
    if any(is_random(var.owner) for var in inner):
        raise NotImplementedError("its values are random")
    rng = np.random.default_rng(_SEED)
    places: dict[Rows, Variable] = {}
    replaced: dict[Variable, Variable] = {}
    for axis, length in _available_rows(inner).items():
        places[axis] = lvector()
        few = pt.constant(rng.choice(length, _N_ROWS, replace=length < _N_ROWS))[places[axis]]
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
        for k, axis in _row_axes(root, known).items():
            table = table[(slice(None),) * k + (places.setdefault(axis, lvector()),)]
        replaced[root] = table
    [total] = rebuild([term.sum()], replaced, bypass=_is_marker)
    compiled = pytensor.function([*places.values(), *inputs], total, mode=_MODE)
    draws = _prior_draws(roots)

    def function(point: int, at: Mapping[Rows, np.ndarray]) -> np.ndarray:
        chosen = [at.get(axis, np.arange(3)) for axis in places]
        first = point * _N_ROWS
        values = [
            _value_of_draws(drawn[first : first + _N_ROWS], list(_row_axes(root, known)))
            for root, drawn in zip(roots, draws)
        ]
        return compiled(*chosen, *values)

    return function


def _prior_draws(roots: Sequence[Variable]) -> list[list[np.ndarray]]:
    """Draw random variables from their priors, and value variables from a normal."""
    # By generators of their own: those of the model, and its indexes, stay where they are
    rngs = {
        var: type(var)(var.type, var.get_value(), strict=True)
        for var in ancestors(roots)
        if isinstance(var, SharedVariable) and isinstance(var.type, RandomType)
    }
    priors = rebuild(
        [pt.random.normal(size=root.type.shape) if root.owner is None else root for root in roots],
        rngs,
        bypass=_is_marker,
    )
    draw = compile([], priors, random_seed=_SEED, mode=_MODE)
    return list(map(list, zip(*(draw() for _ in range(_N_POINTS * _N_ROWS)))))


def _value_of_draws(draws: Sequence[np.ndarray], row_axes: Sequence[int]) -> np.ndarray:
    """Make a value of draws, with as many entries along `row_axes` as there are draws."""
    if not row_axes:
        return draws[0]
    first, *others = row_axes
    value = np.concatenate(draws, axis=first).take(range(_N_ROWS), axis=first)
    for k in others:
        value = value.take(np.arange(_N_ROWS) % value.shape[k], axis=k)
    return value


def _row_axes(var: Variable, known: KnownAxes) -> dict[int, Rows]:
    axes = known.get(var, ())
    if isinstance(axes, Untracked):
        return {}
    return {k: axis for k, axis in enumerate(axes) if isinstance(axis, Rows)}


def _available_rows(variables: Iterable[Variable]) -> dict[Rows, int]:
    """Count the rows of data: of a stream, those of the batch that its placeholders hold."""
    lengths: dict[Rows, int] = {}
    for var in variables:
        op = var.owner.op
        if isinstance(op, StreamedRows):
            placeholder, index = var.owner.inputs
            lengths[Rows(index)] = len(placeholder.get_value(borrow=True))
        elif isinstance(op, MinibatchIndexRV) and not isinstance(op, StreamIndexRV):
            lengths[Rows(var.owner.outputs[1])] = current_length(var.owner.inputs[2]) or 0
    return lengths


@singledispatch
def is_marker(op: Op) -> bool:
    """Return True if an Op says what its first input is in a model, and does nothing."""
    return False


def _is_marker(node: Apply) -> bool:
    return is_marker(node.op)


def is_random(node: Apply) -> bool:
    """Return True if `node` draws random values, and not the rows of a batch."""
    return isinstance(node.op, RNGConsumerOp) and not isinstance(node.op, MinibatchIndexRV)
