# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Ops on rows of a batch that PyTensor has in several, and their rewrites and code for Numba."""

from pytensor.compile import optdb

from pymc.minibatch.dispatch import LoadDispatch
from pymc.variational.engine.kernels import gather_dot

optdb.register(
    "load_kernels_numba",
    LoadDispatch("pymc.variational.engine.kernels.numba_gather_dot"),
    "numba",
    position=0.01,
)
