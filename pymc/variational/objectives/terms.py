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
from typing import TYPE_CHECKING, Any

from pytensor.graph.basic import Variable

from pymc.minibatch.batch_logp import minibatch_logp
from pymc.minibatch.provenance import Lost, Rows, trace
from pymc.minibatch.scaling import scale_factor
from pymc.variational.guides.base import Plate, plate_shape
from pymc.variational.guides.unnumbered_rows import (
    UnnumberedRows,
    hand_totals,
    is_part,
    traced_axes,
)
from pymc.variational.vectorize import as_tensor

if TYPE_CHECKING:
    from pymc.model.core import Model

__all__ = ["Term", "plate_scale", "terms_of"]


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
    parts = [axis for axis in unnumbered if is_part(axis.at_hand, axis.total)]
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
    axes, logp = trace(logp, known), as_tensor(logp)
    if isinstance(axes, Lost):
        return Term(name, (), logp.sum(), axes.why)
    plate = tuple(axis for axis in axes if isinstance(axis, Rows))
    # The model scales terms to the rows of an index, and to those fed by hand where it was told so
    scaled = [
        axis
        for k, axis in enumerate(axes)
        if isinstance(axis, Rows) and (k in by_hand or axis.knows_numbers)
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
