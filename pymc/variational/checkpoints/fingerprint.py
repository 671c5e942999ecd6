# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""What a checkpoint is of: the model, the step and the versions, in a form that people can read."""

from __future__ import annotations

import platform
import warnings

from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from pytensor.compile.sharedvalue import SharedVariable
from pytensor.graph.basic import Constant, Variable
from pytensor.graph.replace import graph_replace
from pytensor.graph.traversal import ancestors
from pytensor.graph.type import HasDataType
from pytensor.tensor.random.type import RandomType

from pymc.printing import str_for_dist
from pymc.variational.checkpoints.graph_text import (
    graph_lines,
    plain_text,
)
from pymc.variational.engine.step import StepGraph, host_value
from pymc.variational.minibatch_rv import unscaled_rv

if TYPE_CHECKING:
    from pymc.model.core import Model

__all__ = [
    "differences",
    "model_fingerprint",
    "named",
    "step_fingerprint",
    "versions",
    "warn_of_versions",
]

#: What else computes, by backend.
COMPILERS = {"numba": ("numba", "llvmlite"), "jax": ("jax", "jaxlib"), "c": (), "python": ()}


def model_fingerprint(model: Model) -> dict[str, Any]:
    """Describe the variables of a model and its dims.

    Examples
    --------
    >>> from pymc.variational.checkpoints.fingerprint import model_fingerprint
    >>> with pm.Model(coords={"group": ["a", "b"]}) as model:
    ...     sigma = pm.HalfNormal("sigma", dims="group")
    >>> model_fingerprint(model)["variables"]
    {'sigma': "HalfNormal(0, 1), free, dims ('group',), TensorType(float64, shape=(None,)), LogTransform"}
    """
    variables = {rv.name: _variable_text(model, rv) for rv in model.basic_RVs}
    potentials = {term.name: plain_text(term.type) for term in model.potentials}
    dims = {str(dim): _dim_text(model, dim) for dim in model.dim_lengths}
    return {"variables": variables, "potentials": potentials, "dims": dims}


def _variable_text(model: Model, rv: Variable) -> str:
    role = "observed" if rv in model.observed_RVs else "free"
    dims = model.named_vars_to_dims.get(rv.name)
    transform = model.rvs_to_transforms.get(rv)
    parts = [
        _distribution_text(model, unscaled_rv(rv)[0]),
        role,
        "no dims" if dims is None else f"dims {tuple(dims)}",
        plain_text(model.rvs_to_values[rv].type),
    ]
    return ", ".join(parts + ([] if transform is None else [type(transform).__name__]))


def _distribution_text(model: Model, rv: Variable) -> str:
    """Write a distribution as models print it, with variables that may change by their names."""
    if rv.owner is None:
        return type(rv).__name__
    named = [var for var in model.named_vars.values() if not isinstance(var, SharedVariable)]
    held = {
        var: var.type(name=var.name or "shared")
        for var in ancestors([rv, *named])
        if isinstance(var, SharedVariable) and not isinstance(var.type, RandomType)
    }
    alike, *known = graph_replace([rv, *named], held, strict=False)
    try:
        return str_for_dist(alike, named_vars={*known, *held.values()} - {alike}).split(" ~ ", 1)[
            -1
        ]
    except (AssertionError, AttributeError, TypeError, ValueError):  # not all can be printed
        op = rv.owner.op
        return op._print_name[0] if isinstance(op, Named) else type(op).__name__


@runtime_checkable
class Named(Protocol):
    """An Op of draws that has a name, and one in LaTeX."""

    _print_name: tuple[str, str]


def _dim_text(model: Model, dim: Any) -> str:
    length = model.dim_lengths[dim]
    if isinstance(length, Constant):
        n: Any = int(length.data)
    elif isinstance(length, SharedVariable):
        n = int(host_value(length))
    else:
        n = "symbolic"  # the length of data, which are described with the step
    coords = model.coords.get(dim)
    if coords is None:
        return f"length {n}"
    return f"length {n}, coords {sha256(repr(tuple(coords)).encode()).hexdigest()[:16]}"


def step_fingerprint(
    graph: StepGraph, inputs: Sequence[SharedVariable], fed: Sequence[SharedVariable]
) -> dict[str, Any]:
    """Describe what a step computes, and the data that it has in memory.

    Parameters
    ----------
    graph : StepGraph
    inputs : sequence of SharedVariable
        The variables of a fit for those of the graph, in their order.
    fed : sequence of SharedVariable
        Placeholders of a stream: their values are not described.

    Returns
    -------
    dict of str
        "graph": a hash, since a graph has thousands of lines. "data": by name, what no step changes, with a hash of its bytes.
    """
    hashed = sha256()
    for line in graph_lines(graph.outputs, graph.shared):
        hashed.update(line.encode() + b"\n")
    hashed.update(repr((graph.updated, graph.has_loss, graph.guarded)).encode())
    fixed = {
        name: var
        for name, var in named(inputs).items()
        if inputs.index(var) not in graph.updated and var not in fed
    }
    data = {name: plain_text(host_value(var)) for name, var in fixed.items()}
    return {"graph": hashed.hexdigest()[:16], "data": data}


def named(variables: Sequence[SharedVariable]) -> dict[str, SharedVariable]:
    """Give each variable a name: its own, or what it is, with a number where several have it.

    Examples
    --------
    >>> import pytensor
    >>> from pymc.variational.checkpoints.fingerprint import named
    >>> list(named([pytensor.shared(1.0, "mu"), pytensor.shared(0.0), pytensor.shared(0.0)]))
    ['mu', 'array', 'array 2']
    """
    found: dict[str, SharedVariable] = {}
    for var in variables:
        kind = "array" if isinstance(var.type, HasDataType) else "generator"
        name = (var.name or kind).replace("/", ":")
        wanted, n = name, 1
        while wanted in found:
            n += 1
            wanted = f"{name} {n}"
        found[wanted] = var
    return found


def versions(backend: str) -> dict[str, str]:
    """Tell the versions of all that computes, and on which kind of processor."""
    names = ("pymc", "pymc-minibatch", "pytensor", "numpy", *COMPILERS.get(backend, ()))
    return {
        **{name: _version(name) for name in names},
        "python": platform.python_version(),
        "machine": platform.machine(),
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:  # a clone on the path
        return "not installed"


def differences(there: Any, here: Any, what: str = "") -> Iterator[str]:
    """Compare what a checkpoint is of with what it is loaded for.

    Yields
    ------
    str
        A line for each difference, with both sides.

    Examples
    --------
    >>> from pymc.variational.checkpoints.fingerprint import differences
    >>> list(differences({"n_rows": 5, "seed": 1}, {"n_rows": 6, "seed": 1}, "data"))
    ['data, n_rows: 5 in the checkpoint, 6 now']
    """
    if isinstance(there, Mapping) and isinstance(here, Mapping):
        for key in dict.fromkeys([*there, *here]):
            inner = f"{what}, {key}" if what else str(key)
            if key not in here:
                yield f"{inner}: {_short(there[key])} in the checkpoint, and none now"
            elif key not in there:
                yield f"{inner}: none in the checkpoint, {_short(here[key])} now"
            else:
                yield from differences(there[key], here[key], inner)
    elif there != here:
        yield f"{what}: {_short(there)} in the checkpoint, {_short(here)} now"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:197]}..."


def warn_of_versions(there: Mapping[str, str], here: Mapping[str, str], path: Any) -> None:
    """Say that results may differ in their last bits.

    Warns
    -----
    UserWarning
        If other versions computed what the checkpoint holds.
    """
    lines = list(differences(there, here))
    if lines:
        warnings.warn(
            f"The checkpoint {str(path)!r} was written with other versions: {'; '.join(lines)}. What "
            "is loaded is the same, and what comes next may differ in its last bits",
            stacklevel=3,
        )
