# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: save fits to the disk, and resume them."""

from pymc._lazy import load_late

load_late(
    globals(),
    {
        "pymc.variational.checkpoints.approximation": ("load_approximation",),
        "pymc.variational.checkpoints.store": (
            "CheckpointMismatchError",
            "CheckpointSaveError",
            "DamagedCheckpointError",
        ),
    },
)
