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
"""Data that were given to `pm.Minibatch` as arrays, and that nobody can set to others.

They are shared variables, since a constant of over 1 MB makes a compiled function uncacheable. JAX
has no such cache, but takes a copy of each shared array at each call: there they are constants.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytensor.tensor as pt

from pytensor.compile.mode import get_mode
from pytensor.graph.basic import Variable
from pytensor.graph.replace import graph_replace
from pytensor.graph.traversal import ancestors
from pytensor.tensor.sharedvar import TensorSharedVariable
from pytensor.tensor.type import TensorType

__all__ = ["RawData", "as_constants", "compiles_to_jax", "raw_data"]


class RawData(TensorSharedVariable):
    """A shared variable that stands for an array of the user's."""


def raw_data(value: np.ndarray, name: str | None = None) -> RawData:
    """Make a shared variable of `value`, of its static shape."""
    type_ = TensorType(value.dtype, shape=value.shape)
    return RawData(type=type_, value=value, strict=False, name=name)


def compiles_to_jax(mode: Any) -> bool:
    """Tell whether `mode` is one of JAX, without loading JAX."""
    return type(get_mode(mode).linker).__name__ == "JAXLinker"


def as_constants(graphs: Sequence[Variable]) -> list[Variable]:
    """Put constants in the place of raw data."""
    found = {
        var: pt.constant(var.container.data)
        for var in ancestors(graphs)
        if isinstance(var, RawData)
    }
    return graph_replace(list(graphs), found, strict=False) if found else list(graphs)
