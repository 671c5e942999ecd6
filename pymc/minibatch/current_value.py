# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Values of graphs and lengths with the data as they are now."""

from __future__ import annotations

import numpy as np

from pytensor.compile.mode import Mode
from pytensor.graph.basic import Constant, Variable
from pytensor.graph.traversal import explicit_graph_inputs

from pymc.pytensorf import resolve_shapes

_CHEAP_MODE = Mode(linker="py", optimizer=None)


def current_value(var: Variable) -> np.ndarray | None:
    """Evaluate a graph; None if its value depends on inputs, and not only on their static shapes."""
    if isinstance(var, Constant):
        return np.asarray(var.data)
    [resolved] = resolve_shapes([var])
    if any(True for _ in explicit_graph_inputs([resolved])):
        return None
    return np.asarray(resolved.eval(mode=_CHEAP_MODE))


def current_length(length: Variable | int | None) -> int | None:
    """Return a length as a number; None if it has inputs, or there is none."""
    value = current_value(length) if isinstance(length, Variable) else length
    return None if value is None else int(value)
