# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""The log-probability of a model as terms, with the axes of particles and of rows kept.

A model's log-probability is a sum of terms. A term on a plate has a value for each row, so what is summed
here is within a row only; sums over rows and over particles are left to objectives, which differ in
their order.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Any, NamedTuple

import pytensor.tensor as pt

from pytensor.graph.basic import Variable

from pymc.minibatch.axis_tracking import Rows, Untracked, track_axes
from pymc.minibatch.batch_logp import minibatch_logp
from pymc.minibatch.plates import model_indexes
from pymc.minibatch.scaling import scale_factor
from pymc.variational.guides.base import Plate, plate_shape
from pymc.variational.guides.unnumbered_rows import (
    UnnumberedRows,
    hand_totals,
    is_part,
    traced_axes,
)
from pymc.variational.minibatch_rv import unscaled_rv
from pymc.variational.vectorize import as_tensor

if TYPE_CHECKING:
    from pymc.model.core import Model


@dataclass(frozen=True)
class Term:
    """A part of the log-probability of a model.

    Parameters
    ----------
    name : str
    plate : tuple of Rows
        The rows that it has a value for; empty for a global one.
    logp : Variable
        In nats, with the axes of the plate in their order. A term of a plate is that of the rows of a
        batch, and not scaled to all rows.
    mixed : str
        Why its rows cannot be told apart, empty where they can. Its `logp` is then what the term
        adds to that of the model, and it has no plate.
    within : tuple of int
        Axes of the variable that are within a row, over which `logp` is summed.
    """

    name: str
    plate: Plate
    logp: Variable
    mixed: str = ""
    within: tuple[int, ...] = ()


def terms_of(model: Model, rows: Iterable[Rows] = ()) -> list[Term]:
    """Take the log-probability of a model apart, as functions of its value variables.

    Parameters
    ----------
    model : Model
    rows : iterable of Rows
        Those that guides have, of dims that the model does not subsample too.

    Returns
    -------
    list of Term
        One for each free and observed variable, Jacobian included, and for each Potential.

    Raises
    ------
    ValueError
        If a term mixes the rows of a batch that is fed by hand, and has no `total_size` of its own.
    """
    variables = [*model.basic_RVs, *model.potentials]
    with minibatch_logp():
        logps = model.logp(vars=variables, sum=False)
    unnumbered = [axis for axis in dict.fromkeys(rows) if isinstance(axis, UnnumberedRows)]
    known = traced_axes(model, unnumbered)
    parts = [axis for axis in unnumbered if is_part(axis.n_available, axis.total)]
    terms = []
    for var, logp in zip(variables, logps):
        by_hand = hand_totals(model, var) if unnumbered else {}
        terms.append(_term(var.name, logp, known, by_hand))
        if terms[-1].mixed and parts and not by_hand:
            raise ValueError(_not_scaled(terms[-1], parts[0]))
    return terms


def _term(
    name: str, logp: Variable, known: Mapping[Variable, Any], by_hand: Collection[int]
) -> Term:
    axes, logp = track_axes(logp, known), as_tensor(logp)
    if isinstance(axes, Untracked):
        return Term(name, (), logp.sum(), axes.why)
    plate = tuple(axis for axis in axes if isinstance(axis, Rows))
    # The model scales terms to the rows of an index, and to those fed by hand where it was told so
    scaled = [
        axis
        for k, axis in enumerate(axes)
        if isinstance(axis, Rows) and (k in by_hand or axis.has_row_ids)
    ]
    if scaled:
        logp = logp / plate_scale(scaled)
    within = tuple(k for k, axis in enumerate(axes) if not isinstance(axis, Rows))
    return Term(name, plate, logp.sum(within) if within else logp, within=within)


def _not_scaled(term: Term, rows: Rows) -> str:
    return (
        f"{term.name!r} depends on the rows of {rows}, of which the model holds a batch (total_size=...), but has "
        f"no value for each row, so that it cannot be scaled to all of them: {term.mixed}. Give data "
        f"of the rows dims={rows.dim!r}, and let the term have a value for each row"
    )


def plate_scale(plate: Sequence[Rows]) -> Variable:
    """Rows in all by rows of the batch."""
    return scale_factor([rows.total for rows in plate], plate_shape(plate))


REDUCTIONS = ("batch", "sum", "mean")


def check_reduction(reduction: Any) -> str:
    """Check the argument `reduction` of a fit.

    Raises
    ------
    ValueError
    """
    if reduction not in REDUCTIONS:
        raise ValueError(
            f"reduction={reduction!r} of pm.fit says of what size the loss is: 'batch', that of a "
            "batch, as it always was; 'sum', of all data; or 'mean', of a row"
        )
    return reduction


def loss_factor(model: Model, reduction: str) -> Variable:
    """Tell what the loss, in nats of all data, is multiplied by.

    Parameters
    ----------
    model : Model
    reduction : {"batch", "sum", "mean"}
        The size of a batch: rows of the batch by rows in all, 1 for full data; that of all data: 1;
        that of a row: 1 by rows in all. Where observed variables are of several plates, the first
        is by the largest ratio, and the rows of the last are those of all of them.

    Returns
    -------
    scalar of floatX
    """
    if reduction == "sum":
        return pt.constant(1.0)
    if reduction == "mean":
        return 1 / rows_in_all(model).astype("floatX")
    scales = [plate.scale for plate in _plates(model).values()]
    return 1 / (scales[0] if len(scales) == 1 else pt.max(pt.stack(scales)))


def rows_in_all(model: Model) -> Variable:
    """Count the rows of the observed plates: each plate once."""
    counts = [plate.n_rows for plate in _plates(model).values()]
    return counts[0] if len(counts) == 1 else pt.add(*counts)


class _Plate(NamedTuple):
    """How many rows there are in all, and that by rows of the batch."""

    n_rows: Variable
    scale: Variable


def _plates(model: Model) -> dict[Any, _Plate]:
    """The plates of observed variables; of a model without one, what is subsampled; or one row."""
    found: dict[Any, _Plate] = {}
    for rv in model.observed_RVs:
        axes = track_axes(model.rvs_to_values[rv])
        rows = () if isinstance(axes, Untracked) else tuple(a for a in axes if isinstance(a, Rows))
        if rows:
            found[rows] = _of_rows(rows)
        else:
            key, plate = _without_index(model, rv)
            found.setdefault(key, plate)
    if not found:
        found = {index: _of_rows((Rows(index),)) for index in model_indexes(model)}
    return found or {None: _Plate(pt.constant(1), pt.constant(1.0))}


def _of_rows(rows: Sequence[Rows]) -> _Plate:
    n_rows = reduce(lambda n, axis: n * axis.total, rows, pt.constant(1, dtype="int64"))
    return _Plate(n_rows, scale_factor([axis.total for axis in rows], plate_shape(rows)))


def _without_index(model: Model, rv: Variable) -> tuple[Any, _Plate]:
    """Rows of full data, or of batches that are fed by hand: the leading axis, if there is one."""
    shape, dims = list(model.rvs_to_values[rv].shape), model.named_vars_to_dims.get(rv.name, ())
    _, totals = unscaled_rv(rv)
    key = dims[0] if dims else rv.name
    if all(total is None for total in totals):
        n_rows = shape[0] if shape else pt.constant(1)
        return key, _Plate(n_rows, pt.constant(1.0))
    n_rows = reduce(lambda n, total: n * total, (t for t in totals if t is not None))
    return key, _Plate(pt.as_tensor(n_rows), scale_factor(totals, shape))
