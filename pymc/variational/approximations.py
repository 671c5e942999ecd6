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
from typing import TYPE_CHECKING, Any

import pymc._layer as _layer

from pymc.pytensorf import floatX


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


released = _layer.run_release(globals(), EmpiricalGroup=_EmpiricalGroup)

if TYPE_CHECKING:
    # What our modules use of the release's
    class MeanFieldGroup: ...

    class FullRankGroup: ...


def _register_anew() -> None:
    """Let `Group(vfam="empirical")` make the class that `isinstance` knows.

    The release's decorator registered the class before the mixin came.
    """
    for registry in (released.Group._Group__name_registry, released.Group._Group__param_registry):
        for key, known in registry.items():
            if known.__name__ == "EmpiricalGroup":
                registry[key] = released.EmpiricalGroup


_register_anew()
