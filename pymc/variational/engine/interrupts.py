# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Signals during a fit: Ctrl-C and SIGTERM become flags that the loop looks at between two calls.

Raised inside of compiled code, `KeyboardInterrupt` becomes a SystemError or a segmentation fault, and a
process that is terminated loses the fit.
"""

from __future__ import annotations

import signal
import threading

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

__all__ = ["Interrupts"]


class Interrupts:
    """Context manager that delays Ctrl-C and SIGTERM.

    `pending` says whether a signal has come. Outside of the main thread, where Python delivers no signals, it
    does nothing.

    Examples
    --------
    >>> import signal
    >>> from pymc.variational.engine.interrupts import Interrupts
    >>> with Interrupts() as interrupts:
    ...     signal.raise_signal(signal.SIGINT)  # as Ctrl-C does
    ...     interrupts.pending
    True
    """

    def __init__(self) -> None:
        self.pending = False
        self._handlers: dict[int, Any] = {}  # those before, of the signals that are delayed
        self._terminating = False
        self._in_python = False

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            self._delay(signal.SIGINT, self._note)
            self._delay(signal.SIGTERM, self._note_termination)
        return self

    def _delay(self, signum: int, note: Callable[[int, FrameType | None], None]) -> None:
        before = signal.getsignal(signum)
        # Neither an ignored signal, nor a handler that Python cannot restore. SIGTERM is not handled by default
        if callable(before) or (before is signal.SIG_DFL and signum == signal.SIGTERM):
            self._handlers[signum] = signal.signal(signum, note)

    def __exit__(self, *exception: object) -> None:
        """Restore the handlers. A SIGTERM takes effect now."""
        while self._handlers:
            signal.signal(*self._handlers.popitem())
        if self._terminating:
            self._terminating = False
            signal.raise_signal(signal.SIGTERM)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        self.pending = True

    def _note_termination(self, signum: int, frame: FrameType | None) -> None:
        self.pending = self._terminating = True
        if self._in_python:  # the loop ends as by Ctrl-C, and keeps its steps
            raise KeyboardInterrupt

    @contextmanager
    def allowed(self) -> Iterator[None]:
        """Let signals interrupt Python code: Ctrl-C as usual, and SIGTERM as Ctrl-C."""
        delayed = signal.SIGINT in self._handlers
        if delayed:
            signal.signal(signal.SIGINT, self._handlers[signal.SIGINT])
        try:
            self._in_python = True
            yield
        finally:
            self._in_python = False
            if delayed:
                signal.signal(signal.SIGINT, self._note)
