# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Terms of the log-probability of a model, by row and particle, and the scale of the loss.

The log-probability of a model is a sum of terms. A term on a plate has a value for each row and is summed
within a row only. Objectives take the sums over rows and over particles, in the order that each needs.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import mul
from typing import TYPE_CHECKING, NamedTuple

import pytensor.tensor as pt

from pytensor.graph.basic import Variable

from pymc.minibatch.axis_tracking import Axes, Rows, Untracked, track_axes
from pymc.minibatch.batch_logp import minibatch_logp
from pymc.minibatch.plates import model_indexes
from pymc.minibatch.scaling import scale_factor
from pymc.variational.guides.base import Plate, plate_shape
from pymc.variational.guides.unnumbered_rows import (
    UnnumberedRows,
    explicit_totals,
    is_part,
    traced_axes,
)
from pymc.variational.minibatch_rv import unscaled_rv
from pymc.variational.vectorize import as_tensor

if TYPE_CHECKING:
    from pymc.model.core import Model


@dataclass(frozen=True)
class Term:
    """A term of the log-probability of a model, in nats.

    It has the axes of its plate, the rows of a batch, and is not scaled to all rows. A term whose rows cannot
    be told apart has no plate and is its share of the model's log-probability.
    """

    name: str
    plate: Plate
    logp: Variable
    mixed: str = ""  # why the rows cannot be told apart
    within: tuple[int, ...] = ()  # axes of the variable within a row, over which `logp` is summed


def terms_of(model: Model, rows: Iterable[Rows] = ()) -> list[Term]:
    """Return a term for each free and observed variable, Jacobian included, and for each Potential.

    They are functions of the value variables. `rows` are those of guides, which may be of dims that the model
    does not subsample.
    """
    variables = [*model.basic_RVs, *model.potentials]
    with minibatch_logp():
        logps = model.logp(vars=variables, sum=False)
    unnumbered = [axis for axis in dict.fromkeys(rows) if isinstance(axis, UnnumberedRows)]
    known = traced_axes(model, unnumbered)
    parts = [axis for axis in unnumbered if is_part(axis.n_available, axis.total)]
    terms = []
    for var, logp in zip(variables, logps):
        explicit = explicit_totals(model, var) if unnumbered else {}
        term = _term(var.name, logp, known, explicit)
        if term.mixed and parts and not explicit:
            raise ValueError(
                f"{term.name!r} depends on the rows of {parts[0]}, of which the model holds a batch "
                "(total_size=...), but has no value for each row, so that it cannot be scaled to all of "
                f"them: {term.mixed}. Give data of the rows dims={parts[0].dim!r}, and let the term have a "
                "value for each row"
            )
        terms.append(term)
    return terms


def _term(
    name: str,
    logp: Variable,
    known: Mapping[Variable, Axes | Untracked],
    explicit: Collection[int],
) -> Term:
    axes, logp = track_axes(logp, known), as_tensor(logp)
    # The model has scaled it as a whole, so that its sum is a share of the log-probability
    if isinstance(axes, Untracked):
        return Term(name, (), logp.sum(), axes.why)
    plate = tuple(axis for axis in axes if isinstance(axis, Rows))
    within = tuple(k for k, axis in enumerate(axes) if not isinstance(axis, Rows))
    # Undo the scale of the model, which has it for rows of an index and for explicit totals
    scaled = [
        axis
        for k, axis in enumerate(axes)
        if isinstance(axis, Rows) and (k in explicit or axis.has_row_ids)
    ]
    if scaled:
        logp = logp / plate_scale(scaled)
    return Term(name, plate, logp.sum(within) if within else logp, within=within)


def plate_scale(plate: Sequence[Rows]) -> Variable:
    """Return the number of all rows divided by that of the batch."""
    return scale_factor([rows.total for rows in plate], plate_shape(plate))


#: Sizes of the loss: that of a batch, of all data, or of a row.
REDUCTIONS = ("batch", "sum", "mean")


def loss_factor(model: Model, reduction: str) -> Variable:
    """Return the factor of the loss, which is in nats of all data.

    Parameters
    ----------
    model : Model
    reduction : {"batch", "sum", "mean"}
        "batch" divides by N/B, 1 for full data; "sum" leaves the loss as it is; "mean" divides by the
        number of rows. If observed variables are on several plates, "batch" takes the largest ratio, and
        "mean" the rows of all of them.

    Returns
    -------
    scalar of floatX
    """
    if reduction == "sum":
        return pt.constant(1.0)
    plates = _observed_plates(model)
    if reduction == "mean":
        counts = [plate.n_rows for plate in plates]
        n_rows = counts[0] if len(counts) == 1 else pt.add(*counts)
        return 1 / n_rows.astype("floatX")
    scales = [plate.scale for plate in plates]
    return 1 / (scales[0] if len(scales) == 1 else pt.max(pt.stack(scales)))


class PlateSize(NamedTuple):
    """The number of all rows, and N/B."""

    n_rows: Variable
    scale: Variable


def _observed_plates(model: Model) -> list[PlateSize]:
    """Return the sizes of the plates of observed variables, each once.

    Without any, they are those of the subsampled dims, or one row.
    """
    found: dict[Hashable, PlateSize] = {}
    for rv in model.observed_RVs:
        axes = track_axes(model.rvs_to_values[rv])
        rows = () if isinstance(axes, Untracked) else tuple(a for a in axes if isinstance(a, Rows))
        if rows:
            found[rows] = _size_of_rows(rows)
        else:
            dims = model.named_vars_to_dims.get(rv.name, ())
            found.setdefault(dims[0] if dims else rv.name, _size_without_index(model, rv))
    if not found:
        found = {index: _size_of_rows((Rows(index),)) for index in model_indexes(model)}
    return list(found.values()) or [PlateSize(pt.constant(1), pt.constant(1.0))]


def _size_of_rows(rows: Sequence[Rows]) -> PlateSize:
    n_rows = reduce(mul, [axis.total for axis in rows], pt.constant(1, dtype="int64"))
    return PlateSize(n_rows, plate_scale(rows))


def _size_without_index(model: Model, rv: Variable) -> PlateSize:
    """Return the size of full data, or of a batch with a `total_size`: rows are on the leading axis."""
    shape = list(model.rvs_to_values[rv].shape)
    totals = unscaled_rv(rv)[1]
    explicit = [total for total in totals if total is not None]
    if not explicit:
        return PlateSize(shape[0] if shape else pt.constant(1), pt.constant(1.0))
    return PlateSize(pt.as_tensor(reduce(mul, explicit)), scale_factor(totals, shape))
