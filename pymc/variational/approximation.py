# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""The result of a fit: guides of all variables of a model, and the storage of their parameters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import copy, deepcopy
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pytensor
import xarray as xr

from pytensor.compile.sharedvalue import SharedVariable
from pytensor.graph.basic import Variable

from pymc.minibatch.group_batches import GroupBatch, GroupRows
from pymc.minibatch.group_reads import Groups
from pymc.model.full_data import shape_only_model
from pymc.util import RandomState
from pymc.variational.groups import with_replacements
from pymc.variational.guides.base import FlatGuide, Guide, Parameter, Plate, Site
from pymc.variational.guides.lookups import model_parameters
from pymc.variational.guides.prior import new_groups, prior_guides
from pymc.variational.guides.specification import make_guides
from pymc.variational.local_params.table import ParamTable, new_table
from pymc.variational.objectives.base import Term, terms_of
from pymc.variational.opvi import Approximation  # type: ignore[attr-defined]  # the release's
from pymc.variational.posterior import moments
from pymc.variational.posterior.sample import (
    SampleOptions,
    posterior_chunks,
    posterior_draws,
    predictive_draws,
)
from pymc.variational.posterior.summary import summarize
from pymc.variational.report import fit_html

if TYPE_CHECKING:
    import os

    from pathlib import Path

    import pandas as pd

    from pymc.data_loading.data_loader import DataLoader
    from pymc.model.core import Model

__all__ = [
    "GuideApproximation",
    "Storage",
    "guided_approximation",
]


#: The most variables that are named for a notebook.
MOST_NAMES = 20


@dataclass(frozen=True, eq=False)
class Storage:
    """The parameters of guides: shared variables, and a table for each plate with columns for each parameter."""

    dense: Mapping[Parameter | SharedVariable, SharedVariable]
    tables: Mapping[Plate, ParamTable]
    columns: Mapping[Parameter, slice]

    @classmethod
    def of(cls, parameters: Sequence[Parameter | SharedVariable]) -> Storage:
        """Allocate parameters, with their starting values."""
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
        # One table for each plate, so that a step reads and writes all parameters of a row together
        tables, columns = {}, {}
        for plate, of_plate in by_plate.items():
            n_rows = max(len(parameter.start) for parameter in of_plate)
            parts, width = [], 0
            for parameter in of_plate:
                n_columns = parameter.start.shape[1]
                parts.append(np.broadcast_to(parameter.start, (n_rows, n_columns)))
                columns[parameter] = slice(width, width + n_columns)
                width += n_columns
            name = "_".join(rows.dim or "rows" for rows in plate)
            tables[plate] = new_table.get()(plate, np.concatenate(parts, axis=1), name)
        return cls(dense, tables, columns)

    def copied(self, memo: dict[int, Any]) -> Storage:
        """Copy all values; `memo` is that of :func:`copy.deepcopy`."""
        dense = {key: deepcopy(var, memo) for key, var in self.dense.items()}
        tables = {plate: table.copied(memo) for plate, table in self.tables.items()}
        return Storage(dense, tables, self.columns)

    @property
    def shared(self) -> list[SharedVariable]:
        """All shared variables."""
        return [*self.dense.values(), *(table.shared for table in self.tables.values())]

    def of_batch(self, with_groups: bool = True) -> dict[Plate, Variable]:
        """Return the parameters of the rows of a batch, by plate, and of its groups."""
        return {
            plate: table.gather()[1]
            for plate, table in self.tables.items()
            if with_groups or plate not in self.groups
        }

    @property
    def groups(self) -> list[Plate]:
        """The tables of groups, which belong to no rows of results."""
        return [plate for plate in self.tables if isinstance(plate[0], GroupRows)]

    def param_values(
        self, of_rows: Mapping[Plate, Variable]
    ) -> dict[Parameter | SharedVariable, Variable]:
        """Return a graph of each parameter, given the parameters of some rows of each plate.

        Those of groups are of all groups, if they are not given.
        """
        tables = {plate: self.tables[plate] for plate in self.groups}
        groups = {plate: table.all_rows() for plate, table in tables.items()}
        of_rows = {**groups, **of_rows}
        rows = {
            parameter: of_rows[parameter.plate][:, columns]
            for parameter, columns in self.columns.items()
        }
        return {**self.dense, **rows}


class GuideApproximation(Approximation):
    """The result of a fit: guides of all variables of a model, with values of their parameters.

    Parameters
    ----------
    model : Model
    guides : tuple of Guide
        Those of groups without rows are the prior, in `prior_guides`.
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

    Examples
    --------
    >>> with pm.Model(coords={"obs": range(50)}):
    ...     z = pm.Normal("z", dims="obs")
    ...     pm.Normal("y", z, 1, observed=np.zeros(50), dims="obs")
    ...     approx = pm.fit(20, batch_size={"obs": 10}, progressbar=False)
    y
    >>> approx.sample(30, rows={"obs": [3, 7]})["posterior"]["z"].shape
    (1, 30, 2)
    """

    model: Model = None  # type: ignore[assignment]  # in place of the release's property
    rng: Any = None

    #: Whether `state` has the unconstrained variables too; an option of a fit.
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
        self.prior_guides = prior_guides(guides, model.free_RVs)
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
        copied = {name: deepcopy(vars(self)[name], memo) for name in ("rng", "hist", "report")}
        new.__dict__.update(copied, storage=self.storage.copied(memo))
        new.__dict__.pop("groups", None)  # the cached ones hold the parameters of the original
        return new

    def __str__(self) -> str:
        return f"{type(self).__name__}{{{' & '.join(map(_name, self.guides))}}}"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        names = [site.name for site in self.sites]
        more = f", and {len(names) - MOST_NAMES:,} more" if len(names) > MOST_NAMES else ""
        guides = dict.fromkeys(guide.name for guide in self.underlying.guides)
        rows = {"Variables": ", ".join(names[:MOST_NAMES]) + more, "Guide": ", ".join(guides)}
        return fit_html(type(self).__name__, self.report, self.hist, rows)

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
    def sites(self) -> list[Site]:
        """The free variables of the model, guide by guide."""
        return [site for guide in self.guides for site in guide.sites]

    @cached_property
    def terms(self) -> tuple[Term, ...]:
        """The terms of the model."""
        return self._terms()

    @cached_property
    def guides_of_batch(self) -> tuple[Guide, ...]:
        """The guides that a step draws."""
        return tuple(each for guide in self.guides for each in guide.of_batch)

    @cached_property
    def terms_of_batch(self) -> tuple[Term, ...]:
        """The terms of a step: those of the model, but for groups that come by batch."""
        batches = self._group_batches
        return self._terms(batches) if batches else self.terms

    def _terms(self, batches: Sequence[GroupBatch] = ()) -> tuple[Term, ...]:
        rows = [axis for site in self.sites for axis in site.plate]
        return tuple(terms_of(self.model, rows, self.groups_with_rows, batches=batches))

    @property
    def groups_with_rows(self) -> dict[Variable, Groups]:
        """The groups that are fitted, of variables that have others too."""
        return {site.rv: site.groups for site in self.sites if site.groups is not None}

    @property
    def fitted_groups(self) -> str | None:
        """How many groups are fitted, of variables that have others too, for a report."""
        found = self.groups_with_rows.items()
        return ", ".join(f"{rv.name}: {g.positions.size} of {g.total}" for rv, g in found) or None

    def check_groups(self) -> None:
        """Count the rows of groups.

        Raises
        ------
        ValueError
            If groups have got rows that the fit leaves out.
        """
        for batch in self._group_batches:
            batch.count_rows()
        for name, groups in self._new_groups.items():
            first = ", ".join(map(str, groups[:5].tolist())) + (", ..." if len(groups) > 5 else "")
            raise ValueError(
                f"The data have rows of {len(groups):,} groups of {name!r} that had none when the fit was made: "
                f"{first}. It leaves these out and draws them from the prior, so that their rows change nothing "
                "but the variables that all groups share. Make a new fit of the model: call pm.fit, or pm.ADVI, "
                "again"
            )

    def groups_have_changed(self) -> bool:
        """Return True if data were set since the last :meth:`check_groups` that change the rows of groups."""
        try:
            changed = [batch.count_rows() for batch in self._group_batches]
            return any(changed) or bool(self._new_groups)
        # Of groups that there are not, which the next call reports
        except (IndexError, ValueError):
            return True

    @property
    def _group_batches(self) -> list[GroupBatch]:
        return [batch for guide in self.guides for batch in guide.group_batches]

    @property
    def _new_groups(self) -> dict[str, np.ndarray]:
        """Groups that have got rows since the approximation was made without them, by variable."""
        given = [batch.rv for batch in self._group_batches if not batch.is_counted]
        return new_groups(self.model, [site for site in self.sites if site.rv not in given])

    @property
    def tables(self) -> tuple[ParamTable, ...]:
        return tuple(self.storage.tables.values())

    @property
    def params(self) -> list[SharedVariable]:
        """The shared variables that a fit changes; a table of rows has a line for each row."""
        return [*self.storage.shared, *self.model_parameters]

    @property
    def dense_params(self) -> list[SharedVariable]:
        """Those of `params` that all rows share."""
        return [*self.storage.dense.values(), *self.model_parameters]

    def parameter_scales(self) -> dict[SharedVariable, np.ndarray]:
        """Return the natural scale of each global guide parameter."""
        scales: dict[SharedVariable, np.ndarray] = {}
        dense = self.storage.dense
        for guide in self.guides:
            if all(p in dense for p in guide.parameters):
                values = {p: np.asarray(dense[p].get_value(), "float64") for p in guide.parameters}
                scales |= {dense[p]: scale for p, scale in guide.parameter_scales(values).items()}
        return scales

    def keep_transformed(self, include_transformed: bool) -> None:
        self.include_transformed = include_transformed

    @property
    def ndim(self) -> int:
        """The number of entries of a draw on the unconstrained space, those of all rows included."""
        point = shape_only_model(self.model).initial_point()
        return sum(int(np.size(value)) for value in point.values())

    ddim = ndim

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
        """Draw from the approximation, at all rows or at some of them.

        Parameters
        ----------
        draws : int
        rows : slice, sequence of int or bool, or dict, optional
            Positions of rows in the data, or by dim, their coords or a slice of positions, such as
            ``{"obs": ["a", "b"]}``. Default: all rows. With `data` these are the rows of the fit that the
            data belong to; by default they belong to new rows.
        data : dict of str to array, optional
            Values of `pm.Data` by name, of any number of rows, in place of those of the model. The model
            stays as it is. Batches of a loader know their rows.
        coords : dict of str to sequence, optional
            Coords of the rows of `data`, by dim.
        var_names : str or sequence of str, optional
            Variables to compute. Default: all free variables and deterministics, except for deterministics of
            the rows whose draws take over 270 MB.
        chunk : int, optional
            Number of rows to compute at a time. Default: as many as make 4 million numbers. All chunks
            share the draws of the global variables.
        random_seed : int, RandomState or Generator, optional
            One seed gives the same draws of global variables for any `rows` and `chunk`.
        return_inferencedata : bool
            Whether to return an ArviZ DataTree, or a MultiTrace.
        include_transformed : bool
            Whether to return the unconstrained values of transformed variables too.
        include_data : bool, optional
            Whether to return the groups observed_data and constant_data. Default: if they take at most
            67 MB, or if `rows` or `data` are given.
        log_likelihood : bool, str or sequence of str
            Whether to return the log-likelihood of each row, of all observed variables or of some.
        **kwargs
            Passed to :func:`pymc.to_inference_data`, for more groups of all rows.

        Returns
        -------
        DataTree or MultiTrace
            With the groups posterior, observed_data, constant_data, log_likelihood and, after a fit, fit. It
            has to fit in memory, and nothing more has to; see `sample_chunks`.

        Warns
        -----
        UserWarning
            If a deterministic is left out, since rows are selected and it is computed over all rows, or since
            its draws are large.

        Raises
        ------
        ValueError, KeyError, IndexError, TypeError
            If there is no such row or variable, or `data` are missing.
        MemoryError
            If the draws would not fit in memory. Nothing is drawn then.
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
        """Draw from the approximation, a part of the rows at a time; the parameters are those of `sample`.

        Returns
        -------
        iterator of Dataset
            Consecutive parts of the rows, with their coords and the same draws of what they share. Variables
            without rows come with the first part only. ``part.to_netcdf(...)`` of each writes draws that do
            not fit in memory.
        """
        options = SampleOptions(rows, data, coords, var_names, chunk, random_seed)
        return posterior_chunks(self, draws, options)

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
        """Draw new data at all rows or some, without keeping the latent variables.

        ``pm.sample_posterior_predictive(approx.sample(), model=model)`` does so at all rows.

        Parameters
        ----------
        draws, rows, data, coords, chunk, random_seed, include_data
            As in `sample`. Unknown observed values may be left out of `data`.
        var_names : str or sequence of str, optional
            Observed variables; all by default.

        Returns
        -------
        DataTree
            With the groups posterior_predictive, observed_data and constant_data.

        Raises
        ------
        MemoryError
            If the draws would not fit in memory. Nothing is drawn then.
        """
        options = SampleOptions(rows, data, coords, var_names, chunk, random_seed)
        return predictive_draws(self, draws, options, include_data)

    @with_replacements
    def sample_node(
        self,
        node: Any,  # a list: the decorator reads all other forms
        size: int | Variable | None = None,
        deterministic: bool | Variable = False,
        more_replacements: Mapping[Variable | str, Any] | None = None,
    ) -> Any:
        return moments.sampled_nodes(self, node, size, deterministic)

    def predict_to(
        self,
        path: str | os.PathLike[str],
        draws: int = 500,
        *,
        data: Mapping[str, Any] | DataLoader | None = None,
        data_name: str = "batch",
        var_names: Sequence[str] | str | None = None,
        kind: str = "summary",
        quantiles: Sequence[float] = (0.055, 0.5, 0.945),
        rows_per_part: int | None = None,
        random_seed: RandomState = None,
        progressbar: bool = True,
    ) -> Path:
        """Write predictions of all rows to Parquet or zarr, a part of the rows at a time.

        Parameters
        ----------
        path : str or path
            "....parquet", a folder of Parquet files, which pyarrow, pandas and polars read as one; or
            "....zarr". A call with the same Parquet folder and arguments writes the parts that are missing.
        draws : int
        data : dict of str to array, or DataLoader, optional
            The rows, in the place of those of the model: values of `pm.Data` by name, or a loader, whose rows are
            taken in the order of its source. If rows have parameters of their own, a loader has the rows of the fit.
        data_name : str
            The `pm.Data` of a loader whose batches are arrays.
        var_names : str or sequence of str, optional
            Observed variables, which are drawn anew; or free variables and deterministics of the rows.
            Default: all observed variables.
        kind : {"summary", "draws"}
            Write means ``y_mean``, standard deviations ``y_sd`` and quantiles ``y_q5.5`` of each row, or all
            draws ``y``, in Parquet as lists.
        quantiles : sequence of float
        rows_per_part : int, optional
            Rows in memory at a time. Default: as many as make 17 million draws.
        random_seed : int, RandomState or Generator, optional
        progressbar : bool
            Whether to show a bar once it takes more than a second.

        Returns
        -------
        Path

        Raises
        ------
        ValueError
            If an argument is not of this form, a variable has no rows, or the folder has other predictions.
        FileExistsError
            If `path` is there, and is no folder of predictions.
        ImportError
            If pyarrow or zarr is not installed.
        """
        # Few fits are written, and loaders are imported by fits that have them
        from pymc.variational.predictions import predict_to

        return predict_to(
            self,
            path,
            draws,
            data=data,
            data_name=data_name,
            var_names=var_names,
            kind=kind,
            quantiles=quantiles,
            rows_per_part=rows_per_part,
            random_seed=random_seed,
            progressbar=progressbar,
        )

    def summary(
        self,
        draws: int = 2000,
        var_names: Sequence[str] | str | None = None,
        *,
        random_seed: RandomState = None,
        **kwargs: Any,
    ) -> pd.DataFrame:
        """Return a table of means, standard deviations and intervals.

        Parameters
        ----------
        draws : int
        var_names : str or sequence of str, optional
            Default: all variables, but those with a value for each row of the data.
        random_seed : int, RandomState or Generator, optional
        **kwargs
            Of :func:`arviz.summary`, such as `ci_prob`. Draws are independent, so that the columns of its
            diagnostics of chains are left out; numbers are rounded to two digits of the standard deviation.

        Returns
        -------
        DataFrame
        """
        return summarize(self, draws, var_names, random_seed, **kwargs)

    bad_terms = moments.bad_terms

    @property
    def mean(self) -> Variable:
        """Means on the unconstrained space, a symbolic vector: guide by guide, and row by row."""
        return moments.flat_moments(self)[0]

    @property
    def std(self) -> Variable:
        """Standard deviations on the unconstrained space, in the order of `mean`."""
        return moments.flat_moments(self)[1]

    @property
    def cov(self) -> Variable:
        """Covariance on the unconstrained space, a symbolic matrix in the order of `mean`.

        Raises
        ------
        NotImplementedError
            If the covariance of a guide is unknown, or there are variables of rows.
        """
        return moments.flat_covariance(self)

    @property
    def mean_data(self) -> xr.Dataset:
        """Means of all rows on the unconstrained space.

        Variables whose guide has no known mean are left out, with a warning.
        """
        return moments.moments_data(self)[0]

    @property
    def std_data(self) -> xr.Dataset:
        """Standard deviations of all rows on the unconstrained space; see `mean_data`."""
        return moments.moments_data(self)[1]

    @property
    def state(self) -> Any:
        """Means and standard deviations, mapped to the variables' own spaces as PyMC does."""
        return moments.state_of(self)

    def bad_parameters(self, values: Mapping[Any, np.ndarray]) -> list[tuple[str, str]]:
        found = []
        for guide in self.guides:
            if not isinstance(guide, FlatGuide) or guide.layout.plate:
                continue
            size = guide.layout.size
            bad = np.zeros(size, dtype=bool)
            for parameter in guide.parameters:
                value = values.get(self.storage.dense[parameter])
                # Weights of networks and triangles of matrices belong to no single entry
                if value is not None and value.ndim and value.shape[-1] == size:
                    bad |= ~np.isfinite(value).reshape(-1, size).all(axis=0)
            layout = guide.layout
            for site, shape, part in zip(layout.sites, layout.shapes, layout.slices):
                entries = site.numbers(shape)[bad[part]]
                if entries.size:
                    more = ", ..." if entries.size > 5 else ""
                    found.append((site.value.name or "", ", ".join(map(str, entries[:5])) + more))
        return found


def _name(guide: Guide) -> str:
    names = ", ".join(site.name for site in guide.sites)
    rows = " x ".join(str(axis.dim) for axis in guide.plate)
    by_rows = f" by {rows}" if rows else ""
    return f"{type(guide).__name__.removesuffix('Guide')}[{names}]{by_rows}"


def guided_approximation(
    model: Model,
    guide: Any = None,
    *,
    others: str = "mean_field",
    params: Sequence[Any] = (),
    random_seed: Any = None,
    **options: Any,
) -> GuideApproximation:
    """Return an approximation of a model by guides, with parameters at their start.

    `params` are shared variables of the model to train; the other arguments are those of
    :func:`make_guides`.
    """
    rng = np.random.RandomState(random_seed)
    guides = make_guides(model, guide, others=others, rng=rng, **options)
    return GuideApproximation(model, guides, model_parameters(model, params), rng)
