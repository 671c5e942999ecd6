# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""The key of a step in the cache on disk: a hash of its graph before rewriting.

PyTensor's cache of Numba functions has keys of rewritten graphs, so that a new process has to rewrite a graph
to find the function that it had compiled before: most of the time to its first step. The key here has all
that rewriting and compilation depend on: the graph, but for the names in it, the flags of PyTensor and
Numba, the rewrites that are registered, versions and our own files. The index of Numba has its own version
and the CPU.

What is not known to be all in the key has none. Then the graph is compiled as without this cache.
"""

from __future__ import annotations

import logging
import os
import platform
import sys
import time

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cache
from hashlib import sha256
from operator import attrgetter
from pathlib import Path
from types import FunctionType
from typing import Any

import numpy as np
import pytensor
import scipy

from pytensor.compile.builders import OpFromGraph
from pytensor.compile.mode import optdb
from pytensor.graph.basic import Constant, Variable
from pytensor.graph.op import HasInnerGraph, Op
from pytensor.graph.rewriting.basic import (
    EquilibriumGraphRewriter,
    PatternNodeRewriter,
    Rewriter,
    SequentialGraphRewriter,
    SequentialNodeRewriter,
)
from pytensor.graph.rewriting.db import RewriteDatabase, SequenceDB
from pytensor.graph.traversal import io_toposort
from pytensor.graph.type import Type
from pytensor.scalar.basic import ScalarOp
from pytensor.scan.op import Scan

import pymc

from pymc.variational.engine.step import StepGraph

__all__ = ["graph_key", "step_key"]

# When our files were imported. They are read at the first fit, so that `import pymc` does not wait for it
IMPORTED = time.time_ns()

# Bytes of a constant up to which Numba caches a function
MAX_CONSTANT = 10**6

# Flags that change no compiled function. To read those of the C compiler would start it
OTHER_FLAGS = ("base_compiledir", "blas", "cmodule", "compile", "gcc", "traceback")

# Notes on a variable that no rewrite reads, and those that rewrites leave on a constant: they follow from its
# value, and a model that was fitted before has them
OTHER_TAGS = (
    "trace",
    "values_eq_approx",
    "unique_indices",
    "jointly_unique_indices",
    "is_arange",
    "is_diagonal",
    "is_permutation",
    "is_selection",
    "is_tridiagonal",
)

# Packages whose versions are in the key
LIBRARIES = ("pytensor", "pymc", "numpy", "builtins")

_SCAN = ("info", "truncate_gradient", "allow_gc", "strict", "mode", "view_map", "destroy_map")


_log = logging.getLogger(__name__)


class _NoKey(Exception):
    """Something whose effect on a compiled step is not known."""


def step_key(graph: StepGraph, settings: Sequence[object]) -> str | None:
    """Return a hash that only steps with the same compiled function have, or None.

    `settings` are those of compilation that are not in PyTensor's flags.
    """
    form = graph.updated, graph.has_loss, graph.guarded, graph.batch_inputs, graph.constant_data
    kinds = tuple(map(type, graph.shared))
    try:
        _check_implementations()
        parts = (
            graph_key(graph.shared, graph.outputs),
            _text((form, kinds, tuple(settings))),
            _flags(),
            _database(optdb, set()),
            _versions(),
        )
    except Exception as error:  # an Op of others may raise any when it is asked for its state
        _log.debug("The step has no key in the cache on disk: %r", error)
        return None
    return _hash(parts)


def graph_key(inputs: Sequence[Variable], outputs: Sequence[Variable]) -> str:
    """Return a hash of a graph without its names."""
    places = {var: ("input", k, _of_variable(var)) for k, var in enumerate(inputs)}
    # By identity: Ops are equal whose properties are, as 0.0 and -0.0, or 1 and True
    ops: dict[int, tuple] = {}
    rows = []

    def place(var: Variable) -> tuple:
        if var not in places:
            if not isinstance(var, Constant):
                raise _NoKey(var)
            places[var] = "constant", _text(var.data), _of_variable(var)
        return places[var]

    for k, node in enumerate(io_toposort(inputs, outputs)):
        if id(node.op) not in ops:
            ops[id(node.op)] = _of_op(node.op)
        # Inputs before outputs: these get their places now
        operands = tuple(map(place, node.inputs))
        rows.append((ops[id(node.op)], operands, tuple(map(_of_variable, node.outputs))))
        places.update({var: ("node", k, j) for j, var in enumerate(node.outputs)})
    return _hash((rows, tuple(map(place, outputs))))


def _hash(parts: object) -> str:
    return sha256(repr(parts).encode()).hexdigest()


def _of_variable(var: Variable) -> tuple:
    tags = {name: value for name, value in vars(var.tag).items() if name not in OTHER_TAGS}
    return _text(var.type), _text(tags)


def _of_op(op: Op) -> tuple:
    """Return the class and the state of an Op."""
    kind = _name(type(op))
    if isinstance(op, Scan):
        state = tuple(_text(getattr(op, name)) for name in _SCAN)
        return kind, state, graph_key(op.inner_inputs, op.inner_outputs)
    if isinstance(op, OpFromGraph):
        # Not its overrides of gradients, which have been taken, nor its own cache of them
        props = op._props_dict() if hasattr(op, "__props__") else None
        state = op.is_inline, op.kwargs, op.destroy_map, props
        return kind, _text(state), graph_key(op.inner_inputs, op.inner_outputs)
    if isinstance(op, HasInnerGraph):
        raise _NoKey(op)
    if hasattr(op, "__props__"):
        return kind, _text(op._props_dict())
    if isinstance(op, ScalarOp):
        return kind, _text({name: value for name, value in vars(op).items() if name != "name"})
    if vars(op):
        raise _NoKey(op)
    return (kind,)


def _text(value: Any) -> Any:
    """Return nested tuples of text and numbers that equal values have, and no others."""
    if isinstance(value, np.ndarray) and value.dtype != object and value.nbytes <= MAX_CONSTANT:
        order = value.flags.c_contiguous, value.flags.f_contiguous
        return "array", value.dtype.str, value.shape, order, sha256(value.tobytes()).hexdigest()
    if isinstance(value, np.generic | np.dtype):
        return type(value).__name__, repr(value)
    if value is None or type(value) in (str, bytes, bool, int, float, complex):
        return type(value).__name__, repr(value)
    if isinstance(value, slice):
        return "slice", _text((value.start, value.stop, value.step))
    if isinstance(value, Enum):
        return _name(type(value)), value.name
    if isinstance(value, tuple | list):
        return type(value).__name__, tuple(map(_text, value))
    if isinstance(value, set | frozenset):
        return "set", tuple(sorted(map(repr, map(_text, value))))
    if isinstance(value, Mapping):
        return "mapping", tuple((_text(k), _text(v)) for k, v in value.items())
    if isinstance(value, Op):
        return _of_op(value)
    if isinstance(value, Type):
        return _of_type(value)
    if isinstance(value, type | FunctionType):
        return _name(value)
    if is_dataclass(value):
        return _name(type(value)), tuple(_text(getattr(value, f.name)) for f in fields(value))
    return _of_object(value)


def _of_object(value: Any) -> tuple:
    """Return the class and the attributes of an object that has no other state.

    A bound method, for example, has one: its object and function are not among its attributes.
    """
    kind = type(value)
    for each in kind.__mro__[:-1]:  # without `object`
        if each.__module__ in ("builtins", "numpy") or vars(each).get("__slots__"):
            raise _NoKey(value)
    if not hasattr(value, "__dict__"):
        raise _NoKey(value)
    return _name(kind), _text(vars(value))


@cache
def _of_type(kind: Type) -> tuple:
    return _name(type(kind)), _text({k: v for k, v in vars(kind).items() if k != "name"})


def _name(known: type | FunctionType) -> str:
    """Return the full name of a class or function of a library, whose code its version tells.

    Others can have such a name too: `functools.wraps` copies it, and PyMC makes a class for each
    `CustomDist`. So the module has to have the class, and the function to be of its code.
    """
    name, module = known.__qualname__, sys.modules.get(known.__module__)
    if not _is_of_library(known) or module is None or "<" in name:
        raise _NoKey(known)
    if isinstance(known, FunctionType):
        ours = known.__globals__ is vars(module)
    else:
        ours = attrgetter(name)(module) is known
    if not ours:
        raise _NoKey(known)
    return f"{known.__module__}.{name}"


def _is_of_library(known: type | Callable) -> bool:
    return known.__module__.partition(".")[0] in LIBRARIES


def _check_implementations() -> None:
    """Raise if others have implemented an Op of a library for Numba: their versions are not in the key."""
    # Late, since they import Numba. They register rewrites too, which count for the key
    from pytensor.link.numba.dispatch import basic, random

    for dispatch in (
        basic.numba_funcify,
        basic.numba_funcify_and_cache_key,
        basic.numba_funcify_default_op_cache_key,
        random.numba_core_rv_funcify,
    ):
        for kind, function in dispatch.registry.items():
            if _is_of_library(kind) and not _is_of_library(function):
                raise _NoKey(function)


def _flags() -> tuple:
    """Return the flags of PyTensor, and those of Numba."""
    config = pytensor.config
    names = [n for n in sorted(config._config_var_dict) if not n.startswith(OTHER_FLAGS)]
    of_numba = [(k, v) for k, v in sorted(os.environ.items()) if k.startswith("NUMBA_")]
    return tuple((name, str(getattr(config, name))) for name in names), tuple(of_numba)


def _database(database: RewriteDatabase, seen: set[int]) -> tuple:
    """Return the names and tags of all registered rewrites: users may add some, and take some out."""
    if id(database) in seen:
        return ()
    seen.add(id(database))
    positions = getattr(database, "__position__", {}) if isinstance(database, SequenceDB) else {}
    entries = [
        (tag, [_rewrite(each, seen) for each in rewrites])
        for tag, rewrites in database.__db__.items()
        if rewrites  # to ask for a tag adds an empty entry
    ]
    return _text(dict(positions)), entries


def _rewrite(rewrite: Any, seen: set[int]) -> tuple:
    if isinstance(rewrite, RewriteDatabase):
        return rewrite.name, _database(rewrite, seen)
    kind = _name(type(rewrite))
    if isinstance(rewrite, PatternNodeRewriter):
        return kind, str(rewrite.in_pattern), str(rewrite.out_pattern)
    if (function := getattr(rewrite, "fn", None)) is not None:
        return kind, _name(function)
    if (of_nodes := getattr(rewrite, "node_rewriter", None)) is not None:
        return kind, _rewrite(of_nodes, seen)
    if (parts := _parts(rewrite)) is not None:
        return kind, [_rewrite(part, seen) for part in parts]
    return kind, _text(vars(rewrite))


def _parts(rewrite: Rewriter) -> Iterable[Rewriter] | None:
    """Return the rewrites that one consists of. Its other attributes change when it runs."""
    if isinstance(rewrite, SequentialNodeRewriter):
        return rewrite.rewrites
    if isinstance(rewrite, SequentialGraphRewriter):
        return rewrite
    if isinstance(rewrite, EquilibriumGraphRewriter):
        of_graphs = rewrite.global_rewriters + rewrite.final_rewriters + rewrite.cleanup_rewriters
        return [*rewrite.get_node_rewriters(), *of_graphs]
    return None


def _versions() -> tuple:
    release = pymc.__version__  # type: ignore[attr-defined]  # of the release
    if "+" in pytensor.__version__ + release:  # of a clone, whose code may change
        raise _NoKey(release)
    # Of NumPy and SciPy since rewriting folds constants with them
    numbers = np.__version__, scipy.__version__
    return pytensor.__version__, release, *numbers, platform.python_version(), _files()


@cache
def _files() -> str:
    """Return the hash of our own files; raise if one has changed since it was imported."""
    root = Path(__file__).parents[2]
    hashes = []
    for file in sorted(root.rglob("*.py")):
        stat = file.stat()
        # An installer may keep the time of the contents, but not that of the entry
        if max(stat.st_mtime_ns, stat.st_ctime_ns) > IMPORTED:
            raise _NoKey(file)
        hashes.append((file.relative_to(root).as_posix(), sha256(file.read_bytes()).hexdigest()))
    return _hash(hashes)
