#   Copyright 2026 - present The PyMC Developers
#
#   Licensed under the Apache License, Version 2.0 (the "License");
#   you may not use this file except in compliance with the License.
#   You may obtain a copy of the License at
#
#       http://www.apache.org/licenses/LICENSE-2.0
#
#   Unless required by applicable law or agreed to in writing, software
#   distributed under the License is distributed on an "AS IS" BASIS,
#   WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
#   See the License for the specific language governing permissions and
#   limitations under the License.
"""What the loss of a fit is multiplied by: one factor for the whole objective, globals included."""

from __future__ import annotations

from typing import Any

import pytensor.tensor as pt

from pytensor.graph.basic import Variable

from pymc.minibatch.provenance import Lost, Rows, trace
from pymc.minibatch.scaling import scale_factor
from pymc.variational.guides.base import plate_shape
from pymc.variational.minibatch_rv import unscaled_rv

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


def loss_factor(model: Any, reduction: str) -> Variable:
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
    scales = [scale for scale, _ in _observed(model)]
    if not scales:
        return pt.constant(1.0)
    largest = scales[0] if len(scales) == 1 else pt.max(pt.stack(scales))
    return 1 / largest


def rows_in_all(model: Any) -> Variable:
    """Count the rows of the observed plates: each plate once."""
    counts = {key: total for _, (key, total) in _observed(model)}
    return pt.add(*counts.values()) if len(counts) > 1 else next(iter(counts.values()))


def _observed(model: Any) -> list[tuple[Variable, tuple[Any, Variable]]]:
    """For each observed variable the scale of its rows, and which rows and how many they are."""
    result = []
    for rv in model.observed_RVs:
        value = model.rvs_to_values[rv]
        _, totals = unscaled_rv(rv)
        axes = trace(value)
        rows = () if isinstance(axes, Lost) else tuple(a for a in axes if isinstance(a, Rows))
        shape = list(value.shape)
        scale = scale_factor(totals, shape) if any(t is not None for t in totals) else None
        if rows:
            n_rows = pt.prod(pt.stack([axis.total for axis in rows]))
            result.append(
                (scale_factor([r.total for r in rows], plate_shape(rows)), (rows, n_rows))
            )
            continue
        dims = model.named_vars_to_dims.get(rv.name, ())
        key: Any = dims[0] if dims else rv.name
        n_rows = shape[0] if shape else pt.constant(1)
        if scale is None:
            result.append((pt.constant(1.0), (key, n_rows)))
        else:
            n_rows = next(t for t in totals if t is not None)
            result.append((scale, (key, pt.as_tensor(n_rows))))
    return result
