# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Checks of observed data: random ancestors, missing values, and differences of unsigned integers."""

from __future__ import annotations

import warnings

from collections.abc import Iterable

import numpy as np

from pytensor.compile.sharedvalue import SharedVariable
from pytensor.graph.basic import Constant, Variable
from pytensor.graph.traversal import ancestors
from pytensor.scalar import Neg, Sub
from pytensor.tensor.elemwise import Elemwise
from pytensor.tensor.random.op import RNGConsumerOp
from pytensor.xtensor.type import XTensorVariable

from pymc.minibatch.axis_tracking import graph_parents, indexes
from pymc.minibatch.current_value import current_value
from pymc.minibatch.index import MinibatchIndexRV
from pymc.minibatch.rebuild import all_rows
from pymc.minibatch.stream_index import is_stream


def check_observed(observed: Variable) -> None:
    """Raise TypeError where an observed value depends on a random variable.

    It may depend on data and on minibatch indexes. The message shows the path to the variable.
    """
    path = _random_ancestor(observed)
    if path:
        culprit = path[-1].name or str(path[-1].owner.op)
        steps = " <- ".join(v.name or str(v.owner.op if v.owner else v) for v in path)
        raise TypeError(
            "Variables that depend on other nodes cannot be used for observed data. "
            f"The observed value depends on the random variable {culprit!r} ({steps}), so "
            "it would change at each evaluation. It may depend on data (arrays, pm.Data, "
            "shared variables) and on pm.Minibatch only. To condition on draws of "
            f"{culprit!r}, draw them first: observed=pm.draw(...)"
        )


def is_valid_observed(var: object) -> bool:
    """Return True if `var` may be observed; all that is not symbolic may."""
    return not isinstance(var, Variable) or not _random_ancestor(var)


def _random_ancestor(var: Variable) -> tuple[Variable, ...]:
    """Return a path from `var` to a random variable other than a minibatch index, or an empty one."""
    paths: list[tuple[Variable, ...]] = [(var,)]
    seen = set()
    while paths:
        path = paths.pop()
        node = path[-1].owner
        if node is None or node in seen:
            continue
        seen.add(node)
        if isinstance(node.op, RNGConsumerOp) and not isinstance(node.op, MinibatchIndexRV):
            return path
        paths.extend((*path, parent) for parent in graph_parents(path[-1]))
    return ()


def check_none_missing(name: str, rv: Variable, value: Variable) -> None:
    """Raise NotImplementedError where observed rows of a minibatch have NaN.

    A latent variable would impute each missing value, and the rows of a batch change at each step. A ``logp=``
    of the user may leave NaN out, and NaN in a covariate is up to the model.
    """
    found = indexes([value])
    if not found or any(map(is_stream, found)) or _has_user_logp(rv):
        return
    if not any(map(_has_nan, ancestors([value]))):
        return
    [full] = all_rows([value])
    # The value itself: NaN of the data may have been filled in it
    observed = current_value(full.values if isinstance(full, XTensorVariable) else full)
    n_missing = 0 if observed is None else int(np.isnan(observed).sum())
    if n_missing:
        raise NotImplementedError(
            f"{name!r} observes rows of a minibatch with {n_missing} missing values (NaN), which would be "
            "imputed by a latent variable each. Drop or fill these rows, or observe them in a term of "
            "their own without pm.Minibatch. A pm.CustomDist whose logp= leaves NaN out may observe them"
        )


def _has_user_logp(rv: Variable) -> bool:
    from pymc.distributions.custom import CustomDistRV, CustomSymbolicDistRV  # imports this package

    op = rv.owner.op if rv.owner is not None else None
    if isinstance(op, CustomDistRV | CustomSymbolicDistRV):
        return isinstance(op, CustomDistRV) or not op.inline_logprob
    # A class of the user
    return op is not None and not type(op).__module__.startswith(("pymc.", "pytensor."))


def _has_nan(root: Variable) -> bool:
    if isinstance(root, SharedVariable):
        data = root.get_value(borrow=True)
    elif isinstance(root, Constant):
        data = root.data
    else:
        return False
    return np.asarray(data).dtype.kind in "fc" and bool(np.isnan(data).any())


def warn_of_unsigned(terms: Iterable[Variable], name: str) -> None:
    """Warn if terms of variable `name` depend on a difference of unsigned integers of a batch.

    The data keep their dtype: integers index groups, and a byte is an eighth of a float.
    """
    for var in ancestors(list(terms)):
        node = var.owner
        if (
            node is not None
            and isinstance(node.op, Elemwise)
            and isinstance(node.op.scalar_op, Sub | Neg)
            and var.type.dtype.startswith("uint")
            and indexes([var])
        ):
            wrapped = np.array(3, var.type.dtype) - np.array(5, var.type.dtype)
            warnings.warn(
                f"{name!r} depends on a difference of {var.type.dtype} of a minibatch: unsigned integers wrap "
                f'below zero, 3 - 5 is {wrapped}. Write x.astype("float64") before it is subtracted',
                UserWarning,
                stacklevel=4,
            )
            return
