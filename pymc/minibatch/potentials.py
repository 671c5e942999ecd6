# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""What a Potential is multiplied by: it is a term too, but only its user knows whether a sum of rows."""

from __future__ import annotations

import math

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import combinations, product
from typing import Any

import numpy as np
import pytensor.scalar as ps
import pytensor.tensor as pt

from pytensor.graph.basic import Apply, Constant, Variable
from pytensor.graph.op import Op
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

from pymc.minibatch.axis_tracking import Axes, Rows, Untracked, indexes, rows_of, track_axes
from pymc.minibatch.current_value import current_length, current_value
from pymc.minibatch.lengths import check_no_row_count
from pymc.minibatch.rebuild import rebuild
from pymc.minibatch.row_terms import check_sum_over_rows, summed_rows, tried
from pymc.minibatch.scaling import RowRatio, ratios, scale_factor
from pymc.minibatch.total_size import (
    check_among,
    check_given,
    check_no_diagonal,
    normalize_total_size,
)


def potential_scale(
    var: Variable,
    total_size: Any,
    *,
    name: str,
    dims: Sequence[str | None] | None,
    known: Mapping[Variable, Axes | Untracked],
    free: Collection[Variable],
    written: bool = False,
) -> Variable | None:
    """Tell what a Potential is to be multiplied by; None where it is not of a minibatch.

    Parameters
    ----------
    var : Variable
        The term: a log-probability for each row, or with `total_size` their sum over the batch.
    total_size : optional
        How many rows there are in all; see :func:`normalize_total_size`.
    name : str
    dims : sequence of str or None
    known, free
        Passed on to :func:`~pymc.minibatch.axis_tracking.track_axes`.
    written : bool
        Whether a user wrote it for a batch, perhaps with a factor N/B, and no transformation made it.

    Raises
    ------
    ValueError
        If it depends on a minibatch, and neither `dims` nor `total_size` say that it is a sum over
        rows, both contradict the data, or it has a factor N/B already.
    """
    scaled = ratios(var)
    if any(node not in scaled for node in _all_ratios(var)):
        raise ValueError(
            f"Potential {name!r} is computed from a term that is scaled to all rows already, such as "
            "what pm.Potential returns. Compute it from what that term was made of"
        )
    # A transformation may have subsampled one more axis: only what is missing is scaled
    counted = {Rows(i) for node in scaled for i in indexes(node.inputs[1:], by_shape=True)}
    axes = track_axes(var, known, free)
    picked = list(map(Rows, indexes([var], known=known)))
    if not picked and not scaled:
        check_no_row_count(f"Potential {name!r}", [var])
    rows = dict.fromkeys([*picked, *_filled(var, known, free)])
    found = [axis.index for axis in rows if axis not in counted]
    if not found and (total_size is None or scaled):
        return None
    if var.type.ndim == 0:
        over = _summed_rows(found, total_size, name, written)
        scale = _scale(name, var, [over.total], [shape_i(over.index, 0)], [0], written)
        _check_sum(name, var, frozenset([over]), known, free)
        return scale
    given = normalize_total_size(total_size, var.type.ndim, name)
    stated = [k for k, total in enumerate(given) if total is not None]
    if isinstance(axes, Untracked):
        if axes.certain or total_size is None:
            instead = (
                "Keep a value for each row, computed of that row alone, and give dims="
                if axes.certain
                else "If each value is of one row of the data, and of that alone, say so by dims= and by "
                "total_size=<rows in all>"
            )
            raise ValueError(f"Potential {name!r}: {axes.why}. {instead}")
        check_among(f"Potential {name!r}", given, found)
        scale = _scale(name, var, given, list(var.shape), stated, written)
        _check_sum(name, var, frozenset(map(Rows, found)), known, free)
        return scale
    if dims is None and total_size is None:
        raise ValueError(
            f"Potential {name!r} depends on {_indexes_text(found)}, and nothing says that it is a "
            "sum over rows, which is what may be scaled to all rows: give dims=, or total_size=, and "
            "take out a factor N/B of your own"
        )
    totals: list[Any] = []
    lengths: list[Variable] = []
    for k, (axis, total) in enumerate(zip(axes, given)):
        if isinstance(axis, Rows) and axis not in counted:
            if total is not None:
                check_given(f"Potential {name!r}, axis {k}", total, axis)
            totals.append(axis.total)
            lengths.append(shape_i(axis.index, 0))
        else:
            totals.append(None if isinstance(axis, Rows) else total)
            lengths.append(var.shape[k])
    missing = set(map(Rows, found)) - set(rows_of(axes))
    if missing:
        raise ValueError(
            f"Potential {name!r} depends on {_indexes_text(r.index for r in missing)}, but has no "
            "axis of these rows: keep a value for each row"
        )
    check_no_diagonal(name, rows_of(axes))
    check_no_row_count(f"Potential {name!r}", [var])
    return _scale(name, var, totals, lengths, stated, written)


def _filled(
    var: Variable, known: Mapping[Variable, Axes | Untracked], free: Collection[Variable]
) -> Collection[Rows]:
    """Tell which rows are in a term by their number alone, as those of ``pt.ones(n)``."""
    if not indexes([var], by_shape=True):
        return ()
    try:
        summed = summed_rows("it", var, known, free)
    except ValueError:  # a number of rows, which is refused elsewhere
        return ()
    return () if isinstance(summed, Untracked) else summed


def _check_sum(
    name: str,
    var: Variable,
    rows: frozenset[Rows],
    known: Mapping[Variable, Axes | Untracked],
    free: Collection[Variable],
) -> None:
    """Check that a Potential, of which the user says so by `total_size`, is a sum over rows."""
    what = f"Potential {name!r}"
    summed = summed_rows(what, var, known, free)
    if isinstance(summed, Untracked) and summed.is_worth_trying:
        summed = tried(summed, var, rows, known, free, vouched=True)
    check_sum_over_rows(what, summed, rows)


def _scale(
    name: str,
    var: Variable,
    totals: Sequence[Any],
    lengths: Sequence[Variable],
    stated: Collection[int],
    written: bool,
) -> Variable:
    if written:
        check_no_own_factor(name, var, totals, lengths)
    return scale_factor(totals, lengths, stated)


def without_given_totals(var: Variable) -> tuple[Variable, list[Variable | None] | None]:
    """Take the totals that a user has given for all rows out of a Potential.

    A transformation to minibatches scales the term anew, by the same totals. Where batches are fed by hand,
    the total is not that of the data, and stays where it is.

    Parameters
    ----------
    var : Variable
        A term with its scale.

    Returns
    -------
    var : Variable
        The term without.
    total_size : list of scalar integer or None
        An entry for each axis, or None where there is nothing to take.
    """
    nodes = [node for node in ratios(var) if node.op.axis is not None and _of_all_rows(node)]
    if not nodes:
        return var, None
    totals: list[Variable | None] = [None] * max(var.type.ndim, 1)
    for node in nodes:
        totals[node.op.axis] = node.inputs[0]
    ones = {n.outputs[0]: pt.constant(1, dtype=n.outputs[0].type.dtype) for n in nodes}
    return rebuild([var], ones)[0], totals


def _of_all_rows(ratio: Apply) -> bool:
    from pymc.pytensorf import resolve_shapes  # which imports `rebuild`

    total, length = resolve_shapes(ratio.inputs)
    if indexes([length], by_shape=True):
        return False
    return current_length(total) == current_length(length)


def _summed_rows(found: list[Variable], total_size: Any, name: str, written: bool) -> Rows:
    if total_size is None and not written:
        raise ValueError(
            f"Potential {name!r} depends on {_indexes_text(found)} and has no axis of its rows, so "
            "how it is to be scaled to all rows is not known. Keep a value for each row in the model of "
            "all rows, and give the Potential the dims= of these rows there"
        )
    if total_size is None:
        raise ValueError(
            f"Potential {name!r} depends on {_indexes_text(found)} and has no axis of its rows, so "
            "how it is to be scaled to all rows is not known. Keep a value for each row and give "
            "dims=, or, if it is a sum over the rows of the batch, give total_size=<rows in all>. Both "
            "multiply it by N/B: take out a factor N/B of your own"
        )
    if not found:
        raise ValueError(
            f"Potential {name!r} is a scalar with total_size={total_size}, but of no minibatch, so how "
            "many rows it is a sum over is not known. Leave total_size out, if these are all; for batches "
            "that are fed by hand, or for pm.minibatch_model, keep a value for each row and give dims="
        )
    if len(found) != 1:
        raise ValueError(
            f"Potential {name!r} is a scalar with total_size={total_size}, but depends on "
            f"{len(found)} minibatch indexes, so what it is a sum over is not known: keep a value "
            "for each row"
        )
    [total] = normalize_total_size(total_size, 1, name)
    rows = Rows(found[0])
    check_given(f"Potential {name!r}", total, rows)
    return rows


def _all_ratios(var: Variable) -> list[Apply]:
    nodes = (v.owner for v in ancestors([var]) if v.owner is not None)
    return [node for node in nodes if isinstance(node.op, RowRatio)]


def _indexes_text(found: Iterable[Variable]) -> str:
    return " and ".join(str(Rows(index)) for index in found)


_TOLERANCE = 1e-3
_MOST_TERMS, _MOST_FACTORS = 64, 6
_ARRANGE = (
    DimShuffle,
    SpecifyShape,
    Reshape,
    JoinDims,
    SplitDims,
    TensorFromXTensor,
    XTensorFromTensor,
    Transpose,
)


def check_no_own_factor(
    name: str,
    var: Variable,
    totals: Sequence[Any],
    lengths: Sequence[Any],
) -> None:
    """Raise where a term is multiplied by N/B, or N, and then scaled by N/B too.

    Only constants and lengths count as factors. A number of the model's own that happens to be N/B is
    told apart as a value of :class:`pymc.Data`.

    Parameters
    ----------
    name : str
        Of the Potential.
    var : Variable
        The term as the user wrote it: a value for each row of a batch, or their sum.
    totals, lengths : sequence of scalar integer
        Rows in all and rows of a batch, along each axis that is scaled.

    Raises
    ------
    ValueError
        The message shows the factor, and what to write instead.
    """
    sizes = []
    for total, length in zip(totals, lengths):
        n, b = current_length(total), current_length(length)
        if n is not None and b is not None and n > b:
            sizes.append((n, b))
    if not sizes:
        return
    summed = var.type.ndim == 0
    n_rows, n_batch = (math.prod(numbers) for numbers in zip(*sizes))
    ratio = f"N/B = {n_rows}/{n_batch} = {n_rows / n_batch:.6g}"
    form = (
        f'pm.Potential("{name}", <the sum over the batch>, total_size={n_rows})'
        if summed
        else f'pm.Potential("{name}", <a value for each row>, dims=...)'
    )
    asked = "total_size=" if summed else "dims= or total_size="
    for constants, of_length in _factors(var, summed):
        size = abs(math.prod(constants))
        if summed and of_length and math.isclose(size, 1 / n_batch, rel_tol=_TOLERANCE):
            raise ValueError(
                f"Potential {name!r} is a mean over the {n_batch} rows of a batch, but total_size={n_rows} "
                f"says that it is their sum, which is multiplied by {ratio}. Write {form}"
            )
        own = next((f for f in _products_of_some(constants) if _is_one_of(f, sizes)), None)
        if own is not None:
            raise ValueError(
                f"Potential {name!r} has a factor {own:.6g} of its own, and is multiplied by {ratio} "
                f"besides, as {asked} asks: each row would count {own:.6g} times. Take the factor out: "
                f"{form}. If it is no number of rows but one of your model's, give it as pm.Data"
            )


def _products_of_some(constants: Sequence[float]) -> Iterator[float]:
    """Multiply some of a few constants: N/B may be written as N and 1/B, and beside a -0.5."""
    for number in range(1, min(len(constants), _MOST_FACTORS) + 1):
        for some in combinations(constants[:_MOST_FACTORS], number):
            yield abs(math.prod(some))


def _is_one_of(size: float, sizes: Sequence[tuple[int, int]]) -> bool:
    """Tell whether a number is N/B, rounded or not, or N, of some of the axes."""
    for chosen in product([False, True], repeat=len(sizes)):
        some = [pair for pair, taken in zip(sizes, chosen) if taken]
        if not some:
            continue
        n, b = (math.prod(values) for values in zip(*some))
        if n >= 10 * b and size in (n // b, -(-n // b)):
            return True
        if any(math.isclose(size, x, rel_tol=_TOLERANCE) for x in (n / b, n)):
            return True
    return False


def _factors(var: Variable, summed: bool) -> list[tuple[tuple[float, ...], bool]]:
    """List the constant factors of each of the terms that `var` is a sum of.

    Terms of the batch are taken apart as long as there is a sum over rows in them: those of a
    log-density have factors of their own.

    Parameters
    ----------
    var : Variable
    summed : bool
        Whether a sum over rows is still to come.

    Returns
    -------
    list of (tuple of float, bool)
        With the factors, whether a length is in them.
    """
    number = _number(var)
    if number is not None:
        value, of_length = number
        return [((value,), of_length)]
    node = var.owner
    if node is None:
        return [((), False)]
    scalar_op = _scalar_op(node.op)
    if _passes_on(node):
        return _factors(node.inputs[0], summed and not isinstance(node.op, CAReduce | XReduce))
    if isinstance(node.op, Join | MakeVector) or scalar_op == ps.switch:
        return [f for part in node.inputs if indexes([part]) for f in _factors(part, summed)]
    if scalar_op in (ps.neg, ps.sub, ps.add) and (summed or scalar_op == ps.neg):
        terms = [term for term in node.inputs if not summed or indexes([term])]
        return [factor for term in terms for factor in _factors(term, summed)]
    if scalar_op == ps.mul or isinstance(node.op, Dot):
        return _products([_factors(factor, summed) for factor in node.inputs])
    if scalar_op == ps.true_div:
        above, below = node.inputs
        divisor = _number(below)
        found = _factors(above, summed)
        if divisor is None or divisor[0] == 0:
            return found
        return [((*factors, 1 / divisor[0]), of or divisor[1]) for factors, of in found]
    return [((), False)]


def _products(
    factors: Sequence[list[tuple[tuple[float, ...], bool]]],
) -> list[tuple[tuple[float, ...], bool]]:
    if math.prod(map(len, factors)) > _MOST_TERMS:
        return [((), False)]
    return [
        (tuple(value for values, _ in chosen for value in values), any(of for _, of in chosen))
        for chosen in product(*factors)
    ]


def _passes_on(node: Apply) -> bool:
    """Tell whether a factor of the input is one of the output."""
    op = node.op
    if isinstance(op, CAReduce):
        return op.scalar_op == ps.add
    if isinstance(op, XReduce):
        return op.binary_op == ps.add
    if isinstance(op, _ARRANGE):
        return True
    return isinstance(_scalar_op(op), ps.Cast)


def _scalar_op(op: Op) -> ps.ScalarOp | None:
    """Return what an Op does entry by entry, or sums by."""
    return op.scalar_op if isinstance(op, Elemwise | CAReduce | XElemwise) else None


def _number(var: Variable) -> tuple[float, bool] | None:
    """Evaluate what is computed from constants and lengths alone, and tell whether there are lengths."""
    if isinstance(var, Constant):
        return _one_value(var.data), False
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
    return None if value is None else (_one_value(value), bool(lengths))


def _one_value(data: Any) -> float:
    """Return the number that an array is full of; 1 where it has several."""
    values = np.asarray(data)
    if not values.size or values.dtype.kind not in "iuf" or (values != values.flat[0]).any():
        return 1.0
    return float(values.flat[0])
