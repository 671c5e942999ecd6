# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""What was measured, as values, tables and a picture."""

import json

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from _common import as_markdown
from _results import write_json

from posteriordb.methods import AUTO, EXPLAINED, METHODS

RIGHT, FLAGGED, WRONG = "right", "flagged", "wrong in silence"
COLORS = {RIGHT: "#0072b2", FLAGGED: "#c8ccd0", WRONG: "#d55e00"}  # told apart by the colour-blind


@dataclass(frozen=True)
class Fit:
    """How a fit came out.

    Parameters
    ----------
    posterior, method : str
    seed : int
    flag : str
        What it said against itself: a verdict, a warning or an error; empty if nothing.
    right : bool
        Whether its means and sds are near the reference's.
    mean_error, smallest_sd, largest_sd : float, optional
        As of :class:`posteriordb.scoring.Score`; None where they are not finite, or there are no draws.
    gradients : int, optional
    seconds, run_seconds : float, optional
        With compilation, and without.
    """

    posterior: str
    method: str
    seed: int
    flag: str = ""
    right: bool = False
    mean_error: float | None = None
    smallest_sd: float | None = None
    largest_sd: float | None = None
    gradients: int | None = None
    seconds: float | None = None
    run_seconds: float | None = None

    @property
    def outcome(self) -> str:
        if self.flag:
            return FLAGGED
        return RIGHT if self.right else WRONG

    @property
    def trusted(self) -> bool:
        """Whether an automatic fit has the verdict that it can be trusted."""
        return self.seconds is not None and not self.flag.startswith("not trusted")

    @property
    def key(self) -> tuple[str, str, int]:
        return self.posterior, self.method, self.seed


@dataclass(frozen=True)
class LeftOut:
    """A method that cannot be run."""

    method: str
    reason: str


@dataclass
class Results:
    """All fits, and the files that hold them.

    Parameters
    ----------
    folder : Path
    machine : str
        Of the last run.
    posteriors : sequence of str
        All there are.
    """

    folder: Path
    machine: str
    posteriors: Sequence[str]
    fits: list[Fit] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)

    @property
    def file(self) -> Path:
        return self.folder / "posteriordb.json"

    def read(self) -> None:
        """Read what an earlier run has written."""
        if self.file.exists():
            values = json.loads(self.file.read_text(encoding="utf-8"))
            self.fits = [Fit(**fit) for fit in values["fits"]]
            self.left_out = [LeftOut(**out) for out in values["left_out"]]

    def add(self, fit: Fit) -> None:
        """Add a fit in place of an earlier one, and write all of them."""
        self.fits = [other for other in self.fits if other.key != fit.key] + [fit]
        order = list(METHODS)
        self.fits.sort(key=lambda f: (order.index(f.method), self._place(f.posterior), f.seed))
        self.write_json()

    def _place(self, posterior: str) -> int:
        return list(self.posteriors).index(posterior)

    def write_json(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        sections: dict[str, Sequence[Fit | LeftOut]] = {
            "fits": self.fits,
            "left_out": self.left_out,
        }
        write_json(self.file, self.machine, sections)

    def write(self) -> str:
        """Write the JSON file, the tables and the picture, and return the tables."""
        self.write_json()
        text = as_text(self)
        self.folder.joinpath("posteriordb.md").write_text(text + "\n", encoding="utf-8")
        if self.fits:
            plot(self.folder / "posteriordb.png", by_method(self.fits), len(self.posteriors))
        return text


def by_method(fits: Sequence[Fit]) -> dict[str, list[Fit]]:
    """Group fits by their method, in the order of :data:`METHODS`."""
    return {name: found for name in METHODS if (found := [f for f in fits if f.method == name])}


def as_text(results: Results) -> str:
    """Write the summary, the reasons of what was left out, and a table for each posterior."""
    parts = [
        trusted_and_wrong(results.fits),
        f"One process for each method, with nothing compiled before. {results.machine}.",
        summary_table(results),
        *(f"{METHODS[out.method].label} was left out: {out.reason}." for out in results.left_out),
        EXPLAINED,
    ]
    for posterior in results.posteriors:
        found = [fit for fit in results.fits if fit.posterior == posterior]
        if found:
            parts.append(f"## {posterior}\n\n{posterior_table(found)}")
    return "\n\n".join(parts)


def trusted_and_wrong(fits: Sequence[Fit]) -> str:
    """Say how many automatic fits have the verdict that they can be trusted, and are wrong."""
    automatic = [fit for fit in fits if fit.method == AUTO]
    trusted = [fit for fit in automatic if fit.trusted]
    wrong = [f"{fit.posterior} (seed {fit.seed})" for fit in trusted if not fit.right]
    which = f": {', '.join(wrong)}" if wrong else ""
    return (
        f'**pm.fit(method="auto"): {len(wrong)} of {len(trusted)} trusted fits are wrong{which}.** '
        f"{len(automatic) - len(trusted)} of {len(automatic)} fits are not trusted."
    )


def summary_table(results: Results) -> str:
    """Write a line for each method: how its fits came out, and what they cost."""
    header = [
        "method",
        "fits",
        RIGHT,
        WRONG,
        "flagged (of them right)",
        "gradients",
        "s, with compilation",
        "s, without",
        "not run",
    ]
    grouped = by_method(results.fits)
    rows = []
    for name, method in METHODS.items():
        fits = grouped.get(name, [])
        counts = {outcome: [f for f in fits if f.outcome == outcome] for outcome in COLORS}
        flagged = counts[FLAGGED]
        timed = [fit for fit in fits if fit.seed == 1]  # a further fit of a model compiles less
        missing = len(results.posteriors) - len({fit.posterior for fit in fits})
        rows.append(
            [
                method.label,
                str(len(fits)),
                str(len(counts[RIGHT])),
                str(len(counts[WRONG])),
                f"{len(flagged)} ({sum(fit.right for fit in flagged)})",
                typical([fit.gradients for fit in timed], ",.0f"),
                typical([fit.seconds for fit in timed], ".3g"),
                typical([fit.run_seconds for fit in timed], ".3g"),
                str(missing) if missing else "",
            ]
        )
    return as_markdown(header, rows)


def typical(values: Sequence[float | None], form: str) -> str:
    """Return the median of what is known."""
    known = [value for value in values if value is not None]
    return format(median(known), form) if known else "–"


def posterior_table(fits: Sequence[Fit]) -> str:
    """Write a line for each fit of a posterior, and for each method that was not run."""
    header = ["method", "largest error of a mean, sds", "sd / right", "outcome", "what it says"]
    rows = []
    for name, method in METHODS.items():
        found = [fit for fit in fits if fit.method == name]
        if not found:
            rows.append([method.label, "–", "–", "not run", ""])
        for fit in found:
            label = f"{method.label}, seed {fit.seed}" if len(found) > 1 else method.label
            error = _figure(fit.mean_error)
            sds = f"{_figure(fit.smallest_sd)} to {_figure(fit.largest_sd)}"
            outcome = f"{fit.outcome}{', right' if fit.flag and fit.right else ''}"
            rows.append([label, error, sds, outcome, fit.flag.replace("|", "\\|")])
    return as_markdown(header, rows)


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.2g}"


def plot(file: Path, grouped: Mapping[str, Sequence[Fit]], n_posteriors: int) -> None:
    """Draw a bar for each method: how many fits are right, flagged and wrong; shorter if some were not run."""
    from matplotlib.figure import Figure  # the processes that fit need no plots

    labels = [_label(name, fits, n_posteriors) for name, fits in grouped.items()]
    figure = Figure(figsize=(9, 0.36 * len(labels) + 1.5), layout="constrained")
    axis = figure.subplots()
    starts = [0.0] * len(labels)
    wholes = [n_posteriors * _n_seeds(fits) for fits in grouped.values()]
    for outcome, color in COLORS.items():
        counts = [sum(fit.outcome == outcome for fit in fits) for fits in grouped.values()]
        parts = [n / whole for n, whole in zip(counts, wholes, strict=True)]
        bars = axis.barh(labels, parts, left=starts, color=color, height=0.72, label=outcome)
        numbers = [str(n) if n else "" for n in counts]
        ink = "black" if outcome == FLAGGED else "white"
        axis.bar_label(bars, numbers, label_type="center", color=ink, fontsize=9)
        starts = [start + part for start, part in zip(starts, parts, strict=True)]
    axis.invert_yaxis()
    axis.set(xlim=(0, 1), xticks=[])
    axis.tick_params(axis="y", length=0, labelsize=10)
    axis.spines[:].set_visible(False)
    figure.suptitle(
        f"{n_posteriors} posteriors of posteriordb: how the fits came out", weight="bold", x=0.5
    )
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=10)
    figure.savefig(file, dpi=120)


def _label(name: str, fits: Sequence[Fit], n_posteriors: int) -> str:
    done = len({fit.posterior for fit in fits})
    seeds = _n_seeds(fits)
    notes = [f"{seeds} seeds"] if seeds > 1 else []
    notes += [f"{done} of {n_posteriors}"] if done < n_posteriors else []
    return METHODS[name].label + (f" ({', '.join(notes)})" if notes else "")


def _n_seeds(fits: Sequence[Fit]) -> int:
    return len({fit.seed for fit in fits})
