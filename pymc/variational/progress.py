# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Progress of a fit: a bar in a terminal or notebook, with a live picture on request, or a line now and then in a log.

All classes take a `theme` of rich, `show` (False prints nothing, "plot" draws a picture too), and a `console` in
place of standard output. In a notebook they show HTML by IPython alone: rich would need ipywidgets.
"""

from __future__ import annotations

import logging
import time

from collections.abc import Iterable, Iterator, Sequence
from contextvars import ContextVar, Token
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Self, TypeVar

import numpy as np

from rich.console import Console, RenderableType
from rich.progress import Progress, ProgressColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text
from rich.theme import Theme

from pymc.progress_bar import CustomProgress, default_progress_theme
from pymc.variational.display import bar, block_means, chart, line, text_chart

if TYPE_CHECKING:
    from pymc.variational.engine.loop import LossHistory

T = TypeVar("T")

__all__ = ["Compiling", "FitProgress", "StageProgress", "log_info", "with_bar"]

# Seconds between two changes of the bar, and, at first, between two lines of a log
REFRESH, LINE = 0.2, 10.0

# Seconds that something has to take before it has a bar
WORTH_A_BAR = 1.0

#: The value of `progressbar` that draws a picture too.
PLOT = "plot"


class Cell:
    """HTML in the output of a notebook's cell, which later HTML replaces."""

    def __init__(self) -> None:
        self._handle: Any = None
        self.html = ""

    def show(self, html: str) -> None:
        """Show HTML in the place of what was shown before."""
        try:
            from IPython.display import HTML, display
        except ModuleNotFoundError:  # a console that is said to be in a notebook
            return
        self.html = html
        if self._handle is None:
            self._handle = display(HTML(html), display_id=True)
        else:
            self._handle.update(HTML(html))


class _Output:
    """A console, or a log that gets a line now and then."""

    def __init__(
        self,
        *,
        theme: Theme | None = None,
        show: bool | str = True,
        console: Console | None = None,
    ) -> None:
        if isinstance(show, str) and show != PLOT:
            raise ValueError(
                f"progressbar={show!r} of a fit has to be True, False, or {PLOT!r} for a picture of the fit as it "
                "goes on"
            )
        self._console = Console(theme=theme) if console is None else console
        self._show, self._has_plot = bool(show), show == PLOT
        self._in_notebook = self._show and self._console.is_jupyter
        self._is_log = self._show and not (self._console.is_terminal or self._console.is_jupyter)
        self._start, self._next_line = time.perf_counter(), LINE

    @property
    def _seconds(self) -> float:
        return time.perf_counter() - self._start

    def _log_line(self, text: str) -> None:
        """Print a line to a log, each time after twice as long."""
        if self._is_log and self._seconds > self._next_line:
            self._next_line *= 2
            self._console.print(text)


class Compiling(_Output):
    """Message that a fit compiles, until its bar comes or the context ends.

    In a terminal or notebook it is a line with the time, which then disappears; in a log it is a line that
    stays. Within another one it prints nothing.
    """

    _line: Progress | None = None
    _token: Token[Compiling | None] | None = None
    #: In a notebook: the bar takes its place
    cell: Cell | None = None

    def __enter__(self) -> Self:
        if _compiling.get() is not None:
            return self
        self._token = _compiling.set(self)
        if self._in_notebook:
            self.cell = Cell()
            self.cell.show(line("Compiling ..."))
        elif self._show and not self._is_log:
            self._line = Progress(
                *_spinner_columns(),
                console=self._console,
                transient=True,
                refresh_per_second=1 / REFRESH,
            )
            self._line.add_task("Compiling")
            self._line.start()
        elif self._show:
            self._console.print("Compiling ...")
        return self

    def __exit__(self, *exception: object) -> None:
        if self._token is not None:
            if (cell := self.stop()) is not None:
                cell.show("")
            _compiling.reset(self._token)

    def stop(self) -> Cell | None:
        """Remove the line; return the cell of a notebook that has it, the first time."""
        if self._line is not None:
            self._line.stop()
            self._line = None
        cell, self.cell = self.cell, None
        return cell


#: The message on display in this thread
_compiling: ContextVar[Compiling | None] = ContextVar("compiling", default=None)


class _FitBar(CustomProgress):
    """Bar of rich, with a picture below it."""

    picture: RenderableType = ""

    def get_renderables(self) -> Iterable[RenderableType]:
        yield from super().get_renderables()
        if self.picture:
            yield self.picture


class _Bar(_Output):
    """Base class of bars, which take the place of the message that a fit compiles."""

    _bar: _FitBar
    _cell: Cell | None = None  # of a notebook

    def __enter__(self) -> Self:
        compiling = _compiling.get()
        cell = None if compiling is None else compiling.stop()
        if self._in_notebook:
            self._cell = cell or Cell()
        else:
            self._bar.__enter__()
        self._start = time.perf_counter()
        return self

    def __exit__(self, *exception: object) -> None:
        if not self._in_notebook:
            self._bar.__exit__(*exception)  # type: ignore[arg-type]

    def _draw(
        self, x: np.ndarray, y: np.ndarray, label: str, xlabel: str, *, log: bool = False
    ) -> str:
        """Draw the picture, if there is to be one: below the bar of a terminal, or as HTML."""
        if not self._has_plot or len(y) < 2:
            return ""
        if self._in_notebook:
            return chart(x, y, label, xlabel, log=log)
        if self._console.is_terminal and not self._console.options.ascii_only:
            width = min(self._console.width - 12, 70)
            self._bar.picture = Text(text_chart(x, y, f"{label}, by {xlabel}", width, log=log))
        return ""


class FitProgress(_Bar):
    """Bar of a fit of `n_steps`, with the recent average loss and steps per second."""

    def __init__(self, n_steps: int, **output: Any) -> None:
        super().__init__(**output)
        self._bar = _FitBar(
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
        picture = ""
        if self._has_plot:
            picture = self._draw(*block_means(history.losses), "loss", "step")
        if self._cell is not None:
            left = seconds * (self._n_steps / max(n_done, 1) - 1)
            parts = [f"{n_done:,} of {self._n_steps:,} steps", loss, speed]
            parts.append("" if last else f"{timedelta(seconds=round(left))} left")
            done = bar(n_done / max(self._n_steps, 1), "  ·  ".join(filter(None, parts)))
            self._cell.show(done + picture)
        self._bar.update(self._task, completed=n_done, loss=loss, speed=speed)
        if not last:
            self._log_line(f"Fitting: {n_done:,} of {self._n_steps:,} steps  {loss}  {speed}")


class StageProgress(_Bar):
    """Spinner of a fit without a number of steps, with a text about its stage."""

    def __init__(self, **output: Any) -> None:
        super().__init__(**output)
        self._bar = _FitBar(
            *_spinner_columns(),
            console=self._console,
            disable=not self._show or self._is_log,
            refresh_per_second=1 / REFRESH,
        )
        self._task = self._bar.add_task("Fitting")
        self._moves: list[float] = []
        self._shown = -REFRESH

    def show(self, text: str, moved: float | None = None) -> None:
        """Show the stage of the fit, and how far its last update moved, in standard deviations."""
        if moved is not None:
            self._moves.append(moved)
        if self._seconds - self._shown >= REFRESH / 2:
            self._shown = self._seconds
            self._show_line(text)
        self._bar.update(self._task, description=text)
        self._log_line(text)

    def end(self, text: str) -> None:
        """Print the line that stays."""
        self._show_line(text)
        if self._show and self._cell is None:
            self._console.print(text, highlight=False)

    def _show_line(self, text: str) -> None:
        moves = np.array(self._moves)
        updates = np.arange(1, len(moves) + 1)
        picture = self._draw(updates, moves, "movement in sds", "update", log=True)
        if self._cell is not None:
            self._cell.show(line(text) + picture)


def with_bar(
    items: Sequence[T], what: str, show: bool = True, console: Console | None = None
) -> Iterator[T]:
    """Yield items, with a bar once they take more than a second; in a log, with a line now and then."""
    output = _Output(console=console or Console(theme=default_progress_theme), show=show)
    cell = Cell() if output._in_notebook else None
    progress: CustomProgress | None = None
    try:
        for n_done, item in enumerate(items, start=1):
            yield item
            if not show or output._seconds < WORTH_A_BAR:
                continue
            text = f"{what}: {n_done:,} of {len(items):,}"
            if cell is not None:
                cell.show(bar(n_done / len(items), text))
                continue
            if progress is None:
                progress = CustomProgress(console=output._console, refresh_per_second=1 / REFRESH)
                task = progress.add_task(what, total=len(items))
                progress.start()
            progress.update(task, completed=n_done)
            if n_done < len(items):
                output._log_line(text)
    finally:
        if progress is not None:
            progress.stop()


def log_info(log: logging.Logger, text: str) -> None:
    """Log that something went well; in a notebook print it, where logs have the red ground of errors.

    A user's own handlers of logs get it in any case.
    """
    console = Console()
    if console.is_jupyter and log.isEnabledFor(logging.INFO) and not logging.root.handlers:
        console.print(text, highlight=False, markup=False)
    else:
        log.info(text)


def _spinner_columns() -> tuple[ProgressColumn, ...]:
    return SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
