# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
r"""Graph rewrites for the compiled steps of a fit: cheaper sums over rows, powers and reshapes.

They apply under the tag `TAG` only, after PyTensor's own simplifications (position 2, "specialize") and
before it fuses elementwise operations (position 49). Rewrites for one backend have a tag of their own.

The log-probability of a batch and its gradient are sums over rows and columns of terms in which much is
the same in all rows. The rewrites of `Sum` take it out of the sum over rows, as one does by hand:

.. math::

    \sum_{ij} -\tfrac12 \left(\frac{y_{ij} - \mu_j}{\sigma_j}\right)^2 - \log \sigma_j
    = \sum_j -\tfrac12 \sigma_j^{-2} \sum_i (y_{ij} - \mu_j)^2 - n \log \sigma_j

so that logp and gradient come from a pass over the data with two additions and a product for each
number, without a division.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytensor.tensor as pt

from pytensor.compile.mode import Mode, optdb
from pytensor.graph.basic import Apply, Constant, Variable
from pytensor.graph.fg import FunctionGraph
from pytensor.graph.rewriting.basic import EquilibriumGraphRewriter, dfs_rewriter, node_rewriter
from pytensor.scalar.basic import Add, Mul, Pow, Sqr, Sub, Switch, TrueDiv
from pytensor.tensor.basic import Alloc, get_underlying_scalar_constant_value, tensor_copy
from pytensor.tensor.elemwise import DimShuffle, Elemwise
from pytensor.tensor.math import Sum
from pytensor.tensor.rewriting.math import local_reduce_broadcastable, local_reduce_chain
from pytensor.tensor.shape import Reshape, shape_i
from pytensor.tensor.subtensor import IncSubtensor, indices_from_subtensor

__all__ = ["TAG", "TAG_JAX", "TAG_NUMBA", "tags"]

#: Tags of the rewrites in PyTensor's database, for all backends and for one: the mode of a step includes them
TAG = "pymc_step"
TAG_JAX, TAG_NUMBA = f"{TAG}_jax", f"{TAG}_numba"

OF_LINKERS = {"JAXLinker": TAG_JAX, "NumbaLinker": TAG_NUMBA}


def tags(mode: Mode) -> list[str]:
    """Return the tags that a step of this mode includes."""
    linker = type(mode.linker).__name__
    return [TAG, OF_LINKERS[linker]] if linker in OF_LINKERS else [TAG]


def _is(var: Variable, *scalar_ops: type) -> bool:
    """Return True if `var` is the result of one of these elementwise operations."""
    node = var.owner
    return (
        node is not None
        and isinstance(node.op, Elemwise)
        and isinstance(node.op.scalar_op, scalar_ops)
    )


def _axes(node: Apply) -> tuple[int, ...]:
    """Return the axes that are summed over."""
    axes = node.op.axis
    return tuple(range(node.inputs[0].type.ndim)) if axes is None else tuple(axes)


def _broadcast_axes(term: Variable, axes: Sequence[int]) -> tuple[int, ...]:
    """Return the axes along which `term` is broadcast."""
    return tuple(axis for axis in axes if term.type.broadcastable[axis])


def _sum(node: Apply, x: Variable, axes: Sequence[int]) -> Variable:
    """Sum `x` over axes as `node` does."""
    if not axes:
        return x.astype(node.outputs[0].dtype)
    return type(node.op)(axis=tuple(axes), dtype=node.op.dtype, acc_dtype=node.op.acc_dtype)(x)


def _remaining(axes: Sequence[int], done: Sequence[int]) -> tuple[int, ...]:
    """Return the axes that remain, renumbered without those in `done`."""
    return tuple(axis - sum(other < axis for other in done) for axis in axes if axis not in done)


@node_rewriter([Elemwise])
def local_divide_once(fgraph: FunctionGraph, node: Apply) -> list[Variable] | None:
    """Divide a broadcast operand once, and multiply: ``x / b -> x * (1 / b)``."""
    if not isinstance(node.op.scalar_op, TrueDiv):
        return None
    x, b = node.inputs
    if isinstance(b, Constant) or x.dtype not in ("float32", "float64") or b.dtype != x.dtype:
        return None
    if all(x.type.broadcastable[k] for k in _broadcast_axes(b, range(b.type.ndim))):
        return None
    return [x * pt.reciprocal(b)]


@node_rewriter([Elemwise])
def local_square_once(fgraph: FunctionGraph, node: Apply) -> list[Variable] | None:
    """Square a broadcast factor once: ``sqr(x * b) -> sqr(x) * sqr(b)``."""
    [x] = node.inputs if isinstance(node.op.scalar_op, Sqr) else [None]
    if x is None or not _is(x, Mul):
        return None
    if any(term.dtype != x.dtype for term in x.owner.inputs):
        return None
    everywhere = x.type.broadcastable
    if all(term.type.broadcastable == everywhere for term in x.owner.inputs):
        return None
    return [pt.mul(*(pt.sqr(term) for term in x.owner.inputs))]


@node_rewriter([Sum])
def local_sum_of_check(fgraph: FunctionGraph, node: Apply) -> list[Variable] | None:
    """Check parameters once: ``sum(switch(ok, x, -inf)) -> switch(ok, sum(x), -inf)``."""
    [x] = node.inputs
    if not _is(x, Switch):
        return None
    ok, inside, outside = x.owner.inputs
    axes = _axes(node)
    if (
        len(_broadcast_axes(ok, axes)) < len(axes)
        or inside.type.broadcastable != x.type.broadcastable
        or _constant(outside) != -np.inf
    ):
        return None
    summed = _sum(node, inside, axes)
    return [pt.switch(ok.squeeze(axes), summed, np.asarray(-np.inf, dtype=summed.dtype))]


def _constant(var: Variable) -> float | None:
    """The one value of a constant, also behind added axes."""
    while var.owner is not None and isinstance(var.owner.op, DimShuffle):
        var = var.owner.inputs[0]
    if not isinstance(var, Constant) or np.size(var.data) != 1:
        return None
    return float(np.asarray(var.data).item())


@node_rewriter([Sum])
def local_sum_of_product(fgraph: FunctionGraph, node: Apply) -> list[Variable] | None:
    """Multiply after summing: ``sum(x * b, axis=(0, 1)) -> sum(sum(x, axis=0) * b, axis=1)``."""
    [x] = node.inputs
    if not _is(x, Mul):
        return None
    terms = _factors(x)
    if any(term.dtype != x.dtype for term in terms):
        return None
    axes = _axes(node)
    shared_axes = max((_broadcast_axes(term, axes) for term in terms), key=len)
    if not shared_axes:
        return None
    outer = [term for term in terms if set(_broadcast_axes(term, axes)) >= set(shared_axes)]
    inner = [term for term in terms if not any(term is other for other in outer)]
    if not inner or not set(_broadcast_axes(pt.mul(*inner), axes)).isdisjoint(shared_axes):
        return None
    product = pt.mul(
        *(term.squeeze(shared_axes) for term in outer), _sum(node, _product(inner), shared_axes)
    )
    return [_sum(node, product, _remaining(axes, shared_axes))]


def _factors(x: Variable) -> list[Variable]:
    """Return the factors of nested products."""
    if not _is(x, Mul):
        return [x]
    return [factor for term in x.owner.inputs for factor in _factors(term)]


def _product(terms: Sequence[Variable]) -> Variable:
    """Multiply; two that are the same are a square, as they are in the log-probability."""
    powers = [
        pt.sqr(term) if k == 1 else term
        for term, n in Counter(terms).items()
        for k in [*[1] * (n // 2), *[0] * (n % 2)]
    ]
    return powers[0] if len(powers) == 1 else pt.mul(*powers)


@node_rewriter([Sum])
def local_sum_of_squares_and_more(fgraph: FunctionGraph, node: Apply) -> list[Variable] | None:
    """Sum broadcast terms apart: ``sum(sqr(x) - b) -> sum(sqr(x)) - n * sum(b)``.

    For squares only, which do not cancel against the rest: ``sum(y - mu)`` is better as it is.
    """
    [x] = node.inputs
    if not _is(x, Add, Sub):
        return None
    axes = _axes(node)
    terms = _summands(x)
    apart = [(term, sign) for term, sign in terms if _broadcast_axes(term, axes)]
    rest = [(term, sign) for term, sign in terms if not _broadcast_axes(term, axes)]
    if any(term.dtype != x.dtype for term, _ in terms):
        return None
    if not apart or len(rest) != 1 or not any(_is(f, Sqr) for f in _factors(rest[0][0])):
        return None
    [(square, sign)] = rest
    if square.type.broadcastable != x.type.broadcastable:
        return None
    total = sign * _sum(node, square, axes)
    for term, sign in apart:
        shared_axes = _broadcast_axes(term, axes)
        n = pt.mul(*(shape_i(square, axis, fgraph) for axis in shared_axes)).astype(total.dtype)
        total = total + sign * n * _sum(
            node, term.squeeze(shared_axes), _remaining(axes, shared_axes)
        )
    return [total.astype(node.outputs[0].dtype)]


def _summands(x: Variable, sign: int = 1) -> list[tuple[Variable, int]]:
    """Return the summands of nested sums, each with its sign."""
    if _is(x, Add):
        return [pair for term in x.owner.inputs for pair in _summands(term, sign)]
    if _is(x, Sub):
        first, second = x.owner.inputs
        return [*_summands(first, sign), *_summands(second, -sign)]
    return [(x, sign)]


@node_rewriter([IncSubtensor])
def local_only_row(fgraph: FunctionGraph, node: Apply) -> list[Variable] | None:
    """Take a row for the whole where it is: ``zeros((1, n))[0].inc(y) -> y[None]``.

    The gradient of the one particle that most fits have. The sum over particles goes with it, which
    Numba compiles longer than the rest of a small step.
    """
    x, y, *entries = node.inputs
    if x.owner is None or not isinstance(x.owner.op, Alloc) or _constant(x.owner.inputs[0]) != 0:
        return None
    index = indices_from_subtensor(entries, node.op.idx_list)
    if (
        len(index) != 1
        or isinstance(index[0], slice)
        or x.type.shape[0] != 1
        or y.type.broadcastable != x.type.broadcastable[1:]
    ):
        return None
    return [y[None].astype(x.dtype)]


@node_rewriter([Sum])
def local_sum_in_a_loop(fgraph: FunctionGraph, node: Apply) -> list[Variable] | None:
    """Let the fusion have a sum of what is no elementwise result: ``sum(x) -> sum(identity(x))``.

    Numba compiles a sum by itself for as long as all the rest of a small step, and a fused one in a
    twentieth of that. The window of `adagrad_window` has such a sum.
    """
    [x] = node.inputs
    if x.owner is None or isinstance(x.owner.op, Elemwise) or x.dtype not in ("float32", "float64"):
        return None
    return [node.op(tensor_copy(x))]


# So many float32 numbers sum up in float32 to 6e-5 of them at worst, and far less on average
SHORT = 1024


@node_rewriter([Sum])
def local_short_sum(fgraph: FunctionGraph, node: Apply) -> list[Variable] | None:
    """Add few float32 numbers as they are: in float64, each would be converted."""
    [x] = node.inputs
    lengths = [x.type.shape[axis] for axis in _axes(node)]
    if x.dtype != "float32" or node.outputs[0].dtype != "float32" or None in lengths:
        return None
    if node.op.acc_dtype != "float64":
        return None
    if np.prod(lengths) > SHORT:
        return None
    return [type(node.op)(axis=node.op.axis, dtype=node.op.dtype, acc_dtype="float32")(x)]


# PyTensor's own comes while the gradient still reads the sums of the rows of a term, and leaves the sum of
# them: what is constant over rows cannot move out of it then.
optdb.register("pymc_sums_of_sums", dfs_rewriter(local_reduce_chain), TAG, position=2.89)

# Applied until none does any more
optdb.register(
    "pymc_sums_over_rows",
    EquilibriumGraphRewriter(
        [
            local_divide_once,
            local_square_once,
            local_sum_of_check,
            local_sum_of_squares_and_more,
            local_sum_of_product,
            local_short_sum,
            local_only_row,
            local_reduce_broadcastable,
            local_sum_in_a_loop,
        ],
        max_use_ratio=10,
    ),
    TAG,
    position=2.9,
)


@node_rewriter([Elemwise])
def local_power_of_constant(fgraph: FunctionGraph, node: Apply) -> list[Variable] | None:
    """Take exponentials of many numbers: ``b ** x -> exp(x * log(b))``, for a constant b above 0.

    The bias correction of Adam has such a power for each row of a batch. The C library's takes three times
    as long as its exponential: a sixth of a small step.
    """
    if not isinstance(node.op.scalar_op, Pow):
        return None
    base, x = node.inputs
    [result] = node.outputs
    if not result.dtype.startswith("float") or x.dtype != result.dtype:
        return None
    b = get_underlying_scalar_constant_value(
        base, only_process_constants=True, raise_not_constant=False
    )
    # One power is no matter, and its last digit need not change
    if isinstance(b, Variable) or not 0 < b < np.inf or all(x.type.broadcastable):
        return None
    return [pt.exp(x * np.log(b).astype(x.dtype))]


optdb.register(
    "pymc_powers", dfs_rewriter(local_power_of_constant, ignore_newtrees=True), TAG, position=2.91
)


@node_rewriter([Elemwise])
def local_known_before_reshape(fgraph: FunctionGraph, node: Apply) -> list[Variable] | None:
    """Compute once: ``f(reshape(x)) -> reshape(f(x))``, where f(x) is in the graph.

    A layer of a network is reshaped for its product with the weights, and its gradient needs it as it was.
    PyTensor computes each ``tanh`` twice then, a fifth of the step of an autoencoder.
    """
    reshape = node.inputs[0].owner
    if len(node.inputs) != 1 or reshape is None or not isinstance(reshape.op, Reshape):
        return None
    x, shape = reshape.inputs
    for other, _ in fgraph.clients[x]:
        if other.op == node.op:
            return [reshape.op(other.outputs[0], shape)]
    return None


optdb.register(
    "pymc_reshapes",
    dfs_rewriter(local_known_before_reshape, ignore_newtrees=True),
    TAG,
    position=2.92,
)
