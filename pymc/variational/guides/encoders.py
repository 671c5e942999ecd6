#   Copyright 2026 - present The PyMC Developers
#
#   Licensed under the Apache License, Version 2.0 (the "License");
#   you may not use this file except in compliance with the License.
#   You may obtain a copy of the License at
#
#       http://www.apache.org/licenses/LICENSE-2.0
#
#   Unless required by applicable law or agreed to in writing, software
#   distributed under the License is distributed on an "AS IS" BASIS,
#   WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
#   See the License for the specific language governing permissions and
#   limitations under the License.
"""What an encoder is called with, and what it leaves in its graph.

An encoder is written for the variables of one model. A fit may be of a clone of it, or of the same model
on minibatches: what the encoder takes is looked up there by name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pytensor.compile.sharedvalue import SharedVariable
from pytensor.graph.basic import Variable
from pytensor.graph.op import Op
from pytensor.graph.replace import graph_replace
from pytensor.graph.traversal import ancestors
from pytensor.tensor.random.op import RNGConsumerOp

from pymc.minibatch.plates import local_axes, subsampled_dims
from pymc.minibatch.provenance import Rows, indexes
from pymc.minibatch.raw_data import RawData
from pymc.minibatch.rebuild import all_rows, rebuild
from pymc.minibatch.slicing import take_rows
from pymc.minibatch.stream import is_stream, streams_in
from pymc.minibatch.streamed_data import as_streamed
from pymc.variational.guides.base import Site
from pymc.variational.guides.supports import check_support

__all__ = [
    "batch_of",
    "check_distribution",
    "check_params",
    "in_model",
    "model_parameters",
    "trainable",
]


def batch_of(var: Variable, model: Any) -> Variable:
    """Look up an input of an encoder in `model`: data on a subsampled dim are the rows of the batch.

    Parameters
    ----------
    var : Variable
        A batch, data, an observed variable or a free one, of `model` or of the one it was made from.
    model : Model
    """
    var = as_streamed(model, in_model(var, model))
    plates = subsampled_dims(model)
    if not plates or indexes([var]) or var in model.free_RVs:
        return var
    batches = {}
    for data in model.data_vars:
        batch = as_streamed(model, data)
        for k, dim in enumerate(model.named_vars_to_dims.get(data.name) or ()):
            if dim in plates and not is_stream(plates[dim]):
                batch = take_rows(batch, plates[dim], k)
        if batch is not data:
            batches[data] = batch
    if var in batches:
        return batches[var]
    return _swapped(var, batches, model)


def in_model(var: Variable, model: Any) -> Variable:
    """Put variables of `model` in the place of those of the same name, and its index in that of others."""
    own, plates = set(model.named_vars.values()), subsampled_dims(model)
    own.update(model.root._streams.values())
    if any(Rows(index).dim not in plates for index in indexes([var]) if Rows(index).dim):
        [var] = all_rows([var], model.dim_lengths)
    var = _of_streams(var, model)
    swaps: dict[Variable, Variable] = {}
    for index in indexes([var]):
        here = plates.get(Rows(index).dim or "")
        if here is not None and Rows(index) != Rows(here):
            swaps[index] = here
    containers = {id(shared.container): shared for shared in _shared_of_model(model)}
    for old in ancestors([var], blockers=own):
        new = model.named_vars.get(old.name) if old.name else None
        if isinstance(old, SharedVariable) and old not in own:
            if new is None or new not in model.data_vars:
                new = containers.get(id(old.container))
        if new is not None and new is not old:
            swaps[old] = new
    for rv in model.observed_RVs:
        swaps[rv] = model.rvs_to_values[rv]
    swaps = {old: _value_of(new, model) for old, new in swaps.items()}
    return swaps[var] if var in swaps else _swapped(var, swaps, model)


def _of_streams(var: Variable, model: Any) -> Variable:
    """Put the placeholders of `model`, with the index of its rows, in the place of those of another."""
    own = model.root._streams
    by_name = {
        batch: own[batch.owner.inputs[0].name]
        for batch in streams_in([var])
        if batch.owner.inputs[0].name in own
    }
    return rebuild([var], by_name)[0]


def _value_of(var: Variable, model: Any) -> Variable:
    return model.rvs_to_values[var] if var in model.observed_RVs else var


def _swapped(var: Variable, swaps: Mapping[Variable, Variable], model: Any) -> Variable:
    """Replace variables, but not in what the free variables of the model are computed from."""
    found = set(ancestors([var], blockers=model.free_RVs))
    swaps = {old: new for old, new in swaps.items() if old in found and old is not new}
    if not swaps:
        return var
    holders = {rv: rv.type() for rv in model.free_RVs if rv in found}
    held = graph_replace([var], holders, strict=False) if holders else [var]
    held = graph_replace(held, swaps, strict=False)
    [var] = graph_replace(held, {h: rv for rv, h in holders.items()}, strict=False)
    return var


def check_distribution(dist: Any, site: Site, model: Any) -> Op:
    """Check what an encoder returned, and tell the Op of the distribution.

    Raises
    ------
    TypeError
        If it is no distribution, or discrete where the variable is not.
    ValueError
        If it has other axes than the variable, or another support, or depends on a local variable.
    """
    name, op = site.name, getattr(getattr(dist, "owner", None), "op", None)
    call = f"the encoder of {name!r} in pm.Amortized"
    if not isinstance(op, RNGConsumerOp):
        raise TypeError(
            f"{call} has to return a distribution such as pm.Normal.dist(mu, sigma), got "
            f"{type(dist).__name__} {dist}"
        )
    if dist.type.ndim != site.rv.type.ndim:
        raise ValueError(
            f"{call} returns a distribution of {dist.type.ndim} axes, but the variable has "
            f"{site.rv.type.ndim}: give its parameters a value for each row and each entry of it"
        )
    for k, (length, asked) in enumerate(zip(dist.type.shape, site.rv.type.shape)):
        if None not in (length, asked) and length not in (1, asked):
            raise ValueError(
                f"{call} returns a distribution of length {length} along axis {k}, where the variable "
                f"has length {asked}"
            )
    if (dist.type.dtype[:3] == "int") != (site.rv.type.dtype[:3] == "int"):
        raise TypeError(
            f"{call} returns a distribution of {dist.type.dtype}, but the variable is of "
            f"{site.rv.type.dtype}: discrete variables need a discrete guide, and others none"
        )
    check_support(dist, op, site, call)
    _check_globals(dist, site, model, call)
    return op


def _check_globals(dist: Variable, site: Site, model: Any, call: str) -> None:
    plates = {rv: {a for a in axes if a is not None} for rv, axes in local_axes(model).items()}
    # What those depend on in the model is no matter of the guide, which draws in an order of its own
    parents = [var for var in ancestors([dist], blockers=model.free_RVs) if var in plates]
    for parent in parents:
        if parent is site.rv or plates[parent] != set(site.plate):
            raise ValueError(
                f"{call} depends on {parent.name!r}, which is the variable itself or local to other "
                "rows: an encoder takes data, global variables, and other local ones of its rows"
            )
    if site.transform is None:
        return
    constrained = site.transform.backward(site.value, *site.rv.owner.inputs)
    parents = [rv.name for rv in model.free_RVs if rv in set(ancestors([constrained]))]
    if parents:
        raise ValueError(
            f"the support of {site.name!r} depends on {parents[0]!r}, which pm.Amortized cannot follow: "
            "leave the variable to 'mean_field', or scale one of a fixed support in the model"
        )


def trainable(dists: Sequence[Variable], model: Any) -> list[SharedVariable]:
    """List the shared variables of floats that distributions are computed from, data aside.

    Parameters
    ----------
    dists : sequence of Variable
    model : Model
        Its data are not listed, nor what its own variables are computed from.
    """
    found = ancestors(dists, blockers=[*model.free_RVs, *model.data_vars])
    return [var for var in dict.fromkeys(found) if _is_weight(var) and var not in model.data_vars]


def _is_weight(var: Variable) -> bool:
    if not isinstance(var, SharedVariable) or isinstance(var, RawData):
        return False
    return str(getattr(var.type, "dtype", "")).startswith("float")


def _shared_of_model(model: Any) -> list[SharedVariable]:
    terms = [*model.basic_RVs, *model.potentials]
    data = set(model.data_vars)
    return [v for v in dict.fromkeys(ancestors(terms)) if _is_weight(v) and v not in data]


def check_params(
    params: Sequence[Any] | None, dists: Sequence[Variable], model: Any
) -> tuple[SharedVariable, ...]:
    """Tell which shared variables a guide trains.

    Parameters
    ----------
    params : sequence of SharedVariable, optional
        What the user chose; by default all that are reached, those of the model's own terms aside.
    dists : sequence of Variable
    model : Model

    Raises
    ------
    TypeError, ValueError
        If one is no shared variable of floats, or the distributions do not depend on it, or the model
        depends on it too.
    """
    reached, own = trainable(dists, model), set(_shared_of_model(model))
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


def model_parameters(model: Any, params: Sequence[Any]) -> tuple[SharedVariable, ...]:
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
    var: Any, reached: Sequence[SharedVariable], model: Any, call: str, depends: str
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
