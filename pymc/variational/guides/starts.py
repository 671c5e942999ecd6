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

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytensor
import pytensor.tensor as pt

from pymc.initial_point import make_initial_point_fn
from pymc.minibatch.guards import full_data_model
from pymc.variational.guides.layout import Layout

__all__ = ["Starts"]


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
        ValueError
            If a start is for a variable that the model does not have as a free one.
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
        full = full_data_model(model)
        initial_point = make_initial_point_fn(
            model=full,
            overrides={name: _of_all_entries(full, name, x) for name, x in (start or {}).items()},
            jitter_rvs=set(),
            return_transformed=True,
        )
        return cls(initial_point(random_seed), dict(start_sigma or {}))

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
            rho = 0.0 if sigma is None else np.log(np.expm1(np.abs(sigma)))
            rhos[name] = np.broadcast_to(rho, shape)
        return _once_if_alike(layout.flatten(rhos)).astype(pytensor.config.floatX)


def _once_if_alike(flat: np.ndarray) -> np.ndarray:
    """Keep one row where all rows are alike."""
    if flat.ndim == 2 and len(flat) > 1 and (flat == flat[:1]).all():
        return flat[:1].copy()
    return flat


def _of_all_entries(model: Any, name: str, start: Any) -> Any:
    """Let one value be that of all entries of a variable."""
    if isinstance(start, str) or name not in model.named_vars:
        return start
    variable = pt.as_tensor(model[name], allow_xtensor_conversion=True)
    return np.broadcast_to(start, variable.shape.eval(mode="FAST_COMPILE"))
