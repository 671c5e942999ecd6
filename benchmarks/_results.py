# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""What the engine's benchmark measured, as values, tables and a picture."""

import json

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from _common import PATCH, as_markdown, ratio

HAND = "by hand"


@dataclass(frozen=True)
class Measured:
    """One peer in one case.

    Parameters
    ----------
    case, dtype, peer : str
    times : sequence of float
        Microseconds of a step, or seconds to the first steps; one for each round.
    n_steps : int
        Steps that a round took.
    memory : float
        Peak resident size above that when the data were there, in MB.
    accuracy : mapping of str to float
        Largest error of a mean in posterior sds, smallest and largest ratio of sds; empty if unknown.
    """

    case: str
    dtype: str
    peer: str
    times: Sequence[float]
    n_steps: int
    memory: float = 0.0
    accuracy: Mapping[str, float] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, str, str]:
        return self.case, self.dtype, self.peer


@dataclass(frozen=True)
class Aim:
    """A ratio of times that the project set itself.

    Parameters
    ----------
    case, dtype, slow, fast : str
        The time of one peer over that of another.
    aim : str
        Such as "≥ 3".
    """

    case: str
    dtype: str
    slow: str
    fast: str
    aim: str


Section = list[Measured]


def find(section: Section, case: str, dtype: str, peer: str) -> Measured | None:
    """Return what was measured of a peer, or None."""
    return next((m for m in section if m.key == (case, dtype, peer)), None)


def compared(measured: Measured, section: Section, to: str = PATCH) -> str:
    """Say how its time compares to that of another peer in the same rounds."""
    other = find(section, measured.case, measured.dtype, to)
    if other is None:
        return "–"
    return f"{ratio(measured.times, other.times):.3g} ×"


def steps_table(section: Section) -> str:
    """Write a line for each peer in each case: its time, and where its fit ended."""
    header = [
        "case",
        "peer",
        "µs a step",
        "patch = 1",
        "steps",
        "error of means, sds",
        "sd / right",
    ]
    rows = []
    for m in section:
        error, sds = "–", "–"
        if m.accuracy:
            error = f"{m.accuracy['mean_error']:.2f}"
            sds = f"{m.accuracy['smallest_sd']:.2f} to {m.accuracy['largest_sd']:.2f}"
        time = f"{median(m.times):.3g}"
        steps = f"{m.n_steps * len(m.times):,}"
        case = f"{m.case}, {m.dtype}"
        rows.append([case, m.peer, time, compared(m, section), steps, error, sds])
    return as_markdown(header, rows)


def aims_table(section: Section, aims: Sequence[Aim]) -> str:
    """Write the ratios that the project set itself, as far as both sides were measured."""
    rows = []
    for aim in aims:
        slow = find(section, aim.case, aim.dtype, aim.slow)
        fast = find(section, aim.case, aim.dtype, aim.fast)
        if slow and fast:
            case = f"{aim.case}, {aim.dtype}: {aim.slow} / {aim.fast}"
            rows.append([case, f"{ratio(slow.times, fast.times):.3g}", aim.aim])
    return as_markdown(["ratio of times", "measured", "aim"], rows)


def first_table(section: Section) -> str:
    """Write the time of a process's first fit, and what memory it took."""
    header = ["first fit of a process", "peer", "s", "patch = 1", "memory, MB"]
    rows = [
        [m.case, m.peer, f"{median(m.times):.3g}", compared(m, section), f"{m.memory:,.0f}"]
        for m in section
    ]
    return as_markdown(header, rows)


def rows_table(section: Section) -> str:
    """Write the cost of a step against the number of rows, over that with the fewest, and by hand."""
    header = ["rows", "peer", "µs a step", "fewest rows = 1", "by hand = 1", "memory, MB"]
    fewest = {m.peer: m for m in reversed(section)}
    rows = []
    for m in section:
        growth = f"{ratio(m.times, fewest[m.peer].times):.2f}"
        time, by_hand = f"{median(m.times):.3g}", compared(m, section, HAND)
        rows.append([m.case, m.peer, time, growth, by_hand, f"{m.memory:,.0f}"])
    return as_markdown(header, rows)


def write_json(file: Path, machine: str, sections: Mapping[str, Sequence[Any]]) -> None:
    """Write all figures, rounded, one measurement a line; `sections` hold dataclasses."""
    values = {
        name: ",\n".join(json.dumps(_rounded(asdict(m)), ensure_ascii=False) for m in section)
        for name, section in sections.items()
    }
    parts = [f'"machine": {json.dumps(machine, ensure_ascii=False)}']
    parts += [f'"{name}": [\n{lines}\n]' for name, lines in values.items()]
    file.write_text("{\n" + ",\n".join(parts) + "\n}\n", encoding="utf-8")


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, Mapping):
        return {k: _rounded(v) for k, v in value.items()}
    return [_rounded(v) for v in value] if isinstance(value, list | tuple) else value


def read_json(file: Path) -> tuple[str, dict[str, Section]]:
    """Read what :func:`write_json` wrote: the machine and the sections."""
    values = json.loads(file.read_text(encoding="utf-8"))
    machine = values.pop("machine")
    return machine, {name: [Measured(**m) for m in section] for name, section in values.items()}


def plot(file: Path, steps: Section, rows: Section) -> None:
    """Draw the time of a step, a panel for each case, and against the number of rows."""
    from matplotlib.figure import Figure  # the other benchmarks need no plots

    groups: dict[str, Section] = {}
    for m in steps:
        if "progress bar" not in m.peer:
            groups.setdefault(f"{m.case}, {m.dtype}", []).append(m)
    heights = [len(group) + 1.8 for group in groups.values()]
    figure = Figure(figsize=(10, 0.24 * sum(heights) + 0.6), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(3, 2), squeeze=False)[0]
    panels = left.subplots(len(groups), 1, height_ratios=heights, squeeze=False)[:, 0]
    for axis, (title, group) in zip(panels, groups.items(), strict=True):
        times = [median(m.times) for m in group]
        bars = axis.barh([m.peer for m in group], times, color=[_color(m.peer) for m in group])
        axis.bar_label(bars, fmt="%.3g", padding=3, fontsize=8)
        axis.set_title(f"{title}: µs a step", loc="left", fontsize=9, weight="bold")
        axis.invert_yaxis()
        axis.margins(x=0.12)
        axis.set_xticks([])
        axis.tick_params(axis="y", labelsize=8, length=0)
        axis.spines[["top", "right", "bottom"]].set_visible(False)
    axis = right.subplots()
    for peer in dict.fromkeys(m.peer for m in rows):
        own = [m for m in rows if m.peer == peer]
        x = [int(m.case.replace(",", "")) for m in own]
        axis.plot(x, [median(m.times) for m in own], "o-", color=_color(peer), label=peer)
    axis.set(xscale="log", ylim=(0, None), xlabel="rows of data")
    axis.set_title("µs a step against the number of rows", loc="left", fontsize=9, weight="bold")
    if rows:
        axis.legend(frameon=False)
    axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=100)


def _color(peer: str) -> str:
    return "#d1662b" if peer.startswith(PATCH) else "#9aa5b1"
