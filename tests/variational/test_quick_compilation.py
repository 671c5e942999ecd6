# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0

import gc
import threading

from types import SimpleNamespace

import numba
import numpy as np
import pytensor
import pytest

from llvmlite.binding import ffi
from numba.core import event

import pymc as pm

from pymc.variational.engine.drivers import quick_compilation as module
from pymc.variational.engine.drivers.quick_compilation import quick_compilation
from pymc.variational.engine.step_cache import one_at_a_time
from tests.variational.engine import normal_model


def compile_a_function():
    """Compile what nobody has compiled, and return the number of events of LLVM's lock."""
    numba.njit(lambda x: x + 1).compile("float64(float64)")


class Counter(event.Listener):
    def __init__(self):
        self.n = 0

    def on_start(self, event):
        self.n += 1

    def on_end(self, event):
        pass


@pytest.fixture
def broadcasts(monkeypatch):
    """The kinds of all events."""
    kinds = []
    monkeypatch.setattr(event, "broadcast", lambda e: kinds.append(e.kind))
    return kinds


class TestEvents:
    def test_none_of_the_lock(self, broadcasts):
        compile_a_function()
        assert "numba:llvm_lock" in broadcasts
        broadcasts.clear()
        with quick_compilation():
            compile_a_function()
        assert "numba:llvm_lock" not in broadcasts
        assert "numba:compile" in broadcasts

    def test_they_come_back(self):
        before = list(ffi.lib._lock._cblist)
        with pytest.raises(ZeroDivisionError), quick_compilation():
            raise ZeroDivisionError
        assert ffi.lib._lock._cblist == before != []

    def test_who_listens_hears_them(self):
        with event.install_listener("numba:llvm_lock", Counter()) as listener:
            with quick_compilation():
                compile_a_function()
        assert listener.n > 10

    def test_of_others_are_called(self):
        calls = []
        callback = (lambda: calls.append(1), lambda: None)
        ffi.register_lock_callback(*callback)
        try:
            with quick_compilation():
                compile_a_function()
        finally:
            ffi.unregister_lock_callback(*callback)
        assert calls

    @pytest.mark.parametrize("name", ["event", "ffi"])
    def test_another_numba(self, monkeypatch, broadcasts, name):
        """Without the names that are read, all is as Numba does it."""
        monkeypatch.setattr(module, name, SimpleNamespace())
        with module.quick_compilation():
            compile_a_function()
        assert "numba:llvm_lock" in broadcasts

    def test_other_threads_wait(self):
        done = threading.Event()
        thread = threading.Thread(target=lambda: (compile_a_function(), done.set()))
        with quick_compilation():
            thread.start()
            assert not done.wait(0.3)
        thread.join()
        assert done.is_set()


@one_at_a_time
def while_graphs_are_built():
    return gc.isenabled(), pytensor.config.traceback__limit


def test_graphs_without_traces_and_collections():
    limit = pytensor.config.traceback__limit
    assert limit > 0
    assert gc.isenabled()
    assert while_graphs_are_built() == (False, 0)
    assert (gc.isenabled(), pytensor.config.traceback__limit) == (True, limit)
    gc.disable()
    try:
        assert while_graphs_are_built() == (False, 0)
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_a_fit_builds_its_graphs_so():
    seen = []

    def optimizer(grads, params):
        seen.append((gc.isenabled(), pytensor.config.traceback__limit))
        return {param: param - 0.1 * grad for param, grad in zip(params, grads)}

    approx = pm.fit(2, model=normal_model(), obj_optimizer=optimizer, progressbar=False)
    assert seen == [(False, 0)]
    assert np.isfinite(approx.hist).all()
    assert gc.isenabled()
