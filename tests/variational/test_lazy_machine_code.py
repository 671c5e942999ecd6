# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Functions that only compiled code calls get no machine code, and work as they would with it."""

import json
import re
import subprocess
import sys

from itertools import product

import numba
import numpy as np
import pytest

from llvmlite import ir
from numba.core.codegen import JITCodeLibrary, JITCPUCodegen
from numba.core.registry import cpu_target

from pymc.variational.engine.drivers import lazy_machine_code as module
from pymc.variational.engine.drivers import quick_compilation as quick
from pymc.variational.engine.drivers.lazy_machine_code import LazyLibrary, has_loop
from pymc.variational.engine.drivers.quick_compilation import quick_compilation

WITHOUT_ENTRY = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}


@pytest.fixture
def made(monkeypatch):
    """The names of functions whose libraries got machine code."""
    nested()[0].compile("float64(float64)")  # and what Numba itself needs
    names = []
    original = JITCodeLibrary._finalize_specific

    def finalize(library):
        names.append(library.name.rpartition(".")[2])
        return original(library)

    monkeypatch.setattr(JITCodeLibrary, "_finalize_specific", finalize)
    return names


def nested(**options):
    """Return an outer function, and the inner one that it calls."""

    @numba.njit(**options)
    def inner(x):
        if x < 0:
            raise ValueError("below zero", x)
        return x + 1

    @numba.njit
    def outer(x):
        return 2 * inner(x)

    return outer, inner


def library(function):
    [result] = function.overloads.values()
    return result.library


def quickly(function, signature="float64(float64)"):
    with quick_compilation():
        function.compile(signature)
    return function


class TestMachineCode:
    def test_of_what_python_enters_only(self, made):
        outer, _ = nested(**WITHOUT_ENTRY)
        assert quickly(outer)(1.0) == 4
        assert made == ["outer"]

    @pytest.mark.parametrize("name", ["TESTED", "__version__"])
    def test_of_all_with_another_numba(self, made, monkeypatch, name):
        if name == "TESTED":
            monkeypatch.setattr(quick, name, ())
        else:
            monkeypatch.setattr(numba, name, "0.69.0")
        outer, inner = nested(**WITHOUT_ENTRY)
        assert quickly(outer)(1.0) == 4
        assert made == ["inner", "outer"]
        assert type(library(inner)) is JITCodeLibrary

    def test_when_something_asks_for_the_address(self, made):
        outer, inner = nested(**WITHOUT_ENTRY)
        quickly(outer)
        [result] = inner.overloads.values()
        del made[:]
        assert library(inner).get_pointer_to_function("a_name_of_nobody") == 0
        assert made == []
        # LLVM has inlined it, so that it is nowhere yet
        assert library(inner).get_pointer_to_function(result.fndesc.llvm_func_name) != 0
        assert library(inner).get_pointer_to_function(result.fndesc.llvm_func_name) != 0
        assert made == ["inner"]
        assert outer(1.0) == 4

    def test_loops_are_optimised(self):
        """A caller inlines them as they are; LLVM would vectorise them later only where it can."""

        @numba.njit(fastmath=True, **WITHOUT_ENTRY)
        def total(x):
            result = 0.0
            for k in range(len(x)):
                result += x[k] * x[k]
            return result

        outer = quickly(numba.njit(lambda x: total(x)), "float64(float64[::1])")
        assert outer(np.arange(4.0)) == 14
        assert library(total)._is_lazy
        assert re.search(r"<\d+ x double>", library(total).get_llvm_str())


class TestFromPython:
    def test_a_nested_function(self):
        outer, inner = nested()
        quickly(outer)
        assert (outer(1.0), inner(1.0)) == (4, 2)
        with pytest.raises(ValueError, match="below zero"):
            inner(-1.0)

    def test_as_an_argument(self):
        """What takes a function by its type asks for its address."""
        outer, inner = nested()
        quickly(outer)

        kind = numba.types.FunctionType(numba.float64(numba.float64))

        @numba.njit(numba.float64(kind, numba.float64))
        def call(function, x):
            return function(x)

        assert call(inner, 1.0) == 2


class TestLinked:
    @pytest.mark.parametrize("before", [True, False])
    def test_into_another(self, before):
        outer, inner = nested(**WITHOUT_ENTRY)
        another = numba.njit(lambda x: 3 * inner(x))
        if before:
            another.compile("float64(float64)")
        quickly(outer)
        assert (outer(1.0), another(1.0)) == (4, 6)
        for function, x in product([outer, another], [-1.0, -2.0]):
            with pytest.raises(ValueError, match="below zero") as caught:
                function(x)
            assert caught.value.args == ("below zero", x)

    def test_one_that_nothing_called_before(self, capsys):
        """What it prints it finds by its environment, which has no place yet when it is compiled."""

        @numba.njit(**WITHOUT_ENTRY)
        def show(x):
            print(x)  # noqa: T201

        quickly(show, "none(float64[::1])")
        numba.njit(lambda x: show(x))(np.ones(2))
        assert capsys.readouterr().out == "[1. 1.]\n"

    def test_a_function_that_calls_itself(self):
        @numba.njit
        def factorial(n):
            return n * factorial(n - 1) if n > 1 else 1

        outer = quickly(numba.njit(lambda n: factorial(n)), "int64(int64)")
        assert (outer(5), factorial(4)) == (120, 24)


class TestNumbaIsAsItWas:
    def members(self):
        codegen = cpu_target.target_context.codegen()
        classes = [vars(each) for each in (JITCodeLibrary, JITCPUCodegen)]
        return list(map(dict, [vars(codegen), *classes]))

    def test_after_an_error(self):
        before = self.members()
        with pytest.raises(ZeroDivisionError), quick_compilation():
            assert cpu_target.target_context.codegen()._library_class is LazyLibrary
            raise ZeroDivisionError
        assert self.members() == before

    def test_after_an_error_of_the_function(self):
        before = self.members()
        with pytest.raises(numba.TypingError), quick_compilation():
            numba.njit(lambda x: x + "a").compile("float64(float64)")
        assert self.members() == before
        assert quickly(nested()[0])(1.0) == 4

    def test_once_in_another(self):
        before = self.members()
        with quick_compilation():
            with quick_compilation():
                pass
            outer, inner = nested(**WITHOUT_ENTRY)
            outer.compile("float64(float64)")
        assert library(inner)._is_lazy
        assert outer(1.0) == 4
        assert self.members() == before


FUNCTIONS = """
import numba

@numba.njit(cache=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def inner(x):
    if x < 0:
        raise ValueError("below zero", x)
    return x + 1

@numba.njit(cache=True)
def outer(x):
    return 2 * inner(x)

@numba.njit
def another(x):
    return 3 * inner(x)

@numba.njit(no_cpython_wrapper=True, no_cfunc_wrapper=True)
def is_even(n):
    return True if n == 0 else is_odd(n - 1)

@numba.njit(no_cpython_wrapper=True, no_cfunc_wrapper=True)
def is_odd(n):
    return False if n == 0 else is_even(n - 1)

@numba.njit
def parity(n):
    return is_even(n)

def compile_them():
    outer.compile("float64(float64)")
    another.compile("float64(float64)")
    parity.compile("boolean(int64)")

def results():
    try:
        outer(-2.0)
    except ValueError as error:
        args = error.args
    hits = [sum(f.stats.cache_hits.values()) for f in (outer, inner)]
    return outer(1.0), another(1.0), [*map(parity, range(4))], args, hits
"""

SCRIPT = """
import importlib.util, json, sys
spec = importlib.util.spec_from_file_location("lazy", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
lazily, plainly = map(importlib.import_module, sys.argv[2:])
with module.lazy_machine_code():
    lazily.compile_them()
plainly.compile_them()
print(json.dumps([lazily.results(), plainly.results()]))
"""


def test_caches_of_processes_that_do_otherwise(tmp_path):
    """Numba itself, without PyMC, reads functions without machine code, and the other way round."""

    def run(*names):
        command = [sys.executable, "-c", SCRIPT, module.__file__, *names]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    for name in ("one", "two"):
        (tmp_path / f"{name}.py").write_text(FUNCTIONS)
    values = [4, 6, [True, False, True, False], ["below zero", -2]]
    assert run("one", "two") == [[*values, [0, 0]]] * 2
    assert run("two", "one") == [[*values, [1, 1]]] * 2


@pytest.mark.parametrize("kind", ["straight", "branch", "switch", "loop", "switch back"])
def test_has_loop(kind):
    function = ir.Function(ir.Module(), ir.FunctionType(ir.VoidType(), [ir.IntType(1)]), "f")
    first, second, last = (function.append_basic_block() for _ in range(3))
    builder = ir.IRBuilder(first)
    builder.branch(second)
    builder.position_at_end(second)
    match kind:
        case "straight":
            builder.branch(last)
        case "branch" | "loop":
            builder.cbranch(function.args[0], last, second if kind == "loop" else last)
        case "switch" | "switch back":
            switch = builder.switch(function.args[0], last)
            switch.add_case(ir.IntType(1)(1), first if kind == "switch back" else last)
    builder.position_at_end(last)
    builder.ret_void()
    assert has_loop(function) == (kind in ("loop", "switch back"))
    assert not has_loop(ir.Function(ir.Module(), function.function_type, "declared"))
