# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Draw the variables of a fitted model at any of its rows, a part of the rows at a time.

The graph of a batch becomes a function of rows: a vector of positions takes the place of the minibatch
index, and the parameters of these rows take the place of what a step reads from their table.
"""

from __future__ import annotations

import math

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytensor
import pytensor.tensor as pt

from pytensor.compile.mode import Mode
from pytensor.graph.basic import Variable
from pytensor.graph.rewriting.db import RewriteDatabaseQuery
from pytensor.graph.traversal import ancestors
from pytensor.graph.utils import MissingInputError

from pymc.minibatch.axis_tracking import Axes, Rows, Untracked, index_variables, indexes, track_axes
from pymc.minibatch.plates import known_axes, local_axes, model_indexes, rows_by_axis
from pymc.minibatch.rebuild import rebuild
from pymc.minibatch.scaling import minibatch_logp
from pymc.minibatch.stream_index import is_stream, streams_in
from pymc.pytensorf import compile
from pymc.util import RandomState, _get_seeds_per_chain
from pymc.variational.guides.base import Guide, Latents, Plate
from pymc.variational.minibatch_rv import (  # type: ignore[attr-defined]  # of the release
    MinibatchRandomVariable,
    get_scaling,
    unscaled_rv,
)
from pymc.variational.objectives.base import Draws, draw_in_order, own_space
from pymc.variational.posterior.select import RowSelection
from pymc.variational.vectorize import as_tensor, at_draws

if TYPE_CHECKING:
    from pymc.model.core import Model
    from pymc.variational.approximation import GuideApproximation

__all__ = [
    "FLOATS_AT_ONCE",
    "Output",
    "RowFunction",
    "TwoStages",
    "axis_along",
    "compile_mode",
    "draw_guides",
    "latent_outputs",
    "likelihood_outputs",
    "n_bytes",
    "observed_outputs",
    "of_rows",
    "row_axes",
    "row_params",
    "sample_rows",
    "with_lengths",
]

#: Numbers that are computed at once.
FLOATS_AT_ONCE = 2**22

#: Numbers from which compiling to machine code is worth its time.
WORTH_COMPILING = 2**24

# Computes the lengths of a graph without its values
SHAPES_ONLY = Mode("py", RewriteDatabaseQuery(include=["ShapeOpt", "canonicalize"]))


class Output(NamedTuple):
    """A variable that a result can have, as a graph of the value variables or of the free ones."""

    name: str
    graph: Variable
    axes: tuple[Rows | None, ...]  # the rows along each axis; None for any other axis
    mixed: str = ""  # why its rows cannot be computed part by part
    lengths: tuple[int, ...] = ()  # with all rows, once with_lengths has found them

    @classmethod
    def tracked(cls, name: str, graph: Variable, axes: Axes | Untracked, mixed: str = "") -> Output:
        """Return the output of a graph whose axes were tracked."""
        if isinstance(axes, Untracked):
            return cls(name, graph, (None,) * graph.type.ndim, axes.why)
        rows = tuple(axis if isinstance(axis, Rows) else None for axis in axes)
        return cls(name, graph, rows, mixed)

    def size(self, positions: Mapping[Rows, np.ndarray]) -> int:
        """Return the number of entries of one draw at some rows."""
        lengths = self.lengths or tuple(length or 1 for length in self.graph.type.shape)
        return math.prod(
            length if axis is None else len(positions[axis])
            for axis, length in zip(self.axes, lengths)
        )

    def n_bytes(self, positions: Mapping[Rows, np.ndarray], n_draws: int) -> int:
        """Return the size of some draws at some rows, in bytes."""
        return n_draws * self.size(positions) * np.dtype(self.graph.type.dtype).itemsize


def latent_outputs(model: Model, include_transformed: bool = False) -> list[Output]:
    """List free variables and deterministics, as functions of the value variables.

    With `include_transformed` the unconstrained values of transformed variables are listed too.
    """
    local = local_axes(model)
    variables = [*model.free_RVs, *model.deterministics]
    graphs = dict(zip(variables, model.replace_rvs_by_values(variables) if variables else []))
    outputs = [
        Output(rv.name, graphs[rv], local.get(rv) or (None,) * rv.type.ndim)
        for rv in model.free_RVs
    ]
    if include_transformed:
        for rv in model.free_RVs:
            value = model.rvs_to_values[rv]
            if value.name != rv.name:
                axes = (*local.get(rv, ()), *(None,) * value.type.ndim)[: value.type.ndim]
                outputs.append(Output(value.name, value, axes))
    return [*outputs, *(_deterministic(model, var, graphs[var]) for var in model.deterministics)]


def _deterministic(model: Model, var: Variable, graph: Variable) -> Output:
    axes = track_axes(var, known_axes(model))
    above = set(ancestors([var]))
    needed = {Rows(index) for index in indexes([var])}
    for rv, rows in local_axes(model).items():
        if rv in above:
            needed.update(axis for axis in rows if axis is not None)
    lost = [] if isinstance(axes, Untracked) else [rows for rows in needed if rows not in axes]
    dims = " and ".join(str(rows.dim) for rows in lost)
    return Output.tracked(
        var.name, graph, axes, f"it is computed over all rows of {dims}" if lost else ""
    )


def observed_outputs(model: Model) -> list[Output]:
    """List observed variables, not scaled, as functions of the free variables: draws of new data."""
    bare = [unscaled_rv(rv)[0] for rv in model.observed_RVs]
    graphs = rebuild(bare, {}, bypass=lambda node: isinstance(node.op, MinibatchRandomVariable))
    return [
        Output(rv.name, graph, rows_by_axis(model, rv.name))
        for rv, graph in zip(model.observed_RVs, graphs)
    ]


def likelihood_outputs(model: Model) -> list[Output]:
    """List the log-probabilities of observed variables, not scaled, as functions of the value variables."""
    known = known_axes(model)
    with minibatch_logp():
        logps = model.logp(vars=model.observed_RVs, sum=False) if model.observed_RVs else []
    outputs = []
    for rv, logp in zip(model.observed_RVs, logps):
        axes, unscaled = track_axes(logp, known), as_tensor(logp)
        totals = unscaled_rv(rv)[1]
        if any(total is not None for total in totals):
            unscaled = unscaled / get_scaling(totals, as_tensor(model.rvs_to_values[rv]).shape)
        outputs.append(Output.tracked(rv.name, unscaled, axes))
    return outputs


def with_lengths(outputs: Sequence[Output], full_model: Callable[[], Model]) -> list[Output]:
    """Find the lengths of all axes with all rows; `full_model` is called if they need the model of these."""
    # The graph of what is computed over all rows has the length of a batch
    static = {o.name: (None,) * len(o.axes) if o.mixed else o.graph.type.shape for o in outputs}
    unknown = [
        o.name
        for o in outputs
        if any(n is None and axis is None for n, axis in zip(static[o.name], o.axes))
    ]
    found: dict[str, Sequence[int]] = {}
    if unknown:
        named = full_model().named_vars
        names = [name for name in unknown if name in named]
        found = dict(zip(names, _shapes([named[name] for name in names])))
    return [
        o._replace(lengths=tuple(int(n or 1) for n in found.get(o.name, static[o.name])))
        for o in outputs
    ]


def of_rows(outputs: Iterable[Output], model: Model) -> list[Output]:
    """Return the outputs that have a value for each row of the data of `model`, the one on all rows.

    A model of full data says nothing about rows, so a dim or a length of an observed variable counts as one.
    """
    observed = model.observed_RVs
    dims = {dim for rv in observed for dim in model.named_vars_to_dims.get(rv.name, ())}
    shapes = _shapes([model.rvs_to_values[rv] for rv in observed])
    lengths = {int(n) for shape in shapes for n in shape if n > 1}
    return [
        o
        for o in outputs
        if not dims.isdisjoint(model.named_vars_to_dims.get(o.name, ()))
        or not lengths.isdisjoint(o.lengths)
    ]


def n_bytes(variables: Iterable[Variable]) -> int:
    """Return the size of the values of some variables, in bytes."""
    found = list(dict.fromkeys(variables))
    return sum(
        math.prod(map(int, shape)) * np.dtype(var.type.dtype).itemsize
        for var, shape in zip(found, _shapes(found))
    )


def _shapes(variables: Sequence[Variable]) -> list[Sequence[int]]:
    """Compute shapes; a length that depends on an input is 1."""
    shapes = [as_tensor(var).shape for var in variables]
    try:
        return pytensor.function([], shapes, mode=SHAPES_ONLY)() if shapes else []
    except (NotImplementedError, MissingInputError):
        return [[n or 1 for n in as_tensor(var).type.shape] for var in variables]


def compile_mode(n_numbers: int) -> str | None:
    """Return the mode for a function that computes so many numbers."""
    return None if n_numbers > WORTH_COMPILING else "FAST_COMPILE"


class RowFunction:
    """A compiled function of a number of draws, of earlier draws, and of rows.

    `outputs` are graphs of a batch. `params` has an input for the parameters of the rows of each plate, `inputs`
    are those for earlier draws, and `swaps` replaces data and lengths of the model.
    """

    def __init__(
        self,
        approx: GuideApproximation,
        outputs: Sequence[Variable],
        n_draws: Variable,
        params: Mapping[Plate, Variable],
        inputs: Sequence[Variable] = (),
        *,
        swaps: Mapping[Variable, Variable] | None = None,
        random_seed: int | None = None,
        mode: Mode | str | None = None,
    ) -> None:
        clones = index_variables(outputs)
        positions = {rows: pt.lvector(f"rows_{rows.dim}") for rows in map(Rows, clones)}
        replaced = {index: positions[Rows(index)] for index in clones}
        graphs, of_streams = _rows_of_streams(rebuild(outputs, {**(swaps or {}), **replaced}))
        self.function = compile(
            [n_draws, *inputs, *positions.values(), *params.values()],
            graphs,
            on_unused_input="ignore",
            random_seed=random_seed,
            mode=mode,
        )
        self.axes, self.plates, self.storage = tuple(positions), tuple(params), approx.storage
        self.streams = [rows for rows, var in positions.items() if var in of_streams]

    def __call__(
        self, n_draws: int, selection: RowSelection, inputs: Iterable[np.ndarray] = ()
    ) -> list[np.ndarray]:
        """Compute the outputs at some rows; a ValueError if a stream does not hold their data."""
        # Positions among all rows would be read as positions in a batch
        for rows in self.streams:
            if rows not in selection.held:
                raise ValueError(
                    f"this needs data of {rows}, which come in batches from a loader, and the rows that are "
                    "selected are not those that the model holds: give their data, by data= or pm.set_data"
                )
        tables = self.storage.tables
        params = [tables[plate].parameters(selection.in_table(plate)) for plate in self.plates]
        positions = [selection.positions[rows] for rows in self.axes]
        return self.function(n_draws, *inputs, *positions, *params)


def _rows_of_streams(outputs: Sequence[Variable]) -> tuple[list[Variable], set[Variable]]:
    """Index the placeholders of streams by positions; return the graphs and these positions."""
    taken, at = {}, set()
    for var in streams_in(outputs):
        placeholder, positions = var.owner.inputs
        if not is_stream(positions):
            taken[var] = placeholder[positions]
            at.add(positions)
    return rebuild(outputs, taken) if taken else list(outputs), at


def row_axes(approx: GuideApproximation) -> list[Rows]:
    """List the axes of rows of a model and its guides, each once."""
    of_guides = [rows for site in approx.sites for rows in site.plate]
    return list(dict.fromkeys([*map(Rows, model_indexes(approx.model)), *of_guides]))


def row_params(approx: GuideApproximation) -> dict[Plate, Variable]:
    """Return an input for the parameters of the rows of each plate."""
    return {
        plate: pt.tensor(
            f"{table.name}_rows", dtype=table.shared.dtype, shape=(None, table.n_params)
        )
        for plate, table in approx.storage.tables.items()
        if plate not in approx.storage.groups
    }


def draw_guides(
    approx: GuideApproximation,
    params: Mapping[Plate, Variable],
    sample_shape: tuple[Any, ...],
    global_shape: tuple[Any, ...] | None = None,
    drawn: Mapping[Guide, Latents] = {},
) -> Draws:
    """Draw all guides as :func:`draw_in_order` does, with the parameters of some rows."""
    param_values = approx.storage.param_values(params)
    return draw_in_order(
        approx.model,
        (*approx.guides, *approx.prior_guides),
        param_values,
        sample_shape,
        global_shape,
        drawn,
    )


class TwoStages:
    """Compiled functions of what all parts of the rows share, and of each part given that.

    `shared` and `by_row` are the outputs of the two, as graphs of the draws of guides. The guides of rows along
    `along` are drawn with each part, and all others once, if an output needs them.
    """

    def __init__(
        self,
        approx: GuideApproximation,
        draws: Draws,
        n_draws: Variable,
        params: Mapping[Plate, Variable],
        along: Rows | None,
        shared: Sequence[Variable],
        by_row: Sequence[Variable],
        *,
        swaps: Mapping[Variable, Variable],
        random_seed: RandomState,
        mode: Mode | str | None,
    ) -> None:
        needed = set(ancestors([*shared, *by_row]))
        used = [guide for guide, found in draws.latents.items() if needed.intersection(found)]
        first = [guide for guide in used if along not in guide.plate]
        rest = [guide for guide in used if guide not in first]
        latents = [var for guide in first for var in draws.latents[guide]]
        # Of any length, since results have other numbers of rows than a batch
        inputs = [var.type.clone(shape=(None,) * var.type.ndim)(var.name) for var in latents]
        first_seed, rest_seed = _get_seeds_per_chain(random_seed, 2)
        self.n_latents = len(latents)
        self.first = RowFunction(
            approx,
            [*latents, *shared],
            n_draws,
            _of_plates(params, first),
            swaps=swaps,
            random_seed=first_seed,
            mode=mode,
        )
        #: A function of the number of draws, the rows of a part, and the latents
        self.part = RowFunction(
            approx,
            by_row,
            n_draws,
            _of_plates(params, rest),
            inputs,
            swaps={**swaps, **dict(zip(latents, inputs))},
            random_seed=rest_seed,
            mode=mode,
        )

    def shared(
        self, n_draws: int, selection: RowSelection
    ) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Draw the latents that all parts share, and compute the shared outputs."""
        found = self.first(n_draws, selection)
        return found[: self.n_latents], found[self.n_latents :]


def sample_rows(
    approx: GuideApproximation,
    outputs: Sequence[Output],
    selection: RowSelection,
    n_draws: int,
    *,
    chunk: int | None = None,
    random_seed: RandomState = None,
    predictive: bool = False,
) -> Iterator[tuple[slice, RowSelection, dict[str, np.ndarray]]]:
    """Yield the place of each part of the rows, its rows, and arrays of shape (draws, ...) by name.

    The outputs are functions of the value variables; with `predictive`, of the free variables, and observed
    ones are drawn. What all parts share comes with the first part only.
    """
    along = axis_along(outputs, selection)
    shared = [o for o in outputs if along is None or along not in o.axes]
    by_row = [o for o in outputs if along is not None and along in o.axes]
    n, params = pt.lscalar("n_draws"), row_params(approx)
    draws = draw_guides(approx, params, (n,))
    stages = TwoStages(
        approx,
        draws,
        n,
        params,
        along,
        _computed(approx, shared, draws, predictive),
        _computed(approx, by_row, draws, predictive),
        swaps=selection.data.swaps,
        random_seed=random_seed,
        mode=compile_mode(_count_numbers(outputs, selection, n_draws)),
    )
    if chunk is None:
        n_rows = 1 if along is None else max(len(selection.positions[along]), 1)
        per_row = max(_count_numbers(by_row, selection, n_draws) // n_rows, 1)
        chunk = max(FLOATS_AT_ONCE // per_row, 1)
    latents, found = stages.shared(n_draws, selection)
    arrays = _by_name(shared, found, n_draws)
    for part, rows in selection.chunks(along, chunk):
        if by_row:
            arrays |= _by_name(by_row, stages.part(n_draws, rows, latents), n_draws)
        yield part, rows, arrays
        arrays = {}


def _by_name(
    outputs: Sequence[Output], arrays: Sequence[np.ndarray], n_draws: int
) -> dict[str, np.ndarray]:
    """Name arrays, and repeat those that no draw changes."""
    return {
        output.name: array
        if array.ndim > len(output.axes)
        else np.broadcast_to(array, (n_draws, *array.shape))
        for output, array in zip(outputs, arrays)
    }


def _computed(
    approx: GuideApproximation, outputs: Sequence[Output], draws: Draws, predictive: bool
) -> list[Variable]:
    """Compute outputs at all draws."""
    values = draws.values()
    if predictive:
        values = own_space(approx.model, approx.model.free_RVs, values)
    try:
        return at_draws([output.graph for output in outputs], values)
    except NotImplementedError as error:
        names = [output.name for output in outputs]
        raise NotImplementedError(
            f"one of {names} has no form for many draws at once ({error}): name the others by "
            "var_names=, and compute it of all rows by pm.sample_posterior_predictive or "
            "pm.compute_deterministics, from the draws that approx.sample returns"
        ) from error


def _of_plates(params: Mapping[Plate, Variable], guides: Sequence[Guide]) -> dict[Plate, Variable]:
    plates = {guide.plate for guide in guides}
    return {plate: var for plate, var in params.items() if plate in plates}


def axis_along(outputs: Sequence[Output], selection: RowSelection) -> Rows | None:
    """Return the axis to cut into parts: the longest one that the outputs have."""
    axes = dict.fromkeys(axis for output in outputs for axis in output.axes if axis is not None)
    return max(axes, key=lambda rows: len(selection.positions[rows]), default=None)


def _count_numbers(outputs: Sequence[Output], selection: RowSelection, n_draws: int) -> int:
    return n_draws * sum(output.size(selection.positions) for output in outputs)
