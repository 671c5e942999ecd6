# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""The minibatch index on JAX."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pytensor.graph.basic import Apply
from pytensor.link.jax.dispatch import jax_funcify
from pytensor.link.jax.dispatch.random import jax_sample_fn
from pytensor.tensor.random.basic import CategoricalRV

from pymc.minibatch.index import MinibatchIndexRV, check_batch_size
from pymc.minibatch.shuffle import NARROW, WIDE, materialize

try:
    from jax import enable_x64
except ImportError:  # JAX < 0.8
    from jax.experimental import enable_x64  # type: ignore[no-redef, attr-defined]


@jax_funcify.register(MinibatchIndexRV)
def jax_funcify_MinibatchIndexRV(op: MinibatchIndexRV, node: Apply, **kwargs: object) -> Callable:
    """Make the function of a draw, which JAX traces anew for each number of rows."""
    narrow = partial(op.draw, jnp, pair_hash=NARROW)
    wide = partial(op.draw, jnp, pair_hash=WIDE)

    def draw_known(state: jax.Array, n_rows: int) -> tuple[jax.Array, jax.Array]:
        check_batch_size(op.batch_size, n_rows)
        return (narrow if n_rows <= NARROW.max_rows else wide)(state, n_rows)

    def draw_traced(state: jax.Array, n_rows: jax.Array) -> tuple[jax.Array, jax.Array]:
        n_rows = check_traced(op.batch_size, n_rows)
        if n_rows.dtype.itemsize <= 4:
            return narrow(state, n_rows)
        return jax.lax.cond(n_rows <= NARROW.max_rows, narrow, wide, state, n_rows)

    def minibatch_index(state: jax.Array, size: None, n_rows: Any) -> tuple[jax.Array, jax.Array]:
        # A shape is a plain int while JAX traces, and other rows make it trace again: the check
        # then costs nothing. Only a number of rows that is itself an input is known later.
        draw = draw_traced if isinstance(n_rows, jax.core.Tracer) else draw_known
        index_dtype = jnp.arange(0).dtype  # int32 where x64 is off, under floatX = "float32"
        with enable_x64(True):
            next_state, rows = draw(state, n_rows)
            return next_state, materialize(jnp, rows.astype(index_dtype))

    return minibatch_index


def check_traced(batch_size: int, n_rows: jax.Array) -> jax.Array:
    """Return `n_rows`, or raise in the run: JAX calls back only where they are too few."""

    def raise_error(n_rows: np.ndarray) -> np.ndarray:
        check_batch_size(batch_size, int(n_rows))
        return n_rows

    def call_back(n_rows: jax.Array) -> jax.Array:
        same = jax.ShapeDtypeStruct(n_rows.shape, n_rows.dtype)
        return jax.pure_callback(raise_error, same, n_rows, vmap_method="sequential")

    return jax.lax.cond(n_rows < batch_size, call_back, lambda n_rows: n_rows, n_rows)


@jax_sample_fn.register(CategoricalRV)
def jax_sample_fn_categorical(op: CategoricalRV, node: Apply) -> Any:
    """Draw from probabilities by their logarithm: PyTensor 3.3 takes their logit, which are others."""

    def sample_fn(rng_key: jax.Array, size: Any, dtype: str, p: jax.Array) -> jax.Array:
        return jax.random.categorical(rng_key, logits=jnp.log(p), shape=size)

    return sample_fn
