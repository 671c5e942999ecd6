# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Mean-field effects of groups, of which a step takes those of the rows of a batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import reduce
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pytensor
import pytensor.tensor as pt

from pytensor.graph.basic import Variable

from pymc.minibatch.group_batches import GroupBatch, GroupRows, group_batches
from pymc.minibatch.group_reads import Groups, children_first
from pymc.minibatch.plates import model_indexes
from pymc.variational.guides.base import (
    Guide,
    Latents,
    Layout,
    Parameter,
    ParamValues,
    Parents,
    SampleShape,
    Site,
    noise,
)
from pymc.variational.guides.initial_values import InitialValues
from pymc.variational.guides.mean_field import log_normal

if TYPE_CHECKING:
    from pymc.model.core import Model

__all__ = ["GroupMeanField"]


@dataclass(frozen=True, eq=False)
class _Effects:
    """The effects of one variable: a line of means and of standard deviations for each group."""

    site: Site
    axis: int  # of the groups
    n_groups: int
    batch: GroupBatch | None  # None in a model without minibatches
    layout: Layout
    table: Parameter

    @classmethod
    def of(cls, site: Site, axis: int, batch: GroupBatch | None, starts: InitialValues) -> _Effects:
        n_groups = starts.point[site.value.name or ""].shape[axis]
        lines = GroupRows(rv=site.rv, n_groups=n_groups) if batch is None else batch.lines
        axes = (*site.axes[:axis], lines, *site.axes[axis + 1 :])
        whole = Site(site.rv, site.value, site.transform, axes)
        layout = Layout.of([whole], starts.point)
        start = np.concatenate(
            np.broadcast_arrays(starts.means(layout), starts.rhos(layout)), axis=1
        ).astype(pytensor.config.floatX)
        if batch is None:
            start = np.broadcast_to(start, (n_groups, start.shape[1])).copy()
        table = Parameter(site.name, start, () if batch is None else (lines,))
        return cls(site, axis, n_groups, batch, layout, table)

    def params(self, table: Variable) -> tuple[Variable, Variable]:
        """Return means and standard deviations, of shape (groups, entries of a group)."""
        size = self.layout.size
        return table[:, :size], pt.softplus(table[:, size:])

    def fitted(self, param_values: ParamValues) -> Variable:
        """Return the parameters of the groups that are fitted, which are those with rows."""
        groups, table = self.site.groups, param_values[self.table]
        return table if groups is None else table[groups.positions]

    @property
    def size(self) -> int:
        """The number of entries of all groups that are fitted."""
        groups = self.site.groups
        n_groups = self.n_groups if groups is None else groups.positions.size
        return n_groups * self.layout.size

    def draw(self, table: Variable, sample_shape: SampleShape) -> Variable:
        """Draw the effects of groups, of shape (..., groups, entries)."""
        mu, sd = self.params(table)
        return mu + sd * noise((*sample_shape, mu.shape[0], mu.shape[1]))

    def value(self, lines: Variable, n_sample_dims: int) -> Variable:
        """Return the entries of each group from lines, of shape (..., groups, entries): groups come first."""
        [shape] = self.layout.shapes
        leading = tuple(lines.shape[k] for k in range(n_sample_dims + 1))
        return lines.reshape((*leading, *shape))

    def logq(self, lines: Variable, table: Variable) -> Variable:
        """Return the log-density of the effects of each group."""
        mu, sd = self.params(table)
        return log_normal(lines, mu, sd).sum(axis=-1)


class GroupMeanField(Guide):
    """Independent normal distributions of the effects of groups, fitted at the cost of a batch.

    It is the distribution that "mean_field" has. But a step draws the effects of the groups of its rows only, and
    each row has :math:`1/n_g` of the prior and the entropy of its group, which has :math:`n_g` rows. That is
    right on average. It is for the ELBO; the gradient of hyperparameters is noisier than with all groups.

    Parameters
    ----------
    counts : dict of str to array of int, optional
        The number of rows of each group, by variable, for loaders in which they cannot be counted. A row that
        reads two groups counts for both.
    axes : dict of str to int, optional
        The axis of the groups, by variable. By default the one along which the model reads them.

    Examples
    --------
    >>> y = np.random.default_rng(1).normal(size=20)
    >>> with pm.Model(coords={"user": range(5)}) as model:
    ...     user, data = pm.Minibatch(np.arange(20) % 4, y, batch_size=10)
    ...     effect = pm.Normal("effect", 0, pm.HalfNormal("s"), dims="user")
    ...     rows = pm.Normal("rows", effect[user], 1, observed=data)
    >>> approx = pm.fit(5, model=model, groups=["effect"], progressbar=False)
    >>> approx.sample(10).posterior["effect"].shape
    (1, 10, 5)
    """

    name = "group_mean_field"
    takes_groups = True
    effects: tuple[_Effects, ...]
    _saved: Mapping[Variable, Groups] | None = None

    def __init__(
        self, counts: Mapping[str, Any] | None = None, axes: Mapping[str, int] | None = None
    ) -> None:
        self.counts, self.axes = counts, axes

    def config(self) -> dict[str, Any]:
        counts = self.counts or {}
        return {
            "counts": {name: np.asarray(n).tolist() for name, n in counts.items()} or None,
            "axes": None if self.axes is None else dict(self.axes),
        }

    def bind(self, sites: Sequence[Site], starts: InitialValues, model: Model) -> Self:
        bound = copy(self)
        of_rv = {site.rv: site for site in sites}
        batches: dict[Variable, GroupBatch] = {}
        if self._saved is None or model_indexes(model):
            batches = {batch.rv: batch for batch in group_batches(model, list(of_rv), self.counts)}
        found = (
            {rv: batch.with_rows for rv, batch in batches.items()}
            if self._saved is None
            else self._saved
        )
        given = {b.rv.name: b.counts for b in batches.values() if not b.is_counted}
        bound.counts = {**(self.counts or {}), **given} or None
        bound.axes = {**(self.axes or {}), **{rv.name: b.axis for rv, b in batches.items()}}
        bound.effects = tuple(
            _Effects.of(
                replace(of_rv[rv], groups=found.get(rv)),
                bound.axes[rv.name],
                batches.get(rv),
                starts,
            )
            for rv in children_first(model, list(of_rv))
        )
        bound.sites = tuple(effects.site for effects in bound.effects)
        bound.parameters = tuple(effects.table for effects in bound.effects)
        return bound

    def of_saved(self, groups: Mapping[Variable, Groups]) -> Self:
        new = copy(self)
        new._saved = groups
        return new

    @property
    def of_batch(self) -> tuple[Guide, ...]:
        # In a model without minibatches a step takes all groups
        by_batch = [_OfBatch(e, e.batch) for e in self.effects if e.batch is not None]
        return tuple(by_batch) or (self,)

    @property
    def group_batches(self) -> tuple[GroupBatch, ...]:
        return tuple(e.batch for e in self.effects if e.batch is not None)

    def draw(
        self, param_values: ParamValues, sample_shape: SampleShape, parents: Parents
    ) -> Latents:
        drawn = [e.draw(e.fitted(param_values), sample_shape) for e in self.effects]
        flat = [lines.reshape((*sample_shape, e.size)) for e, lines in zip(self.effects, drawn)]
        return (pt.concatenate(flat, axis=-1),)

    def values(self, latents: Latents, n_sample_dims: int) -> dict[Site, Variable]:
        return {
            e.site: pt.moveaxis(
                e.value(lines, n_sample_dims), n_sample_dims, n_sample_dims + e.axis
            )
            for e, lines in self._lines(latents, n_sample_dims)
        }

    def logq(
        self, latents: Latents, param_values: ParamValues, n_sample_dims: int, parents: Parents
    ) -> Variable:
        terms = [
            e.logq(lines, e.fitted(param_values)).sum(axis=-1)
            for e, lines in self._lines(latents, n_sample_dims)
        ]
        return pt.add(*terms) if len(terms) > 1 else terms[0]

    def _lines(self, latents: Latents, n_sample_dims: int) -> Iterator[tuple[_Effects, Variable]]:
        """Yield the lines of the groups of each variable, of shape (..., groups, entries)."""
        [flat] = latents
        sample_shape, start = tuple(flat.shape[k] for k in range(n_sample_dims)), 0
        for effects in self.effects:
            part = flat[..., start : start + effects.size]
            yield effects, part.reshape((*sample_shape, -1, effects.layout.size))
            start += effects.size

    def moments(self, param_values: ParamValues) -> tuple[Variable, Variable]:
        found = [e.params(e.fitted(param_values)) for e in self.effects]
        means, sds = (pt.concatenate([part.ravel() for part in parts]) for parts in zip(*found))
        return means, sds


class _OfBatch(Guide):
    """Effects of the groups of a batch: for each of its rows, and each group that it reads."""

    name = GroupMeanField.name

    def __init__(self, effects: _Effects, batch: GroupBatch) -> None:
        self.effects, self.batch, site = effects, batch, effects.site
        self.sites = tuple(
            Site(site.rv, slots, site.transform, batch.axes) for slots in batch.slots
        )
        self.parameters = (effects.table,)

    def bind(self, sites: object, starts: object, model: object) -> _OfBatch:
        return self

    def draw(
        self, param_values: ParamValues, sample_shape: SampleShape, parents: Parents
    ) -> Latents:
        effects = self.effects
        drawn = effects.draw(param_values[effects.table], sample_shape)
        lines = self._by_read(drawn, len(sample_shape))
        # A row that reads a group twice reads one draw of it
        for k, index in enumerate(self.batch.indexes):
            for first in reversed(range(k)):
                is_same = pt.eq(index, self.batch.indexes[first])
                lines[k] = pt.switch(is_same[:, None], lines[first], lines[k])
        return tuple(lines)

    def values(self, latents: Latents, n_sample_dims: int) -> dict[Site, Variable]:
        return {
            site: self.effects.value(lines, n_sample_dims)
            for site, lines in zip(self.sites, latents)
        }

    def logq(
        self, latents: Latents, param_values: ParamValues, n_sample_dims: int, parents: Parents
    ) -> Variable:
        lines = latents[0] if len(latents) == 1 else pt.concatenate(latents, axis=-2)
        logq = self.effects.logq(lines, param_values[self.effects.table])
        terms = self.batch.shares[self.batch.lines.index] * logq
        return reduce(pt.add, self._by_read(terms, n_sample_dims))

    def _by_read(self, lines: Variable, n_sample_dims: int) -> list[Variable]:
        """Split what a batch has for each group that its rows read, one index after the other."""
        n, before = self.batch.indexes[0].shape[0], (slice(None),) * n_sample_dims
        n_reads = len(self.sites)
        if n_reads == 1:
            return [lines]
        return [lines[(*before, slice(k * n, (k + 1) * n))] for k in range(n_reads)]
