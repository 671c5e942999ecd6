# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Register the Ops of tables of rows with the backends that compile them."""

from pytensor.compile import optdb

from pymc.minibatch.dispatch import LoadDispatch

optdb.register(
    "load_first_slots_numba",
    LoadDispatch("pymc.variational.rows.dispatch.numba"),
    "numba",
    position=0.01,
)
optdb.register(
    "load_first_slots_jax",
    LoadDispatch("pymc.variational.rows.dispatch.jax"),
    "jax",
    position=0.01,
)
