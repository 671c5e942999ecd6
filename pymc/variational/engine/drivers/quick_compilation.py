# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Compile with Numba in less time.

For each call into LLVM, Numba starts and ends an event, and tells it to a timer of each function that waits
for the one being compiled: 1.8 million times for the step of a regression, a sixth of the time to compile it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import numba

from llvmlite.binding import ffi
from numba.core import event
from numba.core.compiler_lock import global_compiler_lock

__all__ = ["quick_compilation"]

#: The versions of Numba that are known to compile functions without machine code
TESTED = ("0.68.",)


@contextmanager
def quick_compilation() -> Iterator[None]:
    """Compile without machine code of functions that Python does not enter, and without events of LLVM's lock.

    Who listens to the events gets them. No other thread compiles meanwhile.
    """
    with global_compiler_lock:
        callbacks = _callbacks_of_events()
        for callback in callbacks:
            ffi.unregister_lock_callback(*callback)
        try:
            with _lazy_machine_code():
                yield
        finally:
            for callback in callbacks:
                ffi.register_lock_callback(*callback)


def _lazy_machine_code() -> AbstractContextManager[None]:
    if not numba.__version__.startswith(TESTED):
        return nullcontext()
    # Not above: it needs classes of Numba that other versions may not have
    from pymc.variational.engine.drivers.lazy_machine_code import lazy_machine_code

    return lazy_machine_code()


def _callbacks_of_events() -> list[tuple]:
    """Return the callbacks by which Numba makes events of LLVM's lock that nobody listens to."""
    try:  # neither Numba nor llvmlite has a public list of them
        if event._registered["numba:llvm_lock"]:
            return []
        return [pair for pair in ffi.lib._lock._cblist if pair[0].__module__ == "numba.core.base"]
    except AttributeError:
        return []
