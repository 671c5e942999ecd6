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

"""Data larger than memory: rows from a source, batches of them, and fits that survive."""

from pymc import _layer

_layer.load_late(
    globals(),
    {
        "pymc.variational.streaming.checkpoints": ("load_approximation",),
        "pymc.variational.streaming.loading.base": ("Loader",),
        "pymc.variational.streaming.loading.loader": ("DataLoader",),
        "pymc.variational.streaming.loading.shuffle": ("shuffle_buffer",),
        "pymc.variational.streaming.sources.arrow": ("arrow_source",),
        "pymc.variational.streaming.sources.base": ("Source",),
        "pymc.variational.streaming.sources.dataset": ("IterableDataset",),
        "pymc.variational.streaming.sources.parquet": ("parquet_source",),
        "pymc.variational.streaming.trainer": ("Trainer",),
    },
)
