# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
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
