#   Copyright 2026 - present The PyMC Developers
#
#   Licensed under the Apache License, Version 2.0 (the "License");
#   you may not use this file except in compliance with the License.
#   You may obtain a copy of the License at
#
#       http://www.apache.org/licenses/LICENSE-2.0
#
#   Unless required by applicable law or agreed to in writing, software
#   distributed under the License is distributed on an "AS IS" BASIS,
#   WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
#   See the License for the specific language governing permissions and
#   limitations under the License.
"""PyMC with minibatches: the modules here, and everything else from the installed release."""

import pymc._layer as _layer

_layer.run_release(globals())

from pymc.minibatch.batch_logp import minibatch_logp  # noqa: E402
from pymc.model.transform.minibatch import minibatch_model, remove_minibatch  # noqa: E402
from pymc.pytensorf import compile_pymc  # noqa: E402
from pymc.variational import callbacks  # noqa: E402

_layer.load_late(
    globals(),
    {
        "pymc.variational.guides": ("Amortized", "LowRank", "NormalizingFlow", "Structured"),
        "pymc.variational.objectives": ("Renyi", "ReweightedWakeSleep"),
        "pymc.variational.optimizers": ("Optimizer", "adamw"),
        "pymc.variational.streaming": (
            "DataLoader",
            "IterableDataset",
            "Loader",
            "Source",
            "Trainer",
            "arrow_source",
            "load_approximation",
            "parquet_source",
            "shuffle_buffer",
        ),
    },
)
