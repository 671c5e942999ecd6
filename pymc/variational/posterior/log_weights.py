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
from pymc.minibatch.axis_tracking import Rows, index_variables
from pymc.minibatch.rebuild import rebuild
from pymc.model.full_data import is_streamed
from pymc.pytensorf import compile
from pymc.util import RandomState, _get_seeds_per_chain
from pymc.variational.guides.base import Plate
from pymc.variational.local_params.table import rows_in_all
from pymc.variational.memory import check_fits
from pymc.variational.objectives.base import Draws, Setting, Weights, sum_over_rows, terms_of
from pymc.variational.objectives.base import log_weights as log_weights_by_plate
from pymc.variational.posterior.draw import (
    FLOATS_AT_ONCE,
    RowFunction,
    TwoStages,
    compile_mode,
    draw_guides,
    row_axes,
    row_params,
)
from pymc.variational.posterior.sample import SampleOptions, held_selection, selected
from pymc.variational.posterior.select import RowSelection, select_rows
from pymc.variational.progress import with_bar
from pymc.variational.stable_logs import stabilised
from pymc.variational.vectorize import at_draws

if TYPE_CHECKING:
    from pymc.model.core import Model
    from pymc.variational.approximation import GuideApproximation

__all__ = [
    "LogDensity",
    "RowWeights",
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
    approx: GuideApproximation,
    n_particles: int,
    rows: Any = None,
    *,
    data: Mapping[str, Any] | None = None,
    coords: Mapping[str, Sequence[Any]] | None = None,
    same_globals: bool = False,
    random_seed: RandomState = None,
    progressbar: bool = True,
) -> xr.DataArray:
    r"""Compute the log-weight of particles of each row, log p - log q.

    Parameters
    ----------
    approx : Approximation
        The result of :func:`pymc.fit`, for a model with latent variables of the rows.
    n_particles : int
        Particles K of each row.
    rows, data, coords : optional
        The rows, and new data for them, as in :meth:`Approximation.sample`. Default: all rows.
    same_globals : bool
        Whether all particles share one draw of the global variables, as in a bound of particles. By
        default each has its own.
    random_seed : int, RandomState or Generator, optional
    progressbar : bool
        Whether to show a bar once it takes more than a second.

    Returns
    -------
    DataArray of float, shape (n_particles, n_rows)
        In nats, with the dims particle and that of the rows.

    Raises
    ------
    ValueError, KeyError, IndexError, TypeError
        If the model has no rows, rows of several plates or rows that depend on each other, or if there is no
        such row.
    MemoryError
        If the result would not fit in memory. Nothing is drawn then.

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
    options = SampleOptions(rows, data, coords, random_seed=random_seed)
    weights = RowWeights(approx, n_particles, options, same_globals, function)
    check_fits(
        {"log_weights": 8 * weights.n_particles * weights.n_rows},
        f"{function} of {weights.n_particles:,} particles of {weights.n_rows:,} rows",
        "Take some rows at a time, such as rows=slice(0, 1000), or fewer particles; log_evidence sums over "
        "the particles part by part",
    )
    result = np.empty((n_particles, weights.n_rows))
    for particles, part, values in weights.parts(show=progressbar):
        result[particles, part] = values
    return weights.labelled(result, ("particle",))


def log_evidence(
    approx: GuideApproximation,
    n_particles: int = 1000,
    rows: Any = None,
    *,
    data: Mapping[str, Any] | None = None,
    coords: Mapping[str, Sequence[Any]] | None = None,
    same_globals: bool = False,
    random_seed: RandomState = None,
    progressbar: bool = True,
) -> xr.Dataset:
    r"""Estimate log p(x) of each row from particles.

    .. math::

        \log \hat p(x_i) = \log \frac1K \sum_k e^{w_{ki}}

    The estimate is too small on average; the bias falls with the number of particles. For rows that the fit
    has not seen, the sum over rows is the held-out log-probability.

    Parameters
    ----------
    approx, rows, data, coords, same_globals, random_seed, progressbar
        As in :func:`log_weights`. With `same_globals` the result is log p(x | θ) for one draw of the
        global variables; by default θ is averaged over the guide.
    n_particles : int

    Returns
    -------
    Dataset
        By row, in nats: ``log_evidence`` and ``se``, its standard error. An error above 0.3 or so means
        little: take more particles.

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
    options = SampleOptions(rows, data, coords, random_seed=random_seed)
    weights = RowWeights(approx, n_particles, options, same_globals, function)
    total, squares = np.full((2, weights.n_rows), -np.inf)
    for _, part, values in weights.parts(show=progressbar):
        total[part] = np.logaddexp(total[part], np.logaddexp.reduce(values, axis=0))
        squares[part] = np.logaddexp(squares[part], np.logaddexp.reduce(2 * values, axis=0))
    # The relative variance of the weights, by their mean square and mean; rounding may take it below 0
    variance = np.expm1(np.maximum(squares + np.log(n_particles) - 2 * total, 0))
    found = {
        "log_evidence": weights.labelled(total - np.log(n_particles)),
        "se": weights.labelled(np.sqrt(variance / n_particles)),
    }
    return xr.Dataset(found, attrs={"n_particles": int(n_particles)})


class RowWeights:
    """Log-weights of selected rows, computed for a part of the particles and rows at a time.

    `with_globals` says whether to compute the values of global variables, and their own log-weight. `is_reused` says
    whether it is worth compiling for later parameters.
    """

    def __init__(
        self,
        approx: GuideApproximation,
        n_particles: int,
        options: SampleOptions,
        same_globals: bool,
        function: str,
        with_globals: bool = False,
        is_reused: bool = False,
    ) -> None:
        self.approx, self.same_globals = approx, same_globals
        self.n_particles = check_int(n_particles, "n_particles", function)
        selection = _selection(approx, options, function)
        self.axis = _row_axis(approx, function)
        self.selection, self.computed = selection, selection.computed
        self.n_rows = len(self.computed.positions[self.axis])
        self.n_numbers = _numbers_of_a_row(approx, self.axis)
        n, params = pt.lscalar("n_particles"), row_params(approx)
        draws = draw_guides(approx, params, (n,), () if same_globals else None)
        weights, values = _weights(approx, params, draws), draws.values()
        by_row = weights.rows[(self.axis,)]
        selection.data.check([by_row], function)
        globals_ = [s.value for guide in approx.guides if not guide.plate for s in guide.sites]
        self.global_names = [value.name or "" for value in globals_]
        #: Draws of what all rows share, and log-weights of shape (particles, rows) given these
        self.stages = TwoStages(
            approx,
            draws,
            n,
            params,
            self.axis,
            [weights.global_, *(values[value] for value in globals_)] if with_globals else [],
            [by_row],
            swaps=selection.data.swaps,
            random_seed=options.random_seed,
            mode=None
            if is_reused
            else compile_mode(self.n_particles * self.n_rows * self.n_numbers),
        )

    def _at_once(self) -> tuple[int, int]:
        """Return how many particles to compute at once, and of how many rows."""
        n_cells = max(FLOATS_AT_ONCE // self.n_numbers, 1)
        if not self.axis.has_row_ids:  # rows without an index come together
            return min(max(n_cells // max(self.n_rows, 1), 1), self.n_particles), self.n_rows
        particles = min(n_cells, self.n_particles)
        return particles, max(n_cells // particles, 1)

    def shared(self) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Draw the latents of global variables; with `with_globals`, their log-weight and values too."""
        return self.stages.shared(self.n_particles, self.computed)

    def parts(
        self, drawn: Sequence[np.ndarray] | None = None, show: bool = False
    ) -> Iterator[tuple[slice, slice, np.ndarray]]:
        """Yield particles, rows and their log-weights, shape (particles, rows), with a bar if `show`.

        `drawn` are the latents that all rows share, if they were drawn before.
        """
        n_each, n_rows = self._at_once()
        drawn = self.shared()[0] if drawn is None else drawn
        cells = [
            (first, part, rows)
            for first in range(0, self.n_particles, n_each)
            for part, rows in self.computed.chunks(self.axis, max(n_rows, 1))
        ]
        for first, part, rows in with_bar(cells, "Log-weights of rows", show):
            particles = slice(first, min(first + n_each, self.n_particles))
            inputs = drawn if self.same_globals else [latents[particles] for latents in drawn]
            [weights] = self.stages.part(particles.stop - first, rows, inputs)
            shape = (particles.stop - first, len(rows.positions[self.axis]))
            yield particles, part, np.broadcast_to(weights, shape)

    def labelled(self, array: np.ndarray, dims: tuple[str, ...] = ()) -> xr.DataArray:
        """Give an array dims and coords; its last axis is that of the rows."""
        dim = self.axis.dim or "row"
        labels = self.computed.labels(self.axis, self.approx.model.coords.get(dim))
        labelled = xr.DataArray(array, {dim: labels}, (*dims, dim))
        return labelled.isel(self.selection.taken_later)


def _selection(approx: GuideApproximation, options: SampleOptions, function: str) -> RowSelection:
    """Select the rows to weigh; those of a stream need their data at hand."""
    if not getattr(approx, "guides", ()):
        raise TypeError(
            f"{function} takes what pm.fit returns, and got {approx!r} of type {type(approx).__name__}, which "
            "keeps no rows apart: take pm.compute_log_likelihood of draws"
        )
    # Weights need data, and a streamed model holds a batch of the fit alone
    if options.data is None and is_streamed(approx.model):
        return held_selection(approx, options.rows, function)
    return selected(approx, [], False, options, function)[0]


def _plates(approx: GuideApproximation) -> list[Plate]:
    plates = [*(term.plate for term in approx.terms), *(site.plate for site in approx.sites)]
    return list(dict.fromkeys(plate for plate in plates if plate))


def _row_axis(approx: GuideApproximation, function: str) -> Rows:
    """Return the one axis of rows of terms and guides; a ValueError if there is another number."""
    plates = _plates(approx)
    if not plates:
        raise ValueError(
            f"{function} is about rows of a plate, but no dim of the model is subsampled and no guide "
            "is amortized, so that nothing says what a row is. Fit on minibatches "
            "(pm.fit(batch_size=...)), or take pm.compute_log_likelihood of draws"
        )
    if len(plates) > 1 or len(plates[0]) > 1:
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


def _numbers_of_a_row(approx: GuideApproximation, axis: Rows) -> int:
    """Estimate how many numbers a particle of a row takes: those of its variables."""
    n_numbers = 1
    for rv in approx.model.basic_RVs:
        shape = [n or 1 for n in approx.model.rvs_to_values[rv].type.shape]
        n_numbers += max(int(np.prod(shape)) // max(axis.batch_size, 1), 1)
    return n_numbers


def _weights(approx: GuideApproximation, params: Mapping[Plate, Variable], draws: Draws) -> Weights:
    """Return log p - log q of draws, by plate."""
    param_values = approx.storage.param_values(params)
    setting = Setting(approx.model, approx.terms, approx.guides, param_values)
    return log_weights_by_plate(setting, draws)


def global_draws(
    approx: GuideApproximation, draws: int, random_seed: RandomState = None
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Draw all variables of an approximation without variables of rows; also return log q, shape (draws,).

    The draws are on the unconstrained space, by name of the value variable, shape (draws, ...).
    """
    n_draws = pt.lscalar("n_draws")
    found, param_values = draw_guides(approx, {}, (n_draws,)), approx.storage.param_values({})
    values = found.values()
    logq = sum(
        guide.logq(found.latents[guide], param_values, found.n_sample_dims[guide], found.parents)
        for guide in approx.guides
    )
    priors = {rv: groups.others for rv, groups in approx.groups_with_rows.items()}
    if priors:
        terms = terms_of(approx.model, groups=priors, variables=list(priors))
        logq = sum(at_draws([term.logp for term in terms], values), logq)
    [seed] = _get_seeds_per_chain(random_seed, 1)
    # It is called once, and runs in NumPy before a backend would have compiled it
    mode = Mode("py", "fast_compile")
    draw = compile([n_draws], [logq, *values.values()], random_seed=seed, mode=mode)
    total, *arrays = draw(draws)
    points = dict(zip((value.name or "" for value in values), arrays))
    return points, np.broadcast_to(total, (draws,)).astype("float64")


def joint_log_weights(
    approx: GuideApproximation,
    draws: int,
    random_seed: RandomState = None,
    mode: Mode | str | None = None,
    show: bool = False,
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Draw all variables of all rows; also return log p - log q of all rows in nats, shape (draws,).

    The draws are as in :func:`global_draws`; those of rows are only kept if they are small. `show` shows a bar.
    """
    size = 8 * draws * approx.ndim
    has_one_axis = [len(plate) for plate in _plates(approx)] == [1]
    if size > LARGE_DRAWS and has_one_axis and not any(term.mixed for term in approx.terms):
        return _joint_by_parts(approx, draws, random_seed, show)
    check_fits({"all": size}, f"diagnose of {draws:,} draws", "Take fewer draws")
    n_draws, params = pt.lscalar("n_draws"), row_params(approx)
    found = draw_guides(approx, params, (n_draws,))
    total = sum_over_rows(_weights(approx, params, found))  # of all rows, so that the scale is 1
    values = found.values()
    [seed] = _get_seeds_per_chain(random_seed, 1)
    outputs = [total, *values.values()]
    draw = RowFunction(approx, outputs, n_draws, params, random_seed=seed, mode=mode)
    selection = select_rows(approx.model, row_axes(approx), None)
    at_once = max(FLOATS_AT_ONCE // max(approx.ndim, 1), 1)
    sizes = [min(at_once, draws - done) for done in range(0, draws, at_once)]
    parts = [draw(size, selection) for size in with_bar(sizes, "Log-weights", show)]
    totals = [np.broadcast_to(part[0], (size,)) for part, size in zip(parts, sizes)]
    arrays = [np.concatenate(each) for each in zip(*(part[1:] for part in parts))]
    names = [value.name or "" for value in values]
    return dict(zip(names, arrays)), np.concatenate(totals).astype("float64")


def _joint_by_parts(
    approx: GuideApproximation, draws: int, random_seed: RandomState, show: bool
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Sum the log-weights of parts of the rows, and keep the draws of what they share."""
    _log.info(
        f"diagnose draws the variables of all rows {draws:,} times, part by part, and does not keep them"
    )
    options = SampleOptions(random_seed=random_seed)
    by_row = RowWeights(approx, draws, options, False, "diagnose", with_globals=True)
    drawn, [total, *values] = by_row.shared()
    total = np.broadcast_to(total, (draws,)).astype("float64")
    for particles, _, part in by_row.parts(drawn, show):
        total[particles] += part.sum(axis=-1)
    return dict(zip(by_row.global_names, values)), total


#: Groups of rows whose differences estimate the error.
N_GROUPS = 16

#: Draws whose log-probability is computed with all rows, for comparison.
N_COMPARED = 8

#: Their error counts if it is so many times the one that the groups show.
LARGEST_RATIO = 2


@dataclass(frozen=True, eq=False)
class LogDensity:
    """The log-probability of draws with all rows, shape (n_draws,), in nats."""

    values: np.ndarray
    #: Standard error that the draws have in common, from the subsample of the rows: one of the ELBO
    se: float = 0.0
    #: Standard error of differences from their mean, root mean square: one of weights
    se_between: float = 0.0
    #: Rows used of the longest subsampled dim, if not all
    n_rows: int | None = None


def log_density(
    model: Model, points: Mapping[str, np.ndarray], show: bool, options: Mapping[str, Any]
) -> LogDensity:
    """Compute the log-probability of draws with all rows, with a bar if `show`.

    The draws come one at a time, since draws by rows would be a large array. `options` are those of
    :func:`pymc.pytensorf.compile`.
    """
    values = {value.name: value for value in model.value_vars}
    logp = compile([values[name] for name in points], model.logp(), **options)
    draws = list(zip(*points.values()))
    found = [logp(*draw) for draw in with_bar(draws, "Log-probabilities", show)]
    return LogDensity(np.array(found, dtype="float64"))


@dataclass(frozen=True, eq=False)
class SubsampledLogDensity:
    """Estimates of the log-probability of draws, from some rows of each subsampled dim."""

    #: Draws by name of the value variable, shape (n_draws, ...)
    points: Mapping[str, np.ndarray]
    #: The number of rows of each dim
    totals: tuple[int, ...]
    #: Computes the log-probability at points, by rows of each dim: shape (n_draws,)
    values: Callable[[Mapping[str, np.ndarray], Any], np.ndarray]
    #: Computes the log-probability and a list of its gradients at a point, by rows of each dim
    expand: Callable[[Sequence[np.ndarray], Any], tuple[Any, list[Any]]]
    #: Draws a share of all rows at random, in groups without one in common
    part: Callable[[float, np.random.Generator], Sequence[Any]]
    #: The argument `rows` of `values` and `expand` for all rows
    all_rows: Any = None

    @classmethod
    def of(
        cls, model: Model, points: Mapping[str, np.ndarray], options: Mapping[str, Any]
    ) -> SubsampledLogDensity:
        """Compile the functions for a model of minibatches; `options` are those of :func:`pymc.pytensorf.compile`."""
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
        ) -> tuple[np.ndarray, list[np.ndarray]]:
            found, *slopes = expand(*point, *rows)
            return found, slopes

        def part(share: float, rng: np.random.Generator) -> Sequence[Any]:
            return list(zip(*(random_groups(total, share, rng) for total in totals)))

        all_rows = [np.arange(total) for total in totals]
        return cls(points, totals, values_at, expand_at, part, all_rows)

    @cached_property
    def first_order(self) -> np.ndarray:
        """The expansion with all rows, at all draws."""
        return self._expansion(self.all_rows)

    @cached_property
    def exact(self) -> np.ndarray:
        """The log-probability with all rows, of the first draws; they are as good as any others."""
        some = {name: array[:N_COMPARED] for name, array in self.points.items()}
        return self.values(some, self.all_rows)

    def estimate(self, n_rows: int, rng: np.random.Generator, show: bool = False) -> LogDensity:
        """Estimate the log-probability of each draw, with a bar if `show`.

        `n_rows` rows of the longest dim are taken at random, and the same share of others. The standard
        errors are those of differences between groups of the rows. If a few draws with all rows show a much
        larger one, it is that.
        """
        share = min(n_rows / max(self.totals), 1)
        groups = self.part(share, rng)
        shown = with_bar(groups, f"Log-probabilities by {n_rows:,} rows", show)
        remainders = np.array(
            [self.values(self.points, rows) - self._expansion(rows) for rows in shown]
        )
        unseen = np.sqrt((1 - share) / N_GROUPS)  # of a sample without replacement
        common = remainders.mean(axis=1)
        between = (remainders - common[:, None]).var(axis=0, ddof=1)
        values = self.first_order + remainders.mean(axis=0)
        some = values[: len(self.exact)]
        with np.errstate(invalid="ignore"):  # -inf of one alone
            errors = np.where(some == self.exact, 0.0, some - self.exact)
            spread = errors.std(ddof=1)
        common_error = np.hypot(errors.mean(), spread / np.sqrt(len(errors)))
        return LogDensity(
            values,
            _larger(unseen * common.std(ddof=1), common_error),
            _larger(unseen * np.sqrt(between.mean()), spread),
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
    """Return the error that was found unless chance explains it; inf for nan."""
    if np.isnan(found):
        return np.inf
    return float(found if found > LARGEST_RATIO * stated else stated)


def random_groups(total: int, share: float, rng: np.random.Generator) -> list[np.ndarray]:
    """Draw groups of rows without one in common; of few rows, each group has all."""
    rows = rng.permutation(total)
    taken = rows[: round(share * total)]
    return np.array_split(taken, N_GROUPS) if len(taken) >= 4 * N_GROUPS else [rows] * N_GROUPS


def _center(array: np.ndarray) -> np.ndarray:
    """Return the point to expand about: the mean, or a draw if the variable is discrete."""
    if array.dtype.kind != "f":
        return array[0]
    return array.mean(axis=0).astype(array.dtype)
