# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Draw from guides: compiled functions of what rows share, and of the rows, part by part.

The graph of a batch becomes one of any rows: a vector of positions, which is an input, takes the place
of the minibatch's index, and the parameters of these rows that of what a step reads from their table.
What rows share is drawn once and put in, so that rows can be computed part by part.
"""

from __future__ import annotations

import math

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytensor
import pytensor.tensor as pt

from pytensor.compile.mode import Mode
from pytensor.graph.basic import Variable
from pytensor.graph.rewriting.db import RewriteDatabaseQuery
from pytensor.graph.traversal import ancestors
from pytensor.graph.utils import MissingInputError

from pymc.minibatch.axis_tracking import Rows, Untracked, indexes, track_axes
from pymc.minibatch.batch_logp import minibatch_logp
from pymc.minibatch.index import MinibatchIndexRV
from pymc.minibatch.plates import known_axes, local_axes, model_indexes, rows_by_axis
from pymc.minibatch.rebuild import rebuild
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

__all__ = [
    "FLOATS_AT_ONCE",
    "Ahead",
    "Output",
    "RowFunction",
    "RowSampler",
    "axis_along",
    "compile_mode",
    "draw_guides",
    "index_variables",
    "latent_outputs",
    "likelihood_outputs",
    "n_bytes",
    "observed_outputs",
    "of_rows",
    "row_axes",
    "row_params",
    "with_lengths",
]

#: Numbers that are computed at once
FLOATS_AT_ONCE = 2**22

#: Numbers from which compiling to machine code is worth its time
WORTH_COMPILING = 2**24


def compile_mode(n_numbers: int) -> str | None:
    """Return the mode for a function that computes so many numbers."""
    return None if n_numbers > WORTH_COMPILING else "FAST_COMPILE"


@dataclass(frozen=True, eq=False)
class RowFunction:
    """A compiled function of a number of draws, of what was drawn before, and of rows.

    Parameters
    ----------
    function : callable
    positions : tuple of Rows
        Those whose positions it takes.
    plates : tuple of plate
        Those whose parameters it takes.
    storage : Storage
        Where the parameters are.
    streams : tuple of Rows
        Those whose rows it takes from what a placeholder holds.
    """

    function: Callable
    positions: tuple[Rows, ...]
    plates: tuple[Plate, ...]
    storage: Any
    streams: tuple[Rows, ...] = ()

    @classmethod
    def of(
        cls,
        approx: Any,
        outputs: Sequence[Variable],
        n_draws: Variable,
        params: Mapping[Plate, Variable],
        inputs: Sequence[Variable] = (),
        *,
        swaps: Mapping[Variable, Variable] | None = None,
        random_seed: int | None = None,
        mode: Any = None,
    ) -> RowFunction:
        """Compile graphs of a batch as a function of rows.

        Parameters
        ----------
        approx : Approximation
        outputs : sequence of Variable
        n_draws : scalar integer
            An input.
        params : mapping of plate to matrix
            Inputs: the parameters of the rows of each plate.
        inputs : sequence of Variable
            What was drawn before.
        swaps : mapping of Variable to Variable, optional
            What takes the place of data of the model, and of lengths.
        random_seed : int, optional
        mode : optional
            Of the compilation.
        """
        indexes = index_variables(outputs)
        positions = {rows: pt.lvector(f"rows_{rows.dim}") for rows in map(Rows, indexes)}
        replaced = {index: positions[Rows(index)] for index in indexes}
        graphs, at = _rows_of_streams(rebuild(outputs, {**(swaps or {}), **replaced}))
        function = compile(
            [n_draws, *inputs, *positions.values(), *params.values()],
            graphs,
            on_unused_input="ignore",
            random_seed=random_seed,
            mode=mode,
        )
        streams = tuple(rows for rows, var in positions.items() if var in at)
        return cls(function, tuple(positions), tuple(params), approx.storage, streams)

    def __call__(
        self, n_draws: int, selection: RowSelection, inputs: Iterable[np.ndarray] = ()
    ) -> list[np.ndarray]:
        """Compute the outputs at some rows.

        Raises
        ------
        ValueError
            If it takes rows of a stream whose data are not those of the selection: positions among all
            rows would be taken for places in a batch.
        """
        for rows in self.streams:
            if rows not in selection.held:
                raise ValueError(
                    f"this needs data of {rows}, which come in batches from a loader, and the rows that are "
                    "selected are not those that the model holds: give their data, by data= or pm.set_data"
                )
        positions = [selection.positions[rows] for rows in self.positions]
        params = [
            self.storage.tables[plate].parameters(selection.in_table(plate))
            for plate in self.plates
        ]
        return self.function(n_draws, *inputs, *positions, *params)


def _rows_of_streams(outputs: Sequence[Variable]) -> tuple[list[Variable], set[Variable]]:
    """Take the rows at some positions of what the placeholders of streams hold; return these positions too."""
    taken, at = {}, set()
    for var in streams_in(outputs):
        placeholder, positions = var.owner.inputs
        if not is_stream(positions):
            taken[var] = placeholder[positions]
            at.add(positions)
    return rebuild(outputs, taken) if taken else list(outputs), at


def index_variables(outputs: Iterable[Variable]) -> list[Variable]:
    """All indexes of minibatches in some graphs, clones too."""
    return [
        var
        for var in ancestors(list(outputs))
        if var.owner is not None and isinstance(var.owner.op, MinibatchIndexRV) and var.index == 1
    ]


def draw_guides(
    approx: Any,
    params: Mapping[Plate, Variable],
    sample_shape: tuple[Any, ...],
    drawn: Mapping[Guide, Latents] | None = None,
    global_shape: tuple[Any, ...] | None = None,
) -> Draws:
    """Draw all guides, globals first, or take what was drawn before.

    Parameters
    ----------
    approx : Approximation
    params : mapping of plate to matrix
        The parameters of the rows.
    sample_shape : tuple of int or scalar integer
        Lengths of the leading axes of all draws.
    drawn : mapping of Guide to Latents, optional
        Guides that were drawn, and their draws.
    global_shape : tuple, optional
        The same of globals, where it is another one.
    """
    param_values, known = approx.storage.param_values(params), drawn or {}

    def draw(guide: Guide, given: Mapping[Variable, Variable]) -> tuple[Latents, int]:
        mine = sample_shape if guide.sites[0].plate or global_shape is None else global_shape
        return known[guide] if guide in known else guide.draw(param_values, mine, given), len(mine)

    return draw_in_order(approx.model, approx.guides, draw)


class Ahead(NamedTuple):
    """Draws in two functions: of some guides, and of the others given these.

    Parameters
    ----------
    latents : list of Variable
        The draws of the first guides.
    inputs : list of Variable
        Inputs in their place.
    draws : Draws
        Of all guides, from those inputs on.
    """

    latents: list[Variable]
    inputs: list[Variable]
    draws: Draws

    @classmethod
    def of(
        cls,
        approx: Any,
        params: Mapping[Plate, Variable],
        sample_shape: tuple[Any, ...],
        early: Draws,
        guides: Sequence[Guide],
        global_shape: tuple[Any, ...] | None = None,
    ) -> Ahead:
        """Draw `guides` first; `early` has their draws, and the other arguments are those of these."""
        drawn = {guide: tuple(map(_of_any_length, early.latents[guide])) for guide in guides}
        return cls(
            [var for guide in drawn for var in early.latents[guide]],
            [var for block in drawn.values() for var in block],
            draw_guides(approx, params, sample_shape, drawn, global_shape),
        )


def _of_any_length(var: Variable) -> Variable:
    """Make an input like a variable, of any length."""
    return var.type.clone(shape=(None,) * var.type.ndim)(var.name)


def row_axes(approx: Any) -> list[Rows]:
    """The axes of rows that a model and its guides have, each once."""
    of_guides = [rows for site in approx.sites for rows in site.plate]
    return list(dict.fromkeys([*map(Rows, model_indexes(approx.model)), *of_guides]))


def row_params(approx: Any) -> dict[Plate, Variable]:
    """Make inputs for the parameters of rows."""
    return {
        plate: pt.tensor(
            f"{table.name}_rows", dtype=table.shared.dtype, shape=(None, table.n_params)
        )
        for plate, table in approx.storage.tables.items()
    }


@dataclass(frozen=True, eq=False)
class RowSampler:
    """Functions that draw what is shared by all parts of the rows, and then each part.

    Parameters
    ----------
    along : Rows or None
        The axis that is cut into parts.
    shared, by_row : tuple of Output
        What is computed once, and for each part.
    first, rest : RowFunction
        They return what is shared, and what is of a part. The inputs of `rest` are the first outputs
        of `first`.
    n_inputs : int
    n_draws : int
    """

    along: Rows | None
    shared: tuple[Output, ...]
    by_row: tuple[Output, ...]
    first: RowFunction
    rest: RowFunction
    n_inputs: int
    n_draws: int

    @classmethod
    def of(
        cls,
        approx: Any,
        outputs: Sequence[Output],
        selection: RowSelection,
        n_draws: int,
        random_seed: RandomState = None,
        predictive: bool = False,
    ) -> RowSampler:
        """Compile the functions.

        Parameters
        ----------
        approx : Approximation
        outputs : sequence of Output
        selection : RowSelection
        n_draws : int
        random_seed : int, RandomState or Generator, optional
        predictive : bool
            Whether the outputs are functions of the free variables, of which observed ones are drawn,
            or of the value variables.
        """
        along = axis_along(outputs, selection)
        shared = tuple(output for output in outputs if along is None or along not in output.axes)
        by_row = tuple(o for o in outputs if along is not None and along in o.axes)
        mode = compile_mode(count_numbers(outputs, selection, n_draws))
        seeds = _get_seeds_per_chain(random_seed, 2)
        draws, params = pt.lscalar("n_draws"), row_params(approx)
        early = draw_guides(approx, params, (draws,))
        needed = set(ancestors(_computed(approx, outputs, early, predictive)))
        used = [guide for guide in approx.guides if needed.intersection(early.latents[guide])]
        guides = [guide for guide in used if along not in guide.sites[0].plate]
        ahead = Ahead.of(approx, params, (draws,), early, guides)
        first = RowFunction.of(
            approx,
            [*ahead.latents, *_computed(approx, shared, early, predictive)],
            draws,
            _of_plates(params, guides),
            swaps=selection.swaps,
            random_seed=seeds[0],
            mode=mode,
        )
        rest = RowFunction.of(
            approx,
            _computed(approx, by_row, ahead.draws, predictive),
            draws,
            _of_plates(params, [guide for guide in used if guide not in guides]),
            ahead.inputs,
            swaps=selection.swaps,
            random_seed=seeds[1],
            mode=mode,
        )
        return cls(along, shared, by_row, first, rest, len(ahead.latents), n_draws)

    def chunks(
        self, selection: RowSelection, chunk: int | None = None
    ) -> Iterator[tuple[slice, RowSelection, dict[str, np.ndarray]]]:
        """Yield for each part where it is, its rows, and arrays of shape (draws, ...) by name.

        What is shared comes with the first part only.
        """
        found = self.first(self.n_draws, selection)
        arrays = self._named(self.shared, found[self.n_inputs :])
        size = chunk or self._rows_at_once(selection)
        for part, rows in selection.chunks(self.along, size):
            if self.by_row:
                arrays |= self._named(
                    self.by_row, self.rest(self.n_draws, rows, found[: self.n_inputs])
                )
            yield part, rows, arrays
            arrays = {}

    def _named(
        self, outputs: Sequence[Output], arrays: Sequence[np.ndarray]
    ) -> dict[str, np.ndarray]:
        return {
            output.name: array
            if array.ndim > len(output.axes)
            else np.broadcast_to(array, (self.n_draws, *array.shape))
            for output, array in zip(outputs, arrays)
        }

    def _rows_at_once(self, selection: RowSelection) -> int:
        if self.along is None:
            return 1
        n_rows = max(len(selection.positions[self.along]), 1)
        per_row = max(count_numbers(self.by_row, selection, self.n_draws) // n_rows, 1)
        return max(FLOATS_AT_ONCE // per_row, 1)


def _computed(
    approx: Any, outputs: Sequence[Output], draws: Draws, predictive: bool
) -> list[Variable]:
    """Compute outputs at all draws, of free variables for new data and else of value variables.

    Raises
    ------
    NotImplementedError
        If one of them has a distribution or an Op without a form for many draws.
    """
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
    plates = {guide.sites[0].plate for guide in guides}
    return {plate: var for plate, var in params.items() if plate in plates}


def axis_along(outputs: Sequence[Output], selection: RowSelection) -> Rows | None:
    """Choose the axis that is cut into parts: the longest of those that the outputs have."""
    axes = dict.fromkeys(axis for output in outputs for axis in output.axes if axis is not None)
    return max(axes, key=lambda rows: len(selection.positions[rows]), default=None)


def count_numbers(outputs: Sequence[Output], selection: RowSelection, n_draws: int) -> int:
    """Count the numbers of some outputs."""
    return n_draws * sum(output.size(selection.positions) for output in outputs)


# The lengths of a graph, without the values that they are of
_OF_SHAPES = Mode("py", RewriteDatabaseQuery(include=["ShapeOpt", "canonicalize"]))


class Output(NamedTuple):
    """A variable of a model of minibatches.

    Parameters
    ----------
    name : str
    graph : Variable
        As a function of value variables, or of the free variables.
    axes : tuple of Rows or None
        For each axis, the rows that it holds; None for any other axis.
    mixed : str
        Why its rows cannot be computed part by part; empty where they can.
    lengths : tuple of int
        Of all axes, for all rows; empty before :func:`with_lengths` has found them.
    """

    name: str
    graph: Variable
    axes: tuple[Rows | None, ...]
    mixed: str = ""
    lengths: tuple[int, ...] = ()

    def size(self, positions: Mapping[Rows, np.ndarray]) -> int:
        """Count the numbers of one draw, of the rows at some positions."""
        lengths = self.lengths or tuple(length or 1 for length in self.graph.type.shape)
        return math.prod(
            length if axis is None else len(positions[axis])
            for axis, length in zip(self.axes, lengths)
        )

    def n_bytes(self, positions: Mapping[Rows, np.ndarray], n_draws: int) -> int:
        """Count the bytes of some draws, of the rows at some positions."""
        return n_draws * self.size(positions) * np.dtype(self.graph.type.dtype).itemsize


def latent_outputs(model: Model, include_transformed: bool = False) -> list[Output]:
    """List free variables and deterministics, as functions of the value variables.

    Parameters
    ----------
    model : Model
    include_transformed : bool
        Whether variables that are transformed have their unconstrained values there too.
    """
    local = local_axes(model)
    variables = [*model.free_RVs, *model.deterministics]
    graphs = model.replace_rvs_by_values(variables) if variables else []
    n_free = len(model.free_RVs)
    outputs = [
        Output(rv.name, graph, local.get(rv) or (None,) * rv.type.ndim)
        for rv, graph in zip(model.free_RVs, graphs)
    ]
    if include_transformed:
        for rv in model.free_RVs:
            value, axes = model.rvs_to_values[rv], local.get(rv, ())
            if value.name != rv.name:
                padded = (*axes, *(None,) * value.type.ndim)[: value.type.ndim]
                outputs.append(Output(value.name, value, padded))
    for var, graph in zip(model.deterministics, graphs[n_free:]):
        outputs.append(_deterministic(model, var, graph))
    return outputs


def _deterministic(model: Model, var: Variable, graph: Variable) -> Output:
    known = known_axes(model)
    axes = track_axes(var, known)
    if isinstance(axes, Untracked):
        return Output(var.name, graph, (None,) * var.type.ndim, axes.why)
    rows = tuple(axis if isinstance(axis, Rows) else None for axis in axes)
    local = local_axes(model)
    above = set(ancestors([var]))
    needed = {Rows(index) for index in indexes([var])}
    needed |= {axis for rv, own in local.items() if rv in above for axis in own if axis is not None}
    gone = needed - set(rows)
    why = (
        f"it is computed over all rows of {' and '.join(str(r.dim) for r in gone)}" if gone else ""
    )
    return Output(var.name, graph, rows, why)


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
        axes, logp = track_axes(logp, known), as_tensor(logp)
        totals, value = unscaled_rv(rv)[1], model.rvs_to_values[rv]
        if any(total is not None for total in totals):
            logp = logp / get_scaling(totals, as_tensor(value).shape)
        why = axes.why if isinstance(axes, Untracked) else ""
        rows = (None,) * logp.type.ndim if isinstance(axes, Untracked) else axes
        kept = tuple(axis if isinstance(axis, Rows) else None for axis in rows)
        outputs.append(Output(rv.name, logp, kept, why))
    return outputs


def with_lengths(outputs: Sequence[Output], full_model: Callable[[], Any]) -> list[Output]:
    """Find the lengths of all axes, for all rows.

    Parameters
    ----------
    outputs : sequence of Output
    full_model : callable () -> Model
        Makes the model on all rows; called where a length is not known without.
    """
    # What is computed over all rows has the length of a batch in the graph
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
    """Take the outputs that have a value for each row of the data.

    Parameters
    ----------
    outputs : iterable of Output
        With lengths.
    model : Model
        On all rows. What has a dim or a length of an observed variable counts as of rows: a model of full
        data has no other sign of them.
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
    """Count the bytes of the values of some variables."""
    found = list(dict.fromkeys(variables))
    return sum(
        math.prod(map(int, shape)) * np.dtype(var.type.dtype).itemsize
        for var, shape in zip(found, _shapes(found))
    )


def _shapes(variables: Sequence[Variable]) -> list[Sequence[int]]:
    """Compute the shapes of variables; lengths that cannot be computed without an input are 1."""
    shapes = [as_tensor(var).shape for var in variables]
    try:
        return pytensor.function([], shapes, mode=_OF_SHAPES)() if shapes else []
    except (NotImplementedError, MissingInputError):
        return [[n or 1 for n in as_tensor(var).type.shape] for var in variables]
