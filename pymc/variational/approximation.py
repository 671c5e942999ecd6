# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""What a fit returns: guides of all variables of a model, with their parameters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import copy, deepcopy
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pytensor
import xarray as xr

from pytensor.compile.sharedvalue import SharedVariable
from pytensor.graph.basic import Variable

from pymc.model.full_data import shape_only_model
from pymc.util import RandomState
from pymc.variational.guides.base import FlatGuide, Guide, Parameter, Plate, Site, sites_of
from pymc.variational.guides.initial_values import InitialValues, check_starts_used
from pymc.variational.guides.lookups import model_parameters
from pymc.variational.guides.model_guide import ModelGuide
from pymc.variational.guides.specification import build_guides, parse_guides, plates_of_guides
from pymc.variational.local_params.table import ParamTable
from pymc.variational.objectives.terms import Term, terms_of
from pymc.variational.opvi import Approximation  # type: ignore[attr-defined]  # the release's
from pymc.variational.posterior.moments import (
    bad_terms,
    flat_covariance,
    flat_moments,
    moments_data,
    sampled_nodes,
    state_of,
)
from pymc.variational.posterior.sample import (
    SampleOptions,
    posterior_chunks,
    posterior_draws,
    predictive_draws,
)

if TYPE_CHECKING:
    from pymc.model.core import Model

__all__ = [
    "GuideApproximation",
    "Storage",
    "guided_approximation",
    "make_guides",
]


class GuideApproximation(Approximation):
    """Guides of all variables of a model, and the values of their parameters: what a fit returns.

    Parameters
    ----------
    model : Model
    guides : tuple of Guide
    model_parameters : tuple of SharedVariable
        Shared variables of the model that are trained with the guides.
    rng : RandomState, optional
        For the seeds of fits.

    Attributes
    ----------
    guide_losses : dict of str to array of floats, shape (n_steps,)
        Losses of the guide alone, by name, of objectives that have them.
    hist : array of floats, shape (n_steps,)
        The loss of each step, as it was optimised: nats of all data times the report's `loss_factor`.
    report : FitReport or None
        Of the fit.
    """

    model: Model = None  # type: ignore[assignment]  # in place of the release's property
    rng: Any = None

    #: Whether `state` has the unconstrained variables too; a fit is asked for it.
    include_transformed = False

    def __init__(
        self,
        model: Model,
        guides: tuple[Guide, ...],
        model_parameters: tuple[SharedVariable, ...] = (),
        rng: np.random.RandomState | None = None,
    ) -> None:
        self.model = model
        self.guides = guides
        self.model_parameters = model_parameters
        self.rng = rng or np.random.RandomState()
        self.storage = Storage.of([p for guide in guides for p in guide.parameters])
        self.hist = np.asarray(())
        self.guide_losses: dict[str, np.ndarray] = {}
        self.report: Any = None
        self._scale_cost_to_minibatch = pytensor.shared(np.int8(1))

    def __deepcopy__(self, memo: dict[int, Any]) -> GuideApproximation:
        """Copy the parameters. The model stays the same, and with it its trained shared variables."""
        memo |= {id(var): var for var in self.model_parameters}
        new = copy(self)
        memo[id(self)] = new
        own = {name: deepcopy(vars(self)[name], memo) for name in ("rng", "hist", "report")}
        new.__dict__.update(own, storage=self.storage.copied(memo))
        new.__dict__.pop("groups", None)
        return new

    @property
    def groups(self) -> list[Any]:
        """PyMC's groups of the same parameters, for symbolic attributes such as `symbolic_logq`.

        Raises
        ------
        NotImplementedError
            For guides that PyMC has no group of.
        """
        raise NotImplementedError(
            f"{self} has no form as PyMC's groups, which only pm.MeanField, pm.FullRank and pm.Empirical of "
            "models without variables of rows have. Draws of any node are approx.sample_node(node)"
        )

    @property
    def has_logq(self) -> bool:
        return all(guide.has_logq for guide in self.guides)

    @property
    def tables(self) -> tuple[ParamTable, ...]:
        return tuple(self.storage.tables.values())

    def keep_transformed(self, include_transformed: bool) -> None:
        self.include_transformed = include_transformed

    @cached_property
    def terms(self) -> tuple[Term, ...]:
        """The terms of the model."""
        return tuple(terms_of(self.model, [axis for site in self.sites for axis in site.plate]))

    @property
    def params(self) -> list[SharedVariable]:
        """The shared variables that a fit changes; that of rows has a line for each row."""
        return [*self.storage.shared, *self.model_parameters]

    @property
    def dense_params(self) -> list[SharedVariable]:
        """Those of `params` that all rows share."""
        return [*self.storage.dense.values(), *self.model_parameters]

    def parameter_scales(self) -> dict[SharedVariable, np.ndarray]:
        """Return the natural scale of each global guide parameter."""
        known: dict[SharedVariable, np.ndarray] = {}
        for guide in self.guides:
            if not guide.plate:
                dense = self.storage.dense
                values = {p: np.asarray(dense[p].get_value(), "float64") for p in guide.parameters}
                known |= {dense[p]: scale for p, scale in guide.parameter_scales(values).items()}
        return known

    @property
    def sites(self) -> list[Site]:
        """The free variables of the model, guide by guide."""
        return [site for guide in self.guides for site in guide.sites]

    @property
    def ndim(self) -> int:
        """How many numbers a draw has on the unconstrained space, those of all rows included."""
        point = shape_only_model(self.model).initial_point()
        return sum(int(np.size(value)) for value in point.values())

    ddim = ndim

    def __str__(self) -> str:
        return f"{type(self).__name__}{{{' & '.join(map(_name, self.guides))}}}"

    __repr__ = __str__

    def sample(
        self,
        draws: int = 500,
        *,
        rows: Any = None,
        data: Mapping[str, Any] | None = None,
        coords: Mapping[str, Sequence[Any]] | None = None,
        var_names: Sequence[str] | str | None = None,
        chunk: int | None = None,
        random_seed: RandomState = None,
        return_inferencedata: bool = True,
        include_transformed: bool = False,
        include_data: bool | None = None,
        log_likelihood: bool | str | Sequence[str] = False,
        **kwargs: Any,
    ) -> Any:
        """Draw from the approximation: all rows, with their coords, or some.

        Parameters
        ----------
        draws : int
            Number of draws.
        rows : slice, sequence of int or bool, or dict, optional
            Which rows of the data: positions, or by dim, their coords, such as
            ``{"obs": ["a", "b"]}``, or a slice of positions. Default: all. With `data`: which rows of the
            fit these are data of; by default new ones.
        data : dict of str to array, optional
            Values by the name of their `pm.Data`, in the place of those of the model, which stays as it
            is: any number of rows. Batches of a loader know which rows they are.
        coords : dict of str to sequence, optional
            What results call the rows of `data`, by dim.
        var_names : str or sequence of str, optional
            Which variables; only these are computed. Default: free variables, and deterministics but
            for those of the rows whose draws take over 270 MB.
        chunk : int, optional
            How many rows to compute at a time. Default: as many as make 4 million numbers. All share
            the draws of the global variables.
        random_seed : int, RandomState or Generator, optional
            One seed gives the same draws of global variables for any `rows` and `chunk`.
        return_inferencedata : bool
            Whether to return an ArviZ DataTree, or a MultiTrace.
        include_transformed : bool
            Whether variables that are transformed come on the unconstrained space too.
        include_data : bool, optional
            Whether the groups observed_data and constant_data come along. Default: if they take at most
            67 MB, or `rows` or `data` are given.
        log_likelihood : bool, str or sequence of str
            Whether the log-likelihood of each row comes along, of all observed variables or of some.
        **kwargs
            Of :func:`pymc.to_inference_data`, for more groups of all rows.

        Returns
        -------
        DataTree or MultiTrace
            With the groups posterior, observed_data, constant_data, log_likelihood where it is asked for,
            and fit where there was one. What
            is returned has to fit in memory, and nothing more; see `sample_chunks`.

        Warns
        -----
        UserWarning
            If a deterministic is left out: rows are selected and it is computed over all rows, or its
            draws are large.

        Raises
        ------
        ValueError, KeyError, IndexError, TypeError
            If there is no such row or variable, or `data` that are needed are not there.
        MemoryError
            If the draws would not fit in memory; nothing is drawn then.
        """
        return posterior_draws(
            self,
            draws,
            SampleOptions(rows, data, coords, var_names, chunk, random_seed),
            return_inferencedata=return_inferencedata,
            include_transformed=include_transformed,
            include_data=include_data,
            log_likelihood=log_likelihood,
            **kwargs,
        )

    def sample_chunks(
        self,
        draws: int = 500,
        *,
        rows: Any = None,
        data: Mapping[str, Any] | None = None,
        coords: Mapping[str, Sequence[Any]] | None = None,
        var_names: Sequence[str] | str | None = None,
        chunk: int | None = None,
        random_seed: RandomState = None,
    ) -> Iterator[xr.Dataset]:
        """Draw from the approximation, a part of the rows at a time.

        The parameters are those of `sample`. What has no rows comes with the first part only.

        Returns
        -------
        iterator of Dataset
            Of consecutive parts of the rows, each with its coords, for one draw of what they share.

            ``part.to_netcdf(...)`` of each writes draws that do not fit in memory.
        """
        request = SampleOptions(rows, data, coords, var_names, chunk, random_seed)
        return posterior_chunks(self, draws, request)

    def sample_posterior_predictive(
        self,
        draws: int = 500,
        *,
        rows: Any = None,
        data: Mapping[str, Any] | None = None,
        coords: Mapping[str, Sequence[Any]] | None = None,
        var_names: Sequence[str] | str | None = None,
        chunk: int | None = None,
        random_seed: RandomState = None,
        include_data: bool | None = None,
    ) -> xr.DataTree:
        """Draw new data of all rows or of some, without keeping the latent variables.

        ``pm.sample_posterior_predictive(approx.sample(), model=model)`` is of all rows.

        Parameters
        ----------
        draws, rows, data, coords, chunk, random_seed, include_data
            As of `sample`. Observed values of `data` that are not known may be left out.
        var_names : str or sequence of str, optional
            Which observed variables; all by default.

        Returns
        -------
        DataTree
            With the groups posterior_predictive, observed_data and constant_data.

        Raises
        ------
        MemoryError
            If the draws would not fit in memory; nothing is drawn then.
        """
        request = SampleOptions(rows, data, coords, var_names, chunk, random_seed)
        return predictive_draws(self, draws, request, include_data=include_data)

    def sampled_nodes(self, nodes: list[Variable], size: Any, deterministic: Any) -> list[Any]:
        return sampled_nodes(self, nodes, size, deterministic)

    @property
    def mean(self) -> Variable:
        """Means on the unconstrained space, a symbolic vector: guide by guide, and row by row."""
        return flat_moments(self)[0]

    @property
    def std(self) -> Variable:
        """Standard deviations on the unconstrained space, in the order of `mean`."""
        return flat_moments(self)[1]

    @property
    def cov(self) -> Variable:
        """Covariance on the unconstrained space, a symbolic matrix in the order of `mean`.

        Raises
        ------
        NotImplementedError
            If a guide has no covariance that is known, or there are variables of rows.
        """
        return flat_covariance(self)

    @property
    def mean_data(self) -> xr.Dataset:
        """Means of all rows on the unconstrained space.

        Variables whose guide has no mean that is known are left out, with a warning.
        """
        return moments_data(self)[0]

    @property
    def std_data(self) -> xr.Dataset:
        """Standard deviations of all rows on the unconstrained space; see `mean_data`."""
        return moments_data(self)[1]

    @property
    def state(self) -> Any:
        """Means and standard deviations, mapped to the variables' own spaces as PyMC does."""
        return state_of(self)

    def bad_terms(self) -> list[tuple[str, float]]:
        return bad_terms(self)

    def bad_parameters(self, values: Mapping[Any, np.ndarray]) -> list[tuple[str, str]]:
        found = []
        for guide in self.guides:
            if not isinstance(guide, FlatGuide) or guide.layout.plate:
                continue
            size = guide.layout.size
            bad = np.zeros(size, dtype=bool)
            for parameter in guide.parameters:
                value = values.get(self.storage.dense[parameter])
                if value is not None and value.ndim and value.shape[-1] == size:
                    bad |= ~np.isfinite(value).reshape(-1, size).all(axis=0)
            for site, part in zip(guide.layout.sites, guide.layout.slices):
                where = np.flatnonzero(bad[part])
                if where.size:
                    more = ", ..." if where.size > 5 else ""
                    found.append((site.value.name or "", ", ".join(map(str, where[:5])) + more))
        return found


def _name(guide: Guide) -> str:
    rows = " x ".join(str(axis.dim) for axis in guide.plate)
    names = ", ".join(site.name for site in guide.sites)
    return f"{type(guide).__name__.removesuffix('Guide')}[{names}]" + (
        f" by {rows}" if rows else ""
    )


def make_guides(
    model: Model,
    guide: Any = None,
    *,
    others: str = "mean_field",
    start: Mapping[str, Any] | None = None,
    start_sigma: Mapping[str, Any] | None = None,
    rng: np.random.RandomState | None = None,
) -> tuple[Guide, ...]:
    """Return the guides of all variables of a model, with parameters at their start.

    Parameters
    ----------
    model : Model
    guide : optional
        As of :func:`pymc.fit`.
    others : str
        The guide of variables that `guide` does not name.
    start, start_sigma : dict, optional
    rng : RandomState, optional

    Raises
    ------
    ValueError, TypeError
        If there are no such guides, or starts of them.
    """
    if not model.free_RVs:
        raise TypeError(
            f"{model.name or 'The model'} has no free variables, so there is nothing to fit"
        )
    starts = InitialValues.from_model(model, start, start_sigma, rng)
    requests = parse_guides(model, guide)
    sites = sites_of(model, plates_of_guides(model, requests))
    guides = build_guides(model, sites, requests, starts, others)
    of_models = [site for made in guides if isinstance(made, ModelGuide) for site in made.sites]
    check_starts_used(of_models, {"start": start, "start_sigma": start_sigma})
    return guides


def guided_approximation(
    model: Model,
    guide: Any = None,
    *,
    others: str = "mean_field",
    params: Sequence[Any] = (),
    random_seed: Any = None,
    **starts: Any,
) -> GuideApproximation:
    """Return an approximation of a model by guides, with parameters at their start.

    Parameters
    ----------
    model, guide, others, **starts
        As of :func:`make_guides`.
    params : sequence of SharedVariable
        Shared variables of the model that are trained.
    random_seed : int, optional

    Raises
    ------
    ValueError, TypeError
        If there are no such guides, or starts of them.
    """
    rng = np.random.RandomState(random_seed)
    guides = make_guides(model, guide, others=others, rng=rng, **starts)
    return GuideApproximation(model, guides, model_parameters(model, params), rng)


@dataclass(frozen=True, eq=False)
class Storage:
    """Where the parameters of guides are: shared variables, and a table for each plate.

    Parameters
    ----------
    dense : mapping of Parameter or SharedVariable to SharedVariable
    tables : mapping of plate to ParamTable
    columns : mapping of Parameter to slice
        Of the table of its plate.
    """

    dense: Mapping[Parameter | SharedVariable, SharedVariable]
    tables: Mapping[Plate, ParamTable]
    columns: Mapping[Parameter, slice]

    @classmethod
    def of(cls, parameters: Sequence[Parameter | SharedVariable]) -> Storage:
        """Make room for parameters, with their starting values."""
        dense: dict[Parameter | SharedVariable, SharedVariable] = {}
        by_plate: dict[Plate, list[Parameter]] = {}
        for parameter in dict.fromkeys(parameters):
            if isinstance(parameter, SharedVariable):
                dense[parameter] = parameter
            elif parameter.plate:
                by_plate.setdefault(parameter.plate, []).append(parameter)
            else:
                dense[parameter] = pytensor.shared(
                    parameter.start, parameter.name, shape=parameter.start.shape
                )
        tables, columns = {}, {}
        for plate, mine in by_plate.items():
            starts = [parameter.start for parameter in mine]
            n_rows = max(len(start) for start in starts)
            joined = np.concatenate(
                [np.broadcast_to(start, (n_rows, start.shape[1])) for start in starts], axis=1
            )
            name = "_".join(rows.dim or "rows" for rows in plate)
            tables[plate] = ParamTable.of(plate, joined, name)
            begin = 0
            for parameter in mine:
                end = begin + parameter.start.shape[1]
                columns[parameter] = slice(begin, end)
                begin = end
        return cls(dense, tables, columns)

    def copied(self, memo: dict[int, Any]) -> Storage:
        """Copy all values; `memo` is that of :func:`copy.deepcopy`."""
        return Storage(
            {key: deepcopy(var, memo) for key, var in self.dense.items()},
            {
                plate: replace(table, shared=deepcopy(table.shared, memo))
                for plate, table in self.tables.items()
            },
            self.columns,
        )

    @property
    def shared(self) -> list[SharedVariable]:
        return [*self.dense.values(), *(table.shared for table in self.tables.values())]

    def of_batch(self) -> dict[Plate, Variable]:
        """Return the parameters of the rows of a batch, by plate."""
        return {plate: table.gather()[1] for plate, table in self.tables.items()}

    def param_values(
        self, gathered: Mapping[Plate, Variable]
    ) -> dict[Parameter | SharedVariable, Variable]:
        """What stands for each parameter, given the parameters of the rows of each plate."""
        rows = {
            parameter: gathered[parameter.plate][:, columns]
            for parameter, columns in self.columns.items()
        }
        return {**self.dense, **rows}
