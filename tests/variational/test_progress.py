# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""The bar of a fit: in a terminal, in a notebook, as lines of a log, and not at all."""

import io
import re

import numpy as np
import pytest

from pytensor.compile.mode import Mode
from rich.console import Console

import pymc as pm

from pymc.variational import progress
from pymc.variational.engine.loop import LossHistory
from pymc.variational.progress import LINE, REFRESH, Compiling, FitProgress

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


@pytest.mark.filterwarnings('ignore:install "ipywidgets" for Jupyter support:UserWarning')
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
