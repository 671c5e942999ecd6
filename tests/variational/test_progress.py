# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""The bar of a fit: in a terminal, in a notebook, as lines of a log, and not at all."""

import io
import logging
import re
import sys

from types import SimpleNamespace

import numpy as np
import pytest

from pytensor.compile.mode import Mode
from rich.console import Console

import pymc as pm

from pymc.variational import progress
from pymc.variational.engine.loop import LossHistory
from pymc.variational.progress import (
    LINE,
    REFRESH,
    Compiling,
    FitProgress,
    StageProgress,
    log_info,
    with_bar,
)

PYTHON = Mode(linker="py", optimizer=None)


class Clock:
    """Stands for the module `time`."""

    def __init__(self):
        self.now = 100.0

    def perf_counter(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


@pytest.fixture
def history():
    history = LossHistory()
    history.extend(np.full(2000, 1234.5678))
    return history


def text(file):
    """What was written, without the codes of a terminal."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", file.getvalue())


def run(console, history, clock, n_updates=10, apart=0.5, n_steps=1000, show=True):
    """A fit of `n_updates` calls that take some seconds each."""
    with FitProgress(n_steps, console=console, show=show) as bar:
        for k in range(1, n_updates + 1):
            clock.now += apart
            bar.update(k * n_steps // n_updates, history, last=k == n_updates)


def test_terminal(history, clock):
    console = Console(force_terminal=True, file=io.StringIO(), width=150)
    run(console, history, clock)
    written = text(console.file)
    assert "Fitting:" in written
    assert "100%" in written
    assert "Average Loss = 1,234.6" in written
    assert "200 steps/s" in written


def test_notebook(history, clock):
    console = Console(force_jupyter=True, record=True, file=io.StringIO())
    assert console.is_jupyter
    run(console, history, clock, apart=LINE)
    assert " of 1,000 steps" not in console.export_text()  # no lines of a log


def test_log(history, clock):
    """A line after 10 s, 20 s, 40 s and so on, and the bar at the end."""
    console = Console(file=io.StringIO(), width=150)
    assert not console.is_terminal
    run(console, history, clock, n_updates=100, apart=1.0)
    lines = [line for line in text(console.file).splitlines() if " of " in line]
    assert lines == [
        f"Fitting: {n} of 1,000 steps  Average Loss = 1,234.6  10 steps/s"
        for n in (110, 210, 410, 810)
    ]
    assert text(console.file).count("100%") == 1


def test_short_log(history, clock):
    console = Console(file=io.StringIO(), width=150)
    run(console, history, clock, n_updates=5, apart=1.0)
    assert len(text(console.file).splitlines()) == 1


@pytest.mark.parametrize("kwargs", [{"force_terminal": True}, {}], ids=["terminal", "log"])
def test_not_at_all(history, clock, kwargs, capsys):
    console = Console(file=io.StringIO(), **kwargs)
    run(console, history, clock, apart=LINE, show=False)
    assert console.file.getvalue() == ""
    with FitProgress(10, show=False) as bar:
        bar.update(10, history, last=True)
    assert capsys.readouterr() == ("", "")


@pytest.fixture
def changes(monkeypatch):
    """The changes of the bar."""
    changes = []
    update = progress.CustomProgress.update

    def count(self, task, **kwargs):
        changes.append(kwargs)
        update(self, task, **kwargs)

    monkeypatch.setattr(progress.CustomProgress, "update", count)
    return changes


def test_changes_are_apart(history, clock, changes):
    """However often the loop calls, and at least four times a second."""
    console = Console(force_terminal=True, file=io.StringIO())
    run(console, history, clock, n_updates=10_000, apart=1e-3)
    assert 4 * 10 <= len(changes) <= 10 / (REFRESH / 2) + 1


def test_the_last_change_is_shown(history, clock, changes):
    console = Console(force_terminal=True, file=io.StringIO())
    run(console, history, clock, n_updates=1, apart=1e-6)
    assert [change["completed"] for change in changes] == [1000]


def test_without_losses(clock, changes):
    run(Console(file=io.StringIO()), LossHistory(), clock)
    assert {change["loss"] for change in changes} == {""}
    assert changes[-1]["speed"] == "200 steps/s"


def test_the_average_is_of_late(clock, changes):
    history = LossHistory()
    history.extend(np.full(5000, 1e6))
    history.extend(np.full(1000, 2.0))
    run(Console(file=io.StringIO()), history, clock)
    assert changes[-1]["loss"] == "Average Loss = 2"


def test_theme():
    from pymc.progress_bar import default_progress_theme

    with FitProgress(10, theme=default_progress_theme) as bar:
        bar.update(10, LossHistory(), last=True)


def test_no_steps(history):
    console = Console(file=io.StringIO())
    with FitProgress(0, console=console):
        pass


def test_compiling_in_a_terminal():
    """A line at once, which is gone when the bar is there."""
    console = Console(force_terminal=True, file=io.StringIO(), width=80)
    with Compiling(console=console):
        assert "Compiling" in text(console.file)
        with FitProgress(10, console=console):
            erased = console.file.getvalue()
            assert erased.rindex("\x1b[2K") > erased.rindex("Compiling")
        assert "Compiling" not in console.file.getvalue()[len(erased) :]


def test_compiling_in_a_log():
    """One line, however many say so, and before the steps."""
    console = Console(file=io.StringIO(), width=80)
    with Compiling(console=console):
        assert text(console.file) == "Compiling ...\n"
        with Compiling(console=console), FitProgress(10, console=console):
            pass
    assert text(console.file).count("Compiling") == 1
    with Compiling(console=console):
        assert text(console.file).count("Compiling") == 2


def test_compiling_ends_with_an_error():
    console = Console(force_terminal=True, file=io.StringIO(), width=80)
    with pytest.raises(ValueError, match="wrong"), Compiling(console=console) as compiling:
        raise ValueError("wrong")
    assert compiling._line is None
    with Compiling(console=Console(file=(later := io.StringIO()))):
        assert later.getvalue() == "Compiling ...\n"


def test_a_fit_that_shows_nothing(capsys):
    with Compiling(show=False), Compiling(), FitProgress(10, show=False):
        pass
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("shown", [True, False])
def test_fits_say_that_they_compile(capsys, shown):
    """At once: before anything is made, and once for each call."""
    kwargs = {"progressbar": shown, "compile_kwargs": {"mode": PYTHON}, "random_seed": 1}
    said = []
    loader = pm.DataLoader(np.zeros((6, 1)), batch_size=3)
    with pm.Model():
        batch = pm.Data("batch", loader, dims=("obs", "column"))
        pm.Normal("y", pm.Normal("mu"), 1, observed=batch[:, 0], dims="obs")
        trainer = pm.Trainer(dataloader=loader, **kwargs)
        del kwargs["random_seed"]
        for fit in (
            lambda: pm.fit(2, data=loader, **kwargs),
            lambda: pm.ADVI().fit(2, data=loader, **kwargs),
            lambda: trainer.fit(2),
        ):
            fit()
            said.append(capsys.readouterr().out.splitlines())
    for lines in said:
        assert [line[:9] for line in lines] == (["Compiling", "Fitting: "] if shown else [])


def test_it_is_said_before_anything_is_made(capsys, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("it makes a method")

    monkeypatch.setattr("pymc.variational.inference.make_inference", refuse)
    with pm.Model(), pytest.raises(AssertionError, match="it makes a method"):
        pm.Normal("mu")
        pm.fit(2)
    assert capsys.readouterr().out == "Compiling ...\n"


class Handle:
    """What IPython's display returns."""

    def __init__(self, shown):
        self.shown = shown

    def update(self, html):
        self.shown[-1] = html


@pytest.fixture
def cells(monkeypatch):
    """HTML of the outputs of a notebook without ipywidgets, by a stand-in for IPython."""
    shown = []

    def display(html, display_id):
        assert display_id
        shown.append(html)
        return Handle(shown)

    module = SimpleNamespace(HTML=str, display=display)
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(display=module))
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    return shown


def notebook():
    return Console(force_jupyter=True, file=io.StringIO())


def test_a_notebook_has_one_bar(history, clock, cells):
    """In the place of the message that the fit compiles."""
    with Compiling(console=notebook()):
        assert "Compiling" in cells[0]
        run(notebook(), history, clock)
    assert len(cells) == 1
    assert "Compiling" not in cells[0]
    assert "1,000 of 1,000 steps" in cells[0]
    assert "Average Loss = 1,234.6" in cells[0]
    assert 'aria-valuenow="100"' in cells[0]
    assert "<svg" not in cells[0]


def test_a_notebook_tells_the_time_left(history, clock, cells):
    with FitProgress(1000, console=notebook()) as bar:
        clock.now += 10.0
        bar.update(250, history)
        assert "250 of 1,000 steps" in cells[0]
        assert "0:00:30 left" in cells[0]


def test_a_fit_that_fails_to_compile_leaves_no_message(cells):
    with pytest.raises(ValueError, match="wrong"), Compiling(console=notebook()):
        raise ValueError("wrong")
    assert cells == [""]


@pytest.mark.parametrize("where", ["notebook", "terminal"])
def test_a_picture_of_the_loss(history, clock, cells, where):
    console = notebook()
    if where == "terminal":
        console = Console(force_terminal=True, file=io.StringIO(), width=100)
    run(console, history, clock, show="plot")
    assert ("loss, by step" in (cells[0] if cells else text(console.file))) and (
        "<svg" in cells[0] if cells else "█" in text(console.file)
    )
    assert bool(cells) == (where == "notebook")


@pytest.mark.parametrize("where", ["notebook", "terminal"])
def test_a_picture_of_the_moves(clock, cells, where):
    console = notebook()
    if where == "terminal":
        console = Console(force_terminal=True, file=io.StringIO(), width=100)
    with StageProgress(console=console, show="plot") as bar:
        for moved in (np.inf, 100.0, 1.0, 0.01):
            clock.now += 1.0
            bar.show("Fitting a normal", moved)
        bar.end("trusted")
    shown = cells[0] if cells else text(console.file)
    assert "movement in sds" in shown
    assert "trusted" in shown
    assert len(cells) == (where == "notebook")


def test_no_picture_in_a_log(history, clock):
    console = Console(file=io.StringIO(), width=150)
    run(console, history, clock, n_updates=100, apart=1.0, show="plot")
    assert "█" not in text(console.file)


def test_another_word():
    with pytest.raises(ValueError, match=r"progressbar='graph' of a fit has to be True, False, or"):
        with pm.Model():
            pm.Normal("mu")
            pm.fit(2, progressbar="graph")


def test_what_went_well_is_not_red(monkeypatch, caplog, capsys):
    """In a notebook it is printed, unless the user has handlers of logs."""
    log = logging.getLogger("pymc.variational.inference")
    monkeypatch.setattr(progress, "Console", lambda: Console(force_jupyter=False))
    with caplog.at_level("INFO", log.name):
        log_info(log, "Finished")
        assert caplog.messages == ["Finished"]
        assert capsys.readouterr().out == ""
        monkeypatch.setattr(logging.root, "handlers", [])
        printed = SimpleNamespace(is_jupyter=True, print=lambda text, **_: said.append(text))
        monkeypatch.setattr(progress, "Console", lambda: printed)
        said = []
        log_info(log, "Finished [100%]")
        assert said == ["Finished [100%]"]
    log.setLevel("WARNING")
    try:
        log_info(log, "Finished")
    finally:
        log.setLevel(logging.NOTSET)
    assert len(said) == 1
    assert caplog.messages == ["Finished"]


def test_bars_over_items(clock, cells, monkeypatch):
    seen = []
    for item in with_bar(range(4), "Rows", console=notebook()):
        clock.now += 1.0
        seen.append(item)
    assert seen == [0, 1, 2, 3]
    assert "Rows: 4 of 4" in cells[0]
    assert len(cells) == 1
