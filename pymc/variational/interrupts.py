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
"""Ctrl-C as a flag.

Raised inside of compiled code, `KeyboardInterrupt` becomes a SystemError or a segmentation fault. Here
a handler takes note of it, and the loop looks between two calls.
"""

from __future__ import annotations

import signal
import threading

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["Interrupts"]


class Interrupts:
    """Holds back Ctrl-C while it is entered.

    Outside of the main thread, where Python delivers no signals, it does nothing.

    Examples
    --------
    >>> import signal
    >>> from pymc.variational.interrupts import Interrupts
    >>> with Interrupts() as interrupts:
    ...     signal.raise_signal(signal.SIGINT)  # as Ctrl-C does
    ...     interrupts.pending
    True
    """

    def __init__(self) -> None:
        self.pending = False
        self._usual: Any = None

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            usual = signal.getsignal(signal.SIGINT)
            if callable(usual):  # neither ignored, nor a handler that Python cannot restore
                self._usual = usual
                signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, *exception: Any) -> None:
        if self._usual is not None:
            signal.signal(signal.SIGINT, self._usual)
            self._usual = None

    def _note(self, signum: int, frame: Any) -> None:
        self.pending = True

    @contextmanager
    def allowed(self) -> Iterator[None]:
        """Let Ctrl-C interrupt Python code."""
        if self._usual is None:
            yield
            return
        signal.signal(signal.SIGINT, self._usual)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, self._note)
