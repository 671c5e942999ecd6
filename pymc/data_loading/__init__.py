# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0

"""Read data larger than memory: sources of rows, shuffling, prefetching, and the loader."""

from pymc._lazy import load_late

load_late(
    globals(),
    {
        "pymc.data_loading.data_loader": ("DataLoader", "shuffle_buffer"),
        "pymc.data_loading.loader": ("Loader",),
        "pymc.data_loading.sources.arrow": ("arrow_source",),
        "pymc.data_loading.sources.dataset": ("IterableDataset", "Source"),
        "pymc.data_loading.sources.parquet": ("parquet_source",),
    },
)
