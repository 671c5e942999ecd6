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
"""Plates of models that subsample nothing: the rows that are there.

A batch that is fed by :func:`pymc.set_data` and the full data look alike: what the dim holds now is what
is seen, and of how many rows it is a part is what `total_size` says. A guide says which dim it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytensor.tensor as pt

from pytensor.graph.basic import Variable

from pymc.minibatch.current_length import current_length
from pymc.minibatch.plates import as_axes, local_axes
from pymc.minibatch.provenance import OWN, Axes, Axis, Lost, Rows
from pymc.variational.guides.fed_rows import aligned, hand_totals
from pymc.variational.minibatch_rv import unscaled_rv

__all__ = ["RowsThere", "rows_by_axis", "rows_there", "there_axes", "there_of_sites"]


@dataclass(frozen=True, eq=False)
class RowsThere(Rows):
    """The rows that a dim has now, all of them or a batch.

    Parameters
    ----------
    index : Variable
        Their places, ``arange(length)``.
    length : Variable
        How many there are: the dim's length, which tells them from other rows.
    of_dim : str
    given : Variable, optional
        How many rows there are in all, where that is more than those that are there.
    """

    length: Variable
    of_dim: str
    given: Variable | None = None

    @property
    def state(self) -> Variable:
        return self.length

    @property
    def total(self) -> Variable:
        return self.length if self.given is None else self.given

    @property
    def batch_size(self) -> int:
        return current_length(self.length) or 0

    @property
    def dim(self) -> str:
        return self.of_dim

    def __str__(self) -> str:
        return f"dim {self.of_dim!r}"


def rows_there(model: Any, dim: str) -> RowsThere:
    """Take the rows that a dim of `model` has now for those of a plate.

    Parameters
    ----------
    model : Model
        It does not subsample `dim`.
    dim : str

    Raises
    ------
    ValueError
        If the model has no such dim, or its terms do not agree on how many rows there are in all, or
        which axis of one with a `total_size` they are cannot be told.

    Examples
    --------
    >>> from pymc.variational.guides.rows_there import rows_there
    >>> with pm.Model(coords={"obs": range(4)}) as model:
    ...     y = pm.Data("y", np.zeros(4), dims="obs")
    ...     rows = pm.Normal("rows", pm.Normal("mu"), observed=y, dims="obs", total_size=100)
    >>> int(rows_there(model, "obs").total.eval())
    100
    """
    if dim not in model.dim_lengths:
        raise ValueError(
            f"dim={dim!r} of pm.Amortized is no dim of the model, whose dims are "
            f"{sorted(model.dim_lengths)}"
        )
    length = model.dim_lengths[dim]
    rows = RowsThere(pt.arange(length), length, dim)
    totals = _totals_along(model, rows)
    numbers = {name: current_length(total) for name, total in totals.items()}
    if len(set(numbers.values())) > 1:
        raise ValueError(
            f"dim={dim!r} of pm.Amortized: the terms on it are scaled to different numbers of rows, by "
            f"total_size={numbers}. Give all of them one total_size, or none"
        )
    given = next(iter(totals.values()), None)
    return rows if given is None else replace(rows, given=pt.as_tensor(given))


def _totals_along(model: Any, rows: RowsThere) -> dict[str, Variable | None]:
    """Tell what the user said of how many rows each term is a part: of a Potential its dims say enough."""
    totals: dict[str, Variable | None] = {}
    known = _named_axes(model, [rows])
    for var in [*model.observed_RVs, *model.potentials]:
        axes, given = _axes_of_term(model, var, known), hand_totals(model, var)
        if isinstance(axes, Lost):
            if given:
                raise ValueError(
                    f"dim={rows.dim!r} of pm.Amortized: {var.name!r} has total_size= and depends on these "
                    f"rows, and which of its axes they are is not known: {axes.why}. Give it "
                    f"dims={rows.dim!r}, or take total_size= off if it is no sum over rows"
                )
            continue
        for k, axis in enumerate(axes):
            if axis == rows and (k in given or var in model.observed_RVs):
                totals[var.name] = given.get(k)
    return totals


def there_of_sites(sites: Iterable[Any]) -> list[RowsThere]:
    """Rows of dims that the model does not subsample, of which some sites are."""
    found = (rows for site in sites for rows in site.plate if isinstance(rows, RowsThere))
    return list(dict.fromkeys(found))


def rows_by_axis(model: Any, there: Sequence[RowsThere]) -> dict[Variable, tuple[Rows | None, ...]]:
    """Tell which free variables have rows, and on which axes: of subsampled dims, and of `there`."""
    axes, plates = dict(local_axes(model)), {rows.of_dim: rows for rows in there}
    for rv in model.free_RVs if there else ():
        here = axes_of_there(model.named_vars_to_dims.get(rv.name) or (), plates)
        if any(here):
            sampled = axes.get(rv, (None,) * len(here))
            axes[rv] = tuple(one or other for one, other in zip(here, sampled))
    return axes


def there_axes(model: Any, there: Iterable[RowsThere]) -> dict[Variable, Axes]:
    """Tell the axes of all data and variables of `model` on some dims, and of their values.

    As :func:`~pymc.minibatch.plates.known_axes` does for subsampled dims. Observed variables without
    these dims are of the rows that they are computed from.
    """
    known = _named_axes(model, there)
    found = dict(known)
    for rv in model.observed_RVs if known else ():
        axes = _axes_of_term(model, rv, known)
        if not isinstance(axes, Lost) and any(isinstance(axis, Rows) for axis in axes):
            value = model.rvs_to_values[rv]
            found[rv] = axes
            found.setdefault(value, axes[len(axes) - value.type.ndim :])
    return found


def _named_axes(model: Any, there: Iterable[RowsThere]) -> dict[Variable, Axes]:
    plates = {rows.of_dim: rows for rows in there}
    known: dict[Variable, Axes] = {}
    for name, dims in model.named_vars_to_dims.items():
        axes = axes_of_there(dims, plates)
        var = model.named_vars[name]
        if not any(axes) or var in model.deterministics:
            continue
        known[var] = as_axes(axes)
        value = model.rvs_to_values.get(var)
        if value is not None:
            own = (OWN,) * max(value.type.ndim - len(axes), 0)
            known[value] = (*known[var], *own)[: value.type.ndim]
    return known


def _axes_of_term(model: Any, var: Variable, known: Mapping[Variable, Axes]) -> Axes | Lost:
    """Tell which axes of an observed variable or a Potential are rows: by its dims, or what it is of."""
    if var in known:
        return known[var]
    parts = [unscaled_rv(var)[0], model.rvs_to_values.get(var, var)]
    result: list[Axis] = [OWN] * var.type.ndim
    for part in parts:
        axes = aligned(part, known, model.free_RVs)
        if isinstance(axes, Lost):
            return axes
        for k, axis in enumerate(axes, start=var.type.ndim - len(axes)):
            result[k] = axis if isinstance(axis, Rows) else result[k]
    return tuple(result)


def axes_of_there(
    dims: Iterable[str | None], plates: Mapping[str, RowsThere]
) -> tuple[RowsThere | None, ...]:
    """Tell which axes of a variable with `dims` hold rows of `plates`."""
    return tuple(None if dim is None else plates.get(dim) for dim in dims)
