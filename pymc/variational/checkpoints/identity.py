# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Identity of a model, a step and the installed versions, in words that a mismatch is reported with."""

from __future__ import annotations

import platform
import re
import warnings

from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from pytensor.compile.sharedvalue import SharedVariable
from pytensor.graph.basic import Apply, Constant, Variable
from pytensor.graph.op import HasInnerGraph, Op
from pytensor.graph.replace import graph_replace
from pytensor.graph.traversal import ancestors
from pytensor.graph.type import HasDataType
from pytensor.scan.op import Scan
from pytensor.tensor.random.type import RandomType

from pymc.minibatch.plates import local_axes
from pymc.printing import str_for_dist
from pymc.variational.checkpoints.store import Value
from pymc.variational.engine.step import host_value
from pymc.variational.local_params.parts import Parts
from pymc.variational.minibatch_rv import unscaled_rv

if TYPE_CHECKING:
    from pymc.model.core import Model

__all__ = [
    "array_text",
    "differences",
    "dims_identity",
    "graph_hash",
    "latent_identity",
    "model_differences",
    "model_identity",
    "names_of",
    "step_differences",
    "types_of",
    "versions",
    "warn_of_versions",
]

#: Packages that also compute, by backend.
COMPILERS = {"numba": ("numba", "llvmlite"), "jax": ("jax", "jaxlib"), "c": (), "python": ()}

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")

Identity = dict[str, dict[str, str]]


@runtime_checkable
class Distribution(Protocol):
    """An Op of draws that knows which of its inputs are parameters."""

    def dist_params(self, node: Apply) -> Sequence[Variable]: ...


def model_identity(model: Model) -> Identity:
    """Describe the variables and dims of a model in words, and their graphs and observed values by hashes.

    Examples
    --------
    >>> from pymc.variational.checkpoints.identity import model_identity
    >>> with pm.Model(coords={"group": ["a", "b"]}) as model:
    ...     sigma = pm.HalfNormal("sigma", dims="group")
    >>> model_identity(model)["variables"]
    {'sigma': "HalfNormal(0, 1), free, dims ('group',), Vector(float64, shape=(?,)), LogTransform"}
    """
    potentials = {term.name: f"Potential, {term.type}" for term in model.potentials}
    graphs = {term.name: _model_hash(model, [term]) for term in model.potentials}
    return {
        "variables": {rv.name: _variable_text(model, rv) for rv in model.basic_RVs} | potentials,
        "dims": dims_identity(model),
        "graphs": {rv.name: _rv_hash(model, rv) for rv in model.basic_RVs} | graphs,
        "shared": {},
    }


def dims_identity(model: Model) -> dict[str, str]:
    """Describe the dims of a model by their lengths, and a hash of their coords."""
    return {str(dim): _dim_text(model, dim) for dim in model.dim_lengths}


def latent_identity(model: Model, trained: Collection[SharedVariable] = ()) -> Identity:
    """Describe the free variables of a model, and the shared variables in priors, except trained ones."""
    free = model.free_RVs
    dims = {dim for rv in free for dim in model.named_vars_to_dims.get(rv.name) or ()}
    # The graph of a variable with a value for each row may depend on the batch that is in its place now
    priors = [rv for rv in free if rv not in local_axes(model)]
    shared = dict.fromkeys(var for rv in priors for var in _shared_inputs(model, rv))
    fixed = names_of([var for var in shared if var not in trained])
    return {
        "variables": {rv.name: _variable_text(model, rv) for rv in free},
        "dims": {str(dim): _dim_text(model, dim) for dim in model.dim_lengths if dim in dims},
        "graphs": {rv.name: _rv_hash(model, rv) for rv in priors},
        "shared": {name: _value_text(host_value(var)) for name, var in fixed.items()},
    }


def _value_text(value: np.ndarray) -> str:
    return repr(value.item()) if np.size(value) == 1 else array_text(value)


def model_differences(saved: Identity, now: Identity) -> Iterator[str]:
    """Yield a line for each difference of two models, by a hash only where no words say it."""
    for part in ("variables", "dims", "shared"):
        yield from differences(saved[part], now[part], f"model, {part}")
    for name, graph in saved["graphs"].items():
        is_told = saved["variables"].get(name) != now["variables"].get(name)
        if not is_told and now["graphs"].get(name) != graph:
            yield (
                f"model, graph of {name}: it has another hash and looks the same. An array, a number beyond "
                "three digits, an expression or the observed data differ"
            )


def step_differences(saved: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """Yield a line for each difference of what two steps of one model compute."""
    for line in differences(saved, now, "step"):
        is_graph = line.startswith("step, graph: ")
        yield f"{line}. A function of yours may compute something else" if is_graph else line


def _variable_text(model: Model, rv: Variable) -> str:
    role = "observed" if rv in model.observed_RVs else "free"
    dims = model.named_vars_to_dims.get(rv.name)
    transform = model.rvs_to_transforms.get(rv)
    parts = [
        _distribution_text(model, unscaled_rv(rv)[0]),
        role,
        "no dims" if dims is None else f"dims {tuple(dims)}",
        str(model.rvs_to_values[rv].type),
    ]
    return ", ".join(parts + ([] if transform is None else [type(transform).__name__]))


def _distribution_text(model: Model, rv: Variable) -> str:
    """Return a distribution as models print it, with shared variables by their names."""
    if rv.owner is None:
        return type(rv).__name__
    named = [var for var in model.named_vars.values() if not isinstance(var, SharedVariable)]
    shared = {
        var: var.type(name=var.name or "shared")
        for var in ancestors([rv, *named])
        if isinstance(var, SharedVariable) and not isinstance(var.type, RandomType)
    }
    copy, *known = graph_replace([rv, *named], shared, strict=False)
    try:
        text = str_for_dist(copy, named_vars={*known, *shared.values()} - {copy})
    except (AssertionError, AttributeError, TypeError, ValueError):  # it prints not all
        return type(rv.owner.op).__name__
    return text.split(" ~ ", 1)[-1]


def _dim_text(model: Model, dim: Hashable) -> str:
    length = model.dim_lengths[dim]
    n = "symbolic"  # the length of data
    if isinstance(length, Constant):
        n = str(int(length.data))
    elif isinstance(length, SharedVariable):
        n = str(int(host_value(length)))
    coords = model.coords.get(dim)
    if coords is None:
        return f"length {n}"
    return f"length {n}, coords {sha256(repr(tuple(coords)).encode()).hexdigest()[:16]}"


def _parameters(rv: Variable) -> list[Variable]:
    """Return the parameters of a distribution, without generators and lengths, or the variable itself."""
    rv = unscaled_rv(rv)[0]
    if rv.owner is None:
        return []
    op = rv.owner.op
    if not isinstance(op, Distribution):
        return [rv]
    return [var for var in op.dist_params(rv.owner) if not isinstance(var.type, RandomType)]


def _rv_hash(model: Model, rv: Variable) -> str:
    """Hash the distribution of a variable, what computes its parameters, and observed values."""
    data = [model.rvs_to_values[rv]] if rv in model.observed_RVs else []
    node = unscaled_rv(rv)[0].owner
    op = "" if node is None else _op_text(node.op)
    return _model_hash(model, [*_parameters(rv), *data], op, {*data})


def _model_hash(
    model: Model, outputs: Sequence[Variable], text: str = "", data: Collection[Variable] = ()
) -> str:
    """Hash a text and a graph of a model; random variables, and data other than `data`, are names."""
    known = {*model.basic_RVs, *model.data_vars, *model.rvs_to_values.values()}.difference(data)
    return graph_hash(outputs, [var for var in ancestors(outputs, known) if var in known], text)


def graph_hash(outputs: Sequence[Variable], inputs: Sequence[Variable] = (), text: str = "") -> str:
    """Hash a text, and what a graph computes from its inputs, which count by name and type.

    Examples
    --------
    >>> import pytensor.tensor as pt
    >>> from pymc.variational.checkpoints.identity import graph_hash
    >>> x, y = pt.scalars("x", "y")
    >>> graph_hash([(x - y) * x], [x, y]) == graph_hash([(x - y) * y], [x, y])
    False
    """
    return sha256("\n".join([text, *_graph_lines(outputs, inputs)]).encode()).hexdigest()[:16]


def _graph_lines(outputs: Sequence[Variable], inputs: Sequence[Variable]) -> Iterator[str]:
    """Describe each variable of a graph, with the numbers of those that it is computed from."""
    roots = set(inputs)
    numbers = {var: k for k, var in enumerate(dict.fromkeys([*inputs, *ancestors(outputs, roots)]))}
    for var in numbers:
        if var.owner is None or var in roots:
            yield _root_text(var)
        else:
            parents = [numbers[parent] for parent in var.owner.inputs]
            yield f"{_op_text(var.owner.op)} {var.owner.outputs.index(var)} of {parents}"
    yield f"outputs {[numbers[var] for var in outputs]}"


def _root_text(var: Variable) -> str:
    if not isinstance(var, Constant):
        return f"{var.name}: {var.type}"
    data = var.data
    return array_text(data) if isinstance(data, np.ndarray) else _ADDRESS.sub("", repr(data))


def _op_text(op: Op) -> str:
    """Describe an Op, and the graph inside of it, without what differs between processes."""
    parts = [_ADDRESS.sub("", str(op))]
    if isinstance(op, HasInnerGraph):
        parts += _graph_lines(op.fgraph.outputs, op.fgraph.inputs)
    if isinstance(op, Scan):
        parts.append(repr(op.info))  # which outputs of earlier steps its inputs are
    return "; ".join(parts)


def _shared_inputs(model: Model, rv: Variable) -> Iterator[SharedVariable]:
    """Yield the shared variables that a prior depends on.

    Data count only for the support: apart from it, :func:`pymc.set_data` may change them.
    """
    data = {*model.data_vars, *model.dim_lengths.values()}
    others = set(model.named_vars.values()) - {*data, rv}
    transform = model.rvs_to_transforms.get(rv)
    bounds: list[Variable] = []
    if transform is not None:
        bounds = [transform.backward(model.rvs_to_values[rv], *rv.owner.inputs)]
    for outputs, left_out in ((_parameters(rv), data), (bounds, set())):
        for var in ancestors(outputs, blockers=others):
            is_shared = isinstance(var, SharedVariable) and not isinstance(var.type, RandomType)
            if is_shared and var not in left_out and var.default_update is None:
                yield var


def array_text(array: np.ndarray) -> str:
    """Return dtype and shape of an array, and a hash of its values."""
    if array.dtype.hasobject:
        hashed = sha256(repr(array.tolist()).encode())
    else:  # without a copy of the data in memory
        hashed = sha256(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return f"{array.dtype} of shape {array.shape} {hashed.hexdigest()[:16]}"


def names_of(variables: Sequence[SharedVariable]) -> dict[str, SharedVariable]:
    """Return variables by name; where several have one name, a number is added.

    Examples
    --------
    >>> import pytensor
    >>> from pymc.variational.checkpoints.identity import names_of
    >>> list(names_of([pytensor.shared(1.0, "mu"), pytensor.shared(0.0), pytensor.shared(0.0)]))
    ['mu', 'array', 'array 2']
    """
    found: dict[str, SharedVariable] = {}
    for var in variables:
        kind = "array" if isinstance(var.type, HasDataType) else "generator"
        name = wanted = (var.name or kind).replace("/", ":")
        n = 1
        while wanted in found:
            n += 1
            wanted = f"{name} {n}"
        found[wanted] = var
    return found


def types_of(values: Mapping[str, Value]) -> dict[str, str]:
    """Return dtypes and shapes of arrays, and kinds of generators, by name.

    Examples
    --------
    >>> from pymc.variational.checkpoints.identity import types_of
    >>> types_of({"mu": np.zeros(3), "rng": np.random.default_rng(1)})
    {'mu': 'float64 of shape (3,)', 'rng': 'Generator'}
    """
    return {
        name: f"{value.dtype} of shape {value.shape}"
        if isinstance(value, np.ndarray | Parts)
        else type(value).__name__
        for name, value in values.items()
    }


def versions(backend: str) -> dict[str, str]:
    """Return the versions of all packages that compute, and the kind of processor."""
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


def warn_of_versions(saved: Mapping[str, str], now: Mapping[str, str], path: Path) -> None:
    """Warn if other versions computed what a checkpoint holds."""
    lines = list(differences(saved, now))
    if lines:
        warnings.warn(
            f"The checkpoint {str(path)!r} was written with other versions: {'; '.join(lines)}. What "
            "is loaded is the same, but the next steps may differ in their last bits",
            stacklevel=3,
        )


def differences(saved: object, now: object, where: str = "") -> Iterator[str]:
    """Yield a line for each difference of two trees of JSON values, with both sides.

    Examples
    --------
    >>> from pymc.variational.checkpoints.identity import differences
    >>> list(differences({"n_rows": 5, "seed": 1}, {"n_rows": 6, "seed": 1}, "data"))
    ['data, n_rows: 5 in the checkpoint, 6 now']
    """
    if isinstance(saved, Mapping) and isinstance(now, Mapping):
        for key in dict.fromkeys([*saved, *now]):
            inner = f"{where}, {key}" if where else str(key)
            if key not in now:
                yield f"{inner}: {_short(saved[key])} in the checkpoint, and none now"
            elif key not in saved:
                yield f"{inner}: none in the checkpoint, {_short(now[key])} now"
            else:
                yield from differences(saved[key], now[key], inner)
    elif saved != now:
        yield f"{where}: {_short(saved)} in the checkpoint, {_short(now)} now"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:197]}..."
