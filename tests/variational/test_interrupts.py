# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C is noted while a fit runs, and raised in callbacks; then all is as before."""

import os
import signal
import threading
import time

from threading import Timer

import numpy as np
import pytest

from pymc.variational.engine.interrupts import Interrupts
from pymc.variational.engine.loop import run_loop
from pymc.variational.progress import FitProgress
from tests.variational.engine import bare_step, halving, shared


def control_c():
    os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture(autouse=True)
def same_handlers_afterwards():
    signals = signal.SIGINT, signal.SIGTERM
    handlers = [signal.getsignal(signum) for signum in signals]
    yield
    left = [signal.getsignal(signum) for signum in signals]
    for signum, handler in zip(signals, handlers):
        signal.signal(signum, handler)
    assert left == handlers


def test_noted():
    with Interrupts() as interrupts:
        assert not interrupts.pending
        control_c()
        assert interrupts.pending


def test_raised_where_allowed():
    with Interrupts() as interrupts:
        with pytest.raises(KeyboardInterrupt, match=r"^$"), interrupts.allowed():
            control_c()
        assert not interrupts.pending
        control_c()  # noted again
        assert interrupts.pending


def test_restored_after_an_error():
    with pytest.raises(RuntimeError, match="of the loop"), Interrupts() as interrupts:
        with interrupts.allowed():
            raise RuntimeError("of the loop")


def test_the_users_handler_is_called_where_allowed():
    calls = []

    def handler(signum, frame):
        calls.append(signum)

    usual = signal.signal(signal.SIGINT, handler)
    try:
        with Interrupts() as interrupts:
            control_c()
            assert (calls, interrupts.pending) == ([], True)
            with interrupts.allowed():
                control_c()
            assert calls == [signal.SIGINT]
        assert signal.getsignal(signal.SIGINT) is handler
    finally:
        signal.signal(signal.SIGINT, usual)


@pytest.mark.parametrize("given", [signal.SIG_IGN, None], ids=["ignored", "set outside of Python"])
def test_what_is_no_handler_of_python_stays(given, monkeypatch):
    usual = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(signal, "getsignal", lambda signum: given)
    with Interrupts() as interrupts, interrupts.allowed():
        monkeypatch.undo()
        assert signal.getsignal(signal.SIGINT) is usual


def test_nested():
    """A callback may fit, too."""
    with Interrupts() as outer, outer.allowed(), Interrupts() as inner:
        control_c()
    assert inner.pending
    assert not outer.pending


class TestTerminate:
    """SIGTERM ends a fit as Ctrl-C does, and then it does what it would have done."""

    @pytest.fixture(autouse=True)
    def calls(self):
        calls = []
        usual = signal.signal(signal.SIGTERM, lambda signum, frame: calls.append(signum))
        yield calls
        signal.signal(signal.SIGTERM, usual)

    def test_noted(self, calls):
        with Interrupts() as interrupts:
            signal.raise_signal(signal.SIGTERM)
            assert (interrupts.pending, calls) == (True, [])
        assert calls == [signal.SIGTERM]

    def test_in_python(self, calls):
        """What waits, such as for a source that hangs, ends now."""
        with Interrupts() as interrupts:
            with pytest.raises(KeyboardInterrupt, match=r"^$"), interrupts.allowed():
                signal.raise_signal(signal.SIGTERM)
            assert calls == []
        assert calls == [signal.SIGTERM]

    def test_nested(self, calls):
        with Interrupts() as outer:
            with (
                pytest.raises(KeyboardInterrupt, match=r"^$"),
                outer.allowed(),
                Interrupts() as inner,
            ):
                signal.raise_signal(signal.SIGTERM)
            assert (inner.pending, outer.pending, calls) == (True, True, [])
        assert calls == [signal.SIGTERM]

    def test_ignored(self):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        with Interrupts() as interrupts:
            signal.raise_signal(signal.SIGTERM)
            assert not interrupts.pending

    def test_a_fit_keeps_its_steps(self, calls):
        x, step = halving()

        def terminate(approx, losses, i):
            if i == 6:
                signal.raise_signal(signal.SIGTERM)

        end = loop(step, 100, terminate)
        assert (end.n_steps, end.stopped, calls) == (6, "interrupted", [signal.SIGTERM])
        assert x.get_value() == 0.5**6


def test_another_thread():
    seen = []

    def run():
        with Interrupts() as interrupts, interrupts.allowed():
            seen.append(interrupts.pending)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [False]


def send_interrupt(after):
    timer = Timer(after, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    return timer


def loop(step, n_steps, *callbacks):
    progress = FitProgress(n_steps, show=False)
    return run_loop(step, n_steps, approx=None, params=(), callbacks=callbacks, progress=progress)


class TestControlC:
    """In the loop of a fit."""

    @pytest.fixture(params=["numba", "python", "numba, no loss"])
    def counting_step(self, request):
        n = shared(0.0, "n")
        mode = {"mode": "NUMBA"} if "numba" in request.param else {}
        return n, bare_step({n: n + 1}, None if "no loss" in request.param else n * 1, **mode)

    def test_all_steps_are_kept(self, counting_step):
        n, step = counting_step
        handler = signal.getsignal(signal.SIGINT)
        began = time.perf_counter()
        send_interrupt(0.3)
        end = loop(step, 10**9)
        assert 0.3 <= time.perf_counter() - began < 1.3
        assert end.stopped == "interrupted"
        assert end.n_steps == n.get_value() > 0
        if step.has_loss:
            np.testing.assert_array_equal(end.losses, np.arange(end.n_steps))
        assert signal.getsignal(signal.SIGINT) is handler

    def test_in_a_callback(self):
        """Python code is interrupted where it is."""
        x, step = halving()
        send_interrupt(0.2)
        began = time.perf_counter()
        end = loop(step, 10, lambda *_: time.sleep(5))
        assert time.perf_counter() - began < 2
        assert (end.n_steps, end.stopped, x.get_value()) == (1, "interrupted", 0.5)

    def test_a_thread(self):
        """Python lets no other than the main thread handle signals."""
        x, step = halving()
        ends = []
        thread = threading.Thread(target=lambda: ends.append(loop(step, 50)))
        thread.start()
        thread.join()
        assert ends[0].n_steps == 50
        assert x.get_value() == 0.5**50

    def test_ignored(self):
        """A process for which Ctrl-C is ignored goes on."""
        handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            _, step = halving()

            def interrupt(approx, losses, i):
                if i == 10:
                    os.kill(os.getpid(), signal.SIGINT)

            assert loop(step, 20, interrupt).n_steps == 20
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        finally:
            signal.signal(signal.SIGINT, handler)
