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
"""Free variables of a model with minibatches: local ones have a value for each row, global ones none.

A local variable says so by its dims, and its parameters agree: along the plate they are rows of the
same index, or broadcast.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from pytensor.graph.basic import Variable
from pytensor.xtensor.type import XTensorVariable

from pymc.minibatch.lengths import check_no_length
from pymc.minibatch.provenance import OWN, Axes, Axis, Lost, Rows, trace
from pymc.minibatch.user_terms import check_closed

__all__ = ["check_free_variable"]


def check_free_variable(
    rv: Variable,
    name: str,
    dims: Sequence[str | None] | None,
    plates: Mapping[str, Variable],
    known: Mapping[Variable, Axes | Lost] | None = None,
    free: Collection[Variable] = (),
) -> None:
    """Check that a free variable has rows of a batch where its dims say so, and nowhere else.

    Parameters
    ----------
    rv : Variable
    name : str
    dims : sequence of str or None
        Names of its axes, where there are some.
    plates : mapping of str to Variable
        The subsampled dims of the model and their index.
    known, free
        Passed on to :func:`~pymc.minibatch.provenance.trace`.

    Raises
    ------
    ValueError
        If its distribution computes with the number of rows of a batch, mixes rows, has parameters of
        rows that its dims do not name, or is not independent along a subsampled dim.
    """
    check_no_length(repr(name), [rv])
    axes = trace(rv, known, free)
    if isinstance(axes, Lost):
        raise ValueError(
            f"The parameters of the free variable {name!r}: {axes.why}. What all rows share cannot "
            "depend on the rows of one batch, and a variable with a value for each row takes "
            "parameters row by row"
        )
    check_closed(name, rv)
    for k, axis in enumerate(axes):
        dim = dims[k] if dims else None
        if dim is not None and dim in plates:
            _check_local_axis(rv, name, k, Rows(plates[dim]), axis)
        elif isinstance(axis, Rows):
            raise ValueError(
                f"The free variable {name!r}, axis {k}, has parameters that are rows of {axis}, so "
                f"each row has a value of its own, and its dims ({dims}) do not say so: slots for the "
                "rows of one batch would be reused for others. Give it "
                f"dims={axis.dim or '<the dim of the rows>'!r}, and the data in pm.Minibatch too, by "
                "pm.Data(..., dims=...); if it is data, pass observed=..."
            )


def _check_local_axis(rv: Variable, name: str, k: int, rows: Rows, axis: Axis) -> None:
    where = f"The free variable {name!r} has the subsampled dim {rows.dim!r} on axis {k}"
    ndim_supp = getattr(rv.owner.op, "ndim_supp", 0) if rv.owner is not None else 0
    if k >= rv.type.ndim - ndim_supp and not isinstance(rv, XTensorVariable):
        raise ValueError(
            f"{where}, which is within one draw of its distribution ({rv.owner.op}): its elements are "
            "not independent, so that the rows of a batch cannot be drawn without the others. Use a "
            "distribution whose draws are independent along the rows, or a dim that is not subsampled"
        )
    if isinstance(axis, Rows) and axis != rows:
        raise ValueError(
            f"{where}, by {rows}, but its parameters are rows of {axis}, so that they are out of "
            "step: put all the data into one pm.Minibatch call"
        )
    if axis is OWN:
        raise ValueError(
            f"{where}, but a parameter has values of its own there and does not broadcast: other "
            "rows would reuse them at each step. If they are data, put them into the pm.Minibatch "
            f"call; if they are a variable, give it the dim {rows.dim!r} too"
        )
    length = rv.type.shape[k]
    if length != rows.batch_size:
        raise ValueError(
            f"{where}, so it has {rows.batch_size} rows, those of a batch, but its shape is "
            f"{rv.type.shape}. Leave out shape= and size=: dims= say it"
        )
