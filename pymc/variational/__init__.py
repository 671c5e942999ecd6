# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
import pymc._layer as _layer
import pymc._lazy as _lazy

_layer.run_release(globals())

from pymc.variational import callbacks, schedules  # noqa: E402

_lazy.load_late(
    globals(),
    {
        "pymc.variational.diagnostics": ("Diagnosis", "diagnose"),
        "pymc.variational.guides": (
            "Amortized",
            "FlatGuide",
            "Guide",
            "LowRank",
            "NormalizingFlow",
            "Structured",
        ),
        "pymc.variational.objectives": (
            "ELBO",
            "IWAE",
            "Objective",
            "Renyi",
            "ReweightedWakeSleep",
        ),
        "pymc.variational.optimizers": ("Optimizer", "adamw"),
        "pymc.variational.plots": ("plot_fit",),
        "pymc.variational.report": ("FitReport",),
        "pymc.variational.posterior.log_weights": ("log_evidence", "log_weights"),
    },
)
