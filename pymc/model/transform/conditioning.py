# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
from collections.abc import Mapping
from functools import wraps
from typing import Any

from pytensor.graph.basic import Variable
from pytensor.graph.traversal import ancestors

import pymc._layer as _layer

from pymc.minibatch.axis_tracking import Rows, indexes
from pymc.minibatch.data_placeholder import as_streamed, note_replacement
from pymc.minibatch.rebuild import rebuild
from pymc.minibatch.stream_index import StreamedRows
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
    if used.isdisjoint(model.data_vars) or not known.issuperset(observed):
        return released.observe(model, vars_to_observations)
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


def _placeholder(var: Variable | str) -> Variable | str:
    """Return the placeholder of streamed rows; other variables as they are."""
    if isinstance(var, Variable) and var.owner and isinstance(var.owner.op, StreamedRows):
        return var.owner.inputs[0]
    return var


@wraps(released.do)
def do(model: Model, vars_to_interventions: Mapping[Any, Any], **kwargs: object) -> Any:
    vars_to_interventions = {_placeholder(k): new for k, new in vars_to_interventions.items()}
    old = {model[var] if isinstance(var, str) else var for var in vars_to_interventions}
    for var, new in vars_to_interventions.items():
        if isinstance(new, Variable) and indexes([new]) and not old.isdisjoint(ancestors([new])):
            raise ValueError(
                f"pm.do replaces {var} by {new.name or new}, a minibatch of data that it replaces as "
                "well. Use pm.minibatch_model(model, batch_size=...) to have a model take rows of its "
                "own data, or give pm.do a minibatch of other data"
            )
    result = released.do(model, vars_to_interventions, **kwargs)
    for var in old:
        note_replacement(result, var.name)
    return result
