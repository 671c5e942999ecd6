# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""What an observed value may depend on: data, and minibatch indexes; nothing else that is random.

The check is a graph rewriter that changes nothing and raises. It is registered in
``observed_checks_db``, where other checks of observed values have their place.
"""

from __future__ import annotations

import warnings

from collections.abc import Iterable
from typing import Any

import numpy as np

from pytensor.compile.sharedvalue import SharedVariable
from pytensor.graph.basic import Constant, Variable
from pytensor.graph.fg import FunctionGraph
from pytensor.graph.op import HasInnerGraph
from pytensor.graph.rewriting.basic import GraphRewriter
from pytensor.graph.rewriting.db import RewriteDatabaseQuery, SequenceDB
from pytensor.graph.traversal import ancestors
from pytensor.scalar import Neg, Sub
from pytensor.tensor.elemwise import Elemwise
from pytensor.tensor.random.op import RNGConsumerOp
from pytensor.xtensor.type import XTensorVariable

from pymc.minibatch.axis_tracking import indexes
from pymc.minibatch.current_value import current_value
from pymc.minibatch.index import MinibatchIndexRV
from pymc.minibatch.rebuild import all_rows
from pymc.minibatch.stream_index import is_stream

# Without a callback: the default one would print what is raised, and go on
observed_checks_db = SequenceDB(failure_callback=None)
observed_checks_db.name = "observed_checks_db"


class CheckAncestry(GraphRewriter):
    """Raise where an output depends on a random variable that is not a minibatch index."""

    def apply(self, fgraph: FunctionGraph) -> None:
        for observed in fgraph.outputs:
            path = random_ancestor(observed)
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


observed_checks_db.register("check_ancestry", CheckAncestry(), "basic", position=1)


def check_observed(observed: Variable) -> None:
    """Run the registered checks of an observed value.

    Raises
    ------
    TypeError
        If it depends on a random variable that is not a minibatch index; the message names the
        variable and the path to it.
    """
    checks = observed_checks_db.query(RewriteDatabaseQuery(include=["basic"]))
    checks.rewrite(FunctionGraph(outputs=[observed], clone=False))


def is_valid_observed(var: Any) -> bool:
    """Tell whether `var` may be observed; all that is not symbolic may."""
    return not isinstance(var, Variable) or not random_ancestor(var)


def random_ancestor(var: Variable) -> tuple[Variable, ...]:
    """Find the path from `var` to a random variable other than a minibatch index; or an empty one."""
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
        inner = node.op.inner_outputs if isinstance(node.op, HasInnerGraph) else ()
        paths.extend((*path, parent) for parent in (*node.inputs, *inner))
    return ()


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
    if not any(map(_has_nan, _data(value))):
        return
    [full] = all_rows([value])
    if isinstance(full, XTensorVariable):
        full = full.values
    # The value itself: NaN of the data may have been filled in it
    observed = current_value(full)
    n_missing = 0 if observed is None else int(np.isnan(observed).sum())
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


def warn_of_unsigned(terms: Iterable[Variable], name: str) -> None:
    """Warn if terms depend on a difference of unsigned integers of a batch, which has no sign.

    The data are left as they are: as integers they index groups, and take a byte where floats take eight.

    Parameters
    ----------
    terms : iterable of Variable
    name : str
        Of the variable of the model that they are of.

    Warns
    -----
    UserWarning
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
