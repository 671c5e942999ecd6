# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Progress of a fit: a bar in a terminal or notebook, a line now and then in a log.

All classes take a `theme` of rich, `show` (False prints nothing), and a `console` in place of standard
output.
"""

from __future__ import annotations

import time

from collections.abc import Iterator, Sequence
from contextvars import ContextVar, Token
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.theme import Theme

from pymc.progress_bar import CustomProgress, default_progress_theme

if TYPE_CHECKING:
    from pymc.variational.engine.loop import LossHistory

__all__ = ["Compiling", "FitProgress", "StageProgress", "with_bar"]

# Seconds between two changes of the bar, and, at first, between two lines of a log
REFRESH, LINE = 0.2, 10.0

# Seconds that something has to take before it has a bar
WORTH_A_BAR = 1.0


class _Output:
    """A console, or a log that gets a line now and then."""

    def __init__(
        self, *, theme: Theme | None = None, show: bool = True, console: Console | None = None
    ) -> None:
        self._console = Console(theme=theme) if console is None else console
        self._show = show
        self._is_log = show and not (self._console.is_terminal or self._console.is_jupyter)
        self._start, self._next_line = time.perf_counter(), LINE

    @property
    def _seconds(self) -> float:
        return time.perf_counter() - self._start

    def _log_line(self, text: str) -> None:
        """Print a line to a log, each time after twice as long."""
        if self._is_log and self._seconds > self._next_line:
            self._next_line *= 2
            self._console.print(text)

    def _spinner(self, *, disable: bool = False, transient: bool = False) -> Progress:
        return Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            console=self._console,
            disable=disable,
            transient=transient,
            refresh_per_second=1 / REFRESH,
        )


class Compiling(_Output):
    """Message that a fit compiles, until its bar comes or the context ends.

    In a terminal or notebook it is a line with the time, which then disappears; in a log it is a line that
    stays. Within another one it prints nothing.
    """

    _line: Progress | None = None
    _token: Token[Compiling | None] | None = None

    def __enter__(self) -> Self:
        if _compiling.get() is not None:
            return self
        self._token = _compiling.set(self)
        if self._show and not self._is_log:
            self._line = self._spinner(transient=True)
            self._line.add_task("Compiling")
            self._line.start()
        elif self._show:
            self._console.print("Compiling ...")
        return self

    def __exit__(self, *exception: object) -> None:
        if self._token is not None:
            self.stop()
            _compiling.reset(self._token)

    def stop(self) -> None:
        """Remove the line."""
        if self._line is not None:
            self._line.stop()
            self._line = None


#: The message on display in this thread
_compiling: ContextVar[Compiling | None] = ContextVar("compiling", default=None)


class _Bar(_Output):
    """Base class of bars, which take the place of the message that a fit compiles."""

    _bar: Progress

    def __enter__(self) -> Self:
        if (compiling := _compiling.get()) is not None:
            compiling.stop()
        self._bar.__enter__()
        self._start = time.perf_counter()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.__exit__(*exception)  # type: ignore[arg-type]


class FitProgress(_Bar):
    """Bar of a fit of `n_steps`, with the recent average loss and steps per second."""

    def __init__(self, n_steps: int, **output: Any) -> None:
        super().__init__(**output)
        self._bar = CustomProgress(
            *Progress.get_default_columns(),
            TextColumn("{task.fields[loss]}"),
            TextColumn("{task.fields[speed]}"),
            console=self._console,
            disable=not self._show,
            refresh_per_second=1 / REFRESH,
        )
        self._task = self._bar.add_task("Fitting:", total=n_steps, loss="", speed="")
        self._n_steps = n_steps
        self._shown = 0.0  # seconds after the start

    def update(self, n_done: int, history: LossHistory, *, last: bool = False) -> None:
        """Show that `n_done` steps are done, unless the last update was just before."""
        seconds = self._seconds
        if not self._show or (seconds - self._shown < REFRESH / 2 and not last):
            return
        self._shown = seconds
        loss = f"Average Loss = {history.recent_mean():,.5g}" if len(history) else ""
        speed = f"{n_done / seconds:,.0f} steps/s" if seconds > 0 else ""
        self._bar.update(self._task, completed=n_done, loss=loss, speed=speed)
        if not last:
            self._log_line(f"Fitting: {n_done:,} of {self._n_steps:,} steps  {loss}  {speed}")


class StageProgress(_Bar):
    """Spinner of a fit without a number of steps, with a text about its stage."""

    def __init__(self, **output: Any) -> None:
        super().__init__(**output)
        self._bar = self._spinner(disable=not self._show or self._is_log)
        self._task = self._bar.add_task("Fitting")

    def show(self, text: str) -> None:
        """Show the stage of the fit."""
        self._bar.update(self._task, description=text)
        self._log_line(text)

    def end(self, text: str) -> None:
        """Print the line that stays."""
        if self._show:
            self._console.print(text, highlight=False)


def with_bar[T](
    items: Sequence[T], what: str, show: bool = True, console: Console | None = None
) -> Iterator[T]:
    """Yield items, with a bar once they take more than a second; in a log, with a line now and then."""
    output = _Output(console=console or Console(theme=default_progress_theme), show=show)
    bar = None
    try:
        for n_done, item in enumerate(items, start=1):
            yield item
            if not show or output._seconds < WORTH_A_BAR:
                continue
            if bar is None:
                bar = CustomProgress(console=output._console, refresh_per_second=1 / REFRESH)
                task = bar.add_task(what, total=len(items))
                bar.start()
            bar.update(task, completed=n_done)
            if n_done < len(items):
                output._log_line(f"{what}: {n_done:,} of {len(items):,}")
    finally:
        if bar is not None:
            bar.stop()
