# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Look up in a model what a guide was written with, and which shared variables a fit trains.

A guide is written with the variables of one model. A fit may be of a clone of it, or of the same model on
minibatches: its data, batches and variables are looked up there by name.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

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


def batch_of(var: Variable, model: Model, guide: Any = None) -> Variable:
    """Look up a variable or a graph in `model`: data on a subsampled dim are the rows of the batch.

    Parameters
    ----------
    var : Variable
        A batch, data, an observed variable or a free one, of `model` or of the one it was made from; or
        what is computed from these.
    model : Model
    guide : Model, optional
        A model that the graph is written in. It may have data of its own, and its other names are its own.
    """
    var = as_streamed(model, in_model(var, model, _own_names(guide)))
    plates = subsampled_dims(model)
    if not plates or indexes([var]) or var in model.free_RVs:
        return var
    dims = {data: model.named_vars_to_dims.get(data.name) for data in model.data_vars}
    if guide is not None:
        dims |= {data: guide.named_vars_to_dims.get(data.name) for data in guide.data_vars}
    batches = {}
    for data in dims:
        batch = as_streamed(model, data)
        for k, dim in enumerate(dims[data] or ()):
            if dim in plates and not is_stream(plates[dim]):
                batch = take_rows(batch, plates[dim], k)
        if batch is not data:
            batches[data] = batch
    if var in batches:
        return batches[var]
    return _swapped(var, batches, model)


def _own_names(guide: Any) -> set[str]:
    """List the names of a guide model that say nothing of the variables of another model."""
    if guide is None:
        return set()
    return guide.named_vars.keys() - {data.name for data in guide.data_vars}


def in_model(var: Variable, model: Model, own_names: Collection[str] = ()) -> Variable:
    """Put variables of `model` in the place of those of the same name, and its index in that of others.

    Parameters
    ----------
    var : Variable
    model : Model
    own_names : collection of str
        Names that are not looked up.
    """
    own, plates = set(model.named_vars.values()), subsampled_dims(model)
    own.update(model.root._streams.values())
    if any(Rows(index).dim not in plates for index in indexes([var]) if Rows(index).dim):
        [var] = all_rows([var], model.dim_lengths)
    var = _of_streams(var, model)
    swaps: dict[Variable, Variable] = {}
    for index in indexes([var]):
        param_values = plates.get(Rows(index).dim or "")
        if param_values is not None and Rows(index) != Rows(param_values):
            swaps[index] = param_values
    containers = {id(shared.container): shared for shared in _shared_of_model(model)}
    for old in ancestors([var], blockers=own):
        new = model.named_vars.get(old.name) if old.name and old.name not in own_names else None
        if isinstance(old, SharedVariable) and old not in own:
            if new is None or new not in model.data_vars:
                new = containers.get(id(old.container))
        if new is not None and new is not old:
            swaps[old] = new
    for rv in model.observed_RVs:
        swaps[rv] = model.rvs_to_values[rv]
    swaps = {old: _value_of(new, model) for old, new in swaps.items()}
    return swaps[var] if var in swaps else _swapped(var, swaps, model)


def _of_streams(var: Variable, model: Model) -> Variable:
    """Put the placeholders of `model`, with the index of its rows, in the place of those of another."""
    own = model.root._streams
    by_name = {
        batch: own[batch.owner.inputs[0].name]
        for batch in streams_in([var])
        if batch.owner.inputs[0].name in own
    }
    return rebuild([var], by_name)[0]


def _value_of(var: Variable, model: Model) -> Variable:
    return model.rvs_to_values[var] if var in model.observed_RVs else var


def _swapped(var: Variable, swaps: Mapping[Variable, Variable], model: Model) -> Variable:
    """Replace variables, but not in what free variables of the model and other indexes are computed from."""
    kept = [*model.free_RVs, *(i for i in indexes([var], by_shape=True) if i not in swaps)]
    return rebuild([var], {**{one: one for one in kept}, **swaps})[0]


def trainable(
    dists: Sequence[Variable], model: Model, data: Collection[Variable] = ()
) -> list[SharedVariable]:
    """List the shared variables of floats that distributions are computed from, data aside.

    Parameters
    ----------
    dists : sequence of Variable
    model : Model
        Its data are not listed, nor what its own variables are computed from.
    data : collection of Variable
        More data.
    """
    known = {*model.data_vars, *data}
    found = ancestors(dists, blockers=[*model.free_RVs, *known])
    return [var for var in dict.fromkeys(found) if _is_weight(var) and var not in known]


def _is_weight(var: Variable) -> bool:
    if not isinstance(var, SharedVariable) or isinstance(var, RawData):
        return False
    return str(getattr(var.type, "dtype", "")).startswith("float")


def _shared_of_model(model: Model) -> list[SharedVariable]:
    terms = [*model.basic_RVs, *model.potentials]
    data = set(model.data_vars)
    return [v for v in dict.fromkeys(ancestors(terms)) if _is_weight(v) and v not in data]


def check_params(
    params: Sequence[Any] | None,
    dists: Sequence[Variable],
    model: Model,
    data: Collection[Variable] = (),
) -> tuple[SharedVariable, ...]:
    """Tell which shared variables a guide trains.

    Parameters
    ----------
    params : sequence of SharedVariable, optional
        What the user chose; by default all that are reached, those of the model's own terms aside.
    dists : sequence of Variable
    model : Model
    data : collection of Variable
        Shared variables that are data of the guide.

    Raises
    ------
    TypeError, ValueError
        If one is no shared variable of floats, or the distributions do not depend on it, or the model
        depends on it too.
    """
    reached, own = trainable(dists, model, data), set(_shared_of_model(model))
    if params is None:
        return tuple(var for var in reached if var not in own)
    call = "pm.Amortized"
    chosen = tuple(_chosen(var, reached, model, call, "the encoders depend") for var in params)
    for var in chosen:
        if var in own:
            raise ValueError(
                f"params of {call} has {var.name or str(var)!r}, which the log-probability of the model "
                "depends on too, so that it is trained as a parameter of the model, with its part of "
                "the gradient through the encoder: list it in pm.fit(params=...) instead"
            )
    return chosen


def model_parameters(model: Model, params: Sequence[Any]) -> tuple[SharedVariable, ...]:
    """Check the argument `params` of :func:`pymc.fit`: shared variables of the model that are trained.

    Parameters
    ----------
    model : Model
    params : sequence of SharedVariable
        Of `model`, or of the one that it was made from.

    Returns
    -------
    tuple of SharedVariable
        Those of `model`, in the order of `params`; their values are shared with `params`.

    Raises
    ------
    TypeError, ValueError
        If one is no shared variable of floats, is data, or is not reached from the log-probability.
    """
    if isinstance(params, SharedVariable):
        raise TypeError(
            f"params={params} of pm.fit is a list of shared variables: write [{params}]"
        )
    reached, call = _shared_of_model(model), "pm.fit"
    chosen = tuple(_chosen(var, reached, model, call, "the model depends") for var in params)
    return tuple(dict.fromkeys(chosen))


def _chosen(
    var: Any, reached: Sequence[SharedVariable], model: Model, call: str, depends: str
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
        if shared is var or shared.container is var.container:
            return shared
    names = [shared.name or str(shared) for shared in reached]
    raise ValueError(
        f"params of {call} has {var.name or str(var)!r}, but the shared variables of floats that "
        f"{depends} on are {names}"
    )
