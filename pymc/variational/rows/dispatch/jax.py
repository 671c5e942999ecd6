# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""The first slot of each row on JAX, where shapes are fixed: by sorting, and sorting back."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from pytensor.graph.basic import Apply
from pytensor.link.jax.dispatch import jax_funcify

from pymc.variational.rows.first_slots import FirstSlots


def first_slots(index: jax.Array) -> jax.Array:
    """Find the first slots: a stable sort puts that of a row in front of its others."""
    order = jnp.argsort(index, stable=True)
    rows = index[order]
    begins = jnp.concatenate([jnp.ones(1, bool), rows[1:] != rows[:-1]])
    places = jnp.where(begins, jnp.arange(rows.shape[0]), 0)
    return jnp.zeros_like(order).at[order].set(order[jax.lax.cummax(places)])


@jax_funcify.register(FirstSlots)
def jax_funcify_FirstSlots(op: FirstSlots, node: Apply, **kwargs: Any) -> Callable:
    """Return the function for any number of slots."""
    return first_slots
