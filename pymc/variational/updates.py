# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
from typing import TYPE_CHECKING, Any

import pymc._layer as _layer

from pymc.variational.schedules import takes_schedules

released = _layer.run_release(globals())

if TYPE_CHECKING:
    # What our modules use of the release's
    def get_or_compute_grads(loss_or_grads: Any, params: Any) -> Any: ...


sgd = takes_schedules(released.sgd)
momentum = takes_schedules(released.momentum)
nesterov_momentum = takes_schedules(released.nesterov_momentum)
adagrad = takes_schedules(released.adagrad)
adagrad_window = takes_schedules(released.adagrad_window)
rmsprop = takes_schedules(released.rmsprop)
adadelta = takes_schedules(released.adadelta)
adam = takes_schedules(released.adam)
adamax = takes_schedules(released.adamax)

#: The optimizers that have a learning rate.
SCHEDULED = (
    sgd,
    momentum,
    nesterov_momentum,
    adagrad,
    adagrad_window,
    rmsprop,
    adadelta,
    adam,
    adamax,
)
