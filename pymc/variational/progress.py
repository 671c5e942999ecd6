# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""How far a fit is: a bar in a terminal or notebook, a line now and then in a log."""

from __future__ import annotations

import time

from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from typing import Any

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.theme import Theme

from pymc.progress_bar import CustomProgress, default_progress_theme
from pymc.variational.engine.history import LossHistory

__all__ = ["Compiling", "FitProgress", "StageProgress", "with_bar"]

# Seconds between two changes of the bar, and, at first, between two lines of a log
REFRESH, LINE = 0.2, 10.0

# Seconds that something has to take before it has a bar
WORTH_A_BAR = 1.0


class _Output:
    """Where a fit says how far it is: a terminal or notebook, or a log, with a line now and then.

    Parameters
    ----------
    theme : rich.theme.Theme, optional
    show : bool
        False prints nothing.
    console : rich.console.Console, optional
        Where to print; standard output if not given.
    """

    def __init__(
        self, *, theme: Theme | None = None, show: bool = True, console: Console | None = None
    ) -> None:
        self._console = Console(theme=theme) if console is None else console
        self._show = show
        self._is_log = show and not (self._console.is_terminal or self._console.is_jupyter)
        self._next_line = LINE

    def _log_line(self, seconds: float, text: str) -> None:
        """Print a line to a log, each time after twice as long."""
        if self._is_log and seconds > self._next_line:
            self._next_line *= 2
            self._console.print(text)


class Compiling(_Output):
    """Say at once that a fit compiles, until its bar comes, or this ends.

    In a terminal or notebook it is a line with the time that it takes, which then goes; in a log it is a
    line that stays. Within another one it says nothing more.

    Parameters
    ----------
    theme : rich.theme.Theme, optional
    show : bool
        False prints nothing.
    console : rich.console.Console, optional
        Where to print; standard output if not given.
    """

    def __init__(
        self, *, theme: Theme | None = None, show: bool = True, console: Console | None = None
    ) -> None:
        super().__init__(theme=theme, show=show, console=console)
        self._line: Progress | None = None
        self._token: Any = None

    def __enter__(self) -> Compiling:
        if _compiling.get() is not None:
            return self
        self._token = _compiling.set(self)
        if self._show and not self._is_log:
            self._line = Progress(
                SpinnerColumn(),
                TextColumn("{task.description}"),
                TimeElapsedColumn(),
                console=self._console,
                transient=True,
            )
            self._line.add_task("Compiling")
            self._line.start()
        elif self._show:
            self._console.print("Compiling ...")
        return self

    def __exit__(self, *exception: Any) -> None:
        if self._token is not None:
            self.stop()
            _compiling.reset(self._token)

    def stop(self) -> None:
        """Take the line away."""
        if self._line is not None:
            self._line.stop()
            self._line = None


#: The one that shows, in this thread
_compiling: ContextVar[Compiling | None] = ContextVar("compiling", default=None)


class FitProgress(_Output):
    """The bar of a fit, with the average loss of late and steps a second.

    Parameters
    ----------
    n_steps : int
        Steps that the fit is asked for.
    theme : rich.theme.Theme, optional
    show : bool
        False prints nothing.
    console : rich.console.Console, optional
        Where to print; standard output if not given.
    """

    def __init__(
        self,
        n_steps: int,
        *,
        theme: Theme | None = None,
        show: bool = True,
        console: Console | None = None,
    ) -> None:
        super().__init__(theme=theme, show=show, console=console)
        self._bar = CustomProgress(
            *Progress.get_default_columns(),
            TextColumn("{task.fields[loss]}"),
            TextColumn("{task.fields[speed]}"),
            console=self._console,
            disable=not show,
            refresh_per_second=1 / REFRESH,
        )
        self._task = self._bar.add_task("Fitting:", total=n_steps, loss="", speed="")
        self._n_steps = n_steps
        self._start = self._shown = time.perf_counter()

    def __enter__(self) -> FitProgress:
        if (compiling := _compiling.get()) is not None:
            compiling.stop()
        self._bar.__enter__()
        self._start = self._shown = time.perf_counter()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._bar.__exit__(*exception)

    def update(self, n_done: int, history: LossHistory, *, last: bool = False) -> None:
        """Show that `n_done` steps are done, unless the last time was just before."""
        now = time.perf_counter()
        if not self._show or (now - self._shown < REFRESH / 2 and not last):
            return
        self._shown = now
        seconds = now - self._start
        loss = f"Average Loss = {history.recent_mean():,.5g}" if len(history) else ""
        speed = f"{n_done / seconds:,.0f} steps/s" if seconds > 0 else ""
        self._bar.update(self._task, completed=n_done, loss=loss, speed=speed)
        if not last:
            self._log_line(
                seconds, f"Fitting: {n_done:,} of {self._n_steps:,} steps  {loss}  {speed}"
            )


class StageProgress(_Output):
    """The bar of a fit that ends when its answer stands still: how far that is, in sds, and not a loss.

    Parameters
    ----------
    theme : rich.theme.Theme, optional
    show : bool
        False prints nothing.
    console : rich.console.Console, optional
        Where to print; standard output if not given.
    """

    def __init__(
        self, *, theme: Theme | None = None, show: bool = True, console: Console | None = None
    ) -> None:
        super().__init__(theme=theme, show=show, console=console)
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            console=self._console,
            disable=not show or self._is_log,
            refresh_per_second=1 / REFRESH,
        )
        self._task = self._bar.add_task("Fitting")
        self._start = time.perf_counter()

    def __enter__(self) -> StageProgress:
        if (compiling := _compiling.get()) is not None:
            compiling.stop()
        self._bar.__enter__()
        self._start = time.perf_counter()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._bar.__exit__(*exception)

    def show(self, text: str) -> None:
        """Show where the fit is."""
        self._bar.update(self._task, description=text)
        self._log_line(time.perf_counter() - self._start, text)

    def end(self, text: str) -> None:
        """Print the line that stays."""
        if self._show:
            self._console.print(text, highlight=False)


def with_bar[T](
    items: Sequence[T], what: str, show: bool = True, console: Console | None = None
) -> Iterator[T]:
    """Yield items, with a bar once they take more than a second; in a log, with a line now and then.

    Parameters
    ----------
    items : sequence
    what : str
        What is computed of them.
    show : bool
        False prints nothing.
    console : rich.console.Console, optional
        Where to print; standard output if not given.
    """
    start, next_line, bar = time.perf_counter(), LINE, None
    console = console or Console(theme=default_progress_theme)
    is_log = not (console.is_terminal or console.is_jupyter)
    try:
        for n_done, item in enumerate(items):
            yield item
            seconds = time.perf_counter() - start
            if not show or seconds < WORTH_A_BAR:
                continue
            if bar is None:
                bar = CustomProgress(console=console, refresh_per_second=1 / REFRESH)
                task = bar.add_task(what, total=len(items))
                bar.start()
            bar.update(task, completed=n_done + 1)
            if is_log and seconds > next_line and n_done + 1 < len(items):
                next_line *= 2
                console.print(f"{what}: {n_done + 1:,} of {len(items):,}")
    finally:
        if bar is not None:
            bar.stop()
