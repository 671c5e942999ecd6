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

import warnings

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
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
from pymc.util import RandomState
from pymc.variational.sampling.functions import row_axes
from pymc.variational.sampling.outputs import Output, chosen
from pymc.variational.sampling.sampler import RowSampler, rows_at_once
from pymc.variational.sampling.selection import RowSelection, select_given, select_rows
from pymc.variational.sampling.streams import data_needed

__all__ = ["Request"]


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
    """

    approx: Any
    selection: RowSelection
    outputs: tuple[Output, ...]
    function: str

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
        return cls(approx, selection, tuple(named), function)

    @property
    def mixed(self) -> list[Output]:
        """What is computed from all rows, when they are there."""
        return [output for output in self.outputs if output.mixed]

    @cached_property
    def full_model(self) -> Any:
        model = self.approx.model
        return full_data_model(model) if self.selection.given else every_row(model)

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
        model = self.full_model
        if is_streamed(self.approx.model) and not self.selection.given:
            from pymc.model.transform.stream import model_without_rows  # which imports the models

            model = model_without_rows(self.approx.model)
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
