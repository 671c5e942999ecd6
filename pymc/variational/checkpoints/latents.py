# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Fingerprint of the free variables: priors and supports."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from pytensor.compile.sharedvalue import SharedVariable
from pytensor.graph.basic import Apply, Variable
from pytensor.graph.traversal import ancestors
from pytensor.tensor.random.type import RandomType

from pymc.minibatch.plates import local_axes
from pymc.variational.checkpoints.fingerprint import (
    differences,
    model_fingerprint,
    named,
)
from pymc.variational.checkpoints.graph_text import graph_lines, plain_text
from pymc.variational.engine.step import host_value
from pymc.variational.minibatch_rv import unscaled_rv

if TYPE_CHECKING:
    from pymc.model.core import Model

__all__ = ["latent_differences", "latent_fingerprint"]


def latent_fingerprint(model: Model, trained: Collection[SharedVariable] = ()) -> dict[str, Any]:
    """Describe the free variables of a model.

    Parameters
    ----------
    model : Model
    trained : collection of SharedVariable
        Whose values are those of an approximation, and are not described.

    Returns
    -------
    dict of str
        "variables" and "dims" as :func:`~pymc.variational.checkpoints.fingerprint.model_fingerprint`
        has them, "priors" as hashes of their graphs, and "shared": what these have in shared variables, by name.

    Examples
    --------
    >>> import pytensor
    >>> from pymc.variational.checkpoints.latents import latent_fingerprint
    >>> upper = pytensor.shared(2.0, "upper")
    >>> with pm.Model() as model:
    ...     u = pm.Uniform("u", 0, upper)
    >>> latent_fingerprint(model)["shared"]
    {'upper': '2.0'}
    """
    described = model_fingerprint(model)
    free = {rv.name for rv in model.free_RVs}
    dims = {str(dim) for name in free for dim in model.named_vars_to_dims.get(name) or ()}
    kept = {"variables": free, "dims": dims}
    parts = {
        part: {name: text for name, text in described[part].items() if name in names}
        for part, names in kept.items()
    }
    # What is of rows may depend on the batch that is in its place now
    priors = {rv.name: _prior(rv) for rv in model.free_RVs if rv not in local_axes(model)}
    hashes = {name: _hash(model, model[name], graphs) for name, graphs in priors.items()}
    held = [var for name in priors for var in _held(model, model[name], priors[name])]
    fixed = [var for var in dict.fromkeys(held) if var not in trained]
    values = {name: _value_text(host_value(var)) for name, var in named(fixed).items()}
    return {**parts, "priors": hashes, "shared": values}


def latent_differences(there: Any, here: Mapping[str, Any]) -> Iterator[str]:
    """Compare two models of an approximation: a line for each difference, in words where there are any."""
    lines = list(differences(there, here))
    told = {_name(line) for line in lines if line.startswith("variables, ")}
    for line in lines:
        if not line.startswith("priors, "):
            yield line
        elif _name(line) not in told:
            yield (
                f"{line}: the prior has another hash, and looks the same. It may be an array, a number "
                "beyond three digits, or an expression"
            )


def _name(line: str) -> str:
    return line.partition(", ")[2].partition(": ")[0]


@runtime_checkable
class Distribution(Protocol):
    """An Op of draws that knows which of its inputs are parameters."""

    def dist_params(self, node: Apply) -> Sequence[Variable]: ...


def _prior(rv: Variable) -> list[Variable]:
    """Take the parameters of a prior, without generators and lengths; or the variable itself."""
    rv = unscaled_rv(rv)[0]
    if rv.owner is None:
        return []
    op = rv.owner.op
    if not isinstance(op, Distribution):
        return [rv]
    return [var for var in op.dist_params(rv.owner) if not isinstance(var.type, RandomType)]


def _hash(model: Model, rv: Variable, graphs: Sequence[Variable]) -> str:
    """Hash the graphs of a prior, with other variables of the model and what is shared by their names."""
    known = set(model.named_vars.values())
    within = dict.fromkeys(ancestors(graphs))  # in an order that is the same in each process
    inputs = [var for var in within if isinstance(var, SharedVariable) or var in known]
    names = [var.name or "" for var in inputs]
    node = unscaled_rv(rv)[0].owner
    op = None if node is None else node.op
    text = "\n".join([plain_text(op), *names, *graph_lines(graphs, inputs)])
    return sha256(text.encode()).hexdigest()[:16]


def _held(model: Model, rv: Variable, graphs: Sequence[Variable]) -> Iterator[SharedVariable]:
    """Yield the shared variables a prior depends on.

    Data are in it where the support depends on them: elsewhere :func:`pymc.set_data` may change them.
    """
    data = {*model.data_vars, *model.dim_lengths.values()}
    others = set(model.named_vars.values()) - {*data, rv}
    transform = model.rvs_to_transforms.get(rv)
    bounds: list[Variable] = []
    if transform is not None:
        bounds = [transform.backward(model.rvs_to_values[rv], *rv.owner.inputs)]
    for found, left_out in ((graphs, data), (bounds, set())):
        for var in ancestors(found, blockers=others):
            is_held = isinstance(var, SharedVariable) and not isinstance(var.type, RandomType)
            if is_held and var not in left_out and var.default_update is None:
                yield var


def _value_text(value: Any) -> str:
    array = np.asarray(value)
    return repr(array.item()) if array.size == 1 else plain_text(value)
