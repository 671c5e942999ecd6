# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Draws of a fit as ArviZ groups: which variables and rows, with which data, and whether they fit in memory."""

from __future__ import annotations

import logging
import warnings

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from pytensor.graph.basic import Variable
from pytensor.graph.traversal import ancestors

from pymc.argument_checks import check_int
from pymc.backends.arviz import (
    coords_and_dims_for_inferencedata,
    dict_to_dataset,
    find_constants,
    find_observations,
    to_inference_data,
)
from pymc.backends.base import MultiTrace
from pymc.backends.ndarray import NDArray
from pymc.minibatch.axis_tracking import Rows
from pymc.minibatch.data_placeholder import require_rows
from pymc.minibatch.plates import model_indexes
from pymc.minibatch.stream_index import is_stream, needs_rows
from pymc.model.full_data import (
    full_data_model,
    is_streamed,
    model_of_rows,
    model_without_rows,
    shape_only_model,
)
from pymc.sampling.deterministic import compute_deterministics
from pymc.util import RandomState
from pymc.variational.memory import check_fits, with_unit
from pymc.variational.posterior.draw import (
    Output,
    axis_along,
    latent_outputs,
    likelihood_outputs,
    n_bytes,
    observed_outputs,
    of_rows,
    row_axes,
    sample_rows,
    with_lengths,
)
from pymc.variational.posterior.select import (
    RowSelection,
    all_of,
    read_data,
    select_rows,
)
from pymc.variational.report import add_fit

if TYPE_CHECKING:
    from pymc.model.core import Model
    from pymc.variational.approximation import GuideApproximation

__all__ = [
    "LARGE_DATA",
    "LARGE_DETERMINISTIC",
    "SampleOptions",
    "held_selection",
    "posterior_chunks",
    "posterior_draws",
    "predictive_draws",
    "selected",
]

_log = logging.getLogger(__name__)

#: Bytes of draws above which a deterministic of the rows is returned only if it is named.
LARGE_DETERMINISTIC = 2**28

#: Bytes of observed and constant data above which results have them only with ``include_data=True``.
LARGE_DATA = 2**26


@dataclass(frozen=True, eq=False)
class SampleOptions:
    """The options that all results of a fit share: see :meth:`Approximation.sample`."""

    rows: Any = None
    data: Mapping[str, Any] | None = None
    coords: Mapping[str, Sequence[Any]] | None = None
    var_names: Sequence[str] | str | None = None
    chunk: int | None = None
    random_seed: RandomState = None


def posterior_draws(
    approx: GuideApproximation,
    draws: int,
    options: SampleOptions,
    *,
    return_inferencedata: bool = True,
    include_transformed: bool = False,
    include_data: bool | None = None,
    log_likelihood: bool | str | Sequence[str] = False,
    **kwargs: Any,
) -> Any:
    """Draw from an approximation; the arguments are those of `Approximation.sample`."""
    function = "approx.sample"
    chosen_parts = (options.rows, options.data, options.var_names)
    if kwargs and any(part is not None for part in chosen_parts):
        raise TypeError(
            f"{function} with rows=, data= or var_names= takes no {', '.join(kwargs)}, which are of "
            "pm.to_inference_data and need all rows and variables: leave them out, or take all"
        )
    known = latent_outputs(approx.model, include_transformed or not return_inferencedata)
    likelihoods = _likelihoods(approx.model, log_likelihood, function)
    plan = _Plan(approx, draws, known, options, function, likelihoods=likelihoods)
    likelihoods = with_lengths(likelihoods, lambda: plan.full_model)
    plan.check_memory([*plan.outputs, *likelihoods])
    mixed = [output for output in plan.outputs if output.mixed]
    # What is computed over all rows needs all variables
    needed = [output for output in (known if mixed else plan.outputs) if not output.mixed]
    arrays = plan.arrays([*needed, *likelihoods])
    dataset = plan.dataset({output.name: arrays[output.name] for output in needed})
    if mixed:
        names = [output.name for output in mixed]
        more = compute_deterministics(
            dataset, var_names=names, model=plan.full_model, progressbar=False
        )
        dataset = dataset.merge(more)
    dataset = dataset[[output.name for output in plan.outputs]]
    if not return_inferencedata:
        return _multi_trace(plan.full_model, dataset)
    groups = {"posterior": dataset}
    if likelihoods:
        found = {output.name: arrays[output.name] for output in likelihoods}
        groups["log_likelihood"] = plan.dataset(found)
    groups |= plan.data_groups(include_data)
    if kwargs:
        trace = _multi_trace(plan.full_model, dataset)
        tree = to_inference_data(trace, model=plan.full_model, **kwargs)
        for name, group in tree.children.items():
            if name not in ("posterior", "observed_data", "constant_data"):
                groups[name] = group.to_dataset()
    return add_fit(xr.DataTree.from_dict(groups), approx)


def posterior_chunks(
    approx: GuideApproximation, draws: int, options: SampleOptions
) -> Iterator[xr.Dataset]:
    """Draw, part by part; the arguments are those of `Approximation.sample_chunks`."""
    known = latent_outputs(approx.model)
    plan = _Plan(approx, draws, known, options, "approx.sample_chunks", in_parts=True)
    return (plan.dataset(arrays, rows) for _, rows, arrays in plan.parts(plan.outputs))


def predictive_draws(
    approx: GuideApproximation, draws: int, options: SampleOptions, include_data: bool | None
) -> xr.DataTree:
    """Draw new data; the arguments are those of `Approximation.sample_posterior_predictive`."""
    function = "approx.sample_posterior_predictive"
    known = observed_outputs(approx.model)
    plan = _Plan(approx, draws, known, options, function, in_parts=True, predictive=True)
    plan.check_memory(plan.outputs)
    groups = {"posterior_predictive": plan.dataset(plan.arrays(plan.outputs))}
    return xr.DataTree.from_dict(groups | plan.data_groups(include_data))


class _Plan:
    """Outputs of an approximation at selected rows.

    `known` are all outputs of `function`, which the user called. Outputs that are computed over all rows are
    left out if the result is `in_parts`; it is an error if they are named. None is left out of `predictive`
    ones, which are new data. `likelihoods` are log-likelihoods of the same rows.
    """

    def __init__(
        self,
        approx: GuideApproximation,
        draws: int,
        known: Sequence[Output],
        options: SampleOptions,
        function: str,
        *,
        in_parts: bool = False,
        predictive: bool = False,
        likelihoods: Sequence[Output] = (),
    ) -> None:
        self.approx, self.options, self.function = approx, options, function
        self.predictive = predictive
        self.n_draws = check_int(draws, "draws", function)
        if options.chunk is not None:
            check_int(options.chunk, "chunk", function)
        named = options.var_names is not None
        outputs = _chosen(known, options.var_names, function)
        self.selection, outputs = selected(
            approx, outputs, named or predictive, options, function, likelihoods
        )
        mixed = [output for output in outputs if output.mixed]
        if mixed and (in_parts or not self.selection.is_whole):
            why = "; ".join(f"{output.name!r}: {output.mixed}" for output in mixed)
            message = f"{function} computes variables row by row here, and {why}. approx.sample() of all rows has it."
            if named:
                raise ValueError(message)
            _warn(f"{message} It is left out")
            outputs = [output for output in outputs if not output.mixed]
        self.outputs = with_lengths(outputs, lambda: self.full_model)
        if not named and not in_parts:
            self.outputs = self._without_large()

    @cached_property
    def full_model(self) -> Model:
        """The model on all rows, or on those whose data are at hand."""
        model, data, held = self.approx.model, self.selection.data, self.selection.held
        if data.values:
            return model_of_rows(model, held, data.swaps, data.coords)
        return full_data_model(model) if held else shape_only_model(model)

    @cached_property
    def data_model(self) -> Model:
        """The model with the data of a result; without those of a stream that holds no chosen rows."""
        if not is_streamed(self.approx.model) or self.selection.held:
            return self.full_model
        return model_without_rows(self.approx.model)

    def _without_large(self) -> list[Output]:
        """Leave out deterministics of rows whose draws are large, with a warning."""
        latent = {var.name for var in (*self.approx.model.free_RVs, *self.approx.model.value_vars)}
        positions = self.selection.computed.positions
        sizes = {
            output.name: size
            for output in self.outputs
            if output.name not in latent
            and (size := output.n_bytes(positions, self.n_draws)) > LARGE_DETERMINISTIC
        }
        if not sizes:
            return self.outputs
        suspects = [output for output in self.outputs if output.name in sizes]
        large = [output.name for output in of_rows(suspects, self.full_model)]
        if large:
            listed = ", ".join(f"{name!r} ({with_unit(sizes[name])})" for name in large)
            _warn(
                f"{self.function} leaves out {listed}: deterministics with a value for each row of the data, whose "
                f"{self.n_draws:,} draws are large. Name what you need of them, such as var_names={large[:1]}"
                f"{self._or_by_rows()}"
            )
        return [output for output in self.outputs if output.name not in large]

    def check_memory(self, outputs: Sequence[Output]) -> None:
        """Raise a MemoryError if the draws would not fit."""
        rows = self.selection.computed
        # Parts are written into the result; what comes as a whole is there twice for a moment
        copies = 1 if axis_along(outputs, rows) else 2
        check_fits(
            {output.name: output.n_bytes(rows.positions, self.n_draws) for output in outputs},
            f"{self.function} of {self.n_draws:,} draws",
            "Take fewer draws at a time; or name the variables that you need, by var_names=[...]"
            f"{self._or_by_rows()}",
            copies,
        )

    def _or_by_rows(self) -> str:
        """Say how to take less than all rows, if the model knows of rows."""
        if not self.selection.totals or self.selection.held:
            return ""
        some = "; or take some rows at a time, such as rows=slice(0, 1000)"
        if self.predictive:
            return some
        return f"{some}, or one part after the other, by approx.sample_chunks"

    def parts(
        self, outputs: Sequence[Output]
    ) -> Iterator[tuple[slice, RowSelection, dict[str, np.ndarray]]]:
        """Yield arrays of some outputs, of a part of the rows at a time."""
        try:
            yield from sample_rows(
                self.approx,
                outputs,
                self.selection.computed,
                self.n_draws,
                chunk=self.options.chunk,
                random_seed=self.options.random_seed,
                predictive=self.predictive,
            )
        except ValueError as error:
            graphs = [output.graph for output in outputs]
            if other := self.selection.data.of_old_lengths(self.approx.model, graphs):
                raise ValueError(
                    f"{self.function}: data= has another number of rows than the model, and the values of "
                    f"{' and '.join(other)} still have the old one: give them in data= too, or give the data "
                    "of the model dims, which say what are the same rows"
                ) from error
            raise

    def arrays(self, outputs: Sequence[Output]) -> dict[str, np.ndarray]:
        """Compute outputs at all selected rows: arrays of shape (draws, ...), by name."""
        axes_of, selected = {o.name: o.axes for o in outputs}, self.selection.computed.positions
        result: dict[str, np.ndarray] = {}
        for part, rows, arrays in self.parts(outputs):
            for name, array in arrays.items():
                place, shape = [slice(None)], [array.shape[0]]
                for axis, length in zip(axes_of[name], array.shape[1:]):
                    n_rows = length if axis is None else len(selected[axis])
                    in_part = axis is not None and len(rows.positions[axis]) != n_rows
                    place.append(part if in_part else slice(None))
                    shape.append(n_rows)
                if tuple(shape) == array.shape:
                    result[name] = array
                    continue
                if name not in result:
                    result[name] = np.empty(shape, array.dtype)
                result[name][tuple(place)] = array
        return {output.name: result[output.name] for output in outputs}

    def dataset(
        self, arrays: Mapping[str, np.ndarray], rows: RowSelection | None = None
    ) -> xr.Dataset:
        """Give arrays of shape (draws, ...) a chain, dims and coords."""
        named = {name: array[None] for name, array in arrays.items()}
        coords, dims = coords_and_dims_for_inferencedata(self.approx.model)
        coords |= self.selection.data.coords
        rows = rows or self.selection.computed
        for axis in rows.positions:
            if axis.dim is not None:
                coords[axis.dim] = rows.labels(axis, coords.get(axis.dim))
        dataset = dict_to_dataset(named, coords=coords, dims=dims)
        return _at(dataset, self.selection.taken_later)

    def data_groups(self, include_data: bool | None) -> dict[str, xr.Dataset]:
        """Return the groups of observed and constant data of the selected rows, if they are to be returned."""
        if not self._has_data(include_data):
            return {}
        model, lacks = self.data_model, self.selection.data.lacks
        observed, constant = find_observations(model), find_constants(model)
        if self.selection.data.missing:  # without values
            old = self.approx.model
            known = {rv.name: old.rvs_to_values[rv] for rv in old.observed_RVs}
            observed = {name: x for name, x in observed.items() if not lacks([known[name]])}
            constant = {name: x for name, x in constant.items() if not lacks([old[name]])}
        coords, dims = coords_and_dims_for_inferencedata(model)
        groups = {}
        for group, data in (("observed_data", observed), ("constant_data", constant)):
            if data:
                found = dict_to_dataset(data, coords=coords, dims=dims, sample_dims=[])
                groups[group] = _at(found, self.selection.by_dim)
        return groups

    def _has_data(self, include_data: bool | None) -> bool:
        """Return whether results have the data: if the user says so, or if they are small or of some rows."""
        if include_data is not None or not self.selection.is_all:
            return include_data is not False
        model = self.data_model
        observed = [model.rvs_to_values[rv] for rv in model.observed_RVs]
        size = n_bytes([*model.data_vars, *observed])
        if size <= LARGE_DATA:
            return True
        _log.info(
            f"{self.function} returns no observed_data and constant_data, which are {with_unit(size)}: they "
            "come along by include_data=True"
        )
        return False


def _at(dataset: xr.Dataset, positions: Mapping[str, np.ndarray]) -> xr.Dataset:
    return dataset.isel({dim: at for dim, at in positions.items() if dim in dataset.sizes})


def _multi_trace(model: Model, dataset: xr.Dataset) -> MultiTrace:
    """Put draws into the form that PyMC had before ArviZ's."""
    arrays = {str(name): array.values[0] for name, array in dataset.items()}
    kept = [var for var in model.unobserved_value_vars if var.name in arrays]
    trace = NDArray(
        model=model,
        vars=kept,
        fn=lambda *values: values,  # not called: all samples are set below
        var_shapes={var.name: arrays[var.name].shape[1:] for var in kept},
        var_dtypes={var.name: arrays[var.name].dtype for var in kept},
    )
    n_draws = dataset.sizes["draw"]
    trace.setup(n_draws, chain=0)
    trace.samples = {var.name: arrays[var.name] for var in kept}
    trace.draw_idx = n_draws
    trace.close()
    return MultiTrace([trace])


def _likelihoods(model: Model, log_likelihood: Any, function: str) -> list[Output]:
    """Return the log-likelihoods that the argument `log_likelihood` names."""
    what = f"log_likelihood= of {function}"
    names = log_likelihood
    if isinstance(names, bool | np.bool_):
        if not names:
            return []
        names = None
    elif not isinstance(names, str | Sequence):
        raise TypeError(
            f"{what} is {names!r}, but has to be True, for those of all observed variables, False, "
            'or names of them, such as log_likelihood=["y"]'
        )
    found = _chosen(likelihood_outputs(model), names, what)
    for output in found:
        if output.mixed:
            raise ValueError(
                f"{what} is of each row, and those of {output.name!r} cannot be told "
                f"apart: {output.mixed}. Take pm.compute_log_likelihood of draws of all rows"
            )
    return found


def _chosen(
    outputs: Sequence[Output], var_names: Sequence[str] | str | None, function: str
) -> list[Output]:
    """Return the outputs of some names, all by default; a ValueError if there is none of a name."""
    if var_names is None:
        return list(outputs)
    names = [var_names] if isinstance(var_names, str) else list(var_names)
    known = {output.name: output for output in outputs}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(
            f"var_names of {function} has {', '.join(map(repr, unknown))}, but the variables that it "
            f"can return are {list(known)}"
        )
    return [known[name] for name in names]


def selected(
    approx: GuideApproximation,
    outputs: list[Output],
    by_name: bool,
    options: SampleOptions,
    function: str,
    likelihoods: Sequence[Output] = (),
) -> tuple[RowSelection, list[Output]]:
    """Select rows and their data, and the outputs that can be computed from them.

    The parameters of rows are in tables, so draws of them need no data. An encoder, a deterministic or a term
    may need some. Deterministics whose data are missing are left out with a warning, unless the user names
    them. Log-likelihoods are always named.
    """
    for table in approx.storage.tables.values():
        table.check_rows()
    model, axes = approx.model, row_axes(approx)
    reads = [var for guide in approx.guides for var in _ends(guide.reads())]
    data = read_data(model, axes, reads, options.data, options.coords, function)
    if not data.values and not is_streamed(model):
        return select_rows(model, axes, options.rows, function), outputs

    def lacks(graphs: Collection[Variable]) -> bool:
        return bool(data.lacks(graphs)) if data.values else any(map(needs_rows, graphs))

    needy = _needy(approx, outputs, lacks)
    names = [repr(output.name) for output in needy]
    latent = {var.name for var in (*model.free_RVs, *model.value_vars)}
    required = {f"log_likelihood= of {function}": _needy(approx, likelihoods, lacks)}
    if by_name or any(output.name in latent for output in needy):
        required[f"{' and '.join(names)} of {function}"] = needy
    for what, missing in required.items():
        if missing and not data.values:
            return held_selection(approx, options.rows, what), outputs
        if missing:
            data.check([*(output.graph for output in missing), *reads], what)
    if needy:
        _warn(
            f"{function} leaves out {', '.join(names)}, computed from data of rows that are not at "
            "hand. Give them by data=, and name it in var_names"
        )
    computable = [output for output in outputs if output not in needy]
    return select_rows(model, axes, options.rows, function, data), computable


def held_selection(approx: GuideApproximation, rows: Any, what: str) -> RowSelection:
    """Select the rows of :func:`pymc.set_data` in a streamed model; a ValueError if there are none.

    `what` says who needs them.
    """
    streams = [index for index in model_indexes(approx.model) if is_stream(index)]
    held = {Rows(index): require_rows(approx.model, index, what) for index in streams}
    if rows is not None:
        raise ValueError(
            f"rows={rows!r} of {what} are chosen among all rows, but what is asked for needs data, and "
            "the model holds those that pm.set_data gave it: leave rows out, or write data={...} with the "
            "data of these rows"
        )
    return all_of(row_axes(approx), held)


def _needy(
    approx: GuideApproximation,
    outputs: Sequence[Output],
    lacks: Callable[[Collection[Variable]], bool],
) -> list[Output]:
    """List outputs that lack data, themselves or for the guides that they depend on."""
    drawn: set[Variable] = set()
    waiting = list(approx.guides)
    while by_data := [
        guide
        for guide in waiting
        if (above := guide.reads()) and (lacks(_ends(above)) or not drawn.isdisjoint(above))
    ]:
        waiting = [guide for guide in waiting if guide not in by_data]
        drawn.update(var for guide in by_data for s in guide.sites for var in (s.rv, s.value))
    return [o for o in outputs if lacks([o.graph]) or drawn & set(ancestors([o.graph]))]


def _ends(graph: Collection[Variable]) -> list[Variable]:
    """List the variables of a graph from which no other one of it is computed."""
    used = {var for one in graph if one.owner is not None for var in one.owner.inputs}
    return [var for var in graph if var not in used]


def _warn(message: str) -> None:
    """Warn where the user's own code is."""
    warnings.warn(message, skip_file_prefixes=(str(Path(__file__).parents[1]),))
