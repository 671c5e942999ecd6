# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""The argument `guide` of :func:`pymc.fit`: from names and objects to a bound guide of every variable."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from types import FunctionType, MethodType
from typing import Any, TypeAlias

import numpy as np

from pytensor.graph.basic import Variable

from pymc.minibatch.group_reads import Groups, groups_with_rows
from pymc.minibatch.plates import subsampled_dims
from pymc.model.core import Model
from pymc.variational.guides.base import Guide, Plate, Site, in_dependency_order, sites_of
from pymc.variational.guides.flow import NormalizingFlow
from pymc.variational.guides.full_rank import FullRankGuide
from pymc.variational.guides.group_mean_field import GroupMeanField
from pymc.variational.guides.initial_values import InitialValues, check_starts_used
from pymc.variational.guides.low_rank import LowRank
from pymc.variational.guides.mean_field import MeanFieldGuide
from pymc.variational.guides.model_guide import AutoGuide, ModelGuide
from pymc.variational.guides.prior import can_be_drawn
from pymc.variational.guides.structured import Structured
from pymc.variational.guides.unnumbered_rows import (
    UnnumberedRows,
    check_no_row_values,
    dims_of_row_values,
    unnumbered_rows,
)
from pymc.variational.opvi import (  # type: ignore[attr-defined]  # of the release
    ParametrizationError,
)
from pymc.vartypes import discrete_types

# To the type checker a name that the release binds is no class
model_class: Any = Model

#: Guides by name; the short names are PyMC's.
GUIDES: dict[str, Guide] = {
    "mean_field": MeanFieldGuide(),
    "mf": MeanFieldGuide(),
    "full_rank": FullRankGuide(),
    "fr": FullRankGuide(),
    "row_full_rank": FullRankGuide(of_rows=True),
    "low_rank": LowRank(),
    "normalizing_flow": NormalizingFlow(),
    "structured": Structured(),
    "group_mean_field": GroupMeanField(),
}

#: Names of variables, or None for all others, and their guide.
GuideSpecs: TypeAlias = Sequence[tuple[tuple[str, ...] | None, Guide]]


def make_guides(
    model: Model,
    guide: Any = None,
    *,
    others: str = "mean_field",
    start: Mapping[str, Any] | None = None,
    start_sigma: Mapping[str, Any] | None = None,
    rng: np.random.RandomState | None = None,
    starts: InitialValues | None = None,
    groups: Mapping[Variable, Groups] | None = None,
) -> tuple[Guide, ...]:
    """Return the guides of all variables of a model, with parameters at their start.

    `guide` is that of :func:`pymc.fit`, and `others` the guide of variables that it does not name. `starts`
    replaces `start`, `start_sigma` and `rng`. The guides of some variables are only for the `groups` of them:
    by default for those with rows.
    """
    if not model.free_RVs:
        raise TypeError(
            f"{model.name or 'The model'} has no free variables, so there is nothing to fit"
        )
    if starts is None:
        starts = InitialValues.from_model(model, start, start_sigma, rng)
    specs = _parse_guides(model, guide)
    sites = sites_of(model, _unnumbered_rows(model, specs))
    whole: set[Variable] = set()
    while True:
        found = groups_with_rows(model, whole) if groups is None else groups
        parts = [replace(site, groups=found.get(site.rv)) for site in sites]
        guides = _bind_all(model, parts, specs, starts, others)
        if groups is not None or not (kept := _kept_whole(guides, found)):
            break
        # What a variable with all of its groups depends on has other groups with rows
        whole |= kept
    of_models = [site for each in guides if isinstance(each, ModelGuide) for site in each.sites]
    check_starts_used(of_models, {"start": start, "start_sigma": start_sigma})
    return guides


def _kept_whole(guides: Sequence[Guide], groups: Mapping[Variable, Groups]) -> set[Variable]:
    """Return variables with groups that guides take as a whole, or that cannot be drawn from their prior."""
    kept = {rv for guide in guides for rv in guide.reads()}
    kept |= {s.rv for guide in guides for s in guide.sites if s.groups is None}
    for guide in guides:
        by_batch = [batch.rv for batch in guide.group_batches]
        for rv in kept.intersection(by_batch):
            readers = [g.name for g in guides if rv in g.reads()]
            if readers:
                raise ValueError(
                    f"groups of pm.fit has {rv.name!r}, but the guide {readers[0]!r} of other variables depends on "
                    "it, and needs all of its groups. Leave it out, or out of what this guide depends on"
                )
    return {rv for rv in groups if rv in kept or not can_be_drawn(rv)}


def _parse_guides(model: Model, guide: object) -> GuideSpecs:
    """Read the argument `guide` of :func:`pymc.fit`: one guide, a list of them, or a dict by variable.

    Keys of a dict are names, variables or tuples of them, which share one guide; None stands for all others.
    """
    if guide is None:
        return []
    if isinstance(guide, Mapping):
        specs = []
        for key, value in guide.items():
            one, names = _as_guide(value, model), _names(key)
            # A guide model for all others is for its own variables
            specs.append(
                (one.variables if names is None and type(one) is ModelGuide else names, one)
            )
        return specs
    if isinstance(guide, list | tuple):
        guides = [_as_guide(one, model) for one in guide]
        return [(one.variables, one) for one in guides]
    one = _as_guide(guide, model)
    missing = [rv.name for rv in model.free_RVs if rv.name not in (one.variables or ())]
    if type(one) is ModelGuide and missing:
        raise ValueError(
            f"guide of pm.fit is a model without {', '.join(map(repr, missing))}, which the model that is "
            "fitted has: add the variable to the guide, or say what its guide is by a list, "
            "guide=[guide_model, ...], in which other variables are 'mean_field', or by a dict"
        )
    return [(one.variables, one)]


def _names(key: object) -> tuple[str, ...] | None:
    if key is None:
        return None
    keys = key if isinstance(key, tuple) else (key,)
    return tuple(k if isinstance(k, str) else getattr(k, "name", repr(k)) for k in keys)


def _as_guide(guide: object, model: Model) -> Guide:
    if isinstance(guide, str):
        if guide not in GUIDES:
            raise ValueError(
                f"guide {guide!r} of pm.fit is none of {', '.join(map(repr, GUIDES))}, or an object "
                "such as pm.LowRank(rank=5) or pm.Amortized(...), or a pm.Model"
            )
        return GUIDES[guide]
    if isinstance(guide, Guide):
        return guide
    if isinstance(guide, FunctionType | MethodType | partial):
        guide = _call_guide(guide, model)
    if isinstance(guide, model_class):
        return ModelGuide(guide).for_model(model)
    if isinstance(guide, AutoGuide):
        return ModelGuide.of_auto_guide(guide).for_model(model)
    raise TypeError(
        f"guide {guide!r} of pm.fit, of type {type(guide).__name__}, is no guide: give one of "
        f"{', '.join(map(repr, GUIDES))}, an object such as pm.LowRank(rank=5), a pm.Model whose variables "
        "are named as the latent ones, a function of the model that returns one, or a dict of these by "
        "variable"
    )


def _call_guide(function: Callable[[Model], Any], model: Model) -> Any:
    """Call a function that returns a guide, or writes it in the model context of the call."""
    written = model_class(model=None)  # not within the model that is fitted
    for dim, length in model.dim_lengths.items():
        written.add_coord(dim, model.coords[dim], length=length)
    with written:
        result = function(model)
    return written if result is None else result


def _unnumbered_rows(model: Model, specs: GuideSpecs) -> list[UnnumberedRows]:
    """List the rows of dims that guides are for and that the model does not subsample.

    A guide model names no dim. It is for those along which its variables have a value for each row of a
    batch without an index.
    """
    sampled = subsampled_dims(model)
    dims = dict.fromkeys(guide.dim for _, guide in specs)
    for names, guide in specs:
        if isinstance(guide, ModelGuide) and guide.dim is None:
            latent = {rv.name for rv in model.free_RVs}.intersection(names or ())
            dims |= dict.fromkeys(dims_of_row_values(model, sorted(latent)))
    return [unnumbered_rows(model, dim) for dim in dims if dim is not None and dim not in sampled]


def _bind_all(
    model: Model,
    sites: Sequence[Site],
    specs: GuideSpecs,
    starts: InitialValues,
    others: str,
) -> tuple[Guide, ...]:
    """Bind the guides of all variables of a model, in an order in which they can be drawn."""
    left = {site.name: site for site in sites}
    guides: list[Guide] = []
    rest: Guide | None = None
    for names, guide in specs:
        if names is None:
            rest = guide
        else:
            guides += _bind(guide, [_take(left, name, sites) for name in names], starts, model)
    check_no_row_values(model, {site.rv: site.axes for site in sites})
    if rest is not None:
        guides += _bind(rest, left.values(), starts, model)
    else:
        # The guide of a method is for global variables; rows are mean-field where it would couple them
        family = GUIDES[others]
        coupled = [site for site in left.values() if site.plate and family.couples_rows]
        guides += _bind(family, [s for s in left.values() if s not in coupled], starts, model)
        guides += _bind(GUIDES["mean_field"], coupled, starts, model)
    return in_dependency_order(guides, lambda guide: guide.sites, lambda guide: guide.reads())


def _take(left: dict[str, Site], name: str, sites: Sequence[Site]) -> Site:
    """Remove a variable from those without a guide."""
    if name in left:
        return left.pop(name)
    known = [site.name for site in sites]
    if name in known:
        raise ValueError(f"guide of pm.fit has {name!r} twice: each variable has one guide")
    raise ValueError(
        f"guide of pm.fit has {name!r}, but the model's free variables are {', '.join(map(repr, known))}"
    )


def _bind(guide: Guide, sites: Iterable[Site], starts: InitialValues, model: Model) -> list[Guide]:
    """Bind a guide to the variables of each plate."""
    by_plate: dict[Plate, list[Site]] = {}
    for site in sites:
        part = site if guide.takes_groups else replace(site, groups=None)
        by_plate.setdefault(site.plate, []).append(part)
    for plate, group in by_plate.items():
        _check_plate(guide, plate, [site.name for site in group])
        _check_continuous(guide, group)
    return [guide.bind(group, starts, model) for group in by_plate.values()]


def _check_plate(guide: Guide, plate: Plate, names: Sequence[str]) -> None:
    """Raise if a guide cannot be one of variables on a plate, or of global ones."""
    listed, dims = ", ".join(map(repr, names)), ", ".join(str(rows.dim) for rows in plate)
    of_any_rows = isinstance(guide, ModelGuide) or guide.dim is not None
    if not all(rows.has_row_ids for rows in plate) and not of_any_rows:
        raise ValueError(
            f"guide {guide.name!r} keeps parameters of each row, but only an index says which rows of {dims!r} "
            f"the model holds, and the model has none: give {listed} an encoder in pm.Amortized or "
            "a guide that is a pm.Model, or subsample the dim by pm.Minibatch or batch_size="
        )
    if guide.couples_rows and plate:
        instead = "Give it all rows, pm.remove_minibatch(model), or fit by method='advi'"
        if guide.name in GUIDES:
            instead = (
                "Give these variables 'mean_field', or 'row_full_rank' for a covariance within each row, and the "
                f"other variables {guide.name!r}, by a dict: "
                f"guide={{'{names[0]}': 'mean_field', None: {guide.name!r}}}"
            )
        raise ValueError(
            f"guide {guide.name!r} couples the rows of {listed}, which are on the subsampled dim "
            f"{dims!r}: a batch has only some of the rows, so their covariance with others could not "
            f"be fitted, as batch normalisation cannot. {instead}"
        )
    if guide.needs_rows and not plate:
        raise ValueError(
            f"guide {guide.name!r} is a guide of each row of a subsampled dim, but {listed} "
            "has none: use 'full_rank', or 'normalizing_flow'"
        )


def _check_continuous(guide: Guide, sites: Sequence[Site]) -> None:
    discrete = [site.name for site in sites if site.value.type.dtype in discrete_types]
    if discrete and not guide.takes_discrete:
        raise ParametrizationError(
            f"Discrete variables are not drawn by the guide {guide.name!r}, and {', '.join(map(repr, discrete))} "
            "is discrete. Sum it out of the model (pm.Mixture), or give discrete variables of rows "
            "pm.Amortized(...) with a discrete distribution, under objective='rws'"
        )
