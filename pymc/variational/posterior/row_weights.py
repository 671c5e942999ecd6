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
"""Functions that compute log-weights of rows, for parts of the rows and of the particles."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytensor.tensor as pt
import xarray as xr

from pymc.minibatch.guards import is_streamed
from pymc.minibatch.provenance import Rows
from pymc.util import RandomState, _get_seeds_per_chain
from pymc.variational.counts import check_count
from pymc.variational.guides.base import Plate
from pymc.variational.guides.rows_there import RowsThere
from pymc.variational.objectives.base import Setting, log_weights
from pymc.variational.posterior.functions import (
    RowFunction,
    draw_guides,
    dynamic,
    row_axes,
    row_params,
)
from pymc.variational.posterior.request import Request
from pymc.variational.posterior.sampler import FLOATS_AT_ONCE, WORTH_COMPILING
from pymc.variational.posterior.selection import RowSelection, select_given
from pymc.variational.posterior.streams import given_or_raise
from pymc.variational.progress import with_bar

__all__ = ["RowWeights", "has_one_axis"]


@dataclass(frozen=True, eq=False)
class RowWeights:
    """Functions that compute log-weights of rows.

    Parameters
    ----------
    approx : GuidedApproximation
    axis : Rows
        The one axis of the rows.
    selection : RowSelection
    n_particles : int
    shared, by_row : RowFunction
        Draws of what all rows share, and log-weights of shape (particles, rows), given these.
    same_globals : bool
    n_numbers : int
        How many numbers one particle of a row takes.
    """

    approx: Any
    axis: Rows
    selection: RowSelection
    n_particles: int
    shared: RowFunction
    by_row: RowFunction
    same_globals: bool
    n_numbers: int

    @classmethod
    def of(
        cls,
        approx: Any,
        n_particles: int,
        rows: Any,
        same_globals: bool,
        random_seed: RandomState,
        function: str,
    ) -> RowWeights:
        """Check the arguments, and compile."""
        n_particles = check_count("n_particles", n_particles, function)
        if not hasattr(approx, "storage"):
            streamed = hasattr(approx, "model") and is_streamed(approx.model)
            raise TypeError(
                f"{function} takes what pm.fit returns for a model with latent variables of rows, or "
                f"with guide= or objective=, and got {approx!r} of type {type(approx).__name__}, which "
                "keeps no rows apart. Fit with guide='mean_field', or take pm.compute_log_likelihood of "
                f"draws{_OF_A_STREAM if streamed else ''}"
            )
        selection = _selection(approx, rows, function)
        axis = _the_axis(approx, function)
        n_numbers = _numbers_of_a_row(approx, axis)
        size = n_particles * len(selection.computed.positions[axis]) * n_numbers
        mode = None if size > WORTH_COMPILING else "FAST_COMPILE"
        seeds = _get_seeds_per_chain(random_seed, 2)
        particles, params = pt.lscalar("n_particles"), row_params(approx)
        lead: tuple[Any, ...] = (particles,)
        shared_lead = () if same_globals else lead
        early = draw_guides(approx, params, lead, shared_lead=shared_lead)
        ahead = [guide for guide in approx.guides if not guide.sites[0].plate]
        blocks = [var for guide in ahead for var in early.blocks[guide]]
        shared = RowFunction.of(approx, blocks, particles, {}, random_seed=seeds[0], mode=mode)
        fed = {guide: tuple(map(dynamic, early.blocks[guide])) for guide in ahead}
        late = draw_guides(approx, params, lead, fed, shared_lead)
        setting = Setting(approx.model, approx.terms, approx.guides, approx.storage.here(params))
        weights = log_weights(setting, late).rows[(axis,)]
        inputs = [var for block in fed.values() for var in block]
        by_row = RowFunction.of(approx, [weights], particles, params, inputs, seeds[1], mode)
        return cls(approx, axis, selection, n_particles, shared, by_row, same_globals, n_numbers)

    @property
    def n_rows(self) -> int:
        """How many rows are computed."""
        return len(self.selection.computed.positions[self.axis])

    @property
    def at_once(self) -> tuple[int, int]:
        """How many particles to compute at once, and of how many rows."""
        fit = max(FLOATS_AT_ONCE // self.n_numbers, 1)
        if isinstance(self.axis, RowsThere):  # rows that no index picks come together
            return min(max(fit // max(self.n_rows, 1), 1), self.n_particles), self.n_rows
        particles = min(fit, self.n_particles)
        return particles, max(fit // particles, 1)

    def parts(
        self, fed: Sequence[np.ndarray] | None = None, show: bool = False
    ) -> Iterator[tuple[slice, slice, np.ndarray]]:
        """Yield log-weights, of shape (particles, rows), of parts of them, and where they are.

        Parameters
        ----------
        fed : sequence of array, optional
            Draws that `shared` made before.
        show : bool
            Whether to show a bar, once it takes a while.
        """
        chosen, (n_each, n_rows) = self.selection.computed, self.at_once
        fed = self.shared(self.n_particles, chosen) if fed is None else fed
        cells = [
            (first, part, rows)
            for first in range(0, self.n_particles, n_each)
            for part, rows in chosen.chunks(self.axis, max(n_rows, 1))
        ]
        for first, part, rows in with_bar(cells, "Log-weights of rows", show):
            particles = slice(first, min(first + n_each, self.n_particles))
            mine = fed if self.same_globals else [block[particles] for block in fed]
            [weights] = self.by_row(particles.stop - first, rows, mine)
            shape = (particles.stop - first, len(rows.positions[self.axis]))
            yield particles, part, np.broadcast_to(weights, shape)

    def labelled(self, array: np.ndarray, dims: tuple[str, ...] = ()) -> xr.DataArray:
        """Name the axes of an array whose last one is that of the rows, and give these coords."""
        dim = self.axis.dim or "row"
        labels = self.selection.computed.labels(self.axis, self.approx.model.coords.get(dim))
        labelled = xr.DataArray(array, {dim: labels}, (*dims, dim))
        return labelled.isel(self.selection.taken_later)


# Both need data, and all that a streamed model holds is a batch of the fit
_OF_A_STREAM = ". Its data come in batches from a loader: give the rows first, by pm.set_data"


def _selection(approx: Any, rows: Any, function: str) -> RowSelection:
    """Tell which rows to weigh: of a stream those whose data the model holds."""
    if is_streamed(approx.model):
        given = given_or_raise(approx.model, function)
        return select_given(row_axes(approx), given, rows, function)
    return Request.of(approx, (), rows, None, function).selection


def has_one_axis(approx: Any) -> bool:
    """Tell whether the rows of an approximation and its terms are of one axis, and can be told apart."""
    plates = {one.plate for one in (*approx.terms, *approx.sites) if one.plate}
    return [len(plate) for plate in plates] == [1] and not any(t.mixed for t in approx.terms)


def _the_axis(approx: Any, function: str) -> Rows:
    """Find the one axis of rows that terms and guides have.

    Raises
    ------
    ValueError
    """
    plates: dict[Plate, None] = dict.fromkeys(term.plate for term in approx.terms if term.plate)
    plates |= dict.fromkeys(site.plate for site in approx.sites if site.plate)
    if not plates:
        raise ValueError(
            f"{function} is about rows of a plate, but no dim of the model is subsampled and no guide "
            "is amortized, so that nothing says what a row is. Fit on minibatches "
            "(pm.fit(batch_size=...)), or take pm.compute_log_likelihood of draws"
        )
    if len(plates) > 1 or len(next(iter(plates))) > 1:
        names = [" x ".join(str(rows.dim) for rows in plate) for plate in plates]
        raise ValueError(
            f"{function} is about rows of one plate, but the model has {', '.join(names)}, whose terms "
            "belong to no single row"
        )
    for term in approx.terms:
        if term.mixed:
            raise ValueError(
                f"{function} needs the log-probability of each row, but the rows of {term.name!r} "
                f"cannot be told apart: {term.mixed}"
            )
    [[axis]] = plates
    return axis


def _numbers_of_a_row(approx: Any, axis: Rows) -> int:
    """Estimate how many numbers a particle of a row takes: those of its variables."""
    model, n_numbers = approx.model, 1
    for rv in model.basic_RVs:
        shape = [n or 1 for n in model.rvs_to_values[rv].type.shape]
        per_batch = int(np.prod(shape)) // max(axis.batch_size, 1)
        n_numbers += max(per_batch, 1)
    return n_numbers
