# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Parameters of the rows of a plate, as an embedding table with a sparse optimizer."""

from pytensor.compile import optdb

from pymc.minibatch.dispatch import LoadDispatch

optdb.register(
    "load_first_occurrence_numba",
    LoadDispatch("pymc.variational.local_params.numba_dispatch"),
    "numba",
    position=0.01,
)
