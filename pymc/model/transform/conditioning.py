# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
from collections.abc import Mapping
from functools import wraps
from typing import Any

from pytensor.graph.basic import Variable
from pytensor.graph.traversal import ancestors

import pymc._layer as _layer

from pymc.minibatch.axis_tracking import Rows
from pymc.minibatch.data_placeholder import as_streamed, replaces_placeholders
from pymc.minibatch.rebuild import rebuild
from pymc.model.core import Model
from pymc.model.fgraph import fgraph_from_model, model_from_fgraph, unmarked

released = _layer.run_release(globals())


@wraps(released.observe)
def observe(model: Model, vars_to_observations: Mapping[Any, Any]) -> Any:
    # Observed values that use data of the model use those of the clone
    observed = {
        model[var] if isinstance(var, str) else var: as_streamed(model, obs)
        for var, obs in vars_to_observations.items()
    }
    used = set(ancestors([obs for obs in observed.values() if isinstance(obs, Variable)]))
    known = {*model.basic_RVs, *model.deterministics}
    if not used.isdisjoint(model.data_vars) and known.issuperset(observed):
        return _observe_data(model, observed)
    return released.observe(model, vars_to_observations)


def _observe_data(model: Model, observed: Mapping[Variable, Any]) -> Model:
    """Observe variables by values that are computed from data of the model: those of the clone."""
    fgraph, memo = fgraph_from_model(model)
    numbers = [Rows(var.owner.inputs[1]).state for var in model.root._streams.values()]
    data = {var: unmarked(memo[var]) for var in {*model.data_vars, *numbers}}
    replacements = []
    for var, obs in observed.items():
        node = memo[var].owner
        rv = node.inputs[0]
        [value] = rebuild([rv.type.filter_variable(obs)], data)
        new = released.model_observed_rv(rv, value, node.op.name, *node.op.dims)
        replacements.append((memo[var], new))
    released.toposort_replace(fgraph, replacements)
    return model_from_fgraph(fgraph, mutate_fgraph=True)


do = replaces_placeholders(released.do)
