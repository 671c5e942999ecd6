# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
r"""Importance weights of draws from a fit, per row and over all rows.

A particle of row :math:`i` has the log-weight

.. math::

    w_{ki} = \log p(x_i, z_{ki} \mid \theta_k) - \log q(z_{ki} \mid \theta_k),

with :math:`z_{ki}` drawn from the guide of the row's variables and :math:`\theta_k` from the guide of the
global ones. The mean of :math:`e^{w_{ki}}` over particles is an unbiased estimate of
:math:`\int q(\theta)\, p(x_i \mid \theta)\, d\theta`, the probability of a row that the fit has not seen.
The prior and the guide of :math:`\theta` belong to no row and are left out (Burda et al. 2016, section 5,
arXiv:1509.00519).

The log-probability of draws of global variables is a sum over N rows, which
:class:`SubsampledLogDensity` estimates from m of them with a control variate (Quiroz et al. 2019, Speeding
Up MCMC by Efficient Data Subsampling, JASA 114(526)). The first-order expansion about the mean
:math:`\bar z` of the draws takes all rows once; the remainder is summed over a subsample S:

.. math::

    \hat f(z) = f(\bar z) + \nabla f(\bar z) (z - \bar z)
        + f_S(z) - f_S(\bar z) - \nabla f_S(\bar z) (z - \bar z),

where :math:`f_S` scales its rows by N/m. Near :math:`\bar z` the remainder of a row is of second order, so
the error is far below one nat. Rows that matter but are rare can be absent from S, and the spread within S
does not show that. So a few draws are also computed with all rows.
"""

from __future__ import annotations

import logging

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pytensor.tensor as pt
import xarray as xr

from pytensor.compile.mode import Mode
from pytensor.gradient import grad
from pytensor.graph.basic import Variable

from pymc.argument_checks import check_int
from pymc.minibatch.axis_tracking import Rows
from pymc.minibatch.rebuild import rebuild
from pymc.model.full_data import is_streamed
from pymc.pytensorf import compile
from pymc.util import RandomState, _get_seeds_per_chain
from pymc.variational.guides.base import Guide, Plate
from pymc.variational.memory import check_fits
from pymc.variational.objectives.base import Draws, Setting, Weights, sum_over_rows
from pymc.variational.objectives.base import log_weights as log_weights_by_plate
from pymc.variational.posterior.draw import (
    FLOATS_AT_ONCE,
    Ahead,
    RowFunction,
    compile_mode,
    draw_guides,
    index_variables,
    row_axes,
    row_params,
)
from pymc.variational.posterior.sample import Request, held_selection, selected
from pymc.variational.posterior.select import RowSelection, select_rows
from pymc.variational.progress import with_bar
from pymc.variational.rows.table import rows_in_all
from pymc.variational.saved import Saved
from pymc.variational.stable_logs import stabilised

if TYPE_CHECKING:
    from pymc.model.core import Model

__all__ = [
    "LogDensity",
    "SubsampledLogDensity",
    "global_draws",
    "joint_log_weights",
    "log_density",
    "log_evidence",
    "log_weights",
    "random_groups",
]

_log = logging.getLogger(__name__)

#: Bytes of draws above which those of rows are not kept.
LARGE_DRAWS = 2**28


def log_weights(
    approx: Any,
    n_particles: int,
    rows: Any = None,
    *,
    data: Any = None,
    coords: Any = None,
    same_globals: bool = False,
    random_seed: RandomState = None,
    progressbar: bool = True,
) -> xr.DataArray:
    r"""Compute log-weights of particles of rows, log p - log q.

    Parameters
    ----------
    approx : Approximation
        What :func:`pymc.fit` returns for a model with latent variables of the rows, or with a guide
        or an objective.
    n_particles : int
        Particles K of each row.
    rows, data, coords : optional
        Which rows, and new data of theirs, as of :meth:`Approximation.sample`. Default: all rows.
    same_globals : bool
        Whether all particles have one draw of the global variables, as in a bound of particles;
        each has its own by default.
    random_seed : int, RandomState or Generator, optional
    progressbar : bool
        Whether to show a bar, once it takes more than a second.

    Returns
    -------
    DataArray of float, shape (n_particles, n_rows)
        With the dims particle and that of the rows, in nats.

    Raises
    ------
    ValueError, KeyError, IndexError, TypeError
        If the model has no rows, or rows of several plates, or rows that depend on each other, or
        there is no such row.
    MemoryError
        If the result would not fit in memory; nothing is drawn then.

    Examples
    --------
    >>> from pymc.variational.approximation import guided_approximation
    >>> from pymc.variational.posterior.log_weights import log_weights
    >>> with pm.Model(coords={"obs": range(4)}) as model:
    ...     y = pm.Minibatch(pm.Data("y", np.zeros(4), dims="obs"), batch_size=2)
    ...     z = pm.Normal("z", 0, 1, dims="obs")
    ...     rows = pm.Normal("rows", z, 1, observed=y, dims="obs")
    >>> approx = guided_approximation(model)
    >>> log_weights(approx, 3, random_seed=1).shape
    (3, 4)
    """
    function = "pm.variational.log_weights"
    request = Request(rows, data, coords, random_seed=random_seed)
    made = RowWeights.of(approx, n_particles, request, same_globals, function)
    check_fits(
        {"log_weights": 8 * made.n_particles * made.n_rows},
        f"{function} of {made.n_particles:,} particles of {made.n_rows:,} rows",
        "Take some rows at a time, such as rows=slice(0, 1000), or fewer particles; log_evidence sums over "
        "the particles part by part",
    )
    result = np.empty((n_particles, made.n_rows))
    for particles, part, weights in made.parts(show=progressbar):
        result[particles, part] = weights
    return made.labelled(result, ("particle",))


def log_evidence(
    approx: Any,
    n_particles: int = 1000,
    rows: Any = None,
    *,
    data: Any = None,
    coords: Any = None,
    same_globals: bool = False,
    random_seed: RandomState = None,
    progressbar: bool = True,
) -> xr.Dataset:
    r"""Estimate log p(x) of each row, from particles of it.

    .. math::

        \log \hat p(x_i) = \log \frac1K \sum_k e^{w_{ki}}

    It is too small in the mean, and the less so the more particles there are. Of rows that the fit has
    not seen, the sum over rows is the held-out log-probability.

    Parameters
    ----------
    approx, rows, data, coords, same_globals, random_seed, progressbar
        As of :func:`log_weights`. With `same_globals` the result is log p(x | θ) for one draw of the
        global variables; by default θ is averaged over the guide.
    n_particles : int

    Returns
    -------
    Dataset
        By row, in nats: ``log_evidence``, and ``se``, its standard error, which means little where it
        is large: above 0.3 or so, take more particles.

    Raises
    ------
    ValueError, KeyError, IndexError, TypeError
        As :func:`log_weights`.

    Examples
    --------
    >>> from pymc.variational.approximation import guided_approximation
    >>> from pymc.variational.posterior.log_weights import log_evidence
    >>> with pm.Model(coords={"obs": range(4)}) as model:
    ...     y = pm.Minibatch(pm.Data("y", np.zeros(4), dims="obs"), batch_size=2)
    ...     z = pm.Normal("z", 0, 1, dims="obs")
    ...     rows = pm.Normal("rows", z, 1, observed=y, dims="obs")
    >>> approx = guided_approximation(model, start_sigma={"z": 0.5**0.5})
    >>> found = log_evidence(approx, 10, random_seed=1)  # of an exact guide, by any particle
    >>> found["log_evidence"].values.round(4)
    array([-1.2655, -1.2655, -1.2655, -1.2655])
    """
    function = "pm.variational.log_evidence"
    request = Request(rows, data, coords, random_seed=random_seed)
    made = RowWeights.of(approx, n_particles, request, same_globals, function)
    total, squares = np.full(made.n_rows, -np.inf), np.full(made.n_rows, -np.inf)
    for _, part, weights in made.parts(show=progressbar):
        total[part] = np.logaddexp(total[part], np.logaddexp.reduce(weights, axis=0))
        squares[part] = np.logaddexp(squares[part], np.logaddexp.reduce(2 * weights, axis=0))
    # The relative variance of the weights, by their mean square and mean
    spread = np.expm1(np.maximum(squares + np.log(n_particles) - 2 * total, 0))
    found = {
        "log_evidence": made.labelled(total - np.log(n_particles)),
        "se": made.labelled(np.sqrt(spread / n_particles)),
    }
    return xr.Dataset(found, attrs={"n_particles": int(n_particles)})


@dataclass(frozen=True, eq=False)
class RowWeights:
    """Functions that compute log-weights of rows.

    Parameters
    ----------
    approx : GuideApproximation
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
        cls, approx: Any, n_particles: int, request: Request, same_globals: bool, function: str
    ) -> RowWeights:
        """Check the arguments, and compile."""
        n_particles = check_int(n_particles, "n_particles", function)
        selection = _selection(approx, request, function)
        axis = _the_axis(approx, function)
        n_numbers = _numbers_of_a_row(approx, axis)
        mode = compile_mode(n_particles * len(selection.computed.positions[axis]) * n_numbers)
        seeds = _get_seeds_per_chain(request.random_seed, 2)
        particles, params = pt.lscalar("n_particles"), row_params(approx)
        sample_shape: tuple[Any, ...] = (particles,)
        global_shape = () if same_globals else sample_shape
        early = draw_guides(approx, params, sample_shape, global_shape=global_shape)
        ahead = Ahead.of(approx, params, sample_shape, early, _of_globals(approx), global_shape)
        swaps = selection.swaps
        shared = RowFunction.of(
            approx, ahead.latents, particles, {}, swaps=swaps, random_seed=seeds[0], mode=mode
        )
        weights = _weights(approx, params, ahead.draws).rows[(axis,)]
        selection.data.check([weights], function)
        by_row = RowFunction.of(
            approx,
            [weights],
            particles,
            params,
            ahead.inputs,
            swaps=swaps,
            random_seed=seeds[1],
            mode=mode,
        )
        return cls(approx, axis, selection, n_particles, shared, by_row, same_globals, n_numbers)

    @property
    def n_rows(self) -> int:
        """How many rows are computed."""
        return len(self.selection.computed.positions[self.axis])

    @property
    def at_once(self) -> tuple[int, int]:
        """How many particles to compute at once, and of how many rows."""
        fit = max(FLOATS_AT_ONCE // self.n_numbers, 1)
        if not self.axis.has_row_ids:  # rows that no index picks come together
            return min(max(fit // max(self.n_rows, 1), 1), self.n_particles), self.n_rows
        particles = min(fit, self.n_particles)
        return particles, max(fit // particles, 1)

    def parts(
        self, drawn: Sequence[np.ndarray] | None = None, show: bool = False
    ) -> Iterator[tuple[slice, slice, np.ndarray]]:
        """Yield log-weights, of shape (particles, rows), of parts of them, and where they are.

        Parameters
        ----------
        drawn : sequence of array, optional
            Draws that `shared` made before.
        show : bool
            Whether to show a bar, once it takes a while.
        """
        chosen, (n_each, n_rows) = self.selection.computed, self.at_once
        drawn = self.shared(self.n_particles, chosen) if drawn is None else drawn
        cells = [
            (first, part, rows)
            for first in range(0, self.n_particles, n_each)
            for part, rows in chosen.chunks(self.axis, max(n_rows, 1))
        ]
        for first, part, rows in with_bar(cells, "Log-weights of rows", show):
            particles = slice(first, min(first + n_each, self.n_particles))
            mine = drawn if self.same_globals else [block[particles] for block in drawn]
            [weights] = self.by_row(particles.stop - first, rows, mine)
            shape = (particles.stop - first, len(rows.positions[self.axis]))
            yield particles, part, np.broadcast_to(weights, shape)

    def labelled(self, array: np.ndarray, dims: tuple[str, ...] = ()) -> xr.DataArray:
        """Name the axes of an array whose last one is that of the rows, and give these coords."""
        dim = self.axis.dim or "row"
        labels = self.selection.computed.labels(self.axis, self.approx.model.coords.get(dim))
        labelled = xr.DataArray(array, {dim: labels}, (*dims, dim))
        return labelled.isel(self.selection.taken_later)


def _selection(approx: Any, request: Request, function: str) -> RowSelection:
    """Select the rows to weigh: of a stream those whose data are at hand.

    Raises
    ------
    TypeError
        If the approximation is none of guides.
    """
    is_of_guides = isinstance(approx, Saved) and bool(approx.guides)
    if not is_of_guides:
        raise TypeError(
            f"{function} takes what pm.fit returns, and got {approx!r} of type {type(approx).__name__}, which "
            "keeps no rows apart: take pm.compute_log_likelihood of draws"
        )
    # What is weighed needs data, and all that a streamed model holds is a batch of the fit
    if request.data is None and is_streamed(approx.model):
        return held_selection(approx, request.rows, function)
    return selected(approx, [], False, request, function)[0]


def _has_one_axis(approx: Any) -> bool:
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


def global_draws(
    approx: Any, draws: int, random_seed: RandomState = None
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Draw all variables of an approximation without rows of its own, with the log-density of the draws.

    Parameters
    ----------
    approx : Approximation
    draws : int
    random_seed : int, RandomState or Generator, optional

    Returns
    -------
    points : dict of str to array, shape (draws, ...)
        By name of the value variable, on the unconstrained space.
    logq : array of float64, shape (draws,)
    """
    n_draws = pt.lscalar("n_draws")
    found, param_values = draw_guides(approx, {}, (n_draws,)), approx.storage.param_values({})
    logq = sum(
        guide.logq(latents, param_values, found.n_sample_dims[guide], found.parents)
        for guide, latents in found.latents.items()
    )
    values = found.values()
    [seed] = _get_seeds_per_chain(random_seed, 1)
    # It is called once, and runs in NumPy before a backend would have compiled it
    mode = Mode("py", "fast_compile")
    draw = compile([n_draws], [logq, *values.values()], random_seed=seed, mode=mode)
    total, *arrays = draw(draws)
    points = dict(zip((value.name or "" for value in values), arrays))
    return points, np.broadcast_to(total, (draws,)).astype("float64")


def joint_log_weights(
    approx: Any,
    draws: int,
    random_seed: RandomState = None,
    mode: Any = None,
    show: bool = False,
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Draw all variables of all rows, with the log-ratio of the joint density and of the guides'.

    Parameters
    ----------
    approx : Approximation
    draws : int
    random_seed : int, RandomState or Generator, optional
    mode : optional
        Of the compilation.
    show : bool
        Whether to show a bar, once it takes a while.

    Returns
    -------
    points : dict of str to array, shape (draws, ...)
        By name of the value variable, on the unconstrained space; those of rows only where they are small.
    log_weights : array of float64, shape (draws,)
        log p - log q in nats, of all rows.
    """
    size = 8 * draws * approx.ndim
    if size > LARGE_DRAWS and _has_one_axis(approx):
        return _by_parts(approx, draws, random_seed, show)
    check_fits({"all": size}, f"diagnose of {draws:,} draws", "Take fewer draws")
    n_draws, params = pt.lscalar("n_draws"), row_params(approx)
    found = draw_guides(approx, params, (n_draws,))
    total = sum_over_rows(_weights(approx, params, found))  # all rows are there: the scale is 1
    values = found.values()
    [seed] = _get_seeds_per_chain(random_seed, 1)
    outputs = [total, *values.values()]
    draw = RowFunction.of(approx, outputs, n_draws, params, random_seed=seed, mode=mode)
    selection = select_rows(approx.model, row_axes(approx), None)
    at_once = max(FLOATS_AT_ONCE // max(approx.ndim, 1), 1)
    sizes = [min(at_once, draws - done) for done in range(0, draws, at_once)]
    parts = [draw(size, selection) for size in with_bar(sizes, "Log-weights", show)]
    totals = [np.broadcast_to(part[0], (size,)) for part, size in zip(parts, sizes)]
    arrays = [np.concatenate(each) for each in zip(*(part[1:] for part in parts))]
    names = [value.name or "" for value in values]
    return dict(zip(names, arrays)), np.concatenate(totals).astype("float64")


def _by_parts(
    approx: Any, draws: int, random_seed: RandomState, show: bool
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Sum the log-weights of parts of the rows, and keep the draws of what they share."""
    _log.info(
        f"diagnose draws the variables of all rows {draws:,} times, part by part, and does not keep them"
    )
    made = RowWeights.of(approx, draws, Request(random_seed=random_seed), False, "diagnose")
    drawn = made.shared(draws, made.selection.computed)
    n_draws, params = pt.lscalar("n_draws"), row_params(approx)
    guides, early = _of_globals(approx), draw_guides(approx, params, (n_draws,))
    ahead = Ahead.of(approx, params, (n_draws,), early, guides)
    weights = _weights(approx, params, ahead.draws).global_
    of_globals = {site.value for guide in guides for site in guide.sites}
    values = {v.name or "": var for v, var in ahead.draws.values().items() if v in of_globals}
    shared = RowFunction.of(approx, [weights, *values.values()], n_draws, {}, ahead.inputs)
    total, *arrays = shared(draws, made.selection.computed, drawn)
    total = np.broadcast_to(total, (draws,)).astype("float64")
    for particles, _, part in made.parts(drawn, show):
        total[particles] += part.sum(axis=-1)
    return dict(zip(values, arrays)), total


def _of_globals(approx: Any) -> list[Guide]:
    return [guide for guide in approx.guides if not guide.sites[0].plate]


def _weights(approx: Any, params: Mapping[Plate, Variable], draws: Draws) -> Weights:
    """Return log p - log q of draws, by plate."""
    param_values = approx.storage.param_values(params)
    return log_weights_by_plate(
        Setting(approx.model, approx.terms, approx.guides, param_values), draws
    )


#: Groups of rows by whose differences the error is estimated.
N_GROUPS = 16

#: Draws whose log-probability is computed of all rows, for comparison.
N_COMPARED = 8

#: Differences from these are the error, where they are so many times what the groups say of it.
LARGEST_RATIO = 2


@dataclass(frozen=True, eq=False)
class LogDensity:
    """The log-probability of draws.

    Parameters
    ----------
    values : array of float64, shape (n_draws,)
        In nats, of all rows.
    se : float
        Standard error that the draws have in common, from the subsample of the rows; it is one of the ELBO.
    se_between : float
        Standard error of differences from their mean, root mean square; it is one of weights.
    n_rows : int, optional
        How many rows were used of the longest subsampled dim, where these are not all.
    """

    values: np.ndarray
    se: float = 0.0
    se_between: float = 0.0
    n_rows: int | None = None


def log_density(
    model: Model, points: Mapping[str, np.ndarray], show: bool, options: Mapping[str, Any]
) -> LogDensity:
    """Compute the log-probability of draws, one at a time: draws by rows would be a large array.

    Parameters
    ----------
    model : Model
        Of all rows.
    points : mapping of str to array, shape (n_draws, ...)
        By name of the value variable.
    show : bool
        Whether to show a bar, once it takes a while.
    options : mapping
        Of :func:`pymc.pytensorf.compile`.
    """
    values = {value.name: value for value in model.value_vars}
    logp = compile([values[name] for name in points], model.logp(), **options)
    draws = list(zip(*points.values()))
    found = [logp(*draw) for draw in with_bar(draws, "Log-probabilities", show)]
    return LogDensity(np.array(found, dtype="float64"))


@dataclass(frozen=True, eq=False)
class SubsampledLogDensity:
    """Estimates of the log-probability of draws, from some rows of each subsampled dim.

    Parameters
    ----------
    points : mapping of str to array, shape (n_draws, ...)
        By name of the value variable.
    totals : tuple of int
        How many rows each dim has.
    values : callable (points, rows) -> array, shape (n_draws,)
        The log-probability at points, by rows of each dim.
    expand : callable (point, rows) -> log-probability, list of its gradients
        At one point.
    part : callable (share, generator) -> groups of rows
        Draws a share of all rows at random, in groups without one in common.
    all_rows : object
        What `values` and `expand` take for all rows.
    """

    points: Mapping[str, np.ndarray]
    totals: tuple[int, ...]
    values: Callable[[Mapping[str, np.ndarray], Any], np.ndarray]
    expand: Callable[[Sequence[np.ndarray], Any], tuple[Any, list[Any]]]
    part: Callable[[float, np.random.Generator], Sequence[Any]]
    all_rows: Any = None

    @classmethod
    def of(
        cls, model: Model, points: Mapping[str, np.ndarray], options: Mapping[str, Any]
    ) -> SubsampledLogDensity:
        """Compile the functions.

        Parameters
        ----------
        model : Model
            With minibatches, whose rows are replaced.
        points : mapping of str to array, shape (n_draws, ...)
        options : mapping
            Of :func:`pymc.pytensorf.compile`.
        """
        values = {value.name: value for value in model.value_vars}
        inputs = [values[name] for name in points]
        smooth = [var for var in inputs if var.type.dtype.startswith("float")]
        [logp] = stabilised([model.logp()])
        graphs = [logp, *grad(logp, smooth, disconnected_inputs="ignore")]
        indexes = index_variables(graphs)
        positions = {rows: pt.lvector(f"rows_{rows.dim}") for rows in map(Rows, indexes)}
        graphs = rebuild(graphs, {index: positions[Rows(index)] for index in indexes})
        inputs += positions.values()
        value = compile(inputs, graphs[0], on_unused_input="ignore", **options)
        expand = compile(inputs, graphs, on_unused_input="ignore", **options)
        totals = tuple(rows_in_all([rows]) for rows in positions)

        def values_at(points: Mapping[str, np.ndarray], rows: Sequence[np.ndarray]) -> np.ndarray:
            return np.array([value(*draw, *rows) for draw in zip(*points.values())], "float64")

        def expand_at(
            point: Sequence[np.ndarray], rows: Sequence[np.ndarray]
        ) -> tuple[Any, list[Any]]:
            found, *slopes = expand(*point, *rows)
            return found, slopes

        def part(share: float, rng: np.random.Generator) -> Sequence[Any]:
            return list(zip(*(random_groups(total, share, rng) for total in totals)))

        all_rows = [np.arange(total) for total in totals]
        return cls(points, totals, values_at, expand_at, part, all_rows)

    @cached_property
    def first_order(self) -> np.ndarray:
        """The expansion of all rows, at all draws."""
        return self._expansion(self.all_rows)

    @cached_property
    def exact(self) -> np.ndarray:
        """The log-probability of all rows, of the first draws; they are as good as any others."""
        some = {name: array[:N_COMPARED] for name, array in self.points.items()}
        return self.values(some, self.all_rows)

    def estimate(self, n_rows: int, rng: np.random.Generator, show: bool = False) -> LogDensity:
        """Estimate the log-probability of each draw.

        The standard errors are those of differences between groups of the rows; or, where these say much
        less, the differences from all rows, of a few draws.

        Parameters
        ----------
        n_rows : int
            How many rows of the longest dim to take, and the same share of others.
        rng : Generator
            For the rows.
        show : bool
            Whether to show a bar, once it takes a while.
        """
        share = min(n_rows / max(self.totals), 1)
        groups = self.part(share, rng)
        shown = with_bar(groups, f"Log-probabilities by {n_rows:,} rows", show)
        remainders = np.array(
            [self.values(self.points, rows) - self._expansion(rows) for rows in shown]
        )
        left = np.sqrt((1 - share) / N_GROUPS)  # of a sample without replacement
        common = remainders.mean(axis=1)
        between = (remainders - common[:, None]).var(axis=0, ddof=1)
        values = self.first_order + remainders.mean(axis=0)
        some = values[: len(self.exact)]
        with np.errstate(invalid="ignore"):  # -inf of one alone
            errors = np.where(some == self.exact, 0.0, some - self.exact)
            spread = errors.std(ddof=1)
        return LogDensity(
            values,
            _larger(
                left * common.std(ddof=1), np.hypot(errors.mean(), spread / np.sqrt(len(errors)))
            ),
            _larger(left * np.sqrt(between.mean()), spread),
            n_rows,
        )

    def _expansion(self, rows: Any) -> np.ndarray:
        """Compute the first-order expansion about the mean of the draws, at all draws."""
        center = [_center(array) for array in self.points.values()]
        at_center, slopes = self.expand(center, rows)
        steps = [
            array - middle
            for array, middle in zip(self.points.values(), center)
            if array.dtype.kind == "f"
        ]
        return at_center + sum(
            np.tensordot(step, slope, axes=slope.ndim) for step, slope in zip(steps, slopes)
        )


def _larger(stated: float, found: float) -> float:
    """Return the error that was found, if it is not by chance larger than the one stated; inf for nan."""
    if np.isnan(found):
        return np.inf
    return float(found if found > LARGEST_RATIO * stated else stated)


def random_groups(total: int, share: float, rng: np.random.Generator) -> list[np.ndarray]:
    """Draw groups of rows without one in common; of few rows, each group has all."""
    rows = rng.permutation(total)
    taken = rows[: round(share * total)]
    return np.array_split(taken, N_GROUPS) if len(taken) >= 4 * N_GROUPS else [rows] * N_GROUPS


def _center(array: np.ndarray) -> np.ndarray:
    """Return the point to expand about: the mean, and a draw of what is discrete."""
    if array.dtype.kind != "f":
        return array[0]
    return array.mean(axis=0).astype(array.dtype)
