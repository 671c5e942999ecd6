# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
import pymc._layer as _layer

from pymc.model.full_data import on_all_rows

released = _layer.run_release(globals())

compute_log_density = on_all_rows(released.compute_log_density)
