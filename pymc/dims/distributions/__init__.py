# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
import pymc._layer as _layer

_layer.run_release(globals())
