# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""N/B scaling of the log-probability of a batch, and the check of where that may be compiled.

N/B times the sum of B log-probabilities is an unbiased estimate of the sum of N, if each row is drawn with
the same probability (Hoffman et al. 2013, "Stochastic Variational Inference", section 2.4). For blocks of
several subsampled axes the factors multiply.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np
import pytensor.scalar as ps
import pytensor.tensor as pt

from pytensor import config
from pytensor.compile import optdb
from pytensor.graph.basic import Apply, Variable
from pytensor.graph.fg import FunctionGraph
from pytensor.graph.op import Op
from pytensor.graph.replace import _vectorize_node
from pytensor.graph.rewriting.basic import dfs_rewriter, node_rewriter
from pytensor.tensor.elemwise import DimShuffle, Elemwise
from pytensor.tensor.random.op import RNGConsumerOp
from pytensor.tensor.rewriting.basic import register_specialize
from pytensor.tensor.variable import TensorVariable
from pytensor.xtensor.basic import XTensorFromTensor
from pytensor.xtensor.vectorization import XElemwise

from pymc.minibatch.axis_tracking import Rows, indexes, value_ancestors
from pymc.minibatch.index import MinibatchIndexRV
from pymc.minibatch.stream_index import is_stream


def _quotient(total: Variable, batch: Variable) -> TensorVariable:
    # Cast first: rewrites take the factors of a product apart, and int64 times float32 is float64
    return pt.cast(total, config.floatX) / pt.cast(batch, config.floatX)


class RowRatio(Op):
    """The ratio N/B of one axis, as a float.

    A division that can be found in a graph, so that no term is scaled twice and the log-probability of
    a minibatch is recognised when it is compiled. A rewrite removes it before a backend sees it.

    Parameters
    ----------
    axis : int, optional
        Axis of a Potential whose `total_size` a user has stated, which holds in each model made of this
        one. None where the data tell N.
    variable : str, optional
        Name of the local variable whose prior is scaled.
    """

    __props__ = ("axis", "variable")

    def __init__(self, axis: int | None = None, variable: str | None = None) -> None:
        self.axis, self.variable = axis, variable

    def make_node(self, total: Variable | float, batch: Variable | float) -> Apply:
        inputs = [pt.as_tensor_variable(length) for length in (total, batch)]
        return Apply(self, inputs, [_quotient(*inputs).type()])

    def perform(self, node: Apply, inputs: Sequence[np.ndarray], outputs: Any) -> None:
        total, batch = inputs
        outputs[0][0] = np.asarray(total / batch, dtype=node.outputs[0].type.dtype)

    def do_constant_folding(self, fgraph: FunctionGraph, node: Apply) -> bool:
        return False


@register_specialize
@node_rewriter([RowRatio])
def local_row_ratio(fgraph: FunctionGraph, node: Apply) -> list[Variable]:
    """``RowRatio(total, batch)`` -> ``cast(total, floatX) / cast(batch, floatX)``."""
    return [_quotient(*node.inputs)]


@_vectorize_node.register(RowRatio)
def vectorize_row_ratio(op: RowRatio, node: Apply, total: Variable, batch: Variable) -> Apply:
    """Keep the Op findable where lengths differ by particle: a Blockwise would hide it."""
    return op.make_node(total, batch)


# Not in canonicalization: a graph that is canonicalized may be compiled or scaled later
optdb.register(
    "row_ratios_to_divisions",
    dfs_rewriter(local_row_ratio),
    "fast_run",
    "fast_compile",
    "numba",
    "jax",
    position=0.02,
)


def scale_factor(
    totals: Sequence[Variable | float | None],
    shape: Sequence[Variable | int],
    stated: Collection[int] = (),
    variable: str | None = None,
) -> TensorVariable:
    """Return the factor of a log-probability: the product of N/B over all axes, a scalar of floatX.

    `totals` has N along each axis, None where it is not subsampled; `shape` is that of the batch. Axes in
    `stated` have the `total_size` of a user. `variable` names the local variable whose prior is scaled.
    """
    factors = [
        RowRatio(k if k in stated else None, variable)(total, length)
        for k, (total, length) in enumerate(zip(totals, shape, strict=True))
        if total is not None
    ]
    if not factors:
        return pt.constant(1.0, dtype=config.floatX)
    return pt.mul(*factors) if len(factors) > 1 else factors[0]


def ratios(var: Variable) -> list[Apply]:
    """Return the `RowRatio` nodes that are factors of `var`."""
    if var.owner is None:
        return []
    op = var.owner.op
    if isinstance(op, RowRatio):
        return [var.owner]
    is_product = isinstance(op, Elemwise | XElemwise) and op.scalar_op == ps.mul
    if is_product or isinstance(op, DimShuffle | XTensorFromTensor):
        return [ratio for factor in var.owner.inputs for ratio in ratios(factor)]
    return []


# --- where a log-probability of a batch may be compiled ---
# Samplers, optimizers and Laplace approximations compare values of one function, but a compiled
# log-probability of a minibatch is another function at each call. Methods outside PyMC compile what
# Model.logp returns, so it is refused where graphs are compiled. A stochastic gradient is an estimate at
# points that the function draws itself, and is allowed.
_is_allowed = ContextVar("_is_allowed", default=False)


@contextmanager
def minibatch_logp() -> Iterator[None]:
    """Allow to compile the log-probability of one minibatch, another at each call.

    Otherwise a function of values, such as ``model.compile_logp()``, raises an error for a model with
    minibatches, since samplers, optimizers and Laplace approximations would compare values of different
    functions. Fits by stochastic gradients that draw their own points do not need it, such as
    :func:`pymc.fit` and ``fit_advi`` of pymc-extras.

    Examples
    --------
    >>> import numpy as np
    >>> import pymc as pm
    >>> with pm.Model() as model:
    ...     batch = pm.Minibatch(np.arange(6.0), batch_size=2)
    ...     mu = pm.Normal("mu")
    ...     y = pm.Normal("y", mu, 1, observed=batch, total_size=6)
    >>> with pm.minibatch_logp():
    ...     logp = model.compile_logp()
    >>> full_logp = pm.remove_minibatch(model).compile_logp()
    >>> at = {"mu": 0.5}
    >>> bool(np.isclose(np.mean([logp(at) for _ in range(3)]), full_logp(at)))  # one pass
    True
    """
    token = _is_allowed.set(True)
    try:
        yield
    finally:
        _is_allowed.reset(token)


def marked(variable: str) -> str | None:
    """Return the name of a local variable, as a mark of its scale; None inside of `minibatch_logp`."""
    return None if _is_allowed.get() else variable


def check_one_function(outputs: Sequence[Variable], is_step: bool = False) -> None:
    """Raise a ValueError if `outputs` have a log-probability that differs from call to call.

    It is one of a minibatch at given values, or of local variables. `is_step` is for functions that
    update parameters, as a step of a stochastic gradient does.
    """
    if _is_allowed.get():
        return
    ops = [var.owner.op for var in value_ancestors(outputs) if var.owner is not None]
    ratios = [op for op in ops if isinstance(op, RowRatio)]
    local = sorted(op.variable for op in ratios if op.variable is not None)
    draws = [op for op in ops if isinstance(op, RNGConsumerOp)]
    is_estimate = is_step or not all(isinstance(op, MinibatchIndexRV) for op in draws)
    if not local and (is_estimate or not ratios):
        return
    for index in indexes(outputs, by_shape=bool(local)):
        if local:
            reason = (
                f"the log-probability that is compiled has values of {local[0]!r} for the rows of a batch "
                f"({Rows(index)}), which are others at each call. A method that does not know it gives all "
                "batches the same values, and its result would be wrong"
            )
        else:
            reason = (
                "the log-probability of a minibatch is compiled as a function of given values, but it is "
                f"of other rows at each call ({Rows(index)}). A sampler, an optimizer or a Laplace "
                "approximation, which compare its values, would give a wrong result"
            )
        raise ValueError(
            f"{reason}. {use_all_rows(index, 'give the method pm.remove_minibatch(model)')}. Where one "
            "batch's log-probability is what you want, compile it in `with pm.minibatch_logp():`"
        )


def use_all_rows(index: Variable, call: str) -> str:
    """Return advice for a model that is subsampled by `index`; `call` uses the model on all rows."""
    if is_stream(index):
        return (
            "Fit the model by pm.Trainer or pm.fit(data=loader), or put all rows into memory: "
            "pm.Data(name, array) in the place of the loader"
        )
    return f"Fit the model by pm.fit, or use all rows: {call}"
