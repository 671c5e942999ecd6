# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""A figure of a fit: losses, tracked parameters, stationarity, and the tail of importance ratios."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from textwrap import fill
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import xarray as xr

if TYPE_CHECKING:
    from arviz_plots import PlotCollection

    from pymc.variational.callbacks import CheckStationarity, Tracker
    from pymc.variational.diagnostics import Diagnosis
    from pymc.variational.opvi import Approximation  # type: ignore[attr-defined]  # the release's

__all__ = ["Panel", "fit_panels", "plot_fit"]

# More points than these cannot be told apart, and 10^7 of them take a minute to draw
MAX_POINTS = 5000
MAX_LINES = 10


class Layer(NamedTuple):
    """A line, or points, of a panel, with a style for ArviZ's backends."""

    x: np.ndarray
    y: np.ndarray
    style: dict[str, Any]
    points: bool = False


class Panel(NamedTuple):
    """One plot of the figure."""

    title: str
    xlabel: str
    ylabel: str
    layers: list[Layer]
    ylim: tuple[float, float] | None = None


def plot_fit(
    approx: Approximation,
    tracker: Tracker | None = None,
    diagnosis: Diagnosis | None = None,
    check: CheckStationarity | None = None,
    *,
    backend: str | None = None,
    figure_kwargs: Mapping[str, Any] | None = None,
) -> PlotCollection:
    """Plot how a fit went.

    Parameters
    ----------
    approx : Approximation
        Its `hist` is drawn as the loss of each step with a running mean over 2 % of the steps, in
        nats of all data where the report has a `loss_factor`. The first steps may lie outside.
    tracker : Tracker, optional
        Each of its statistics gets a plot; of an array, ten entries are drawn.
    diagnosis : Diagnosis, optional
        The result of `diagnose`: the importance ratios are drawn against the share of draws with larger
        ones, both on log scales, where a Pareto tail is a straight line of slope -1/k.
    check : CheckStationarity, optional
        The move of the parameters and the standard error of the averages are drawn at each check.
    backend : {"matplotlib", "plotly", "bokeh", "none"}, optional
        The drawing library; by default ``arviz_base.rcParams["plot.backend"]``.
    figure_kwargs : mapping, optional
        Of the figure, such as ``{"figsize": (10, 6)}``.

    Returns
    -------
    arviz_plots.PlotCollection
        Call ``.show()`` to show it, or ``.savefig(path)`` to write it.

    Raises
    ------
    ValueError
        If there is nothing to plot.
    ImportError
        If the library is not installed.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> import numpy as np
    >>> from pymc.variational.plots import plot_fit
    >>> approx = SimpleNamespace(
    ...     hist=10 / np.arange(1, 101), report=None
    ... )  # pm.fit returns one with a hist
    >>> figure = plot_fit(approx, backend="none")
    """
    panels = list(fit_panels(approx, tracker, diagnosis, check))
    if not panels:
        raise ValueError(
            "plot_fit has nothing to plot: the approximation has no losses (it was not fitted, or "
            "with score=False), and no tracker, diagnosis or check with records was passed. Pass the "
            "result of pm.fit, or tracker="
        )
    backend = _drawing_library(backend)
    # Imported for the first plot, since PyMC runs without plotting libraries
    from arviz_plots import PlotCollection, visuals

    figure = dict(figure_kwargs or {})
    if backend == "matplotlib":  # the others keep titles and labels apart by themselves
        n_rows, n_columns = -(-len(panels) // 2), min(len(panels), 2)
        figure.setdefault("layout", "constrained")
        figure.setdefault("figsize", (5.5 * n_columns, 3.6 * n_rows + 0.4))
    plots = PlotCollection.wrap(
        xr.Dataset({panel.title: _points(panel, panel.layers[0].y) for panel in panels}),
        cols=["__variable__"],
        col_wrap=2,
        backend=backend,
        figure_kwargs=figure,
    )
    for panel in panels:
        for i, layer in enumerate(panel.layers):
            draw = visuals.scatter_xy if layer.points else visuals.line_xy
            y = xr.Dataset({panel.title: _points(panel, layer.y)})
            plots.map(draw, f"layer_{i}", data=y, x=layer.x, **layer.style)
        of_panel = {"data": plots.data[[panel.title]]}
        plots.map(visuals.labelled_title, "title", text=panel.title, size=11, **of_panel)
        plots.map(visuals.labelled_x, "xlabel", text=panel.xlabel, size=10, **of_panel)
        plots.map(visuals.labelled_y, "ylabel", text=panel.ylabel, size=10, **of_panel)
        if panel.ylim is not None:
            limits = {"limits": panel.ylim, "store_artist": False}
            plots.map(visuals.set_ylim, "ylim", **limits, **of_panel)
    if approx.report is not None:
        plots.add_title(fill(str(approx.report), 100), size=10)
    return plots


def fit_panels(
    approx: Approximation,
    tracker: Tracker | None = None,
    diagnosis: Diagnosis | None = None,
    check: CheckStationarity | None = None,
) -> Iterator[Panel]:
    """Yield the plots of the figure of `plot_fit`."""
    losses, report = np.asarray(approx.hist, dtype="float64"), approx.report
    if losses.size:
        yield _loss_panel(losses, None if report is None else report.loss_factor)
    if tracker is not None:
        for name, values in tracker.hist.items():
            if values:
                yield _tracker_panel(name, values, tracker.every)
    if check is not None and check.steps:
        yield _check_panel(check, "Move over the stretch", check.moved, check.largest_move)
        yield _check_panel(check, "Standard error of the averages", check.mcse, check.tolerance)
    if diagnosis is not None:
        yield _tail_panel(diagnosis)


def _loss_panel(losses: np.ndarray, factor: float | None = None) -> Panel:
    from scipy.ndimage import uniform_filter1d  # takes as long to import as all modules of a fit

    n, unit = len(losses), ""
    if factor is not None:
        losses, unit = losses / factor, " in nats of all data"
    means = uniform_filter1d(losses, size=max(1, n // 50), mode="reflect")
    steps, xlabel = _step_axis(np.arange(1, n + 1))
    shown = slice(None, None, -(-n // MAX_POINTS))
    # Limits leave out the first tenth and the outermost losses of the rest, but none of its means
    settled, averages = losses[n // 10 :], means[n // 10 :]
    ends = [*np.quantile(settled, [0.005, 0.995]), averages.min(), averages.max()]
    margin = 0.05 * (np.ptp(ends) or abs(ends[0]) or 1)
    layers = [
        Layer(steps[shown], losses[shown], {"color": "C0", "alpha": 0.35, "width": 0.8}),
        Layer(steps[shown], means[shown], {"color": "C1", "width": 2}),
    ]
    ylim = float(min(ends) - margin), float(max(ends) + margin)
    return Panel("Loss", xlabel, f"loss{unit}, and its running mean", layers, ylim)


def _tracker_panel(name: str, values: Sequence[object], every: int) -> Panel:
    try:
        traces = np.asarray(values, dtype="float64")
    except (TypeError, ValueError):
        raise ValueError(
            f"plot_fit draws statistics that are numbers, or arrays of one shape, but {name!r} of "
            f"the tracker begins with {values[0]!r}. Leave it out: give it a tracker of its own"
        ) from None
    traces = traces.reshape(len(traces), -1)
    n, n_lines = traces.shape
    steps, xlabel = _step_axis(every * np.arange(1, n + 1))
    shown = slice(None, None, -(-n // MAX_POINTS))
    lines = np.unique(np.linspace(0, n_lines - 1, min(n_lines, MAX_LINES)).astype(int))
    part = f", {len(lines)} of {n_lines} entries" if len(lines) < n_lines else ""
    layers = [
        Layer(steps[shown], traces[shown, k], {"color": f"C{i}", "width": 0.8})
        for i, k in enumerate(lines)
    ]
    return Panel(f"{name}{part}", xlabel, name, layers)


def _check_panel(check: CheckStationarity, title: str, values: list[float], bound: float) -> Panel:
    x, xlabel = _step_axis(np.asarray(check.steps))
    layers = [
        Layer(x, np.asarray(values), {"color": "C0", "size": 12}, points=True),
        Layer(x[[0, -1]], np.full(2, bound), {"color": "C1", "linestyle": "--"}),
    ]
    return Panel(title, xlabel, "largest of the parameters", layers)


def _tail_panel(diagnosis: Diagnosis) -> Panel:
    n = len(diagnosis.log_weights)
    # Smoothing keeps the order, and leaves the smallest ratio alone but for the normalisation
    raw, smoothed = np.sort(diagnosis.log_weights), np.sort(diagnosis.smoothed_log_weights)
    raw = raw + (smoothed[0] - raw[0])
    ranks = np.unique(np.geomspace(1, n, 400).astype(int))
    share = np.log10(ranks / n)
    ratios, tail = ((x[n - ranks] + np.log(n)) / np.log(10) for x in (raw, smoothed))
    return Panel(
        f"Pareto k-hat {diagnosis.khat:.2f}: {diagnosis.verdict}",
        "log10 of the importance ratio (mean: 0)",
        "log10 of the share of draws above",
        [
            Layer(ratios, share, {"color": "C0", "size": 10}, points=True),
            Layer(tail, share, {"color": "C1", "width": 1.5}),
        ],
    )


def _step_axis(steps: np.ndarray) -> tuple[np.ndarray, str]:
    """Return steps and their label, in thousands if there are many, so that ticks stand apart."""
    return (steps / 1000, "thousand steps") if steps[-1] >= 20_000 else (steps, "step")


def _points(panel: Panel, y: np.ndarray) -> tuple[str, np.ndarray]:
    """Return a variable of a Dataset with a dim of its own."""
    return f"{panel.title}_point", y


def _drawing_library(backend: str | None) -> str:
    """Return the name of the drawing library, or raise an ImportError if it is not installed."""
    from arviz_base import rcParams

    name = backend or rcParams["plot.backend"]
    try:
        if name == "none" and backend is None:
            raise ImportError("neither matplotlib, nor plotly, nor bokeh is installed")
        import_module(f"arviz_plots.backend.{name}")
    except ImportError as error:
        raise ImportError(
            f"plot_fit draws by {name!r} through arviz-plots, but: {error}. Install one, such as "
            "pip install 'arviz-plots[matplotlib]', or say backend= for one that you have"
        ) from error
    return name
