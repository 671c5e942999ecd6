# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""The log-probability of one batch, as a function of values: only for who says that it is meant.

Samplers, optimizers and Laplace approximations compare values of one function, and a compiled
log-probability of a minibatch is another function at each call. Methods outside PyMC compile what
:meth:`pymc.Model.logp` returns, and know nothing of minibatches, so it is refused where graphs are compiled.
A stochastic gradient is an estimate at points that the function draws itself, and goes through.
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

__all__ = ["check_one_function", "marked", "minibatch_logp", "use_all_rows"]

_is_meant = ContextVar("_is_meant", default=False)


@contextmanager
def minibatch_logp() -> Iterator[None]:
    """Allow to compile the log-probability of one minibatch, another at each call.

    Without it a function of given values, such as ``model.compile_logp()``, is refused for a model
    with minibatches: what compares its values, as a sampler, an optimizer or a Laplace approximation
    does, would compare those of different functions. Fits by stochastic gradients do without it where
    they draw their own points, as :func:`pymc.fit` and ``fit_advi`` of pymc-extras do.

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
    token = _is_meant.set(True)
    try:
        yield
    finally:
        _is_meant.reset(token)


def marked(variable: str) -> str | None:
    """Return the name of a local variable, to mark its scale, or None to who says that it is meant."""
    return None if _is_meant.get() else variable


def check_one_function(outputs: Sequence[Variable], is_step: bool = False) -> None:
    """Raise where `outputs` are compiled that come out wrong from who knows nothing of minibatches.

    Parameters
    ----------
    outputs : sequence of Variable
    is_step : bool, default False
        Whether the function writes parameters of its own, as a step of a stochastic gradient does.

    Raises
    ------
    ValueError
        For the log-probability of a minibatch at given values, and for that of local variables. The
        message names the index and what to do.
    """
    if _is_meant.get():
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
    """Tell what to do with a model that is subsampled by `index`; `call` is of the model on all rows."""
    if is_stream(index):
        return (
            "Fit the model by pm.Trainer or pm.fit(data=loader), or put all rows into memory: "
            "pm.Data(name, array) in the place of the loader"
        )
    return f"Fit the model by pm.fit, or use all rows: {call}"
