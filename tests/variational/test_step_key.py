# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""The key of a step on disk: the same for the same computation, and no other."""

import os
import subprocess
import sys

from functools import wraps
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest

from pytensor.compile.builders import OpFromGraph
from pytensor.compile.mode import Mode, optdb
from pytensor.compile.ops import wrap_py
from pytensor.graph.rewriting.basic import (
    EquilibriumGraphRewriter,
    PatternNodeRewriter,
    SequentialNodeRewriter,
    SubstitutionNodeRewriter,
    dfs_rewriter,
    node_rewriter,
)
from pytensor.link.numba.dispatch import basic
from pytensor.misc.ordered_set import OrderedSet
from pytensor.tensor.elemwise import Elemwise

import pymc as pm

from pymc.variational.engine import step_cache, step_key
from pymc.variational.engine.step import step_graph
from tests.variational.engine import shared


def key_of(updates, loss=None, *, mode="NUMBA", guarded=False, **kwargs):
    graph = step_graph(updates, loss, 1, guarded).with_new_variables()
    return step_cache._key_on_disk(graph, mode, kwargs.get("model", pm.Model()), {})


def of(build, *, value=1.0, **kwargs):
    """The key of the step from x to `build(x)`."""
    x = shared(value)
    return key_of({x: build(x)}, **kwargs)


def half(x):
    return 0.5 * x


def times_tagged(**tags):
    """Multiply by a matrix that is said to have properties."""

    def build(x):
        matrix = pt.eye(2) + x
        for name, value in tags.items():
            setattr(matrix.tag, name, value)
        return matrix @ x

    return lambda: of(build, value=np.eye(2))


def scanned(build):
    def loop(x):
        return pytensor.scan(build, outputs_info=x, n_steps=3, return_updates=False)[-1]

    return lambda: of(loop)


def inner(build, **options):
    def call(x):
        y = x.type()
        return OpFromGraph([y], [build(y)], **options)(x)

    return lambda: of(call)


def with_flags(**flags):
    def key():
        with pytensor.config.change_flags(**flags):
            return of(half)

    return key


def with_constant(data):
    return lambda: of(lambda x: x + pt.constant(data).sum())


def guarded():
    x = shared(1.0)
    return key_of({x: half(x)}, x**2, guarded=True)


def with_a_loss():
    x = shared(1.0)
    return key_of({x: half(x)}, x**2)


def two(swapped):
    x, y = shared(1.0), shared(1.0)
    return lambda: key_of({x: y - x, y: x} if swapped else {x: x - y, y: x})


def drawn(dist, *args):
    rng = pytensor.shared(np.random.default_rng(1))
    x = shared(1.0)
    return lambda: key_of({x: x + dist(*args, rng=rng)})


DIFFERENT = {
    "half": lambda: of(half),
    "another name of an Op": lambda: of(lambda x: 0.5 / x),
    "another number": lambda: of(lambda x: 0.25 * x),
    "the last digit": lambda: of(lambda x: np.nextafter(0.5, 1) * x),
    "an integer": lambda: of(lambda x: np.int8(2) * x),
    "minus zero": with_constant(-0.0),
    "zero": with_constant(0.0),
    "a vector": lambda: of(half, value=[1.0]),
    "a matrix": lambda: of(half, value=[[1.0, 2.0]]),
    "another order": lambda: of(lambda x: x * 0.5),
    "a constant vector": with_constant(np.arange(3.0)),
    "of other length": with_constant(np.arange(4.0)),
    "of other dtype": with_constant(np.arange(3, dtype="float32")),
    "of rows": with_constant(np.arange(6.0).reshape(2, 3)),
    "of columns": with_constant(np.asfortranarray(np.arange(6.0).reshape(2, 3))),
    "a sum": lambda: of(lambda x: pt.stack([x, x]).sum(axis=0)),
    "of another axis": lambda: of(lambda x: pt.stack([x[None], x[None]]).sum(axis=1)[0]),
    "a cast": lambda: of(lambda x: x * x.astype("int8")),
    "another cast": lambda: of(lambda x: x * x.astype("int16")),
    "an entry": lambda: of(lambda x: x[:1].sum() + x, value=[1.0, 2.0]),
    "another entry": lambda: of(lambda x: x[1:].sum() + x, value=[1.0, 2.0]),
    "a loop": scanned(lambda x: 0.5 * x),
    "another loop": scanned(lambda x: 0.25 * x),
    "an inner graph": inner(half),
    "another inner graph": inner(lambda x: 0.25 * x),
    "an inner graph that is inlined": inner(half, inline=True),
    "a diagonal": lambda: of(lambda x: pt.diag(x).sum(axis=0), value=[1.0]),
    "another diagonal": lambda: of(lambda x: pt.diag(x, k=1).sum(axis=0)[:-1], value=[1.0]),
    "of a matrix": times_tagged(),
    "of a lower triangle": times_tagged(lower_triangular=True),
    "of a symmetric matrix": times_tagged(symmetric=True),
    "a loss": with_a_loss,
    "a guarded step": guarded,
    "two variables": two(False),
    "the other way round": two(True),
    "a normal": drawn(pt.random.normal),
    "with other arguments": drawn(pt.random.normal, 1.0),
    "a beta": drawn(pt.random.beta, 1.0, 1.0),
    "no fastmath": with_flags(numba__fastmath=False),
    "another search for cycles": with_flags(cycle_detection="fast"),
}


def test_different_steps_have_different_keys():
    keys = {name: build() for name, build in DIFFERENT.items()}
    assert None not in keys.values()
    assert len(set(keys.values())) == len(keys)


@pytest.mark.parametrize("name", DIFFERENT)
def test_the_same_step_has_the_same_key(name):
    assert DIFFERENT[name]() == DIFFERENT[name]()


def test_names_and_values_do_not_count():
    x, y = shared(1.0, "x"), shared(2.0, "another")
    assert key_of({x: half(x)}) == key_of({y: half(y)})
    assert of(half, value=[1.0]) == of(half, value=[1.0, 2.0])


def test_environment_of_numba(monkeypatch):
    before = of(half)
    monkeypatch.setenv("NUMBA_OPT", "1")
    assert of(half) != before


def test_what_a_rewrite_notes_on_constants():
    rows, matrix = pt.constant(np.arange(3)), pt.constant(np.eye(3))

    def build(x):
        return x + x[rows].sum() + pt.linalg.inv(matrix @ (2 * matrix)).sum()

    before = of(build, value=np.arange(3.0))
    pytensor.function([], build(shared(np.arange(3.0))), mode="NUMBA")
    assert hasattr(rows.tag, "is_arange")
    assert hasattr(matrix.tag, "is_diagonal")
    assert of(build, value=np.arange(3.0)) == before is not None


@pytest.mark.parametrize("package", [pytensor, pm])
def test_versions(monkeypatch, package):
    before = of(half)
    monkeypatch.setattr(package, "__version__", "99.1")
    assert of(half) not in (None, before)
    monkeypatch.setattr(package, "__version__", "99.1+5.gabcdef")
    assert of(half) is None


def test_version_of_scipy(monkeypatch):
    before = of(half)
    monkeypatch.setattr(step_key.scipy, "__version__", "99.1")
    assert of(half) not in (None, before)


def test_our_own_files(monkeypatch):
    before = of(half)
    monkeypatch.setattr(step_key, "_files", lambda: "another hash")
    assert of(half) not in (None, before)


def test_our_own_files_changed_since_they_were_imported(monkeypatch):
    monkeypatch.setattr(step_key, "_files", step_key._files.__wrapped__)
    assert of(half) is not None
    monkeypatch.setattr(step_key, "IMPORTED", Path(step_key.__file__).stat().st_mtime_ns - 1)
    assert of(half) is None


@wrap_py(itypes=[pt.dscalar], otypes=[pt.dscalar])
def users_function(x):
    return np.asarray(x / 2)


class UsersOp(Elemwise):
    """A class of this module."""


class OpWithAName(Elemwise):
    """A class that has the name of another, as those that PyMC makes for a `CustomDist`."""


OpWithAName.__module__, OpWithAName.__qualname__ = Elemwise.__module__, Elemwise.__qualname__


class Scale:
    def __init__(self, factor):
        self.factor = factor

    def __call__(self, x):
        return self.factor * x


@wraps(np.sum)
def wrapped(x):
    return x


class Slotted:
    __slots__ = ("__dict__", "value")


Slotted.__module__, Slotted.__qualname__ = "pymc", "Slotted"


@pytest.mark.parametrize(
    "value",
    [
        Scale(2.0).__call__,
        wrapped,
        lambda x: x,
        OpWithAName(pt.exp.scalar_op),
        Slotted(),
        np.ma.masked_array(np.zeros(200_000)),
        np.random.default_rng(1),
        np.array([None]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_state_that_is_not_among_the_attributes(value, monkeypatch):
    monkeypatch.setattr(pm, "Slotted", Slotted, raising=False)
    with pytest.raises(step_key._NoKey):
        step_key._text(value)


@pytest.mark.parametrize(
    "build",
    [
        users_function,
        UsersOp(pt.exp.scalar_op),
        OpWithAName(pt.exp.scalar_op),
        lambda x: x + pt.constant(np.zeros(200_000)).sum(),
    ],
    ids=["a function", "a class", "a name", "a constant that Numba does not cache"],
)
def test_what_is_not_known_has_no_key(build):
    assert of(build) is None


def test_an_error_means_no_key(monkeypatch):
    monkeypatch.delattr(step_key.optdb, "__db__")  # as another PyTensor may have it
    assert of(half) is None


def test_settings_without_a_key():
    x = shared(1.0)
    graph = step_graph({x: half(x)}, None, 1).with_new_variables()
    unchecked = pm.Model(check_bounds=False)
    key = step_cache._key_on_disk
    assert key(graph, "NUMBA", pm.Model(), {}) is not None
    assert key(graph, "NUMBA", unchecked, {}) is None
    assert key(graph, "NUMBA", pm.Model(), {"name": "step"}) is None
    assert key(graph, Mode("numba", "fast_run"), pm.Model(), {}) is None
    assert key(graph, "FAST_COMPILE", pm.Model(), {}) is None
    assert key(graph, "JAX", pm.Model(), {}) is None
    with pytensor.config.change_flags(numba__cache=False):
        assert key(graph, "NUMBA", pm.Model(), {}) is None


@pytest.mark.parametrize("kind, known", [(pt.subtensor.Subtensor, False), (UsersOp, True)])
def test_users_implementation(kind, known, monkeypatch):
    """Its version counts for PyTensor's cache, and may change."""
    before = of(half)
    registry = {
        **basic.numba_funcify_default_op_cache_key.registry,
        kind: lambda op, **kwargs: None,
    }
    dispatch = SimpleNamespace(registry=registry)
    monkeypatch.setattr(basic, "numba_funcify_default_op_cache_key", dispatch)
    assert of(half) == (before if known else None)


@node_rewriter([Elemwise])
def users_rewrite(fgraph, node):
    return None


class TestUsersRewrites:
    """A step is not found by a key that knows nothing of them."""

    @pytest.fixture(params=["a function", "several", "until nothing changes", "a pattern", "an Op"])
    def rewrite(self, request):
        pattern = PatternNodeRewriter((pt.exp, "x"), (pt.expm1, "x"), name="pattern")
        if request.param == "a function":
            return dfs_rewriter(users_rewrite)
        if request.param == "several":
            return dfs_rewriter(users_rewrite, pattern)
        if request.param == "until nothing changes":
            return EquilibriumGraphRewriter([users_rewrite], max_use_ratio=10)
        if request.param == "a pattern":
            return dfs_rewriter(pattern)
        return dfs_rewriter(SubstitutionNodeRewriter(pt.exp, pt.expm1))

    def test_registered(self, rewrite, monkeypatch):
        before = of(half)
        monkeypatch.setitem(optdb.__db__, "users_rewrite", OrderedSet([rewrite]))
        assert of(half) != before

    @pytest.mark.parametrize("name", ["pymc_gather_dot", "pymc_row_sums", "pymc_stored_draws"])
    def test_without_one_of_ours(self, name, monkeypatch):
        before = of(half)
        monkeypatch.delitem(optdb.__db__, name)
        assert of(half) not in (None, before)

    @pytest.mark.parametrize("rewriter", [dfs_rewriter, SequentialNodeRewriter])
    def test_of_the_same_class(self, rewriter, monkeypatch):
        keys = []
        for op in (pt.expm1, pt.log1p):
            rewrites = rewriter(SubstitutionNodeRewriter(pt.exp, op))
            monkeypatch.setitem(optdb.__db__, "users_rewrite", OrderedSet([rewrites]))
            keys.append(of(half))
        assert None not in keys
        assert keys[0] != keys[1]

    def test_a_function_among_several(self, monkeypatch):
        """The code of a user's function is not in the key."""
        rewrites = dfs_rewriter(users_rewrite, SubstitutionNodeRewriter(pt.exp, pt.expm1))
        monkeypatch.setitem(optdb.__db__, "users_rewrite", OrderedSet([rewrites]))
        assert of(half) is None

    def test_taken_out(self):
        before = of(half)
        optdb.remove_tags("elemwise_fusion", "fast_run")
        try:
            assert of(half) not in (None, before)
        finally:
            optdb.add_tags("elemwise_fusion", "fast_run")


SCRIPT = """
from tests.variational.test_step_key import DIFFERENT
print("keys", *[build() for build in DIFFERENT.values()])
"""


def test_the_same_in_another_process():
    """Whatever the order of sets."""
    lines = []
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        lines += [line for line in done.stdout.splitlines() if line.startswith("keys")]
    assert len(lines[0].split()) == 1 + len(DIFFERENT)
    assert lines[0] == lines[1]
