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
"""Where parameters of guides start."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytensor

from pymc.initial_point import make_initial_point_fn
from pymc.minibatch.guards import every_row
from pymc.minibatch.plates import local_axes
from pymc.minibatch.stream import is_stream
from pymc.variational.guides.base import Site
from pymc.variational.guides.layout import Layout
from pymc.variational.particles import as_tensor

__all__ = ["Starts", "check_used"]


@dataclass(frozen=True)
class Starts:
    """The point at which guides start, and how wide they are there.

    Parameters
    ----------
    point : mapping of str to array
        Values of all rows on the unconstrained space, by the name of the value variable.
    sigmas : mapping of str to array
        Standard deviations on the unconstrained space, by the name of the variable; ``softplus(0)``,
        0.69, where there is none.
    """

    point: Mapping[str, np.ndarray]
    sigmas: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        model: Any,
        start: Mapping[str, Any] | None = None,
        start_sigma: Mapping[str, Any] | None = None,
        random_seed: int | None = None,
    ) -> Starts:
        """Take the initial point of `model` on all rows, or what the user gives instead.

        Raises
        ------
        ValueError, TypeError
            If a start is for a variable that the model does not have as a free one, of another shape,
            or not in its support; or a standard deviation is not a positive number.
        """
        names = {rv.name for rv in model.free_RVs}
        values = {model.rvs_to_values[rv].name for rv in model.free_RVs}
        for argument, given in (("start", start), ("start_sigma", start_sigma)):
            unknown = sorted(set(given or ()) - names - values)
            if unknown:
                raise ValueError(
                    f"{argument} of pm.fit has {', '.join(map(repr, unknown))}, but the model's free "
                    f"variables are {sorted(names)}"
                )
        full = every_row(model)
        sigmas = {name: _sigma(name, sigma) for name, sigma in (start_sigma or {}).items()}
        initial_point = make_initial_point_fn(
            model=full,
            overrides={name: _of_all_entries(full, name, x) for name, x in (start or {}).items()},
            jitter_rvs=set(),
            return_transformed=True,
        )
        point = _without_data(model, initial_point(random_seed), start or {})
        _check_support(full, point, start or {})
        return cls(point, sigmas)

    def means(self, layout: Layout) -> np.ndarray:
        """Where each entry starts: shape (size,), or (1 or rows, size)."""
        return _once_if_alike(layout.flatten(self.point)).astype(pytensor.config.floatX)

    def rhos(self, layout: Layout) -> np.ndarray:
        """The same of the parameter whose softplus is the standard deviation."""
        rhos = {}
        for site in layout.sites:
            name = site.value.name or ""
            shape = np.shape(self.point[name])
            sigma = self.sigmas.get(site.name, self.sigmas.get(name))
            rho = 0.0 if sigma is None else np.log(np.expm1(sigma))
            rhos[name] = _broadcast("start_sigma", site.name, rho, shape)
        return _once_if_alike(layout.flatten(rhos)).astype(pytensor.config.floatX)


def _once_if_alike(flat: np.ndarray) -> np.ndarray:
    """Keep one row where all rows are alike."""
    if flat.ndim == 2 and len(flat) > 1 and (flat == flat[:1]).all():
        return flat[:1].copy()
    return flat


def check_used(sites: Sequence[Site], arguments: Mapping[str, Mapping[str, Any] | None]) -> None:
    """Refuse starts of variables whose guide does not start anywhere: that of an encoder.

    Parameters
    ----------
    sites : sequence of Site
        The variables that encoders draw.
    arguments : mapping of str to dict or None
        `start` and `start_sigma` as given.

    Raises
    ------
    ValueError
    """
    for argument, given in arguments.items():
        for site in sites:
            if given and (site.name in given or site.value.name in given):
                raise ValueError(
                    f"{argument} of pm.fit has {site.name!r}, whose distribution an encoder of "
                    "pm.Amortized gives: it starts where the encoder's parameters do, and this would "
                    f"change nothing. Leave {site.name!r} out, and set the parameters"
                )


def _without_data(
    model: Any, point: Mapping[str, np.ndarray], start: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """Start at 0 what starts where the data of its row say, if these come in batches from a loader."""
    point = dict(point)
    for rv, axes in local_axes(model).items():
        name = model.rvs_to_values[rv].name
        if start.keys().isdisjoint((rv.name, name)) and any(a and is_stream(a) for a in axes):
            point[name] = np.where(np.isfinite(point[name]), point[name], 0)
    return point


def _check_support(model: Any, point: Mapping[str, np.ndarray], start: Mapping[str, Any]) -> None:
    for rv in model.free_RVs:
        value = model.rvs_to_values[rv].name
        given = start.get(rv.name, start.get(value))
        if given is not None and not np.isfinite(point[value]).all():
            raise ValueError(
                f"start of pm.fit has {_short(given)} for {rv.name!r}, which is not within its support: "
                "on the unconstrained space, where the guide would start, it is not finite. Give a "
                "value that the variable can have"
            )


def _of_all_entries(model: Any, name: str, start: Any) -> Any:
    """Let one value be that of all entries of a variable."""
    if isinstance(start, str) or name not in model.named_vars:
        return start
    shape = as_tensor(model[name]).shape.eval(mode="FAST_COMPILE")
    return _broadcast("start", name, start, tuple(map(int, shape)))


def _sigma(name: str, sigma: Any) -> np.ndarray:
    """Check a standard deviation on the unconstrained space."""
    array = np.asarray(sigma)
    if array.dtype.kind not in "iuf":
        raise TypeError(
            f"start_sigma of pm.fit has {_short(sigma)} for {name!r}, of type {type(sigma).__name__}: "
            "a standard deviation is a number, or an array of them, such as 0.1"
        )
    if not (np.isfinite(array) & (array > 0)).all():
        raise ValueError(
            f"start_sigma of pm.fit has {_short(sigma)} for {name!r}: a standard deviation, here on the "
            "unconstrained space, is positive and finite, such as 0.1"
        )
    return array


def _broadcast(argument: str, name: str, given: Any, shape: tuple[int, ...]) -> np.ndarray:
    try:
        return np.broadcast_to(given, shape)
    except ValueError:
        raise ValueError(
            f"{argument} of pm.fit for {name!r} has the shape {np.shape(given)}, which does not broadcast "
            f"to {shape}, that of the variable: where it has rows, those of all data, not of a batch. "
            "Give one value for all entries, or one for each"
        ) from None


def _short(given: Any) -> str:
    return np.array2string(np.asarray(given), threshold=6)
