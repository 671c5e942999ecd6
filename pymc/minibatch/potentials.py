# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""What a Potential is multiplied by: it is a term too, but only its user knows whether a sum of rows."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import pytensor.tensor as pt

from pytensor.graph.basic import Apply, Variable
from pytensor.graph.traversal import ancestors
from pytensor.tensor.shape import shape_i

from pymc.minibatch.current_length import current_length
from pymc.minibatch.factors import check_no_own_factor
from pymc.minibatch.lengths import check_no_length
from pymc.minibatch.provenance import Axes, Lost, Rows, indexes, rows_of, trace
from pymc.minibatch.rebuild import rebuild
from pymc.minibatch.row_sums import summed_rows
from pymc.minibatch.scaling import RowRatio, ratios, scale_factor
from pymc.minibatch.terms import check_sum_over_rows, tried
from pymc.minibatch.total_size import (
    check_among,
    check_given,
    check_no_diagonal,
    normalize_total_size,
)

__all__ = ["potential_scale", "without_given_totals"]


def potential_scale(
    var: Variable,
    total_size: Any,
    *,
    name: str,
    dims: Sequence[str | None] | None,
    known: Mapping[Variable, Axes | Lost],
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
        Passed on to :func:`~pymc.minibatch.provenance.trace`.
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
    axes = trace(var, known, free)
    picked = list(map(Rows, indexes([var], known=known)))
    if not picked and not scaled:
        check_no_length(f"Potential {name!r}", [var])
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
    if isinstance(axes, Lost):
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
    check_no_length(f"Potential {name!r}", [var])
    return _scale(name, var, totals, lengths, stated, written)


def _filled(
    var: Variable, known: Mapping[Variable, Axes | Lost], free: Collection[Variable]
) -> Collection[Rows]:
    """Tell which rows are in a term by their number alone, as those of ``pt.ones(n)``."""
    if not indexes([var], by_shape=True):
        return ()
    try:
        summed = summed_rows("it", var, known, free)
    except ValueError:  # a number of rows, which is refused elsewhere
        return ()
    return () if isinstance(summed, Lost) else summed


def _check_sum(
    name: str,
    var: Variable,
    rows: frozenset[Rows],
    known: Mapping[Variable, Axes | Lost],
    free: Collection[Variable],
) -> None:
    """Check that a Potential, of which the user says so by `total_size`, is a sum over rows."""
    what = f"Potential {name!r}"
    summed = summed_rows(what, var, known, free)
    if isinstance(summed, Lost) and summed.is_worth_trying:
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
