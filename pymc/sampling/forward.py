# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
import pymc._layer as _layer

from pymc.model.full_data import on_all_rows

released = _layer.run_release(globals())

sample_posterior_predictive = on_all_rows(released.sample_posterior_predictive)
sample_prior_predictive = on_all_rows(released.sample_prior_predictive)
