# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Missing values among the observed ones of a minibatch.

A missing observed value would be imputed by a latent variable, and the rows of a batch change at each
step. NaN in a covariate is the model's own affair.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from pytensor.compile.mode import Mode
from pytensor.compile.sharedvalue import SharedVariable
from pytensor.graph.basic import Constant, Variable
from pytensor.graph.traversal import ancestors, explicit_graph_inputs
from pytensor.xtensor.type import XTensorVariable

from pymc.minibatch.provenance import indexes
from pymc.minibatch.rebuild import all_rows
from pymc.minibatch.stream_index import is_stream

__all__ = ["check_none_missing"]

_cheap_mode = Mode(linker="py", optimizer=None)


def check_none_missing(name: str, rv: Variable, value: Variable) -> None:
    """Raise where observed rows of a minibatch have NaN, of whatever kind of array they are.

    Parameters
    ----------
    name : str
        The term's name, for the message.
    rv : Variable
        Its random variable. A ``logp=`` of the user's may leave NaN out, so it is not asked.
    value : Variable
        What is observed: rows of a batch.

    Raises
    ------
    NotImplementedError
        The message tells how many there are, and what to do.
    """
    found = indexes([value])
    if not found or any(map(is_stream, found)) or _has_logp_of_its_own(rv):
        return
    if not any(map(_has_nan, _data(value))) or any(True for _ in explicit_graph_inputs([value])):
        return
    [full] = all_rows([value])
    if isinstance(full, XTensorVariable):
        full = full.values
    # The data are not asked alone: what is observed may be what was filled
    n_missing = int(np.isnan(full.eval(mode=_cheap_mode)).sum())
    if n_missing:
        raise NotImplementedError(
            f"{name!r} observes rows of a minibatch with {n_missing} missing values (NaN), which would be "
            "imputed by a latent variable each. Drop or fill these rows, or observe them in a term of "
            "their own without pm.Minibatch. A pm.CustomDist whose logp= leaves NaN out may observe them"
        )


def _has_logp_of_its_own(rv: Variable) -> bool:
    from pymc.distributions.custom import CustomDistRV, CustomSymbolicDistRV  # comes after this one

    op = rv.owner.op if rv.owner is not None else None
    if isinstance(op, CustomDistRV | CustomSymbolicDistRV):
        return isinstance(op, CustomDistRV) or not op.inline_logprob
    # A distribution of the user's, as a class
    return op is not None and not type(op).__module__.startswith(("pymc.", "pytensor."))


def _data(value: Variable) -> Iterable[Any]:
    for var in ancestors([value]):
        if isinstance(var, SharedVariable):
            yield var.get_value(borrow=True)
        elif isinstance(var, Constant):
            yield var.data


def _has_nan(data: Any) -> bool:
    return np.asarray(data).dtype.kind in "fc" and bool(np.isnan(data).any())
