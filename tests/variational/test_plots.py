# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""What the figure of a fit shows, and that the libraries draw it."""

from __future__ import annotations

import sys

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from scipy.stats import genpareto

from pymc.variational.callbacks import CheckStationarity, Tracker
from pymc.variational.diagnostics import Diagnosis
from pymc.variational.plots import Panel, fit_panels, plot_fit
from pymc.variational.report import FitReport

NOT_FITTED = SimpleNamespace(hist=np.asarray(()), report=None, guide_losses={})


def fitted(losses: Any) -> Any:
    report = FitReport("ADVI", "numba", "numba", len(losses), 0.5, 3.0, "finished")
    return SimpleNamespace(hist=np.asarray(losses, dtype="float64"), report=report)


def tracker_of(every: int = 1, **values: Any) -> Tracker:
    """A tracker that recorded the given values."""
    iterators = {name: iter(series) for name, series in values.items()}
    tracker = Tracker(every=every, **{name: it.__next__ for name, it in iterators.items()})
    for i in range(len(next(iter(values.values())))):
        tracker(None, None, i + 1)
    return tracker


def diagnosis_of(log_weights: np.ndarray, khat: float) -> Diagnosis:
    smoothed = log_weights - np.log(np.exp(log_weights).sum())
    return Diagnosis(khat, 100.0, -1.0, 0.1, log_weights, smoothed, {})


@pytest.fixture
def check() -> CheckStationarity:
    check = CheckStationarity(tolerance=0.05)
    check.steps.extend([1000, 1200, 1440])
    check.moved.extend([1.5, 0.05, 0.0])
    check.mcse.extend([0.5, 0.06, 0.04])
    return check


@pytest.fixture
def pareto() -> Diagnosis:
    """Ratios at the quantiles of a Pareto tail of k = 0.8."""
    share = np.arange(0.5, 2000) / 2000
    return diagnosis_of(np.log(genpareto.ppf(share, 0.8) + 1 / 0.8), 0.8)


def panels(*args: Any, **kwargs: Any) -> list[Panel]:
    return list(fit_panels(*args, **kwargs))


class TestLoss:
    def test_running_mean(self):
        losses = np.random.default_rng(1).normal(size=1000)
        [panel] = panels(fitted(losses))
        raw, mean = panel.layers
        np.testing.assert_array_equal(raw.y, losses)
        np.testing.assert_allclose(mean.y[500], losses[490:510].mean())
        np.testing.assert_array_equal(raw.x, np.arange(1, 1001))

    def test_first_steps_do_not_squash_the_rest(self):
        rng = np.random.default_rng(2)
        losses = 100 + 1e6 * np.exp(-np.arange(5000) / 30) + rng.normal(size=5000)
        [panel] = panels(fitted(losses))
        assert panel.ylim is not None
        low, high = panel.ylim
        assert 95 < low < 98
        assert 102 < high < 105

    def test_means_are_inside(self):
        [panel] = panels(fitted(np.linspace(100, 0, 1000)))
        assert panel.ylim is not None
        assert panel.ylim[0] < 1
        assert panel.ylim[1] > 89

    @pytest.mark.parametrize("losses", [[3.0], [3.0, 3.0], [0.0]])
    def test_few_or_equal_losses(self, losses):
        [panel] = panels(fitted(losses))
        assert panel.ylim is not None
        assert panel.ylim[0] < losses[0] < panel.ylim[1]

    def test_of_many_steps_as_many_as_are_seen(self):
        [panel] = panels(fitted(np.zeros(1_234_567)))
        assert 2500 < len(panel.layers[0].x) <= 5000
        assert panel.xlabel == "thousand steps"
        assert panel.layers[0].x[0] == 0.001


class TestTraces:
    def test_steps_and_values(self):
        means = np.arange(12.0).reshape(4, 3)
        [panel] = panels(NOT_FITTED, tracker_of(every=10, mean=means))
        assert panel.title == "mean"
        assert [layer.y.tolist() for layer in panel.layers] == means.T.tolist()
        assert panel.layers[0].x.tolist() == [10, 20, 30, 40]

    def test_some_entries_of_many(self):
        [panel] = panels(NOT_FITTED, tracker_of(w=np.zeros((5, 10, 20))))
        assert panel.title == "w, 10 of 200 entries"
        assert len(panel.layers) == 10

    def test_a_statistic_that_is_no_number(self):
        tracker = tracker_of(text=["a", "b"])
        with pytest.raises(
            ValueError, match=r"'text' of the tracker begins with 'a'\. Leave it out"
        ):
            panels(NOT_FITTED, tracker)

    def test_nothing_recorded(self):
        assert panels(NOT_FITTED, Tracker(mean=lambda: 0)) == []


def test_checks_and_their_bounds(check):
    moved, error = panels(NOT_FITTED, check=check)
    assert moved.layers[0].y.tolist() == [1.5, 0.05, 0.0]
    assert set(moved.layers[1].y) == {0.005}
    assert error.layers[0].x.tolist() == [1000, 1200, 1440]
    assert set(error.layers[1].y) == {0.05}


def test_slope_of_the_tail(pareto):
    """The share above a ratio r of a Pareto tail goes as r^(-1/k)."""
    [panel] = panels(NOT_FITTED, diagnosis=pareto)
    points, line = panel.layers
    tail = points.y < -1.5
    slope = np.polyfit(points.x[tail], points.y[tail], 1)[0]
    assert slope == pytest.approx(-1 / 0.8, rel=0.1)
    np.testing.assert_allclose(points.x, line.x)
    assert points.y[0] == pytest.approx(np.log10(1 / 2000))
    assert panel.title == "Pareto k-hat 0.80: unreliable"


def test_mean_ratio_is_the_origin(pareto):
    [panel] = panels(NOT_FITTED, diagnosis=pareto)
    weights = np.exp(pareto.log_weights)
    expected = np.log10(weights.max() / weights.mean())
    assert panel.layers[0].x[0] == pytest.approx(expected)


class TestFigure:
    @pytest.fixture
    def closed(self) -> Iterator[None]:
        matplotlib = pytest.importorskip("matplotlib")
        matplotlib.use("agg")
        yield
        sys.modules["matplotlib.pyplot"].close("all")

    def everything(self, check: CheckStationarity, pareto: Diagnosis, backend: str) -> Any:
        means = np.random.default_rng(3).normal(size=(100, 3))
        tracker = tracker_of(mean=means, sd=abs(means))
        return plot_fit(fitted(np.arange(100)[::-1]), tracker, pareto, check, backend=backend)

    @pytest.mark.usefixtures("closed")
    def test_by_matplotlib(self, check, pareto, tmp_path):
        figure = self.everything(check, pareto, "matplotlib")
        drawn = figure.viz["figure"].item()
        assert drawn.get_suptitle().startswith("ADVI: 100 steps")
        axes = drawn.axes
        assert [ax.get_title() for ax in axes] == [
            "Loss",
            "mean",
            "sd",
            "Move over the stretch",
            "Standard error of the averages",
            "Pareto k-hat 0.80: unreliable",
        ]
        assert [len(ax.lines) + len(ax.collections) for ax in axes] == [2, 3, 3, 2, 2, 2]
        assert axes[0].get_ylabel() == "loss, and its running mean"
        figure.savefig(tmp_path / "fit.png")
        assert (tmp_path / "fit.png").stat().st_size > 10_000

    def test_without_a_library(self, check, pareto):
        figure = self.everything(check, pareto, "none")
        assert set(figure.data) >= {"Loss", "mean", "sd"}

    @pytest.mark.parametrize("default", [True, False])
    def test_library_missing(self, default, monkeypatch):
        arviz_base = pytest.importorskip("arviz_base")
        backend = None if default else "matplotlib"
        if default:
            monkeypatch.setitem(arviz_base.rcParams, "plot.backend", "none")
        else:
            monkeypatch.setitem(sys.modules, "arviz_plots.backend.matplotlib", None)
        with pytest.raises(ImportError, match=r"plot_fit draws by .* Install one, such as pip"):
            plot_fit(fitted([1.0]), backend=backend)

    def test_nothing_to_plot(self):
        with pytest.raises(ValueError, match="plot_fit has nothing to plot: the approximation has"):
            plot_fit(NOT_FITTED)
