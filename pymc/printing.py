# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
from functools import wraps
from typing import Any

from pytensor.graph.basic import Variable

import pymc._layer as _layer

from pymc.minibatch.rebuild import all_rows
from pymc.model.core import Model
from pymc.model.full_data import shown_model
from pymc.model.shown_model import ShownModel, with_batch_sizes

released = _layer.run_release(globals())


@wraps(released.str_for_dist)
def str_for_dist(dist: Variable, *args: object, **kwargs: object) -> str:
    from pymc.variational.minibatch_rv import unscaled_rv

    name = dist.name
    [dist] = all_rows([unscaled_rv(dist)[0]])
    dist.name = name
    return released.str_for_dist(dist, *args, **kwargs)


@wraps(released.str_for_model)
def str_for_model(model: Model, *args: object, **kwargs: object) -> str:
    return released.str_for_model(shown_model(model), *args, **kwargs)


@wraps(released.model_table)
def model_table(model: Model, **kwargs: object) -> Any:
    return released.model_table(ShownModel(model), **kwargs)


_dims_expression = with_batch_sizes(released._dims_expression)
