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
"""Functions of draws and of any rows, compiled from a model of minibatches.

The graph of a batch becomes one of any rows: a vector of positions, which is an input, takes the place
of the minibatch's index, and the parameters of these rows that of what a step reads from their table.
What rows share is drawn once and put in, so that rows can be computed part by part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytensor.tensor as pt

from pytensor.graph.basic import Variable
from pytensor.graph.traversal import ancestors

from pymc.minibatch.index import MinibatchIndexRV
from pymc.minibatch.plates import model_indexes
from pymc.minibatch.provenance import Rows
from pymc.minibatch.rebuild import rebuild
from pymc.minibatch.stream import is_stream, streams_in
from pymc.pytensorf import compile
from pymc.variational.guides.base import Block, Guide, Plate
from pymc.variational.objectives.base import Draws, draw_in_order
from pymc.variational.posterior.selection import RowSelection

__all__ = [
    "RowFunction",
    "draw_guides",
    "dynamic",
    "index_variables",
    "row_axes",
    "row_params",
]


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
    """

    function: Callable
    positions: tuple[Rows, ...]
    plates: tuple[Plate, ...]
    storage: Any

    @classmethod
    def of(
        cls,
        approx: Any,
        outputs: Sequence[Variable],
        n_draws: Variable,
        params: Mapping[Plate, Variable],
        fed: Sequence[Variable] = (),
        random_seed: int | None = None,
        mode: Any = None,
    ) -> RowFunction:
        """Compile graphs of a batch as a function of rows.

        Parameters
        ----------
        approx : GuidedApproximation
        outputs : sequence of Variable
        n_draws : scalar integer
            An input.
        params : mapping of plate to matrix
            Inputs: the parameters of the rows of each plate.
        fed : sequence of Variable
            Inputs: what was drawn before.
        random_seed : int, optional
        mode : optional
            Of the compilation.
        """
        indexes = index_variables(outputs)
        positions = {rows: pt.lvector(f"rows_{rows.dim}") for rows in map(Rows, indexes)}
        of_rows = {index: positions[Rows(index)] for index in indexes}
        rebuilt = rows_of_streams(rebuild(outputs, of_rows))
        function = compile(
            [n_draws, *fed, *positions.values(), *params.values()],
            rebuilt,
            on_unused_input="ignore",
            random_seed=random_seed,
            mode=mode,
        )
        return cls(function, tuple(positions), tuple(params), approx.storage)

    def __call__(
        self, n_draws: int, selection: RowSelection, fed: Iterable[np.ndarray] = ()
    ) -> list[np.ndarray]:
        """Compute the outputs at some rows."""
        positions = [selection.positions[rows] for rows in self.positions]
        params = [
            self.storage.tables[plate].parameters(selection.in_table(plate))
            for plate in self.plates
        ]
        return self.function(n_draws, *fed, *positions, *params)


def rows_of_streams(outputs: Sequence[Variable]) -> list[Variable]:
    """Take the rows at some positions of what the placeholders of streams hold."""
    taken = {}
    for var in streams_in(outputs):
        placeholder, positions = var.owner.inputs
        if not is_stream(positions):
            taken[var] = placeholder[positions]
    return rebuild(outputs, taken) if taken else list(outputs)


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
    lead: tuple[Any, ...],
    fed: Mapping[Guide, Block] | None = None,
    shared_lead: tuple[Any, ...] | None = None,
) -> Draws:
    """Draw all guides, globals first, or take what was drawn before.

    Parameters
    ----------
    approx : GuidedApproximation
    params : mapping of plate to matrix
        The parameters of the rows.
    lead : tuple of int or scalar integer
        Lengths of the leading axes of all draws.
    fed : mapping of Guide to Block, optional
        Guides that were drawn, and their draws.
    shared_lead : tuple, optional
        The same of globals, where it is another one.
    """
    here, known = approx.storage.here(params), fed or {}

    def draw(guide: Guide, given: Mapping[Variable, Variable]) -> tuple[Block, int]:
        mine = lead if guide.sites[0].plate or shared_lead is None else shared_lead
        return known[guide] if guide in known else guide.draw(here, mine, given), len(mine)

    return draw_in_order(approx.model, approx.guides, draw)


def dynamic(var: Variable) -> Variable:
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
