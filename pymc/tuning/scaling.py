# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
import pymc._layer as _layer

from pymc.model.full_data import refuse_minibatch

released = _layer.run_release(globals())

find_hessian = refuse_minibatch("pm.find_hessian")(released.find_hessian)
find_hessian_diag = refuse_minibatch("pm.tuning.scaling.find_hessian_diag")(
    released.find_hessian_diag
)
