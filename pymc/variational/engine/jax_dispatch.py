# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Stored draws on JAX: a barrier that XLA's fusion does not cross."""

from collections.abc import Callable
from typing import Any

import jax

from pytensor.graph.basic import Apply
from pytensor.link.jax.dispatch import jax_funcify

from pymc.variational.engine.stored_draws import Stored


@jax_funcify.register(Stored)
def jax_funcify_Stored(op: Stored, node: Apply, **kwargs: Any) -> Callable:
    """Return the barrier."""
    return jax.lax.optimization_barrier
