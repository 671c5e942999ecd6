# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Ops on rows of a batch that PyTensor has in several, and on many numbers, and their rewrites and code for Numba."""

from pytensor.compile import optdb

from pymc.minibatch.dispatch import LoadDispatch
from pymc.variational.engine.kernels import gather_dot, row_sums, vector_math

for kernel in (gather_dot, row_sums, vector_math):
    name = kernel.__name__.rpartition(".")[2]
    optdb.register(
        f"load_{name}_numba",
        LoadDispatch(f"pymc.variational.engine.kernels.numba_{name}"),
        "numba",
        position=0.01,
    )
