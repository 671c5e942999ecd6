# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""The scale of a Potential of a minibatch, of which only its user knows whether it is a sum over rows."""

from __future__ import annotations

import math

from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import combinations, product
from typing import Any, NamedTuple

import numpy as np
import pytensor.scalar as ps
import pytensor.tensor as pt

from pytensor.graph.basic import Apply, Constant, Variable
from pytensor.graph.traversal import ancestors, walk
from pytensor.graph.type import HasShape
from pytensor.tensor.basic import Join, MakeVector
from pytensor.tensor.elemwise import CAReduce, DimShuffle, Elemwise
from pytensor.tensor.math import Dot
from pytensor.tensor.reshape import JoinDims, SplitDims
from pytensor.tensor.shape import Reshape, Shape, Shape_i, SpecifyShape, shape_i
from pytensor.xtensor.basic import TensorFromXTensor, XTensorFromTensor
from pytensor.xtensor.reduction import XReduce
from pytensor.xtensor.shape import Transpose
from pytensor.xtensor.vectorization import XElemwise

from pymc.minibatch.axis_tracking import (
    KnownAxes,
    Rows,
    Untracked,
    indexes,
    rows_of,
    track_axes,
)
from pymc.minibatch.lengths import check_no_row_count
from pymc.minibatch.rebuild import rebuild
from pymc.minibatch.scaling import RowRatio, ratios, scale_factor
from pymc.minibatch.sum_over_rows import check_sum_over_rows, summed_rows
from pymc.minibatch.total_size import check_no_diagonal, check_stated, normalize_total_size
from pymc.pytensorf import current_length, current_value, resolve_shapes


def potential_scale(
    var: Variable,
    total_size: Any,
    *,
    name: str,
    dims: Sequence[str | None] | None,
    known: KnownAxes,
    is_handwritten: bool = False,
) -> Variable | None:
    """Return the factor that scales a Potential to all rows; None if it is of no minibatch.

    The term has a log-probability for each row, or with `total_size` it may be their sum over the batch. If
    it is handwritten, and not made by a transformation, it may have a factor N/B. `known` is
    passed on to :func:`.track_axes`.

    Raises
    ------
    ValueError
        If it depends on a minibatch, and neither `dims` nor `total_size` say that it is a sum over
        rows, both contradict the data, or it has a factor N/B already.
    """
    what = f"Potential {name!r}"
    scaled = ratios(var)
    inner = [v.owner for v in ancestors([var]) if v.owner is not None]
    if any(isinstance(node.op, RowRatio) and node not in scaled for node in inner):
        raise ValueError(
            f"{what} is computed from a term that is scaled to all rows already, such as "
            "what pm.Potential returns. Compute it from what that term was made of"
        )
    # A transformation may have subsampled one more axis: only that is scaled
    is_scaled = {Rows(i) for node in scaled for i in indexes(node.inputs[1:], by_shape=True)}
    axes = track_axes(var, known)
    found = list(map(Rows, indexes([var], known=known)))
    if not found and not scaled:
        check_no_row_count(what, [var])
    found += [axis for axis in _counted_rows(var, known) if axis not in found]
    found = [axis for axis in found if axis not in is_scaled]
    if not found and (total_size is None or scaled):
        return None
    is_summed = var.type.ndim == 0
    if is_summed:
        found = [_rows_of_sum(found, total_size, name, is_handwritten)]
        totals: list[Any] = [found[0].total]
        lengths: list[Variable] = [shape_i(found[0].index, 0)]
        stated = [0]
    else:
        totals = normalize_total_size(total_size, var.type.ndim, name)
        lengths = list(var.shape)
        stated = [k for k, total in enumerate(totals) if total is not None]
        if isinstance(axes, Untracked):
            _check_untracked(what, axes, totals, found)
        else:
            _check_stated_as_sum(what, dims, total_size, found)
            for k, axis in enumerate(axes):
                if not isinstance(axis, Rows):
                    continue
                if axis in is_scaled:
                    totals[k] = None
                else:
                    check_stated(f"{what}, axis {k}", totals[k], [axis])
                    totals[k], lengths[k] = axis.total, shape_i(axis.index, 0)
            missing = [axis for axis in found if axis not in axes]
            if missing:
                raise ValueError(
                    f"{what} depends on {_text(missing)}, but has no axis of these rows: keep a value "
                    "for each row"
                )
            check_no_diagonal(name, rows_of(axes))
            check_no_row_count(what, [var])
    if is_handwritten:
        check_no_own_factor(name, var, totals, lengths)
    if is_summed or isinstance(axes, Untracked):
        summed = summed_rows(what, var, known)
        check_sum_over_rows(what, var, summed, frozenset(found), known, is_vouched=True)
    return scale_factor(totals, lengths, stated)


def _counted_rows(var: Variable, known: KnownAxes) -> Collection[Rows]:
    """Return the rows that are in a term by their number alone, as those of ``pt.ones(n)``."""
    if not indexes([var], by_shape=True):
        return ()
    try:
        summed = summed_rows("it", var, known)
    except ValueError:  # a row count, which is refused elsewhere
        return ()
    return () if isinstance(summed, Untracked) else summed


def _rows_of_sum(found: Sequence[Rows], total_size: Any, name: str, is_handwritten: bool) -> Rows:
    """Return the rows that a scalar is a sum over, which `total_size` has to state."""
    what = f"Potential {name!r}"
    if total_size is None and not is_handwritten:
        raise ValueError(
            f"{what} depends on {_text(found)} and has no axis of its rows, so "
            "how it is to be scaled to all rows is not known. Keep a value for each row in the model of "
            "all rows, and give the Potential the dims= of these rows there"
        )
    if total_size is None:
        raise ValueError(
            f"{what} depends on {_text(found)} and has no axis of its rows, so "
            "how it is to be scaled to all rows is not known. Keep a value for each row and give "
            "dims=, or, if it is a sum over the rows of the batch, give total_size=<rows in all>. Both "
            "multiply it by N/B: take out a factor N/B of your own"
        )
    if not found:
        raise ValueError(
            f"{what} is a scalar with total_size={total_size}, but of no minibatch, so how "
            "many rows it is a sum over is not known. Leave total_size out, if these are all; for batches "
            "that are fed by hand, or for pm.minibatch_model, keep a value for each row and give dims="
        )
    if len(found) != 1:
        raise ValueError(
            f"{what} is a scalar with total_size={total_size}, but depends on "
            f"{len(found)} minibatch indexes, so what it is a sum over is not known: keep a value "
            "for each row"
        )
    [total] = normalize_total_size(total_size, 1, name)
    check_stated(what, total, found)
    return found[0]


def _check_untracked(
    what: str, axes: Untracked, totals: Sequence[Any], found: Sequence[Rows]
) -> None:
    """Raise where no `total_size` vouches for the rows of a Potential, or it contradicts the data."""
    if axes.certain:
        raise ValueError(
            f"{what}: {axes.why}. Keep a value for each row, computed of that row alone, and give dims="
        )
    if all(total is None for total in totals):
        raise ValueError(
            f"{what}: {axes.why}. If each value is of one row of the data, and of that alone, say so by "
            "dims= and by total_size=<rows in all>"
        )
    for k, total in enumerate(totals):
        check_stated(f"{what}, axis {k}", total, found)


def _check_stated_as_sum(
    what: str, dims: Sequence[str | None] | None, total_size: Any, found: Sequence[Rows]
) -> None:
    if dims is None and total_size is None:
        raise ValueError(
            f"{what} depends on {_text(found)}, and nothing says that it is a "
            "sum over rows, which is what may be scaled to all rows: give dims=, or total_size=, and "
            "take out a factor N/B of your own"
        )


def _text(found: Iterable[Rows]) -> str:
    return " and ".join(map(str, found))


def without_stated_totals(var: Variable) -> tuple[Variable, list[Variable | None] | None]:
    """Take the totals of all rows that a user stated out of a Potential.

    Return the term without them, and an entry for each axis, or None if there is nothing to take. A
    transformation to minibatches scales the term anew by the same totals. Where batches are fed by hand, the
    total is not that of the data, and stays in the term.
    """
    nodes = [node for node in ratios(var) if node.op.axis is not None and _is_of_all_rows(node)]
    if not nodes:
        return var, None
    totals: list[Variable | None] = [None] * max(var.type.ndim, 1)
    for node in nodes:
        totals[node.op.axis] = node.inputs[0]
    ones = {n.outputs[0]: pt.constant(1, dtype=n.outputs[0].type.dtype) for n in nodes}
    return rebuild([var], ones)[0], totals


def _is_of_all_rows(ratio: Apply) -> bool:
    total, length = resolve_shapes(ratio.inputs)
    if indexes([length], by_shape=True):
        return False
    return current_length(total) == current_length(length)


# --- a user's own factor N/B, which the scale would make (N/B)² ---
_TOLERANCE = 1e-3
_MAX_TERMS, _MAX_FACTORS = 64, 6
_SAME_ENTRIES = (
    DimShuffle,
    SpecifyShape,
    Reshape,
    JoinDims,
    SplitDims,
    TensorFromXTensor,
    XTensorFromTensor,
    Transpose,
)


class _Factors(NamedTuple):
    """The constant factors of a term, and whether a length is among them."""

    values: tuple[float, ...] = ()
    has_length: bool = False


def check_no_own_factor(
    name: str,
    var: Variable,
    totals: Sequence[Variable | int | None],
    lengths: Sequence[Variable | int],
) -> None:
    """Raise ValueError where a Potential is multiplied by N/B, or N, and then scaled by N/B too.

    Only constants and lengths count as factors: a number of the model that happens to be N/B can be
    :class:`pymc.Data`. `totals` and `lengths` are N and B along each axis that is scaled.
    """
    sizes = []
    for total, length in zip(totals, lengths):
        n, b = current_length(total), current_length(length)
        if n is not None and b is not None and n > b:
            sizes.append((n, b))
    if not sizes:
        return
    is_summed = var.type.ndim == 0
    n_rows, n_batch = (math.prod(numbers) for numbers in zip(*sizes))
    ratio = f"N/B = {n_rows}/{n_batch} = {n_rows / n_batch:.6g}"
    form = (
        f'pm.Potential("{name}", <the sum over the batch>, total_size={n_rows})'
        if is_summed
        else f'pm.Potential("{name}", <a value for each row>, dims=...)'
    )
    argument = "total_size=" if is_summed else "dims= or total_size="
    for constants, has_length in _factors(var, is_summed):
        size = abs(math.prod(constants))
        if is_summed and has_length and math.isclose(size, 1 / n_batch, rel_tol=_TOLERANCE):
            raise ValueError(
                f"Potential {name!r} is a mean over the {n_batch} rows of a batch, but total_size={n_rows} "
                f"says that it is their sum, which is multiplied by {ratio}. Write {form}"
            )
        own = next((f for f in _products_of_some(constants) if _is_row_ratio(f, sizes)), None)
        if own is not None:
            raise ValueError(
                f"Potential {name!r} has a factor {own:.6g} of its own, and is multiplied by {ratio} "
                f"besides, as {argument} asks: each row would count {own:.6g} times. Take the factor out: "
                f"{form}. If it is no number of rows but one of your model's, give it as pm.Data"
            )


def _products_of_some(constants: Sequence[float]) -> Iterator[float]:
    """Multiply some of a few constants: N/B may be written as N and 1/B, and beside a -0.5."""
    for number in range(1, min(len(constants), _MAX_FACTORS) + 1):
        for some in combinations(constants[:_MAX_FACTORS], number):
            yield abs(math.prod(some))


def _is_row_ratio(size: float, sizes: Sequence[tuple[int, int]]) -> bool:
    """Return True if a number is N/B, rounded or not, or N, of some of the axes."""
    for number in range(1, len(sizes) + 1):
        for some in combinations(sizes, number):
            n, b = (math.prod(values) for values in zip(*some))
            if n >= 10 * b and size in (n // b, -(-n // b)):
                return True
            if any(math.isclose(size, x, rel_tol=_TOLERANCE) for x in (n / b, n)):
                return True
    return False


def _factors(var: Variable, is_summed: bool) -> list[_Factors]:
    """Return the constant factors of each of the terms that `var` is a sum of.

    Terms of the batch are taken apart as long as a sum over rows is still to come (`is_summed`): those of a
    log-density have factors of their own.
    """
    number = _number(var)
    if number is not None:
        return [number]
    node = var.owner
    if node is None:
        return [_Factors()]
    op = node.op
    scalar_op = op.scalar_op if isinstance(op, Elemwise | CAReduce | XElemwise) else None
    is_sum = isinstance(op, CAReduce) and scalar_op == ps.add
    is_sum = is_sum or (isinstance(op, XReduce) and op.binary_op == ps.add)
    if is_sum or isinstance(op, _SAME_ENTRIES) or isinstance(scalar_op, ps.Cast):
        return _factors(node.inputs[0], is_summed and not is_sum)
    if isinstance(op, Join | MakeVector) or scalar_op == ps.switch:
        return [f for part in node.inputs if indexes([part]) for f in _factors(part, is_summed)]
    if scalar_op in (ps.neg, ps.sub, ps.add) and (is_summed or scalar_op == ps.neg):
        terms = [term for term in node.inputs if not is_summed or indexes([term])]
        return [factors for term in terms for factors in _factors(term, is_summed)]
    if scalar_op == ps.mul or isinstance(op, Dot):
        return _products([_factors(factor, is_summed) for factor in node.inputs])
    if scalar_op == ps.true_div:
        above, below = node.inputs
        divisor = _number(below)
        found = _factors(above, is_summed)
        if divisor is None or divisor.values[0] == 0:
            return found
        inverse = 1 / divisor.values[0]
        return [
            _Factors((*factors.values, inverse), factors.has_length or divisor.has_length)
            for factors in found
        ]
    return [_Factors()]


def _products(factors: Sequence[list[_Factors]]) -> list[_Factors]:
    if math.prod(map(len, factors)) > _MAX_TERMS:
        return [_Factors()]
    return [
        _Factors(
            tuple(value for some in chosen for value in some.values),
            any(some.has_length for some in chosen),
        )
        for chosen in product(*factors)
    ]


def _number(var: Variable) -> _Factors | None:
    """Evaluate what is computed from constants and lengths alone."""
    if isinstance(var, Constant):
        return _Factors((_repeated_value(var.data),))
    if not isinstance(var.type, HasShape) or any(length != 1 for length in var.type.shape):
        return None
    lengths: list[Variable] = []

    def inputs(of: Variable) -> Sequence[Variable] | None:
        if of.owner is not None and isinstance(of.owner.op, Shape | Shape_i):
            lengths.append(of)
            return None
        return None if of.owner is None else of.owner.inputs

    roots = [of for of in walk([var], inputs, False) if of.owner is None]
    if not all(isinstance(root, Constant) for root in roots):
        return None
    value = current_value(var)
    return None if value is None else _Factors((_repeated_value(value),), bool(lengths))


def _repeated_value(data: np.ndarray) -> float:
    """Return the number that an array is full of; 1 where it has several."""
    values = np.asarray(data)
    if not values.size or values.dtype.kind not in "iuf" or (values != values.flat[0]).any():
        return 1.0
    return float(values.flat[0])
