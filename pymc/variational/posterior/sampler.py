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
"""Draws of a guided approximation, part by part of the rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytensor.tensor as pt

from pytensor.graph.basic import Variable
from pytensor.graph.traversal import ancestors

from pymc.minibatch.provenance import Rows
from pymc.util import RandomState, _get_seeds_per_chain
from pymc.variational.guides.base import Guide, Plate
from pymc.variational.objectives.base import Draws, own_space
from pymc.variational.posterior.functions import (
    RowFunction,
    draw_guides,
    dynamic,
    row_params,
)
from pymc.variational.posterior.groups import DrawnGroups
from pymc.variational.posterior.outputs import Output
from pymc.variational.posterior.selection import RowSelection
from pymc.variational.vectorize import at_draws

__all__ = ["RowSampler", "axis_along", "rows_at_once"]

#: Floats that are computed at once, 32 MB of them.
FLOATS_AT_ONCE = 2**22

#: With more floats in all than these, compiling to machine code pays.
WORTH_COMPILING = 2**24


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
        They return what is shared, and what is of a part. What `rest` is fed are the first outputs
        of `first`.
    n_fed : int
    n_draws : int
    before : tuple of arrays
        Draws that are given to `first`, and to `rest` with those of `first`.
    """

    along: Rows | None
    shared: tuple[Output, ...]
    by_row: tuple[Output, ...]
    first: RowFunction
    rest: RowFunction
    n_fed: int
    n_draws: int
    before: tuple[np.ndarray, ...] = ()

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
        approx : GuidedApproximation or DrawnGroups
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
        size = floats(outputs, selection, n_draws)
        mode = None if size > WORTH_COMPILING else "FAST_COMPILE"
        seeds = _get_seeds_per_chain(random_seed, 2)
        compute = _at_free_variables if predictive else _at_value_variables
        draws, params = pt.lscalar("n_draws"), row_params(approx)
        before = approx.draw_before(n_draws, random_seed) if isinstance(approx, DrawnGroups) else {}
        given = {
            guide: tuple(
                pt.tensor(site.name, dtype=array.dtype, shape=(None,) * array.ndim)
                for site, array in zip(guide.sites, arrays)
            )
            for guide, arrays in before.items()
        }
        inputs = [var for block in given.values() for var in block]
        early = draw_guides(approx, params, (draws,), given)
        needed = set(ancestors(compute(approx, outputs, early)))
        used = [guide for guide in approx.guides if needed.intersection(early.blocks[guide])]
        ahead = [g for g in used if along not in g.sites[0].plate and g not in given]
        blocks = [var for guide in ahead for var in early.blocks[guide]]
        first = RowFunction.of(
            approx,
            [*blocks, *compute(approx, shared, early)],
            draws,
            _of_plates(params, ahead),
            inputs,
            random_seed=seeds[0],
            mode=mode,
        )
        fed = {guide: tuple(map(dynamic, early.blocks[guide])) for guide in ahead}
        late = draw_guides(approx, params, (draws,), given | fed)
        rest = RowFunction.of(
            approx,
            compute(approx, by_row, late),
            draws,
            _of_plates(params, [g for g in used if g not in fed and g not in given]),
            [*inputs, *(var for block in fed.values() for var in block)],
            random_seed=seeds[1],
            mode=mode,
        )
        arrays = tuple(array for block in before.values() for array in block)
        return cls(along, shared, by_row, first, rest, len(blocks), n_draws, arrays)

    def chunks(
        self, selection: RowSelection, chunk: int
    ) -> Iterator[tuple[slice, RowSelection, dict[str, np.ndarray]]]:
        """Yield for each part where it is, its rows, and arrays of shape (draws, ...) by name.

        What is shared comes with the first part only.
        """
        found = self.first(self.n_draws, selection, self.before)
        fed = [*self.before, *found[: self.n_fed]]
        arrays = self._named(self.shared, found[self.n_fed :])
        for part, rows in selection.chunks(self.along, chunk):
            if self.by_row:
                arrays |= self._named(self.by_row, self.rest(self.n_draws, rows, fed))
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


def _at_value_variables(approx: Any, outputs: Sequence[Output], draws: Draws) -> list[Variable]:
    return _at_once(outputs, draws.values())


def _at_free_variables(approx: Any, outputs: Sequence[Output], draws: Draws) -> list[Variable]:
    return _at_once(outputs, own_space(approx.model, approx.model.free_RVs, draws.values()))


def _at_once(outputs: Sequence[Output], values: Mapping[Variable, Variable]) -> list[Variable]:
    """Compute outputs at all draws.

    Raises
    ------
    NotImplementedError
        If one of them has a distribution or an Op without a form for many draws.
    """
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


def floats(outputs: Sequence[Output], selection: RowSelection, n_draws: int) -> int:
    """Count the numbers of some outputs."""
    return n_draws * sum(output.size(selection.positions) for output in outputs)


def rows_at_once(
    outputs: Sequence[Output], selection: RowSelection, n_draws: int, along: Rows | None
) -> int:
    """Tell how many rows to compute at a time."""
    if along is None:
        return 1
    by_row = [output for output in outputs if along in output.axes]
    n_rows = max(len(selection.positions[along]), 1)
    per_row = max(floats(by_row, selection, n_draws) // n_rows, 1)
    return max(FLOATS_AT_ONCE // per_row, 1)
