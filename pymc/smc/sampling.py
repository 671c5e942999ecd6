# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
import pymc._layer as _layer

from pymc.model.full_data import refuse_minibatch

released = _layer.run_release(globals())

sample_smc = refuse_minibatch("pm.sample_smc")(released.sample_smc)
