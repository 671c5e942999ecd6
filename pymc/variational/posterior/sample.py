# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Plan a result: which variables, of which rows and with which data, and whether it fits in memory."""

from __future__ import annotations

import logging
import warnings

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

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
from pymc.minibatch.data_placeholder import required_rows
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
    RowSampler,
    axis_along,
    latent_outputs,
    likelihood_outputs,
    n_bytes,
    observed_outputs,
    of_rows,
    row_axes,
    with_lengths,
)
from pymc.variational.posterior.select import (
    RowSelection,
    read_data,
    select_held,
    select_new,
    select_rows,
)
from pymc.variational.results import add_fit

__all__ = [
    "LARGE_DATA",
    "LARGE_DETERMINISTIC",
    "Plan",
    "Request",
    "chosen",
    "held_selection",
    "posterior_chunks",
    "posterior_draws",
    "predictive_draws",
    "selected",
]

_log = logging.getLogger(__name__)

#: Bytes of draws above which a deterministic of the rows comes only where it is named.
LARGE_DETERMINISTIC = 2**28

#: Bytes of observed and constant data above which results have them only where they are asked for.
LARGE_DATA = 2**26


@dataclass(frozen=True, eq=False)
class Request:
    """What a user asks of an approximation: the arguments that all results have.

    Parameters
    ----------
    rows : slice, sequence of int or bool, or dict, optional
    data : mapping of str to array, optional
    coords : mapping of str to sequence, optional
    var_names : str or sequence of str, optional
    chunk : int, optional
    random_seed : int, RandomState or Generator, optional
    """

    rows: Any = None
    data: Any = None
    coords: Any = None
    var_names: Sequence[str] | str | None = None
    chunk: int | None = None
    random_seed: RandomState = None


@dataclass(frozen=True, eq=False)
class Plan:
    """Outputs of an approximation at some rows.

    Parameters
    ----------
    approx : Approximation
    function : str
        What the user called, for messages.
    n_draws : int
    request : Request
    selection : RowSelection
    outputs : tuple of Output
        What is returned, in this order.
    predictive : bool
        Whether new data are asked for.
    """

    approx: Any
    function: str
    n_draws: int
    request: Request
    selection: RowSelection
    outputs: tuple[Output, ...] = field(default=())
    predictive: bool = False

    @classmethod
    def of(
        cls,
        approx: Any,
        draws: int,
        known: Sequence[Output],
        request: Request,
        function: str,
        *,
        in_parts: bool = False,
        predictive: bool = False,
        likelihoods: Sequence[Output] = (),
    ) -> Plan:
        """Check what a user asks for.

        Parameters
        ----------
        approx : Approximation
        draws : int
        known : sequence of Output
            What can be returned.
        request : Request
        function : str
            What the user called, for messages.
        in_parts : bool
            Whether what is computed over all rows cannot be returned.
        predictive : bool
            Whether new data are asked for, of which nothing is left out.
        likelihoods : sequence of Output
            Log-likelihoods that are asked for too, of the same rows.

        Raises
        ------
        ValueError, KeyError, IndexError, TypeError
            If there is no such row or variable, or one that is computed over all rows is asked for
            by name, of some of them; or if data are needed that are not there.
        """
        draws = check_int(draws, "draws", function)
        if request.chunk is not None:
            check_int(request.chunk, "chunk", function)
        named = chosen(known, request.var_names, function)
        by_name = request.var_names is not None or predictive
        selection, named = selected(approx, named, by_name, request, function, likelihoods)
        if in_parts or not selection.is_whole:
            mixed = [output for output in named if output.mixed]
            if mixed and request.var_names is not None:
                raise ValueError(_of_all_rows(mixed, function))
            if mixed:
                _warn(_of_all_rows(mixed, function) + " It is left out")
            named = [output for output in named if not output.mixed]
        plan = cls(approx, function, draws, request, selection, (), predictive)
        return replace(plan, outputs=tuple(plan.with_lengths(named)))

    def with_lengths(self, outputs: Sequence[Output]) -> list[Output]:
        """Find the lengths of outputs."""
        return with_lengths(outputs, lambda: self.full_model)

    def without_large(self) -> Plan:
        """Leave out deterministics of rows whose draws are large, with a warning."""
        latent = {var.name for var in (*self.approx.model.free_RVs, *self.approx.model.value_vars)}
        large = {
            output.name: size
            for output in self.outputs
            if output.name not in latent
            and (size := output.n_bytes(self.selection.computed.positions, self.n_draws))
            > LARGE_DETERMINISTIC
        }
        if large:
            suspects = [output for output in self.outputs if output.name in large]
            large = {o.name: large[o.name] for o in of_rows(suspects, self.full_model)}
        if not large:
            return self
        sizes = ", ".join(f"{name!r} ({with_unit(size)})" for name, size in large.items())
        _warn(
            f"{self.function} leaves out {sizes}: deterministics with a value for each row of the data, whose "
            f"{self.n_draws:,} draws are large. Name what you need of them, such as var_names={list(large)[:1]}"
            f"{self._or_by_rows()}"
        )
        return replace(self, outputs=tuple(o for o in self.outputs if o.name not in large))

    def check_memory(self, more: Sequence[Output] = ()) -> None:
        """Raise a MemoryError where the draws would not fit."""
        outputs, rows = [*self.outputs, *more], self.selection.computed
        # Parts are written into the result; what comes as a whole is there twice for a moment
        copies = 1 if axis_along(outputs, rows) else 2
        check_fits(
            {output.name: output.n_bytes(rows.positions, self.n_draws) for output in outputs},
            f"{self.function} of {self.n_draws:,} draws",
            "Take fewer draws at a time; or name the variables that you need, by var_names=[...]"
            f"{self._or_by_rows()}",
            copies,
        )

    def has_data(self, include_data: bool | None) -> bool:
        """Return whether results have the data: as the user says, or where they are small or of some rows."""
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

    def _or_by_rows(self) -> str:
        """Say how to take less than all rows, where the model knows of rows."""
        if not self.selection.totals or self.selection.held:
            return ""
        some = "; or take some rows at a time, such as rows=slice(0, 1000)"
        return (
            some
            if self.predictive
            else f"{some}, or one part after the other, by approx.sample_chunks"
        )

    @property
    def mixed(self) -> list[Output]:
        """Outputs that mix rows; computed after all rows."""
        return [output for output in self.outputs if output.mixed]

    @cached_property
    def full_model(self) -> Any:
        """The model on all rows, or on those whose data are at hand."""
        model, data = self.approx.model, self.selection.data
        if data.values:
            return model_of_rows(model, self.selection.held, data.swaps, data.coords)
        return full_data_model(model) if self.selection.held else shape_only_model(model)

    @cached_property
    def data_model(self) -> Any:
        """The model whose data results have: of a stream that gave no rows, without those."""
        if not is_streamed(self.approx.model) or self.selection.held:
            return self.full_model
        return model_without_rows(self.approx.model)

    def parts(
        self, outputs: Sequence[Output]
    ) -> Iterator[tuple[slice, RowSelection, dict[str, np.ndarray]]]:
        """Yield arrays of some outputs, of a part of the rows at a time."""
        rows, seed = self.selection.computed, self.request.random_seed
        sampler = RowSampler.of(self.approx, outputs, rows, self.n_draws, seed, self.predictive)
        try:
            yield from sampler.chunks(rows, self.request.chunk)
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
        """Compute outputs at all rows that are selected: arrays of shape (draws, ...), by name."""
        by_name, whole = {output.name: output for output in outputs}, self.selection.computed
        result: dict[str, np.ndarray] = {}
        for part, rows, arrays in self.parts(outputs):
            for name, array in arrays.items():
                place, shape = _place(by_name[name], part, rows, whole, array)
                if shape == array.shape:
                    result[name] = array
                    continue
                if name not in result:
                    result[name] = np.empty(shape, array.dtype)
                result[name][place] = array
        return {output.name: result[output.name] for output in outputs}


def _place(
    output: Output, part: slice, rows: RowSelection, selection: RowSelection, array: np.ndarray
) -> tuple[tuple[slice, ...], tuple[int, ...]]:
    """Return where the array of a part of the rows is in that of all that are selected."""
    places, shape = [slice(None)], [array.shape[0]]
    for axis, length in zip(output.axes, array.shape[1:]):
        whole = axis is None or len(rows.positions[axis]) == len(selection.positions[axis])
        places.append(slice(None) if whole else part)
        shape.append(length if axis is None else len(selection.positions[axis]))
    return tuple(places), tuple(shape)


def chosen(
    outputs: Sequence[Output], var_names: Sequence[str] | str | None, function: str
) -> list[Output]:
    """Take the outputs that a user names, all by default.

    Raises
    ------
    ValueError
        If there is none of a name.
    """
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
    approx: Any,
    outputs: list[Output],
    by_name: bool,
    request: Request,
    function: str,
    likelihoods: Sequence[Output] = (),
) -> tuple[RowSelection, list[Output]]:
    """Select rows and their data, and the outputs that can be computed of them.

    Parameters of rows are in tables, so draws of them need no data. What an encoder makes of a row's
    data does, and so do deterministics and terms of them. Deterministics without the data that
    they need are left out with a warning where the user does not name them. Log-likelihoods are always
    asked for by name.
    """
    for table in approx.storage.tables.values():
        table.check_rows()
    model, axes = approx.model, row_axes(approx)
    reads = [var for guide in approx.guides for var in _ends(guide.reads())]
    data = read_data(model, axes, reads, request.data, request.coords, function)
    if not data.values and not is_streamed(model):
        return select_rows(model, axes, request.rows, function), outputs

    def lacks(graphs: Collection[Variable]) -> bool:
        return bool(data.lacks(graphs)) if data.values else any(map(needs_rows, graphs))

    needy = _needy(approx, outputs, lacks)
    latent = {var.name for var in (*model.free_RVs, *model.value_vars)}
    names = " and ".join(repr(output.name) for output in needy)
    if terms := _needy(approx, likelihoods, lacks):
        what = f"log_likelihood= of {function}"
        if not data.values:
            return held_selection(approx, request.rows, what), outputs
        data.check([*(output.graph for output in terms), *reads], what)
    if needy and (by_name or any(output.name in latent for output in needy)):
        if not data.values:
            return held_selection(approx, request.rows, f"{function} of {names}"), outputs
        data.check([*(output.graph for output in needy), *reads], f"{names} of {function}")
    if needy:
        _warn(
            f"{function} leaves out {names.replace(' and ', ', ')}, computed from data of rows that are not at "
            "hand. Give them by data=, and name it in var_names"
        )
    select = partial(select_new, data=data) if data.values else select_rows
    left = [output for output in outputs if output not in needy]
    return select(model, axes, rows=request.rows, function=function), left


def held_selection(approx: Any, rows: Any, what: str) -> RowSelection:
    """Select the rows that :func:`pymc.set_data` gave to a streamed model.

    Raises
    ------
    ValueError
        If it gave none; `what` says who needs them.
    """
    streams = [index for index in model_indexes(approx.model) if is_stream(index)]
    held = {Rows(index): required_rows(approx.model, index, what) for index in streams}
    return select_held(row_axes(approx), held, rows, what)


def _needy(
    approx: Any, outputs: Sequence[Output], lacks: Callable[[Collection[Variable]], bool]
) -> list[Output]:
    """List outputs that need data which are not at hand, themselves or for the guides that they depend on."""
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


def _of_all_rows(mixed: Sequence[Output], function: str) -> str:
    why = "; ".join(f"{output.name!r}: {output.mixed}" for output in mixed)
    return f"{function} computes variables row by row here, and {why}. approx.sample() of all rows has it."


def _warn(message: str) -> None:
    """Warn where the user's own code is."""
    warnings.warn(message, skip_file_prefixes=(str(Path(__file__).parents[1]),))


def posterior_draws(
    approx: Any,
    draws: int,
    request: Request,
    *,
    return_inferencedata: bool = True,
    include_transformed: bool = False,
    include_data: bool | None = None,
    log_likelihood: bool | str | Sequence[str] = False,
    **kwargs: Any,
) -> Any:
    """Draw from an approximation; the arguments are those of `Approximation.sample`."""
    function = "approx.sample"
    chosen_parts = (request.rows, request.data, request.var_names)
    if kwargs and any(part is not None for part in chosen_parts):
        raise TypeError(
            f"{function} with rows=, data= or var_names= takes no {', '.join(kwargs)}, which are of "
            "pm.to_inference_data and need all rows and variables: leave them out, or take all"
        )
    known = latent_outputs(approx.model, include_transformed or not return_inferencedata)
    likelihoods = _likelihoods(approx, log_likelihood, function)
    plan = Plan.of(approx, draws, known, request, function, likelihoods=likelihoods)
    if request.var_names is None:
        plan = plan.without_large()
    likelihoods = plan.with_lengths(likelihoods)
    plan.check_memory(likelihoods)
    # What is computed over all rows needs all variables
    needed = [o for o in (known if plan.mixed else plan.outputs) if not o.mixed]
    arrays = plan.arrays([*needed, *likelihoods])
    dataset = _dataset(plan, {o.name: arrays[o.name] for o in needed})
    if plan.mixed:
        names = [output.name for output in plan.mixed]
        more = compute_deterministics(
            dataset, var_names=names, model=plan.full_model, progressbar=False
        )
        dataset = dataset.merge(more)
    dataset = dataset[[output.name for output in plan.outputs]]
    if not return_inferencedata:
        return _multi_trace(plan, dataset)
    groups = {"posterior": dataset}
    if likelihoods:
        groups["log_likelihood"] = _dataset(plan, {o.name: arrays[o.name] for o in likelihoods})
    if plan.has_data(include_data):
        groups |= _data_groups(plan)
    groups |= _other_groups(plan, dataset, kwargs)
    return add_fit(xr.DataTree.from_dict(groups), approx)


def posterior_chunks(approx: Any, draws: int, request: Request) -> Iterator[xr.Dataset]:
    """Draw, part by part; the arguments are those of `Approximation.sample_chunks`."""
    known = latent_outputs(approx.model)
    plan = Plan.of(approx, draws, known, request, "approx.sample_chunks", in_parts=True)
    return (_dataset(plan, arrays, rows) for _, rows, arrays in plan.parts(plan.outputs))


def predictive_draws(
    approx: Any, draws: int, request: Request, *, include_data: bool | None = None
) -> xr.DataTree:
    """Draw new data; the arguments are those of `Approximation.sample_posterior_predictive`."""
    function = "approx.sample_posterior_predictive"
    known = observed_outputs(approx.model)
    plan = Plan.of(approx, draws, known, request, function, in_parts=True, predictive=True)
    plan.check_memory()
    groups = {"posterior_predictive": _dataset(plan, plan.arrays(plan.outputs))}
    if plan.has_data(include_data):
        groups |= _data_groups(plan)
    return xr.DataTree.from_dict(groups)


def _likelihoods(
    approx: Any, log_likelihood: bool | str | Sequence[str], function: str
) -> list[Output]:
    """List the log-likelihoods that are asked for."""
    what = f"log_likelihood= of {function}"
    names: str | Sequence[str] | None
    if isinstance(log_likelihood, bool | np.bool_):
        if not log_likelihood:
            return []
        names = None
    elif isinstance(log_likelihood, str | Sequence):
        names = log_likelihood
    else:
        raise TypeError(
            f"{what} is {log_likelihood!r}, but has to be True, for those of all observed variables, False, "
            'or names of them, such as log_likelihood=["y"]'
        )
    found = chosen(likelihood_outputs(approx.model), names, what)
    for output in found:
        if output.mixed:
            raise ValueError(
                f"{what} is of each row, and those of {output.name!r} cannot be told "
                f"apart: {output.mixed}. Take pm.compute_log_likelihood of draws of all rows"
            )
    return found


def _other_groups(plan: Plan, dataset: xr.Dataset, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Make the groups that arguments of :func:`pymc.to_inference_data` ask for."""
    if not kwargs:
        return {}
    tree = to_inference_data(_multi_trace(plan, dataset), model=plan.full_model, **kwargs)
    ours = ("posterior", "observed_data", "constant_data")
    return {name: group.to_dataset() for name, group in tree.children.items() if name not in ours}


def _dataset(
    plan: Plan, arrays: Mapping[str, np.ndarray], rows: RowSelection | None = None
) -> xr.Dataset:
    """Give arrays of shape (draws, ...) a chain, dims and coords."""
    named = {name: array[None] for name, array in arrays.items()}
    coords, dims = coords_and_dims_for_inferencedata(plan.approx.model)
    coords |= plan.selection.data.coords
    rows = rows or plan.selection.computed
    for axis in rows.positions:
        if axis.dim is not None:
            coords[axis.dim] = rows.labels(axis, coords.get(axis.dim))
    return _at(dict_to_dataset(named, coords=coords, dims=dims), plan.selection.taken_later)


def _data_groups(plan: Plan) -> dict[str, xr.Dataset]:
    """Make the groups of observed and constant data of the rows that are selected."""
    model, missing = plan.data_model, plan.selection.data.missing
    observed, constant = find_observations(model), find_constants(model)
    if missing:  # without values
        own = plan.approx.model
        known = {rv.name: own.rvs_to_values[rv] for rv in own.observed_RVs}
        lacks = plan.selection.data.lacks
        observed = {name: x for name, x in observed.items() if not lacks([known[name]])}
        constant = {name: x for name, x in constant.items() if not lacks([own[name]])}
    coords, dims = coords_and_dims_for_inferencedata(model)
    groups = {}
    for group, data in (("observed_data", observed), ("constant_data", constant)):
        if data:
            found = dict_to_dataset(data, coords=coords, dims=dims, sample_dims=[])
            groups[group] = _at(found, plan.selection.by_dim)
    return groups


def _at(dataset: xr.Dataset, positions: Mapping[str, np.ndarray]) -> xr.Dataset:
    return dataset.isel({dim: at for dim, at in positions.items() if dim in dataset.sizes})


def _multi_trace(plan: Plan, dataset: xr.Dataset) -> MultiTrace:
    """Put draws into the form that PyMC had before ArviZ's."""
    arrays = {str(name): array.values[0] for name, array in dataset.items()}
    kept = [var for var in plan.full_model.unobserved_value_vars if var.name in arrays]
    trace = NDArray(
        model=plan.full_model,
        vars=kept,
        fn=lambda *values: values,
        var_shapes={var.name: arrays[var.name].shape[1:] for var in kept},
        var_dtypes={var.name: arrays[var.name].dtype for var in kept},
    )
    n_draws = dataset.sizes["draw"]
    trace.setup(n_draws, chain=0)
    trace.samples = {var.name: arrays[var.name] for var in kept}
    trace.draw_idx = n_draws
    trace.close()
    return MultiTrace([trace])
