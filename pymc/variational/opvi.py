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
from collections.abc import Callable
from typing import Any

from pytensor.graph.replace import graph_replace

from pymc import _layer
from pymc.minibatch.guards import full_data_model
from pymc.minibatch.provenance import indexes


def _outside_scan(sample: Callable, node: Any) -> Any:
    """Draw each index once a step, outside of the Scan over particles, who share it."""
    several = isinstance(node, list | tuple)
    nodes = list(node) if several else [node]
    held = {index: index.type() for index in indexes(nodes, by_shape=True)}
    if not held:
        return sample(node)
    nodes = graph_replace(nodes, held, strict=False)
    draws = sample(nodes if several else nodes[0])
    return graph_replace(draws, {v: index for index, v in held.items()}, strict=False)


class _Group:
    def symbolic_sample_over_posterior(self, node: Any) -> Any:
        return _outside_scan(super().symbolic_sample_over_posterior, node)  # type: ignore[misc]


class _Approximation:
    def symbolic_sample_over_posterior(self, node: Any) -> Any:
        return _outside_scan(super().symbolic_sample_over_posterior, node)  # type: ignore[misc]

    def sample(self: Any, draws: int = 500, **kwargs: Any) -> Any:
        model = released.pm.Model.get_context(error_if_none=False) or self.model
        with full_data_model(model):  # deterministics on a subsampled dim are of all rows
            return super().sample(draws, **kwargs)  # type: ignore[misc]


released = _layer.run_release(globals(), Group=_Group, Approximation=_Approximation)
