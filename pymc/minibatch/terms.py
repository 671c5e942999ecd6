# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""What the log-probability of a minibatch is made of: terms that are sums over its rows.

A batch can stand for all rows only where each term is a sum over rows of what depends on one row each.
That is looked at where nothing is hidden, in the graph of the log-probability: proved by rules
(:mod:`~pymc.minibatch.row_sums`), else found by trying (:mod:`~pymc.minibatch.row_trials`), else vouched
for by `total_size`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from pytensor.graph.basic import Constant, Variable
from pytensor.graph.traversal import toposort
from pytensor.graph.type import HasShape

from pymc.minibatch.index import MinibatchIndexRV
from pymc.minibatch.provenance import Axes, Lost, Rows, indexes, rows_of, trace
from pymc.minibatch.rebuild import rebuild
from pymc.minibatch.row_sums import summed_rows
from pymc.minibatch.row_trials import adds_up, is_random

__all__ = ["check_log_probability", "check_sum_over_rows", "tried"]


def check_log_probability(
    name: str,
    rv: Variable,
    value: Variable,
    axes: Axes | Lost,
    *,
    known: Mapping[Variable, Axes | Lost],
    free: Collection[Variable],
    transform: Any = None,
    vouched: bool = False,
) -> None:
    """Check that the log-probability of a variable is a sum over the rows of its value.

    Parameters
    ----------
    name : str
    rv : Variable
        The random variable, not scaled.
    value : Variable
        What is observed, or the value variable of a free variable.
    axes : tuple of Rows, SAME or OWN, or Lost
        The axes of `value`.
    known, free
        Passed on to :func:`~pymc.minibatch.provenance.trace`.
    transform : Transform, optional
        That of the value.
    vouched : bool
        Whether `total_size` says so: believed where nothing else can tell.

    Raises
    ------
    ValueError
        If rows depend on each other, or the ``logp=`` of a `CustomDist` uses a minibatch that is not
        among its parameters.
    """
    # What the term is made of, so that nothing but its own distribution is looked into
    parts = {part: trace(part, known, free) for part in _parameters(rv, [*known, *free])}
    stands_for = {_of_any_length(part, found): part for part, found in parts.items()}
    [bare] = rebuild([rv], {part: stand for stand, part in stands_for.items()})
    observed = _of_any_length(value, axes)
    logp = _log_probability(name, bare, observed, transform)
    if logp is None:
        return
    hidden = indexes([logp], by_shape=True)
    if hidden:
        raise ValueError(
            f"the logp= of {name!r} uses {Rows(hidden[0])}, which is not among its parameters, so that "
            "its rows cannot be followed. Pass what it needs as a parameter: "
            "pm.CustomDist(name, x, ..., logp=lambda value, x, ...: ...)"
        )
    found = map(Rows, indexes([rv, value])) if isinstance(axes, Lost) else rows_of(axes)
    rows = frozenset(found)
    inside = {stand: parts[part] for stand, part in stands_for.items()}
    summed = summed_rows(repr(name), logp, {**inside, observed: axes})
    if isinstance(summed, Lost) and summed.is_worth_trying:
        [whole] = rebuild([logp], {**stands_for, observed: value})
        summed = tried(summed, whole, rows, known, free, vouched)
    check_sum_over_rows(repr(name), summed, rows)


def check_sum_over_rows(what: str, summed: frozenset[Rows] | Lost, rows: frozenset[Rows]) -> None:
    """Raise where a term is no sum over rows.

    Parameters
    ----------
    what : str
        What the term is called.
    summed : frozenset of Rows, or Lost
        See :func:`~pymc.minibatch.row_sums.summed_rows`.
    rows : frozenset of Rows
        What it has to be a sum over.

    Raises
    ------
    ValueError
    """
    if isinstance(summed, Lost):
        raise ValueError(f"{what}: {summed.why}. {_RULE}{_COUPLED if summed.certain else _VOUCH}")
    for axis in summed - rows:
        raise ValueError(
            f"{what}: its log-probability is a sum over the rows of {axis}, which its value does not have, "
            "so that it is not known what to scale: observe a value for each of these rows"
        )
    for axis in rows - summed:
        raise ValueError(
            f"{what}: its log-probability does not have the rows of {axis}, so that no scale makes a "
            "batch stand for all rows. Return a value for each row, or their sum"
        )


_RULE = (
    "The log-probability of a minibatch has to be a sum over its rows, each term of one row alone"
)
_COUPLED = (
    ": rows that depend on each other, such as those of a series, have to be one row of data with two axes; "
    "or fit all rows at once, without pm.Minibatch"
)
_VOUCH = ". If it is, say so by total_size=<rows in all>"


def tried(
    lost: Lost,
    term: Variable,
    rows: frozenset[Rows],
    known: Mapping[Variable, Axes | Lost],
    free: Collection[Variable],
    vouched: bool,
) -> frozenset[Rows] | Lost:
    """Tell by trying, else by what the user says, what a term is a sum over that no rule can follow.

    Parameters
    ----------
    lost : Lost
        Where the rules end.
    term : Variable
        The log-probability.
    rows : frozenset of Rows
        What it has to be a sum over.
    known, free
        Passed on to :func:`~pymc.minibatch.provenance.trace`.
    vouched : bool
        Whether `total_size` says that it is.
    """
    answer = adds_up(term, rows, known, free)
    if answer or (answer is None and vouched and not lost.certain):
        return rows
    if answer is None or lost.certain:
        return lost
    why = f"{lost.why}, and that of five rows is not the sum of those of two and three of them"
    return Lost(lost.op, why, certain=True)


def _of_any_length(var: Variable, axes: Axes | Lost) -> Variable:
    """Make a variable like `var`, whose number of rows is not known: else it becomes a number."""
    if isinstance(axes, Lost):
        return var.type(name=var.name)
    shape = [None if isinstance(axis, Rows) else n for n, axis in zip(var.type.shape, axes)]
    return var.type.clone(shape=tuple(shape))(name=var.name)


def _parameters(rv: Variable, given: Collection[Variable]) -> list[Variable]:
    """List what a distribution is made of, beside other distributions such as a mixture's."""
    from pymc.logprob.abstract import MeasurableOp

    random: set[Variable] = set()
    found: dict[Variable, None] = {}
    for node in toposort([rv], blockers=given):
        # Those that pymc-extras marginalizes draw nothing
        is_index = isinstance(node.op, MinibatchIndexRV)
        is_distribution = is_random(node) or (isinstance(node.op, MeasurableOp) and not is_index)
        if is_distribution or not random.isdisjoint(node.inputs):
            random.update(node.outputs)
            found |= {
                var: None
                for var in node.inputs
                if var not in random
                and isinstance(var.type, HasShape)
                and not isinstance(var, Constant)
            }
    return list(found)


def _log_probability(name: str, rv: Variable, value: Variable, transform: Any) -> Variable | None:
    """Derive the log-probability of `rv` at `value`; None for a distribution that has none."""
    from pymc.logprob.basic import conditional_logp, logp
    from pymc.logprob.transform_value import TransformValuesRewrite

    try:
        if transform is None:
            found = logp(rv, value, warn_rvs=False)
            # Of several variables that have one together, it is the first
            return found[0] if isinstance(found, list | tuple) else found
        rewrite = TransformValuesRewrite({value: transform})
        return conditional_logp({rv: value}, warn_rvs=False, extra_rewrites=rewrite)[value]
    except NotImplementedError:
        return None
    except (TypeError, ValueError, IndexError, AssertionError) as error:
        raise ValueError(
            f"{name!r}: its log-probability cannot be computed of the rows of a batch ({error}). Data "
            "that a logp= uses have to be among its parameters, of the same pm.Minibatch call: "
            "pm.CustomDist(name, x, ..., logp=lambda value, x, ...: ...)"
        ) from error
