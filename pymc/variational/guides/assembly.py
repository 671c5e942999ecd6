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
"""Which guide each variable has: what `pm.fit(guide=...)` says, and a method's for the rest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pymc.minibatch.plates import subsampled_dims
from pymc.variational.guides.base import Guide, Plate, Site
from pymc.variational.guides.full_rank import FullRankGuide
from pymc.variational.guides.low_rank import LowRank
from pymc.variational.guides.mean_field import MeanFieldGuide
from pymc.variational.guides.starts import Starts
from pymc.variational.guides.unnumbered_rows import (
    UnnumberedRows,
    check_no_slots,
    unnumbered_rows,
)
from pymc.vartypes import discrete_types

__all__ = ["FAMILIES", "assemble", "there_of_guide"]


#: By what the user writes; the short names are PyMC's.
FAMILIES: dict[str, Guide] = {
    "mean_field": MeanFieldGuide(),
    "mf": MeanFieldGuide(),
    "full_rank": FullRankGuide(),
    "fr": FullRankGuide(),
    "row_full_rank": FullRankGuide(of_rows=True),
    "low_rank": LowRank(),
}


def assemble(
    model: Any, sites: Sequence[Site], guide: Any, starts: Starts, others: str = "mean_field"
) -> tuple[Guide, ...]:
    """Make the guides of all variables of a model.

    Parameters
    ----------
    model : Model
    sites : sequence of Site
    guide : None, str, guide, list of families, or dict
        Of all variables, or by variable: names, variables or tuples of them, which share one guide;
        None stands for all others.
    starts : Starts
    others : str
        The guide of variables that `guide` does not name.

    Returns
    -------
    tuple of Guide

    Raises
    ------
    ValueError, TypeError
        If a guide is unknown, for a variable that there is not, named twice, or couples rows; if a
        variable has a slot for each row of a batch that is fed by hand.
    """
    left = {site.name: site for site in sites}
    bound: list[Guide] = []
    rest = FAMILIES[others]
    for names, guide in _requests(guide):
        if names is None:
            rest = guide
            continue
        mine = [_take(left, name, sites) for name in names]
        bound += _bind(guide, mine, starts, model)
    check_no_slots(model, {site.rv: site.axes for site in sites})
    return _in_order([*bound, *_bind(rest, left.values(), starts, model)])


def _in_order(guides: Sequence[Guide]) -> tuple[Guide, ...]:
    """Put guides that others depend on before these.

    Raises
    ------
    ValueError
        If two depend on each other.
    """
    waiting, ordered = list(guides), []
    while waiting:
        pending = {site.rv for guide in waiting for site in guide.sites}
        free = [guide for guide in waiting if pending.isdisjoint(guide.reads())]
        if not free:
            names = sorted(rv.name for rv in pending)
            raise ValueError(
                f"guide of pm.fit: the guides of {', '.join(map(repr, names))} depend on each other, "
                "and none can be drawn first. Give variables that depend on each other encoders of "
                "their own, in a pm.Amortized each, the first of data only"
            )
        ordered.append(free[0])
        waiting.remove(free[0])
    return tuple(ordered)


def there_of_guide(model: Any, guide: Any) -> list[UnnumberedRows]:
    """Rows of the dims that guides are for and that the model does not subsample.

    Raises
    ------
    ValueError, TypeError
        If a guide is none, or for a dim that the model does not have.
    """
    sampled = subsampled_dims(model)
    dims = dict.fromkeys(guide.dim for _, guide in _requests(guide))
    return [unnumbered_rows(model, dim) for dim in dims if dim is not None and dim not in sampled]


def _requests(guide: Any) -> list[tuple[tuple[str, ...] | None, Guide]]:
    """Read the argument `guide`: names and the guide of each; None for all others."""
    if guide is None:
        return []
    if isinstance(guide, Mapping):
        return [(_names(key), _guide(value)) for key, value in guide.items()]
    families = [_guide(g) for g in guide] if isinstance(guide, list | tuple) else [_guide(guide)]
    return [(guide.variables, guide) for guide in families]


def _names(key: Any) -> tuple[str, ...] | None:
    if key is None:
        return None
    keys = key if isinstance(key, tuple) else (key,)
    return tuple(k if isinstance(k, str) else getattr(k, "name", repr(k)) for k in keys)


def _guide(given: Any) -> Guide:
    if isinstance(given, str):
        if given not in FAMILIES:
            raise ValueError(
                f"guide {given!r} of pm.fit is none of {', '.join(map(repr, FAMILIES))}, or an object "
                "such as pm.LowRank(rank=5) or pm.Amortized(...)"
            )
        return FAMILIES[given]
    if not isinstance(given, Guide):
        raise TypeError(
            f"guide {given!r} of pm.fit, of type {type(given).__name__}, is no guide: give one of "
            f"{', '.join(map(repr, FAMILIES))}, an object such as pm.Amortized(...), or a dict of "
            "these by variable"
        )
    return given


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


def _bind(guide: Guide, sites: Iterable[Site], starts: Starts, model: Any) -> list[Guide]:
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
    if not all(rows.knows_numbers for rows in plate) and guide.dim is None:
        raise ValueError(
            f"guide {guide.name!r} keeps parameters of each row, but which rows of {dims!r} are there "
            f"only an index says, and the model has none: give {listed} an encoder in pm.Amortized, or "
            "subsample the dim by pm.Minibatch or batch_size="
        )
    if guide.couples_rows and plate:
        raise ValueError(
            f"guide {guide.name!r} couples the rows of {listed}, which are on the subsampled dim "
            f"{dims!r}: a batch has only some of the rows, so their covariance with others could not "
            "be fitted, as batch normalisation cannot. Give these variables 'mean_field', or "
            "'row_full_rank' for a covariance within each row, and the other variables "
            f"{guide.name!r}, by a dict: guide={{'{names[0]}': 'mean_field', None: {guide.name!r}}}"
        )
    if guide.needs_rows and not plate:
        raise ValueError(
            f"guide {guide.name!r} is a covariance within each row of a subsampled dim, but {listed} "
            "has none: use 'full_rank'"
        )


def _check_continuous(guide: Guide, sites: Sequence[Site]) -> None:
    discrete = [site.name for site in sites if site.value.type.dtype in discrete_types]
    if discrete and not guide.takes_discrete:
        raise ValueError(
            f"guide {guide.name!r} is a normal distribution, but {', '.join(map(repr, discrete))} is "
            "discrete. Sum it out of the model (pm.Mixture), or give discrete variables of rows "
            "pm.Amortized(...) with a discrete distribution, under objective='rws'"
        )
