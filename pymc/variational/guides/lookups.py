# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Look up the variables of a guide in a model by name, and the shared variables that a fit trains.

A guide is written with the variables of one model. A fit may use a clone of it, or the same model on
minibatches.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from pytensor.compile.sharedvalue import SharedVariable
from pytensor.graph.basic import Variable
from pytensor.graph.traversal import ancestors

from pymc.minibatch.array_data import RawData
from pymc.minibatch.axis_tracking import Rows, indexes
from pymc.minibatch.data_placeholder import as_streamed
from pymc.minibatch.minibatch import take_rows
from pymc.minibatch.plates import subsampled_dims
from pymc.minibatch.rebuild import all_rows, rebuild
from pymc.minibatch.stream_index import is_stream, streams_in

if TYPE_CHECKING:
    from pymc.model.core import Model


def batch_in_model(var: Variable, model: Model, guide: Model | None = None) -> Variable:
    """Look up a graph in `model`, with the rows of the batch for data on a subsampled dim.

    `guide` is the model that the graph is written in, if it is not `model` or one that `model` was made
    from. It may have data of its own. Its other names belong to the guide and are not looked up.
    """
    guide_names = set()
    if guide is not None:
        guide_names = guide.named_vars.keys() - {data.name for data in guide.data_vars}
    var = as_streamed(model, in_model(var, model, guide_names))
    plates = subsampled_dims(model)
    if not plates or indexes([var]) or var in model.free_RVs:
        return var
    dims = {data: model.named_vars_to_dims.get(data.name) for data in model.data_vars}
    if guide is not None:
        dims |= {data: guide.named_vars_to_dims.get(data.name) for data in guide.data_vars}
    batches = {}
    for data, names in dims.items():
        batch = as_streamed(model, data)
        for k, dim in enumerate(names or ()):
            if dim in plates and not is_stream(plates[dim]):
                batch = take_rows(batch, plates[dim], k)
        if batch is not data:
            batches[data] = batch
    return _replace(var, batches, model)


def in_model(var: Variable, model: Model, skipped_names: Collection[str] = ()) -> Variable:
    """Replace variables by those of the same name in `model`, and indexes by that of the same dim.

    Observed variables become their values.
    """
    # Above the model's own variables all is in the model already
    known, plates = set(model.named_vars.values()), subsampled_dims(model)
    known.update(model.root._streams.values())
    if any(Rows(index).dim not in plates for index in indexes([var]) if Rows(index).dim):
        [var] = all_rows([var], model.dim_lengths)
    var = _with_streams_of(model, var)
    swaps: dict[Variable, Variable] = {}
    for index in indexes([var]):
        plate = plates.get(Rows(index).dim or "")
        if plate is not None and Rows(index) != Rows(plate):
            swaps[index] = plate
    containers = {id(shared.container): shared for shared in _weights_of_model(model)}
    for old in ancestors([var], blockers=known):
        new = model.named_vars.get(old.name) if old.name and old.name not in skipped_names else None
        if isinstance(old, SharedVariable) and old not in known:
            # A name alone is no proof for a weight: the value has to be the same object
            if new is None or new not in model.data_vars:
                new = containers.get(id(old.container))
        if new is not None and new is not old:
            swaps[old] = new
    values = {rv: model.rvs_to_values[rv] for rv in model.observed_RVs}
    swaps |= values
    return _replace(var, {old: values.get(new, new) for old, new in swaps.items()}, model)


def _with_streams_of(model: Model, var: Variable) -> Variable:
    """Replace streams of a loader by those of the same name in `model`."""
    streams = model.root._streams
    by_name = {
        batch: streams[batch.owner.inputs[0].name]
        for batch in streams_in([var])
        if batch.owner.inputs[0].name in streams
    }
    return rebuild([var], by_name)[0]


def _replace(var: Variable, swaps: Mapping[Variable, Variable], model: Model) -> Variable:
    """Replace variables, but not above free variables of the model and indexes."""
    kept = [*model.free_RVs, *indexes([var], by_shape=True)]
    return rebuild([var], {**{one: one for one in kept}, **swaps})[0]


def trainable(
    dists: Sequence[Variable], model: Model, data: Collection[Variable] = ()
) -> list[SharedVariable]:
    """List the shared variables of floats that distributions depend on, without `data` and the model's."""
    data = {*model.data_vars, *data}
    found = ancestors(dists, blockers=[*model.free_RVs, *data])
    return [var for var in dict.fromkeys(found) if _is_weight(var) and var not in data]


def _is_weight(var: Variable) -> bool:
    if not isinstance(var, SharedVariable) or isinstance(var, RawData):
        return False
    return str(getattr(var.type, "dtype", "")).startswith("float")


def _weights_of_model(model: Model) -> list[SharedVariable]:
    terms = [*model.basic_RVs, *model.potentials]
    data = set(model.data_vars)
    return [v for v in dict.fromkeys(ancestors(terms)) if _is_weight(v) and v not in data]


def guide_parameters(
    params: Sequence[object] | None,
    dists: Sequence[Variable],
    model: Model,
    data: Collection[Variable] = (),
) -> tuple[SharedVariable, ...]:
    """Return the shared variables that a guide trains: the user's choice, or all that `dists` depend on.

    Those that the model's terms depend on, and `data` of the guide, are left out.
    """
    reached, of_model = trainable(dists, model, data), set(_weights_of_model(model))
    if params is None:
        return tuple(var for var in reached if var not in of_model)
    call = "pm.Amortized"
    chosen = tuple(_check_param(var, reached, model, call, "the encoders depend") for var in params)
    for var in chosen:
        if var in of_model:
            raise ValueError(
                f"params of {call} has {var.name or str(var)!r}, which the log-probability of the model "
                "depends on too, so that it is trained as a parameter of the model, with its part of "
                "the gradient through the encoder: list it in pm.fit(params=...) instead"
            )
    return chosen


def model_parameters(model: Model, params: Sequence[object]) -> tuple[SharedVariable, ...]:
    """Check the argument `params` of :func:`pymc.fit`, and return the shared variables of `model`."""
    if isinstance(params, SharedVariable):
        raise TypeError(
            f"params={params} of pm.fit is a list of shared variables: write [{params}]"
        )
    reached = _weights_of_model(model)
    chosen = [_check_param(var, reached, model, "pm.fit", "the model depends") for var in params]
    return tuple(dict.fromkeys(chosen))


def _check_param(
    var: object, reached: Sequence[SharedVariable], model: Model, call: str, depends: str
) -> SharedVariable:
    if not isinstance(var, SharedVariable):
        raise TypeError(
            f"params of {call} has {var!r} of type {type(var).__name__}: they are shared variables of "
            "floats, such as pytensor.shared(np.zeros((2, 3)), name='weights')"
        )
    if var in model.data_vars or isinstance(var, RawData):
        raise ValueError(
            f"params of {call} has {var.name!r}, which is data of the model and is not trained: make "
            "it a pytensor.shared variable"
        )
    for shared in reached:
        # A clone of a model has clones of shared variables, with the same values in memory
        if shared is var or shared.container is var.container:
            return shared
    names = [shared.name or str(shared) for shared in reached]
    raise ValueError(
        f"params of {call} has {var.name or str(var)!r}, but the shared variables of floats that "
        f"{depends} on are {names}"
    )
