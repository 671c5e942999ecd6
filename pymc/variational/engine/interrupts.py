# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C, and a request to terminate, as flags.

Raised inside of compiled code, `KeyboardInterrupt` becomes a SystemError or a segmentation fault, and a
process that is terminated loses the fit. Here handlers take note, and the loop looks between two calls.
"""

from __future__ import annotations

import signal
import threading

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["Interrupts"]


class Interrupts:
    """Holds back Ctrl-C, and SIGTERM until it is left.

    Outside of the main thread, where Python delivers no signals, it does nothing.

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
        self._usual: Any = None
        self._usual_end: Any = None
        self._ending = False
        self._in_python = False

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            usual = signal.getsignal(signal.SIGINT)
            if callable(usual):  # neither ignored, nor a handler that Python cannot restore
                self._usual = usual
                signal.signal(signal.SIGINT, self._note)
            end = signal.getsignal(signal.SIGTERM)
            if callable(end) or end is signal.SIG_DFL:
                self._usual_end = end
                signal.signal(signal.SIGTERM, self._note_end)
        return self

    def __exit__(self, *exception: Any) -> None:
        """Have the usual handlers again; what SIGTERM usually does, happens now."""
        if self._usual is not None:
            signal.signal(signal.SIGINT, self._usual)
            self._usual = None
        if self._usual_end is not None:
            signal.signal(signal.SIGTERM, self._usual_end)
            self._usual_end = None
        if self._ending:
            self._ending = False
            signal.raise_signal(signal.SIGTERM)

    def _note(self, signum: int, frame: Any) -> None:
        self.pending = True

    def _note_end(self, signum: int, frame: Any) -> None:
        self.pending = self._ending = True
        if self._in_python:  # the loop ends as by Ctrl-C, and what is done is kept
            raise KeyboardInterrupt

    @contextmanager
    def allowed(self) -> Iterator[None]:
        """Let signals interrupt Python code: Ctrl-C as usual, and SIGTERM as Ctrl-C."""
        if self._usual is not None:
            signal.signal(signal.SIGINT, self._usual)
        try:
            self._in_python = True
            yield
        finally:
            self._in_python = False
            if self._usual is not None:
                signal.signal(signal.SIGINT, self._note)
