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
"""What is asked of a guided approximation: which variables, of which rows, and how they are returned."""

from __future__ import annotations

import logging
import warnings

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import xarray as xr

from pymc.backends.arviz import (
    coords_and_dims_for_inferencedata,
    dict_to_dataset,
    find_constants,
    find_observations,
)
from pymc.minibatch.guards import every_row, full_data_model, is_streamed
from pymc.minibatch.provenance import Rows
from pymc.util import RandomState
from pymc.variational.memory import check_fits, with_unit
from pymc.variational.posterior.functions import row_axes
from pymc.variational.posterior.outputs import Output, chosen, n_bytes, of_rows, with_lengths
from pymc.variational.posterior.sampler import RowSampler, axis_along, rows_at_once
from pymc.variational.posterior.selection import RowSelection, select_given, select_rows
from pymc.variational.posterior.streams import data_needed

__all__ = ["LARGE_DATA", "LARGE_DETERMINISTIC", "Request"]

_log = logging.getLogger(__name__)

#: Bytes of draws above which a deterministic of rows is returned only where it is named.
LARGE_DETERMINISTIC = 2**28

#: Bytes of observed and constant data above which results have them only where they are asked for.
LARGE_DATA = 2**26


@dataclass(frozen=True, eq=False)
class Request:
    """What is asked of an approximation.

    Parameters
    ----------
    approx : GuidedApproximation
    selection : RowSelection
    outputs : tuple of Output
        What is returned, in this order.
    function : str
        Who asks, for messages.
    axes : tuple of Rows
        The axes of rows that may be asked for, for messages.
    predictive : bool
        Whether new data are asked for.
    """

    approx: Any
    selection: RowSelection
    outputs: tuple[Output, ...]
    function: str
    axes: tuple[Rows, ...]
    predictive: bool = False

    @classmethod
    def of(
        cls,
        approx: Any,
        outputs: Sequence[Output],
        rows: Any,
        var_names: Sequence[str] | str | None,
        function: str,
        in_parts: bool = False,
        predictive: bool = False,
    ) -> Request:
        """Check what a user asks for.

        Raises
        ------
        ValueError, KeyError, IndexError, TypeError
            If there is no such row or variable, or one that is computed over all rows is asked for
            by name, of some of them.
        """
        for table in approx.storage.tables.values():
            table.check_rows()
        named = chosen(outputs, var_names, function)
        asked = var_names is not None or predictive
        given, named = data_needed(approx, named, asked, function)
        axes = row_axes(approx)
        if given:
            selection = select_given(axes, given, rows, function)
        else:
            selection = select_rows(approx.model, axes, rows, function)
        if in_parts or not selection.is_all:
            mixed = [output for output in named if output.mixed]
            if mixed and var_names is not None:
                raise ValueError(_of_all_rows(mixed, function))
            if mixed:
                warnings.warn(_of_all_rows(mixed, function) + " It is left out", stacklevel=4)
            named = [output for output in named if not output.mixed]
        request = cls(approx, selection, (), function, tuple(axes), predictive)
        return replace(request, outputs=tuple(with_lengths(named, lambda: request.full_model)))

    def without_large(self, n_draws: int) -> Request:
        """Leave out deterministics of rows whose draws are large, with a warning."""
        latent = {var.name for var in (*self.approx.model.free_RVs, *self.approx.model.value_vars)}
        large = {
            output.name: size
            for output in self.outputs
            if output.name not in latent
            and (size := output.n_bytes(self.positions, n_draws)) > LARGE_DETERMINISTIC
        }
        if large:
            suspects = [output for output in self.outputs if output.name in large]
            large = {o.name: large[o.name] for o in of_rows(suspects, self.full_model)}
        if not large:
            return self
        sizes = ", ".join(f"{name!r} ({with_unit(size)})" for name, size in large.items())
        warnings.warn(
            f"{self.function} leaves out {sizes}: deterministics with a value for each row of the data, whose "
            f"{n_draws:,} draws are large. Name what you need of them, such as var_names={list(large)[:1]}"
            f"{self._or_by_rows()}",
            stacklevel=4,
        )
        return replace(self, outputs=tuple(o for o in self.outputs if o.name not in large))

    def check_memory(self, n_draws: int) -> None:
        """Raise a MemoryError where the draws would not fit."""
        # Parts are written into the result; what comes as a whole is there twice for a moment
        copies = 1 if axis_along(self.outputs, self.selection.computed) else 2
        sizes = {output.name: output.n_bytes(self.positions, n_draws) for output in self.outputs}
        check_fits(
            sizes,
            f"{self.function} of {n_draws:,} draws",
            "Take fewer draws at a time; or name the variables that you need, by var_names=[...]"
            f"{self._or_by_rows()}",
            copies,
        )

    def has_data(self, include_data: bool | None) -> bool:
        """Tell whether results have the data: as the user says, or where they are small or of some rows."""
        if include_data is not None or not self.selection.is_all:
            return include_data is not False
        model = self._data_model
        observed = [model.rvs_to_values[rv] for rv in model.observed_RVs]
        size = n_bytes([*model.data_vars, *observed])
        if size <= LARGE_DATA:
            return True
        _log.info(
            f"{self.function} returns no observed_data and constant_data, which are {with_unit(size)}: they "
            "come along by include_data=True"
        )
        return False

    @property
    def positions(self) -> Mapping[Rows, np.ndarray]:
        """Where the rows are that are computed."""
        return self.selection.computed.positions

    def _or_by_rows(self) -> str:
        """Say how to take less than all rows, where the model knows of rows."""
        if not self.axes or self.selection.given:
            return ""
        some = "; or take some rows at a time, such as rows=slice(0, 1000)"
        return (
            some
            if self.predictive
            else f"{some}, or one part after the other, by approx.sample_chunks"
        )

    @property
    def mixed(self) -> list[Output]:
        """What is computed from all rows, when they are there."""
        return [output for output in self.outputs if output.mixed]

    @cached_property
    def full_model(self) -> Any:
        model = self.approx.model
        return full_data_model(model) if self.selection.given else every_row(model)

    @cached_property
    def _data_model(self) -> Any:
        """The model whose data results have: of a stream that gave no rows, without those."""
        if not is_streamed(self.approx.model) or self.selection.given:
            return self.full_model
        from pymc.model.transform.stream import model_without_rows  # which imports the models

        return model_without_rows(self.approx.model)

    def parts(
        self,
        outputs: Sequence[Output],
        draws: int,
        chunk: int | None,
        random_seed: RandomState,
        predictive: bool = False,
    ) -> Iterator[tuple[slice, RowSelection, dict[str, np.ndarray]]]:
        """Yield arrays of some outputs, of a part of the rows at a time."""
        rows = self.selection.computed
        sampler = RowSampler.of(self.approx, outputs, rows, draws, random_seed, predictive)
        size = chunk or rows_at_once(outputs, rows, draws, sampler.along)
        yield from sampler.chunks(rows, size)

    def arrays(
        self,
        outputs: Sequence[Output],
        draws: int,
        chunk: int | None,
        random_seed: RandomState,
        predictive: bool = False,
    ) -> dict[str, np.ndarray]:
        """Compute outputs at all rows that are selected: arrays of shape (draws, ...), by name."""
        by_name, whole = {output.name: output for output in outputs}, self.selection.computed
        result: dict[str, np.ndarray] = {}
        for part, rows, arrays in self.parts(outputs, draws, chunk, random_seed, predictive):
            for name, array in arrays.items():
                place, shape = _place(by_name[name], part, rows, whole, array)
                if shape == array.shape:
                    result[name] = array
                    continue
                if name not in result:
                    result[name] = np.empty(shape, array.dtype)
                result[name][place] = array
        return {output.name: result[output.name] for output in outputs}

    def dataset(
        self, arrays: dict[str, np.ndarray], selection: RowSelection | None = None
    ) -> xr.Dataset:
        """Give arrays of shape (draws, ...) a chain, dims and coords."""
        rows = selection or self.selection.computed
        coords, dims = _coords_and_dims(self.approx.model, rows)
        named = {name: array[None] for name, array in arrays.items()}
        return _at(dict_to_dataset(named, coords=coords, dims=dims), self.selection.taken_later)

    def data_groups(self) -> dict[str, xr.Dataset]:
        """Observed and constant data of the rows that are selected."""
        model = self._data_model
        coords, dims = coords_and_dims_for_inferencedata(model)
        groups = {}
        for group, data in (
            ("observed_data", find_observations(model)),
            ("constant_data", find_constants(model)),
        ):
            if data:
                found = dict_to_dataset(data, coords=coords, dims=dims, sample_dims=[])
                groups[group] = _at(found, self.selection.by_dim)
        return groups


def _at(dataset: xr.Dataset, positions: Mapping[str, np.ndarray]) -> xr.Dataset:
    return dataset.isel({dim: at for dim, at in positions.items() if dim in dataset.sizes})


def _place(
    output: Output, part: slice, rows: RowSelection, selection: RowSelection, array: np.ndarray
) -> tuple[tuple[slice, ...], tuple[int, ...]]:
    """Tell where the array of a part of the rows is in that of all that are selected."""
    places, shape = [slice(None)], [array.shape[0]]
    for axis, length in zip(output.axes, array.shape[1:]):
        whole = axis is None or len(rows.positions[axis]) == len(selection.positions[axis])
        places.append(slice(None) if whole else part)
        shape.append(length if axis is None else len(selection.positions[axis]))
    return tuple(places), tuple(shape)


def _coords_and_dims(model: Any, selection: RowSelection) -> tuple[dict[str, Any], dict[str, Any]]:
    coords, dims = coords_and_dims_for_inferencedata(model)
    for rows in selection.positions:
        if rows.dim is not None:
            coords[rows.dim] = selection.labels(rows, coords.get(rows.dim))
    return coords, dims


def _of_all_rows(mixed: Sequence[Output], function: str) -> str:
    why = "; ".join(f"{output.name!r}: {output.mixed}" for output in mixed)
    return f"{function} computes variables row by row here, and {why}. approx.sample() of all rows has it."
