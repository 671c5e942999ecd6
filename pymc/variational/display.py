# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Displays of results: cards with the verdict first and charts for notebooks, and charts for terminals.

Colours of text and lines are those around them, so that light and dark themes need no rule each. Styles are
inline, since notebooks that are not trusted lose style sheets. Nothing is loaded from elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple

import numpy as np

__all__ = ["Status", "bar", "block_means", "card", "chart", "line", "text_chart"]

#: Grounds of the words of a verdict, dark enough for white letters; and ArviZ's first colour, for lines.
GOOD, BAD, UNKNOWN, CURVE = "#1a7f37", "#b04a00", "#5f6b7a", "#36acc6"

#: Lines that have to be seen on light and on dark ground.
FAINT = "rgba(128,128,128,.45)"

#: Terms of a list, whose width and float JupyterLab sets.
TERM = "opacity:.75;font-weight:normal;float:none;width:auto;white-space:nowrap"

#: Size of a chart in pixels, and its margins: left, right, top, bottom.
WIDTH, HEIGHT, MARGINS = 460, 150, (76, 10, 10, 34)


class Status(NamedTuple):
    """A verdict: its word, whether it is good (None: unknown), and the sentence after it."""

    word: str
    good: bool | None
    text: str = ""


def card(
    title: str,
    status: Status | None,
    rows: Mapping[str, object],
    more: Mapping[str, object] | None = None,
    figure: str = "",
) -> str:
    """Return a box with a title, a verdict, a table, and what unfolds by a click.

    Parameters
    ----------
    title : str
    status : Status, optional
    rows, more : mapping of str to object
        Lines of the table, and of the part that unfolds. All text is escaped.
    figure : str
        HTML between the two, such as the result of :func:`chart`.

    Examples
    --------
    >>> from pymc.variational.display import Status, card
    >>> html = card("ADVI", Status("converged", True), {"stopped": "a < b"})
    >>> html.index("converged") < html.index("a &lt; b")
    True
    """
    parts = ['<div style="border:1px solid ', FAINT, ";border-left:4px solid "]
    parts += [FAINT if status is None else _colour(status.good)]
    parts += [";border-radius:3px;padding:.5em .8em;max-width:52em;line-height:1.5;color:inherit"]
    parts += ['"><div>']
    if status is not None:
        parts += [_badge(status), " "]
    parts += ["<b>", escape(title), "</b></div>"]
    if status is not None and status.text:
        parts += ['<div style="margin:.2em 0">', escape(status.text), "</div>"]
    parts += [_table(rows), figure]
    if more:
        parts += ['<details><summary style="cursor:pointer">Settings</summary>', _table(more)]
        parts += ["</details>"]
    return "".join([*parts, "</div>"])


def line(text: str) -> str:
    """Return a line of text.

    Examples
    --------
    >>> from pymc.variational.display import line
    >>> line("a < b")
    '<div>a &lt; b</div>'
    """
    return f"<div>{escape(text)}</div>"


def bar(share: float, text: str) -> str:
    """Return a progress bar that is full to a `share` of 0 to 1, and a text below it."""
    percent = 100 * min(max(share, 0.0), 1.0)
    return (
        f'<div role="progressbar" aria-valuenow="{percent:.0f}" aria-valuemin="0" aria-valuemax="100" '
        f'style="height:.5em;max-width:34em;margin:.4em 0 .2em;background:{FAINT};border-radius:3px">'
        f'<div style="height:100%;width:{percent:.1f}%;background:{CURVE};border-radius:3px"></div></div>'
        f"{line(text)}"
    )


def chart(
    x: np.ndarray, y: np.ndarray, label: str, xlabel: str = "step", *, log: bool = False
) -> str:
    """Return a line chart as SVG.

    Parameters
    ----------
    x, y : array of floats, shape (n,)
        Values that are not finite are left out.
    label, xlabel : str
    log : bool
        Whether the y axis is logarithmic. Values up to 0 are left out then.

    Examples
    --------
    >>> import numpy as np
    >>> from pymc.variational.display import chart
    >>> "polyline" in chart(np.arange(3), np.array([3.0, 2.0, 1.0]), "loss")
    True
    """
    x, height = _finite(x, y, log)
    if not len(x):
        return ""
    left, right, top, bottom = MARGINS
    low, high = _limits(height)
    across = left + (WIDTH - left - right) * _unit(x, x.min(), x.max())
    down = HEIGHT - bottom - (HEIGHT - top - bottom) * _unit(np.clip(height, low, high), low, high)
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(across, down))
    highest, lowest, last = _numbers([high, low, height[-1]], log)
    base = HEIGHT - bottom
    texts = [
        (left - 6, top + 8, "end", highest),
        (left - 6, base, "end", lowest),
        (left, base + 14, "start", f"{x.min():,.0f}"),
        (WIDTH - right, base + 14, "end", f"{x.max():,.0f}"),
        ((left + WIDTH - right) / 2, base + 26, "middle", f"{label}, by {xlabel}"),
    ]
    labels = "".join(
        f'<text x="{a:.0f}" y="{b:.0f}" text-anchor="{anchor}">{escape(text)}</text>'
        for a, b, anchor, text in texts
    )
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}: {last}" '
        f'style="width:{WIDTH}px;max-width:100%;display:block" font-size="11" fill="currentColor">'
        f'<path d="M{left},{top}V{base}H{WIDTH - right}" fill="none" stroke="{FAINT}"/>'
        f'<polyline points="{points}" fill="none" stroke="{CURVE}" stroke-width="1.6"/>{labels}</svg>'
    )


#: Blocks of a column from empty to full, and rows of a chart.
BLOCKS, N_ROWS = " ▁▂▃▄▅▆▇█", 8


def text_chart(
    x: np.ndarray, y: np.ndarray, label: str, width: int = 60, *, log: bool = False
) -> str:
    """Return a chart of columns, as text of eight rows of `width` characters and a line with the label.

    Parameters
    ----------
    x, y, label, log
        As of :func:`chart`.
    width : int

    Examples
    --------
    >>> import numpy as np
    >>> from pymc.variational.display import text_chart
    >>> print(text_chart(np.arange(4), np.array([4.0, 3.0, 2.0, 1.0]), "loss", 4).splitlines()[-2])
    0.8 ███▃
    """
    x, height = _finite(x, y, log)
    if not len(x):
        return ""
    low, high = _limits(height)
    columns = np.interp(np.linspace(x[0], x[-1], width), x, height)
    eighths = np.rint(8 * N_ROWS * _unit(np.clip(columns, low, high), low, high)).astype(int)
    rows = [
        "".join(BLOCKS[n] for n in np.clip(eighths - 8 * row, 0, 8))
        for row in reversed(range(N_ROWS))
    ]
    top, bottom = _numbers([high, low], log)
    margin = max(len(top), len(bottom))
    names = [top, *[""] * (N_ROWS - 2), bottom]
    lines = [f"{name:>{margin}} {row}" for name, row in zip(names, rows)]
    return "\n".join([*lines, " " * margin + f" {label}, to {x[-1]:,.0f}"])


def block_means(values: np.ndarray, n: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Return the ends and the means of `n` successive parts of values, or of all if they are fewer.

    Examples
    --------
    >>> import numpy as np
    >>> from pymc.variational.display import block_means
    >>> block_means(np.array([4.0, 2.0, 1.0, 1.0]), 2)
    (array([2, 4]), array([3., 1.]))
    """
    if not len(values):
        return np.arange(0), np.asarray(values, "float64")
    n = min(n, len(values))
    ends = np.arange(1, n + 1) * len(values) // n
    starts = np.concatenate([[0], ends[:-1]])
    return ends, np.add.reduceat(values, starts) / (ends - starts)


def _finite(x: np.ndarray, y: np.ndarray, log: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return points with finite heights, or logarithms of these."""
    x, y = np.asarray(x, "float64"), np.asarray(y, "float64")
    with np.errstate(all="ignore"):
        height = np.log10(y) if log else y
    shown = np.isfinite(height)
    return x[shown], height[shown]


def _numbers(heights: Sequence[float], log: bool) -> list[str]:
    """Write heights of a chart, the first two of which are its ends, with the digits that tell these apart."""
    if log:
        return [f"{10**height:.3g}" for height in heights]
    digits = 1 - int(np.floor(np.log10(heights[0] - heights[1])))
    if digits > 4 or max(map(abs, heights)) >= 1e8:
        return [f"{height:.4g}" for height in heights]
    return [f"{height:,.{max(digits, 0)}f}" for height in heights]


def _limits(y: np.ndarray) -> tuple[float, float]:
    """Return the ends of an axis, which leave out the first tenth of the values if they are far off."""
    settled = y[len(y) // 10 :]
    margin = 0.05 * (np.ptp(settled) or abs(settled[0]) or 1)
    return float(settled.min() - margin), float(settled.max() + margin)


def _unit(values: np.ndarray, low: float, high: float) -> np.ndarray:
    return (values - low) / (high - low) if high > low else np.full(len(values), 0.5)


def _colour(good: bool | None) -> str:
    return UNKNOWN if good is None else GOOD if good else BAD


def _badge(status: Status) -> str:
    style = f"background:{_colour(status.good)};color:#fff;padding:.1em .5em;border-radius:3px"
    return f'<span style="{style};font-weight:600">{escape(status.word)}</span>'


def _table(rows: Mapping[str, object]) -> str:
    """Return lines of two columns; lists, which notebooks do not stripe as they do tables."""
    cells = "".join(
        f'<dt style="{TERM}">{escape(str(name))}</dt>'
        f'<dd style="margin:0;width:auto;overflow-wrap:anywhere">{escape(str(value))}</dd>'
        for name, value in rows.items()
    )
    style = "display:grid;grid-template-columns:max-content 1fr;gap:0 1em;margin:.2em 0"
    return f'<dl style="{style}">{cells}</dl>' if cells else ""
