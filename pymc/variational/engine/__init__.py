# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""The engine of a fit: a step compiled on each backend, and the loop over steps."""

from pytensor.compile import optdb

from pymc.minibatch.dispatch import LoadDispatch
from pymc.variational.engine import kernels, stored_draws

optdb.register(
    "load_stored_draws_jax",
    LoadDispatch("pymc.variational.engine.jax_dispatch"),
    "jax",
    position=0.01,
)
