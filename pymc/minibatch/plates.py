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
"""Which dims of a model are subsampled, and by which index.

A dim whose rows are subsampled is a plate: given the global variables its rows are independent. From
the `pm.Minibatch` call on, the dim's name means the rows of the batch.
"""

from __future__ import annotations

from typing import Any

from pytensor.graph.basic import Variable

from pymc.minibatch.provenance import Lost, Rows, indexes, trace

__all__ = ["model_indexes", "note_index", "rows_by_axis", "subsampled_dims"]


def model_indexes(model: Any) -> list[Variable]:
    """Every minibatch index that the terms and deterministics of `model` depend on."""
    values = model.rvs_to_values
    return indexes([*values, *values.values(), *model.potentials, *model.deterministics])


def subsampled_dims(model: Any) -> dict[str, Variable]:
    """Map the subsampled dims of `model` to their index."""
    # A cache of what the graph says: `model_from_fgraph` fills it anew for each clone
    noted = getattr(model.root, "_minibatch_indexes", ())
    return {index.owner.op.dim: index for index in noted if index.owner.op.dim is not None}


def rows_by_axis(model: Any, name: str) -> tuple[Rows | None, ...]:
    """Tell which axes of a variable of `model` are rows of a batch; observed ones are as observed."""
    var = model[name]
    value = model.rvs_to_values[var] if var in model.observed_RVs else var
    axes = trace(value)
    if isinstance(axes, Lost):
        return (None,) * value.type.ndim
    return tuple(axis if isinstance(axis, Rows) else None for axis in axes)


def note_index(model: Any, index: Variable) -> None:
    """Note `index` as one of `model`; nothing where it is known already.

    Raises
    ------
    ValueError
        If the dim is subsampled in another way already, or a variable was registered on it when it
        still meant all rows.
    """
    rows, root = Rows(index), model.root
    noted = root._minibatch_indexes
    if rows in map(Rows, noted):
        return
    other = None if rows.dim is None else subsampled_dims(root).get(rows.dim)
    if other is not None:
        raise ValueError(
            f"The dim {rows.dim!r} is subsampled twice in one model, by {Rows(other)}, "
            f"sampling={other.owner.op.sampling!r}, and by {rows}, "
            f"sampling={index.owner.op.sampling!r}; its rows would be out of step. Use the same "
            "batch_size and sampling in both pm.Minibatch calls, and they share one index"
        )
    early = [
        rv.name for rv in root.basic_RVs if rows.dim in root.named_vars_to_dims.get(rv.name, ())
    ]
    if rows.dim is not None and early:
        raise ValueError(
            f"pm.Minibatch subsamples the dim {rows.dim!r}, but {', '.join(map(repr, early))} was "
            "registered with that dim before, and has all of its rows. From the pm.Minibatch call "
            f"on, {rows.dim!r} means the rows of the batch: call pm.Minibatch first"
        )
    noted.append(index)
