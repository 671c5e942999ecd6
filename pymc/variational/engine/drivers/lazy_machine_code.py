# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Compile with Numba without machine code of functions that only compiled code calls.

Numba links the functions that a function calls into it, and optimises all of them together. It optimises each
of them alone too, and makes machine code of it, which is nobody's unless Python enters there. That is
a third of the time to compile a step, whose hundreds of functions have one entry.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from graphlib import CycleError, TopologicalSorter
from typing import Any

from llvmlite import ir
from numba.core.codegen import JITCodeLibrary, JITCPUCodegen, RuntimeLinker
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import cpu_target
from numba.core.runtime import rtsys

__all__ = ["lazy_machine_code"]


@contextmanager
def lazy_machine_code() -> Iterator[None]:
    """Compile functions to bitcode, and to machine code when something asks where they are.

    Hold Numba's lock meanwhile.
    """
    context = cpu_target.target_context
    codegen = context.codegen()
    if codegen._library_class is LazyLibrary:
        yield
        return
    rtsys.initialize(
        context
    )  # its library is asked for addresses while others are made, which fails if lazy
    environments = LateEnvironments(codegen)
    # On the object, so that its class and other targets are as they were
    codegen._library_class = LazyLibrary
    codegen.set_env = environments.set
    try:
        yield
    finally:
        del codegen._library_class, codegen.set_env
        environments.define()


class LazyLibrary(JITCodeLibrary):
    """A library that has no machine code until something asks for the address of a function."""

    _is_lazy = False
    _has_loop = False
    _is_optimized = False

    def add_ir_module(self, ir_module: ir.Module) -> None:
        self._has_loop = self._has_loop or any(map(has_loop, ir_module.functions))
        super().add_ir_module(ir_module)

    def _optimize_final_module(self) -> None:
        # A loop that LLVM inlines before it vectorises it can become slower
        self._is_optimized = self._has_loop or self._is_recursive()
        if self._is_optimized:
            super()._optimize_final_module()

    def _finalize_final_module(self) -> None:
        # One with an object was read from a cache
        if getattr(self, "_compiled_object", None) is not None or self._is_recursive():
            super()._finalize_final_module()
            return
        self._finalize_dynamic_globals()
        self._verify_declare_only_symbols()
        self._is_lazy = self._finalized = True

    def _is_recursive(self) -> bool:
        """Whether it calls a function that is not compiled yet, by an address that is filled in later."""
        variables = self._final_module.global_variables
        return any(variable.name.startswith(RuntimeLinker.PREFIX) for variable in variables)

    @global_compiler_lock
    def get_pointer_to_function(self, name: str) -> int:
        self._ensure_finalized()
        if self._is_lazy and not self._codegen._engine.is_symbol_defined(name):
            if any(function.name == name for function in self.get_defined_functions()):
                self._make_machine_code()
        return super().get_pointer_to_function(name)

    def _make_machine_code(self) -> None:
        self._is_lazy = False
        if not self._is_optimized:
            super()._optimize_final_module()
        super()._finalize_final_module()

    def serialize_using_object_code(self) -> tuple[str, str, Any]:
        if self._is_lazy:
            return self.serialize_using_bitcode()
        return super().serialize_using_object_code()


def has_loop(function: ir.Function) -> bool:
    """Return whether a block of a function can come again."""
    successors = {block.name: [next.name for next in targets(block)] for block in function.blocks}
    try:
        TopologicalSorter(successors).prepare()
    except CycleError:
        return True
    return False


def targets(block: ir.Block) -> list[ir.Block]:
    """Return the blocks that may follow a block."""
    end = block.terminator
    if isinstance(end, ir.SwitchInstr):
        return [end.default, *(target for _, target in end.cases)]
    return [] if end is None else [each for each in end.operands if isinstance(each, ir.Block)]


class LateEnvironments:
    """Environments of functions that have no machine code yet, and so no place for them."""

    def __init__(self, codegen: JITCPUCodegen) -> None:
        self._codegen = codegen
        self._set = codegen.set_env
        self._late: dict[str, Any] = {}

    def set(self, name: str, environment: Any) -> None:
        """Set an environment, and those whose places have come."""
        self._late[name] = environment
        engine = self._codegen._engine
        for each in list(filter(engine.is_symbol_defined, self._late)):
            self._set(each, self._late.pop(each))

    def define(self) -> None:
        """Make places for the others: a function may be linked into another one later."""
        missing = [name for name in self._late if not self._codegen._engine.is_symbol_defined(name)]
        if missing:
            module = self._codegen._create_empty_module("environments")
            for name in missing:
                cpu_target.target_context.declare_env_global(module, name)
            library = self._codegen.create_library("environments")
            library.add_ir_module(module)
            library.finalize()
        for name, environment in self._late.items():
            self._set(name, environment)
