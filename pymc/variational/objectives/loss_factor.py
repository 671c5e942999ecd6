# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""What the loss of a fit is multiplied by: one factor for the whole objective, globals included."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import TYPE_CHECKING, Any, NamedTuple

import pytensor.tensor as pt

from pytensor.graph.basic import Variable

from pymc.minibatch.plates import model_indexes
from pymc.minibatch.provenance import Lost, Rows, trace
from pymc.minibatch.scaling import scale_factor
from pymc.variational.guides.base import plate_shape
from pymc.variational.minibatch_rv import unscaled_rv

if TYPE_CHECKING:
    from pymc.model.core import Model

__all__ = ["REDUCTIONS", "check_reduction", "loss_factor", "rows_in_all"]

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
        axes = trace(model.rvs_to_values[rv])
        rows = () if isinstance(axes, Lost) else tuple(a for a in axes if isinstance(a, Rows))
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
