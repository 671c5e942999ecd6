# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
import pymc._layer as _layer

from pymc.model.full_data import refuse_minibatch

released = _layer.run_release(globals())

sample = refuse_minibatch("pm.sample")(released.sample)
init_nuts = refuse_minibatch("pm.init_nuts")(released.init_nuts)
