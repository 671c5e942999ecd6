# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""PyMC with minibatches: the modules here, and everything else from the installed release."""

import pymc._layer as _layer
import pymc._lazy as _lazy

_layer.run_release(globals())

from pymc.minibatch.scaling import minibatch_logp  # noqa: E402
from pymc.model.transform.minibatch import minibatch_model, remove_minibatch  # noqa: E402
from pymc.pytensorf import compile_pymc  # noqa: E402
from pymc.variational import callbacks  # noqa: E402

_lazy.load_late(
    globals(),
    {
        "pymc.variational.guides": ("Amortized", "LowRank", "NormalizingFlow", "Structured"),
        "pymc.variational.objectives": ("Renyi", "ReweightedWakeSleep"),
        "pymc.variational.optimizers": ("Optimizer", "adamw"),
        "pymc.data_loading": (
            "DataLoader",
            "IterableDataset",
            "Loader",
            "Source",
            "arrow_source",
            "parquet_source",
            "shuffle_buffer",
        ),
        "pymc.variational.checkpoints": ("load_approximation",),
        "pymc.variational.cluster.workers": ("Rounds", "Workers"),
        "pymc.variational.trainer": ("Trainer",),
    },
)
