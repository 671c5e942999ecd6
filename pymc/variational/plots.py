# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""One figure of a fit: losses, parameters in the course of it, and the tail of importance ratios."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from textwrap import fill
from typing import Any

import numpy as np
import xarray as xr

from pymc.variational.callbacks import CheckStationarity, Tracker
from pymc.variational.diagnostics import Diagnosis

__all__ = ["Layer", "Panel", "fit_panels", "plot_fit"]

# More points than these are not seen, and 10^7 of them take a minute to draw
_MAX_POINTS = 5000
_MAX_LINES = 10
_PALE: Mapping[str, Any] = {"alpha": 0.35, "width": 0.8}


@dataclass(frozen=True, eq=False)
class Layer:
    """A line, or points, of a panel.

    Parameters
    ----------
    x, y : array of float, shape (n,)
    points : bool
        Whether it is drawn as points.
    style : mapping
        What ArviZ's backends take: alpha, width, color, linestyle, size.
    """

    x: np.ndarray
    y: np.ndarray
    points: bool = False
    style: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Panel:
    """One plot of the figure: what it shows, whatever draws it.

    Parameters
    ----------
    title, xlabel, ylabel : str
    layers : sequence of Layer
    ylim : tuple of float, optional
    """

    title: str
    xlabel: str
    ylabel: str
    layers: Sequence[Layer]
    ylim: tuple[float, float] | None = None


def plot_fit(
    approx: Any,
    tracker: Tracker | None = None,
    diagnosis: Diagnosis | None = None,
    check: CheckStationarity | None = None,
    *,
    backend: str | None = None,
    figure_kwargs: Mapping[str, Any] | None = None,
) -> Any:
    """Plot how a fit went.

    Parameters
    ----------
    approx : Approximation
        Its `hist` is drawn as the loss of each step with a running mean over 2 % of the steps, in
        nats of all data where the report has a `loss_factor`. The first steps may lie outside.
    tracker : Tracker, optional
        Each of its statistics gets a plot; of an array, ten entries are drawn.
    diagnosis : Diagnosis, optional
        What `diagnose` returned: the importance ratios against the share of draws with larger ones,
        both on log scales, where a Pareto tail is a straight line of slope -1/k.
    check : CheckStationarity, optional
        What it found at each check: how far a parameter moved, and the standard error of the averages.
    backend : {"matplotlib", "plotly", "bokeh", "none"}, optional
        Library that draws it; by default ``arviz_base.rcParams["plot.backend"]``.
    figure_kwargs : mapping, optional
        Of the figure, such as ``{"figsize": (10, 6)}``.

    Returns
    -------
    arviz_plots.PlotCollection
        Shown by ``.show()``, written by ``.savefig(path)``.

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
            "with score=False), and neither a tracker, nor a diagnosis, nor a check with records "
            "was given. Take what pm.fit returns, or pass tracker="
        )
    collection = _figure(panels, _drawing_backend(backend), dict(figure_kwargs or {}))
    if approx.report is not None:
        collection.add_title(fill(str(approx.report), 100), size=10)
    return collection


def fit_panels(
    approx: Any,
    tracker: Tracker | None = None,
    diagnosis: Diagnosis | None = None,
    check: CheckStationarity | None = None,
) -> Iterator[Panel]:
    """Yield what `plot_fit` draws."""
    losses, report = np.asarray(approx.hist, dtype="float64"), approx.report
    if losses.size:
        yield _loss_panel(losses, None if report is None else report.loss_factor)
    if tracker is not None:
        kept = {name: values for name, values in tracker.hist.items() if values}
        yield from (_trace_panel(name, kept[name], tracker.every) for name in kept)
    if check is not None and check.steps:
        yield from _check_panels(check)
    if diagnosis is not None:
        yield _tail_panel(diagnosis)


def _loss_panel(losses: np.ndarray, factor: float | None = None) -> Panel:
    from scipy.ndimage import uniform_filter1d  # takes as long to import as all modules of a fit

    n, unit = len(losses), ""
    if factor is not None:
        losses, unit = losses / factor, " in nats of all data"
    means = uniform_filter1d(losses, size=max(1, n // 50), mode="reflect")
    steps, xlabel = _step_axis(np.arange(1, n + 1))
    shown = slice(None, None, -(-n // _MAX_POINTS))
    # Without the first tenth and the outermost losses of the rest, but with all of its means
    settled, averages = losses[n // 10 :], means[n // 10 :]
    ends = [*np.quantile(settled, [0.005, 0.995]), averages.min(), averages.max()]
    margin = 0.05 * (np.ptp(ends) or abs(ends[0]) or 1)
    return Panel(
        title="Loss",
        xlabel=xlabel,
        ylabel=f"loss{unit}, and its running mean",
        layers=[
            Layer(steps[shown], losses[shown], style={**_PALE, "color": "C0"}),
            Layer(steps[shown], means[shown], style={"color": "C1", "width": 2}),
        ],
        ylim=(float(min(ends) - margin), float(max(ends) + margin)),
    )


def _trace_panel(name: str, values: Sequence[Any], every: int) -> Panel:
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
    shown = slice(None, None, -(-n // _MAX_POINTS))
    lines = np.unique(np.linspace(0, n_lines - 1, min(n_lines, _MAX_LINES)).astype(int))
    part = f", {len(lines)} of {n_lines} entries" if len(lines) < n_lines else ""
    return Panel(
        title=f"{name}{part}",
        xlabel=xlabel,
        ylabel=name,
        layers=[
            Layer(steps[shown], traces[shown, k], style={"color": f"C{i}", "width": 0.8})
            for i, k in enumerate(lines)
        ],
    )


def _step_axis(steps: np.ndarray) -> tuple[np.ndarray, str]:
    """Write steps in thousands where there are many, so that their ticks stand apart."""
    return (steps / 1000, "thousand steps") if steps[-1] >= 20_000 else (steps, "step")


def _check_panels(check: CheckStationarity) -> Iterator[Panel]:
    found = {
        "Move over the stretch": (check.moved, check.largest_move),
        "Standard error of the averages": (check.mcse, check.tolerance),
    }
    x, xlabel = _step_axis(np.asarray(check.steps))
    for title, (values, bound) in found.items():
        if values:
            limit = Layer(x[[0, -1]], np.full(2, bound), style={"color": "C1", "linestyle": "--"})
            style = {"color": "C0", "size": 12}
            layers = [Layer(x, np.asarray(values), points=True, style=style), limit]
            yield Panel(title, xlabel, "largest of the parameters", layers)


def _tail_panel(diagnosis: Diagnosis) -> Panel:
    n = len(diagnosis.log_weights)
    # Smoothing keeps the order, and leaves the smallest ratio alone but for the normalisation
    raw, smoothed = np.sort(diagnosis.log_weights), np.sort(diagnosis.smoothed_log_weights)
    raw = raw + (smoothed[0] - raw[0])
    ranks = np.unique(np.geomspace(1, n, 400).astype(int))
    share = np.log10(ranks / n)
    ratios, tail = ((x[n - ranks] + np.log(n)) / np.log(10) for x in (raw, smoothed))
    return Panel(
        title=f"Pareto k-hat {diagnosis.khat:.2f}: {diagnosis.verdict}",
        xlabel="log10 of the importance ratio (mean: 0)",
        ylabel="log10 of the share of draws above",
        layers=[
            Layer(ratios, share, points=True, style={"color": "C0", "size": 10}),
            Layer(tail, share, style={"color": "C1", "width": 1.5}),
        ],
    )


def _drawing_backend(backend: str | None) -> str:
    """Return the name of the library that draws, once it is known to be there.

    Raises
    ------
    ImportError
        If it is not installed.
    """
    # PyMC runs without plotting libraries, and imports none before a plot is asked for
    from arviz_base import rcParams

    given, backend = backend, backend or rcParams["plot.backend"]
    try:
        if backend == "none" and given is None:
            raise ImportError("neither matplotlib, nor plotly, nor bokeh is installed")
        import_module(f"arviz_plots.backend.{backend}")
    except ImportError as error:
        raise ImportError(
            f"plot_fit draws by {backend!r} through arviz-plots, but: {error}. Install one, such as "
            "pip install 'arviz-plots[matplotlib]', or say backend= for one that you have"
        ) from error
    return backend


def _figure(panels: Sequence[Panel], backend: str, figure_kwargs: dict[str, Any]) -> Any:
    # For the reason given in _drawing_backend
    from arviz_plots import PlotCollection

    data = xr.Dataset({p.title: (f"{p.title}_point", p.layers[0].y) for p in panels})
    if backend == "matplotlib":  # the others keep titles and labels apart by themselves
        figure_kwargs.setdefault("layout", "constrained")
        rows = -(-len(panels) // 2)
        figure_kwargs.setdefault("figsize", (5.5 * min(len(panels), 2), 3.6 * rows + 0.4))
    collection = PlotCollection.wrap(
        data, cols=["__variable__"], col_wrap=2, backend=backend, figure_kwargs=figure_kwargs
    )
    for panel in panels:
        _draw(panel, collection)
    return collection


def _draw(panel: Panel, collection: Any) -> None:
    # For the reason given in _drawing_backend
    from arviz_plots import visuals

    for i, layer in enumerate(panel.layers):
        draw = visuals.scatter_xy if layer.points else visuals.line_xy
        y = xr.Dataset({panel.title: (f"{panel.title}_point", layer.y)})
        collection.map(draw, f"layer_{i}", data=y, x=layer.x, **layer.style)
    y = collection.data[[panel.title]]
    collection.map(visuals.labelled_title, "title", data=y, text=panel.title, size=11)
    collection.map(visuals.labelled_x, "xlabel", data=y, text=panel.xlabel, size=10)
    collection.map(visuals.labelled_y, "ylabel", data=y, text=panel.ylabel, size=10)
    if panel.ylim is not None:
        collection.map(visuals.set_ylim, "ylim", data=y, limits=panel.ylim, store_artist=False)
