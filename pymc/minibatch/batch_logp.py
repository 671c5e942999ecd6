# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""`pm.minibatch_logp`: allow the log-probability of one batch as a compiled function of values.

Samplers, optimizers and Laplace approximations compare values of one function, but a compiled
log-probability of a minibatch is another function at each call. Methods outside PyMC compile what
:meth:`pymc.Model.logp` returns, so it is refused where graphs are compiled. A stochastic gradient is an
estimate at points that the function draws itself, and is allowed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

from pytensor.graph.basic import Variable
from pytensor.tensor.random.op import RNGConsumerOp

from pymc.minibatch.axis_tracking import Rows, indexes, value_ancestors
from pymc.minibatch.index import MinibatchIndexRV
from pymc.minibatch.scaling import RowRatio
from pymc.minibatch.stream_index import is_stream

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
