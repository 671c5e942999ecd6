# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""A user's own factor N/B in a Potential, which the scale would make (N/B)²."""

from __future__ import annotations

import math

from collections.abc import Iterator, Sequence
from itertools import combinations, product
from typing import Any

import numpy as np
import pytensor.scalar as ps

from pytensor.compile.mode import Mode
from pytensor.graph.basic import Apply, Constant, Variable
from pytensor.graph.op import Op
from pytensor.graph.traversal import explicit_graph_inputs, walk
from pytensor.graph.type import HasShape
from pytensor.tensor.basic import Join, MakeVector
from pytensor.tensor.elemwise import CAReduce, DimShuffle, Elemwise
from pytensor.tensor.math import Dot
from pytensor.tensor.reshape import JoinDims, SplitDims
from pytensor.tensor.shape import Reshape, Shape, Shape_i, SpecifyShape
from pytensor.xtensor.basic import TensorFromXTensor, XTensorFromTensor
from pytensor.xtensor.reduction import XReduce
from pytensor.xtensor.shape import Transpose
from pytensor.xtensor.vectorization import XElemwise

from pymc.minibatch.current_length import current_length
from pymc.minibatch.provenance import indexes

__all__ = ["check_no_own_factor"]

_CHEAP = Mode(linker="py", optimizer=None)
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
    from pymc.pytensorf import resolve_shapes

    [value] = resolve_shapes([var])
    if any(True for _ in explicit_graph_inputs([value])):
        return None
    return _one_value(value.eval(mode=_CHEAP)), bool(lengths)


def _one_value(data: Any) -> float:
    """Return the number that an array is full of; 1 where it has several."""
    values = np.asarray(data)
    if not values.size or values.dtype.kind not in "iuf" or (values != values.flat[0]).any():
        return 1.0
    return float(values.flat[0])
