# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Fits that survive: what they are on the disk, and how they go on from there."""

from pymc import _layer

_layer.load_late(
    globals(),
    {
        "pymc.variational.checkpoints.approximation": ("load_approximation",),
        "pymc.variational.checkpoints.errors": (
            "CheckpointMismatchError",
            "CheckpointSaveError",
            "DamagedCheckpointError",
        ),
    },
)
