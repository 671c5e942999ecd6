#   Copyright 2026 - present The PyMC Developers
#
#   Licensed under the Apache License, Version 2.0 (the "License");
#   you may not use this file except in compliance with the License.
#   You may obtain a copy of the License at
#
#       http://www.apache.org/licenses/LICENSE-2.0
#
#   Unless required by applicable law or agreed to in writing, software
#   distributed under the License is distributed on an "AS IS" BASIS,
#   WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
#   See the License for the specific language governing permissions and
#   limitations under the License.
"""Ctrl-C is noted while a fit runs, and raised in callbacks; then all is as before."""

import os
import signal
import threading

import pytest

from pymc.variational.interrupts import Interrupts


def control_c():
    os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture(autouse=True)
def same_handler_afterwards():
    handler = signal.getsignal(signal.SIGINT)
    yield
    left = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, handler)
    assert left is handler


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


def test_another_thread():
    seen = []

    def run():
        with Interrupts() as interrupts, interrupts.allowed():
            seen.append(interrupts.pending)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [False]
