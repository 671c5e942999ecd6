# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
from collections.abc import Sequence
from functools import wraps
from typing import Any

from pytensor.graph.basic import Variable

import pymc._layer as _layer

from pymc.minibatch.rebuild import rebuild
from pymc.model.core import Model
from pymc.model.fgraph import WithoutInitvals

released = _layer.run_release(globals())


@wraps(released.freeze_dims_and_data)
def freeze_dims_and_data(
    model: Model, dims: Sequence[str] | None = None, data: Sequence[str] | None = None
) -> Any:
    names = {var.name for var in model.data_vars} if data is None else set(data)
    placeholders = sorted(names.intersection(model.root._streams))
    if placeholders:
        raise ValueError(
            f"freeze_dims_and_data would make constants of {', '.join(map(repr, placeholders))}, into which a "
            "loader puts other rows at each step. Name the data to freeze, data=[...], without these; for "
            "some rows alone, put them into another pm.Data"
        )
    rvs, lengths, initvals = model.named_vars, model.dim_lengths, model.rvs_to_initial_values
    new_model = released.freeze_dims_and_data(WithoutInitvals(model), dims, data)
    # Symbolic initial values too, with the variables and lengths of the new model
    variables = {var: new_model[name] for name, var in rvs.items()}
    variables |= {length: new_model.dim_lengths[dim] for dim, length in lengths.items()}
    for rv, initval in initvals.items():
        if isinstance(initval, Variable):
            [initval] = rebuild([initval], variables)
        new_model.rvs_to_initial_values[new_model[rv.name]] = initval
    return new_model
