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
import pymc._layer as _layer

_layer.run_release(globals())

from pymc.variational import callbacks, schedules  # noqa: E402

_layer.load_late(
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
