# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Which guide each variable has: what `pm.fit(guide=...)` says, and a method's for the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from types import FunctionType, MethodType
from typing import Any

from pymc.minibatch.plates import subsampled_dims
from pymc.model.core import Model
from pymc.variational.guides.base import Guide, Plate, Site, topological_order
from pymc.variational.guides.flow import NormalizingFlow
from pymc.variational.guides.full_rank import FullRankGuide
from pymc.variational.guides.initial_values import InitialValues
from pymc.variational.guides.low_rank import LowRank
from pymc.variational.guides.mean_field import MeanFieldGuide
from pymc.variational.guides.model_guide import AutoGuide, ModelGuide
from pymc.variational.guides.structured import Structured
from pymc.variational.guides.unnumbered_rows import (
    UnnumberedRows,
    check_no_slots,
    dims_of_slots,
    unnumbered_rows,
)
from pymc.variational.opvi import (  # type: ignore[attr-defined]  # of the release
    ParametrizationError,
)
from pymc.vartypes import discrete_types

#: To the type checker a name that the release binds is no class.
model_class: Any = Model

#: By what the user writes; the short names are PyMC's.
FAMILIES: dict[str, Guide] = {
    "mean_field": MeanFieldGuide(),
    "mf": MeanFieldGuide(),
    "full_rank": FullRankGuide(),
    "fr": FullRankGuide(),
    "row_full_rank": FullRankGuide(of_rows=True),
    "low_rank": LowRank(),
    "normalizing_flow": NormalizingFlow(),
    "structured": Structured(),
}


#: What the argument `guide` of :func:`pymc.fit` says: names and the guide of each; None for all others.
type Requests = Sequence[tuple[tuple[str, ...] | None, Guide]]


def build_guides(
    model: Model,
    sites: Sequence[Site],
    requests: Requests,
    starts: InitialValues,
    others: str = "mean_field",
) -> tuple[Guide, ...]:
    """Make the guides of all variables of a model.

    Parameters
    ----------
    model : Model
    sites : sequence of Site
    requests : sequence of (names or None, Guide)
        As :func:`parse_guides` makes them.
    starts : Starts
    others : str
        The guide of variables that `requests` do not name.

    Returns
    -------
    tuple of Guide

    Raises
    ------
    ValueError, TypeError
        If a guide is for a variable that there is not, named twice, or couples rows; if a
        variable has a slot for each row of a batch that is fed by hand.
    """
    left = {site.name: site for site in sites}
    bound: list[Guide] = []
    rest: Guide | None = None
    for names, guide in requests:
        if names is None:
            rest = guide
            continue
        mine = [_take(left, name, sites) for name in names]
        bound += _bind(guide, mine, starts, model)
    check_no_slots(model, {site.rv: site.axes for site in sites})
    if rest is not None:
        return _in_order([*bound, *_bind(rest, left.values(), starts, model)])
    # The guide of a method is one of globals; rows have a mean-field one where it would couple them
    family = FAMILIES[others]
    coupled = [site for site in left.values() if site.plate and family.couples_rows]
    rest_sites = [site for site in left.values() if site not in coupled]
    bound += _bind(family, rest_sites, starts, model)
    return _in_order([*bound, *_bind(FAMILIES["mean_field"], coupled, starts, model)])


def _in_order(guides: Sequence[Guide]) -> tuple[Guide, ...]:
    """Put guides that others depend on before these.

    Raises
    ------
    ValueError
        If two depend on each other.
    """
    ordered, left = topological_order(
        guides, lambda guide: guide.sites, lambda guide: guide.reads()
    )
    if left:
        names = sorted(site.name for guide in left for site in guide.sites)
        raise ValueError(
            f"guide of pm.fit: the guides of {', '.join(map(repr, names))} depend on each other, "
            "and none can be drawn first. Write them in one pm.Model, or give them encoders of "
            "their own, in a pm.Amortized each, the first of data only"
        )
    return tuple(ordered)


def plates_of_guides(model: Model, requests: Requests) -> list[UnnumberedRows]:
    """List rows of the dims that guides are for and that the model does not subsample.

    A guide that is a model says no dim: it is for those along which its variables have a value for each
    row of a batch fed by hand.

    Raises
    ------
    ValueError
        If a guide is for a dim that the model does not have.
    """
    sampled = subsampled_dims(model)
    dims = dict.fromkeys(guide.dim for _, guide in requests)
    for names, guide in requests:
        if isinstance(guide, ModelGuide) and guide.dim is None:
            latent = {rv.name for rv in model.free_RVs}.intersection(names or ())
            dims |= dict.fromkeys(dims_of_slots(model, sorted(latent)))
    return [unnumbered_rows(model, dim) for dim in dims if dim is not None and dim not in sampled]


def parse_guides(model: Model, guide: Any) -> Requests:
    """Read the argument `guide` of :func:`pymc.fit`.

    Parameters
    ----------
    model : Model
    guide : None, str, Guide, Model, function of a model, list of these, or dict
        Of all variables, or by variable: names, variables or tuples of them, which share one guide;
        None stands for all others.

    Raises
    ------
    ValueError, TypeError
        If a guide is unknown, or a model that is no guide of `model`.
    """
    if guide is None:
        return []
    if isinstance(guide, Mapping):
        by_key = [(_names(key), _guide(value, model)) for key, value in guide.items()]
        return [(_of_model(names, one), one) for names, one in by_key]
    if isinstance(guide, list | tuple):
        return [(one.variables, one) for one in (_guide(g, model) for g in guide)]
    one = _guide(guide, model)
    if type(one) is ModelGuide:
        _check_complete(one, model)
    return [(one.variables, one)]


def _of_model(names: tuple[str, ...] | None, guide: Guide) -> tuple[str, ...] | None:
    """Let None stand for the variables of a guide model, where it is that of all others."""
    return guide.variables if names is None and type(guide) is ModelGuide else names


def _check_complete(guide: ModelGuide, model: Model) -> None:
    missing = [rv.name for rv in model.free_RVs if rv.name not in (guide.variables or ())]
    if missing:
        raise ValueError(
            f"guide of pm.fit is a model without {', '.join(map(repr, missing))}, which the model that is "
            "fitted has: add the variable to the guide, or say what its guide is by a list, "
            "guide=[guide_model, ...], in which other variables are 'mean_field', or by a dict"
        )


def _names(key: Any) -> tuple[str, ...] | None:
    if key is None:
        return None
    keys = key if isinstance(key, tuple) else (key,)
    return tuple(k if isinstance(k, str) else getattr(k, "name", repr(k)) for k in keys)


def _guide(parents: Any, model: Model) -> Guide:
    if isinstance(parents, str):
        if parents not in FAMILIES:
            raise ValueError(
                f"guide {parents!r} of pm.fit is none of {', '.join(map(repr, FAMILIES))}, or an object "
                "such as pm.LowRank(rank=5) or pm.Amortized(...), or a pm.Model"
            )
        return FAMILIES[parents]
    if isinstance(parents, Guide):
        return parents
    if isinstance(parents, FunctionType | MethodType | partial):
        parents = _called(parents, model)
    if isinstance(parents, model_class):
        return ModelGuide(parents).of_model(model)
    if isinstance(parents, AutoGuide):
        return ModelGuide.of_auto_guide(parents).of_model(model)
    raise TypeError(
        f"guide {parents!r} of pm.fit, of type {type(parents).__name__}, is no guide: give one of "
        f"{', '.join(map(repr, FAMILIES))}, an object such as pm.LowRank(rank=5), a pm.Model whose variables "
        "are named as the latent ones, a function of the model that returns one, or a dict of these by "
        "variable"
    )


def _called(function: Callable[[Any], Any], model: Model) -> Any:
    """Let a function write a guide of a model: it returns one, or writes it in the context it is called in."""
    written = model_class(model=None)  # not within the model that is fitted
    for dim, length in model.dim_lengths.items():
        written.add_coord(dim, model.coords[dim], length=length)
    with written:
        result = function(model)
    return written if result is None else result


def _take(left: dict[str, Site], name: str, sites: Sequence[Site]) -> Site:
    """Take a variable out of those without a guide."""
    if name in left:
        return left.pop(name)
    known = [site.name for site in sites]
    if name in known:
        raise ValueError(f"guide of pm.fit has {name!r} twice: each variable has one guide")
    raise ValueError(
        f"guide of pm.fit has {name!r}, but the model's free variables are {', '.join(map(repr, known))}"
    )


def _bind(guide: Guide, sites: Iterable[Site], starts: InitialValues, model: Model) -> list[Guide]:
    """Make a guide of a guide for the variables of each plate."""
    groups: dict[Plate, list[Site]] = {}
    for site in sites:
        groups.setdefault(site.plate, []).append(site)
    for plate, mine in groups.items():
        _check_coupling(guide, plate, [site.name for site in mine])
        _check_continuous(guide, mine)
    return [guide.bind(mine, starts, model) for mine in groups.values()]


def _check_coupling(guide: Guide, plate: Plate, names: Sequence[str]) -> None:
    listed, dims = ", ".join(map(repr, names)), ", ".join(str(rows.dim) for rows in plate)
    of_any_rows = isinstance(guide, ModelGuide) or guide.dim is not None
    if not all(rows.has_row_ids for rows in plate) and not of_any_rows:
        raise ValueError(
            f"guide {guide.name!r} keeps parameters of each row, but which rows of {dims!r} are there "
            f"only an index says, and the model has none: give {listed} an encoder in pm.Amortized or "
            "a guide that is a pm.Model, or subsample the dim by pm.Minibatch or batch_size="
        )
    instead = "Give it all rows, pm.remove_minibatch(model), or fit by method='advi'"
    if guide.name in FAMILIES:
        instead = (
            "Give these variables 'mean_field', or 'row_full_rank' for a covariance within each row, and the "
            f"other variables {guide.name!r}, by a dict: "
            f"guide={{'{names[0]}': 'mean_field', None: {guide.name!r}}}"
        )
    if guide.couples_rows and plate:
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
