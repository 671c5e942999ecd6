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
"""How long something is at present, by the data that are there now."""

from __future__ import annotations

from typing import Any

from pytensor.compile.mode import Mode
from pytensor.graph.basic import Constant, Variable
from pytensor.graph.traversal import explicit_graph_inputs

__all__ = ["current_length"]

_cheap_mode = Mode(linker="py", optimizer=None)


def current_length(length: Any) -> int | None:
    """Evaluate a length as it is now; None where that takes inputs, or there is none."""
    from pymc.pytensorf import resolve_shapes

    if not isinstance(length, Variable):
        return None if length is None else int(length)
    if isinstance(length, Constant):
        return int(length.data)
    if any(True for _ in explicit_graph_inputs([length])):
        return None
    [length] = resolve_shapes([length])
    return int(length.eval(mode=_cheap_mode))
