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
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

import pymc._layer as _layer

from pymc.pytensorf import floatX


def _set_rhos(group: Any, param: Any, entries: Any, start_sigma: Mapping[Any, Any] | None) -> None:
    """Let the entries of a parameter have the standard deviations that the user gives."""
    if not start_sigma:
        return
    from pymc.variational.guides.starts import read_sigmas, rhos_of_entries  # loads all guides

    sigmas = read_sigmas(group.model, start_sigma)
    values = param.get_value()
    rhos = values[entries]
    for name, entries_of_name, shape, _ in group.ordering.values():
        if name in sigmas:
            rhos[entries_of_name] = rhos_of_entries(name, sigmas[name], shape).ravel()
    values[entries] = rhos
    param.set_value(values)


class _MeanFieldGroup:
    def create_shared_params(
        self: Any, start: Any = None, start_sigma: Any = None
    ) -> dict[str, Any]:
        """Like the release's, but `start_sigma` takes both names of a variable, and any shape."""
        params = super().create_shared_params(start)  # type: ignore[misc]
        _set_rhos(self, params["rho"], slice(None), start_sigma)
        return params


class _FullRankGroup:
    def create_shared_params(
        self: Any, start: Any = None, start_sigma: Any = None
    ) -> dict[str, Any]:
        """Like the release's, with standard deviations on the diagonal, as of `MeanField`."""
        params = super().create_shared_params(start)  # type: ignore[misc]
        rows, columns = self.tril_indices
        if start_sigma is None:  # the release's class passes on `start` alone
            start_sigma = getattr(self, "_kwargs", {}).get("start_sigma")
        _set_rhos(self, params["L_tril"], np.flatnonzero(rows == columns), start_sigma)
        return params


class _EmpiricalGroup:
    def create_shared_params(
        self: Any,
        trace: Any = None,
        size: int | None = None,
        jitter: float = 1,
        start: Any = None,
    ) -> dict[str, Any]:
        """Like the release's, but the particles' jitter is drawn with the group's `random_seed`."""
        params = super().create_shared_params(trace, size, 0, start)  # type: ignore[misc]
        if trace is None:
            histogram = params["histogram"]
            particles = histogram.get_value(borrow=True)
            noise = self.rng.normal(0, jitter, particles.shape)
            histogram.set_value(floatX(particles + noise), borrow=True)
        return params


#: The release's classes that have a mixin in front
GROUPS = {
    "MeanFieldGroup": _MeanFieldGroup,
    "FullRankGroup": _FullRankGroup,
    "EmpiricalGroup": _EmpiricalGroup,
}

released = _layer.run_release(globals(), **GROUPS)

if TYPE_CHECKING:
    # What our modules use of the release's
    class MeanFieldGroup: ...

    class FullRankGroup: ...


def _register_anew() -> None:
    """Let `Group(vfam=...)` make the classes that `isinstance` knows.

    The release's decorator registered them before the mixins came.
    """
    for registry in (released.Group._Group__name_registry, released.Group._Group__param_registry):
        for key, known in registry.items():
            if known.__name__ in GROUPS:
                registry[key] = getattr(released, known.__name__)


_register_anew()
